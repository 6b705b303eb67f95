"""Noise of sensors and transmission.

Source: RobustGait (https://arxiv.org/abs/2511.13065); the constants are those of its published code
(https://github.com/Reeshoon/RobustGait). Noise is drawn for every value by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaitzoo.data.corruption import Corruption

__all__ = ["GaussianNoise", "ImpulseNoise", "ImpulseNoise2", "ShotNoise", "SpeckleNoise"]


class GaussianNoise(Corruption):
    """Normal noise of one strength everywhere, as of a sensor in the dark.

    The standard deviation is 0.08, 0.12, 0.18, 0.26 or 0.38. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> GaussianNoise(1)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        return frames + self.row((0.08, 0.12, 0.18, 0.26, 0.38)) * self.normal(frames)


class ShotNoise(Corruption):
    """Poisson noise: light comes in quanta, the fewer the noisier.

    White is 250, 100, 50, 30 or 15 quanta. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> float(ShotNoise(5)(torch.zeros(2, 3, 8, 8)).max())
        0.0
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        quanta = self.row((250, 100, 50, 30, 15))
        drawn = torch.poisson(frames.cpu() * quanta, generator=self.generator)
        return drawn.to(frames) / quanta


class SpeckleNoise(Corruption):
    """Normal noise in proportion to the brightness.

    The standard deviation on white is 0.15, 0.2, 0.25, 0.3 or 0.35. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> float(SpeckleNoise(5)(torch.zeros(2, 3, 8, 8)).max())
        0.0
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        return frames + self.row((0.15, 0.2, 0.25, 0.3, 0.35)) * self.normal(frames) * frames


class ImpulseNoise(Corruption):
    """Salt and pepper: a share of all values becomes 0 or 1, half each, every channel by itself.

    The share is 0.03, 0.06, 0.09, 0.17 or 0.27. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> ImpulseNoise(5)(torch.full((2, 3, 32, 32), 0.5)).unique().tolist()
        [0.0, 0.5, 1.0]
    """

    shares = (0.03, 0.06, 0.09, 0.17, 0.27)

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        share = self.row(self.shares)
        drawn = self.uniform(*frames.shape).to(frames.device)
        return frames.masked_fill(drawn < share / 2, 0).masked_fill(drawn >= 1 - share / 2, 1)


class ImpulseNoise2(ImpulseNoise):
    """Milder salt and pepper: a share of 0.01, 0.03, 0.05, 0.09 or 0.11.

    Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> ImpulseNoise2(5)(torch.full((2, 3, 32, 32), 0.5)).unique().tolist()
        [0.0, 0.5, 1.0]
    """

    shares = (0.01, 0.03, 0.05, 0.09, 0.11)
