"""SBCFormer and radar_hmdd: numbers, keys, sizes, blocks."""

import pytest
import torch
from builders import make
from conftest import relative_error
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, golden_errors, write_like_the_authors
from safetensors.torch import load_file

import gaitzoo
from gaitzoo import DopplerTimeMapPreprocessor, HourglassAttention, SBCFormerBlock
from gaitzoo.models.conversion import UnknownKeysError
from gaitzoo.models.sbcformer_keys import convert_sbcformer
from gaitzoo.testing.trial import reset_statistics

GOLDEN_XS = "radar_sbcformer_xs"
COUNTS = {"xs": 5_307_473, "s": 8_146_975, "b": 13_448_672, "l": 18_124_752}


def as_paddle(doc, weights):
    """The same weights as PaddlePaddle keeps them, with the second names of its files."""
    stored = {}
    for key, tensor in weights.items():
        name = key.replace("running_mean", "_mean").replace("running_var", "_variance")
        stored[name] = tensor.T if key in doc["linear_weights"] else tensor
    doubles = {"merging_blocks.0.": "patch_embed.", "sbcformer_blocks.2.": "sbcformer_blk."}
    for first, second in doubles.items():
        for key in [key for key in stored if key.startswith(first)]:
            stored[second + key.removeprefix(first)] = stored[key]
    return stored


@pytest.fixture(scope="module")
def filled():
    return filled_weights(golden_doc(GOLDEN_XS))


def golden_input(case):
    doc = golden_doc(GOLDEN_XS)
    i = case["sequence"]
    return fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])[0][i : i + 1, 0]


def test_outputs_equal_the_authors(tmp_path):
    assert golden_errors(GOLDEN_XS, "radar_hmdd", tmp_path) < 1e-5


@torch.no_grad()
def test_maps_equal_the_authors_and_paddle_files_load(filled, tmp_path):
    doc = golden_doc(GOLDEN_XS)
    write_like_the_authors(as_paddle(doc, filled), tmp_path / "paddle.pt")
    path = tmp_path / "paddle.pt"
    model = gaitzoo.create_model("radar_hmdd", checkpoint_path=path).eval()
    case = doc["cases"][0]
    features, _ = model.forward_features(golden_input(case))
    wanted = load_file(GOLDEN / f"{GOLDEN_XS}.safetensors")[f"{case['id']}/features"]
    assert features.shape == (1, 288, 7, 7)
    assert relative_error(features, wanted) < 1e-5


def test_every_key_is_converted_once(filled):
    with torch.device("meta"):
        model = gaitzoo.create_model("radar_hmdd")
    converted = convert_sbcformer(filled)
    ours = {k: v.shape for k, v in model.state_dict().items() if "num_batches" not in k}
    assert {key: tensor.shape for key, tensor in converted.items()} == ours
    with pytest.raises(UnknownKeysError, match=r"SBCFormer: neck\.scale"):
        convert_sbcformer({**filled, "neck.scale": torch.ones(1)})


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    with torch.device("meta"):
        model = gaitzoo.create_model(f"radar_hmdd.{size}")
        same = getattr(gaitzoo, f"sbcformer_{size}")()
    assert model.model_args == same.model_args
    assert sum(p.numel() for p in model.parameters()) == COUNTS[size]
    assert model.num_classes == len(gaitzoo.RADAR_DIRECTIONS) == 8


