"""Ready modules that somebody hands to GaitLLM, and whether they fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.models.gaitllm.frozen_llm import FrozenLLM

__all__ = ["check_ready", "make_llm", "token_shape"]


def check_ready(**modules: Any) -> None:
    """Raises unless every argument is a module or ``None``.

    Args:
        **modules: By the names of the arguments.

    Raises:
        TypeError: If one is something else.
    """
    for name, module in modules.items():
        if module is not None and not isinstance(module, nn.Module):
            raise TypeError(f"expected {name} as a module or None, got {type(module).__name__}")


def make_llm(llm: Any, **arguments: Any) -> FrozenLLM:
    """The language model, ready or by arguments.

    Args:
        llm: As for :class:`FrozenLLM`, or one.
        **arguments: Those of :class:`FrozenLLM`.

    Raises:
        ValueError: If a ready one comes with arguments.
    """
    if not isinstance(llm, FrozenLLM):
        return FrozenLLM(llm, **arguments)
    given = [
        key for key, value in arguments.items() if value is not (True if key == "bos" else None)
    ]
    if given:
        raise ValueError(
            f"expected a ready FrozenLLM alone, got it with {', '.join(given)}; pass that to "
            "FrozenLLM"
        )
    return llm


@torch.no_grad()
def token_shape(tokenizer: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """S and D of the tokens that a ready tokenizer gives, found with one empty map.

    Args:
        tokenizer: Called with a map and ``None`` for lengths.
        channels: Channels of the encoder's map.
        size: Its rows and columns.

    Raises:
        ValueError: If it gives no ``[N, T, S, D]``.
    """
    weight = next(tokenizer.parameters(), torch.zeros(()))
    was_training = tokenizer.training
    tokens = tokenizer.eval()(weight.new_zeros(1, channels, 2, *size), None)
    tokenizer.train(was_training)
    if not isinstance(tokens, Tensor) or tokens.ndim != 4 or tokens.shape[:2] != (1, 2):
        got = shape_of(tokens) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(
            f"expected a tokenizer that gives tokens [N, T, S, D] for maps [N, {channels}, T, "
            f"{size[0]}, {size[1]}], got {got} for one sequence of two frames"
        )
    return tokens.shape[2], tokens.shape[3]
