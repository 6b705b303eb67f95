"""GaitRDAE: regions with their own reach over time and their own weight, between residual layers.

Paper: https://arxiv.org/abs/2510.16541 (IEEE TMM 2025). A reconstruction from the abstract: the
authors' repository (https://github.com/HUAFOR/GaitRDAE) holds no code yet, so that
nothing of it is contained here, and no number of theirs is to be expected. The blocks stand in
:mod:`gaitzoo.layers.region_dynamics`, where it is said what the abstract gives. [inferred], and
arguments: the backbone (frames apart, so that all that is seen over time is seen by the blocks),
where the blocks stand, the head and the losses (those of the OpenGait family).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gaitzoo.layers.checks import check_sizes
from gaitzoo.layers.region_dynamics import RDAEBlock
from gaitzoo.layers.region_search import RegionReport
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.layers.sequence import mask_fill
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["GaitRDAE"]

_PAPER = "https://arxiv.org/abs/2510.16541"


class GaitRDAE(MaxPooled):
    """GaitRDAE, a reconstruction: RDAE blocks between the layers of a residual network.

    Source: https://arxiv.org/abs/2510.16541, abstract; what is inferred is said at the top of this
    file. With the blocks as they start, it is the network without them (DeepGaitV2 in mode
    ``"2d"``, whose weights fit ``backbone``). Train on clips of equal length, as
    :class:`DeepGaitV2`.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        stages_with_rdae: Layers behind which a block stands, from 1.
        mode: Blocks of the backbone, ``"2d"``, ``"3d"`` or ``"p3d"`` (:class:`ResidualBackbone`).
        layers: Residual blocks of each of its four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        use_rda: See :class:`RDAEBlock`, and so for the next seven.
        use_rde: With RDE.
        num_regions: R.
        kernels: Odd numbers of frames.
        reduction: Of the channels that see motion.
        tau: Of the softmax over regions.
        hard: Each pixel belongs to one region.
        per_frame: Weights of regions for every frame.
        zero_init_last: Blocks start as the identity.
        backbone: Stages to use instead, each called with ``[N, C, T, H, W]`` and ``lengths``, that
            keep T and give a map (zeros stand past the end of a sequence); ``mode`` and ``layers``
            then say nothing.
        backbone_channels: Channels behind each of these stages, as many as stages.
        embedding: What is compared: ``"fc"`` or ``"bnneck"``, as for :class:`DeepGaitV2`.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any number
            of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        TypeError: If stages are of another type.
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = GaitRDAE(num_classes=7, layers=(1, 1, 1, 1), channels=(4, 8, 8, 8)).eval()
        >>> output, reports = model.forward_regions(torch.rand(2, 5, 64, 44))
        >>> output.embeddings.shape, reports[2].regions.shape
        (torch.Size([2, 16, 8]), torch.Size([2, 4, 5, 32, 22]))
    """

    architecture = "gait_rdae"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        stages_with_rdae: tuple[int, ...] = (2, 3),
        mode: str = "2d",
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        use_rda: bool = True,
        use_rde: bool = True,
        num_regions: int = 4,
        kernels: tuple[int, ...] = (1, 3, 5, 7),
        reduction: int = 16,
        tau: float = 1.0,
        hard: bool = False,
        per_frame: bool = False,
        zero_init_last: bool = True,
        backbone: nn.ModuleList | None = None,
        backbone_channels: tuple[int, ...] | None = None,
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        self.in_channels, self.embedding = in_channels, embedding
        if backbone is None:
            self.backbone = ResidualBackbone(mode, layers, channels, in_channels)
            widths = tuple(channels)
        else:
            self.backbone, widths = _ready(backbone, backbone_channels)
        self.build_head(widths[-1], channels[2], part_bins, num_classes)
        if backbone is None:
            init_weights(self)
        else:
            init_weights(self.neck)
        # Behind the others, because they start in their own way.
        self.rdae = nn.ModuleDict(
            {
                str(stage): RDAEBlock(
                    widths[stage - 1],
                    use_rda,
                    use_rde,
                    num_regions=num_regions,
                    kernels=kernels,
                    reduction=reduction,
                    tau=tau,
                    hard=hard,
                    per_frame=per_frame,
                    zero_init_last=zero_init_last,
                )
                for stage in _checked_stages(stages_with_rdae, len(widths))
            }
        )

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem, and each layer or the block behind it.

        None with stages that were handed over.
        """
        if not isinstance(self.backbone, ResidualBackbone):
            return ()
        stem, *ends = self.backbone.stage_names("backbone.")
        with_blocks = (
            f"rdae.{i}" if str(i) in self.rdae else name for i, name in enumerate(ends, start=1)
        )
        return stem, *with_blocks

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
        return self._maps(x, lengths), lengths

    def forward_regions(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[GaitOutput, dict[int, RegionReport]]:
        """What a call gives, and what every block has found: to look at, or for a loss on it.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            The output, and a :class:`RegionReport` per layer with a block, by its number.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        reports: dict[int, RegionReport] = {}
        return self.forward_head(self._maps(x, lengths, reports), lengths), reports

    def _maps(
        self, x: Tensor, lengths: Tensor | None, reports: dict[int, RegionReport] | None = None
    ) -> Tensor:
        """The map before temporal pooling; what blocks have found is put into ``reports``."""
        backbone: Any = self.backbone
        ours = isinstance(backbone, ResidualBackbone)
        if ours:
            x = backbone.run_stem(x, self.run)
        for index, stage in enumerate(backbone.layers if ours else backbone):
            if ours:
                x = backbone.run_layer(index, x, lengths, self.run)
            else:
                x = self.run(stage, mask_fill(x, lengths), lengths)
            name = str(index + 1)
            if name not in self.rdae:
                continue
            block = self.rdae[name]
            if reports is None:
                x = self.run(block, x, lengths)
            else:
                x, reports[index + 1] = block(x, lengths, return_regions=True)
        return x


def _ready(backbone: object, channels: Sequence[int] | None) -> tuple[nn.Module, tuple[int, ...]]:
    """Stages that were handed over, and their channels."""
    if not isinstance(backbone, nn.ModuleList | nn.Sequential):
        raise TypeError(
            "expected backbone as an nn.ModuleList of stages or None, got "
            f"{type(backbone).__name__}"
        )
    widths = check_sizes("backbone_channels", channels)
    if len(widths) != len(backbone):
        raise ValueError(
            f"expected backbone_channels of {len(backbone)} stages, got {len(widths)} numbers"
        )
    return backbone, widths


def _checked_stages(stages: Any, count: int) -> tuple[int, ...]:
    numbers = check_sizes("stages_with_rdae", stages)
    if max(numbers) > count or len(set(numbers)) < len(numbers):
        raise ValueError(f"expected stages_with_rdae from 1 to {count}, each once, got {stages!r}")
    return tuple(sorted(numbers))


def _cfg(num_classes: int, layers: tuple[int, ...]) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=num_classes,
        model_args={"layers": layers},
        paper=_PAPER,
        origin="https://github.com/HUAFOR/GaitRDAE",
        fidelity="reconstruction",
        unavailable="neither code nor weights have been published; train the model yourself",
    )


register_model(
    "gait_rdae",
    GaitRDAE,
    {"gait3d": _cfg(3000, (1, 4, 4, 1)), "casiab": _cfg(74, (1, 1, 1, 1))},
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "channels": (2, 8, 8, 5),
            "part_bins": (4,),
            "layers": (1, 1, 1, 1),
            "num_regions": 2,
            "kernels": (1, 3),
            "reduction": 4,
            "zero_init_last": False,
        },
        input_size=(16, 12),
        fidelity="reconstruction",
    ),
)
