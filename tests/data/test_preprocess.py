from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gaitzoo.data.silhouettes import SilhouetteTransform, normalize_silhouettes
from gaitzoo.data.transforms import create_transform

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def walker(num_frames=4, height=120, width=160):
    """A block of a person with one leg out, wandering to the right."""
    masks = np.zeros((num_frames, height, width), dtype=bool)
    for frame in range(num_frames):
        masks[frame, 20:100, 30 + 4 * frame : 50 + 4 * frame] = True
        masks[frame, 80:100, 50 + 4 * frame : 58 + 4 * frame] = True
    return masks


def cubic_weights(offset):
    """Keys' kernel with a = -0.75 at the four neighbours of a point ``offset`` past the second."""
    a = -0.75
    weights = []
    for distance in (1 + offset, offset, 1 - offset, 2 - offset):
        if distance <= 1:
            weights.append((a + 2) * distance**3 - (a + 3) * distance**2 + 1)
        else:
            weights.append(a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a)
    return weights


def naive_resize(image, height, width):
    rows, columns = image.shape
    result = np.zeros((height, width))
    for y in range(height):
        source_y = (y + 0.5) * rows / height - 0.5
        top = int(np.floor(source_y))
        for x in range(width):
            source_x = (x + 0.5) * columns / width - 0.5
            left = int(np.floor(source_x))
            for i, weight_y in enumerate(cubic_weights(source_y - top)):
                for j, weight_x in enumerate(cubic_weights(source_x - left)):
                    row = min(max(top - 1 + i, 0), rows - 1)
                    column = min(max(left - 1 + j, 0), columns - 1)
                    result[y, x] += weight_y * weight_x * image[row, column]
    return np.clip(np.floor(result + 0.5), 0, 255)


def naive_normalize(frames, size):
    normalized = []
    for frame in frames.astype(np.int64):
        if frame.sum() <= 10000:
            continue
        lit = [row for row in range(len(frame)) if frame[row].any()]
        cropped = frame[lit[0] : lit[-1] + 1]
        resized = naive_resize(cropped, size, int(size * cropped.shape[1] / len(cropped)))
        center, passed = 0, 0.0
        for column in range(resized.shape[1]):
            passed += resized[:, column].sum()
            if passed > resized.sum() / 2:
                center = column
                break
        window = np.zeros((size, size))
        for x in range(size):
            column = center - size // 2 + x
            if 0 <= column < resized.shape[1]:
                window[:, x] = resized[:, column]
        normalized.append(window)
    return np.stack(normalized)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("clip", ["near", "far"])
def test_agrees_with_the_published_pretreatment(golden, clip, size):
    expected = golden[f"{clip}_{size}_out"]
    normalized = normalize_silhouettes(golden[f"{clip}_in"], size)
    assert normalized.dtype == torch.uint8
    assert normalized.shape == expected.shape
    difference = np.abs(normalized.numpy().astype(int) - expected.astype(int))
    assert (difference <= 2).mean() >= 0.999
    assert (difference == 0).mean() >= 0.999  # what torch reaches; truncating gives 0.94


@pytest.mark.filterwarnings("ignore:expected upright people")
@pytest.mark.parametrize("place", ["left edge", "right edge", "one row", "middle"])
def test_agrees_with_a_naive_loop(place):
    frames = np.zeros((2, 40, 70), dtype=np.uint8)
    person = {
        "left edge": np.s_[0, 4:33, 0:9],
        "right edge": np.s_[0, 4:33, 62:70],
        "one row": np.s_[0, 7:8, 5:60],  # a figure wider than high
        "middle": np.s_[0, 0:40, 30:41],
    }[place]
    source = np.random.default_rng(0)
    frames[person] = source.integers(225, 256, frames[person].shape)
    outline = source.random(frames.shape) < 0.3
    frames[outline & (frames > 0)] = 150
    frames[1, 5:9, 5:9] = 255  # too little to count
    normalized = normalize_silhouettes(frames, 16).numpy().astype(int)
    expected = naive_normalize(frames, 16)
    assert normalized.shape == expected.shape == (1, 16, 16)
    difference = np.abs(normalized - expected)
    assert difference.max() <= 1  # float32 against float64 at a rounding edge
    assert (difference == 0).mean() >= 0.98


