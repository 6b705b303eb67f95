"""``gaitzoo robustness``: on walkers, on silhouettes, on colours."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_world import TINY, walk
from PIL import Image

from gaitzoo.data.segmentation import FrameMasks
from gaitzoo.synthetic import paint_walk, render_walk, sample_identity

pytest_plugins = ["cli_fixtures"]


@pytest.fixture
def casia(tmp_path):
    """Two people of the test split of CASIA-B, as silhouettes."""
    for number, person in enumerate(("075", "076")):
        for seed, kind in enumerate(("nm-01", "nm-05", "cl-01")):
            for view in ("000", "090"):
                folder = tmp_path / "casia" / person / kind / view
                folder.mkdir(parents=True)
                np.save(folder / f"{view}.npy", walk(number, seed=seed, frames=5))
    return tmp_path / "casia"


@pytest.fixture
def colours(tmp_path):
    """The same as folders of colour images."""
    for number, person in enumerate(("075", "076")):
        for seed, kind in enumerate(("nm-01", "nm-05")):
            for view in ("000", "090"):
                folder = tmp_path / "colours" / person / kind / view
                folder.mkdir(parents=True)
                walked = render_walk(
                    sample_identity(number),
                    frames=3,
                    view=float(view),
                    size=(96, 64),
                    seed=seed,
                    aligned=False,
                )
                for n, frame in enumerate(paint_walk(walked.silhouettes, seed)):
                    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
                    picture.save(folder / f"{n}.png")
    return tmp_path / "colours"


def test_walkers_in_all_fifteen_ways(run):
    words = ["robustness", "--data", "walkers", "--identities", "2", "--severities", "5", *TINY]
    code, out, err = run(*words, "--picture", "heat.png", "--json", "scores.json")
    assert code == 0, err
    assert "dygait_tiny on walkers (12 probes, 4 in the gallery); same, clean" in out
    scores = json.loads(Path("scores.json").read_text())
    assert len(scores["matrix"]) == 15
    assert scores["data"] == "walkers"
    assert "weights_sha256" in scores
    with Image.open("heat.png") as picture:
        assert picture.width > 300


def test_silhouettes_by_the_types_that_need_no_video(run, casia):
    words = ["robustness", "--data", "casia", "--protocol", "casiab", *TINY]
    code, out, err = run(*words, "--severities", "1", "5", "--scenario", "clean_gallery")
    assert code == 0, err
    assert "(8 probes, 4 in the gallery); clean_gallery" in out
    assert "impulse_noise2" in out
    assert "fog" not in out
    code, _, err = run(*words, "--corruptions", "fog")
    assert code == 2
    assert "need the video" in err


def test_colours_through_a_segmenter(run, colours, monkeypatch):
    made = []

    class Warm:
        def __init__(self, name, device=None):
            made.append(name)

        def __call__(self, frames):
            masks = frames[..., 0].astype(int) > frames[..., 2]
            return [FrameMasks(mask[None], np.ones(1)) for mask in masks]

    monkeypatch.setattr("gaitzoo.inference.segmenters.TransformersSegmenter", Warm)
    words = ["robustness", "--data", "colours", "--protocol", "casiab", "--segmenter", "some/model"]
    code, out, err = run(*words, "--corruptions", "fog", "rain", "--severities", "2", *TINY)
    assert code == 0, err
    assert made == ["some/model"]
    assert "rain" in out


def test_colours_for_a_model_that_reads_them(run, colours):
    words = ["robustness", "--data", "colours", "--protocol", "casiab", "--quiet"]
    words += ["--corruptions", "fog", "--severities", "2", "--model"]
    code, out, err = run(*words, "biggait_tiny")
    assert code == 0, err
    assert "environmental" in out
    code, _, err = run(*words, "biggait_tiny", "--segmenter", "some/model")
    assert code == 2
    assert "reads colours" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "casia"], "expected --protocol"),
        (["--data", "walkers", "--protocol", "casiab"], "expected no --protocol"),
        (["--data", "walkers", "--model", "skeletongait_tiny"], "a model of silhouettes"),
        (["--data", "casia", "--protocol", "casiab", "--picture", "x.jpg"], ".png"),
        (["--data", "casia", "--protocol", "gait3d"], "list of probes"),
    ],
)
def test_what_does_not_fit_is_refused(run, casia, words, message):
    code, _, err = run("robustness", *TINY, *words)
    assert code == 2
    assert message in err
