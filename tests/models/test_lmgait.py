"""LMGait: motion between frames, mixture of text levels, prompts' maps, frozen parts, padding."""

import math

import pytest
import torch
import transformers
from builders import make, padded
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import (
    GaitRepresentationExtractor,
    LanguageAlignmentLoss,
    LanguageGuidedAttention,
    MotionAwareness,
    MotionTemporalCapture,
    TextPromptBank,
)
from gaitzoo.hub.structure import structure_alone
from gaitzoo.synthetic import render_walk, sample_identity

NAN = float("nan")


class Tokenizer:
    """Words by their first letters; pads with the end, as CLIP's does."""

    eos_token_id = 29

    def __call__(self, texts, **_):
        rows = [[28, *(ord(word[0]) % 28 for word in text.split()), 29] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [29] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask})


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=30,
        hidden_size=6,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=12,
        eos_token_id=29,
        bos_token_id=28,
        pad_token_id=29,
    )
    return transformers.CLIPTextModel(config)


def motion(channels=4, lags=(1, 2)):
    torch.manual_seed(1)
    return MotionTemporalCapture(channels, lags).double().eval()


def filtered(block, x):
    """The block on one clip ``[C, T, H, W]``, written with loops, batch norms fresh."""
    count, total = x.shape[1], torch.zeros_like(x)
    for lag, (mix, filters, _) in zip(block.lags, block.filters, strict=True):
        mixed = torch.zeros_like(x)
        for t in range(count - lag):
            mixed[:, t] = torch.einsum(
                "oc,chw->ohw", mix.weight.flatten(1), x[:, t + lag] - x[:, t]
            )
        for t in range(count):
            for tap, moment in enumerate((t - 1, t, t + 1)):
                if 0 <= moment < count:
                    weight = filters.weight[:, 0, tap]
                    total[:, t] += weight * mixed[:, moment] / math.sqrt(1 + 1e-5)
    gate = torch.einsum("oc,cthw->othw", block.gate.weight.flatten(1), total)
    return x + total + x * (2 / (1 + torch.exp(-gate)) - 1)


@torch.no_grad()
def test_motion_is_that_of_its_definition_whatever_the_padding():
    block = motion()
    clips = [torch.randn(4, t, 3, 2).double() for t in (6, 1, 2, 3)]
    batch, lengths = torch.full((4, 4, 6, 3, 2), NAN).double(), torch.tensor([6, 1, 2, 3])
    for row, clip in zip(batch, clips, strict=True):
        row[:, : clip.shape[1]] = clip
    found = block(batch, lengths)
    for row, clip in zip(found, clips, strict=True):
        torch.testing.assert_close(row[:, : clip.shape[1]], filtered(block, clip))
        assert not row[:, clip.shape[1] :].any()
    with pytest.raises(ValueError, match="lags that differ"):
        MotionTemporalCapture(4, (1, 1))


@torch.no_grad()
def test_a_frame_that_is_repeated_stays_as_it_is():
    still = torch.randn(2, 4, 1, 3, 2).double().expand(-1, -1, 7, -1, -1)
    assert torch.equal(motion()(still), still)


@torch.no_grad()
def test_order_of_a_walk_matters_through_motion_alone():
    walk = render_walk(sample_identity(3), frames=12).silhouettes.double() / 255
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    frame_wise = nn.Conv3d(1, 4, (1, 5, 5), stride=(1, 4, 4)).double()
    x = frame_wise(walk[None, None])
    assert torch.equal(x.amax(2), x[:, :, order].amax(2))
    block = motion()
    change = relative_error(block(x[:, :, order]).amax(2), block(x).amax(2))
    assert change > 0.1, change
    # And so of the whole network.
    clips = torch.randn(1, 3, 12, 16, 8)
    for lags, least, most in (((), 0, 1e-5), ((1, 2), 1e-3, math.inf)):
        model = make("lmgait_tiny", lags=lags)
        a, b = (model(clips[:, :, i]).embeddings for i in (torch.arange(12), order))
        assert least <= relative_error(a, b) <= most


