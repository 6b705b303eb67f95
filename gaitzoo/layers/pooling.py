"""Blocks shared by the models: pooling over time and over body parts, part-wise heads.

All take and give parts on the middle axis, ``[N, P, C]``, and each works alone in other networks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import (
    check_features,
    check_lengths,
    check_parts_divide,
    check_width,
    shape_of,
)
from gaitzoo.layers.sequence import mask_fill, masked_max

__all__ = [
    "GeMHPP",
    "HorizontalPyramidPooling",
    "LocalTemporalAggregation",
    "PartBNNeck",
    "PartLinear",
    "SharedBNNeck",
    "TemporalMax",
]


class TemporalMax(nn.Module):
    """Maximum over the valid frames of each sequence.

    Source: GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.3, "set pooling" with max.

    Shapes:
        x: ``[N, C, T, ...]``, any values.
        lengths: ``[N]`` int64, ``None`` = all T.
        returns: ``[N, C, ...]``.

    Example:
        >>> TemporalMax()(torch.rand(2, 8, 9, 16, 11), torch.tensor([9, 4])).shape
        torch.Size([2, 8, 16, 11])
    """

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the maximum over time."""
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[2])
        return masked_max(x, lengths)


class LocalTemporalAggregation(nn.Module):
    """Shortens a sequence by a strided convolution over time, then LeakyReLU (slope 0.01).

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.2, "local temporal aggregation".

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Frames joined into one; also the stride. Frames left over at the end of a
            sequence are dropped.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values, ``T >= kernel_size``.
        lengths: ``[N]`` int64, ``None`` = all T.
        returns: ``[N, C_out, T // kernel_size, H, W]``; zeros past ``out_lengths(lengths)``.

    Raises:
        ValueError: If axes or channels are wrong, or a sequence has fewer frames than
            ``kernel_size``.

    Example:
        >>> aggregate = LocalTemporalAggregation(8, 8)
        >>> aggregate(torch.rand(2, 8, 9, 16, 11)).shape
        torch.Size([2, 8, 3, 16, 11])
        >>> aggregate.out_lengths(torch.tensor([9, 7])).tolist()
        [3, 2]
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = check_width(kernel_size)
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel_size=(kernel_size, 1, 1),
            stride=(kernel_size, 1, 1),
            bias=False,
        )

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // self.kernel_size

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        check_features(x, self.conv.in_channels, lengths, shortest=self.kernel_size)
        x = F.leaky_relu(self.conv(x), 0.01)
        return mask_fill(x, None if lengths is None else self.out_lengths(lengths))


class GeMHPP(nn.Module):
    """Generalised-mean pooling of horizontal bands: one vector per body part.

    For every number of bands ``b`` the map is cut into ``b`` bands of equal height and each band
    becomes ``mean(clamp(x, eps) ** p) ** (1 / p)`` with one learned exponent ``p`` for all.

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.4, Eq. 7.
    Differs from upstream: the band is divided by its maximum before the power and multiplied by it
    afterwards, and float16/bfloat16 inputs are pooled in float32. The value is the same to 1e-5,
    but bands without any silhouette, whose power underflows, keep finite gradients.

    Args:
        part_bins: Numbers of bands; their sum is the number of parts.
        p: First value of the exponent.
        eps: Smallest value of a pixel before the power.
        learnable: Whether the exponent is trained.

    Shapes:
        x: ``[N, C, H, W]``, any values; every entry of ``part_bins`` divides H.
        returns: ``[N, P, C]``, bands from top to bottom, in the order of ``part_bins``.

    Raises:
        ValueError: If bands do not divide the height, or ``p`` or ``eps`` is not positive.

    Example:
        >>> GeMHPP((4, 2, 1))(torch.rand(2, 8, 16, 11)).shape
        torch.Size([2, 7, 8])
    """

    def __init__(
        self,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        p: float = 6.5,
        eps: float = 1e-6,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        self.part_bins = _check_part_bins(part_bins)
        if not (eps > 0 and 0 < p < float("inf")):
            raise ValueError(f"expected p and eps above 0, got p={p} and eps={eps}")
        self.eps = eps
        self.p = nn.Parameter(torch.full((1,), float(p)), requires_grad=learnable)

    @property
    def num_parts(self) -> int:
        """Number of parts that come out."""
        return sum(self.part_bins)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"part_bins={self.part_bins}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the pooled parts."""
        check_parts_divide(x, self.part_bins)
        # Autocast leaves these operations in the type they are given.
        bands_dtype = torch.promote_types(x.dtype, torch.float32)
        parts = [
            self._pool(x.to(bands_dtype).reshape(*x.shape[:2], bins, -1)) for bins in self.part_bins
        ]
        return torch.cat(parts, dim=2).transpose(1, 2).to(x.dtype)

    def _pool(self, bands: Tensor) -> Tensor:
        """Pools the last axis of ``[N, C, bins, pixels]``."""
        bands = bands.clamp(min=self.eps)
        p = self.p.to(bands.dtype)
        # The value does not depend on the scale, so no gradient has to pass through it.
        scale = bands.detach().amax(dim=-1, keepdim=True)
        pooled = (bands / scale).pow(p).mean(dim=-1).pow(1.0 / p)
        return pooled * scale.squeeze(-1)


