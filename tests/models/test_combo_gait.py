"""Combo-Gait, a reconstruction: missing inputs and frames, task tokens, heads, the joint loss."""

import pytest
import torch
import torch.nn.functional as F
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import (
    AuxOutput,
    BinaryHead,
    ComboGait,
    IdentityLoss,
    MultiTaskGaitLoss,
    RegressionHead,
    SMPLEncoder,
    UnifiedGaitTransformer,
)
from gaitzoo.layers.body_parameters import vertical_from_body
from gaitzoo.layers.token_attention import TokenAttention
from gaitzoo.synthetic import render_walk, sample_identity

NAN = float("nan")


def both(count=2, frames=5):
    return {
        "silhouettes": torch.rand(count, frames, 16, 12),
        "smpl": torch.randn(count, frames, 85),
    }


def tiny(**arguments):
    return gaitzoo.create_model("combo_gait_tiny", **arguments)


def skew(v):
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


# ---------------------------------------------------------------------- the body's parameters


def test_vertical_is_a_row_of_the_matrix_in_both_ways_of_writing_and_ignores_yaw():
    rotations = torch.randn(20, 3, dtype=torch.float64) * 2
    matrices = torch.linalg.matrix_exp(skew(rotations))
    wanted = matrices[:, 1]
    torch.testing.assert_close(vertical_from_body(rotations), wanted)
    columns = torch.cat([matrices[..., 0], matrices[..., 1]], dim=1)
    torch.testing.assert_close(vertical_from_body(columns), wanted)
    yaw = torch.linalg.matrix_exp(skew(torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)))
    torch.testing.assert_close((yaw @ matrices)[:, 1], wanted)
    with pytest.raises(ValueError, match=r"expected rotations \[..., 3\] or"):
        vertical_from_body(torch.zeros(2, 4))


def test_attention_is_softmax_over_the_keys_that_are_seen():
    attention = TokenAttention(8, 2)
    queries, keys = torch.rand(2, 3, 8), torch.rand(2, 5, 8)
    seen = torch.tensor([[True, False, True, True, False], [False, True, False, False, False]])
    found = attention(queries, keys, seen)
    for n in range(2):
        query, key = attention.query(queries[n]), attention.key_value(keys[n])[seen[n]]
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            weights = (query[:, part] @ key[:, :8][:, part].T / 2).softmax(1)
            heads.append(weights @ key[:, 8:][:, part])
        torch.testing.assert_close(found[n], attention.out(torch.cat(heads, 1)))


@torch.no_grad()
def test_fields_name_the_columns_whatever_their_order():
    usual = SMPLEncoder(dim=8, num_heads=2).eval()
    order = torch.cat(
        [torch.arange(75, 85), torch.arange(3), torch.tensor([0]), torch.arange(3, 75)]
    )
    fields = {"shape": (0, 10), "camera": (10, 13), "pose": (14, 86)}
    other = SMPLEncoder(86, dim=8, num_heads=2, fields=fields).eval()
    other.load_state_dict(usual.state_dict())
    smpl = torch.randn(2, 4, 85)
    assert torch.equal(other(smpl[..., order])[0], usual(smpl)[0])


@torch.no_grad()
def test_six_numbers_per_joint_no_camera_and_kept_yaw():
    fields = {"pose": (0, 144), "shape": (144, 154)}
    encoder = SMPLEncoder(154, dim=8, num_heads=2, fields=fields, rotations="6d").eval()
    assert encoder.frame_mlp[0].in_features == 3 + 23 * 6 + 10
    assert encoder(torch.randn(2, 3, 154))[0].shape == (2, 5, 8)
    turned = torch.zeros(2, 3, 85)
    turned[1, :, 4] = 1.5  # about the vertical
    without = SMPLEncoder(dim=8, num_heads=2).eval()(turned)[0]
    kept = SMPLEncoder(dim=8, num_heads=2, drop_yaw=False).eval()(turned)[0]
    assert relative_error(without[1], without[0]) < 1e-6 < relative_error(kept[1], kept[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fields": {"pose": (3, 75)}}, 'columns of "pose", "shape"'),
        ({"fields": {"pose": (3, 75), "shape": (75, 86)}}, "of 85, got"),
        ({"fields": {"pose": (3, 74), "shape": (75, 85)}}, "3 numbers per joint"),
        ({"rotations": "quaternion"}, "rotations among axis_angle, 6d"),
        ({"dim": 9, "num_heads": 3}, "even dim"),
    ],
)
def test_impossible_encoders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SMPLEncoder(**arguments)


