"""``gaitzoo embed`` and ``identify`` with models of skeleton maps, alone and beside silhouettes."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

pytest_plugins = ["cli_fixtures"]

WALKS = {"known/ann/one": (1, 0), "known/bob/one": (2, 0), "new/ann/two": (1, 3)}
# Not wide: what is tried here is the way from files to embeddings.
NARROW = {"channels": (4, 4, 8, 8), "layers": (1, 1, 1, 1), "num_classes": 0}


def filmed(identity, seed):
    return render_walk(sample_identity(identity), frames=6, seed=seed, view=72.0)


def write_poses(folder, walk):
    """One file of COCO's keypoints per frame, as pose estimators write them."""
    folder.mkdir(parents=True)
    for number, joints in enumerate(walk.keypoints.tolist()):
        person = {
            "image_id": number,
            "category_id": 1,
            "keypoints": [value for joint in joints for value in joint],
            "score": 0.9,
        }
        (folder / f"{number:04}.json").write_text(json.dumps([person]))


def write_images(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:04}.png")


def names_and_embeddings(path):
    with safe_open(path, "pt") as file:
        names = json.loads(file.metadata()["names"])
    return names, load_file(path)["embeddings"]


def test_embed_folders_of_keypoints_with_skeletongait(run, tmp_path):
    for name, what in WALKS.items():
        write_poses(tmp_path / name, filmed(*what))
    model = gaitzoo.create_model("skeletongait.gait3d", num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    code, _, err = run(
        *("embed", "known", "new", "-o", "out.safetensors", "--quiet"),
        *("--model", "skeletongait.gait3d", "--checkpoint", "weights.safetensors"),
    )
    assert (code, err) == (0, "")
    names, found = names_and_embeddings("out.safetensors")
    assert names == list(WALKS)
    assert found.shape == (3, 16, 256)
    draw = gaitzoo.PosesToMaps((64, 44))
    with torch.no_grad():
        wanted = [model(draw(filmed(*WALKS[name]).keypoints)[None]).embeddings for name in names]
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def test_identify_by_silhouettes_and_keypoints(run, tmp_path):
    torch.manual_seed(0)
    gaitzoo.create_model("skeletongaitpp.ccpg", **NARROW).save_pretrained(tmp_path / "saved")
    for name, what in WALKS.items():
        # The probe is the first walk again: what is tried is that both inputs are read.
        walk = filmed(what[0], 0)
        write_poses(tmp_path / name / "poses", walk)
        write_images(tmp_path / name / "silhouettes", walk.silhouettes.numpy())
    arguments = ["--gallery", "known", "--probe", "new", "--json"]
    code, out, _ = run("identify", *arguments, "--model", "local-dir:saved", "--quiet")
    assert code == 0
    (probe,) = json.loads(out)["probes"]
    assert probe["matches"][0]["name"] == "ann/one"
    assert probe["matches"][0]["distance"] == pytest.approx(0, abs=1e-5)

    code, _, err = run(
        *("embed", "new", "-o", "out.safetensors", "--model", "local-dir:saved", "--quiet")
    )
    assert (code, err) == (0, "")
    _, found = names_and_embeddings("out.safetensors")
    model = gaitzoo.create_model("local-dir:saved", pretrained=True).eval()
    walk = filmed(1, 0)
    inputs = {
        "skeleton_maps": gaitzoo.PosesToMaps((64, 44))(walk.keypoints)[None],
        "silhouettes": walk.silhouettes[None].float() / 255,
    }
    with torch.no_grad():
        torch.testing.assert_close(found, model(inputs).embeddings, rtol=1e-4, atol=1e-5)


def test_embed_pictures_of_parsing_and_flow(run, tmp_path):
    torch.manual_seed(0)
    model = gaitzoo.create_model("multigaitpp.ccpg", **NARROW).eval()
    model.save_pretrained(tmp_path / "saved")
    rng = np.random.default_rng(0)
    walk = filmed(1, 0).silhouettes.numpy()
    parsing = rng.integers(0, 256, (6, 64, 44)).astype(np.uint8)
    flow = rng.integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    write_images(tmp_path / "in" / "ann" / "silhouettes", walk)
    write_images(tmp_path / "in" / "ann" / "parsing_images", parsing)
    write_images(tmp_path / "in" / "ann" / "flow_images", flow)
    arguments = ["embed", "in", "-o", "out.safetensors", "--model", "local-dir:saved", "--quiet"]
    code, _, err = run(*arguments)
    assert (code, err) == (0, "")
    _, found = names_and_embeddings("out.safetensors")
    inputs = {
        "silhouettes": torch.from_numpy(walk)[None] / 255,
        "parsing_images": torch.from_numpy(parsing)[None] / 255,
        # Square pictures are cut as all others.
        "flow_images": torch.from_numpy(flow)[:, :, 10:54].permute(3, 0, 1, 2)[None] / 255,
    }
    with torch.no_grad():
        torch.testing.assert_close(found, model(inputs).embeddings, rtol=1e-4, atol=1e-5)

    Image.fromarray(flow[0]).save(tmp_path / "in" / "ann" / "parsing_images" / "0000.png")
    code, _, err = run(*arguments, "--force")
    assert code == 2
    assert "expected a grey or palette image of 8 bits, got mode RGB" in err


def test_frames_without_a_person_are_left_out(run, tmp_path):
    walk = filmed(1, 0)
    write_poses(tmp_path / "in" / "whole", walk)
    write_poses(tmp_path / "in" / "gap", walk)
    (tmp_path / "in" / "gap" / "0003.json").write_text("[]")
    torch.manual_seed(0)
    gaitzoo.create_model("skeletongait.ccpg", **NARROW).save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, _, _ = run(
            *("embed", "in", "-o", "out.safetensors", "--model", "local-dir:saved", "--quiet")
        )
    assert code == 0
    _, found = names_and_embeddings("out.safetensors")
    kept = [0, 1, 2, 4, 5]
    maps = gaitzoo.PosesToMaps((64, 44))(walk.keypoints[kept])
    model = gaitzoo.create_model("local-dir:saved", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(found[0], model(maps[None]).embeddings[0], rtol=1e-4, atol=1e-5)
