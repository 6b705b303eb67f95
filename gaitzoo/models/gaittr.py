"""GaitTR: attention among joints, convolutions over time, on poses.

Paper: https://arxiv.org/abs/2204.03873. Authors' code in the form of
https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained here).

Differences from upstream:

- The graph of the skeleton is left out: the authors' network is given one and never uses it, its
  attention is from every joint to every joint.
- Padded frames reach neither convolutions nor means, so padded batches give the numbers of single
  sequences; upstream embeds one sequence per process.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gaitzoo.data.pose_branches import gaittr_inputs
from gaitzoo.layers.checks import check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.joint_attention import JointAttention, JointNorm, MishNorm
from gaitzoo.layers.sequence import lengths_for, mask_fill, masked_mean
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.pose_model import PoseLinear, PoseModel
from gaitzoo.models.registry import register_model

__all__ = ["GaitTR", "GaitTRBlock", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2204.03873"
_NUMBERS = 10  # of a joint
_FRAMES = 9  # of a convolution over time


class GaitTRBlock(nn.Module):
    """Frames mixed by a convolution, then joints by attention, each with a shortcut.

    Convolutions come before Mish and batch norm, in this order. Source:
    https://arxiv.org/abs/2204.03873, Sec. 3.

    Args:
        in_channels: C_in.
        out_channels: C_out, a multiple of ``4 * num_heads``.
        num_joints: V.
        num_heads: Heads of the attention.
        drop_rate: Share of the numbers that the convolution over time does not see in training.

    Shapes:
        x: ``[N, C_in, T, V]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, V]``; past the end it holds no meaning.

    Raises:
        ValueError: If a size is no positive whole number or does not divide, or shapes do not fit.

    Example:
        >>> import torch
        >>> GaitTRBlock(10, 32, num_joints=17)(torch.rand(2, 10, 5, 17)).shape
        torch.Size([2, 32, 5, 17])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_joints: int,
        num_heads: int = 8,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.temporal = nn.Sequential(
            nn.Dropout(drop_rate),
            Conv2d(in_channels, in_channels, (_FRAMES, 1), padding=(_FRAMES // 2, 0)),
            MishNorm(in_channels),
        )
        self.joint_norm = JointNorm(in_channels, num_joints, order="channel")
        self.attention = JointAttention(in_channels, out_channels, num_heads)
        self.attention_norm = MishNorm(out_channels)
        self.frame_shortcut: nn.Module = nn.Identity()
        self.block_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.frame_shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )
            self.block_shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1), MishNorm(out_channels)
            )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the mixed frames and joints."""
        mixed = x + self.temporal(mask_fill(x, lengths))
        attended = self.attention_norm(self.attention(self.joint_norm(mixed)))
        return attended + self.frame_shortcut(mixed) + self.block_shortcut(x)


class GaitTR(PoseModel):
    """GaitTR: a transformer over the joints of every frame, convolutions over time between.

    Source: https://arxiv.org/abs/2204.03873, Sec. 3; what differs is listed at the top of this
    file. Coordinates are not normalised: give poses in the pixels of the training set. Batch-norm
    statistics see what is in the batch: train on clips of equal length.

    Args:
        widths: Channels of the blocks.
        joint_format: ``"coco17"`` or ``"openpose18"``.
        embedding_dim: C of the embeddings.
        num_heads: Heads of the attention; widths are multiples of four times as many.
        drop_rate: Share of the numbers that convolutions over time do not see in training.

    Shapes:
        poses: ``[N, T, J, 3]``: x and y in pixels, confidence, which is not used.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, 1, embedding_dim]``; a model without
            classes.

    Raises:
        ValueError: If an argument has none of the values named here, or poses have other joints.

    Example:
        >>> import torch
        >>> model = GaitTR(widths=(32, 32)).eval()
        >>> model(torch.rand(2, 60, 17, 3), torch.tensor([60, 9])).embeddings.shape
        torch.Size([2, 1, 128])
    """

    architecture = "gaittr"

    @record_args
    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (64, 64, 128, 256),
        joint_format: str = "coco17",
        embedding_dim: int = 128,
        num_heads: int = 8,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__(embedding="output")
        self.set_joints(joint_format)
        self.num_features, self.num_parts = embedding_dim, 1
        self.input_norm = JointNorm(_NUMBERS, self.num_joints, order="joint")
        widths = (_NUMBERS, *check_sizes("widths", widths))
        self.blocks = nn.ModuleList(
            GaitTRBlock(narrow, wide, self.num_joints, num_heads, drop_rate)
            for narrow, wide in pairwise(widths)
        )
        self.head = PoseLinear(widths[-1], embedding_dim)
        init_weights(self)

    def forward_features(  # pyright: ignore[reportIncompatibleMethodOverride] - poses
        self, poses: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before the mean; time keeps its length.

        Args:
            poses: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, widths[-1], T, J]`` and ``lengths``. What stands past the end of a
            sequence holds no meaning.
        """
        x, lengths = self.read(poses, lengths)
        return self._map(gaittr_inputs(x, lengths, joint_format=self.joint_format), lengths)

    def forward_inputs(self, inputs: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds numbers that were made before, as by :func:`gaitzoo.gaittr_inputs`.

        Args:
            inputs: ``[N, T, 10, J, 1]``.
            lengths: As for the model's call.

        Raises:
            ValueError: If the shape is another one, or lengths do not fit.
        """
        if inputs.ndim != 5 or inputs.shape[2:] != (_NUMBERS, self.num_joints, 1):
            raise ValueError(
                f"expected inputs [N, T, {_NUMBERS}, {self.num_joints}, 1], got {shape_of(inputs)}"
            )
        lengths = lengths_for(lengths, inputs, axis=1)
        return self.forward_head(*self._map(mask_fill(inputs, lengths, axis=1), lengths))

    def _map(self, inputs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.input_norm(inputs.squeeze(-1).transpose(1, 2))
        for block in self.blocks:
            x = self.run(block, x, lengths)
        return x, lengths

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Means over joints and frames, and a matrix."""
        pooled = masked_mean(features.mean(3), lengths).transpose(1, 2)
        return GaitOutput(embeddings=self.head(pooled))


_KEYS = {
    r"data_bn\.(\w+)": r"input_norm.norm.\1",
    r"backbone\.(\d+)\.tcn\.conv\.(\w+)": r"blocks.\1.temporal.1.\2",
    r"backbone\.(\d+)\.tcn\.bn\.(\w+)": r"blocks.\1.temporal.2.norm.\2",
    r"backbone\.(\d+)\.st\.data_bn\.(\w+)": r"blocks.\1.joint_norm.norm.\2",
    r"backbone\.(\d+)\.st\.bn\.(\w+)": r"blocks.\1.attention_norm.norm.\2",
    r"backbone\.(\d+)\.st\.attention_conv\.qkv_conv\.(\w+)": r"blocks.\1.attention.qkv.\2",
    r"backbone\.(\d+)\.st\.attention_conv\.attn_out\.(\w+)": r"blocks.\1.attention.out.\2",
    r"backbone\.(\d+)\.residual_s\.([01])\.(\w+)": r"blocks.\1.frame_shortcut.\2.\3",
    r"backbone\.(\d+)\.down\.conv\.(\w+)": r"blocks.\1.block_shortcut.0.\2",
    r"backbone\.(\d+)\.down\.bn\.(\w+)": r"blocks.\1.block_shortcut.1.norm.\2",
    r"fcn\.(\w+)": r"head.\1",
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names; the last convolution as a matrix.

    Raises:
        UnknownKeysError: If a name is not GaitTR's.
    """
    renamed = rename_by_table(state_dict, _KEYS, "GaitTR")
    weight = renamed.get("head.weight")
    if weight is not None and weight.ndim == 3:
        renamed["head.weight"] = weight.squeeze(2)
    return renamed


def _cfg(tag: str, joint_format: str, embedding_dim: int, **fields: object) -> PretrainedCfg:
    arguments = {"joint_format": joint_format, "embedding_dim": embedding_dim}
    return opengait_cfg(f"gaittr.{tag}", _PAPER, model_args=arguments, **fields)


_CFGS = {
    "gait3d": _cfg(
        "gait3d",
        "coco17",
        128,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 7.2, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _cfg(
        "grew",
        "coco17",
        256,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 48.6, "protocol": "GREW test set, scored by its server"},
    ),
    "oumvlp": _cfg(
        "oumvlp",
        "openpose18",
        256,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 40.31, "protocol": "OU-MVLP, identical views excluded; 18 joints"},
    ),
    "oumvlp_17": _cfg(
        "oumvlp_17",
        "coco17",
        256,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 39.78, "protocol": "OU-MVLP, identical views excluded; 17 joints"},
    ),
    "ccpg": _cfg("ccpg", "openpose18", 128, training_data="CCPG, 100 subjects"),
    "sustech1k": _cfg("sustech1k", "coco17", 128, training_data="SUSTech1K, 250 subjects"),
}
register_model(
    "gaittr",
    GaitTR,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(model_args={"widths": (8, 8, 16), "embedding_dim": 8, "num_heads": 2}),
)
