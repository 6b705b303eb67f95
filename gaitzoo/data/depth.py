"""Depth maps beside silhouettes: cut by the same box, and brought to one range.

Source: DepthGait (https://arxiv.org/abs/2508.03397, ACM MM 2025), a reconstruction: that depth goes
beside silhouettes is the authors'; how it is prepared is [inferred]. Depth of single pictures has
an unknown scale and shift, which the range takes away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import check_values, shape_of

__all__ = ["crop_like_silhouette", "normalize_depth"]

_NEAREST = 0.1  # of the normalised depth; 0 is background


def normalize_depth(
    depth: Tensor,
    mask: Tensor,
    per: str = "clip",
    quantiles: tuple[float, float] = (0.02, 0.98),
) -> Tensor:
    """Brings the person's depth to 0.1 to 1, and all else to 0.

    The range between two quantiles of the person's pixels becomes 0.1 to 1; what lies outside is
    clamped. Where all of them are equal, they become the middle. Scale (if positive) and shift of
    the depth make no difference.

    Args:
        depth: ``[T, H, W]``, any finite values of the person's pixels.
        mask: ``[T, H, W]``, the person: booleans, floats in [0, 1] or integers in 0..255, of which
            the upper half counts (integers of only 0 and 1: taken as a mask).
        per: ``"clip"``, one range for all frames, which keeps steps towards the camera, or
            ``"frame"``.
        quantiles: Lower and upper one, 0 to 1.

    Returns:
        ``[T, H, W]`` float32 (float64 if ``depth`` is); of an empty mask zeros.

    Raises:
        ValueError: If shapes differ, an argument or the mask has none of the values named here, or
            the person's depth is not finite.

    Example:
        >>> depth, mask = torch.tensor([[[2.0, 3.0, 4.0, 99.0]]]), torch.tensor([[[1, 1, 1, 0]]])
        >>> normalize_depth(depth, mask.bool(), quantiles=(0, 1)).tolist()
        [[[0.10000000149011612, 0.550000011920929, 1.0, 0.0]]]
    """
    person = _person(depth, mask)
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise ValueError(f"expected quantiles as two numbers from 0 to 1, got {quantiles!r}")
    if per not in ("clip", "frame"):
        raise ValueError(f'expected per "clip" or "frame", got {per!r}')
    depth = depth if depth.dtype == torch.float64 else depth.float()
    if not bool(depth[person].isfinite().all()):
        raise ValueError("expected finite depth of the person, got NaN or infinite values")
    found = torch.zeros_like(depth)
    for x, inside, out in (
        [(depth, person, found)] if per == "clip" else zip(depth, person, found, strict=True)
    ):
        values = x[inside]
        if values.numel():
            out[inside] = _in_range(values, low, high)
    return found


def _in_range(values: Tensor, low: float, high: float) -> Tensor:
    ordered = values.sort().values
    # torch.quantile takes no more than 16 million numbers.
    lowest, highest = (_quantile(ordered, q) for q in (low, high))
    if highest <= lowest:
        return torch.full_like(values, (1 + _NEAREST) / 2)
    share = ((values - lowest) / (highest - lowest)).clamp(0, 1)
    return _NEAREST + (1 - _NEAREST) * share


def _quantile(ordered: Tensor, q: float) -> Tensor:
    """As ``torch.quantile`` of ordered numbers."""
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)


def crop_like_silhouette(frames: Tensor, mask: Tensor, size: tuple[int, int] = (64, 44)) -> Tensor:
    """Cuts maps by the box of the person, as :func:`gaitzoo.normalize_silhouettes` cuts masks.

    Per frame: keep the rows of the person; resize them to the height of ``size`` with the sides in
    proportion; keep the columns around the one at which half of the person is passed. A pixel is
    the mean of what the mask shows under it, so that nothing of the background is mixed in; where
    the mask shows less than half, it is 0.

    Differs from the pre-treatment of silhouettes: bilinear with antialias, and frames without a
    person are kept, black. Cut the mask by this function too, so that both stay in step.

    Args:
        frames: ``[T, H, W]``, any finite values, for example depth, or the mask itself.
        mask: ``[T, H, W]``, as for :func:`normalize_depth`.
        size: Rows and columns of the result, the columns even.

    Returns:
        ``[T, *size]`` float32.

    Raises:
        ValueError: If shapes differ, ``size`` is no such pair, or the mask is out of range.

    Example:
        >>> mask = torch.zeros(2, 40, 30)
        >>> mask[0, 10:30, 10:16] = 1
        >>> crop_like_silhouette(7 * mask + 1, mask, (8, 8))[:, 0].tolist()
        [[0.0, 0.0, 0.0, 8.0, 8.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    person = _person(frames, mask)
    if len(size) != 2 or any(type(n) is not int or n < 1 for n in size) or size[1] % 2:
        raise ValueError(f"expected size as (rows, columns), the columns even, got {size!r}")
    height, width = size
    found = torch.zeros(len(frames), height, width, device=frames.device)
    for x, inside, out in zip(frames.float(), person, found, strict=True):
        rows = inside.any(1).nonzero().flatten()
        if not len(rows):
            continue
        shown = slice(int(rows[0]), int(rows[-1]) + 1)
        weight = inside[shown].float()
        layers = torch.stack([x[shown].masked_fill(~inside[shown], 0), weight])
        columns = max(1, height * layers.shape[2] // layers.shape[1])
        value, weight = F.interpolate(
            layers[None], (height, columns), mode="bilinear", antialias=True
        )[0]
        mass = weight.sum(0).cumsum(0)
        centre = int((2 * mass <= mass[-1]).sum())
        seen = weight >= 0.5
        value = torch.where(seen, value / weight.clamp(min=0.5), 0)
        out.copy_(F.pad(value, (width // 2, width // 2))[:, centre : centre + width])
    return found


def _person(frames: Tensor, mask: Tensor) -> Tensor:
    """Pixels of the person, bool, of the shape of both."""
    if frames.ndim != 3 or frames.numel() == 0 or frames.shape != mask.shape:
        raise ValueError(
            f"expected maps and mask [T, H, W], got {shape_of(frames)} and {shape_of(mask)}"
        )
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        return mask > (127 if bool((mask > 1).any()) else 0)
    check_values(mask, 0, 1, "a mask")
    return mask > 0.5
