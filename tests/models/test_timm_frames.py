"""timm networks as gait encoders: maps of every layout, levels, bands, and what cannot be used."""

import pytest
import timm
import torch
from conftest import relative_error

import gaitzoo
from gaitzoo import TimmFrames

# Small networks of different kinds: plain, tokens on a grid, channels last, windows, patch of 14.
BACKBONES = {
    "test_resnet": (8, 48),
    "test_convnext": (8, 32),
    "test_efficientnet": (8, 32),
    "test_vit": (4, 64),
    "test_mambaout": (8, 32),
    "swin_s3_tiny_224": (8, 192),
    "eva02_tiny_patch14_224": (5, 192),
    "dla46x_c": (8, 64),
}


def without_weights():
    """A network for which timm has no weights."""
    for name in timm.list_models("resnet*"):
        cfg = timm.get_pretrained_cfg(name)
        if cfg is None or not cfg.has_weights:
            return name
    raise AssertionError("timm has weights for every resnet")


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_backbones_give_one_band_per_row_and_keep_the_length_law(backbone):
    model = gaitzoo.create_model("timm_frames", backbone=backbone, channels=8, num_classes=3).eval()
    parts, map_channels = BACKBONES[backbone]
    lengths = torch.tensor([1, 3, 2])
    batch = torch.full((3, 3, 64, 44), float("nan"))
    for row, length in zip(batch, lengths.tolist(), strict=True):
        row[:length] = torch.rand(length, 64, 44)
    features, feature_lengths = model.forward_features(batch, lengths)
    assert features.shape[:4] == (3, map_channels, 3, parts)
    assert feature_lengths is not None
    assert torch.equal(feature_lengths, lengths)
    output = model(batch, lengths)
    assert output.embeddings.shape == (3, parts, 8)
    assert output.logits is not None
    assert output.logits.shape == (3, parts, 3)
    for i, length in enumerate(lengths.tolist()):
        alone = model(batch[i : i + 1, :length]).embeddings[0]
        assert relative_error(output.embeddings[i], alone) < 1e-5


@torch.no_grad()
def test_length_law_in_float64_and_order_of_frames():
    model = gaitzoo.create_model("timm_frames", backbone="test_resnet", channels=8).double().eval()
    batch = torch.rand(2, 4, 64, 44, dtype=torch.float64)
    batch[1, 2:] = float("nan")
    found = model(batch, torch.tensor([4, 2])).embeddings
    assert relative_error(found[1], model(batch[1:, :2]).embeddings[0]) < 1e-12
    assert relative_error(model(batch[:1].flip(1)).embeddings[0], found[0]) < 1e-12


@torch.no_grad()
def test_the_map_is_timms_own():
    model = TimmFrames(backbone="test_resnet", channels=8).eval()
    whole = timm.create_model("test_resnet", features_only=True, in_chans=1).eval()
    ours = model.frames.block.network
    whole.load_state_dict(ours.state_dict(), strict=False)
    frames = torch.rand(3, 64, 44)
    features, _ = model.forward_features(frames[None])
    level = whole(frames[:, None])[2]
    torch.testing.assert_close(features[0].transpose(0, 1), level)


@torch.no_grad()
def test_channels_last_maps_are_turned():
    model = TimmFrames(backbone="test_mambaout", channels=8).eval()
    frames = torch.rand(2, 64, 44)
    features, _ = model.forward_features(frames[None])
    theirs = model.frames.block.network(frames[:, None])[0]
    assert theirs.shape == (2, 8, 6, 32)
    torch.testing.assert_close(features[0], theirs.permute(3, 0, 1, 2))


