"""DepthGait: preparation of depth, gates, levels, branches, what only depth tells apart."""

import math

import pytest
import torch
from builders import make
from conftest import relative_error
from torch import nn
from torch.nn import functional as F

import gaitzoo
from gaitzoo import (
    CrossLevelFusion,
    IdentityLoss,
    ModalityGate,
    MonocularDepth,
    MultiScaleContext,
    crop_like_silhouette,
    normalize_depth,
    normalize_silhouettes,
)
from gaitzoo.data.augment import RandomAugment

NAN = float("nan")


def both(count=2, frames=6, size=(64, 44)):
    return {
        "silhouettes": torch.rand(count, frames, *size),
        "depth": torch.rand(count, 1, frames, *size),
    }


def pyramid(channels=(3, 4, 5), size=(16, 12), frames=2):
    return [
        torch.randn(2, n, frames, *(math.ceil(s / 2**i) for s in size))
        for i, n in enumerate(channels)
    ]


def figures(frames=4, size=(60, 50)):
    """Bodies that walk to the right, soft rims, one frame without anybody."""
    masks = torch.zeros(frames, *size)
    for t in range(frames - 1):
        masks[t, 10:50, 10 + 4 * t : 22 + 4 * t] = 1
        masks[t, 20:30, 6 + 4 * t : 10 + 4 * t] = 0.6
    return masks


@torch.no_grad()
def test_sizes_of_all_levels():
    model = gaitzoo.create_model("depthgait", num_classes=0, channels=(4, 6, 8, 10)).eval()
    seen = {}
    for i in range(3):
        model.levels.gates[i].register_forward_hook(
            lambda _, args, out, i=i: seen.update({i: tuple(out.shape[1:])})
        )
    assert model(both()).embeddings.shape == (2, 16, 8)
    assert seen == {0: (4, 6, 64, 44), 1: (6, 6, 32, 22), 2: (8, 6, 16, 11)}
    assert model(both(1, 2, (128, 88))).embeddings.shape == (1, 16, 8)


def test_parameters_are_as_many_as_stated():
    for name, count in (("sustech1k", 10_060_468), ("sustech1k_22", 20_396_212)):
        with torch.device("meta"):
            model = gaitzoo.create_model(f"depthgait.{name}", num_classes=0)
        assert sum(p.numel() for p in model.parameters()) == count
    assert {gaitzoo.model_info("depthgait").fidelity} == {"reconstruction"}
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("depthgait", pretrained=True)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_depth_is_brought_to_one_range(per):
    torch.manual_seed(0)
    mask = figures()
    depth = torch.rand(4, 60, 50).double() * torch.tensor([1.0, 2, 3, 4])[:, None, None]
    depth[mask <= 0.5] = NAN
    found = normalize_depth(depth, mask, per)
    inside = mask > 0.5
    assert not found[~inside].any()
    assert found[inside].min() == pytest.approx(0.1)
    assert found[inside].max() == pytest.approx(1)
    groups = (
        [inside]
        if per == "clip"
        else [inside & (torch.arange(4) == t)[:, None, None] for t in range(3)]
    )
    for group in groups:
        low, high = torch.quantile(depth[group], torch.tensor([0.02, 0.98]).double())
        wanted = (0.1 + 0.9 * (depth[group] - low) / (high - low)).clamp(0.1, 1)
        torch.testing.assert_close(found[group], wanted)
    torch.testing.assert_close(normalize_depth(3 * depth + 7, mask, per), found)
    torch.testing.assert_close(normalize_depth(depth, (mask * 255).byte(), per), found)
    torch.testing.assert_close(normalize_depth(depth, inside.byte(), per), found)
    assert not normalize_depth(depth, torch.zeros_like(mask), per).any()
    flat = normalize_depth(torch.ones(4, 60, 50), mask, per)
    torch.testing.assert_close(flat.unique(), torch.tensor([0.0, 0.55]))


