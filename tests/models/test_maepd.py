"""MAEPD, a reconstruction: masking, parity with transformers, prompts, signals as images."""

import math

import pytest
import timm
import torch
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import (
    MAEPD,
    Adapter,
    GramianAngularField,
    LogSpectrogram,
    MaskedAutoencoder,
    PromptedViT,
    SpaceTimeMap,
    ViTEncoder,
    add_adapters,
    load_mae_weights,
    maepd_mae,
    maepd_vpt,
    unit_range,
)
from gaitzoo.layers.masked_autoencoder import grid_positions

SMALL = {"dim": 8, "depth": 2, "num_heads": 2}
DECODER = {"decoder_dim": 12, "decoder_depth": 1, "decoder_num_heads": 3}
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}


def small_mae(size=(32, 64), patch=(8, 8), **arguments):
    return MaskedAutoencoder(size, patch, **{**SMALL, **DECODER, **arguments})


def small_vit(**arguments):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{**VIT, "num_classes": 0, **arguments})


# ---------------------------------------------------------------------- masked autoencoder


def test_three_quarters_of_the_patches_are_hidden_and_noise_says_which():
    mae = MaskedAutoencoder(dim=8, depth=1, num_heads=2, **DECODER)
    images, noise = torch.rand(2, 1, 224, 224), torch.rand(2, 196)
    one, other = mae(images, noise), mae(images, noise)
    assert one.mask.sum(1).tolist() == [147, 147]
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.pred, other.pred)
    for row, hidden in zip(noise, one.mask, strict=True):
        assert row[~hidden].max() < row[hidden].min()
    assert not torch.equal(mae(images).mask, mae(images).mask)


@torch.no_grad()
def test_tokens_come_back_to_their_places():
    mae = small_mae()
    mae.decoder_embed, mae.decoder_pred = nn.Identity(), nn.Identity()
    mae.decoder_norm, mae.decoder_blocks = nn.Identity(), nn.ModuleList()
    mae.mask_token, mae.decoder_pos_embed = nn.Parameter(torch.full((1, 1, 8), 7.0)), torch.zeros(1)
    noise = torch.rand(2, 32)
    order = noise.argsort(1)
    tokens = torch.rand(2, 33, 8)[:, : 1 + 8]
    found = mae._decoded(tokens, order)
    for n in range(2):
        for place in range(32):
            rank = int((order[n] == place).nonzero())
            wanted = tokens[n, 1 + rank] if rank < 8 else torch.full((8,), 7.0)
            assert torch.equal(found[n, place], wanted)


@pytest.mark.parametrize(("size", "patch"), [((32, 32), (8, 8)), ((64, 256), (16, 32))])
def test_patches_become_the_image_again_and_hold_their_pixels(size, patch):
    mae = small_mae(size, patch, in_channels=2)
    images = torch.rand(3, 2, *size)
    patches = mae.patchify(images)
    assert torch.equal(mae.unpatchify(patches), images)
    columns = size[1] // patch[1]
    second_row = images[0, :, patch[0] : 2 * patch[0], : patch[1]]
    assert torch.equal(patches[0, columns], second_row.permute(1, 2, 0).flatten())


@torch.no_grad()
@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_loss_is_that_of_hidden_patches_alone(norm_pix):
    mae, noise = small_mae(norm_pix=norm_pix), torch.rand(2, 32)
    images = torch.rand(2, 1, 32, 64)
    output = mae(images, noise)
    total = []
    for n in range(2):
        for s in range(32):
            if output.mask[n, s]:
                row, column = 8 * (s // 8), 8 * (s % 8)
                target = images[n, 0, row : row + 8, column : column + 8].flatten()
                if norm_pix:
                    target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                total.append((output.pred[n, s] - target).square().mean())
    assert torch.allclose(output.loss, torch.stack(total).mean())
    # Hidden pixels are not read: changed ones change no guess.
    hidden = mae.unpatchify(output.mask[..., None].expand(-1, -1, 64).float()).bool()
    changed = torch.where(hidden, torch.rand(2, 1, 32, 64), images)
    assert torch.equal(mae(changed, noise).pred, output.pred)


def transformers_mae(channels=3):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        num_channels=channels,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=48,
        layer_norm_eps=1e-6,
        mask_ratio=0.75,
        norm_pix_loss=True,
    )
    return ViTMAEForPreTraining(config).eval()


