"""``gaitzoo embed`` with XGait on folders of silhouettes and label maps of walkers."""

import json

import pytest
import torch
from parity import filled_weights, golden_doc, write_like_the_authors
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def world(tmp_path):
    """Two walkers as folders of images."""
    for seed, name in enumerate(("ann", "bob")):
        walk = render_walk(sample_identity(seed), frames=3 + seed, size=(64, 64), parsing=True)
        for modality in ("silhouettes", "parsing"):
            folder = tmp_path / "in" / name / modality
            folder.mkdir(parents=True)
            for number, frame in enumerate(getattr(walk, modality)):
                Image.fromarray(frame.numpy()).save(folder / f"{number:03}.png")
    return tmp_path


def test_embed_silhouettes_and_label_maps(run, world):
    write_like_the_authors(filled_weights(golden_doc("xgait_gait3d")), world / "xgait.pt")
    options = ["--model", "xgait.gait3d", "--checkpoint", "xgait.pt", "--quiet"]
    code, out, err = run("embed", "in", "-o", "out.safetensors", *options)
    assert (code, err) == (0, "")
    assert "embeddings [2, 64, 256] for 2 sequence(s)" in out
    with safe_open("out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == ["ann", "bob"]
    found = load_file("out.safetensors")["embeddings"]
    model = gaitzoo.create_model("xgait.gait3d", checkpoint_path="xgait.pt", num_classes=0).eval()
    for i, (seed, frames) in enumerate(((0, 3), (1, 4))):
        walk = render_walk(sample_identity(seed), frames=frames, size=(64, 64), parsing=True)
        inputs = {
            "parsing": walk.parsing[None, ..., 10:54],
            "silhouettes": walk.silhouettes[None, ..., 10:54],
        }
        with torch.no_grad():
            wanted = model(inputs).embeddings[0]
        torch.testing.assert_close(found[i], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_label_maps_that_are_lacking_are_named(run, world):
    for file in (world / "in" / "bob" / "parsing").iterdir():
        file.unlink()
    (world / "in" / "bob" / "parsing").rmdir()
    options = ["--model", "xgait_tiny", "--quiet"]
    code, _, err = run("embed", "in/bob", "-o", "out.safetensors", *options)
    assert code == 2
    assert "expected parsing beside silhouettes in in/bob" in err
