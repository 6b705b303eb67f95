"""Train a small GaitCrafter on synthetic walkers and let it make walks, also of a new person.

    python examples/generate_walks.py --steps 1000 --picture walks.png --gif walks.gif

The generator learns a few people from the front and the side, in plain clothes, with a bag and in
a coat. Then every person walks again, from a view and in an outfit that were asked for; the last
walk is of a person between two of them. The share of generated walks that lie nearest to true walks
of their own person is printed. Takes several minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

import gaitzoo
from gaitzoo import (
    CASIA_B_COVARIATES,
    DiffusionLoss,
    GaitConditioner,
    GaitCrafter,
    GaitVideoUNet,
    NoiseSchedule,
)
from gaitzoo.evaluation.pictures import Panel, contact_sheet
from gaitzoo.synthetic import SyntheticWalkers

SIZE = (32, 22)  # height and width of frames, pixels
VIEWS = (0.0, 90.0)  # degrees
FRAMES = 6
SKIP = 4  # every fourth frame of 25 a second, so that a clip has most of a gait cycle


def walks(people: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Clips ``[N, 12, H, W]`` in [0, 1] of every condition, and the conditions."""
    walkers = SyntheticWalkers(
        people,
        sequences=[(condition, number) for condition in CASIA_B_COVARIATES for number in range(2)],
        views=VIEWS,
        frames=2 * FRAMES * SKIP,
        size=SIZE,
    )
    samples = [walkers[i] for i in tqdm(range(len(walkers)), desc="rendering", unit="walk")]
    outfits = torch.tensor([CASIA_B_COVARIATES[sample.condition] for sample in samples])
    conditions = {
        "identity": torch.tensor([sample.label for sample in samples]),
        "view": torch.tensor([sample.view for sample in samples]),
        "clothing": outfits[:, 0],
        "object": outfits[:, 1],
    }
    clips = torch.stack([sample.silhouettes[::SKIP] for sample in samples]).float() / 255
    return clips, conditions


