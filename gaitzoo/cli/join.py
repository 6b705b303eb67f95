"""``gaitzoo join``: shards of embeddings in one file."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaitzoo.cli.files import check_output
from gaitzoo.cli.options import add_command
from gaitzoo.hub.reading import read_safetensors, write_safetensors

__all__ = ["add_join"]

_EXAMPLES = "  gaitzoo join all-*-of-00016.safetensors -o all.safetensors"
# Of metadata: what differs from shard to shard.
_OWN = ("names", "identities", "skipped", "shard", "run", "format")


def add_join(commands: Any) -> None:
    """Adds the command."""
    command = add_command(commands, "join", _run, "join the shards of gaitzoo embed", _EXAMPLES)
    command.add_argument("paths", nargs="+", metavar="FILE", help="all shards of one run")
    command.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="safetensors file to write"
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")


def _run(options: argparse.Namespace) -> None:
    output = check_output(options.output, None, ".safetensors", options.force)
    shards = _shards(options.paths)
    about = [shards[number][1] for number in sorted(shards)]
    common = [{key: text for key, text in known.items() if key not in _OWN} for known in about]
    strange = [known for known, other in zip(about, common, strict=True) if other != common[0]]
    if strange:
        raise ValueError(
            "expected shards of one model, got other weights or another model in shard "
            f"{strange[0]['shard']}"
        )
    names, identities = (
        [entry for known in about for entry in json.loads(known[key])]
        for key in ("names", "identities")
    )
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise ValueError(
            f"expected shards of one run, got {doubled[0]} in several of them; embed all shards "
            "from the same folders"
        )
    parts = [shards[number][0] for number in sorted(shards)]
    embeddings = torch.cat([part for part in parts if part.numel()] or parts[:1])
    skipped = {
        name: reason
        for known in about
        for name, reason in json.loads(known.get("skipped", "{}")).items()
    }
    metadata = {"names": json.dumps(names), "identities": json.dumps(identities), **common[0]}
    if skipped:
        metadata["skipped"] = json.dumps(skipped)
    write_safetensors(output, {"embeddings": embeddings}, metadata)
    print(f"{output}: embeddings {list(embeddings.shape)} of {len(shards)} shard(s)")
    if skipped:
        print(f"skipped: {len(skipped)} sequence(s), listed in the file's metadata")


def _shards(paths: list[str]) -> dict[int, tuple[Tensor, dict[str, str]]]:
    """Embeddings and metadata by number of the shard; refuses all but one whole set."""
    shards: dict[int, tuple[Tensor, dict[str, str]]] = {}
    totals: set[int] = set()
    for path in map(Path, paths):
        tensors, metadata = read_safetensors(path)
        if "shard" not in metadata or "embeddings" not in tensors:
            raise ValueError(f"expected a shard of gaitzoo embed --shard, got {path}")
        number, total = map(int, metadata["shard"].split("/"))
        if number in shards:
            raise ValueError(f"expected each shard once, got {number}/{total} again in {path}")
        shards[number] = tensors["embeddings"], metadata
        totals.add(total)
    absent = sorted(set(range(1, max(totals) + 1)) - set(shards))
    if len(totals) > 1 or absent:
        without = f", without {', '.join(map(str, absent[:5]))}" if absent else ""
        raise ValueError(
            f"expected all shards of one run, got {len(shards)} of "
            f"{' and '.join(map(str, sorted(totals)))}{without}"
        )
    return shards