def test_garbage_in_frames_that_are_not_valid_changes_neither_output_nor_gradient():
    encoder = SMPLEncoder(dim=8, num_heads=2, drop_rate=0.0, block_drop_rate=0.0)  # training
    lengths = torch.tensor([5, 3, 4])
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[0, 1] = valid[2] = False
    found = []
    for garbage in (0.0, NAN):
        smpl = torch.randn(3, 5, 85, generator=torch.Generator().manual_seed(1))
        smpl[0, 1], smpl[1, 3:], smpl[2] = garbage, garbage, garbage
        encoder.zero_grad()
        tokens, seen = encoder(smpl, lengths, valid)
        tokens.square().sum().backward()
        found.append((tokens, [p.grad.clone() for p in encoder.parameters()]))
    assert seen.all(1).tolist() == [True, True, False]
    assert not tokens[2].any()
    torch.testing.assert_close(found[0], found[1])
    alone = SMPLEncoder(dim=8, num_heads=2)
    with pytest.raises(ValueError, match="two valid frames or more in train mode, got one"):
        alone(torch.rand(1, 1, 85))


# ---------------------------------------------------------------------- the transformer


@torch.no_grad()
def test_tokens_of_every_task_and_group_come_back():
    join = UnifiedGaitTransformer(8, 2, 2, groups={"parts": 16, "body": 5}).eval()
    sizes = []
    join.blocks[0].register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    tasks, groups = join({"parts": torch.rand(3, 16, 8), "body": torch.rand(3, 5, 8)})
    assert sizes == [4 + 16 + 5]
    assert list(tasks) == ["id", "age", "bmi", "gender"]
    assert {x.shape for x in tasks.values()} == {(3, 8)}
    assert [x.shape for x in groups.values()] == [(3, 16, 8), (3, 5, 8)]


@torch.no_grad()
def test_without_positions_permuted_parts_come_back_permuted():
    join = UnifiedGaitTransformer(8, 2, 2, groups={"parts": 6, "body": 2}).eval().double()
    parts, body = torch.rand(1, 6, 8).double(), torch.rand(1, 2, 8).double()
    order = [3, 0, 5, 1, 2, 4]
    first = join({"parts": parts, "body": body})
    moved = join({"parts": parts[:, order], "body": body})
    assert relative_error(moved[1]["parts"], first[1]["parts"][:, order]) > 1e-4
    join.positions["parts"].zero_()
    first = join({"parts": parts, "body": body})
    moved = join({"parts": parts[:, order], "body": body})
    assert relative_error(moved[1]["parts"], first[1]["parts"][:, order]) < 1e-12
    assert relative_error(moved[0]["id"], first[0]["id"]) < 1e-12


@torch.no_grad()
def test_an_absent_group_is_a_group_that_nobody_sees():
    join = UnifiedGaitTransformer(8, 1, 2, groups={"parts": 6, "body": 2}).eval()
    parts, body = torch.rand(2, 6, 8), torch.full((2, 2, 8), NAN)
    masked = join({"parts": parts, "body": body}, {"body": torch.zeros(2, 2, dtype=torch.bool)})
    absent = join({"parts": parts})
    torch.testing.assert_close(masked, absent)
    with pytest.raises(ValueError, match="expected tokens of parts, body"):
        join({})
    with pytest.raises(ValueError, match=r"tokens of body \[N, 2, 8\], got \[2, 6, 8\]"):
        join({"body": parts})


# ---------------------------------------------------------------------- heads


