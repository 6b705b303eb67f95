"""``gaitzoo embed`` and ``identify`` with models of other inputs than silhouettes."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import two_modalities  # noqa: F401 - registers its models
from cli_world import walk
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import gaitzoo

pytest_plugins = ["cli_fixtures"]

MODEL = ["--model", "local-dir:saved", "--quiet"]


def maps(seed, frames=5):
    return np.random.default_rng(seed).random((frames, 2, 16, 12)).astype(np.float32)


@pytest.fixture
def world(tmp_path):
    """A saved model of two modalities, and walks by name, in OpenGait's way, and as images."""
    torch.manual_seed(0)
    gaitzoo.create_model("two_branches", num_classes=4).save_pretrained(tmp_path / "saved")
    for folder in ("known/ann/one", "known/bob/one", "new/ann/two"):
        (tmp_path / folder).mkdir(parents=True)
    ann, bob, new = (tmp_path / f for f in ("known/ann/one", "known/bob/one", "new/ann/two"))
    np.save(ann / "sil.npy", walk(0))
    np.save(ann / "heatmap.npy", maps(0))
    (bob / "0_sil.pkl").write_bytes(pickle.dumps(walk(1)))
    (bob / "1_heatmap.pkl").write_bytes(pickle.dumps(maps(1)))
    (new / "silhouettes").mkdir()
    for number, frame in enumerate(walk(0)):
        Image.fromarray(frame).save(new / "silhouettes" / f"{number}.png")
    np.save(new / "skeleton_maps.npy", maps(0))
    return tmp_path


def test_embed_and_identify_two_modalities(run, world):
    code, _, err = run("embed", "known", "new", "-o", "out.safetensors", *MODEL)
    assert (code, err) == (0, "")
    with safe_open("out.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
    assert names == ["known/ann/one", "known/bob/one", "new/ann/two"]
    found = load_file("out.safetensors")["embeddings"]
    model = gaitzoo.create_model("local-dir:saved", pretrained=True, num_classes=0)
    sequences = [gaitzoo.load_sequence(name, model.modalities) for name in names]
    wanted = gaitzoo.embed(model, sequences, progress=False)
    torch.testing.assert_close(found, wanted)

    arguments = ["--gallery", "known", "--probe", "new", "--json", "--picture", "matches.png"]
    code, out, _ = run("identify", *arguments, *MODEL)
    result = json.loads(out)
    assert code == 0
    assert result["rank1"] == 1.0
    assert result["probes"][0]["matches"][0]["name"] == "ann/one"
    with Image.open("matches.png") as picture:
        assert picture.height > 96


def test_what_a_folder_lacks_is_named(run, world):
    (world / "known" / "bob" / "one" / "1_heatmap.pkl").unlink()
    (world / "known" / "bob" / "one" / "0_sil.pkl").rename(world / "known/bob/one/sil.pkl")
    code, out, err = run("embed", "known", "-o", "out.safetensors", *MODEL)
    assert (code, out) == (2, "")
    assert "expected skeleton_maps beside silhouettes in known/bob/one" in err
    shutil.rmtree(world / "known")
    (world / "known" / "ann").mkdir(parents=True)
    code, _, err = run("embed", "known", "-o", "out.safetensors", *MODEL)
    assert code == 2
    assert "expected sequences of silhouettes, skeleton_maps below known, found none" in err


def test_poses_of_estimators(run, tmp_path):
    gaitzoo.create_model("poses_alone").save_pretrained(tmp_path / "saved")
    joints = np.random.default_rng(0).random((3, 17, 3)) * 100
    for folder in ("in/ann/walk", "in/bob"):
        (tmp_path / folder).mkdir(parents=True)
    for number, frame in enumerate(joints):
        content = [{"keypoints": frame.flatten().tolist(), "image_id": number, "score": 1.0}]
        (tmp_path / "in/ann/walk" / f"{number}.json").write_text(json.dumps(content))
    np.save(tmp_path / "in" / "bob" / "run.npy", joints)
    code, _, err = run("embed", "in", "-o", "out.safetensors", *MODEL)
    assert (code, err) == (0, "")
    with safe_open("out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == ["ann/walk", "bob/run"]
    one, other = load_file("out.safetensors")["embeddings"]
    torch.testing.assert_close(one, other)
    code, _, err = run(
        "identify", "--gallery", "in", "--probe", "in/bob", "--picture", "p.png", *MODEL
    )
    assert code == 2
    assert "expected frames to draw" in err
