"""``gaitzoo identify``: walkers among known people."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

import torch
from tabulate import tabulate

from gaitzoo.cli.files import (
    Clips,
    as_fast,
    check_apart,
    check_output,
    describe_weights,
    load_model,
    say_weights,
)
from gaitzoo.cli.find import add_layout_options, check_paths, find_sequences_at, layout_of
from gaitzoo.cli.options import add_command, add_model_options, embed_options, positive
from gaitzoo.cli.segment import add_segmenter_options, is_video, tracks_as_probes
from gaitzoo.cli.sheet import FRAMES_SHOWN, MATCHES_SHOWN, draw, panel_of
from gaitzoo.data.files import SequencePath
from gaitzoo.inference.identify import Identification, identify

__all__ = ["add_identify"]

_PROBES_SHOWN = 24
_EXAMPLES = """\
  gaitzoo identify --gallery known/ --probe new/ --picture matches.png
  gaitzoo identify --gallery known/ --probe new/ann/walk.gif --json
  gaitzoo identify --gallery known/ --probe street.mp4

The first folder level is the identity: known/ann/monday.gif is a walk of ann, and so is
known/ann.gif. Public data sets are known by the names of their folders; of any other tree,
--identity-level or --layout says it. No sequence is compared with itself."""


def add_identify(commands: Any) -> None:
    """Adds the command."""
    command = add_command(commands, "identify", _run, "find walkers among known people", _EXAMPLES)
    command.add_argument("--gallery", required=True, metavar="DIR", help="sequences of the known")
    command.add_argument(
        "--probe", required=True, metavar="PATH", help="sequences to identify, or a video of people"
    )
    command.add_argument(
        "--top", type=positive, default=5, metavar="N", help="matches per probe (default: 5)"
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="D",
        help="largest distance of a match; a probe without one is nobody who is known",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument(
        "--picture", metavar="FILE", help="PNG to write: probes beside their best matches"
    )
    add_layout_options(command)
    add_model_options(command, segmenter=True)
    add_segmenter_options(command)


def _run(options: argparse.Namespace) -> None:
    with ExitStack() as until_done:
        _find(options, until_done)


def _find(options: argparse.Namespace, until_done: ExitStack) -> None:
    check_paths(options.gallery, options.probe)
    layout = layout_of(options)
    picture = None
    if options.picture is not None:
        picture = check_output(options.picture, options.checkpoint, ".png")
    model, weights = load_model(options)
    probe, probe_layout = options.probe, layout
    if is_video(probe):
        probe = until_done.enter_context(tracks_as_probes(options, model.modalities))
        probe_layout = None
    gallery, probes = (
        find_sequences_at(side, model.modalities, its_layout, scored=True)
        for side, its_layout in ((options.gallery, layout), (probe, probe_layout))
    )
    if picture:
        check_apart(picture, gallery + probes)
    gallery_paths, probe_paths = (
        [sequence.path.resolve() for sequence in side] for side in (gallery, probes)
    )
    itself = torch.tensor([[known == path for known in gallery_paths] for path in probe_paths])
    if bool(itself.all(1).any()):
        raise ValueError(
            "expected a gallery of other sequences than the probe, got only the probe itself "
            f"in {options.gallery}"
        )
    kept = FRAMES_SHOWN if picture else 0
    gallery_clips, probe_clips = Clips(gallery, model, kept), Clips(probes, model, kept)
    found = identify(
        as_fast(options, model),
        gallery_clips,
        probe_clips,
        [sequence.identity for sequence in gallery],
        [sequence.identity for sequence in probes],
        exclude=itself,
        top=options.top,
        threshold=options.threshold,
        **embed_options(options),
    )
    known = describe_weights(options, model, weights)
    if options.json:
        described = _found_as_json(gallery, probes, found)
        print(json.dumps({**known, **described}, indent=2))
    else:
        _print_matches(gallery, probes, found)
        print(f"\n{say_weights(known)}")
    if picture:
        count = min(len(probes), _PROBES_SHOWN)
        rows = []
        for index in range(count):
            known_identity = probes[index].identity if found.known[index] else None
            row = [panel_of(probe_clips.shown[index], probes[index].name)]
            for match in found.matches[index][:MATCHES_SHOWN]:
                frames, name = gallery_clips.shown[match.index], gallery[match.index].name
                row.append(panel_of(frames, name, match, known_identity))
            rows.append(row)
        shown = "" if count == len(probes) else f" ({count} of {len(probes)} probes)"
        title = f"probes and the nearest of the gallery: {options.model}, {weights}{shown}"
        draw(rows, title, picture)
        if not options.json:
            print(f"\npicture: {picture}{shown}")


def _print_matches(
    gallery: list[SequencePath], probes: list[SequencePath], found: Identification
) -> None:
    headers = ["probe", "rank", "identity", "match", "distance", "same person"]
    rows = [
        [
            probe.name if rank == 1 else "",
            rank,
            match.label,
            gallery[match.index].name,
            f"{match.distance:.4f}",
            ("yes" if match.label == probe.identity else "no") if known else "",
        ]
        for probe, matches, known in zip(probes, found.matches, found.known, strict=True)
        for rank, match in enumerate(matches, 1)
    ]
    nobody = [probe.name for probe, who in zip(probes, found.people, strict=True) if who is None]
    columns = len(headers) if found.rank1 is not None else len(headers) - 1
    align = ("left", "right", "left", "left", "right", "left")[:columns]
    rows = [row[:columns] for row in rows]
    if rows:
        print(tabulate(rows, headers[:columns], colalign=align, disable_numparse=True))
    if nobody:
        print(f"\nnobody who is known ({len(nobody)} of {len(probes)}): {', '.join(nobody)}")
    if found.rank1 is not None:
        print(
            f"\nRank-1: {found.rank1:.1%} (probes whose identity is in the gallery: "
            f"{sum(found.known)} of {len(probes)})"
        )


def _found_as_json(
    gallery: list[SequencePath], probes: list[SequencePath], found: Identification
) -> dict[str, Any]:
    def described(sequence: SequencePath) -> dict[str, Any]:
        return {"identity": sequence.identity, "name": sequence.name, "path": str(sequence.path)}

    return {
        "rank1": found.rank1,
        "known_probes": sum(found.known),
        "probes": [
            {
                **described(probe),
                "known": known,
                "person": person,
                "matches": [
                    {**described(gallery[match.index]), "distance": match.distance}
                    for match in matches
                ],
            }
            for probe, matches, known, person in zip(
                probes, found.matches, found.known, found.people, strict=True
            )
        ],
    }
