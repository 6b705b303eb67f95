"""Learn two data sets of synthetic walkers one after the other, and measure what is forgotten.

    python examples/continual.py --picture continual.png

Domain A shows people from the side, domain B other people from ahead and above, at half speed. A
small GaitAdapter learns A, then B without a clip of A: once with plain fine-tuning, once with its
teacher (EDSN, KD, STA). Rank-1 is that of people who never walked in training. Takes a few minutes
on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.synthetic import SyntheticWalkers

SIZE = (32, 22)  # height and width of frames, pixels
DOMAINS = {  # views in degrees, and the camera
    "A": {"views": (72, 84, 96, 108), "elevation": (0.0, 5.0), "speed": (0.9, 1.1)},
    "B": {"views": (0, 15, 165, 180), "elevation": (22.0, 30.0), "speed": (0.5, 0.6)},
}
RECIPES = {"fine-tuning": False, "GaitAdapter": True}

Clips = tuple[Tensor, Tensor]


def walks(domain: str, people: int, first: int) -> Clips:
    """Clips ``[N, 12, H, W]`` of a domain with who walks, ``[N]``."""
    walkers = SyntheticWalkers(
        people,
        sequences=[("normal", 0), ("normal", 1)],
        frames=12,
        size=SIZE,
        first_identity=first,
        **DOMAINS[domain],
    )
    rendered = tqdm(range(len(walkers)), desc=f"rendering {domain}", unit="walk")
    clips = torch.stack([walkers[i].silhouettes for i in rendered])
    return clips, torch.as_tensor(walkers.labels)


def train(
    model: gaitzoo.GaitAdapter,
    data: Clips,
    steps: int,
    generator: torch.Generator,
    keep: bool,
) -> None:
    """One data set; ``keep`` says whether the teacher's losses are added."""
    clips, labels = data
    people, each = int(labels.max()) + 1, len(labels) // (int(labels.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses_of = gaitzoo.GaitAdapterLoss()
    model.train()
    for _ in tqdm(range(steps), desc="training", unit="step"):
        chosen = torch.randperm(people, generator=generator)[:8]
        batch = torch.cat(
            [p * each + torch.randperm(each, generator=generator)[:4] for p in chosen]
        )
        losses = losses_of(model, clips[batch], labels[batch])
        kept = losses if keep else {"triplet", "cross_entropy"}
        loss = torch.stack([losses[name] for name in kept]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def rank1(model: gaitzoo.GaitModel, data: Clips) -> float:
    """Share of second walks whose nearest first walk, of any view, is of the same person, %."""
    clips, labels = data
    found = torch.cat([model(batch).embeddings for batch in clips.split(64)])
    # Of every person, the first half of the clips is the first walk.
    second = torch.arange(len(labels)) % (2 * len(DOMAINS["A"]["views"]))
    second = second >= len(DOMAINS["A"]["views"])
    distances = part_distances(found[second], found[~second])
    return 100 * rank_k(distances, labels[second], labels[~second])


def draw(path: Path, shown: dict[str, Tensor], tables: dict[str, list[list[float]]]) -> None:
    """A clip of each domain, and Rank-1 on both after each task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    panels = list(figure.subplots(1, 4, width_ratios=(1, 1, 4, 4)))
    for axes, (name, clip) in zip(panels, shown.items(), strict=False):
        axes.imshow(torch.cat([clip[t] for t in (1, 5, 9)]), cmap="gray")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"domain {name}", fontsize=9)
    for axes, (recipe, table) in zip(panels[2:], tables.items(), strict=True):
        for i, name in enumerate(DOMAINS):
            values = [row[i] for row in table]
            bars = axes.bar([s + 0.37 * (i - 0.5) for s in (0, 1)], values, width=0.35, label=name)
            axes.bar_label(bars, fmt="%.0f", fontsize=8)
        axes.set_xticks((0, 1), labels=("after A", "after B"))
        axes.set(ylim=(0, 135), yticks=range(0, 101, 20), title=recipe)
        axes.spines[["top", "right"]].set_visible(False)
    panels[2].set_ylabel("Rank-1 (%), unseen people")
    panels[3].legend(title="people of", frameon=False, fontsize=8, loc="upper right", ncols=2)
    figure.savefig(path)


def main() -> None:
    """Render, train twice over both domains, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--people", type=int, default=10, help="per domain and for the test, 8 or more"
    )
    parser.add_argument("--steps", type=int, default=60, help="steps of every task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="picture of domains and results to write")
    options = parser.parse_args()

    people = options.people
    training = {name: walks(name, people, i * people) for i, name in enumerate(DOMAINS)}
    unseen = {name: walks(name, people, 2 * people) for name in DOMAINS}
    tables: dict[str, list[list[float]]] = {}
    for recipe, keep in RECIPES.items():
        torch.manual_seed(options.seed)
        generator = torch.Generator().manual_seed(options.seed)
        model = gaitzoo.GaitAdapter(num_classes=0, channels=(8, 16, 32, 64), part_bins=(8,))
        tables[recipe] = []
        for data in training.values():
            model.begin_task(people)
            train(model, data, options.steps, generator, keep)
            tables[recipe].append([rank1(model, test) for test in unseen.values()])

    print("Rank-1 (%)    domain:      A      B   average   forgotten of A")
    for recipe, table in tables.items():
        forgotten = gaitzoo.forgetting_matrix(table)
        for step, (name, row) in enumerate(zip(DOMAINS, table, strict=True)):
            lost = f"{forgotten[step, 0]:14.1f}" if step else ""
            print(
                f"{recipe:13} after {name}: {row[0]:6.1f} {row[1]:6.1f} {sum(row) / 2:9.1f}  {lost}"
            )
    if options.picture:
        draw(options.picture, {name: clips[0] for name, (clips, _) in unseen.items()}, tables)


if __name__ == "__main__":
    main()
