"""``gaitzoo demo``: synthetic people, found again in other clothes and views."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm.auto import tqdm

from gaitzoo.cli.files import as_fast, check_output, load_model
from gaitzoo.cli.options import add_command, add_model_options, embed_options, positive
from gaitzoo.cli.sheet import MATCHES_SHOWN, draw, panel_of
from gaitzoo.data.transforms import create_transform
from gaitzoo.evaluation.pictures import Panel
from gaitzoo.inference.identify import Identification, identify
from gaitzoo.metrics import part_distances, rank_k, same_view_mask
from gaitzoo.models.base import GaitModel
from gaitzoo.synthetic import SyntheticWalkers, WalkerSample

__all__ = [
    "CONDITIONS",
    "FIRST_IDENTITY",
    "FRAMES",
    "VIEWS",
    "Trial",
    "add_demo",
    "try_on_walkers",
]

CONDITIONS = ("normal", "bag", "coat")
VIEWS = (54, 90)
FRAMES = 24  # about one gait cycle
# The weights that come with the library were trained on the first people of a seed.
FIRST_IDENTITY = 500_000
_ELEVATION = (0.0, 30.0)  # degrees that the cameras look down
_PICTURE = "gaitzoo-demo.png"
_PROBES_SHOWN = 12
_EXAMPLES = """\
  gaitzoo demo
  gaitzoo demo --identities 20 --seed 7 --out results/"""


def add_demo(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "demo", _run, "try it all on synthetic walkers, without files", _EXAMPLES
    )
    command.add_argument(
        "--out", default=".", metavar="DIR", help=f"folder for {_PICTURE} (default: here)"
    )
    command.add_argument(
        "--identities", type=positive, default=6, metavar="N", help="people (default: 6)"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed: other people (default: 0)"
    )
    add_model_options(command)


def _run(options: argparse.Namespace) -> None:
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    picture = check_output(folder / _PICTURE, options.checkpoint, ".png")
    model, weights = load_model(options)
    count = options.identities
    trial = try_on_walkers(
        as_fast(options, model), count, seed=options.seed, **embed_options(options)
    )
    views = " and ".join(map(str, VIEWS))
    print(
        f"{count} synthetic people: {len(trial.gallery)} gallery clips, {len(trial.probes)} "
        f"probes, {FRAMES} frames each, filmed from {views} degrees.\n"
        "A probe is compared with the clips of the other view only.\n"
    )
    headers = ("Rank-1", f"{options.model} ({weights})", "gait energy image", "chance")
    rows = [
        (condition, f"{by_model:.1%}", f"{by_image:.1%}", f"{1 / count:.1%}")
        for condition, (by_model, by_image) in trial.scores.items()
    ]
    print(tabulate(rows, headers, colalign=("left", "right", "right", "right")))
    title = f"synthetic probes and the nearest of the gallery: {options.model}, {weights}"
    draw(_demo_rows(trial), title, picture)
    print(f"\npicture: {picture}")


def _demo_rows(trial: Trial) -> list[list[Panel]]:
    """Panels of the first people in all conditions."""
    pairs = list(zip(trial.probes, trial.identification.matches, strict=True))
    rows = []
    for probe, matches in pairs[:_PROBES_SHOWN]:
        name = f"person {probe.label}, {probe.condition}, {probe.view:.0f} degrees"
        row = [panel_of(probe.silhouettes, name)]
        for match in matches[:MATCHES_SHOWN]:
            clip = trial.gallery[match.index]
            name = f"person {clip.label}, {clip.condition}, {clip.view:.0f} degrees"
            row.append(panel_of(clip.silhouettes, name, match, probe.label))
        rows.append(row)
    return rows


@dataclass(frozen=True, eq=False)
class Trial:
    """Result of :func:`try_on_walkers`.

    Args:
        gallery: One normal walk of everybody, from all views.
        probes: For everybody one more walk in each condition, from one of the views.
        identification: Matches of the probes; pairs of one view are left out.
        scores: Condition to Rank-1 of the model and of gait energy images.
    """

    gallery: list[WalkerSample]
    probes: list[WalkerSample]
    identification: Identification
    scores: dict[str, tuple[float, float]]


def try_on_walkers(
    model: GaitModel,
    num_identities: int,
    *,
    seed: int = 0,
    batch_frames: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Trial:
    """Renders walkers, embeds them and scores how many are found among the others.

    Args:
        model: A model of this library.
        num_identities: People, 2 or more.
        seed: Of the people and their walks.
        batch_frames: Frames of a batch, see :func:`gaitzoo.embed`.
        device: Where to compute; ``None`` = where the model is.
        progress: Show progress bars.

    Returns:
        Clips, matches and scores.

    Raises:
        ValueError: If there are fewer than two people.
    """
    if num_identities < 2:
        raise ValueError(f"expected 2 identities or more, got {num_identities}")
    gallery, probes = _render(model, num_identities, seed, progress)
    gallery_labels, probe_labels = ([clip.label for clip in side] for side in (gallery, probes))
    same_view = same_view_mask(
        [round(clip.view) for clip in probes], [round(clip.view) for clip in gallery]
    )
    identification = identify(
        model,
        [clip.silhouettes for clip in gallery],
        [clip.silhouettes for clip in probes],
        gallery_labels,
        probe_labels,
        exclude=same_view,
        batch_frames=batch_frames,
        device=device,
        progress=progress,
    )
    by_energy = part_distances(_energy_images(model, probes), _energy_images(model, gallery))
    scores = {}
    for condition in CONDITIONS:
        rows = [i for i, clip in enumerate(probes) if clip.condition == condition]
        labels = [probe_labels[i] for i in rows]
        by_model, by_image = (
            rank_k(distances[rows], labels, gallery_labels, exclude=same_view[rows])
            for distances in (identification.distances, by_energy)
        )
        scores[condition] = (by_model, by_image)
    return Trial(gallery, probes, identification, scores)


def _render(
    model: GaitModel, num_identities: int, seed: int, progress: bool
) -> tuple[list[WalkerSample], list[WalkerSample]]:
    height, width = create_transform(model).input_size
    walkers = SyntheticWalkers(
        num_identities,
        sequences=(("normal", 0), ("normal", 1), ("bag", 0), ("coat", 0)),
        views=VIEWS,
        frames=FRAMES,
        # Walkers are at least 16 pixels wide; a square is cut to a narrower input.
        size=(height, width if width >= 16 else max(16, height)),
        seed=seed,
        first_identity=FIRST_IDENTITY,
        elevation=_ELEVATION,
    )
    clips_each = len(walkers) // num_identities
    gallery, probes = [], []
    for index in tqdm(range(len(walkers)), desc="rendering", unit="clip", disable=not progress):
        label, clip = divmod(index, clips_each)
        sequence, view = divmod(clip, len(VIEWS))
        if sequence == 0:
            gallery.append(walkers[index])
        elif view == (label + sequence) % len(VIEWS):
            probes.append(walkers[index])
    return gallery, probes


def _energy_images(model: GaitModel, clips: list[WalkerSample]) -> Tensor:
    """Mean frames, flattened, as one part: ``[N, 1, H * W]``.

    Source: Han and Bhanu, "Individual Recognition Using Gait Energy Image", 2006
    (https://doi.org/10.1109/TPAMI.2006.38), Sec. 3.
    """
    transform = create_transform(model)
    return torch.stack([transform(clip.silhouettes).mean(0).reshape(1, -1) for clip in clips])
