"""Regions found by a network: sums written out, what blocks start as, what they see over time."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from torch import nn

from gaitzoo import (
    RDAEBlock,
    RegionBalanceLoss,
    RegionDynamicAggregation,
    RegionDynamicExcitation,
    RegionSearcher,
)
from gaitzoo.testing.trial import reset_statistics


def ready(block):
    """A block in eval mode, with statistics as after training."""
    reset_statistics(block)
    return block.double().eval()


def maps(n=2, c=6, t=5, h=6, w=4):
    return torch.randn(n, c, t, h, w, dtype=torch.float64)


def shares(n=2, r=3, t=5, h=6, w=4):
    return torch.randn(n, r, t, h, w, dtype=torch.float64).softmax(1)


# ---------------------------------------------------------------------- regions


def test_regions_are_shares_of_every_pixel():
    regions = RegionSearcher(6)(maps().float())
    assert regions.shape == (2, 4, 5, 6, 4)
    assert bool((regions >= 0).all())
    assert relative_error(regions.sum(1), torch.ones(2, 5, 6, 4)) < 1e-6
    plain = RegionSearcher(6).eval()
    decided = RegionSearcher(6, tau=0.01).eval()
    decided.load_state_dict(plain.state_dict())
    assert decided(maps().float()).amax(1).mean() > plain(maps().float()).amax(1).mean()


def test_hard_regions_are_one_or_zero_with_the_gradient_of_the_softmax():
    soft, hard = RegionSearcher(6), RegionSearcher(6, hard=True)
    hard.load_state_dict(soft.state_dict())
    x, weights = maps().float(), torch.rand(2, 4, 5, 6, 4)
    found, wanted = hard(x), soft(x)
    assert torch.equal(
        found.detach().round(), F.one_hot(wanted.argmax(1), 4).movedim(-1, 1).float()
    )
    assert relative_error(found, found.round()) < 1e-6
    for searcher, regions in ((hard, found), (soft, wanted)):
        (regions * weights).sum().backward()
        assert bool((searcher.scores[0].weight.grad != 0).any())
    for one, other in zip(hard.parameters(), soft.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_balance_is_0_for_equal_regions_and_the_divergence_otherwise():
    loss = RegionBalanceLoss()
    assert loss(torch.full((2, 3, 4, 5, 5), 1 / 3)).abs() < 1e-6
    regions, lengths = shares(), torch.tensor([5, 2])
    sizes = torch.zeros(3, dtype=torch.float64)
    for i, length in enumerate(lengths):
        sizes += regions[i, :, :length].sum((1, 2, 3))
    p = sizes / sizes.sum()
    regions[1, :, 2:] = float("nan")
    assert abs(loss(regions, lengths) - (p * (p * 3).log()).sum()) < 1e-10


# ---------------------------------------------------------------------- RDA


def test_aggregation_is_the_double_sum_over_regions_and_kernels():
    rda = ready(RegionDynamicAggregation(6, num_regions=3, search=False, zero_init_last=False))
    x, regions = maps(), shares()
    means = torch.zeros(2, 3, 6, dtype=torch.float64)
    for r in range(3):
        inside = regions[:, r : r + 1]
        means[:, r] = (x * inside).sum((2, 3, 4)) / inside.sum((2, 3, 4))
    weights = rda.choose(means).softmax(-1)
    assert relative_error(rda.kernel_weights(x, regions), weights) < 1e-5
    mixed = torch.zeros_like(x)
    for k, conv in enumerate(rda.convs):
        for r in range(3):
            mixed += weights[:, r, k, None, None, None, None] * regions[:, r : r + 1] * conv(x)
    wanted = F.relu(x + rda.join(mixed))
    assert relative_error(rda(x, regions), wanted) < 1e-5
    fields = (weights * torch.tensor([1, 3, 5, 7])).sum(-1)
    assert relative_error(rda.receptive_fields(weights), fields) < 1e-12


@pytest.mark.parametrize("training", [True, False])
def test_blocks_start_as_what_they_are_given(training):
    x, regions = maps().float(), shares(r=4).float()
    rda, rde = RegionDynamicAggregation(6), RegionDynamicExcitation(6, 2)
    assert torch.equal(rda.train(training)(x), x.relu())
    assert torch.equal(rda(x, regions), x.relu())
    assert torch.equal(rde.train(training)(x, regions), x)
    for per_frame in (False, True):
        block = RDAEBlock(6, reduction=2, per_frame=per_frame).train(training)
        found, report = block(x, return_regions=True)
        assert torch.equal(found, x.relu())
        assert bool((report.receptive_fields == 4).all())
        assert bool((report.weights == 0).all())


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_region_that_takes_one_kernel_spreads_half_of_it_to_each_side(kernel):
    rda = ready(RegionDynamicAggregation(2, search=False, num_regions=1, zero_init_last=False))
    weights = torch.zeros(1, 1, 4, dtype=torch.float64)
    weights[..., rda.kernels.index(kernel)] = 1
    rda.join[1].weight.data.abs_()
    quiet, impulse = torch.zeros(1, 2, 13, 2, 2).double(), torch.zeros(1, 2, 13, 2, 2).double()
    impulse[:, :, 6] = 1
    everything = torch.ones(1, 1, 13, 2, 2).double()
    conv = rda.convs[rda.kernels.index(kernel)]
    changed = [rda.join(conv(x)) for x in (quiet, impulse)]
    moved = (changed[1] - changed[0]).abs().amax((0, 1, 3, 4)) > 0
    half = (kernel - 1) // 2
    assert moved.nonzero().flatten().tolist() == list(range(6 - half, 6 + half + 1))
    found = rda.aggregate(impulse, everything, weights, None)
    assert relative_error(found, F.relu(impulse + changed[1])) < 1e-12


# ---------------------------------------------------------------------- RDE


def test_excitation_is_what_the_formula_says():
    rde = ready(RegionDynamicExcitation(6, 2, 3, zero_init_last=False))
    x, regions = maps(), shares()
    narrow = rde.squeeze(x)
    energy = torch.zeros(2, 3, 4, dtype=torch.float64)
    for t in range(4):
        step = (rde.next_frame(narrow)[:, :, t + 1] - narrow[:, :, t]).abs().mean(1)
        for r in range(3):
            inside = regions[:, r, t]
            energy[:, r, t] = (inside * step).sum((1, 2)) / inside.sum((1, 2))
    mean, deviation = energy.mean(2), energy.std(2, correction=0)
    facts = torch.stack([mean.log1p(), deviation.log1p(), mean / (mean + deviation)], dim=-1)
    hidden = F.relu(facts @ rde.judge[0].weight[..., 0].T + rde.judge[0].bias)
    weights = 2 * torch.sigmoid(hidden @ rde.judge[2].weight[0, :, 0] + rde.judge[2].bias) - 1
    assert relative_error(rde.region_weights(x, regions), weights) < 1e-5
    change = sum(regions[:, r] * weights[:, r, None, None, None] for r in range(3))
    assert relative_error(rde(x, regions), x * (1 + change[:, None])) < 1e-5


def test_what_stands_still_has_no_motion_and_equal_regions_equal_weights():
    rde = ready(RegionDynamicExcitation(6, 2, 3, zero_init_last=False))
    still = maps(t=1).expand(-1, -1, 5, -1, -1)
    assert bool((rde.motion(still) == 0).all())
    equal = torch.full((2, 3, 5, 6, 4), 1 / 3, dtype=torch.float64)
    for x in (still, maps()):
        weights = rde.region_weights(x, equal)
        assert relative_error(weights, weights[:, :1].expand(-1, 3)) < 1e-12
    assert bool((rde.motion(maps())[:, -1] == 0).all())
    assert bool((rde.motion(maps())[:, :-1] > 0).all())


@pytest.mark.parametrize("per_frame", [False, True])
def test_the_factor_lies_between_0_and_2(per_frame):
    rde = ready(RegionDynamicExcitation(6, 2, 3, per_frame=per_frame, zero_init_last=False))
    nn.init.normal_(rde.judge[2].weight, std=20)
    x, regions = maps(), shares()
    factor = rde(x, regions) / x
    assert factor.min() >= 0
    assert factor.max() <= 2
    assert factor.min() < 0.9 or factor.max() > 1.1
    assert relative_error(factor, factor[:, :1].expand_as(factor)) < 1e-12


@pytest.mark.parametrize("parts", [(True, False), (False, True)])
def test_both_parts_train_the_regions(parts):
    block = RDAEBlock(6, *parts, reduction=2, zero_init_last=False)
    block(maps().float()).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


# ---------------------------------------------------------------------- lengths, kinds of numbers


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("options", [{}, {"per_frame": True, "hard": True}, {"use_rda": False}])
@torch.no_grad()
def test_padded_clips_give_what_each_gives_alone(options):
    block = ready(RDAEBlock(6, reduction=2, zero_init_last=False, **options))
    lengths = torch.tensor([5, 1, 3, 2])
    x = maps(n=4)
    for garbage in (3.0, float("nan"), float("inf")):
        for i, length in enumerate(lengths):
            x[i, :, length:] = garbage
        found, report = block(x, lengths, return_regions=True)
        for i, length in enumerate(lengths):
            alone, own = block(x[i : i + 1, :, :length], return_regions=True)
            assert relative_error(found[i, :, :length], alone[0]) < 1e-10
            assert bool((found[i, :, length:] == 0).all())
            assert relative_error(report.regions[i, :, :length], own.regions[0]) < 1e-10
            assert bool((report.regions[i, :, length:] == 0).all())
            if own.receptive_fields is not None:
                assert relative_error(report.receptive_fields[i], own.receptive_fields[0]) < 1e-10
            weights = report.weights[i]
            assert relative_error(weights[..., : own.weights.shape[-1]], own.weights[0]) < 1e-10


def test_gradients_past_the_end_are_finite_and_zero():
    block = RDAEBlock(6, reduction=2, zero_init_last=False)
    x = maps().float()
    x[1, :, 2:] = float("nan")
    x.requires_grad_()
    block(x, torch.tensor([5, 2])).square().sum().backward()
    assert bool((x.grad[1, :, 2:] == 0).all())
    assert bool(x.grad.isfinite().all())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_over_long_sequences(dtype):
    block = RDAEBlock(6, reduction=2, zero_init_last=False).eval()
    x = torch.rand(1, 6, 120, 32, 22)
    wanted, report = block(x, return_regions=True)
    found, narrow = block.to(dtype)(x.to(dtype), return_regions=True)
    assert F.cosine_similarity(found.float().flatten(), wanted.flatten(), 0) > 0.999
    assert relative_error(narrow.receptive_fields.float(), report.receptive_fields) < 0.02


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: RegionSearcher(6, tau=0), ValueError, "tau above 0"),
        (lambda: RegionDynamicAggregation(6, (1, 2)), ValueError, "kernels of odd numbers"),
        (lambda: RegionDynamicAggregation(6, ()), ValueError, "kernels as a tuple"),
        (lambda: RegionDynamicAggregation(6, search=False)(maps()), ValueError, "search=False"),
        (lambda: RDAEBlock(6, False, False), ValueError, "use_rda, use_rde or both"),
        (lambda: RDAEBlock(6)(maps(c=5)), ValueError, r"\[N, 6, T, H, W\]"),
        (lambda: RDAEBlock(6)(maps(), torch.tensor([5, 0])), ValueError, "lengths from 1 to 5"),
        (
            lambda: RegionDynamicExcitation(6)(maps(), shares()),
            ValueError,
            r"regions \[2, 4, 5, 6, 4\] of the map, got \[2, 3",
        ),
        (
            lambda: RegionDynamicExcitation(6)(maps(), shares(r=4).long()),
            TypeError,
            r"of floats, got torch\.int64",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(build, error, message):
    with pytest.raises(error, match=message):
        build()
