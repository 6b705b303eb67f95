"""Rows ``[N, L, ...]`` of frames or tokens that are padded on their second axis."""

from __future__ import annotations

import torch
from torch import Tensor

from gaitzoo.layers.checks import check_lengths, shape_of
from gaitzoo.layers.sequence import lengths_to_mask

__all__ = ["check_tokens", "masked", "row_lengths", "zero_past"]


def masked(x: Tensor, lengths: Tensor | None, value: float) -> Tensor:
    """Writes a value past the end of every row of ``[N, L, ...]``."""
    if lengths is None:
        return x
    mask = lengths_to_mask(lengths, x.shape[1])
    # Not a view to the shape wanted: torch 2.6 does not export that for any number of frames.
    return x.masked_fill(~mask[(..., *[None] * (x.ndim - 2))], value)


def zero_past(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zeros past the end of every row of ``[N, L, ...]``."""
    return masked(x, lengths, 0.0)


def row_lengths(lengths: Tensor | None, x: Tensor, num_rows: int, length: int) -> Tensor | None:
    """Checked lengths as int64 on the device of ``x``; ``None`` stays ``None``."""
    if lengths is None:
        return None
    # What is counted with them would not fit into small integers.
    return check_lengths(lengths, num_rows, length).to(x.device, torch.int64)


def check_tokens(tokens: Tensor, dim: int | None = None) -> None:
    """Raises unless tokens are ``[N, T, S, dim]``."""
    if tokens.ndim != 4 or dim not in (None, tokens.shape[-1]):
        raise ValueError(f"expected tokens [N, T, S, {dim or 'D'}], got {shape_of(tokens)}")
