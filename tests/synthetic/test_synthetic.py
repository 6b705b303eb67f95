"""Synthetic walkers: the same pixels from the same seeds, and bodies that walk as people do."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gaitzoo.synthetic import (
    Identity,
    SegmentationNoise,
    SyntheticWalkers,
    raster,
    render_walk,
    sample_identity,
)

LEFT_ANKLE, RIGHT_ANKLE = 15, 16
LEFT_WRIST, RIGHT_WRIST = 9, 10
LEFT_HIP, LEFT_KNEE = 11, 13
# Every trait that tells left from right, at rest.
SYMMETRIC = Identity(leg_asymmetry=0.0, arm_asymmetry=0.0, step_asymmetry=0.0)


def digest(walk):
    pixels = walk.silhouettes.numpy().tobytes()
    points = np.round(walk.keypoints.numpy(), 2).tobytes()
    return hashlib.sha256(pixels + points).hexdigest()


def band(walk, top, bottom):
    """Mean area, in frames, between two heights (0 = top of the frame)."""
    height = walk.silhouettes.shape[1]
    rows = walk.silhouettes[:, int(top * height) : int(bottom * height)]
    return rows.float().mean().item() / 255


def widths(walk):
    """Columns that a frame's body reaches over, [T]."""
    columns = (walk.silhouettes > 127).any(dim=1).float()
    first = columns.argmax(dim=1)
    return columns.shape[1] - columns.flip(1).argmax(dim=1) - first


# Shapes and determinism


@pytest.mark.parametrize("size", [(64, 44), (128, 88), (64, 64), (33, 21)])
@pytest.mark.parametrize("aligned", [True, False])
def test_shapes_types_and_range(size, aligned):
    walk = render_walk(sample_identity(1), frames=5, size=size, aligned=aligned)
    assert walk.silhouettes.shape == (5, *size)
    assert walk.silhouettes.dtype == torch.uint8
    assert walk.silhouettes.max() == 255
    assert walk.silhouettes.min() == 0
    assert walk.keypoints.shape == (5, 17, 3)
    assert walk.keypoints.dtype == torch.float32
    assert (walk.keypoints[..., 2] == 1).all()


def test_one_frame_is_the_first_of_many():
    one, many = (render_walk(Identity(), frames=frames, seed=4) for frames in (1, 12))
    torch.testing.assert_close(one.silhouettes[0], many.silhouettes[0])


def test_the_same_seeds_give_the_same_walks_in_another_process():
    code = (
        "from test_synthetic import digest, noisy_walk\n"
        "print(*(digest(noisy_walk(condition)) for condition in ('normal', 'bag', 'coat')))"
    )
    folders = [str(Path(__file__).parent), _package_root()]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {folders}\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = [digest(noisy_walk(condition)) for condition in ("normal", "bag", "coat")]
    assert done.stdout.split() == here
    assert len(set(here)) == 3


def noisy_walk(condition):
    noise = SegmentationNoise(holes=1, ragged=1, cut_limbs=1, scale_jitter=1)
    return render_walk(
        sample_identity(5), frames=6, view=36, condition=condition, noise=noise, seed=3
    )


def _package_root():
    return sys.modules["gaitzoo"].__path__[0].rpartition("gaitzoo")[0]


def test_rendering_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    render_walk(Identity(), frames=3, noise=SegmentationNoise(ragged=1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_change_the_walk_but_not_the_person():
    person = sample_identity(2)
    walks = [render_walk(person, frames=4, seed=seed, phase=0.0) for seed in range(4)]
    assert len({digest(walk) for walk in walks}) == 4
    other = render_walk(sample_identity(3), frames=4, seed=0, phase=0.0)

    def difference(first, second):
        return (first.silhouettes.float() - second.silhouettes.float()).abs().mean().item()

    own = np.mean([difference(walks[0], walk) for walk in walks[1:]])
    assert own < difference(walks[0], other)


# Identities


def test_sampled_identities_differ_and_fill_their_ranges():
    people = [sample_identity(seed) for seed in range(200)]
    assert len(set(people)) == 200
    for field in dataclasses.fields(Identity):
        low, high = field.metadata["low"], field.metadata["high"]
        values = np.array([getattr(person, field.name) for person in people])
        assert values.min() >= low
        assert values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low), field.name
        assert low <= field.default <= high


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Identity)])
def test_every_trait_can_be_seen_from_some_view(field):
    # Stature shows in a camera's picture only as a ratio to the way walked, so film that too.
    metadata = {item.name: item.metadata for item in dataclasses.fields(Identity)}[field]
    low, high = (
        dataclasses.replace(Identity(), **{field: metadata[end]}) for end in ("low", "high")
    )
    changes = []
    for view, aligned in ((0, True), (90, True), (0, False)):
        options = {"frames": 20, "view": view, "phase": 0.1, "aligned": aligned, "size": (64, 64)}
        small, large = (render_walk(person, **options).silhouettes for person in (low, high))
        changes.append(((small > 127) != (large > 127)).float().mean().item())
    assert max(changes) > 0.002