@torch.no_grad()
def test_heads_give_real_units():
    head = RegressionHead(8, 41.0, 15.0)
    nn.init.zeros_(head.mlp[-1].weight)
    nn.init.zeros_(head.mlp[-1].bias)
    assert head(torch.rand(3, 8)).tolist() == [41.0] * 3
    head.mlp[-1].bias.fill_(1.0)  # one standard deviation
    assert head(torch.rand(3, 8)).tolist() == [56.0] * 3
    ordinal = RegressionHead(8, 41.0, 15.0, bins=(20.0, 30.0, 80.0))
    nn.init.zeros_(ordinal.mlp[-1].weight)
    ordinal.mlp[-1].bias.copy_(torch.tensor([0.0, 60.0, 60.0]))
    torch.testing.assert_close(ordinal(torch.rand(1, 8)), torch.tensor([55.0]))
    assert BinaryHead(8)(torch.rand(3, 8)).shape == (3,)
    for arguments, message in (((1.0, 0.0), "std above 0"), ((NAN, 1.0), "finite mean")):
        with pytest.raises(ValueError, match=message):
            RegressionHead(8, *arguments)
    with pytest.raises(ValueError, match="two bins or more, got 1"):
        RegressionHead(8, 1.0, 1.0, bins=(3.0,))


# ---------------------------------------------------------------------- the model


@torch.no_grad()
def test_any_input_may_be_missing():
    model = make("combo_gait_tiny")
    inputs = both()
    lengths = torch.tensor([5, 3])
    outputs = {
        "both": model(inputs, lengths),
        "silhouettes": model({"silhouettes": inputs["silhouettes"]}, lengths),
        "smpl": model({"smpl": inputs["smpl"]}, lengths),
    }
    for output in outputs.values():
        assert output.embeddings.shape == (2, 5, 4)
        assert {name: x.shape for name, x in output.aux.items()} == dict.fromkeys(
            ("age", "bmi", "gender"), (2,)
        )
    assert relative_error(outputs["smpl"].embeddings, outputs["both"].embeddings) > 0.01
    # No valid body is no body.
    nothing = {**inputs, "smpl": torch.full((2, 5, 85), NAN)}
    masked = model(nothing, lengths, torch.zeros(2, 5, dtype=torch.bool))
    torch.testing.assert_close(masked.embeddings, outputs["silhouettes"].embeddings)
    torch.testing.assert_close(dict(masked.aux), dict(outputs["silhouettes"].aux))


@torch.no_grad()
def test_attributes_of_a_clip_do_not_depend_on_its_batch():
    model = make("combo_gait_tiny").double()
    inputs = {name: x.double() for name, x in both(3).items()}
    lengths = torch.tensor([5, 1, 3])
    for n, length in enumerate(lengths):
        for x in inputs.values():
            x[n, length:] = NAN
    together = model(inputs, lengths).aux
    for n, length in enumerate(lengths):
        alone = model({k: x[n : n + 1, :length] for k, x in inputs.items()}).aux
        for name in alone:
            assert relative_error(together[name][n], alone[name][0]) < 1e-12


