"""Hosts with forces, a reconstruction: what they keep of the host, without forces, with some."""

import pytest
import torch
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import ForceGait, InverseDynamics, with_forces
from gaitzoo.synthetic import sample_identity, walk_joints3d

WAYS = [
    ("film", "features"),
    ("film", "embeddings"),
    ("gated", None),
    ("extra_part", None),
    ("cross_attention", None),
]
SMALL = {"force_dim": 6, "force_hidden": 4}


def inputs(host, frames=7):
    given = {"forces": 0.1 * torch.randn(2, frames, 24, 3)}
    for name in host.modalities:
        given[name] = {
            "silhouettes": torch.rand(2, frames, 16, 12),
            "smpl": torch.rand(2, frames, 85),
        }[name]
    return given


def alone(host, given):
    rest = {name: x for name, x in given.items() if name != "forces"}
    return rest if len(rest) > 1 else next(iter(rest.values()))


@torch.no_grad()
@pytest.mark.parametrize("host", ["gaitbase_tiny", "deepgaitv2_p3d_tiny", "smplgait_tiny"])
@pytest.mark.parametrize(("fusion", "at"), WAYS)
def test_before_training_and_without_forces_the_host_is_unchanged(host, fusion, at):
    host = make(host)
    given, lengths = inputs(host), torch.tensor([7, 4])
    wanted = host(alone(host, given), lengths)
    keys = set(host.state_dict())
    fresh = with_forces(host, fusion, at, **SMALL)
    trained = with_forces(host, fusion, at, zero_init=False, **SMALL)
    unknown = torch.zeros(2, 7, dtype=torch.bool)
    without = {name: x for name, x in given.items() if name != "forces"}
    wild = {**given, "forces": given["forces"] * float("nan")}
    for found in (
        fresh(given, lengths),
        trained(without, lengths),
        trained(wild, lengths, forces_valid=unknown),
    ):
        for name in ("embeddings", "logits"):
            parts = getattr(found, name)
            more = parts.shape[1] - host.num_parts
            assert more == (fusion == "extra_part")
            assert torch.equal(parts[:, : host.num_parts], getattr(wanted, name))
            assert not parts[:, host.num_parts :].any()
    other = trained(given, lengths)
    assert relative_error(other.embeddings[:, -1:], wanted.embeddings[:, -1:]) > 1e-4
    # The host is left as it was.
    trained.reset_classifier(9)
    assert set(host.state_dict()) == keys
    assert torch.equal(host(alone(host, given), lengths).logits, wanted.logits)


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "at"), WAYS)
def test_padded_batches_give_each_clip_its_own_numbers(fusion, at):
    model = with_forces(make("gaitbase_tiny"), fusion, at, zero_init=False, **SMALL)
    given, lengths = inputs(make("gaitbase_tiny")), torch.tensor([7, 3])
    valid = torch.rand(2, 7) < 0.7
    for x in given.values():
        x[1, 3:] = float("nan")
    found = model(given, lengths, valid)
    for i, length in enumerate((7, 3)):
        clip = {name: x[i : i + 1, :length] for name, x in given.items()}
        wanted = model(clip, forces_valid=valid[i : i + 1, :length])
        for name in ("embeddings", "logits"):
            assert relative_error(getattr(found, name)[i], getattr(wanted, name)[0]) < 1e-5


def test_extra_part_keeps_what_the_neck_has_learned():
    host = make("gaitbase_tiny").train()
    model = with_forces(host, "extra_part", **SMALL)
    assert model.training
    assert model.num_parts == host.num_parts + 1
    weight = model.neck.classifier.weight
    assert torch.equal(weight[:-1], host.neck.classifier.weight)
    with pytest.raises(ValueError, match="statistics of its own"):
        with_forces(make("gaitgl_tiny"), "extra_part")


@torch.no_grad()
def test_it_is_saved_by_the_name_of_its_host(tmp_path):
    model = make("force_gait_tiny", fusion="cross_attention", num_heads=2)
    model.save_pretrained(tmp_path / "saved")
    other = ForceGait.from_pretrained(tmp_path / "saved")
    given = inputs(model.host)
    assert torch.equal(other(given).embeddings, model(given).embeddings)
    with pytest.raises(ValueError, match="as host"):
        with_forces(make("gaitbase_tiny")).save_pretrained(tmp_path / "other")


def test_forces_of_walkers_train_through_the_dynamics():
    joints = torch.stack([walk_joints3d(sample_identity(i), frames=9) for i in range(2)])
    joints.requires_grad_()
    forces = InverseDynamics(fps=25.0)(joints).torques
    model = make("force_gait_tiny").train()
    output = model({"silhouettes": torch.rand(2, 9, 16, 12), "forces": forces})
    nn.functional.cross_entropy(output.logits.transpose(1, 2), torch.zeros(2, 4).long()).backward()
    assert joints.grad.isfinite().all()
    assert joints.grad.abs().max() > 0


def test_published_sizes():
    counts = {}
    for tag in gaitzoo.list_tags("force_gait"):
        cfg = gaitzoo.model_info(f"force_gait.{tag}")
        assert cfg.fidelity == "reconstruction"
        assert "reconstruction" in cfg.metrics["protocol"]
        with torch.device("meta"):
            model = gaitzoo.create_model(f"force_gait.{tag}")
            host = gaitzoo.create_model(cfg.model_args["host"])
        assert model.modalities == (*host.modalities, "forces")
        counts[tag] = [sum(p.numel() for p in m.parameters()) for m in (model, host)]
    added = {tag: ours - theirs for tag, (ours, theirs) in counts.items()}
    assert added == {"casiab": 223_936, "gait3d": 223_936}
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("force_gait", pretrained=True)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: make("force_gait_tiny", fusion="sum"), ValueError, "fusion among film, gated"),
        (lambda: make("force_gait_tiny", at="features"), ValueError, "gated at embeddings, got"),
        (lambda: make("force_gait_tiny", skeleton="h36m"), ValueError, "skeleton among"),
        (lambda: with_forces(make("dygait_tiny"), "film"), ValueError, "repeats short clips"),
        (lambda: with_forces(make("gaitset_tiny")), ValueError, "PartBNNeck or SharedBNNeck"),
        (lambda: with_forces(nn.ReLU()), TypeError, "a gaitzoo model, got ReLU"),
        (lambda: ForceGait(host=nn.ReLU()), TypeError, "a name or a gaitzoo model"),
        (
            lambda: ForceGait(host=make("gaitbase_tiny"), host_args={}),
            ValueError,
            "host_args for a host that is built by name",
        ),
    ],
)
def test_hosts_that_do_not_fit_are_refused_with_a_reason(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: {"forces": g["forces"]}, ValueError, "expected silhouettes, forces"),
        (lambda g: g["silhouettes"], TypeError, "a mapping with silhouettes, forces"),
        (lambda g: {**g, "forces": g["forces"][:, :3]}, ValueError, "as many frames"),
        (lambda g: {**g, "forces": g["forces"][:, :, :17]}, ValueError, "24 joints, got 17"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_a_reason(change, error, message):
    model = make("force_gait_tiny")
    with pytest.raises(error, match=message):
        model(change(inputs(model.host)))
    with pytest.raises(ValueError, match="forces beside forces_valid"):
        model(
            {"silhouettes": torch.rand(1, 3, 16, 12)},
            forces_valid=torch.ones(1, 3, dtype=torch.bool),
        )
