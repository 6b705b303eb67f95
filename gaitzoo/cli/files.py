"""Models, sequences and outputs of the command line: found, checked before the work, written."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaitzoo.cli.reading import ClipReader, Taken, read_clips
from gaitzoo.data.files import SequencePath
from gaitzoo.evaluation.pictures import drawable_frames, drawable_modality, evenly_spaced
from gaitzoo.hub.factory import create_model
from gaitzoo.hub.provenance import provenance
from gaitzoo.inference.fuse import fuse_for_inference
from gaitzoo.models.base import GaitModel
from gaitzoo.models.registry import model_info

__all__ = [
    "Clips",
    "as_fast",
    "check_apart",
    "check_output",
    "describe_weights",
    "load_model",
    "note",
    "say_weights",
]

_SEED = 0  # of untrained weights, so that their numbers repeat


def load_model(options: argparse.Namespace) -> tuple[GaitModel, str]:
    """The model without classifier, and in a word or two where its weights come from."""
    _check_device(options.device)
    # Models saved by save_pretrained have no cfg here, and always come with their weights.
    saved = options.model.startswith(("hf-hub:", "local-dir:"))
    if options.checkpoint is not None:
        weights = f"checkpoint {Path(options.checkpoint).name}"
    elif saved or model_info(options.model).has_weights:
        weights = "pretrained"
    else:
        weights = "untrained"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = create_model(
            options.model,
            pretrained=weights == "pretrained",
            num_classes=0,
            checkpoint_path=options.checkpoint,
        )
    if weights == "untrained":
        note(
            f"{options.model} is untrained (random weights, fixed seed): expect poor matches; "
            "load trained weights with --checkpoint FILE"
        )
    return model, weights


def as_fast(options: argparse.Namespace, model: GaitModel) -> GaitModel:
    """The model that computes: with ``--fast`` a fused copy on the device that was chosen."""
    if not options.fast:
        return model
    return fuse_for_inference(model.to(options.device or "cpu"), dtype="auto")


def describe_weights(options: argparse.Namespace, model: GaitModel, weights: str) -> dict[str, str]:
    """What a file of results records of the model, its name and weights as :func:`load_model` says.

    Args:
        options: Those that the model was loaded by.
        model: The model.
        weights: In a word or two.
    """
    known = provenance(model, options.checkpoint)
    if weights == "pretrained" and known["weights"] != "not of a tag":
        weights = known["weights"]
    return {**known, "model": options.model, "weights": weights}


def say_weights(known: dict[str, str]) -> str:
    """One line on the weights that gave a result."""
    trained = f", trained on {known['trained_on']}" if "trained_on" in known else ""
    return f"weights: {known['weights']}{trained} (sha256 {known['weights_sha256'][:12]}...)"


def note(text: str) -> None:
    """Writes one line beside the results."""
    print(f"gaitzoo: note: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _check_device(name: str | None) -> None:
    if name is None:
        return
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:  # torch's words for an unknown or absent one
        raise ValueError(
            f"expected a device that this machine and this torch have, got {name!r} "
            f"({str(error).splitlines()[0]}); leave --device out to use the CPU"
        ) from error


class Clips:
    """Sequences that are read when their turn comes.

    Args:
        sequences: Where they are.
        model: What reads them.
        kept_frames: How many frames of each stay in ``shown``, for pictures.
    """

    def __init__(
        self, sequences: list[SequencePath], model: GaitModel, kept_frames: int = 0
    ) -> None:
        self.reader = ClipReader(sequences, model)
        self.modalities = model.modalities
        if kept_frames:
            drawable_modality(model.modalities)  # refuses before the work
        self.kept_frames = kept_frames
        self.shown: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.reader)

    def __iter__(self) -> Iterator[Any]:
        for frames in Taken(read_clips(self.reader), len(self), skip=False):
            if self.kept_frames:
                drawable = drawable_frames(frames, self.modalities)
                self.shown.append(evenly_spaced(drawable, self.kept_frames).clone())
            yield frames


def check_output(path: str | Path, checkpoint: str | None, suffix: str, force: bool = True) -> Path:
    """Refuses, before the work, an output that cannot be written or would replace something."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"expected a file name that ends in {suffix}, got {path}")
    if path.is_dir():
        raise ValueError(f"expected a file to write, got the folder {path}; add a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"expected an existing folder to write {path.name} into, got {path.parent}; "
            "make it first"
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write into {path.parent} ({error.strerror}); choose another folder"
        ) from error
    if checkpoint is not None and path.resolve() == Path(checkpoint).resolve():
        raise ValueError(f"{path} is, or lies among, what is read; choose another file to write")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; choose another file, or replace it with --force")
    return path


def check_apart(path: Path, sequences: list[SequencePath]) -> None:
    """Refuses an output that is a sequence or lies in its folder."""
    inputs = {sequence.path.resolve() for sequence in sequences}
    # A picture among the frames of a sequence would be one of them the next time.
    if not inputs.isdisjoint((path.resolve(), path.resolve().parent)):
        raise ValueError(f"{path} is, or lies among, what is read; choose another file to write")
