"""Options of the commands that score a data set: how it stands, and who is scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from gaitzoo.cli.find import add_layout_option
from gaitzoo.data.datasets import GaitDataset

__all__ = ["add_dataset_options", "listed_probes", "scored_sequences"]

_HAS_RULE = ("casiab", "oumvlp", "grew")  # data sets with a test split without a partition file


def add_dataset_options(command: argparse.ArgumentParser) -> None:
    """Adds the layout of the data set that ``--data`` names, and the people to score."""
    add_layout_option(command)
    command.add_argument(
        "--partition", metavar="FILE", help="OpenGait's list of people for training and testing"
    )
    command.add_argument(
        "--split",
        choices=("train", "test", "all"),
        help="people to score (default: test, where a partition or the data set says who that is)",
    )


def scored_sequences(
    options: argparse.Namespace,
    modalities: Sequence[str],
    transform: Callable[[Any], Any] | None = None,
    to_format: str = "coco17",
) -> GaitDataset:
    """The sequences to score.

    Args:
        options: Those of :func:`add_dataset_options`, and ``data``.
        modalities: What is read of each.
        transform: Called with each.
        to_format: Joints that poses come in.
    """

    def read(split: str | None) -> GaitDataset:
        return GaitDataset(
            options.data,
            options.layout,
            modalities=modalities if len(modalities) > 1 else modalities[0],
            split=split,
            partition=options.partition if split is not None else None,
            transform=transform,
            to_format=to_format,
        )

    if options.split is None and options.partition is None:
        dataset = read(None)
        return read("test") if dataset.layout in _HAS_RULE else dataset
    return read(None if options.split == "all" else options.split or "test")


def listed_probes(dataset: GaitDataset, protocol: str) -> list[str]:
    """Names of the probes of a protocol that lists them.

    Args:
        dataset: The sequences.
        protocol: Its name, for the message.

    Raises:
        ValueError: If the partition file has no list.
    """
    if not dataset.probe:
        raise ValueError(
            f"expected a list of probes for {protocol}, got none; pass --partition with a file "
            "that has PROBE_SET"
        )
    return sorted(dataset.probe)
