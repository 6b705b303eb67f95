"""Diffusion features: one call, one time step, nothing random, with fakes and with diffusers."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gaitzoo import DiffusionFeatureExtractor

SCALE = 0.18215


class Vae(nn.Module):
    """Means over 8 x 8 pixels; whoever draws from its distribution fails."""

    config = SimpleNamespace(scaling_factor=SCALE)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.seen = []

    def encode(self, images):
        self.seen.append(images)
        means = F.avg_pool2d(images, 8)[:, [0, 1, 2, 0]] * self.gain
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=means))


class UNet(nn.Module):
    config = SimpleNamespace(cross_attention_dim=6)

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, latents, timestep, encoder_hidden_states):
        self.calls.append((latents, timestep, encoder_hidden_states))
        return SimpleNamespace(sample=latents + 1)


def test_one_pass_at_one_time_step():
    vae, unet = Vae(), UNet()
    frame = torch.rand(1, 3, 1, 768, 384)
    found = DiffusionFeatureExtractor(vae, unet)(frame)
    assert found.shape == (1, 4, 1, 96, 48)
    assert not found.requires_grad
    assert len(vae.seen) == len(unet.calls) == 1
    latents, timestep, text = unet.calls[0]
    assert timestep == 700
    assert text.shape == (1, 77, 6)
    assert not text.any()
    # Colours from -1 to 1, latents times the scaling factor, and no noise.
    torch.testing.assert_close(vae.seen[0], 2 * frame[:, :, 0] - 1)
    wanted = F.avg_pool2d(2 * frame[0] - 1, (8, 8)).transpose(0, 1)[:, [0, 1, 2, 0]] * 2 * SCALE
    torch.testing.assert_close(latents, wanted)
    torch.testing.assert_close(found[:, :, 0], wanted + 1)
    assert torch.equal(found, DiffusionFeatureExtractor(vae, unet)(frame))


def test_crops_of_any_size_and_length():
    vae, unet = Vae(), UNet()
    text = torch.rand(1, 5, 6)
    extract = DiffusionFeatureExtractor(vae, unet, 300, text, image_size=(128, 64), chunk_frames=2)
    clips = torch.randint(0, 256, (2, 3, 4, 70, 30), dtype=torch.uint8)
    found = extract(clips, torch.tensor([4, 1]))
    assert found.shape == (2, 4, 4, 16, 8)
    assert not found[1, :, 1:].any()
    # Five frames, two at a time; those past the end are not computed.
    assert [len(latents) for latents, _, _ in unet.calls] == [2, 2, 1]
    assert all(step == 300 for _, step, _ in unet.calls)
    assert torch.equal(unet.calls[0][2], text.expand(2, -1, -1))
    torch.testing.assert_close(found[1:, :, :1], extract(clips[1:, :, :1].float() / 255))
    torch.testing.assert_close(found[:1], extract(clips[:1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timestep": -1}, "timestep"),
        ({"timestep": 1.5}, "timestep"),
        ({"image_size": (100, 64)}, "multiples of 64"),
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"text_embedding": torch.zeros(2, 3, 4)}, "text_embedding"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusionFeatureExtractor(Vae(), UNet(), **arguments)


def test_bad_colours_are_refused():
    extract = DiffusionFeatureExtractor(Vae(), UNet(), image_size=(64, 64))
    with pytest.raises(ValueError, match=r"rgb in \[0, 1\], got values from -1"):
        extract(torch.full((1, 3, 1, 64, 64), -1.0))
    with pytest.raises(ValueError, match=r"expected rgb \[N, 3, T, H, W\]"):
        extract(torch.rand(3, 1, 64, 64))
    with pytest.raises(ValueError, match="3 channel"):
        extract(torch.rand(1, 4, 1, 64, 64))
    with pytest.raises(TypeError, match="rgb as floats"):
        extract(torch.zeros(1, 3, 1, 64, 64, dtype=torch.int64))


def test_without_diffusers_the_reason_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'gaitzoo\[diffusion\]'"):
        DiffusionFeatureExtractor.from_pretrained("anything")


@pytest.mark.filterwarnings("ignore")
def test_networks_of_diffusers(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=4,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    (tmp_path / "words.json").write_text(
        '{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}'
    )
    (tmp_path / "pairs.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "words.json"), str(tmp_path / "pairs.txt"))
    for name, part in (
        ("vae", vae),
        ("unet", unet),
        ("text_encoder", text),
        ("tokenizer", tokenizer),
    ):
        part.save_pretrained(tmp_path / "model" / name)
    frames = torch.rand(1, 3, 2, 100, 60)
    found = []
    for empty_prompt in (True, False):
        extract = DiffusionFeatureExtractor.from_pretrained(
            str(tmp_path / "model"), empty_prompt=empty_prompt, image_size=(128, 64)
        )
        assert not any(p.requires_grad for p in extract.parameters())
        assert extract.text_embedding.any() == empty_prompt
        assert extract.text_embedding.shape == (1, 77, 8)
        found.append(extract(frames))
        assert found[-1].shape == (1, 4, 2, 16, 8)
        assert torch.equal(found[-1], extract(frames))
    assert not torch.allclose(*found)
    images = F.interpolate(
        2 * frames[0].transpose(0, 1) - 1, (128, 64), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode() * vae.config.scaling_factor
        wanted = unet(latents, 700, torch.zeros(2, 77, 8)).sample
    torch.testing.assert_close(found[1][0].transpose(0, 1), wanted, atol=1e-5, rtol=1e-4)
    with pytest.raises(OSError, match="cannot load the diffusion model"):
        DiffusionFeatureExtractor.from_pretrained(str(tmp_path / "nothing"))
