"""The graph of parts and vertices against loops; which way gradients flow; what it spans."""

import math

import pytest
import torch

from gaitzoo import ExpandingBNNeck, PartKnowledgeGraph
from gaitzoo.layers.pooling import GeMHPP


def naive(graph, parts):
    """One node and one edge after the other."""
    x = list(parts.flatten(0, 1))
    nodes = [*x, *graph.vertices]
    m, n = len(x), len(x) + len(graph.vertices)
    matrix = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            if (i < m) != (j < m):
                continue
            edge = torch.sigmoid(graph.edge.weight[0] @ (nodes[i] - nodes[j]) + graph.edge.bias[0])
            matrix[i][j] = 1.0 if i == j else edge.item()
    for k in range(m, n):
        scores = [
            math.exp(-max((x[i] - nodes[k]).square().sum().item(), 1e-6) / (2 * graph.sigma))
            for i in range(m)
        ]
        for i in range(m):
            matrix[i][k] = matrix[k][i] = scores[i] / sum(scores)
    for i in range(n):
        matrix[i][i] += 1
    rows = [[value / sum(row) for value in row] for row in matrix]
    out = [
        torch.tanh(sum(rows[i][j] * nodes[j] for j in range(n)) @ graph.weight + graph.bias)
        for i in range(m)
    ]
    return torch.stack(out).unflatten(0, parts.shape[:2])


@pytest.fixture
def graph():
    torch.manual_seed(0)
    made = PartKnowledgeGraph(5, num_vertices=4).double().eval()
    torch.nn.init.normal_(made.edge.bias)
    torch.nn.init.normal_(made.bias)
    return made


@torch.no_grad()
def test_graph_equals_loops(graph):
    parts = torch.randn(2, 3, 5, dtype=torch.float64)
    for scope, wanted in (
        ("batch", naive(graph, parts)),
        ("sample", torch.cat([naive(graph, one[None]) for one in parts])),
    ):
        graph.scope = scope
        found = graph(parts)
        torch.testing.assert_close(found, wanted)
        assert found.abs().max() < 1
    rows = graph.graph(parts)
    torch.testing.assert_close(rows.sum(2), torch.ones(2, 7, dtype=torch.float64))
    columns = graph._cross(parts).sum(1)
    torch.testing.assert_close(columns, torch.ones_like(columns))


@torch.no_grad()
def test_what_the_graph_spans(graph):
    parts = torch.randn(4, 3, 5, dtype=torch.float64)
    alone = graph(parts[:1])
    torch.testing.assert_close(graph(parts)[:1], alone)
    graph.scope = "batch"
    assert (graph(parts)[:1] - alone).abs().max() > 1e-3
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(graph(parts[order]), graph(parts)[order])
    graph.scope, graph.dropout.p = None, 0.0
    graph.train()
    assert (graph(parts)[:1] - alone).abs().max() > 1e-3


def test_the_graph_learns_and_what_gave_the_parts_does_not(graph):
    parts = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    graph.train()(parts).sum().backward()
    assert parts.grad is None
    for name, parameter in graph.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    full = PartKnowledgeGraph()
    assert sum(p.numel() for p in full.parameters()) == 82_433
    assert 0.6 < full.weight.std() < 0.85
    for wrong in ({"scope": "clip"}, {"sigma": 0}, {"dropout": 1.0}, {"num_vertices": 0}):
        with pytest.raises(ValueError, match="expected"):
            PartKnowledgeGraph(5, **wrong)
    with pytest.raises(ValueError, match=r"parts \[N, P, 5\]"):
        graph(torch.rand(2, 5, 3))


@torch.no_grad()
def test_a_neck_that_grows():
    neck = ExpandingBNNeck(3, 4, class_counts=(5,)).eval()
    x = torch.randn(2, 3, 4)
    (first,) = neck(x)
    neck.add_task(2)
    neck.add_task(6)
    both = neck(x)
    assert [logits.shape for logits in both] == [(2, 3, 5), (2, 3, 2), (2, 3, 6)]
    assert torch.equal(both[0], first)
    assert torch.equal(neck(x, [2])[0], both[2])
    unit = torch.nn.functional.normalize(
        neck.norm.bn(x.transpose(1, 2).flatten(1)).view(2, 4, 3), dim=1
    )
    matrix = torch.nn.functional.normalize(neck.classifier.later[0], dim=1)
    for p in range(3):
        torch.testing.assert_close(both[1][:, p], unit[:, :, p] @ matrix[p])
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match="among the 3"):
            neck(x, wrong)
    with pytest.raises(ValueError, match="num_classes"):
        neck.add_task(0)


@torch.no_grad()
def test_fixed_exponents_between_mean_and_maximum():
    x = torch.rand(2, 3, 8, 5) + 0.1
    bands = x.unflatten(2, (4, 2)).flatten(3)
    mean = GeMHPP((4,), p=1.0, learnable=False)
    assert not list(mean.parameters())
    assert not mean.state_dict()
    torch.testing.assert_close(mean(x), bands.mean(3).transpose(1, 2))
    largest = GeMHPP((4,), p=300.0, learnable=False)(x)
    torch.testing.assert_close(largest, bands.amax(3).transpose(1, 2), rtol=0.02, atol=0)