def test_parameter_count_with_1000_classes():
    with torch.device("meta"):
        model = gaitzoo.create_model("radar_hmdd", num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 5_594_161


@torch.no_grad()
def test_shapes():
    model = gaitzoo.create_model("radar_hmdd").eval()
    images = torch.rand(2, 3, 224, 224)
    assert model(images).logits.flatten(1).shape == (2, 8)
    assert model.forward_features(images)[0].shape == (2, 288, 7, 7)
    small = gaitzoo.create_model("radar_hmdd", img_size=64, in_channels=1).eval()
    assert small.pretrained_cfg.input_size == small.input_size == (64, 64)
    output = small(torch.rand(2, 1, 64, 64))
    assert (output.embeddings.shape, output.logits.shape) == ((2, 1, 288), (2, 1, 8))
    assert small.predict(torch.rand(3, 1, 64, 64)).shape == (3,)
    assert small.feature_info.channels() == [96, 160, 288]
    assert small.feature_info.reduction() == [8, 16, 32]


@torch.no_grad()
def test_images_of_the_authors_training():
    plain, theirs = (make("radar_hmdd_tiny", upstream_input=choice) for choice in (False, True))
    theirs.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = torch.empty_like(x)
    for channel in range(3):
        wanted[:, channel] = (x[:, 2 - channel] - mean[channel]) / std[channel]
    seen = []
    hook = theirs.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = theirs(x).embeddings
    hook.remove()
    assert torch.allclose(seen[0], wanted, atol=1e-6)
    assert not torch.allclose(found, plain(x).embeddings, atol=1e-3)


def attended_by_hand(layer, x):
    """One image, token by token."""
    side, heads, key = layer.resolution, layer.num_heads, layer.key_dim
    qkv = layer.qkv(x[None])[0]
    half = heads * key
    values = qkv[2 * half :]
    values = (values + layer.local(values[None])[0]).flatten(1)
    qkv = qkv.flatten(1)
    seen = torch.zeros(side * side, 2 * half)
    for head in range(heads):
        queries = qkv[head * key : (head + 1) * key]
        keys = qkv[half + head * key : half + (head + 1) * key]
        for i in range(side * side):
            scores = torch.empty(side * side)
            for j in range(side * side):
                rows, columns = abs(i // side - j // side), abs(i % side - j % side)
                bias = layer.bias_table[rows * side + columns, head]
                scores[j] = queries[:, i] @ keys[:, j] / key**0.5 + bias
            part = slice(2 * head * key, 2 * (head + 1) * key)
            seen[i, part] = values[part] @ scores.softmax(0)
    return layer.proj(seen).T.unflatten(1, (side, side))


@torch.no_grad()
def test_attention_equals_a_loop():
    layer = HourglassAttention(6, num_heads=2, key_dim=3, resolution=4).eval()
    reset_statistics(layer)
    torch.nn.init.normal_(layer.bias_table)
    x = torch.randn(2, 6, 4, 4)
    found = layer(x)
    for i in range(2):
        assert relative_error(found[i], attended_by_hand(layer, x[i])) < 1e-5


@torch.no_grad()
def test_attention_bias():
    layer = HourglassAttention(6, num_heads=2, key_dim=3, resolution=5)
    assert not layer.bias().any()
    torch.nn.init.normal_(layer.bias_table)
    bias = layer.bias()
    assert torch.equal(bias, bias.transpose(1, 2))
    # One number per distance: 25 of them stand in 625 places.
    assert [len(head.unique()) for head in bias] == [25, 25]
    weights = layer.weights(torch.randn(3, 6, 5, 5))
    assert weights.shape == (3, 2, 25, 25)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 2, 25))


@torch.no_grad()
def test_stage_equals_its_steps():
    block = SBCFormerBlock(4, num_heads=1, resolution=8, pool=4, key_dim=2).eval()
    reset_statistics(block)
    given = torch.randn(2, 4, 8, 8)
    x = given
    for layer in block.residuals:
        x = x + layer.layers(x)
    near = x
    x = x.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean(dim=(3, 5))
    for layer in block.mixers:
        x = x + layer.layers(x)
    for layer in block.transformers:
        tokens = torch.nn.functional.layer_norm(
            x.movedim(1, -1), (4,), layer.norm1.weight, layer.norm1.bias, 1e-6
        )
        x = x + layer.attention(tokens.movedim(-1, 1))
        tokens = torch.nn.functional.layer_norm(
            x.movedim(1, -1), (4,), layer.norm2.weight, layer.norm2.bias, 1e-6
        )
        x = x + layer.fc2(torch.nn.functional.gelu(layer.fc1(tokens))).movedim(-1, 1)
    x = block.upsample.bn(block.upsample.conv(x))
    gate = (block.gate[1](block.gate[0](x)) + 3).clamp(0, 6) / 6
    wanted = block.join(torch.cat([x, near * gate], dim=1))
    assert relative_error(block(given), wanted) < 1e-5


