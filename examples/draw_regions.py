"""Regions that a network finds in walkers by itself, and how far over time it looks in each.

A small network is to remove blocks of noise that change from frame to frame. Where nothing moves, a
mean over many frames does that; where legs swing, it would blur them. One block of region-dynamic
aggregation (RDA of GaitRDAE, https://arxiv.org/abs/2510.16541, a reconstruction) chooses for each
region. Nobody tells it where legs are.

    python examples/draw_regions.py --output regions.png
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from gaitzoo import RDAEBlock, RegionReport
from gaitzoo.synthetic import render_walk, sample_identity

CHANNELS, FRAMES, BLOCK = 24, 12, 4


class Denoiser(nn.Module):
    """A convolution, the block, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, CHANNELS, (1, 3, 3), padding=(0, 1, 1))
        self.block = RDAEBlock(CHANNELS, use_rde=False, num_regions=2)
        self.last = nn.Conv3d(CHANNELS, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, RegionReport]:
        """Scores of the clean pixels, and what the block has found."""
        y, report = self.block(F.relu(self.first(x)), return_regions=True)
        return self.last(y), report


def walkers(numbers: range) -> tuple[Tensor, Tensor]:
    """Silhouettes ``[N, 1, T, 16, 11]``, and the shares of head and trunk, and of legs, in them."""
    walks = [
        render_walk(sample_identity(i), frames=FRAMES, size=(32, 22), seed=i, parsing=True)
        for i in numbers
    ]
    silhouettes = torch.stack([walk.silhouettes for walk in walks])[:, None].float() / 255
    labels = torch.stack([walk.parsing for walk in walks if walk.parsing is not None])
    parts = torch.stack([(labels >= low) & (labels <= high) for low, high in ((1, 2), (7, 10))], 1)
    return F.avg_pool3d(silhouettes, (1, 2, 2)), F.avg_pool3d(parts.float(), (1, 2, 2))


def with_noise(x: Tensor) -> Tensor:
    """Three of ten blocks of pixels inverted, others in every frame."""
    n, _, t, h, w = x.shape
    blocks = torch.rand(n, 1, t, -(-h // BLOCK), -(-w // BLOCK)) < 0.3
    spread = blocks.repeat_interleave(BLOCK, 3).repeat_interleave(BLOCK, 4)[..., :h, :w]
    return (x - spread.float()).abs()


def train(clips: Tensor, steps: int) -> Denoiser:
    """Fits the network."""
    model = Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        clean = clips[torch.randperm(len(clips))[:4]]
        loss = F.binary_cross_entropy_with_logits(model(with_noise(clean))[0], clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def draw(path: str, noisy: Tensor, scores: Tensor, reach: Tensor) -> None:
    """One walker: what comes in, what comes out, and how many frames every pixel looks over."""
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    axes = figure.subplots(3, 6)
    for row, (name, frames) in enumerate((("in", noisy), ("out", scores.sigmoid()))):
        axes[row, 0].set_ylabel(name)
        for axis, frame in zip(axes[row], frames[::2], strict=True):
            axis.imshow(frame, "gray", vmin=0, vmax=1)
    axes[2, 0].set_ylabel("reach")
    norm = Normalize(float(reach.min()), float(reach.max()))
    for axis, frame in zip(axes[2], reach[::2], strict=True):
        axis.imshow(frame, "viridis", norm=norm)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    colours = ScalarMappable(norm, "viridis")
    figure.colorbar(colours, ax=axes[2], label="frames", shrink=0.8)
    figure.savefig(path)


def main() -> None:
    """Trains, measures on other people, and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="regions.png", help="picture to write")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = train(walkers(range(12))[0], options.steps)
    clean, parts = walkers(range(12, 16))
    with torch.no_grad():
        noisy = with_noise(clean)
        scores, report = model(noisy)
    assert report.receptive_fields is not None
    reach = torch.einsum("nr,nrthw->nthw", report.receptive_fields, report.regions)
    for name, share in zip(("head and trunk", "legs"), parts.unbind(1), strict=True):
        mean = float((reach * share).sum() / share.sum())
        print(f"{name}: {mean:.2f} frames")
    draw(options.output, noisy[0, 0], scores[0, 0], reach[0])


if __name__ == "__main__":
    main()
