"""Learning rates of their own for the layers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import nn

__all__ = ["layerwise_lr_groups"]


def layerwise_lr_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer, each with its learning rate; rate 0 freezes.

    Every parameter stands in one group, that of the longest name that fits. Parameters with rate 0
    take no gradient any more; batch-norm statistics of theirs still follow the batches in training
    mode, unless ``model.freeze(until=...)`` stops these too.

    Source: fine-tuning of FoundationGait (https://arxiv.org/abs/2512.00691), by the authors'
    configurations, with the rates of ``FoundationGait.finetune_rates``.

    Args:
        model: Parameters with rate 0 are frozen in place.
        rates: Dotted name of a module or parameter to its rate, 0 or more; ``""`` is for all that
            no other name fits.

    Returns:
        A dictionary per name, in the order of ``rates``: ``params``, ``lr`` and ``name``.

    Raises:
        TypeError: If ``rates`` is no mapping.
        ValueError: If a rate is no number, negative or not finite, a name fits nothing, or a
            parameter has no rate.

    Example:
        >>> import gaitzoo, torch
        >>> model = gaitzoo.create_model("gaitbase_tiny")
        >>> groups = layerwise_lr_groups(model, {"backbone.stem": 0.0, "backbone": 1e-3, "": 0.1})
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
        >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
        [('backbone.stem', 0.0), ('backbone', 0.001), ('', 0.1)]
        >>> model.backbone.stem[0].weight.requires_grad
        False
    """
    if not isinstance(rates, Mapping):
        raise TypeError(
            "expected rates as a mapping from names of modules to learning rates, got "
            f"{type(rates).__name__}; for example {{'': 0.1}}"
        )
    for name, rate in rates.items():
        if not isinstance(rate, Real) or not 0 <= rate < float("inf"):
            raise ValueError(f"expected a rate of 0 or more for {name!r}, got {rate!r}")
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for key, parameter in model.named_parameters():
        fitting = [n for n in rates if not n or key == n or key.startswith(f"{n}.")]
        if not fitting:
            raise ValueError(
                f"expected a rate for every parameter, got none for {key}; give '' a rate, which "
                "is for all that no other name fits"
            )
        groups[max(fitting, key=len)].append(parameter)
    idle = [name for name, parameters in groups.items() if name and not parameters]
    if idle:
        raise ValueError(
            f"expected names of modules of {type(model).__name__}, got {', '.join(idle)}; for "
            f"example {', '.join(name for name, _ in model.named_children())}"
        )
    for name, parameters in groups.items():
        if rates[name] == 0:
            for parameter in parameters:
                parameter.requires_grad_(False)
    return [
        {"params": parameters, "lr": rates[name], "name": name}
        for name, parameters in groups.items()
        if parameters
    ]
