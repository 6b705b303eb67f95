"""Which frames of a sequence a training step sees."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RandomTrackletSampler"]


class RandomTrackletSampler:
    """Frames of a sequence as a few short runs, of a length drawn anew each time.

    A length is drawn, then as many runs of consecutive frames as the budget holds, each with a
    start of its own; runs may overlap and stay in the order drawn. A sequence that is too short
    is repeated. One long run is ordinary sampling, runs of one frame are an unordered set.

    Source: TrackletGait (https://arxiv.org/abs/2508.02143), random tracklet sampling; draws are
    those of the authors' code for the same seed of Python's generator. For testing, all frames in
    order are used instead.

    Args:
        budget: Frames of a draw; every length must divide it.
        lengths: Lengths of runs to choose from.
        probabilities: How often each is chosen; they add up to 1.
        step: Frames from one of a run to the next.
        seed: Seed of this sampler's own generator; ``None`` = a random one.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> frames = RandomTrackletSampler(seed=0)(100)
        >>> frames.shape, frames.dtype
        (torch.Size([32]), torch.int64)
    """

    def __init__(
        self,
        budget: int = 32,
        lengths: Sequence[int] = (8, 16, 32),
        probabilities: Sequence[float] = (0.2, 0.3, 0.5),
        step: int = 1,
        seed: int | None = None,
    ) -> None:
        numbers = (budget, step, *lengths)
        if not lengths or any(type(n) is not int or n < 1 for n in numbers):
            raise ValueError(
                "expected budget, lengths and step as whole numbers of 1 or more, got "
                f"{budget!r}, {lengths!r} and {step!r}"
            )
        if any(budget % length for length in lengths):
            raise ValueError(f"expected lengths that divide {budget} frames, got {lengths!r}")
        fits = len(probabilities) == len(lengths) and all(p >= 0 for p in probabilities)
        if not fits or abs(sum(probabilities) - 1) > 1e-6:
            raise ValueError(
                f"expected {len(lengths)} probabilities that add up to 1, got {probabilities!r}"
            )
        self.budget, self.lengths, self.step = budget, tuple(lengths), step
        self.probabilities = tuple(probabilities)
        self.generator = random.Random(seed)

    def __call__(self, num_frames: int) -> Tensor:
        """Draws frames.

        Args:
            num_frames: Frames of the sequence, 1 or more.

        Returns:
            ``[budget]`` int64, numbers of frames from 0.

        Raises:
            ValueError: If there is no frame.
        """
        (length,) = self.generator.choices(self.lengths, self.probabilities)
        last_start = self.list_length(num_frames, length) - ((length - 1) * self.step + 1)
        starts = [
            self.generator.choice(range(last_start + 1)) for _ in range(self.budget // length)
        ]
        return self.frames_of(num_frames, length, starts)

    def list_length(self, num_frames: int, length: int) -> int:
        """Frames to choose from: those of the sequence, repeated where it is too short.

        Args:
            num_frames: Frames of the sequence, 1 or more.
            length: Frames of a run.

        Raises:
            ValueError: If there is no frame.
        """
        if type(num_frames) is not int or num_frames < 1:
            raise ValueError(f"expected at least one frame to choose from, got {num_frames!r}")
        span = (length - 1) * self.step + 1
        return num_frames if num_frames >= span else num_frames * (-(-span // num_frames) + 1)

    def frames_of(self, num_frames: int, length: int, starts: Sequence[int]) -> Tensor:
        """Frames of runs with known starts.

        Args:
            num_frames: Frames of the sequence.
            length: Frames of a run.
            starts: First frame of each run, in the repeated list.

        Returns:
            ``[len(starts) * length]`` int64.
        """
        run = torch.arange(length) * self.step
        return ((torch.tensor(starts)[:, None] + run) % num_frames).flatten()
