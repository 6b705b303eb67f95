"""A language model that reads vectors instead of words and is never trained.

Any decoder of transformers (https://github.com/huggingface/transformers): Llama, Qwen2, GPT-2,
Gemma, OPT and their like. transformers is imported when the first one is built, peft when low-rank
adapters are asked for. Names and configurations may come from strangers, in a saved model, so that
nothing here makes transformers fetch code from the Hub.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.rows import row_lengths, zero_past

__all__ = ["KNOWN_CONFIGS", "FrozenLLM"]

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
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Any other word is the name of code on the Hub to some versions of transformers.
_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2")


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
        revision: Branch, tag or commit, for names only. Afterwards the attribute says the commit.
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
        if dtype not in (None, *DTYPES):
            raise ValueError(f"expected dtype among {', '.join(DTYPES)} or None, got {dtype!r}")
        if attn_implementation not in _ATTENTIONS:
            raise ValueError(
                f"expected attn_implementation among {', '.join(map(str, _ATTENTIONS))}, got "
                f"{attn_implementation!r}"
            )
        self.grad_checkpointing = False
        self.name = llm if isinstance(llm, str) else None
        model, self.revision = _build(llm, revision, dtype, attn_implementation)
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
        return _structure(json.loads(self.model.config.to_json_string()))

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
        lengths = row_lengths(lengths, embeddings, *embeddings.shape[:2])
        if lengths is None:
            lengths = torch.full_like(embeddings[:, 0, 0], embeddings.shape[1], dtype=torch.int64)
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
        if self.grad_checkpointing and torch.is_grad_enabled():
            with self._checkpointed_layers():
                hidden = self._read(sentence, mask)
        else:
            # Without the block above, which torch 2.6 does not trace.
            hidden = self._read(sentence, mask)
        if self.bos_token_id is not None:
            hidden = hidden[:, 1:]
        return zero_past(hidden.to(embeddings.dtype), lengths)

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


def _build(
    llm: Any, revision: str | None, dtype: str | None, attention: str | None
) -> tuple[Any, str | None]:
    """The model without its layer that predicts words, and the commit of its weights."""
    # Its import fails in torch 2.6 inside a block of the meta device.
    with torch.device("cpu"):
        import transformers
        import transformers.modeling_utils
        from transformers.utils.import_utils import is_flash_attn_2_available

    if revision is not None and not isinstance(llm, str):
        raise ValueError(
            f"expected revision with a name only, got {revision!r} with a {type(llm).__name__}; "
            "leave it out"
        )
    if isinstance(llm, transformers.PreTrainedModel):
        if attention is not None:
            raise ValueError(
                "expected attn_implementation with a name or configuration only, got it with a "
                f"ready {type(llm).__name__}"
            )
        base = llm.base_model
        return (base if dtype is None else base.to(DTYPES[dtype])), None
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        # Some versions of transformers would fetch it from the Hub.
        raise ImportError(
            "flash attention needs a CUDA GPU and its package: pip install flash-attn, or leave "
            "attn_implementation out"
        )
    number = DTYPES[dtype or "float32"]
    # torch.get_default_device does not see the block of a device in all versions.
    if isinstance(llm, str) and torch.empty(0).device.type != "meta":
        return _load(llm, revision, number, attention)
    if isinstance(llm, str):
        # On the meta device there are no weights: the structure is enough.
        llm = KNOWN_CONFIGS.get(llm) or _published_config(llm, revision, attention)[0]
    if isinstance(llm, Mapping):
        fields = _lists(llm)
        _refuse_code(fields)
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
    arguments = {} if attention is None else {"attn_implementation": attention}
    model = transformers.AutoModel.from_config(llm, trust_remote_code=False, **arguments)
    return model.to(number), revision


def _load(
    name: str, revision: str | None, number: torch.dtype, attention: str | None
) -> tuple[Any, str | None]:
    """The weights of a name, every one of them, and their commit."""
    import transformers

    config, revision = _published_config(name, revision, attention)
    # transformers 4.56 renamed it; the old word still works but warns.
    version = tuple(int(n) for n in transformers.__version__.split(".")[:2])
    with _as_os_error(name):
        model, found = transformers.AutoModel.from_pretrained(
            name,
            config=config,
            revision=revision,
            trust_remote_code=False,
            output_loading_info=True,
            # Reported below, with what is missing: transformers would fill both at random.
            ignore_mismatched_sizes=True,
            **{"dtype" if version >= (4, 56) else "torch_dtype": number},
        )
        other = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
        for keys, problem in ((found["missing_keys"], "missing"), (other, "of another shape")):
            if keys:
                shown = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
                raise OSError(f"{len(keys)} of its weights are {problem} ({shown})")
    return model, revision


def _published_config(
    name: str, revision: str | None, attention: str | None
) -> tuple[Any, str | None]:
    """The structure behind a name, and the commit that its revision stands for."""
    import transformers
    from transformers.utils.hub import cached_file, extract_commit_hash

    with _as_os_error(name):
        if not Path(name).is_dir():
            # Not every version of transformers says which commit a branch or tag stood for.
            file = cached_file(name, "config.json", revision=revision)
            revision = extract_commit_hash(file, None) or revision
        config = transformers.AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    # Whatever the file asks for: it may name code on the Hub.
    config._attn_implementation = attention
    return config, revision


@contextlib.contextmanager
def _as_os_error(name: str) -> Iterator[None]:
    """What transformers and safetensors raise, in one kind."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(
            f"cannot load the language model {name!r}: {reason}. "
            "Expected a Hub name (which needs the network once) or a folder written by "
            "transformers; pass llm=path, or a configuration for random weights"
        ) from error


def _refuse_code(fields: Mapping[str, Any]) -> None:
    """Raises for what can make transformers fetch code, wherever it stands."""
    for key, value in fields.items():
        if _may_be_code(str(key)):
            raise ValueError(
                f"expected a configuration without {key}, which may name code on the Hub; leave "
                "it out (attn_implementation is an argument of its own)"
            )
        if isinstance(value, Mapping):
            _refuse_code(value)


def _may_be_code(key: str) -> bool:
    return key in ("auto_map", "attn_implementation") or key.startswith("_attn_implementation")


def _structure(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what differs in every version of transformers or may be code."""
    other = {"transformers_version", "architectures", "dtype", "torch_dtype"}
    return {
        key: _structure(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in other and not key.startswith("_") and not _may_be_code(key)
    }


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
