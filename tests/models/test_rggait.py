"""RG-Gait: numbers of the published networks, keys, exact retention, what is trained, rules."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from builders import make
from conftest import relative_error
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, golden_errors
from safetensors.torch import load_file
from torch import nn

import gaitzoo
from gaitzoo import OcclusionEvaluator, OcclusionEvaluatorLoss, ResidualGapCorrection
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.rggait import convert_checkpoint

TAGS = {
    "rggait_gaitbase": "rggait.gaitbase",
    "rggait_gaitbase_occluded": "rggait.gaitbase",
    "rggait_deepgaitv2_p3d_10": "rggait.deepgaitv2_p3d_10",
    "rggait_deepgaitv2_p3d_10_occluded": "rggait.deepgaitv2_p3d_10",
}


def with_amount(model, amount):
    """The model, with an evaluator that says the same of everything."""
    head = model.evaluator.amount_head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(torch.logit(torch.tensor(amount, dtype=torch.float64)))
    return model


def walks(n=4, t=5):
    return torch.rand(n, t, 16, 12)


@pytest.mark.parametrize("golden", TAGS)
def test_embeddings_and_logits_are_the_published_ones(golden, tmp_path):
    # Up to 13 frames: those of 30 go the same way, and take most of the time.
    cases = [case["id"] for case in golden_doc(golden)["cases"] if case["s"] < 20]
    assert golden_errors(golden, TAGS[golden], tmp_path, cases) < 1e-5


def test_depth_and_rule_of_the_amount_may_be_named_beside_the_tag(tmp_path):
    cases = ("eval/s7/seq0",)
    golden, tag = "rggait_deepgaitv2_p3d_10", "rggait.deepgaitv2_p3d_10"
    arguments = {"layers": (1, 1, 1, 1), "amount": "clip"}
    assert golden_errors(golden, tag, tmp_path, cases, **arguments) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("golden", TAGS)
@pytest.mark.parametrize(("rule", "tolerance"), [("frames", 2e-5), ("clip", 1e-6)])
def test_amount_and_embedding_of_the_occlusion_are_the_published_ones(golden, rule, tolerance):
    """The golden files are of clips of equal length, where upstream judges the mean frame."""
    doc = golden_doc(golden)
    wanted = load_file(GOLDEN / f"{golden}.safetensors")
    weights = convert_checkpoint(filled_weights(doc))
    evaluator = OcclusionEvaluator(amount=rule).eval()
    prefix = "evaluator."
    evaluator.load_state_dict(
        {key.removeprefix(prefix): x for key, x in weights.items() if key.startswith(prefix)}
    )
    for case in doc["cases"]:
        i = case["sequence"]
        (x,) = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        embedding, amount = evaluator(x[i : i + 1])
        published = wanted[f"{case['id']}/occlusion_embedding"]
        assert relative_error(embedding[:, :, None].expand_as(published), published) < 1e-5
        assert abs(amount.item() - wanted[f"{case['id']}/occlusion_amount"].item()) < tolerance


@pytest.mark.parametrize("golden", ["rggait_gaitbase", "rggait_deepgaitv2_p3d_10"])
def test_authors_keys_and_counts_are_exactly_ours(golden):
    doc = golden_doc(golden)
    keys = {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}
    with torch.device("meta"):
        model = gaitzoo.create_model(TAGS[golden], num_classes=12)
    ours = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    assert {key: tuple(x.shape) for key, x in convert_checkpoint(keys).items()} == ours
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]
    # Files with one name for each tensor are read too.
    single = {k: x for k, x in keys.items() if "tor.layer4." not in k and ".layer_amount." not in k}
    assert set(convert_checkpoint(single)) == set(ours)


def test_keys_of_other_networks_are_refused():
    doc = json.loads((GOLDEN / "rggait_gaitbase.json").read_text())
    keys = {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}
    with pytest.raises(ValueError, match=r"not of the authors' RG-Gait: occ_detector\.layer9"):
        convert_checkpoint({**keys, "occ_detector.layer9.bias": torch.ones(1)})
    with pytest.raises(ValueError, match="1 key"):
        convert_checkpoint({**keys, "full_component.Backbone.other": torch.ones(1)})


def test_evaluator_has_the_stated_number_of_parameters():
    assert sum(p.numel() for p in OcclusionEvaluator().parameters()) == 100_993
    typed = OcclusionEvaluator(num_types=3)
    assert sum(p.numel() for p in typed.parameters()) == 100_993 + 64 * 3 + 3
    assert OcclusionEvaluator().convs(torch.rand(1, 1, 64, 44)).shape == (1, 128, 9, 6)


@torch.no_grad()
@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("rule", ["frames", "clip"])
def test_evaluator_of_padded_clips_is_that_of_each_clip_alone(rule):
    evaluator = OcclusionEvaluator(amount=rule)
    lengths = torch.tensor([5, 2, 1])
    batch = torch.rand(3, 5, 64, 44)
    for garbage in (0.0, float("nan")):
        for i, length in enumerate(lengths.tolist()):
            batch[i, length:] = garbage
        embedding, amount = evaluator(batch, lengths)
        assert embedding.shape == (3, 64)
        assert amount.shape == (3,)
        assert bool(((amount > 0) & (amount < 1)).all())
        for i, length in enumerate(lengths.tolist()):
            alone, own = evaluator(batch[i : i + 1, :length])
            assert relative_error(embedding[i], alone[0]) < 1e-5
            assert abs(float(amount[i] - own)) < 1e-6


@torch.no_grad()
def test_amount_of_frames_is_the_mean_of_single_frames():
    evaluator, clip = OcclusionEvaluator(), torch.rand(1, 4, 32, 22)
    single = [evaluator(clip[:, t : t + 1])[1] for t in range(4)]
    assert torch.allclose(evaluator(clip)[1], torch.cat(single).mean())
    assert torch.allclose(
        evaluator((clip * 255).byte())[1], evaluator((clip * 255).byte() / 255)[1]
    )


def test_evaluator_refuses_what_does_not_fit():
    for arguments, message in (
        ({"amount": "mean"}, 'amount "frames" or "clip"'),
        ({"num_types": -1}, "num_types as a whole number"),
        ({"embed_dim": 0}, "embed_dim"),
    ):
        with pytest.raises(ValueError, match=message):
            OcclusionEvaluator(**arguments)
    evaluator = OcclusionEvaluator()
    with pytest.raises(ValueError, match="4 x 4 pixels or more"):
        evaluator(torch.rand(1, 2, 3, 9))
    with pytest.raises(ValueError, match="an evaluator with types"):
        evaluator.type_logits(torch.rand(1, 64))


@pytest.mark.parametrize("training", [True, False])
def test_with_amount_0_the_embedding_is_exactly_the_encoders(training):
    encoder = make("gaitbase_tiny")
    model = with_amount(ResidualGapCorrection(encoder=encoder), 0).train(training)
    with torch.no_grad():
        clips = walks()
        assert torch.equal(model(clips).embeddings, encoder(clips).embeddings)


def test_training_changes_neither_the_frozen_parts_nor_what_is_in_full_view():
    encoder = make("deepgaitv2_p3d_tiny")
    model = ResidualGapCorrection(encoder=encoder).train()
    frozen = ("encoder.", "evaluator.")
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    labels = torch.tensor([0, 0, 1, 1])
    for _ in range(5):
        output = model(walks())
        loss = PartTripletLoss()(output.embeddings, labels)
        loss = loss + PartCrossEntropyLoss()(output.logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model.state_dict()
    for key, tensor in before.items():
        if key.startswith(frozen):
            assert torch.equal(tensor, after[key]), key
        else:
            assert not torch.equal(tensor, after[key]), key
    gradients = {key for key, p in model.named_parameters() if p.grad is not None}
    assert {key.partition(".")[0] for key in gradients} == {"restorer", "mixer", "neck"}
    assert gradients == {key for key, p in model.named_parameters() if not key.startswith(frozen)}
    clips = walks()
    with torch.no_grad():
        for mode in (True, False):
            found = with_amount(model, 0).train(mode)(clips).embeddings
            assert torch.equal(found, encoder(clips).embeddings)


@torch.no_grad()
def test_correction_grows_with_the_amount_and_is_what_the_formula_says():
    model = make("rggait_tiny").double()
    clips = walks().double()
    lengths = torch.tensor([5, 3, 1, 4])
    gaps = []
    for amount in (0.25, 0.5, 1.0):
        found = with_amount(model, amount).correct(*model.forward_features(clips, lengths))
        assert torch.allclose(found.amount, torch.full((4,), amount, dtype=torch.float64))
        gaps.append((found.embeddings - found.visible) / amount)
    assert relative_error(gaps[0], gaps[2]) < 1e-12
    assert relative_error(gaps[1], gaps[2]) < 1e-12
    restored = model.restorer(clips, lengths).embeddings
    occlusion, _ = model.evaluator(clips, lengths)
    weight = model.mixer.weight
    for part in range(model.num_parts):
        joined = torch.cat([restored[:, part], occlusion], dim=1)
        assert relative_error(joined @ weight[part], found.residual[:, part]) < 1e-12
    cosines = model.neck(found.embeddings)[1]
    assert torch.equal(cosines, found.logits)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["gaitset_tiny", "dygait_tiny", "hstl_tiny", "swingait_tiny", "gaitgl_tiny"]
)
def test_other_encoders_work_unchanged(name):
    encoder = make(name)
    model = ResidualGapCorrection(encoder=encoder).eval()
    height, width = encoder.pretrained_cfg.input_size
    batch = torch.rand(2, 6, height, width)
    batch[1, 4:] = float("nan")
    found = model(batch, torch.tensor([6, 4]))
    assert found.embeddings.shape == (2, encoder.num_parts, encoder.num_features)
    for i, length in enumerate((6, 4)):
        alone = model(batch[i : i + 1, :length])
        assert relative_error(found.embeddings[i], alone.embeddings[0]) < 1e-5
    if encoder.pretrained_cfg.embedding != "after_bn":
        visible = model.correct(*model.forward_features(batch[:1])).visible
        assert relative_error(visible, encoder(batch[:1]).embeddings) < 1e-6


@torch.no_grad()
def test_neck_and_classes_start_as_the_encoders():
    encoder = make("gaitbase_tiny", num_classes=7).freeze()
    nn.init.uniform_(encoder.neck.bn.running_mean)
    model = ResidualGapCorrection(encoder=encoder)
    assert model.num_classes == 7
    for key, tensor in encoder.neck.state_dict().items():
        assert torch.equal(model.neck.state_dict()[key], tensor)
    assert all(p.requires_grad for p in model.neck.parameters())
    other = ResidualGapCorrection(encoder=encoder, num_classes=3)
    assert other.num_classes == 3
    assert torch.equal(other.neck.bn.running_mean, encoder.neck.bn.running_mean)
    assert encoder.num_classes == 7


@torch.no_grad()
def test_restorer_starts_fresh_or_as_the_encoder():
    encoder = make("gaitbase_tiny").freeze()
    for copied in (False, True):
        model = ResidualGapCorrection(encoder=encoder, copy_encoder=copied)
        same = torch.equal(model.restorer.part_fc.weight, encoder.part_fc.weight)
        assert same is copied
        assert torch.equal(model.encoder.part_fc.weight, encoder.part_fc.weight)
        assert all(p.requires_grad for p in model.restorer.parameters())
        assert model.restorer.training
        assert not model.encoder.training


@torch.no_grad()
def test_models_around_an_encoder_are_saved_whole(tmp_path):
    evaluator = OcclusionEvaluator(embed_dim=6, num_types=3, amount="clip")
    encoder = make("deepgaitv2_2d_tiny").double()
    model = ResidualGapCorrection(encoder=encoder, evaluator=evaluator).eval()
    assert model.evaluator.type_head is None
    assert next(model.evaluator.parameters()).dtype == torch.float64
    model.float().save_pretrained(tmp_path / "saved")
    loaded = ResidualGapCorrection.from_pretrained(tmp_path / "saved")
    clips = walks()
    assert torch.equal(loaded(clips).embeddings, model(clips).embeddings)
    assert (loaded.evaluator.embed_dim, loaded.evaluator.amount) == (6, "clip")


class Own(gaitzoo.GaitBase):
    architecture = "gaitbase"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "nothing"}, ValueError, "unknown model"),
        ({"encoder": nn.Linear(2, 2)}, TypeError, "a name or a gaitzoo model, got Linear"),
        ({"encoder": "gaitbase.gait3d_parsing"}, ValueError, "got one of parsing"),
        ({"encoder": "skeletongait_tiny"}, ValueError, "an encoder of silhouettes"),
        ({"evaluator": nn.Linear(2, 2)}, TypeError, "an OcclusionEvaluator, got Linear"),
        ({"evaluator": OcclusionEvaluator(in_channels=2)}, ValueError, "1 channel"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(arguments, error, message):
    with pytest.raises(error, match=message):
        ResidualGapCorrection(**{"encoder": "gaitbase_tiny", **arguments})


def test_encoders_that_nothing_builds_again_are_refused():
    encoder = Own(num_classes=0, channels=(2, 2, 2, 2), part_bins=(4,))
    with pytest.raises(ValueError, match="builds again, for a second one like it, got a Own"):
        ResidualGapCorrection(encoder=encoder)
    with pytest.raises(ValueError, match="layers with the name of an encoder only"):
        ResidualGapCorrection(encoder=make("gaitbase_tiny"), layers=(1, 1, 1, 1))
    fused = gaitzoo.fuse_for_inference(make("gaitbase_tiny"))
    with pytest.raises(ValueError, match="got a fused GaitBase"):
        ResidualGapCorrection(encoder=fused)


def test_keys_with_swingait_inside_are_read():
    inside = golden_doc("swingait_b1442")["state_dict"]
    whole = golden_doc("rggait_gaitbase")["state_dict"]
    shapes = {k: shape for k, shape in whole.items() if "_component." not in k}
    for part in ("full_component", "mimic_component"):
        shapes |= {f"{part}.{k}": v for k, v in inside.items() if not k.startswith("BNNecks.")}
    keys = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    with torch.device("meta"):
        model = gaitzoo.create_model("rggait.swingait", num_classes=12)
    assert set(convert_checkpoint(keys)) == set(model.state_dict())


def test_loss_of_the_evaluator_is_what_the_formula_says():
    logits = torch.randn(5, 3)
    amount, target = torch.rand(5), torch.rand(5)
    types = torch.tensor([0, 1, 2, 0, 1])
    wanted = 0.0
    for i in range(5):
        wanted += -F.log_softmax(logits[i], 0)[types[i]] / 5 + 4 * (amount[i] - target[i]) ** 2 / 5
    found = OcclusionEvaluatorLoss(weight=4)(logits, amount, types, target)
    assert torch.allclose(found, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": torch.rand(4)}, r"amount, types and target \[N\]"),
        ({"target": torch.tensor([0.5, 1.5, 0.0])}, "target from 0 to 1"),
        ({"types": torch.tensor([0, 1, 3])}, "types from 0 to 2"),
    ],
)
def test_loss_refuses_what_does_not_fit(change, message):
    given = {
        "type_logits": torch.rand(3, 3),
        "amount": torch.rand(3),
        "types": torch.tensor([0, 1, 2]),
        "target": torch.rand(3),
    }
    with pytest.raises(ValueError, match=message):
        OcclusionEvaluatorLoss()(**{**given, **change})
    with pytest.raises(ValueError, match="weight as a finite number"):
        OcclusionEvaluatorLoss(weight=-1)
