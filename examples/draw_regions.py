"""Regions that a network finds in walkers by itself, and which of them it raises.

Six people of one average build walk in six ways: pace, stride, knees and feet are their own.
Head, shoulders, belly, bag and coat are drawn anew for every clip, so that it is mostly legs that
tell who it is. Region-dynamic excitation (RDE of GaitRDAE, https://arxiv.org/abs/2510.16541, a
reconstruction) multiplies each region by 0 to 2, by how it moves. Nobody tells it where legs are.
With ``--told-by body`` it is the other way round: builds are six, and legs are drawn.

    python examples/draw_regions.py --output regions.png
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import trange

from gaitzoo import RDAEBlock, RegionReport
from gaitzoo.synthetic import Identity, render_walk

PEOPLE, FRAMES, CHANNELS, REGIONS = 6, 12, 16, 4
LEGS = ["cadence", "stride", "knee_lift", "knee_bend", "leg_asymmetry", "step_asymmetry", "toe_out"]
BUILD = [
    "belly",
    "chest_depth",
    "buttocks",
    "head_size",
    "neck_length",
    "hair_volume",
    "hair_length",
    "shoulder_width",
    "hip_width",
    "lean",
    "slouch",
    "head_forward",
]
RANGES = {field.name: field.metadata for field in dataclasses.fields(Identity)}
PARTS = {"head and trunk": (1, 2), "arms": (3, 6), "legs": (7, 10)}  # labels of parsing


class Clips(NamedTuple):
    """Silhouettes ``[N, 1, T, 16, 11]``, shares of parts ``[N, 3, T, 16, 11]``, people ``[N]``."""

    silhouettes: Tensor
    parts: Tensor
    people: Tensor


def draw_traits(names: list[str], generator: np.random.Generator) -> dict[str, float]:
    """Traits of a walker, each from its range."""
    return {name: generator.uniform(RANGES[name]["low"], RANGES[name]["high"]) for name in names}


def film(people: list[dict[str, float]], told_by: str, count: int, seed: int) -> Clips:
    """So many clips of each; what does not tell them apart is drawn for every clip."""
    generator = np.random.default_rng(seed)
    conditions = ("normal", "bag", "coat") if told_by == "gait" else ("normal",)
    walks = [
        render_walk(
            Identity(**own, **draw_traits(BUILD if told_by == "gait" else LEGS, generator)),
            frames=FRAMES,
            size=(32, 22),
            condition=str(generator.choice(conditions)),
            seed=int(generator.integers(2**31)),
            parsing=True,
        )
        for own in people
        for _ in range(count)
    ]
    silhouettes = torch.stack([walk.silhouettes for walk in walks])[:, None].float() / 255
    labels = torch.stack([walk.parsing for walk in walks if walk.parsing is not None])
    parts = torch.stack([(labels >= low) & (labels <= high) for low, high in PARTS.values()], 1)
    return Clips(
        F.avg_pool3d(silhouettes, (1, 2, 2)),
        F.avg_pool3d(parts.float(), (1, 2, 2)),
        torch.arange(len(people)).repeat_interleave(count),
    )


class Recogniser(nn.Module):
    """A convolution, the block, a convolution and the mean of everything: no place has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv3d(1, CHANNELS, (1, 5, 5), padding=(0, 2, 2)),
            nn.BatchNorm3d(CHANNELS),
            nn.ReLU(),
        )
        self.block = RDAEBlock(CHANNELS, use_rda=False, num_regions=REGIONS, reduction=4)
        self.second = nn.Conv3d(CHANNELS, 2 * CHANNELS, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.head = nn.Sequential(nn.BatchNorm1d(2 * CHANNELS), nn.Linear(2 * CHANNELS, PEOPLE))

    def forward(self, x: Tensor) -> tuple[Tensor, RegionReport]:
        """Scores of the people, and what the block has found."""
        y, report = self.block(self.first(x), return_regions=True)
        return self.head(F.relu(self.second(y)).mean((2, 3, 4))), report


def train(clips: Clips, steps: int) -> Recogniser:
    """Fits the network."""
    model = Recogniser()
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in trange(steps, desc="training"):
        some = torch.randperm(len(clips.people))[:32]
        scores, _ = model(clips.silhouettes[some])
        loss = F.cross_entropy(scores, clips.people[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def draw(path: str, frames: Tensor, factors: Tensor, region: Tensor) -> None:
    """One walker: what comes in, what pixels are multiplied by, and the most raised region."""
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots(3, 6)
    spread = float((factors - 1).abs().max())
    scales = (Normalize(0, 1), Normalize(1 - spread, 1 + spread), Normalize(0, float(region.max())))
    rows = (
        ("frame", "gray", frames),
        ("factor", "coolwarm", factors),
        ("region", "viridis", region),
    )
    for row, scale, (name, colours, maps) in zip(axes, scales, rows, strict=True):
        row[0].set_ylabel(name)
        for axis, picture in zip(row, maps[::2], strict=True):
            axis.imshow(picture, colours, norm=scale)
            axis.set(xticks=[], yticks=[])
        if name != "frame":
            figure.colorbar(ScalarMappable(scale, colours), ax=row, shrink=0.8)
    figure.savefig(path)


def main() -> None:
    """Trains, measures on clips not seen in training, and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--told-by", choices=("gait", "body"), default="gait")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="regions.png", help="picture to write")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    generator = np.random.default_rng((options.seed, 1))
    own = LEGS if options.told_by == "gait" else BUILD
    people = [draw_traits(own, generator) for _ in range(PEOPLE)]
    model = train(film(people, options.told_by, 60, 2 * options.seed), options.steps)
    clips = film(people, options.told_by, 20, 2 * options.seed + 1)
    with torch.no_grad():
        scores, report = model(clips.silhouettes)
    assert report.weights is not None
    print(f"recognised: {float((scores.argmax(1) == clips.people).float().mean()):.2f}")
    factors = 1 + torch.einsum("nr,nrthw->nthw", report.weights, report.regions)
    raised = report.regions[:, int(report.weights.mean(0).argmax())]
    for name, share in zip(PARTS, clips.parts.unbind(1), strict=True):
        factor, region = (float((x * share).sum() / share.sum()) for x in (factors, raised))
        print(f"{name}: multiplied by {factor:.2f}, most raised region {region:.2f}")
    draw(options.output, clips.silhouettes[0, 0], factors[0], raised[0])


if __name__ == "__main__":
    main()