def test_a_body_in_two_equal_halves_centres_on_the_right_one():
    frames = torch.zeros(1, 40, 70, dtype=torch.uint8)
    frames[0, 4:20, 30:40] = 255  # as high as the result: nothing is resized
    lit = normalize_silhouettes(frames, 16)[0].amax(dim=0).nonzero().flatten()
    assert lit.tolist() == list(range(3, 13))  # column 35 of the frame lands on column 8


def test_frames_of_exactly_10000_grey_levels_are_dropped():
    frames = torch.zeros(2, 20, 20, dtype=torch.uint8)
    frames[:, :8, :5] = 250  # 40 pixels
    frames[1, 0, 0] = 251
    assert len(normalize_silhouettes(frames, 8)) == 1


def number_types():
    masks = walker()
    grey = masks.astype(np.uint8) * 255
    return {
        "torch bool": torch.from_numpy(masks),
        "torch 0/1": torch.from_numpy(masks).to(torch.uint8),
        "torch int64 0/1": torch.from_numpy(masks).long(),
        "torch float64": torch.from_numpy(masks).double(),
        "torch bfloat16": torch.from_numpy(masks).bfloat16(),
        "torch with gradient": torch.from_numpy(masks).float().requires_grad_(),
        "numpy bool": masks,
        "numpy uint8": grey,
        "numpy uint16": grey.astype(np.uint16),
        "numpy uint64": grey.astype(np.uint64),
        "numpy big-endian int32": grey.astype(">i4"),
        "numpy big-endian float32": masks.astype(">f4"),
        "numpy float16": masks.astype(np.float16),
        "numpy long double": masks.astype(np.longdouble),
        "numpy 0/1 int8": masks.astype(np.int8),
        "numpy read-only": np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.shape),
        "numpy reversed": grey[::-1][::-1],
        "numpy Fortran order": np.asfortranarray(grey),
    }


@pytest.mark.parametrize("kind", number_types())
def test_number_types_agree(kind):
    expected = normalize_silhouettes(torch.from_numpy(walker()), 32)
    assert torch.equal(normalize_silhouettes(number_types()[kind], 32), expected)


def test_inputs_are_left_alone():
    masks = torch.from_numpy(walker()).to(torch.uint8)
    before = masks.clone()
    SilhouetteTransform((64, 44))(masks)
    assert torch.equal(masks, before)


