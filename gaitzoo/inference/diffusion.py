"""What a frozen diffusion model sees in colour crops of people: the input of DenoisingGait.

Source: DenoisingGait (https://arxiv.org/abs/2505.18582, CVPR 2025); the networks are those of
diffusers (https://huggingface.co/docs/diffusers), which is imported when they are loaded.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.data.modalities import find_modality
from gaitzoo.layers.checks import check_size, check_values
from gaitzoo.layers.sequence import lengths_to_mask

__all__ = ["DiffusionFeatureExtractor"]

_TOKENS = 77  # of a prompt


class DiffusionFeatureExtractor(nn.Module):
    """One pass of a frozen latent diffusion model over every frame: its guess of the noise.

    The VAE encodes a frame (mean of its distribution times the scaling factor), and the U-Net
    reads that latent as if it stood at ``timestep``, though no noise was added. Nothing is drawn
    at random, and there are no gradients.

    Source: https://arxiv.org/abs/2505.18582; time step, size and the absence of noise follow notes
    on the paper and the authors' configuration. Inferred: the mean of the latent, the text, and
    bilinear resizing of crops to ``image_size`` whatever their proportions.

    Args:
        vae: Has ``encode(images).latent_dist.mean`` and ``config.scaling_factor``, as diffusers'
            ``AutoencoderKL``.
        unet: Called with latents, time step and ``encoder_hidden_states=``, gives ``.sample``, as
            diffusers' ``UNet2DConditionModel``.
        timestep: Time step, 0 or more; Stable Diffusion has 1000.
        text_embedding: What the U-Net is told of the picture, ``[1, L, D]``; ``None`` = zeros, as
            many as ``unet.config.cross_attention_dim`` says.
        image_size: Height and width of the images that the VAE reads, pixels.
        chunk_frames: Most frames that are computed at a time.

    Shapes:
        rgb: ``[N, 3, T, H, W]``, floats in [0, 1] or uint8 0..255: crops of the walker.
        lengths: ``[N]`` int64, valid frames, the others are not computed; ``None`` = all T.
        returns: ``[N, 4, T, h, w]`` float32, an eighth of ``image_size``, zeros past the end.

    Raises:
        TypeError: If ``rgb`` is neither uint8 nor floats.
        ValueError: If an argument, axes, values or lengths are out of range.

    Example:
        >>> class Config:
        ...     scaling_factor, cross_attention_dim = 0.18215, 768
        >>> class Found:
        ...     def __init__(self, x):
        ...         self.latent_dist, self.mean, self.sample = self, x, x
        >>> class Networks:
        ...     config = Config
        ...     def encode(self, images):
        ...         return Found(images[:, [0, 1, 2, 0], ::8, ::8])
        ...     def __call__(self, latents, timestep, encoder_hidden_states):
        ...         return Found(latents)
        >>> extract = DiffusionFeatureExtractor(Networks(), Networks())
        >>> extract(torch.rand(1, 3, 2, 200, 90)).shape
        torch.Size([1, 4, 2, 96, 48])
    """

    text_embedding: Tensor

    def __init__(
        self,
        vae: Any,
        unet: Any,
        timestep: int = 700,
        text_embedding: Tensor | None = None,
        *,
        image_size: tuple[int, int] = (768, 384),
        chunk_frames: int = 8,
    ) -> None:
        super().__init__()
        if type(timestep) is not int or timestep < 0:
            raise ValueError(f"expected timestep as a whole number of 0 or more, got {timestep!r}")
        height, width = image_size
        check_size(height=height, width=width, chunk_frames=chunk_frames)
        if height % 64 or width % 64:
            # An eighth for the VAE, another for the U-Net.
            raise ValueError(f"expected image_size as two multiples of 64, got {image_size!r}")
        if text_embedding is None:
            text_embedding = torch.zeros(1, _TOKENS, unet.config.cross_attention_dim)
        if text_embedding.ndim != 3 or text_embedding.shape[0] != 1:
            raise ValueError(f"expected text_embedding [1, L, D], got {list(text_embedding.shape)}")
        self.vae, self.unet, self.timestep = vae, unet, timestep
        self.image_size, self.chunk_frames = (height, width), chunk_frames
        self.register_buffer("text_embedding", text_embedding, persistent=False)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "stable-diffusion-v1-5/stable-diffusion-v1-5",
        *,
        empty_prompt: bool = True,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Self:
        """Loads a Stable Diffusion model by its name (network, once) or from a folder.

        Weights of Stable Diffusion v1.5 are under the CreativeML OpenRAIL-M licence. The authors'
        configuration names ``"segmind/tiny-sd"``, notes on the paper v1.5.

        Args:
            name: Repository on the Hub, or a folder, in diffusers' layout.
            empty_prompt: Embed the empty prompt (loads the text encoder too); ``False`` = zeros.
            dtype: Type of the networks; ``torch.float16`` on GPUs.
            **options: As for the constructor.

        Raises:
            ImportError: If diffusers is not installed.
            OSError: If the weights cannot be loaded.
        """
        try:
            diffusers = importlib.import_module("diffusers")
        except ImportError as error:
            raise ImportError(
                "expected diffusers to load a diffusion model, got none; "
                "pip install 'gaitzoo[diffusion]'"
            ) from error
        try:
            vae, unet = (
                network.from_pretrained(name, subfolder=folder, torch_dtype=dtype)
                for network, folder in (
                    (diffusers.AutoencoderKL, "vae"),
                    (diffusers.UNet2DConditionModel, "unet"),
                )
            )
            text = _empty_prompt(name) if empty_prompt else None
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(
                f"cannot load the diffusion model {name!r}: {reason}. Its weights come from the "
                "Hub (network, once); a folder in diffusers' layout serves too"
            ) from error
        for network in (vae, unet):
            network.requires_grad_(False).eval()
        return cls(vae, unet, text_embedding=text, **options)

    @torch.no_grad()
    def forward(self, rgb: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features of all valid frames."""
        if isinstance(rgb, Tensor) and rgb.dtype == torch.uint8:
            rgb = rgb.float() / 255
        x, lengths = find_modality("rgb").prepare(rgb, lengths)
        check_values(x, 0, 1, "rgb")
        x = x.transpose(1, 2)
        if lengths is None:
            valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        else:
            valid = lengths_to_mask(lengths, x.shape[1])
        found = torch.cat([self._features(part) for part in x[valid].split(self.chunk_frames)])
        features = found.new_zeros(*valid.shape, *found.shape[1:])
        features[valid] = found
        return features.transpose(1, 2).contiguous()

    def _features(self, frames: Tensor) -> Tensor:
        """``[B, 4, h, w]`` of colours ``[B, 3, H, W]`` in [0, 1]."""
        if tuple(frames.shape[2:]) != self.image_size:
            frames = F.interpolate(
                frames, self.image_size, mode="bilinear", align_corners=False, antialias=True
            )
        dtype = getattr(self.vae, "dtype", frames.dtype)
        found = self.vae.encode((2 * frames - 1).to(dtype))
        latents = found.latent_dist.mean * self.vae.config.scaling_factor
        text = self.text_embedding.to(latents).expand(len(latents), -1, -1)
        return self.unet(latents, self.timestep, encoder_hidden_states=text).sample.float()


def _empty_prompt(name: str) -> Tensor:
    """What the text encoder makes of no words, ``[1, 77, D]``."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer: Any = CLIPTokenizer.from_pretrained(name, subfolder="tokenizer")
    encoder: Any = CLIPTextModel.from_pretrained(name, subfolder="text_encoder")
    tokens = tokenizer("", padding="max_length", max_length=_TOKENS, return_tensors="pt")
    with torch.no_grad():
        return encoder.eval()(tokens.input_ids).last_hidden_state
