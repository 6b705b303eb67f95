"""Train a gait model on synthetic walkers: the recipe of the weights that gaitzoo ships.

    python examples/train.py --output runs/dygait
    accelerate launch --num_processes 4 examples/train.py --output runs/dygait

Every batch holds P people with K walks each. The loss is a triplet loss on the embeddings plus
cross-entropy on the logits, part by part. A batch depends on the seed and the number of the step
only, so a run that was killed goes on from its last checkpoint as if nothing had happened: start
the same command again. To train on walks of your own, replace `RandomWalks`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.data.atomic import whole_files
from gaitzoo.data.augment import RandomAugment
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss, gather_across_processes
from gaitzoo.metrics import cross_view_rank1, part_distances
from gaitzoo.synthetic import SegmentationNoise, SyntheticWalkers, render_walk, sample_identity

CONDITIONS = ("normal", "bag", "coat")
# Cameras and paces vary so much that nearest neighbours of energy images find few people.
VARIATION = {"elevation": (0.0, 30.0), "speed": (0.75, 1.25), "view_error": 10.0}


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on; written beside its checkpoints.

    Going on with another recipe is refused.
    """

    output: str
    model: str = "dygait.walkers"  # the tag decides about the structure
    model_args: str = "{}"  # JSON
    head: str = "own"  # what classifies: the model's "own" neck or an "extra" one, see Network
    start_from: str = ""  # weights of an earlier run, model.safetensors; "" = random
    identities: int = 2000  # people to train on
    people: int = 8  # P, people in a batch of one process
    walks: int = 4  # K, walks of each of them
    frames: int = 12  # length of a clip
    height: int = 0  # of the silhouettes, pixels; their width is 11/16 of it; 0 = the model's
    rendered: int = 0  # walks of each person, filmed once and cut differently; 0 = ever new ones
    steps: int = 6000
    learning_rate: float = 1e-3  # highest, after the warm-up
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    triplet_margin: float = 0.2
    label_smoothing: float = 0.1
    scale: float = 16.0  # of the logits
    augment: float = 1.0  # factor on the chances of all augmentations; 0 = none
    noisy: float = 0.3  # share of walks with faults of the segmentation
    seed: int = 0
    workers: int = 1  # processes that render
    save_every: int = 100
    evaluate_every: int = 500
    evaluate_identities: int = 30
    mixed_precision: str = "no"  # "bf16" on a GPU


class PKSampler(Sampler[list[tuple[int, int]]]):
    """Keys (label, draw) of one batch per step: P random people, K random draws of each.

    Batches of a step are the same in every run of a seed, so resuming needs no state but the step.
    """

    def __init__(self, recipe: Recipe, first_step: int, process: int = 0) -> None:
        self.recipe, self.first_step, self.process = recipe, first_step, process

    def __len__(self) -> int:
        return self.recipe.steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        recipe = self.recipe
        for step in range(self.first_step, recipe.steps):
            draws = np.random.default_rng((recipe.seed, step, self.process))
            people = draws.choice(recipe.identities, recipe.people, replace=False)
            labels = np.repeat(people, recipe.walks).tolist()
            yield [(label, int(draws.integers(2**62))) for label in labels]


AUGMENTATIONS = {
    "flip": 0.25,
    "rotate": 0.1,
    "perspective": 0.1,
    "erase": 0.05,
    "roughen": 0.1,
    "coarsen": 0.1,
}


class RandomWalks(Dataset[tuple[Tensor, int]]):
    """Walks in any view, clothes, speed and noise, rendered when asked for, and augmented.

    An item is a clip ``[T, H, W]`` uint8 and its label. A key is a label and a number that all
    random choices come from. A data set of files would read a clip of that person here.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        chances = {name: recipe.augment * chance for name, chance in AUGMENTATIONS.items()}
        self.augment = RandomAugment(**chances)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        label, draw = key
        draws = np.random.default_rng(draw)
        clip = self.clip(label, draws)
        generator = torch.Generator().manual_seed(int(draws.integers(2**62)))
        return self.augment(clip, generator), label

    def clip(self, label: int, draws: np.random.Generator) -> Tensor:
        """One clip ``[T, H, W]`` of a person."""
        return render(self.recipe, label, draws, self.recipe.frames)


class RenderedWalks(RandomWalks):
    """The same from a fixed number of walks per person, rendered before the training starts.

    Several times faster where processors are few. The file lies beside the checkpoints.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.path = Path(recipe.output) / "walks.npy"
        if not self.path.exists():
            self._render_all()
        self.walks = np.load(self.path, mmap_mode="r")
        wanted = (recipe.identities, recipe.rendered, recipe.frames, *frame_size(recipe))
        too_small = any(w > found for w, found in zip(wanted, self.walks.shape, strict=True))
        if too_small or self.walks.shape[3:] != wanted[3:]:
            raise ValueError(
                f"expected walks for {wanted} (people, walks, frames, height, width) in "
                f"{self.path}, got {self.walks.shape}; remove the file to render them again"
            )

    def _render_all(self) -> None:
        recipe, size = self.recipe, frame_size(self.recipe)
        shape = (recipe.identities, recipe.rendered, 2 * recipe.frames, *size)
        with whole_files(self.path) as unfinished:
            walks = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            for label in tqdm(range(recipe.identities), unit="person", desc="rendering"):
                for number in range(recipe.rendered):
                    draws = np.random.default_rng((recipe.seed, label, number))
                    walks[label, number] = render(recipe, label, draws, shape[2]).numpy()
            walks.flush()

    def clip(self, label: int, draws: np.random.Generator) -> Tensor:
        """One clip ``[T, H, W]`` of a person, cut out of one of the walks."""
        walk = self.walks[label, draws.integers(self.recipe.rendered)]
        first = draws.integers(len(walk) - self.recipe.frames + 1)
        return torch.from_numpy(walk[first : first + self.recipe.frames].copy())


