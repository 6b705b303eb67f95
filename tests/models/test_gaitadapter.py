"""GaitAdapter: the authors' numbers, one data set after the other, what a teacher keeps."""

import json

import pytest
import torch
import torch.nn.functional as F
from builders import make
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, write_like_the_authors
from safetensors.torch import load_file

import gaitzoo
from gaitzoo import (
    GaitAdapterLoss,
    NegativeDistanceStabilityLoss,
    PartLogitDistillationLoss,
    VertexStabilityLoss,
    forgetting_matrix,
)
from gaitzoo.models.gaitadapter import convert_checkpoint

NAME = "gaitadapter_gaitbase"


def distance(found, wanted):
    """Largest difference of ``[N, P, C]`` from the published ``[N, C, P]``, of its largest."""
    wanted = wanted.transpose(1, 2)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    doc = golden_doc(NAME)
    path = tmp_path_factory.mktemp("gaitadapter") / "authors.pt"
    write_like_the_authors(filled_weights(doc), path)
    model = gaitzoo.create_model(
        "gaitadapter", checkpoint_path=path, num_classes=12, class_counts=(12, 9)
    )
    path.unlink()
    return model.eval(), doc, load_file(GOLDEN / f"{NAME}.safetensors")


def clips(doc, case, sequences):
    x = fill.model_input(doc["input"], max(sequences) + 1, case["s"], case["input_key"])[0]
    x = x[list(sequences)]
    assert [fill.checksum(x)] == case["input_checksum"]
    return x


@torch.no_grad()
def test_single_sequences_equal_the_authors(published):
    model, doc, wanted = published
    cases = [case for case in doc["cases"] if case["s"] <= 7]
    assert len(cases) == 4
    for case in cases:
        x = clips(doc, case, [case["sequence"]])
        found, output = model.adapt(x), model(x)
        assert torch.equal(output.embeddings, found.embeddings)
        for name, value in (
            ("embeddings", found.embeddings),
            ("logits", output.logits),
            ("features", found.parts),
            ("protos", found.knowledge),
            ("logits_task1", found.logits[1]),
        ):
            assert distance(value, wanted[f"{case['id']}/{name}"]) < 1e-5, name


@torch.no_grad()
def test_a_batch_equals_the_authors_where_the_graph_spans_it(published, monkeypatch):
    model, doc, wanted = published
    (case,) = doc["batch_cases"]
    x = clips(doc, case, case["sequences"])
    reference = wanted[f"{case['id']}/embeddings"]
    alone = model(x).embeddings
    assert 1e-3 < distance(alone, reference) < 0.2
    monkeypatch.setattr(model.part_graph, "scope", "batch")
    assert distance(model(x).embeddings, reference) < 1e-5


def test_a_step_of_the_second_task_equals_the_authors(published, monkeypatch):
    model, doc, wanted = published
    (case,) = doc["step_cases"]
    monkeypatch.setattr(model.part_graph, "scope", "batch")
    teacher = gaitzoo.create_model(
        "gaitadapter", num_classes=12, class_counts=(12, 9), graph_scope="batch"
    )
    old = {k: fill.fill_value("old." + k, shape) for k, shape in doc["state_dict"].items()}
    teacher.load_state_dict(convert_checkpoint(old))
    teacher.neck.classifier.later = torch.nn.ParameterList()
    monkeypatch.setattr(model, "_teacher", (teacher.eval().requires_grad_(False),))
    losses = GaitAdapterLoss()(
        model, clips(doc, case, case["sequences"]), torch.tensor(case["labels"])
    )
    names = {"softmax": "cross_entropy", "kd_loss": "kd", "stability_loss": "sta"}
    for name, value in case["losses"].items():
        found = losses[names.get(name, name)].item()
        assert found == pytest.approx(value, rel=2e-5, abs=1e-6), name
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(case["total"], rel=1e-5)
    total.backward()
    theirs = {key: torch.zeros(()) for key in case["grad_norms"]}
    ours = {}
    for key in theirs:
        twin = key.replace("ResNetbone", "Taskbone.Backbone")
        (ours[key],) = convert_checkpoint({twin: torch.zeros(())})
    parameters = dict(model.named_parameters())
    for key, norm in case["grad_norms"].items():
        assert parameters[ours[key]].grad.norm() == pytest.approx(norm, rel=2e-3, abs=1e-5), key
    assert {ours[key] for key in ours} == set(parameters)
    grads = [key for key in wanted if key.startswith(f"{case['id']}/grad")]
    assert grads
    for key in grads:
        name = key.removeprefix(f"{case['id']}/grad.")
        grad = parameters[ours[name]].grad[: len(wanted[key])]
        error = (grad - wanted[key]).abs().max() / wanted[key].abs().max()
        assert error < 2e-3, key
    model.zero_grad(set_to_none=True)


