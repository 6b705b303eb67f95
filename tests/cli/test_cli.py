"""What all commands have in common: help, refusals in one line, interruptions."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from cli_world import TINY, identify
from PIL import Image

import gaitzoo
from gaitzoo.cli.sheet import draw
from gaitzoo.evaluation.pictures import Panel

pytest_plugins = ["cli_fixtures"]


X = "x.safetensors"
COMMANDS = ("models", "embed", "identify", "export", "demo")


def test_version_and_help(run):
    assert run("--version") == (0, f"gaitzoo {gaitzoo.__version__}\n", "")
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"gaitzoo {command}" in out.split("examples:")[1]


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gaitzoo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(command in done.stdout for command in COMMANDS)


def test_a_reader_that_stops_early_does_no_harm():
    command = [sys.executable, "-m", "gaitzoo", "models", "dygait_tiny", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), stderr) == (0, b"")


def broken_png(folder):
    (folder / "known" / "ann" / "one.npy").unlink()
    frame = folder / "known" / "bob" / "monday" / "0.png"
    frame.write_bytes(frame.read_bytes()[:-30])


def hostile_pickle(folder):
    (folder / "known" / "evil.pkl").write_bytes(pickle.dumps({"a": print}))


def blank_masks(folder):
    np.save(folder / "known" / "blank.npy", np.zeros((3, 90, 90), np.uint8))


def empty_known(folder):
    for path in sorted((folder / "known").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def only_text(folder):
    empty_known(folder)
    (folder / "known" / "notes.txt").write_text("nothing here")


def foreign_checkpoint(folder):
    torch.save({"model": {"conv.weight": torch.ones(2)}}, folder / "w.pt")


def output_folder(folder):
    (folder / "d.safetensors").mkdir()


def saved_model(folder):
    gaitzoo.create_model("dygait_tiny").save_pretrained(folder / "saved")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["embed", "nowhere", "-o", X], "nowhere, which does not exist"),
        (broken_png, ["embed", "known", "-o", X, *TINY], "0.png"),
        (hostile_pickle, ["embed", "known", "-o", X, *TINY], "evil.pkl"),
        (blank_masks, ["embed", "known", "-o", X, *TINY], "blank.npy: expected at least one"),
        (empty_known, ["embed", "known", "-o", X, *TINY], "found none"),
        (only_text, ["embed", "known", "-o", X, *TINY], "expected frames"),
        (None, ["embed", "known", "-o", X, "--model", "dygate"], "unknown model 'dygate'"),
        (None, ["embed", "known", "-o", X, "--model", "dygait.x"], "unknown tag 'x'"),
        (None, ["embed", "known", "-o", X, "--model", "local-dir:no"], "a folder after local"),
        (None, ["embed", "known", "-o", X, *TINY, "--checkpoint", "no.pt"], "no.pt"),
        (foreign_checkpoint, ["embed", "known", "-o", X, *TINY, "--checkpoint", "w.pt"], "w.pt"),
        (None, ["embed", "known", "-o", X, *TINY, "--device", "warp"], "got 'warp'"),
        (None, ["embed", "known", "-o", X, *TINY, "--device", "meta"], "got 'meta'"),
        (None, ["embed", "known", "-o", X, *TINY, "--batch-frames", "0"], "--batch-frames"),
        (None, ["embed", "known", "-o", "no/x.safetensors", *TINY], "existing folder"),
        (output_folder, ["embed", "known", "-o", "d.safetensors", *TINY], "got the folder d.saf"),
        (None, ["embed", "known", "-o", "x.npz", *TINY], "ends in .safetensors, got x.npz"),
        (saved_model, ["embed", "known", "-o", "saved/model.safetensors", *TINY], "--force"),
        (None, ["embed", "known", "-o", "known/bob/monday/x.safetensors", *TINY], "among, what"),
        (
            saved_model,
            [
                *("embed", "known", "-o", "saved/model.safetensors"),
                *("--checkpoint", "saved/model.safetensors", *TINY),
            ],
            "among, what is read",
        ),
        (None, identify("--picture", "x.jpg"), "ends in .png, got x.jpg"),
        (None, identify("--picture", "known/bob/monday/9.png"), "among, what is read"),
        (None, identify("--top", "0"), "whole number of 1 or more, got '0'"),
        (None, ["identify", "--gallery", "known", *TINY], "--probe"),
        (
            None,
            ["identify", "--gallery", "new/zoe", "--probe", "new/zoe/four.npz", *TINY],
            "only the probe itself",
        ),
        (None, ["export", "dygate", "-o", "x.onnx"], "unknown model 'dygate'"),
        (None, ["export", "dygait_tiny", "-o", "x.pt"], "ends in .onnx, got x.pt"),
        (None, ["export", "dygait_tiny", "-o", "no/x.onnx"], "existing folder"),
        (None, ["export", "dygait_tiny"], "-o/--output"),
        (None, ["models", "nothing*"], "no model is named like 'nothing*'"),
        (None, ["demo", "--identities", "1", *TINY], "2 identities or more, got 1"),
        (None, ["demo", "--identities", "2", "--seed", "-1", *TINY], "-1"),
        (None, ["demo", "--out", "known/ann/one.npy", *TINY], "one.npy"),
        (None, ["demos"], "invalid choice: 'demos'"),
        (None, [], "COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(run, people, prepare, arguments, message):
    if prepare:
        prepare(people)
    before = sorted(people.rglob("*"))
    code, out, err = run(*arguments)
    errors = [line for line in err.splitlines() if "error: " in line]
    notes = [line for line in err.splitlines() if line.startswith("gaitzoo: note: ")]
    assert (code, out) == (2, "")
    assert len(errors) == 1
    assert message in errors[0]
    assert len(errors) + len(notes) == len(err.splitlines())
    assert sorted(people.rglob("*")) == before


def test_a_failed_write_leaves_the_old_file(people, monkeypatch):
    monkeypatch.chdir(people)
    (people / "out.txt").write_text("old")

    def fail(sheet, path, *_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    panel = Panel(np.ones((1, 16, 12)))
    with pytest.raises(OSError, match="No space"):
        draw([[panel]], "title", people / "out.txt")
    assert (people / "out.txt").read_text() == "old"
    assert sorted(os.listdir(people)) == ["known", "new", "out.txt"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (torch.OutOfMemoryError("CUDA out of\nmemory"), 2, "error: CUDA out of memory\n"),
        (MemoryError(), 2, "error: MemoryError\n"),
        (gaitzoo.PretrainedNotAvailable("no weights"), 2, "error: no weights\n"),
    ],
)
def test_interruptions_and_shortages_end_quietly(run, people, monkeypatch, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("gaitzoo.cli.embed.embed", fail)
    got, out, err = run("embed", "known", "-o", "out.safetensors", *TINY)
    assert (got, out) == (code, "")
    assert err.splitlines(keepends=True)[1:] == ([f"gaitzoo embed: {message}"] if message else [])


def test_a_defect_is_not_taken_for_bad_input(run, people, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("gaitzoo.cli.embed.embed", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("embed", "known", "-o", "out.safetensors", *TINY)
