"""Which frames of a sequence a training step sees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "AllFrames",
    "OrderedSampler",
    "RandomTrackletSampler",
    "SnippetFrames",
    "SnippetSampler",
    "UnorderedSampler",
]


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        least = 0 if name == "skip" else 1
        if type(number) is not int or number < least:
            raise ValueError(f"expected {name} as a whole number from {least} on, got {number!r}")


def _check_frames(num_frames: int) -> None:
    if type(num_frames) is not int or num_frames < 1:
        raise ValueError(f"expected at least one frame to choose from, got {num_frames!r}")


class OrderedSampler:
    """A fixed number of frames in order, a few of them left out.

    A window of ``num_frames + skip`` consecutive frames is drawn (a sequence shorter than the
    window is repeated), then ``num_frames`` of it without replacement; they stay in order.

    Source: the "fixed ordered" sampling of OpenGait (https://github.com/ShiqiYu/OpenGait), by
    which most published models are trained; drawn from Python's generator here.

    Args:
        num_frames: Frames of a draw.
        skip: Frames of the window that are left out: 0 for most models, 4 on data from outdoors.
        seed: Seed of this sampler's own generator; ``None`` = a random one.

    Raises:
        ValueError: If a number is none, or negative.

    Example:
        >>> OrderedSampler(4, seed=0)(6).tolist()
        [1, 2, 3, 4]
    """

    def __init__(self, num_frames: int = 30, skip: int = 0, seed: int | None = None) -> None:
        _check_numbers(num_frames=num_frames, skip=skip)
        self.num_frames, self.skip = num_frames, skip
        self.generator = random.Random(seed)

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Draws frames.

        Args:
            num_frames: Frames of the sequence, 1 or more.
            generator: To draw from; ``None`` = this sampler's own.

        Returns:
            ``[self.num_frames]`` int64, numbers of frames from 0.

        Raises:
            ValueError: If there is no frame.
        """
        _check_frames(num_frames)
        draw = generator or self.generator
        window = self.num_frames + self.skip
        available = num_frames * max(1, -(-window // num_frames))
        start = draw.randrange(available - window + 1)
        chosen = sorted(draw.sample(range(start, start + window), self.num_frames))
        return torch.tensor(chosen) % num_frames


class UnorderedSampler:
    """A fixed number of frames in any order, as models of sets read them.

    Frames are drawn without replacement; with replacement from a sequence of fewer frames.

    Source: the "fixed unordered" sampling of OpenGait, for GaitSet
    (https://arxiv.org/abs/1811.06186); drawn from Python's generator here.

    Args:
        num_frames: Frames of a draw.
        seed: Seed of this sampler's own generator; ``None`` = a random one.

    Raises:
        ValueError: If the number is none of 1 or more.

    Example:
        >>> sorted(UnorderedSampler(3, seed=0)(3).tolist())
        [0, 1, 2]
    """

    def __init__(self, num_frames: int = 30, seed: int | None = None) -> None:
        _check_numbers(num_frames=num_frames)
        self.num_frames = num_frames
        self.generator = random.Random(seed)

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Draws frames; see :meth:`OrderedSampler.__call__`."""
        _check_frames(num_frames)
        draw = generator or self.generator
        frames = range(num_frames)
        if num_frames < self.num_frames:
            return torch.tensor(draw.choices(frames, k=self.num_frames))
        return torch.tensor(draw.sample(frames, self.num_frames))


class AllFrames:
    """Every frame in order, up to a limit, as for testing.

    Args:
        limit: Most frames, the first ones (OpenGait tests with 720); ``None`` = all.

    Raises:
        ValueError: If the limit is no number of 1 or more.

    Example:
        >>> AllFrames(3)(9).tolist()
        [0, 1, 2]
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None:
            _check_numbers(limit=limit)
        self.limit = limit

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Numbers of the frames; nothing is drawn. See :meth:`OrderedSampler.__call__`."""
        _check_frames(num_frames)
        return torch.arange(min(num_frames, self.limit or num_frames))


class SnippetFrames(NamedTuple):
    """Frames of a sequence, and the snippet of each.

    Args:
        frames: ``[S]`` int64, numbers of frames from 0.
        snippet_ids: ``[S]`` int64, numbers of snippets from 0.
    """

    frames: Tensor
    snippet_ids: Tensor


class SnippetSampler:
    """Frames of a few short segments of a sequence, drawn at random inside each.

    The sequence is cut every ``segment`` frames, the first cut at a random place; the last
    segment may be short. Some segments are chosen, then frames in each. The frames of one snippet
    stand together and in order: snippet ``m`` is ``[m * frames_per_snippet : ...]``. For testing,
    all frames are used instead, in segments from the first frame on.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), snippet sampling, rebuilt from
    notes: both choices are with replacement there; order inside a snippet, which never matters
    to the model, is ours.

    Args:
        segment: Frames of a segment, about a gait cycle.
        num_snippets: Segments that are chosen.
        frames_per_snippet: Frames that are drawn from each.
        replace: Whether segments and frames may be drawn twice; ``False`` = only where there are
            too few.
        seed: Seed of this sampler's own generator; ``None`` = a random one.

    Raises:
        ValueError: If a number is none of 1 or more.

    Example:
        >>> SnippetSampler(seed=0)(100).shape
        torch.Size([32])
        >>> SnippetSampler(segment=2).all_frames(5).snippet_ids.tolist()
        [0, 0, 1, 1, 2]
    """

    def __init__(
        self,
        segment: int = 16,
        num_snippets: int = 4,
        frames_per_snippet: int = 8,
        replace: bool = True,
        seed: int | None = None,
    ) -> None:
        _check_numbers(
            segment=segment, num_snippets=num_snippets, frames_per_snippet=frames_per_snippet
        )
        self.segment, self.num_snippets = segment, num_snippets
        self.frames_per_snippet, self.replace = frames_per_snippet, replace
        self.generator = random.Random(seed)

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Draws frames; see :meth:`OrderedSampler.__call__`.

        Returns:
            ``[num_snippets * frames_per_snippet]`` int64.
        """
        return self.draw(num_frames, generator).frames

    def draw(self, num_frames: int, generator: random.Random | None = None) -> SnippetFrames:
        """Draws frames and says which snippet each is of.

        Args:
            num_frames: Frames of the sequence, 1 or more.
            generator: To draw from; ``None`` = this sampler's own.

        Returns:
            ``num_snippets * frames_per_snippet`` of both.

        Raises:
            ValueError: If there is no frame.
        """
        _check_frames(num_frames)
        draw = generator or self.generator
        cuts = [0, *range(draw.randint(1, self.segment), num_frames, self.segment), num_frames]
        segments = [range(*pair) for pair in pairwise(cuts)]
        chosen = self._some(segments, self.num_snippets, draw)
        frames = [sorted(self._some(part, self.frames_per_snippet, draw)) for part in chosen]
        ids = torch.arange(self.num_snippets).repeat_interleave(self.frames_per_snippet)
        return SnippetFrames(torch.tensor(frames).flatten(), ids)

    def all_frames(self, num_frames: int) -> SnippetFrames:
        """Every frame in order, in segments from the first frame on: for testing.

        Args:
            num_frames: Frames of the sequence, 1 or more.

        Raises:
            ValueError: If there is no frame.
        """
        _check_frames(num_frames)
        frames = torch.arange(num_frames)
        return SnippetFrames(frames, frames // self.segment)

    def _some(self, things: Sequence[Any], count: int, draw: random.Random) -> list[Any]:
        if self.replace or len(things) < count:
            return draw.choices(things, k=count)
        return draw.sample(things, count)


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

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Draws frames.

        Args:
            num_frames: Frames of the sequence, 1 or more.
            generator: To draw from; ``None`` = this sampler's own.

        Returns:
            ``[budget]`` int64, numbers of frames from 0.

        Raises:
            ValueError: If there is no frame.
        """
        draw = generator or self.generator
        (length,) = draw.choices(self.lengths, self.probabilities)
        last_start = self.list_length(num_frames, length) - ((length - 1) * self.step + 1)
        starts = [draw.choice(range(last_start + 1)) for _ in range(self.budget // length)]
        return self.frames_of(num_frames, length, starts)

    def list_length(self, num_frames: int, length: int) -> int:
        """Frames to choose from: those of the sequence, repeated where it is too short.

        Args:
            num_frames: Frames of the sequence, 1 or more.
            length: Frames of a run.

        Raises:
            ValueError: If there is no frame.
        """
        _check_frames(num_frames)
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
