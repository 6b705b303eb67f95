"""MTSGait: gait recognition in the wild with multi-hop temporal switch (ACM MM 2022).

Paper: https://arxiv.org/abs/2209.00355. Authors' code:
https://github.com/Gait3D/Gait3D-Benchmark (academic use only; nothing of it is contained here).

Differences from upstream:

- Frames are shifted within their own sequence: zeros come in at its end, whatever stands in the
  padding behind it, so padded batches give the numbers of single sequences.
- The shifted copies are added before the convolution instead of behind it, which is the same.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.plain import TemporalSwitch
from gaitzoo.layers.residual import FrameWise
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS

__all__ = ["MTSGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2209.00355"


class MTSGait(MaxPooled):
    """MTSGait: a plain network of frames that look at their neighbours, horizontal bands, BN neck.

    Source: https://arxiv.org/abs/2209.00355; what differs is listed at the top of this file.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        channels: Widths of the three pairs of convolutions; a smaller map follows the first two.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        hops: Distances in frames of the neighbours.
        divisor: What part of the channels comes from neighbours, in either direction.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, H and W multiples of 4.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = MTSGait(num_classes=3, channels=(16, 16, 16), part_channels=8).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 31, 3])
    """

    architecture = "mtsgait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        channels: tuple[int, int, int] = (64, 128, 256),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        hops: tuple[int, ...] = (1, 3),
        divisor: int = 16,
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.hops = tuple(hops)
        first, *_, last = channels
        self.stem = FrameWise(nn.Conv2d(in_channels, first, 5, padding=2, bias=False))
        widths = [first, first]
        for width in channels[1:]:
            widths += [width, width]
        self.switches = nn.ModuleList(
            TemporalSwitch(before, after, hops, divisor) for before, after in pairwise(widths)
        )
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.build_head(last, part_channels, part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`, before their activations."""
        return ("stem", *(f"switches.{i}" for i in range(len(self.switches))))

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T, H / 4, W / 4]`` and ``lengths``. What stands past
            the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        x = F.leaky_relu(self.run(self.stem, x), 0.01)
        for i, switch in enumerate(self.switches):
            x = F.leaky_relu(self.run(switch, x, lengths), 0.01)
            if i in (0, 2):
                x = self.pool(x)
        return x, lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return len(self.switches) * max(self.hops, default=0), 1


# The authors' list counts activations and pools too.
_PLACES = {2: 0, 5: 1, 7: 2, 10: 3, 12: 4}
_KEYS = {
    f"Backbone.forward_block.feature.{place}.conv.weight": f"switches.{i}.conv.block.weight"
    for place, i in _PLACES.items()
} | {
    "Backbone.forward_block.feature.0.conv.weight": "stem.block.weight",
    **HEAD_KEYS,
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not MTSGait's.
    """
    return rename_by_table(state_dict, _KEYS, "MTSGait")


_CFGS = {
    "gait3d": opengait_cfg(
        "mtsgait.gait3d",
        _PAPER,
        num_classes=3000,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 48.7, "protocol": "Gait3D probe list against the rest"},
    ),
    "gait3d_parsing": opengait_cfg(
        "mtsgait.gait3d_parsing",
        _PAPER,
        num_classes=3000,
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 61.2,
            "protocol": "Gait3D probe list against the rest, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "mtsgait",
    MTSGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "channels": (4, 4, 8),
            "part_channels": 4,
            "part_bins": (4, 2),
            "divisor": 4,
        },
        input_size=(16, 12),
    ),
)
