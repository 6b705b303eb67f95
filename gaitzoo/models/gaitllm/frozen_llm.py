"""A language model that reads vectors instead of words and is never trained.

Any decoder of transformers (https://github.com/huggingface/transformers): Llama, Qwen2, GPT-2,
Gemma, OPT and their like. transformers is imported when the first one is built, peft when low-rank
adapters are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from gaitzoo.layers.checks import plain_values, shape_of
from gaitzoo.layers.sequence import lengths_for, mask_fill
from gaitzoo.models.gaitllm.llm_loading import build_llm, structure_of

__all__ = ["FrozenLLM"]


class FrozenLLM(nn.Module):
    """A language model as a fixed layer: vectors in, vectors out.

    Its parameters take no gradients and it stays in eval mode, but gradients pass through it to
    what stands before it. It runs without a cache and without the layer that predicts words. A
    model that is handed over is frozen in place, not copied.

    Source: GaitLLM (CVPR 2025): the frozen model reads the gait sentence as embeddings. Our
    choices: which model, and its own first word (``bos``) before the sentence, whose output is
    dropped: the first place of such models tends to have a very large output whatever stands
    there, which a maximum over the sentence would pick up. Fixed, without a source: the last hidden
    layer, the model's own causal mask, positions 0 to L - 1, no prompt.

    Args:
        llm: What to load: a Hub name or a folder (with its weights; models whose code is on the
            Hub are refused), a configuration of transformers or the same as a mapping with
            ``"model_type"`` (random weights), or a model of transformers (this very one, frozen
            from now on; a layer that predicts words is left out).
        revision: Branch, tag or commit, for names only. The attribute is the commit.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``None`` = float32, or that of a
            ready model. The layers around it keep their own.
        attn_implementation: For transformers: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``
            (with the package flash-attn and a GPU); ``None`` = what transformers takes.
        bos: Put the model's first word before the sentence, if it has one.
        lora: Arguments of ``peft.LoraConfig``, for example ``{"r": 8}``: trainable low-rank
            adapters inside the frozen model. Not in the paper. Needs peft. As the model stays in
            eval mode, ``lora_dropout`` never acts.

    Shapes:
        embeddings: ``[N, L, D]`` with D = ``hidden_size``, any values.
        lengths: ``[N]`` int64, valid places; ``None`` = all L.
        returns: ``[N, L, D]`` in the dtype of ``embeddings``; zeros past the end.

    Attributes:
        hidden_size: D.
        max_tokens: The longest sentence that fits, ``None`` = any.
        embedding_scale: Root mean square of the word embeddings.
        name: Hub name or folder; ``None`` for weights that have no other home.
        revision: Commit of the weights, if they came from the Hub.

    Raises:
        OSError: If the name cannot be loaded, completely, without code from the Hub.
        ValueError: If an argument has none of the values named here, the first word is not in
            the vocabulary, or a sentence is too long.
        TypeError: If ``llm`` is something else.
        ImportError: If ``lora`` is given without peft, or flash attention without its package.

    Example:
        >>> config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2,
        ...           "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
        >>> llm = FrozenLLM(config)
        >>> llm(torch.rand(2, 5, 16), torch.tensor([5, 3])).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        llm: str | Mapping[str, Any] | nn.Module | Any,
        *,
        revision: str | None = None,
        dtype: str | None = None,
        attn_implementation: str | None = None,
        bos: bool = True,
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.name = llm if isinstance(llm, str) else None
        self.attn_implementation, self.bos, self.lora = attn_implementation, bos, lora
        model, self.revision = build_llm(llm, revision, dtype, attn_implementation)
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"expected a decoder (Llama, Qwen2, GPT-2, Gemma, OPT, ...), got "
                f"{type(model).__name__}, which has an encoder too"
            )
        model.requires_grad_(False)
        if lora is not None:
            model = _with_lora(model, lora)
        self.model = model
        words = model.get_input_embeddings()
        # At first: a model that is converted later is built again as it was.
        self.dtype = str(words.weight.dtype).removeprefix("torch.")
        self.hidden_size = words.weight.shape[1]
        self.embedding_scale = _root_mean_square(words)
        self.max_tokens = getattr(model.config, "max_position_embeddings", None)
        first = getattr(model.config, "bos_token_id", None)
        self.bos_token_id = first if bos and isinstance(first, int) else None
        num_words = words.weight.shape[0]
        if self.bos_token_id is not None and not 0 <= self.bos_token_id < num_words:
            raise ValueError(
                f"expected a bos_token_id among the {num_words} words of the language model, got "
                f"{first}; correct the configuration, or pass bos=False"
            )
        if self.bos_token_id is not None and self.max_tokens is not None:
            self.max_tokens -= 1
        self.eval()

    @property
    def config_dict(self) -> dict[str, Any]:
        """The structure, as a mapping that JSON can hold and ``llm=`` takes."""
        return structure_of(json.loads(self.model.config.to_json_string()))

    def config_args(self) -> dict[str, Any]:
        """What :class:`GaitLLM` is built with to get this language model, as JSON can hold it.

        A name, or the structure of weights that have no other home.
        """
        return {
            "llm": self.config_dict if self.name is None else self.name,
            "llm_revision": None if self.name is None else self.revision,
            "llm_dtype": self.dtype,
            "attn_implementation": self.attn_implementation,
            "lora": self.lora,
            "bos": self.bos,
        }

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever is asked for: no dropout in a frozen model."""
        return super().train(False)

    def forward(self, embeddings: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the last hidden states of the sentence."""
        if embeddings.ndim != 3 or embeddings.shape[2] != self.hidden_size:
            raise ValueError(
                f"expected embeddings [N, L, {self.hidden_size}], got {shape_of(embeddings)}"
            )
        if self.max_tokens is not None and embeddings.shape[1] > self.max_tokens:
            raise ValueError(
                f"expected at most {self.max_tokens} tokens, which the language model reads, got "
                f"{embeddings.shape[1]}; keep fewer frames (max_keep)"
            )
        lengths = lengths_for(lengths, embeddings, axis=1)
        if lengths is None:
            lengths = torch.full_like(embeddings[:, 0, 0], embeddings.shape[1], dtype=torch.int64)
        words = self.model.get_input_embeddings()
        sentence = mask_fill(embeddings, lengths, axis=1).to(words.weight.dtype)
        count = lengths
        if self.bos_token_id is not None:
            first = words(torch.full_like(lengths[:, None], self.bos_token_id))
            sentence, count = torch.cat([first, sentence], dim=1), lengths + 1
        mask = (torch.arange(sentence.shape[1], device=sentence.device) < count[:, None]).long()
        if mask.device.type == "meta":
            # Transformers looks into masks of rows, which have no values there.
            mask = mask[:, None, None].expand(-1, 1, mask.shape[1], -1).bool()
        if self.grad_checkpointing and torch.is_grad_enabled():
            with self._checkpointed_layers():
                hidden = self._read(sentence, mask)
        else:
            # Without the block above, which torch 2.6 does not trace.
            hidden = self._read(sentence, mask)
        if self.bos_token_id is not None:
            hidden = hidden[:, 1:]
        return mask_fill(hidden.to(embeddings.dtype), lengths, axis=1)

    def _read(self, sentence: Tensor, mask: Tensor) -> Tensor:
        return self.model(
            inputs_embeds=sentence, attention_mask=mask, use_cache=False
        ).last_hidden_state

    @contextlib.contextmanager
    def _checkpointed_layers(self) -> Iterator[None]:
        """Recomputes every layer in the backward pass; transformers' own way needs train mode."""
        layers = self._layers()
        # Other libraries put a forward of their own on a layer, which must be there afterwards.
        own = [vars(layer).get("forward") for layer in layers]
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer, forward in zip(layers, own, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def _layers(self) -> list[nn.Module]:
        count = self.model.config.num_hidden_layers
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return list(module)
        raise ValueError(
            f"expected a list of {count} layers in {type(self.model).__name__}, found none; "
            "gradient checkpointing is not possible for it"
        )


def _with_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("lora needs peft: pip install peft, or leave lora out") from error
    model = peft.inject_adapter_in_model(peft.LoraConfig(**plain_values(lora, list)), model)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in key)
    return model


@torch.no_grad()
def _root_mean_square(words: nn.Module) -> Tensor:
    """Of what comes out of a table of words, a part at a time: tables are large."""
    table = words.weight
    assert isinstance(table, Tensor)
    squares = sum(part.float().square().sum() for part in table.split(16384))
    # Some tables multiply what they look up.
    return (squares / table.numel()) ** 0.5 * getattr(words, "embed_scale", 1.0)
