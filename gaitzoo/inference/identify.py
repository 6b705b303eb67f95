"""Who is it: every probe sequence against a gallery of known people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gaitzoo.data.ranking import check_exclude, encode
from gaitzoo.inference.embed import embed
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.models.base import GaitModel

__all__ = ["Identification", "Match", "check_threshold", "identify"]


@dataclass(frozen=True, slots=True)
class Match:
    """One gallery sequence that resembles a probe.

    Args:
        index: Its place in the gallery.
        label: Identity of the person.
        distance: How far it is from the probe; smaller is closer.
    """

    index: int
    label: str | int
    distance: float


@dataclass(frozen=True, eq=False)
class Identification:
    """What :func:`identify` found.

    Args:
        matches: For every probe its nearest gallery sequences, the nearest first.
        distances: ``[Q, G]``, every probe to every gallery sequence.
        rank1: Share of the known probes with the same person as nearest match, in [0, 1];
            ``None`` if no probe is known.
        known: For every probe whether its person is in the part of the gallery that it was
            compared with; all False without probe labels.
        people: For every probe the person of its nearest match, ``None`` = nobody who is known
            (no match within the threshold). Rank-1 counts all probes, with or without threshold.
    """

    matches: tuple[tuple[Match, ...], ...]
    distances: Tensor
    rank1: float | None
    known: tuple[bool, ...]
    people: tuple[str | int | None, ...]


def identify(
    model: GaitModel,
    gallery: Iterable[Any],
    probes: Iterable[Any],
    gallery_labels: Sequence[str | int],
    probe_labels: Sequence[str | int] | None = None,
    *,
    exclude: Tensor | None = None,
    top: int = 5,
    threshold: float | None = None,
    batch_frames: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Identification:
    """Finds the gallery sequences that resemble each probe most.

    Distances are those that the model's cfg names (``model.pretrained_cfg.distance``).

    Args:
        model: A model of this library.
        gallery: Sequences of known people, as :func:`gaitzoo.embed` takes them.
        probes: Sequences to identify, likewise.
        gallery_labels: Identity of each gallery sequence: ``[G]`` names or numbers.
        probe_labels: The true identities ``[Q]``, of the same kind, if they are known and Rank-1
            is wanted.
        exclude: ``[Q, G]`` bool, True for pairs that must not match, for example
            :func:`gaitzoo.metrics.same_view_mask`; ``None`` = all may.
        top: How many matches to return per probe, fewer if the gallery is smaller.
        threshold: The largest distance of a match: a probe with none is nobody who is known.
            :mod:`gaitzoo.open_set` finds it on validation data. ``None`` = no limit.
        batch_frames: Frames of a batch, see :func:`gaitzoo.embed`.
        device: Where to compute; ``None`` = where the model is.
        progress: Show progress bars.

    Returns:
        The matches, all distances and Rank-1.

    Raises:
        ValueError: If a side is empty, labels do not count as many as sequences, a shape is wrong,
            ``top`` is below 1 or ``threshold`` is not finite.
        TypeError: If labels of both sides are of different kinds.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0)
        >>> clips = [torch.rand(8, 16, 12) for _ in range(3)]
        >>> found = identify(model, clips, clips[1:], ["ann", "bob", "eve"], progress=False)
        >>> [matches[0].label for matches in found.matches]
        ['bob', 'eve']
    """
    if top < 1:
        raise ValueError(f"expected top of 1 or more, got {top}")
    check_threshold(threshold)
    _check_count(gallery, gallery_labels, "gallery")
    if probe_labels is not None:
        _check_count(probes, probe_labels, "probe")
        encode(probe_labels, gallery_labels, "labels")  # refuses mixed kinds before the work
    gallery_embeddings, probe_embeddings = (
        embed(model, side, batch_frames=batch_frames, device=device, progress=progress)
        for side in (gallery, probes)
    )
    _check_count(gallery_embeddings, gallery_labels, "gallery")
    # The cfg holds one of the two names that part_distances takes, and that one checks it.
    metric = cast(Any, model.pretrained_cfg.distance)
    distances = part_distances(probe_embeddings, gallery_embeddings, metric=metric)
    allowed = torch.ones_like(distances, dtype=torch.bool)
    if exclude is not None:
        check_exclude(exclude, distances)
        allowed = ~exclude.cpu()
    rank1, known = None, torch.zeros(len(distances), dtype=torch.bool)
    if probe_labels is not None:
        _check_count(probe_embeddings, probe_labels, "probe")
        probe_codes, gallery_codes = encode(probe_labels, gallery_labels, "labels")
        known = ((probe_codes[:, None] == gallery_codes) & allowed).any(1)
        if bool(known.any()):
            rank1 = rank_k(distances, probe_labels, gallery_labels, exclude=exclude)
    matches = tuple(
        _nearest(row, may_match, gallery_labels, top, threshold)
        for row, may_match in zip(distances, allowed, strict=True)
    )
    people = tuple(found[0].label if found else None for found in matches)
    return Identification(matches, distances, rank1, tuple(known.tolist()), people)


def check_threshold(threshold: object) -> None:
    """Raises unless a largest distance is a finite number or ``None``."""
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and math.isfinite(cast(float, threshold))):
        raise ValueError(f"expected threshold as a finite distance or None, got {threshold!r}")


def _nearest(
    distances: Tensor,
    allowed: Tensor,
    labels: Sequence[str | int],
    top: int,
    threshold: float | None,
) -> tuple[Match, ...]:
    order = distances.masked_fill(~allowed, torch.inf).argsort(stable=True)
    order = order[: min(top, int(allowed.sum()))].tolist()
    matches = (Match(index, labels[index], float(distances[index])) for index in order)
    return tuple(match for match in matches if threshold is None or match.distance <= threshold)


def _check_count(sequences: object, labels: Sized, side: str) -> None:
    """Compares counts where they are known; a generator's is only once it is embedded."""
    if isinstance(sequences, Sized) and len(sequences) != len(labels):
        raise ValueError(
            f"expected one label per {side} sequence, got {len(labels)} labels for "
            f"{len(sequences)} sequences"
        )
