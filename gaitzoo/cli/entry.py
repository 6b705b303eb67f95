"""The command line: ``gaitzoo models``, ``embed``, ``identify``, ``export`` and ``demo``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from gaitzoo.cli.commands import (
    DEMO_PICTURE,
    run_demo,
    run_embed,
    run_export,
    run_identify,
    run_models,
)
from gaitzoo.models.cfg import PretrainedNotAvailable
from gaitzoo.version import __version__

__all__ = ["main"]

# What the library raises for wrong arguments, files and devices, and for missing packages; all
# else is a defect.
_BAD_INPUT = (
    ValueError,
    TypeError,
    OSError,
    MemoryError,
    ImportError,
    torch.OutOfMemoryError,
    PretrainedNotAvailable,
)

_MODELS_EXAMPLES = """\
  gaitzoo models
  gaitzoo models 'dygait.g*'
  gaitzoo models gaitbase --json"""
_EMBED_EXAMPLES = """\
  gaitzoo embed clips/ -o embeddings.safetensors
  gaitzoo embed walk.gif other.pkl -o two.safetensors --checkpoint trained.pt"""
_IDENTIFY_EXAMPLES = """\
  gaitzoo identify --gallery known/ --probe new/ --picture matches.png
  gaitzoo identify --gallery known/ --probe new/ann/walk.gif --json

The first folder level is the identity: known/ann/monday.gif is a walk of ann, and so is
known/ann.gif. No sequence is compared with itself."""
_EXPORT_EXAMPLES = """\
  gaitzoo export dygait -o dygait.onnx
  gaitzoo export gaitbase.gait3d -o gaitbase.onnx --checkpoint trained.pt --force

The file runs without PyTorch: see examples/onnx_inference.py of the project."""
_DEMO_EXAMPLES = """\
  gaitzoo demo
  gaitzoo demo --identities 20 --seed 7 --out results/"""
_MODEL_HELP = "model or model.tag, hf-hub:org/repo or local-dir:path"
_CHECKPOINT_HELP = "weights: .safetensors, .pt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words after ``gaitzoo``; ``None`` = those of this process.

    Returns:
        The exit code: 0, 2 after a message on bad input, 130 if interrupted.

    Raises:
        SystemExit: After ``--help``, ``--version`` and bad options, with the code.

    Example:
        >>> main(["embed", "no_such_folder", "-o", "embeddings.safetensors"])
        2
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may be no text of the terminal
            stream.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has enough; nothing may be written to it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _BAD_INPUT as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"gaitzoo {options.command}: error: {message}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gaitzoo",
        description="Gait recognition: silhouettes of walking people in, identities out.",
    )
    parser.add_argument("--version", action="version", version=f"gaitzoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str, examples: str) -> Any:
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text.capitalize()}.",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    models = add("models", run_models, "list the models", _MODELS_EXAMPLES)
    models.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="wildcard on model or model.tag"
    )
    models.add_argument("--json", action="store_true", help="print all that is known, as JSON")

    embed = add("embed", run_embed, "embed sequences into a safetensors file", _EMBED_EXAMPLES)
    embed.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a sequence (folder of images, GIF, npy, npz, OpenGait pkl) or a folder of sequences",
    )
    embed.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="safetensors file to write"
    )
    _add_model_options(embed)

    identify = add("identify", run_identify, "find walkers among known people", _IDENTIFY_EXAMPLES)
    identify.add_argument("--gallery", required=True, metavar="DIR", help="sequences of the known")
    identify.add_argument("--probe", required=True, metavar="DIR", help="sequences to identify")
    identify.add_argument(
        "--top", type=_positive, default=5, metavar="N", help="matches per probe (default: 5)"
    )
    identify.add_argument("--json", action="store_true", help="print JSON instead of a table")
    identify.add_argument(
        "--picture", metavar="FILE", help="PNG to write: probes beside their best matches"
    )
    _add_model_options(identify)

    export = add("export", run_export, "write a model as an ONNX file", _EXPORT_EXAMPLES)
    export.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="ONNX file to write")
    export.add_argument("--checkpoint", metavar="FILE", help=_CHECKPOINT_HELP)
    export.add_argument("--force", action="store_true", help="replace a file that is there")
    export.set_defaults(device=None)

    demo = add("demo", run_demo, "try it all on synthetic walkers, without files", _DEMO_EXAMPLES)
    _add_demo_options(demo)
    _add_model_options(demo)
    return parser


def _add_demo_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", default=".", metavar="DIR", help=f"folder for {DEMO_PICTURE} (default: here)"
    )
    command.add_argument(
        "--identities", type=_positive, default=6, metavar="N", help="people (default: 6)"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed: other people (default: 0)"
    )


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        default="dygait",
        metavar="NAME",
        help=f"{_MODEL_HELP} (default: dygait)",
    )
    command.add_argument("--checkpoint", metavar="FILE", help=_CHECKPOINT_HELP)
    command.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cpu)")
    command.add_argument(
        "--batch-frames",
        type=_positive,
        metavar="N",
        help="frames computed at once; fewer need less memory (default: by free memory)",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bars")


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return value
