"""Two layers of matrices over body parts, with batch norm: projectors and predictors."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.heads import PartLinear

__all__ = ["PartMLP"]


class PartMLP(nn.Module):
    """A matrix per part, batch norm, ReLU, another matrix per part and, if wanted, a batch norm.

    Batch norms have statistics of their own for every part and channel, index ``c * P + p``.

    Source: FoundationGait (https://arxiv.org/abs/2512.00691), projector (with ``last_norm``) and
    predictor (without).

    Args:
        num_parts: P.
        channels: C of what goes in and comes out.
        hidden_channels: C between the matrices; ``None`` = as many.
        last_norm: Whether a batch norm stands at the end.

    Shapes:
        x: ``[N, P, C]``, any values; in training N > 1.
        returns: ``[N, P, C]``.

    Raises:
        ValueError: If a size is no positive whole number, parts or channels are others, or a batch
            of one comes in training.

    Example:
        >>> PartMLP(31, 16)(torch.rand(2, 31, 16)).shape
        torch.Size([2, 31, 16])
    """

    keeps_float32 = True

    def __init__(
        self,
        num_parts: int,
        channels: int,
        hidden_channels: int | None = None,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        hidden = channels if hidden_channels is None else hidden_channels
        self.fc1 = PartLinear(num_parts, channels, hidden)
        self.bn1 = nn.BatchNorm1d(num_parts * hidden)
        self.fc2 = PartLinear(num_parts, hidden, channels)
        self.bn2 = nn.BatchNorm1d(num_parts * channels) if last_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the new part vectors."""
        if self.bn1.training and len(x) == 1:
            raise ValueError(
                f"expected two sequences or more in train mode, got {shape_of(x)}, of which batch "
                "norm has no statistics; call model.eval() to embed, or train on larger batches"
            )
        x = self.fc2(F.relu(_normalize(self.bn1, self.fc1(x))))
        return x if self.bn2 is None else _normalize(self.bn2, x)


def _normalize(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm of every part and channel of ``[N, P, C]``."""
    flat = norm(rearrange(x, "n p c -> n (c p)"))
    return rearrange(flat, "n (c p) -> n p c", p=x.shape[1])
