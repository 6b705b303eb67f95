"""``gaitzoo embed``: embeddings of sequences in one file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gaitzoo.cli.files import (
    Clips,
    as_fast,
    check_apart,
    check_output,
    describe_weights,
    load_model,
    say_weights,
)
from gaitzoo.cli.find import check_paths, name_sequences
from gaitzoo.cli.options import add_command, add_model_options, embed_options
from gaitzoo.hub.reading import write_safetensors
from gaitzoo.inference.embed import embed

__all__ = ["add_embed"]

_EXAMPLES = """\
  gaitzoo embed clips/ -o embeddings.safetensors
  gaitzoo embed walk.gif other.pkl -o two.safetensors --checkpoint trained.pt"""


def add_embed(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "embed", _run, "embed sequences into a safetensors file", _EXAMPLES
    )
    command.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a sequence (folder of images, GIF, npy, npz, OpenGait pkl; for models of several "
        "modalities a folder with a file for each) or a folder of sequences",
    )
    command.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="safetensors file to write"
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    add_model_options(command)


def _run(options: argparse.Namespace) -> None:
    check_paths(*options.paths)
    output = check_output(options.output, options.checkpoint, ".safetensors", options.force)
    model, weights = load_model(options)
    several = len(options.paths) > 1
    named = [
        pair for path in options.paths for pair in name_sequences(path, model.modalities, several)
    ]
    sequences = [sequence for _, sequence in named]
    check_apart(output, sequences)
    embeddings = embed(as_fast(options, model), Clips(sequences, model), **embed_options(options))
    known = describe_weights(options, model, weights)
    metadata = {
        "names": json.dumps([name for name, _ in named]),
        "identities": json.dumps([sequence.identity for sequence in sequences]),
        **known,
    }
    write_safetensors(output, {"embeddings": embeddings}, metadata)
    print(f"{output}: embeddings {list(embeddings.shape)} for {len(sequences)} sequence(s)")
    print(say_weights(known))
