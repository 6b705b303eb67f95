"""Tokens of gait: each block against a loop, its masks, its gradients, its messages."""

import math

import pytest
import torch
from conftest import relative_error

from gaitzoo import (
    G2LProjector,
    L2GProjector,
    MotionClipAssembler,
    PeakTokenFinder,
    PeakTokens,
    RepresentationAggregator,
    SpatialTokenizer,
)

NAN = float("nan")


def tokenizer(**arguments):
    usual = {"feature_size": (4, 3), "depth": 1, "num_heads": 2}
    return SpatialTokenizer(6, 8, **{**usual, **arguments}).eval()


def assembler(**arguments):
    torch.manual_seed(1)
    return MotionClipAssembler(8, num_heads=2, **arguments).eval()


# ---------------------------------------------------------------------- spatial tokenizer


@pytest.mark.parametrize("patch_size", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("num_tokens", [1, 3])
def test_tokenizer_shapes(patch_size, num_tokens):
    model = tokenizer(patch_size=patch_size, num_tokens=num_tokens)
    patches = math.ceil(4 / patch_size[0]) * math.ceil(3 / patch_size[1])
    assert model.positions.shape == (1, num_tokens + patches, 8)
    assert model(torch.rand(2, 6, 5, 4, 3)).shape == (2, 5, num_tokens, 8)


@torch.no_grad()
def test_tokenizer_sees_frames_apart():
    model, features = tokenizer(), torch.rand(1, 6, 7, 4, 3)
    order = torch.randperm(7)
    torch.testing.assert_close(model(features[:, :, order]), model(features)[:, order])
    changed = features.clone()
    changed[:, :, 3] += torch.rand(6, 4, 3)
    moved = (model(changed) - model(features)).abs().sum((0, 2, 3)) > 1e-6
    assert moved.tolist() == [i == 3 for i in range(7)]


@torch.no_grad()
def test_tokenizer_fills_up_with_zeros():
    narrow, wide = tokenizer(feature_size=(4, 3)), tokenizer(feature_size=(4, 4))
    wide.load_state_dict(narrow.state_dict())
    features = torch.rand(1, 6, 2, 4, 3)
    filled = torch.nn.functional.pad(features, (0, 1))
    torch.testing.assert_close(narrow(features), wide(filled))


@torch.no_grad()
def test_tokenizer_padding_is_zero_and_never_matters():
    features = torch.rand(2, 6, 5, 4, 3)
    features[1, :, 2:] = NAN
    model = tokenizer()
    found = model(features, torch.tensor([5, 2]))
    assert (found[1, 2:] == 0).all()
    torch.testing.assert_close(found[1:, :2], model(features[1:, :, :2]))


# ---------------------------------------------------------------------- peak token finder


def select_by_loop(curve, keep_ratio, mode="topk_peaks", max_keep=None):
    """Peaks and kept frames of one sequence, as the rule is spoken."""
    frames = len(curve)
    peaks = [
        t
        for t in range(frames)
        if (t == 0 or curve[t] > curve[t - 1]) and (t == frames - 1 or curve[t] > curve[t + 1])
    ]
    if mode == "peaks":
        count = max(len(peaks), 1)
    else:
        count = max(math.ceil(keep_ratio * frames - 1e-6), 1)
    count = min(count, max_keep or count)
    ranked = sorted(range(frames), key=lambda t: (t not in peaks, -curve[t], t))
    return peaks, sorted(ranked[:count])


CURVES = {
    "one frame": [0.3],
    "two peaks": [0.1, 0.9, 0.2, 0.8, 0.3, 0.1],
    "filler": [0.5, 0.9, 0.8, 0.7, 0.1, 0.0],
    "tie": [0.5, 0.9, 0.5, 0.9, 0.5],
    "constant": [0.4] * 6,
    "rising": [0.1, 0.2, 0.3, 0.4, 0.5],
    "falling": [0.5, 0.4, 0.3, 0.2, 0.1],
    "plateau": [0.1, 0.7, 0.7, 0.1, 0.2],
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("keep_ratio", [0.01, 0.34, 0.5, 1.0])
@pytest.mark.parametrize("mode", ["topk_peaks", "peaks"])
@pytest.mark.parametrize("max_keep", [None, 2])
def test_selection_equals_the_spoken_rule(curve, keep_ratio, mode, max_keep):
    found = PeakTokenFinder(keep_ratio, mode, max_keep=max_keep).select(torch.tensor([curve]))
    peaks, kept = select_by_loop(curve, keep_ratio, mode, max_keep)
    assert found.is_peak[0].nonzero().flatten().tolist() == peaks
    assert found.keep[0].nonzero().flatten().tolist() == kept
    assert found.index[0, : found.lengths[0]].tolist() == kept


def test_known_selections():
    def kept(curve, ratio):
        peaks = PeakTokenFinder(ratio).select(torch.tensor([curve]))
        return peaks.index[0, : peaks.lengths[0]].tolist()

    assert kept(CURVES["two peaks"], 2 / 6) == [1, 3]
    assert kept(CURVES["filler"], 0.5) == [1, 2, 3]
    assert kept(CURVES["tie"], 0.2) == [1]
    assert kept(CURVES["constant"], 0.5) == [0, 1, 2]
    assert kept(CURVES["rising"], 0.4) == [3, 4]


def test_batches_select_as_single_sequences_do():
    curves = torch.rand(6, 17)
    lengths = torch.tensor([17, 1, 9, 4, 16, 2])
    garbage = curves.masked_fill(torch.arange(17) >= lengths[:, None], NAN)
    finder = PeakTokenFinder(0.5)
    found = finder.select(garbage, lengths)
    assert found.lengths.tolist() == [9, 1, 5, 2, 8, 1]
    for i, length in enumerate(lengths.tolist()):
        alone = finder.select(curves[i : i + 1, :length])
        assert found.index[i, : found.lengths[i]].tolist() == alone.index[0].tolist()
        assert found.keep[i].sum() == found.lengths[i]
        assert not found.keep[i, length:].any()
        assert not found.is_peak[i, length:].any()
        steps = found.index[i, : found.lengths[i]].diff()
        assert (steps > 0).all()
    order = torch.randperm(6)
    again, twice = finder.select(garbage[order], lengths[order]), finder.select(garbage, lengths)
    for name in ("scores", "is_peak", "keep", "index", "lengths"):
        assert torch.equal(getattr(again, name), getattr(found, name)[order])
        assert torch.equal(getattr(twice, name), getattr(found, name))


@pytest.mark.parametrize("global_token", ["mean", "max", "learned"])
def test_scores_are_cosines_with_the_global_token(global_token):
    dim = 8 if global_token == "learned" else None
    finder = PeakTokenFinder(global_token=global_token, dim=dim)
    tokens = torch.randn(2, 7, 3, 8)
    tokens[1, 4:] = NAN
    found = finder(tokens, torch.tensor([7, 4])).scores
    for i, length in enumerate((7, 4)):
        frames = tokens[i, :length].double().mean(1)
        whole = {"mean": frames.mean(0), "max": frames.amax(0), "learned": finder.query}
        wanted = torch.cosine_similarity(frames, whole[global_token].double()[None])
        torch.testing.assert_close(found[i, :length], wanted)
    assert (found[1, 4:] == -torch.inf).all()


def test_scale_does_not_matter_and_time_can_run_backwards():
    tokens, finder = torch.randn(3, 12, 1, 8, dtype=torch.float64), PeakTokenFinder(0.4)
    factors = torch.tensor([7.5, 1e-3, 1e4], dtype=torch.float64)[:, None, None, None]
    found, scaled, back = finder(tokens), finder(tokens * factors), finder(tokens.flip(1))
    assert torch.equal(found.keep, scaled.keep)
    torch.testing.assert_close(back.scores.flip(1), found.scores)
    assert torch.equal(back.is_peak.flip(1), found.is_peak)
    assert torch.equal(back.keep.flip(1), found.keep)


def test_unlike_frames_can_be_kept():
    curve = torch.tensor([[0.5, 0.1, 0.6, 0.2, 0.7]])
    assert PeakTokenFinder(0.4, largest=False).select(curve).index.tolist() == [[1, 3]]


def test_a_learned_global_token_is_trained_and_changes_no_value():
    finder = PeakTokenFinder(global_token="learned", dim=8)
    tokens = torch.randn(1, 6, 2, 8)
    peaks = finder(tokens)
    weighed = finder.weigh(tokens, peaks)
    assert torch.equal(weighed, tokens)
    weighed.square().sum().backward()
    assert finder.query.grad.abs().max() > 1e-6
    plain = PeakTokenFinder()
    assert plain.weigh(tokens, plain(tokens)) is tokens


def test_awkward_ratios_round_as_they_read():
    for frames, ratio, count in ((30, 0.1, 3), (30, 0.7, 21), (10, 0.3, 3), (7, 0.5, 4)):
        assert PeakTokenFinder(ratio).select(torch.rand(1, frames)).lengths.item() == count


@pytest.mark.parametrize("keep_ratio", [1e-9, 1e-5])
def test_however_small_the_share_one_frame_is_kept(keep_ratio):
    finder = PeakTokenFinder(keep_ratio)
    peaks = finder.select(torch.tensor([[0.1, 0.9, 0.2]]))
    assert (finder.width(3), peaks.index.tolist(), peaks.lengths.tolist()) == (1, [[1]], [1])


ORDER = [0, 0, 1, 2, 2, 2, 1, 3, 0, 3, 3, 1]


def rounded_otherwise(tokens):
    """As another order of adding up could give them: one unit in the last place off."""
    return tokens * (1 + torch.randint(-1, 2, tokens.shape) * torch.finfo(tokens.dtype).eps)


@pytest.mark.parametrize("global_token", ["mean", "max", "learned"])
@pytest.mark.parametrize("spread", [1.0, 1e-2])
@torch.no_grad()
def test_frames_that_only_rounding_tells_apart_are_level(global_token, spread):
    finder = PeakTokenFinder(
        global_token=global_token, dim=16 if global_token == "learned" else None
    )
    for _ in range(50):
        frames = torch.randn(1, 1, 1, 16) + spread * torch.randn(1, 4, 1, 16)
        tokens = frames[:, ORDER]
        wanted = finder(tokens.double())
        batch = torch.full((3, 20, 1, 16), NAN)
        batch[:, :12] = rounded_otherwise(tokens.expand(3, -1, -1, -1))
        found = finder(batch, torch.tensor([12, 12, 12]))
        for name in ("is_peak", "keep"):
            assert torch.equal(getattr(found, name)[:, :12], getattr(wanted, name).expand(3, -1))
        # A frame that is shown twice in a row is no peak.
        assert not wanted.is_peak[0, [0, 1, 3, 4, 5, 9, 10]].any()


@torch.no_grad()
def test_frames_shown_twice_are_level_behind_the_tokenizer():
    model, finder = tokenizer(), PeakTokenFinder(0.5)
    lengths = torch.tensor([12, 7, 12, 1, 12])
    features = torch.rand(5, 6, 4, 4, 3)[:, :, ORDER]
    found = finder(model(features, lengths), lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = finder(model(features[i : i + 1, :, :length]))
        assert torch.equal(found.keep[i, :length], alone.keep[0])
        assert torch.equal(found.is_peak[i, :length], alone.is_peak[0])


# ---------------------------------------------------------------------- motion clip assembler


def choose(kept, frames):
    keep = torch.zeros(1, frames, dtype=torch.bool)
    keep[0, kept] = True
    return PeakTokens(
        scores=torch.zeros(1, frames),
        is_peak=keep,
        keep=keep,
        index=torch.tensor([kept]),
        lengths=torch.tensor([len(kept)]),
    )


@torch.no_grad()
def test_assembler_equals_attention_by_loop():
    model, tokens = assembler(), torch.randn(1, 6, 2, 8)
    found = model(tokens, choose([1, 4], 6))
    block = model.blocks[0]
    others = block.norm_others(tokens[0, [0, 2, 3, 5]].flatten(0, 1))
    key, value = block.key_value(others).chunk(2, dim=-1)
    for place, frame in enumerate((1, 4)):
        for s in range(2):
            query = block.query(block.norm_kept(tokens[0, frame, s]))
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                weights = (key[:, head] @ query[head] / 2.0).softmax(0)
                heads.append(weights @ value[:, head])
            y = tokens[0, frame, s] + block.out(torch.cat(heads))
            wanted = y + block.mlp(block.norm(y))
            torch.testing.assert_close(found[0, place, s], wanted)


@torch.no_grad()
def test_assembler_takes_dropped_frames_in_any_order():
    model, tokens = assembler(), torch.randn(1, 6, 1, 8)
    wanted = model(tokens, choose([1, 4], 6))
    shuffled = tokens[:, [5, 1, 0, 2, 4, 3]]
    torch.testing.assert_close(model(shuffled, choose([1, 4], 6)), wanted)
    swapped = tokens[:, [0, 4, 2, 3, 1, 5]]
    torch.testing.assert_close(model(swapped, choose([1, 4], 6)), wanted.flip(1))


@torch.no_grad()
def test_assembler_without_dropped_frames_is_the_mlp():
    model, tokens = assembler(), torch.randn(1, 3, 1, 8)
    block = model.blocks[0]
    wanted = tokens + block.mlp(block.norm(tokens))
    torch.testing.assert_close(model(tokens, choose([0, 1, 2], 3)), wanted)


def test_clips_do_not_mix():
    model, tokens = assembler(scope="clip"), torch.randn(1, 8, 1, 8, requires_grad=True)
    # Nearest kept frame of 0..7: 1 1 1 (tie of 1 and 5 at 3 goes to 1) 1 5 5 5 5.
    model(tokens, choose([1, 5], 8))[0, 0].sum().backward()
    touched = tokens.grad[0, :, 0].abs().sum(1) > 1e-9
    assert touched.tolist() == [True, True, True, True, False, False, False, False]


@pytest.mark.parametrize("scope", ["global", "clip"])
@torch.no_grad()
def test_assembler_padding_never_matters(scope):
    model, finder = assembler(scope=scope, depth=2), PeakTokenFinder(0.5)
    tokens, lengths = torch.randn(3, 9, 2, 8), torch.tensor([9, 1, 4])
    garbage = tokens.masked_fill((torch.arange(9) >= lengths[:, None])[..., None, None], NAN)
    peaks = finder(garbage, lengths)
    found = model(garbage, peaks, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = tokens[i : i + 1, :length]
        wanted = model(alone, finder(alone))[0]
        assert relative_error(found[i, : len(wanted)], wanted) < 1e-5
        assert (found[i, len(wanted) :] == 0).all()


# ---------------------------------------------------------------------- projectors, aggregator


def test_projectors():
    g2l, l2g = G2LProjector(8, 12, scale=0.05), L2GProjector(12, 6)
    tokens = torch.randn(2, 5, 8)
    wanted = (torch.nn.functional.layer_norm(tokens, (8,)) @ g2l.linear.weight.T) * 0.05
    torch.testing.assert_close(g2l(tokens), wanted)
    hidden = torch.randn(2, 5, 12)
    hidden[1, 2:] = NAN
    found = l2g(hidden, torch.tensor([5, 2]))
    torch.testing.assert_close(found[0], hidden[0] @ l2g.linear.weight.T)
    assert (found[1, 2:] == 0).all()
    assert L2GProjector(12, 6).linear.bias is None
    assert L2GProjector(12, 6, bias=True).linear.bias is not None


def test_aggregator_against_a_loop():
    sentence, lengths = torch.randn(3, 5, 4), torch.tensor([5, 1, 3])
    garbage = sentence.masked_fill((torch.arange(5) >= lengths[:, None])[..., None], NAN)
    found = {m: RepresentationAggregator(m)(garbage, lengths) for m in ("gmp", "gap", "last")}
    for i, length in enumerate(lengths.tolist()):
        words = sentence[i, :length]
        torch.testing.assert_close(found["gmp"][i], words.amax(0))
        torch.testing.assert_close(found["gap"][i], words.mean(0))
        torch.testing.assert_close(found["last"][i], words[-1])
    assert (found["gmp"] >= found["gap"]).all()
    for mode, vector in found.items():
        torch.testing.assert_close(vector[1], sentence[1, 0])
        whole = RepresentationAggregator(mode)
        torch.testing.assert_close(whole(sentence), whole(sentence, torch.tensor([5, 5, 5])))


def test_means_of_half_precision_do_not_overflow():
    sentence = torch.full((2, 300, 4), 1000.0, dtype=torch.float16)
    for lengths in (None, torch.tensor([300, 299]), torch.tensor([44, 300], dtype=torch.int16)):
        found = RepresentationAggregator("gap")(sentence, lengths)
        assert torch.equal(found, sentence[:, 0])


def test_lengths_may_be_small_integers():
    tokens = torch.randn(2, 300, 1, 8)
    wide, small = torch.tensor([200, 120]), torch.tensor([200, 120], dtype=torch.uint8)
    finder, model = PeakTokenFinder(0.7), assembler(scope="clip")
    peaks, wanted = finder(tokens, small), finder(tokens, wide)
    assert peaks.lengths.tolist() == [140, 84]
    assert torch.equal(peaks.index, wanted.index)
    assert torch.equal(model(tokens, peaks, small), model(tokens, wanted, wide))


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tokenizer(depth=0), "depth as a positive whole number, got 0"),
        (lambda: tokenizer(num_heads=3), "multiple of num_heads"),
        (lambda: tokenizer()(torch.rand(1, 5, 2, 4, 3)), r"features \[N, 6, T, 4, 3\]"),
        (lambda: tokenizer()(torch.rand(1, 6, 2, 4, 4)), "feature_size"),
        (lambda: PeakTokenFinder(0), "keep_ratio above 0"),
        (lambda: PeakTokenFinder(mode="all"), "topk_peaks"),
        (lambda: PeakTokenFinder(global_token="sum"), "learned"),
        (lambda: PeakTokenFinder(global_token="learned"), "dim with"),
        (lambda: PeakTokenFinder(max_keep=0), "max_keep"),
        (lambda: PeakTokenFinder().select(torch.rand(3)), r"scores \[N, T\]"),
        (lambda: PeakTokenFinder()(torch.rand(3, 4, 5)), r"tokens \[N, T, S, D\]"),
        (
            lambda: PeakTokenFinder()(torch.rand(1, 4, 1, 5), torch.tensor([5])),
            "lengths from 1 to 4",
        ),
        (lambda: assembler(scope="near"), "global"),
        (lambda: assembler(depth=0), "depth"),
        (lambda: assembler()(torch.rand(1, 4, 1, 9), choose([1], 4)), r"\[N, T, S, 8\]"),
        (lambda: assembler()(torch.rand(1, 5, 1, 8), choose([1], 4)), "peaks of these"),
        (lambda: L2GProjector(8, 4)(torch.rand(1, 2, 9)), r"sentence \[N, L, 8\]"),
        (lambda: G2LProjector(8, 4)(torch.rand(1, 2, 9)), r"tokens \[N, L, 8\]"),
        (lambda: G2LProjector(8, 4)(torch.rand(1, 2, 3, 8)), r"tokens \[N, L, 8\]"),
        (lambda: RepresentationAggregator("sum"), "gmp"),
        (lambda: RepresentationAggregator()(torch.rand(2, 3)), r"\[N, L, C\]"),
    ],
)
def test_bad_input_is_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()
