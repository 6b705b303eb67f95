"""Models of other people: what check_model finds, and a whole way of theirs through the library."""

import copy
import sys

import foreign_pose_model
import pytest
import torch
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import GaitModel, GaitOutput, record_args
from gaitzoo.models import registry
from gaitzoo.testing import Report, Result, check_model, fill_freed_memory
from gaitzoo.testing.promises import PROMISES
from gaitzoo.testing.trial import Skipped, Trial


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))


def those(report, status):
    return {name for name, result in report.items() if result.status == status}


def test_a_pose_model_of_somebody_else_holds_every_promise(capsys):
    model = foreign_pose_model.PoseGraph()
    report = check_model(model)
    report.raise_if_failed()
    assert those(report, "skipped") <= {"classes", "features", "grey_levels", "onnx"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PoseGraph"
    assert "length_law          passed" in lines
    assert any(line.endswith("the model has no classifier") for line in lines)


@torch.no_grad()
def test_the_pose_model_goes_all_the_way(tmp_path):
    model = foreign_pose_model.PoseGraph(channels=(4, 6)).eval()
    assert (model.num_classes, model.get_classifier()) == (0, None)
    clips = [torch.rand(frames, 17, 3) * 100 for frames in (30, 4, 11)]
    alone = torch.cat([model(clip[None]).embeddings for clip in clips])

    model.save_pretrained(tmp_path / "saved")
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}")
    assert type(loaded) is foreign_pose_model.PoseGraph
    assert loaded.model_args == {"channels": (4, 6), "width": 5}
    file = tmp_path / "saved" / "model.safetensors"
    filled = gaitzoo.create_model("pose_graph", channels=[4, 6], checkpoint_path=file)
    for other in (loaded, filled, gaitzoo.fuse_for_inference(model)):
        found = gaitzoo.embed(other, clips, progress=False)
        assert relative_error(found, alone) < 1e-5
    with pytest.raises(ValueError, match="no classifier"):
        model.reset_classifier(3)
    with pytest.raises(ValueError, match=r"expected poses \[N, T, J, 3\]"):
        model(torch.rand(2, 30, 64, 44)[..., None])
    with pytest.raises(ValueError, match="expected silhouettes"):
        make("gaitbase_tiny")(clips[0][None])


class Plain(GaitModel):
    """Layers of torch alone; keywords switch the mistakes on."""

    classifier_key = None

    @record_args
    def __init__(self, *, mistake: str = "") -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.last = nn.Linear(4, 3)
        if mistake == "unused":
            self.other = nn.Linear(2, 2)
        self.mistake = mistake
        self.num_features, self.num_parts = 3, 2 if mistake == "shape" else 1

    def forward(self, silhouettes, lengths=None):
        if self.mistake == "unchecked":
            x = torch.as_tensor(silhouettes)[:, None].float()
        else:
            x, lengths = self.prepare(silhouettes, lengths)
        if self.mistake == "recomputed" and self.grad_checkpointing:
            x = 2 * x
        x = self.norm(self.conv(x)).relu()
        x = x.amax(2) if self.mistake == "unmasked" else gaitzoo.TemporalMax()(x, lengths)
        if self.mistake == "chance":
            x = x + 0.01 * torch.rand_like(x)
        if self.mistake == "detached":
            x = x.detach()
        return GaitOutput(embeddings=self.last(x.mean(dim=(2, 3)))[:, None])


def test_layers_of_torch_alone_are_enough():
    gaitzoo.register_model("plain_layers", Plain)
    report = check_model(Plain().train(), verbose=False)
    report.raise_if_failed()
    assert {"fuse", "export", "saving", "embed", "grey_levels"} <= those(report, "passed")


@pytest.mark.parametrize(
    ("mistake", "broken", "reason"),
    [
        ("unmasked", "length_law", "of 7 frames in a batch padded with 3"),
        ("unmasked", "length_law_float64", "mask frames past the end"),
        ("unchecked", "bad_inputs", r"expected a TypeError .* self\.prepare"),
        ("unused", "gradients", r"expected a gradient of other\.weight, got none"),
        ("detached", "gradients", r"expected a gradient of conv\.weight, got none"),
        ("shape", "shapes", r"expected embeddings \(2, 2, 3\) .* got \(2, 1, 3\)"),
        ("chance", "order", "the same embeddings in two calls"),
        ("recomputed", "checkpointing", r"^conv\.weight: "),
    ],
)
def test_mistakes_are_found(mistake, broken, reason):
    trial = Trial.of(Plain(mistake=mistake), (7, 5, 1, 2, 9))
    with pytest.raises(AssertionError, match=reason):
        PROMISES[broken](trial)


def test_reports_say_what_failed():
    results = {"order": Result("passed"), "fuse": Result("failed", "off by 1", ValueError("here"))}
    report = Report(results)
    assert (len(report), list(report), report.failed) == (2, ["order", "fuse"], ["fuse"])
    with pytest.raises(AssertionError, match=r"breaks 1 of 2:\nfuse: off by 1") as raised:
        report.raise_if_failed()
    assert raised.value.__cause__ is report["fuse"].error
    Report({"order": Result("passed")}).raise_if_failed()


class Narrow(gaitzoo.DyGait):
    """A subclass of a model of the library, which computes something else."""

    def forward_head(self, features, lengths=None):
        output = super().forward_head(features, lengths)
        return GaitOutput(embeddings=output.embeddings + 1, logits=output.logits)


def test_subclasses_are_saved_by_a_name_of_their_own_or_not_at_all(tmp_path):
    arguments = dict(gaitzoo.model_info("dygait_tiny").model_args)
    model = Narrow(num_classes=3, **arguments).eval()
    with pytest.raises(ValueError, match=r"got a Narrow .*register_model\(\"narrow\", Narrow\)"):
        model.save_pretrained(tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    with pytest.raises(ValueError, match="register_model"):
        PROMISES["saving"](Trial.of(model, (5, 3)))

    gaitzoo.register_model("narrow", Narrow)
    model.save_pretrained(tmp_path / "saved")
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    assert type(loaded) is Narrow
    batch = torch.rand(2, 5, *model.pretrained_cfg.input_size)
    with torch.no_grad():
        assert torch.equal(loaded(batch).embeddings, model(batch).embeddings)
    assert gaitzoo.DyGait.architecture == "dygait"


def test_the_model_and_the_random_numbers_are_left_alone():
    model = make("gaitbase_tiny").train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_model(model, frames=(4, 2), verbose=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda: check_model(nn.Linear(2, 2)), TypeError, "got Linear; derive its class"),
        (lambda: check_model(Plain().bfloat16()), TypeError, r"got torch\.bfloat16; .*float\(\)"),
        (lambda: check_model(Plain(), frames=(5,)), ValueError, "at least two"),
        (lambda: check_model(Plain(), frames=(5, 6)), ValueError, "the first longer"),
        (lambda: check_model(Plain(), frames=(5, 0.5)), ValueError, "whole numbers"),
    ],
)
def test_wrong_arguments_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        change()


def test_packages_that_are_missing_are_no_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(Skipped, match="pip install"):
        PROMISES["onnx"](Trial.of(Plain(), (5, 3)))


def test_freed_memory_is_full_of_nan():
    fill_freed_memory()
    # Allocators differ; that they all hand out fresh memory only would be a surprise.
    tensors = [torch.empty(size) for size in (1000, 10_000, 100_000) for _ in range(4)]
    assert any(bool(tensor.isnan().any()) for tensor in tensors)