# The gait


def test_legs_alternate_at_the_persons_cadence():
    person = dataclasses.replace(SYMMETRIC, cadence=1.0)
    walk = render_walk(person, frames=100, view=90, speed=1.0, size=(64, 64))
    ahead = walk.keypoints[:, LEFT_ANKLE, 0] - walk.keypoints[:, RIGHT_ANKLE, 0]
    crossings = (ahead[1:].sign() != ahead[:-1].sign()).sum().item()
    # Four seconds, one stride a second, two crossings a stride; style may move one over the edge.
    assert 7 <= crossings <= 9
    assert ahead.max() > 8
    assert ahead.min() < -8


def test_walking_faster_means_more_and_longer_steps():
    crossings, reach = [], []
    for speed in (0.6, 1.4):
        walk = render_walk(SYMMETRIC, frames=150, view=90, speed=speed, size=(64, 64))
        ahead = walk.keypoints[:, LEFT_ANKLE, 0] - walk.keypoints[:, RIGHT_ANKLE, 0]
        crossings.append((ahead[1:].sign() != ahead[:-1].sign()).sum().item())
        reach.append(ahead.max().item())
    assert crossings[1] > 1.3 * crossings[0]
    assert reach[1] > 1.2 * reach[0]


def test_arms_swing_against_the_legs_of_their_side():
    walk = render_walk(SYMMETRIC, frames=52, view=90, size=(64, 64))
    x = walk.keypoints[..., 0]
    legs = x[:, LEFT_ANKLE] - x[:, RIGHT_ANKLE]
    arms = x[:, LEFT_WRIST] - x[:, RIGHT_WRIST]
    assert torch.corrcoef(torch.stack([legs, arms]))[0, 1] < -0.8


def test_knees_bend_backwards_only_and_the_standing_leg_is_nearly_straight():
    # The view at 90 walks to the left: a knee lies left of the line from hip to ankle, or on it.
    for seed in range(10):
        walk = render_walk(sample_identity(seed), frames=30, view=90, size=(128, 128), seed=seed)
        points = walk.keypoints[..., :2].double()
        for side in (0, 1):
            hip, knee, ankle = (points[:, joint + side] for joint in (11, 13, 15))
            thigh, shank = knee - hip, ankle - knee
            angle = torch.atan2(-thigh[:, 0], thigh[:, 1]) - torch.atan2(-shank[:, 0], shank[:, 1])
            degrees = angle.rad2deg()
            assert degrees.min() > -1.0
            assert degrees.min() < 25.0
            assert 35.0 < degrees.max() < 95.0


def test_standing_feet_stay_in_place_in_a_standing_cameras_picture():
    walk = render_walk(SYMMETRIC, frames=60, view=90, size=(240, 320), aligned=False)
    x = walk.keypoints[..., 0]
    body = (x[0] - x[-1]).mean()
    assert body > 60  # crosses to the left
    slower = (x[1:, [LEFT_ANKLE, RIGHT_ANKLE]] - x[:-1, [LEFT_ANKLE, RIGHT_ANKLE]]).abs().amin(1)
    assert slower.mean() < 0.35 * body / 59


def test_a_walker_grows_on_the_way_to_the_camera_and_shrinks_on_the_way_back():
    def heights(view):
        walk = render_walk(Identity(), frames=50, view=view, size=(120, 160), aligned=False)
        return (walk.silhouettes > 127).any(dim=2).sum(dim=1).float()

    coming, leaving = heights(0), heights(180)
    assert coming[-1] > 1.15 * coming[0]
    assert leaving[0] > 1.15 * leaving[-1]


@pytest.mark.parametrize("view", [0, 36, 90, 270])
@pytest.mark.parametrize("frames", [10, 200])
def test_the_whole_walk_fits_into_a_standing_cameras_picture(view, frames):
    walk = render_walk(
        sample_identity(8), frames=frames, view=view, elevation=10, size=(60, 80), aligned=False
    )
    edge = torch.cat(
        [walk.silhouettes[:, [0, -1]].flatten(), walk.silhouettes[:, :, [0, -1]].flatten()]
    )
    assert edge.max() == 0
    assert (walk.silhouettes > 127).flatten(1).any(dim=1).all()