def test_depth_is_cut_by_the_box_of_the_silhouette():
    mask = figures()
    body = crop_like_silhouette(mask > 0.5, mask)
    assert body.shape == (4, 64, 44)
    for offset in (0.0, 100.0):
        depth = torch.arange(60.0)[:, None].expand(4, 60, 50) + offset
        found = crop_like_silhouette(depth.masked_fill(mask <= 0.5, NAN), mask)
        assert torch.equal(found > 0, body > 0)
        # Rows 10 to 49 become 64, and nothing of the background is mixed in.
        middle = found[0, :, 22]
        assert middle[0] == pytest.approx(10 + offset, abs=0.5)
        assert middle[-1] == pytest.approx(49 + offset, abs=0.5)
    assert not body[3].any()
    # The box is that of the field's pre-treatment.
    usual = normalize_silhouettes((mask > 0.5)[:3])[:, :, 10:54] > 127
    assert (usual != (body[:3] > 0)).float().mean() < 0.02


def test_two_generators_of_one_seed_change_both_by_the_same_draw():
    augment = RandomAugment(flip=1, rotate=1, perspective=1, erase=0, roughen=0)
    body = crop_like_silhouette(figures(), figures())
    one, other = (augment(x, torch.Generator().manual_seed(7)) for x in (body, 0.6 * body))
    assert not torch.equal(one, body)
    torch.testing.assert_close(other, 0.6 * one)


def test_wrong_depth_is_refused():
    depth, mask = torch.rand(2, 8, 6), torch.ones(2, 8, 6)
    for arguments, message in (
        ((depth, mask[:1]), "maps and mask"),
        ((depth, mask, "batch"), 'per "clip" or "frame"'),
        ((depth, mask, "clip", (0.9, 0.1)), "quantiles"),
        ((depth * NAN, mask), "finite depth"),
        ((depth, 255 * mask), r"a mask in \[0, 1\]"),
        ((depth, NAN * mask), "a mask in"),
    ):
        with pytest.raises(ValueError, match=message):
            normalize_depth(*arguments)
    with pytest.raises(ValueError, match="the columns even"):
        crop_like_silhouette(depth, mask, (64, 43))
    model = make("depthgait_tiny")
    inputs = both(size=(16, 12))
    with pytest.raises(ValueError, match=r"depth in \[0, 1\]"):
        model({**inputs, "depth": 5 * inputs["depth"]})
    with pytest.raises(ValueError, match="as many rows and columns"):
        model({**inputs, "depth": inputs["depth"][..., :8]})
    for arguments, message in (({"fusion": "sum"}, "fusion"), ({"direction": "up"}, "direction")):
        with pytest.raises(ValueError, match=message):
            gaitzoo.create_model("depthgait_tiny", **arguments)
    with pytest.raises(ValueError, match="strides between 2 levels"):
        CrossLevelFusion((3, 4), strides=(2, 2))
    with pytest.raises(ValueError, match="expected 3 maps of each, got 2 and 3"):
        CrossLevelFusion((3, 4, 5))(pyramid()[:2], pyramid())
    uneven = [torch.rand(1, 3, 1, 16, 12), torch.rand(1, 4, 1, 4, 6)]
    with pytest.raises(ValueError, match="expected level 1 of 8 x 6 pixels"):
        CrossLevelFusion((3, 4))(uneven, uneven)


@torch.no_grad()
def test_weights_of_the_gate_add_up_to_one():
    torch.manual_seed(0)
    gate = ModalityGate(4, squeeze=2).eval()
    one, other = torch.randn(2, 4, 3, 5, 2), torch.randn(2, 4, 3, 5, 2)
    weights = gate.weights(one, other)
    assert weights.min() > 0
    assert weights.max() < 1
    torch.testing.assert_close(weights.sum(1), torch.ones_like(one))
    torch.testing.assert_close(gate(one, one), one)
    torch.testing.assert_close(gate(one, other), weights[:, 0] * one + weights[:, 1] * other)
    # A pixel is judged by itself.
    pixel = gate.weights(one[..., 1:2, 1:], other[..., 1:2, 1:])
    torch.testing.assert_close(pixel, weights[..., 1:2, 1:])


