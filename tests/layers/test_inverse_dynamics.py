"""Forces from joints: statics, free fall, a pendulum, symmetries, Newton's laws, gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import relative_error

from gaitzoo import (
    BODY_SEGMENTS,
    SEGMENT_TABLES,
    BodySegments,
    InverseDynamics,
    Segment,
    SegmentMass,
)
from gaitzoo.synthetic import Identity, sample_identity, walk_joints3d

G = 9.81
LEFT, RIGHT = (1, 4, 7, 10, 13, 16, 18, 20, 22), (2, 5, 8, 11, 14, 17, 19, 21, 23)
FIELDS = ("torques", "joint_forces", "grf", "com", "root_force", "root_torque")


def walk(frames=40, fps=50.0, **arguments):
    person = Identity(cadence=1.0)
    return walk_joints3d(person, frames=frames, frame_rate=fps, **arguments)[None].double()


def plain(**arguments):
    return InverseDynamics(**{"fps": 50.0, "normalized": False, "mass": 70.0, **arguments})


def test_a_standing_body_presses_with_its_weight_and_knees_carry_what_is_above_the_ground():
    """The knee's torque: the ground's force less the leg's weight, each times its lever arm."""
    joints = walk()[:, 12:13].expand(1, 30, 24, 3)
    found = plain()(joints)
    weight = torch.tensor([0, 0, 70 * G], dtype=torch.float64)
    assert relative_error(found.grf.sum(2)[0, 0], weight) < 1e-12
    assert relative_error(found.com, found.com[:, :1].expand_as(found.com)) < 1e-12
    table = SEGMENT_TABLES["male"]
    total = sum(table[s.kind].mass for s in BODY_SEGMENTS["smpl24"].segments)
    knee, ankle, ball = (joints[0, 0, j] for j in (4, 7, 10))
    torque = torch.zeros(3, dtype=torch.float64)
    for kind, near, far in (("shank", knee, ankle), ("foot", ankle, ball)):
        up = torch.tensor([0, 0, 70 * table[kind].mass / total * G], dtype=torch.float64)
        torque += torch.linalg.cross(near + table[kind].center * (far - near) - knee, up)
    torque -= torch.linalg.cross(ball - knee, found.grf[0, 0, 0])
    assert relative_error(found.torques[0, 0, 4], torque) < 1e-10


def test_in_free_fall_nothing_acts():
    time = torch.arange(40, dtype=torch.float64) / 50
    joints = walk()[:, :1].repeat(1, 40, 1, 1)
    joints[..., 2] -= (0.5 * G * time**2)[:, None]
    joints[..., 0] += (1.3 * time)[:, None]
    found = plain()(joints)
    inner = found.valid[0]
    assert inner.sum() == 40 - 8
    for name in ("torques", "joint_forces", "grf", "root_torque"):
        assert getattr(found, name)[0, inner].abs().max() < 1e-7 * 70 * G


# A rod that hangs on a stand: what turns it is all that a joint does.
PENDULUM = BodySegments(
    num_joints=3,
    segments=(
        Segment(kind="trunk", proximal=(0,), distal=(1,), parent=None, joint=None),
        Segment(kind="thigh", proximal=(1,), distal=(2,), parent=0, joint=1),
    ),
    feet=(0,),
    contacts=(0,),
    sides=(0, 2),
    edges=((0, 1), (1, 2)),
)


def test_error_of_a_swinging_rod_falls_with_the_square_of_the_frame_rate():
    length, swing, pace, errors = 0.8, 0.5, 5.0, []
    mass = SEGMENT_TABLES["male"]["thigh"]
    for fps in (100, 200, 400):
        time = torch.arange(fps + 1, dtype=torch.float64) / fps
        angle = swing * torch.sin(pace * time)
        joints = torch.zeros(1, len(time), 3, 3, dtype=torch.float64)
        joints[0, :, 1, 2] = 1.0
        joints[0, :, 2, 0] = length * angle.sin()
        joints[0, :, 2, 2] = 1 - length * angle.cos()
        dynamics = plain(skeleton=PENDULUM, fps=float(fps))
        found = dynamics(joints)
        share = float(70 * dynamics.mass_shares[1])
        turning = -swing * pace**2 * torch.sin(pace * time)
        lever = mass.center * length
        inertia = share * (lever**2 + (mass.gyration * length) ** 2)
        # About y, a swing towards x is negative.
        wanted = -(inertia * turning + share * G * lever * angle.sin())
        inner = (time > 0.2) & (time < 0.8)
        errors.append(relative_error(found.torques[0, inner, 1, 1], wanted[inner]))
    assert errors[0] < 1e-3
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.1)
    assert errors[2] == pytest.approx(errors[1] / 4, rel=0.1)


