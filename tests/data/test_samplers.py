"""Frames drawn as the authors draw them."""

import json
import random

import pytest
import torch
from parity import GOLDEN

from gaitzoo.data.samplers import (
    AllFrames,
    OrderedSampler,
    RandomTrackletSampler,
    SnippetSampler,
    UnorderedSampler,
)

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


@pytest.mark.parametrize("frames", [1, 3, 7, 33, 34, 35, 300])
def test_ordered_draws_are_a_window_with_gaps(frames):
    seen = set()
    for seed in range(20):
        drawn = OrderedSampler(30, skip=4, seed=seed)(frames).tolist()
        repeated = list(range(frames)) * -(-34 // frames)
        # Somewhere in the repeated list there is a window that holds them in order.
        windows = [repeated[start : start + 34] for start in range(len(repeated) - 33)]
        assert len(drawn) == 30
        assert any(is_in_order(drawn, window) for window in windows)
        seen.add(tuple(drawn))
    assert len(seen) > 1 or frames == 1


def is_in_order(some, window):
    left = iter(window)
    return all(frame in left for frame in some)


def test_unordered_draws_repeat_only_short_sequences():
    for frames in (1, 29, 30, 31, 200):
        drawn = UnorderedSampler(30, seed=2)(frames)
        assert drawn.shape == (30,)
        assert (drawn >= 0).all()
        assert (drawn < frames).all()
        assert (len(set(drawn.tolist())) == 30) == (frames >= 30)
    assert AllFrames()(4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 300])
@pytest.mark.parametrize("replace", [True, False])
def test_snippets_stay_inside_segments(frames, replace):
    for seed in range(30):
        drawn = SnippetSampler(replace=replace, seed=seed)(frames)
        assert (drawn.shape, drawn.dtype) == ((32,), torch.int64)
        assert drawn.min() >= 0
        assert drawn.max() < frames
        for snippet in drawn.reshape(4, 8):
            assert snippet.max() - snippet.min() < 16
            assert torch.equal(snippet, snippet.sort().values)
    whole = SnippetSampler(16, 1, 8, replace=False, seed=0)(16 * 40)
    assert len(set(whole.tolist())) >= 7


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 300])
def test_snippets_say_which_frames_they_have(frames):
    sampler = SnippetSampler()
    drawn = sampler.draw(frames, random.Random(1))
    assert torch.equal(drawn.frames, sampler(frames, random.Random(1)))
    assert drawn.snippet_ids.tolist() == [m for m in range(4) for _ in range(8)]
    whole = sampler.all_frames(frames)
    assert whole.frames.tolist() == list(range(frames))
    assert whole.snippet_ids.tolist() == [t // 16 for t in range(frames)]
    assert whole.snippet_ids.max() == -(-frames // 16) - 1
    with pytest.raises(ValueError, match="at least one frame"):
        sampler.all_frames(0)


def test_first_segments_have_every_length():
    class Recorded(random.Random):
        def randint(self, a, b):
            self.length = super().randint(a, b)
            return self.length

    lengths = set()
    for seed in range(200):
        draws = Recorded(seed)
        frames = SnippetSampler()(300, draws).reshape(4, 8)
        lengths.add(draws.length)
        segments = (frames - draws.length).div(16, rounding_mode="floor")
        assert (segments == segments[:, :1]).all()
    assert lengths == set(range(1, 17))


@pytest.mark.parametrize(
    "sampler",
    [OrderedSampler(5, 1), UnorderedSampler(5), SnippetSampler(), RandomTrackletSampler()],
)
def test_a_generator_decides_and_no_frame_is_refused(sampler):
    one, two = (sampler(50, random.Random(4)) for _ in range(2))
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="at least one frame"):
        sampler(0)


def test_bad_numbers_are_refused():
    for make in (
        lambda: OrderedSampler(0),
        lambda: OrderedSampler(3, skip=-1),
        lambda: UnorderedSampler(2.0),
        lambda: SnippetSampler(segment=0),
        lambda: AllFrames(0),
    ):
        with pytest.raises(ValueError, match="whole number from"):
            make()
