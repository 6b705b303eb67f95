"""Doppler-time maps: feature linking, grey stretch, local contrast, colours."""

import math

import numpy as np
import pytest
import torch
from golden import fill
from parity import GOLDEN, golden_doc
from safetensors.torch import load_file
from scipy.ndimage import convolve

from gaitzoo import DopplerTimeMapPreprocessor, FeatureLinkingModel, grey_stretch
from gaitzoo.data.clahe import equalize_tiles
from gaitzoo.data.doppler import jet_colours
from gaitzoo.data.feature_linking import min_max

DOC = golden_doc("radar_flm")
CASES = {case["id"]: case for case in DOC["cases"]}
LINKED = [case_id for case_id, case in CASES.items() if case["kind"] == "flm"]


@pytest.fixture(scope="module")
def wanted():
    return load_file(GOLDEN / "radar_flm.safetensors")


def golden_image(case_id):
    height, width = CASES[case_id]["shape"]
    if case_id == "const8":
        image = torch.full((8, 8), 93, dtype=torch.uint8)
    elif case_id == "ramp8x32":
        image = (8 * torch.arange(32)).repeat(8, 1).to(torch.uint8)
    else:
        smooth = fill.smooth_maps(1, 1, 1, height, width, f"flm_{case_id}")[0, 0, 0].double()
        levels = (255 * smooth + 0.5).floor().to(torch.uint8)
        image = {"g": levels, "b": (smooth > 0.62).to(torch.uint8), "p": smooth}[case_id[0]]
    assert fill.checksum(image) == CASES[case_id]["input_checksum"]
    return image


@pytest.mark.parametrize("case_id", LINKED)
def test_feature_linking_equals_the_authors_exactly(case_id, wanted):
    enhanced, time = FeatureLinkingModel()(golden_image(case_id)[None, None], return_time=True)
    assert torch.equal(time[0, 0], wanted[f"{case_id}/time"].long())
    assert int(time.max()) == CASES[case_id]["passes"]
    levels = (255 * enhanced).round().to(torch.uint8)
    assert torch.equal(levels[0, 0], wanted[f"{case_id}/out"])


@pytest.mark.parametrize("case_id", LINKED)
def test_grey_stretch_equals_the_authors_exactly(case_id, wanted):
    stretched, bounds = grey_stretch(wanted[f"{case_id}/before_stretch"][None, None])
    assert torch.equal(stretched[0, 0], wanted[f"{case_id}/out"])
    assert bounds[0].tolist() == CASES[case_id]["stretch"]


def test_whole_chain_equals_the_authors_without_local_contrast(wanted):
    preprocess = DopplerTimeMapPreprocessor(size=32, clahe=False)
    image = golden_image("p32")
    assert torch.equal(preprocess.kept(image[None, None])[0, 0], wanted["p32/value"])
    assert torch.equal(jet_colours(), wanted["jet64"])
    found = (255 * preprocess(image)).round().to(torch.uint8)
    assert torch.equal(found.movedim(0, -1), wanted["p32/rgb"])
    grey = DopplerTimeMapPreprocessor(size=32, clahe=False, colormap=None)(image)
    assert torch.equal((255 * grey[0]).round().to(torch.uint8), wanted["p32/out"])


def linked_by_hand(image):
    """Feature linking in numpy and scipy, in the words of the specification."""
    image = image.astype(np.float64)
    spread = image.max() - image.min()
    s = (image - image.min()) / spread + 1 / 255
    link = np.array([[0.7, 1, 0.7], [1, 0, 1], [0.7, 1, 0.7]])
    laplacian = np.array([[1, 4, 1], [4, -20, 4], [1, 4, 1]]) / 6
    line = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    gaussian = np.outer(line, line) / np.outer(line, line).sum()
    threshold = 1 + convolve(s, laplacian, mode="reflect")
    leak = convolve(0.75 * np.exp(-(s**2) / 0.16) + 0.05, gaussian, mode="reflect")
    y, u, time, n = np.zeros_like(s), np.zeros_like(s), np.zeros_like(s), 0
    fired = np.zeros_like(s)
    while fired.sum() < s.size:
        n += 1
        k = convolve(y, link, mode="constant")
        u = leak * u + s + 0.01 * k + 0.03 * s * (k - 2)
        threshold = 0.9811 * threshold + 2e10 * y
        y = (u > threshold).astype(np.float64)
        time += n * y
        fired += y
    assert fired.max() == 1
    return time.astype(np.int64)