def train(
    model: GaitCrafter,
    clips: Tensor,
    conditions: dict[str, Tensor],
    options: argparse.Namespace,
    generator: torch.Generator,
) -> GaitCrafter:
    """Trains; gives the moving average of the weights, which makes smoother walks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, options.steps)
    decay = min(0.995, 1 - 10 / options.steps)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    loss_of = DiffusionLoss(min_snr=5)
    progress = tqdm(range(options.steps), desc="training", unit="step")
    mean = 1.0
    for _ in progress:
        chosen = torch.randint(len(clips), (options.batch,), generator=generator)
        first = int(torch.randint(FRAMES + 1, (), generator=generator))
        seen = clips[chosen, first : first + FRAMES]
        loss = loss_of(model(seen, {name: x[chosen] for name, x in conditions.items()}))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        mean += 0.02 * (loss.item() - mean)
        progress.set_postfix(loss=f"{mean:.4f}")
    return average.module.eval()  # pyright: ignore[reportReturnType]


def nearest_person(made: Tensor, true: Tensor, people: Tensor) -> Tensor:
    """Who has the true clip that overlaps most with each made one, over all shifts in time."""
    found = made > 0.5
    best = torch.zeros(len(made), int(people.max()) + 1)
    for first in range(true.shape[1] - FRAMES + 1):
        known = true[:, first : first + FRAMES] > 0.5
        shared = (found[:, None] & known).sum((2, 3, 4))
        overlap = shared / (found[:, None] | known).sum((2, 3, 4))
        best = best.scatter_reduce(1, people.expand(len(made), -1), overlap, "amax")
    return best.argmax(1)


def save_gif(path: Path, clips: Tensor, columns: int) -> None:
    """Clips ``[N, T, H, W]`` side by side, moving."""
    empty = clips.new_zeros(-len(clips) % columns, *clips.shape[1:])
    grid = (255 * torch.cat([clips, empty])).round().to(torch.uint8)
    rows = [torch.cat(list(row), dim=2) for row in grid.split(columns)]
    frames = torch.cat(rows, dim=1)
    pictures = [
        Image.fromarray(frame.numpy()).resize((frame.shape[1] * 3, frame.shape[0] * 3))
        for frame in frames
    ]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=90, loop=0)


def main() -> None:
    """Render, train, generate, compare, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=3, help="people to learn, 2 or more")
    parser.add_argument("--steps", type=int, default=1000, help="training steps, 20 or more")
    parser.add_argument("--batch", type=int, default=8, help="clips in a step")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="picture of true and made walks to write")
    parser.add_argument("--gif", type=Path, help="the same, moving")
    parser.add_argument("--output", type=Path, help="file for the weights (safetensors)")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    clips, conditions = walks(options.people)
    model = GaitCrafter(
        GaitVideoUNet(
            channels=(16, 32, 64), cond_dim=64, blocks=1, spatial_levels=1, temporal_levels=2
        ),
        GaitConditioner(num_ids=options.people, dim=64, identity_dim=32),
        NoiseSchedule(prediction="v"),
        input_size=SIZE,
    )
    model = train(model.train(), clips, conditions, options, generator)

    plan = gaitzoo.plan_conditions(
        torch.arange(options.people), VIEWS, tuple(CASIA_B_COVARIATES.values())
    )
    steps = 25
    with tqdm(total=steps, desc="generating", unit="step") as bar:

        def show(number: int, _: Tensor) -> None:
            bar.update(number - bar.n)

        made = model.sample(plan, FRAMES, steps, options.guidance, generator, show)
    quality = gaitzoo.silhouette_quality(made)
    good = gaitzoo.within_ranges(quality, {"largest_piece": (0.98, 1), "area": (0.1, 0.6)})
    right = []
    for view in VIEWS:
        here, there = plan["view"] == view, conditions["view"] == view
        people = nearest_person(made[here], clips[there], conditions["identity"][there])
        right.append(people == plan["identity"][here])
    share = torch.cat(right).float().mean().item()
    print(f"own person nearest: {100 * share:.0f} % of {len(made)} walks", end=", ")
    print(f"chance {100 / options.people:.0f} %; {100 * good.float().mean().item():.0f} % in range")

    # The table of people is what new ones are mixed of.
    assert model.conditioner.identities is not None
    bank = model.conditioner.identities.detach()
    new = gaitzoo.interpolate_identities(bank[0], bank[1], 0.5)[None]
    stranger = gaitzoo.plan_conditions(new, VIEWS, ((1, 1),))
    between = model.sample(stranger, FRAMES, steps, options.guidance, generator)
    plain = (plan["clothing"] == 1) & (plan["object"] == 1)
    rows, shown = [], []
    for person in range(min(3, options.people)):
        row = []
        for view in VIEWS:
            here = plain & (plan["identity"] == person) & (plan["view"] == view)
            shown.append(made[here][0])
            row.append(Panel(shown[-1], [f"person {person}, {view:.0f} degrees"]))
        true = (conditions["identity"] == person) & (conditions["view"] == VIEWS[-1])
        shown.append(clips[true][0, :FRAMES])
        row.append(Panel(shown[-1], [f"person {person}, a true walk"]))
        rows.append(row)
    row = []
    for outfit, pair in CASIA_B_COVARIATES.items():
        here = (plan["identity"] == 0) & (plan["view"] == VIEWS[-1])
        here &= (plan["clothing"] == pair[0]) & (plan["object"] == pair[1])
        shown.append(made[here][0])
        row.append(Panel(shown[-1], [f"person 0, {outfit}"]))
    shown.append(between[-1])
    row.append(Panel(between[-1], ["between person 0 and 1"]))
    rows.append(row)
    if options.picture:
        title = "generated walks, and true ones in the last column"
        contact_sheet(rows, title=title, frame_height=64).save(options.picture)
    if options.gif:
        save_gif(options.gif, torch.stack(shown), columns=4)
    if options.output:
        from safetensors.torch import save_model

        save_model(model, str(options.output))


if __name__ == "__main__":
    main()
