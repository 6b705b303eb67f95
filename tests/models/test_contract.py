"""What every registered model promises, tested on the small variants of all of them."""

import copy
import pickle

import pytest
import torch
from builders import clips_for, make, padded
from conftest import TINY, TOLERANCE, relative_error

import gaitzoo


def test_there_is_a_small_variant_of_every_architecture():
    full = {name for name in gaitzoo.list_models() if not name.endswith("_tiny")}
    assert {name.removesuffix("_tiny") for name in TINY} <= full
    classes = {type(gaitzoo.create_model(name, num_classes=0)) for name in TINY}
    for name in full:
        with torch.device("meta"):
            assert type(gaitzoo.create_model(name, num_classes=0)) in classes


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("garbage", [3.0, float("nan"), float("-inf")])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@torch.no_grad()
def test_length_law(name, garbage, dtype):
    model = make(name).to(dtype)
    clips = clips_for(model, 7, 1, 2, 3, 4, 9, 5, 12, dtype=dtype)
    batched = model(*padded(clips, garbage))
    for i, clip in enumerate(clips):
        alone = model(clip[None])
        assert relative_error(batched.embeddings[i], alone.embeddings[0]) < TOLERANCE[dtype]
        assert relative_error(batched.logits[i], alone.logits[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_length_law_for_every_length_from_1_to_40(name):
    model = make(name).double()
    clips = clips_for(model, *range(1, 41), dtype=torch.float64)
    batched = model(*padded(clips, float("nan"))).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(batched[i], model(clip[None]).embeddings[0]) < 1e-12


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_equal_lengths_need_no_lengths(name):
    model = make(name)
    batch = torch.stack(clips_for(model, 6, 6))
    full = model(batch, torch.tensor([6, 6])).embeddings
    assert relative_error(full, model(batch).embeddings) < 1e-5


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_output_shapes_and_class_counts(name):
    model = make(name)
    batch = torch.stack(clips_for(model, 6, 6))
    output = model(batch)
    assert output.embeddings.shape == (2, model.num_parts, model.num_features)
    assert output.logits.shape == (2, model.num_parts, model.num_classes)
    assert model.num_classes == model.pretrained_cfg.num_classes > 0

    model.reset_classifier(11)
    assert model.num_classes == 11
    renewed = model(batch)
    assert renewed.logits.shape == (2, model.num_parts, 11)
    assert torch.equal(renewed.embeddings, output.embeddings)

    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(batch).logits is None
    assert make(name, num_classes=0)(batch).logits is None


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_forward_is_features_then_head(name):
    model = make(name)
    batch, lengths = padded(clips_for(model, 6, 4), float("nan"))
    features, feature_lengths = model.forward_features(batch, lengths)
    several = isinstance(features, tuple)
    places = (
        zip(features, feature_lengths, strict=True) if several else [(features, feature_lengths)]
    )
    for one, counts in places:
        assert one.ndim == 5
        assert one.shape[0] == 2
        assert counts.shape == (2,)
        assert counts.max() <= one.shape[2]
    output = model.forward_head(features, feature_lengths)
    assert torch.equal(output.embeddings, model(batch, lengths).embeddings)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_uint8_is_divided_by_255(name):
    model = make(name)
    batch = (torch.stack(clips_for(model, 5, 5)) * 255).to(torch.uint8)
    assert relative_error(model(batch).embeddings, model(batch.float() / 255).embeddings) < 1e-6


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_gradient(name):
    model = make(name).train()
    batch, lengths = padded(clips_for(model, 6, 5, 6), 0.0)
    output = model(batch, lengths)
    (output.embeddings.square().sum() + output.logits.square().sum()).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert (parameter.grad != 0).any(), key


@pytest.mark.parametrize("name", TINY)
def test_gradient_checkpointing_changes_no_gradient(name):
    model = make(name)
    # Batch statistics move with every forward pass, so they are left out of the comparison.
    for module in model.modules():
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.training = True
    batch, lengths = padded(clips_for(model, 6, 4), float("nan"))
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(batch, lengths).embeddings.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_evaluation_is_deterministic_and_order_free(name):
    model = make(name)
    batch, lengths = padded(clips_for(model, 6, 4, 5), 0.5)
    first = model(batch, lengths).embeddings
    assert torch.equal(model(batch, lengths).embeddings, first)
    swapped = model(batch.flip(0), lengths.flip(0)).embeddings
    assert relative_error(swapped.flip(0), first) < 1e-5


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_copies_and_saved_models_are_the_same_model(name, tmp_path):
    model = make(name)
    batch = torch.stack(clips_for(model, 5, 5))
    wanted = model(batch).embeddings
    model.save_pretrained(tmp_path / "saved")
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        type(model).from_pretrained(tmp_path / "saved"),
        gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}").eval(),
        gaitzoo.create_model(name, checkpoint_path=tmp_path / "saved" / "model.safetensors").eval(),
    ):
        assert torch.equal(other(batch).embeddings, wanted)
        assert other.model_args == {**model.model_args, "num_classes": model.num_classes}
        assert other.pretrained_cfg == model.pretrained_cfg


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_bfloat16_autocast_stays_close(name):
    model = make(name)
    batch, lengths = padded(clips_for(model, 6, 4), float("nan"))
    wanted = model(batch, lengths).embeddings.flatten(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch, lengths).embeddings.flatten(1).float()
    cosine = torch.nn.functional.cosine_similarity(found, wanted)
    # Eight bits of mantissa through a handful of layers.
    assert (cosine > 0.999).all()


