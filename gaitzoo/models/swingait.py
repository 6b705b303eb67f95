"""SwinGait: exploring deep models for practical gait recognition.

Paper: https://arxiv.org/abs/2303.03301. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- 15 parts instead of 16: the authors' last part is a copy that reaches nothing, kept there so that
  weights of DeepGaitV2 can be read. Their files are cut when they are read.
- Windows over time are masked per sequence, so padded batches give the numbers of single sequences.
- The table of distances inside a window is computed; a file whose own table differs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.layers.window_attention import (
    WindowTransformerBlock,
    relative_index,
    whole_lengths,
    window_masks,
)
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import BLOCK_KEYS, HEAD_KEYS

__all__ = ["SwinGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2303.03301"


class SwinGait(MaxPooled):
    """SwinGait: the first half of DeepGaitV2, then attention in moving windows, bands, BN neck.

    Source: https://arxiv.org/abs/2303.03301, Sec. 4; what differs is listed at the top of this
    file. Batch-norm statistics see what is in the batch: train on clips of equal length.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        layers: Residual blocks of both convolutional layers, blocks of both attention layers.
        channels: Widths of both convolutional layers.
        dims: Widths of both attention layers; multiples of ``num_heads``.
        num_heads: Heads of both attention layers.
        map_size: Rows and columns that the convolutions' map is brought to; halves of them are
            multiples of the window's.
        window: Frames, rows and columns of a window.
        drop_path_rate: Share of samples whose branches the last block leaves out in training;
            earlier blocks less, the first none.
        part_channels: C of the embeddings.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; trained on 64 x 44.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``, P half of the rows
            of ``map_size``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> sizes = {"channels": (4, 8), "dims": (8, 16), "num_heads": (2, 4), "part_channels": 8}
        >>> model = SwinGait(num_classes=3, layers=(1, 1, 1, 1), **sizes).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 15, 3])
    """

    architecture = "swingait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        layers: tuple[int, int, int, int] = (1, 4, 4, 2),
        channels: tuple[int, int] = (64, 128),
        dims: tuple[int, int] = (256, 512),
        num_heads: tuple[int, int] = (16, 32),
        map_size: tuple[int, int] = (30, 20),
        window: tuple[int, int, int] = (3, 3, 5),
        drop_path_rate: float = 0.1,
        part_channels: int = 256,
    ) -> None:
        if len(layers) != 4:
            raise ValueError(f"expected four numbers of blocks as layers, got {layers!r}")
        rows, columns = map_size[0] // 2, map_size[1] // 2
        if rows % window[1] or columns % window[2]:
            raise ValueError(
                f"expected map_size as twice a multiple of {window[1]} x {window[2]}, the rows and "
                f"columns of the window, got {map_size!r}"
            )
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.map_size, self.window = map_size, window
        self.backbone = ResidualBackbone("p3d", tuple(layers[:2]), tuple(channels), in_channels)
        self.patches = Conv2d(channels[1], dims[0], 2, stride=2)
        self.patch_norm = nn.LayerNorm(dims[0])
        rates = torch.linspace(0, drop_path_rate, layers[2] + layers[3], device="cpu").tolist()
        self.stage1 = _stage(dims[0], num_heads[0], window, rates[: layers[2]])
        self.widen = nn.Sequential(nn.LayerNorm(dims[0]), nn.Linear(*dims, bias=False))
        self.stage2 = _stage(dims[1], num_heads[1], window, rates[layers[2] :])
        self.norm = nn.LayerNorm(dims[1])
        self.build_head(dims[1], part_channels, (rows,), num_classes)
        init_weights(self)
        for module in (self.widen, self.stage1, self.stage2):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=0.02)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: of the convolutions, no tokens."""
        return self.backbone.stage_names("backbone.")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, dims[1], T, 15, 10]`` (half of ``map_size``) and ``lengths``. What
            stands past the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        x = self.backbone(x, lengths, self.run)
        frames = F.interpolate(
            x.transpose(1, 2).flatten(0, 1), self.map_size, mode="bilinear", align_corners=True
        )
        tokens = self.patches(frames).permute(0, 2, 3, 1).unflatten(0, (x.shape[0], -1))
        tokens = self.patch_norm(tokens)
        masks = window_masks(
            whole_lengths(tokens, lengths),
            tokens.shape[1],
            (tokens.shape[2], tokens.shape[3]),
            self.window,
            tokens.dtype,
        )
        for block in self.stage1:
            tokens = self.run(block, tokens, masks)
        tokens = self.widen(tokens)
        for block in self.stage2:
            tokens = self.run(block, tokens, masks)
        return self.norm(tokens).permute(0, 4, 1, 2, 3), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: pieces begin where windows do."""
        frames = self.window[0]
        blocks = len(self.stage1) + len(self.stage2)
        reach = self.backbone.reach() + (frames - 1) * blocks
        return -(-reach // frames) * frames, frames


def _stage(
    dim: int, num_heads: int, window: tuple[int, int, int], rates: Sequence[float]
) -> nn.ModuleList:
    return nn.ModuleList(
        WindowTransformerBlock(dim, num_heads, window, moved=i % 2 == 1, drop_path=rate)
        for i, rate in enumerate(rates)
    )


_KEYS = {
    **BLOCK_KEYS,
    **{
        rf"transformer\.layers\.{i}\.blocks\.(\d+)\.{theirs}": rf"stage{i + 1}.\1.{ours}"
        for i in (0, 1)
        for theirs, ours in (
            (r"attn\.relative_position_bias_table", "attention.bias_table"),
            (r"attn\.(.+)", r"attention.\2"),
            (r"(.+)", r"\2"),
        )
    },
    r"transformer\.patch_embed\.proj\.(\w+)": r"patches.\1",
    r"transformer\.patch_embed\.norm\.(\w+)": r"patch_norm.\1",
    r"transformer\.layers\.0\.downsample\.([01])\.(\w+)": r"widen.\1.\2",
    r"transformer\.norm\.(\w+)": r"norm.\1",
    **HEAD_KEYS,
}
_INDEX = "attn.relative_position_index"


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours and leaves out what reaches nothing.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        Tensors under this model's names: parts without the copy of the last one.

    Raises:
        UnknownKeysError: If a name is not SwinGait's.
        ValueError: If a file's own table of distances is another one than ours.
    """
    kept = {key: tensor for key, tensor in state_dict.items() if not key.endswith(_INDEX)}
    renamed = rename_by_table(kept, _KEYS, "SwinGait")
    for key in state_dict.keys() - kept.keys():
        if not _is_our_index(state_dict[key]):
            raise ValueError(f"expected the table of distances of a 3 x 3 x 5 window in {key}")
    weight = renamed.get("patches.weight")
    if weight is not None and weight.ndim == 5:
        renamed["patches.weight"] = weight[:, :, 0]
    return {key: _without_copy(key, tensor) for key, tensor in renamed.items()}


