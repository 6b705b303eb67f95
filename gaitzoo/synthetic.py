"""Synthetic walkers: silhouettes and 2-D joints of articulated people, from seeds alone.

A person (:class:`Identity`) is a set of body proportions and gait habits. :func:`render_walk` films one walk of that
person with a camera anywhere around; :class:`SyntheticWalkers` is a data set of such walks. Nothing is downloaded and the
same seeds give the same pixels in every process, which makes the walkers fit for tests, examples and small trainings.

Example:
    >>> walk = render_walk(sample_identity(0), frames=30, view=90.0)
    >>> walk.silhouettes.shape, walk.keypoints.shape
    (torch.Size([30, 64, 44]), torch.Size([30, 17, 3]))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from . import _raster
from ._body import (
    Array, Identity, check_seed, pose, sample_identity, stride_length, vary_style,
)  # fmt: skip
from ._flesh import (
    CONDITIONS, Outfit, Slices, draw_outfit, grow_limbs, grow_trunk, hem_spheres, keypoints_3d,
)  # fmt: skip

__all__ = [
    "Identity",
    "SegmentationNoise",
    "SyntheticWalkers",
    "Walk",
    "WalkerSample",
    "render_walk",
    "sample_identity",
]

FRAME_RATE = 25.0  # frames per second, as in CASIA-B
_NEAREST = 6.0  # metres between a raw camera and the walker's nearest point
_CUT = -_raster.OUTSIDE  # a radius that removes a limb


@dataclass(frozen=True, kw_only=True)
class SegmentationNoise:
    """How badly the silhouettes are cut out of the picture; all zero is clean.

    Attributes:
        holes: 0 to 1; at 1 a frame has about four holes of 1 to 4 % of the body's height.
        ragged: 0 to 1; at 1 the outline wanders by about 2.5 % of the body's height, anew in each frame.
        cut_limbs: 0 to 1; the chance per frame that a forearm, foot or lower leg is missing (for a few frames in a row).
        scale_jitter: 0 to 1; at 1 the top and bottom of the box around the body are wrong by about 6 % of its height.

    Raises:
        ValueError: A strength is outside [0, 1].

    Example:
        >>> SegmentationNoise(holes=0.5).ragged
        0.0
    """

    holes: float = 0.0
    ragged: float = 0.0
    cut_limbs: float = 0.0
    scale_jitter: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"SegmentationNoise.{field.name} must lie in [0, 1] (0 = clean), got {value}."
                )


@dataclass(frozen=True, eq=False)
class Walk:
    """One filmed walk.

    Attributes:
        silhouettes: ``[T, H, W]`` uint8; 255 inside, 0 outside, grey along the outline.
        keypoints: ``[T, 17, 3]`` float32, COCO order: x and y in pixels of ``silhouettes`` (the centre of the first pixel
            is 0.5), and a score, 1 or, where segmentation noise cut the limb off, 0.
    """

    silhouettes: Tensor
    keypoints: Tensor


@dataclass(frozen=True)
class _Camera:
    """Parallel projection; x to the right, y downwards, depth towards the camera (metres)."""

    view: float
    elevation: float

    def project(self, points: Array) -> tuple[Array, Array, Array]:
        """Coordinates of ``[..., 3]`` points."""
        turn, tilt = math.radians(self.view), math.radians(self.elevation)
        x = -math.sin(turn) * points[..., 0] + math.cos(turn) * points[..., 1]
        near = math.cos(turn) * points[..., 0] + math.sin(turn) * points[..., 1]
        y = math.sin(tilt) * near - math.cos(tilt) * points[..., 2]
        return x, y, math.cos(tilt) * near + math.sin(tilt) * points[..., 2]

    def project_slices(self, slices: Slices) -> tuple[Array, Array, Array]:
        """Middle, level and half width ``[T, K]`` of the slices' outlines."""
        angle = math.radians(self.view) - slices.yaw
        facing, sideways = np.cos(angle), np.sin(angle)
        x, y, _ = self.project(slices.centre)
        x = x - sideways * (slices.front - slices.back) / 2
        # A torso is boxier than an ellipse: the exponent of its support function is below 2.
        breadth, depth = np.abs(facing) * slices.breadth, np.abs(sideways) * (slices.front + slices.back) / 2
        half = (breadth**1.75 + depth**1.75) ** (1 / 1.75)
        return x, y, np.maximum(half, 1e-4)


