"""Blocks of the plain networks against loops."""

import pytest
import torch
import torch.nn.functional as F

from gaitzoo.layers.global_local import GLConv
from gaitzoo.layers.haar import HaarDownsample2d, haar_dwt2d, haar_idwt2d
from gaitzoo.layers.plain import FocalConv2d, SetPool, TemporalSwitch
from gaitzoo.layers.window_attention import WindowTransformerBlock, window_masks
from gaitzoo.models.gaitpart import TemporalPartAggregator


@torch.no_grad()
def test_focal_convolution_is_a_loop_over_strips():
    conv = FocalConv2d(3, 5, 3, halving=2).double()
    x = torch.rand(2, 3, 16, 7, dtype=torch.float64)
    strips = [F.conv2d(s, conv.conv.weight, padding=1) for s in x.split(4, dim=2)]
    torch.testing.assert_close(conv(x), torch.cat(strips, dim=2))


@pytest.mark.parametrize("mode", ["add", "cat"])
@torch.no_grad()
def test_global_local_convolution_is_a_loop_over_strips(mode):
    block = GLConv(3, 4, halving=1, mode=mode).double()
    x = torch.rand(2, 3, 5, 8, 6, dtype=torch.float64)
    whole = F.conv3d(x, block.whole.weight, padding=1)
    strips = [F.conv3d(s, block.strips.weight, padding=1) for s in x.split(4, dim=3)]
    local = torch.cat(strips, dim=3)
    wanted = (
        F.leaky_relu(whole) + F.leaky_relu(local)
        if mode == "add"
        else F.leaky_relu(torch.cat([whole, local], dim=3))
    )
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("mode", ["max", "mean", "median"])
def test_set_pool_is_a_loop_over_sequences(mode):
    pool = SetPool(mode)
    x = torch.randn(3, 2, 6, 4)
    lengths = torch.tensor([6, 1, 4])
    for i, length in enumerate(lengths):
        frames = x[i, :, :length]
        wanted = {
            "max": frames.amax(1),
            "mean": frames.mean(1),
            "median": frames.median(1).values,
        }[mode]
        torch.testing.assert_close(pool(x, lengths)[i], wanted)
        torch.testing.assert_close(pool(frames[None])[0], wanted)


