"""Branches of poses against loops over joints and frames; skeletons; repairs; formats."""

import math
import zlib

import numpy as np
import pytest
import torch

from gaitzoo import (
    SKELETONS,
    fill_empty_joints,
    gaitgraph_inputs,
    gaittr_inputs,
    joint_graph,
    reverse_time,
    swap_joints,
)
from gaitzoo.data.poses import JOINT_FORMATS, convert_joints, load_poses

FORMATS = list(SKELETONS)


def poses(frames, joint_format="coco17", count=1):
    joints = SKELETONS[joint_format].num_joints
    return torch.rand(count, frames, joints, 3) * torch.tensor([60.0, 200.0, 1.0]) + 1


def steps_of(points, t, v, frames):
    """How far a joint gets in some frames; 0 in the last two frames of a sequence."""
    if t >= len(points) - 2:
        return [0.0, 0.0]
    return [float(points[t + frames, v, i] - points[t, v, i]) for i in (0, 1)]


@pytest.mark.parametrize("joint_format", FORMATS)
@pytest.mark.parametrize("frames", [1, 2, 3, 8])
@pytest.mark.parametrize("center", [0, 1])
def test_branches_against_loops(joint_format, frames, center):
    clip = poses(frames, joint_format)
    found = gaitgraph_inputs(clip, joint_format=joint_format, center=center)[0]
    flat = gaittr_inputs(clip, joint_format=joint_format)[0, ..., 0]
    one = clip[0]
    for t in range(frames):
        for v, parent in enumerate(SKELETONS[joint_format].parents):
            x, y, score = one[t, v].tolist()
            moved, far = steps_of(one, t, v, 1), steps_of(one, t, v, 2)
            bone = (one[t, v, :2] - one[t, parent, :2]).tolist()
            angle = math.acos(bone[1] / (math.hypot(*bone) + 1e-4))
            from_center = (one[t, v, :2] - one[t, center, :2]).tolist()
            from_nose = (one[t, v, :2] - one[t, 0, :2]).tolist()
            wanted = [
                [x, y, score, *from_center],
                [*moved, 0.0, score, far[1]],
                [*bone, 0.0, score, angle],
            ]
            torch.testing.assert_close(found[t, v], torch.tensor(wanted), rtol=1e-5, atol=1e-3)
            wanted = [x, y, *from_nose, *moved, *far, *bone]
            torch.testing.assert_close(flat[t, :, v], torch.tensor(wanted), rtol=1e-5, atol=1e-3)


def test_a_bone_of_no_length_has_a_right_angle():
    neck = gaitgraph_inputs(poses(3, "openpose18"), joint_format="openpose18")[0, :, 1, 2, 4]
    torch.testing.assert_close(neck, torch.full((3,), math.pi / 2))


@pytest.mark.parametrize("build", [gaitgraph_inputs, gaittr_inputs, reverse_time])
def test_nothing_reaches_past_the_end(build):
    clips = [poses(t)[0] for t in (1, 2, 3, 7, 9)]
    batch = torch.full((5, 9, 17, 3), float("nan"))
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    found = build(batch, torch.tensor([1, 2, 3, 7, 9]))
    for row, clip in zip(found, clips, strict=True):
        assert torch.equal(row[: len(clip)], build(clip[None])[0])


@pytest.mark.parametrize(
    ("joint_format", "crc"), [("coco17", 1637353137), ("openpose18", 148556189)]
)
def test_graphs_are_the_published_ones(joint_format, crc):
    graph = joint_graph(joint_format)
    assert zlib.crc32(graph.numpy().tobytes()) == crc
    torch.testing.assert_close(graph.sum((0, 1)), torch.ones(graph.shape[1]))


