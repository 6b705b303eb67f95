"""Sequences of several modalities from folders."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from test_poses import POSES

import gaitzoo
from gaitzoo import load_sequence

SILHOUETTES = np.zeros((4, 64, 44), dtype=np.uint8)
SILHOUETTES[:, 2:62, 15:29] = 255
LABELS = (np.arange(4 * 64 * 44).reshape(4, 64, 44) % 12).astype(np.uint8)


def images(folder, frames, palette=False):
    folder.mkdir()
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame)
        if palette:
            image = image.convert("L").copy()
            image = Image.frombytes("P", image.size, image.tobytes())
            image.putpalette([i % 256 for i in range(768)])
        image.save(folder / f"{i:03d}.png")


def test_one_modality_is_a_tensor(tmp_path):
    images(tmp_path / "walk", SILHOUETTES)
    assert torch.equal(load_sequence(tmp_path / "walk"), torch.from_numpy(SILHOUETTES))
    np.save(tmp_path / "poses.npy", POSES)
    assert load_sequence(tmp_path / "poses.npy", "poses").shape == (4, 17, 3)
    assert list(load_sequence(tmp_path / "poses.npy", ("poses",))) == ["poses"]


@pytest.mark.parametrize("palette", [False, True])
def test_modalities_by_their_names(tmp_path, palette):
    images(tmp_path / "silhouettes", SILHOUETTES)
    images(tmp_path / "parsing", LABELS, palette)
    found = load_sequence(tmp_path, ("parsing", "silhouettes"))
    assert list(found) == ["parsing", "silhouettes"]
    assert torch.equal(found["parsing"], torch.from_numpy(LABELS))
    assert torch.equal(found["silhouettes"], torch.from_numpy(SILHOUETTES))


def test_opengaits_pickles_by_order_and_by_pattern(tmp_path):
    (tmp_path / "0_heat.pkl").write_bytes(pickle.dumps(np.zeros((4, 2, 64, 64), dtype=np.uint8)))
    (tmp_path / "1_s.pkl").write_bytes(pickle.dumps(SILHOUETTES))
    found = load_sequence(tmp_path, ("skeleton_maps", "silhouettes"))
    assert found["skeleton_maps"].shape == (2, 4, 64, 64)
    assert torch.equal(found["silhouettes"], torch.from_numpy(SILHOUETTES))
    swapped = load_sequence(tmp_path, {"silhouettes": "1_*", "skeleton_maps": "0_*"})
    assert torch.equal(swapped["skeleton_maps"], found["skeleton_maps"])
    with pytest.raises(FileNotFoundError, match=r"one file for silhouettes .*got none"):
        load_sequence(tmp_path, {"silhouettes": "9_*", "skeleton_maps": "0_*"})


def test_skeleton_maps_are_drawn_from_poses(tmp_path):
    np.save(tmp_path / "poses.npy", POSES)
    np.save(tmp_path / "sil.npy", SILHOUETTES)
    found = load_sequence(tmp_path, ("skeleton_maps", "silhouettes"))
    wanted = gaitzoo.PosesToMaps((64, 64)).draw(POSES)
    assert torch.equal(found["skeleton_maps"], wanted)
    assert torch.equal(load_sequence(tmp_path, "skeleton_maps"), wanted)


def test_colours(tmp_path):
    images(tmp_path / "rgb", np.full((3, 8, 4, 3), (255, 0, 51), dtype=np.uint8))
    found = load_sequence(tmp_path, "rgb")
    assert found.shape == (3, 3, 8, 4)
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_what_is_lacking_is_named(tmp_path):
    images(tmp_path / "silhouettes", SILHOUETTES)
    with pytest.raises(FileNotFoundError, match="expected parsing beside silhouettes in"):
        load_sequence(tmp_path, ("parsing", "silhouettes"))
    with pytest.raises(ValueError, match="modality among"):
        load_sequence(tmp_path, "sonar")
    with pytest.raises(FileNotFoundError, match="file or folder of poses"):
        load_sequence(tmp_path / "none", "poses")
    with pytest.raises(ValueError, match="at least one modality"):
        load_sequence(tmp_path, ())
    np.save(tmp_path / "poses.npy", POSES[:3])
    with pytest.raises(ValueError, match="4 of silhouettes, 3 of poses"):
        load_sequence(tmp_path, ("silhouettes", "poses"))


def test_labels_that_are_none_are_refused(tmp_path):
    images(tmp_path / "parsing", SILHOUETTES)
    with pytest.raises(ValueError, match="part labels 0 to 11, got 255"):
        load_sequence(tmp_path, "parsing")
    np.save(tmp_path / "flow.npy", np.zeros((4, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"expected flow \[2, T, H, W\]"):
        load_sequence(tmp_path, "flow")
