"""DeepGaitV2 and GaitBase: plain residual networks that gait recognition is measured against.

DeepGaitV2: https://arxiv.org/abs/2303.03301. GaitBase: https://arxiv.org/abs/2211.06597 (CVPR
2023). Authors' code: https://github.com/ShiqiYu/OpenGait (no licence file, academic use only;
nothing of it is contained here).

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences. Upstream joins the sequences of a batch
  into one and convolves across the joins.
- GaitBase is built of the blocks of DeepGaitV2 in mode ``"2d"`` with one block per layer: the
  same network under other names.
- Any size of frames that the part bins divide, and more than one block in the first layer in
  mode ``"3d"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import (
    DEEPGAITV2_2D_CFGS,
    DEEPGAITV2_3D_CFGS,
    DEEPGAITV2_P3D_CFGS,
    GAITBASE_CFGS,
)
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import convert_residual

__all__ = ["DeepGaitV2", "GaitBase"]


class DeepGaitV2(MaxPooled):
    """DeepGaitV2: a residual network, the maximum over time, horizontal bands, a BN neck.

    Source: https://arxiv.org/abs/2303.03301; what differs is listed at the top of this file.
    Depth by the authors' count is ``2 + 2 * sum(layers)``: ``(1, 1, 1, 1)`` = 10, ``(1, 2, 2, 1)``
    = 14, ``(1, 4, 4, 1)`` = 22, ``(1, 4, 8, 1)`` = 30.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input; other than one for other modalities.
        mode: Blocks of layers 2 to 4: ``"2d"`` (frames apart), ``"3d"`` or ``"p3d"``.
        layers: Blocks of each of the four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any
            number of channels. Any width: 64x44, 64x64, 128x88, ...
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = DeepGaitV2(num_classes=0, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).embeddings.shape
        torch.Size([2, 16, 8])
    """

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        mode: str = "p3d",
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        self.architecture = type(self).architecture or f"deepgaitv2_{mode}"
        super().__init__(embedding=self.side_of(embedding))
        self.in_channels = in_channels
        self.embedding = embedding
        self.backbone = ResidualBackbone(mode, layers, channels, in_channels)
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` (both rounded up) and ``lengths``.
            What stands past the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        return self.backbone(x, lengths, self.run), lengths

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.backbone.reach(), 1


class GaitBase(DeepGaitV2):
    """GaitBase: a small residual network on single frames, the maximum over time, bands, BN neck.

    Source: https://arxiv.org/abs/2211.06597. The order of frames never matters. For training
    holds what :class:`DeepGaitV2` says.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input; 3 for LiDAR depth images.
        layers: Blocks of each of the four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: ``"fc"`` or ``"bnneck"``, as for :class:`DeepGaitV2`.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any
            number of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = GaitBase(num_classes=7, channels=(4, 4, 8, 8)).eval()
        >>> model(torch.rand(2, 5, 64, 44)).logits.shape
        torch.Size([2, 16, 7])
    """

    architecture = "gaitbase"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 74,
        in_channels: int = 1,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            mode="2d",
            layers=layers,
            channels=channels,
            part_bins=part_bins,
            embedding=embedding,
        )


def _deepgaitv2(mode: str) -> Callable[..., DeepGaitV2]:
    def build(**model_args: Any) -> DeepGaitV2:
        wanted = model_args.get("mode", mode)
        if wanted != mode:
            advice = "leave it out"
            if wanted in ("2d", "3d", "p3d"):
                advice = f"create deepgaitv2_{wanted} instead"
            raise ValueError(
                f"expected mode={mode!r} for deepgaitv2_{mode}, got {wanted!r}; {advice}"
            )
        return DeepGaitV2(**{**model_args, "mode": mode})

    return build


_TINY = PretrainedCfg(
    num_classes=5,
    model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 2, 1, 1)},
    input_size=(16, 12),
)
# The authors' files are of pseudo-3-D blocks. With single frames, their order never matters.
for _mode, _cfgs in (
    ("p3d", DEEPGAITV2_P3D_CFGS),
    ("3d", DEEPGAITV2_3D_CFGS),
    ("2d", DEEPGAITV2_2D_CFGS),
):
    register_model(
        f"deepgaitv2_{_mode}",
        _deepgaitv2(_mode),
        _cfgs,
        convert=convert_residual,
        tiny=_TINY,
    )
register_model("gaitbase", GaitBase, GAITBASE_CFGS, convert=convert_residual, tiny=_TINY)
