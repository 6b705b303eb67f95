"""``gaitzoo robustness``: a model on videos that get worse and worse."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.cli.demo import FIRST_IDENTITY, FRAMES, VIEWS
from gaitzoo.cli.files import (
    as_fast,
    check_output,
    describe_weights,
    load_model,
    note,
    say_weights,
)
from gaitzoo.cli.options import add_command, add_model_options, embed_options, positive
from gaitzoo.cli.testset import add_dataset_options, listed_probes, scored_sequences
from gaitzoo.data.corruptions import (
    CORRUPTIONS,
    GROUPS,
    SEVERITIES,
    SILHOUETTE_CORRUPTIONS,
    SilhouetteCorruption,
    corruption,
)
from gaitzoo.data.datasets import GaitDataset
from gaitzoo.evaluation.protocols import PROTOCOLS
from gaitzoo.evaluation.robustness import SCENARIOS, RobustnessBenchmark, masks_of
from gaitzoo.models.base import GaitModel
from gaitzoo.synthetic import SyntheticWalkers, find_warm_colours, paint_walk

__all__ = ["add_robustness"]

_WALKERS = "walkers"
_SIZE = (128, 96)  # of their videos
_SEQUENCES = (("normal", 0), ("normal", 1), ("bag", 0), ("coat", 0))
_LOW_LIGHT_FRAME = 240  # rows for which the darkness of low_light is published
_RADIUS = 350
_BENCHMARK = tuple(name for group in GROUPS.values() for name in group)
_EXAMPLES = """\
  gaitzoo robustness --model dygait.walkers --data walkers --picture heat.png
  gaitzoo robustness --model gaitbase.casiab --data CASIA-B/ --protocol casiab \\
      --scenario clean_gallery --severities 1 3 5 --json scores.json
  gaitzoo robustness --model gaitbase.casiab --data CASIA-B-rgb/ --protocol casiab \\
      --segmenter facebook/mask2former-swin-tiny-coco-instance

