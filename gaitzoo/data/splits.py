"""Who is for training and who for testing: partition files, and splits that are a rule."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaitzoo.data.layouts import Place

__all__ = ["Partition", "in_split", "read_partition"]

_CASIAB_TRAINED = 74
_OUMVLP_LAST = 10307  # odd, but for testing: 5153 people are trained on, 5154 are left
_RULES = ("casiab", "oumvlp", "grew")


@dataclass(frozen=True)
class Partition:
    """The people of a data set by what they are for.

    Args:
        train: Identities.
        test: Identities.
        probe: Sequences that are looked for, ``identity-type-view`` (Gait3D); empty = the protocol
            goes by type and view.
    """

    train: frozenset[str]
    test: frozenset[str]
    probe: frozenset[str] = frozenset()


def read_partition(path: str | os.PathLike[str]) -> Partition:
    """Reads a partition file of OpenGait: JSON with ``TRAIN_SET`` and ``TEST_SET``.

    Args:
        path: The file.

    Returns:
        The partition, also with ``PROBE_SET`` where the file has it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such JSON, or somebody is in both sets.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "Gait3D.json")
        ...     _ = path.write_text('{"TRAIN_SET": ["0000"], "TEST_SET": ["0002"]}')
        ...     read_partition(path).test
        frozenset({'0002'})
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a partition file (JSON), got {path}, which is none")
    wanted = f'expected JSON with lists of names "TRAIN_SET" and "TEST_SET" in {path}'
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{wanted}, got {type(content).__name__}")
    sets = {}
    for key in ("TRAIN_SET", "TEST_SET", "PROBE_SET"):
        names = content.get(key, [] if key == "PROBE_SET" else None)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{wanted}, got {type(names).__name__} for {key}")
        sets[key] = frozenset(names)
    partition = Partition(*sets.values())
    both = sorted(partition.train & partition.test)
    if both:
        raise ValueError(
            f"expected nobody in both sets of {path}, got {len(both)} ({', '.join(both[:3])})"
        )
    return partition


def in_split(split: str, layout: str, place: Place, partition: Partition | None) -> bool:
    """Whether a walk belongs to a split.

    Without a partition, the rules: CASIA-B trains on people 001 to 074 and tests on the other 50;
    OU-MVLP trains on odd numbers up to 10305 and tests on the rest; GREW's folders say it (the
    distractors belong to neither). The other data sets publish lists.

    Args:
        split: ``"train"`` or ``"test"``.
        layout: Name of the layout.
        place: Of the walk.
        partition: From :func:`read_partition`; ``None`` = by rule.

    Raises:
        ValueError: If the split is neither, or the data set has no rule.

    Example:
        >>> in_split("test", "casiab", Place("075", "nm-01", "090"), None)
        True
    """
    if split not in ("train", "test"):
        raise ValueError(f'expected split "train", "test" or None, got {split!r}')
    if partition is not None:
        people = partition.train if split == "train" else partition.test
        # Of unknown people, OpenGait's lists name the folder.
        return (place.split if place.identity is None else place.identity) in people
    if layout == "grew":
        return place.split in {"train": ("train",), "test": ("gallery", "probe")}[split]
    if layout not in _RULES:
        raise ValueError(
            f"expected partition=FILE for the {split} split of layout {layout!r}, which goes by a "
            f"list (rules are known of {', '.join(_RULES)}); OpenGait publishes partition files"
        )
    number = int(place.identity or 0)
    if layout == "casiab":
        trained = number <= _CASIAB_TRAINED
    else:
        trained = number % 2 == 1 and number != _OUMVLP_LAST
    return trained == (split == "train")
