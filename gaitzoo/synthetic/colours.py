"""Walkers in colour before a textured wall, and the simplest segmentation that finds them again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import shape_of

__all__ = ["find_warm_colours", "paint_walk"]

# Nothing of the wall is as red as it is blue, and nothing of a person as blue as red.
_WALL = (0.40, 0.52, 0.62)
_CLOTHES = ((0.72, 0.48, 0.36), (0.60, 0.44, 0.26), (0.66, 0.36, 0.32), (0.50, 0.36, 0.22))
_TEXTURE = 0.12
_BLUR = 5  # pixels
_THRESHOLD = 0.05


def paint_walk(silhouettes: Tensor, seed: int = 0) -> Tensor:
    """Colours a walk: clothes in warm colours before a wall in cold ones, both blotched.

    Args:
        silhouettes: ``[T, H, W]`` uint8 in 0..255, those of a standing camera:
            ``render_walk(..., aligned=False)``.
        seed: Of the colours; any non-negative integer.

    Returns:
        The video, ``[T, 3, H, W]`` uint8.

    Raises:
        ValueError: If the shape is none of a walk.

    Example:
        >>> paint_walk(torch.zeros(4, 64, 48, dtype=torch.uint8)).shape
        torch.Size([4, 3, 64, 48])
    """
    if silhouettes.ndim != 3 or silhouettes.numel() == 0:
        raise ValueError(f"expected silhouettes [T, H, W], got {shape_of(silhouettes)}")
    generator = torch.Generator().manual_seed(seed)
    height, width = silhouettes.shape[1:]

    def blotched(colour: tuple[float, float, float]) -> Tensor:
        coarse = torch.rand(1, 1, height // 8 + 2, width // 8 + 2, generator=generator)
        field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
        return torch.tensor(colour)[:, None, None] * (1 + _TEXTURE * (2 * field - 1))

    wall = blotched(_WALL)
    upper, lower = torch.randperm(len(_CLOTHES), generator=generator)[:2].tolist()
    coat, trousers = blotched(_CLOTHES[upper]), blotched(_CLOTHES[lower])
    inside = silhouettes.float()[:, None] / 255
    rows = inside.amax((1, 3))
    # The waist halves the body of every frame.
    below = (rows.cumsum(1) / rows.sum(1, keepdim=True).clamp(min=1e-6) > 0.5)[:, None, :, None]
    body = torch.where(below, trousers, coat)
    return (255 * (wall * (1 - inside) + body * inside)).round().clamp(0, 255).to(torch.uint8)


def find_warm_colours(video: Tensor) -> Tensor:
    """The person of :func:`paint_walk`: pixels that are redder than blue after a slight blur.

    No learning and no memory, so that what noise, darkness and blur do to it is easy to follow; it
    says nothing about other segmentations.

    Args:
        video: ``[T, 3, H, W]``, uint8 or floats in [0, 1].

    Returns:
        ``[T, H, W]`` uint8, 0 or 255.

    Raises:
        ValueError: If the shape is not that of a video.

    Example:
        >>> from gaitzoo.synthetic import render_walk, sample_identity
        >>> walk = render_walk(sample_identity(0), frames=2, size=(128, 96), aligned=False)
        >>> masks = find_warm_colours(paint_walk(walk.silhouettes))
        >>> float(((masks > 127) == (walk.silhouettes > 127)).float().mean()) > 0.98
        True
    """
    if video.ndim != 4 or video.shape[1] != 3 or video.numel() == 0:
        raise ValueError(f"expected a video [T, 3, H, W], got {shape_of(video)}")
    frames = video.float() / 255 if video.dtype == torch.uint8 else video.float()
    warmth = frames[:, :1] - frames[:, 2:]
    padded = F.pad(warmth, [_BLUR // 2] * 4, mode="replicate")
    return (F.avg_pool2d(padded, _BLUR, stride=1)[:, 0] > _THRESHOLD).to(torch.uint8) * 255
