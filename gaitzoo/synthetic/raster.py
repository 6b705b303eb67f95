"""Draw moving shapes by their distance to the outline.

A clip is one field ``[T, H, W]`` of distances in pixels, negative inside. Everything works on whole
clips, in place and in the smallest window that holds a shape during the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTSIDE = 1e4  # a distance that no frame reaches


def empty_field(frames: int, height: int, width: int) -> Tensor:
    """A field with nothing in it."""
    return torch.full((frames, height, width), OUTSIDE)


def _window(low: Tensor, high: Tensor, size: int, margin: int) -> tuple[int, int]:
    """First and last-plus-one pixel that a shape reaches in any frame."""
    first, last = int(low.min().item()) - margin, int(high.max().item()) + margin + 1
    return min(max(first, 0), size), min(max(last, 0), size)


def add_limbs(
    field: Tensor,
    start: Tensor,
    end: Tensor,
    start_radius: Tensor,
    end_radius: Tensor,
    *,
    margin: int = 2,
) -> None:
    """Add round-ended, tapered strokes.

    Args:
        field: ``[T, H, W]``, changed in place.
        start: ``[T, M, 2]``, x and y of the first ends, pixels.
        end: ``[T, M, 2]``, of the second ends.
        start_radius: ``[T, M]``, pixels.
        end_radius: ``[T, M]``, pixels.
        margin: How many pixels around a stroke get their distances.
    """
    _, height, width = field.shape
    span = end - start
    length = span.norm(dim=-1).clamp_min(1e-3)
    # Seen end on, a limb is a disc; any direction serves, but none at all would fill the window.
    ahead = torch.tensor([1.0, 0.0])
    unit = torch.where((span.abs().amax(-1) < 1e-3)[..., None], ahead, span / length[..., None])
    radius = torch.maximum(start_radius, end_radius)[..., None]
    low, high = torch.minimum(start, end) - radius, torch.maximum(start, end) + radius
    taper = (end_radius - start_radius) / length
    for limb in range(start.shape[1]):
        left, right = _window(low[:, limb, 0], high[:, limb, 0], width, margin)
        top, bottom = _window(low[:, limb, 1], high[:, limb, 1], height, margin)
        if left >= right or top >= bottom:
            continue
        x = torch.arange(left, right) + 0.5 - start[:, limb, :1]
        y = torch.arange(top, bottom) + 0.5 - start[:, limb, 1:]
        ux, uy = unit[:, limb, 0, None], unit[:, limb, 1, None]
        along = (x * ux)[:, None, :] + (y * uy)[:, :, None]
        across = (x * -uy)[:, None, :] + (y * ux)[:, :, None]
        foot = torch.minimum(along.clamp_min(0.0), length[:, limb, None, None])
        along -= foot
        distance = across.square_().addcmul_(along, along).sqrt_()
        distance -= foot.mul_(taper[:, limb, None, None]).add_(start_radius[:, limb, None, None])
        window = field[:, top:bottom, left:right]
        torch.minimum(window, distance, out=window)


def add_profile(
    field: Tensor, middle: Tensor, level: Tensor, half_width: Tensor, *, margin: int = 2
) -> None:
    """Add an upright shape given by its extent at some levels, straight between them.

    Args:
        field: ``[T, H, W]``, changed in place.
        middle: ``[T, K]``, x of the middle at each level, pixels.
        level: ``[T, K]``, y of the levels, strictly growing.
        half_width: ``[T, K]``, pixels, 0 or more.
        margin: How many pixels around the shape get their distances.
    """
    frames, height, width = field.shape
    top, bottom = _window(level[:, 0], level[:, -1], height, margin)
    left, right = _window(
        (middle - half_width).amin(1), (middle + half_width).amax(1), width, margin
    )
    if left >= right or top >= bottom:
        return
    rows = torch.arange(top, bottom) + 0.5
    rows = rows.expand(frames, -1).contiguous()
    lower = torch.searchsorted(level.contiguous(), rows).clamp_(1, level.shape[1] - 1)

    def between(values: Tensor) -> tuple[Tensor, Tensor]:
        return values.gather(1, lower - 1), values.gather(1, lower)

    (above, below), (middle0, middle1), (width0, width1) = map(between, (level, middle, half_width))
    step = below - above
    share = ((rows - above) / step).clamp_(0.0, 1.0)
    centre = torch.lerp(middle0, middle1, share)
    half = torch.lerp(width0, width1, share)
    # Horizontal distance times the cosine of the outline's slope is close to the true distance.
    slope = ((width1 - width0).abs() + 0.5 * (middle1 - middle0).abs()) / step
    cosine = torch.rsqrt(1 + slope.square_())
    x = torch.arange(left, right) + 0.5
    distance = (x - centre[..., None]).abs_().sub_(half[..., None]).mul_(cosine[..., None])
    past_end = torch.maximum(level[:, :1] - rows, rows - level[:, -1:])
    distance = torch.maximum(distance, past_end[..., None], out=distance)
    window = field[:, top:bottom, left:right]
    torch.minimum(window, distance, out=window)


def to_grey(field: Tensor) -> Tensor:
    """Share of each pixel that is covered, as uint8 in 0..255."""
    return (0.5 - field).clamp_(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)
