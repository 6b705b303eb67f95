"""How much of a person's gait survives in generated videos.

Source: "Is Visual Realism Enough? Evaluating Gait Biometric Fidelity in Generative AI Human
Animation" (https://arxiv.org/abs/2512.19275). Only its abstract and second-hand outlines of its
protocol could be read, so this is a reconstruction: the two tasks are the study's; fidelity
ratio, percentiles, d-prime and leakage are how its claims are put into numbers here. Everything
compares embeddings; the models that give them are frozen, and any one of the library will do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.distances import check_metric, part_distances
from gaitzoo.data.ranking import Labels, as_list, encode, find_matches
from gaitzoo.evaluation.bootstrap import check_resamples, cluster_bootstrap
from gaitzoo.evaluation.fidelity_reports import (
    RestorationReport,
    RestorationRow,
    TransferReport,
    TransferRow,
)
from gaitzoo.evaluation.open_set import verification_errors
from gaitzoo.inference.embed import embed
from gaitzoo.models.base import GaitModel

__all__ = ["GaitFidelity", "dprime", "make_transfer_pairs"]

ALL = "all"


def dprime(low: Tensor, high: Tensor) -> float:
    """How far two sets of numbers lie apart, in standard deviations.

    ``(mean(high) - mean(low)) / sqrt((var(low) + var(high)) / 2)``, variances of samples.

    Args:
        low: ``[M]`` numbers, M > 1.
        high: ``[K]`` numbers, K > 1.

    Returns:
        The number; infinite where both sets have no spread, NaN where they are equal as well.

    Raises:
        ValueError: If a set has fewer than two numbers.

    Example:
        >>> round(dprime(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 6.0])), 6)
        2.828427
    """
    if low.ndim != 1 or high.ndim != 1 or len(low) < 2 or len(high) < 2:
        raise ValueError(
            f"expected two sets of two numbers or more, got {list(low.shape)} and "
            f"{list(high.shape)}"
        )
    low, high = low.double(), high.double()
    return float((high.mean() - low.mean()) / ((low.var() + high.var()) / 2).sqrt())


def make_transfer_pairs(
    subject_ids: Labels, seed: int = 0, constraint: Callable[[int, int], bool] | None = None
) -> list[tuple[int, int]]:
    """Who drives whom: for each clip one of another person, drawn at random.

    Args:
        subject_ids: ``[N]`` identities of the clips.
        seed: The same seed gives the same pairs.
        constraint: Called with the numbers of the driving and of the appearance clip; False
            forbids the pair (of clothing or sex, say).

    Returns:
        Pairs of numbers, driving clip first. Clips without any partner are left out.

    Raises:
        TypeError: If identities are neither all strings nor all integers.
        ValueError: If no pair is possible.

    Example:
        >>> make_transfer_pairs(["ann", "ann", "bob"], seed=1)
        [(0, 2), (1, 2), (2, 1)]
    """
    names = as_list(subject_ids, "subject_ids")
    generator = random.Random(seed)
    pairs = []
    for driving, name in enumerate(names):
        partners = [i for i, other in enumerate(names) if other != name]
        if constraint is not None:
            partners = [i for i in partners if constraint(driving, i)]
        if partners:
            pairs.append((driving, generator.choice(partners)))
    if not pairs:
        raise ValueError(
            f"expected clips of two people or more that may be paired, got {len(set(names))} "
            "people and no pair; relax constraint"
        )
    return pairs


class GaitFidelity:
    """Both tasks of the study, from clips or from embeddings.

    Args:
        embedder: A model of the library, or a function from a list of clips to ``[N, P, C]``
            embeddings; ``None`` = embeddings are given in place of clips.
        metric: ``"euclidean"`` or ``"cosine"``, mean over parts.
        normalized: Parts are brought to length 1 before Euclidean distances.
        bootstrap: Draws of subjects for 95 % intervals; 0 = none.
        seed: Of the draws.
        **embed_args: For :func:`gaitzoo.embed`, such as ``batch_frames`` or ``device``.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> real = torch.eye(4).repeat_interleave(2, 0)[:, None]  # four people, two clips each
        >>> report = GaitFidelity().restoration(real, real.clone(), [0, 0, 1, 1, 2, 2, 3, 3])
        >>> report.rows[0].rank1, report.rows[0].ratio
        ({'real2real': 1.0, 'gen2real': 1.0, 'gen2gen': 1.0}, 1.0)
    """

    def __init__(
        self,
        embedder: GaitModel | Callable[[Sequence[Any]], Tensor] | None = None,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        *,
        normalized: bool = True,
        bootstrap: int = 0,
        seed: int = 0,
        **embed_args: Any,
    ) -> None:
        check_metric(metric)
        check_resamples(bootstrap, least=0)
        if embed_args and not isinstance(embedder, GaitModel):
            raise ValueError(
                f"expected a model with {', '.join(embed_args)}, got none; leave them out"
            )
        self.embedder, self.normalized = embedder, normalized
        self.metric: Literal["euclidean", "cosine"] = metric
        self.bootstrap, self.seed, self.embed_args = bootstrap, seed, embed_args

    def restoration(
        self,
        real: Any,
        generated: Any,
        labels: Labels,
        *,
        conditions: Sequence[str] | None = None,
        views: Labels | None = None,
        quality: Mapping[str, Tensor] | None = None,
    ) -> RestorationReport:
        """Gait of videos that were generated from a person's own picture and motion.

        Probes are compared with all real clips but their own source and, with ``views``, those of
        the same view; probes without a clip of their person left are skipped.

        Args:
            real: N clips, or their embeddings ``[N, P, C]``.
            generated: What was generated of each, in the same order.
            labels: ``[N]`` subjects.
            conditions: ``[N]`` names, for a row each; ``None`` = one row.
            views: ``[N]`` views or cameras; ``None`` = only the source is left out.
            quality: ``[N]`` numbers per metric, from :func:`gaitzoo.video_quality`.

        Raises:
            TypeError: If an input has the wrong type.
            ValueError: If counts disagree, or no probe has a match.
        """
        real, generated = self._embedded(real, "real"), self._embedded(generated, "generated")
        names = as_list(labels, "labels")
        count = len(names)
        given: dict[str, Any] = {"real": real, "generated": generated}
        if conditions is not None:
            given["conditions"] = as_list(conditions, "conditions")
        if views is not None:
            given["views"] = as_list(views, "views")
        for name, side in {**given, **(quality or {})}.items():
            if len(side) != count:
                raise ValueError(f"expected {name} for each of {count} labels, got {len(side)}")
        excluded = torch.eye(count, dtype=torch.bool)
        if views is not None:
            codes, _ = encode(views, views, "views")
            excluded |= codes[:, None] == codes
        settings = {
            "real2real": part_distances(real, real, metric=self.metric),
            "gen2real": part_distances(generated, real, metric=self.metric),
            "gen2gen": part_distances(generated, generated, metric=self.metric),
        }
        matches = {
            setting: find_matches(distances, names, names, excluded.to(distances.device))
            for setting, distances in settings.items()
        }
        first = {name: _by_probe(m.first_rank(), m.origin, count) for name, m in matches.items()}
        precision = {
            name: _by_probe(m.average_precision(), m.origin, count) for name, m in matches.items()
        }
        own = settings["gen2real"].diagonal().double().cpu()
        curve = verification_errors(settings["real2real"], names, names, excluded)
        genuine, impostor = torch.from_numpy(curve.mated), torch.from_numpy(curve.non_mated)
        rows = []
        for condition, inside in _clips_of(conditions, count):
            kept = inside.nonzero().flatten()
            people = [names[i] for i in kept.tolist()]
            shares = {
                f"{rank}": {name: _share(values[kept] <= limit, values[kept]) for name, values in
                first.items()} for rank, limit in (("rank1", 1), ("rank5", 5))
            }  # fmt: skip
            rows.append(
                RestorationRow(
                    condition=condition,
                    num_clips=len(kept),
                    rank1=shares["rank1"],
                    rank5=shares["rank5"],
                    mean_ap={
                        name: _share(values[kept], first[name][kept])
                        for name, values in precision.items()
                    },
                    eer=_eer(settings["gen2real"][kept], people, names, excluded[kept]),
                    own_distance=float(own[kept].mean()),
                    genuine_percentile=_percentile(own[kept], genuine),
                    impostor_percentile=_percentile(own[kept], impostor),
                    dprime=dprime(own[kept], impostor) if len(kept) > 1 else float("nan"),
                    quality={name: float(q[kept].mean()) for name, q in (quality or {}).items()},
                    interval=self._interval(first["gen2real"][kept], people),
                )
            )
        return RestorationReport(tuple(rows), self.metric)

    def identity_transfer(
        self,
        generated: Any,
        gallery: Any,
        motion_ids: Labels,
        appearance_ids: Labels,
        gallery_ids: Labels,
        *,
        motion_sources: Sequence[int] | Tensor | None = None,
        appearance_sources: Sequence[int] | Tensor | None = None,
        conditions: Sequence[str] | None = None,
    ) -> TransferReport:
        """Whom recognition finds in a video that moves like one person and looks like another.

        Probes of which the gallery has no clip of both people, sources aside, are skipped.

        Args:
            generated: N clips, or their embeddings ``[N, P, C]``.
            gallery: G real clips, or their embeddings.
            motion_ids: ``[N]`` subjects whose motion drives.
            appearance_ids: ``[N]`` subjects whose picture was animated.
            gallery_ids: ``[G]`` subjects of the gallery.
            motion_sources: ``[N]`` numbers of the driving clips in the gallery, which are left
                out for their probe; -1 or ``None`` = not in it.
            appearance_sources: ``[N]`` numbers of the clips with the reference, likewise.
            conditions: ``[N]`` names, for a row each; ``None`` = one row.

        Raises:
            TypeError: If an input has the wrong type.
            ValueError: If counts disagree, somebody drives himself, a source is not in the
                gallery, or no probe has clips of both people.
        """
        generated = self._embedded(generated, "generated")
        gallery = self._embedded(gallery, "gallery")
        moves, looks = as_list(motion_ids, "motion_ids"), as_list(appearance_ids, "appearance_ids")
        known = as_list(gallery_ids, "gallery_ids")
        given: dict[str, Any] = {"generated": generated, "appearance_ids": looks}
        if conditions is not None:
            given["conditions"] = as_list(conditions, "conditions")
        for name, side in given.items():
            if len(side) != len(moves):
                raise ValueError(
                    f"expected {name} for each of {len(moves)} motion_ids, got {len(side)}"
                )
        if any(mover == looker for mover, looker in zip(moves, looks, strict=True)):
            raise ValueError(
                "expected two people per generated clip, got one as motion and appearance; that "
                "is restoration()"
            )
        distances = part_distances(generated, gallery, metric=self.metric)
        excluded = torch.zeros(distances.shape, dtype=torch.bool)
        for name, sources in (
            ("motion_sources", motion_sources),
            ("appearance_sources", appearance_sources),
        ):
            _exclude(excluded, sources, name)
        on_device = excluded.to(distances.device)
        ranks, nearest = [], []
        for people in (moves, looks):
            found = find_matches(distances, people, known, on_device)
            ranks.append(_by_probe(found.first_rank(), found.origin, len(moves)))
            own, codes = encode(people, known, "identities")
            apart = (own[:, None] != codes) | excluded
            nearest.append(distances.double().cpu().masked_fill(apart, torch.inf).amin(1))
        counted = ~(ranks[0].isnan() | ranks[1].isnan())
        if not counted.any():
            raise ValueError(
                "expected gallery clips of both people of some generated clip besides the "
                "sources, got none; add clips"
            )
        nearer = torch.where(nearest[0] == nearest[1], 0.5, (nearest[0] < nearest[1]).double())
        rows = []
        for condition, inside in _clips_of(conditions, len(moves)):
            kept = (inside & counted).nonzero().flatten()
            people = [moves[i] for i in kept.tolist()]
            rows.append(
                TransferRow(
                    condition=condition,
                    num_clips=len(kept),
                    num_skipped=int((inside & ~counted).sum()),
                    motion_curve=_curve(ranks[0][kept]),
                    appearance_curve=_curve(ranks[1][kept]),
                    motion_nearer=float(nearer[kept].mean()) if len(kept) else float("nan"),
                    motion_interval=self._interval(ranks[0][kept], people),
                    appearance_interval=self._interval(ranks[1][kept], people),
                )
            )
        return TransferReport(tuple(rows), self.metric)

    def _embedded(self, clips: Any, name: str) -> Tensor:
        if self.embedder is None:
            found = clips
            if not isinstance(found, Tensor):
                raise TypeError(
                    f"expected {name} as embeddings [N, P, C], got {type(clips).__name__}; give "
                    "an embedder for clips"
                )
        elif isinstance(self.embedder, GaitModel):
            found = embed(self.embedder, clips, **self.embed_args)
        else:
            found = self.embedder(clips)
        # Half precision would round lengths.
        wide = found.double() if found.dtype == torch.float64 else found.float()
        return F.normalize(wide, dim=-1) if self.normalized else wide

    def _interval(self, ranks: Tensor, people: list[Any]) -> tuple[float, float] | None:
        """Bounds of Rank-1 over draws of subjects."""
        if not self.bootstrap or len(set(people)) < 2:
            return None
        found = cluster_bootstrap(
            lambda rows: _share(ranks[rows] <= 1, ranks[rows]),
            people,
            resamples=self.bootstrap,
            seed=self.seed,
        )
        return found.low, found.high


def _exclude(excluded: Tensor, sources: Sequence[int] | Tensor | None, name: str) -> None:
    """Marks the clip that each probe was made of, in place."""
    if sources is None:
        return
    numbers = torch.as_tensor(sources).flatten()
    count, size = excluded.shape
    if len(numbers) != count or numbers.is_floating_point():
        raise ValueError(
            f"expected {name} as a whole number for each of {count} generated clips, got "
            f"{len(numbers)} of {numbers.dtype}"
        )
    if bool(((numbers < -1) | (numbers >= size)).any()):
        raise ValueError(f"expected {name} from -1 (none) to {size - 1}, got {numbers.tolist()}")
    probe = (numbers >= 0).nonzero().flatten()
    excluded[probe, numbers[probe]] = True


def _by_probe(values: Tensor, origin: Tensor, count: int) -> Tensor:
    """``[count]`` float64, NaN for probes without a match."""
    spread = torch.full((count,), torch.nan, dtype=torch.float64)
    spread[origin] = values.double()
    return spread


def _clips_of(conditions: Sequence[str] | None, count: int) -> list[tuple[str, Tensor]]:
    """Which clips each row is of: all, then those of every condition."""
    listed = [] if conditions is None else [str(name) for name in as_list(conditions, "conditions")]
    if ALL in listed:
        raise ValueError(f'expected conditions other than "{ALL}", the row of all clips; rename it')
    conditioned = [
        (condition, torch.tensor([name == condition for name in listed]))
        for condition in dict.fromkeys(listed)
    ]
    return [(ALL, torch.ones(count, dtype=torch.bool)), *conditioned]


def _eer(distances: Tensor, people: list[Any], names: list[Any], excluded: Tensor) -> float:
    """Equal error rate; NaN where there are no pairs of one person, or none of two."""
    own, codes = encode(people, names, "labels")
    same, counted = own[:, None] == codes, ~excluded.to(own.device)
    if not ((same & counted).any() and (~same & counted).any()):
        return float("nan")
    return verification_errors(distances, people, names, excluded).eer()


def _share(values: Tensor, ranks: Tensor) -> float:
    """The mean over probes that have a match; NaN where there are none."""
    counted = ~ranks.isnan()
    return float(values.double()[counted].mean()) if counted.any() else float("nan")


def _percentile(values: Tensor, among: Tensor) -> float:
    """The share of a sorted set that lies below, mean over values, in percent; ties half."""
    below = torch.searchsorted(among, values) + torch.searchsorted(among, values, right=True)
    return float(50 * below.double().mean() / len(among))


def _curve(ranks: Tensor) -> tuple[float, ...]:
    """Rank-1 to Rank-20."""
    if len(ranks) == 0:
        return (float("nan"),) * 20
    return tuple(float((ranks <= rank).double().mean()) for rank in range(1, 21))
