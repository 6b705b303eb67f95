"""Colour and depth: pyramid, context, fusion, neck, frames, missing inputs, reports."""

import pytest
import torch
import transformers
from conftest import relative_error
from tiny_llms import LLMS, save_llm
from torch import nn
from torch.nn import functional as F

import gaitzoo
from gaitzoo import (
    MLGE,
    CrossSpatialFusion,
    CSPPyramid,
    FrameEvidence,
    GaitReporter,
    PyramidNeck,
    RGBDGaitLoss,
)

NAN = float("nan")
SMALL = {"encoder_args": {"width": 1 / 64}, "neck_channels": (4, 4, 6), "dim": 8}


def net(seed=0, **arguments):
    torch.manual_seed(seed)
    return gaitzoo.parkinson_rgbd(**{**SMALL, **arguments}).eval()


def clips(count=2, frames=4, size=(64, 64)):
    return {
        "rgb": torch.rand(count, 3, frames, *size),
        "depth": torch.rand(count, 1, frames, *size),
    }


# ---------------------------------------------------------------------- shapes and sizes


@pytest.mark.parametrize("size", [(64, 64), (224, 160), (50, 37)])
@torch.no_grad()
def test_pyramid_and_neck_have_the_steps_they_say(size):
    maps = CSPPyramid(1, width=1 / 64).eval()(torch.rand(1, 1, *size))
    wanted = [tuple(-(-n // step) for n in size) for step in (8, 16, 32)]
    assert [tuple(x.shape[2:]) for x in maps] == wanted
    neck = PyramidNeck([x.shape[1] for x in maps], (3, 4, 5)).eval()
    assert [tuple(x.shape[1:]) for x in neck(maps)] == [
        (n, *s) for n, s in zip((3, 4, 5), wanted, strict=True)
    ]
    for frames in (1, 5):
        output = net()(clips(1, frames, size))
        assert output.logits.shape == (1, 1, 2)
        assert output.aux["places_4"].shape == (1, 2, frames, *wanted[1])


@pytest.mark.parametrize(("tag", "count"), [("n", 6_808_647), ("s", 19_756_519), ("l", 80_028_071)])
def test_parameters_of_the_full_sizes(tag, count):
    with torch.device("meta"):
        model = gaitzoo.create_model(f"parkinson_rgbd.{tag}")
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.pretrained_cfg.fidelity == "reconstruction"


def test_encoders_of_timm_and_ready_ones():
    model = net(encoder="resnet18", encoder_args=None)
    assert model(clips(1, 1)).embeddings.shape == (1, 1, 8)
    ready = net(encoder=CSPPyramid(3, width=1 / 64), encoder_args=None)
    assert ready(clips(1, 1)).embeddings.shape == (1, 1, 8)
    with pytest.raises(ValueError, match="maps of 8, 4 and 2 rows"):
        net(encoder=nn.ModuleList([nn.Identity()])[0], encoder_args=None)
    with pytest.raises(ValueError, match="network of timm with maps"):
        net(encoder="no_such_network", encoder_args=None)


# ---------------------------------------------------------------------- blocks


def test_local_and_global_context_by_loops_and_gradients():
    torch.manual_seed(0)
    block, x = MLGE(8), torch.randn(2, 8, 9, 7)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        optimizer.step()
    assert all(conv.weight.grad.abs().max() > 0 for conv in block.near)
    block.shares.data = torch.tensor([0.3, -1.0, 2.0])
    near = torch.zeros_like(x)
    for share, conv in zip(block.shares.softmax(0), block.near, strict=True):
        for c in range(8):
            near[:, c] += (
                share
                * F.conv2d(x[:, c : c + 1], conv.weight[c : c + 1], padding=conv.padding)[:, 0]
            )
    tokens = F.adaptive_avg_pool2d(x, 4).flatten(2).transpose(1, 2)
    far = block.far(tokens, tokens).transpose(1, 2).reshape(2, 8, 4, 4)
    far = F.interpolate(far, size=(9, 7), mode="bilinear")
    far = far * block.gate(x.mean((2, 3)))[..., None, None]
    assert relative_error(block(x), x + block.join(torch.cat([near, far], 1))) < 1e-5


@torch.no_grad()
def test_fusion_by_hand_swapped_and_over_three_maps():
    torch.manual_seed(0)
    fusion = CrossSpatialFusion(4).eval()
    a, b = torch.randn(2, 2, 4, 6, 5)
    joined, where = fusion([a, b])
    s_a, s_b = (
        conv(torch.stack([x.mean(1), x.amax(1)], 1)).sigmoid()
        for conv, x in zip(fusion.where, (a, b), strict=True)
    )
    wanted = fusion.join(torch.cat([a * (1 + s_b), b * (1 + s_a)], 1))
    assert relative_error(joined, wanted) < 1e-6
    assert bool(((where > 0) & (where < 1)).all())
    swapped = CrossSpatialFusion(4).eval()
    swapped.load_state_dict(fusion.state_dict())
    swapped.where = nn.ModuleList(reversed(fusion.where))
    weight = fusion.join[0].weight
    swapped.join[0].weight = nn.Parameter(torch.cat([weight[:, 4:], weight[:, :4]], 1))
    assert relative_error(swapped([b, a])[0], joined) < 1e-6
    three = CrossSpatialFusion(4, modalities=3).eval()
    present = torch.tensor([[True, False, True], [True, True, True]])
    dirty = b.clone()
    dirty[0] = NAN
    joined, where = three([a, dirty, a], present)
    assert joined.isfinite().all()
    assert not where[0, 1].any()


@torch.no_grad()
def test_places_move_with_the_picture():
    torch.manual_seed(0)
    fusion = CrossSpatialFusion(2).eval()
    x = torch.randn(1, 2, 24, 24)
    moved = x.roll((2, 3), (2, 3))
    places, after = fusion([x, x])[1], fusion([moved, moved])[1]
    inner = after[..., 8:20, 8:20]
    assert relative_error(inner, places.roll((2, 3), (2, 3))[..., 8:20, 8:20]) < 1e-5


@torch.no_grad()
def test_one_map_alone_keeps_the_scale():
    torch.manual_seed(0)
    fusion = CrossSpatialFusion(32).eval()
    a, b = torch.randn(2, 4, 32, 8, 8)
    both = fusion([a, b])[0].abs().mean()
    for alone in ([a, None], [None, b]):
        assert 0.5 < fusion(alone)[0].abs().mean() / both < 2


# ---------------------------------------------------------------------- frames


@torch.no_grad()
def test_frames_are_weighed_and_padding_never_counts():
    torch.manual_seed(0)
    pool = FrameEvidence(6)
    x, lengths = torch.randn(3, 6, 7), torch.tensor([7, 3, 1])
    for row, count in zip(x, lengths.tolist(), strict=True):
        row[:, count:] = NAN
    vectors, weights = pool(x, lengths)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    for i, count in enumerate(lengths.tolist()):
        alone, _ = pool(x[i : i + 1, :, :count])
        assert relative_error(vectors[i], alone[0]) < 1e-5
        assert not weights[i, count:].any()
    assert relative_error(pool(x[:1].flip(2))[0], pool(x[:1])[0]) > 1e-3
    still = x[:1, :, :1]
    assert relative_error(pool(still.expand(-1, -1, 5))[0], pool(still)[0]) < 1e-5


@torch.no_grad()
def test_missing_and_masked_modalities():
    model, both = net(zero_init=False), clips()
    noise = {**both, "depth": torch.full_like(both["depth"], NAN)}
    other = {**both, "depth": torch.rand_like(both["depth"])}
    mask = torch.tensor([[True, False]]).expand(2, -1)
    masked = model(noise, mask=mask)
    alone = model({"rgb": both["rgb"]})
    assert relative_error(masked.logits, alone.logits) < 1e-5
    assert relative_error(model(other).logits, model(both).logits) > 1e-4
    assert model({"depth": both["depth"]}).logits.isfinite().all()
    with pytest.raises(ValueError, match="none of sample 0"):
        model(both, mask=torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="bool tensor"):
        model(both, mask=torch.ones(2, 2))
    with pytest.raises(ValueError, match="got nothing"):
        model({})


def test_auxiliary_heads_and_the_loss():
    model, labels = net(aux_heads=True), torch.tensor([0, 1])
    output = model(clips())
    loss = RGBDGaitLoss([1.0, 3.0])(output, labels)
    weights = torch.tensor([1.0, 3.0])
    wanted = F.cross_entropy(output.logits[:, 0], labels, weights)
    for name in ("logits_rgb", "logits_depth"):
        wanted = wanted + 0.3 * F.cross_entropy(output.aux[name], labels, weights)
    assert torch.allclose(loss, wanted)
    assert not model({"rgb": clips()["rgb"]}).aux["logits_depth"].any()
    model.reset_classifier(4)
    assert model(clips()).aux["logits_rgb"].shape == (2, 4)


def blobs(labels, frames=4):
    """A bright block that moves right (class 0) or down (class 1)."""
    made = {"rgb": torch.zeros(len(labels), 3, frames, 32, 32)}
    for i, label in enumerate(labels):
        for t in range(frames):
            a, b = (6, 2 + 6 * t) if label == 0 else (2 + 6 * t, 6)
            made["rgb"][i, :, t, a : a + 8, b : b + 8] = 1
    made["rgb"] += 0.1 * torch.rand_like(made["rgb"])
    made["depth"] = made["rgb"][:, :1].clamp(0, 1)
    return made


def test_depth_carries_on_in_the_dark():
    labels, test = torch.tensor([0, 1] * 8), torch.tensor([0, 1] * 10)
    model = net(neck_channels=(8, 8, 8), dim=16, aux_heads=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        mask = torch.rand(16, 2) > 0.25
        mask |= ~mask.any(1, keepdim=True)
        optimizer.zero_grad()
        output = model(blobs(labels), mask=mask)
        RGBDGaitLoss()(output, labels).backward()
        optimizer.step()
    model.eval()

    @torch.no_grad()
    def accuracy(inputs):
        return (model(inputs).logits[:, 0].argmax(1) == test).float().mean().item()

    bright = blobs(test)
    dark = {**bright, "rgb": 0.03 * bright["rgb"]}
    assert accuracy(bright) == 1
    assert accuracy({"depth": bright["depth"]}) > 0.9
    assert accuracy(dark) > 0.9
    assert accuracy({"rgb": dark["rgb"]}) < 0.7


# ---------------------------------------------------------------------- reports


class Letters:
    """A tokenizer with a token per letter."""

    def __call__(self, text, add_special_tokens=False):
        return {"input_ids": [3 + ord(letter) % 37 for letter in text]}

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(97 + i % 26) for i in ids)


def reporter(family="gpt2", **arguments):
    torch.manual_seed(0)
    room = {"n_positions": 256} if family == "gpt2" else {"max_position_embeddings": 256}
    config = transformers.AutoConfig.for_model(**{**LLMS[family], **room})
    lm = transformers.AutoModelForCausalLM.from_config(config)
    return GaitReporter(lm, Letters(), 8, 3, task="Describe.", **arguments)


FACTS = {"age": 71, "view": "side", "cadence": "1.7 Hz"}


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_only_the_projector_learns(family):
    model = reporter(family).train()
    before = {name: p.clone() for name, p in model.lm.named_parameters()}
    soft = model.project.weight.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    embedding = torch.randn(2, 2, 4)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.loss(embedding, [FACTS, {"age": 3}], ["slow", "a longer one"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.equal(model.project.weight, soft)
    assert not model.lm.training
    for name, p in model.lm.named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[name])


@torch.no_grad()
def test_loss_of_a_batch_is_that_of_its_walks():
    model, embedding = reporter(), torch.randn(2, 8)
    facts, texts = [FACTS, {"age": 3}], ["slow", "wide"]
    together = model.loss(embedding, facts, texts)
    alone = [model.loss(embedding[i : i + 1], facts[i : i + 1], texts[i : i + 1]) for i in (0, 1)]
    assert torch.allclose(together, torch.stack(alone).mean(), atol=1e-5)


def test_prompt_and_generation():
    model = reporter()
    text = model.prompt(FACTS, {"PD": 0.7, "other": 0.3}, torch.tensor([0.1, 0.6, 0.3]), 2)
    assert text == (
        "Task: Describe.\nage: 71\nview: side\ncadence: 1.7 Hz\n"
        "predicted class: PD (probability 0.70)\nframes of highest attention: 1, 2\n"
        "Video: <gait>\nReport:"
    )
    assert "Video" not in model.prompt(FACTS, text_only=True)
    written = model.generate(torch.randn(1, 8), FACTS, max_new_tokens=5)
    assert 0 < len(written) <= 5
    assert model.generate(None, FACTS, text_only=True, max_new_tokens=5)
    with pytest.raises(ValueError, match="text_only=True does"):
        model.generate(None, FACTS)
    with pytest.raises(ValueError, match="at most 256 tokens"):
        model.generate(None, {"note": "x" * 300}, text_only=True)
    with pytest.raises(ValueError, match="facts without"):
        model.prompt({"note": "<gait>"})


def test_reporter_by_name(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "age": 1, ":": 2}, unk_token="[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    save_llm(tmp_path)
    model = GaitReporter.from_pretrained(str(tmp_path), 8, 2)
    assert model.loss(torch.randn(1, 8), [{"age": 3}], ["age"]).isfinite()
    with pytest.raises(OSError, match="cannot load the language model"):
        GaitReporter.from_pretrained(str(tmp_path / "none"), 8)
    with pytest.raises(ValueError, match="expected dtype among"):
        GaitReporter.from_pretrained(str(tmp_path), 8, dtype="int8")