@dataclass
class _Outline:
    """Everything to draw in one clip, in image coordinates; ``move`` turns metres into pixels."""

    start: Array  # [T, M, 2]
    end: Array
    start_radius: Array  # [T, M]
    end_radius: Array
    part: tuple[str, ...]
    profiles: list[tuple[Array, Array, Array]]  # middle, level, half width; each [T, K]
    keypoints: Array  # [T, 17, 2]

    def move(self, scale: Array, x: Array | float, y: Array | float) -> None:
        """Scale, then shift, per frame (``[T]``)."""
        shift = np.stack(np.broadcast_arrays(x, y, np.zeros(len(scale)))[:2], axis=-1)[:, None]
        by = scale[:, None]
        for name in ("start", "end", "keypoints"):
            setattr(self, name, getattr(self, name) * by[..., None] + shift)
        self.start_radius, self.end_radius = self.start_radius * by, self.end_radius * by
        self.profiles = [
            (middle * by + shift[..., 0], level * by + shift[..., 1], half * by)
            for middle, level, half in self.profiles
        ]

    def bounds(self) -> tuple[Array, Array, Array, Array]:
        """Left, top, right and bottom of each frame, each ``[T]``."""
        radii = (self.start_radius[..., None], self.end_radius[..., None])
        low = np.minimum(self.start - radii[0], self.end - radii[1]).min(axis=1)
        high = np.maximum(self.start + radii[0], self.end + radii[1]).max(axis=1)
        for middle, level, half in self.profiles:
            low = np.minimum(low, np.stack([(middle - half).min(1), level.min(1)], axis=-1))
            high = np.maximum(high, np.stack([(middle + half).max(1), level.max(1)], axis=-1))
        return low[:, 0], low[:, 1], high[:, 0], high[:, 1]

    def centre_of_mass(self) -> Array:
        """Rough x of the middle of the mass ``[T]``; overlaps count twice."""
        weights = np.linalg.norm(self.end - self.start, axis=-1) + self.start_radius
        weights = weights * np.maximum(self.start_radius + self.end_radius, 0.0)
        total = weights.sum(axis=1)
        moment = (weights * (self.start + self.end)[..., 0] / 2).sum(axis=1)
        for middle, level, half in self.profiles:
            area = np.abs(np.diff(level, axis=1)) * (half[:, 1:] + half[:, :-1])
            total = total + area.sum(axis=1)
            moment = moment + (area * (middle[:, 1:] + middle[:, :-1]) / 2).sum(axis=1)
        return moment / total

    def draw(self, height: int, width: int) -> Tensor:
        """The distance field ``[T, H, W]``."""
        field = _raster.empty_field(len(self.start), height, width)
        limbs = (self.start, self.end, self.start_radius, self.end_radius)
        _raster.add_limbs(field, *(torch.from_numpy(array.astype(np.float32)) for array in limbs))
        for middle, level, half in self.profiles:
            level = np.maximum.accumulate(level, axis=1) + 1e-3 * np.arange(level.shape[1])
            profile = (torch.from_numpy(array.astype(np.float32)) for array in (middle, level, half))
            _raster.add_profile(field, *profile)
        return field


def _outline(
    identity: Identity, phase: Array, effort: float, outfit: Outfit, camera: _Camera
) -> _Outline:
    """Pose, dress and project the walker; coordinates in metres around the walker's own place."""
    skeleton = pose(identity, phase, effort=effort, arm_freedom=outfit.arm_freedom)
    limbs = grow_limbs(identity, skeleton, outfit)
    trunk = camera.project_slices(grow_trunk(identity, skeleton, outfit))
    middle, level, half = (values[:, ::-1] for values in trunk)  # crown first: levels grow downwards
    profiles = [(middle, level, half)]
    if outfit.hem > 0:
        centres, radius = hem_spheres(identity, skeleton, outfit)
        x, y, _ = camera.project(centres)
        left, right = x.min(axis=1) - radius, x.max(axis=1) + radius
        hem = ((left + right) / 2, y.mean(axis=1) + 0.3 * radius, (right - left) / 2)
        # From the waist over the hips to the hem; slices are counted from the trunk's lower end.
        profiles.append(
            (
                np.stack([middle[:, -10], middle[:, -7], hem[0]], axis=1),
                np.stack([level[:, -10], level[:, -7], hem[1]], axis=1),
                np.stack([half[:, -10], half[:, -7], hem[2]], axis=1),
            )
        )
    frames = len(phase)

    def flat(points: Array) -> Array:
        return np.stack(camera.project(points)[:2], axis=-1)

    return _Outline(
        start=flat(limbs.start),
        end=flat(limbs.end),
        start_radius=np.tile(limbs.start_radius, (frames, 1)),
        end_radius=np.tile(limbs.end_radius, (frames, 1)),
        part=limbs.part,
        profiles=profiles,
        keypoints=flat(keypoints_3d(identity, skeleton)),
    )


