"""Occluded silhouettes: published outputs, kept rows, ranges, one mask for all frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import fill
from safetensors.numpy import load_file

from gaitzoo import OcclusionEvaluator, OcclusionEvaluatorLoss
from gaitzoo.data.occlusion import (
    HalfBodyOcclusion,
    MiddleBandOcclusion,
    MovingPatchOcclusion,
    OcclusionExamples,
    OneOf,
    hide_moving_patch,
    hide_rows,
    keep_window,
)
from gaitzoo.synthetic import SyntheticWalkers

GOLDEN = Path(__file__).parents[1] / "golden"
DOC = json.loads((GOLDEN / "rggait_occlusion.json").read_text())
CASES = {case["id"]: case for case in DOC["cases"]}
TRANSFORMS = {
    "half": HalfBodyOcclusion(),
    "middle": MiddleBandOcclusion(),
    "patch": MovingPatchOcclusion(),
    "pole": MovingPatchOcclusion(height=(1, 1)),
    "one_of": OneOf([HalfBodyOcclusion(), MiddleBandOcclusion()], chance=0.9),
}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def stripes(height=40, width=6, frames=3):
    """Every row has a brightness of its own, lighter than half."""
    rows = 0.51 + torch.arange(height) / (2.1 * height)
    return rows[None, :, None].expand(frames, height, width).clone()


@pytest.mark.parametrize("name", CASES)
def test_outputs_with_the_drawn_numbers_are_the_published_ones(name):
    case = CASES[name]
    x = fill.silhouettes(2, case["T"], case["h"], case["w"], "rg_occlusion")[1]
    if case["kind"] == "half":
        found = keep_window(x, tuple(case["rows"]), size=(64, 64))
    elif case["kind"] == "middle":
        found = hide_rows(x, tuple(case["zero_rows"]))
    else:
        found = hide_moving_patch(x, case["height"], case["width"], case["velocity"])
    wanted = np.unpackbits(load_file(GOLDEN / "rggait_occlusion.safetensors")[name], axis=-1)
    assert np.array_equal(found.numpy().astype(np.uint8), wanted)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["kind"] == "half"])
def test_the_rows_of_a_portion_are_the_published_ones(name, monkeypatch):
    case = CASES[name]
    kept = []
    monkeypatch.setattr("gaitzoo.data.occlusion.keep_window", lambda x, rows: kept.append(rows))
    portion = (case["portion"],) * 2
    for seed in range(10):
        HalfBodyOcclusion(portion=portion)(torch.ones(1, case["h"], 4), source(seed))
    top, bottom = min(kept), max(kept)
    assert {top, bottom} == set(kept)
    assert list(top if case["keep"] == "top" else bottom) == case["rows"]


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["kind"] == "middle"])
def test_the_middle_of_a_portion_is_the_published_one(name):
    case = CASES[name]
    portion = (case["portion"],) * 2
    found = MiddleBandOcclusion(portion=portion)(torch.ones(1, case["h"], 4), source())
    hidden = (found[0, :, 0] == 0).nonzero().flatten()
    assert [int(hidden.min()), int(hidden.max()) + 1] == case["zero_rows"]
    assert len(hidden) == case["zero_rows"][1] - case["zero_rows"][0]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_shape_dtype_and_two_values_stay(name, dtype):
    white = 255 if dtype == torch.uint8 else 1
    walk = (torch.rand(5, 64, 44) > 0.5).to(dtype) * white
    before = walk.clone()
    for seed in range(20):
        found = TRANSFORMS[name](walk, source(seed))
        assert found.shape == walk.shape
        assert found.dtype == dtype
        assert set(found.unique().tolist()) <= {0, white}
        assert torch.equal(found, TRANSFORMS[name](walk, source(seed)))
    assert torch.equal(walk, before)


def test_half_body_keeps_the_right_rows_stretched():
    frame = torch.zeros(3, 40, 6)
    frame[:, :10] = 1  # the head
    seen = set()
    for seed in range(30):
        found = HalfBodyOcclusion(portion=(0.5, 0.5))(frame, source(seed))
        assert torch.equal(found[0], found[1])
        rows = found[0, :, 0]
        keeps_top = bool(rows.any())
        seen.add(keeps_top)
        # The kept twenty rows fill forty: the head is now twenty rows high, or gone.
        assert torch.equal(rows, (torch.arange(40) < 20).float() * keeps_top)
    assert seen == {True, False}


def test_half_body_hides_portions_of_its_range_alone(monkeypatch):
    kept = []
    monkeypatch.setattr("gaitzoo.data.occlusion.keep_window", lambda x, rows: kept.append(rows))
    generator = source()
    for _ in range(500):
        HalfBodyOcclusion()(torch.ones(1, 100, 2), generator)
    hidden = [100 - (last - first) for first, last in kept]
    assert 9 <= min(hidden) <= 12
    assert 57 <= max(hidden) <= 61
    top = sum(first == 0 for first, _ in kept)
    assert 200 < top < 300
    assert all(first == 0 or last == 100 for first, last in kept)


def test_a_striped_pattern_loses_its_middle():
    walk = stripes()
    found = MiddleBandOcclusion(portion=(0.25, 0.25))(walk, source())
    assert bool((found[:, 15:25] == 0).all())
    assert torch.equal(found[:, :15], walk[:, :15])
    assert torch.equal(found[:, 25:], walk[:, 25:])


def test_patch_moves_and_a_pole_is_as_high_as_the_frame():
    found = MovingPatchOcclusion(height=(1, 1), width=(0.5, 0.5), speed=(2, 2))(
        torch.ones(4, 6, 8), source()
    )
    first = [int((frame[0] == 0).nonzero()[0]) for frame in found]
    assert first == [0, 2, 4, 6]
    assert all(bool((frame[0] == frame).all()) for frame in found)
    gone = hide_moving_patch(torch.ones(9, 2, 3), 1, 1, 1.0)
    assert bool((gone[4:] == 1).all())


def test_one_of_occludes_as_often_as_it_says():
    walk = torch.ones(1, 20, 4)
    half, middle = HalfBodyOcclusion(), MiddleBandOcclusion(portion=(0.5, 0.5))
    generator = source()
    names = []

    def called(name, transform):
        def call(x, g):
            names.append(name)
            return transform(x, g)

        return call

    one_of = OneOf([called("half", half), called("middle", middle)], chance=0.5)
    for _ in range(1000):
        one_of(walk, generator)
    assert 420 < len(names) < 580
    assert 0.4 < names.count("half") / len(names) < 0.6


@pytest.mark.parametrize("target", ["hidden", "kept"])
def test_examples_say_what_is_hidden(target):
    frames = torch.zeros(600, 64, 64)
    frames[:, :32] = 1
    found = OcclusionExamples(target=target)(frames, source())
    assert 150 < int((found.types == 0).sum()) < 250
    assert torch.equal(found.frames[found.types == 0], frames[found.types == 0])
    assert bool((found.amounts[found.types == 0] == 0).all())
    for kind in (1, 2):
        amounts = found.amounts[found.types == kind]
        assert 0.4 <= float(amounts.min()) < 0.42
        assert 0.58 < float(amounts.max()) <= 0.6 + 1e-6
        white = found.frames[found.types == kind].mean((1, 2))
        hidden = amounts if target == "hidden" else 1 - amounts
        kept = 1 - hidden
        # Share of the kept strip that lies in the upper half of the frame.
        wanted = (0.5 / kept).clamp(max=1) if kind == 1 else ((0.5 - hidden) / kept).clamp(min=0)
        assert bool(((white - wanted).abs() < 0.05).all())


@pytest.mark.parametrize(
    ("width", "first", "trim"), [(64, 16, True), (44, 6, True), (64, 0, False)]
)
def test_examples_cut_the_columns_that_a_square_frame_would_lose(width, first, trim, monkeypatch):
    seen = []

    def keep(x, rows, columns):
        seen.append((rows, columns))
        return x

    monkeypatch.setattr("gaitzoo.data.occlusion.keep_window", keep)
    OcclusionExamples(kept=(0.5, 0.5), trim=trim)(torch.ones(30, 64, width), source())
    assert set(seen) == {((0, 32), (first, width - first)), ((32, 64), (first, width - first))}


def test_an_evaluator_learns_to_see_what_is_hidden():
    torch.manual_seed(0)
    walkers = SyntheticWalkers(12, sequences=[("normal", 0)], views=(54, 90), size=(32, 22))
    frames = torch.cat([walkers[i].silhouettes[::3] for i in range(len(walkers))])
    evaluator = OcclusionEvaluator(num_types=3)
    optimizer = torch.optim.Adam(evaluator.parameters(), lr=1e-3)
    loss_of, make, generator = OcclusionEvaluatorLoss(), OcclusionExamples(), source()
    for _ in range(150):
        batch = frames[torch.randint(len(frames), (32,), generator=generator)]
        examples = make(batch, generator)
        embedding, amount = evaluator(examples.frames[:, None])
        logits = evaluator.type_logits(embedding)
        loss = loss_of(logits, amount, examples.types, examples.amounts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = SyntheticWalkers(
        6, sequences=[("normal", 0)], views=(72,), size=(32, 22), first_identity=50
    )
    examples = make(torch.cat([unseen[i].silhouettes for i in range(len(unseen))]), generator)
    with torch.no_grad():
        _, amount = evaluator(examples.frames[:, None])
    error = (amount - examples.amounts).square().mean()
    assert error < 0.8 * examples.amounts.var()
    assert amount[examples.types > 0].mean() > amount[examples.types == 0].mean() + 0.2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: keep_window(torch.ones(1, 4, 4), (2, 2)), ValueError, "rows .* inside 0..4"),
        (lambda: keep_window(torch.ones(1, 4, 4), (0, 4), (1, 5)), ValueError, "columns"),
        (lambda: HalfBodyOcclusion()(torch.full((1, 4, 4), 255.0)), ValueError, r"in \[0, 1\]"),
        (lambda: hide_rows(torch.ones(1, 4, 4), (-1, 2)), ValueError, "rows"),
        (lambda: hide_rows(torch.ones(4, 4), (0, 2)), ValueError, r"one sequence \[T, H, W\]"),
        (lambda: hide_rows(torch.ones(1, 4, 4).long(), (0, 2)), TypeError, "as floats"),
        (lambda: hide_moving_patch(torch.ones(1, 4, 4), 5, 1, 1), ValueError, "height from 1 to 4"),
        (lambda: hide_moving_patch(torch.ones(1, 4, 4), 1, 1, -1), ValueError, "speed"),
        (lambda: HalfBodyOcclusion(portion=(0.6, 0.1)), ValueError, "the lower first"),
        (lambda: MiddleBandOcclusion(portion=(0.0, 0.5)), ValueError, "portion"),
        (lambda: MovingPatchOcclusion(height=(0.5, 1.5)), ValueError, "height"),
        (lambda: OneOf([]), ValueError, "one transform or more"),
        (lambda: OneOf([HalfBodyOcclusion()], chance=2), ValueError, "chance in"),
        (lambda: OcclusionExamples(target="both"), ValueError, '"hidden" or "kept"'),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()