@torch.no_grad()
def test_levels_of_texts_are_mixed():
    torch.manual_seed(0)
    block = MotionAwareness(6, 8, num_levels=3).double()
    features, context = torch.randn(3, 5, 6).double(), torch.randn(2, 8).double()
    tokens, gates = block(features, context)
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 5).double())
    plain = [project(level) for project, level in zip(block.project, features, strict=True)]
    for n in range(2):
        for k in range(5):
            query = block.query(context[n])
            scores = torch.stack([query @ block.key(z[k]) for z in plain]) / math.sqrt(8)
            weights = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(gates[n, k], weights)
            wanted = sum(w * z[k] for w, z in zip(weights, plain, strict=True))
            torch.testing.assert_close(tokens[n, k], wanted)
    # Trained, the small matrices count.
    other = MotionAwareness(6, 8, num_levels=3, zero_init=False).double()
    assert relative_error(other(features, context)[0], tokens) > 0.01
    # Prompts in another order.
    order = torch.tensor([3, 0, 4, 1, 2])
    attention = LanguageGuidedAttention(4, 8).double()
    x, signs = torch.randn(2, 4, 3, 5, 2).double(), torch.tensor([1.0, 1, -1, 1, -1])
    guided, maps = attention(x, tokens, signs)
    moved, _ = block(features[:, order], context)
    torch.testing.assert_close(moved, tokens[:, order])
    again, permuted = attention(x, moved, signs[order])
    torch.testing.assert_close(permuted, maps[:, order])
    torch.testing.assert_close(again, guided)
    for wrong in (features[:2], features[..., :5]):
        with pytest.raises(ValueError, match=r"text features \[3, K, 6\]"):
            block(wrong, context)


@torch.no_grad()
def test_maps_of_prompts_are_cosines():
    torch.manual_seed(0)
    attention = LanguageGuidedAttention(4, 8, temperature=0.5).double()
    x, tokens = torch.randn(1, 4, 2, 3, 2).double(), torch.randn(1, 3, 8).double()
    signs = torch.tensor([1.0, 1.0, -1.0])
    guided, maps = attention(x, tokens, signs)
    for t in range(2):
        for i in range(3):
            v = attention.linear(x[0, :, t, i, 1])
            cosines = [(v @ token) / (v.norm() * token.norm()) for token in tokens[0]]
            wanted = [1 / (1 + math.exp(-2 * float(c))) for c in cosines]
            torch.testing.assert_close(maps[0, :, t, i, 1], torch.tensor(wanted).double())
            raised = v * (1 + (wanted[0] + wanted[1] - wanted[2]) / 3)
            torch.testing.assert_close(guided[0, :, t, i, 1], raised)
    assert attention.temperature == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"signs \[3\], got \[2\]"):
        attention(x, tokens, signs[:2])


@torch.no_grad()
def test_shapes_of_the_published_trunk():
    narrow = {"hidden": 32, "channels": (4, 8, 8, 16)}
    model = gaitzoo.create_model("lmgait", encoder=None, num_classes=7, **narrow).eval()
    output = model(torch.randn(2, 1920, 4, 32, 16))
    assert output.embeddings.shape == (2, 16, 256)
    assert output.logits.shape == (2, 16, 7)
    maps = output.aux["language_maps"]
    assert maps.shape == (2, 6, 4, 64, 32)
    assert maps.min() > 0
    assert maps.max() < 1


def test_parameters_are_as_many_as_stated():
    with structure_alone():
        model = gaitzoo.create_model("lmgait", num_classes=0)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    assert sum(size for size, _ in sizes) == 31_195_363
    assert sum(size for size, trained in sizes if trained) == 9_136_865


