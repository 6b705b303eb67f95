"""How a walker gets into the frame: projection, alignment, and faults of the segmentation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.synthetic import raster
from gaitzoo.synthetic.body import Array, Identity, pose
from gaitzoo.synthetic.flesh import (
    HEAD_SLICES,
    Outfit,
    Slices,
    grow_limbs,
    grow_trunk,
    hem_spheres,
    keypoints_3d,
)
from gaitzoo.synthetic.outline import Outline, ProfilePiece

_NEAREST = 6.0  # metres between a raw camera and the walker's nearest point
_CUT = -raster.OUTSIDE  # a radius that removes a limb


@dataclass(frozen=True, kw_only=True)
class SegmentationNoise:
    """How badly the silhouettes are cut out of the picture; all zero is clean.

    Attributes:
        holes: 0 to 1; at 1 a frame has about four holes of 1 to 4 % of the body's height.
        ragged: 0 to 1; at 1 the outline wanders by about 2 % of the body's height, anew in each
            frame.
        cut_limbs: 0 to 1; the chance per frame that a forearm, foot or lower leg is missing (for a
            few frames in a row).
        scale_jitter: 0 to 1; at 1 the top and bottom of the box around the body are wrong by about
            6 % of its height.

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


@dataclass(frozen=True)
class Camera:
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

    def project_slices(self, slices: Slices) -> tuple[Array, Array, Array, Array]:
        """Middle, level and half width of the slices' outlines, nearness of the surface.

        All are ``[T, K]``.
        """
        angle = math.radians(self.view) - slices.yaw
        facing, sideways = np.cos(angle), np.sin(angle)
        x, y, near = self.project(slices.centre)
        x = x - sideways * (slices.front - slices.back) / 2
        # A torso is boxier than an ellipse: the exponent of its support function is below 2.
        breadth = np.abs(facing) * slices.breadth
        depth = np.abs(sideways) * (slices.front + slices.back) / 2
        half = (breadth**1.75 + depth**1.75) ** (1 / 1.75)
        thickness = np.abs(sideways) * slices.breadth
        thickness += np.abs(facing) * (slices.front + slices.back) / 2
        return x, y, np.maximum(half, 1e-4), near + thickness


def outline_walk(
    identity: Identity, phase: Array, effort: float, outfit: Outfit, camera: Camera
) -> Outline:
    """Pose, dress and project the walker; coordinates in metres around the walker's own place."""
    skeleton = pose(identity, phase, effort=effort, arm_freedom=outfit.arm_freedom)
    limbs = grow_limbs(identity, skeleton, outfit)
    trunk = camera.project_slices(grow_trunk(identity, skeleton, outfit))
    # Crown first: levels grow downwards.
    middle, level, half, surface = (values[:, ::-1] for values in trunk)
    profiles = [(middle, level, half)]
    # The chin's level belongs to both, so that no row between them is left out.
    head, torso = slice(0, HEAD_SLICES), slice(HEAD_SLICES - 1, None)
    pieces = [
        ProfilePiece(0, head, "head", surface[:, head].mean(axis=1)),
        ProfilePiece(0, torso, "torso", surface[:, torso].mean(axis=1)),
    ]
    if outfit.hem > 0:
        centres, radius = hem_spheres(identity, skeleton, outfit)
        x, y, near = camera.project(centres)
        pieces.append(ProfilePiece(1, slice(None), "skirt", near.max(axis=1) + radius))
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

    starts, ends = (camera.project(points)[2] for points in (limbs.start, limbs.end))
    nearness = (starts + ends + limbs.start_radius + limbs.end_radius) / 2
    # The trunk covers both thighs at the hips, also that of the leg in front.
    thighs = np.array([part.endswith("thigh") for part in limbs.part])
    nearness[:, thighs] = starts[:, thighs]
    return Outline(
        start=flat(limbs.start),
        end=flat(limbs.end),
        start_radius=np.tile(limbs.start_radius, (frames, 1)),
        end_radius=np.tile(limbs.end_radius, (frames, 1)),
        part=limbs.part,
        nearness=nearness,
        profiles=profiles,
        pieces=pieces,
        keypoints=flat(keypoints_3d(identity, skeleton)),
    )


# What segmentation loses together, and the COCO keypoint that goes with it.
_CUTS = (
    (("left forearm", "left hand"), 9),
    (("right forearm", "right hand"), 10),
    (("left foot",), 15),
    (("right foot",), 16),
    (("left lower leg", "left foot"), 15),
    (("right lower leg", "right foot"), 16),
)


