"""``gaitzoo prepare``: raw silhouettes to the normalised tree that models are trained on."""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from gaitzoo.cli.find import add_layout_options, check_paths, layout_of
from gaitzoo.cli.options import add_command, positive
from gaitzoo.cli.reading import in_order
from gaitzoo.data.atomic import whole_files
from gaitzoo.data.check import frame_ranges
from gaitzoo.data.content import Finding
from gaitzoo.data.files import load_silhouettes
from gaitzoo.data.silhouettes import SilhouetteTransform
from gaitzoo.data.walks import Walk, choose_source, scan

__all__ = ["add_prepare"]

_JOURNAL, _REPORT = "prepare.jsonl", "prepare.csv"
_MOST_ROWS = 20
_EXAMPLES = """\
  gaitzoo prepare GaitDatasetB-silh/ casiab-64/ --workers 8
  gaitzoo prepare masks/ masks-64/ --layout 'cam_{view}/{identity}/{type}'

Writes id/type/view/view.pkl, uint8 [T, 64, 64], as OpenGait's own pre-treatment does. A run that
was killed goes on when the same command is given again. prepare.csv lists dropped frames."""


@dataclass(frozen=True)
class _Result:
    """What became of a sequence: a line of the journal and of the report."""

    sequence: str
    file: str
    frames: int = 0
    kept: int = 0
    dropped: str = ""
    findings: str = ""
    error: str = ""


