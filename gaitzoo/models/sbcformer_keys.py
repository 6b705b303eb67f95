"""Parameters of SBCFormer under the names of the authors of ``radar_hmdd``, in ours."""

from __future__ import annotations

from gaitzoo.models.conversion import StateDict, rename_by_table

__all__ = ["convert_sbcformer"]

_ATTENTION = r"sbcformer_blocks\.(\d)\.trans_blocks\.MAttn_(\d+)"
_KEYS = {
    **{
        rf"merging_blocks\.0\.stem\.{2 * i}\.{theirs}\.(\w+)": rf"stem.{3 * i + ours}.\1"
        for i in range(3)
        for theirs, ours in (("conv", 0), ("bn", 1))
    },
    **{
        rf"merging_blocks\.{i}\.{theirs}\.(\w+)": rf"merges.{i - 1}.{ours}.\1"
        for i in (1, 2)
        for theirs, ours in (("conv", 0), ("norm", 1))
    },
    **{
        rf"sbcformer_blocks\.(\d)\.{row}_(\d+)\.{conv}\.{theirs}\.(\w+)": (
            rf"stages.\1.{ours_row}.\2.layers.{place + after}.\3"
        )
        for row, ours_row in ((r"invres_blocks\.InvRes", "residuals"), (r"mixer\.Mixer", "mixers"))
        for conv, place in (("pwconv1_bn", 0), ("dwconv_bn", 3), ("pwconv2_bn", 6))
        for theirs, after in (("conv", 0), ("bn", 1))
    },
    rf"{_ATTENTION}\.attn\.attention_biases": r"stages.\1.transformers.\2.attention.bias_table",
    rf"{_ATTENTION}\.attn\.pwconv\.(\w+)": r"stages.\1.transformers.\2.attention.qkv.\3",
    rf"{_ATTENTION}\.attn\.dwconv\.conv\.(\w+)": r"stages.\1.transformers.\2.attention.local.0.\3",
    rf"{_ATTENTION}\.attn\.dwconv\.bn\.(\w+)": r"stages.\1.transformers.\2.attention.local.1.\3",
    rf"{_ATTENTION}\.attn\.proj_out\.(\w+)": r"stages.\1.transformers.\2.attention.proj.\3",
    rf"{_ATTENTION}\.(?:mlp\.)?(norm1|norm2|fc1|fc2)\.(\w+)": r"stages.\1.transformers.\2.\3.\4",
    r"sbcformer_blocks\.(\d)\.convTrans\.(\w+)": r"stages.\1.upsample.conv.\2",
    r"sbcformer_blocks\.(\d)\.norm\.(\w+)": r"stages.\1.upsample.bn.\2",
    **{
        rf"sbcformer_blocks\.(\d)\.{theirs}\.{layer}\.(\w+)": rf"stages.\1.{ours}.{i}.\2"
        for theirs, ours in (("proj", "gate"), ("proj_fuse", "join"))
        for i, layer in enumerate(("conv", "bn"))
    },
    r"norm\.(\w+)": r"neck.norm.\1",
    r"head\.(\w+)": r"neck.classifier.\1",
}
# The authors' files hold the first and the last of the stages under second names.
_DOUBLES = ("patch_embed.", "sbcformer_blk.")
_PADDLE = {"_mean": "running_mean", "_variance": "running_var"}


def convert_sbcformer(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Tensors under the authors' names. With PaddlePaddle's names for the statistics
            of batch norms (``_mean``, ``_variance``), linear layers are transposed as well.

    Returns:
        Tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not SBCFormer's.
    """
    kept = {key: x for key, x in state_dict.items() if not key.startswith(_DOUBLES)}
    from_paddle = any(key.rpartition(".")[2] in _PADDLE for key in kept)
    if from_paddle:
        ends = {key: key.rpartition(".") for key in kept}
        kept = {f"{a}{dot}{_PADDLE.get(b, b)}": kept[key] for key, (a, dot, b) in ends.items()}
    renamed = rename_by_table(kept, _KEYS, "SBCFormer")
    if not from_paddle:
        return renamed
    return {key: x.T if key.endswith("weight") and x.ndim == 2 else x for key, x in renamed.items()}
