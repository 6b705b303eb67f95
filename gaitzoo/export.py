"""Models as ONNX files, which run without PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo._base import GaitModel
from gaitzoo.fuse import fuse_for_inference

__all__ = ["export_onnx"]


class _Outputs(nn.Module):
    """A model that gives its outputs as a tuple."""

    def __init__(self, model: GaitModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, silhouettes: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        output = self.model(silhouettes, lengths)
        return (output.embeddings,) if output.logits is None else (output.embeddings, output.logits)


def export_onnx(model: GaitModel, path: str | Path, *, fuse: bool = True) -> Path:
    """Writes a model into one ONNX file.

    The graph takes any number of sequences and frames. Inputs: ``silhouettes`` ``[N, T, H, W]``
    float32 in [0, 1] (``[N, C, T, H, W]`` for models of several channels) and ``lengths`` ``[N]``
    int64, valid frames of each sequence; give T for all where nothing is padded. Outputs:
    ``embeddings`` ``[N, P, C]`` and, if the model has a classifier, ``logits`` ``[N, P, K]``.
    Values are not checked inside the graph. ``T`` must be at least 6.

    Name, frame size and value range of the model are stored in the file's metadata.

    Args:
        model: A model of this library in float32; it is not changed.
        path: File to write; replaced if there.
        fuse: Export :func:`gaitzoo.fuse_for_inference` of the model.

    Returns:
        The path.

    Raises:
        TypeError: If ``model`` is no model of this library, or not in float32.
        ImportError: If the packages ``onnx`` and ``onnxscript`` are missing.

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
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs the package {error.name!r}; pip install onnx onnxscript"
        ) from error
    if fuse:
        model = fuse_for_inference(model)
    training = model.training
    model.eval()
    try:
        program = _program(model)
    finally:
        model.train(training)
    path = Path(path)
    program.save(str(path), external_data=False)
    return path


def _stable_sort(x: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """A sort that torch's exporter lacks; of equal values TopK gives the one that stands first."""
    import onnxscript

    onnx_ops: Any = onnxscript.opset18
    size = onnx_ops.Gather(onnx_ops.Shape(x), onnx_ops.Constant(value_ints=[dim]))
    return onnx_ops.TopK(x, size, axis=dim, largest=int(descending), sorted=1)


def _program(model: GaitModel) -> torch.onnx.ONNXProgram:
    cfg = model.pretrained_cfg
    device = next(model.parameters()).device
    channels = () if model.in_channels == 1 else (model.in_channels,)
    silhouettes = torch.zeros(2, *channels, 9, *cfg.input_size, device=device)
    lengths = torch.tensor([9, 7], device=device)
    sequences = torch.export.Dim("N", min=1, max=4096)
    # Models that join three frames into one need two of them: size one is special when exporting.
    frames = torch.export.Dim("T", min=6, max=65536)
    with warnings.catch_warnings():
        # The exporter uses what later versions of torch and Python have deprecated.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Outputs(model),
            (silhouettes, lengths),
            input_names=["silhouettes", "lengths"],
            output_names=["embeddings"] + (["logits"] if model.num_classes else []),
            dynamic_shapes=({0: sequences, len(channels) + 1: frames}, {0: sequences}),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {
            "model": cfg.name,
            "input_size": json.dumps(cfg.input_size),
            "value_range": json.dumps(cfg.value_range),
        }
    )
    return program
