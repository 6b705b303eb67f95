"""How maps change from frame to frame, added to them.

Source: LMGait (https://arxiv.org/abs/2601.11931, AAAI 2026). A reconstruction: the abstract says
that a module follows changes of posture over time, and nothing of its form. [inferred]: everything
else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.sequence import mask_fill

__all__ = ["MotionTemporalCapture"]


class MotionTemporalCapture(nn.Module):
    """Differences between frames, filtered over time, added to the map and weighing it.

    ``d[r](t) = x(t + r) - x(t)`` for each lag r, zero where there is no frame t + r;
    ``e = sum over r of bn(w[r] * c[r] d[r])``, where c is a matrix over channels and w a filter per
    channel over three frames; ``y = x + e + x * (2 sigmoid(g e) - 1)``, where g is a matrix. No
    layer has a bias, so that a clip of one repeated frame comes out as it went in, as long as the
    batch norms add nothing (fresh ones do not; trained ones do).

    Source: LMGait (https://arxiv.org/abs/2601.11931); the form is [inferred]. Batch-norm statistics
    see whatever is in the batch, padding included: train on clips of equal length.

    Args:
        channels: Channels of the map.
        lags: Distances between the frames that are compared, frames.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``; zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument is no positive whole number, lags are repeated, or axes, channels
            or lengths do not fit.

    Example:
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv3d(1, 8, (1, 3, 3)),
        ...     MotionTemporalCapture(8),
        ...     torch.nn.AdaptiveMaxPool3d((1, 4, 4)),
        ... ).eval()
        >>> still = torch.rand(1, 1, 1, 16, 12).expand(-1, -1, 6, -1, -1)
        >>> net(still).shape, torch.equal(net[1](net[0](still)), net[0](still))
        (torch.Size([1, 8, 1, 4, 4]), True)
    """

    def __init__(self, channels: int, lags: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        check_size(channels=channels)
        self.channels, self.lags = channels, check_sizes("lags", lags)
        if len(set(self.lags)) < len(self.lags):
            raise ValueError(f"expected lags that differ, got {lags!r}")
        self.filters = nn.ModuleList(
            nn.Sequential(
                Conv3d(channels, channels, 1, bias=False),
                Conv3d(
                    channels, channels, (3, 1, 1), padding=(1, 0, 0), groups=channels, bias=False
                ),
                nn.BatchNorm3d(channels),
            )
            for _ in self.lags
        )
        self.gate = Conv3d(channels, channels, 1, bias=False)

    def reach(self) -> tuple[int, int]:
        """Frames before and after that a frame of the result depends on."""
        return 1, 1 + max(self.lags)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"lags={self.lags}"

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map and its motion."""
        check_features(x, self.channels, lengths)
        x = mask_fill(x, lengths)
        motion: Tensor | None = None
        for lag, layers in zip(self.lags, self.filters, strict=True):
            found = layers(_differences(x, lag, lengths))
            motion = found if motion is None else motion + found
        assert motion is not None
        return mask_fill(x + motion + x * (2 * self.gate(motion).sigmoid() - 1), lengths)


def _differences(x: Tensor, lag: int, lengths: Tensor | None) -> Tensor:
    """``x(t + lag) - x(t)``, zero where a clip has no frame t + lag."""
    steps = min(lag, x.shape[2])
    later = torch.cat([x[:, :, steps:], x[:, :, x.shape[2] - steps :]], dim=2)
    frames = torch.arange(x.shape[2], device=x.device)
    ends = frames.new_full((x.shape[0],), x.shape[2]) if lengths is None else lengths.to(x.device)
    known = frames + lag < ends[:, None]
    return (later - x).masked_fill(~known[:, None, :, None, None], 0)