# What segmentation loses together, and the COCO keypoints that go with it.
_CUTS = (
    (("left forearm",), (9,)),
    (("right forearm",), (10,)),
    (("left foot",), (15,)),
    (("right foot",), (16,)),
    (("left lower leg", "left foot"), (15,)),
    (("right lower leg", "right foot"), (16,)),
)


def _cut_limbs(outline: _Outline, strength: float, generator: np.random.Generator) -> Array:
    """Remove limbs for some frames; returns the keypoints' scores ``[T, 17]``."""
    frames = len(outline.start)
    scores = np.ones((frames, 17))
    run = 3  # frames that a fault lasts
    starts = generator.random((frames + run - 1, len(_CUTS))) < strength / (run * len(_CUTS))
    missing = np.stack([starts[delay : delay + frames] for delay in range(run)]).any(axis=0)
    for fault, (parts, points) in enumerate(_CUTS):
        limbs = [limb for limb, part in enumerate(outline.part) if part in parts]
        rows = np.flatnonzero(missing[:, fault])
        outline.start_radius[np.ix_(rows, limbs)] = _CUT
        outline.end_radius[np.ix_(rows, limbs)] = _CUT
        scores[np.ix_(rows, points)] = 0.0
    return scores


def _roughen(
    field: Tensor, body: Array, middle: Array, noise: SegmentationNoise, generator: np.random.Generator
) -> Tensor:
    """Ragged outlines and holes, for bodies of ``body`` pixels' height around ``middle`` (x, y)."""
    frames, height, width = field.shape
    size = float(body.mean())
    if noise.ragged > 0:
        cells = (max(2, round(height / size * 22)), max(2, round(width / size * 22)))
        bumps = torch.from_numpy(generator.standard_normal((frames, 1, *cells), dtype=np.float32))
        bumps = F.interpolate(bumps, size=(height, width), mode="bilinear", align_corners=False)
        field = field.add_(bumps[:, 0], alpha=0.04 * noise.ragged * size)
    if noise.holes > 0:
        most = 8
        count = np.minimum(generator.poisson(4.0 * noise.holes, frames), most)
        spread = generator.standard_normal((frames, most)) * 0.05
        place = np.stack([spread, generator.uniform(-0.4, 0.45, (frames, most))], axis=-1)
        start = middle[:, None] + place * body[:, None, None]
        end = start + generator.uniform(-0.03, 0.03, start.shape) * body[:, None, None]
        radius = generator.uniform(0.01, 0.035, (frames, most)) * body[:, None]
        radius[np.arange(most) >= count[:, None]] = _CUT
        holes = _raster.empty_field(frames, height, width)
        arrays = (start, end, radius, radius)
        _raster.add_limbs(holes, *(torch.from_numpy(array.astype(np.float32)) for array in arrays))
        field = torch.maximum(field, holes.neg_())
    return field


