"""``gaitzoo embed``: embeddings of sequences in one file, or in shards."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
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
from gaitzoo.cli.reading import ClipReader, Taken, read_clips
from gaitzoo.hub.reading import read_safetensors, write_safetensors
from gaitzoo.inference.embed import embed

__all__ = ["add_embed"]

_PART = 256  # sequences that a kill may cost
_NONE = torch.empty(0)  # a part, or a shard, of which nothing could be read
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
    run = {"names": names, "fast": options.fast, "on_error": options.on_error, **known}
    known["run"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    if there and not options.force:
        if read_safetensors(output)[1].get("run") != known["run"]:
            raise FileExistsError(
                f"{output} is of another run; choose another file, or replace it with --force"
            )
        print(f"{output}: done already")
        return
    parts = _Parts(output, known["run"]) if options.resume else None
    size = _PART if options.resume else len(names)
    blocks = [range(start, min(start + size, len(names))) for start in range(0, len(names), size)]
    waiting = [
        number for number in range(len(blocks)) if parts is None or not parts.is_done(number)
    ]
    unread = [sequences[index] for number in waiting for index in blocks[number]]
    clips = read_clips(ClipReader(unread, model), options.workers)
    fast = as_fast(options, model)
    found: dict[int, tuple[Tensor, dict[int, str]]] = {}
    for number in waiting:
        block = blocks[number]
        embeddings, skipped = _embed_some(fast, clips, block, options)
        for index, reason in skipped.items():
            note(f"{names[index]} was skipped: {reason}")
        if parts is None:
            found[number] = embeddings, skipped
        else:
            parts.write(number, embeddings, skipped)
    if parts is not None:
        found = {number: parts.read(number) for number in range(len(blocks))}
    skipped = {index: text for _, lost in found.values() for index, text in lost.items()}
    if len(skipped) == len(names) and options.shard is None:
        raise ValueError(
            f"expected sequences that can be read, got {len(names)} that cannot; the first: "
            f"{skipped[0]}"
        )
    embeddings = torch.cat([part for part, _ in found.values() if part.numel()] or [_NONE])
    metadata = {
        "names": json.dumps([name for i, name in enumerate(names) if i not in skipped]),
        "identities": json.dumps(
            [sequence.identity for i, sequence in enumerate(sequences) if i not in skipped]
        ),
        **({"skipped": json.dumps({names[i]: skipped[i] for i in skipped})} if skipped else {}),
        **known,
    }
    write_safetensors(output, {"embeddings": embeddings}, metadata)
    if parts is not None:
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
        embeddings = _NONE
    return embeddings, {block[number]: reason for number, reason in taken.skipped.items()}


class _Parts:
    """What is done of an output, in a folder beside it.

    Args:
        output: The output.
        run: Hash of all that the numbers depend on.
    """

    def __init__(self, output: Path, run: str) -> None:
        self.folder = output.with_name(f"{output.name}.parts")
        self.run = run
        self.folder.mkdir(exist_ok=True)
        for path in sorted(self.folder.glob("*.safetensors")):
            if read_safetensors(path)[1].get("run") != run:
                raise ValueError(
                    f"expected parts of this run in {self.folder}, got those of another (other "
                    "sequences, weights or options); delete the folder, or choose another output"
                )

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def is_done(self, number: int) -> bool:
        return self._path(number).is_file()

    def write(self, number: int, embeddings: Tensor, skipped: dict[int, str]) -> None:
        metadata = {"run": self.run, "skipped": json.dumps(skipped)}
        write_safetensors(self._path(number), {"embeddings": embeddings}, metadata)

    def read(self, number: int) -> tuple[Tensor, dict[int, str]]:
        tensors, metadata = read_safetensors(self._path(number))
        skipped = json.loads(metadata["skipped"])
        return tensors["embeddings"], {int(index): text for index, text in skipped.items()}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