def add_prepare(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "prepare", _run, "normalise raw silhouettes into a tree of pickles", _EXAMPLES
    )
    command.add_argument("raw", metavar="RAW", help="folder of raw silhouettes")
    command.add_argument("out", metavar="OUT", help="folder to write; goes on if it is unfinished")
    command.add_argument(
        "--size", type=positive, default=64, metavar="N", help="rows and columns (default: 64)"
    )
    command.add_argument(
        "--workers", type=positive, default=0, metavar="N", help="more processes (default: 0)"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    add_layout_options(command)


def _run(options: argparse.Namespace) -> None:
    check_paths(options.raw)
    raw, out = Path(options.raw), Path(options.out)
    SilhouetteTransform((options.size, options.size))  # refuses odd sizes before the work
    if out.resolve().is_relative_to(raw.resolve()):
        raise ValueError(f"expected OUT outside of {raw}, got {out}; choose another folder")
    walks, layout, strange = scan(raw, layout_of(options))
    settings = {"raw": str(raw.resolve()), "layout": layout.name, "size": options.size}
    done = _open(out, settings)
    tasks, results = [], []
    for walk, file in _destinations(walks):
        source = choose_source(walk, "silhouettes")
        if source is None:
            strange.append(walk.name)
        elif file in done and (out / file).is_file():
            results.append(done[file])
        else:
            tasks.append((walk.name, raw / source.path, file))
    if not tasks and not results:
        raise ValueError(f"expected silhouettes in {raw}, got none in {strange[0]} and elsewhere")
    if results:
        print(f"{len(results)} of {len(results) + len(tasks)} sequence(s) are there already")
    todo = _Tasks(tasks, out, options.size)
    with (
        (out / _JOURNAL).open("a", encoding="utf-8") as journal,
        tqdm(total=len(tasks), unit="seq", desc="preparing", disable=options.quiet) as bar,
    ):
        for result in in_order(todo, options.workers):
            print(json.dumps(asdict(result)), file=journal, flush=True)
            results.append(result)
            bar.update()
    _report(results, strange, out)


def _open(out: Path, settings: dict[str, Any]) -> dict[str, _Result]:
    """Makes the folder, or reads what is done of it."""
    journal = out / _JOURNAL
    if not journal.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(
                f"expected an empty folder or an unfinished one of this command, got {out}; choose "
                "another"
            )
        out.mkdir(parents=True, exist_ok=True)
        with whole_files(journal) as unfinished:
            unfinished.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return {}
    text = journal.read_text(encoding="utf-8")
    first, *lines = text.splitlines() or [""]
    if _parsed(first) != settings:
        raise ValueError(
            f"expected {out} to be of this run ({json.dumps(settings)}), got {first}; give the "
            "same options, or another folder"
        )
    if not text.endswith("\n"):  # cut off by a kill; what follows needs a line of its own
        with journal.open("a", encoding="utf-8") as file:
            print(file=file)
    parsed = [content for line in lines if (content := _parsed(line)) is not None]
    results = [_Result(**content) for content in parsed]
    return {result.file: result for result in results if not result.error}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _destinations(walks: list[Walk]) -> Iterator[tuple[Walk, str]]:
    """Walks with the file to write, relative to the output."""
    taken: dict[str, str] = {}
    for walk in walks:
        person = walk.split or "unknown" if walk.identity is None else walk.identity
        kind = walk.type.replace("/", "-") or "default"
        view = walk.view or "default"
        file = f"{person}/{kind}/{view}/{view}.pkl"
        if file in taken:
            raise ValueError(
                f"expected walks that differ in person, type or view, got {taken[file]} and "
                f"{walk.name}, both {file}; say what each level is with --layout"
            )
        taken[file] = walk.name
        yield walk, file


class _Tasks(Dataset[_Result]):
    """Sequences that become files when they are asked for, in any process."""

    def __init__(self, tasks: list[tuple[str, Path, str]], out: Path, size: int) -> None:
        self.tasks, self.out = tasks, out
        self.transform = SilhouetteTransform((size, size))

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> _Result:
        name, source, file = self.tasks[index]
        found: list[Finding] = []
        frames = []
        try:
            frames = load_silhouettes(source)
            aligned = self.transform.examine(frames, found)
            path = self.out / file
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".{path.name}.*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            with whole_files(path) as unfinished:
                unfinished.write_bytes(pickle.dumps(aligned.numpy(), protocol=4))
        except (ValueError, OSError) as error:
            return _Result(name, file, len(frames), error=" ".join(str(error).split()))
        dropped = [
            number
            for finding in found
            if finding.kind == "empty frames"
            for number in finding.frames
        ]
        kinds = ", ".join(finding.kind for finding in found if finding.severity == "warning")
        return _Result(name, file, len(frames), len(aligned), frame_ranges(tuple(dropped)), kinds)


def _report(results: list[_Result], strange: list[str], out: Path) -> None:
    results.sort(key=lambda result: result.file)
    fields = list(asdict(results[0]))
    with (
        whole_files(out / _REPORT) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(map(asdict, results))
    failed = [result for result in results if result.error]
    lossy = [result for result in results if result.dropped and not result.error]
    lossy.sort(key=lambda result: result.kept - result.frames)
    if lossy:
        rows = [(r.sequence, r.frames, r.frames - r.kept, r.dropped) for r in lossy[:_MOST_ROWS]]
        headers = ("sequence", "frames", "dropped", "numbers")
        print(tabulate(rows, headers, disable_numparse=True))
        if len(lossy) > _MOST_ROWS:
            print(f"... and {len(lossy) - _MOST_ROWS} more")
        print()
    kinds = Counter(kind for r in results for kind in r.findings.split(", ") if kind)
    good = [result for result in results if not result.error]
    dropped = sum(result.frames - result.kept for result in good)
    print(
        f"{out}: {len(good)} sequence(s), {sum(result.kept for result in good)} frames; "
        f"{dropped} dropped in {len(lossy)} sequence(s)"
    )
    if kinds:
        print("doubtful: " + ", ".join(f"{kind} ({count})" for kind, count in kinds.items()))
    if strange:
        print(f"no silhouettes in {len(strange)} folder(s): {', '.join(strange[:3])}")
    for result in failed[:_MOST_ROWS]:
        print(f"not prepared: {result.sequence}: {result.error}")
    if len(failed) > _MOST_ROWS:
        print(f"... and {len(failed) - _MOST_ROWS} more")
    print(f"report: {out / _REPORT}")
    if not good:
        raise ValueError(f"expected silhouettes that can be read, got none in {len(failed)}")
