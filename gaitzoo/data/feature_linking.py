"""Enhancing grey images by the order in which linked neurons fire.

Source: the feature linking model of Zhan et al. (Neural Computation, 2016), with the numbers that
radar-based human motion direction determination (https://arxiv.org/abs/2507.22567) runs it with.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_values, shape_of

__all__ = [
    "FeatureLinkingModel",
    "check_maps",
    "grey_stretch",
    "min_max",
    "mirrored",
    "to_bytes",
]

_LEVELS = 256
_DIAGONAL = 0.7  # strength of the link to a diagonal neighbour; to the others 1
_DECAY = 0.9811
_FIRED = 2e10  # added to the threshold of a neuron that fires: it will not fire again


def min_max(images: Tensor) -> Tensor:
    """Images with each one's own values brought to [0, 1]; constant ones become 0.

    Args:
        images: ``[..., H, W]`` floats.

    Example:
        >>> min_max(torch.tensor([[3.0, 5.0], [4.0, 3.0]]))
        tensor([[0.0000, 1.0000],
                [0.5000, 0.0000]])
    """
    lowest, highest = images.amin((-2, -1), True), images.amax((-2, -1), True)
    spread = highest - lowest
    return torch.where(spread > 0, (images - lowest) / torch.where(spread > 0, spread, 1), 0)


def check_maps(images: Tensor, name: str) -> Tensor:
    """Raises unless images are grey ones in a batch; returns them as float64.

    Args:
        images: ``[N, 1, H, W]``.
        name: What they are, for the message.

    Raises:
        TypeError: If they are no tensor of numbers.
        ValueError: If axes do not fit or a value is not finite.
    """
    if not isinstance(images, Tensor) or images.is_complex() or images.dtype == torch.bool:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"expected {name} as a tensor of numbers, got {got}; use torch.as_tensor")
    if images.ndim != 4 or images.shape[1] != 1 or images.numel() == 0:
        hint = "; add axes with x[None, None]" if images.ndim == 2 else ""
        raise ValueError(f"expected {name} [N, 1, H, W], got {shape_of(images)}{hint}")
    images = images.detach().double()
    check_values(images, None, None, name)
    return images


def grey_stretch(images: Tensor, portion: float = 0.98) -> tuple[Tensor, Tensor]:
    """Stretches the narrowest range of grey levels that holds most pixels to 0..255.

    Source: https://arxiv.org/abs/2507.22567, authors' code. Among ranges of equal width the
    darkest is taken [inferred].

    Args:
        images: ``[N, 1, H, W]`` uint8.
        portion: Share of the pixels that must lie in the range, above 0 and up to 1.

    Returns:
        The images, uint8 of the same shape, cut at both ends of the range; and the lowest and
        highest level of the range, ``[N, 2]`` int64. An image whose range is a single level
        becomes 0.

    Raises:
        TypeError: If the images are not uint8.
        ValueError: If axes or ``portion`` do not fit.

    Example:
        >>> stretched, bounds = grey_stretch(torch.tensor([[[[10, 20, 20, 30]]]]).byte(), 1.0)
        >>> stretched.flatten().tolist(), bounds.tolist()
        ([0, 128, 128, 255], [[10, 30]])
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"expected grey images as uint8 in 0..255, got {got}")
    levels = check_maps(images, "grey images")
    if not 0 < portion <= 1:
        raise ValueError(f"expected portion above 0 and up to 1, got {portion!r}")
    bounds = torch.stack([_narrowest(image.flatten(), portion) for image in images])
    low, high = (bounds[:, i].view(-1, 1, 1, 1).double() for i in (0, 1))
    stretched = torch.where(high > low, (levels - low) / (high - low).clamp_min(1), 0)
    return to_bytes(stretched.clamp(0, 1)), bounds


def _narrowest(pixels: Tensor, portion: float) -> Tensor:
    """Lowest and highest level of the narrowest range that holds enough pixels, ``[2]``."""
    counts = torch.bincount(pixels.long(), minlength=_LEVELS)
    up_to = counts.cumsum(0)
    present = counts.nonzero().flatten()
    held = up_to[present] - (up_to - counts)[present][:, None]
    # Rounding of the product must not ask for one pixel more.
    enough = held >= math.ceil(portion * len(pixels) - 1e-9)
    width = torch.where(enough, present - present[:, None], _LEVELS)
    low, high = divmod(int(width.argmin()), len(present))
    return present[[low, high]]


def to_bytes(x: Tensor) -> Tensor:
    """Floats as whole levels, halves rounded up.

    Args:
        x: Any shape, values in [0, 1].

    Returns:
        uint8 in 0..255.

    Example:
        >>> to_bytes(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """
    return (255 * x + 0.5).floor().to(torch.uint8)


