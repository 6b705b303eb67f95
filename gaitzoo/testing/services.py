"""What a model promises to the library around it: copies, files, fast forms, exports."""

from __future__ import annotations

import copy
import importlib
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.batches import by_name
from gaitzoo.hub.checkpoint import load_checkpoint
from gaitzoo.hub.factory import create_model
from gaitzoo.hub.structure import has_place_for_classes
from gaitzoo.inference.embed import embed
from gaitzoo.inference.export import (
    check_packages,
    example_arguments,
    export_onnx,
    fewest_frames,
)
from gaitzoo.inference.fuse import fuse_for_inference
from gaitzoo.inference.inputs import align_with, each_tensor
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.testing.memory import fill_freed_memory
from gaitzoo.testing.trial import (
    Skipped,
    Trial,
    hold,
    hold_equal,
    largest_difference,
    reset_statistics,
)

__all__ = ["checkpoint", "copies", "embedding", "export", "fuse", "onnx", "saving"]


@torch.no_grad()
def copies(trial: Trial) -> None:
    """Copied and pickled models are the same model."""
    for other in (copy.deepcopy(trial.model), pickle.loads(pickle.dumps(trial.model))):
        _same_model(trial, other, trial.model.config_args())


@torch.no_grad()
def saving(trial: Trial) -> None:
    """``save_pretrained`` writes all that ``from_pretrained`` and ``create_model`` need."""
    model = trial.model
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = [type(model).from_pretrained(folder), create_model(f"local-dir:{folder}").eval()]
    saved_args = model.config_args()
    if has_place_for_classes(model):
        saved_args["num_classes"] = model.num_classes
    for other in loaded:
        _same_model(trial, other.to(trial.device, trial.dtype), saved_args)


@torch.no_grad()
def checkpoint(trial: Trial) -> None:
    """Weights of a saved model, and of a trainer's file, load into an equal structure."""
    model, other = trial.model, copy.deepcopy(trial.model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        torch.save({"model": model.state_dict(), "epoch": 3}, Path(folder) / "trainer.pt")
        for file in ("model.safetensors", "trainer.pt"):
            for tensor in other.state_dict().values():
                tensor.zero_()
            load_checkpoint(other, Path(folder) / file)
            _same_model(trial, other, model.config_args())


@torch.no_grad()
def embedding(trial: Trial) -> None:
    """``embed`` gives the numbers of one sequence at a time."""
    align = align_with(trial.model)
    sequences = [align(sequence) for sequence in trial.sequences()]
    fill_freed_memory(trial.device)
    found = embed(trial.model, sequences, progress=False)
    for i, sequence in enumerate(sequences):
        alone = trial.model(each_tensor(sequence, lambda x: x[None])).embeddings[0]
        error = largest_difference(found[i], alone.to(found))
        hold(
            error < trial.tolerance,
            f"expected embed to give sequence {i} as alone, got a difference of {error:.1g}",
        )


@torch.no_grad()
def fuse(trial: Trial) -> None:
    """``fuse_for_inference`` makes a faster copy that gives the same numbers."""
    reset_statistics(trial.model)
    fused = fuse_for_inference(trial.model)
    given = [trial.batch(garbage=float("nan") if trial.has_time else 0.0)]
    given += [(trial.equals(), None), trial.batch((1,))]
    for batch, lengths in given:
        wanted = trial.model(batch, lengths)
        fill_freed_memory(trial.device)
        hold_equal(fused(batch, lengths), wanted, trial.tolerance)


@torch.no_grad()
def export(trial: Trial) -> None:
    """``torch.export`` makes a program for any number of sequences and frames."""
    model = trial.model
    arguments, _, dynamic_shapes = example_arguments(model)
    arguments = tuple(each_tensor(x, _to(trial.dtype)) for x in arguments)
    program = torch.export.export(model, arguments, dynamic_shapes=dynamic_shapes).module()
    fewest = fewest_frames(model)
    for counts in ((fewest,), (fewest + 2, 2, 5), (2 * fewest, 1, 3, fewest)):
        batch, lengths = trial.batch(counts)
        given = (batch,) if lengths is None else (batch, lengths)
        hold_equal(program(*given), model(*given), 1e-5)


@torch.no_grad()
def onnx(trial: Trial) -> None:
    """``export_onnx`` writes a file that gives the same numbers without torch."""
    try:
        check_packages()
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise Skipped(f"{error}; pip install 'gaitzoo[onnx]' onnxruntime") from error
    model = trial.model.float().cpu()
    trial = Trial(model, trial.frames)
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, Path(folder) / "model.onnx")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for counts in ((fewest_frames(model) + 2, 2, 5), trial.frames):
        longest = max(fewest_frames(model), *counts)
        batch, lengths = trial.batch((*counts, longest))
        given = {k: v.numpy() for k, v in by_name(model.modalities, batch).items()}
        if lengths is not None:
            given["lengths"] = lengths.numpy()
        wanted = model(batch, lengths)
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, map(torch.from_numpy, session.run(None, given)), strict=True))
        hold_equal(GaitOutput(found["embeddings"], logits=found.get("logits")), wanted, 1e-4)


def _same_model(trial: Trial, other: GaitModel, model_args: Mapping[str, Any]) -> None:
    batch = trial.equals()
    found, wanted = other(batch).embeddings, trial.model(batch).embeddings
    hold(torch.equal(found, wanted), "expected the same embeddings bit by bit, got others")
    got = other.config_args()
    hold(got == dict(model_args), f"expected model_args {dict(model_args)}, got {got}")
    cfg = other.pretrained_cfg
    hold(
        cfg == trial.model.pretrained_cfg,
        f"expected the cfg {trial.model.pretrained_cfg}, got {cfg}",
    )


def _to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda x: x.to(dtype) if x.is_floating_point() else x
