"""How well people are still found when videos get worse: RobustGait.

Videos are corrupted first, silhouettes are extracted from what is left, and a model embeds those,
as in a deployment: 15 types of corruption in five severities. Who has silhouettes only corrupts
those (:class:`gaitzoo.corruptions.SilhouetteCorruption`, six types).

Source: RobustGait (https://arxiv.org/abs/2511.13065) and its published code
(https://github.com/Reeshoon/RobustGait). The formulas of the scores are [inferred]: those of the
group's earlier benchmark of video models; its own were not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gaitzoo.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corruption
from gaitzoo.data.ranking import Labels, as_list
from gaitzoo.data.segmentation import Segmenter
from gaitzoo.evaluation.protocols import Condition, GaitProtocol
from gaitzoo.evaluation.robustness_run import Embedding, Run, Videos, number_of
from gaitzoo.evaluation.robustness_scores import (
    RobustnessReport,
    absolute_robustness,
    relative_robustness,
)
from gaitzoo.inference.embed import embed
from gaitzoo.inference.inputs import align_with
from gaitzoo.models.base import GaitModel

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "SCENARIOS",
    "RobustnessBenchmark",
    "RobustnessReport",
    "absolute_robustness",
    "corruption",
    "draw_corruption",
    "masks_of",
    "relative_robustness",
]

SCENARIOS = ("same", "clean_gallery", "mixed_gallery")
"""Which sequences are corrupted, see :class:`RobustnessBenchmark`."""

_SCORES = ("rank1", "mAP")
_PAIRS = ("cross_view", "re_id", "all")


def draw_corruption(
    seed: int, name: str, names: Sequence[str], severities: Sequence[int] = SEVERITIES
) -> tuple[str, int]:
    """The type and severity of a gallery sequence in the scenario ``mixed_gallery``.

    Args:
        seed: Any whole number.
        name: Of the sequence.
        names: Types that are drawn from.
        severities: Severities that are drawn from.

    Returns:
        A function of the arguments alone: the same in every run, whatever else is in the gallery.

    Raises:
        ValueError: If there is nothing to draw from.

    Example:
        >>> draw_corruption(0, "001/nm-01/090", ["fog", "rain"]) == draw_corruption(
        ...     0, "001/nm-01/090", ["fog", "rain"]
        ... )
        True
    """
    if not names or not severities:
        raise ValueError(
            "expected names and severities to draw from, got "
            f"{len(names)} names and {len(severities)} severities"
        )
    number = number_of(seed, "mixed", name)
    return names[number % len(names)], severities[number // len(names) % len(severities)]


def masks_of(segmenter: Segmenter) -> Callable[[Tensor], Tensor]:
    """What a segmenter sees in a video with one person, for :class:`RobustnessBenchmark`.

    Args:
        segmenter: For example :class:`gaitzoo.TransformersSegmenter`. One that tracks must begin
            anew by itself with every video.

    Returns:
        A function of a video ``[T, 3, H, W]``, uint8 or floats in [0, 1], that gives the mask of
        the most certain person of every frame, ``[T, H, W]`` uint8 in 0 or 255; black where
        nobody is found.
    """

    def extract(video: Tensor) -> Tensor:
        frames = video if video.dtype == torch.uint8 else (video * 255).round().to(torch.uint8)
        shown = frames.movedim(1, 3).cpu().numpy()
        masks = np.zeros(shown.shape[:3], np.uint8)
        for mask, found in zip(masks, segmenter(shown), strict=True):
            if len(found.scores):
                mask[found.masks[int(found.scores.argmax())]] = 255
        return torch.from_numpy(masks)

    return extract


class RobustnessBenchmark:
    """Scores a model on corrupted videos, every type in every severity.

    Random numbers depend on the seed, the name of the sequence, type and severity alone. Videos are
    read, corrupted and embedded one after the other; none is kept.

    Args:
        embedder: A model of this library, or a function that takes an iterable of what
            ``extractor`` gives and returns embeddings ``[N, P, C]`` in this order.
        extractor: Called with each corrupted video, gives what the model reads, such as
            silhouettes ``[T, H, W]``; a ``ValueError`` says that nobody is seen: a probe counts as
            not found, a gallery sequence is missing. :func:`masks_of` makes one of a segmenter.
            ``None`` = the model reads what is corrupted.
        scenario: ``"same"``, probes and gallery corrupted alike; ``"clean_gallery"``, probes only;
            ``"mixed_gallery"``, each gallery sequence by a type and severity of its own
            (:func:`draw_corruption`), probes as usual.
        pairs: ``"cross_view"``, every view of the probes against every other view of the gallery,
            then their mean (CASIA-B, SUSTech1K); ``"re_id"``, the whole gallery without sequences
            of the probe's person from the probe's view (MEVID); ``"all"``, the whole gallery.
        score: ``"rank1"`` or ``"mAP"`` (not for ``"cross_view"``).
        metric: ``"euclidean"`` or ``"cosine"``; ``None`` = as the model says, else Euclidean.
        make: Called with ``name, severity, generator=generator``, gives a module for videos:
            :func:`corruption`, or :class:`gaitzoo.corruptions.SilhouetteCorruption`.
        seed: Of all random numbers.
        progress: Show a progress bar.
        **embedding: Further arguments of :func:`gaitzoo.embed`, where ``embedder`` is a model.

    Raises:
        TypeError: If there are further arguments for a function.
        ValueError: If an option is unknown, or mAP is asked for view by view.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait", pretrained=True, num_classes=0)
        >>> walks = gaitzoo.synthetic.SyntheticWalkers(
        ...     3, sequences=(("normal", 0), ("normal", 1)), views=(90,), frames=12, size=(32, 22)
        ... )
        >>> benchmark = RobustnessBenchmark(
        ...     model, pairs="all", make=gaitzoo.corruptions.SilhouetteCorruption, progress=False
        ... )
        >>> report = benchmark(
        ...     [walk.silhouettes for walk in walks], walks.labels, gallery=[0, 2, 4],
        ...     corruptions=["freeze", "sampling"], severities=[1, 5],
        ... )
        >>> report.matrix.shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        embedder: GaitModel | Callable[[Iterable[Any]], Tensor],
        extractor: Callable[[Tensor], Any] | None = None,
        scenario: str = "same",
        *,
        pairs: str = "cross_view",
        score: str = "rank1",
        metric: str | None = None,
        make: Callable[..., nn.Module] = corruption,
        seed: int = 0,
        progress: bool = True,
        **embedding: Any,
    ) -> None:
        for name, value, known in (
            ("scenario", scenario, SCENARIOS),
            ("pairs", pairs, _PAIRS),
            ("score", score, _SCORES),
        ):
            if value not in known:
                raise ValueError(f"expected {name} as one of {', '.join(known)}, got {value!r}")
        if score == "mAP" and pairs == "cross_view":
            raise ValueError('expected pairs "re_id" or "all" for mAP, got "cross_view"')
        align = None
        if isinstance(embedder, GaitModel):
            align = align_with(embedder)
            metric = metric or embedder.pretrained_cfg.distance
            embedder = partial(embed, embedder, progress=False, **embedding)
        elif embedding:
            raise TypeError(f"expected no {', '.join(embedding)} with a function as embedder")
        self.scenario = scenario
        self.progress = progress
        protocol = GaitProtocol(
            "robustness",
            (Condition("probes", ("probe",), ("gallery",)),),
            pairs=(pairs,),
            unmatched=("miss",),
            retrieval=score == "mAP",
        )
        self.how = Embedding(
            embedder, extractor, align, make, seed, protocol, score, metric or "euclidean"
        )

    def __call__(
        self,
        videos: Videos,
        labels: Labels,
        gallery: Iterable[int],
        probes: Iterable[int] | None = None,
        *,
        views: Labels | None = None,
        names: Sequence[str] | None = None,
        corruptions: Sequence[str] | None = None,
        severities: Sequence[int] = SEVERITIES,
    ) -> RobustnessReport:
        """Runs all conditions.

        Args:
            videos: ``videos[i]`` is read whenever it is needed: ``[T, 3, H, W]`` or
                ``[T, H, W, 3]`` (``[T, H, W]`` for corruptions of silhouettes), uint8 or floats in
                [0, 1].
            labels: ``[N]`` identities.
            gallery: Numbers of the gallery sequences.
            probes: Numbers of the probes; ``None`` = all others.
            views: ``[N]`` views, needed unless ``pairs`` is ``"all"``.
            names: ``[N]`` different names, which random numbers go by; ``None`` = the numbers.
            corruptions: Types; ``None`` = the 15 of ``GROUPS``.
            severities: Severities.

        Raises:
            ValueError: If counts or numbers do not fit, a type or severity is unknown, a clean
                video cannot be used, or no probe has a match in the gallery.
        """
        count = len(videos)
        types = tuple(corruptions or (name for group in GROUPS.values() for name in group))
        grades = tuple(severities)
        for name in types:
            for severity in grades:
                self.how.make(name, severity)  # refuses what it does not know
        if not grades:
            raise ValueError("expected at least one severity, got none")
        chosen = _numbers(gallery, count, "gallery")
        looked_for = _numbers(
            sorted(set(range(count)) - set(chosen)) if probes is None else probes, count, "probes"
        )
        if views is None and self.how.protocol.needs_views:
            raise ValueError(
                f"expected views for pairs {self.how.protocol.pairs[0]!r}, got none; give them, or "
                'take pairs="all"'
            )
        run = Run(
            self.how,
            videos,
            _listed(labels, count, "labels"),
            None if views is None else _listed(views, count, "views"),
            [str(n) for n in range(count)] if names is None else _listed(names, count, "names"),
            looked_for,
            chosen,
        )
        clean_gallery = run.embed(chosen, lambda _: None)
        clean = run.score(run.embed(looked_for, lambda _: None), clean_gallery)
        fixed = clean_gallery
        if self.scenario == "mixed_gallery":
            fixed = run.embed(
                chosen, lambda n: draw_corruption(self.how.seed, run.names[n], types, grades)
            )
        conditions = [(name, severity) for name in types for severity in grades]
        matrix, lost = [], []
        for condition in tqdm(conditions, "corruptions", disable=not self.progress):
            found = run.embed(looked_for, lambda _, same=condition: same)
            known = fixed
            if self.scenario == "same":
                known = run.embed(chosen, lambda _, same=condition: same)
            matrix.append(run.score(found, known))
            lost.append(1 - len(found.kept) / len(looked_for))
        shape = len(types), len(grades)
        return RobustnessReport(
            self.scenario,
            self.how.score,
            clean,
            types,
            grades,
            torch.tensor(matrix, dtype=torch.float64).reshape(shape),
            torch.tensor(lost, dtype=torch.float64).reshape(shape),
        )


def _numbers(numbers: Iterable[int], count: int, name: str) -> list[int]:
    listed = [int(number) for number in numbers]
    if not listed or len(set(listed)) < len(listed) or not 0 <= min(listed) <= max(listed) < count:
        raise ValueError(
            f"expected {name} as different numbers from 0 to {count - 1}, one or more, got "
            f"{listed[:8]}{' ...' if len(listed) > 8 else ''}"
        )
    return listed


def _listed(values: Labels | Sequence[str], count: int, name: str) -> list[Any]:
    listed = as_list(values, name)
    if len(listed) != count:
        raise ValueError(f"expected {name} for each of {count} videos, got {len(listed)}")
    return listed
