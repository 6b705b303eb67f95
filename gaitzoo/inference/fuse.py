"""Faster copies of models, for inference: fewer operations, fewer passes over memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_weights

from gaitzoo.layers.conv import Conv2d, guard_convolutions
from gaitzoo.layers.dynamic import DyGaitBlock, DyGaitStem
from gaitzoo.layers.fold import fold_batch_norms
from gaitzoo.layers.fused import (
    FrameMaxPool,
    FusedAggregation,
    WideTemporalMax,
    channels_last,
)
from gaitzoo.layers.fused_dynamic import FusedDyGaitBlock, FusedStem
from gaitzoo.layers.fused_regions import FusedASTP, FusedFTABlock, FusedRegions
from gaitzoo.layers.fused_residual import (
    FusedResidualBlock2d,
    FusedResidualBlock3d,
    FusedResidualBlockP3d,
)
from gaitzoo.layers.pooling import (
    GeMHPP,
    LocalTemporalAggregation,
    PartBNNeck,
    PartLinear,
    SharedBNNeck,
    TemporalMax,
)
from gaitzoo.layers.regions import ASTP, ARME_Conv, FTABlock
from gaitzoo.layers.residual import (
    FrameWise,
    ResidualBlock2d,
    ResidualBlock3d,
    ResidualBlockP3d,
)
from gaitzoo.layers.winograd import save_multiplications
from gaitzoo.models.base import GaitModel
from gaitzoo.models.gaitllm.model import GaitLLM

__all__ = ["fuse_for_inference"]

Model = TypeVar("Model", bound=GaitModel)

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def fuse_for_inference(
    model: Model, dtype: torch.dtype | None = None, compile: bool = False
) -> Model:
    """Makes a faster copy of a model that gives the same embeddings.

    Batch norms are folded into the convolutions and matrices before them, DyGait's three
    convolutions of a stage become one (see ``docs/speed.md``), maps keep the channels of a pixel
    side by side in memory, and blocks overwrite what nobody needs any more. On a processor, wide
    3 x 3 convolutions in float32 are computed with half of the multiplications. In float32 the
    embeddings differ from the plain model's by less than 1e-5 of the largest.

    The copy is in eval mode and works wherever the model does (:func:`gaitzoo.embed`, calls with
    ``lengths``, ``torch.export``). It can neither be trained nor saved: ``train()``,
    ``save_pretrained`` and ``push_to_hub`` refuse, and its ``state_dict`` fits no plain model.
    Keep the plain model, and fuse again after loading or changing weights: what is folded and
    derived does not follow changes in place.

    Args:
        model: A model of this library; it is not changed.
        dtype: Type of the weights and maps up to the maximum over time, for example
            ``torch.bfloat16``; pooling and head stay in float32, and so do the outputs.
            ``None`` = the model's own.
        compile: Compile the copy with ``torch.compile`` for any number of sequences and frames;
            the first calls are then slow.

    Returns:
        The fused copy, on the model's device.

    Raises:
        TypeError: If ``model`` is no model of this library, or ``dtype`` no floating-point type.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0).eval()
        >>> clips = torch.rand(2, 9, 16, 12)
        >>> with torch.no_grad():
        ...     fused, plain = fuse_for_inference(model)(clips), model(clips)
        >>> torch.allclose(fused.embeddings, plain.embeddings, atol=1e-5)
        True
    """
    if not isinstance(model, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(model).__name__}; see gaitzoo.create_model"
        )
    if dtype is not None and dtype not in _DTYPES:
        raise TypeError(
            f"expected dtype as a floating-point torch.dtype, e.g. torch.bfloat16, got {dtype!r}"
        )
    fused = copy.deepcopy(model).eval()
    guard_convolutions(fused)
    with torch.no_grad():
        _fuse_children(fused)
        _fold_neck(fused)
    fused.eval()  # also what has just been made
    # GaitLLM's maps end where its encoder does; behind it come tokens and a language model.
    maps = fused.encoder if isinstance(fused, GaitLLM) else fused
    assert isinstance(maps, nn.Module)
    _set_dtypes(maps, dtype or next(maps.parameters()).dtype)
    save_multiplications(maps)
    fused.requires_grad_(False)
    fused.fused = True
    if compile:
        fused.compile(dynamic=True)
    return fused


def _fused_sequential(layers: nn.Sequential) -> nn.Module:
    """Convolution, batch norm and ReLU in a row as two layers."""
    kinds = [type(layer) for layer in layers]
    if kinds not in ([nn.Conv2d, nn.BatchNorm2d, nn.ReLU], [Conv2d, nn.BatchNorm2d, nn.ReLU]):
        _fuse_children(layers)
        return layers
    conv, bn, _ = layers
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    if bn.running_mean is None:
        return layers
    return nn.Sequential(fuse_conv_bn_eval(conv, bn), nn.ReLU(inplace=True))


def _fused_list(blocks: nn.ModuleList) -> nn.Module:
    """A level's region-wise convolutions, whose regions are equal, as one block."""
    if len(blocks) and all(isinstance(block, ARME_Conv) for block in blocks):
        return nn.ModuleList([FusedRegions(blocks)])  # pyright: ignore[reportArgumentType]
    _fuse_children(blocks)
    return blocks


