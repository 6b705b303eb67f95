"""What is known of GaitLLM's variants: the authors' numbers, and that there are no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gaitzoo.models.cfg import PretrainedCfg

__all__ = ["CFGS", "TINY_CFG"]

_PAPER = "Bridging Gait Recognition and Large Language Models Sequence Modeling, CVPR 2025"


def _cfg(**fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="reconstruction",
        license="none: there are no weights",
        paper=_PAPER,
        unavailable=(
            "nobody has published weights of GaitLLM. Train adapters and head yourself on a frozen "
            "encoder (examples/train_gaitllm.py, docs page GaitLLM), keep them with "
            "save_pretrained, and load them with create_model('local-dir:...'), "
            "GaitLLM.from_pretrained(...) or checkpoint_path=..."
        ),
        notes=(
            "The published numbers are the authors'; much of the structure, the language model "
            "among it, is not stated and is our choice."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


def _dataset_cfg(tag: str, num_classes: int, metrics: Mapping[str, Any]) -> PretrainedCfg:
    return _cfg(
        num_classes=num_classes,
        model_args={"encoder": f"deepgaitv2_p3d.{tag}"},
        metrics=metrics,
    )


CFGS = {
    "gait3d": _dataset_cfg(
        "gait3d",
        3000,
        {
            "rank1": 74.1,
            "mAP": 60.1,
            "protocol": "Gait3D probe list against the rest; reported by others, mAP doubtful",
        },
    ),
    "grew": _dataset_cfg(
        "grew",
        20000,
        {"rank1": 71.2, "protocol": "GREW test set, scored by its server; reported by others"},
    ),
    "ccpg": _dataset_cfg(
        "ccpg",
        100,
        {"rank1_mean": 85.4, "protocol": "CCPG, mean of CL, UP, DN, BG; reported by others"},
    ),
    "sustech1k": _dataset_cfg(
        "sustech1k",
        250,
        {
            "rank1": 84.5,
            "rank1_NM": 88.2,
            "rank1_BG": 86.3,
            "rank1_CL": 59.7,
            "rank1_CR": 83.5,
            "rank1_UB": 88.8,
            "rank1_UF": 86.9,
            "rank1_OC": 90.5,
            "rank1_NT": 28.8,
            "protocol": "SUSTech1K, normal gallery, all probes and per condition; reported by "
            "others",
        },
    ),
}

_TINY_ARGS = {
    "encoder": "deepgaitv2_p3d_tiny",
    "llm": {
        "model_type": "qwen2",
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.2,
    },
    "input_size": (16, 12),
    "token_dim": 8,
    "num_heads": 2,
    "depth": 1,
}
TINY_CFG = _cfg(num_classes=5, model_args=_TINY_ARGS, input_size=(16, 12))
