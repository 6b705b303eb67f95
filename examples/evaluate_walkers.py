"""Score a model on unseen synthetic walkers, beside untrained weights and gait energy images.

    python examples/evaluate_walkers.py --model dygait
    python examples/evaluate_walkers.py --recipe runs/dygait/recipe.json --noise
    python examples/evaluate_walkers.py --model dygait --real folder_with_nm_bg_cl_gif

Gallery: two normal walks of everybody from six views. Queries: one more normal walk, one with a
bag, one in a coat, from the same views. Cameras look down by up to 30 degrees, stand up to 10
degrees off their place, and paces differ by a quarter: with level cameras, a person seen at 36 and
at 144 degrees is nearly one picture and its mirror image, and energy images find most people.
"Rank-1" lets a query find its person in any view but its own. "Cross-view" is stricter: the mean
over all pairs of different views, the gallery holding one view at a time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tabulate import tabulate
from torch import Tensor, nn
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.data.silhouettes import SilhouetteTransform
from gaitzoo.metrics import cross_view_rank1, part_distances, rank_k, same_view_mask
from gaitzoo.synthetic import (
    SegmentationNoise,
    SyntheticWalkers,
    WalkerSample,
    render_walk,
    sample_identity,
)

CONDITIONS = ("normal", "bag", "coat")
SEQUENCES = (("normal", 0), ("normal", 1), ("normal", 2), ("bag", 0), ("coat", 0))
VARIATION = {"elevation": (0.0, 30.0), "speed": (0.75, 1.25), "view_error": 10.0}
NOISES = {
    "clean": None,
    "holes 0.5": SegmentationNoise(holes=0.5),
    "ragged 0.5": SegmentationNoise(ragged=0.5),
    "cut limbs 0.5": SegmentationNoise(cut_limbs=0.5),
    "scale jitter 0.5": SegmentationNoise(scale_jitter=0.5),
    "all 0.5": SegmentationNoise(holes=0.5, ragged=0.5, cut_limbs=0.5, scale_jitter=0.5),
}


class EnergyImage(nn.Module):
    """The classical baseline: a walk is the mean of its frames, compared pixel by pixel."""

    def forward(self, silhouettes: Tensor) -> Tensor:
        """``[N, T, H, W]`` uint8 to ``[N, 1, H * W]``."""
        return (silhouettes.float().mean(1) / 255).flatten(1)[:, None]


@dataclass(frozen=True)
class Competitor:
    """Something that embeds silhouettes of one size."""

    network: nn.Module
    size: tuple[int, int]

    @torch.no_grad()
    def embed(self, clips: list[Tensor]) -> Tensor:
        """Embeddings ``[N, P, C]`` of clips ``[T, H, W]`` of one length."""
        batches = []
        for batch in torch.stack(clips).split(16):
            result = self.network(batch)
            batches.append(result if isinstance(result, Tensor) else result.embeddings.float())
        return torch.cat(batches)


def load_competitors(options: argparse.Namespace) -> dict[str, Competitor]:
    """The model, the same without training, and energy images of the usual size."""
    competitors = load_run(options.recipe) if options.recipe else load_released(options.model)
    return {**competitors, "energy images": Competitor(EnergyImage(), (64, 44))}


def load_released(name: str) -> dict[str, Competitor]:
    """A model with weights, and the same network without."""
    model = gaitzoo.create_model(name, pretrained=True, num_classes=0)
    size = model.pretrained_cfg.input_size
    torch.manual_seed(0)
    untrained = gaitzoo.create_model(model.pretrained_cfg.name, num_classes=0)
    return {name: Competitor(model.eval(), size), "untrained": Competitor(untrained.eval(), size)}


def load_run(path: Path) -> dict[str, Competitor]:
    """What a training run wrote: its weights, no weights, and its weights before rounding."""
    recipe = json.loads(path.read_text())
    name, arguments = recipe["model"], json.loads(recipe["model_args"])
    torch.manual_seed(0)
    untrained = gaitzoo.create_model(name, num_classes=0, **arguments)
    height, width = untrained.pretrained_cfg.input_size
    size = (recipe["height"] or height, recipe["height"] * 11 // 16 or width)
    stored = gaitzoo.create_model(name, num_classes=0, **arguments)
    stored.load_state_dict(load_file(path.parent / "model.safetensors"))  # back to float32
    classes = recipe["identities"] if recipe["head"] == "own" else 0
    exact = gaitzoo.create_model(name, num_classes=classes, **arguments)
    checkpoint = torch.load(path.parent / "checkpoint.pt", map_location="cpu", weights_only=True)
    exact.load_state_dict(checkpoint["model"])
    models = {name: stored, "untrained": untrained, "before rounding": exact}
    return {title: Competitor(model.eval(), size) for title, model in models.items()}


def render(
    options: argparse.Namespace, size: tuple[int, int], noise: SegmentationNoise | None
) -> list[WalkerSample]:
    """All walks of everybody."""
    walkers = SyntheticWalkers(
        options.identities,
        sequences=SEQUENCES,
        frames=options.frames,
        size=size,
        noise=noise,
        seed=options.seed,
        **({} if options.level else VARIATION),
    )
    return [walkers[index] for index in tqdm(range(len(walkers)), "rendering", leave=False)]


def score(competitor: Competitor, samples: list[WalkerSample]) -> list[float]:
    """Rank-1 per condition, then cross-view Rank-1 per condition, percent."""
    embeddings = competitor.embed([clip.silhouettes for clip in samples])
    labels = torch.tensor([clip.label for clip in samples])
    views = torch.tensor([round(clip.view) for clip in samples])
    gallery = torch.tensor([clip.condition == "normal" and clip.sequence < 2 for clip in samples])
    any_view, each_view = [], []
    for condition in CONDITIONS:
        query = torch.tensor([clip.condition == condition for clip in samples]) & ~gallery
        distances = part_distances(embeddings[query], embeddings[gallery])
        exclude = same_view_mask(views[query], views[gallery])
        any_view.append(rank_k(distances, labels[query], labels[gallery], exclude=exclude))
        table = cross_view_rank1(
            distances, labels[query], labels[gallery], views[query], views[gallery]
        )
        each_view.append(table.mean())
    return [100 * value for value in any_view + each_view]


def compare_on_walkers(competitors: dict[str, Competitor], options: argparse.Namespace) -> None:
    """Prints one table per noise setting."""
    for title, noise in NOISES.items() if options.noise else [("clean", None)]:
        sizes = {competitor.size for competitor in competitors.values()}
        samples = {size: render(options, size, noise) for size in sorted(sizes)}
        rows = [
            [name, *score(competitor, samples[competitor.size])]
            for name, competitor in competitors.items()
        ]
        headers = [title, *CONDITIONS, *(f"{name}, cross-view" for name in CONDITIONS)]
        print(tabulate(rows, headers, tablefmt="github", floatfmt=".1f"), end="\n\n", flush=True)


def compare_on_real(competitors: dict[str, Competitor], options: argparse.Namespace) -> None:
    """Prints where a real person's other walks rank among synthetic people."""
    rows = []
    for name, competitor in competitors.items():
        transform = SilhouetteTransform(competitor.size)
        clips = {
            condition: transform.align(gaitzoo.load_silhouettes(options.real / f"{condition}.gif"))
            for condition in ("nm", "bg", "cl")
        }
        half = len(clips["nm"]) // 2
        strangers = [
            transform.align(
                render_walk(
                    sample_identity(options.seed * 1_000_000 + number),
                    frames=half,
                    view=options.real_view,
                    size=(128, 128),  # not yet that of a model: both sorts are treated alike
                    seed=number,
                ).silhouettes
            )
            for number in range(500)
        ]
        gallery = competitor.embed([clips["nm"][half : 2 * half], *strangers])
        queries = {"nm": clips["nm"][:half], "bg": clips["bg"], "cl": clips["cl"]}
        ranks = []
        for query in queries.values():
            distances = part_distances(competitor.embed([query]), gallery)[0]
            ranks.append(1 + int((distances[1:] <= distances[0]).sum()))
        rows.append([name, *ranks])
    headers = ["rank of the same person of 501", "nm", "bg", "cl"]
    print(tabulate(rows, headers, tablefmt="github"))


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dygait", help="a model with weights")
    parser.add_argument("--recipe", type=Path, help="recipe.json of a training run, instead")
    parser.add_argument("--identities", type=int, default=100, help="people to tell apart")
    parser.add_argument("--frames", type=int, default=30, help="length of a walk")
    parser.add_argument(
        "--seed", type=int, default=2, help="of the people; training has 0, watching it 1"
    )
    parser.add_argument("--noise", action="store_true", help="also with bad segmentation")
    parser.add_argument("--level", action="store_true", help="easy: nearly level cameras")
    parser.add_argument("--real", type=Path, help="folder with nm.gif, bg.gif and cl.gif")
    parser.add_argument("--real-view", type=float, default=90.0, help="view of those, degrees")
    options = parser.parse_args()
    competitors = load_competitors(options)
    compare_on_walkers(competitors, options)
    if options.real:
        compare_on_real(competitors, options)


if __name__ == "__main__":
    main()
