"""Language models from names, configurations and ready modules, without code from the Hub.

transformers (https://github.com/huggingface/transformers) is imported when the first one is built.
Names and configurations may come from strangers, in a saved model, so that nothing here makes
transformers fetch code from the Hub.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gaitzoo.layers.checks import plain_values

__all__ = ["DTYPES", "KNOWN_CONFIGS", "build_llm", "load_writer", "structure_of"]

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


def build_llm(
    llm: Any, revision: str | None, dtype: str | None, attention: str | None
) -> tuple[Any, str | None]:
    """The model without its layer that predicts words, and the commit of its weights.

    Args:
        llm: As for :class:`gaitzoo.FrozenLLM`.
        revision: As for :class:`gaitzoo.FrozenLLM`.
        dtype: As for :class:`gaitzoo.FrozenLLM`.
        attention: Its ``attn_implementation``.

    Raises:
        OSError: If the name cannot be loaded, completely, without code from the Hub.
        ValueError: If an argument has none of the values named there.
        TypeError: If ``llm`` is something else.
        ImportError: If flash attention is asked for without its package.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"expected dtype among {', '.join(DTYPES)} or None, got {dtype!r}")
    if attention not in _ATTENTIONS:
        raise ValueError(
            f"expected attn_implementation among {', '.join(map(str, _ATTENTIONS))}, got "
            f"{attention!r}"
        )
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
        fields = plain_values(llm, list)
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


def load_writer(name: str, revision: str | None, dtype: str | None) -> tuple[Any, Any]:
    """The model with its layer that predicts words, and its tokenizer.

    Args:
        name: Hub name or folder.
        revision: Branch, tag or commit.
        dtype: As for :class:`gaitzoo.FrozenLLM`.

    Raises:
        OSError: If the name cannot be loaded, completely, without code from the Hub.
        ValueError: If ``dtype`` is none of the values named there.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"expected dtype among {', '.join(DTYPES)} or None, got {dtype!r}")
    import transformers

    number = DTYPES[dtype or "float32"]
    model, revision = _load(name, revision, number, None, transformers.AutoModelForCausalLM)
    with _as_os_error(name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    return model, tokenizer


def _load(
    name: str,
    revision: str | None,
    number: torch.dtype,
    attention: str | None,
    kind: Any = None,
) -> tuple[Any, str | None]:
    """The weights of a name, every one of them, and their commit; ``None`` = no word layer."""
    import transformers

    config, revision = _published_config(name, revision, attention)
    # transformers 4.56 renamed it; the old word still works but warns.
    version = tuple(int(n) for n in transformers.__version__.split(".")[:2])
    with _as_os_error(name), _without_report():
        model, found = (kind or transformers.AutoModel).from_pretrained(
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
def _without_report() -> Iterator[None]:
    """No list of keys from transformers: what is missing is raised, and the rest never matters."""

    def is_other(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text and "weights of the model checkpoint" not in text

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


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


def structure_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what differs in every version of transformers or may be code.

    Args:
        config: As JSON holds it.
    """
    other = {"transformers_version", "architectures", "dtype", "torch_dtype"}
    return {
        key: structure_of(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in other and not key.startswith("_") and not _may_be_code(key)
    }


def _config_class() -> type:
    from transformers.configuration_utils import PretrainedConfig

    return PretrainedConfig
