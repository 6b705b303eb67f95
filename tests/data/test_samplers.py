"""Frames drawn as the authors draw them."""

import json

import pytest
import torch
from parity import GOLDEN

from gaitzoo.data.samplers import RandomTrackletSampler

DOC = json.loads((GOLDEN / "tracklet_sampling.json").read_text())


def test_draws_equal_the_authors():
    assert DOC["cases"]
    for case in DOC["cases"]:
        step = int(case["id"].split("/")[0].removeprefix("step"))
        sampler = RandomTrackletSampler(step=step, seed=case["seed"])
        assert sampler(case["frames"]).tolist() == case["indices"]
        # Without a generator: pure arithmetic.
        length = case["tracklet_length"]
        assert sampler.list_length(case["frames"], length) == case["list_length"]
        frames = sampler.frames_of(case["frames"], length, case["starts"])
        assert frames.tolist() == case["indices"]
    for batch in DOC["batches"]:
        sampler = RandomTrackletSampler(seed=batch["seed"])
        assert [sampler(frames).tolist() for frames in batch["frames"]] == batch["indices"]


def test_draws_have_the_budget_and_repeat_by_seed():
    sampler = RandomTrackletSampler(seed=3)
    again = RandomTrackletSampler(seed=3)
    for frames in (1, 5, 31, 32, 200):
        drawn = sampler(frames)
        assert drawn.shape == (32,)
        assert drawn.min() >= 0
        assert drawn.max() < frames
        assert torch.equal(drawn, again(frames))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": (5,), "probabilities": (1.0,)}, "divide 32"),
        ({"probabilities": (0.5, 0.5)}, "3 probabilities"),
        ({"probabilities": (0.5, 0.1, 0.1)}, "add up to 1"),
        ({"budget": 0}, "whole numbers"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomTrackletSampler(**options)


def test_no_frame_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        RandomTrackletSampler()(0)