def test_authors_keys_and_counts(published):
    model, doc, _ = published
    graph = sum(p.numel() for p in model.part_graph.parameters())
    assert graph == 82_433
    # Of the authors' count, the gate that nothing uses is not ours.
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"] - 257 == 7_170_753
    shapes = {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}
    assert set(convert_checkpoint(shapes)) == set(model.state_dict())
    for other in ("other.weight", "Taskbone.eheads.fc_bin.step:x", "ResNetbone.new.weight"):
        with pytest.raises(ValueError, match="not of the authors' GaitAdapter"):
            convert_checkpoint({**shapes, other: torch.zeros(1)})


LOSSES = {
    case["id"]: case
    for case in json.loads((GOLDEN / "losses_wave2.json").read_text())["cases"]
    if case["loss"] in ("edsn", "vertex_stability", "logit_distillation")
}
TENSORS = load_file(GOLDEN / "losses_wave2.safetensors")


def written(expression, labels=None):
    """An input by the expression of the golden file, a fixed text of the tests' own data."""
    names = {"labelled_features": fill.labelled_features, "uniform": fill.uniform}
    return eval(expression, names, {"labels": labels}).float()


@pytest.mark.parametrize("case", LOSSES.values(), ids=list(LOSSES))
def test_losses_equal_the_published(case):
    if case["loss"] == "edsn":
        labels = case["labels"]
        new, old = (
            written(case[key], labels).transpose(1, 2) for key in ("embeddings", "old_embeddings")
        )
        new = new.clone().requires_grad_()
        value = NegativeDistanceStabilityLoss()(new, old, torch.tensor(labels))
        wanted = case["loss_mean"]
    elif case["loss"] == "vertex_stability":
        new = written(case["new_vertex"]).requires_grad_()
        old = written(case["old_vertex"])
        value, wanted = VertexStabilityLoss()(new, old), case["loss_value"]
    else:
        new = written(case["new_logit"])[:, None].clone().requires_grad_()
        old = written(case["old_logit"])[:, None]
        value, wanted = PartLogitDistillationLoss(case["T"])(new, old), case["loss_value"]
    torch.testing.assert_close(value.item(), wanted, rtol=1e-5, atol=1e-6)
    value.backward()
    if f"{case['id']}/grad" in TENSORS:
        grad = TENSORS[f"{case['id']}/grad"]
        grad = grad.transpose(1, 2) if case["loss"] == "edsn" else grad
        torch.testing.assert_close(new.grad.reshape(grad.shape), grad, rtol=1e-5, atol=1e-6)


def test_distances_to_others_alone_are_kept_stable():
    loss, labels = NegativeDistanceStabilityLoss(), torch.tensor([0, 0, 1, 1, 2])
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    assert loss(old, old, labels) == 0
    new = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    value = loss(new, old, labels)
    assert value > 0
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(loss(new @ turn + 3, old, labels), value)
    moved = new.clone()
    moved[4] += 0.5
    assert abs(loss(moved, old, labels) - value) > 1e-4
    # Of two sequences of one person, nothing is asked.
    pair = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 2.0]]).reshape(3, 1, 2)
    closer = torch.tensor([[0.3, 0.0], [0.7, 0.0], [0.5, 2.0]]).reshape(3, 1, 2)
    assert loss(closer, pair, torch.tensor([0, 0, 1])) < 1e-6
    teacher = old.clone().requires_grad_()
    pupil = new.clone().requires_grad_()
    loss(pupil, teacher, labels).backward()
    assert teacher.grad is None
    with pytest.raises(ValueError, match="two identities"):
        loss(new, old, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="same shape"):
        loss(new, old[:, :2], labels)