def test_rotation_about_the_vertical_turns_world_vectors_and_no_local_ones():
    joints, angle = walk(), 0.7
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]],
        dtype=torch.float64,
    )
    moved = joints @ turn.T + torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    world, local = plain(), plain(frame="local")
    for name in ("torques", "joint_forces"):
        before, after = (getattr(world(x), name) for x in (joints, moved))
        assert relative_error(after, before @ turn.T) < 1e-9
        before, after = (getattr(local(x), name) for x in (joints, moved))
        assert relative_error(after, before) < 1e-9
    same = world(joints).torques.norm(dim=-1)
    assert relative_error(local(joints).torques.norm(dim=-1), same) < 1e-9


def test_arms_held_sideways_have_a_local_frame_too():
    joints = torch.rand(1, 12, 24, 3, dtype=torch.float64)
    joints[..., [1, 16, 18, 20, 22], 1] = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9]).double()
    joints[..., [2], 1] = -0.1
    joints[..., [16, 18, 20, 22], 0::2] = 0.0
    joints[..., [1, 2], 0::2] = 0.0
    found, wanted = plain(frame="local")(joints).torques, plain()(joints).torques
    assert relative_error(found.norm(dim=-1), wanted.norm(dim=-1)) < 1e-9


def test_a_mirrored_body_has_mirrored_torques():
    joints = walk()
    order = torch.arange(24)
    order[[*LEFT, *RIGHT]] = torch.tensor([*RIGHT, *LEFT])
    flip = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    found, wanted = plain()(joints[:, :, order] * flip), plain()(joints)
    # A torque is an axial vector.
    assert relative_error(found.torques, wanted.torques[:, :, order] * -flip) < 1e-9
    assert relative_error(found.joint_forces, wanted.joint_forces[:, :, order] * flip) < 1e-9
    assert relative_error(found.grf, wanted.grf.flip(2) * flip) < 1e-9


def test_forces_grow_with_the_mass_and_normalised_ones_do_not():
    joints = walk()
    light, heavy = plain(mass=50.0)(joints), plain(mass=100.0)(joints)
    for name in ("torques", "joint_forces", "grf"):
        assert relative_error(getattr(heavy, name), 2 * getattr(light, name)) < 1e-12
    normal = [InverseDynamics(fps=50.0, mass=m, height=1.8)(joints) for m in (1.0, 100.0)]
    for name in FIELDS:
        assert torch.allclose(getattr(normal[0], name), getattr(normal[1], name), atol=1e-12)
    assert relative_error(normal[0].torques, light.torques / (50 * G * 1.8)) < 1e-12
    own = InverseDynamics(fps=50.0)(joints, height=torch.tensor([1.8], dtype=torch.float64))
    assert relative_error(own.torques, normal[0].torques) < 1e-12


@pytest.mark.parametrize("skeleton", ["smpl24", "coco17"])
@pytest.mark.parametrize("table", ["male", "female"])
def test_newton_on_any_motion(skeleton, table):
    """The sum of mass times acceleration is the ground's force; inner forces cancel in pairs."""
    count = BODY_SEGMENTS[skeleton].num_joints
    joints = torch.rand(2, 15, count, 3, dtype=torch.float64)
    dynamics = plain(skeleton=skeleton, table=table)
    found = dynamics(joints)
    assert found.root_force.abs().max() < 1e-8 * found.joint_forces.abs().max()
    assert float(dynamics.mass_shares.sum()) == pytest.approx(1, abs=1e-12)
    com = found.com
    pull = (com[:, 2:] - 2 * com[:, 1:-1] + com[:, :-2]) * 50.0**2
    ground = 70 * (pull + torch.tensor([0, 0, G], dtype=torch.float64))
    assert relative_error(found.grf.sum(2)[:, 1:-1], ground) < 1e-9


