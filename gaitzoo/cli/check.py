"""``gaitzoo check``: what is wrong with silhouettes, before they are embedded."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from gaitzoo.cli.files import check_apart, check_output
from gaitzoo.cli.find import check_paths, name_sequences
from gaitzoo.cli.options import add_command
from gaitzoo.data.arrays import ARRAY_SUFFIXES, load_array
from gaitzoo.data.atomic import whole_files
from gaitzoo.data.check import SilhouetteReport, check_silhouettes
from gaitzoo.data.content import Finding, SilhouetteWarning
from gaitzoo.data.files import load_silhouettes
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced

__all__ = ["add_check"]

_FRAMES_SHOWN = 8
_MOST_ROWS = 24
_EXAMPLES = """\
  gaitzoo check clips/
  gaitzoo check walk.pkl --picture doubtful.png"""


def add_check(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "check", _run, "look for faults in silhouettes before they are used", _EXAMPLES
    )
    command.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a sequence (folder of images, GIF, npy, npz, OpenGait pkl) or a folder of sequences",
    )
    command.add_argument(
        "--picture", metavar="FILE", help="PNG to draw the worst frames of doubtful clips into"
    )
    command.add_argument("--force", action="store_true", help="replace a picture that exists")


def _run(options: argparse.Namespace) -> None:
    check_paths(*options.paths)
    several = len(options.paths) > 1
    named = [
        pair for path in options.paths for pair in name_sequences(path, ("silhouettes",), several)
    ]
    picture = None
    if options.picture is not None:
        picture = check_output(options.picture, None, ".png", options.force)
        check_apart(picture, [sequence for _, sequence in named])
    rows, details, panels = [], [], []
    refused = 0
    for name, sequence in named:
        frames, report = _look(sequence.path)
        kinds = ", ".join(finding.kind for finding in report.findings)
        size = "{} x {}".format(*report.size) if report.num_frames else ""
        rows.append((name, report.num_frames or "", size, report.summary(), kinds))
        refused += not report.is_usable
        if not report.is_clean:
            details.append(f"{name}, {report}")
            if picture is not None and frames is not None and len(panels) < _MOST_ROWS:
                panels.append([_panel(name, frames, report)])
    headers = ("sequence", "frames", "size", "verdict", "findings")
    align = ("left", "right", "right", "left", "left")
    print(tabulate(rows, headers, colalign=align, disable_numparse=True))
    for text in details:
        print(f"\n{text}")
    if picture is not None and panels:
        sheet = contact_sheet(panels, title="silhouettes that are refused (red) or doubtful")
        with whole_files(picture) as unfinished:
            sheet.save(unfinished, "PNG")
        print(f"\npicture: {picture}")
    elif picture is not None:
        print("\nno picture: nothing to show")
    if refused:
        raise ValueError(f"{refused} of {len(named)} sequence(s) would be refused")


def _look(path: Path) -> tuple[Tensor | None, SilhouetteReport]:
    """The frames of a sequence, if it can be read, and the report."""
    said: list[Finding] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frames = load_silhouettes(path)
        said = [
            Finding("files", "warning", str(warning.message))
            for warning in caught
            if issubclass(warning.category, SilhouetteWarning)
        ]
    except ValueError as error:
        frames = _numbers(path)
        if frames is None:
            return None, SilhouetteReport(0, (0, 0), (Finding("files", "refused", str(error)),))
    report = check_silhouettes(frames)
    findings = (*said, *report.findings)
    order = ("refused", "warning", "note")
    findings = tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))
    return frames, SilhouetteReport(report.num_frames, report.size, findings)


def _numbers(path: Path) -> Tensor | None:
    """The numbers in a file of class ids or the like, which is no silhouette but can be drawn."""
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        return None
    try:
        array = load_array(path)
    except ValueError:
        return None
    if array.ndim != 3 or array.dtype.kind not in "iu":
        return None
    return torch.from_numpy(array.astype(np.int64))


def _panel(name: str, frames: Tensor, report: SilhouetteReport) -> Panel:
    """The worst frames of a clip, scaled to full contrast where they are class ids."""
    worst = report.worst_frames
    shown = evenly_spaced(frames[list(worst)] if worst else frames, _FRAMES_SHOWN)
    if not shown.is_floating_point():
        lowest, highest = shown.min(), shown.max()
        if not report.is_usable:
            shown = (shown - lowest).double() / max(1, int(highest - lowest))
    kinds = ", ".join(finding.kind for finding in report.findings if finding.severity != "note")
    caption = [name, f"{report.summary()}: {kinds}"]
    return Panel(shown, caption, None if report.is_usable else "wrong")