def test_stability_and_distillation_by_hand():
    v = torch.rand(6, 4, requires_grad=True)
    w = torch.rand(6, 4)
    sta, kd = VertexStabilityLoss(), PartLogitDistillationLoss()
    torch.testing.assert_close(sta(3 * v, 0.2 * w), sta(v, w))
    assert sta(v, -v.detach()).item() == pytest.approx(4)
    student = torch.tensor([[[0.4, -0.2]]], requires_grad=True)
    teacher = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    p = 1 / (1 + torch.tensor(-0.5).exp())
    q = 1 / (1 + torch.tensor(-0.3).exp())
    wanted = -4 * (p * q.log() + (1 - p) * (1 - q).log())
    value = kd(student, teacher)
    torch.testing.assert_close(value, wanted)
    (value + sta(v, w)).backward()
    assert teacher.grad is None
    with pytest.raises(ValueError, match="at least the teacher's"):
        kd(student[..., :1], teacher)
    with pytest.raises(TypeError, match="floating-point"):
        sta(v.long(), w)


def test_forgetting_is_what_was_best_before():
    nan = float("nan")
    found = forgetting_matrix([[90, nan, 10], [70, 80, 20], [75, 60, 5]])
    wanted = torch.tensor([[nan, nan, nan], [20, nan, -10], [15, 20, 15]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, equal_nan=True)
    with pytest.raises(ValueError, match=r"\[steps, data sets\]"):
        forgetting_matrix([90.0, 80.0])


def walk_batch(frames=3):
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(6, frames, 16, 12, generator=generator) > 0.5).float()
    return x, torch.tensor([0, 0, 1, 1, 2, 2])


def test_tasks_are_added_and_the_teacher_stays():
    model = make("gaitadapter_tiny", num_classes=0)
    x, labels = walk_batch()
    assert model.teacher is None
    assert model(x).logits is None
    with pytest.raises(ValueError, match="a model with classes"):
        GaitAdapterLoss()(model, x, labels)
    model.begin_task(3)
    assert model.teacher is None
    first = model.adapt(x).logits[0].detach()
    model.begin_task(4)
    model.begin_task(7)
    again = model.adapt(x).logits
    assert [logits.shape[2] for logits in again] == [3, 4, 7] == list(model.class_counts)
    assert torch.equal(again[0], first)
    assert torch.equal(model(x).logits, again[2])
    teacher = model.teacher
    assert teacher.class_counts == (3, 4)
    assert not any("teacher" in key for key in model.state_dict())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack(list(GaitAdapterLoss()(model, x, labels).values())).sum().backward()
        optimizer.step()
    assert not teacher.training
    with pytest.raises(ValueError, match="positive whole number, got 0"):
        model.begin_task(0)
    assert model.teacher is teacher
    assert model.class_counts == (3, 4, 7)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not torch.equal(model.part_graph.vertices, weights["part_graph.vertices"])
    assert not torch.equal(model.encoder.part_fc.weight, weights["encoder.part_fc.weight"])
    model.begin_task(2, teacher_train_mode=True)
    assert model.teacher.training
    model.reset_classifier(5)
    assert (model.class_counts, model.task, model.teacher) == ((5,), 0, None)


