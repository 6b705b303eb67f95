"""Label maps of the walkers: the parts of the body where its joints are, and nothing else."""

import pytest
import torch

from gaitzoo.synthetic import Identity, SegmentationNoise, render_walk, sample_identity

# Joints of COCO that lie on a limb which nothing covers from the side, and the parts there.
FRONT_JOINTS = {0: {1}, 15: {7, 9}, 16: {8, 10}}


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("noise", [None, SegmentationNoise(holes=1, ragged=1, cut_limbs=1)])
@pytest.mark.parametrize("condition", ["normal", "coat"])
def test_labels_cover_the_silhouette_exactly(aligned, noise, condition):
    options = {"frames": 6, "view": 60.0, "size": (96, 80), "condition": condition, "seed": 2}
    plain = render_walk(sample_identity(3), aligned=aligned, noise=noise, **options)
    walk = render_walk(sample_identity(3), aligned=aligned, noise=noise, parsing=True, **options)
    assert plain.parsing is None
    assert torch.equal(plain.silhouettes, walk.silhouettes)
    assert torch.equal(plain.keypoints, walk.keypoints)
    assert walk.parsing.dtype == torch.uint8
    assert walk.parsing.shape == walk.silhouettes.shape
    assert torch.equal(walk.parsing > 0, walk.silhouettes > 127)
    assert (11 in walk.parsing) == (condition == "coat")
    assert walk.parsing.max() <= 11


def test_a_bag_is_no_part_of_the_body():
    walk = render_walk(Identity(), frames=5, condition="bag", seed=1, size=(128, 88), parsing=True)
    uncovered = (walk.silhouettes > 127) & (walk.parsing == 0)
    assert 0.01 < uncovered.sum() / (walk.silhouettes > 127).sum() < 0.3


@pytest.mark.parametrize("view", [0.0, 90.0, 180.0])
def test_joints_lie_on_their_parts(view):
    walk = render_walk(Identity(), frames=12, view=view, size=(128, 88), parsing=True)
    for frame, joints in zip(walk.parsing, walk.keypoints, strict=True):
        for joint, parts in FRONT_JOINTS.items():
            x, y = (int(value) for value in joints[joint, :2])
            found = int(frame[y, x])
            # One foot may hide behind the other.
            assert found in parts | ({7, 8, 9, 10} if joint > 0 else set())


@pytest.mark.parametrize(("view", "near"), [(90.0, 3), (270.0, 4)])
def test_the_arm_towards_the_camera_hides_the_other(view, near):
    walk = render_walk(Identity(), frames=26, view=view, size=(128, 88), parsing=True)
    counts = [int((walk.parsing == label).sum()) for label in (3, 4)]
    assert counts[near - 3] > 1.5 * counts[4 - near]


def test_left_and_right_change_sides_when_the_walker_turns():
    columns = {}
    for view in (0.0, 180.0):
        labels = render_walk(Identity(), frames=26, view=view, parsing=True).parsing
        left, right = ((labels == part).nonzero()[:, 2].float().mean() for part in (7, 8))
        columns[view] = float(left - right)
    assert columns[0.0] > 1
    assert columns[180.0] < -1


def test_lost_limbs_are_lost_in_the_labels_too():
    noise = SegmentationNoise(cut_limbs=1.0)
    walk = render_walk(Identity(), frames=40, seed=4, noise=noise, size=(128, 88), parsing=True)
    lost = (walk.keypoints[:, 9:11, 2] == 0).nonzero()
    assert len(lost)
    for frame, side in lost.tolist():
        assert not (walk.parsing[frame] == 5 + side).any()


def test_all_shapes_are_named():
    for condition in ("normal", "bag", "coat"):
        for seed in range(6):
            walk = render_walk(
                sample_identity(seed), frames=2, condition=condition, seed=seed, parsing=True
            )
            assert set(walk.parsing.unique().tolist()) >= {0, 1, 2}
