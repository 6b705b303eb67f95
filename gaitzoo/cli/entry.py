"""The command line: ``models``, ``check``, ``tracks``, ``embed``, ``identify`` and others."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import torch

from gaitzoo.cli.check import add_check
from gaitzoo.cli.demo import add_demo
from gaitzoo.cli.embed import add_embed
from gaitzoo.cli.evaluate import add_evaluate
from gaitzoo.cli.export import add_export
from gaitzoo.cli.files import note
from gaitzoo.cli.identify import add_identify
from gaitzoo.cli.join import add_join
from gaitzoo.cli.models import add_models
from gaitzoo.cli.prepare import add_prepare
from gaitzoo.cli.robustness import add_robustness
from gaitzoo.cli.tracks import add_tracks
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

_COMMANDS = (
    add_models,
    add_check,
    add_prepare,
    add_embed,
    add_join,
    add_identify,
    add_evaluate,
    add_robustness,
    add_tracks,
    add_export,
    add_demo,
)


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
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_, **__: note(str(message))
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
    """A parser with its errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gaitzoo",
        description="Gait recognition: silhouettes of walking people in, identities out.",
    )
    parser.add_argument("--version", action="version", version=f"gaitzoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for add in _COMMANDS:
        add(commands)
    return parser
