"""A walker's shapes in the picture: how they are drawn, alone and part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gaitzoo.synthetic import raster
from gaitzoo.synthetic.body import Array

# As in Gait3D-Parsing; what is carried belongs to no part of the body.
PART_LABELS = {"bag": 0, "head": 1, "torso": 2, "skirt": 11}
for _side, _name in enumerate(("left", "right")):
    PART_LABELS[f"{_name} shoulder"] = 2
    PART_LABELS[f"{_name} upper arm"] = PART_LABELS[f"{_name} forearm"] = 3 + _side
    PART_LABELS[f"{_name} hand"] = 5 + _side
    PART_LABELS[f"{_name} thigh"] = PART_LABELS[f"{_name} lower leg"] = 7 + _side
    PART_LABELS[f"{_name} foot"] = 9 + _side


class ProfilePiece(NamedTuple):
    """Some levels of a profile that belong to one part of the body."""

    profile: int
    levels: slice
    part: str
    nearness: Array  # [T]


@dataclass
class Outline:
    """Everything to draw in one clip, in image coordinates; ``move`` turns metres into pixels."""

    start: Array  # [T, M, 2]
    end: Array
    start_radius: Array  # [T, M]
    end_radius: Array
    part: tuple[str, ...]
    nearness: Array  # [T, M], of the surface to the camera, metres
    profiles: list[tuple[Array, Array, Array]]  # middle, level, half width; each [T, K]
    pieces: list[ProfilePiece]
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
        field = raster.empty_field(len(self.start), height, width)
        limbs = (self.start, self.end, self.start_radius, self.end_radius)
        raster.add_limbs(field, *map(_as_float32, limbs))
        for profile in self.profiles:
            raster.add_profile(field, *_growing(*profile))
        return field

    def draw_parts(self, height: int, width: int) -> Tensor:
        """Labels ``[T, H, W]`` uint8 of the foremost part; around the body those of the nearest."""
        margin = height // 8  # as far as ragged outlines go
        foremost = torch.full((len(self.start), height, width), -math.inf)
        closest = raster.empty_field(*foremost.shape)
        labels, around = (torch.zeros(foremost.shape, dtype=torch.uint8) for _ in range(2))

        def lay_over(field: Tensor, part: str, nearness: Array) -> None:
            near = _as_float32(nearness)[:, None, None]
            inside = (field < 0) & (near > foremost)
            foremost.copy_(torch.where(inside, near, foremost))
            labels.masked_fill_(inside, PART_LABELS[part])
            closer = field < closest
            closest.copy_(torch.where(closer, field, closest))
            around.masked_fill_(closer, PART_LABELS[part])

        for i, part in enumerate(self.part):
            field = raster.empty_field(*foremost.shape)
            limb = (self.start, self.end, self.start_radius, self.end_radius)
            raster.add_limbs(field, *(_as_float32(x[:, i : i + 1]) for x in limb), margin=margin)
            lay_over(field, part, self.nearness[:, i])
        for piece in self.pieces:
            field = raster.empty_field(*foremost.shape)
            profile = (x[:, piece.levels] for x in self.profiles[piece.profile])
            raster.add_profile(field, *_growing(*profile), margin=margin)
            lay_over(field, piece.part, piece.nearness)
        return torch.where(foremost > -math.inf, labels, around)


def _as_float32(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _growing(middle: Array, level: Array, half: Array) -> tuple[Tensor, Tensor, Tensor]:
    """A profile with levels that grow strictly."""
    level = np.maximum.accumulate(level, axis=1) + 1e-3 * np.arange(level.shape[1])
    return _as_float32(middle), _as_float32(level), _as_float32(half)