# Alignment and keypoints


@pytest.mark.parametrize("condition", ["normal", "bag", "coat"])
@pytest.mark.parametrize("view", [0, 54, 90, 180, 250])
def test_aligned_bodies_fill_the_height_and_are_centred(view, condition):
    for seed in range(5):
        walk = render_walk(
            sample_identity(seed),
            frames=12,
            view=view,
            condition=condition,
            seed=seed,
            size=(64, 64),
        )
        frames = walk.silhouettes.long()
        assert (frames[:, 0].amax(dim=1) > 60).all()
        assert (frames[:, -1].amax(dim=1) > 60).all()
        mass = frames.sum(dim=1).cumsum(dim=1)
        column = (2 * mass <= mass[:, -1:]).sum(dim=1)
        assert (column - 32).abs().max() <= 1  # the grey levels are rounded after centring


def test_narrow_frames_are_wide_ones_with_the_sides_cut_off():
    wide, narrow = (
        render_walk(sample_identity(6), frames=8, view=90, size=size)
        for size in ((64, 64), (64, 44))
    )
    assert torch.equal(wide.silhouettes[:, :, 10:-10], narrow.silhouettes)
    torch.testing.assert_close(
        wide.keypoints[..., 0] - 10, narrow.keypoints[..., 0], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("view", [0, 36, 90, 144, 180])
def test_keypoints_lie_in_the_body(view, aligned):
    size = (128, 128) if aligned else (240, 320)
    for seed in range(6):
        walk = render_walk(
            sample_identity(seed), frames=10, view=view, seed=seed, size=size, aligned=aligned
        )
        x, y = walk.keypoints[..., 0], walk.keypoints[..., 1]
        assert x.min() >= 0
        assert y.min() >= 0
        assert x.max() <= size[1]
        assert y.max() <= size[0]
        # One pixel of slack: the nose and the ears lie on the outline itself.
        near = torch.nn.functional.max_pool2d(walk.silhouettes.float(), 3, 1, 1)
        frame = torch.arange(10)[:, None].expand(10, 17)
        inside = near[frame, y.long().clamp(0, size[0] - 1), x.long().clamp(0, size[1] - 1)]
        assert (inside > 127).float().mean() > 0.99
        assert (inside[:, 5:] > 127).all()


def test_keypoints_follow_the_coco_order():
    walk = render_walk(SYMMETRIC, frames=26, view=0, size=(128, 128))
    x, y = walk.keypoints[..., 0].mean(0), walk.keypoints[..., 1].mean(0)
    # Seen from the front, the left side of the person is on the right of the picture.
    for left in (1, 3, 5, 7, 9, 11, 13, 15):
        assert x[left] > x[left + 1]
    assert y[0] < y[5] < y[7] < y[9]
    assert y[5] < y[11] < y[13] < y[15]


@pytest.mark.parametrize("view", [0, 36, 90])
def test_level_cameras_opposite_to_each_other_see_mirror_images(view):
    person = sample_identity(4)
    here, there = (
        render_walk(person, frames=20, view=angle, phase=0.0).silhouettes.int()
        for angle in (view, view + 180)
    )
    # The middle column of an even width is the first one right of the middle line.
    mirrored = there.flip(2).roll(1, dims=2)
    assert (here - mirrored)[..., 1:].abs().max() <= 2
    assert (here - there).abs().max() > 200


def test_side_and_front_views_differ():
    front, side = (render_walk(Identity(), frames=20, view=view, phase=0.0) for view in (0, 90))
    assert widths(side).float().std() > 3 * widths(front).float().std()
    assert band(front, 0.2, 0.4) > 1.2 * band(side, 0.2, 0.4)


def test_two_cameras_see_the_same_walk():
    side, front = (render_walk(Identity(), frames=30, view=view, seed=9) for view in (90, 0))
    # The higher ankle swings; both cameras agree on which one it is.
    lifted = [
        (walk.keypoints[:, LEFT_ANKLE, 1] - walk.keypoints[:, RIGHT_ANKLE, 1])
        for walk in (side, front)
    ]
    assert torch.corrcoef(torch.stack(lifted))[0, 1] > 0.98


def test_a_high_camera_shortens_the_body_against_its_width():
    level, high = (
        render_walk(Identity(), frames=20, view=0, elevation=elevation, size=(64, 64))
        for elevation in (0, 30)
    )
    assert widths(high).float().mean() > widths(level).float().mean() + 1


def test_asymmetry_shows():
    person = dataclasses.replace(SYMMETRIC, leg_asymmetry=0.16, arm_asymmetry=0.7)
    walk = render_walk(person, frames=130, view=90, size=(128, 128))
    # A swing measured by how far the thigh or the arm turns.
    thigh = walk.keypoints[:, LEFT_KNEE : LEFT_KNEE + 2, 0] - walk.keypoints[:, 11:13, 0]
    arm = walk.keypoints[:, 7:9, 0] - walk.keypoints[:, 5:7, 0]
    for limb, ratio in ((thigh, 1.05), (arm, 1.5)):
        left, right = (limb.amax(0) - limb.amin(0)).tolist()
        assert left > ratio * right


# Conditions and noise


def test_a_coat_hides_the_thighs_and_widens_the_trunk():
    for seed in range(6):
        normal, coat = (
            render_walk(SYMMETRIC, frames=26, view=90, condition=condition, phase=0.0, seed=seed)
            for condition in ("normal", "coat")
        )
        assert band(coat, 0.52, 0.62) > 1.1 * band(normal, 0.52, 0.62)
        assert band(coat, 0.25, 0.5) > 1.05 * band(normal, 0.25, 0.5)
        assert band(coat, 0.9, 1.0) == pytest.approx(band(normal, 0.9, 1.0), rel=0.1)


def test_a_bag_adds_area_between_shoulder_and_knee():
    places = set()
    for seed in range(12):
        normal, bag = (
            render_walk(SYMMETRIC, frames=26, view=view, condition=condition, phase=0.0, seed=seed)
            for view in (90,)
            for condition in ("normal", "bag")
        )
        gain = [band(bag, low, low + 0.2) - band(normal, low, low + 0.2) for low in (0.2, 0.4, 0.6)]
        assert max(gain) > 0.004
        assert band(bag, 0.0, 0.12) == pytest.approx(band(normal, 0.0, 0.12), rel=0.12)
        places.add(int(np.argmax(gain)))
    assert len(places) >= 2  # backpacks lie higher than hand bags


def test_holes_take_from_the_inside():
    clean = render_walk(Identity(), frames=40)
    noisy = render_walk(Identity(), frames=40, noise=SegmentationNoise(holes=1.0))
    assert torch.equal(clean.keypoints[..., 1], noisy.keypoints[..., 1])
    lost = 1 - noisy.silhouettes.float().sum() / clean.silhouettes.float().sum()
    assert 0.005 < lost < 0.15


def test_ragged_outlines_are_longer():
    def outline(walk):
        body = (walk.silhouettes > 127).float()
        return body.diff(dim=2).abs().sum() + body.diff(dim=1).abs().sum()

    lengths = [
        outline(
            render_walk(Identity(), frames=20, size=(128, 88), noise=SegmentationNoise(ragged=r))
        )
        for r in (0.0, 0.5, 1.0)
    ]
    assert lengths[0] < 0.97 * lengths[1] < 0.95 * lengths[2]


def test_cut_limbs_lose_their_keypoints_and_pixels():
    size = (240, 160)
    clean = render_walk(Identity(), frames=60, size=size, aligned=False)
    noise = SegmentationNoise(cut_limbs=1.0)
    cut = render_walk(Identity(), frames=60, size=size, aligned=False, noise=noise)
    lost = cut.keypoints[..., 2] == 0
    rows = lost.any(dim=1)
    assert 0.3 < rows.float().mean() < 0.95
    assert not lost[:, :9].any()
    area = [walk.silhouettes.float().sum(dim=(1, 2)) for walk in (clean, cut)]
    assert (area[1][rows] <= area[0][rows]).all()
    # Only a missing limb that the body hides anyway leaves the area as it was.
    assert (area[1][rows] < area[0][rows]).float().mean() > 0.8
    torch.testing.assert_close(area[1][~rows], area[0][~rows])


def test_scale_jitter_moves_the_top_of_the_body():
    walk = render_walk(Identity(), frames=40, noise=SegmentationNoise(scale_jitter=1.0))
    empty_rows = (walk.silhouettes > 127).any(dim=2).float().argmax(dim=1)
    assert empty_rows.float().std() > 0.8
    assert 0.2 < (empty_rows == 0).float().mean() < 0.8


def test_noise_is_zero_by_default():
    clean = render_walk(Identity(), frames=4)
    assert digest(clean) == digest(render_walk(Identity(), frames=4, noise=SegmentationNoise()))


# The drawing, against loops


def test_limbs_match_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    start, end = generator.uniform(0, 20, (2, 2, 3, 2))
    start[0, 0] = end[0, 0]  # seen end on
    first, second = generator.uniform(1, 4, (2, 2, 3))
    second[0, 0] = first[0, 0]
    field = raster.empty_field(2, 18, 22)
    arrays = (start, end, first, second)
    raster.add_limbs(field, *(torch.from_numpy(array).float() for array in arrays))
    for frame, row, column in np.ndindex(2, 18, 22):
        point = np.array([column + 0.5, row + 0.5])
        nearest = np.inf
        for limb in range(3):
            a, b = start[frame, limb], end[frame, limb]
            length = max(float(np.linalg.norm(b - a)), 1e-3)
            share = np.clip(np.dot(point - a, b - a) / length**2, 0, 1)
            radius = (1 - share) * first[frame, limb] + share * second[frame, limb]
            nearest = min(nearest, np.linalg.norm(point - a - share * (b - a)) - radius)
        # Far from a limb nothing is written: such pixels are outside all the same.
        if nearest < 2:
            assert field[frame, row, column].item() == pytest.approx(nearest, abs=1e-3)
        else:
            assert field[frame, row, column] >= 2


def test_profiles_match_a_loop_over_rows():
    level = np.array([[2.0, 5.5, 9.0, 15.2], [1.0, 4.0, 12.0, 13.5]])
    middle = np.array([[8.0, 9.0, 7.5, 8.0], [10.0, 9.0, 9.0, 11.0]])
    half = np.array([[0.5, 4.0, 3.0, 5.0], [1.0, 3.0, 2.0, 2.0]])
    field = raster.empty_field(2, 18, 20)
    arrays = (middle, level, half)
    raster.add_profile(field, *(torch.from_numpy(array).float() for array in arrays))
    for frame, row in np.ndindex(2, 18):
        y = row + 0.5
        for column in range(20):
            x = column + 0.5
            offset = abs(x - np.interp(y, level[frame], middle[frame]))
            excess = offset - np.interp(y, level[frame], half[frame])
            excess = max(excess, level[frame, 0] - y, y - level[frame, -1])
            # On the outline itself the sign is a matter of rounding.
            if abs(excess) > 1e-5:
                assert (field[frame, row, column] < 0) == (excess < 0)


def test_grey_is_the_covered_share():
    field = torch.tensor([[[-3.0, -0.25, 0.0, 0.25, 3.0]]])
    assert raster.to_grey(field).tolist() == [[[255, 191, 128, 64, 0]]]


# The data set


def small(**options):
    defaults = {"sequences": (("normal", 0), ("bag", 0)), "views": (0, 90), "frames": 4}
    return SyntheticWalkers(options.pop("num_identities", 3), **(defaults | options))


def test_items_are_ordered_by_identity_sequence_view():
    walkers = small()
    assert len(walkers) == 12
    found = [
        (item.label, item.condition, item.view, item.sequence)
        for item in map(walkers.__getitem__, range(12))
    ]
    wanted = [(n, c, v, 0) for n in range(3) for c in ("normal", "bag") for v in (0.0, 90.0)]
    assert found == wanted
    assert walkers.labels.tolist() == [item[0] for item in wanted]
    assert walkers.labels.dtype == torch.int64
    assert torch.equal(walkers[-1].silhouettes, walkers[11].silhouettes)


def test_iteration_ends_and_batches():
    walkers = small()
    assert sum(1 for _ in walkers) == 12
    batch = next(iter(DataLoader(walkers, batch_size=4)))
    assert batch.silhouettes.shape == (4, 4, 64, 44)
    assert batch.keypoints.shape == (4, 4, 17, 3)
    assert batch.label.tolist() == [0, 0, 0, 0]
    assert list(batch.condition) == ["normal", "normal", "bag", "bag"]


def test_items_do_not_depend_on_what_else_is_in_the_data_set():
    alone = small(num_identities=1, first_identity=2, sequences=(("bag", 0),), views=(90,))
    assert torch.equal(alone[0].silhouettes, small()[11].silhouettes)


def test_people_of_other_seeds_and_offsets_never_repeat():
    train, test = small(num_identities=40), small(num_identities=40, first_identity=40)
    other = small(num_identities=40, seed=1)
    people = [walkers.identity(label) for walkers in (train, test, other) for label in range(40)]
    assert len(set(people)) == 120
    assert small(first_identity=1).identity(0) == train.identity(1)


def test_walks_of_one_person_differ():
    walkers = small(sequences=(("normal", 0), ("normal", 1)), views=(90,))
    first, second = walkers[0], walkers[1]
    assert not torch.equal(first.silhouettes, second.silhouettes)


def test_clip_lengths_vary_in_their_range():
    walkers = small(num_identities=10, frames=(3, 6), size=(16, 16))
    lengths = {len(item.silhouettes) for item in walkers}
    assert lengths == {3, 4, 5, 6}


def test_views_near_zero_may_fall_below_it():
    walkers = small(num_identities=8, views=(0, 359.9), view_error=5.0, size=(16, 16))
    assert sum(1 for _ in walkers) == 32


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frames": 0}, ValueError, "frames must be 1 or more, got 0"),
        ({"frames": 2.5}, TypeError, "frames must be an integer, got float"),
        ({"frames": -3}, ValueError, "frames must be 0 or more|frames must be 1 or more"),
        ({"view": 360.0}, ValueError, r"view must lie in \[0, 360\) degrees, got 360.0"),
        ({"view": float("nan")}, ValueError, "view must lie"),
        ({"elevation": 60}, ValueError, r"elevation must lie in \[-10, 30\] degrees, got 60"),
        ({"condition": "hat"}, ValueError, "one of normal, bag, coat, got 'hat'"),
        ({"speed": 3.0}, ValueError, r"speed must lie in \[0.5, 1.6\], got 3.0"),
        ({"size": (8, 44)}, ValueError, r"size must be \(height, width\).*got \(8, 44\)"),
        ({"size": (64,)}, ValueError, "size must be"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
        ({"seed": 1.0}, TypeError, "seed must be an integer, got float"),
        ({"seed": "a"}, TypeError, "seed must be an integer, got str"),
        ({"noise": 0.5}, TypeError, "noise must be a SegmentationNoise or None, got float"),
        ({"phase": float("inf")}, ValueError, "phase must be finite"),
    ],
)
def test_render_walk_refuses(options, error, message):
    with pytest.raises(error, match=message):
        render_walk(Identity(), **options)


