"""Sequences of several modalities from folders."""

import json
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
    with pytest.raises(ValueError, match=r"part labels 0 to 11 in .*000\.png, got 0 to 255"):
        load_sequence(tmp_path, "parsing")
    np.save(tmp_path / "flow.npy", np.zeros((4, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"expected flow \[2, T, H, W\]"):
        load_sequence(tmp_path, "flow")


def test_frames_in_natural_order(tmp_path):
    folder = tmp_path / "parsing"
    folder.mkdir()
    for number in (1, 2, 10):
        Image.fromarray(np.full((8, 4), number, dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / ".thumbnail.png").write_bytes(b"none")
    assert load_sequence(folder, "parsing")[:, 0, 0].tolist() == [1, 2, 10]


def test_broken_and_unfit_images_are_refused(tmp_path):
    images(tmp_path / "rgb", np.zeros((3, 8, 4, 3), dtype=np.uint8))
    (tmp_path / "rgb" / "001.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(ValueError, match=r"readable image .*001\.png"):
        load_sequence(tmp_path, "rgb")
    images(tmp_path / "sizes", np.zeros((3, 8, 4), dtype=np.uint8))
    other = tmp_path / "sizes" / "001.png"
    Image.fromarray(np.zeros((9, 4), dtype=np.uint8)).save(other)
    with pytest.raises(ValueError, match=r"one size, got \[8, 4\] in .*000.* and \[9, 4\] in"):
        load_sequence(tmp_path / "sizes", "parsing")
    images(tmp_path / "parsing", np.zeros((3, 8, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="grey or palette image, got mode RGB"):
        load_sequence(tmp_path, "parsing")
    images(tmp_path / "flow", np.zeros((3, 8, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected flow as an array .*got the folder"):
        load_sequence(tmp_path, "flow")


def save_pickles(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(array))


def test_names_count_before_the_order(tmp_path):
    maps = np.zeros((4, 2, 64, 64), dtype=np.uint8)
    save_pickles(tmp_path, {"0_sil": SILHOUETTES, "1-heatmap": maps})
    found = load_sequence(tmp_path, ("skeleton_maps", "silhouettes"))
    assert torch.equal(found["silhouettes"], torch.from_numpy(SILHOUETTES))
    # Two pickles for two modalities, but of another one by its name.
    save_pickles(tmp_path / "other", {"0_depth": SILHOUETTES, "1_x": SILHOUETTES})
    with pytest.raises(FileNotFoundError, match="expected parsing beside silhouettes"):
        load_sequence(tmp_path / "other", ("parsing", "silhouettes"))


def test_a_name_that_fits_several_files_is_refused(tmp_path):
    images(tmp_path / "silhouettes", SILHOUETTES)
    np.save(tmp_path / "sil.npy", SILHOUETTES)
    np.save(tmp_path / "poses.npy", POSES)
    with pytest.raises(ValueError, match=r"got sil\.npy and silhouettes; say which"):
        load_sequence(tmp_path, ("silhouettes", "poses"))
    found = load_sequence(tmp_path, {"silhouettes": "sil.npy", "poses": "poses.npy"})
    assert found["silhouettes"].shape == (4, 64, 44)


def test_frames_without_poses_are_left_out_of_all(tmp_path):
    images(tmp_path / "silhouettes", SILHOUETTES)
    (tmp_path / "poses").mkdir()
    for i, pose in enumerate(POSES):
        people = [] if i == 2 else [{"pose_keypoints_2d": pose.flatten().tolist()}]
        (tmp_path / "poses" / f"{i}.json").write_text(json.dumps({"people": people}))
    with pytest.warns(UserWarning, match="1 of 4 frames .* hold nobody"):
        found = load_sequence(tmp_path, ("silhouettes", "poses"))
    torch.testing.assert_close(found["poses"], torch.from_numpy(POSES[[0, 1, 3]]))
    assert torch.equal(found["silhouettes"], torch.from_numpy(SILHOUETTES[[0, 1, 3]]))
    with pytest.warns(UserWarning, match="hold nobody"):
        drawn = load_sequence(tmp_path, ("silhouettes", "skeleton_maps"))
    assert drawn["skeleton_maps"].shape == (2, 3, 64, 64)
    assert torch.equal(drawn["silhouettes"], found["silhouettes"])


def test_joint_format(tmp_path):
    np.save(tmp_path / "poses.npy", np.ones((4, 18, 3)))
    assert load_sequence(tmp_path, "poses", joint_format="openpose18").shape == (4, 17, 3)
    with pytest.raises(ValueError, match="25 joints for body25"):
        load_sequence(tmp_path, "poses", joint_format="body25")


@pytest.mark.parametrize("frames", [2, 3, 7])
@pytest.mark.parametrize(("name", "channels"), [("skeleton_maps", 2), ("rgb", 3)])
def test_opengaits_pickles_keep_frames_first(tmp_path, name, channels, frames):
    array = np.random.default_rng(0).integers(0, 256, (frames, channels, 8, 6), dtype=np.uint8)
    wanted = torch.from_numpy(array).movedim(1, 0)
    wanted = wanted if name == "skeleton_maps" else wanted.float() / 255
    save_pickles(tmp_path, {"090": array})
    assert torch.equal(load_sequence(tmp_path / "090.pkl", name), wanted)
    # Alone in its folder, as OpenGait has it.
    assert torch.equal(load_sequence(tmp_path, name), wanted)
    np.save(tmp_path / "ours.npy", np.moveaxis(array, 1, 0).astype(np.int64))
    assert torch.equal(load_sequence(tmp_path / "ours.npy", name), wanted)
    np.save(tmp_path / "wide.npy", np.full((channels, 2, 2, 2), 256))
    with pytest.raises(ValueError, match="whole numbers from 256 to 256"):
        load_sequence(tmp_path / "wide.npy", name)


def test_colours_behind_and_depth_without_channels(tmp_path):
    colours = np.random.default_rng(0).random((7, 8, 6, 3))
    np.savez(tmp_path / "rgb.npz", colours)
    found = load_sequence(tmp_path / "rgb.npz", "rgb")
    torch.testing.assert_close(found, torch.from_numpy(colours).movedim(3, 0).float())
    np.save(tmp_path / "depth.npy", colours[..., 0].astype(">f4"))
    assert load_sequence(tmp_path, "depth").shape == (1, 7, 8, 6)
    np.save(tmp_path / "smpl.npy", np.ones((7, 85)))
    assert load_sequence(tmp_path, "smpl").dtype == torch.float32
    np.save(tmp_path / "maps.npy", np.ones((2, 8, 6)))
    assert load_sequence(tmp_path, "images").shape == (2, 8, 6)


def test_a_sequence_of_files_feeds_a_model(tmp_path):
    import two_modalities  # noqa: F401 - registers the model

    np.save(tmp_path / "poses.npy", POSES)
    images(tmp_path / "silhouettes", SILHOUETTES)
    sequence = load_sequence(tmp_path, ("silhouettes", "skeleton_maps"))
    transform = gaitzoo.data.transforms.ModalityTransform(tuple(sequence), (64, 44))
    model = gaitzoo.create_model("two_branches").eval()
    batch = {name: x[None] for name, x in transform(sequence).items()}
    assert torch.isfinite(model(batch).embeddings).all()
