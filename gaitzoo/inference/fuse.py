"""Faster copies of models, for inference: fewer operations, fewer passes over memory."""

from __future__ import annotations

import copy
import os
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.layers.conv import guard_convolutions
from gaitzoo.layers.fold import fold_batch_norms, fold_sequential
from gaitzoo.layers.fused import FrameMaxPool, channels_last
from gaitzoo.layers.winograd import save_multiplications
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput

__all__ = ["fast_dtype", "fuse_for_inference"]

Model = TypeVar("Model", bound=GaitModel)

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (*_HALF, torch.float32, torch.float64)
# Differences that rounding explains, of the largest embedding; GPUs round float32 to ten bits.
_ALLOWED = {torch.float32: 0.01, torch.float64: 1e-6}
_TAKES_ITS_OWN_TYPE = (
    nn.Linear,
    nn.LayerNorm,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
)


def fuse_for_inference(
    model: Model, dtype: torch.dtype | str | None = None, compile: bool = False
) -> Model:
    """Makes a faster copy of a model that gives the same embeddings.

    Batch norms are folded into the convolutions and matrices before them, DyGait's three
    convolutions of a stage become one (see ``docs/speed.md``), maps keep the channels of a pixel
    side by side in memory, and blocks overwrite what nobody needs any more. On a processor, wide
    3 x 3 convolutions in float32 are computed with half of the multiplications. In float32 the
    embeddings differ from the plain model's by less than 1e-5 of the largest.

    A block may bring a form of its own: a method ``fused(dtype)`` that gives the module to stand in
    its place, or the block itself, which then stays as it is. In all others, convolutions with the
    batch norm behind them are found. What comes after the maps says ``keeps_float32 = True``.
    Before the type is changed, the copy and the model embed a short made-up sequence: what cannot
    be seen in code is found there.

    The copy is in eval mode and works wherever the model does (:func:`gaitzoo.embed`, calls with
    ``lengths``, ``torch.export``). It can neither be trained nor saved: ``train()``,
    ``save_pretrained`` and ``push_to_hub`` refuse, and its ``state_dict`` fits no plain model.
    Keep the plain model, and fuse again after loading or changing weights: what is folded and
    derived does not follow changes in place.

    Args:
        model: A model of this library or a subclass of :class:`gaitzoo.GaitModel`; it is not
            changed.
        dtype: Type of the weights and maps up to the maximum over time, for example
            ``torch.bfloat16``; pooling and head stay in float32, and so do the outputs.
            ``"auto"`` = what :func:`fast_dtype` says of the model's device; a float64 model stays
            as it is. ``None`` = the model's own.
        compile: Compile the copy with ``torch.compile`` for any number of sequences and frames;
            the first calls are then slow.

    Returns:
        The fused copy, on the model's device. ``unfused_norms`` names the batch norms that are
        left in it: those of necks, and those that are not known to stand right behind a
        convolution.

    Raises:
        TypeError: If ``model`` is no model of this library, or ``dtype`` no floating-point type.
        ValueError: If a module is used in such a way that fusing would change the numbers.

    Warns:
        UserWarning: If batch norms of maps are left, each of which is a pass over memory.

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
    if dtype is not None and dtype != "auto" and dtype not in _DTYPES:
        raise TypeError(
            "expected dtype as a floating-point torch.dtype, e.g. torch.bfloat16, or 'auto', got "
            f"{dtype!r}"
        )
    fused = copy.deepcopy(model).eval()
    maps = fused.get_submodule(fused.maps_in)
    own = next((p.dtype for p in maps.parameters() if p.is_floating_point()), torch.float32)
    wanted = own if dtype is None else dtype
    if isinstance(wanted, str):
        device = next((p.device for p in maps.parameters()), torch.device("cpu"))
        wanted = own if own == torch.float64 else fast_dtype(device)
    guard_convolutions(fused)
    with torch.no_grad():
        example = _example(fused)
        outputs = _outputs(fused, example)
        _fuse_children(fused, wanted, _used_twice(fused), {})
        _fold_neck(fused)
        fused.eval()  # also what has just been made
        _check(fused, example, outputs)
    _set_dtypes(maps, wanted)
    if wanted in _HALF:
        fused.register_forward_hook(_widen_output)
    save_multiplications(maps)
    fused.requires_grad_(False)
    fused.fused = True
    fused.unfused_norms = _batch_norms(fused)
    if compile:
        fused.compile(dynamic=True)
    return fused


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """The type in which a device computes a fused model fastest.

    Args:
        device: For example ``"cpu"`` or ``"cuda:0"``.

    Returns:
        ``torch.bfloat16`` on processors with AMX (as far as ``ONEDNN_MAX_CPU_ISA`` lets it be used)
        and on GPUs with bfloat16 units; ``torch.float32`` elsewhere, also with AVX512_BF16 alone:
        on an Intel processor without its AMX, fused models took 1.3 to 1.6 times as long in
        bfloat16 as in float32.

    Example:
        >>> fast_dtype("meta")
        torch.float32
    """
    kind = torch.device(device).type
    fast = False
    if kind == "cpu":
        fast = _processor_has_fast_bfloat16()
    elif kind == "cuda" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def _processor_has_fast_bfloat16() -> bool:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    usable = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    # Limits are named by what they hold (AVX512_CORE_AMX); besides them there are DEFAULT and ALL.
    if not usable or (limit.startswith(("SSE", "AVX")) and "AMX" not in limit):
        return False
    # Torch has no public function for this in all of its versions.
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if ask is not None:
        return ask()
    listed = Path("/proc/cpuinfo")
    return listed.exists() and "amx_bf16" in listed.read_text().split()


def _used_twice(model: nn.Module) -> set[nn.Module]:
    """Modules with several parents or names: folding for one use would spoil the other."""
    counts = Counter(
        child for parent in model.modules() for child in parent._modules.values() if child
    )
    return {module for module, count in counts.items() if count > 1}


def _fuse_children(
    module: nn.Module, dtype: torch.dtype, keep: set[nn.Module], forms: dict[nn.Module, nn.Module]
) -> None:
    """Asks every module inside for its fused form; folds what has none of its own.

    Args:
        module: The parent.
        dtype: Type of the maps.
        keep: What is used in several places and not folded.
        forms: What modules met so far have become.
    """
    for name, child in module._modules.items():
        if child is None:
            continue
        if child not in forms:
            forms[child] = _fused_form(child, dtype, keep, forms)
        setattr(module, name, forms[child])


def _fused_form(
    module: nn.Module, dtype: torch.dtype, keep: set[nn.Module], forms: dict[nn.Module, nn.Module]
) -> nn.Module:
    form: Callable[[torch.dtype], nn.Module] | None = getattr(module, "fused", None)
    if callable(form):
        return form(dtype)
    if type(module) is nn.MaxPool3d:
        return _fused_max_pool(module)
    _fuse_children(module, dtype, keep, forms)
    if type(module) is nn.Sequential:
        fold_sequential(module, keep)
    else:
        fold_batch_norms(module, keep)
    return module


def _fused_max_pool(pool: nn.MaxPool3d) -> nn.Module:
    plain = nn.MaxPool3d(pool.kernel_size, pool.stride)
    halves = pool.kernel_size == (1, 2, 2) == pool.stride
    # Equal in all else: no padding, no dilation, nothing rounded up, no indices.
    return FrameMaxPool(2) if halves and pool.extra_repr() == plain.extra_repr() else pool


def _batch_norms(model: GaitModel) -> tuple[str, ...]:
    """Names of the batch norms that are left; warns of those of maps."""
    left = {
        name: type(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    of_maps = [name for name, kind in left.items() if not issubclass(kind, nn.BatchNorm1d)]
    if of_maps:
        warnings.warn(
            f"{len(of_maps)} batch norms of {type(model).__name__} could not be folded and stay as "
            f"they are ({', '.join(of_maps[:3])}{', ...' if len(of_maps) > 3 else ''}): the copy "
            "is right but slower; put them right behind a convolution in an nn.Sequential, or give "
            "their block a method fused(dtype)",
            stacklevel=3,
        )
    return tuple(left)


def _fold_neck(model: GaitModel) -> None:
    """Folds the batch norm behind the part vectors into their matrices, where a model allows it."""
    neck = getattr(model, "neck", None)
    fold: Callable[[nn.Module], None] | None = getattr(neck, "fold_into", None)
    if model.neck_folds_into is not None and fold is not None:
        fold(model.get_submodule(model.neck_folds_into))


def _example(model: GaitModel) -> Any:
    """A short made-up sequence as a batch of one; ``None`` where the weights have no memory."""
    tensor = next(model.parameters(), torch.empty(0))
    if tensor.is_meta:
        return None
    sequence = example_sequence(model, max(3, model.min_frames + 1), seed=0)
    return each_tensor(sequence, lambda x: x[None].to(tensor.device))


def _outputs(model: GaitModel, example: Any) -> Tensor | None:
    """Embeddings of a made-up sequence; ``None`` if the model cannot read it."""
    if example is None:
        return None
    try:
        device = next(model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            found = model(example).embeddings
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    return found.double() if found.isfinite().all() else None


def _check(model: GaitModel, example: Any, wanted: Tensor | None) -> None:
    """Raises if fusing has changed the numbers: no code says all that is done with a module."""
    if wanted is None:
        return
    found = _outputs(model, example)
    allowed = _ALLOWED.get(next(model.parameters()).dtype, 0.05) * wanted.abs().max()
    if found is None or found.shape != wanted.shape or (found - wanted).abs().max() > allowed:
        raise ValueError(
            f"expected a fused {type(model).__name__} to give the embeddings of the plain one, got "
            "others; a module inside is used in a way that its own code does not show (its output "
            "read by a hook or from outside, called in another order): define fused(self, dtype) "
            "there and return self, and it stays as it is"
        )


def _set_dtypes(module: nn.Module, dtype: torch.dtype) -> None:
    """Puts maps into ``dtype`` and what keeps float32 into float32 or wider, and channels last."""
    if getattr(module, "keeps_float32", False):
        wide = torch.promote_types(dtype, torch.float32)
        module.to(wide)
        if wide != dtype:
            module.register_forward_pre_hook(_widen)
        for part in module.modules():
            _lay_out_weights(part)
        return
    if dtype in _HALF and isinstance(module, _TAKES_ITS_OWN_TYPE):
        module.register_forward_pre_hook(_narrow)
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    _lay_out_weights(module)
    for child in module.children():
        _set_dtypes(child, dtype)


def _lay_out_weights(module: nn.Module) -> None:
    """Puts a module's own weights channels last, which its maps take over."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.ndim in (4, 5):
            tensor.data = channels_last(tensor.data)
    if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.weight[0].numel() == 1:
        # One number per channel has no layout that the map could take over.
        module.register_forward_hook(_lay_out)


def _lay_out(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A map with the channels of a pixel side by side."""
    return channels_last(output)


def _narrow(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    """What a layer in half precision is given behind one in float32, in its own type."""
    weight = module.weight
    if not isinstance(weight, Tensor):
        return inputs
    return tuple(
        x.to(weight.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
    )


def _widen_output(_: nn.Module, inputs: tuple[object, ...], output: Any) -> Any:
    """Outputs in float32 also of models whose own head is in half precision."""
    narrow = isinstance(output, GaitOutput) and output.embeddings.dtype in _HALF
    return output.to(torch.float32) if narrow else output


def _widen(_: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    """What a module in float32 is given, if it is narrower, in float32."""
    return tuple(x.float() if isinstance(x, Tensor) and x.dtype in _HALF else x for x in inputs)
