"""Sequences read when their turn comes, by this process or by several, with what is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from gaitzoo.data.files import SequencePath
from gaitzoo.data.sequences import load_sequence
from gaitzoo.inference.inputs import align_with
from gaitzoo.models.base import GaitModel

__all__ = ["Clip", "ClipReader", "Taken", "in_order", "read_clips"]

T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """One sequence as it was read.

    Args:
        frames: What the model reads; ``None`` after an error.
        error: Why there are none; ``""`` = there are.
        doubts: Warnings with their kinds.
    """

    frames: Any
    error: str
    doubts: tuple[tuple[str, type[Warning]], ...]


class ClipReader(Dataset[Clip]):
    """Sequences by their numbers, in the size that a model reads.

    Args:
        sequences: Where they are.
        model: What reads them.
    """

    def __init__(self, sequences: list[SequencePath], model: GaitModel) -> None:
        self.sequences = sequences
        several = len(model.modalities) > 1
        self.names = model.modalities if several else model.modalities[0]
        # Pose models of 18 joints say so.
        self.to_format = getattr(model, "joint_format", "coco17")
        self.align = align_with(model)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Clip:
        path = self.sequences[index].path
        frames, problem = None, ""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                frames = load_sequence(path, self.names, to_format=self.to_format)
                try:
                    frames = self.align(frames)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
            except (ValueError, OSError) as error:
                frames, problem = None, " ".join(str(error).split())
        doubts = tuple((f"{path}: {warning.message}", warning.category) for warning in caught)
        return Clip(frames, problem, doubts)


def in_order(items: Dataset[T], workers: int = 0) -> Iterator[T]:
    """The items of a data set one after the other.

    Args:
        items: Of known length.
        workers: Processes that make items ahead; 0 = this one makes them.
    """
    own = torch.Generator()  # or the loader draws a seed from everybody's
    return iter(
        DataLoader(items, batch_size=1, num_workers=workers, collate_fn=_alone, generator=own)
    )


def _alone(batch: list[Any]) -> Any:
    return batch[0]


def read_clips(reader: ClipReader, workers: int = 0) -> Iterator[Clip]:
    """All sequences in order, with the warnings of their reading.

    Args:
        reader: The sequences.
        workers: Processes that read ahead; 0 = this one reads.
    """
    for clip in in_order(reader, workers):
        for text, category in clip.doubts:
            warnings.warn(text, category, stacklevel=2)
        yield clip


class Taken:
    """The next sequences of :func:`read_clips`, as :func:`gaitzoo.embed` takes them.

    Args:
        clips: Where they come from.
        count: How many there are.
        skip: Whether those that cannot be read are left out, instead of an error.

    Attributes:
        kept: Numbers of those that were read, from 0.
        skipped: Numbers of the others, with the reason.
    """

    def __init__(self, clips: Iterator[Clip], count: int, skip: bool) -> None:
        self.clips, self.count, self.skip = clips, count, skip
        self.kept: list[int] = []
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.count):
            clip = next(self.clips)
            if not clip.error:
                self.kept.append(number)
                yield clip.frames
            elif self.skip:
                self.skipped[number] = clip.error
            else:
                raise ValueError(clip.error)
