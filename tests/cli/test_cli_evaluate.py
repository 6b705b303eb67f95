"""``gaitzoo evaluate``, and the answer "nobody" of ``gaitzoo identify``."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from cli_world import TINY, identify, walk
from dataset_trees import write_images

import gaitzoo
import gaitzoo.cli.evaluate as command

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def casia(tmp_path):
    """Three people of the test split and one of the train split, in the layout of CASIA-B."""
    for number, person in enumerate(("001", "075", "076", "077")):
        for seed, kind in enumerate(("nm-01", "nm-05", "bg-01", "cl-01")):
            for view in ("000", "090"):
                folder = tmp_path / "casia" / person / kind / view
                folder.mkdir(parents=True)
                np.save(folder / f"{view}.npy", walk(number, seed=seed, frames=5))
    return tmp_path / "casia"


def evaluate(*more):
    words = ["evaluate", "--data", "casia", "--protocol", "casiab", "--cache", "cache"]
    return [*words, *TINY, *more]


def test_evaluate_prints_tables_and_writes_files(run, casia):
    arguments = evaluate(
        "--json", "s.json", "--latex", "s.tex", "--cmc", "s.png", "--views", "v.png"
    )
    code, out, err = run(*arguments, "--bootstrap", "50")
    assert code == 0, err
    assert "(24 sequences)" in out  # person 001 is for training
    for word in ("CASIA-B", "NM", "BG", "CL", "mean", "published: no numbers", "weights: "):
        assert word in out
    found = json.loads((casia.parent / "s.json").read_text())
    dataset = gaitzoo.GaitDataset(casia, split="test")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    embeddings = gaitzoo.embed(model, list(dataset.sequences()), progress=False)
    labels = [record.identity for record in dataset.records]
    sides = {"types": dataset.types, "views": dataset.views}
    expected = gaitzoo.evaluate(embeddings, labels, protocol="casiab", **sides)
    assert found["rows"][0]["scores"] == pytest.approx(expected["NM"].scores)
    assert found["layout"] == "casiab"
    assert "intervals" in found["rows"][0]
    assert (casia.parent / "s.tex").read_text().count("toprule") == 2
    for name in ("s.png", "v.png"):
        assert (casia.parent / name).stat().st_size > 5000


def test_killed_run_goes_on(run, casia, monkeypatch):
    """Parts that are done are not embedded again, and the numbers are those of one run."""
    monkeypatch.setattr("gaitzoo.cli.parts._SIZE", 10)
    real, counts = command.embed, []

    def embed(model, some, **options):
        if len(counts) == 1:
            raise MemoryError("killed")
        counts.append(len(some))
        return real(model, some, **options)

    monkeypatch.setattr(command, "embed", embed)
    assert run(*evaluate())[0] == 2
    assert counts == [10]
    monkeypatch.setattr(
        command, "embed", lambda m, s, **o: (counts.append(len(s)), real(m, s, **o))[1]
    )
    code, resumed, err = run(*evaluate())
    assert code == 0
    assert counts == [10, 10, 4]
    assert "10 of 24 sequences were embedded before" in err
    again = run(*evaluate())
    assert counts == [10, 10, 4]
    whole = run(*evaluate("--cache", "other"))
    assert resumed == again[1] == whole[1]


def test_changed_data_is_embedded_again(run, casia):
    first = run(*evaluate())[1]
    for file in casia.rglob("*.npy"):
        np.save(file, walk(9, seed=len(str(file)), frames=6))
    _, second, err = run(*evaluate())
    assert "embedded before" not in err
    assert first != second


def test_frames_written_anew_are_embedded_again(run, casia):
    """Folders keep their time when a frame in them is replaced."""
    leaf = casia / "075" / "nm-01" / "000"
    (leaf / "000.npy").unlink()
    write_images(leaf, walk(1))
    run(*evaluate())
    times = leaf.stat()
    write_images(leaf, walk(5))
    os.utime(leaf, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "embedded before" not in run(*evaluate())[2]


def test_metric_and_split_are_chosen(run, casia):
    out = run(*evaluate("--metric", "cosine", "--split", "all"))[1]
    assert "cosine distance" in out
    assert "(32 sequences)" in out
    (casia.parent / "list.json").write_text('{"TRAIN_SET": ["075"], "TEST_SET": ["001", "076"]}')
    assert "(16 sequences)" in run(*evaluate("--partition", "list.json"))[1]


def test_published_numbers_stand_beside(run, casia, monkeypatch):
    real = command.load_model

    def load_model(options):
        model, weights = real(options)
        model.pretrained_cfg = gaitzoo.PretrainedCfg(
            architecture="x", tag="y", metrics={"rank1": 98.4, "protocol": "NM"}
        )
        return model, weights

    monkeypatch.setattr(command, "load_model", load_model)
    assert "published for x.y, in percent: rank1 98.4 (NM)" in run(*evaluate())[1]


def test_grew_submission(run, tmp_path):
    for person in range(10):
        for video in range(2):
            folder = tmp_path / "grew" / "test" / "gallery" / f"{person:05d}" / f"g{video}abcdef"
            folder.mkdir(parents=True)
            np.save(folder / "walk.npy", walk(person, seed=video, frames=5))
    folder = tmp_path / "grew" / "test" / "probe" / "pabcdefg"
    folder.mkdir(parents=True)
    np.save(folder / "walk.npy", walk(3, seed=9, frames=5))
    words = ["evaluate", "--data", "grew", "--protocol", "grew", "--cache", "cache", *TINY]
    code, _, err = run(*words, "--submission", "grew.csv")
    assert code == 0, err
    rows = list(csv.reader((tmp_path / "grew.csv").read_text().splitlines()))
    assert [len(row) for row in rows] == [21, 21]
    assert rows[1][0] == "pabcdefg"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--submission", "x.csv"), "--protocol grew with --submission"),
        (("--views", "x.png", "--protocol", "gait3d"), "by views with --views"),
        (("--rerank",), "whole galleries"),
        (("--json", "x.txt"), "ends in .json"),
        (("--det", "x.png", "--seed", "1"), "--open-set with --det, --seed"),
        (("--open-set", "--rerank"), "distances as they are"),
        (("--open-set", "--false-positives", "1"), "between 0 and 1"),
        (("--open-set",), "four people or more with probes and gallery, got 3"),
        (("--layout", "oumvlp"), "oumvlp"),
        (("--split", "train", "--partition", "nothing.json"), "nothing.json"),
    ],
)
def test_bad_words_are_refused(run, casia, more, message):
    code, _, err = run(*evaluate(*more))
    assert code == 2
    assert message in err


def test_gait3d_needs_its_list(run, casia):
    words = evaluate("--protocol", "gait3d", "--split", "all")
    code, _, err = run(*words)
    assert code == 2
    assert "pass --partition with a file that has PROBE_SET" in err


def test_open_set_figures_in_one_command(run, tmp_path):
    for person in range(8):
        for seed, kind in enumerate(("nm-01", "nm-05")):
            for view in ("000", "090"):
                folder = tmp_path / "casia" / f"{75 + person:03d}" / kind / view
                folder.mkdir(parents=True)
                np.save(folder / f"{view}.npy", walk(person, seed=seed, frames=5))
    written = ["--json", "s.json", "--roc", "roc.png", "--det", "det.png", "--latex", "s.tex"]
    more = ["--open-set", "--seed", "3", "--false-positives", "0.2", "--bootstrap", "20"]
    code, out, err = run(*evaluate(*written, *more))
    assert code == 0, err
    found = json.loads((tmp_path / "s.json").read_text())["open_set"]
    dataset = gaitzoo.GaitDataset(tmp_path / "casia")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    expected = gaitzoo.evaluate_open_set(
        gaitzoo.embed(model, list(dataset.sequences()), progress=False),
        [record.identity for record in dataset.records],
        types=dataset.types,
        views=dataset.views,
        protocol="casiab",
        rate=0.2,
        seed=3,
        bootstrap=20,
    )
    assert found == json.loads(json.dumps(expected.to_dict()))
    assert str(expected) in out
    assert (tmp_path / "s.tex").read_text().count("toprule") == 4
    for name in ("roc.png", "det.png"):
        assert (tmp_path / name).stat().st_size > 5000
    assert "open set" not in run(*evaluate())[1]


def test_identify_answers_nobody(run, people):
    code, out, _ = run(*identify("--threshold", "0"))
    assert code == 0
    assert "nobody who is known (2 of 2): ann/three, zoe/four" in out
    found = json.loads(run(*identify("--threshold", "0", "--json"))[1])
    assert [probe["person"] for probe in found["probes"]] == [None, None]
    assert [probe["matches"] for probe in found["probes"]] == [[], []]
    loose = json.loads(run(*identify("--threshold", "1e9", "--json"))[1])
    assert [probe["person"] for probe in loose["probes"]] == [
        probe["matches"][0]["identity"] for probe in loose["probes"]
    ]
    assert run(*identify("--threshold", "nan"))[0] == 2
