"""Data sets as they lie on disk, read when their turn comes."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gaitzoo.data.batches import by_name, count_frames, pad_sequences
from gaitzoo.data.layouts import Place, find_layout
from gaitzoo.data.modalities import find_modality
from gaitzoo.data.sequences import load_files
from gaitzoo.data.splits import in_split, read_partition
from gaitzoo.data.walks import Walk, choose_source, scan

__all__ = ["FrameSampler", "GaitBatch", "GaitDataset", "GaitSample", "SequenceRecord"]

_UNKNOWN = "\x01"  # identity of those whose name is kept by the publishers
_SEVERAL = 3  # names in a message


class FrameSampler(Protocol):
    """What chooses frames: :class:`gaitzoo.OrderedSampler` and others."""

    def __call__(self, num_frames: int, generator: random.Random | None = None) -> Tensor:
        """Numbers of frames ``[n]`` int64 of a sequence of ``num_frames``."""
        ...


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """What is known of a sequence before it is read.

    Args:
        identity: Who walks; ``None`` = the publishers keep it to themselves (probes of GREW).
        type: Clothing, bag, session (``nm-01``); ``""`` = the layout has none.
        view: Camera or angle (``090``); ``""`` = the layout has none.
        split: Part of the data set, if its folders name it (``train``, ``probe``).
        name: Path from the root without suffix, of the sequence's folder or file.
        path: What :func:`gaitzoo.load_sequence` reads: the file or folder of the only modality, or
            the folder of several.
        files: Modality to its file or folder.
    """

    identity: str | None
    type: str
    view: str
    split: str
    name: str
    path: Path
    files: Mapping[str, Path]


class GaitSample(NamedTuple):
    """One item of a :class:`GaitDataset`.

    Args:
        sequence: A tensor without the axis N, or a dictionary of several modalities.
        label: Number of the person, -1 = unknown.
        record: What else is known.
    """

    sequence: Any
    label: int
    record: SequenceRecord


class GaitBatch(NamedTuple):
    """Items of a :class:`GaitDataset` in one padded batch.

    Args:
        sequences: A tensor ``[N, ...]``, or a dictionary of several modalities.
        lengths: ``[N]`` int64, valid frames.
        labels: ``[N]`` int64, numbers of the people, -1 = unknown.
        records: What else is known of each.
    """

    sequences: Any
    lengths: Tensor
    labels: Tensor
    records: list[SequenceRecord]


class GaitDataset(Dataset[GaitSample]):
    """Sequences of a tree, of one modality or several, read when they are asked for.

    One item is one walk before one camera: raw, aligned and pickled copies in one folder count
    once (the aligned one is read, an array rather than images). The list of sequences is held in a
    few arrays, so that worker processes share it instead of copying it. Items depend on the seed
    and the index alone, not on the worker; an index of :class:`gaitzoo.PKBatchSampler` counts
    its draws, so that each is another choice of frames.

    Args:
        root: The folder.
        layout: ``"casiab"``, ``"oumvlp"``, ``"grew"``, ``"gait3d"``, ``"ccpg"``, ``"sustech1k"``,
            ``"casiae"``, ``"ccgr"``, ``"opengait"`` (``id/type/view/*.pkl``), ``"folders"``
            (``id/sequence``), or a path that says what each level is
            (``"cam_{view}/{identity}/{type}"``); ``None`` = by the names of the folders.
        modalities: One name (items are tensors), several names (items are dictionaries), or a
            mapping from names to patterns of file names (``{"silhouettes": "*-aligned.pkl"}``).
        split: ``"train"`` or ``"test"``: the people of a partition file or, without one, of the
            published rule (CASIA-B 74 and 50 people, OU-MVLP odd and even numbers, GREW by
            folders); ``None`` = all.
        partition: A partition file of OpenGait (JSON).
        transform: Called with each whole sequence, for example :func:`gaitzoo.create_transform`.
        frames: Chooses frames of what the transform gives, for example
            :class:`gaitzoo.OrderedSampler`; ``None`` = all.
        seed: Of the choice of frames.
        joint_format: Of poses, see :func:`gaitzoo.load_sequence`.
        to_format: Joints that poses come in, the ``joint_format`` of the model that reads them.

    Attributes:
        layout: Name of the layout.
        identities: Names of the people, sorted; a label is a place in it.
        left_out: Folders that are no sequence of this layout or lack a modality.
        probe: Sequences of a partition file that are looked for, ``identity-type-view``.

    Raises:
        FileNotFoundError: If ``root`` or ``partition`` does not exist.
        ValueError: If the tree is not of the layout (the message says what was found, and which
            layout it looks like), nothing is left to read, or an argument is none of the above.

    Warns:
        UserWarning: If folders are left out, or people of the partition file are not there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for view in ("000", "090"):
        ...         folder = Path(root, "001", "nm-01", view)
        ...         folder.mkdir(parents=True)
        ...         np.save(folder / f"{view}.npy", np.full((9, 64, 44), 255, dtype=np.uint8))
        ...     dataset = GaitDataset(root)
        ...     shape = dataset[1].sequence.shape
        >>> dataset.layout, dataset.views, shape
        ('casiab', ['000', '090'], torch.Size([9, 64, 44]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str | None = None,
        *,
        modalities: str | Sequence[str] | Mapping[str, str] = "silhouettes",
        split: str | None = None,
        partition: str | os.PathLike[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        frames: FrameSampler | None = None,
        seed: int = 0,
        joint_format: str | None = None,
        to_format: str = "coco17",
    ) -> None:
        self.root = Path(root)
        self.is_single = isinstance(modalities, str)
        names = [modalities] if isinstance(modalities, str) else list(modalities)
        if not names:
            raise ValueError("expected at least one modality, got none")
        for name in names:
            find_modality(name)
        self.modalities = tuple(names)
        patterns = modalities if isinstance(modalities, Mapping) else {}
        known = None if partition is None else read_partition(partition)
        if partition is not None and split is None:
            raise ValueError('expected split="train" or "test" with a partition file, got None')
        walks, found, strange = scan(self.root, None if layout is None else find_layout(layout))
        self.layout = found.name
        self.probe = frozenset[str]() if known is None else known.probe
        if split is not None:
            kept = [walk for walk in walks if in_split(split, self.layout, _place(walk), known)]
            if known is not None:
                self._warn_of_absent(known.train if split == "train" else known.test, kept)
            if not kept:
                raise ValueError(
                    f"expected sequences of the {split} split in {self.root}, got none among "
                    f"{len(walks)}, of {', '.join(sorted({str(w.identity) for w in walks})[:5])}"
                )
            walks = kept
        rows, lacking = self._rows(walks, patterns)
        self.left_out = (*strange, *lacking)
        if not rows:
            raise ValueError(
                f"expected {', '.join(names)} in {self.root}, got {len(walks)} sequence(s) without "
                f"({', '.join(lacking[:_SEVERAL])}); docs/modalities.md names the files of each"
            )
        if self.left_out:
            self._warn_of(self.left_out)
        self._rows_packed = _Strings(["\0".join(row) for row in rows])
        people = sorted({row[0] for row in rows} - {_UNKNOWN})
        self.identities = people
        numbers = {name: number for number, name in enumerate(people)} | {_UNKNOWN: -1}
        self.labels = torch.tensor([numbers[row[0]] for row in rows])
        self.transform, self.frames, self.seed = transform, frames, seed
        self.joint_format, self.to_format = joint_format, to_format

    def _rows(
        self, walks: list[Walk], patterns: Mapping[str, str]
    ) -> tuple[list[tuple[str, ...]], list[str]]:
        """Fields of each sequence, and names of those that lack a modality."""
        rows, lacking = [], []
        for walk in walks:
            chosen = [choose_source(walk, name, patterns.get(name)) for name in self.modalities]
            files = [source.path for source in chosen if source is not None]
            if len(files) < len(chosen):
                lacking.append(walk.name)
                continue
            identity = _UNKNOWN if walk.identity is None else walk.identity
            rows.append((identity, walk.type, walk.view, walk.split, walk.name, *files))
        return rows, lacking

    def _warn_of(self, left_out: Sequence[str]) -> None:
        some = ", ".join(left_out[:_SEVERAL]) + (", ..." if len(left_out) > _SEVERAL else "")
        warnings.warn(
            f"expected {', '.join(self.modalities)} of layout {self.layout!r} everywhere in "
            f"{self.root}, got {len(left_out)} folder(s) that were left out ({some})",
            UserWarning,
            stacklevel=3,
        )

    def _warn_of_absent(self, people: frozenset[str], walks: list[Walk]) -> None:
        there = {_place(walk).split if walk.identity is None else walk.identity for walk in walks}
        absent = sorted(people - there)
        if absent and there:
            warnings.warn(
                f"expected {len(people)} people of the partition file in {self.root}, got "
                f"{len(there)}; not there: {', '.join(absent[:_SEVERAL])}"
                f"{', ...' if len(absent) > _SEVERAL else ''}",
                UserWarning,
                stacklevel=3,
            )

    def __len__(self) -> int:
        return len(self._rows_packed)

    def record(self, index: int) -> SequenceRecord:
        """What is known of a sequence; nothing is read.

        Args:
            index: Its place, 0 to ``len(dataset) - 1``.

        Raises:
            IndexError: If there is none.
        """
        identity, kind, view, split, name, *files = self._rows_packed[index].split("\0")
        paths = [self.root / file for file in files]
        several = len(paths) > 1
        return SequenceRecord(
            identity=None if identity == _UNKNOWN else identity,
            type=kind,
            view=view,
            split=split,
            name=name,
            path=self.root / name if several else paths[0],
            files=dict(zip(self.modalities, paths, strict=True)),
        )

    @property
    def records(self) -> list[SequenceRecord]:
        """All records."""
        return [self.record(index) for index in range(len(self))]

    @property
    def types(self) -> list[str]:
        """Type of each sequence."""
        return [self._rows_packed[index].split("\0")[1] for index in range(len(self))]

    @property
    def views(self) -> list[str]:
        """View of each sequence."""
        return [self._rows_packed[index].split("\0")[2] for index in range(len(self))]

    def __getitem__(self, index: int) -> GaitSample:
        record = self.record(index)
        formats = {"joint_format": self.joint_format, "to_format": self.to_format}
        sequence: Any = load_files(record.files, record.path, **formats)
        if self.is_single:
            sequence = sequence[self.modalities[0]]
        if self.transform is not None:
            try:
                sequence = self.transform(sequence)
            except ValueError as error:
                raise ValueError(f"{record.path}: {error}") from error
        if self.frames is not None:
            # One generator per draw: neither workers nor the order of items change a choice.
            draw = getattr(index, "number", 0)
            generator = random.Random(f"{self.seed}/{int(index)}/{draw}")
            sequence = _take(sequence, self.modalities, self.frames, generator)
        return GaitSample(sequence, int(self.labels[index]), record)

    def sequences(self) -> Iterator[Any]:
        """The sequences one after the other, as :func:`gaitzoo.embed` takes them."""
        for index in range(len(self)):
            yield self[index].sequence

    def collate(self, samples: Sequence[GaitSample]) -> GaitBatch:
        """Joins items to one padded batch; give it to a ``DataLoader`` as ``collate_fn``.

        Args:
            samples: Items with frames of one shape.

        Returns:
            The batch.

        Raises:
            ValueError: If there is no item, or shapes of frames differ.
        """
        sequences = [sample.sequence for sample in samples]
        modality = self.modalities[0] if self.is_single else None
        batch, lengths = pad_sequences(sequences, modality)
        labels = torch.tensor([sample.label for sample in samples])
        return GaitBatch(batch, lengths, labels, [sample.record for sample in samples])


def _place(walk: Walk) -> Place:
    return Place(walk.identity, walk.type, walk.view, walk.split)


def _take(
    sequence: Any, modalities: Sequence[str], sampler: FrameSampler, generator: random.Random
) -> Any:
    """The chosen frames of every modality that has time."""
    parts = by_name(modalities, sequence)
    timed = {name: x for name, x in parts.items() if find_modality(name).time_axis is not None}
    if not timed:
        return sequence
    chosen = sampler(count_frames((next(iter(timed)),), next(iter(timed.values()))), generator)
    taken = {
        name: x.index_select(find_modality(name).time_axis_of(x), chosen) if name in timed else x
        for name, x in parts.items()
    }
    return taken if isinstance(sequence, Mapping) else taken[modalities[0]]


class _Strings:
    """Many strings in two arrays, which worker processes share: no object per string to count."""

    def __init__(self, strings: Sequence[str]) -> None:
        coded = [os.fsencode(string) for string in strings]
        self.ends = np.cumsum([len(code) for code in coded])
        self.codes = np.frombuffer(b"".join(coded), np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"expected a sequence 0 to {len(self) - 1}, got {number}")
        number %= len(self)
        start = self.ends[number - 1] if number else 0
        return os.fsdecode(self.codes[start : self.ends[number]].tobytes())