BAD_FRAMES = {
    "list": ([[[1]]], TypeError, "tensor or numpy array"),
    "complex": (torch.zeros(1, 2, 2, dtype=torch.complex64), TypeError, "complex64"),
    "text": (np.array([[["a"]]]), TypeError, "dtype <U1"),
    "objects": (np.array([[[None]]]), TypeError, "dtype object"),
    "one frame": (
        torch.zeros(4, 4),
        ValueError,
        r"\[T, H, W\], got shape \(4, 4\).*frames\[None\]",
    ),
    "channels": (torch.zeros(1, 1, 4, 4), ValueError, r"\[T, H, W\], got shape \(1, 1, 4, 4\)"),
    "no frames": (torch.zeros(0, 4, 4), ValueError, "at least one frame"),
    "no pixels": (np.zeros((2, 0, 4)), ValueError, "at least one frame of at least one pixel"),
    "negative": (torch.full((1, 4, 4), -1), ValueError, "0..255, got values from -1 to -1"),
    "too large": (np.full((1, 4, 4), 256), ValueError, "0..255, got values from 256 to 256"),
    "grey floats": (torch.full((1, 4, 4), 255.0), ValueError, r"\[0, 1\], got .* to 255.*Divide"),
    "below zero": (torch.full((1, 4, 4), -0.1), ValueError, r"\[0, 1\], got values from -0.1"),
    "NaN": (torch.full((1, 4, 4), float("nan")), ValueError, "got values from nan.*replace NaN"),
    "infinite": (torch.full((1, 4, 4), float("inf")), ValueError, "got values from inf"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
@pytest.mark.parametrize(
    "call",
    [normalize_silhouettes, SilhouetteTransform((4, 2)), SilhouetteTransform((64, 44)).align],
    ids=["normalize", "transform", "align"],
)
def test_refuses_bad_frames(call, case):
    frames, error, message = BAD_FRAMES[case]
    with pytest.raises(error, match=message):
        call(frames)


@pytest.mark.parametrize("frames", [torch.zeros(5, 240, 320), torch.eye(100)[None] > 0.5])
def test_refuses_clips_without_a_person(frames):
    if frames.dtype == torch.bool:
        frames = frames[:, :30]
    with pytest.raises(ValueError, match=r"at least one frame with a silhouette.*segmentation"):
        normalize_silhouettes(frames)


@pytest.mark.parametrize("size", [0, -2, 63, 64.0, "64", True, None])
def test_refuses_bad_sizes(size):
    with pytest.raises(ValueError, match="even size"):
        normalize_silhouettes(walker(), size)


@pytest.mark.parametrize("input_size", [(64, 44), (64, 64), (128, 88), (32, 22), (16, 12)])
def test_every_form_leads_to_the_same_input(input_size):
    height, width = input_size
    transform = SilhouetteTransform(input_size)
    raw = walker()
    square = normalize_silhouettes(raw, height)
    margin = (height - width) // 2
    ready = square[:, :, margin : height - margin]
    for frames in (raw, square, ready):
        aligned = transform.align(frames)
        assert aligned.dtype == torch.uint8
        assert torch.equal(aligned, ready)
    for frames in (raw, square, ready, square / 255, ready / 255, ready.double() / 255):
        silhouettes = transform(frames)
        assert silhouettes.dtype == torch.float32
        assert torch.equal(silhouettes, ready / 255)
    assert silhouettes.max() == 1


def test_floats_that_need_no_resizing_are_not_rounded():
    transform = SilhouetteTransform((64, 44))
    square = torch.rand(3, 64, 64)
    assert torch.equal(transform(square), square[:, :, 10:54])
    assert torch.equal(transform.align(square[:, :, 10:54]), square[:, :, 10:54])


def test_squares_of_another_size_are_raw_masks():
    raw = walker(height=128, width=128)
    aligned = SilhouetteTransform((64, 44)).align(raw)
    assert torch.equal(aligned, normalize_silhouettes(raw, 64)[:, :, 10:54])


def test_only_raw_masks_lose_empty_frames():
    transform = SilhouetteTransform((64, 44))
    raw = walker()
    raw = np.concatenate([raw, raw])
    raw[1] = False
    assert len(transform(raw)) == 7
    square = torch.from_numpy(normalize_silhouettes(walker()).numpy())
    square[1] = 0
    assert len(transform(square)) == 4
    assert len(transform(square[:, :, 10:54])) == 4


def test_faint_floats_are_not_taken_for_a_mask():
    frames = torch.from_numpy(walker()) * 0.0031
    for shape in ((64, 44), (120, 160)):
        with pytest.raises(ValueError, match=r"whose brightest pixels are 1, got at most 0\.0031"):
            SilhouetteTransform((64, 44)).align(frames[:, : shape[0], : shape[1]])


def test_create_transform_reads_models_and_configurations():
    cfg = SimpleNamespace(input_size=(128, 88))
    model = SimpleNamespace(pretrained_cfg=cfg, input_size=(1, 2, 3))
    assert create_transform(cfg) == create_transform(model) == SilhouetteTransform((128, 88))
    assert create_transform(SimpleNamespace(input_size=[64, 44])).input_size == (64, 44)
    assert (
        repr(create_transform(cfg)) == "SilhouetteTransform(input_size=(128, 88), normalized=None)"
    )


@pytest.mark.parametrize("source", ["dygait", None, torch.nn.Identity(), {"size": (64, 44)}])
def test_create_transform_refuses_what_has_no_input_size(source):
    with pytest.raises(TypeError, match=r"pretrained_cfg\.input_size"):
        create_transform(source)


@pytest.mark.parametrize(
    "input_size",
    [64, (64,), (30, 64, 44), (44, 64), (64, 43), (63, 43), (64.0, 44), (0, 0), (64, -2), "64"],
)
def test_refuses_bad_input_sizes(input_size):
    with pytest.raises(ValueError, match="even pixels with height >= width"):
        create_transform(SimpleNamespace(input_size=input_size))
