"""One vector of a clip from one vector per frame, and how much each frame counted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes, shape_of
from gaitzoo.layers.sequence import lengths_for, mask_fill

__all__ = ["FrameEvidence"]


class FrameEvidence(nn.Module):
    """Convolutions over time, then a weighted mean over frames whose weights are given too.

    Every convolution has three taps and is residual. A clip is continued by its first and last
    frame, so that a still clip of any length gives what its one frame gives.

    Source: the temporal part of the reconstruction of https://arxiv.org/abs/2512.04425, inferred:
    the abstract says "spatial-temporal" and no more.

    Args:
        channels: D.
        dilations: Frames between the taps of each convolution.

    Shapes:
        x: ``[N, D, T]``; what stands past the end of a clip never matters, not even NaN.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: the vectors ``[N, D]``, and the weights ``[N, T]``, which add up to one and are 0
            past the end.

    Raises:
        ValueError: If a size is no positive whole number, or shapes do not fit.

    Example:
        >>> frames, pool = nn.Linear(30, 8), FrameEvidence(8)
        >>> x = frames(torch.rand(2, 6, 30)).transpose(1, 2)
        >>> vectors, weights = pool(x, torch.tensor([6, 2]))
        >>> vectors.shape, weights[1, 2:].tolist()
        (torch.Size([2, 8]), [0.0, 0.0, 0.0, 0.0])
    """

    keeps_float32 = True

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        check_size(channels=channels)
        self.channels, self.dilations = channels, check_sizes("dilations", dilations)
        self.convs = nn.ModuleList(nn.Linear(3 * channels, channels) for _ in dilations)
        self.score = nn.Linear(channels, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the vectors and the weights of the frames."""
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(f"expected frames [N, {self.channels}, T], got {shape_of(x)}")
        lengths = lengths_for(lengths, x)
        x = mask_fill(x, lengths).transpose(1, 2)
        place = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        last = x.shape[1] - 1 if lengths is None else lengths[:, None] - 1
        valid = place <= last
        for conv, dilation in zip(self.convs, self.dilations, strict=True):
            taps = []
            for step in (-dilation, 0, dilation):
                source = (place + step).clamp(min=0)
                source = torch.minimum(source, torch.as_tensor(last, device=x.device))
                taps.append(x.gather(1, source[..., None].expand_as(x)))
            x = x + F.silu(conv(torch.cat(taps, dim=2)))
        scores = self.score(x)[..., 0].masked_fill(~valid, -torch.inf)
        weights = scores.softmax(1)
        return (weights[:, None] @ x)[:, 0], weights
