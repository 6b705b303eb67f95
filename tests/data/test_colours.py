"""Colour crops: true proportions, margins, standard values, folders of images of several sizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import gaitzoo
from gaitzoo.cli import main
from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD, normalize_colours, stack_crops


def resized_by_loops(image, height, width):
    """Bilinear, centres of pixels, edges repeated: ``[H, W]``."""
    rows, columns = image.shape
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            v0, u0 = int(v), int(u)
            v1, u1 = min(v0 + 1, rows - 1), min(u0 + 1, columns - 1)
            a, b = v - v0, u - u0
            top = (1 - b) * image[v0, u0] + b * image[v0, u1]
            bottom = (1 - b) * image[v1, u0] + b * image[v1, u1]
            out[y, x] = (1 - a) * top + a * bottom
    return out


@pytest.mark.parametrize("shape", [(20, 6), (20, 16), (9, 3), (12, 6)])
def test_true_proportions_padded_or_cut(shape):
    frames = torch.randint(0, 256, (3, 2, *shape), dtype=torch.uint8)
    found = normalize_colours(frames, (12, 6))
    assert found.shape == (3, 2, 12, 6)
    own = round(12 * shape[1] / shape[0])
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        standard = (frames[channel, 1].float() / 255 - mean) / std
        whole = resized_by_loops(standard, 12, own)
        wanted = torch.zeros(12, 6)
        if own >= 6:
            wanted = whole[:, (own - 6) // 2 :][:, :6]
        else:
            left = (6 - own) // 2
            wanted[:, left : left + own] = whole
        assert torch.allclose(found[channel, 1], wanted, atol=1e-5)


def test_bytes_floats_and_standard_values_are_one():
    frames = torch.randint(0, 256, (3, 2, 20, 9), dtype=torch.uint8)
    found = normalize_colours(frames, (12, 6))
    assert torch.allclose(normalize_colours(frames.float() / 255, (12, 6)), found, atol=1e-5)
    assert torch.equal(normalize_colours(found, (12, 6)), found)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.rand(2, 3, 8, 4), ValueError, r"\[3, T, H, W\]"),
        (torch.rand(3, 2, 8, 0), ValueError, r"\[3, T, H, W\]"),
        (torch.rand(3, 2, 8, 4) * 255, ValueError, "uint8, as floats"),
        (torch.rand(3, 2, 8, 4) * float("nan"), ValueError, "NaN"),
        (torch.ones(3, 2, 8, 4, dtype=torch.int64), TypeError, "uint8"),
    ],
)
def test_other_frames_are_refused(frames, error, message):
    with pytest.raises(error, match=message):
        normalize_colours(frames, (8, 4))


def test_cfg_drives_the_transform():
    transform = gaitzoo.create_transform(gaitzoo.model_info("biggait.ccpg"))
    config = gaitzoo.data.resolve_data_config(gaitzoo.create_model("biggait_tiny"))
    assert config["mean"] == IMAGENET_MEAN
    frames = torch.randint(0, 256, (3, 2, 50, 20), dtype=torch.uint8)
    assert torch.equal(transform(frames), normalize_colours(frames))
    assert gaitzoo.create_transform(config)(frames).shape == (3, 2, 16, 8)
    with pytest.raises(ValueError, match="expected std"):
        gaitzoo.PretrainedCfg(std=(1.0, 0.0, 1.0))


def write_crops(folder, suffix):
    source = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number, size in enumerate([(40, 20), (30, 10), (40, 26)]):
        image = np.repeat(np.repeat(source.integers(0, 256, (5, 2, 3)), 8, 0), 13, 1)
        image = Image.fromarray(image.astype(np.uint8)).resize(size[::-1])
        image.save(folder / f"{number}{suffix}")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_folders_of_crops(suffix, tmp_path):
    write_crops(tmp_path / "walk", suffix)
    found = gaitzoo.load_sequence(tmp_path / "walk", "rgb")
    assert found.shape == (3, 3, 40, 26)
    # The narrow one: 13 columns between margins of the mean colour.
    margin = found[:, 1, :, :6].flatten(1)
    assert torch.allclose(margin, torch.tensor(IMAGENET_MEAN)[:, None], atol=0.5 / 255 + 1e-6)
    alone = np.array(Image.open(tmp_path / "walk" / f"2{suffix}").convert("RGB"))
    assert torch.equal(found[:, 2] * 255, torch.from_numpy(alone).permute(2, 0, 1).float())
    crops = [
        np.asarray(Image.open(f).convert("RGB")) for f in sorted((tmp_path / "walk").iterdir())
    ]
    stacked = torch.from_numpy(stack_crops(crops)).permute(3, 0, 1, 2)
    assert torch.equal(stacked, (found * 255).round().to(torch.uint8))


def test_command_line_embeds_folders_of_crops(tmp_path, capsys):
    write_crops(tmp_path / "clips" / "ann" / "walk", ".jpg")
    write_crops(tmp_path / "clips" / "bob" / "walk", ".png")
    output = tmp_path / "embeddings.safetensors"
    arguments = ["embed", str(tmp_path / "clips"), "-o", str(output), "--model", "biggait_tiny"]
    assert main(arguments) in (0, None)
    capsys.readouterr()
    with safe_open(output, framework="pt") as file:
        embeddings = file.get_tensor("embeddings")
        assert json.loads(file.metadata()["names"]) == ["ann/walk", "bob/walk"]
    assert embeddings.shape == (2, 4, 4)
    assert embeddings.isfinite().all()
