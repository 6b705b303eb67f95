import math

import pytest
import torch
from torch import Tensor

from gaitzoo.data.augment import (
    RandomAugment,
    change_perspective,
    coarsen,
    erase_rectangle,
    flip_horizontally,
    rotate,
    roughen_outline,
)

FUNCTIONS = {
    "flip": flip_horizontally,
    "rotate": lambda x: rotate(x, 7.0),
    "perspective": lambda x: change_perspective(x, torch.full((4, 2), 0.05)),
    "erase": lambda x: erase_rectangle(x, 0.2, 0.2, 0.3, 0.3),
    "roughen": lambda x: roughen_outline(x, 0.5, seeded()),
    "coarsen": lambda x: coarsen(x, 2.0),
    "random": lambda x: RandomAugment(flip=1, rotate=1, perspective=1, erase=1, roughen=1)(
        x, seeded()
    ),
}
NAMES = ("flip", "rotate", "perspective", "erase", "roughen", "coarsen")
NONE = dict.fromkeys(NAMES, 0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(frames: int = 3, height: int = 32, width: int = 24, radius: float = 7.0) -> Tensor:
    y = torch.arange(height)[:, None] + 0.5 - height / 2
    x = torch.arange(width) + 0.5 - width / 2
    return ((x**2 + y**2) < radius**2).float().expand(frames, -1, -1).clone()


def sample_bilinear(frame: Tensor, x: float, y: float) -> float:
    """Value at a place in pixels, the first pixel's centre at 0.5; background outside."""
    height, width = frame.shape
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
                value += weight * float(frame[row, column])
    return value


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_shape_dtype_and_range_stay(name: str, dtype: torch.dtype) -> None:
    walk = (torch.rand(4, 20, 14, generator=seeded()) > 0.5).to(dtype)
    walk = walk * 255 if dtype == torch.uint8 else walk
    before = walk.clone()
    result = FUNCTIONS[name](walk)
    assert result.shape == walk.shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= (255 if dtype == torch.uint8 else 1)
    torch.testing.assert_close(walk, before)  # the input is left alone


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "random"])
def test_uint8_is_float_rounded(name: str) -> None:
    grey = torch.randint(256, (3, 20, 14), dtype=torch.uint8, generator=seeded(1))
    expected = FUNCTIONS[name](grey / 255) * 255
    torch.testing.assert_close(FUNCTIONS[name](grey).float(), expected, atol=0.51, rtol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (torch.rand(20, 14), ValueError, r"one sequence \[T, H, W\].*got \[20, 14\]"),
        (torch.rand(0, 20, 14), ValueError, "none of them 0"),
        (torch.ones(2, 20, 14, dtype=torch.int64), TypeError, r"uint8.*got torch\.int64"),
        ([[[0.0]]], TypeError, "torch.Tensor, got list"),
    ],
)
def test_bad_sequences(name: str, bad: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        FUNCTIONS[name](bad)  # pyright: ignore[reportArgumentType]


def test_flip_is_its_own_inverse() -> None:
    walk = torch.rand(3, 5, 4)
    flipped = flip_horizontally(walk)
    assert flipped[2, 1, 0] == walk[2, 1, 3]
    torch.testing.assert_close(flip_horizontally(flipped), walk)


@pytest.mark.parametrize("degrees", [0.0, 10.0, -35.0, 90.0, 180.0])
def test_rotation_against_a_loop(degrees: float) -> None:
    height, width = 9, 6
    frame = torch.rand(height, width, generator=seeded())
    angle = math.radians(degrees)
    expected = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5 - width / 2, row + 0.5 - height / 2
            source_x = math.cos(angle) * x + math.sin(angle) * y + width / 2
            source_y = -math.sin(angle) * x + math.cos(angle) * y + height / 2
            expected[row, column] = sample_bilinear(frame, source_x, source_y)
    torch.testing.assert_close(rotate(frame[None], degrees)[0], expected, atol=1e-5, rtol=0)


def test_a_disc_does_not_turn() -> None:
    turned = rotate(disc(), 30.0)
    assert (turned - disc()).abs().mean() < 0.03


def test_perspective_moves_the_corners() -> None:
    height, width = 40, 30
    shifts = torch.tensor([[0.1, 0.2], [0.05, 0.1], [-0.1, 0.0], [0.2, 0.15]])
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    ramps = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)])
    moved = change_perspective(ramps, shifts)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for corner, shift in zip(corners, shifts, strict=True):
        row = 0 if corner[1] == 0 else height - 1
        column = 0 if corner[0] == 0 else width - 1
        source = 0.5 + (corner - 0.5) * (1 - 2 * shift)
        if bool(((source > 0.02) & (source < 0.98)).all()):
            torch.testing.assert_close(moved[:, row, column], source, atol=0.04, rtol=0)
    assert moved[:, height - 1, 0].eq(0).all()  # that corner lies outside of the source