def test_other_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="identity must be an Identity, got int"):
        render_walk(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Identity.lean must lie in \[-3.0, 11.0\], got 40"):
        Identity(lean=40)
    with pytest.raises(ValueError, match=r"must lie in \[0.75, 1.2\], got nan"):
        Identity(stride=float("nan"))
    with pytest.raises(ValueError, match=r"SegmentationNoise.holes must lie in \[0, 1\].*got 2"):
        SegmentationNoise(holes=2)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        sample_identity(-1)
    with pytest.raises(TypeError, match="seed must be an integer, got bool"):
        sample_identity(True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_identities": 0}, ValueError, "num_identities must be 1 or more"),
        ({"first_identity": 999_999}, ValueError, "use another seed"),
        ({"first_identity": -1}, ValueError, "first_identity must be 0 or more"),
        ({"num_identities": 1.5}, TypeError, "num_identities must be an integer, got float"),
        ({"sequences": ()}, ValueError, "sequences and views must not be empty"),
        ({"views": ()}, ValueError, "sequences and views must not be empty"),
        ({"sequences": (("hat", 0),)}, ValueError, "condition must be one of"),
        ({"sequences": (("bag", -1),)}, ValueError, "number of a sequence must be 0 or more"),
        ({"views": (0, 400)}, ValueError, "view must lie in"),
        ({"speed": (1.1, 0.9)}, ValueError, r"speed must be \(low, high\), got \(1.1, 0.9\)"),
        ({"speed": (0.1, 0.9)}, ValueError, "speed must lie in"),
        ({"elevation": (0, 80)}, ValueError, "elevation must lie in"),
        ({"frames": (9, 3)}, ValueError, r"frames must be \(low, high\)"),
        ({"frames": 0}, ValueError, "frames must be 1 or more"),
        ({"frames": 2.5}, TypeError, "frames must be an integer, got float"),
        ({"frames": (2, 4.5)}, TypeError, "frames must be an integer, got float"),
        ({"view_error": 90}, ValueError, "view_error must lie in"),
        ({"size": (4, 4)}, ValueError, "size must be"),
    ],
)
def test_the_data_set_refuses(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


def test_an_index_past_the_end_is_refused():
    with pytest.raises(IndexError, match="index must lie below 12, got 12"):
        small()[12]