@torch.no_grad()
def test_parity_with_transformers():
    theirs, ours = transformers_mae(), small_mae((32, 32), in_channels=3, norm_pix=True)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    # The fixed positions are the same; those of the encoder are zeros unless weights are loaded.
    theirs.decoder.initialize_weights(16)
    assert torch.allclose(theirs.decoder.decoder_pos_embed, ours.decoder_pos_embed, atol=1e-6)
    theirs.vit.embeddings.position_embeddings.copy_(grid_positions((4, 4), 8))
    load_mae_weights(ours, theirs.state_dict())
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    wanted, found = theirs(images, noise=noise), ours(images, noise)
    assert relative_error(found.pred, wanted.logits) < 1e-5
    assert torch.equal(found.mask, wanted.mask.bool())
    assert found.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-5)


@torch.no_grad()
def test_weights_of_timm_give_its_tokens_and_colours_are_summed_for_one_channel():
    vit = small_vit(norm_layer=None).eval()
    nn.init.normal_(vit.cls_token)
    mae = small_mae((16, 16))
    colour = small_mae((16, 16), in_channels=3)
    for one in (mae, colour):
        load_mae_weights(one, vit.state_dict())
    grey = torch.rand(2, 1, 16, 16)
    wanted = vit.forward_features(grey.expand(-1, 3, -1, -1))
    assert relative_error(mae.encode(grey), wanted) < 1e-5
    assert relative_error(colour.encode(grey.expand(-1, 3, -1, -1)), wanted) < 1e-5
    one_channel = small_mae((32, 32))
    last = one_channel.decoder_pred.weight.clone()
    load_mae_weights(one_channel, transformers_mae().state_dict())
    assert torch.equal(one_channel.decoder_pred.weight, last)
    with pytest.raises(ValueError, match="expected weights of this structure"):
        load_mae_weights(small_mae((32, 32)), vit.state_dict())
    with pytest.raises(ValueError, match="a masked autoencoder"):
        load_mae_weights(mae, {"stem.weight": torch.ones(1)})


# ---------------------------------------------------------------------- prompts


def test_as_many_numbers_are_tuned_as_published():
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
        model = PromptedViT(vit, num_prompts=30)
        assert model.prompts.numel() == 276_480
        assert round(100 * model.tunable_fraction(), 3) == 0.322
        for mode, count in (("deep", 53_770), ("shallow", 11_530)):
            model = PromptedViT(vit, num_prompts=5, mode=mode, num_classes=10)
            assert sum(p.numel() for p in model.tunable_parameters()) == count
        assert model.tunable_fraction(head=True) == pytest.approx(11_530 / 85_798_656)
        own = gaitzoo.create_model("maepd")
    bound = math.sqrt(6 / (3 * 256 + 768))
    assert PromptedViT(ViTEncoder((32, 32), dim=768, depth=1)).prompts.abs().max() <= bound
    assert own.prompted.prompts.shape == (12, 30, 768)
    assert sum(p.numel() for p in own.parameters()) == 85_576_764
    with torch.device("meta"):
        assert sum(p.numel() for p in maepd_mae().parameters()) == 110_999_808


@torch.no_grad()
@pytest.mark.parametrize("kind", ["timm", "ours"])
def test_without_prompts_it_is_a_linear_probe_and_one_set_is_shallow(kind):
    vit = small_vit() if kind == "timm" else ViTEncoder((16, 16), (8, 8), 3, **SMALL)
    vit.eval()
    images = torch.rand(2, 3, 16, 16)
    tokens = vit.forward_features(images) if kind == "timm" else vit(images)
    probe = PromptedViT(vit, num_prompts=0, num_classes=4).eval()
    assert torch.allclose(probe(images), probe.head(tokens[:, 0]), atol=1e-6)
    assert [id(p) for p in probe.tunable_parameters()] == [id(p) for p in probe.head.parameters()]
    mean = PromptedViT(vit, num_prompts=0, pool="mean").eval()
    assert torch.allclose(mean(images), tokens[:, 1:].mean(1), atol=1e-6)
    deep = PromptedViT(vit, num_prompts=3, mode="deep").eval()
    shallow = PromptedViT(vit, num_prompts=3, mode="shallow").eval()
    shallow.prompts.copy_(deep.prompts[:1])
    assert not torch.allclose(deep(images), shallow(images))
    deep.prompts = nn.Parameter(deep.prompts[:1])
    assert torch.equal(deep(images), shallow(images))


