"""A language model that reads vectors instead of words and is never trained.

Any decoder of transformers (https://github.com/huggingface/transformers): Llama, Qwen2, GPT-2,
Gemma, OPT and their like. transformers is imported when the first one is built, peft when low-rank
adapters are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from gaitzoo._checks import check_lengths, shape_of
from gaitzoo.tokens import zero_past

__all__ = ["KNOWN_CONFIGS", "FrozenLLM", "fingerprint"]

# Structures as their publishers state them, so that no file is needed where there are no weights.
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
    }
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class FrozenLLM(nn.Module):
    """A language model as a fixed layer: vectors in, vectors out.

    Its parameters take no gradients and it stays in eval mode, but gradients pass through it to
    what stands before it. It runs without a cache and without the layer that predicts words.

    Source: GaitLLM (CVPR 2025): the frozen model reads the gait sentence as embeddings. Our
    choices: which model, the last hidden layer, its own causal mask, positions 0 to L - 1, no
    prompt, and its own first word (``bos``) before the sentence, whose output is dropped: the
    first place of such models tends to have a very large output whatever stands there, which a
    maximum over the sentence would pick up.

    Args:
        llm: What to load: a Hub name or a folder (with its weights), a configuration of
            transformers or the same as a mapping with ``"model_type"`` (random weights), or a
            model of transformers (as it is; a layer that predicts words is left out).
        revision: Branch, tag or commit, for Hub names. Afterwards the attribute says the commit.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; ``None`` = float32, or that of a
            ready model. The layers around it keep their own.
        attn_implementation: For transformers: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``.
        bos: Put the model's first word before the sentence, if it has one.
        lora: Arguments of ``peft.LoraConfig``, for example ``{"r": 8}``: trainable low-rank
            adapters inside the frozen model. Not in the paper. Needs peft.

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
        OSError: If the name cannot be loaded.
        ValueError: If an argument has none of the values named here, or a sentence is too long.
        TypeError: If ``llm`` is something else.
        ImportError: If ``lora`` is given without peft.

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
        if dtype not in (None, *_DTYPES):
            raise ValueError(f"expected dtype among {', '.join(_DTYPES)} or None, got {dtype!r}")
        self.grad_checkpointing = False
        self.name = llm if isinstance(llm, str) else None
        model = _build(llm, revision, dtype, attn_implementation)
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"expected a decoder (Llama, Qwen2, GPT-2, Gemma, OPT, ...), got "
                f"{type(model).__name__}, which has an encoder too"
            )
        model.requires_grad_(False)
        if lora is not None:
            model = _with_lora(model, lora)
        self.model = model
        self.revision = getattr(model.config, "_commit_hash", None) or revision
        words = model.get_input_embeddings()
        self.hidden_size = words.weight.shape[1]
        self.embedding_scale = _root_mean_square(words)
        self.max_tokens = getattr(model.config, "max_position_embeddings", None)
        first = getattr(model.config, "bos_token_id", None)
        self.bos_token_id = first if bos and isinstance(first, int) else None
        if self.bos_token_id is not None and self.max_tokens is not None:
            self.max_tokens -= 1
        self.eval()

    @property
    def config_dict(self) -> dict[str, Any]:
        """The structure, as a mapping that JSON can hold and ``llm=`` takes."""
        config = json.loads(self.model.config.to_json_string())
        # Of no meaning for the structure, and different in every version of transformers.
        for key in ("transformers_version", "architectures", "dtype", "torch_dtype"):
            config.pop(key, None)
        return config

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
        if lengths is None:
            lengths = torch.full_like(embeddings[:, 0, 0], embeddings.shape[1], dtype=torch.int64)
        else:
            lengths = check_lengths(lengths, *embeddings.shape[:2]).to(embeddings.device)
        words = self.model.get_input_embeddings()
        sentence = zero_past(embeddings, lengths).to(words.weight.dtype)
        count = lengths
        if self.bos_token_id is not None:
            first = words(torch.full_like(lengths[:, None], self.bos_token_id))
            sentence, count = torch.cat([first, sentence], dim=1), lengths + 1
        mask = (torch.arange(sentence.shape[1], device=sentence.device) < count[:, None]).long()
        if mask.device.type == "meta":
            # Transformers looks into masks of rows, which have no values there.
            mask = mask[:, None, None].expand(-1, 1, mask.shape[1], -1).bool()
        with self._checkpointed_layers():
            hidden = self.model(
                inputs_embeds=sentence, attention_mask=mask, use_cache=False
            ).last_hidden_state
        if self.bos_token_id is not None:
            hidden = hidden[:, 1:]
        return zero_past(hidden.to(embeddings.dtype), lengths)

    @contextlib.contextmanager
    def _checkpointed_layers(self) -> Iterator[None]:
        """Recomputes every layer in the backward pass; transformers' own way needs train mode."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            yield
            return
        layers = self._layers()
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _layers(self) -> list[nn.Module]:
        count = self.model.config.num_hidden_layers
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return list(module)
        raise ValueError(
            f"expected a list of {count} layers in {type(self.model).__name__}, found none; "
            "gradient checkpointing is not possible for it"
        )


def fingerprint(module: nn.Module) -> str:
    """Hash of a module's weights, as 64 hexadecimal digits.

    Values are rounded to bfloat16, so that a model has the same hash in float64, float32 and
    bfloat16; low-rank adapters do not count.

    Args:
        module: Any module; on the meta device, which has no values, all digits are zero.

    Example:
        >>> fingerprint(torch.nn.Linear(2, 2)) == fingerprint(torch.nn.Linear(2, 2))
        False
    """
    digest = hashlib.sha256()
    tensors = {
        key.replace(".base_layer.", "."): tensor
        for key, tensor in module.state_dict().items()
        if "lora_" not in key
    }
    for key in sorted(tensors):
        tensor = tensors[key].detach()
        if tensor.device.type == "meta":
            return "0" * 64
        digest.update(f"{key} {list(tensor.shape)}".encode())
        if tensor.is_floating_point():
            tensor = tensor.to(torch.bfloat16).view(torch.int16)
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _build(llm: Any, revision: str | None, dtype: str | None, attention: str | None) -> Any:
    import transformers

    arguments: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if isinstance(llm, transformers.PreTrainedModel):
        if revision is not None or attention is not None:
            raise ValueError(
                "expected revision and attn_implementation with a name or configuration only, got "
                f"them with a ready {type(llm).__name__}"
            )
        base = llm.base_model
        return base if dtype is None else base.to(_DTYPES[dtype])
    number = _DTYPES[dtype or "float32"]
    # torch.get_default_device does not see the block of a device in all versions.
    on_meta = torch.empty(0).device.type == "meta"
    if isinstance(llm, str) and not on_meta:
        # transformers 4.56 renamed it; the old word still works but warns.
        version = tuple(int(n) for n in transformers.__version__.split(".")[:2])
        arguments["dtype" if version >= (4, 56) else "torch_dtype"] = number
        try:
            return transformers.AutoModel.from_pretrained(llm, revision=revision, **arguments)
        except (OSError, ValueError) as error:
            raise OSError(
                f"cannot load the language model {llm!r}: {str(error).strip().splitlines()[0]}. "
                "Expected a Hub name (which needs the network once) or a folder written by "
                "transformers; pass llm=path, or a configuration for random weights"
            ) from error
    if isinstance(llm, str):
        # On the meta device there are no weights: the structure is enough.
        llm = KNOWN_CONFIGS.get(llm) or transformers.AutoConfig.from_pretrained(
            llm, revision=revision
        )
    if isinstance(llm, Mapping):
        fields = _lists(llm)
        if "model_type" not in fields:
            raise ValueError(
                'expected a configuration with "model_type", for example "qwen2", got '
                f"{', '.join(map(str, fields)) or 'nothing'}"
            )
        llm = transformers.AutoConfig.for_model(**fields)
    if not isinstance(llm, _config_class()):
        raise TypeError(
            "expected llm as a Hub name, a folder, a configuration or a model of transformers, "
            f"got {type(llm).__name__}"
        )
    return transformers.AutoModel.from_config(llm, **arguments).to(number)


def _config_class() -> type:
    from transformers.configuration_utils import PretrainedConfig

    return PretrainedConfig


def _lists(value: Any) -> Any:
    """Configurations want lists where a saved model's arguments have tuples."""
    if isinstance(value, Mapping):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, tuple) else value


def _with_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("lora needs peft: pip install peft, or leave lora out") from error
    model = peft.inject_adapter_in_model(peft.LoraConfig(**_lists(lora)), model)
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
