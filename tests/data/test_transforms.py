"""Transforms of every modality: cut, resized, frames without a person left out of all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import two_modalities  # noqa: F401 - registers its models

import gaitzoo
from gaitzoo import SilhouetteWarning, create_transform
from gaitzoo.data.silhouettes import SilhouetteTransform
from gaitzoo.data.transforms import ModalityTransform, normalize_labels


def raw_masks(frames=6, empty=()):
    """Masks ``[T, 120, 160]`` of a walking bar, black in some frames."""
    masks = torch.zeros(frames, 120, 160, dtype=torch.uint8)
    for t in set(range(frames)) - set(empty):
        masks[t, 20:110, 60 + t : 85 + t] = 255
    return masks


def body(height=90, width=30):
    """Parts in bands: head, body, legs."""
    parts = torch.zeros(height, width, dtype=torch.uint8)
    parts[: height // 6, width // 3 : -width // 3] = 1
    parts[height // 6 : height // 2] = 2
    parts[height // 2 :, : width // 2] = 7
    parts[height // 2 :, width // 2 :] = 8
    return parts


def naive_labels(frame, size):
    """One frame, pixel by pixel."""
    frame = frame.tolist()
    rows = [y for y, row in enumerate(frame) if any(row)]
    crop = frame[rows[0] : rows[-1] + 1]
    height, width = len(crop), len(crop[0])
    columns = max(1, size * width // height)
    resized = [
        [crop[y * height // size][x * width // columns] for x in range(columns)]
        for y in range(size)
    ]
    masses = [sum(resized[y][x] > 0 for y in range(size)) for x in range(columns)]
    centre = next(x for x in range(columns) if 2 * sum(masses[: x + 1]) > sum(masses))
    result = []
    for row in resized:
        window = range(centre - size // 2, centre + size // 2)
        result.append([row[x] if 0 <= x < columns else 0 for x in window])
    return torch.tensor(result, dtype=torch.uint8)


@pytest.mark.parametrize("left", [0, 65, 130])
def test_labels_are_a_loop_over_pixels(left):
    frames = torch.zeros(3, 120, 160, dtype=torch.uint8)
    frames[0, 10:100, left : left + 30] = body()
    frames[1, 40:57, left : left + 9] = body(17, 9)
    frames[2, 0:120, left : left + 30] = body(120, 30)
    found = normalize_labels(frames)
    assert found.dtype == torch.uint8
    for frame, normalized in zip(frames, found, strict=True):
        assert torch.equal(normalized, naive_labels(frame, 64))


def test_label_maps_without_a_person():
    frames = torch.zeros(3, 120, 160, dtype=torch.uint8)
    frames[1, 10:100, 50:80] = body()
    frames[2, :3, :13] = 4  # 39 pixels
    assert len(normalize_labels(frames)) == 1
    frames[2, 3, 0] = 4
    assert len(normalize_labels(frames)) == 2
    with pytest.raises(ValueError, match="label maps with a person"):
        normalize_labels(frames[:1])
    with pytest.raises(ValueError, match=r"label maps \[T, H, W\]"):
        normalize_labels(frames[0])
    with pytest.raises(ValueError, match="even number"):
        normalize_labels(frames, 63)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32])
def test_parsing_of_every_type_and_size(kind):
    transform = ModalityTransform(("parsing",), (64, 44))
    square = normalize_labels(torch.nn.functional.pad(body()[None], (40, 40, 5, 25)))
    for given in (square, square[..., 10:54]):
        found = transform.align(given.to(kind))
        assert found.dtype == torch.uint8
        assert torch.equal(found, square[..., 10:54])
    # 1 to 11 are names, no grey levels.
    assert torch.equal(transform(square), square[..., 10:54].float())


@pytest.mark.parametrize("bad", [12, 255, -1, 0.5])
def test_labels_that_are_none_are_refused(bad):
    frames = torch.zeros(2, 64, 44)
    frames[0, 3, 3] = bad
    with pytest.raises(ValueError, match="whole numbers 0 to 11"):
        ModalityTransform(("parsing",), (64, 44)).align(frames)


def test_skeleton_maps_are_cut_like_silhouettes():
    transform = ModalityTransform(("skeleton_maps",), (64, 44))
    levels = torch.randint(0, 256, (2, 5, 64, 64), dtype=torch.uint8)
    assert torch.equal(transform.align(levels), levels[..., 10:54])
    assert torch.equal(transform.align(levels[..., 10:54]), levels[..., 10:54])
    assert torch.equal(transform(levels), levels[..., 10:54].float() / 255)
    with pytest.raises(ValueError, match=r"got 32 x 32; draw them .*PosesToMaps\(\(64, 44\)\)"):
        transform.align(torch.rand(2, 5, 32, 32))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("rgb", (3, 5, 20, 30)),
        ("depth", (1, 5, 20, 30)),
        ("flow", (2, 5, 20, 30)),
        ("poses", (5, 17, 3)),
        ("smpl", (5, 85)),
        ("joints3d", (5, 24, 3)),
        ("points", (5, 100, 3)),
        ("images", (2, 32, 64)),
    ],
)
def test_the_others_stay_as_they_are(name, shape):
    x = 2 * torch.rand(shape)
    transform = ModalityTransform((name,), (32, 64))  # wider than high: nothing is cut to it
    assert torch.equal(transform.align(x), x)
    assert torch.equal(transform(x.numpy()), x)
    with pytest.raises(ValueError, match=f"expected {name} \\["):
        transform.align(x[0])


def test_frames_without_a_person_are_left_out_of_all():
    masks = raw_masks(6, empty=[1])
    labels = torch.zeros(6, 120, 160, dtype=torch.uint8)
    labels[:, 20:110, 60:90] = body()
    labels[4] = 0
    sequence = {
        "silhouettes": masks,
        "parsing": labels,
        "poses": torch.arange(6.0)[:, None, None].expand(6, 17, 3),
        "skeleton_maps": torch.arange(6.0)[None, :, None, None].expand(2, 6, 64, 44) / 6,
    }
    transform = ModalityTransform(tuple(sequence), (64, 44))
    found = transform.align(sequence)
    kept = [0, 2, 3, 5]
    assert found["poses"][:, 0, 0].tolist() == kept
    assert torch.equal(found["skeleton_maps"], sequence["skeleton_maps"][:, kept])
    alone = SilhouetteTransform((64, 44)).align(masks[kept])
    assert torch.equal(found["silhouettes"], alone)
    assert torch.equal(found["parsing"], normalize_labels(labels[kept])[..., 10:54])
    sequence["parsing"] = labels * (torch.arange(6) == 1)[:, None, None]
    with pytest.raises(ValueError, match="somebody in some frame of all modalities"):
        transform.align(sequence)


def test_silhouettes_still_warn():
    masks = 255 - raw_masks()
    sequence = {"silhouettes": masks, "poses": 9 * torch.rand(6, 17, 3)}
    transform = ModalityTransform(("silhouettes", "poses"), (64, 44))
    with pytest.warns(UserWarning, match="inverted"):
        found = transform.align(sequence)
    assert torch.equal(found["silhouettes"], SilhouetteTransform((64, 44)).align(255 - masks))


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (
            torch.rand(5, 16, 12),
            r"a mapping with silhouettes \[T, H, W\], poses \[T, J, 3\], got n",
        ),
        ({"poses": torch.rand(5, 17, 3)}, "got a mapping with poses"),
        ({"silhouettes": torch.ones(5, 64, 44), "poses": torch.rand(4, 17, 3)}, "5 of silh.*4 of"),
        ({"silhouettes": torch.ones(5, 64, 44), "poses": torch.rand(5, 17, 2)}, r"poses \[T, J, 3"),
        ({"silhouettes": torch.ones(64, 44), "poses": torch.rand(5, 17, 3)}, r"\[T, H, W\], got"),
        ({"silhouettes": torch.ones(0, 64, 44), "poses": torch.rand(0, 17, 3)}, r"got \[0, 64"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(sequence, message):
    with pytest.raises(ValueError, match=message):
        ModalityTransform(("silhouettes", "poses"), (64, 44)).align(sequence)


def test_what_is_no_array_is_refused():
    transform = ModalityTransform(("poses",), (64, 44))
    with pytest.raises(TypeError, match="poses as a tensor or an array of numbers, got list"):
        transform.align([[[1.0, 2.0, 3.0]]])
    with pytest.raises(TypeError, match="got an array of"):
        transform.align(np.array([[["a"]]]))


def test_arrays_of_any_layout():
    transform = ModalityTransform(("poses",), (64, 44))
    poses = 9 * np.random.default_rng(0).random((5, 17, 3))
    wanted = torch.from_numpy(poses)
    read_only = poses.copy()
    read_only.flags.writeable = False
    for given in (poses, read_only, poses[::-1].copy()[::-1], poses.astype(">f8")):
        assert torch.equal(transform.align(given), wanted)


def test_transforms_by_model_and_cfg():
    assert isinstance(create_transform(gaitzoo.create_model("dygait_tiny")), SilhouetteTransform)
    two = create_transform(gaitzoo.create_model("two_branches"))
    assert two == ModalityTransform(("silhouettes", "skeleton_maps"), (16, 12))
    poses = create_transform(gaitzoo.create_model("poses_alone"))
    assert poses.align(9 * torch.rand(5, 17, 3)).shape == (5, 17, 3)
    with pytest.warns(SilhouetteWarning, match=r"pixels, got x and y within 0\.\.1; multiply x by"):
        poses.align(torch.rand(5, 17, 3))
    images = create_transform(gaitzoo.create_model("images_alone", in_channels=4))
    assert images.align(torch.rand(4, 8, 9)).shape == (4, 8, 9)
    colours = create_transform(gaitzoo.create_model("dygait_tiny", in_channels=3))
    assert colours.align(torch.rand(3, 5, 16, 12)).shape == (3, 5, 16, 12)
    with pytest.raises(ValueError, match=r"silhouettes \[3, T, H, W\], got \[5, 16, 12\]"):
        colours.align(torch.rand(5, 16, 12))
    config = gaitzoo.data.resolve_data_config(gaitzoo.create_model("two_branches"))
    assert create_transform(config) == two
    cfg = gaitzoo.PretrainedCfg(modalities=("parsing",), input_size=(16, 12))
    assert create_transform(cfg) == ModalityTransform(("parsing",), (16, 12))
    for nothing in (None, SimpleNamespace(), {}):
        with pytest.raises(TypeError, match="input_size"):
            create_transform(nothing)
    with pytest.raises(ValueError, match="at least one modality"):
        ModalityTransform((), (64, 44))
    with pytest.raises(ValueError, match="a modality among"):
        ModalityTransform(("sonar",), (64, 44))
    with pytest.raises(ValueError, match="height >= width"):
        ModalityTransform(("parsing",), (44, 64))
