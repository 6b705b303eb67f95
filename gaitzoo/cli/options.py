"""Options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = [
    "CHECKPOINT_HELP",
    "MODEL_HELP",
    "add_command",
    "add_model_options",
    "embed_options",
    "positive",
]

MODEL_HELP = "model or model.tag, hf-hub:org/repo or local-dir:path"
CHECKPOINT_HELP = "weights: .safetensors, .pt"


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, examples: str
) -> argparse.ArgumentParser:
    """Adds a command to the command line.

    Args:
        commands: What ``ArgumentParser.add_subparsers`` gave.
        name: The word after ``gaitzoo``.
        run: Called with the options.
        text: What the command does, in a few words.
        examples: Lines below ``--help``.

    Returns:
        The command's parser, to which options are added.
    """
    command = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_model_options(command: argparse.ArgumentParser, *, segmenter: bool = False) -> None:
    """Adds the choice of a model, its weights, and where and how much is computed at once.

    Args:
        command: The command.
        segmenter: Whether ``--device`` is that of a segmenter too.
    """
    command.add_argument(
        "--model",
        default="dygait",
        metavar="NAME",
        help=f"{MODEL_HELP} (default: dygait)",
    )
    command.add_argument("--checkpoint", metavar="FILE", help=CHECKPOINT_HELP)
    default = "default: cpu"
    if segmenter:
        default = "of the model and the segmenter; default: cpu, but a segmenter takes a GPU"
    command.add_argument("--device", metavar="NAME", help=f"cpu, cuda, cuda:1, mps ({default})")
    command.add_argument(
        "--batch-frames",
        type=positive,
        metavar="N",
        help="frames computed at once; fewer need less memory (default: by free memory)",
    )
    command.add_argument(
        "--fast",
        action="store_true",
        help="fuse the model; in bfloat16 where the device computes it fast",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bars")


def embed_options(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of :func:`gaitzoo.embed` from the options of :func:`add_model_options`."""
    return {
        "batch_frames": options.batch_frames,
        "device": options.device,
        "progress": not options.quiet,
    }


def positive(text: str) -> int:
    """A whole number of 1 or more, as ``type=`` of an option."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return value