def test_what_cannot_be_meant_is_refused():
    model = make("combo_gait_tiny")
    inputs, valid = both(), torch.ones(2, 5, dtype=torch.bool)
    for given, message in (({}, "got nothing"), ({"rgb": inputs["smpl"]}, "got rgb")):
        with pytest.raises(ValueError, match=f"silhouettes, smpl or both for ComboGait, {message}"):
            model(given)
    with pytest.raises(ValueError, match="as many frames as each other"):
        model({**inputs, "smpl": inputs["smpl"][:, :4]})
    with pytest.raises(ValueError, match=r"valid \[2, 5\], got \[2, 4\]"):
        model(inputs, None, valid[:, :4])
    with pytest.raises(TypeError, match="bool tensor"):
        model(inputs, None, valid.float())
    with pytest.raises(ValueError, match="smpl beside smpl_valid"):
        model({"silhouettes": inputs["silhouettes"]}, None, valid)
    valid[1] = False
    with pytest.raises(ValueError, match="got none of sequence 1"):
        model({"smpl": inputs["smpl"]}, None, valid)
    for arguments, message in (
        ({"attributes": {"id": None}}, 'other than "id"'),
        ({"attributes": {"age": (1.0,)}}, r"as \(mean, std\) or None"),
        ({"attributes": ("age",)}, "attributes as a mapping"),
        ({"bins": {"gender": (0.0, 1.0)}}, "bins of age, bmi, got gender"),
        ({"backbone": "resnet"}, "a backbone among gaitbase"),
        ({"modality_drop_rate": 1.0}, "modality_drop_rate of 0 up to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ComboGait(**arguments)


def test_an_attribute_teaches_both_encoders():
    model = tiny(modality_drop_rate=0.0).train()
    loss = F.binary_cross_entropy_with_logits(model(both()).aux["gender"], torch.tensor([0.0, 1.0]))
    loss.backward()
    for part in (model.tokenizer, model.body):
        assert all((p.grad != 0).any() for p in part.parameters() if p.ndim > 1)


def test_in_training_inputs_are_withheld_but_never_both():
    model = tiny(modality_drop_rate=0.5, drop_rate=0.0).train()
    bands, body = torch.rand(400, 4, 8), torch.ones(400, 3, dtype=torch.bool)
    body[:50] = False
    seen = model._withhold({"silhouettes": bands}, {"smpl": body})
    silhouettes, bodies = seen["silhouettes"].all(1), seen["smpl"].all(1)
    assert (silhouettes | bodies).all()
    assert silhouettes[:50].all()
    for kept in (silhouettes[50:], bodies[50:]):
        assert 0.15 < 1 - kept.float().mean() < 0.35  # a quarter: both are drawn as often


def test_it_is_shown_as_a_reconstruction_without_weights():
    cfg = gaitzoo.model_info("combo_gait")
    assert cfg.fidelity == "reconstruction"
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="BRIAR is restricted"):
        gaitzoo.create_model("combo_gait", pretrained=True)
    with torch.device("meta"):
        model = gaitzoo.create_model("combo_gait", num_classes=0)
    assert sum(p.numel() for p in model.parameters()) == 15_737_283
    assert sum(p.numel() for p in model.heads.parameters()) == 2 * (256 * 64 + 64 + 65) + 257
    assert model.num_parts == 17


# ---------------------------------------------------------------------- the loss


def output_of(**aux):
    torch.manual_seed(1)
    values = {name: torch.tensor(x) for name, x in aux.items()}
    return AuxOutput(torch.rand(4, 3, 8), logits=torch.rand(4, 3, 2), aux=values)


LABELS = torch.tensor([0, 0, 1, 1])
ATTRIBUTES = {"age": [30.0, 40.0, 50.0, 60.0], "gender": [0.3, -2.0, 1.0, 0.0]}


def joint_loss(**arguments):
    return MultiTaskGaitLoss({"age": 0.1, "gender": 0.2}, {"age": 10.0}, **arguments)


def test_unknown_attributes_cost_nothing():
    output, identity = output_of(**ATTRIBUTES), IdentityLoss()
    unknown = {"age": torch.full((4,), NAN), "gender": torch.full((4,), -1)}
    wanted = identity(output, LABELS)
    assert joint_loss()(output, LABELS, unknown) == wanted
    assert joint_loss()(output, LABELS, {}) == wanted
    ages = torch.tensor([NAN, 37.0, NAN, NAN])
    found = joint_loss()(output, LABELS, {**unknown, "age": ages})
    one = F.smooth_l1_loss(torch.tensor(4.0), torch.tensor(3.7))
    torch.testing.assert_close(found, wanted + 0.1 * one)
    genders = torch.tensor([1, -1, -1, 0])
    found = joint_loss()(output, LABELS, {"gender": genders})
    two = F.binary_cross_entropy_with_logits(torch.tensor([0.3, 0.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found, wanted + 0.2 * two)


def test_unknown_attributes_leave_a_gradient_of_zero():
    output = output_of(**ATTRIBUTES)
    output.aux["age"].requires_grad_()
    for targets in ({"age": torch.full((4,), NAN)}, {}):
        joint_loss()(output, LABELS, targets).backward()
        assert output.aux["age"].grad.tolist() == [0.0] * 4


def test_learned_weights_begin_at_one_and_are_trained():
    output = output_of(**ATTRIBUTES)
    targets = {"age": torch.tensor([37.0, NAN, NAN, 61.0])}
    learned = joint_loss(learned=True)
    torch.testing.assert_close(
        learned(output, LABELS, targets), joint_loss()(output, LABELS, targets)
    )
    learned(output, LABELS, targets).backward()
    gradients = {k: p.grad.item() for k, p in learned.log_variances.items()}
    assert gradients["task_id"] != 0
    assert gradients["task_age"] != 0
    assert gradients["task_gender"] == 0  # nobody's is known


def test_losses_refuse_what_cannot_be_meant():
    with pytest.raises(ValueError, match="weight of 0 or more for age"):
        MultiTaskGaitLoss({"age": -1.0}, {})
    with pytest.raises(TypeError, match="weights as a mapping"):
        MultiTaskGaitLoss(("age",), {})
    with pytest.raises(ValueError, match="stds above 0 of attributes among age"):
        MultiTaskGaitLoss({"age": 1.0}, {"bmi": 1.0})
    output, loss = output_of(**ATTRIBUTES), joint_loss()
    for targets, message in (
        ({"bmi": torch.zeros(4)}, "targets of age, gender, got bmi"),
        ({"age": torch.zeros(3)}, r"targets \[4\] of age, got \[3\]"),
        ({"age": torch.full((4,), torch.inf)}, "finite numbers"),
        ({"gender": torch.full((4,), 2)}, "0 or 1, -1 = unknown, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(output, LABELS, targets)
    with pytest.raises(ValueError, match="build the model with the attribute age"):
        loss(output_of(gender=ATTRIBUTES["gender"]), LABELS, {})


# ---------------------------------------------------------------------- what it learns


def people(first, count, clips=2, frames=4):
    """Bodies of made-up people: shapes are theirs, poses change, BMI follows the second shape."""
    source = torch.Generator().manual_seed(first)
    shapes = torch.randn(count, 10, generator=source)
    pose = torch.randn(count * clips, frames, 75, generator=source)
    own = shapes.repeat_interleave(clips, 0)[:, None].expand(-1, frames, -1)
    labels = torch.arange(count).repeat_interleave(clips)
    return torch.cat([0.3 * pose, own], dim=2), labels, 26 + 5 * shapes[:, 1][labels]


def trained(model, inputs, labels, bmi, steps, weight=1.0):
    loss = MultiTaskGaitLoss({"bmi": weight}, model.attribute_stds)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(inputs), labels, {"bmi": bmi}).backward()
        optimizer.step()
    return model.eval()


def small(num_classes):
    return tiny(
        num_classes=num_classes,
        attributes={"bmi": (26.0, 5.0)},
        dim=16,
        depth=1,
        part_channels=8,
        drop_rate=0.0,
        modality_drop_rate=0.0,
    )


def test_eight_walkers_are_told_apart_and_weighed():
    smpl, labels, bmi = people(0, 8)
    clips = [
        render_walk(sample_identity(int(n)), frames=4, size=(16, 16), seed=i).silhouettes
        for i, n in enumerate(labels)
    ]
    inputs = {"silhouettes": torch.stack(clips), "smpl": smpl}
    model = trained(small(8), inputs, labels, bmi, 60)
    with torch.no_grad():
        output = model(inputs)
    assert (output.logits.mean(1).argmax(1) == labels).all()
    error = (output.aux["bmi"] - bmi).abs().mean()
    assert error < 1.0


def test_bmi_of_people_never_seen_is_read_from_the_shape():
    smpl, labels, bmi = people(10, 128)
    model = trained(small(128), {"smpl": smpl}, labels, bmi, 80, weight=5.0)
    smpl, _, bmi = people(20, 64)
    with torch.no_grad():
        found = model({"smpl": smpl}).aux["bmi"]
        swapped = torch.cat([smpl[..., :75], smpl.roll(2, 0)[..., 75:]], dim=2)
        others = model({"smpl": swapped}).aux["bmi"]
    errors = [(x - bmi).abs().mean().item() for x in (found, others, bmi.mean())]
    assert errors[0] < 0.5 * errors[2]
    assert errors[1] > errors[2]