def _align(
    outline: _Outline, size: tuple[int, int], noise: SegmentationNoise, generator: np.random.Generator
) -> tuple[Tensor, Array]:
    """Fill the frame's height with the body and centre its mass; returns the field and what to add to x."""
    height, width = size
    frames = len(outline.start)
    _, top, _, bottom = outline.bounds()
    body = bottom - top
    if noise.scale_jitter > 0:
        errors = generator.standard_normal((2, frames)) * 0.06 * noise.scale_jitter
        top, bottom = top + errors[0] * body, bottom + errors[1] * body
    # A little more than the frame, so that the crown's first row is as full as after cropping real pixels.
    scale = (height + 0.5) / (bottom - top)
    margin = max(4, height // 10)
    canvas = width + 2 * margin
    outline.move(scale, canvas / 2 - outline.centre_of_mass() * scale, -0.25 - top * scale)
    field = outline.draw(height, canvas)
    middle = np.full((frames, 2), (canvas / 2, height / 2))
    field = _roughen(field, body * scale, middle, noise, generator)
    # The column at which the running sum of the mass passes its half goes to the middle, as in the field's pre-treatment.
    mass = (0.5 - field).clamp_(0.0, 1.0).sum(dim=1).cumsum_(dim=1)
    column = (mass <= mass[:, -1:] / 2).sum(dim=1).clamp_(width // 2, canvas - width + width // 2)
    first = column - width // 2
    columns = first[:, None] + torch.arange(width)
    field = field.gather(2, columns[:, None].expand(-1, height, -1))
    return field, -first.numpy().astype(np.float64)


def _film(
    outline: _Outline,
    travelled: Array,
    camera: _Camera,
    size: tuple[int, int],
    noise: SegmentationNoise,
    generator: np.random.Generator,
) -> Tensor:
    """Place the walker in a standing camera's picture that the whole walk fits into; returns the field."""
    height, width = size
    way = np.zeros((len(travelled), 3))
    way[:, 0] = travelled - (travelled[0] + travelled[-1]) / 2
    x, y, depth = camera.project(way)
    nearness = _NEAREST / (_NEAREST + depth.max() - depth)
    # The optical axis passes one metre above the middle of the way.
    axis = math.cos(math.radians(camera.elevation))
    outline.move(nearness, x * nearness, (y + axis) * nearness)
    left, top, right, bottom = outline.bounds()
    scale = min(
        0.62 * height / float((bottom - top).max()),
        0.92 * height / float(bottom.max() - top.min()),
        0.92 * width / float(right.max() - left.min()),
    )
    zoom = np.full(len(travelled), scale)
    shift_x = width / 2 - scale * float(left.min() + right.max()) / 2
    shift_y = height / 2 - scale * float(top.min() + bottom.max()) / 2
    outline.move(zoom, shift_x, shift_y)
    left, top, right, bottom = outline.bounds()
    middle = np.stack([left + right, top + bottom], axis=-1) / 2
    return _roughen(outline.draw(height, width), bottom - top, middle, noise, generator)


def render_walk(
    identity: Identity,
    *,
    frames: int = 30,
    view: float = 90.0,
    elevation: float = 0.0,
    condition: str = "normal",
    speed: float = 1.0,
    size: tuple[int, int] = (64, 44),
    noise: SegmentationNoise | None = None,
    seed: int = 0,
    aligned: bool = True,
    phase: float | None = None,
) -> Walk:
    """Film one walk of a person, at 25 frames per second.

    The seed decides what differs between two walks of one person: small changes of gait and clothes, which bag or coat,
    the phase of the first frame. The same seed with another ``view`` or ``elevation`` is the same walk seen by another
    camera.

    Args:
        identity: Who walks.
        frames: Length of the clip, 1 or more.
        view: Direction of the camera, degrees in [0, 360): 0 walks towards it, 90 crosses to the left, 180 walks away.
        elevation: How far the camera looks down, degrees in [-10, 45].
        condition: ``"normal"``, ``"bag"`` (backpack, shoulder bag or hand bag) or ``"coat"`` (short jacket to long coat).
        speed: Walking speed relative to the person's own, 0.5 to 1.6; changes the cadence and the stride.
        size: Height and width of the frames, pixels, each 16 or more.
        noise: Faults of the segmentation; ``None`` is clean.
        seed: Any non-negative integer.
        aligned: Whether each frame looks like the output of the field's pre-treatment: the body fills the height, and half
            of its mass lies left of the middle column. Otherwise the frames are those of a standing camera, and the person
            walks through the picture.
        phase: Gait phase of the first frame, in cycles from the left heel's strike; ``None`` draws it from the seed.

    Raises:
        ValueError: An argument is outside its range.
        TypeError: ``identity`` or ``noise`` is of another class, or a count or seed is not an integer.

    Example:
        >>> walk = render_walk(Identity(), frames=8, view=36.0, condition="coat", size=(128, 88))
        >>> walk.silhouettes.shape, walk.silhouettes.dtype
        (torch.Size([8, 128, 88]), torch.uint8)
    """
    if not isinstance(identity, Identity):
        raise TypeError(
            f"identity must be an Identity, got {type(identity).__name__}; use sample_identity(seed)."
        )
    _check_camera(view, elevation, speed)
    _check_clip(condition, frames, size, noise)
    check_seed(seed)
    noise = noise or SegmentationNoise()

    generator = np.random.default_rng(np.random.SeedSequence((2, seed)))
    outfit = draw_outfit(condition, generator)
    person = vary_style(identity, generator)
    first, wobble_phase = generator.random(2)
    wobble, wobble_rate = 0.012 * generator.standard_normal(), generator.uniform(0.15, 0.4)
    if phase is not None:
        first = phase

    effort = math.sqrt(speed)
    seconds = np.arange(frames) / FRAME_RATE
    # No one keeps perfect time: the phase drifts slowly around the steady one.
    wandering = np.sin(2 * math.pi * (wobble_rate * seconds + wobble_phase))
    cycles = person.cadence * effort * seconds + wobble * (wandering - wandering[0])
    camera = _Camera(view, elevation)
    outline = _outline(person, first + cycles, effort, outfit, camera)

    # Two cameras that film one walk make different mistakes.
    faults = np.random.default_rng(
        np.random.SeedSequence((3, seed, round(view * 1000), round((elevation + 90) * 1000)))
    )
    scores = np.ones((frames, 17))
    if noise.cut_limbs > 0:
        scores = _cut_limbs(outline, noise.cut_limbs, faults)
    shift: Array | float = 0.0
    if aligned:
        field, shift = _align(outline, size, noise, faults)
    else:
        travelled = cycles * stride_length(person, effort)
        field = _film(outline, travelled, camera, size, noise, faults)
    points = outline.keypoints
    points[..., 0] += np.reshape(shift, (-1, 1))
    keypoints = np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)
    return Walk(silhouettes=_raster.to_grey(field), keypoints=torch.from_numpy(keypoints))


def _check_camera(view: float, elevation: float, speed: float) -> None:
    if not 0.0 <= view < 360.0:
        raise ValueError(
            f"view must lie in [0, 360) degrees, got {view}; 0 is towards the camera, 90 the side, "
            "180 from behind."
        )
    if not -10.0 <= elevation <= 45.0:
        raise ValueError(f"elevation must lie in [-10, 45] degrees, got {elevation}; 0 is level.")
    if not 0.5 <= speed <= 1.6:
        raise ValueError(f"speed must lie in [0.5, 1.6], got {speed}; 1 is the person's own speed.")


def _check_clip(
    condition: str, frames: int, size: tuple[int, int], noise: SegmentationNoise | None
) -> None:
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}.")
    check_seed(frames, "frames")
    if frames < 1:
        raise ValueError("frames must be 1 or more, got 0; a gait cycle takes about 26 frames.")
    if len(size) != 2 or any(not isinstance(side, int) or side < 16 for side in size):
        raise ValueError(
            f"size must be (height, width) with integers of 16 or more, got {size!r}; e.g. (64, 44)."
        )
    if noise is not None and not isinstance(noise, SegmentationNoise):
        raise TypeError(
            f"noise must be a SegmentationNoise or None, got {type(noise).__name__}; "
            "use SegmentationNoise(ragged=0.5)."
        )