def test_walkers_press_with_their_weight_on_average_and_faster_ones_harder():
    """Newton's check on the walkers: over whole cycles 1.000 body weights up and none forward."""
    peaks = []
    for speed in (0.8, 1.0, 1.3):
        # 50 frames of one cycle, whatever the pace.
        fps = 50 * speed**0.5
        joints = walk(170, fps, speed=speed)
        found = InverseDynamics(fps=fps)(joints)
        cycles = found.grf[0, 10:160].sum(1)
        wanted = torch.tensor([0, 0, 1.0], dtype=torch.float64)
        assert (cycles.mean(0) - wanted).abs().max() < 1e-3
        peaks.append(cycles[:, 2].max().item())
    assert peaks == sorted(peaks)
    # The ankle of the standing leg holds most, as in measured walks: about 0.09.
    ankle = InverseDynamics(fps=25.0)(walk(80, 25.0)).torques[0, 10:60, 7, 1]
    assert 0.06 < ankle.max() < 0.12
    assert ankle.min() > -0.01


def derivatives(x, fps):
    """Smoothed positions, velocities and accelerations of one clip, frame by frame."""
    frames, last = len(x), len(x) - 1
    weights = np.array([-2, 3, 6, 7, 6, 3, -2]) / 21

    def at(i):
        if i < 0:
            return 2 * x[0] - x[min(-i, last)]
        if i > last:
            return 2 * x[last] - x[max(2 * last - i, 0)]
        return x[i]

    def smooth(i):
        return sum(w * at(i + k - 3) for k, w in enumerate(weights))

    places, speeds, accelerations = [], [], []
    for i in range(frames):
        j = min(max(i, 1), max(last - 1, 0))
        places.append(smooth(i))
        speeds.append((smooth(j + 1) - smooth(j - 1)) * fps / 2)
        accelerations.append((smooth(j + 1) - 2 * smooth(j) + smooth(j - 1)) * fps**2)
    return np.stack(places), np.stack(speeds), np.stack(accelerations)


def naive(x, body, table, fps, mass):
    """Torques of one clip, segment by segment."""
    places, speeds, accelerations = derivatives(x, fps)
    total = sum(table[s.kind].mass for s in body.segments)
    torques, up = np.zeros_like(x), np.array([0, 0, 1.0])
    for t in range(len(x)):
        scores = [
            -places[t, c, 2] / 0.05 - np.linalg.norm(speeds[t, c]) / 0.5 for c in body.contacts
        ]
        shares = np.exp(np.array(scores) - max(scores))
        shares /= shares.sum()
        parts = []
        for s in body.segments:
            near, far = (places[t, list(j)].mean(0) for j in (s.proximal, s.distal))
            a_near, a_far = (accelerations[t, list(j)].mean(0) for j in (s.proximal, s.distal))
            known = table[s.kind]
            rho = known.center if s.center is None else s.center
            r = known.gyration if s.gyration is None else s.gyration
            m = mass * known.mass / total
            push = m * ((1 - rho) * a_near + rho * a_far + G * up)
            spin = m * r**2 * np.cross(far - near, a_far - a_near)
            parts.append([near, push, spin + np.cross(rho * (far - near), push)])
        ground = sum(push for _, push, _ in parts)

        def solve(i, t=t, parts=parts, ground=ground, shares=shares):
            near, force, torque = parts[i]
            for k, foot in enumerate(body.feet):
                if foot == i:
                    force = force - shares[k] * ground
                    arm = places[t, body.contacts[k]] - near
                    torque = torque - np.cross(arm, shares[k] * ground)
            for c, child in enumerate(body.segments):
                if child.parent == i:
                    child_near, child_force, child_torque = solve(c)
                    force = force + child_force
                    torque = torque + child_torque + np.cross(child_near - near, child_force)
            if body.segments[i].joint is not None:
                torques[t, body.segments[i].joint] = torque
            return near, force, torque

        solve(0)
    return torques


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_torques_are_those_of_a_loop_and_of_the_clip_alone(frames):
    x = torch.rand(2, 9, 24, 3, dtype=torch.float64)
    x[1, frames:] = float("nan")
    found = plain()(x, torch.tensor([9, frames]))
    for i, length in enumerate((9, frames)):
        clip = x[i, :length]
        wanted = naive(clip.numpy(), BODY_SEGMENTS["smpl24"], SEGMENT_TABLES["male"], 50.0, 70.0)
        assert relative_error(found.torques[i, :length], torch.from_numpy(wanted)) < 1e-9
        alone = plain()(clip[None])
        for name in FIELDS:
            assert torch.allclose(getattr(found, name)[i, :length], getattr(alone, name)[0])
            assert not getattr(found, name)[i, length:].any()
        assert torch.equal(found.valid[i, :length], alone.valid[0])