@torch.no_grad()
def test_context_is_seen_at_its_distances():
    torch.manual_seed(0)
    block = MultiScaleContext(3, (1, 3)).eval()
    x = torch.randn(1, 3, 2, 9, 7)
    padded, total = F.pad(x, (3, 3, 3, 3)), torch.zeros_like(x)
    for dilation, scale in zip((1, 3), block.scales, strict=True):
        for i in range(3):
            for j in range(3):
                y, z = 3 + (i - 1) * dilation, 3 + (j - 1) * dilation
                weight = scale.weight[:, 0, i, j].view(1, 3, 1, 1, 1)
                total += weight * padded[..., y : y + 9, z : z + 7]
    joined = torch.einsum("oc,ncthw->nothw", block.join[0].weight.flatten(1), total)
    torch.testing.assert_close(block(x), x + F.relu(joined / math.sqrt(1 + 1e-5)))


@torch.no_grad()
def test_shallow_levels_reach_deep_ones_by_the_chain_alone():
    ones, others = pyramid(), pyramid()
    changed = [ones[0] + 1, *ones[1:]]
    deep = [*ones[:2], ones[2] + 1]
    for direction, reaches, returns in (
        ("none", False, False),
        ("bottom_up", True, False),
        ("bidirectional", True, True),
    ):
        torch.manual_seed(0)
        fusion = CrossLevelFusion((3, 4, 5), direction).eval()
        fused = fusion(ones, others)
        assert [x.shape for x in fused] == [x.shape for x in ones]
        assert (not torch.equal(fusion(changed, others)[2], fused[2])) == reaches
        assert (not torch.equal(fusion(deep, others)[0], fused[0])) == returns


def taps(model, inputs):
    """The last maps of both networks."""
    seen, hooks = [], []
    for branch in (model.silhouette_branch, model.depth_branch):
        block = branch.layers[2][-1]
        hooks.append(block.register_forward_hook(lambda _, args, out: seen.append(out)))
    model(inputs)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def test_networks_start_by_themselves_and_may_hear_of_each_other():
    inputs = both(size=(16, 12))
    model = make("depthgait_tiny", feedback_gain=0.0)
    for found, branch, name in zip(
        taps(model, inputs),
        (model.silhouette_branch, model.depth_branch),
        model.modalities,
        strict=True,
    ):
        x = inputs[name]
        torch.testing.assert_close(found, branch(x.unsqueeze(1) if x.ndim == 4 else x))
    model = make("depthgait_tiny")
    before = taps(model, inputs)[0]
    assert not torch.equal(taps(model, {**inputs, "depth": 0.5 * inputs["depth"]})[0], before)


def test_gradients_reach_everything_after_one_step():
    torch.manual_seed(0)
    model = make("depthgait_tiny", feedback_gain=0.0).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inputs, labels = both(4, 3, (16, 12)), torch.tensor([0, 0, 1, 1])
    for _ in range(2):
        optimizer.zero_grad()
        IdentityLoss()(model(inputs), labels).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("fusion", ["add", "cat"])
@torch.no_grad()
def test_plain_fusions(fusion):
    model = make("depthgait_tiny", fusion=fusion)
    inputs = both(size=(16, 12))
    found = model(inputs).embeddings
    assert found.shape == (2, 4, 4)
    assert not torch.equal(model({**inputs, "depth": 1 - inputs["depth"]}).embeddings, found)


@torch.no_grad()
def test_missing_depth_counts_as_nothing():
    model = make("depthgait_tiny")
    inputs = both(size=(16, 12))
    lengths = torch.tensor([6, 2])
    alone = model({"silhouettes": inputs["silhouettes"]}, lengths)
    empty = model({**inputs, "depth": torch.zeros(2, 1, 6, 16, 12)}, lengths)
    assert torch.equal(alone.embeddings, empty.embeddings)
    assert relative_error(model(inputs, lengths).embeddings, alone.embeddings) > 1e-3