class WalkerSample(NamedTuple):
    """One item of :class:`SyntheticWalkers`; a named tuple, so that ``DataLoader`` batches it as it is.

    Attributes:
        silhouettes: ``[T, H, W]`` uint8 in 0..255.
        keypoints: ``[T, 17, 3]`` float32, see :class:`Walk`.
        label: Identity, 0 to ``num_identities - 1``.
        condition: ``"normal"``, ``"bag"`` or ``"coat"``.
        view: Nominal view, degrees.
        sequence: Number of the walk within its condition.
    """

    silhouettes: Tensor
    keypoints: Tensor
    label: int
    condition: str
    view: float
    sequence: int


_CASIA_B_SEQUENCES = (
    *(("normal", number) for number in range(6)),
    *(("bag", number) for number in range(2)),
    *(("coat", number) for number in range(2)),
)


class SyntheticWalkers(Dataset[WalkerSample]):
    """A data set of synthetic walkers, rendered when asked for; laid out like CASIA-B by default.

    Each walk of a person has its own speed, small changes of style, and bag or coat. The cameras film the same walk, each
    with its own first frame, elevation and small error of the view. Items are ordered by identity, then sequence, then view.

    Args:
        num_identities: Number of people, 1 or more.
        sequences: Pairs of condition and number. Equal pairs are equal walks.
        views: Nominal views, degrees in [0, 360).
        frames: Length of the clips, or the shortest and longest length.
        size: Height and width of the frames, pixels.
        noise: Faults of the segmentation; ``None`` is clean.
        speed: Slowest and fastest walking speed, relative to the person's own.
        elevation: Lowest and highest camera elevation, degrees.
        view_error: Largest difference of the true view from the nominal one, degrees in [0, 45].
        seed: Any non-negative integer; another seed gives other people.
        first_identity: Number of the first person, so that data sets with one seed can have disjoint people. People of
            different seeds or numbers never coincide.

    Raises:
        ValueError: An argument is outside its range.
        TypeError: A count or seed is not an integer.
        IndexError: ``dataset[index]`` with an index past the end.

    Example:
        >>> walkers = SyntheticWalkers(2, views=(0, 90), frames=4)
        >>> len(walkers), walkers[39].label, walkers[39].condition, walkers[39].view
        (40, 1, 'coat', 90.0)
        >>> walkers.labels.shape
        torch.Size([40])
    """

    _PEOPLE_PER_SEED = 1_000_000

    def __init__(
        self,
        num_identities: int,
        *,
        sequences: Sequence[tuple[str, int]] = _CASIA_B_SEQUENCES,
        views: Sequence[float] = (0, 36, 72, 108, 144, 180),
        frames: int | tuple[int, int] = 30,
        size: tuple[int, int] = (64, 44),
        noise: SegmentationNoise | None = None,
        speed: tuple[float, float] = (0.9, 1.1),
        elevation: tuple[float, float] = (0.0, 8.0),
        view_error: float = 5.0,
        seed: int = 0,
        first_identity: int = 0,
    ) -> None:
        check_seed(num_identities, "num_identities")
        check_seed(first_identity, "first_identity")
        check_seed(seed)
        if num_identities < 1 or first_identity + num_identities > self._PEOPLE_PER_SEED:
            raise ValueError(
                f"identities {first_identity} to {first_identity + num_identities - 1} were asked for; "
                f"need at least one, and numbers below {self._PEOPLE_PER_SEED}; use another seed."
            )
        shortest, longest = (frames, frames) if isinstance(frames, int) else frames
        if not sequences or not views:
            raise ValueError("sequences and views must not be empty; e.g. views=(0, 90).")
        for condition, number in sequences:
            _check_clip(condition, shortest, size, noise)
            check_seed(number, "the number of a sequence")
        for low, high, name in ((*speed, "speed"), (*elevation, "elevation"), (shortest, longest, "frames")):
            if low > high:
                raise ValueError(f"{name} must be (low, high), got ({low}, {high}); swap them.")
        for view in views:
            for tilt, pace in zip(elevation, speed, strict=True):
                _check_camera(view, tilt, pace)
        if not 0.0 <= view_error <= 45.0:
            raise ValueError(f"view_error must lie in [0, 45] degrees, got {view_error}; 0 is exact.")
        self.num_identities = num_identities
        self.sequences = tuple(sequences)
        self.views = tuple(float(view) for view in views)
        self.frames = (shortest, longest)
        self.size = size
        self.noise = noise
        self.speed = speed
        self.elevation = elevation
        self.view_error = view_error
        self.seed = seed
        self.first_identity = first_identity

    def __len__(self) -> int:
        return self.num_identities * len(self.sequences) * len(self.views)

    @property
    def labels(self) -> Tensor:
        """The label of every item, ``[len(self)]`` int64, for samplers."""
        return torch.arange(self.num_identities).repeat_interleave(
            len(self.sequences) * len(self.views)
        )

    def identity(self, label: int) -> Identity:
        """The person behind a label."""
        return sample_identity(self.seed * self._PEOPLE_PER_SEED + self.first_identity + label)

    def __getitem__(self, index: int) -> WalkerSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie below {len(self)}, got {index}.")
        rest, view_index = divmod(index % len(self), len(self.views))
        label, sequence_index = divmod(rest, len(self.sequences))
        condition, number = self.sequences[sequence_index]
        view = self.views[view_index]
        # Draws depend on what is asked for, never on its place in this data set.
        person = self.first_identity + label
        key = (self.seed, person, CONDITIONS.index(condition), number)
        walk = np.random.default_rng(np.random.SeedSequence((4, *key)))
        filming = np.random.default_rng(np.random.SeedSequence((5, *key, round(view * 1000))))
        shortest, longest = self.frames
        rendered = render_walk(
            self.identity(label),
            speed=float(walk.uniform(*self.speed)),
            seed=int(walk.integers(2**62)),
            frames=int(filming.integers(shortest, longest + 1)),
            view=float(view + filming.uniform(-self.view_error, self.view_error)) % 360.0,
            elevation=float(filming.uniform(*self.elevation)),
            phase=float(filming.random()),
            condition=condition,
            size=self.size,
            noise=self.noise,
        )
        return WalkerSample(
            rendered.silhouettes, rendered.keypoints, label, condition, view, number
        )
