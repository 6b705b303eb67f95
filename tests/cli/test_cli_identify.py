"""``gaitzoo identify`` and ``gaitzoo demo``: matches in words, JSON and pictures."""

import json
import os

import numpy as np
import pytest
import torch
from cli_world import TINY, identify, walk
from PIL import Image

import gaitzoo

pytest_plugins = ["cli_fixtures"]


def test_identify_prints_matches(run, people):
    code, out, err = run(*identify())
    lines = out.splitlines()
    assert code == 0
    assert err.count("\n") == 1
    assert [line.split()[0] for line in lines if "/" in line.split(" ")[0]] == [
        "ann/three",
        "zoe/four",
    ]
    assert sum("yes" in line for line in lines) == 2
    assert sum(line.endswith(" no") for line in lines) == 1
    assert "probes whose identity is in the gallery: 1 of 2" in lines[-3]
    assert lines[-1].startswith("weights: untrained (sha256 ")


def test_identify_json(run, people):
    code, out, _ = run(*identify("--json", "--top", "2", "--picture", "matches.PNG"))
    found = json.loads(out)
    assert code == 0
    assert (found["model"], found["weights"]) == ("dygait_tiny", "untrained")
    assert len(found["weights_sha256"]) == 64
    assert (found["known_probes"], [p["known"] for p in found["probes"]]) == (1, [True, False])
    for probe in found["probes"]:
        distances = [match["distance"] for match in probe["matches"]]
        assert len(distances) == 2
        assert distances == sorted(distances)
    assert found["probes"][0]["path"] == os.path.join("new", "ann", "three.pkl")
    assert found["rank1"] == float(found["probes"][0]["matches"][0]["identity"] == "ann")
    with Image.open("matches.PNG") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_identify_never_matches_a_sequence_with_itself(run, people):
    arguments = ["identify", "--gallery", "known", "--probe", "known", *TINY, "--json"]
    found = json.loads(run(*arguments)[1])
    for probe in found["probes"]:
        assert probe["path"] not in [match["path"] for match in probe["matches"]]
        assert len(probe["matches"]) == 2
    assert found["known_probes"] == 2


def test_identify_without_known_probes_gives_no_rank1(run, people):
    code, out, _ = run("identify", "--gallery", "known", "--probe", "new/zoe/four.npz", *TINY)
    assert code == 0
    assert "Rank-1" not in out
    assert "same person" not in out


def test_identify_draws_right_and_wrong(run, people):
    _, out, _ = run(*identify("--picture", "matches.png"))
    assert "picture: matches.png\n" in out
    with Image.open("matches.png") as picture:
        pixels = np.asarray(picture)
        assert picture.width > 600
    right, wrong, unknown = (
        int((pixels == np.array(colour)).all(axis=2).sum())
        for colour in ((0, 146, 88), (222, 66, 44), (189, 193, 198))
    )
    # ann has two of the three known sequences; zoe has none.
    assert right == 2 * wrong > 1000
    assert unknown > wrong


def test_the_picture_of_many_probes_is_cut(run, tmp_path):
    for number in range(26):
        (tmp_path / "new").mkdir(exist_ok=True)
        np.save(tmp_path / "new" / f"{number}.npy", walk(number, frames=4))
    (tmp_path / "known").mkdir()
    np.save(tmp_path / "known" / "ann.npy", walk(0))
    code, out, _ = run(*identify("--picture", "matches.png"))
    assert code == 0
    assert out.endswith("picture: matches.png (24 of 26 probes)\n")


def test_demo(run, tmp_path):
    code, out, err = run("demo", "--identities", "2", "--out", "results/new", *TINY)
    assert code == 0
    assert err.count("\n") == 1
    scores = [line.split() for line in out.splitlines() if line.split()[:1] > [""]]
    scores = {words[0]: words[1:] for words in scores}
    for condition in ("normal", "bag", "coat"):
        assert len(scores[condition]) == 3
        assert scores[condition][2] == "50.0%"
        assert set(scores[condition][:2]) <= {"0.0%", "50.0%", "100.0%"}
    path = os.path.join("results", "new", "gaitzoo-demo.png")
    assert out.endswith(f"picture: {path}\n")
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.height > 6 * 100
    again = run("demo", "--identities", "2", "--out", "results/new", *TINY)
    other = run("demo", "--identities", "2", "--seed", "5", "--out", "results/other", *TINY)
    assert again[1] == out
    assert other[0] == 0
    pictures = [Image.open(tmp_path / "results" / f / "gaitzoo-demo.png") for f in ("new", "other")]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    for picture in pictures:
        picture.close()


def test_demo_compares_other_views_only():
    from gaitzoo.cli.demo import try_on_walkers

    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    trial = try_on_walkers(model, 2, progress=False)
    assert len(trial.gallery) == 4
    assert [(p.label, p.condition) for p in trial.probes] == [
        (label, condition) for label in (0, 1) for condition in ("normal", "bag", "coat")
    ]
    assert {clip.condition for clip in trial.gallery} == {"normal"}
    for probe, matches in zip(trial.probes, trial.identification.matches, strict=True):
        assert len(matches) == 2
        assert all(trial.gallery[match.index].view != probe.view for match in matches)
        walks = [clip.silhouettes for clip in trial.gallery if clip.label == probe.label]
        assert not any(torch.equal(probe.silhouettes, known) for known in walks)


def test_gait_energy_images_are_compared_as_written():
    from gaitzoo.cli.demo import try_on_walkers

    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    trial = try_on_walkers(model, 3, seed=1, progress=False)
    transform = gaitzoo.create_transform(model)
    for condition, (_, by_image) in trial.scores.items():
        hits = []
        for probe in trial.probes:
            if probe.condition != condition:
                continue
            rivals = [clip for clip in trial.gallery if clip.view != probe.view]
            image = transform(probe.silhouettes).mean(0)
            distances = [
                float((transform(clip.silhouettes).mean(0) - image).norm()) for clip in rivals
            ]
            hits.append(rivals[int(np.argmin(distances))].label == probe.label)
        assert by_image == pytest.approx(sum(hits) / len(hits))
