"""The file that the server of GREW scores."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gaitzoo.data.atomic import whole_files
from gaitzoo.data.ranking import Labels, as_list
from gaitzoo.inference.search import nearest

__all__ = ["write_grew_submission"]

_LENGTH = 20
_GALLERY, _PROBE = ("01", "02"), ("03",)


def write_grew_submission(
    path: str | Path,
    embeddings: Tensor,
    labels: Labels,
    types: Sequence[str],
    views: Sequence[str],
    *,
    metric: str = "euclidean",
    distinct: bool = False,
) -> int:
    """Writes the 20 nearest identities of every probe of GREW's test set as its server reads them.

    Sequences of types ``"01"`` and ``"02"`` are the gallery, those of ``"03"`` the probes, known by
    their view (``videoId``): the layout of OpenGait's tree of GREW.

    Args:
        path: CSV file with the header ``videoId,rank1,...,rank20``; replaced if there.
        embeddings: ``[N, P, C]`` of the test set.
        labels: ``[N]`` identities; those of probes do not matter.
        types: ``[N]``.
        views: ``[N]``.
        metric: ``"euclidean"`` or ``"cosine"``.
        distinct: List each identity once. By default the 20 nearest gallery *sequences* are
            listed by their identity, as OpenGait's files do, so that one person may stand twice.

    Returns:
        How many probes were written.

    Raises:
        ValueError: If counts disagree, there are no probes or too few people in the gallery.
    """
    listed = [str(label) for label in as_list(labels, "labels")]
    for name, values in (("labels", listed), ("types", types), ("views", views)):
        if len(values) != len(embeddings):
            raise ValueError(f"expected {len(embeddings)} {name}, got {len(values)}")
    gallery = [i for i, each in enumerate(types) if each in _GALLERY]
    probes = [i for i, each in enumerate(types) if each in _PROBE]
    people = {listed[i] for i in gallery}
    if not probes or len(people if distinct else gallery) < _LENGTH:
        raise ValueError(
            f"expected probes of type 03 and at least {_LENGTH} of types 01 and 02 in the gallery, "
            f"got {len(probes)} and {len(gallery)} sequences of {len(people)} people"
        )
    # In the worst case all sequences of the nearest people come first.
    most = max(Counter(listed[i] for i in gallery).values())
    top = min(len(gallery), _LENGTH * most) if distinct else _LENGTH
    _, found = nearest(embeddings[probes], embeddings[gallery], top, metric=metric)
    with whole_files(path) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["videoId", *(f"rank{rank}" for rank in range(1, _LENGTH + 1))])
        for probe, row in zip(probes, found.tolist(), strict=True):
            names = [listed[gallery[index]] for index in row]
            names = list(dict.fromkeys(names)) if distinct else names
            # The server knows people by number: 00012 is 12.
            numbers = (int(name) if name.isdigit() else name for name in names[:_LENGTH])
            writer.writerow([views[probe], *numbers])
    return len(probes)