def images_16():
    torch.manual_seed(1)
    blocks = torch.zeros(16, 16)
    blocks[3:9, 4:12] = 0.7
    return torch.stack([torch.rand(16, 16), blocks, torch.arange(16.0).repeat(16, 1) / 15])


@pytest.mark.parametrize("index", range(3))
def test_feature_linking_equals_the_specification(index):
    image = images_16()[index]
    _, time = FeatureLinkingModel()(image[None, None], return_time=True)
    assert np.array_equal(time[0, 0].numpy(), linked_by_hand(image.numpy()))


def test_a_batch_gives_what_single_images_give():
    images = images_16()[:, None]
    linking = FeatureLinkingModel()
    enhanced, times = linking(images, return_time=True)
    assert len({int(time.max()) for time in times}) > 1
    for i, image in enumerate(images):
        one, time = linking(image[None], return_time=True)
        assert torch.equal(enhanced[i], one[0])
        assert torch.equal(times[i], time[0])


def test_bright_pixels_fire_first():
    _, time = FeatureLinkingModel()(torch.arange(32.0).repeat(16, 1)[None, None], return_time=True)
    assert bool((time[..., 1:] <= time[..., :-1]).all())
    assert int(time[..., -1].max()) < int(time[..., 0].min())


def test_a_constant_image_fires_in_one_pass_and_becomes_black():
    enhanced, time = FeatureLinkingModel()(torch.full((1, 1, 16, 16), 0.4), return_time=True)
    assert time.unique().tolist() == [210]
    assert enhanced.unique().tolist() == [0.0]
    stretched, bounds = grey_stretch(torch.full((1, 1, 4, 4), 7, dtype=torch.uint8))
    assert (stretched.unique().tolist(), bounds.tolist()) == ([0], [[7, 7]])


def test_too_few_passes_are_an_error():
    with pytest.raises(ValueError, match="max_iter=20 passes, got 256 left"):
        FeatureLinkingModel(max_iter=20)(torch.zeros(1, 1, 16, 16))


def narrowest_by_hand(pixels, portion):
    """Bounds of the narrowest range with enough pixels, by trying all."""
    best = None
    for low in range(256):
        for high in range(low, 256):
            held = ((pixels >= low) & (pixels <= high)).sum()
            ends = (pixels == low).any() and (pixels == high).any()
            if ends and held >= portion * pixels.numel() and (not best or high - low < best[0]):
                best = (high - low, low, high)
    return best[1:]


@pytest.mark.parametrize("portion", [0.5, 0.9, 0.98, 1.0])
def test_grey_stretch(portion):
    image = (60 + 20 * torch.randn(1, 1, 20, 25)).clamp(0, 255).to(torch.uint8)
    stretched, bounds = grey_stretch(image, portion)
    low, high = narrowest_by_hand(image.flatten().long(), portion)
    assert bounds.tolist() == [[low, high]]
    inside = (image >= low) & (image <= high)
    assert inside.float().mean() >= portion
    assert (int(stretched.min()), int(stretched.max())) == (0, 255)
    levels = image.flatten().argsort(stable=True)
    assert bool((stretched.flatten()[levels].int().diff() >= 0).all())
    found, wanted = stretched[inside].double(), 255 * (image[inside].double() - low) / (high - low)
    assert (found - wanted).abs().max() <= 0.5


