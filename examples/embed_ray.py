"""Embeds a data set on every machine of a Ray cluster: `pip install "ray[data]"`.

    python examples/embed_ray.py casiab-64/ -o runs/casiab --model deepgaitv2_p3d.casiab --actors 8

The list of sequences is cut into parts of fixed numbers. An actor of Ray Data reads and embeds a
part and writes it to a file named by its number, which is there as a whole or not at all. So a part
that Ray gives to a second actor, because the first died, replaces itself, and a run that was killed
goes on from the parts that are there: start the same command again. The folders of the data set
and of the output must be those of all machines. At the end every sequence must be there once;
`embeddings.safetensors` is laid out as that of `gaitzoo embed`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import ray
import ray.data
import torch
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.hub.provenance import provenance
from gaitzoo.hub.reading import read_safetensors, write_safetensors


def build_model(name: str, checkpoint: str | None) -> gaitzoo.GaitModel:
    """The model without its classifier: of a file, or of a name that comes with weights."""
    if checkpoint is None:
        return gaitzoo.create_model(name, pretrained=True, num_classes=0)
    return gaitzoo.create_model(name, checkpoint_path=checkpoint, num_classes=0)


def part_of(output: Path, number: int) -> Path:
    """Where a part is written."""
    return output / "parts" / f"{number:06d}.safetensors"


class Embedder:
    """Embeds one part after the other; Ray makes one for each actor.

    Args:
        dataset: All sequences, of which each is read when its turn comes.
        options: Those of the command line.
        known: What the files say of the run.
    """

    def __init__(
        self, dataset: gaitzoo.GaitDataset, options: argparse.Namespace, known: dict[str, str]
    ) -> None:
        self.dataset, self.options, self.known = dataset, options, known
        self.model = build_model(options.model, options.checkpoint)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes the part with the number ``row["part"]``."""
        first = row["part"] * self.options.part_size
        numbers = range(first, min(first + self.options.part_size, len(self.dataset)))
        sequences = (self.dataset[number].sequence for number in numbers)
        embeddings = gaitzoo.embed(self.model, sequences, progress=False)
        names = json.dumps([self.dataset.record(number).name for number in numbers])
        path = part_of(Path(self.options.output), row["part"])
        write_safetensors(path, {"embeddings": embeddings}, {"names": names, **self.known})
        return row


def embed_data_set(options: argparse.Namespace) -> Path:
    """Embeds what is not embedded yet, and joins all parts.

    Args:
        options: Those of the command line.

    Returns:
        The file of all embeddings.
    """
    model = build_model(options.model, options.checkpoint)
    several = len(model.modalities) > 1
    modalities = model.modalities if several else model.modalities[0]
    dataset = gaitzoo.GaitDataset(options.data, options.layout, modalities=modalities)
    records = dataset.records
    names = [record.name for record in records]
    known = provenance(model, options.checkpoint)
    run = {"names": names, "part_size": options.part_size, **known}
    known["run"] = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    output = Path(options.output)
    (output / "parts").mkdir(parents=True, exist_ok=True)
    parts = range(-(-len(names) // options.part_size))
    done = [number for number in parts if part_of(output, number).is_file()]
    for number in done:
        if read_safetensors(part_of(output, number))[1]["run"] != known["run"]:
            raise ValueError(
                f"expected parts of this run in {output / 'parts'}, got those of another (other "
                "sequences, weights or sizes of parts); delete the folder, or choose another output"
            )
    print(f"{len(done)} of {len(parts)} parts are done already")
    waiting = sorted(set(parts) - set(done))
    if waiting:
        ray.init(address=options.address)
        rows = ray.data.from_items(
            [{"part": number} for number in waiting], override_num_blocks=len(waiting)
        ).map(
            Embedder,  # pyright: ignore[reportArgumentType] - it says functions, and takes classes
            fn_constructor_args=(dataset, options, known),
            compute=ray.data.ActorPoolStrategy(size=options.actors),
            num_cpus=options.cpus,
            num_gpus=options.gpus,
        )
        for _ in tqdm(rows.iter_rows(), total=len(waiting), unit="part"):
            pass
    found = [read_safetensors(part_of(output, number)) for number in parts]
    written = [name for _, metadata in found for name in json.loads(metadata["names"])]
    if written != names:
        raise RuntimeError(f"expected every sequence once in {output / 'parts'}, got others")
    path = output / "embeddings.safetensors"
    write_safetensors(
        path,
        {"embeddings": torch.cat([tensors["embeddings"] for tensors, _ in found])},
        {
            "names": json.dumps(names),
            "identities": json.dumps([record.identity for record in records]),
            **known,
        },
    )
    print(f"{path}: embeddings of {len(names)} sequences")
    return path


def main() -> None:
    """Reads the command line and embeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="the data set's folder")
    parser.add_argument("-o", "--output", required=True, help="folder of the parts and the result")
    parser.add_argument("--layout", help="of the data set (default: by the names of its folders)")
    parser.add_argument("--model", default="dygait.walkers", help="default: %(default)s")
    parser.add_argument("--checkpoint", help="file of weights, instead of those of the name")
    parser.add_argument("--part-size", type=int, default=256, help="sequences (default: 256)")
    parser.add_argument("--actors", type=int, default=2, help="default: 2")
    parser.add_argument("--cpus", type=float, default=1, help="of an actor (default: 1)")
    parser.add_argument(
        "--gpus",
        type=float,
        default=0,
        help="of an actor (default: 0); with 0.25 four actors read while one of them computes",
    )
    parser.add_argument("--address", help="of a cluster that runs (default: one of this machine)")
    embed_data_set(parser.parse_args())


if __name__ == "__main__":
    main()