walkers are synthetic people in colour, found again by their colours; files with silhouettes are
corrupted by the six types that need no video, those with colours (with --segmenter, or for a model
that reads them) by all 15."""


def add_robustness(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "robustness", _run, "score a model on corrupted videos (RobustGait)", _EXAMPLES
    )
    command.add_argument(
        "--data", required=True, metavar="DIR", help=f"a data set, or {_WALKERS}: synthetic people"
    )
    command.add_argument(
        "--protocol",
        choices=tuple(name for name, each in PROTOCOLS.items() if each.pairs[0] != "re_id_types"),
        help="who is looked for in which gallery (not for walkers)",
    )
    add_dataset_options(command)
    command.add_argument(
        "--segmenter",
        metavar="NAME",
        help="model on the Hub that finds people in colours (default: silhouettes are read)",
    )
    command.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default=SCENARIOS[0],
        help="what is corrupted: probes and gallery alike, probes only, or a gallery of all sorts "
        f"(default: {SCENARIOS[0]})",
    )
    command.add_argument(
        "--corruptions", nargs="+", choices=tuple(CORRUPTIONS), metavar="NAME",
        help=f"of {', '.join(CORRUPTIONS)} (default: those of the paper)",
    )  # fmt: skip
    command.add_argument(
        "--severities", nargs="+", type=int, choices=SEVERITIES, default=SEVERITIES,
        help="1 (mild) to 5 (default: all)",
    )  # fmt: skip
    command.add_argument(
        "--identities", type=positive, default=8, metavar="N", help="of walkers (default: 8)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of all random numbers")
    command.add_argument("--picture", metavar="FILE", help=".png to write: heat map of the scores")
    command.add_argument("--json", metavar="FILE", help=".json to write: scores and weights")
    add_model_options(command)


@dataclass(frozen=True)
class _Trial:
    """Videos and how they are scored."""

    videos: Any
    labels: Sequence[int]
    views: Sequence[str] | None
    names: Sequence[str]
    gallery: Sequence[int]
    probes: Sequence[int]
    pairs: str
    types: Sequence[str]
    make: Callable[..., nn.Module]
    extractor: Callable[[Tensor], Any] | None


def _run(options: argparse.Namespace) -> None:
    outputs = {
        name: check_output(getattr(options, name), options.checkpoint, suffix)
        for name, suffix in (("picture", ".png"), ("json", ".json"))
        if getattr(options, name) is not None
    }
    model, weights = load_model(options)
    trial = _walkers(options, model) if options.data == _WALKERS else _data_set(options, model)
    known = describe_weights(options, model, weights)
    benchmark = RobustnessBenchmark(
        as_fast(options, model),
        trial.extractor,
        options.scenario,
        pairs=trial.pairs,
        make=trial.make,
        seed=options.seed,
        **embed_options(options),
    )
    report = benchmark(
        trial.videos,
        trial.labels,
        trial.gallery,
        trial.probes,
        views=trial.views,
        names=trial.names,
        corruptions=options.corruptions or trial.types,
        severities=tuple(dict.fromkeys(options.severities)),
    )
    counts = f"{len(trial.probes)} probes, {len(trial.gallery)} in the gallery"
    print(f"{options.model} on {options.data} ({counts}); {report}\n")
    print(say_weights(known))
    if "json" in outputs:
        described = {**known, "data": str(options.data), **report.to_dict()}
        outputs["json"].write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if "picture" in outputs:
        report.plot(outputs["picture"], f"{options.model} on {options.data}")
    for path in outputs.values():
        note(f"wrote {path}")


def _walkers(options: argparse.Namespace, model: GaitModel) -> _Trial:
    """Synthetic people in colour: one normal walk is the gallery, one in each condition a probe."""
    _expect_silhouettes(model)
    given = [
        n for n in ("protocol", "layout", "partition", "split", "segmenter") if getattr(options, n)
    ]
    if given:
        raise ValueError(f"expected no --{given[0]} with --data {_WALKERS}; it is for files")
    walkers = SyntheticWalkers(
        options.identities,
        sequences=_SEQUENCES,
        views=VIEWS,
        frames=FRAMES,
        size=_SIZE,
        seed=options.seed,
        first_identity=FIRST_IDENTITY,
        aligned=False,
    )
    walks = [walkers[number] for number in range(len(walkers))]
    gallery = [
        n for n, walk in enumerate(walks) if (walk.condition, walk.sequence) == _SEQUENCES[0]
    ]
    return _Trial(
        [paint_walk(walk.silhouettes, seed=number) for number, walk in enumerate(walks)],
        [walk.label for walk in walks],
        [f"{walk.view:03.0f}" for walk in walks],
        [f"{w.label}/{w.condition}-{w.sequence}/{w.view:03.0f}" for w in walks],
        gallery,
        sorted(set(range(len(walks))) - set(gallery)),
        "cross_view",
        _BENCHMARK,
        _for_walkers,
        find_warm_colours,
    )


def _for_walkers(name: str, severity: int, generator: torch.Generator | None = None) -> nn.Module:
    """Corruptions of small frames: as dark at their edges as those that are published for."""
    options: dict[str, Any] = {}
    if name == "low_light":
        options = {"radius": _RADIUS * _SIZE[0] / _LOW_LIGHT_FRAME}
    return corruption(name, severity, generator=generator, **options)


def _data_set(options: argparse.Namespace, model: GaitModel) -> _Trial:
    """Sequences of files, by the protocol's probes and gallery."""
    if options.protocol is None:
        raise ValueError(
            f"expected --protocol with a data set, got none; one of {', '.join(PROTOCOLS)}"
        )
    extractor = None
    if model.modalities == ("rgb",):
        if options.segmenter is not None:
            raise ValueError(f"expected no --segmenter for {options.model}, which reads colours")
        modality, types, make, extractor = "rgb", _BENCHMARK, corruption, _channels_first
    elif options.segmenter is not None:
        _expect_silhouettes(model)
        from gaitzoo.inference.segmenters import TransformersSegmenter

        segmenter = TransformersSegmenter(options.segmenter, device=options.device)
        modality, types, make, extractor = "rgb", _BENCHMARK, corruption, masks_of(segmenter)
    else:
        _expect_silhouettes(model)
        modality, types, make = "silhouettes", SILHOUETTE_CORRUPTIONS, SilhouetteCorruption
    dataset = scored_sequences(options, [modality])
    protocol = PROTOCOLS[options.protocol]
    records = dataset.records
    if protocol.listed:
        listed = set(listed_probes(dataset, options.protocol))
        is_probe = [f"{r.identity}-{r.type}-{r.view}" in listed for r in records]
        is_known = [not probe for probe in is_probe]
    else:
        chosen = [
            (
                protocol.choose(dataset.types, each.query),
                protocol.choose(dataset.types, each.gallery),
            )
            for each in protocol.conditions
        ]
        is_probe = [any(query[n] for query, _ in chosen) for n in range(len(records))]
        is_known = [any(known[n] for _, known in chosen) for n in range(len(records))]
    views = list(dataset.views) if protocol.needs_views else None
    if views is not None and protocol.view_separator is not None:
        views = [view.split(protocol.view_separator)[0] for view in views]
    return _Trial(
        _Frames(dataset, modality),
        [-1 - n if label < 0 else label for n, label in enumerate(dataset.labels.tolist())],
        views,
        [record.name for record in records],
        [n for n, known in enumerate(is_known) if known],
        [n for n, probe in enumerate(is_probe) if probe],
        protocol.pairs[0],
        types,
        make,
        extractor,
    )


class _Frames:
    """Sequences of a data set, with time in front."""

    def __init__(self, dataset: GaitDataset, modality: str) -> None:
        self.dataset, self.modality = dataset, modality

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        frames = torch.as_tensor(self.dataset[index].sequence)
        return frames.transpose(0, 1) if self.modality == "rgb" else frames


def _channels_first(video: Tensor) -> Tensor:
    return video.transpose(0, 1)


def _expect_silhouettes(model: GaitModel) -> None:
    if model.modalities != ("silhouettes",):
        raise ValueError(
            f"expected a model of silhouettes, got one of {', '.join(model.modalities)}; take "
            "another --model"
        )
