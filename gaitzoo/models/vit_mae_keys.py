"""Names of published masked autoencoders' weights, in timm and in transformers, and ours."""

from __future__ import annotations

import re

import torch

from gaitzoo.models.conversion import StateDict, rename_by_table

__all__ = ["convert_vit_mae"]

_ATTENTION = {
    r"attention\.q_proj": "attention.query",
    r"attention\.k_proj": "attention.key",
    r"attention\.v_proj": "attention.value",
    r"attention\.o_proj": "attention.out",
    # Before version 5 of transformers.
    r"attention\.attention\.(query|key|value)": r"attention.\2",
    r"attention\.output\.dense": "attention.out",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"(?:mlp\.fc1|intermediate\.dense)": "mlp.0",
    r"(?:mlp\.fc2|output\.dense)": "mlp.2",
}
_TRANSFORMERS = {
    r"vit\.embeddings\.cls_token": "encoder.cls_token",
    r"vit\.embeddings\.position_embeddings": "encoder.pos_embed",
    r"vit\.embeddings\.patch_embeddings\.projection\.(\w+)": r"encoder.patch_embed.proj.\1",
    r"vit\.layernorm\.(\w+)": r"encoder.norm.\1",
    r"decoder\.(mask_token|decoder_pos_embed)": r"\1",
    r"decoder\.(decoder_(?:embed|norm|pred)\.\w+)": r"\1",
    **{
        rf"vit\.(?:layers|encoder\.layer)\.(\d+)\.{theirs}\.(\w+)": rf"encoder.blocks.\1.{ours}.\#"
        for theirs, ours in _ATTENTION.items()
    },
    **{
        rf"decoder\.decoder_layers\.(\d+)\.{theirs}\.(\w+)": rf"decoder_blocks.\1.{ours}.\#"
        for theirs, ours in _ATTENTION.items()
    },
}
# The last group of a pattern is the kind of parameter, whatever stands before it.
_TRANSFORMERS = {
    theirs: ours.replace(r"\#", f"\\{re.compile(theirs).groups}")
    for theirs, ours in _TRANSFORMERS.items()
}
_TIMM = {
    r"(cls_token|pos_embed)": r"encoder.\1",
    r"patch_embed\.proj\.(\w+)": r"encoder.patch_embed.proj.\1",
    r"norm\.(\w+)": r"encoder.norm.\1",
    r"blocks\.(\d+)\.norm([12])\.(\w+)": r"encoder.blocks.\1.norm\2.\3",
    r"blocks\.(\d+)\.attn\.(query|key|value)\.(\w+)": r"encoder.blocks.\1.attention.\2.\3",
    r"blocks\.(\d+)\.attn\.proj\.(\w+)": r"encoder.blocks.\1.attention.out.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(\w+)": r"encoder.blocks.\1.mlp.0.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(\w+)": r"encoder.blocks.\1.mlp.2.\2",
}


def convert_vit_mae(state_dict: StateDict) -> StateDict:
    """Names of :class:`MaskedAutoencoder` for weights of timm or transformers.

    Args:
        state_dict: Of timm's ``VisionTransformer`` (its head and ``fc_norm`` are left out; gives
            the encoder alone) or of transformers' ``ViTMAEForPreTraining``.

    Returns:
        The tensors under our names; keys and values of attention in one matrix.

    Raises:
        UnknownKeysError: If a name is neither's.

    Example:
        >>> convert_vit_mae({"norm.bias": torch.zeros(2), "head.bias": torch.zeros(3)}).keys()
        dict_keys(['encoder.norm.bias'])
    """
    theirs: StateDict = {}
    for key, tensor in state_dict.items():
        if key.startswith(("head.", "fc_norm.")):
            continue
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                theirs[key.replace("qkv", name)] = part
        else:
            theirs[key] = tensor
    from_transformers = any(key.startswith(("vit.", "decoder.")) for key in theirs)
    renamed = rename_by_table(
        theirs,
        _TRANSFORMERS if from_transformers else _TIMM,
        "a masked autoencoder",
    )
    found: StateDict = {}
    for key, tensor in renamed.items():
        if ".attention.key." in key:
            values = renamed[key.replace(".key.", ".value.")]
            found[key.replace(".key.", ".key_value.")] = torch.cat([tensor, values])
        elif ".attention.value." not in key:
            found[key] = tensor
    return found