@cache
def frame_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the silhouettes, pixels."""
    if recipe.height:
        return recipe.height, recipe.height * 11 // 16
    with torch.device("meta"):
        model = gaitzoo.create_model(recipe.model, **json.loads(recipe.model_args))
    return model.pretrained_cfg.input_size


def render(recipe: Recipe, label: int, draws: np.random.Generator, frames: int) -> Tensor:
    """A random walk ``[T, H, W]`` uint8 of one person."""
    noise = None
    if draws.random() < recipe.noisy:
        holes, ragged, cut_limbs, scale_jitter = draws.uniform(0, 0.5, 4)
        noise = SegmentationNoise(
            holes=holes, ragged=ragged, cut_limbs=cut_limbs, scale_jitter=scale_jitter
        )
    walk = render_walk(
        sample_identity(label),
        frames=frames,
        view=draws.uniform(-10, 190) % 360,
        elevation=draws.uniform(-1, 30),
        condition=CONDITIONS[draws.choice(3, p=(0.4, 0.3, 0.3))],
        speed=draws.uniform(0.75, 1.25),
        size=frame_size(recipe),
        noise=noise,
        seed=int(draws.integers(2**62)),
    )
    return walk.silhouettes


class Network(torch.nn.Module):
    """A model, and what classifies its embeddings in training.

    The scores of some models (HSTL's) are not normalised and grow only slowly. An extra head, a
    :class:`gaitzoo.PartBNNeck` that nobody needs after the training, gives cosines from the start.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        arguments, own = json.loads(recipe.model_args), recipe.head == "own"
        classes = recipe.identities if own else 0
        self.model = gaitzoo.create_model(recipe.model, num_classes=classes, **arguments)
        parts, channels = self.model.num_parts, self.model.num_features
        self.head = (
            torch.nn.Identity() if own else gaitzoo.PartBNNeck(parts, channels, recipe.identities)
        )
        if not own and self.model.pretrained_cfg.embedding != "after_bn":
            raise ValueError(
                'expected head="own" for a model whose embeddings come before its batch-norm neck: '
                f"that neck would not be trained; got {recipe.head!r} for {recipe.model}"
            )
        for weight in self.model.parameters():
            if weight.ndim == 5:  # convolutions over space and time are faster so
                weight.data = weight.data.to(memory_format=torch.channels_last_3d)

    def start_from(self, path: str) -> None:
        """Takes the weights of an earlier run, which come without a classifier."""
        fits = self.model.load_state_dict(load_file(path), strict=False)
        missing = [key for key in fits.missing_keys if not key.startswith("neck.classifier.")]
        if missing or fits.unexpected_keys:
            raise ValueError(
                f"expected weights of {self.model.architecture} with these model_args in {path}, "
                f"got some that lack {missing} and have {fits.unexpected_keys} besides"
            )

    def forward(self, silhouettes: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``[N, P, C]`` and scores ``[N, P, K]``."""
        output = self.model(silhouettes)
        if output.logits is not None:
            return output.embeddings, output.logits
        return output.embeddings, self.head(output.embeddings)[1]


def learning_rate_factor(step: int, warmup_steps: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


def train(recipe: Recipe, stop_at: int | None = None) -> gaitzoo.GaitModel:
    """Runs the recipe from its last checkpoint, if there is one, to the end.

    Args:
        recipe: What to do; the same recipe must be given when going on.
        stop_at: Leave after this step without saving, as a killed process would.

    Returns:
        The trained model, in eval mode.
    """
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        keep_recipe(output / "recipe.json", recipe)
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    step = load_progress(output / "checkpoint.pt", network, optimizer)
    if step == 0 and recipe.start_from:
        network.start_from(recipe.start_from)
    wrapped, optimizer = accelerator.prepare(network, optimizer)
    with accelerator.main_process_first():  # one process renders, if that is to be done
        walks = RenderedWalks(recipe) if recipe.rendered else RandomWalks(recipe)
    loader = DataLoader(
        walks,
        batch_sampler=PKSampler(recipe, step, accelerator.process_index),
        num_workers=recipe.workers,
    )
    triplet = PartTripletLoss(recipe.triplet_margin)
    cross_entropy = PartCrossEntropyLoss(recipe.scale, recipe.label_smoothing)

    main = accelerator.is_main_process
    bar = tqdm(loader, total=recipe.steps, initial=step, unit="step", disable=not main)
    wrapped.train()
    for silhouettes, labels in bar:
        factor = learning_rate_factor(step, recipe.warmup_steps, recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor
        silhouettes, labels = silhouettes.to(accelerator.device), labels.to(accelerator.device)
        embeddings, logits = wrapped(silhouettes)
        losses = {
            "triplet": triplet(
                gather_across_processes(embeddings), gather_across_processes(labels)
            ),
            "cross_entropy": cross_entropy(logits, labels),
        }
        optimizer.zero_grad()
        accelerator.backward(sum(losses.values()))
        accelerator.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1

        row = {name: round(value.item(), 4) for name, value in losses.items()}
        hits = (logits.mean(1).argmax(1) == labels).float().mean().item()
        bar.set_postfix(row | {"hits": hits}, refresh=False)
        if main:
            log(output, {"step": step, **row, "hits": hits})
            if step % recipe.evaluate_every == 0 or step == recipe.steps:
                log(output, {"step": step, **evaluate(network.model, recipe)})
            if step % recipe.save_every == 0 or step == recipe.steps:
                save_progress(output / "checkpoint.pt", step, network, optimizer)
        if step == stop_at:
            break
    if main and step == recipe.steps:
        save_weights(network.model, output)
    accelerator.wait_for_everyone()
    return network.model.eval()


def keep_recipe(path: Path, recipe: Recipe) -> None:
    """Writes the recipe, or compares it with that of the run that is to go on."""
    settings = dataclasses.asdict(recipe)
    if path.exists():
        before = json.loads(path.read_text())
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            raise ValueError(
                f"expected the recipe of the run in {path.parent}, got another "
                f"{', '.join(other)}; choose another --output, or remove the folder"
            )
    path.write_text(json.dumps(settings, indent=2) + "\n")


def load_progress(path: Path, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Puts network and optimizer back to a checkpoint; returns its step, 0 without a checkpoint."""
    if not path.exists():
        return 0
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    network.model.load_state_dict(checkpoint["model"])
    network.head.load_state_dict(checkpoint["head"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return checkpoint["step"]


def save_progress(
    path: Path, step: int, network: Network, optimizer: torch.optim.Optimizer
) -> None:
    """Writes a checkpoint beside the old one, then takes its place: killed or not, one is whole."""
    checkpoint = {
        "step": step,
        "model": network.model.state_dict(),
        "head": network.head.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with whole_files(path) as unfinished:
        torch.save(checkpoint, unfinished)


def save_weights(model: gaitzoo.GaitModel, output: Path) -> None:
    """Writes `model.safetensors`, float16 and without the classifier."""
    kept = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if not name.startswith("neck.classifier.")
    }
    save_file(kept, output / "model.safetensors")


@torch.no_grad()
def evaluate(model: gaitzoo.GaitModel, recipe: Recipe) -> dict[str, float]:
    """Cross-view Rank-1 of unseen people per condition, in a gallery of two normal walks."""
    walkers = SyntheticWalkers(
        recipe.evaluate_identities,
        sequences=(("normal", 0), ("normal", 1), ("normal", 2), ("bag", 0), ("coat", 0)),
        frames=24,
        size=frame_size(recipe),
        seed=recipe.seed + 1,  # other people than those with the labels of the training
        **VARIATION,
    )
    samples = [walkers[index] for index in range(len(walkers))]
    embeddings = embed(model, torch.stack([clip.silhouettes for clip in samples]))
    labels, views = walkers.labels, torch.tensor([round(clip.view) for clip in samples])
    gallery = torch.tensor([clip.condition == "normal" and clip.sequence < 2 for clip in samples])
    scores = {}
    for condition in CONDITIONS:
        query = torch.tensor([clip.condition == condition for clip in samples]) & ~gallery
        distances = part_distances(embeddings[query], embeddings[gallery])
        scores[condition] = cross_view_rank1(
            distances, labels[query], labels[gallery], views[query], views[gallery]
        ).mean()
    return scores


def embed(model: gaitzoo.GaitModel, clips: Tensor) -> Tensor:
    """Embeddings ``[N, P, C]`` of clips ``[N, T, H, W]``, computed 32 at a time."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = [model(batch.to(device)).embeddings.float().cpu() for batch in clips.split(32)]
    model.train(training)
    return torch.cat(batches)


def log(output: Path, row: dict[str, float]) -> None:
    """Appends a line of JSON to `log.jsonl`, and prints it if it is an evaluation."""
    if "normal" in row:
        tqdm.write(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    with (output / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Reads the recipe from the command line and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in dataclasses.fields(Recipe):
        required = field.default is dataclasses.MISSING
        kind = str if required else type(field.default)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            required=required,
            default=None if required else field.default,
        )
    train(Recipe(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
