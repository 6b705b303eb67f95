"""Descriptions of gait, and what a text encoder makes of them, computed once.

Source: LMGait (https://arxiv.org/abs/2601.11931, AAAI 2026), a reconstruction: that descriptions
are fixed and read by CLIP's frozen text encoder is the authors'; their words, and the layers that
are read, are [inferred].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import shape_of

__all__ = ["CLOTHING_PROMPTS", "GAIT_PROMPTS", "TextPromptBank"]

GAIT_PROMPTS: tuple[str, ...] = (
    "the swinging arms of a walking person",
    "the alternating legs of a walking person",
    "the lean of the torso of a walking person",
    "the stride and the feet of a walking person",
    "the head and the shoulders of a walking person",
)
"""What to look at."""

CLOTHING_PROMPTS: tuple[str, ...] = ("the texture and the colours of clothes",)
"""What to look away from."""


class TextPromptBank(nn.Module):
    """Features of a few fixed texts, of several layers of a text encoder; nothing is trained.

    The features are buffers: they are saved with a model, so that it needs no text encoder.

    Args:
        features: ``[L, K, D]``, the K texts as each of L layers has them.
        prompts: Texts that say what to look at.
        suppressed: Texts behind them that say what to look away from.

    Shapes:
        features: ``[L, K, D]``, the buffer.
        signs: ``[K]``, a buffer, 1, or -1 for what to look away from.

    Raises:
        ValueError: If axes or numbers do not fit, a feature is not finite, or texts are no tuples.

    Example:
        >>> bank = TextPromptBank(torch.rand(3, 2, 8), ("moving legs",), ("a red coat",))
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
        >>> net(bank.features).shape, bank.signs.tolist()
        (torch.Size([3, 2, 4]), [1.0, -1.0])
    """

    features: Tensor
    signs: Tensor

    def __init__(
        self, features: Tensor, prompts: Sequence[str], suppressed: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.prompts, self.suppressed = _texts(prompts), _texts(suppressed)
        if features.ndim != 3 or 0 in features.shape or not features.is_floating_point():
            raise ValueError(
                f"expected text features [L, K, D] of floats, got {shape_of(features)} "
                f"{features.dtype}"
            )
        if not features.is_meta and not bool(features.isfinite().all()):
            raise ValueError("expected finite text features, got NaN or infinite values")
        count = len(self.prompts) + len(self.suppressed)
        if features.shape[1] != count:
            raise ValueError(
                f"expected features [L, {count}, D], those of texts to look away from last, "
                f"got {shape_of(features)}"
            )
        signs = torch.ones(count, dtype=features.dtype)
        signs[len(self.prompts) :] = -1
        self.register_buffer("features", features.detach().clone())
        self.register_buffer("signs", signs.to(features.device))

    @classmethod
    def from_clip(
        cls,
        encoder: Any = "openai/clip-vit-base-patch16",
        prompts: Sequence[str] = GAIT_PROMPTS,
        suppressed: Sequence[str] = CLOTHING_PROMPTS,
        levels: Sequence[int] = (4, 8, 12),
        tokenizer: Any = None,
    ) -> Self:
        """The bank of a text encoder: the state at the end of each text, of every layer asked for.

        Args:
            encoder: Name of CLIP on the Hub (network, once) or of a folder, or a
                ``transformers.CLIPTextModel``.
            prompts: See the class.
            suppressed: See the class.
            levels: Layers, counted from 1; 0 = the embeddings of words.
            tokenizer: ``transformers.CLIPTokenizer`` of a ready encoder.

        Raises:
            ValueError: If there is no text, a layer does not exist, or a ready encoder comes
                without tokenizer.
            OSError: If the encoder cannot be loaded.
        """
        texts = [*_texts(prompts), *_texts(suppressed)]
        if not texts:
            raise ValueError("expected prompts, one or more texts, got none")
        if isinstance(encoder, str):
            from transformers import CLIPTextModel, CLIPTokenizer

            tokenizer = tokenizer or CLIPTokenizer.from_pretrained(encoder)
            encoder = CLIPTextModel.from_pretrained(encoder)
        if tokenizer is None:
            raise ValueError("expected a tokenizer with a ready encoder, got None")
        depth = encoder.config.num_hidden_layers
        if not levels or any(type(n) is not int or not 0 <= n <= depth for n in levels):
            raise ValueError(f"expected levels from 0 to {depth}, got {levels!r}")
        read = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        read = read.to(next(encoder.parameters()).device)
        # The first of them: CLIP pads with the sign that ends a text.
        ends = (read.input_ids == tokenizer.eos_token_id).int().argmax(dim=1)
        was_training = encoder.training
        with torch.no_grad():
            states = encoder.eval()(
                input_ids=read.input_ids,
                attention_mask=read.attention_mask,
                output_hidden_states=True,
            ).hidden_states
        encoder.train(was_training)
        rows = torch.arange(len(ends), device=ends.device)
        features = torch.stack([states[level][rows, ends] for level in levels])
        return cls(features.float().cpu(), prompts, suppressed)


def _texts(texts: object) -> tuple[str, ...]:
    given = isinstance(texts, tuple | list)
    if not given or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected prompts as a tuple of texts, got {texts!r}")
    return tuple(texts)