class Disturbed(nn.Module):
    """A block after which some tokens are others."""

    def __init__(self, block, places):
        super().__init__()
        self.block, self.places = block, places

    def forward(self, x):
        x = self.block(x).clone()
        x[:, self.places] = 9.0
        return x


@torch.no_grad()
def test_prompts_stand_behind_the_class_token_and_are_replaced_before_every_block():
    vit = ViTEncoder((16, 16), (8, 8), 1, **SMALL).eval()
    images = torch.rand(2, 1, 16, 16)
    for mode, replaced in (("deep", True), ("shallow", False)):
        model = PromptedViT(vit, num_prompts=3, mode=mode).eval()
        wanted, plain = model(images), vit.blocks[0]
        for places, harmless in ((slice(1, 4), replaced), (slice(4, 5), False)):
            vit.blocks[0] = Disturbed(plain, places)
            assert torch.allclose(model(images), wanted) is harmless
        vit.blocks[0] = plain
        seen = []
        hook = plain.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        model(images)
        hook.remove()
        assert torch.equal(seen[0][:, 1:4], model.prompts[:1].expand(2, -1, -1))
        assert torch.equal(seen[0][:, [0, *range(4, 8)]], vit.embed_tokens(images))


def test_registers_stay_in_front_and_class_tokens_must_be_there():
    vit = small_vit(reg_tokens=2)
    model = PromptedViT(vit, num_prompts=3)
    tokens = model.forward_features(torch.rand(2, 3, 16, 16))
    assert tokens.shape == (2, 3 + 3 + 4, 8)
    headless = small_vit(class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match='use "mean"'):
        PromptedViT(headless)
    assert PromptedViT(headless, pool="mean")(torch.rand(2, 3, 16, 16)).shape == (2, 8)


