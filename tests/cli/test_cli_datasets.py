"""Data sets on the command line: ``prepare``, ``check``, ``identify`` and ``embed`` in shards."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_world import TINY
from dataset_trees import TREES, raw_walk, write_images, write_pickle, write_tree
from safetensors import safe_open
from safetensors.torch import load_file

import gaitzoo
from gaitzoo.cli import embed as cli_embed

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def raw(tmp_path):
    """CASIA-B: five good sequences, one with two black frames, and an empty one."""
    root = tmp_path / "raw"
    write_tree(root, "casiab")
    for number in range(2, 5):
        write_images(root / "001" / f"nm-{number:02d}" / "090", raw_walk(0, number))
    dark = np.zeros((2, 96, 128), np.uint8)
    write_images(root / "001" / "nm-06" / "090", np.concatenate([raw_walk(0, 9), dark]))
    write_images(root / "005" / "bg-01" / "000", dark)
    return root


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "prepare.jsonl"
    }


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_prepare_writes_what_the_pre_treatment_gives(run, raw, workers):
    code, out, _ = run("prepare", "raw", "out", "-q", *workers)
    assert code == 0
    assert "6 sequence(s), 36 frames; 2 dropped in 1 sequence(s)" in out
    assert "not prepared: 005/bg-01/000: expected at least one frame" in out
    for record in gaitzoo.GaitDataset("raw").records:
        file = Path("out", record.name, f"{record.view}.pkl")
        if record.identity == "005":
            assert not file.exists()
            continue
        wanted = gaitzoo.normalize_silhouettes(gaitzoo.load_silhouettes(record.path))
        assert np.array_equal(pickle.loads(file.read_bytes()), wanted)
    with open("out/prepare.csv", newline="") as file:
        rows = {row["sequence"]: row for row in csv.DictReader(file)}
    assert len(rows) == 7
    dropped = rows["001/nm-06/090"]
    assert (dropped["frames"], dropped["kept"], dropped["dropped"]) == ("8", "6", "6-7")
    found = gaitzoo.GaitDataset("out")
    assert (found.layout, len(found)) == ("casiab", 6)


def test_prepare_goes_on_where_it_was_killed(run, raw, tmp_path):
    assert run("prepare", "raw", "whole", "-q")[0] == 0
    program = "import sys; from gaitzoo.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["prepare", "raw", "out", "-q"]
    slow = (
        "import time; import gaitzoo.cli.prepare as p; real = p.load_silhouettes;"
        "p.load_silhouettes = lambda path: (time.sleep(0.3), real(path))[1];"
    )
    process = subprocess.Popen([sys.executable, "-c", slow + program, *arguments], cwd=tmp_path)
    while not list((tmp_path / "out").rglob("*.pkl")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    journal = tmp_path / "out" / "prepare.jsonl"
    before = set((tmp_path / "out").rglob("*.pkl"))
    assert 0 < len(before) < 6
    for path in before:  # whole files only
        assert pickle.loads(path.read_bytes()).shape[1:] == (64, 64)
    with journal.open("a") as file:
        file.write('{"sequence": "001/nm')  # a line that was cut off
    (tmp_path / "out" / "001" / "nm-04" / "090").mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / "001" / "nm-04" / "090" / ".090.pkl.left").mkdir()
    assert run(*arguments)[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob(".*"))
    assert "6 of 7 sequence(s) are there already" in run(*arguments)[1]


def test_prepare_refuses_what_it_would_mix_up(run, raw):
    assert run("prepare", "raw", "out", "-q")[0] == 0
    for arguments, message in (
        (["raw", "out", "--size", "32"], "to be of this run"),
        (["raw", "raw/out"], "outside of raw"),
        (["raw", "."], "outside of raw|an empty folder"),
        (["raw", "odd", "--size", "33"], "even pixels"),
        (["gone", "new"], "does not exist"),
        (["raw", "new", "--layout", "{identity}/{}/{view}"], "both 001/default/090/090.pkl"),
    ):
        code, _, err = run("prepare", *arguments, "-q")
        assert code == 2
        assert any(part in err for part in message.split("|")), err
    assert not os.path.exists("odd")


def test_prepared_grew_keeps_parts_apart(run, tmp_path):
    write_tree(tmp_path / "raw", "grew")
    assert run("prepare", "raw", "out", "-q")[0] == 0
    found = gaitzoo.GaitDataset("out")
    assert found.layout == "grew"
    said = {(record.identity, record.type, record.view) for record in found.records}
    assert said == set(TREES["grew"].values())


def test_check_finds_copies_and_other_sizes(run, raw):
    write_images(raw / "001" / "cl-01" / "090", raw_walk(0))  # as nm-01
    write_images(raw / "001" / "cl-02" / "090", raw_walk(0, 5, size=(64, 80)))
    code, out, err = run("check", "raw", "--workers", "2", "--picture", "worst.png")
    assert code == 2
    assert "1 of 9 sequence(s) would be refused" in err
    assert "the same frames as in 001/cl-01/090" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("0")}
    assert "mixed sizes" in rows["001/cl-02/090"]
    assert "mixed sizes" not in rows["001/nm-02/090"]
    assert "9 sequence(s): 7 fine, 1 doubtful, 1 refused" in out
    assert os.path.exists("worst.png")


@pytest.mark.parametrize("layout", ["oumvlp", "grew", "ccpg"])
def test_identify_never_takes_views_and_splits_for_people(run, tmp_path, layout):
    write_tree(tmp_path / "in", layout)
    code, out, _ = run("identify", "--gallery", "in", "--probe", "in", *TINY, "--json")
    assert code == 0
    people = {probe["identity"] for probe in json.loads(out)["probes"]}
    wanted = {identity for identity, *_ in TREES[layout].values() if identity is not None}
    assert {person for person in people if not person.startswith("unknown")} == wanted
    known = json.loads(out)["known_probes"]
    assert known == {"oumvlp": 0, "grew": 2, "ccpg": 2}[layout]


def test_identify_asks_which_level_is_a_person(run, tmp_path):
    for part in ("train", "test"):
        for person in ("ann", "bob"):
            write_images(tmp_path / "in" / part / person / "walk", raw_walk(len(person)))
    arguments = ["identify", "--gallery", "in", "--probe", "in", *TINY, "--json"]
    code, _, err = run(*arguments)
    assert code == 2
    assert "views or splits, not people" in err
    for more in (["--identity-level", "2"], ["--layout", "{split}/{identity}/{type}"]):
        found = json.loads(run(*arguments, *more)[1])
        assert [probe["identity"] for probe in found["probes"]] == ["ann", "bob"] * 2
        assert found["known_probes"] == 4
    code, _, err = run(*arguments, "--identity-level", "2", "--layout", "folders")
    assert (code, "got both" in err) == (2, True)


def test_copies_of_a_walk_are_not_its_matches(run, tmp_path):
    for person in ("001", "002"):
        leaf = tmp_path / "in" / person / "nm-01" / "090"
        write_pickle(leaf / "090-sils.pkl", raw_walk(int(person)))
        write_pickle(
            leaf / "090-aligned-sils.pkl", gaitzoo.normalize_silhouettes(raw_walk(int(person)))
        )
        write_pickle(leaf / "090-ratios.pkl", np.ones(6))
    found = json.loads(run("identify", "--gallery", "in", "--probe", "in", *TINY, "--json")[1])
    assert (len(found["probes"]), found["rank1"], found["known_probes"]) == (2, None, 0)


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_broken_sequences_stop_or_are_reported(run, raw):
    (raw / "001" / "nm-02" / "090" / "000.png").write_bytes(b"cut off")
    code, _, err = run("embed", "raw", "-o", "out.safetensors", *TINY)
    assert code == 2
    assert "000.png" in err
    assert not os.path.exists("out.safetensors")
    code, out, err = run("embed", "raw", "-o", "out.safetensors", *TINY, "--on-error", "skip")
    assert code == 0
    assert "skipped: 2 of 7 sequence(s)" in out
    assert "001/nm-02/090 was skipped" in err
    metadata = metadata_of("out.safetensors")
    assert sorted(json.loads(metadata["skipped"])) == ["001/nm-02/090", "005/bg-01/000"]
    names = json.loads(metadata["names"])
    assert len(names) == len(load_file("out.safetensors")["embeddings"]) == 5
    code, _, err = run("embed", "raw/005", "-o", "no.safetensors", *TINY, "--on-error", "skip")
    assert (code, "expected sequences that can be read" in err) == (2, True)


def test_shards_join_to_the_whole(run, raw, monkeypatch):
    skip = ["--on-error", "skip"]
    assert run("embed", "raw", "-o", "whole.safetensors", *TINY, *skip)[0] == 0
    for shard in ("1/3", "2/3", "3/3"):
        more = ["--shard", shard, "--workers", "2"]
        assert run("embed", "raw", "-o", "all.safetensors", *TINY, *skip, *more)[0] == 0
    shards = [f"all-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    code, out, _ = run("join", *reversed(shards), "-o", "all.safetensors")
    assert (code, "of 3 shard(s)" in out) == (0, True)
    whole, joined = (load_file(f"{name}.safetensors")["embeddings"] for name in ("whole", "all"))
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-5)
    wanted, got = metadata_of("whole.safetensors"), metadata_of("all.safetensors")
    wanted.pop("run")
    assert got == wanted
    for arguments, message in (
        (shards[:2], "got 2 of 3, without 3"),
        ([*shards, shards[0]], "each shard once"),
        (["whole.safetensors"], "expected a shard of gaitzoo embed"),
    ):
        code, _, err = run("join", *arguments, "-o", "no.safetensors")
        assert code == 2
        assert message in err
    for shard in ("0/3", "4/3", "x"):
        assert run("embed", "raw", "-o", "no.safetensors", *TINY, "--shard", shard)[0] == 2
    monkeypatch.setattr("gaitzoo.cli.files._SEED", 1)
    more = ["--shard", "3/3", "--force"]
    assert run("embed", "raw", "-o", "all.safetensors", *TINY, *skip, *more)[0] == 0
    code, _, err = run("join", *shards, "-o", "no.safetensors")
    assert (code, "expected shards of one model" in err) == (2, True)


def test_a_killed_run_goes_on(run, raw, monkeypatch):
    arguments = ["embed", "raw", *TINY, "--on-error", "skip"]
    assert run(*arguments, "-o", "whole.safetensors")[0] == 0
    monkeypatch.setattr("gaitzoo.cli.parts._SIZE", 2)
    real, calls = cli_embed.embed, []

    def embed(model, clips, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(clips))
        return real(model, clips, **options)

    monkeypatch.setattr(cli_embed, "embed", embed)
    resume = [*arguments, "-o", "out.safetensors", "--resume"]
    assert run(*resume)[0] == 130
    assert not os.path.exists("out.safetensors")
    assert len(os.listdir("out.safetensors.parts")) == 2
    code, _, err = run(*arguments[:-1], "stop", "-o", "out.safetensors", "--resume")
    assert (code, "of another" in err) == (2, True)
    calls[:] = [None] * 3  # no more kills
    assert run(*resume)[0] == 0
    assert calls[3:] == [2, 1]
    assert not os.path.exists("out.safetensors.parts")
    whole, resumed = (load_file(f"{name}.safetensors") for name in ("whole", "out"))
    torch.testing.assert_close(resumed["embeddings"], whole["embeddings"], rtol=0, atol=1e-5)
    assert metadata_of("out.safetensors") == metadata_of("whole.safetensors")
    assert "done already" in run(*resume)[1]
    frame = raw / "001" / "nm-01" / "090" / "000.png"
    frame.write_bytes((raw / "001" / "nm-02" / "090" / "001.png").read_bytes())
    code, _, err = run(*resume)
    assert (code, "is of another run" in err) == (2, True)
    os.rename("raw/001/nm-04", "raw/001/nm-05")
    code, _, err = run(*resume)
    assert (code, "is of another run" in err) == (2, True)
