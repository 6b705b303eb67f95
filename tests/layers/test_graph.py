"""Blocks over graphs of joints against loops."""

import pytest
import torch
from conftest import relative_error
from torch import nn
from torch.nn import functional as F

from gaitzoo import GraphConv, JointAttention, ResGCNBlock, hop_adjacency
from gaitzoo.layers.graph import GraphUnit, ResGCNInput
from gaitzoo.layers.joint_attention import JointNorm, MishNorm
from gaitzoo.testing.trial import reset_statistics

EDGES = [(0, 1), (1, 2), (2, 3), (1, 4)]


def distances(num_nodes, edges):
    """Hops between all pairs, by Floyd and Warshall."""
    far = [[0 if i == j else 99 for j in range(num_nodes)] for i in range(num_nodes)]
    for i, j in edges:
        far[i][j] = far[j][i] = 1
    for k in range(num_nodes):
        for i in range(num_nodes):
            for j in range(num_nodes):
                far[i][j] = min(far[i][j], far[i][k] + far[k][j])
    return far


@pytest.mark.parametrize("max_hops", [1, 2, 3])
def test_adjacency_against_loops(max_hops):
    found = hop_adjacency(5, EDGES, max_hops)
    far = distances(5, EDGES)
    for j in range(5):
        reached = sum(far[i][j] <= max_hops for i in range(5))
        for i in range(5):
            for hop in range(max_hops + 1):
                wanted = 1 / reached if far[i][j] == hop else 0.0
                assert found[hop, i, j].item() == pytest.approx(wanted)


def test_edges_that_lead_outside_are_refused():
    with pytest.raises(ValueError, match="nodes 0 to 4"):
        hop_adjacency(5, [(0, 5)])


@torch.no_grad()
def test_graph_convolution_against_loops():
    conv, graph = GraphConv(2, 3), hop_adjacency(5, EDGES)
    x = torch.randn(1, 2, 2, 5)
    found = conv(x, graph)
    weight, bias = conv.conv.weight[:, :, 0, 0], conv.conv.bias
    for t in range(2):
        for w in range(5):
            for c in range(3):
                wanted = sum(
                    (weight[3 * k + c] @ x[0, :, t, v] + bias[3 * k + c]) * graph[k, v, w]
                    for k in range(3)
                    for v in range(5)
                )
                assert found[0, c, t, w].item() == pytest.approx(wanted.item(), abs=1e-5)
    with pytest.raises(ValueError, match="5 joints"):
        conv(x, hop_adjacency(4, EDGES[:3]))
    with pytest.raises(ValueError, match="map"):
        conv(x[0], graph)


@torch.no_grad()
def test_attention_against_loops():
    attention = JointAttention(3, 8, num_heads=2)
    x = torch.randn(1, 3, 2, 5)
    found = attention(x)
    qkv = attention.qkv(x)[0]  # 2 + 2 + 8 channels
    for t in range(2):
        heads = []
        for head in range(2):
            query, key = qkv[head, t], qkv[2 + head, t]  # one number per head
            value = qkv[4 + 4 * head : 8 + 4 * head, t]
            shares = torch.softmax(query[:, None] * key[None, :], dim=1)
            heads.append(torch.stack([value @ shares[v] for v in range(5)], dim=1))
        joined = torch.cat(heads)[None, :, None]
        assert relative_error(found[:, :, t : t + 1], attention.out(joined)) < 1e-5


@torch.no_grad()
def test_attention_has_no_order_of_joints():
    attention, x = JointAttention(4, 16, num_heads=2), torch.randn(2, 4, 3, 6)
    order = torch.randperm(6)
    assert relative_error(attention(x[..., order]), attention(x)[..., order]) < 1e-5
    with pytest.raises(ValueError, match="multiple of 32"):
        JointAttention(10, 48)


@torch.no_grad()
@pytest.mark.parametrize("order", ["joint", "channel"])
def test_orders_of_joint_norms(order):
    norm = JointNorm(3, 5, order).eval()
    reset_statistics(norm)
    x = torch.randn(2, 3, 4, 5)
    found = norm(x)
    mean, variance = norm.norm.running_mean, norm.norm.running_var
    for c in range(3):
        for v in range(5):
            i = v * 3 + c if order == "joint" else c * 5 + v
            wanted = (x[:, c, :, v] - mean[i]) / (variance[i] + 1e-5).sqrt()
            assert relative_error(found[:, c, :, v], wanted) < 1e-5


@torch.no_grad()
def test_mish_comes_before_the_norm():
    norm = MishNorm(3).eval()
    reset_statistics(norm)
    x = torch.randn(2, 3, 4, 5)
    mish = x * torch.tanh(F.softplus(x))
    wanted = (mish - norm.norm.running_mean[:, None, None]) / (
        norm.norm.running_var[:, None, None] + 1e-5
    ).sqrt()
    assert relative_error(norm(x), wanted) < 1e-5
    assert relative_error(norm.fused(torch.float32)(x), wanted) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [True, False])
def test_fused_graph_units(norm_first):
    unit = GraphUnit(3, 4, 5, norm_first=norm_first).eval()
    reset_statistics(unit)
    for norm in unit.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    graph, x = hop_adjacency(5, EDGES), torch.randn(2, 3, 4, 5)
    fused = unit.fused(torch.float32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert relative_error(fused(x, graph), unit(x, graph)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [6, 8])
def test_blocks_keep_the_length_law(stride, channels):
    block = ResGCNBlock(6, channels, 5, reduction=2, stride=stride).eval()
    reset_statistics(block)
    graph = hop_adjacency(5, EDGES)
    x, lengths = torch.randn(3, 6, 9, 5), torch.tensor([9, 1, 4])
    garbage = x.clone()
    garbage[1, :, 1:], garbage[2, :, 4:] = float("nan"), 1e9
    found, left = block(garbage, graph, lengths), block.out_lengths(lengths)
    for i, (before, after) in enumerate(zip(lengths.tolist(), left.tolist(), strict=True)):
        alone = block(x[i : i + 1, :, :before], graph)
        assert alone.shape[2] == after
        assert relative_error(found[i, :, :after], alone[0]) < 1e-5


def test_the_last_matrix_of_the_graph_is_never_read():
    graph = hop_adjacency(5, EDGES)
    for block in (ResGCNInput(3, 4, 5), ResGCNBlock(3, 4, 5, reduction=2)):
        block(torch.randn(2, 3, 6, 5), graph).square().sum().backward()
        assert (block.graph.edge.grad[:3] != 0).any()
        assert (block.graph.edge.grad[3] == 0).all()
    with pytest.raises(ValueError, match="reduction of at most 4"):
        ResGCNBlock(3, 4, 5, reduction=8)
    with pytest.raises(ValueError, match=r"adjacency \[4, 5, 5\]"):
        ResGCNBlock(3, 4, 5, reduction=2)(torch.randn(2, 3, 6, 5), graph[:3])
