"""Train RG-Gait in its three stages on synthetic walkers and recognise people half hidden.

    python examples/train_rggait.py --picture rggait.png

Stage 1 teaches the evaluator how much of single frames is hidden, stage 2 an encoder to tell people
apart in full view, stage 3 the residual that is added to the frozen encoder's embeddings. Rank-1 is
that of people who never walked in training; their gallery is in full view. Takes a few minutes on
two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.data.occlusion import (
    HalfBodyOcclusion,
    MiddleBandOcclusion,
    MovingPatchOcclusion,
    OcclusionExamples,
    OneOf,
)
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.synthetic import SyntheticWalkers

SIZE = (32, 22)  # height and width of frames, pixels
VIEWS = (54, 72, 90, 108)  # degrees
WALKS = 2 * len(VIEWS)  # of every person
SHOWN = (1, 5, 9)  # frames in the picture


def walks(people: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips ``[N, 12, H, W]`` with who walks and the number of the walk, ``[N]`` each."""
    walkers = SyntheticWalkers(
        people,
        sequences=[("normal", 0), ("normal", 1)],
        views=VIEWS,
        frames=12,
        size=SIZE,
        first_identity=first,
    )
    samples = [walkers[i] for i in tqdm(range(len(walkers)), desc="rendering", unit="walk")]
    labels = torch.as_tensor(walkers.labels) - first
    numbers = torch.tensor([sample.sequence for sample in samples])
    return torch.stack([sample.silhouettes for sample in samples]), labels, numbers


def train_evaluator(
    clips: Tensor, steps: int, generator: torch.Generator
) -> gaitzoo.OcclusionEvaluator:
    """Stage 1: kinds and amounts of occlusion of single frames."""
    evaluator = gaitzoo.OcclusionEvaluator(num_types=3).train()
    optimizer = torch.optim.Adam(evaluator.parameters(), lr=1e-3)
    # What stage 3 and the test hide, without the published cut of columns.
    frames, examples = clips.flatten(0, 1), OcclusionExamples(kept=(0.4, 0.9), trim=False)
    loss_of = gaitzoo.OcclusionEvaluatorLoss()
    for _ in tqdm(range(steps), desc="stage 1", unit="step"):
        chosen = torch.randint(len(frames), (32,), generator=generator)
        occluded = examples(frames[chosen], generator)
        embedding, amount = evaluator(occluded.frames[:, None])
        logits = evaluator.type_logits(embedding)
        loss = loss_of(logits, amount, occluded.types, occluded.amounts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return evaluator


def train(
    model: gaitzoo.GaitModel,
    clips: Tensor,
    labels: Tensor,
    occlude: OneOf | None,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Stages 2 and 3: triplet loss on embeddings, cross-entropy on class scores."""
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    triplet, entropy = PartTripletLoss(), PartCrossEntropyLoss()
    people = int(labels.max()) + 1
    for _ in tqdm(range(steps), desc="stage 2" if occlude is None else "stage 3", unit="step"):
        chosen = torch.randperm(people, generator=generator)[:8]
        batch = torch.cat(
            [p * WALKS + torch.randperm(WALKS, generator=generator)[:4] for p in chosen]
        )
        seen = clips[batch]
        if occlude is not None:
            seen = torch.stack([occlude(clip, generator) for clip in seen])
        output = model(seen)
        loss = triplet(output.embeddings, labels[batch]) + entropy(output.logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def rank1(model: gaitzoo.GaitModel, probes: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """Share of probes whose nearest walk of the gallery is of the same person, percent."""
    found, known = (
        torch.cat([model(batch).embeddings for batch in clips.split(64)])
        for clips in (probes, gallery)
    )
    return 100 * rank_k(part_distances(found, known), labels, labels)


def draw(path: Path, clip: Tensor, scores: dict[str, list[float]], shown: list[str]) -> None:
    """What the occlusions do, and Rank-1 of the models, as a picture."""
    from matplotlib.figure import Figure

    generator = torch.Generator().manual_seed(5)
    half = HalfBodyOcclusion(portion=(0.4, 0.4))
    rows = {
        "in full view": clip,
        "half body": half(clip, generator),
        "middle band": MiddleBandOcclusion()(clip, generator),
        "moving patch": MovingPatchOcclusion()(clip, generator),
        "moving pole": MovingPatchOcclusion(height=(1, 1))(clip, generator),
    }
    figure = Figure(figsize=(10, 3.4), dpi=110, layout="constrained")
    panels = list(figure.subplots(1, len(rows) + 1, width_ratios=(*[1] * len(rows), 4)))
    for axes, (name, x) in zip(panels, rows.items(), strict=False):
        frames = torch.cat(
            [F.pad(x[t].float(), (1, 1, 1, 1), value=float(x.max()) / 2) for t in SHOWN]
        )
        axes.imshow(frames, cmap="gray")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
    axes = panels[-1]
    for i, (name, values) in enumerate(scores.items()):
        places = [j + 0.27 * (i - 0.5) for j in range(len(values))]
        bars = axes.bar(places, values, width=0.25, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(shown)), labels=shown)
    axes.set(ylim=(0, 125), yticks=range(0, 101, 20), ylabel="Rank-1 (%), unseen people")
    axes.legend(frameon=False, fontsize=8, loc="upper center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Render, train in three stages, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=80, help="people to train on, 8 or more")
    parser.add_argument("--steps", type=int, default=200, help="steps of every stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="picture of occlusions and results to write")
    parser.add_argument("--output", type=Path, help="folder for the trained model")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    clips, labels, _ = walks(options.people, first=0)
    unseen, names, numbers = walks(40, first=options.people)
    probes, gallery = unseen[numbers == numbers.max()], unseen[numbers == numbers.min()]
    names = names[numbers == numbers.max()]

    evaluator = train_evaluator(clips, options.steps, generator)
    encoder = gaitzoo.GaitBase(num_classes=options.people, channels=(8, 16, 32, 64), part_bins=(8,))
    train(encoder, clips, labels, None, options.steps, generator)
    model = gaitzoo.ResidualGapCorrection(encoder=encoder, evaluator=evaluator, copy_encoder=True)
    train(model, clips, labels, OneOf([HalfBodyOcclusion()], 0.5), options.steps, generator)

    hide = HalfBodyOcclusion()
    hidden = torch.stack([hide(clip, generator) for clip in probes])
    scores = {
        name: [rank1(network, x, gallery, names) for x in (probes, hidden)]
        for name, network in (("encoder", encoder), ("RG-Gait", model))
    }
    with torch.no_grad():
        amounts = [model.evaluator(x)[1].mean().item() for x in (probes, hidden)]
    for name, (full, half) in scores.items():
        print(f"{name}: Rank-1 {full:.1f} % in full view, {half:.1f} % half hidden")
    print(f"amount: {amounts[0]:.2f} in full view, {amounts[1]:.2f} half hidden")
    if options.picture:
        draw(options.picture, probes[2], scores, ["in full view", "half hidden"])
    if options.output:
        model.save_pretrained(options.output)


if __name__ == "__main__":
    main()
