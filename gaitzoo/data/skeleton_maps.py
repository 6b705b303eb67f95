"""Skeleton maps from poses: limbs and joints drawn as blurred lines and points.

Source: SkeletonGait, https://arxiv.org/abs/2311.13444 (AAAI 2024), Sec. 3.1, and the measured
behaviour of the authors' pre-treatment. Differs from it: no OpenCV and no colour table of
matplotlib at run time (its rounding is kept as a table); a pose of no height is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["COCO17_LIMBS", "PosesToMaps", "fill_missing_joints"]

# Pairs of joints of COCO's 17 that a limb is drawn between.
COCO17_LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10)),
    *((5, 11), (11, 13), (13, 15), (6, 12), (12, 14), (14, 16), (11, 12)),
)
_HIPS = (11, 12)
_CANVAS = 128  # pixels of the square that is drawn on
_BODY = 85.0  # pixels from the highest to the lowest joint
_NEIGHBOURS = 4  # frames that a missing joint is filled from
_FAINT = 1e-3  # joints of less confidence are not drawn
# Grey levels that the authors' table of 256 colours lowers by one.
_LOWERED = (33, 37, 41, 45, 49, 53, 57, 61, 66, 74, 82, 90, 98, 106, 114, 122, 132, 148, 164)
_LOWERED += (180, 196, 212, 228, 244)
_LEVELS = np.array([level - (level in _LOWERED) for level in range(256)], dtype=np.uint8)


def fill_missing_joints(poses: np.ndarray) -> np.ndarray:
    """Coordinates that are 0, and therefore missing, from the frames that are most alike.

    The mean of the four nearest frames that have the number, weighted by inverse distance over
    the numbers that both have (scikit-learn's ``KNNImputer``); the column's mean where no frame
    is comparable. A clip in which some number is missing in every frame stays as it is.

    Args:
        poses: ``[T, J, 3]``: x, y and confidence.

    Returns:
        ``[T, J, 3]`` float64; confidences are left alone.
    """
    filled = poses.astype(np.float64)
    table = filled[..., :2].reshape(len(poses), -1)
    table[table == 0] = np.nan
    missing = np.isnan(table)
    if not missing.any() or missing.all(0).any():
        return poses.astype(np.float64)
    means = np.nanmean(table, axis=0)
    known = np.where(missing, 0.0, table)
    result = table.copy()
    for t in np.flatnonzero(missing.any(1)):
        both = ~missing & ~missing[t]
        shared = both.sum(1)
        squares = np.where(both, (known - known[t]) ** 2, 0.0).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = np.sqrt(squares * table.shape[1] / shared)
        distances[shared == 0] = np.nan
        for column in np.flatnonzero(missing[t]):
            givers = np.flatnonzero(~missing[:, column] & ~np.isnan(distances))
            if len(givers) == 0:
                result[t, column] = means[column]
                continue
            nearest = givers[np.argsort(distances[givers], kind="stable")[:_NEIGHBOURS]]
            near = distances[nearest]
            weights = (near == 0).astype(float) if (near == 0).any() else 1 / near
            result[t, column] = np.average(table[nearest, column], weights=weights)
    filled[..., :2] = result.reshape(len(poses), -1, 2)
    return filled


@dataclass(frozen=True)
class PosesToMaps:
    """Draws poses as maps of limbs and joints, so that pose files feed skeleton-map models.

    Source: SkeletonGait (https://arxiv.org/abs/2311.13444), Sec. 3.1; see the top of the file.

    Args:
        size: Height and width of the maps, pixels; ``(64, 44)`` cuts 10 columns off either side
            of the square that is drawn. Height at least width.
        sigma: Width of the blur, pixels of a canvas of 128 in which a body is 85 high.
        fill: Missing joints (coordinates of 0) are filled from similar frames.

    Shapes:
        poses: ``[T, 17, 3]``, COCO's joints: x and y in pixels, confidence in [0, 1]; a tensor or
            array. Other formats: :func:`gaitzoo.data.poses.convert_joints`.
        returns: ``[2, T, H, W]`` float32 in [0, 1]: limbs, joints.

    Raises:
        ValueError: If the shape is another one, there is no frame, a number is not finite, a pose
            has no height, or an argument has none of the values named here.

    Example:
        >>> poses = torch.rand(5, 17, 3) * torch.tensor([40.0, 100.0, 1.0]) + 1
        >>> PosesToMaps()(poses).shape
        torch.Size([2, 5, 64, 44])
    """

    size: tuple[int, int] = (64, 44)
    sigma: float = 8.0
    fill: bool = True

    def __post_init__(self) -> None:
        height, width = self.size
        if not 0 < width <= height or (height - width) % 2:
            raise ValueError(
                "expected size as (height, width), the height at least the width and both even or "
                f"both odd, got {self.size!r}"
            )
        if not self.sigma > 0:
            raise ValueError(f"expected a sigma above 0, got {self.sigma!r}")

    def __call__(self, poses: Tensor | np.ndarray) -> Tensor:
        """Draws the maps of one sequence."""
        levels = self.draw(poses)
        return levels.float() / 255

    def draw(self, poses: Tensor | np.ndarray) -> Tensor:
        """As a call, in grey levels as the authors store them.

        Args:
            poses: See the class.

        Returns:
            ``[2, T, H, W]`` uint8.
        """
        array = _checked(poses)
        placed = _placed(fill_missing_joints(array) if self.fill else array.astype(np.float64))
        frames = [self._draw_frame(pose) for pose in placed]
        maps = torch.from_numpy(np.stack(frames, axis=1))
        margin = (self.size[0] - self.size[1]) // 2
        return maps[..., margin : margin + self.size[1]].contiguous()

    def _draw_frame(self, pose: np.ndarray) -> np.ndarray:
        limbs = np.zeros((_CANVAS, _CANVAS))
        joints = np.zeros((_CANVAS, _CANVAS))
        for joint in pose:
            _add_point(joints, joint[:2], joint[2], self.sigma)
        for a, b in COCO17_LIMBS:
            score = min(pose[a, 2], pose[b, 2])
            _add_limb(limbs, pose[a, :2], pose[b, :2], score, self.sigma)
        return np.stack([_aligned(_quantised(one), self.size[0]) for one in (limbs, joints)])


def _checked(poses: Tensor | np.ndarray) -> np.ndarray:
    array = poses.detach().cpu().numpy() if isinstance(poses, Tensor) else np.asarray(poses)
    if array.ndim != 3 or array.shape[1:] != (17, 3) or len(array) == 0:
        raise ValueError(
            f"expected poses [T, 17, 3] of COCO's joints, got {list(array.shape)}; other formats: "
            "gaitzoo.data.poses.convert_joints"
        )
    if not np.isfinite(array).all():
        raise ValueError("expected finite poses, got NaN or infinite numbers; missing joints are 0")
    return array


def _placed(poses: np.ndarray) -> np.ndarray:
    """Hips in the middle of the canvas, every body as high as any other."""
    points = poses[..., :2] - poses[:, _HIPS, :2].mean(axis=1, keepdims=True)
    heights = points[..., 1].max(1) - points[..., 1].min(1)
    if (heights <= 0).any():
        raise ValueError(
            f"expected poses with a height, got none in frame {int(np.argmin(heights))}; leave "
            "frames without a person out"
        )
    points = points * (_BODY / heights)[:, None, None] + _CANVAS // 2
    return np.concatenate([points, poses[..., 2:]], axis=-1)


def _add_point(canvas: np.ndarray, centre: np.ndarray, score: float, sigma: float) -> None:
    box = _box(centre[None], sigma)
    if score < _FAINT or box is None:
        return
    rows, columns, y, x = box
    squares = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    _draw(canvas, rows, columns, squares, score, sigma)


def _add_limb(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, score: float, sigma: float
) -> None:
    length = float(np.linalg.norm(end - start))
    if length < 1:
        _add_point(canvas, start, score, sigma)
        return
    box = _box(np.stack([start, end]), sigma)
    if score < _FAINT or box is None:
        return
    rows, columns, y, x = box
    along = (
        (x - start[0]) * (end[0] - start[0]) + (y - start[1]) * (end[1] - start[1])
    ) / length**2
    along = along.clip(0, 1)
    squares = (x - start[0] - along * (end[0] - start[0])) ** 2
    squares = squares + (y - start[1] - along * (end[1] - start[1])) ** 2
    _draw(canvas, rows, columns, squares, score, sigma)


def _box(points: np.ndarray, sigma: float) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
    """Rows and columns within three sigma of points, clipped; ``None`` = outside."""
    reach = 3 * sigma
    low = np.trunc(points.min(0) - reach).astype(int).clip(0)
    high = (np.trunc(points.max(0) + reach).astype(int) + 1).clip(max=_CANVAS)
    if (low >= high).any():
        return None
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]]
    return slice(low[1], high[1]), slice(low[0], high[0]), y, x


def _draw(
    canvas: np.ndarray,
    rows: slice,
    columns: slice,
    squares: np.ndarray,
    score: float,
    sigma: float,
) -> None:
    values = score * np.exp(-squares / (2 * sigma**2))
    np.maximum(canvas[rows, columns], values, out=canvas[rows, columns])


def _quantised(canvas: np.ndarray) -> np.ndarray:
    return _LEVELS[np.minimum((256 * canvas).astype(int), 255)]


def _aligned(levels: np.ndarray, size: int) -> np.ndarray:
    """The square around the rows that hold anything, as ``size x size``."""
    lit = np.flatnonzero(levels.any(1))
    if len(lit) == 0:
        return np.zeros((size, size), dtype=np.uint8)
    top, bottom = lit[0], lit[-1] + 1
    half = (bottom - top) // 2
    centre = _CANVAS // 2
    crop = levels[top:bottom, max(0, centre - half) : centre + half + 1].astype(np.float64)
    across, down = (_box_average(length, size) for length in (crop.shape[1], crop.shape[0]))
    # A little more than nothing: averages of equal numbers must not fall below them.
    return np.floor(down @ crop @ across.T + 1e-9).astype(np.uint8)


def _box_average(length: int, size: int) -> np.ndarray:
    """Matrix ``[size, length]`` of the share of every old pixel in every new one."""
    edges = np.arange(size + 1) * length / size
    pixel = np.arange(length)
    share = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return share.clip(0) * size / length
