"""``gaitzoo export``: a model as an ONNX file, tried before it is there."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from gaitzoo.cli.files import check_output, load_model
from gaitzoo.cli.options import CHECKPOINT_HELP, MODEL_HELP, add_command
from gaitzoo.data.batches import batch_of, by_name, has_time
from gaitzoo.inference.export import check_packages, export_onnx, fewest_frames, whole_model
from gaitzoo.inference.inputs import example_sequence
from gaitzoo.models.base import GaitModel

__all__ = ["add_export"]

# Sequences that an exported file is tried on, and how far it may be off.
_TRIED_LENGTHS = (14, 5, 11)
_LARGEST_DIFFERENCE = 1e-4
_EXAMPLES = """\
  gaitzoo export dygait -o dygait.onnx
  gaitzoo export gaitbase.gait3d -o gaitbase.onnx --checkpoint trained.pt --force

The file runs without PyTorch: see examples/onnx_inference.py of the project."""


def add_export(commands: Any) -> None:
    """Adds the command."""
    command = add_command(commands, "export", _run, "write a model as an ONNX file", _EXAMPLES)
    command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="ONNX file to write")
    command.add_argument("--checkpoint", metavar="FILE", help=CHECKPOINT_HELP)
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.set_defaults(device=None)


def _run(options: argparse.Namespace) -> None:
    output = check_output(options.output, options.checkpoint, ".onnx", options.force)
    check_output(f"{output}.data", options.checkpoint, ".data", options.force)
    check_packages()
    model, weights = load_model(options)
    with whole_model(output) as unfinished:
        export_onnx(model, unfinished)
        rows = _describe_graph(unfinished)
        if importlib.util.find_spec("onnxruntime") is None:
            tried = "not compared with the model: onnxruntime is not installed"
        else:
            difference = _difference_in_onnxruntime(model, unfinished)
            if not difference <= _LARGEST_DIFFERENCE:
                raise ValueError(
                    f"nothing was written: in onnxruntime the embeddings of {options.model} are "
                    f"off by {difference:.1e} of the largest, expected {_LARGEST_DIFFERENCE} at "
                    "most; are the weights those of a trained model?"
                )
            tried = f"largest difference to the model in onnxruntime: {difference:.1e} of the "
            tried += f"largest embedding ({len(_TRIED_LENGTHS)} sequences)"
        files = sorted(unfinished.parent.iterdir())
        sizes = [(output.parent / file.name, file.stat().st_size) for file in files]
    for path, size in sizes:
        print(f"{path}: {size / 1e6:.2f} MB, {options.model} ({weights})")
    print()
    print(tabulate(rows, ("", "name", "type", "shape"), disable_numparse=True))
    axes = "N inputs."
    if has_time(model.modalities):
        axes = f"N sequences of T frames ({fewest_frames(model)} or more), lengths of each."
    print(f"\n{axes}\n{tried}")


def _describe_graph(path: Path) -> list[tuple[str, str, str, str]]:
    """Inputs and outputs of an ONNX file: kind, name, type, shape."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    rows = []
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
            type_name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            rows.append((kind, value.name, type_name, f"[{', '.join(sizes)}]"))
    return rows


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: RuntimeError, and classes of its own that share no base."""
    own = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")).values()
    classes = [thing for thing in own if isinstance(thing, type) and issubclass(thing, Exception)]
    return (RuntimeError, *classes)


def _difference_in_onnxruntime(model: GaitModel, path: Path) -> float:
    """Largest difference of embeddings, as a fraction of the largest."""
    import onnxruntime

    frame_counts = (max(_TRIED_LENGTHS[0], fewest_frames(model)), *_TRIED_LENGTHS[1:])
    clips = [example_sequence(model, count, seed=seed) for seed, count in enumerate(frame_counts)]
    batch, lengths = batch_of(model.modalities, clips, torch.float32)
    with torch.inference_mode():
        wanted = model.eval()(batch, lengths).embeddings
    given = {name: x.contiguous().numpy() for name, x in by_name(model.modalities, batch).items()}
    if lengths is not None:
        given["lengths"] = lengths.numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = torch.as_tensor(session.run(["embeddings"], given)[0])
    except _onnxruntime_errors() as error:
        raise ValueError(
            f"nothing was written: onnxruntime cannot run {model.pretrained_cfg.name} ({error})"
        ) from error
    return float((found - wanted).abs().max() / wanted.abs().max())
