"""Small random language models of every tested family, and clips for GaitLLM's small variant."""

import torch
import transformers

import gaitzoo

_SHARED = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
_ROTARY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
LLMS = {
    "llama": {"model_type": "llama", **_ROTARY, **_SHARED},
    "qwen2": {"model_type": "qwen2", **_ROTARY, **_SHARED},
    "gemma": {"model_type": "gemma", **_ROTARY, **_SHARED, "head_dim": 8},
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        **_SHARED,
    },
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 12,
        "vocab_size": 40,
        "init_std": 0.2,
    },
}


def tiny(**arguments):
    torch.manual_seed(0)
    return gaitzoo.create_model("gaitllm_tiny", **arguments)


def walks(*frame_counts, dtype=torch.float32):
    """Clips, the same as one batch with NaN past their ends, and their lengths."""
    clips = [torch.rand(t, 16, 12, dtype=dtype) for t in frame_counts]
    batch = torch.full((len(clips), max(frame_counts), 16, 12), float("nan"), dtype=dtype)
    for i, clip in enumerate(clips):
        batch[i, : len(clip)] = clip
    return clips, batch, torch.tensor(frame_counts)


def save_llm(path):
    """Writes a folder as transformers does, which is what a Hub name ends in."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(**LLMS["qwen2"])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return str(path)