def equalized_by_hand(image):
    """Local histograms of one image, 64 tiles, pixel by pixel."""
    levels = (image * 255).round().long()
    rows, columns = (size // 8 for size in image.shape)
    pixels = rows * columns
    flattest = math.ceil(pixels / 256)
    limit = flattest + round(0.01 * (pixels - flattest))
    maps = {}
    for i in range(8):
        for j in range(8):
            tile = levels[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            counts = [int((tile == level).sum()) for level in range(256)]
            extra = sum(max(0, count - limit) for count in counts) / 256
            steps = [min(count, limit) + extra for count in counts]
            maps[i, j] = np.minimum(np.cumsum(steps) / pixels, 1)
    out = np.zeros(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            v = min(max((y + 0.5) / rows - 0.5, 0), 7)
            u = min(max((x + 0.5) / columns - 0.5, 0), 7)
            i, j = int(v), int(u)
            for k, share in ((i, 1 - v + i), (min(i + 1, 7), v - i)):
                for m, part in ((j, 1 - u + j), (min(j + 1, 7), u - j)):
                    out[y, x] += share * part * maps[k, m][levels[y, x]]
    return out


def test_local_contrast_equals_a_loop():
    image = torch.rand(32, 40, dtype=torch.float64) ** 3
    found = equalize_tiles(image[None, None])[0, 0]
    assert np.allclose(found.numpy(), equalized_by_hand(image), atol=1e-12)


def test_local_contrast_of_any_size():
    # Sizes that 8 does not divide are mirrored at the borders.
    image = torch.rand(2, 1, 13, 21)
    found = equalize_tiles(image)
    assert found.shape == image.shape
    assert torch.equal(equalize_tiles(image[1:])[0], found[1])
    wide = np.pad(image.numpy(), ((0, 0), (0, 0), (1, 2), (1, 2)), mode="symmetric")
    assert torch.equal(equalize_tiles(torch.from_numpy(wide))[..., 1:14, 1:22], found)


@pytest.mark.parametrize("size", [(40, 30), (96, 128)])
def test_preprocessing(size):
    torch.manual_seed(2)
    maps = 1000 * torch.rand(2, 1, *size) - 300
    preprocess = DopplerTimeMapPreprocessor(image_size=96)
    images = preprocess(maps)
    assert images.shape == (2, 3, 96, 96)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < 0.1
    assert 0.9 < float(images.max()) <= 1
    # The range of the map does not matter, nor who stands beside it.
    assert torch.equal(preprocess((maps[1, 0] + 300) / 1000), images[1])
    assert set(preprocess.kept(maps).unique().tolist()) == {0, 1}
    assert "threshold=0.62, size=64, clahe=True" in repr(preprocess)


def test_the_threshold_counts_from_the_highest_value():
    ramp = torch.linspace(0, 1, 101).repeat(8, 1)[None, None]
    for threshold, lowest in ((0.3, 0.5), (0.62, 0.62), (0.9, 0.9)):
        kept = DopplerTimeMapPreprocessor(threshold, clahe=False).kept(ramp)
        assert float(ramp[kept > 0].min()) == pytest.approx(lowest, abs=0.0101)


def test_an_empty_map_is_one_colour():
    image = DopplerTimeMapPreprocessor()(torch.zeros(20, 20))
    assert image.flatten(1).amax(1).tolist() == image.flatten(1).amin(1).tolist()


def test_min_max_of_each_image():
    found = min_max(torch.stack([torch.tensor([[0.0, 4.0]]), torch.tensor([[5.0, 5.0]])]))
    assert found.tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FeatureLinkingModel(0), ValueError, "max_iter as a positive whole number"),
        (lambda: FeatureLinkingModel()(np.ones((4, 4))), TypeError, "grey images as a tensor"),
        (lambda: FeatureLinkingModel()(torch.rand(4, 4)), ValueError, r"\[N, 1, H, W\]"),
        (lambda: FeatureLinkingModel()(torch.rand(2, 3, 4, 4)), ValueError, r"\[2, 3, 4, 4\]"),
        (
            lambda: FeatureLinkingModel()(torch.full((1, 1, 4, 4), float("nan"))),
            ValueError,
            "NaN",
        ),
        (lambda: grey_stretch(torch.rand(1, 1, 4, 4)), TypeError, "uint8"),
        (lambda: grey_stretch(torch.ones(1, 1, 4, 4).byte(), 0), ValueError, "portion above 0"),
        (lambda: DopplerTimeMapPreprocessor(1.5), ValueError, "threshold from 0 to 1"),
        (lambda: DopplerTimeMapPreprocessor(size=0), ValueError, "size as a positive"),
        (lambda: DopplerTimeMapPreprocessor(colormap="hot"), ValueError, '"jet" or None'),
        (lambda: DopplerTimeMapPreprocessor()(torch.rand(3, 9, 9)), ValueError, "Doppler-time"),
        (lambda: DopplerTimeMapPreprocessor()([[0.0]]), TypeError, "Doppler-time maps as a tensor"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
