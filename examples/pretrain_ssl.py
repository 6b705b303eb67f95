"""Pretrain a small FoundationGait on walks without labels and watch zero-shot Rank-1 rise.

    python examples/pretrain_ssl.py --picture rise.png

Nobody tells the network who walks: two clips of one walk, augmented, are to find each other among
all walks of the batch. The student sees horizontal bands, the teacher whole frames. Rank-1 is that
of the teacher, on people who never walked in training. Takes a few minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.data.augment import RandomAugment
from gaitzoo.losses import PartCrossEntropyLoss
from gaitzoo.metrics import part_distances
from gaitzoo.synthetic import SyntheticWalkers

SIZE = (32, 22)  # height and width of frames, pixels
VIEWS = (54, 72, 90, 108)  # degrees
CROPS = (2, 1)  # bands that halves of a batch are cut into; more of them for larger frames
# Unsteady cameras and bad outlines, in training and test: shapes alone do not tell people apart.
AUGMENT = RandomAugment(flip=0, rotate=0.7, perspective=0.7, erase=0, roughen=0.3, max_shift=0.06)


def walks(people: int, sequences: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Walks ``[N, 15, H, W]`` uint8 with who walks and the number of the walk, ``[N]`` each.

    Every other frame is left out, so that short clips show more of a step.
    """
    walkers = SyntheticWalkers(
        people,
        sequences=[("normal", number) for number in range(sequences)],
        views=VIEWS,
        size=SIZE,
        seed=seed,
    )
    samples = [walkers[i] for i in tqdm(range(len(walkers)), desc="rendering", unit="walk")]
    numbers = torch.tensor([sample.sequence for sample in samples])
    clips = torch.stack([sample.silhouettes[::2] for sample in samples])
    return clips, walkers.labels, numbers


def view_of(clips: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """A run of frames from anywhere in each walk, augmented."""
    views = []
    for clip in clips:
        first = int(torch.randint(clip.shape[0] - frames + 1, (), generator=generator))
        views.append(AUGMENT(clip[first : first + frames], generator))
    return torch.stack(views)


@torch.no_grad()
def rank1(model: gaitzoo.GaitModel, clips: Tensor, labels: Tensor, numbers: Tensor) -> float:
    """Share of walks whose nearest walk of another number is of the same person, percent."""
    embeddings = torch.cat([model(batch).embeddings for batch in clips.split(64)])
    query, gallery = numbers > 0, numbers == 0
    nearest = part_distances(embeddings[query], embeddings[gallery]).argmin(1)
    hits = labels[gallery][nearest] == labels[query]
    return 100 * hits.float().mean().item()


def draw(path: Path, curve: list[tuple[int, float]]) -> None:
    """Rank-1 over the steps as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), marker="o")
    axes.set(xlabel="steps without labels", ylabel="zero-shot Rank-1 (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    figure.savefig(path)


def main() -> None:
    """Render, pretrain, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=60, help="people to train on, unlabelled")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32, help="walks in a batch, a multiple of 4")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="picture of the rise to write")
    parser.add_argument("--output", type=Path, help="folder for the teacher's weights")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    train, _, _ = walks(options.people, 2, seed=1)
    clips, labels, numbers = walks(30, 2, seed=2)
    unseen = torch.stack([AUGMENT(clip, generator) for clip in clips]), labels, numbers
    model = gaitzoo.FoundationGait(
        layers=(1, 1, 1, 1), channels=(8, 16, 32, 64), part_bins=(8, 4, 2, 1)
    )
    pretrainer = gaitzoo.FoundationGaitPretrainer(model, CROPS).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    loss_of = PartCrossEntropyLoss()

    curve = [(0, rank1(pretrainer.teacher.eval(), *unseen))]
    tqdm.write(f"untrained: Rank-1 {curve[0][1]:.1f} %")
    for step in tqdm(range(1, options.steps + 1), desc="pretraining", unit="step"):
        chosen = torch.randperm(len(train), generator=generator)[: options.batch]
        views = [view_of(train[chosen], options.frames, generator) for _ in range(2)]
        pretrainer.train()
        loss = loss_of(*pretrainer(*views))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        pretrainer.update_teacher(step, options.steps, start=0.95)
        if step % max(options.steps // 6, 1) == 0:
            curve.append((step, rank1(pretrainer.teacher.eval(), *unseen)))
            tqdm.write(f"step {step}: loss {loss.item():.3f}, Rank-1 {curve[-1][1]:.1f} %")
    print(f"zero-shot Rank-1: {curve[0][1]:.1f} % before, {curve[-1][1]:.1f} % after")
    if options.picture:
        draw(options.picture, curve)
    if options.output:
        pretrainer.teacher.save_pretrained(options.output)


if __name__ == "__main__":
    main()
