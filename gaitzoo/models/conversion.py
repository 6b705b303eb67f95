"""Parameters of other layouts under our names: a table of patterns, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

__all__ = ["StateDict", "UnknownKeysError", "pairs_apart", "rename_by_table", "rename_keys"]

StateDict = dict[str, Tensor]


class UnknownKeysError(ValueError):
    """A state dict has keys that the authors' layout of a model does not have.

    Args:
        model: What the layout belongs to.
        unknown: The keys.
        known: How many keys the layout does have.
    """

    def __init__(self, model: str, unknown: list[str], known: int) -> None:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        super().__init__(f"{len(unknown)} key(s) are not of the authors' {model}: {shown}")
        self.unknown = unknown
        self.known = known


def rename_keys(
    state_dict: StateDict, new_key: Callable[[str], str | None], model: str
) -> StateDict:
    """Renames every key, or refuses the whole state dict.

    Args:
        state_dict: Parameters under other names.
        new_key: Gives our name for a key, ``None`` for an unknown one.
        model: Owner of the layout, for the message.

    Raises:
        UnknownKeysError: If a key has no new name.
        ValueError: If two keys have the same new name.
    """
    renamed = {key: new_key(key) for key in state_dict}
    unknown = [key for key, new in renamed.items() if new is None]
    if unknown:
        raise UnknownKeysError(model, unknown, len(renamed) - len(unknown))
    new_names = [new for new in renamed.values() if new is not None]
    doubled = sorted({new for new in new_names if new_names.count(new) > 1})
    if doubled:
        raise ValueError(
            f"expected one tensor for every parameter of {model}, got several for "
            f"{', '.join(doubled)}; is this a mixture of two files?"
        )
    return {new: state_dict[key] for key, new in renamed.items() if new is not None}


def rename_by_table(state_dict: StateDict, table: Mapping[str, str], model: str) -> StateDict:
    r"""Renames every key by the first pattern that fits all of it, or refuses all of them.

    Args:
        state_dict: Parameters under other names.
        table: Regular expression to our name, in which ``\1`` is the first group. Plain names,
            whose dots need no backslash, are patterns too.
        model: Owner of the layout, for the message.

    Raises:
        UnknownKeysError: If a key fits no pattern.
        ValueError: If two keys have the same new name.

    Example:
        >>> import torch
        >>> table = {r"conv(\d).weight": r"layers.\1"}
        >>> rename_by_table({"conv3.weight": torch.ones(1)}, table, "Net")
        {'layers.3': tensor([1.])}
    """
    patterns = [(re.compile(pattern), ours) for pattern, ours in table.items()]

    def new_key(key: str) -> str | None:
        for pattern, ours in patterns:
            if match := pattern.fullmatch(key):
                return match.expand(ours)
        return None

    return rename_keys(state_dict, new_key, model)


def pairs_apart(weight: Tensor) -> Tensor:
    """Weights of two scores per channel: side by side in the authors' files, two blocks in ours.

    Args:
        weight: ``[2 * C, ...]``: both scores of the first channel, both of the second, ...

    Returns:
        The same shape: the first scores of all channels, then the second ones.

    Example:
        >>> import torch
        >>> pairs_apart(torch.arange(6)).tolist()
        [0, 2, 4, 1, 3, 5]
    """
    return weight.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
