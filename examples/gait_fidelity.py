"""Whom does gait recognition find in a walk that moves like one person and looks like another?

Synthetic walkers take the place of a generator of videos: the body of one person, moved like
another. The shipped models, trained on walkers, then look for both people in a gallery of real
walks (``gaitzoo.GaitFidelity``). Beside it stand a perfect and a useless generator. Takes a minute
on two cores.

    python examples/gait_fidelity.py --people 40 --plot fidelity.png
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace

import torch
from tqdm import tqdm

import gaitzoo
from gaitzoo.synthetic import Identity, render_walk, sample_identity

# Traits of how somebody walks; those before them are of the body.
MOTION = [field.name for field in fields(Identity)]
MOTION = MOTION[MOTION.index("cadence") :]
VIEWS = (54, 90)


def walk(identity: Identity, sequence: int, view: int, frames: int) -> torch.Tensor:
    """Silhouettes of a walk, ``[T, 32, 22]``."""
    return render_walk(identity, frames=frames, view=view, seed=sequence, size=(32, 22)).silhouettes


def main() -> None:
    """Renders, embeds and prints both reports for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--seed", type=int, default=100_000, help="of the first person")
    parser.add_argument("--plot", metavar="FILE", help="picture of the first model's ranks")
    options = parser.parse_args()
    people = [sample_identity(options.seed + number) for number in range(options.people)]
    pairs = gaitzoo.make_transfer_pairs(list(range(len(people))), seed=0)
    keys = [(number, view) for number in range(len(people)) for view in VIEWS]
    gallery, probes, mixed, frozen = [], [], [], []
    for number, view in tqdm(keys, desc="rendering", unit="walk"):
        gallery.append(walk(people[number], 1, view, options.frames))
        probes.append(walk(people[number], 2, view, options.frames))
        driver, body = (people[side] for side in pairs[number])
        moved = replace(body, **{name: getattr(driver, name) for name in MOTION})
        mixed.append(walk(moved, 3, view, options.frames))
        still = walk(body, 3, view, 1)
        frozen.append(still.repeat(options.frames, 1, 1))
    movers = [pairs[number][0] for number, _ in keys]
    bodies = [pairs[number][1] for number, _ in keys]
    labels, views = [number for number, _ in keys], [view for _, view in keys]
    for name in ("dygait.walkers", "hstl.walkers"):
        model = gaitzoo.create_model(name, pretrained=True, num_classes=0)
        fidelity = gaitzoo.GaitFidelity(model, bootstrap=200, normalized=False, progress=False)
        print(f"\n{name}: {len(people)} people, {len(VIEWS)} views, rates in percent")
        copied = fidelity.restoration(gallery + probes, gallery + probes, labels * 2)
        print(f"\na generator that changes nothing\n{copied}")
        for title, made in (("body of one, motion of another", mixed), ("frozen body", frozen)):
            conditions = [f"{view} degrees" for view in views]
            report = fidelity.identity_transfer(
                made, gallery, movers, bodies, labels, conditions=conditions
            )
            print(f"\n{title}\n{report}")
            if options.plot and name == "dygait.walkers" and made is mixed:
                report.plot(options.plot)


if __name__ == "__main__":
    main()
