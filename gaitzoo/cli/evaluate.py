"""``gaitzoo evaluate``: a model on a data set, by the data set's protocol."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from torch import Tensor
from torch.utils.data import Subset

from gaitzoo.cli.files import (
    as_fast,
    check_output,
    describe_weights,
    load_model,
    note,
    say_weights,
)
from gaitzoo.cli.options import add_command, add_model_options, embed_options, positive
from gaitzoo.cli.parts import Parts, files_hash
from gaitzoo.cli.reading import in_order
from gaitzoo.cli.testset import add_dataset_options, listed_probes, scored_sequences
from gaitzoo.data.datasets import GaitDataset
from gaitzoo.evaluation.evaluate import evaluate
from gaitzoo.evaluation.open_set_run import evaluate_open_set
from gaitzoo.evaluation.protocols import PROTOCOLS
from gaitzoo.evaluation.submission import write_grew_submission
from gaitzoo.inference.embed import embed
from gaitzoo.inference.inputs import align_with
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedCfg

__all__ = ["add_evaluate"]

_UNKNOWN = "unknown"  # identity of those whose name is kept by the publishers
_OUTPUTS = {
    "json": (".json", "scores, published numbers and weights"),
    "latex": (".tex", "the tables"),
    "cmc": (".png", "picture of Rank-1 to Rank-20"),
    "views": (".png", "picture of Rank-1 by views, of the first condition"),
    "roc": (".png", "picture of 1 - FNMR over FMR, of --open-set"),
    "det": (".png", "picture of FNIR over FPIR, of --open-set"),
    "submission": (".csv", "for GREW's server"),
}
_EXAMPLES = """\
  gaitzoo evaluate --model gaitbase.casiab --data CASIA-B/ --protocol casiab
  gaitzoo evaluate --model deepgaitv2.gait3d --data Gait3D-pkl/ --protocol gait3d \\
      --partition Gait3D.json --json scores.json --cmc cmc.png
  gaitzoo evaluate --model gaitbase.casiab --data CASIA-B/ --protocol casiab --open-set \
      --false-positives 0.01 --det det.png

