"""Transformed convolutions in the place of plain ones, in any network.

Source: RRS-Gait (https://arxiv.org/abs/2601.05604); see :mod:`gaitzoo.layers.transformed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.transformed import (
    ReflectConv2d,
    RotateConv2d,
    ScaleConv2d,
    TransformedKernelConv2d,
)

__all__ = ["check_kind", "replace_convs", "swap_convs"]

Model = TypeVar("Model", bound=nn.Module)

KINDS: dict[str, Callable[..., TransformedKernelConv2d]] = {
    "reflect": ReflectConv2d,
    "rotate": RotateConv2d,
    "scale": ScaleConv2d,
}
"""Names of the three kinds."""


def check_kind(kind: Any) -> str:
    """Raises unless ``kind`` is one of the three; returns it.

    Args:
        kind: ``"reflect"``, ``"rotate"`` or ``"scale"``.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> check_kind("rotate")
        'rotate'
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"expected a kind among {', '.join(KINDS)}, got {kind!r}")
    return kind


def replace_convs(
    model: Model,
    kind: str,
    predicate: Callable[[str, nn.Conv2d], bool] | None = None,
    **options: Any,
) -> Model:
    """Puts transformed convolutions in the place of plain ones, in any network.

    Parameters stay the same objects under the same names; the unchanged kernel is one of the forms
    of :class:`ReflectConv2d`, and of the other two with their default angles and scales.
    A model of this library cannot be saved with ``save_pretrained`` then (its configuration does
    not say what was replaced): keep its ``state_dict``, and call this on a fresh one.

    Args:
        model: Changed in place.
        kind: ``"reflect"``, ``"rotate"`` or ``"scale"``.
        predicate: Called with the name of each ``nn.Conv2d`` and itself: whether it is replaced.
            ``None`` = those with a kernel of 3 x 3 whose output is as large as its input (over the
            step).
        **options: Of :class:`RotateConv2d` (``angles``), :class:`ScaleConv2d` (``scales``,
            ``mode``), and ``reduce``.

    Returns:
        The model itself.

    Raises:
        ValueError: If the kind is unknown, forms are not joined, nothing is replaced, or
            ``predicate`` chooses a convolution that cannot be: a subclass of torch's, or one with
            an even or oblong kernel, gaps, steps that differ, or another border than half a kernel
            of zeros.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> type(replace_convs(network, "rotate", angles=(0, 5))[0]).__name__
        'RotateConv2d'
    """
    replaced = swap_convs(model, kind, predicate, **options)
    for conv in replaced:
        conv.replaced = True  # asked for by what saves a model
    return model


def swap_convs(
    model: nn.Module,
    kind: str,
    predicate: Callable[[str, nn.Conv2d], bool] | None = None,
    **options: Any,
) -> list[Any]:
    """As :func:`replace_convs`, for networks that are built so; returns the new convolutions.

    Args:
        model: Changed in place.
        kind: See :func:`replace_convs`.
        predicate: See there.
        **options: See there.
    """
    build = KINDS[check_kind(kind)]
    if "reduce" in options and options["reduce"] is None:
        raise ValueError('expected reduce "max" or "mean" inside a network, got None')
    found = {m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name}
    if predicate is None:
        chosen = [m for m in found if m.kernel_size == (3, 3) and _can_be_replaced(m)]
    else:
        chosen = [m for m, name in found.items() if predicate(name, m)]
    if not chosen:
        raise ValueError("expected convolutions to replace, got none; see predicate")
    forms = {}
    for conv in chosen:
        if not _can_be_replaced(conv):
            raise ValueError(
                "expected plain convolutions with odd square kernels, one step, no gaps and a "
                f"border of half a kernel of zeros, got {found[conv]}: {conv}; see predicate"
            )
        sizes = (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0])
        with torch.device("meta"):
            made = build(*sizes, conv.groups, conv.bias is not None, **options)
        made.weight, made.bias = conv.weight, conv.bias
        forms[conv] = made.train(conv.training)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in forms:
                setattr(parent, name, forms[child])
    return list(forms.values())


def _can_be_replaced(conv: nn.Conv2d) -> bool:
    half = conv.kernel_size[0] // 2
    return (
        type(conv) in (nn.Conv2d, Conv2d)
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] % 2 == 1
        and conv.stride[0] == conv.stride[1]
        and conv.padding in ((half, half), "same")
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
    )
