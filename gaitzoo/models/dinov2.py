"""DINOv2 as the eyes of a gait network: the outputs of its blocks as maps, and names of its files.

Paper: https://arxiv.org/abs/2304.07193. The network is the one of transformers
(https://huggingface.co/docs/transformers/model_doc/dinov2), which is imported when the first one is
built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import plain_values, shape_of
from gaitzoo.models.conversion import StateDict

__all__ = ["KNOWN_ENCODERS", "Dinov2Encoder", "convert_dinov2"]

# Structures as their publishers state them, so that no file is needed where there are no weights.
KNOWN_ENCODERS: dict[str, dict[str, Any]] = {
    "facebook/dinov2-small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
    },
    "facebook/dinov2-base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 518,
        "patch_size": 14,
    },
}
# Before version 5 of transformers its attention had other names; files of ours have the new ones.
_NEW_TO_OLD = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}
_OLD_TO_NEW = {old: new for new, old in _NEW_TO_OLD.items()}


class Dinov2Encoder(nn.Module):
    """DINOv2 on images of any size: what its blocks give, as maps of patches.

    Source: https://arxiv.org/abs/2304.07193. The class token is computed and left out.

    Args:
        encoder: A name of ``KNOWN_ENCODERS``, or fields of transformers' ``Dinov2Config``.
        pretrained: Load the weights of that name from the Hub (network, once); otherwise they are
            random.
        offset: Added to the numbers of patches when the table of positions is resized, as in the
            first publication of DINOv2 (0.1); 0 = to exactly as many, as transformers does.

    Shapes:
        images: ``[B, 3, H, W]``, ImageNet-normalised, H and W multiples of the patch size.
        returns: the output of every block, not normalised, ``[B, C, H / patch, W / patch]`` each;
            and the last after the final norm.

    Raises:
        TypeError: If ``encoder`` is neither a name nor a mapping.
        ValueError: If the name is unknown or sizes do not fit.
        OSError: If weights cannot be loaded.

    Example:
        >>> config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        >>> maps, normed = Dinov2Encoder(config | {"patch_size": 4})(torch.rand(1, 3, 8, 12))
        >>> [list(x.shape) for x in maps], list(normed.shape)
        ([[1, 8, 2, 3], [1, 8, 2, 3]], [1, 8, 2, 3])
    """

    def __init__(
        self, encoder: str | Mapping[str, Any], pretrained: bool = False, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.vit = _built(encoder, pretrained)
        self.offset = offset
        self.channels: int = self.vit.config.hidden_size
        self.depth: int = self.vit.config.num_hidden_layers
        self.patch_size: int = self.vit.config.patch_size
        self.register_state_dict_post_hook(_give_new_names)
        self.register_load_state_dict_pre_hook(_take_new_names)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the maps of all blocks, and the last one after the final norm."""
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or any(n % self.patch_size for n in images.shape[2:])
        ):
            raise ValueError(
                f"expected images [B, 3, H, W] with H and W multiples of {self.patch_size}, got "
                f"{shape_of(images)}"
            )
        rows, columns = (n // self.patch_size for n in images.shape[2:])
        embeddings = self.vit.embeddings
        tokens = embeddings.patch_embeddings(images)
        tokens = torch.cat([embeddings.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self._positions(rows, columns).to(tokens.dtype)
        found = []
        for layer in self.vit.encoder.layer:
            tokens = layer(tokens)
            # A tuple before version 5 of transformers.
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
            found.append(_as_map(tokens, rows))
        return found, _as_map(self.vit.layernorm(tokens), rows)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The table of positions for another number of patches, ``[1, 1 + rows * columns, C]``."""
        # Bicubic resizing in half precision would shift the tokens.
        table = self.vit.embeddings.position_embeddings.float()
        side = math.isqrt(table.shape[1] - 1)
        if (side, side) == (rows, columns):
            return table
        square = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        size, scale = (rows, columns), None
        if self.offset:
            size, scale = None, tuple((n + self.offset) / side for n in (rows, columns))
        square = F.interpolate(square, size, scale, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


def _as_map(tokens: Tensor, rows: int) -> Tensor:
    """``[B, 1 + L, C]`` to ``[B, C, rows, L / rows]``, channels last in memory."""
    return tokens[:, 1:].unflatten(1, (rows, -1)).permute(0, 3, 1, 2)


def _built(encoder: str | Mapping[str, Any], pretrained: bool) -> Any:
    """The network of transformers, random or with the weights of its name."""
    if not isinstance(encoder, str | Mapping):
        raise TypeError(
            "expected encoder as a name, a mapping of Dinov2Config's fields or None, got "
            f"{type(encoder).__name__}"
        )
    if isinstance(encoder, str) and encoder not in KNOWN_ENCODERS:
        raise ValueError(
            f"expected encoder among {', '.join(KNOWN_ENCODERS)}, got {encoder!r}; give the fields "
            "of its Dinov2Config for another structure"
        )
    if pretrained and not isinstance(encoder, str):
        raise ValueError("expected a name of an encoder with encoder_pretrained=True, got fields")
    # Its import fails in torch 2.6 inside a block of the meta device.
    with torch.device("cpu"):
        from transformers import Dinov2Config, Dinov2Model

    fields = KNOWN_ENCODERS[encoder] if isinstance(encoder, str) else plain_values(encoder, list)
    # torch.get_default_device does not see the block of a device in all versions.
    if pretrained and torch.empty(0).device.type != "meta":
        try:
            loaded: Any = Dinov2Model.from_pretrained(
                str(encoder), output_loading_info=True, use_safetensors=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(
                f"cannot load the encoder {encoder!r}: {reason}. Its weights come from the Hub "
                "(network, once); a file of the whole model holds them too"
            ) from error
        vit, missing = loaded[0], loaded[1]["missing_keys"]
        if missing:
            raise OSError(f"expected all weights of {encoder!r}, got {len(missing)} missing")
    else:
        vit = Dinov2Model(Dinov2Config(**fields))
    return vit


def _rename(key: str, names: Mapping[str, str]) -> str:
    for given, wanted in names.items():
        if f".{given}." in key:
            return key.replace(f".{given}.", f".{wanted}.")
    return key


def _has_old_names(encoder: Any) -> bool:
    return any(".attention.attention." in name for name, _ in encoder.named_parameters())


def _renamed_in_place(state_dict: dict[str, Any], prefix: str, names: Mapping[str, str]) -> None:
    for key in [key for key in state_dict if key.startswith(f"{prefix}vit.")]:
        new = _rename(key, names)
        if new != key:
            state_dict[new] = state_dict.pop(key)


def _give_new_names(encoder: Any, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    if _has_old_names(encoder):
        _renamed_in_place(state_dict, prefix, _OLD_TO_NEW)


def _take_new_names(encoder: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    if _has_old_names(encoder):
        _renamed_in_place(state_dict, prefix, _NEW_TO_OLD)


_PATCHES = "embeddings.patch_embeddings.projection"
_ORIGINAL = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "mask_token": "embeddings.mask_token",
    r"patch_embed\.proj\.(\w+)": rf"{_PATCHES}.\1",
    r"norm\.(\w+)": r"layernorm.\1",
    r"blocks\.(?:\d+\.)?(\d+)\.attn\.proj\.(\w+)": r"encoder.layer.\1.attention.o_proj.\2",
    r"blocks\.(?:\d+\.)?(\d+)\.(norm[12]|mlp\.fc[12])\.(\w+)": r"encoder.layer.\1.\2.\3",
    r"blocks\.(?:\d+\.)?(\d+)\.ls([12])\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
}
_JOINED = re.compile(r"blocks\.(?:\d+\.)?(\d+)\.attn\.qkv\.(\w+)")


def convert_dinov2(state_dict: StateDict) -> StateDict:
    """Names of any layout of DINOv2 to those of transformers' version 5.

    Args:
        state_dict: Parameters under the names of DINOv2's first publication (and of timm), or of
            any version of transformers; other names stay.

    Example:
        >>> sorted(convert_dinov2({"blocks.0.attn.qkv.bias": torch.arange(6.0)}))[0]
        'encoder.layer.0.attention.k_proj.bias'
    """
    found: StateDict = {}
    for key, value in state_dict.items():
        if joined := _JOINED.fullmatch(key):
            layer, kind = joined.groups()
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[f"encoder.layer.{layer}.attention.{letter}_proj.{kind}"] = part
            continue
        patterns = ((re.fullmatch(theirs, key), ours) for theirs, ours in _ORIGINAL.items())
        new = next((match.expand(ours) for match, ours in patterns if match), key)
        found[_rename(new, _OLD_TO_NEW)] = value
    return found
