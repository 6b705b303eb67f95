"""Colour crops of people as networks on images read them: true proportions, standard values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import shape_of

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "fit_colours",
    "normalize_colours",
    "stack_crops",
    "standardize",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue in ImageNet, of colours in [0, 1]."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Their standard deviations."""


def standardize(
    colours: Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    axis: int = 0,
) -> Tensor:
    """Colours minus their mean, divided by their deviation.

    Args:
        colours: Floats in [0, 1], red, green and blue on ``axis``.
        mean: Of each; ``None`` = zeros.
        std: Of each; ``None`` = ones.
        axis: Where they stand.

    Example:
        >>> standardize(torch.full((3, 1), 0.5), (0.5, 0.25, 0.0), None).flatten().tolist()
        [0.0, 0.25, 0.5]
    """
    shape = [-1, *[1] * (colours.ndim - axis - 1)]
    if mean is not None:
        colours = colours - torch.tensor(mean, dtype=colours.dtype, device=colours.device).view(
            shape
        )
    if std is not None:
        colours = colours / torch.tensor(std, dtype=colours.dtype, device=colours.device).view(
            shape
        )
    return colours


def normalize_colours(
    frames: Tensor,
    size: tuple[int, int] = (256, 128),
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
) -> Tensor:
    """Standard values of a size: what networks such as BigGait read.

    Raw colours are uint8, or floats that all lie in [0, 1]; they are standardised. Floats of which
    some lie outside have been standardised already and are only resized, so that a second call
    changes nothing. Frames are resized to the height in true proportions, then cut to the width, or
    padded with zeros, which are the mean colour, on both sides.

    Source: BigGait (https://arxiv.org/abs/2402.19122), pre-treatment. Inferred: bilinear without
    smoothing, padded after standardising; an odd column goes to the right.

    Args:
        frames: ``[3, T, H, W]``.
        size: Height and width in pixels.
        mean: Of red, green and blue in [0, 1].
        std: Their deviations.

    Returns:
        ``[3, T, height, width]`` floats.

    Raises:
        TypeError: If frames are neither uint8 nor floats.
        ValueError: If they have other axes or no pixel, or are not finite.

    Example:
        >>> normalize_colours(torch.full((3, 2, 64, 16), 255, dtype=torch.uint8)).shape
        torch.Size([3, 2, 256, 128])
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or frames.numel() == 0:
        raise ValueError(f"expected colours [3, T, H, W], got {shape_of(frames)}")
    if frames.dtype == torch.uint8:
        frames = standardize(frames.float() / 255, mean, std)
    elif not frames.is_floating_point():
        raise TypeError(
            f"expected colours as uint8 in 0..255 or as floats, got {frames.dtype}; convert bytes "
            "with .to(torch.uint8)"
        )
    else:
        lowest, highest = (float(bound) for bound in torch.aminmax(frames))
        if not np.isfinite([lowest, highest]).all():
            raise ValueError("expected finite colours, got NaN or infinite ones")
        if highest > 16 or lowest < -16:
            raise ValueError(
                f"expected colours as uint8, as floats in [0, 1], or standardised, got floats from "
                f"{lowest:g} to {highest:g}; give grey levels as uint8, or divide by 255"
            )
        if lowest >= 0 and highest <= 1:
            frames = standardize(frames, mean, std)
    return fit_colours(frames, size)


def fit_colours(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames of a size: resized to the height, then cut to the width or padded with zeros.

    Args:
        frames: ``[3, T, H, W]`` floats.
        size: Height and width in pixels.

    Example:
        >>> fit_colours(torch.ones(3, 1, 4, 2), (2, 3))[0, 0].tolist()
        [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    height, width = size
    if tuple(frames.shape[2:]) == (height, width):
        return frames
    own = max(1, round(height * frames.shape[3] / frames.shape[2]))
    x = F.interpolate(frames, (height, own), mode="bilinear", align_corners=False)
    left = abs(width - own) // 2
    if own >= width:
        return x[..., left : left + width].contiguous()
    return F.pad(x, (left, width - own - left))


def stack_crops(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Crops of several sizes as frames of one: as high as the highest, in true proportions.

    Args:
        frames: ``[H_i, W_i, 3]`` uint8 each.

    Returns:
        ``[T, H, W, 3]`` uint8; margins at the sides have the mean colour of ImageNet, which is zero
        when it is standardised.

    Example:
        >>> crops = [np.zeros((4, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)]
        >>> stack_crops(crops).shape
        (2, 4, 4, 3)
    """
    if len({frame.shape for frame in frames}) == 1:
        return np.stack(frames)
    height = max(len(frame) for frame in frames)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1) * 255
    # Minus the mean, so that zeros of the margins are the mean.
    tensors = [torch.from_numpy(f.copy()).permute(2, 0, 1)[:, None].float() - mean for f in frames]
    width = max(max(1, round(height * f.shape[1] / f.shape[0])) for f in frames)
    fitted = torch.cat([fit_colours(x, (height, width)) for x in tensors], dim=1) + mean
    return fitted.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()