def _fused_max_pool(pool: nn.MaxPool3d) -> nn.Module:
    plain = nn.MaxPool3d(pool.kernel_size, pool.stride)
    halves = pool.kernel_size == (1, 2, 2) == pool.stride
    # Equal in all else: no padding, no dilation, nothing rounded up, no indices.
    return FrameMaxPool(2) if halves and pool.extra_repr() == plain.extra_repr() else pool


def _fused_frame_wise(frame_wise: FrameWise) -> nn.Module:
    fold_batch_norms(frame_wise.block)
    return frame_wise


# What takes the place of which module. Others stay, and are searched inside.
_FUSED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    ASTP: FusedASTP,
    DyGaitBlock: FusedDyGaitBlock,
    DyGaitStem: lambda stem: FusedStem(stem.conv),
    FTABlock: FusedFTABlock,
    FrameWise: _fused_frame_wise,
    LocalTemporalAggregation: FusedAggregation,
    ResidualBlock2d: FusedResidualBlock2d,
    ResidualBlock3d: FusedResidualBlock3d,
    ResidualBlockP3d: FusedResidualBlockP3d,
    TemporalMax: lambda _: WideTemporalMax(),
    nn.MaxPool3d: _fused_max_pool,
    nn.ModuleList: _fused_list,
    nn.Sequential: _fused_sequential,
}
# What comes after the maximum over time.
_HEAD = (ASTP, GeMHPP, PartBNNeck, PartLinear, SharedBNNeck)


def _fuse_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if fused := _FUSED.get(type(child)):
            setattr(module, name, fused(child))
        else:
            _fuse_children(child)


def _fold_neck(model: GaitModel) -> None:
    """Folds the batch norm behind the part vectors into their matrices."""
    part_fc, neck = getattr(model, "part_fc", None), getattr(model, "neck", None)
    # A normalised matrix has no scale to put it into; PartBNNeck's input is itself an output.
    if not isinstance(neck, SharedBNNeck) or not isinstance(part_fc, PartLinear):
        return
    if part_fc.normalized or not isinstance(neck.bn, nn.BatchNorm1d):
        return
    bn = neck.bn
    assert bn.running_mean is not None
    assert bn.running_var is not None
    # Linear layers keep [C_out, C_in], part-wise ones [P, C_in, C_out]; they have no bias yet.
    weight, bias = fuse_linear_bn_weights(
        part_fc.weight.transpose(1, 2),
        torch.zeros_like(bn.running_mean),
        bn.running_mean,
        bn.running_var,
        bn.eps,
        bn.weight,
        bn.bias,
    )
    part_fc.weight = nn.Parameter(weight.transpose(1, 2).contiguous())
    neck.bn = _Shift(bias)  # pyright: ignore[reportAttributeAccessIssue]


class _Shift(nn.Module):
    """What is left of a batch norm whose scale is in the matrix before it."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the bias, ``[C]``, to ``[N, C, P]``."""
        return x + self.bias[:, None]


def _set_dtypes(module: nn.Module, dtype: torch.dtype) -> None:
    """Puts maps into ``dtype`` and the head into float32 or wider, and channels last."""
    if isinstance(module, _HEAD):
        module.to(torch.promote_types(dtype, torch.float32))
        return
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
        if tensor.ndim in (4, 5):
            tensor.data = channels_last(tensor.data)
    for child in module.children():
        _set_dtypes(child, dtype)
