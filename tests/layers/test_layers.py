"""Shared blocks against loops and plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from gaitzoo import (
    GeMHPP,
    HorizontalPyramidPooling,
    LocalTemporalAggregation,
    PartBNNeck,
    PartLinear,
    SharedBNNeck,
    TemporalMax,
)
from gaitzoo.layers.checks import check_batch


def bands_of(x, part_bins):
    """Every band of rows, one after the other."""
    for bins in part_bins:
        rows = x.shape[2] // bins
        for b in range(bins):
            yield x[:, :, b * rows : (b + 1) * rows]


def test_gem_equals_the_plain_formula():
    x = torch.rand(3, 5, 16, 11, dtype=torch.float64) * 4 - 1
    pool = GeMHPP((4, 1))
    wanted = torch.stack(
        [band.clamp(min=1e-6).pow(6.5).mean((2, 3)).pow(1 / 6.5) for band in bands_of(x, (4, 1))], 1
    )
    assert relative_error(pool(x), wanted) < 1e-12
    assert relative_error(pool(x.float()).double(), wanted) < 1e-5


def test_gem_gradients_equal_the_plain_formula():
    x = torch.rand(2, 3, 8, 4, dtype=torch.float64, requires_grad=True)
    pool = GeMHPP((2,)).double()
    pool(x).square().sum().backward()
    p = torch.full((1,), 6.5, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    plain = [b.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p) for b in bands_of(y, (2,))]
    torch.stack(plain, 1).square().sum().backward()
    assert x.grad is not None
    assert pool.p.grad is not None
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(pool.p.grad, p.grad)


@pytest.mark.parametrize("flush", [False, True])
def test_gem_of_empty_bands_is_finite(flush):
    if flush and not torch.set_flush_denormal(True):
        pytest.fail("this processor cannot flush subnormals, which all supported ones can")
    try:
        x = torch.zeros(1, 2, 8, 4)
        x[:, :, 4:] = 0.5
        x.requires_grad_()
        pool = GeMHPP((4,))
        parts = pool(x)
        parts.sum().backward()
    finally:
        torch.set_flush_denormal(False)
    assert x.grad is not None
    assert pool.p.grad is not None
    torch.testing.assert_close(parts[0, 0], torch.full((2,), 1e-6))
    torch.testing.assert_close(parts[0, 3], torch.full((2,), 0.5))
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(pool.p.grad).all()


def test_gem_with_exponent_one_is_the_mean_and_keeps_constants():
    x = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(GeMHPP((1,), p=1.0)(x)[:, 0], x.mean((2, 3)))
    torch.testing.assert_close(
        GeMHPP((2,))(torch.full((1, 1, 4, 5), 0.3)), torch.full((1, 2, 1), 0.3)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gem_pools_narrow_types_in_float32(dtype):
    x = torch.rand(2, 3, 8, 4).to(dtype)
    parts = GeMHPP((2,)).to(dtype)(x)
    assert parts.dtype == dtype
    # The exponent 6.5 is exact in both types, so only the result is rounded.
    assert torch.equal(parts, GeMHPP((2,))(x.float()).to(dtype))


def test_pyramid_pooling_is_mean_plus_maximum():
    x = torch.randn(2, 3, 8, 5)
    wanted = [b.mean((2, 3)) + b.amax((2, 3)) for b in bands_of(x, (4, 2))]
    pool = HorizontalPyramidPooling((4, 2))
    assert pool.num_parts == 6
    torch.testing.assert_close(pool(x), torch.stack(wanted, 1))


@pytest.mark.parametrize("pool", [GeMHPP, HorizontalPyramidPooling])
def test_pooling_refuses(pool):
    with pytest.raises(ValueError, match=r"got 10 rows .* which 4 does not"):
        pool((5, 4))(torch.rand(1, 2, 10, 4))
    for x in (torch.rand(2, 8, 4, 16, 11), torch.rand(2, 8, 16), torch.ones(1, 1, 4, 4).byte()):
        with pytest.raises(ValueError, match=r"expected a map \[N, C, H, W\] of floats"):
            pool((4,))(x)
    for part_bins in ((), (0,), (2.0,), (True,), 4):
        with pytest.raises(ValueError, match="positive whole numbers"):
            pool(part_bins)


def test_every_part_has_its_own_matrix():
    fc = PartLinear(4, 3, 2)
    x = torch.randn(5, 4, 3)
    wanted = torch.stack([x[:, p] @ fc.weight[p] for p in range(4)], 1)
    torch.testing.assert_close(fc(x), wanted)
    bound = (6 / ((3 + 4) * 2)) ** 0.5
    assert fc.weight.abs().max() <= bound
    with pytest.raises(ValueError, match=r"expected parts \[N, 4, 3\], got \[5, 3, 4\]"):
        fc(x.transpose(1, 2))


def test_normalized_matrices_give_cosines():
    fc = PartLinear(2, 3, 4, normalized=True)
    x = F.normalize(torch.randn(5, 2, 3), dim=2)
    for p in range(2):
        for k in range(4):
            wanted = F.cosine_similarity(x[:, p], fc.weight[p, :, k], dim=1)
            torch.testing.assert_close(fc(x)[:, p, k], wanted)


@pytest.mark.parametrize("order", ["part", "channel"])
def test_part_neck_normalises_every_part_and_channel_alone(order):
    neck = PartBNNeck(3, 4, num_classes=2, order=order)
    torch.nn.init.normal_(neck.bn.weight)
    torch.nn.init.normal_(neck.bn.bias)
    x = torch.randn(6, 3, 4)
    features, logits = neck(x)
    for p in range(3):
        wanted = torch.empty(6, 4)
        for c in range(4):
            i = p * 4 + c if order == "part" else c * 3 + p
            column = x[:, p, c]
            scaled = (column - column.mean()) / (column.var(unbiased=False) + 1e-5).sqrt()
            wanted[:, c] = scaled * neck.bn.weight[i] + neck.bn.bias[i]
        torch.testing.assert_close(features[:, p], F.normalize(wanted, dim=1))
    assert logits is not None
    assert logits.abs().max() <= 1 + 1e-6


def test_part_neck_orders_differ_in_logits():
    part, channel = (PartBNNeck(3, 4, 2, order).eval() for order in ("part", "channel"))
    torch.nn.init.uniform_(part.bn.weight)
    channel.load_state_dict(part.state_dict())
    x = torch.randn(2, 3, 4)
    assert (part(x)[1] - channel(x)[1]).abs().max() > 1e-3
    with pytest.raises(
        ValueError, match='"part" or "channel", got "row"'.replace('"row"', "'row'")
    ):
        PartBNNeck(3, 4, 2, "row")


def test_shared_neck_has_one_statistic_for_all_parts():
    neck = SharedBNNeck(3, 4, num_classes=2)
    x = torch.randn(6, 3, 4)
    features, logits = neck(x)
    for c in range(4):
        column = x[:, :, c]
        wanted = (column - column.mean()) / (column.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(features[:, :, c], wanted)
    assert logits is not None
    assert neck.classifier is not None
    torch.testing.assert_close(logits[:, 1], features[:, 1] @ neck.classifier.weight[1])
    assert neck.bn.weight.shape == (4,)


@pytest.mark.parametrize("neck_class", [PartBNNeck, SharedBNNeck])
def test_necks_without_classes_and_with_wrong_input(neck_class):
    neck = neck_class(3, 4, num_classes=0)
    assert neck(torch.randn(2, 3, 4))[1] is None
    with pytest.raises(ValueError, match=r"expected parts \[N, 3, 4\], got \[2, 4, 3\]"):
        neck(torch.randn(2, 4, 3))
    with pytest.raises(ValueError, match="num_classes >= 0"):
        neck_class(3, 4, num_classes=-1)


def test_local_temporal_aggregation_joins_three_frames():
    aggregate = LocalTemporalAggregation(2, 5)
    x = torch.randn(2, 2, 8, 3, 4)
    y = aggregate(x)
    for t in range(2):
        wanted = torch.einsum(
            "ncthw,dct->ndhw", x[:, :, 3 * t : 3 * t + 3], aggregate.conv.weight[..., 0, 0]
        )
        torch.testing.assert_close(y[:, :, t], F.leaky_relu(wanted, 0.01))
    assert y.shape[2] == 2
    lengths = torch.tensor([8, 5])
    assert aggregate.out_lengths(lengths).tolist() == [2, 1]
    assert (aggregate(x, lengths)[1, :, 1:] == 0).all()
    with pytest.raises(ValueError, match="at least 3 frames, got 2"):
        aggregate(x[:, :, :2])


def test_temporal_max_is_per_sequence():
    x = torch.randn(2, 3, 4, 5, 6)
    pooled = TemporalMax()(x, torch.tensor([4, 2]))
    assert torch.equal(pooled[0], x[0].amax(1))
    assert torch.equal(pooled[1], x[1, :, :2].amax(1))


def test_refused_constructor_arguments():
    for arguments in ({"p": float("nan")}, {"p": 0.0}, {"eps": 0.0}):
        with pytest.raises(ValueError, match="expected p and eps above 0"):
            GeMHPP((1,), **arguments)
    with pytest.raises(ValueError, match="positive whole number, got 0"):
        PartLinear(0, 3, 2)
    with pytest.raises(ValueError, match="positive whole number, got 0"):
        LocalTemporalAggregation(1, 1, kernel_size=0)


def test_temporal_blocks_refuse_what_does_not_fit():
    x = torch.rand(2, 3, 9, 4, 4)
    aggregate = LocalTemporalAggregation(3, 3)
    with pytest.raises(ValueError, match=r"lengths from 3 to 9 .* got 2 to 9"):
        aggregate(x, torch.tensor([9, 2]))
    with pytest.raises(
        ValueError, match=r"expected a map \[N, 3, T, H, W\], got \[2, 2, 9, 4, 4\]"
    ):
        aggregate(x[:, :2])
    for block in (aggregate, TemporalMax()):
        with pytest.raises(ValueError, match="got 9 to 10"):
            block(x, torch.tensor([9, 10]))
        with pytest.raises(TypeError, match="int64 tensor"):
            block(x, [9, 5])


def test_one_sequence_in_train_mode_is_refused():
    neck, x = PartBNNeck(3, 4, num_classes=2), torch.randn(1, 3, 4)
    with pytest.raises(ValueError, match=r"two sequences or more in train mode.*model\.eval\(\)"):
        neck(x)
    neck.bn.eval()  # frozen statistics need no batch
    assert neck(x)[0].shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("shape", "fix"),
    [((2, 9, 1, 16, 12), r"transpose\(1, 2\)"), ((2, 3, 9, 16, 12), "in_channels=3 or drop")],
)
def test_wrong_channels_name_the_fix(shape, fix):
    with pytest.raises(ValueError, match=fix):
        check_batch(torch.zeros(shape))