def bad_inputs(model):
    height, width = model.pretrained_cfg.input_size
    channels = () if model.in_channels == 1 else (model.in_channels,)
    good = torch.rand(2, *channels, 6, height, width)
    lengths = torch.tensor([6, 4])
    return [
        (good.numpy(), None, TypeError, "expected silhouettes as a torch.Tensor, got ndarray"),
        (good.long(), None, TypeError, r"floats in \[0, 1\] or as uint8"),
        (good[0], None, ValueError, "expected silhouettes"),
        (good[..., :0], None, ValueError, "at least one frame"),
        (good * 255, None, ValueError, "pass uint8 in 0..255, or divide by 255"),
        (good * float("nan"), None, ValueError, "NaN or infinite"),
        (good, [6, 4], TypeError, "lengths as an int64 tensor"),
        (good, lengths.float(), TypeError, "lengths as an int64 tensor"),
        (good, lengths > 5, TypeError, "mask.sum"),
        (good, lengths[:1], ValueError, r"one length per sequence, shape \[2\], got \[1\]"),
        (good, torch.tensor([6, 7]), ValueError, "lengths from 1 to 6 .* got 6 to 7"),
        (good, torch.tensor([6, 0]), ValueError, "lengths from 1 to 6 .* got 0 to 6"),
    ]


@pytest.mark.parametrize("name", TINY)
def test_bad_input_is_refused_with_a_reason(name):
    model = make(name)
    for silhouettes, lengths, error, message in bad_inputs(model):
        with pytest.raises(error, match=message):
            model(silhouettes, lengths)


@pytest.mark.parametrize("name", TINY)
def test_wrong_channel_count_is_refused(name):
    model = make(name)
    height, width = model.pretrained_cfg.input_size
    with pytest.raises(ValueError, match=r"input channel|expected silhouettes"):
        model(torch.rand(2, model.in_channels + 1, 6, height, width))


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_other_channel_counts_can_be_built(name):
    model = make(name, in_channels=3)
    height, width = model.pretrained_cfg.input_size
    clips = [torch.rand(3, t, height, width) for t in (5, 2)]
    batched = model(*padded(clips, float("nan"))).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(batched[i], model(clip[None]).embeddings[0]) < 1e-5