def test_equal_shifts_magnify() -> None:
    larger = change_perspective(disc(), torch.full((4, 2), 0.1))
    assert larger.sum() / disc().sum() == pytest.approx(1 / 0.8**2, rel=0.03)


@pytest.mark.parametrize(
    ("shifts", "match"),
    [(torch.zeros(2, 4), r"\[4, 2\], got \[2, 4\]"), (torch.full((4, 2), 0.25), "between -0.25")],
)
def test_bad_shifts(shifts: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        change_perspective(disc(), shifts)


def test_coarse_frames_lose_what_is_fine_and_keep_what_is_large() -> None:
    fine = (torch.arange(24) % 2).float().expand(2, 24, 24)
    torch.testing.assert_close(coarsen(fine, 2.0), torch.full_like(fine, 0.5))
    torch.testing.assert_close(coarsen(fine, 1.0), fine)
    large = torch.zeros(1, 24, 24)
    large[:, :, 12:] = 1
    assert coarsen(large, 4.0)[:, :, :8].eq(0).all()
    assert coarsen(large, 4.0)[:, :, 16:].eq(1).all()
    assert 0 < coarsen(large, 4.0)[0, 0, 11] < 0.5


def test_the_rectangle_is_erased_and_nothing_else() -> None:
    walk = torch.ones(2, 10, 20)
    erased = erase_rectangle(walk, top=0.3, left=0.5, height=0.2, width=0.9)
    expected = walk.clone()
    expected[:, 3:5, 10:] = 0
    torch.testing.assert_close(erased, expected)


@pytest.mark.parametrize("name", ["top", "left", "height", "width"])
def test_bad_rectangles(name: str) -> None:
    fractions = {"top": 0.1, "left": 0.1, "height": 0.1, "width": 0.1, name: 1.5}
    with pytest.raises(ValueError, match=rf"{name} in \[0, 1\].*1\.5"):
        erase_rectangle(disc(), **fractions)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_roughening_changes_only_what_is_near_the_outline(strength: float) -> None:
    rough = roughen_outline(disc(radius=8), strength, seeded())
    assert rough[:, disc(1, radius=4)[0] == 1].eq(1).all()
    assert rough[:, disc(1, radius=12)[0] == 0].eq(0).all()


def test_roughening_grows_with_strength_and_differs_between_frames() -> None:
    changes = [
        float((roughen_outline(disc(), strength, seeded()) - disc()).abs().mean())
        for strength in (0.0, 0.5, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[2] > 1.5 * changes[0]
    rough = roughen_outline(disc(), 1.0, seeded())
    assert not torch.equal(rough[0], rough[1])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda: rotate(disc(), 200.0), "degrees in -180..180, got 200"),
        (lambda: roughen_outline(disc(), 1.5), r"strength in \[0, 1\], got 1.5"),
        (lambda: RandomAugment(flip=1.5), r"RandomAugment.flip in \[0, 1\], got 1.5"),
        (lambda: RandomAugment(max_shift=0.5), r"max_shift in \[0, 0.249\]"),
        (lambda: RandomAugment(max_coarsening=0.5), r"max_coarsening in \[1, 8\], got 0.5"),
        (lambda: coarsen(disc(), 0.5), r"factor in \[1, 8\].*got 0.5"),
        (lambda: RandomAugment(max_degrees=math.nan), "max_degrees"),
    ],
)
def test_bad_options(change: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        change()  # pyright: ignore[reportCallIssue]


def test_a_seed_repeats_the_augmentation() -> None:
    augment = RandomAugment()
    results = [augment(disc(), seeded(seed)) for seed in (3, 3, 4, 5, 6)]
    torch.testing.assert_close(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])


def test_chances_of_zero_change_nothing() -> None:
    torch.testing.assert_close(RandomAugment(**NONE)(disc(), seeded()), disc())


@pytest.mark.parametrize("name", NONE)
def test_a_chance_of_one_always_changes(name: str) -> None:
    walk = torch.rand(2, 20, 14, generator=seeded())
    augment = RandomAugment(**(NONE | {name: 1.0}))
    assert all(not torch.equal(augment(walk, seeded(seed)), walk) for seed in range(5))


def test_flips_come_as_often_as_asked() -> None:
    walk = torch.rand(1, 2, 2, generator=seeded())
    augment = RandomAugment(**(NONE | {"flip": 0.25}))
    generator = seeded()
    flips = sum(not torch.equal(augment(walk, generator), walk) for _ in range(400))
    assert 70 <= flips <= 130