def test_level_bands_and_strides_can_be_chosen():
    level = TimmFrames(backbone="resnet18", out_index=1, num_classes=0)
    assert level.num_parts == 16
    assert level.part_fc.weight.shape == (16, 64, 256)
    deep = TimmFrames(backbone="resnet18", backbone_args={"output_stride": 8}, num_classes=0)
    assert deep.part_fc.weight.shape == (8, 512, 256)
    bins = TimmFrames(backbone="test_resnet", part_bins=(8, 4, 1), num_classes=0)
    assert bins.num_parts == 13
    larger = TimmFrames(backbone="resnet18", input_size=(128, 88), num_classes=0)
    assert larger.part_fc.weight.shape == (8, 256, 256)
    # 36 rows at level 1: the largest number up to 16 that divides them.
    odd = TimmFrames(backbone="test_resnet", input_size=(144, 96), out_index=1, num_classes=0)
    assert odd.num_parts == 12


def test_other_input_channels():
    model = TimmFrames(backbone="test_resnet", in_channels=3, channels=8, num_classes=0).eval()
    assert model(torch.rand(2, 3, 4, 64, 44)).embeddings.shape == (2, 8, 8)


def with_weights_of_timm(monkeypatch, path):
    """Gives timm's test_resnet weights that lie in a file."""
    real = timm.create_model

    def create(name, pretrained=False, **args):
        overlay = {"pretrained_cfg_overlay": {"file": str(path)}} if pretrained else {}
        return real(name, pretrained=pretrained, **args, **overlay)

    monkeypatch.setattr(timm, "create_model", create)


def test_pretrained_weights_are_timms(tmp_path, monkeypatch):
    source = timm.create_model("test_resnet")
    path = tmp_path / "photographs.pth"
    torch.save(source.state_dict(), path)
    with_weights_of_timm(monkeypatch, path)
    model = gaitzoo.create_model(
        "timm_frames", backbone="test_resnet", num_classes=0, pretrained_backbone=True
    )
    ours = dict(model.frames.block.network.named_parameters())
    for key, value in source.named_parameters():
        if key == "conv1.0.weight":
            # timm adds the three colours up for one channel.
            torch.testing.assert_close(ours[key], value.sum(1, keepdim=True))
        elif key.startswith(("layer1", "layer2", "bn1")):
            assert torch.equal(ours[key], value), key
    # The model carries these weights from now on and never asks for them again.
    assert model.model_args["pretrained_backbone"] is False


def test_weights_that_timm_cannot_get():
    # Tests are offline.
    with pytest.raises(ConnectionError, match=r"weights of 'test_resnet'.*HF_HUB_OFFLINE"):
        TimmFrames(backbone="test_resnet", pretrained_backbone=True)
    name = without_weights()
    with pytest.raises(ValueError, match=f"backbone with weights .* got '{name}'"):
        TimmFrames(backbone=name, pretrained_backbone=True)
    for given in ("yes", 1, None):
        with pytest.raises(TypeError, match="pretrained_backbone=True or False, got"):
            TimmFrames(backbone="test_resnet", pretrained_backbone=given)


@pytest.mark.parametrize(
    "argument",
    [
        "checkpoint_path",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_model_args",
        "cache_dir",
        "in_chans",
        "img_size",
        "features_only",
        "out_indices",
        "device",
        "dtype",
    ],
)
def test_backbone_args_leave_weights_and_frames_alone(argument, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    with pytest.raises(ValueError, match=f"backbone_args without '{argument}'"):
        TimmFrames(backbone="test_resnet", backbone_args={argument: "evil.pth"})


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_gradient_checkpointing_is_timms_own(backbone):
    model = TimmFrames(backbone=backbone, num_classes=0, channels=8).train()
    network = model.frames.block.network
    owner = network if backbone == "test_resnet" else network.model
    clip = torch.rand(2, 2, 64, 44)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert owner.grad_checkpointing == enable
        assert not model.grad_checkpointing
        model.zero_grad()
        model(clip).embeddings.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-3, atol=1e-4)


def test_networks_without_gradient_checkpointing_are_computed_again(monkeypatch):
    model = TimmFrames(backbone="test_resnet", num_classes=0, channels=8)
    for kind in type(model.frames.block.network).__mro__:
        if "set_grad_checkpointing" in vars(kind):
            monkeypatch.delattr(kind, "set_grad_checkpointing")
    model.set_grad_checkpointing()
    assert model.grad_checkpointing


