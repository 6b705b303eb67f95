"""Forces in a moving body from its 3-D joints: inverse dynamics of linked thin rods.

Textbook Newton-Euler equations (for instance D. Winter, "Biomechanics and Motor Control of Human
Movement"), differentiable. Forces as cues for gait are the idea of
https://arxiv.org/abs/2512.20451, known by its abstract; how the authors compute theirs is not
known (inferred: with a pretrained network), so that this is a reconstruction of the idea alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.body_segments import (
    BodySegments,
    SegmentMass,
    find_body_segments,
    find_segment_table,
)
from gaitzoo.layers.checks import check_size, check_values, shape_of
from gaitzoo.layers.modes import without_autocast
from gaitzoo.layers.sequence import lengths_for, mask_fill

__all__ = ["BodyForces", "InverseDynamics"]

_AXES = {"x": 0, "y": 1, "z": 2}
# A segment that is closer to the transverse axis than this (sine) gets its frame from the trunk.
_PARALLEL = 0.1


@dataclass(frozen=True, slots=True)
class BodyForces:
    """What :class:`InverseDynamics` finds; zeros past the end of a sequence.

    Args:
        torques: ``[N, T, J, 3]``, what the part of the body on the trunk's side of a joint exerts
            on the part beyond; zeros at joints where no segment begins.
        joint_forces: ``[N, T, J, 3]``, the same of forces.
        grf: ``[N, T, K, 3]``, the ground's force on each of K feet.
        com: ``[N, T, 3]``, centre of mass of the body, in the unit of the joints.
        root_force: ``[N, T, 3]``, force on the root that motion and ground leave unexplained: zero.
        root_torque: ``[N, T, 3]``, the same of torques about its proximal end, which says how wrong
            masses and contacts are.
        valid: ``[N, T]`` bool, frames for which all frames that smoothing and differences read
            stand in the clip.
    """

    torques: Tensor
    joint_forces: Tensor
    grf: Tensor
    com: Tensor
    root_force: Tensor
    root_torque: Tensor
    valid: Tensor


class InverseDynamics(nn.Module):
    """Joint torques, joint forces and ground forces of a moving body.

    Segments are thin rods (their spin about the long axis is ignored) with masses from a table.
    Positions are smoothed with a Savitzky-Golay filter of order 2; beyond the ends of a clip they
    go on as its mirror image through the end point. Velocities and accelerations are central
    differences, those of the first and last frame are their neighbours'. The sum of mass times
    acceleration less gravity is the ground's force; it is split between the feet by a softmax of
    ``-height / contact_height - speed / contact_speed``. Then segment by segment from the ends of
    the limbs to the trunk::

        F = m (a - g) - F_ground + sum F_child
        M = dH/dt + (c - p) x m (a - g) - (q - p) x F_ground
            + sum [M_child + (p_child - p) x F_child]

    with p the proximal end, c the centre of mass, q the contact and ``dH/dt = m r^2 (b x b'')`` for
    a rod b. All of it is differentiable.

    Source: textbook equations; see the top of the file. The filter, the split between the feet and
    the frame of a segment are inferred.

    Args:
        skeleton: ``"smpl24"``, ``"coco17"``, or :class:`BodySegments`.
        table: ``"male"``, ``"female"`` or a mapping from kinds of segments to
            :class:`SegmentMass`; masses are scaled to add up to one.
        fps: Frames per second.
        up_axis: Which axis points up: ``"x"``, ``"y"`` or ``"z"``, with a minus in front where it
            points down.
        gravity: Length units per second squared.
        mass: Of the body, in kilograms or any unit.
        height: Of the body, in length units; for ``normalized`` alone.
        normalized: Divide forces by ``mass * gravity`` and torques by ``mass * gravity * height``:
            body weights, and body weights times body heights.
        frame: Torques and joint forces in axes of the ``"world"``, or in those of the
            segment on the trunk's side (``"local"``): first the transverse axis of the body made
            perpendicular to the segment, last the segment's own direction.
        window: Frames of the filter, odd; 1 and 3 smooth nothing.
        contact_height: Length units.
        contact_speed: Length units per second.

    Shapes:
        joints3d: ``[N, T, J, 3]``, float32 or float64, in length units (metres, with the defaults).
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        height: ``[N]``, heights of the bodies, instead of the one of the module.
        returns: :class:`BodyForces`.

    Raises:
        ValueError: If an argument has none of the values named here, shapes do not fit, or a body
            spans ten times its height, as in millimetres.
        TypeError: If the joints are no such floats.

    Example:
        >>> standing = torch.rand(1, 1, 24, 3).expand(2, 30, 24, 3)
        >>> forces = InverseDynamics("smpl24", fps=25)(standing)
        >>> forces.torques.shape, forces.grf.sum(2)[0, 0].round().tolist()  # a body weight upwards
        (torch.Size([2, 30, 24, 3]), [0.0, 0.0, 1.0])

        Torques of a skeleton as the input of any network:

        >>> network = torch.nn.Sequential(
        ...     torch.nn.Flatten(2), torch.nn.Linear(72, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> network(forces.torques).shape
        torch.Size([2, 30, 2])
    """

    mass_shares: Tensor
    centers: Tensor
    gyrations: Tensor
    proximal: Tensor
    distal: Tensor
    up: Tensor
    kernel: Tensor

    def __init__(
        self,
        skeleton: str | BodySegments = "smpl24",
        *,
        table: str | Mapping[str, SegmentMass] = "male",
        fps: float = 25.0,
        up_axis: str = "z",
        gravity: float = 9.81,
        mass: float = 1.0,
        height: float = 1.7,
        normalized: bool = True,
        frame: Literal["world", "local"] = "world",
        window: int = 7,
        contact_height: float = 0.05,
        contact_speed: float = 0.5,
    ) -> None:
        super().__init__()
        self.body = find_body_segments(skeleton)
        masses = find_segment_table(table)
        missing = sorted({s.kind for s in self.body.segments} - set(masses))
        if missing:
            raise ValueError(f"expected a table with {', '.join(missing)}, got {sorted(masses)}")
        numbers = {"fps": fps, "gravity": gravity, "mass": mass, "height": height}
        numbers |= {"contact_height": contact_height, "contact_speed": contact_speed}
        for name, number in numbers.items():
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"expected {name} as a positive number, got {number!r}")
        if up_axis.removeprefix("-") not in _AXES:
            raise ValueError(f'expected up_axis "x", "y" or "z", perhaps with "-", got {up_axis!r}')
        if frame not in ("world", "local"):
            raise ValueError(f'expected frame "world" or "local", got {frame!r}')
        check_size(window=window)
        if window % 2 == 0:
            raise ValueError(f"expected window as an odd number, got {window}")
        self.fps, self.gravity, self.mass, self.height = fps, gravity, mass, height
        self.normalized, self.frame, self.window = normalized, frame, window
        self.contact_height, self.contact_speed = contact_height, contact_speed
        self._build(masses, up_axis)

    def _build(self, masses: Mapping[str, SegmentMass], up_axis: str) -> None:
        """Numbers of the body as buffers, which are not saved."""
        segments = self.body.segments
        known = [masses[s.kind] for s in segments]
        shares = torch.tensor([k.mass for k in known], dtype=torch.float64)
        if not (bool((shares >= 0).all()) and float(shares.sum()) > 0):
            raise ValueError(
                f"expected a table with masses of 0 or more, not all 0, got {shares.tolist()}"
            )
        centers = [
            k.center if s.center is None else s.center for s, k in zip(segments, known, strict=True)
        ]
        gyrations = [
            k.gyration if s.gyration is None else s.gyration
            for s, k in zip(segments, known, strict=True)
        ]
        up = torch.zeros(3, dtype=torch.float64)
        up[_AXES[up_axis[-1]]] = -1.0 if up_axis[0] == "-" else 1.0
        half = self.window // 2
        steps = torch.arange(-half, half + 1, dtype=torch.float64)
        kernel = 3 * (3 * half**2 + 3 * half - 1 - 5 * steps**2)
        buffers = {
            "mass_shares": shares / shares.sum(),
            "centers": torch.tensor(centers, dtype=torch.float64),
            "gyrations": torch.tensor(gyrations, dtype=torch.float64),
            "proximal": _means([s.proximal for s in segments], self.body.num_joints),
            "distal": _means([s.distal for s in segments], self.body.num_joints),
            "up": up,
            "kernel": kernel / ((2 * half + 3) * (2 * half + 1) * (2 * half - 1)),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(
        self, joints3d: Tensor, lengths: Tensor | None = None, *, height: Tensor | None = None
    ) -> BodyForces:
        """Returns torques, forces, and what they were computed from."""
        joints3d, lengths, heights = self._checked(joints3d, lengths, height)
        # Second differences of numbers with few digits would be nothing but their rounding.
        with without_autocast(joints3d.device):
            found = self._found(joints3d, lengths, heights)
        return BodyForces(**found, valid=self._valid(joints3d, lengths))

    def _found(
        self, joints3d: Tensor, lengths: Tensor | None, heights: Tensor
    ) -> dict[str, Tensor]:
        """Fields of the result but ``valid``."""
        frames = joints3d.shape[1]
        long = self._extended(joints3d, lengths)
        positions, velocity, acceleration = (
            mask_fill(x, lengths, axis=1) for x in self._derived(long, lengths, frames)
        )
        found = self._solve(positions, velocity, acceleration)
        if self.normalized:
            weight = self.mass * self.gravity
            for name in ("joint_forces", "grf", "root_force"):
                found[name] = found[name] / weight
            found["torques"] = found["torques"] / (weight * heights)
            found["root_torque"] = found["root_torque"] / (weight * heights[..., 0])
        return {name: mask_fill(x, lengths, axis=1) for name, x in found.items()}

    def _checked(
        self, joints3d: Tensor, lengths: Tensor | None, height: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        kind = getattr(joints3d, "dtype", type(joints3d).__name__)
        if not isinstance(joints3d, Tensor) or kind not in (torch.float32, torch.float64):
            raise TypeError(
                f"expected joints3d as a tensor of 32- or 64-bit floats, got {kind}; accelerations "
                "of joints with fewer digits are noise"
            )
        joints = self.body.num_joints
        if joints3d.ndim != 4 or joints3d.shape[2:] != (joints, 3) or not joints3d.shape[1]:
            raise ValueError(f"expected joints3d [N, T, {joints}, 3], got {shape_of(joints3d)}")
        lengths = lengths_for(lengths, joints3d, axis=1)
        joints3d = mask_fill(joints3d, lengths, axis=1)
        check_values(joints3d, None, None, "joints3d")
        if height is None:
            heights = joints3d.new_full((1, 1, 1, 1), self.height)
        elif height.shape != joints3d.shape[:1] or not bool((height > 0).all()):
            raise ValueError(
                f"expected height as one positive number per body, [{joints3d.shape[0]}], got "
                f"{shape_of(height)}: {height.flatten()[:4].tolist()}"
            )
        else:
            heights = height.to(joints3d)[:, None, None, None]
        _check_units(joints3d, heights)
        return joints3d, lengths, heights

    def _valid(self, joints3d: Tensor, lengths: Tensor | None) -> Tensor:
        edge = self.window // 2 + 1
        frame = torch.arange(joints3d.shape[1], device=joints3d.device)
        ends = frame.new_tensor([joints3d.shape[1]]) if lengths is None else lengths
        valid = (frame >= edge) & (frame < ends[:, None] - edge)
        return valid.expand(joints3d.shape[0], -1)

    def _extended(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Positions with frames beyond both ends: the clip mirrored through its end points."""
        edge, frames = self.window // 2 + 1, x.shape[1]
        last = (x.new_tensor([frames]) if lengths is None else lengths).long()[:, None] - 1
        frame = torch.arange(-edge, frames + edge, device=x.device)[None]
        before, after = frame < 0, frame > last
        source = torch.where(before, -frame, torch.where(after, 2 * last - frame, frame))
        source = source.clamp(min=0).minimum(last).expand(x.shape[0], -1)
        inner = _take(x, source)
        start, end = x[:, :1], _take(x, last.expand(x.shape[0], 1))
        inner = torch.where(before[..., None, None], 2 * start - inner, inner)
        return torch.where(after[..., None, None], 2 * end - inner, inner)

    def _derived(
        self, long: Tensor, lengths: Tensor | None, frames: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Smoothed positions, velocities and accelerations, ``[N, T, J, 3]`` each."""
        flat = long.movedim(1, -1)
        kernel = self.kernel.to(flat)[None, None]
        smooth = F.conv1d(flat.reshape(-1, 1, flat.shape[-1]), kernel)
        smooth = smooth.unflatten(0, flat.shape[:-1]).squeeze(-2).movedim(-1, 1)
        before, here, after = smooth[:, :-2], smooth[:, 1:-1], smooth[:, 2:]
        velocity = (after - before) * (self.fps / 2)
        acceleration = (after - 2 * here + before) * self.fps**2
        # Central differences are not known at the ends.
        index = torch.arange(frames, device=long.device)[None].clamp(min=1)
        last = index.new_tensor([frames]) if lengths is None else lengths
        inner = index.minimum((last[:, None] - 2).clamp(min=0)).expand(long.shape[0], -1)
        return here, _take(velocity, inner), _take(acceleration, inner)

    def _solve(
        self, positions: Tensor, velocity: Tensor, acceleration: Tensor
    ) -> dict[str, Tensor]:
        """Fields of the result in the units of the mass, world axes or local ones."""
        near, far = self.proximal.to(positions), self.distal.to(positions)
        centers = self.centers.to(positions)[:, None]
        ends = torch.einsum("sj,ntjx->ntsx", near, positions)
        rods = torch.einsum("sj,ntjx->ntsx", far - near, positions)
        bend = torch.einsum("sj,ntjx->ntsx", far - near, acceleration)
        arms = centers * rods
        at_center = torch.einsum("sj,ntjx->ntsx", near, acceleration) + centers * bend
        masses = self.mass * self.mass_shares.to(positions)[:, None]
        up = self.up.to(positions)
        inertial = masses * (at_center + self.gravity * up)
        spin = masses * self.gyrations.to(positions)[:, None] ** 2 * torch.linalg.cross(rods, bend)
        com = ((ends + arms) * self.mass_shares.to(positions)[:, None]).sum(2)
        grf = self._shares(positions, velocity)[..., None] * inertial.sum(2, keepdim=True)

        contacts = positions[:, :, list(self.body.contacts)]
        force = list(inertial.unbind(2))
        moment = list((spin + torch.linalg.cross(arms, inertial)).unbind(2))
        for k, foot in enumerate(self.body.feet):
            arm = contacts[:, :, k] - ends[:, :, foot]
            force[foot] = force[foot] - grf[:, :, k]
            moment[foot] = moment[foot] - torch.linalg.cross(arm, grf[:, :, k])
        for i in range(len(force) - 1, 0, -1):
            parent = self.body.segments[i].parent
            assert parent is not None
            arm = ends[:, :, i] - ends[:, :, parent]
            force[parent] = force[parent] + force[i]
            moment[parent] = moment[parent] + moment[i] + torch.linalg.cross(arm, force[i])
        found = {"grf": grf, "com": com, "root_force": force[0], "root_torque": moment[0]}
        if self.frame == "local":
            axes = self._axes(rods, positions)
            force, moment = (self._turned(vectors, axes) for vectors in (force, moment))
        found["torques"], found["joint_forces"] = map(self._on_joints, (moment, force))
        return found

    def _shares(self, positions: Tensor, velocity: Tensor) -> Tensor:
        """How much of the ground's force each foot gets, ``[N, T, K]``."""
        contacts = list(self.body.contacts)
        heights = positions[:, :, contacts] @ self.up.to(positions)
        # The root of a sum that is never zero has a gradient everywhere.
        speeds = (velocity[:, :, contacts].square().sum(-1) + 1e-12).sqrt()
        return (-heights / self.contact_height - speeds / self.contact_speed).softmax(-1)

    def _axes(self, rods: Tensor, positions: Tensor) -> Tensor:
        """Axes of every segment as rows, ``[N, T, S, 3, 3]``."""
        left, right = self.body.sides
        along = F.normalize(rods, dim=-1)
        across = F.normalize(positions[:, :, left] - positions[:, :, right], dim=-1)[:, :, None]
        upright = F.normalize(rods[:, :, :1], dim=-1)
        parallel = torch.linalg.cross(across.expand_as(along), along).norm(dim=-1) < _PARALLEL
        across = torch.where(parallel[..., None], upright, across)
        first = across - (across * along).sum(-1, keepdim=True) * along
        first = F.normalize(first, dim=-1)
        return torch.stack([first, torch.linalg.cross(along, first), along], dim=-2)

    def _turned(self, vectors: list[Tensor], axes: Tensor) -> list[Tensor]:
        """World vectors of every segment in the axes of its parent."""
        parents = [segment.parent or 0 for segment in self.body.segments]
        turned = torch.einsum("ntsax,ntsx->ntsa", axes[:, :, parents], torch.stack(vectors, 2))
        return list(turned.unbind(2))

    def _on_joints(self, vectors: list[Tensor]) -> Tensor:
        """Vectors of the segments, but of the root, at the joints where they act."""
        joints = [segment.joint for segment in self.body.segments[1:]]
        index = torch.tensor(joints, device=vectors[0].device)
        shape = (*vectors[0].shape[:2], self.body.num_joints, 3)
        return vectors[0].new_zeros(shape).index_add(2, index, torch.stack(vectors[1:], 2))


def _check_units(joints3d: Tensor, heights: Tensor) -> None:
    """Raises if a body spans ten times its height: forces would be wrong, and nothing would say so.

    Tensors on accelerators are not read.
    """
    if torch.compiler.is_compiling() or joints3d.device.type != "cpu" or joints3d.numel() == 0:
        return
    sizes = (joints3d.amax(2) - joints3d.amin(2)).detach().amax((1, 2))
    heights = heights.flatten().expand(len(sizes))
    worst = int((sizes / heights).argmax())
    if sizes[worst] > 10 * heights[worst]:
        raise ValueError(
            f"expected joints3d of a body {float(heights[worst]):g} high, got one that spans "
            f"{float(sizes[worst]):g}; divide millimetres by 1000, give the height in the unit of "
            "the joints, or drop frames with a joint far off"
        )


def _take(x: Tensor, frames: Tensor) -> Tensor:
    """Frames ``[N, L]`` of ``[N, T, J, 3]``."""
    return x.gather(1, frames[..., None, None].expand(-1, -1, *x.shape[2:]))


def _means(joints: list[tuple[int, ...]], count: int) -> Tensor:
    """``[S, J]``: rows that give the mean of some joints."""
    rows = torch.zeros(len(joints), count, dtype=torch.float64)
    for row, chosen in zip(rows, joints, strict=True):
        for joint in chosen:
            row[joint] += 1 / len(chosen)
    return rows
