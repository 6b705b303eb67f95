"""``gaitzoo check``: what is wrong with silhouettes, before they are embedded."""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from gaitzoo.cli.files import check_apart, check_output
from gaitzoo.cli.find import add_layout_options, check_paths, layout_of, name_sequences
from gaitzoo.cli.options import add_command, positive
from gaitzoo.cli.reading import in_order
from gaitzoo.data.arrays import ARRAY_SUFFIXES, load_array
from gaitzoo.data.atomic import whole_files
from gaitzoo.data.check import SilhouetteReport, check_silhouettes
from gaitzoo.data.content import Finding, SilhouetteWarning
from gaitzoo.data.files import SequencePath, load_silhouettes
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced

__all__ = ["add_check"]

_FRAMES_SHOWN = 8
_MOST_ROWS = 24
_SHORT = 40  # sequences; of more, only those with findings are listed
_EXAMPLES = """\
  gaitzoo check clips/
  gaitzoo check walk.pkl --picture doubtful.png
  gaitzoo check casiab-64/ --workers 8 --picture worst.png"""


def add_check(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "check", _run, "look for faults in silhouettes before they are used", _EXAMPLES
    )
    command.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a sequence (folder of images, GIF, npy, npz, OpenGait pkl), a folder of sequences, "
        "or a data set",
    )
    command.add_argument(
        "--picture", metavar="FILE", help="PNG to draw the worst frames of doubtful clips into"
    )
    command.add_argument("--force", action="store_true", help="replace a picture that exists")
    command.add_argument(
        "--workers", type=positive, default=0, metavar="N", help="processes that read (default: 0)"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_layout_options(command)


def _run(options: argparse.Namespace) -> None:
    check_paths(*options.paths)
    several, layout = len(options.paths) > 1, layout_of(options)
    named = [
        pair
        for path in options.paths
        for pair in name_sequences(path, ("silhouettes",), several, layout)
    ]
    picture = None
    if options.picture is not None:
        picture = check_output(options.picture, None, ".png", options.force)
        check_apart(picture, [sequence for _, sequence in named])
    panels: dict[bool, list[list[Panel]]] = {False: [], True: []}  # by whether they can be used
    reports: list[SilhouetteReport] = []
    first_with: dict[bytes, str] = {}
    looks = _Looks(named, picture is not None)
    seen = in_order(looks, options.workers)
    for look in tqdm(
        seen, total=len(looks), unit="seq", desc="checking", disable=options.quiet or None
    ):
        report, name = look.report, named[len(reports)][0]
        if look.digest:
            other = first_with.setdefault(look.digest, name)
            if other != name:
                text = f"expected each walk once, got the same frames as in {other}; leave one out."
                report = _with(report, Finding("duplicate", "warning", text))
        kept = panels[report.is_usable]
        if look.panel is not None and len(kept) < _MOST_ROWS:
            kept.append([look.panel])
        reports.append(report)
    reports = _compared(reports)
    _print([name for name, _ in named], reports)
    rows = (panels[False] + panels[True])[:_MOST_ROWS]
    if picture is not None and rows:
        sheet = contact_sheet(rows, title="silhouettes that are refused (red) or doubtful")
        with whole_files(picture) as unfinished:
            sheet.save(unfinished, "PNG")
        print(f"\npicture: {picture}")
    elif picture is not None:
        print("\nno picture: nothing to show")
    refused = sum(not report.is_usable for report in reports)
    if refused:
        raise ValueError(f"{refused} of {len(named)} sequence(s) would be refused")


def _print(names: list[str], reports: list[SilhouetteReport]) -> None:
    pairs = list(zip(names, reports, strict=True))
    listed = [(n, r) for n, r in pairs if len(pairs) <= _SHORT or not r.is_clean]
    rows = []
    for name, report in listed:
        kinds = ", ".join(finding.kind for finding in report.findings)
        size = "{} x {}".format(*report.size) if report.num_frames else ""
        rows.append((name, report.num_frames or "", size, report.summary(), kinds))
    if rows:
        headers = ("sequence", "frames", "size", "verdict", "findings")
        align = ("left", "right", "right", "left", "left")
        print(tabulate(rows, headers, colalign=align, disable_numparse=True))
    for name, report in listed:
        if not report.is_clean:
            print(f"\n{name}, {report}")
    if len(pairs) > 1:
        verdicts = Counter(report.summary() for report in reports)
        kinds = Counter(finding.kind for report in reports for finding in report.findings)
        print(f"\n{len(pairs)} sequence(s): {_counted(verdicts)}")
        if kinds:
            print(f"findings: {_counted(kinds)}")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _with(report: SilhouetteReport, finding: Finding) -> SilhouetteReport:
    order = ("refused", "warning", "note")
    findings = sorted((*report.findings, finding), key=lambda one: order.index(one.severity))
    return SilhouetteReport(report.num_frames, report.size, tuple(findings))


def _compared(reports: list[SilhouetteReport]) -> list[SilhouetteReport]:
    """Reports that also say which clips have another size than most."""
    sizes = Counter(report.size for report in reports if report.num_frames)
    if len(sizes) < 2:
        return reports
    (usual, count), *_ = sizes.most_common(1)
    if 2 * count <= sum(sizes.values()):
        return reports
    text = "Most of the sequences have frames of {} x {} pixels.".format(*usual)
    note = Finding("mixed sizes", "note", text)
    return [_with(r, note) if r.num_frames and r.size != usual else r for r in reports]


class _Look(NamedTuple):
    """What was seen of a sequence: the hash of its frames finds copies."""

    report: SilhouetteReport
    digest: bytes
    panel: Panel | None


class _Looks(Dataset[_Look]):
    """Sequences that are looked at when they are asked for, in any process."""

    def __init__(self, named: list[tuple[str, SequencePath]], drawn: bool) -> None:
        self.named, self.drawn = named, drawn

    def __len__(self) -> int:
        return len(self.named)

    def __getitem__(self, index: int) -> _Look:
        name, sequence = self.named[index]
        frames, report = _look(sequence.path)
        if frames is None:
            return _Look(report, b"", None)
        content = hashlib.sha256(str(frames.shape).encode())
        content.update(frames.contiguous().numpy().data)
        doubtful = self.drawn and not report.is_clean
        return _Look(report, content.digest(), _panel(name, frames, report) if doubtful else None)


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
    for finding in said:
        report = _with(report, finding)
    return frames, report


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