def test_a_stage_without_pooling_has_nothing_to_bring_it_back():
    pooled, plain = (SBCFormerBlock(4, 1, 8, pool, key_dim=2) for pool in (2, 1))
    names = {name for name, _ in pooled.named_parameters()}
    missing = names - {name for name, _ in plain.named_parameters()}
    assert missing == {
        f"upsample.{n}" for n in ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
    }


@pytest.mark.parametrize("pool", [1, 2])
def test_gradients_reach_every_parameter_of_a_stage(pool):
    block = SBCFormerBlock(4, num_heads=2, resolution=4, pool=pool, key_dim=2)
    block(torch.randn(3, 4, 4, 4)).square().mul(torch.rand(4, 4, 4)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in block.parameters())


@torch.no_grad()
def test_fusing_folds_every_batch_norm():
    model = make("radar_hmdd_tiny")
    fused = gaitzoo.fuse_for_inference(model)
    assert fused.unfused_norms == ()
    x = torch.rand(2, 3, 64, 64)
    assert relative_error(fused(x).embeddings, model(x).embeddings) < 1e-5


def doppler_maps(count, spread):
    """Swinging limbs around a torso; ``spread`` is how far they swing."""
    doppler, time = torch.linspace(-1, 1, 40)[:, None], torch.linspace(0, 12, 48)
    maps = []
    for phase in torch.rand(count) * 6:
        limb = spread * torch.sin(time + phase)
        maps.append(torch.exp(-(((doppler - limb) / 0.12) ** 2)) + 0.1 * torch.rand(40, 48))
    return torch.stack(maps)[:, None]


def test_narrow_and_wide_doppler_are_learned():
    maps = torch.cat([doppler_maps(45, 0.1), doppler_maps(45, 0.6)])
    images = DopplerTimeMapPreprocessor()(maps)
    labels = torch.arange(2).repeat_interleave(45)
    held_out = torch.arange(90) % 3 == 0
    train = (~held_out).nonzero().flatten()
    model = gaitzoo.create_model("radar_hmdd_tiny", num_classes=2, channels=(16, 24, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for _ in range(6):
        for batch in train[torch.randperm(len(train))].split(12):
            loss = criterion(model(images[batch]).logits[:, 0], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = model.eval().predict(images[held_out]) == labels[held_out]
    assert right.float().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("radar_hmdd_tiny", img_size=65), "img_size as a multiple of 32, got 65"),
        (lambda: make("radar_hmdd_tiny", channels=(4, 6)), "three numbers as channels"),
        (lambda: make("radar_hmdd_tiny", channels=(6, 6, 8)), r"channels\[0\] as a multiple of 4"),
        (lambda: make("radar_hmdd_tiny", num_heads=(1, 0, 1)), "num_heads"),
        (lambda: make("radar_hmdd_tiny", in_channels=1, upstream_input=True), "in_channels=3"),
        (lambda: make("radar_hmdd_tiny")(torch.rand(1, 3, 32, 64)), "images of 64 x 64 pixels"),
        (lambda: make("radar_hmdd_tiny")(torch.rand(1, 1, 64, 64)), r"axis 1 of \[N, 3, H, W\]"),
        (
            lambda: make("radar_hmdd_tiny", num_classes=0).predict(torch.rand(1, 3, 64, 64)),
            "num_classes=0",
        ),
        (lambda: SBCFormerBlock(4, 1, 7, 2), "pool as a divisor of the 7 rows"),
        (lambda: HourglassAttention(4, 0), "num_heads as a positive"),
        (lambda: HourglassAttention(4, 1)(torch.rand(1, 4, 6, 7)), r"\[N, 4, 7, 7\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