@pytest.mark.parametrize("frame", ["world", "local"])
def test_gradients_are_right(frame):
    dynamics = InverseDynamics(fps=5.0, frame=frame)
    joints = torch.rand(1, 5, 24, 3, dtype=torch.float64, requires_grad=True)

    def outputs(x):
        found = dynamics(x)
        return tuple(getattr(found, name) for name in FIELDS if name != "root_force")

    # Along random directions: 360 coordinates, one by one, would take half a minute.
    assert torch.autograd.gradcheck(outputs, joints, fast_mode=True)


def test_other_axes_and_single_precision():
    joints = walk()
    turned = joints[..., [1, 2, 0]] * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    found, wanted = plain(up_axis="-y")(turned).grf, plain()(joints).grf
    assert relative_error(-found[..., 1], wanted[..., 2]) < 1e-9
    single = InverseDynamics(fps=50.0)(joints.float()).torques
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(InverseDynamics(fps=50.0)(joints.float()).torques, single)
    assert relative_error(single.double(), InverseDynamics(fps=50.0)(joints).torques) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skeleton": "h36m"}, "skeleton among smpl24, coco17"),
        ({"table": "child"}, "table among male, female"),
        ({"table": {"trunk": SEGMENT_TABLES["male"]["trunk"]}}, "a table with foot, forearm"),
        (
            {"table": dict.fromkeys(SEGMENT_TABLES["male"], SegmentMass(0, 0.5, 0.3))},
            "masses of 0 or more, not all 0",
        ),
        ({"fps": 0}, "fps as a positive number"),
        ({"up_axis": "w"}, 'up_axis "x", "y" or "z"'),
        ({"frame": "joint"}, 'frame "world" or "local"'),
        ({"window": 4}, "window as an odd number"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InverseDynamics(**arguments)


def test_wrong_joints_are_refused():
    dynamics = InverseDynamics()
    for joints, error, message in (
        (torch.rand(1, 5, 17, 3), ValueError, r"\[N, T, 24, 3\], got \[1, 5, 17, 3\]"),
        (torch.rand(1, 0, 24, 3), ValueError, r"got \[1, 0, 24, 3\]"),
        (torch.full((1, 5, 24, 3), float("nan")), ValueError, "NaN"),
        (torch.ones(1, 5, 24, 3, dtype=torch.int64), TypeError, "floats, got torch.int64"),
        (torch.ones(1, 5, 24, 3).bfloat16(), TypeError, "fewer digits are noise"),
        (torch.rand(1, 5, 24, 3) * 1000, ValueError, "a body 1.7 high, .*divide millimetres by"),
    ):
        with pytest.raises(error, match=message):
            dynamics(joints)
    millimetres = torch.rand(1, 5, 24, 3) * 1000
    assert dynamics(millimetres, height=torch.tensor([1700.0])).torques.isfinite().all()
    with pytest.raises(ValueError, match="one positive number per body"):
        dynamics(torch.rand(2, 5, 24, 3), height=torch.tensor([1.7]))
    with pytest.raises(ValueError, match="one root"):
        replace(PENDULUM, segments=PENDULUM.segments[::-1])
    with pytest.raises(ValueError, match="one contact per foot"):
        replace(PENDULUM, contacts=())
    with pytest.raises(ValueError, match=r"joints \[7\]"):
        replace(PENDULUM, edges=((0, 7),))
    with pytest.raises(ValueError, match=r"speed must lie in \[0.5, 1.6\]"):
        walk_joints3d(sample_identity(0), speed=3.0)
