"""Videos corrupted, extracted, embedded and scored: the work behind the benchmark of robustness."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gaitzoo.data.content import SilhouetteWarning
from gaitzoo.evaluation.evaluate import evaluate
from gaitzoo.evaluation.protocols import GaitProtocol
from gaitzoo.metrics import CrossViewRank1, same_view_mask

__all__ = ["Embedded", "Embedding", "Run", "Videos", "number_of"]


class Videos(Protocol):
    """Sequences that are read when they are asked for, such as a list."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One of them."""
        ...


@dataclass(frozen=True)
class Embedding:
    """How videos become embeddings and those a score.

    Args:
        embedder: Sequences to embeddings ``[N, P, C]``.
        extractor: Video to what is embedded; ``None`` = the video itself.
        align: What is extracted to the input of a model; ``None`` = it is that already.
        make: Name, severity and generator to a corruption.
        seed: Of random numbers.
        protocol: One condition, types ``probe`` and ``gallery``.
        score: ``"rank1"`` or ``"mAP"``.
        metric: ``"euclidean"`` or ``"cosine"``.
    """

    embedder: Callable[[Iterable[Any]], Tensor]
    extractor: Callable[[Tensor], Any] | None
    align: Callable[[Any], Any] | None
    make: Callable[..., nn.Module]
    seed: int
    protocol: GaitProtocol
    score: str
    metric: str


@dataclass(frozen=True)
class Embedded:
    """Embeddings ``[kept, P, C]`` and the numbers of their videos; the others showed nobody."""

    embeddings: Tensor | None
    kept: list[int]


class Run:
    """One benchmark on one set of videos."""

    def __init__(
        self,
        how: Embedding,
        videos: Videos,
        labels: list[Any],
        views: list[Any] | None,
        names: list[str],
        probes: list[int],
        gallery: list[int],
    ) -> None:
        if len(set(names)) < len(names):
            raise ValueError("expected different names of sequences, got equal ones")
        self.how, self.videos = how, videos
        self.labels, self.views, self.names = labels, views, names
        self.probes, self.gallery = probes, gallery
        if not self._with_match(probes, gallery):
            raise ValueError(
                "expected probes of people who are in the gallery (in another view, unless pairs "
                'is "all"), got none; check that labels name the same people in the same way'
            )

    def embed(
        self, numbers: list[int], condition_of: Callable[[int], tuple[str, int] | None]
    ) -> Embedded:
        """Videos corrupted as said for each, extracted and embedded."""
        kept: list[int] = []
        sequences = self._sequences(numbers, condition_of, kept)
        first = next(sequences, None)
        if first is None:
            return Embedded(None, kept)

        def all_of_them() -> Iterator[Any]:
            yield first
            yield from sequences

        embeddings = self.how.embedder(all_of_them())
        if len(embeddings) != len(kept):
            raise ValueError(
                f"expected an embedding for each of {len(kept)} sequences, got {len(embeddings)}"
            )
        return Embedded(embeddings, kept)

    def _sequences(
        self,
        numbers: list[int],
        condition_of: Callable[[int], tuple[str, int] | None],
        kept: list[int],
    ) -> Iterator[Any]:
        for number in numbers:
            condition = condition_of(number)
            video = self.videos[number]
            if condition is not None:
                video = self._corrupted(torch.as_tensor(video), number, *condition)
            try:
                sequence = self._extracted(video)
            except ValueError as error:
                if condition is None:
                    raise ValueError(f"sequence {self.names[number]}, clean: {error}") from error
                continue
            kept.append(number)
            yield sequence

    def _corrupted(self, video: Tensor, number: int, name: str, severity: int) -> Tensor:
        seed = number_of(self.how.seed, self.names[number], name, severity)
        generator = torch.Generator().manual_seed(seed)
        return self.how.make(name, severity, generator=generator)(video)

    def _extracted(self, video: Any) -> Any:
        with warnings.catch_warnings():
            # Doubts are what is measured here.
            warnings.simplefilter("ignore", SilhouetteWarning)
            extractor, align = self.how.extractor, self.how.align
            sequence = video if extractor is None else extractor(video)
            return sequence if align is None else align(sequence)

    def score(self, found: Embedded, known: Embedded) -> float:
        """The score; a probe that shows nobody is not found, a gallery without it is smaller."""
        if found.embeddings is None or known.embeddings is None:
            return 0.0
        possible = self._with_match(found.kept, known.kept)
        if not possible:
            return 0.0
        lost = sorted(set(self.probes).difference(found.kept))
        # Their embeddings do not matter: nobody in the gallery is called so.
        fill = found.embeddings[:1].expand(len(lost), -1, -1)
        numbers = found.kept + lost + known.kept
        codes = {label: code for code, label in enumerate(dict.fromkeys(self.labels))}
        labels = [codes[self.labels[number]] for number in numbers]
        labels[len(found.kept) : len(self.probes)] = [-1] * len(lost)
        result = evaluate(
            torch.cat([found.embeddings, fill, known.embeddings]),
            labels,
            protocol=self.how.protocol,
            types=["probe"] * len(self.probes) + ["gallery"] * len(known.kept),
            views=None if self.views is None else [self.views[number] for number in numbers],
            metric=self.how.metric,
        )
        value = result.rows[0].scores[self.how.score]
        pairs = self.how.protocol.pairs[0]
        if pairs == "cross_view":
            table = result.rows[0].table
            assert table is not None
            return self._over_all_views(table)
        if pairs == "re_id" or self.how.score == "mAP":
            # These leave probes out that have no match; here, those once had one.
            return value * possible / self._with_match(self.probes, self.gallery)
        return value

    def _with_match(self, probes: list[int], gallery: list[int]) -> int:
        """How many probes could be found at all."""
        apart = self.how.protocol.pairs[0] != "all"
        there = {(self.labels[n], self.views[n] if apart and self.views else "") for n in gallery}
        by_label: dict[Any, set[Any]] = {}
        for label, view in there:
            by_label.setdefault(label, set()).add(view)
        count = 0
        for number in probes:
            own = {self.views[number]} if apart and self.views else set()
            count += bool(by_label.get(self.labels[number], set()) - own)
        return count

    def _over_all_views(self, table: CrossViewRank1) -> float:
        """The mean of a table, in which a view that the gallery lost counts as misses."""
        assert self.views is not None
        other = ~same_view_mask(table.query_views, table.gallery_views)
        sums = table.rank1.masked_fill(~other, 0).nansum(1)
        columns = {self.views[number] for number in self.gallery}
        counts = [sum(row != column for column in columns) for row in table.query_views]
        # A view that has no other to be compared with is left out, as in tables of papers.
        return float((sums / torch.tensor(counts)).nanmean())


def number_of(seed: int, *words: object) -> int:
    """A number below 2 ** 56 that depends on the arguments alone."""
    text = "\n".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