def _is_our_index(index: Tensor) -> bool:
    if index.device.type == "meta":
        return True
    ours = relative_index((3, 3, 5))
    return index.shape == ours.shape and torch.equal(index.long(), ours)


def _without_copy(key: str, tensor: Tensor) -> Tensor:
    """The first 15 of 16 parts; statistics have the parts as their faster index."""
    if key in ("part_fc.weight", "neck.classifier.weight"):
        return tensor[:15] if tensor.shape[0] == 16 else tensor
    if key.startswith("neck.bn.") and tensor.ndim == 1 and tensor.shape[0] % 16 == 0:
        return tensor.view(-1, 16)[:, :15].reshape(-1)
    return tensor


def _cfg(tag: str, num_classes: int, **fields: object) -> PretrainedCfg:
    return opengait_cfg(f"swingait.{tag}", _PAPER, num_classes=num_classes, **fields)


_B1122 = {"layers": (1, 1, 2, 2)}
_CFGS = {
    "gait3d": _cfg(
        "gait3d",
        3000,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 75.0, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _cfg(
        "grew",
        20000,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 79.3, "protocol": "GREW test set, scored by its server"},
    ),
    "ccpg": _cfg("ccpg", 100, model_args=_B1122, training_data="CCPG, 100 subjects"),
    "sustech1k": _cfg(
        "sustech1k",
        250,
        model_args=_B1122,
        training_data="SUSTech1K, 250 subjects",
        metrics={
            "rank1": 79.7,
            "rank5": 91.8,
            "rank1_NM": 86.2,
            "rank1_BG": 81.3,
            "rank1_CL": 47.4,
            "rank1_CR": 79.3,
            "rank1_UB": 81.6,
            "rank1_UF": 83.1,
            "rank1_OC": 85.6,
            "rank1_NT": 28.5,
            "protocol": "SUSTech1K, normal gallery, all probes and per condition",
        },
    ),
}
register_model(
    "swingait",
    SwinGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "layers": (1, 1, 2, 2),
            "channels": (3, 4),
            "dims": (4, 8),
            "num_heads": (2, 2),
            "map_size": (8, 12),
            "window": (3, 2, 3),
            "part_channels": 4,
        },
        input_size=(16, 12),
    ),
)
