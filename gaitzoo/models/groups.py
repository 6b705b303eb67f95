"""Parameters of a model in groups, as optimizers want them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

__all__ = ["layer_groups", "names_without_decay"]

_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


def layer_groups(model: nn.Module, head: str | None, coarse: bool) -> dict[str, str]:
    """The layers of a model in the order in which they are defined, as timm's matchers.

    Args:
        model: Left as it is.
        head: Name of the module that belongs to the last group with everything else that no
            pattern fits; ``None`` = there is none.
        coarse: Lists of lists of blocks make one group per inner list; ``False`` = per block.

    Returns:
        Name of each group to a pattern for the names of its parameters.
    """
    groups: dict[str, list[str]] = {}
    for name, module in _layers(model, "", 1 if coarse else 2):
        parameters = list(module.parameters())
        if not parameters or (head is not None and f"{name}.".startswith(f"{head}.")):
            continue
        if groups and all(parameter.ndim < 2 for parameter in parameters):
            # Norms and exponents belong to what they follow.
            groups[next(reversed(groups))].append(name)
        else:
            groups[name] = [name]
    if groups:
        # Tokens and tables of the model itself come before its layers.
        next(iter(groups.values())).extend(
            name for name, _ in model.named_parameters(recurse=False)
        )
    return {
        first: f"^(?:{'|'.join(map(re.escape, names))})(?:\\.|$)" for first, names in groups.items()
    }


def _layers(
    parent: nn.Module, prefix: str, depth: int, in_list: bool = False
) -> Iterator[tuple[str, nn.Module]]:
    """What stands in lists, at most ``depth`` lists inside each other, and beside them."""
    for name, child in parent.named_children():
        name = f"{prefix}{name}"
        children = list(child.children())
        is_list = isinstance(child, _LISTS)
        holds_list = any(isinstance(module, _LISTS) and len(module) for module in children)
        # Lists in a block of a block are branches beside each other.
        opens = (holds_list or len(children) == 1) and (not in_list or isinstance(parent, _LISTS))
        has_own = bool(list(child.parameters(recurse=False)))
        if depth and not has_own and (is_list or opens):
            yield from _layers(child, f"{name}.", depth - is_list, in_list or is_list)
        else:
            yield name, child


def names_without_decay(model: nn.Module) -> set[str]:
    """Parameters that weight decay would only harm: biases, norms and single numbers.

    Args:
        model: Left as it is.
    """
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim < 2 or name.startswith("bias") or isinstance(module, _NORMS)
    }
