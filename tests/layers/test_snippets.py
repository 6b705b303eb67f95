"""Pooling over snippets, and the blocks that do it, against loops."""

import pytest
import torch
from conftest import relative_error

from gaitzoo import ResidualSnippetBlock, SnippetBackbone, SnippetBlock, snippet_pool
from gaitzoo.testing.trial import reset_statistics

IDS = torch.tensor([[2, 0, 0, 2, 1, 0, -1], [0, 0, 1, 1, 1, -1, -1]])


def pooled_by_hand(x, ids, count):
    pooled = torch.zeros(*x.shape[:2], count, *x.shape[3:])
    valid = torch.zeros(x.shape[0], count, dtype=torch.bool)
    for n in range(x.shape[0]):
        for m in range(count):
            frames = [x[n, :, t] for t in range(x.shape[2]) if ids[n, t] == m]
            if frames:
                pooled[n, :, m] = torch.stack(frames).amax(0)
                valid[n, m] = True
    return pooled, valid


def runs(length, num_frames, lengths):
    frame = torch.arange(num_frames)
    return torch.where(frame < lengths[:, None], frame // length, -1)


def test_pooling_over_any_snippets_is_the_loop():
    x = torch.randn(2, 3, 7, 4, 2)
    x[IDS[:, None].expand(-1, 3, -1) == -1] = float("nan")
    pooled, valid = snippet_pool(x, IDS, num_snippets=4)
    wanted, wanted_valid = pooled_by_hand(x, IDS, 4)
    assert torch.equal(pooled, wanted)
    assert torch.equal(valid, wanted_valid)
    assert snippet_pool(x, IDS)[0].shape[2] == 3


@pytest.mark.parametrize("frames", [1, 3, 4, 12, 20])
def test_runs_and_numbers_are_pooled_alike_with_their_gradients(frames):
    lengths = torch.tensor([12, 5, 1])
    x = torch.randn(3, 2, 12, 4, 3)
    weight = torch.rand(3, 2, -(-12 // frames), 4, 3)
    found = []
    for snippets, counts in ((frames, lengths), (runs(frames, 12, lengths), None)):
        one = x.clone().requires_grad_()
        pooled, valid = snippet_pool(one, snippets, counts, num_snippets=weight.shape[2])
        (pooled * weight).sum().backward()
        found.append((pooled, valid, one.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert not found[0][2][1, :, 5:].any()


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_residual_block_is_the_loop(stride):
    block = ResidualSnippetBlock(3, 5 if stride == 2 else 3, stride).eval()
    reset_statistics(block)
    x = torch.randn(2, 3, 7, 8, 6)
    found = block(x, IDS)
    for n in range(2):
        y = [torch.relu(block.bn1(block.conv1(x[n, None, :, t]))) for t in range(7)]
        for t in range(7):
            if IDS[n, t] < 0:
                continue
            of_snippet = torch.stack([y[u] for u in range(7) if IDS[n, u] == IDS[n, t]]).amax(0)
            z = torch.relu(y[t] + block.snippet.bn(block.snippet.conv(of_snippet)))
            shortcut = torch.nn.Identity() if block.shortcut is None else block.shortcut
            z = torch.relu(block.bn2(block.conv2(z)) + shortcut(x[n, None, :, t]))
            assert relative_error(found[n, :, t], z[0]) < 1e-5


@torch.no_grad()
def test_without_smoothing_maps_stay_as_they_are():
    block = SnippetBlock(4).eval()
    block.bn.weight.zero_()
    x = torch.rand(2, 4, 6, 5, 3)
    assert torch.equal(block(x, 4), x)
    grouped = SnippetBlock(4, norm=lambda channels: torch.nn.GroupNorm(2, channels)).eval()
    wanted = grouped(x, 4)
    assert torch.equal(grouped.fused(torch.float32)(x, 4), wanted)


def test_padding_influences_neither_outputs_nor_gradients():
    block = SnippetBlock(2).eval()
    x = torch.randn(2, 2, 7, 4, 3)
    lengths = torch.tensor([7, 4])
    found = []
    for garbage in (0.0, 9.0):
        one = x.clone()
        one[1, :, 4:] = garbage
        one.requires_grad_()
        block.zero_grad()
        kept = block(one, 3, lengths)[1, :, :4]
        kept.square().sum().backward()
        found.append((kept, one.grad, block.conv.weight.grad.clone()))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not found[0][1][1, :, 4:].any()
    alone = block(x[1:, :, :4], 3)[0]
    assert relative_error(found[0][0], alone) < 1e-6


@pytest.mark.parametrize(
    ("snippets", "count", "error", "message"),
    [
        (0, None, ValueError, "snippets as a positive whole number"),
        (2.0, None, TypeError, "whole number of frames or as an int64 tensor"),
        (torch.zeros(2, 7), None, TypeError, "got torch.float32"),
        (torch.zeros(7, dtype=torch.int64), None, ValueError, r"shape \[2, 7\], got \[7\]"),
        (IDS - 1, None, ValueError, "from 0 on .* got -2 to 1"),
        (IDS, 2, ValueError, "below 2 .* got -1 to 2"),
        (3, 2, ValueError, "expected num_snippets 3 for 7 frames"),
    ],
)
def test_wrong_snippets_are_refused(snippets, count, error, message):
    with pytest.raises(error, match=message):
        snippet_pool(torch.rand(2, 3, 7, 4, 2), snippets, num_snippets=count)


def test_stages_with_snippets_are_those_named():
    backbone = SnippetBackbone((1, 2), (2, 3), snippet_stages=(2,))
    kinds = [[type(block).__name__ for block in layer] for layer in backbone.layers]
    assert kinds == [["ResidualBlock2d"], ["ResidualSnippetBlock"] * 2]
    with pytest.raises(ValueError, match="numbers of layers, 1 to 2"):
        SnippetBackbone((1, 2), (2, 3))
