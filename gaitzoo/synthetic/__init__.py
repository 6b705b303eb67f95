"""Synthetic walkers: silhouettes, joints and body parts of articulated people, from seeds alone.

A person (:class:`Identity`) is a set of body proportions and gait habits. :func:`render_walk` films
one walk of that person with a camera anywhere around; :class:`SyntheticWalkers` is a data set of
such walks. Nothing is downloaded and the same seeds give the same pixels in every process, which
makes the walkers fit for tests, examples and small trainings.

Example:
    >>> walk = render_walk(sample_identity(0), frames=30, view=90.0)
    >>> walk.silhouettes.shape, walk.keypoints.shape
    (torch.Size([30, 64, 44]), torch.Size([30, 17, 3]))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gaitzoo.synthetic import raster
from gaitzoo.synthetic.body import (
    Array,
    Identity,
    check_seed,
    sample_identity,
    stride_length,
    vary_style,
)
from gaitzoo.synthetic.camera import Camera, SegmentationNoise, align, cut_limbs, film, outline_walk
from gaitzoo.synthetic.colours import find_warm_colours, paint_walk
from gaitzoo.synthetic.flesh import CONDITIONS, draw_outfit
from gaitzoo.synthetic.joints3d import walk_joints3d

__all__ = [
    "Identity",
    "SegmentationNoise",
    "SyntheticWalkers",
    "Walk",
    "WalkerSample",
    "find_warm_colours",
    "paint_walk",
    "render_walk",
    "sample_identity",
    "walk_joints3d",
]

FRAME_RATE = 25.0  # frames per second, as in CASIA-B


@dataclass(frozen=True, eq=False)
class Walk:
    """One filmed walk.

    Attributes:
        silhouettes: ``[T, H, W]`` uint8; 255 inside, 0 outside, grey along the outline.
        keypoints: ``[T, 17, 3]`` float32, COCO order: x and y in pixels of ``silhouettes`` (the
            centre of the first pixel is 0.5), and a score, 1 or, where segmentation noise cut the
            limb off, 0.
        parsing: ``[T, H, W]`` uint8, the body part of every pixel that is more than half inside,
            labels as in Gait3D-Parsing: 0 background and bags, 1 head, 2 torso, 3 and 4 left and
            right arm, 5 and 6 hands, 7 and 8 legs, 9 and 10 feet, 11 skirt of a coat. ``None``
            unless asked for.
    """

    silhouettes: Tensor
    keypoints: Tensor
    parsing: Tensor | None = None


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
    parsing: bool = False,
) -> Walk:
    """Film one walk of a person, at 25 frames per second.

    The seed decides what differs between two walks of one person: small changes of gait and
    clothes, which bag or coat, the phase of the first frame. The same seed with another ``view`` or
    ``elevation`` is the same walk seen by another camera.

    Args:
        identity: Who walks.
        frames: Length of the clip, 1 or more.
        view: Direction of the camera, degrees in [0, 360): 0 walks towards it, 90 crosses to the
            left, 180 walks away.
        elevation: How far the camera looks down, degrees in [-10, 30].
        condition: ``"normal"``, ``"bag"`` (backpack, shoulder bag or hand bag) or ``"coat"`` (short
            jacket to long coat).
        speed: Walking speed relative to the person's own, 0.5 to 1.6; changes the cadence and the
            stride.
        size: Height and width of the frames, pixels, each 16 or more.
        noise: Faults of the segmentation; ``None`` is clean.
        seed: Any non-negative integer.
        aligned: Whether each frame looks like the output of the field's pre-treatment: the body
            fills the height, and half of its mass lies left of the middle column. Otherwise the
            frames are those of a standing camera, and the person walks through the picture.
        phase: Gait phase of the first frame, in cycles from the left heel's strike; ``None`` draws
            it from the seed.
        parsing: Whether to render the body part of every pixel too.

    Raises:
        ValueError: An argument is outside its range.
        TypeError: ``identity`` or ``noise`` is of another class, or a count or seed no integer.

    Example:
        >>> walk = render_walk(Identity(), frames=8, view=36.0, condition="coat", size=(128, 88))
        >>> walk.silhouettes.shape, walk.silhouettes.dtype
        (torch.Size([8, 128, 88]), torch.uint8)
        >>> render_walk(Identity(), frames=8, view=0.0, parsing=True).parsing.unique().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    if not isinstance(identity, Identity):
        raise TypeError(
            f"identity must be an Identity, got {type(identity).__name__}; "
            "use sample_identity(seed)."
        )
    _check_camera(view, elevation, speed)
    _check_clip(condition, frames, size, noise)
    check_seed(seed)
    if phase is not None and not math.isfinite(phase):
        raise ValueError(f"phase must be finite or None, got {phase}; 0 is the left heel's strike.")
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
    camera = Camera(view, elevation)
    outline = outline_walk(person, first + cycles, effort, outfit, camera)

    # Two cameras that film one walk make different mistakes.
    faults = np.random.default_rng(
        np.random.SeedSequence((3, seed, round(view * 1000), round((elevation + 90) * 1000)))
    )
    scores = np.ones((frames, 17))
    if noise.cut_limbs > 0:
        scores = cut_limbs(outline, noise.cut_limbs, faults)
    shift: Array | float = 0.0
    if aligned:
        field, labels, shift = align(outline, size, noise, faults, parsing)
    else:
        travelled = cycles * stride_length(person, effort)
        field, labels = film(outline, travelled, camera, size, noise, faults, parsing)
    points = outline.keypoints
    points[..., 0] += np.reshape(shift, (-1, 1))
    keypoints = np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)
    silhouettes = raster.to_grey(field)
    if labels is not None:
        labels = labels.masked_fill_(silhouettes <= 127, 0)
    return Walk(silhouettes, torch.from_numpy(keypoints), labels)


