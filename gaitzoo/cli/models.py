"""``gaitzoo models``: a table of what there is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tabulate import tabulate

from gaitzoo.cli.options import add_command
from gaitzoo.hub.factory import create_model
from gaitzoo.hub.structure import structure_alone
from gaitzoo.models.cfg import FIDELITIES, PretrainedCfg
from gaitzoo.models.registry import is_model, list_models, list_tags, model_info

__all__ = ["add_models"]

_EXAMPLES = """\
  gaitzoo models
  gaitzoo models 'dygait.g*'
  gaitzoo models gaitbase --json"""


def add_models(commands: Any) -> None:
    """Adds the command."""
    models = add_command(commands, "models", _run, "list the models", _EXAMPLES)
    models.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="wildcard on model or model.tag"
    )
    models.add_argument("--json", action="store_true", help="print all that is known, as JSON")


def _run(options: argparse.Namespace) -> None:
    # Small variants for tests are found by their names only.
    names = [options.pattern] if is_model(options.pattern) else list_models(options.pattern)
    if "." not in options.pattern:
        names = [f"{name}.{tag}".rstrip(".") for name in names for tag in list_tags(name)]
    if not names:
        raise ValueError(f"no model is named like {options.pattern!r}; 'gaitzoo models' lists all")
    cfgs = [model_info(name) for name in names]
    if options.json:
        print(json.dumps([_cfg_as_json(cfg) for cfg in cfgs], indent=2))
        return
    rows = [
        (
            cfg.name,
            cfg.fidelity,
            f"{_count_parameters(cfg):,}",
            "{} x {}".format(*cfg.input_size),
            _weights_column(cfg),
            _rank1_column(cfg),
            cfg.license if cfg.has_weights else "",
        )
        for cfg in cfgs
    ]
    print(
        tabulate(
            rows,
            (
                "model",
                "fidelity",
                "parameters",
                "input",
                "weights",
                "Rank-1 %",
                "licence of the weights",
            ),
            colalign=("left", "left", "right", "right", "right", "right", "left"),
            disable_numparse=True,
        )
    )
    print()
    for name, meaning in FIDELITIES.items():
        print(f"{name}: {meaning}")
    print(
        "\nParameters include the classifier of the data set. Rank-1 is as published: 'mean' over "
        "several\nconditions, a mode in brackets if that one was measured instead, (walkers) if "
        "gaitzoo\nmeasured it on synthetic people, (reconstruction) if it is of the authors' own "
        "code and\nthe code here is not theirs. 'gaitzoo models PATTERN --json' says under which "
        "protocol,\nand all else that is known."
    )


def _cfg_as_json(cfg: PretrainedCfg) -> dict[str, Any]:
    known = {
        "name": cfg.name,
        "parameters": _count_parameters(cfg),
        "has_weights": cfg.has_weights,
        **cfg.to_dict(),
    }
    if cfg.has_weights:
        del known["unavailable"]
    return known


def _weights_column(cfg: PretrainedCfg) -> str:
    if not cfg.has_weights:
        return "none"
    return "yes" if cfg.size is None else f"{cfg.size / 1e6:.1f} MB"


def _rank1_column(cfg: PretrainedCfg) -> str:
    """The published rate; marked where it is a mean, or that of another mode of the network."""
    rate, mark = cfg.metrics.get("rank1"), ""
    if rate is None:
        rate, mark = cfg.metrics.get("rank1_mean"), " mean"
    if rate is None:
        rate, mark = cfg.metrics.get("rank1_walkers"), " (walkers)"
    if "mode" in cfg.metrics:
        mark += f" ({cfg.metrics['mode']})"
    if cfg.fidelity == "reconstruction":
        mark += " (reconstruction)"
    return "" if rate is None else f"{rate}{mark}"


def _count_parameters(cfg: PretrainedCfg) -> int:
    """Parameters with the classifier, counted without allocating them."""
    with structure_alone():
        model = create_model(cfg.name)
    return sum(parameter.numel() for parameter in model.parameters())
