"""Frames that are lost on the way.

Source: RobustGait (https://arxiv.org/abs/2511.13065) and its published code
(https://github.com/Reeshoon/RobustGait).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaitzoo.data.corruption import Corruption

__all__ = ["Freeze", "Sampling"]


class Freeze(Corruption):
    """The picture freezes: a few random frames and the first one are each held until the next.

    Of T frames, 0.4 T, 0.2 T, 0.1 T, or at least 2 and 0.05 T, besides the first are kept; severity
    5 keeps 1. With ``upstream=True`` severity 5 keeps at least 1 and 0.1 T, as published, which is
    milder than severity 4. Sequences of a batch keep different frames. Arguments, shapes and
    errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> video = torch.arange(10.0).div(10).reshape(10, 1, 1, 1)
        >>> len(Freeze(5)(video).unique()) <= 2
        True
    """

    rounds = True

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        count = frames.shape[1]
        kept = self._kept(count)
        clips = []
        for clip in frames:
            chosen = torch.randperm(count, generator=self.generator)[:kept]
            held = torch.zeros(count, dtype=torch.long)
            held[chosen] = chosen
            clips.append(clip[held.cummax(0).values.to(clip.device)])
        return torch.stack(clips)

    def _kept(self, count: int) -> int:
        last = int(max(0.1 * count, 1)) if self.upstream else 1
        kept = (int(0.4 * count), int(0.2 * count), int(0.1 * count), int(max(0.05 * count, 2)))
        return min(count, (*kept, last)[self.severity - 1])


class Sampling(Corruption):
    """A lower frame rate: every second, 4th, 8th, 16th or 32nd frame, repeated.

    The result is as long as the video; with ``upstream=True`` the last repetition is not cut off,
    as published: T becomes the next multiple of the rate. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type
            (longer with ``upstream=True``).

    Example:
        >>> video = torch.arange(5.0).div(10).reshape(5, 1, 1, 1)
        >>> Sampling(1)(video).flatten()
        tensor([0.0000, 0.0000, 0.2000, 0.2000, 0.4000])
    """

    rounds = True

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        rate, count = int(self.row((2, 4, 8, 16, 32))), frames.shape[1]
        length = -(-count // rate) * rate if self.upstream else count
        return frames[:, torch.arange(length, device=frames.device) // rate * rate]