class HorizontalPyramidPooling(nn.Module):
    """Mean plus maximum of horizontal bands: one vector per body part, nothing learned.

    Source: Horizontal Pyramid Matching (https://arxiv.org/abs/1804.05275), Sec. 3.2; in gait since
    GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.4.

    Args:
        part_bins: Numbers of bands; their sum is the number of parts.

    Shapes:
        x: ``[N, C, H, W]``, any values; every entry of ``part_bins`` divides H.
        returns: ``[N, P, C]``, bands from top to bottom, in the order of ``part_bins``.

    Raises:
        ValueError: If bands do not divide the height.

    Example:
        >>> HorizontalPyramidPooling((16,))(torch.rand(2, 8, 16, 11)).shape
        torch.Size([2, 16, 8])
    """

    def __init__(self, part_bins: tuple[int, ...] = (16,)) -> None:
        super().__init__()
        self.part_bins = _check_part_bins(part_bins)

    @property
    def num_parts(self) -> int:
        """Number of parts that come out."""
        return sum(self.part_bins)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"part_bins={self.part_bins}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the pooled parts."""
        check_parts_divide(x, self.part_bins)
        parts = []
        for bins in self.part_bins:
            bands = x.reshape(*x.shape[:2], bins, -1)
            parts.append(bands.mean(dim=-1) + bands.amax(dim=-1))
        return torch.cat(parts, dim=2).transpose(1, 2)


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

    def __init__(
        self, num_parts: int, in_channels: int, out_channels: int, normalized: bool = False
    ) -> None:
        super().__init__()
        for size in (num_parts, in_channels, out_channels):
            check_width(size)
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
        if self.order == "part":
            x = self.bn(x.flatten(1)).unflatten(1, (self.num_parts, self.channels))
        else:
            x = self.bn(x.transpose(1, 2).flatten(1))
            x = x.unflatten(1, (self.channels, self.num_parts)).transpose(1, 2)
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

    def __init__(self, num_parts: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_parts, self.channels = num_parts, channels
        self.bn = nn.BatchNorm1d(channels)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the class matrices by fresh ones for ``num_classes`` classes (0 = none)."""
        self.classifier = _classifier(self, num_classes, normalized=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the features and the class scores."""
        _check_neck_input(x, self.num_parts, self.channels)
        x = self.bn(x.transpose(1, 2)).transpose(1, 2)
        return x, None if self.classifier is None else self.classifier(x)


def _classifier(
    neck: PartBNNeck | SharedBNNeck, num_classes: int, normalized: bool
) -> PartLinear | None:
    if type(num_classes) is not int or num_classes < 0:
        raise ValueError(
            "expected num_classes as a whole number, num_classes >= 0 (0 = no classifier), got "
            f"{num_classes!r}"
        )
    if num_classes == 0:
        return None
    classifier = PartLinear(neck.num_parts, neck.channels, num_classes, normalized)
    return classifier.to(neck.bn.weight)


def _check_neck_input(x: Tensor, num_parts: int, channels: int) -> None:
    if x.ndim != 3 or x.shape[1:] != (num_parts, channels):
        raise ValueError(
            f"expected parts [N, {num_parts}, {channels}], got {shape_of(x)}; "
            "parts stand on the middle axis"
        )


def _check_part_bins(part_bins: tuple[int, ...]) -> tuple[int, ...]:
    part_bins = tuple(part_bins) if isinstance(part_bins, Iterable) else ()
    if not part_bins or any(type(b) is not int or b < 1 for b in part_bins):
        raise ValueError(
            f"expected part_bins as a tuple of positive whole numbers, got {part_bins}"
        )
    return part_bins