@pytest.mark.parametrize("adapted", [False, True])
def test_one_step_changes_what_is_tuned_and_nothing_else(adapted):
    vit = small_vit(proj_drop_rate=0.5, pos_drop_rate=0.5)
    adapters = add_adapters(vit, 3) if adapted else []
    model = PromptedViT(vit, num_prompts=3, num_classes=4).train()
    assert not any(module.training for module in vit.modules())
    assert model.training
    before = {name: x.clone() for name, x in model.named_parameters()}
    optimizer = torch.optim.SGD(model.tunable_parameters(), lr=0.5)
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(torch.rand(3, 3, 16, 16)), torch.tensor([0, 1, 3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, x in model.named_parameters() if not torch.equal(x, before[name])}
    own = {id(p) for p in adapters}
    wanted = {"prompts", "head.weight", "head.bias"}
    wanted |= {name for name, x in model.named_parameters() if id(x) in own}
    assert changed == wanted
    assert len(adapters) == (8 if adapted else 0)
    # The frozen one, trained after all.
    free = PromptedViT(vit, freeze=False).train()
    assert free.vit.training
    assert all(p.requires_grad for p in free.vit.parameters())


@torch.no_grad()
def test_adapters_change_nothing_at_first():
    for vit in (small_vit(), ViTEncoder((16, 16), (8, 8), 3, **SMALL)):
        vit.eval()
        images = torch.rand(2, 3, 16, 16)
        wanted = vit(images)
        add_adapters(vit, 2)
        assert torch.equal(vit(images), wanted)
        with pytest.raises(ValueError, match="without adapters"):
            add_adapters(vit, 2)
    adapter = Adapter(4, 2)
    nn.init.normal_(adapter.up.weight)
    x = torch.rand(3, 4)
    hidden = nn.functional.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    assert torch.allclose(adapter(x), x + hidden @ adapter.up.weight.T, atol=1e-6)


# ---------------------------------------------------------------------- the model


def walks_on_a_fibre(people, each, generator):
    """Maps ``[N, 1, 16, 32]``: steps that pass along a fibre, at a pace of one's own."""
    labels = torch.arange(people).repeat_interleave(each)
    count = len(labels)
    place, time = torch.arange(16.0)[:, None], torch.arange(32.0)
    begin = 8 * torch.rand(count, 1, 1, generator=generator)
    speed = 0.35 + 0.02 * torch.randn(count, 1, 1, generator=generator)
    cadence = 0.5 + 0.3 * labels.view(-1, 1, 1)
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    where = torch.exp(-((place - begin - speed * time) ** 2) / 6)
    maps = where * torch.sin(cadence * time + phase).square()
    maps = maps + 0.05 * torch.randn(count, 16, 32, generator=generator)
    return unit_range(maps)[:, None], labels


def test_prompts_tell_walkers_apart_better_than_a_probe_of_the_same_encoder():
    """The measured effect: 74 % of new walks with prompts, 45 % with a linear probe."""
    generator = torch.Generator().manual_seed(0)
    maps, labels = walks_on_a_fibre(3, 20, generator)
    fresh, fresh_labels = walks_on_a_fibre(3, 40, generator)
    sizes = {"dim": 32, "depth": 2, "num_heads": 4, "decoder_dim": 32, "decoder_num_heads": 4}
    mae = MaskedAutoencoder((16, 32), (4, 4), decoder_depth=1, mask_ratio=0.5, **sizes)
    train(mae.parameters(), lambda: mae(maps[::2]).loss, steps=120, rate=5e-3)
    # Better than the mean of all pixels.
    assert mae(maps).loss.item() < 0.95 * maps.var().item()
    accuracy = {}
    for prompts in (0, 8):
        torch.manual_seed(0)
        model = maepd_vpt(3, num_prompts=prompts, backbone=mae).train()

        def loss(model=model):
            return nn.functional.cross_entropy(model(maps), labels)

        train(model.tunable_parameters(), loss, steps=50, rate=2e-2)
        with torch.no_grad():
            right = model.eval()(fresh).argmax(1) == fresh_labels
        accuracy[prompts] = right.float().mean().item()
    assert accuracy[8] > accuracy[0] + 0.1


def train(parameters, loss, steps, rate):
    optimizer = torch.optim.AdamW(list(parameters), lr=rate, betas=(0.9, 0.95))
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@torch.no_grad()
def test_the_model_holds_a_trained_encoder(tmp_path):
    mae = small_mae()
    model = MAEPD(num_classes=3, num_prompts=2, encoder=mae.encoder, adapter_hidden=2).eval()
    images = torch.rand(2, 1, 32, 64)
    output = model(images)
    assert output.embeddings.shape == (2, 1, 8)
    free = MAEPD(num_classes=3, encoder=small_mae().encoder, adapter_hidden=2, freeze=False)
    assert all(p.requires_grad for p in free.parameters())
    assert torch.allclose(output.logits[:, 0], model.prompted(images), atol=1e-6)
    with pytest.raises(ValueError, match="a ViTEncoder as encoder"):
        model.save_pretrained(tmp_path / "x")
    bytes_in = (255 * images).byte()
    assert torch.allclose(model(bytes_in).logits, model(bytes_in / 255).logits, atol=1e-6)
    with pytest.raises(ValueError, match="images of 32 x 64 pixels"):
        model(torch.rand(2, 1, 32, 32))


def test_weights_that_do_not_exist_are_refused_with_the_reason():
    for build in (
        lambda: maepd_mae(pretrained="das"),
        lambda: gaitzoo.create_model("maepd", pretrained=True),
    ):
        with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code, weights nor data"):
            build()
    cfg = gaitzoo.model_info("maepd")
    assert cfg.fidelity == "reconstruction"
    assert "reconstruction" in cfg.metrics["protocol"]
    assert make("maepd_tiny", freeze=True).prompted.tunable_fraction() < 0.1


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ViTEncoder((30, 32)), ValueError, "image_size as multiples of patches of 16 x 16"),
        (lambda: ViTEncoder((32,)), ValueError, "image_size as rows and columns"),
        (lambda: ViTEncoder((32, 32), dim=6, num_heads=2), ValueError, "a width that 4 divides"),
        (
            lambda: small_mae((4, 8), (1, 1), norm_pix=True),
            ValueError,
            "two numbers or more for norm_pix",
        ),
        (lambda: small_mae(mask_ratio=0.999), ValueError, "hides some of 32 patches"),
        (lambda: small_mae()(torch.rand(2, 1, 32, 32)), ValueError, r"images \[B, 1, 32, 64\]"),
        (
            lambda: small_mae()(torch.rand(2, 1, 32, 64), torch.rand(2, 4)),
            ValueError,
            "a number per",
        ),
        (lambda: PromptedViT(nn.Linear(2, 2)), TypeError, "lacks patch_embed, blocks"),
        (lambda: PromptedViT(small_vit(), -1), ValueError, "num_prompts as a whole number"),
        (lambda: PromptedViT(small_vit(), mode="flat"), ValueError, 'mode "deep" or "shallow"'),
        (lambda: PromptedViT(small_vit(), pool="max"), ValueError, 'pool "cls" or "mean"'),
        (lambda: add_adapters(nn.ReLU(), 2), TypeError, "got ReLU"),
        (lambda: MAEPD(encoder=small_vit()), TypeError, "encoder as a ViTEncoder"),
        (lambda: GramianAngularField("sum"), ValueError, 'kind "summation"'),
        (lambda: GramianAngularField(size=9)(torch.rand(8)), ValueError, "at least 9 values"),
        (lambda: LogSpectrogram(64)(torch.rand(2, 32)), ValueError, "at least 64 values"),
        (lambda: LogSpectrogram(floor=0), ValueError, "floor as a positive"),
        (lambda: SpaceTimeMap()(torch.rand(9)), ValueError, "2 axes or more"),
        (lambda: unit_range(torch.ones(2, 2).long()), TypeError, "floats, got torch.int64"),
        (lambda: unit_range(torch.full((2, 2), float("nan"))), ValueError, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(build, error, message):
    with pytest.raises(error, match=message):
        build()


# ---------------------------------------------------------------------- signals as images


def test_angular_fields_are_the_cosines_of_summed_angles():
    series = torch.rand(2, 3, 20, dtype=torch.float64)
    x = (
        2
        * (series - series.amin(-1, keepdim=True))
        / (series.amax(-1, keepdim=True) - series.amin(-1, keepdim=True))
        - 1
    )
    angle = torch.arccos(x)
    summed = GramianAngularField()(series)
    assert torch.allclose(summed, torch.cos(angle[..., :, None] + angle[..., None, :]), atol=1e-7)
    assert torch.equal(summed, summed.transpose(-1, -2))
    assert torch.allclose(summed.diagonal(dim1=-2, dim2=-1), 2 * x.square() - 1, atol=1e-7)
    differences = GramianAngularField("difference")(series)
    assert torch.allclose(
        differences, torch.sin(angle[..., :, None] - angle[..., None, :]), atol=1e-7
    )
    assert torch.equal(GramianAngularField()(torch.ones(4)), -torch.ones(4, 4))
    pairs = series.unflatten(-1, (10, 2)).mean(-1)
    assert torch.allclose(GramianAngularField(size=10)(series), GramianAngularField()(pairs))


def test_spectrograms_are_those_of_a_loop_and_maps_are_standardised():
    series = torch.randn(2, 100, dtype=torch.float64)
    image = LogSpectrogram(32, 8)(series)
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(32).double() / 32)
    assert image.shape == (2, 17, 9)
    for t in range(9):
        wanted = torch.fft.rfft(window * series[1, 8 * t : 8 * t + 32]).abs()
        assert torch.allclose(image[1, :, t], (wanted + 1e-6).log(), atol=1e-6)
    signals = torch.randn(2, 6, 50) * torch.arange(1.0, 7.0)[:, None] + 5
    same = SpaceTimeMap((6, 50))(signals)
    assert torch.allclose(same.mean(-1), torch.zeros(2, 6), atol=1e-5)
    assert torch.allclose(same.std(-1, unbiased=False), torch.ones(2, 6), atol=1e-5)
    assert not SpaceTimeMap((4, 4))(torch.ones(1, 3, 9)).any()