@torch.no_grad()
def test_what_is_told_of_a_clip_does_not_depend_on_its_batch_or_on_pieces():
    for guided in ("replace", "concat"):
        model = make("lmgait_tiny", guided=guided).double()
        clips = [torch.randn(3, t, 16, 8).double() for t in (5, 2, 3)]
        together = model(*padded(clips, NAN))
        model.chunk_frames = 1
        for n, clip in enumerate(clips):
            alone = model(clip[None])
            assert relative_error(together.embeddings[n], alone.embeddings[0]) < 1e-10
            for key, x in together.aux.items():
                over_time = key in ("language_maps", "stream")
                valid = x[n, :, : clip.shape[1]] if over_time else x[n]
                torch.testing.assert_close(valid, alone.aux[key][0])
                assert not over_time or not x[n, :, clip.shape[1] :].any()


@torch.no_grad()
def test_background_is_not_seen():
    model = make("lmgait_tiny")
    features = model.encode(torch.randn(1, 3, 4, 16, 8))
    person = torch.zeros(4, 1, 16, 8, dtype=torch.bool)
    person[:, :, 6:10, 3:5] = True
    model.foreground = lambda _: person
    model._see = lambda frames: frames
    model.prepare = lambda x, lengths: (x, lengths)
    wanted = model(features)
    # Corners, two pixels of DINOv2's away from the person.
    other = features.clone()
    other[..., :1, :] = 9.0
    other[..., -1:, :] = -9.0
    found = model(other)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.aux["pooled"], wanted.aux["pooled"])
    other[..., 4, 2] = 9.0
    assert not torch.equal(model(other).embeddings, wanted.embeddings)


def test_frozen_parts_get_no_gradients_and_the_rest_does():
    model = make("lmgait_tiny").train()
    frozen = {k: p.clone() for k, p in model.named_parameters() if not p.requires_grad}
    assert {k.split(".")[0] for k in frozen} == {"encoder", "mask_branch"}
    before = model.prompt_bank.features.clone()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    output = model(torch.randn(3, 3, 4, 16, 8))
    aux = output.aux
    loss = output.embeddings.square().mean() + LanguageAlignmentLoss()(
        aux["pooled"], aux["text_tokens"], aux["language_maps"], torch.tensor([4, 2, 4])
    )
    loss.backward()
    for name in ("awareness", "motions", "attention"):
        assert all(p.grad.any() for p in model.get_submodule(name).parameters()), name
    optimizer.step()
    assert all(model.get_parameter(k).grad is None for k in frozen)
    assert all(torch.equal(model.get_parameter(k), p) for k, p in frozen.items())
    assert torch.equal(model.prompt_bank.features, before)
    assert not list(model.prompt_bank.parameters())


def test_one_stream_of_a_share_of_clips_is_dropped():
    model = make("lmgait_tiny", stream_drop_rate=0.5)
    torch.manual_seed(0)
    ones = [torch.ones(400, 1, 1, 1, 1)] * 2
    left = torch.stack(model._without_some(ones)).flatten(1)
    assert left.sum(0).min() == 1
    assert 0.4 < (left.sum(0) == 1).float().mean() < 0.6
    assert (left[0] == 0).any()
    assert (left[1] == 0).any()


def test_bank_of_a_text_encoder(clip):
    prompts, coat = ("arms that swing", "legs"), ("the colour of a long coat",)
    clip.train()
    bank = TextPromptBank.from_clip(clip, prompts, coat, (1, 3), Tokenizer())
    assert clip.training  # left as it was
    assert bank.features.shape == (2, 3, 6)
    assert bank.signs.tolist() == [1, 1, -1]
    assert not bank.features.requires_grad
    # One text after the other, without padding: the same tokens of the module behind it.
    online = []
    for text in (*prompts, *coat):
        read = Tokenizer()([text])
        with torch.no_grad():
            states = clip.eval()(input_ids=read.input_ids, output_hidden_states=True).hidden_states
        online.append(torch.stack([states[1][0, -1], states[3][0, -1]]))
    module, context = MotionAwareness(6, 8, 2), torch.randn(2, 8)
    for a, b in zip(
        module(bank.features, context), module(torch.stack(online, 1), context), strict=True
    ):
        torch.testing.assert_close(a, b)
    model = gaitzoo.create_model("lmgait_tiny", prompts=bank).eval()
    assert model.model_args["prompts"] == prompts
    assert model.model_args["suppressed"] == coat
    assert torch.equal(model.prompt_bank.features, bank.features)