def one_part(x, aggregator, part, length):
    """The published steps for one part ``[C, T]`` of one sequence, frame by frame."""
    c, hidden = x.shape[0], aggregator.long1.weight.shape[0] // aggregator.num_parts
    wide, narrow = slice(part * c, (part + 1) * c), slice(part * hidden, (part + 1) * hidden)
    x = x[None, :, :length]

    def conv(layer, rows, y):
        return F.conv1d(y, layer.weight[rows], padding=layer.kernel_size[0] // 2)

    gates = [
        conv(second, wide, F.leaky_relu(conv(first, narrow, x))).sigmoid()[0]
        for first, second in (
            (aggregator.short1, aggregator.short2),
            (aggregator.long1, aggregator.long2),
        )
    ]
    found = []
    for t in range(length):
        total = 0
        for gate, reach in zip(gates, (1, 2), strict=True):
            near = x[0, :, max(0, t - reach) : t + reach + 1]
            total = total + gate[:, t] * (near.sum(1) / (2 * reach + 1) + near.amax(1))
        found.append(total)
    return torch.stack(found).amax(0)


@torch.no_grad()
def test_aggregator_of_parts_is_a_loop_over_parts():
    aggregator = TemporalPartAggregator(3, 8).double()
    parts = torch.randn(2, 8, 7, 3, dtype=torch.float64)
    lengths = torch.tensor([7, 4])
    garbage = parts.clone()
    garbage[1, :, 4:] = float("nan")
    found = aggregator(garbage, lengths)
    for n in range(2):
        for part in range(3):
            wanted = one_part(parts[n, :, :, part], aggregator, part, int(lengths[n]))
            torch.testing.assert_close(found[n, part], wanted)


@torch.no_grad()
def test_temporal_switch_is_a_sum_of_convolutions():
    switch = TemporalSwitch(8, 4, hops=(1, 3), divisor=4).double()
    x = torch.randn(1, 8, 6, 5, 5, dtype=torch.float64)
    weight = switch.conv.block.weight
    total = 0
    for hop in (0, 1, 3):
        moved = x.clone()
        if hop:
            moved[:, :2] = 0
            moved[:, -2:] = 0
            moved[:, :2, :-hop] = x[:, :2, hop:]
            moved[:, -2:, hop:] = x[:, -2:, :-hop]
        total = total + torch.stack(
            [F.conv2d(moved[:, :, t], weight, padding=1) for t in range(6)], dim=2
        )
    torch.testing.assert_close(switch(x), total)


def test_haar_bands_keep_energy_and_come_back():
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    bands = haar_dwt2d(x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(haar_idwt2d(bands), x)
    a, b, c, d = x[0, 0, 0, 0], x[0, 0, 0, 1], x[0, 0, 1, 0], x[0, 0, 1, 1]
    cell = torch.stack([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]) / 2
    torch.testing.assert_close(bands[0, :, 0, 0, 0], cell)
    assert haar_dwt2d(torch.ones(1, 1, 5, 3)).shape == (1, 4, 1, 3, 2)
    assert HaarDownsample2d(2, 3).conv.weight.shape == (3, 8, 1, 1)
    with pytest.raises(ValueError, match=r"bands \[B, 4"):
        haar_idwt2d(bands[:, :3])


def naive_block(block, x, moved):
    """One sequence ``[D, H, W, C]``, window by window and token by token, as published."""
    depth, height, width, _ = x.shape
    window = [
        min(size, full) for size, full in zip((depth, height, width), block.window, strict=True)
    ]
    shift = [
        full // 2 if moved and size > full else 0
        for size, full in zip((depth, height, width), block.window, strict=True)
    ]
    y = block.norm1(x)
    padded = -(-depth // window[0]) * window[0]
    y = F.pad(y, (0, 0, 0, 0, 0, 0, 0, padded - depth))
    sizes = (padded, height, width)
    out = torch.zeros_like(y)
    attention = block.attention
    full = block.window
    for t in range(padded):
        for h in range(height):
            for w in range(width):
                at = [(p - s) % n for p, s, n in zip((t, h, w), shift, sizes, strict=True)]
                start = [a // k * k for a, k in zip(at, window, strict=True)]

                def region(place):
                    return tuple(
                        0 if s == 0 else (p >= n - k) + (p >= n - s)
                        for p, s, n, k in zip(place, shift, sizes, window, strict=True)
                    )

                places, tokens = [], []
                for a in range(window[0]):
                    for b in range(window[1]):
                        for c in range(window[2]):
                            place = (start[0] + a, start[1] + b, start[2] + c)
                            source = [
                                (p + s) % n for p, s, n in zip(place, shift, sizes, strict=True)
                            ]
                            places.append(place)
                            tokens.append(y[tuple(source)])
                tokens = torch.stack(tokens)
                q, k, v = F.linear(
                    torch.cat([y[t, h, w][None], tokens]),
                    attention.qkv.weight,
                    attention.qkv.bias,
                ).chunk(3, dim=-1)
                heads = attention.num_heads
                q = q[0].unflatten(0, (heads, -1))
                k, v = (z[1:].unflatten(1, (heads, -1)) for z in (k, v))
                scores = torch.einsum("hc,thc->ht", q, k) / q.shape[1] ** 0.5
                for i, place in enumerate(places):
                    d = [a - b + f - 1 for a, b, f in zip(at, place, full, strict=True)]
                    index = (d[0] * (2 * full[1] - 1) + d[1]) * (2 * full[2] - 1) + d[2]
                    scores[:, i] += attention.bias_table[index]
                    if region(place) != region(at):
                        scores[:, i] -= 100
                mixed = torch.einsum("ht,thc->hc", scores.softmax(1), v).flatten()
                out[t, h, w] = attention.proj(mixed)
    y = x + out[:depth]
    return y + block.mlp(block.norm2(y))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
@torch.no_grad()
def test_window_attention_is_a_loop_over_tokens(frames, moved):
    window = (3, 2, 3)
    block = WindowTransformerBlock(4, 2, window, moved=moved).double().eval()
    torch.nn.init.normal_(block.attention.bias_table)
    x = torch.randn(2, 8, 4, 6, 4, dtype=torch.float64)
    x[0, frames:] = float("nan")
    lengths = torch.tensor([frames, 8])
    found = block(x, window_masks(lengths, 8, (4, 6), window, torch.float64))
    for i, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[i, :length], naive_block(block, x[i, :length], moved))
