"""Heads over body parts: a matrix per part, and batch norm with classes behind it.

All take and give parts on the middle axis, ``[N, P, C]``, and each works alone in other networks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

from gaitzoo.layers.checks import check_num_classes, check_size, shape_of

__all__ = ["PartBNNeck", "PartLinear", "SharedBNNeck"]


class PartLinear(nn.Module):
    """A matrix of its own for every body part, no bias ("separate FC").

    Source: GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.4, independent FCs after pooling.

    Args:
        num_parts: P.
        in_channels: C_in.
        out_channels: C_out.
        normalized: Divide the columns of each matrix by their length, so that inputs of length
            one give cosines.

    Shapes:
        x: ``[N, P, C_in]``, any values.
        returns: ``[N, P, C_out]``.

    Raises:
        ValueError: If the number of parts or channels is another one.

    Example:
        >>> PartLinear(16, 32, 8)(torch.rand(2, 16, 32)).shape
        torch.Size([2, 16, 8])
    """

    keeps_float32 = True

    def __init__(
        self, num_parts: int, in_channels: int, out_channels: int, normalized: bool = False
    ) -> None:
        super().__init__()
        check_size(num_parts=num_parts, in_channels=in_channels, out_channels=out_channels)
        self.normalized = normalized
        self.weight = nn.Parameter(torch.empty(num_parts, in_channels, out_channels))
        nn.init.xavier_uniform_(self.weight)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        parts, in_channels, out_channels = self.weight.shape
        return f"{parts}, {in_channels}, {out_channels}, normalized={self.normalized}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns every part times its matrix."""
        if x.ndim != 3 or x.shape[1:] != self.weight.shape[:2]:
            raise ValueError(
                f"expected parts [N, {self.weight.shape[0]}, {self.weight.shape[1]}], got "
                f"{shape_of(x)}; parts stand on the middle axis"
            )
        weight = F.normalize(self.weight, dim=1) if self.normalized else self.weight
        return torch.einsum("npc,pcd->npd", x, weight)


class PartBNNeck(nn.Module):
    """Batch norm with statistics of its own for every part and channel, then cosine classes.

    Source: BNNeck of "Bag of Tricks" (https://arxiv.org/abs/1903.07071), Sec. 3.6, per part as in
    GaitBase (https://arxiv.org/abs/2211.06597), Sec. 4.

    Args:
        num_parts: P.
        channels: C.
        num_classes: K, 0 = no classes.
        order: How the P x C statistics lie in memory, ``"part"`` (index ``p * C + c``) or
            ``"channel"`` (index ``c * P + p``). Both have the same shape, and files of both kinds
            exist: a file read in the wrong order loads without complaint but gives wrong logits.

    Shapes:
        x: ``[N, P, C]``, any values; in training N > 1.
        returns: the features after batch norm, each part of length one, ``[N, P, C]``; the
            cosine of every part with every class, ``[N, P, K]`` in [-1, 1], or ``None``.

    Raises:
        ValueError: If ``order`` is unknown or the shape of ``x`` is wrong.

    Example:
        >>> features, logits = PartBNNeck(16, 32, num_classes=5)(torch.rand(2, 16, 32))
        >>> features.shape, logits.shape
        (torch.Size([2, 16, 32]), torch.Size([2, 16, 5]))
    """

    keeps_float32 = True

    def __init__(
        self, num_parts: int, channels: int, num_classes: int, order: str = "channel"
    ) -> None:
        super().__init__()
        if order not in ("part", "channel"):
            raise ValueError(f'expected order "part" or "channel", got {order!r}')
        self.num_parts, self.channels, self.order = num_parts, channels, order
        self.bn = nn.BatchNorm1d(num_parts * channels)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the class matrices by fresh ones for ``num_classes`` classes (0 = none)."""
        self.classifier = _classifier(self, num_classes, normalized=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the unit-length features and the cosines."""
        _check_neck_input(x, self.num_parts, self.channels)
        if self.bn.training and len(x) == 1:
            raise ValueError(
                "expected two sequences or more in train mode, got one, of which batch norm has no "
                "statistics; call model.eval() to embed, or train on larger batches (a loader's "
                "drop_last=True leaves out a single last one)"
            )
        flat = "(p c)" if self.order == "part" else "(c p)"
        x = self.bn(rearrange(x, f"n p c -> n {flat}"))
        x = rearrange(x, f"n {flat} -> n p c", c=self.channels)
        x = F.normalize(x, dim=2)
        return x, None if self.classifier is None else self.classifier(x)


class SharedBNNeck(nn.Module):
    """Batch norm with one set of statistics for all parts, then a class matrix per part.

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.4, separate FC, batch norm, classes.

    Args:
        num_parts: P.
        channels: C.
        num_classes: K, 0 = no classes.

    Shapes:
        x: ``[N, P, C]``, any values.
        returns: the features after batch norm ``[N, P, C]``; the class scores ``[N, P, K]``,
            not normalised, or ``None``.

    Raises:
        ValueError: If the shape of ``x`` is wrong.

    Example:
        >>> features, logits = SharedBNNeck(16, 32, num_classes=0)(torch.rand(2, 16, 32))
        >>> features.shape, logits
        (torch.Size([2, 16, 32]), None)
    """

    keeps_float32 = True

    def __init__(self, num_parts: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_parts, self.channels = num_parts, channels
        self.bn: nn.Module = nn.BatchNorm1d(channels)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the class matrices by fresh ones for ``num_classes`` classes (0 = none)."""
        self.classifier = _classifier(self, num_classes, normalized=False)

    def fold_into(self, matrices: PartLinear) -> None:
        """Lets the matrices that give the parts do the batch norm too: for inference alone.

        Args:
            matrices: Those right before this neck, which alone reads what they give. Normalised
                ones have no scale, so that nothing is folded into them.
        """
        bn = self.bn
        if matrices.normalized or not isinstance(bn, nn.BatchNorm1d):
            return
        assert bn.running_mean is not None
        assert bn.running_var is not None
        # Linear layers keep [C_out, C_in], part-wise ones [P, C_in, C_out]; they have no bias yet.
        weight, bias = fuse_linear_bn_weights(
            matrices.weight.transpose(1, 2),
            torch.zeros_like(bn.running_mean),
            bn.running_mean,
            bn.running_var,
            bn.eps,
            bn.weight,
            bn.bias,
        )
        matrices.weight = nn.Parameter(weight.transpose(1, 2).contiguous())
        self.bn = _Shift(bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the features and the class scores."""
        _check_neck_input(x, self.num_parts, self.channels)
        x = self.bn(x.transpose(1, 2)).transpose(1, 2)
        return x, None if self.classifier is None else self.classifier(x)


class _Shift(nn.Module):
    """What is left of a batch norm whose scale is in the matrix before it."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the bias, ``[C]``, to ``[N, C, P]``."""
        return x + self.bias[:, None]


def _classifier(
    neck: PartBNNeck | SharedBNNeck, num_classes: int, normalized: bool
) -> PartLinear | None:
    check_num_classes(num_classes)
    if num_classes == 0:
        return None
    classifier = PartLinear(neck.num_parts, neck.channels, num_classes, normalized)
    return classifier.to(next(neck.bn.parameters()))


def _check_neck_input(x: Tensor, num_parts: int, channels: int) -> None:
    if x.ndim != 3 or x.shape[1:] != (num_parts, channels):
        raise ValueError(
            f"expected parts [N, {num_parts}, {channels}], got {shape_of(x)}; "
            "parts stand on the middle axis"
        )