def test_model_with_a_bank_is_saved_with_its_features(clip, tmp_path):
    bank = TextPromptBank.from_clip(clip, ("legs", "arms"), (), (1, 2), Tokenizer())
    model = gaitzoo.create_model("lmgait_tiny", prompts=bank).eval()
    model.save_pretrained(tmp_path)
    again = gaitzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 3, 16, 8)
    with torch.no_grad():
        assert torch.equal(again(x).embeddings, model(x).embeddings)
    assert again.prompt_bank.prompts == ("legs", "arms")
    assert torch.equal(again.prompt_bank.features, bank.features)


def test_what_cannot_be_meant_is_refused(clip):
    features = torch.rand(2, 3, 6)
    for arguments, message in (
        ((features, ("a",)), r"\[L, 1, D\]"),
        ((features, "abc"), "tuple of texts"),
        ((features * NAN, ("a", "b", "c")), "finite text features"),
        ((features[0], ("a", "b", "c")), r"text features \[L, K, D\]"),
    ):
        with pytest.raises(ValueError, match=message):
            TextPromptBank(*arguments)
    with pytest.raises(ValueError, match="levels from 0 to 3"):
        TextPromptBank.from_clip(clip, ("a",), (), (4,), Tokenizer())
    with pytest.raises(ValueError, match="a tokenizer with a ready encoder"):
        TextPromptBank.from_clip(clip, ("a",))
    bank = TextPromptBank(features, ("a", "b", "c"))
    for arguments, message in (
        ({"guided": "add"}, 'guided "replace" or "concat"'),
        ({"stream_drop_rate": 2}, "stream_drop_rate of 0 to 1"),
        ({"prompts": "legs"}, "tuple of texts"),
        ({"prompts": bank, "text_levels": (1,)}, "bank of 1 levels"),
        ({"prompts": bank, "text_pretrained": True}, "prompts as texts"),
        ({"encoder_layers": (7,)}, "encoder_layers as numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            gaitzoo.create_model("lmgait_tiny", **arguments)
    extractor = GaitRepresentationExtractor(6, 8, 4, hidden=0)
    with pytest.raises(ValueError, match="maps of one size"):
        extractor(torch.rand(3, 8, 16, 8), torch.rand(3, 6, 8, 8))
    loss = LanguageAlignmentLoss()
    with pytest.raises(ValueError, match=r"pooled \[N, K, D\]"):
        loss(torch.rand(2, 3, 8), torch.rand(2, 2, 8), torch.rand(2, 3, 5, 4, 4))


def test_alignment_loss():
    torch.manual_seed(0)
    pooled, tokens, maps = torch.rand(2, 3, 8), torch.rand(2, 3, 8), torch.rand(2, 3, 5, 4, 2)
    lengths = torch.tensor([5, 2])
    wanted = sum(
        1 - float(a @ b / (a.norm() * b.norm()))
        for a, b in zip(pooled.flatten(0, 1), tokens.flatten(0, 1), strict=True)
    )
    overlaps = [
        float(torch.minimum(maps[n, i, t], maps[n, j, t]).mean())
        for n, length in enumerate(lengths)
        for t in range(length)
        for i in range(3)
        for j in range(i)
    ]
    maps[1, :, 2:] = NAN
    found = LanguageAlignmentLoss(0.5)(pooled, tokens, maps, lengths)
    assert float(found) == pytest.approx(wanted / 6 + 0.5 * sum(overlaps) / len(overlaps))
