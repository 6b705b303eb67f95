"""Poses as estimators write them, and maps drawn from them."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.impute import KNNImputer

from gaitzoo import PosesToMaps
from gaitzoo.data.poses import JOINT_FORMATS, convert_joints, load_poses
from gaitzoo.data.skeleton_maps import COCO17_LIMBS, fill_missing_joints


def walk(frames=4):
    v, t = np.arange(17)[None], np.arange(frames)[:, None]
    x = 200 + 3 * t + 40 * np.sin(0.7 * v + 0.3 * t)
    y = 100 + 12 * v + 2 * np.cos(v + t)
    return np.stack([x, y, 0.5 + 0.5 * ((7 * v + 3 * t) % 11) / 11], axis=-1)


POSES = walk().astype(np.float32)


def annotation(frame, pose, **more):
    return {"image_id": frame, "keypoints": pose.flatten().tolist(), "category_id": 1, **more}


def test_coco_file_of_a_sequence(tmp_path):
    # Frame 10 stands before frame 9 in the file and behind it in time.
    entries = [annotation(f"{9 + i}.jpg", pose) for i, pose in enumerate(POSES)]
    path = tmp_path / "alphapose-results.json"
    path.write_text(json.dumps(entries[::-1]))
    torch.testing.assert_close(load_poses(path), torch.from_numpy(POSES))
    path.write_text(json.dumps({"annotations": entries, "images": []}))
    torch.testing.assert_close(load_poses(path), torch.from_numpy(POSES))


def test_coco_file_per_frame(tmp_path):
    for i, pose in enumerate(POSES):
        (tmp_path / f"frame_{i + 8}.json").write_text(json.dumps([annotation(i, pose)]))
    torch.testing.assert_close(load_poses(tmp_path), torch.from_numpy(POSES))


def test_openpose_file_per_frame(tmp_path):
    number, places = JOINT_FORMATS["body25"]
    for i, pose in enumerate(POSES):
        body = np.zeros((number, 3))
        body[list(places)] = pose
        people = {"version": 1.3, "people": [{"pose_keypoints_2d": body.flatten().tolist()}]}
        (tmp_path / f"{i:012d}_keypoints.json").write_text(json.dumps(people))
    torch.testing.assert_close(load_poses(tmp_path), torch.from_numpy(POSES))


@pytest.mark.parametrize("suffix", [".pkl", ".npy", ".npz"])
def test_arrays(tmp_path, suffix):
    path = tmp_path / f"poses{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(POSES))
    elif suffix == ".npy":
        np.save(path, POSES)
    else:
        np.savez(path, POSES)
    torch.testing.assert_close(load_poses(path), torch.from_numpy(POSES))


def test_one_file_of_a_sequence_alone_in_a_folder(tmp_path):
    entries = [annotation(i, pose) for i, pose in enumerate(POSES)]
    path = tmp_path / "alphapose-results.json"
    path.write_text(json.dumps(entries))
    torch.testing.assert_close(load_poses(tmp_path), torch.from_numpy(POSES))
    path.unlink()
    np.save(tmp_path / "090.npy", POSES)
    torch.testing.assert_close(load_poses(tmp_path), torch.from_numpy(POSES))
    np.save(tmp_path / "108.npy", POSES)
    with pytest.raises(ValueError, match="of one array, got 2 arrays"):
        load_poses(tmp_path)


def test_marks_of_annotators_are_no_confidences(tmp_path):
    pose = POSES[0].copy()
    pose[:, 2] = [2, 1, 0] * 5 + [2, 2]
    path = tmp_path / "poses.json"
    path.write_text(json.dumps([annotation(0, pose)]))
    assert load_poses(path)[0, :, 2].tolist() == [1, 1, 0] * 5 + [1, 1]


def test_joints_of_other_formats_by_name():
    # Joint j of OpenPose's 18 as a pose in which its number is written.
    body = torch.arange(18.0)[None, :, None].expand(1, 18, 3)
    left = ["left eye", "left ear", "left shoulder", "left elbow", "left wrist", "left hip"]
    names = {15: left[0], 17: left[1], 5: left[2], 6: left[3], 7: left[4], 11: left[5]}
    found = convert_joints(body, "openpose18")[0, :, 0].tolist()
    assert [names.get(int(number)) for number in found[1:12:2]] == left


def test_several_people_and_nobody(tmp_path):
    faint = POSES[1].copy()
    faint[:, 2] = 0.01
    entries = [annotation(0, POSES[0]), annotation(1, faint), annotation(1, POSES[1])]
    content = {"annotations": entries, "images": [{"id": 0}, {"id": 1}, {"id": 2}]}
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="of 3 frames") as shown:
        found = load_poses(path)
    torch.testing.assert_close(found, torch.from_numpy(POSES[:2]))
    texts = [str(w.message) for w in shown]
    assert any("1 of 3 frames" in text and "several people" in text for text in texts)
    assert any("1 of 3 frames" in text and "nobody" in text for text in texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ('[{"box": [1]}]', 'expected entries with "keypoints"'),
        ('[{"keypoints": [1, 2]}]', "x, y, confidence"),
        ('[{"keypoints": ["a", 1, 1]}]', "expected numbers"),
        ('[{"keypoints": [1, 2, 3]}]', "J among"),
        (json.dumps([{"keypoints": [1, float("nan"), 1] * 17}]), "NaN"),
        (json.dumps([{"keypoints": [1, 1e300, 1] * 17}]), "infinite"),
        ("[]", "nobody"),
        ("3", "got int"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / "poses.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_poses(path)


def test_missing_files_and_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match="file or folder of poses"):
        load_poses(tmp_path / "none.json")
    with pytest.raises(ValueError, match="got no arrays and no JSON"):
        load_poses(tmp_path)
    with pytest.raises(ValueError, match="joint_format among"):
        convert_joints(torch.zeros(2, 17, 3), "mpii")
    with pytest.raises(ValueError, match="25 joints for body25"):
        convert_joints(torch.zeros(2, 17, 3), "body25")


def naive_maps(pose, sigma=8.0):
    """Limb and joint map of one placed pose on 128 x 128, pixel by pixel."""
    maps = np.zeros((2, 128, 128))
    for y in range(128):
        for x in range(128):
            for mu_x, mu_y, score in pose:
                inside = int(mu_x - 24) <= x <= int(mu_x + 24) and int(mu_y - 24) <= y
                if inside and y <= int(mu_y + 24):
                    d = (x - mu_x) ** 2 + (y - mu_y) ** 2
                    maps[1, y, x] = max(maps[1, y, x], score * np.exp(-d / (2 * sigma**2)))
            for a, b in COCO17_LIMBS:
                (ax, ay, sa), (bx, by, sb) = pose[a], pose[b]
                if not int(min(ax, bx) - 24) <= x <= int(max(ax, bx) + 24):
                    continue
                if not int(min(ay, by) - 24) <= y <= int(max(ay, by) + 24):
                    continue
                along = (x - ax) * (bx - ax) + (y - ay) * (by - ay)
                along = min(1, max(0, along / ((bx - ax) ** 2 + (by - ay) ** 2)))
                d = (x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2
                score = min(sa, sb) * np.exp(-d / (2 * sigma**2))
                maps[0, y, x] = max(maps[0, y, x], score)
    return maps


def test_maps_are_a_loop_over_pixels():
    pose = POSES[0].astype(np.float64)
    placed = pose.copy()
    placed[:, :2] -= pose[[11, 12], :2].mean(0)
    placed[:, :2] = placed[:, :2] * 85 / np.ptp(pose[:, 1]) + 64
    found = PosesToMaps((64, 64)).draw(POSES[:1]).numpy()[:, 0]
    for naive, aligned in zip(naive_maps(placed), found, strict=True):
        levels = np.minimum((256 * naive).astype(int), 255)
        rows = np.flatnonzero(levels.any(1))
        top, bottom = rows[0], rows[-1] + 1
        half = (bottom - top) // 2
        crop = levels[top:bottom, max(0, 64 - half) : 64 + half + 1]
        tall = np.repeat(np.repeat(crop, 64, axis=0), 64, axis=1)
        boxes = tall.reshape(64, crop.shape[0], 64, crop.shape[1]).mean((1, 3))
        # The published table of grey levels lowers some by one; truncation may take another.
        assert np.abs(boxes - aligned).max() < 2


def test_maps_have_the_published_sums():
    maps = PosesToMaps((64, 64)).draw(walk()).numpy().astype(int)
    sums = maps.reshape(2, 4, -1).sum(-1)
    wanted = [[194285, 186521, 196256, 189116], [182572, 183151, 180737, 174611]]
    # At most five of 4096 pixels of a map differ, by one level.
    assert np.abs(sums - wanted).max() <= 5
    assert maps[0, 0, 32, 20:26].tolist() == [151, 170, 186, 198, 205, 208]
    assert maps[1, 3, 10, 28:34].tolist() == [203, 205, 197, 180, 157, 132]
    assert maps.max() == 242
    missing = walk()
    missing[1, 5, :2] = 0
    sums = PosesToMaps((64, 64)).draw(missing).numpy().astype(int).reshape(2, 4, -1).sum(-1)
    assert np.abs(sums[:, 1] - [186831, 183509]).max() <= 5


def test_missing_joints_are_filled_as_by_scikit_learn():
    poses = np.random.default_rng(0).random((12, 17, 3)) * 100 + 1
    poses[np.random.default_rng(1).random(poses.shape) < 0.15] = 0
    table = poses[..., :2].reshape(12, -1).copy()
    table[table == 0] = np.nan
    wanted = KNNImputer(n_neighbors=4, weights="distance").fit_transform(table)
    found = fill_missing_joints(poses)
    np.testing.assert_allclose(found[..., :2].reshape(12, -1), wanted)
    assert np.array_equal(found[..., 2], poses[..., 2])
    poses[:, 3, 0] = 0  # in no frame: nothing to fill from
    assert np.array_equal(fill_missing_joints(poses), poses)


def test_sizes_and_bad_poses():
    maps = PosesToMaps()(torch.from_numpy(POSES))
    assert maps.shape == (2, 4, 64, 44)
    assert maps.dtype == torch.float32
    assert 0 <= maps.min() < maps.max() <= 1
    square = PosesToMaps((64, 64))(POSES)
    assert torch.equal(square[..., 10:54], maps)
    assert PosesToMaps((128, 88))(POSES).shape == (2, 4, 128, 88)
    for bad, message in (
        (POSES[:, :16], "17, 3"),
        (POSES[:0], "17, 3"),
        (np.full((1, 17, 3), np.nan), "NaN"),
        (np.ones((1, 17, 3)), "height"),
    ):
        with pytest.raises(ValueError, match=message):
            PosesToMaps()(bad)
    with pytest.raises(ValueError, match="height at least the width"):
        PosesToMaps((44, 64))
    with pytest.raises(ValueError, match="sigma"):
        PosesToMaps(sigma=0)
