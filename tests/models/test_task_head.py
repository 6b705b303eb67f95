"""Heads for tasks beside identity: numbers, losses, what is trained."""

import math

import pytest
import torch
from builders import make
from torch import nn

from gaitzoo import LinearProbe, TaskHead

TASKS = {"scoliosis": 3, "bag": 2, "age": 1}


@torch.no_grad()
def test_heads_equal_loops():
    head = TaskHead(2, 3, TASKS).eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.weight)
            nn.init.uniform_(module.running_var, 0.5, 2)
    embeddings = torch.randn(4, 2, 3)
    outputs = head(embeddings)
    assert list(outputs) == list(TASKS)
    for n in range(4):
        vector = torch.cat([part / part.norm() for part in embeddings[n]])
        for name, classes in TASKS.items():
            inner = head.heads[f"task_{name}"]
            bn = inner.bn
            scale = bn.weight / (bn.running_var + bn.eps).sqrt()
            normal = (vector - bn.running_mean) * scale + bn.bias
            if classes == 1:
                wanted = inner.linear.weight[0] @ normal + inner.linear.bias[0]
                torch.testing.assert_close(outputs[name][n], wanted)
                continue
            for k in range(classes):
                row = inner.classifier.weight[0, :, k]
                wanted = normal @ row / (normal.norm() * row.norm())
                torch.testing.assert_close(outputs[name][n, k], wanted)
    predicted = head.predict(outputs)
    assert torch.equal(predicted["scoliosis"], outputs["scoliosis"].argmax(1))
    assert torch.equal(predicted["age"], outputs["age"])


def test_loss_is_the_sum_over_tasks():
    head = TaskHead(2, 3, {"bag": 2, "age": 1})
    outputs = {"bag": torch.tensor([[1.0, 0.0]]), "age": torch.tensor([2.0])}
    loss = head.loss(outputs, {"bag": torch.tensor([0]), "age": torch.tensor([5.0])})
    log_sum = math.log(math.exp(16) + 1)
    wanted = 9 + 0.9 * (log_sum - 16) + 0.1 * (log_sum - 8)
    assert math.isclose(loss.item(), wanted, rel_tol=1e-5)
    with pytest.raises(ValueError, match="expected targets of bag, age, got bag"):
        head.loss(outputs, {"bag": torch.tensor([0])})
    with pytest.raises(ValueError, match=r"finite numbers \[1\] for age"):
        head.loss(outputs, {"bag": torch.tensor([0]), "age": torch.tensor([math.nan])})
    with pytest.raises(ValueError, match=r"labels in 0\.\.1"):
        head.loss(outputs, {"bag": torch.tensor([2]), "age": torch.tensor([5.0])})


def test_a_probe_learns_and_leaves_the_model_as_it_is():
    model = make("foundationgait_tiny", embedding="projector", num_classes=0)
    probe = LinearProbe(model, {"bag": 2, "age": 1}).train()
    assert not model.training
    assert probe.head.training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    clips = torch.rand(8, 3, 16, 12)
    targets = {"bag": torch.arange(8) % 2, "age": torch.linspace(-1, 1, 8)}
    trained = [p for p in probe.parameters() if p.requires_grad]
    assert len(trained) == len(list(probe.head.parameters()))
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(60):
        loss = probe.head.loss(probe(clips), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["gaitset_tiny", "gaitgraph2_tiny", "gaitbase_tiny"])
@torch.no_grad()
def test_any_model_has_tasks(name):
    model = make(name)
    probe = LinearProbe(model, {"scoliosis": 3}).eval()
    embeddings = torch.rand(2, model.num_parts, model.num_features)
    assert probe.head(embeddings)["scoliosis"].shape == (2, 3)


@torch.no_grad()
def test_probes_keep_the_length_law():
    probe = LinearProbe(make("foundationgait_tiny", embedding="projector"), TASKS).eval()
    clips = torch.rand(2, 6, 16, 12)
    found = probe(clips, torch.tensor([6, 2]))
    alone = probe(clips[1:, :2])
    for name in TASKS:
        torch.testing.assert_close(found[name][1:], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        (["scoliosis"], TypeError, "mapping"),
        ({}, ValueError, "one task"),
        ({"a.b": 2}, ValueError, "without dots"),
        ({"bag": 0}, ValueError, "bag as a positive whole number"),
        ({"bag": 2.0}, ValueError, "bag as a positive whole number"),
    ],
)
def test_tasks_that_are_none_are_refused(tasks, error, message):
    with pytest.raises(error, match=message):
        TaskHead(2, 3, tasks)


def test_numbers_that_are_no_tensor_are_refused():
    head = TaskHead(2, 3, {"age": 1})
    with pytest.raises(TypeError, match="numbers for age as a tensor"):
        head.loss(head(torch.rand(2, 2, 3)), {"age": [31.0, 25.0]})


def test_embeddings_that_do_not_fit_are_refused():
    head = TaskHead(2, 3, {"bag": 2})
    with pytest.raises(ValueError, match=r"embeddings \[N, 2, 3\], got \[2, 3\]"):
        head(torch.rand(2, 3))
    with pytest.raises(ValueError, match="two sequences or more"):
        head(torch.rand(1, 2, 3))
    with pytest.raises(TypeError, match="gaitzoo model"):
        LinearProbe(nn.Linear(2, 3), {"bag": 2})
