"""Train GaitSnippet on synthetic walkers, and the same network without snippets beside it.

    python examples/train_gaitsnippet.py --picture snippets.png

Every step sees a few snippets of each walk: frames drawn at random from one gait cycle. The loss
compares walks and, with a smaller weight, their snippets. Rank-1 is that of people who never walked
in training, in a coat, among walks without one. Takes a few minutes on two cores; `--steps 0` only
draws the picture.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.synthetic import SyntheticWalkers, render_walk, sample_identity

SIZE = (32, 22)  # height and width of frames, pixels
FRAMES = 48  # of every walk
VIEWS = (54, 72, 90, 108)  # degrees
WALKS = 2 * len(VIEWS)  # of every person
NETWORK = {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64), "part_bins": (8,)}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def walks(people: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Walks ``[N, FRAMES, H, W]`` with who walks and whether in a coat, ``[N]`` each."""
    walkers = SyntheticWalkers(
        people,
        sequences=[("normal", 0), ("coat", 0)],
        views=VIEWS,
        frames=FRAMES,
        size=SIZE,
        first_identity=first,
    )
    samples = [walkers[i] for i in tqdm(range(len(walkers)), desc="rendering", unit="walk")]
    labels = torch.as_tensor(walkers.labels) - first
    in_coat = torch.tensor([sample.condition == "coat" for sample in samples])
    return torch.stack([sample.silhouettes for sample in samples]), labels, in_coat


class WalkLoss(torch.nn.Module):
    """The loss of walks alone, of networks that have no snippets."""

    def __init__(self) -> None:
        super().__init__()
        self.triplet, self.entropy = PartTripletLoss(), PartCrossEntropyLoss()

    def forward(self, output: gaitzoo.GaitOutput, labels: Tensor) -> Tensor:
        """Triplet loss on embeddings, cross-entropy on class scores."""
        assert output.logits is not None
        return self.triplet(output.embeddings, labels) + self.entropy(output.logits, labels)


def train(
    model: gaitzoo.GaitModel,
    sampler: gaitzoo.SnippetSampler | gaitzoo.UnorderedSampler,
    loss_of: torch.nn.Module,
    clips: Tensor,
    labels: Tensor,
    steps: int,
) -> None:
    """Six people with four walks each in every step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draws = random.Random(0)
    people = range(int(labels.max()) + 1)
    for _ in tqdm(range(steps), desc=type(model).__name__, unit="step"):
        batch = [
            person * WALKS + walk
            for person in draws.sample(people, 6)
            for walk in draws.sample(range(WALKS), 4)
        ]
        seen = torch.stack([clips[i][sampler(FRAMES, draws)] for i in batch])
        loss = loss_of(model(seen), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def rank1(model: gaitzoo.GaitModel, probes: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """Share of probes whose nearest walk of the gallery is of the same person, percent."""
    found, known = (
        torch.cat([model(batch).embeddings for batch in clips.split(32)])
        for clips in (probes, gallery)
    )
    return 100 * rank_k(part_distances(found, known), labels, labels)


def draw(path: Path) -> None:
    """Which frames sets, sequences and snippets take, and what gathering makes of a snippet."""
    from matplotlib.figure import Figure

    frames = 80
    walk = render_walk(sample_identity(3), frames=frames, view=90, size=(64, 44)).silhouettes
    sampler, draws = gaitzoo.SnippetSampler(), random.Random(3)
    first, second = sampler.draw(frames, draws), sampler.draw(frames, draws)
    whole = sampler.all_frames(frames)
    rows = {
        "set": (gaitzoo.UnorderedSampler(32, seed=0)(frames), None),
        "sequence": (gaitzoo.OrderedSampler(32, seed=0)(frames), None),
        "snippets": first,
        "snippets,\nnext draw": second,
        "snippets,\nall frames": whole,
    }
    figure = Figure(figsize=(10, 4.9), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.35, 1), squeeze=False)[:, 0]
    axes = above.subplots()
    for row, (chosen, ids) in enumerate(rows.values()):
        colours, heights = ["#555555"] * len(chosen), torch.full(chosen.shape, -float(row))
        if ids is not None:
            colours = [COLOURS[int(i)] for i in ids]
            heights += 0.1 * (1 - ids % 3)  # draws of one segment lie above each other
        axes.scatter(chosen, heights, c=colours, s=14, linewidths=0)
    axes.set_yticks([-row for row in range(len(rows))], labels=list(rows))
    axes.set(xlim=(-1, frames), ylim=(-len(rows) + 0.4, 0.6), xlabel="frame of the walk")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)

    seen = walk[first.frames[:8]].float()
    panels = below.subplots(1, 9, width_ratios=[1] * 9)
    for axes, frame, number in zip(panels, seen, first.frames.tolist(), strict=False):
        axes.imshow(F.pad(frame, (2, 2, 2, 2), value=80), cmap="gray")
        axes.set_title(f"frame {number}", fontsize=8, color=COLOURS[0])
    panels[-1].imshow(F.pad(seen.amax(0), (2, 2, 2, 2), value=80), cmap="gray")
    panels[-1].set_title("maximum", fontsize=8)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    figure.savefig(path)


def main() -> None:
    """Render, train both networks, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=60, help="people to train on, 6 or more")
    parser.add_argument("--steps", type=int, default=150, help="steps of each network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="picture of the frames that are drawn")
    parser.add_argument("--output", type=Path, help="folder for the trained GaitSnippet")
    options = parser.parse_args()
    if options.picture:
        draw(options.picture)
    if options.steps == 0:
        return

    clips, labels, _ = walks(options.people, first=0)
    unseen, names, in_coat = walks(40, first=options.people)
    probes, gallery, names = unseen[in_coat], unseen[~in_coat], names[in_coat]

    torch.manual_seed(options.seed)
    plain = gaitzoo.DeepGaitV2(num_classes=options.people, mode="2d", **NETWORK)
    train(plain, gaitzoo.UnorderedSampler(32), WalkLoss(), clips, labels, options.steps)
    torch.manual_seed(options.seed)
    model = gaitzoo.GaitSnippet(num_classes=options.people, embed_dim=32, **NETWORK)
    train(model, gaitzoo.SnippetSampler(), gaitzoo.SnippetLoss(), clips, labels, options.steps)
    for name, network in (("a set of frames", plain), ("snippets", model)):
        found = rank1(network, probes, gallery, names)
        print(f"{name}: Rank-1 {found:.1f} % of {len(probes)} walks of strangers in coats")
    if options.output:
        model.save_pretrained(options.output)


if __name__ == "__main__":
    main()