@pytest.mark.parametrize("joint_format", FORMATS)
def test_skeletons_are_symmetric(joint_format):
    skeleton = SKELETONS[joint_format]
    mirrored = skeleton.mirrored
    assert [mirrored[i] for i in mirrored] == list(range(skeleton.num_joints))
    edges = {frozenset(edge) for edge in skeleton.edges}
    assert {frozenset(mirrored[i] for i in edge) for edge in edges} == edges
    clip = poses(4, joint_format)
    assert torch.equal(swap_joints(swap_joints(clip, joint_format), joint_format), clip)


def test_missing_joints_are_filled_one_after_the_other():
    frame = torch.tensor([[3.0, 6.0, 0.9], [0.0, 5.0, 0.8], [6.0, 3.0, 0.7], [0.0, 0.0, 0.0]])
    first = torch.tensor([9 / 4, 14 / 4])
    second = torch.tensor([(9 + 9 / 4) / 4, (9 + 14 / 4) / 4])
    wanted = frame.clone()
    wanted[1] = torch.tensor([*first, 0])
    wanted[3] = torch.tensor([*second, 0])
    torch.testing.assert_close(fill_empty_joints(frame), wanted)
    assert torch.equal(fill_empty_joints(torch.zeros(2, 17, 3)), torch.zeros(2, 17, 3))


@pytest.mark.parametrize("joint_format", JOINT_FORMATS)
def test_any_format_becomes_18_joints(joint_format):
    number, places = JOINT_FORMATS[joint_format]
    clip = torch.rand(4, number, 3) + 1
    found = convert_joints(clip, to_format="openpose18")
    # Reading them back loses the neck and nothing else.
    torch.testing.assert_close(convert_joints(found), clip[:, list(places)])
    neck = {"openpose18": 1, "body25": 1, "halpe26": 18, "halpe136": 18}.get(joint_format)
    coco = clip[:, list(places)]
    middle = (coco[:, 5, :2] + coco[:, 6, :2]) / 2
    score = torch.minimum(coco[:, 5, 2], coco[:, 6, 2])
    wanted = torch.cat([middle, score[:, None]], 1) if neck is None else clip[:, neck]
    torch.testing.assert_close(found[:, 1], wanted)


def test_a_missing_shoulder_gives_no_neck():
    clip = torch.rand(4, 17, 3) + 1
    clip[2, 6] = 0
    found = convert_joints(clip, to_format="openpose18")
    assert torch.equal(found[2, 1], torch.zeros(3))
    assert (found[[0, 1, 3], 1] > 0).all()


def test_files_give_the_joints_that_are_asked_for(tmp_path):
    clip = np.random.default_rng(0).random((4, 18, 3)).astype(np.float32) + 1
    np.save(tmp_path / "poses.npy", clip)
    kept = load_poses(tmp_path / "poses.npy", to_format="openpose18")
    assert torch.equal(kept, torch.from_numpy(clip))
    assert load_poses(tmp_path / "poses.npy").shape == (4, 17, 3)
    with pytest.raises(ValueError, match="to_format"):
        load_poses(tmp_path / "poses.npy", to_format="body25")


def test_bad_poses_are_refused_with_a_reason():
    clip = poses(5)
    with pytest.raises(ValueError, match=r"\[N, T, 18, 3\].*to_format='openpose18'"):
        gaitgraph_inputs(clip, joint_format="openpose18")
    with pytest.raises(ValueError, match=r"poses\[None\]"):
        gaitgraph_inputs(clip[0])
    with pytest.raises(ValueError, match="expected poses"):
        gaittr_inputs(clip[..., :2])
    with pytest.raises(ValueError, match="expected poses"):
        gaittr_inputs(clip[:, :0])
    with pytest.raises(TypeError, match="floats"):
        gaittr_inputs(clip.long())
    with pytest.raises(ValueError, match="joint_format among coco17, openpose18"):
        gaittr_inputs(clip, joint_format="body25")
    with pytest.raises(ValueError, match="center"):
        gaitgraph_inputs(clip, center=17)
    with pytest.raises(ValueError, match="expected poses"):
        fill_empty_joints(clip[..., :2])
    with pytest.raises(ValueError, match="expected poses"):
        swap_joints(clip[:, :, :16])