def _check_camera(view: float, elevation: float, speed: float) -> None:
    for value, name in ((view, "view"), (elevation, "elevation"), (speed, "speed")):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0.0 <= view < 360.0:
        raise ValueError(
            f"view must lie in [0, 360) degrees, got {view}; 0 is towards the camera, 90 the side, "
            "180 from behind."
        )
    if not -10.0 <= elevation <= 30.0:
        raise ValueError(f"elevation must lie in [-10, 30] degrees, got {elevation}; 0 is level.")
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
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or any(not isinstance(side, int) or side < 16 for side in size)
    ):
        raise ValueError(
            f"size must be (height, width), integers of 16 or more, got {size!r}; e.g. (64, 44)."
        )
    if noise is not None and not isinstance(noise, SegmentationNoise):
        raise TypeError(
            f"noise must be a SegmentationNoise or None, got {type(noise).__name__}; "
            "use SegmentationNoise(ragged=0.5)."
        )


class WalkerSample(NamedTuple):
    """One item of :class:`SyntheticWalkers`; ``DataLoader`` batches named tuples by itself.

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

    Each walk of a person has its own speed, small changes of style, and bag or coat. The cameras
    film the same walk, each with its own first frame, elevation and small error of the view. Items
    are ordered by identity, then sequence, then view.

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
        first_identity: Number of the first person, so that data sets with one seed can have
            disjoint people. People of different seeds or numbers never coincide.
        aligned: As for :func:`render_walk`; not aligned frames are those of a standing camera.

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
        aligned: bool = True,
    ) -> None:
        check_seed(num_identities, "num_identities")
        check_seed(first_identity, "first_identity")
        check_seed(seed)
        if num_identities < 1 or first_identity + num_identities > self._PEOPLE_PER_SEED:
            raise ValueError(
                "num_identities must be 1 or more and first_identity + num_identities at most "
                f"{self._PEOPLE_PER_SEED}, got {num_identities} and {first_identity}; "
                "use another seed for more people."
            )
        if isinstance(frames, Sequence) and len(frames) != 2:
            raise ValueError(f"frames must be a number or (shortest, longest), got {frames!r}.")
        shortest, longest = frames if isinstance(frames, Sequence) else (frames, frames)
        check_seed(longest, "frames")
        for value, name, example in (
            (sequences, "sequences", '(("normal", 0), ("coat", 0))'),
            (views, "views", "(0, 90)"),
            (speed, "speed", "(0.9, 1.1)"),
            (elevation, "elevation", "(0.0, 8.0)"),
        ):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise TypeError(f"{name} must be a tuple, got {value!r}; e.g. {example}.")
        if not sequences or not views:
            raise ValueError("sequences and views must not be empty; e.g. views=(0, 90).")
        for condition, number in sequences:
            _check_clip(condition, shortest, size, noise)
            check_seed(number, "the number of a sequence")
        for low, high, name in (
            (*speed, "speed"),
            (*elevation, "elevation"),
            (shortest, longest, "frames"),
        ):
            if low > high:
                raise ValueError(f"{name} must be (low, high), got ({low}, {high}); swap them.")
        for view in views:
            for tilt, pace in zip(elevation, speed, strict=True):
                _check_camera(view, tilt, pace)
        if not 0.0 <= view_error <= 45.0:
            raise ValueError(
                f"view_error must lie in [0, 45] degrees, got {view_error}; 0 is exact."
            )
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
        self.aligned = aligned

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
            aligned=self.aligned,
        )
        return WalkerSample(
            rendered.silhouettes, rendered.keypoints, label, condition, view, number
        )