def cut_limbs(outline: Outline, strength: float, generator: np.random.Generator) -> Array:
    """Remove limbs for some frames; returns the keypoints' scores ``[T, 17]``."""
    frames = len(outline.start)
    scores = np.ones((frames, 17))
    run = 3  # frames that a fault lasts
    starts = generator.random((frames + run - 1, len(_CUTS))) < strength / (run * len(_CUTS))
    missing = np.logical_or.reduce([starts[delay : delay + frames] for delay in range(run)])
    for fault, (parts, point) in enumerate(_CUTS):
        limbs = np.array([part in parts for part in outline.part])
        lost = missing[:, fault, None] & limbs
        outline.start_radius = np.where(lost, _CUT, outline.start_radius)
        outline.end_radius = np.where(lost, _CUT, outline.end_radius)
        scores[missing[:, fault], point] = 0.0
    return scores


def _roughen(
    field: Tensor,
    body: Array,
    middle: Array,
    noise: SegmentationNoise,
    generator: np.random.Generator,
) -> Tensor:
    """Ragged outlines and holes, for bodies of ``body`` pixels' height around ``middle`` (x, y)."""
    frames, height, width = field.shape
    size = float(body.mean())
    if noise.ragged > 0:
        cells = (max(2, round(height / size * 28)), max(2, round(width / size * 28)))
        bumps = torch.from_numpy(generator.standard_normal((frames, 1, *cells), dtype=np.float32))
        bumps = F.interpolate(bumps, size=(height, width), mode="bilinear", align_corners=False)
        field = field.add_(bumps[:, 0], alpha=0.018 * noise.ragged * size)
    if noise.holes > 0:
        most = 8
        count = np.minimum(generator.poisson(4.0 * noise.holes, frames), most)
        spread = generator.standard_normal((frames, most)) * 0.05
        place = np.stack([spread, generator.uniform(-0.4, 0.45, (frames, most))], axis=-1)
        start = middle[:, None] + place * body[:, None, None]
        end = start + generator.uniform(-0.03, 0.03, start.shape) * body[:, None, None]
        radius = generator.uniform(0.01, 0.035, (frames, most)) * body[:, None]
        radius[np.arange(most) >= count[:, None]] = _CUT
        holes = raster.empty_field(frames, height, width)
        arrays = (start, end, radius, radius)
        raster.add_limbs(holes, *(torch.from_numpy(array.astype(np.float32)) for array in arrays))
        field = torch.maximum(field, holes.neg_())
    return field


def align(
    outline: Outline,
    size: tuple[int, int],
    noise: SegmentationNoise,
    generator: np.random.Generator,
    parts: bool,
) -> tuple[Tensor, Tensor | None, Array]:
    """Fill the height with the body and centre its mass.

    Returns the field, with ``parts`` the labels of the body's parts, and a shift of x.
    """
    height, width = size
    frames = len(outline.start)
    _, top, _, bottom = outline.bounds()
    body = bottom - top
    if noise.scale_jitter > 0:
        errors = generator.standard_normal((2, frames)) * 0.06 * noise.scale_jitter
        top, bottom = top + errors[0] * body, bottom + errors[1] * body
    # A little more than the frame: the crown's first row is as full as after cropping real pixels.
    scale = (height + 0.5) / (bottom - top)
    margin = max(4, height // 10)
    canvas = width + 2 * margin
    outline.move(scale, canvas / 2 - outline.centre_of_mass() * scale, -0.25 - top * scale)
    field = outline.draw(height, canvas)
    labels = outline.draw_parts(height, canvas) if parts else None
    middle = np.full((frames, 2), (canvas / 2, height / 2))
    field = _roughen(field, body * scale, middle, noise, generator)
    # The column where the running sum of the mass passes its half goes to the middle.
    mass = (0.5 - field).clamp_(0.0, 1.0).sum(dim=1).cumsum_(dim=1)
    column = (mass <= mass[:, -1:] / 2).sum(dim=1).clamp_(width // 2, canvas - width + width // 2)
    first = column - width // 2
    columns = (first[:, None] + torch.arange(width))[:, None].expand(-1, height, -1)
    labels = None if labels is None else labels.gather(2, columns)
    return field.gather(2, columns), labels, -first.numpy().astype(np.float64)


def film(
    outline: Outline,
    travelled: Array,
    camera: Camera,
    size: tuple[int, int],
    noise: SegmentationNoise,
    generator: np.random.Generator,
    parts: bool,
) -> tuple[Tensor, Tensor | None]:
    """Film with a standing camera that sees the whole walk.

    Returns the field and, with ``parts``, the labels of the body's parts.
    """
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
    field = _roughen(outline.draw(height, width), bottom - top, middle, noise, generator)
    return field, outline.draw_parts(height, width) if parts else None