@torch.no_grad()
def test_all_tasks_are_saved(tmp_path):
    model = make("gaitadapter_tiny", num_classes=3)
    model.begin_task(4)
    x, _ = walk_batch()
    model.eval().save_pretrained(tmp_path)
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path}").eval()
    assert (loaded.class_counts, loaded.task) == ((3, 4), 1)
    assert torch.equal(loaded(x).logits, model(x).logits)
    plain = gaitzoo.create_model(f"local-dir:{tmp_path}", num_classes=0).eval()
    assert plain(x).logits is None
    assert torch.equal(plain(x).embeddings, model(x).embeddings)
    for wrong, message in (
        ({"num_classes": 5, "class_counts": (3, 4)}, "num_classes=3, the first"),
        ({"num_classes": -1}, "whole number, num_classes >= 0"),
        ({"task": 1}, "task as a number"),
        ({"encoder_args": {"layers": (1, 1, 1, 1)}}, "name of an encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            gaitzoo.create_model("gaitadapter_tiny", **wrong)


def test_an_interrupted_task_goes_on(tmp_path):
    model = make("gaitadapter_tiny", num_classes=3, dropout=0.0)
    x, labels = walk_batch()
    model.begin_task(4)
    with torch.no_grad():
        model.part_graph.vertices.mul_(torch.rand_like(model.part_graph.vertices))
    model.save_pretrained(tmp_path / "now")
    model.teacher.save_pretrained(tmp_path / "before")
    wanted = GaitAdapterLoss()(model.train(), x, labels)
    assert wanted["sta"] > 0
    now = gaitzoo.create_model(f"local-dir:{tmp_path / 'now'}")
    with pytest.raises(ValueError, match="expected a teacher in task 1"):
        GaitAdapterLoss()(now.train(), x, labels)
    with pytest.raises(TypeError, match="expected a GaitAdapter, got GaitBase"):
        GaitAdapterLoss()(make("gaitbase_tiny"), x, labels)
    compiled = torch.compile(model, backend="eager")
    assert GaitAdapterLoss()(compiled, x, labels).keys() == wanted.keys()
    resumed = gaitzoo.create_model(f"local-dir:{tmp_path / 'before'}")
    resumed.begin_task(4)
    resumed.load_state_dict(now.state_dict())
    found = GaitAdapterLoss()(resumed.train(), x, labels)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


@torch.no_grad()
def test_other_encoders_of_the_library(tmp_path):
    x, _ = walk_batch()
    encoder = make("gaitbase_tiny")
    model = gaitzoo.GaitAdapter(encoder=encoder, num_classes=2, vertices=4).eval()
    assert torch.equal(model.adapt(x).parts, encoder(x).embeddings)
    model.save_pretrained(tmp_path)
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(loaded(x).embeddings, model(x).embeddings)
    named = gaitzoo.GaitAdapter(encoder="gaitset", encoder_args={"channels": (2, 3, 4)})
    assert named.num_parts == named.encoder.num_parts
    with pytest.raises(TypeError, match="a gaitzoo model"):
        gaitzoo.GaitAdapter(encoder=3)


def test_the_teacher_keeps_distances_answers_and_vertices():
    """After four people on white and four others on black, with its losses and without them."""
    generator = torch.Generator().manual_seed(0)
    faces = (F.interpolate(torch.rand(8, 1, 4, 3, generator=generator), (16, 12)) > 0.5).float()
    noise = torch.rand(8, 6, 2, 16, 12, generator=generator) < 0.15
    shown = (faces[:, None].expand(8, 6, 2, 16, 12) - noise.float()).abs()
    domains = [shown[:4].flatten(0, 1), 1 - shown[4:].flatten(0, 1)]
    labels = torch.arange(4).repeat_interleave(6)
    left = {}
    for keep in (False, True):
        torch.manual_seed(0)
        model = gaitzoo.GaitAdapter(
            num_classes=0, channels=(4, 6, 8, 12), part_bins=(4,), vertices=6
        )
        for seen in domains:
            model.begin_task(4)
            optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
            for _ in range(40):
                losses = GaitAdapterLoss()(model, seen, labels)
                names = losses if keep else ("triplet", "cross_entropy")
                optimizer.zero_grad()
                torch.stack([losses[name] for name in names]).sum().backward()
                optimizer.step()
            with torch.no_grad():
                found = model.eval().adapt(seen).logits[-1].mean(1).argmax(1)
            assert (found == labels).double().mean() > 0.9
        model.train()
        with torch.no_grad():
            left[keep] = GaitAdapterLoss()(model, domains[1], labels)
    assert left[True]["edsn"] < left[False]["edsn"] / 2
    assert left[True]["kd"] < left[False]["kd"]
    assert left[True]["sta"] < left[False]["sta"] / 10
