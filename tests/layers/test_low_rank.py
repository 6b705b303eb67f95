"""Low-rank adapters and distillation of embeddings."""

import math

import pytest
import torch
from torch import nn

import gaitzoo
from gaitzoo.layers.low_rank import LowRank
from gaitzoo.losses import EmbeddingDistillation

MODELS = ("dygait_tiny", "gaitset_tiny", "deepgaitv2_p3d_tiny", "gaitpart_tiny", "swingait_tiny")


def seeded_model(name):
    torch.manual_seed(0)
    return gaitzoo.create_model(name, num_classes=0).eval()


def clip_of(model):
    height, width = model.pretrained_cfg.input_size
    return torch.rand(2, 10, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_adapters_change_nothing_until_trained_and_merge_exactly(name):
    model = seeded_model(name)
    clip, keys = clip_of(model), set(model.state_dict())
    with torch.no_grad():
        before = model(clip).embeddings
    frozen = {key: value.clone() for key, value in model.state_dict().items()}
    adapters = gaitzoo.add_lora(model, rank=4)
    with torch.no_grad():
        torch.testing.assert_close(model(clip).embeddings, before, rtol=0, atol=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapters}
    optimizer = torch.optim.SGD(adapters, lr=1.0)
    for _ in range(2):  # the first matrix moves once the second is no longer 0
        optimizer.zero_grad()
        model(clip).embeddings.square().mean().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in adapters)
        optimizer.step()
    ups = [m.up for m in model.modules() if isinstance(m, LowRank)]
    assert any(bool(up.abs().sum() > 0) for up in ups)
    with torch.no_grad():
        adapted = model(clip).embeddings
        assert not torch.equal(adapted, before)
        gaitzoo.merge_lora(model)
        torch.testing.assert_close(model(clip).embeddings, adapted, rtol=0, atol=0)
    assert set(model.state_dict()) == keys
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, frozen[k])]
    assert changed
    assert all(key.endswith("weight") for key in changed)
    assert not any(p.requires_grad for p in model.parameters())


def test_an_adapter_is_the_product_of_two_thin_matrices():
    conv = nn.Conv2d(6, 10, 3, groups=2)
    weight = conv.weight.detach().clone()
    up_down = gaitzoo.add_lora(conv, rank=4, alpha=8.0)
    assert [tuple(p.shape) for p in up_down] == [(4, 27), (10, 4)]
    down, up = (p.detach() for p in up_down)
    nn.init.normal_(up)
    wanted = weight.clone()
    for row in range(10):
        for column in range(27):
            added = sum(float(up[row, r] * down[r, column]) for r in range(4))
            wanted[row].view(-1)[column] += 2.0 * added
    torch.testing.assert_close(conv.weight.detach(), wanted)


def test_thin_layers_get_thin_adapters_of_the_same_strength():
    layer = nn.Linear(16, 2)
    adapters = gaitzoo.add_lora(layer, rank=8, alpha=16.0)
    assert [tuple(p.shape) for p in adapters] == [(2, 16), (2, 2)]
    assert layer.parametrizations.weight[0].scale == 2.0


def test_targets_choose_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.LayerNorm(4))
    gaitzoo.add_lora(model, targets=lambda name, module: name == "1")
    assert [name for name, _ in model.named_parameters() if "down" in name or "up" in name] == [
        "1.parametrizations.weight.0.down",
        "1.parametrizations.weight.0.up",
    ]
    with pytest.raises(ValueError, match="merge_lora first"):
        gaitzoo.add_lora(model)
    with pytest.raises(ValueError, match="got none"):
        gaitzoo.add_lora(nn.LayerNorm(4))
    with pytest.raises(ValueError, match="without"):
        gaitzoo.merge_lora(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="rank"):
        gaitzoo.add_lora(nn.Linear(2, 2), rank=0)
    with pytest.raises(ValueError, match="alpha"):
        gaitzoo.add_lora(nn.Linear(2, 2), alpha=-1.0)


def naive(kind, student, teacher):
    count, parts, _ = student.shape
    total = 0.0
    for part in range(parts):
        for n in range(count):
            s, t = student[n, part].tolist(), teacher[n, part].tolist()
            if kind == "mse":
                total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)
            elif kind == "cosine":
                dot = sum(a * b for a, b in zip(s, t, strict=True))
                total += 1 - dot / math.sqrt(sum(a * a for a in s) * sum(b * b for b in t))
            elif kind == "kl":
                p = [math.exp(b / 1.5) for b in t]
                q = [math.exp(a / 1.5) for a in s]
                p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
                total += 1.5**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            else:
                for own, others in ((student, teacher), (teacher, student)):
                    scores = [
                        float(torch.cosine_similarity(own[n, part], others[m, part], dim=0)) / 0.07
                        for m in range(count)
                    ]
                    top = max(scores)
                    logs = top + math.log(sum(math.exp(score - top) for score in scores))
                    total += (logs - scores[n]) / 2
    return total / (count * parts)


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse", "clip"])
def test_distillation_is_its_formula(kind):
    source = torch.Generator().manual_seed(0)
    student = torch.randn(4, 3, 8, generator=source, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 3, 8, generator=source, dtype=torch.float64, requires_grad=True)
    loss = EmbeddingDistillation(kind)(student, teacher)
    assert loss.item() == pytest.approx(naive(kind, student.detach(), teacher.detach()), abs=1e-9)
    loss.backward()
    assert teacher.grad is None
    assert bool(student.grad.abs().sum() > 0)


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse"])
def test_equal_embeddings_cost_nothing(kind):
    embeddings = torch.randn(4, 3, 8)
    assert float(EmbeddingDistillation(kind)(embeddings, embeddings)) == pytest.approx(0, abs=1e-6)
    half = embeddings.bfloat16()
    loss = EmbeddingDistillation(kind)(half, half)
    assert loss.dtype == torch.float32


def test_clip_is_least_where_everybody_finds_their_own():
    embeddings = torch.eye(4)[:, None]
    loss = EmbeddingDistillation("clip")
    assert loss(embeddings, embeddings) < 1e-4 < loss(embeddings, embeddings.roll(1, 0))
    assert EmbeddingDistillation("clip", tau=1.0)(embeddings, embeddings) > 0.1


def test_wrong_distillation_is_refused():
    with pytest.raises(ValueError, match="kind"):
        EmbeddingDistillation("l1")
    for arguments in (("mse", 2.0), ("kl", 0.0)):
        with pytest.raises(ValueError, match="tau"):
            EmbeddingDistillation(*arguments)
    loss, good = EmbeddingDistillation(), torch.zeros(2, 1, 4)
    with pytest.raises(TypeError, match="student"):
        loss(good.long(), good)
    with pytest.raises(ValueError, match=r"\[N, P, C\]"):
        loss(good, good[:, 0])
    with pytest.raises(ValueError, match="one shape"):
        loss(good, torch.zeros(2, 2, 4))
    with pytest.raises(ValueError, match="finite"):
        loss(good, good / 0)
