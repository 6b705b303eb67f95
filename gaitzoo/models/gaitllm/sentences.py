"""From gait tokens to a language model's sentence and back to one gait feature.

Blocks of GaitLLM, each usable alone: "Bridging Gait Recognition and Large Language Models Sequence
Modeling", CVPR 2025, pp. 3460-3469. A sentence is ``[N, L, D]``; sentences of different lengths are
padded on the L axis, and what stands past the end never matters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.sequence import lengths_for, mask_fill, masked_mean

__all__ = ["G2LProjector", "L2GProjector", "RepresentationAggregator"]


class G2LProjector(nn.Module):
    """Brings gait tokens to the width and scale of a language model's words.

    ``LN``, a linear layer, times one learned number.

    Source: none; GaitLLM (CVPR 2025) names no such layer, but the widths differ. All of it is
    fixed, without a source.

    Args:
        dim: D of the tokens.
        llm_dim: Width of the language model.
        scale: First value of the learned number, best the root mean square of its word embeddings
            (:attr:`gaitzoo.FrozenLLM.embedding_scale`).

    Shapes:
        tokens: ``[N, L, D]``.
        returns: ``[N, L, llm_dim]``.

    Raises:
        ValueError: If the tokens have another shape.

    Example:
        >>> G2LProjector(16, 24, scale=0.02)(torch.rand(2, 5, 16)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(self, dim: int, llm_dim: int, scale: float | Tensor = 1.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, llm_dim)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.scale = nn.Parameter(torch.as_tensor(scale, dtype=torch.get_default_dtype()).clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the sentence for the language model."""
        if tokens.ndim != 3 or tokens.shape[2] != self.linear.in_features:
            raise ValueError(
                f"expected tokens [N, L, {self.linear.in_features}], got {shape_of(tokens)}"
            )
        return self.linear(self.norm(tokens)) * self.scale


class L2GProjector(nn.Module):
    """Brings the output of a language model to the width of gait features.

    Source: GaitLLM (CVPR 2025), language-to-gait projector: fully connected, back to the encoder's
    width. Our choice: no bias (behind a maximum over the sentence it would shift all samples
    alike); fixed, without a source: one layer.

    Args:
        llm_dim: Width of the language model.
        out_channels: C of the gait features.
        bias: Whether there is a bias.

    Shapes:
        hidden: ``[N, L, llm_dim]``.
        lengths: ``[N]`` int64, valid places of the sentence; ``None`` = all L.
        returns: ``[N, L, C]``; zeros past the end.

    Raises:
        ValueError: If the width is another one.

    Example:
        >>> L2GProjector(24, 8)(torch.rand(2, 5, 24)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, llm_dim: int, out_channels: int = 512, bias: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(llm_dim, out_channels, bias=bias)
        nn.init.xavier_uniform_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the projected sentence."""
        if hidden.ndim != 3 or hidden.shape[2] != self.linear.in_features:
            raise ValueError(
                f"expected a sentence [N, L, {self.linear.in_features}], got {shape_of(hidden)}"
            )
        lengths = lengths_for(lengths, hidden, axis=1)
        return mask_fill(self.linear(mask_fill(hidden, lengths, axis=1)), lengths, axis=1)


class RepresentationAggregator(nn.Module):
    """One vector from a sentence: maximum, mean, or the last valid place.

    Source: GaitLLM (CVPR 2025), representation aggregator; the paper compares the three and takes
    the maximum.

    Args:
        mode: ``"gmp"`` (maximum), ``"gap"`` (mean) or ``"last"``.

    Shapes:
        sentence: ``[N, L, C]``, any values.
        lengths: ``[N]`` int64, valid places; ``None`` = all L.
        returns: ``[N, C]``.

    Raises:
        ValueError: If ``mode`` is unknown or the sentence has another shape.

    Example:
        >>> sentence = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> [RepresentationAggregator(m)(sentence, torch.tensor([2])).item()
        ...  for m in ("gmp", "gap", "last")]
        [3.0, 2.0, 3.0]
    """

    def __init__(self, mode: Literal["gmp", "gap", "last"] = "gmp") -> None:
        super().__init__()
        if mode not in ("gmp", "gap", "last"):
            raise ValueError(f'expected mode "gmp", "gap" or "last", got {mode!r}')
        self.mode = mode

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return repr(self.mode)

    def forward(self, sentence: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the vector."""
        if sentence.ndim != 3:
            raise ValueError(f"expected a sentence [N, L, C], got {shape_of(sentence)}")
        lengths = lengths_for(lengths, sentence, axis=1)
        if self.mode == "gmp":
            lowest = torch.finfo(sentence.dtype).min
            return mask_fill(sentence, lengths, lowest, axis=1).amax(dim=1)
        if self.mode == "gap":
            return masked_mean(sentence.transpose(1, 2), lengths).squeeze(2)
        if lengths is None:
            return sentence[:, -1]
        place = (lengths - 1)[:, None, None].expand(-1, 1, sentence.shape[2])
        return sentence.gather(1, place).squeeze(1)