Embeddings are kept in --cache: the same command goes on where a killed one stopped, and another
--metric or --rerank embeds nothing again. With --open-set, half of the people choose thresholds and
half are the test; a random half of each is not in the gallery."""


def add_evaluate(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "evaluate", _run, "score a model on a data set by its protocol", _EXAMPLES
    )
    command.add_argument("--data", required=True, metavar="DIR", help="the data set")
    command.add_argument("--protocol", required=True, choices=tuple(PROTOCOLS))
    add_dataset_options(command)
    command.add_argument(
        "--metric",
        choices=("euclidean", "cosine"),
        help="how embeddings are compared (default: as the model says)",
    )
    command.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    command.add_argument(
        "--bootstrap",
        type=positive,
        default=0,
        metavar="N",
        help="draws of identities for 95 %% intervals, 1000 is usual (default: none)",
    )
    command.add_argument(
        "--cache",
        metavar="DIR",
        help="folder that keeps embeddings (default: in the cache of the Hub's client)",
    )
    command.add_argument("--workers", type=positive, default=0, metavar="N", help="reading ahead")
    command.add_argument(
        "--open-set", action="store_true", help="also errors with people who are not in the gallery"
    )
    command.add_argument(
        "--false-positives",
        type=_share,
        metavar="RATE",
        help="FMR and FPIR that thresholds are chosen for (default: 0.01)",
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="of who is not in the gallery (default: 0)"
    )
    for name, (suffix, text) in _OUTPUTS.items():
        command.add_argument(f"--{name}", metavar="FILE", help=f"{suffix} to write: {text}")
    add_model_options(command)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def _run(options: argparse.Namespace) -> None:
    outputs = {
        name: check_output(getattr(options, name), options.checkpoint, suffix)
        for name, (suffix, _) in _OUTPUTS.items()
        if getattr(options, name) is not None
    }
    if "submission" in outputs and options.protocol != "grew":
        raise ValueError(f"expected --protocol grew with --submission, got {options.protocol}")
    if "views" in outputs and "cross_view" not in PROTOCOLS[options.protocol].pairs:
        raise ValueError(f"expected a protocol by views with --views, got {options.protocol}")
    _check_open_set(options)
    model, weights = load_model(options)
    joints = getattr(model, "joint_format", "coco17")
    dataset = scored_sequences(options, model.modalities, align_with(model), joints)
    known = describe_weights(options, model, weights)
    embeddings = _embed(options, model, dataset, known["weights_sha256"])
    records = dataset.records
    labels = [_UNKNOWN if record.identity is None else record.identity for record in records]
    types, views = dataset.types, dataset.views
    metric = options.metric or model.pretrained_cfg.distance
    if "submission" in outputs:
        count = write_grew_submission(
            outputs["submission"], embeddings, labels, types, views, metric=metric
        )
        print(f"{outputs['submission']}: {count} probes\n")
    listed = PROTOCOLS[options.protocol].listed
    given = {
        "protocol": options.protocol,
        "types": types,
        "views": views,
        "probes": listed_probes(dataset, options.protocol) if listed else None,
        "metric": metric,
        "bootstrap": options.bootstrap,
        "device": options.device,
    }
    result = evaluate(embeddings, labels, rerank=options.rerank, **given)
    # Before what may refuse the data.
    print(f"{options.model} on {options.data} ({len(records)} sequences)\n\n{result}\n")
    strangers = None
    if options.open_set:
        chosen = {"rate": options.false_positives, "seed": options.seed}
        said = {name: value for name, value in chosen.items() if value is not None}
        strangers = evaluate_open_set(embeddings, labels, **given, **said)
    cfg = model.pretrained_cfg
    if strangers is not None:
        print(f"{strangers}\n")
    print(_published(cfg))
    print(say_weights(known))
    if "json" in outputs:
        described = {
            **known,
            "data": str(options.data),
            "layout": dataset.layout,
            "sequences": len(records),
            "published": dict(cfg.metrics),
            **result.to_dict(),
        }
        if strangers is not None:
            described["open_set"] = strangers.to_dict()
        outputs["json"].write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if "latex" in outputs:
        tables = [each.to_latex() for each in (result, strangers) if each is not None]
        outputs["latex"].write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    if "cmc" in outputs:
        result.plot_cmc(outputs["cmc"])
    if "views" in outputs:
        result.plot_views(result.rows[0].condition, outputs["views"])
    if strangers is not None and "roc" in outputs:
        strangers.plot_roc(outputs["roc"])
    if strangers is not None and "det" in outputs:
        strangers.plot_det(outputs["det"])
    for path in outputs.values():
        note(f"wrote {path}")


def _check_open_set(options: argparse.Namespace) -> None:
    """Refuses options that would do nothing, before the work."""
    named = {"--roc": options.roc, "--det": options.det, "--seed": options.seed}
    named["--false-positives"] = options.false_positives
    idle = [name for name, value in named.items() if value is not None]
    if idle and not options.open_set:
        raise ValueError(f"expected --open-set with {', '.join(idle)}, got none; add it")
    if options.open_set and options.rerank:
        raise ValueError(
            "expected distances as they are with --open-set, got --rerank, after which a distance "
            "depends on all other sequences; leave it out"
        )


def _embed(
    options: argparse.Namespace, model: GaitModel, dataset: GaitDataset, weights: str
) -> Tensor:
    """Embeddings of all sequences; those that an earlier run has made are read."""
    files = files_hash(path for record in dataset.records for path in record.files.values())
    known = f"{weights} {options.fast} {dataset.modalities} {files}"
    run = hashlib.sha256(known.encode()).hexdigest()
    cache = Path(options.cache or Path(constants.HF_ASSETS_CACHE) / "gaitzoo" / "embeddings")
    folder = cache.expanduser() / run[:32]
    parts = Parts(len(dataset), run, folder)
    waiting = parts.waiting()
    numbers = [number for block in waiting for number in block]
    if len(numbers) < len(dataset):
        done = len(dataset) - len(numbers)
        note(f"{done} of {len(dataset)} sequences were embedded before ({folder})")
    if waiting:
        fast = as_fast(options, model)
        samples = in_order(Subset(dataset, numbers), options.workers)
        for block in waiting:
            some = _Some(samples, len(block))
            parts.keep(block, embed(fast, some, **embed_options(options)))
    return parts.joined()[0]


class _Some:
    """The next sequences of a data set, and how many there are."""

    def __init__(self, samples: Iterator[Any], count: int) -> None:
        self.samples, self.count = samples, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            yield next(self.samples).sequence


def _published(cfg: PretrainedCfg) -> str:
    """One line on what stands in papers."""
    numbers = {name: value for name, value in cfg.metrics.items() if name != "protocol"}
    if not numbers:
        return "published: no numbers for these weights"
    shown = ", ".join(f"{name} {value}" for name, value in numbers.items())
    measured = f" ({cfg.metrics['protocol']})" if "protocol" in cfg.metrics else ""
    word = ", a reconstruction" if cfg.fidelity == "reconstruction" else ""
    return f"published for {cfg.name}{word}, in percent: {shown}{measured}"