def clips_of(labels, seed):
    """Bodies of one outline; how deep they are bent differs from person to person."""
    torch.manual_seed(seed)
    rows = torch.linspace(-1, 1, 16)[:, None]
    shapes = torch.stack([rows.expand(16, 12), -rows.expand(16, 12), rows.abs().expand(16, 12)])
    mask = torch.zeros(len(labels), 4, 16, 12)
    mask[:, :, 1:15, 3:9] = 1
    # Rims differ from clip to clip, for all people alike.
    mask[:, :, :, 2] = (torch.rand(len(labels), 4, 16) < 0.5).float()
    depth = shapes[labels][:, None] + 0.2 * torch.randn(len(labels), 4, 16, 12)
    # Every camera has its own scale and shift.
    depth = depth * torch.rand(len(labels), 1, 1, 1).add(0.5) + torch.rand(len(labels), 1, 1, 1)
    ready = [normalize_depth(d, m) for d, m in zip(depth, mask, strict=True)]
    return {"silhouettes": mask, "depth": torch.stack(ready)[:, None]}


def hits(with_depth):
    model = make("depthgait_tiny", num_classes=3, channels=(4, 6, 8, 8), feedback_gain=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    labels = torch.arange(3).repeat(6)
    for step in range(40):
        inputs = clips_of(labels, step)
        if not with_depth:
            del inputs["depth"]
        optimizer.zero_grad()
        IdentityLoss()(model(inputs), labels).backward()
        optimizer.step()
    labels = torch.arange(3).repeat(20)
    inputs = clips_of(labels, 1000)
    if not with_depth:
        del inputs["depth"]
    with torch.no_grad():
        chosen = model.eval()(inputs).logits.mean(1).argmax(1)
    return float((chosen == labels).float().mean())


def test_people_of_one_outline_are_told_apart_by_depth_alone():
    assert hits(with_depth=True) > 0.9
    assert hits(with_depth=False) < 0.55


class Guess(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 1, 1), 0

    def forward(self, pixel_values):
        self.calls += 1
        depth = self.conv(pixel_values[..., ::2, ::2])[:, 0]
        return type("Output", (), {"predicted_depth": depth})()


def test_depth_of_pictures():
    guess = Guess()
    network = MonocularDepth(guess).train()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    pictures = torch.rand(3, 3, 20, 14, requires_grad=True)
    depth = network(pictures)
    assert depth.shape == (3, 1, 20, 14)
    assert guess.calls == 1
    assert not depth.requires_grad
    processed = MonocularDepth(guess, lambda images, **_: {"pixel_values": 1 - images})
    torch.testing.assert_close(processed(1 - pictures), depth)
    grey = torch.randint(0, 256, (1, 3, 20, 14), dtype=torch.uint8)
    torch.testing.assert_close(network(grey), network(grey.float() / 255))
    for wrong in (pictures[0], 255 * pictures):
        with pytest.raises(ValueError, match="expected rgb"):
            network(wrong)
    with pytest.raises(ValueError, match=r"depth \[3, h, w\] of the network"):
        MonocularDepth(nn.Conv2d(3, 2, 1))(pictures)


def test_depth_network_of_transformers(tmp_path):
    import transformers

    config = transformers.DepthAnythingConfig(
        backbone_config=transformers.Dinov2Config(
            hidden_size=8,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=28,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            apply_layernorm=True,
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[2, 4, 6, 8],
        fusion_hidden_size=4,
        head_hidden_size=4,
        patch_size=14,
    )
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    depth = MonocularDepth.from_pretrained(str(tmp_path))(torch.rand(1, 3, 40, 30))
    assert depth.shape == (1, 1, 40, 30)
    with pytest.raises(OSError, match="cannot load the depth network"):
        MonocularDepth.from_pretrained(str(tmp_path / "nothing"))
