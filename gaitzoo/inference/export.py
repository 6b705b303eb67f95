"""Models as ONNX files, which run without PyTorch."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.atomic import whole_files
from gaitzoo.data.batches import by_name, has_time
from gaitzoo.data.modalities import find_modality, time_axis
from gaitzoo.inference.fuse import fuse_for_inference
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.layers.modes import evaluating
from gaitzoo.models.base import GaitModel

__all__ = [
    "check_packages",
    "example_arguments",
    "export_onnx",
    "fewest_frames",
    "whole_model",
]

_NEEDED = ("onnx", "onnxscript")


class _Outputs(nn.Module):
    """A model that gives its outputs as a tuple."""

    def __init__(self, model: GaitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        output = self.model(inputs, lengths)
        return (output.embeddings,) if output.logits is None else (output.embeddings, output.logits)


def export_onnx(model: GaitModel, path: str | Path, *, fuse: bool = True) -> Path:
    """Writes a model into one ONNX file.

    The graph takes any number of sequences and frames. Inputs: one per modality, under its name
    and with its axes, float32: ``silhouettes`` ``[N, T, H, W]`` in [0, 1] (``[N, C, T, H, W]`` for
    models of several channels); and ``lengths`` ``[N]`` int64, valid frames of each sequence; give
    T for all where nothing is padded (models of ``images`` have no lengths). Outputs:
    ``embeddings`` ``[N, P, C]`` and, if the model has a classifier, ``logits`` ``[N, P, K]``.
    Values are not checked inside the graph. ``T`` must be at least 6, or twice the model's
    ``min_frames`` if that is more; pad shorter batches.

    Name, modalities, frame size, value range and the least ``T`` (``fewest_frames``) of the model
    are stored in the file's metadata. Weights of more than 1.5 GiB go into a second file beside
    it, which has ``.data`` behind the name. A failed export leaves what was there.

    Args:
        model: A model of this library in float32; it is not changed.
        path: File to write, in a folder that exists; replaced if there, with weights beside it.
        fuse: Export :func:`gaitzoo.fuse_for_inference` of the model.

    Returns:
        The path.

    Raises:
        TypeError: If ``model`` is no model of this library, or not in float32.
        ImportError: If the packages ``onnx`` and ``onnxscript`` are missing.
        FileNotFoundError: If the folder is missing.
        ValueError: If torch's exporter cannot export the model.

    Example:
        >>> import gaitzoo, tempfile
        >>> model = gaitzoo.create_model("gaitbase_tiny", num_classes=0)
        >>> export_onnx(model, "gaitbase.onnx")  # doctest: +SKIP
        PosixPath('gaitbase.onnx')
    """
    if not isinstance(model, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(model).__name__}; see gaitzoo.create_model"
        )
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise TypeError(f"expected a model in float32, got {dtype}; convert it with model.float()")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"expected an existing folder to write {path.name} into, got {path.parent}; "
            "make it first"
        )
    check_packages()
    if fuse:
        model = fuse_for_inference(model)
    with evaluating(model):
        program = _program(model)
    with whole_model(path) as unfinished:
        program.save(str(unfinished), external_data=False)
    return path


def fewest_frames(model: GaitModel) -> int:
    """The least T of an exported model.

    Models that join frames need two of what they make: a size of one is special when exporting.

    Args:
        model: Any model.
    """
    return max(6, 2 * model.min_frames)


def check_packages() -> None:
    """Raises an ``ImportError`` that says what to install if packages for exporting are missing."""
    for package in _NEEDED:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"exporting to ONNX needs the package {package!r} ({error}); "
                "pip install 'gaitzoo[onnx]'"
            ) from error


@contextmanager
def whole_model(path: Path) -> Iterator[Path]:
    """Lets an ONNX file, and weights beside it, appear when all of it is there or not at all.

    Old weights (``.data``) beside a file that is replaced by one without any are removed last.

    Args:
        path: The file; replaced if there.

    Yields:
        A path of the same name, in a folder that goes away.
    """
    replaced, weights = path.exists(), f"{path.name}.data"
    with whole_files(path) as unfinished:
        yield unfinished
        has_weights = unfinished.with_name(weights).exists()
    if replaced and not has_weights:
        path.with_name(weights).unlink(missing_ok=True)


def _stable_sort(x: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """A sort that torch's exporter lacks; of equal values TopK gives the one that stands first."""
    import onnxscript

    onnx_ops: Any = onnxscript.opset18
    size = onnx_ops.Gather(onnx_ops.Shape(x), onnx_ops.Constant(value_ints=[dim]))
    return onnx_ops.TopK(x, size, axis=dim, largest=int(descending), sorted=1)


def example_arguments(model: GaitModel) -> tuple[tuple[Any, ...], list[str], tuple[Any, ...]]:
    """What ``torch.export`` traces a model with.

    Args:
        model: Any model.

    Returns:
        Example arguments, the names of their tensors, and their axes of any size (N and T).
    """
    fewest = fewest_frames(model)
    num_frames = fewest + 3
    device = next(model.parameters()).device
    example = example_sequence(model, num_frames)
    inputs = each_tensor(example, lambda x: x.expand(2, *x.shape).contiguous().to(device))
    sequences = torch.export.Dim("N", min=1, max=4096)
    frames = torch.export.Dim("T", min=fewest, max=65536)
    axes = {}
    for name, tensor in by_name(model.modalities, example).items():
        time = time_axis(find_modality(name), tensor.ndim)
        axes[name] = {0: sequences} if time is None else {0: sequences, time + 1: frames}
    shapes = axes if len(axes) > 1 else axes[model.modalities[0]]
    if not has_time(model.modalities):
        return (inputs,), list(axes), (shapes,)
    lengths = torch.tensor([num_frames, num_frames - 2], device=device)
    return (inputs, lengths), [*axes, "lengths"], (shapes, {0: sequences})


def _program(model: GaitModel) -> torch.onnx.ONNXProgram:
    cfg = model.pretrained_cfg
    arguments, names, shapes = example_arguments(model)
    has_logits = model.num_classes > 0
    with warnings.catch_warnings():
        # The exporter uses what later versions of torch and Python have deprecated.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _Outputs(model),
                arguments,
                input_names=names,
                output_names=["embeddings", "logits"] if has_logits else ["embeddings"],
                dynamic_shapes=shapes,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = error.__cause__ or error
            words = str(reason).strip().partition("\n")[0]
            raise ValueError(
                f"expected a model that ONNX can express, got {cfg.name}; torch says "
                f"{type(reason).__name__}: {words}"
            ) from error
    assert program is not None
    program.model.metadata_props.update(
        {
            "model": cfg.name,
            "modalities": json.dumps(model.modalities),
            "input_size": json.dumps(cfg.input_size),
            "value_range": json.dumps(cfg.value_range),
            "fewest_frames": json.dumps(fewest_frames(model)),
        }
    )
    return program