class FeatureLinkingModel(nn.Module):
    """Feature linking: pixels fire once each, bright ones first, and pull their neighbours along.

    Source: Zhan et al. (Neural Computation, 2016), as in https://arxiv.org/abs/2507.22567. Every
    image ends by itself as soon as all of its pixels have fired (200 to 400 passes), so a batch
    gives what single images give. The result says when a pixel fired, early as bright, and is
    stretched by :func:`grey_stretch`. No parameters, no gradients; computed in float64.

    Args:
        max_iter: Most passes.

    Shapes:
        images: ``[N, 1, H, W]``, finite numbers of any range or uint8.
        returns: ``[N, 1, H, W]`` float32 in [0, 1], multiples of 1 / 255; with ``return_time``
            also the pass in which every pixel fired, ``[N, 1, H, W]`` int64 from 1.

    Raises:
        TypeError: If the images are no tensor of numbers.
        ValueError: If axes do not fit, a value is not finite, or ``max_iter`` passes are too few.

    Example:
        >>> ramp = torch.arange(16.0).repeat(4, 1)[None, None]
        >>> enhanced, time = FeatureLinkingModel()(ramp, return_time=True)
        >>> bool((time.diff(dim=3) <= 0).all()), enhanced[0, 0, 0, [0, -1]].tolist()
        (True, [0.0, 1.0])
    """

    def __init__(self, max_iter: int = 5000) -> None:
        super().__init__()
        check_size(max_iter=max_iter)
        self.max_iter = max_iter

    @torch.no_grad()
    def forward(
        self, images: Tensor, *, return_time: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the enhanced images, and when their pixels fired."""
        time = self._fire(min_max(check_maps(images, "grey images")) + 1 / 255)
        early = time.amax((-2, -1), True) + 1 - time
        enhanced, _ = grey_stretch(to_bytes(min_max(early.double())))
        enhanced = enhanced.float() / 255
        return (enhanced, time) if return_time else enhanced

    def _fire(self, stimulus: Tensor) -> Tensor:
        """The pass in which every pixel fires, ``[N, 1, H, W]`` int64."""
        leak = _blur(0.75 * torch.exp(-(stimulus**2) / 0.16) + 0.05)
        threshold = 1 + _laplacian(stimulus)
        fires = torch.zeros_like(stimulus)
        activity = torch.zeros_like(stimulus)
        time = torch.zeros(stimulus.shape, dtype=torch.int64, device=stimulus.device)
        for step in range(1, self.max_iter + 1):
            linked = _linked(fires)
            activity = leak * activity + stimulus + 0.01 * linked + 0.03 * stimulus * (linked - 2)
            threshold = _DECAY * threshold + _FIRED * fires
            # An image in which all have fired is done, however long others take.
            fires = ((activity > threshold) & (time == 0)).to(stimulus)
            time += step * fires.long()
            if bool((time > 0).all()):
                return time
        raise ValueError(
            f"expected images whose pixels all fire within max_iter={self.max_iter} passes, got "
            f"{int((time == 0).sum())} left; raise max_iter"
        )


def mirrored(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Images with more rows and columns, mirrored at their borders with the last pixel repeated.

    Args:
        x: ``[..., H, W]``.
        rows: How many come before and after, also more than there are.
        columns: The same of columns.

    Example:
        >>> mirrored(torch.tensor([[1, 2, 3]]), (0, 0), (2, 1)).tolist()
        [[2, 1, 1, 2, 3, 3]]
    """
    for axis, (before, after) in ((-2, rows), (-1, columns)):
        size = x.shape[axis]
        index = torch.arange(-before, size + after, device=x.device) % (2 * size)
        x = x.index_select(axis, torch.where(index < size, index, 2 * size - 1 - index))
    return x


def _laplacian(x: Tensor) -> Tensor:
    """MATLAB's ``fspecial("laplacian", 0.2)`` over mirrored borders."""
    corners, edges = 1 / 6, 2 / 3
    kernel = x.new_tensor([[corners, edges, corners], [edges, -10 / 3, edges]])
    return F.conv2d(mirrored(x, (1, 1), (1, 1)), kernel[[0, 1, 0]][None, None])


def _blur(x: Tensor) -> Tensor:
    """A Gaussian of 7 x 7 pixels, standard deviation 1, over mirrored borders."""
    line = torch.exp(-(torch.arange(-3, 4, device=x.device, dtype=x.dtype) ** 2) / 2)
    kernel = line[:, None] * line
    return F.conv2d(mirrored(x, (3, 3), (3, 3)), (kernel / kernel.sum())[None, None])


def _linked(fires: Tensor) -> Tensor:
    """How strongly the eight neighbours fire; as shifted sums, equal on every processor."""
    padded = F.pad(fires, (1, 1, 1, 1))
    sides = padded[..., :-2, :] + padded[..., 2:, :]
    columns = padded[..., 1:-1, :]
    straight = sides[..., 1:-1] + columns[..., :-2] + columns[..., 2:]
    return straight + _DIAGONAL * (sides[..., :-2] + sides[..., 2:])
