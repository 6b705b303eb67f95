"""Losses on narrow maps of a person: few edges, and every channel in use.

Source: BigGait (https://arxiv.org/abs/2402.19122), Sec. 3.3, where they shape the map of the
denoising branch: weights 0.01 (smoothness) and 5 (diversity); smoothness of the mask has 0.02.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features
from gaitzoo.layers.sequence import lengths_to_mask, to_frames

__all__ = ["StreamDiversityLoss", "StreamSmoothnessLoss"]

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


class StreamSmoothnessLoss(nn.Module):
    """How many edges a map has: the mean of what both Sobel filters find, taken as positive.

    Source: BigGait, see above; for its stream all channels but the last. [inferred]: that the
    outline of the person counts as an edge, and that frames go on past their rim.

    Args:
        skip_last: Leave the last channel out.

    Shapes:
        stream: ``[N, C, T, H, W]``, C of 2 or more if the last is left out.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[]``, 0 or more.

    Raises:
        TypeError: If ``stream`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If axes or lengths do not fit, or no channel is left.

    Example:
        >>> flat = torch.full((2, 4, 5, 16, 8), 0.3)
        >>> StreamSmoothnessLoss()(flat)
        tensor(0.)
    """

    def __init__(self, skip_last: bool = True) -> None:
        super().__init__()
        self.skip_last = skip_last

    def forward(self, stream: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the loss."""
        check_features(stream, None, lengths)
        frames = _valid_frames(stream, lengths)
        if self.skip_last:
            frames = frames[:, :-1]
        if not frames.shape[1]:
            raise ValueError(
                "expected a stream of two channels or more, got one; pass skip_last=False"
            )
        wide = F.pad(frames.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
        across = wide.new_tensor(_SOBEL)
        return F.conv2d(wide, torch.stack([across, across.T])[:, None]).abs().sum(1).mean()


class StreamDiversityLoss(nn.Module):
    """How unequally channels are used: 0 where all are alike, ``log2(C)`` where one holds it all.

    ``log2(C)`` minus the entropy, in bits, of the channels' shares in the sum over sequences,
    frames and pixels.

    Source: BigGait, see above.

    Shapes:
        stream: ``[N, C, T, H, W]``, 0 or more; zeros off the person.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[]``, from 0 to ``log2(C)``, which it is too where there is nobody.

    Raises:
        TypeError: If ``stream`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If axes or lengths do not fit.

    Example:
        >>> stream = torch.zeros(2, 4, 5, 16, 8)
        >>> stream[:, 1] = 1.0
        >>> StreamDiversityLoss()(stream)
        tensor(2.)
    """

    def forward(self, stream: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the loss."""
        check_features(stream, None, lengths)
        frames = _valid_frames(stream, lengths)
        use = frames.sum((0, 2, 3), dtype=torch.promote_types(stream.dtype, torch.float32))
        tiny = torch.finfo(use.dtype).tiny
        share = use / use.sum().clamp(min=tiny)
        return math.log2(stream.shape[1]) + (share * share.clamp(min=tiny).log2()).sum()


def _valid_frames(stream: Tensor, lengths: Tensor | None) -> Tensor:
    """``[frames, C, H, W]`` of all sequences, without what stands past the end."""
    if lengths is None:
        return to_frames(stream)
    return stream.transpose(1, 2)[lengths_to_mask(lengths.to(stream.device), stream.shape[2])]