def test_frozen_backbone_keeps_its_statistics():
    encoder = gaitzoo.create_model("timm_frames_tiny").freeze()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.nn.Sequential(encoder).train()[0](torch.rand(2, 3, 16, 12))
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.filterwarnings("ignore:CSATv2 is designed for 3-channel")
@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"backbone": "resnet19"}, "unknown timm model 'resnet19'; closest names: resnet1"),
        ({"backbone": "crossvit_tiny_240"}, r"reads frames of 64x\d+ pixels, got 'crossvit_tiny"),
        ({"backbone": "efficientformer_l1"}, r"reads frames of 64x\d+ pixels, got 'efficientf"),
        ({"backbone": "csatv2"}, "reads frames of 64x.* got 'csatv2'"),
        ({"backbone": "inception_v3"}, "reads frames of 64x.* early out_index"),
        ({"backbone": "test_resnet", "out_index": 9}, "gives feature maps, got 'test_resnet'"),
        ({"backbone": "test_resnet", "part_bins": (16,)}, r"divide the 8 rows .* leave part_bins"),
        ({"backbone": "test_resnet", "embedding": "neck"}, 'embedding "fc" or "bnneck"'),
        ({"backbone": "test_resnet", "input_size": (64, 0)}, "input_size as"),
        (
            {"backbone": "test_resnet", "backbone_args": {"depth": 3}},
            "cannot build as one: .*depth",
        ),
        ({"backbone": "test_resnet", "channels": 0}, "channels as a positive whole number, got 0"),
        ({"backbone": "test_resnet", "channels": -1}, "channels as a positive .* got -1"),
        ({"backbone": "test_resnet", "in_channels": 0}, "in_channels as a positive .* got 0"),
        ({"backbone": "test_resnet", "in_channels": True}, "in_channels as a positive"),
        (
            {"backbone": "test_resnet", "input_size": 64},
            r"input_size as \(height, width\).* got 64",
        ),
        ({"backbone": "test_resnet", "part_bins": 8}, "part_bins as a tuple"),
        ({"backbone": "test_resnet", "out_index": "2"}, "out_index as a whole number or None"),
        ({"backbone": "test_resnet", "num_classes": "7"}, "num_classes as a whole .* got '7'"),
        ({"backbone": "test_resnet", "backbone_args": 3}, "backbone_args as a mapping"),
        ({"backbone": None}, "backbone as the name of a timm model, got None"),
        ({"backbone": "resnet18.moon"}, "unknown tag 'moon' of the timm model 'resnet18'.*a1_in1k"),
    ],
)
def test_what_cannot_be_built_says_why(model_args, message):
    with pytest.raises(ValueError, match=message):
        TimmFrames(**model_args)


def test_networks_too_deep_for_small_frames_work_by_an_early_level():
    model = TimmFrames(backbone="inception_v3", out_index=1, num_classes=0, channels=8).eval()
    assert model(torch.rand(1, 2, 64, 44)).embeddings.shape == (1, 12, 8)


def test_frames_larger_than_the_grid_are_refused():
    model = TimmFrames(backbone="test_vit", num_classes=0, channels=8).eval()
    assert model(torch.rand(1, 2, 64, 64)).embeddings.shape == (1, 4, 8)
    with pytest.raises(ValueError, match=r"at most 64x64 pixels.*input_size=\(128, 88\)"):
        model(torch.rand(1, 2, 128, 88))


@torch.no_grad()
def test_margins_are_even_and_empty():
    model = TimmFrames(backbone="test_vit", num_classes=0, channels=8).eval()
    frames = torch.rand(1, 2, 64, 44)
    margins = torch.nn.functional.pad(frames, (10, 10))
    assert torch.equal(model(frames).embeddings, model(margins).embeddings)
