"""``gaitzoo embed``: embeddings of sequences in one file, or in shards."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaitzoo.cli.files import (
    as_fast,
    check_apart,
    check_output,
    describe_weights,
    load_model,
    note,
    say_weights,
)
from gaitzoo.cli.find import add_layout_options, check_paths, layout_of, name_sequences
from gaitzoo.cli.options import add_command, add_model_options, embed_options, positive
from gaitzoo.cli.parts import Parts, files_hash
from gaitzoo.cli.reading import ClipReader, Taken, read_clips
from gaitzoo.hub.reading import read_safetensors, write_safetensors
from gaitzoo.inference.embed import embed

__all__ = ["add_embed"]

_EXAMPLES = """\
  gaitzoo embed clips/ -o embeddings.safetensors
  gaitzoo embed walk.gif other.pkl -o two.safetensors --checkpoint trained.pt
  gaitzoo embed data/ -o all.safetensors --shard 3/16 --resume --on-error skip --workers 4
  gaitzoo join all-*-of-00016.safetensors -o all.safetensors

With --shard 3/16, the third of sixteen jobs writes all-00003-of-00016.safetensors. With --resume,
parts are kept in a folder beside the output until it is whole; the same command goes on from
them. A sequence that was skipped stays so until that folder and the output are deleted."""


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
    command.add_argument(
        "--shard", type=_shard, metavar="K/N", help="embed part K of N only, into a file named so"
    )
    command.add_argument(
        "--resume", action="store_true", help="keep what is done, and go on from it after a kill"
    )
    command.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="sequences that cannot be read: stop, or report them and go on (default: stop)",
    )
    command.add_argument(
        "--skip-broken",
        dest="on_error",
        action="store_const",
        const="skip",
        help="the same as --on-error skip",
    )
    command.add_argument(
        "--workers", type=positive, default=0, metavar="N", help="processes that read (default: 0)"
    )
    add_layout_options(command)
    add_model_options(command)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, total = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= total:
        raise argparse.ArgumentTypeError(f"expected K/N with 1 <= K <= N, as 3/16, got {text!r}")
    return number, total


def _run(options: argparse.Namespace) -> None:
    check_paths(*options.paths)
    layout = layout_of(options)
    output = Path(options.output)
    if options.shard is not None:
        number, total = options.shard
        output = output.with_name(f"{output.stem}-{number:05d}-of-{total:05d}{output.suffix}")
    there = options.resume and output.is_file()
    output = check_output(output, options.checkpoint, ".safetensors", options.force or there)
    model, weights = load_model(options)
    several = len(options.paths) > 1
    named = [
        pair
        for path in options.paths
        for pair in name_sequences(path, model.modalities, several, layout)
    ]
    check_apart(output, [sequence for _, sequence in named])
    known = describe_weights(options, model, weights)
    if options.shard is not None:
        number, total = options.shard
        named = named[(number - 1) * len(named) // total : number * len(named) // total]
        known["shard"] = f"{number}/{total}"
        if not named:
            raise ValueError(f"expected {total} sequences or more for --shard, got fewer; use less")
    names = [name for name, _ in named]
    sequences = [sequence for _, sequence in named]
    run = {
        "names": names,
        "files": files_hash(sequence.path for sequence in sequences),
        "fast": options.fast,
        "on_error": options.on_error,
        **known,
    }
    known["run"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    if there and not options.force:
        if read_safetensors(output)[1].get("run") != known["run"]:
            raise FileExistsError(
                f"{output} is of another run; choose another file, or replace it with --force"
            )
        print(f"{output}: done already")
        return
    folder = output.with_name(f"{output.name}.parts") if options.resume else None
    parts = Parts(len(names), known["run"], folder)
    waiting = parts.waiting()
    unread = [sequences[number] for block in waiting for number in block]
    clips = read_clips(ClipReader(unread, model), options.workers)
    fast = as_fast(options, model)
    for block in waiting:
        part, reasons = _embed_some(fast, clips, block, options)
        for number, reason in reasons.items():
            note(f"{names[number]} was skipped: {reason}")
        parts.keep(block, part, reasons)
    embeddings, skipped = parts.joined()
    if len(skipped) == len(names) and options.shard is None:
        raise ValueError(
            f"expected sequences that can be read, got {len(names)} that cannot; the first: "
            f"{skipped[0]}"
        )
    metadata = {
        "names": json.dumps([name for i, name in enumerate(names) if i not in skipped]),
        "identities": json.dumps(
            [sequence.identity for i, sequence in enumerate(sequences) if i not in skipped]
        ),
        **({"skipped": json.dumps({names[i]: skipped[i] for i in skipped})} if skipped else {}),
        **known,
    }
    write_safetensors(output, {"embeddings": embeddings}, metadata)
    parts.remove()
    print(f"{output}: embeddings {list(embeddings.shape)} for {len(embeddings)} sequence(s)")
    if skipped:
        print(f"skipped: {len(skipped)} of {len(names)} sequence(s), listed in the file's metadata")
    print(say_weights(known))


def _embed_some(
    model: Any, clips: Any, block: range, options: argparse.Namespace
) -> tuple[Tensor, dict[int, str]]:
    """Embeddings of the next sequences, and those that were left out, by their numbers."""
    taken = Taken(clips, len(block), options.on_error == "skip")
    try:
        embeddings = embed(model, taken, **embed_options(options))
    except ValueError:
        if len(taken.skipped) < len(block):
            raise
        embeddings = torch.empty(0)
    return embeddings, {block[number]: reason for number, reason in taken.skipped.items()}
