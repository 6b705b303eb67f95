"""GaitPart: temporal part-based model for gait recognition (CVPR 2020).

Paper: https://openaccess.thecvf.com/content_CVPR_2020/html/Fan_GaitPart_Temporal_Part-Based_Model_for_Gait_Recognition_CVPR_2020_paper.html.
Authors' code: https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained
here).

Differences from upstream:

- The convolutions over time of all parts are one grouped convolution, strips are images of a batch:
  the same numbers with fewer calls.
- Padded frames are zero before convolutions and averages over time and left out of every maximum,
  so padded batches give the numbers of single sequences.
- ``num_classes`` adds a class matrix per part, for those who train with cross-entropy too; the
  authors train with the triplet loss alone, and their files hold no classes.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_lengths, shape_of
from gaitzoo.layers.heads import PartLinear
from gaitzoo.layers.plain import PlainCNN
from gaitzoo.layers.pooling import HorizontalPyramidPooling
from gaitzoo.layers.sequence import mask_fill, masked_max
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_keys
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.part_head import PartClasses, PartHead
from gaitzoo.models.registry import register_model

__all__ = ["GaitPart", "TemporalPartAggregator", "convert_checkpoint"]

_PAPER = (
    "https://openaccess.thecvf.com/content_CVPR_2020/html/"
    "Fan_GaitPart_Temporal_Part-Based_Model_for_Gait_Recognition_CVPR_2020_paper.html"
)


class TemporalPartAggregator(nn.Module):
    """Short movements of every body part, found at two lengths, and the strongest over time.

    Source: GaitPart (CVPR 2020), Sec. 3.4, micro-motion capture with templates of 3 and 5 frames.

    Args:
        num_parts: P, each with weights of its own.
        channels: C.
        squeeze: The hidden width is ``channels // squeeze``.

    Shapes:
        parts: ``[N, C, T, P]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, P, C]``.

    Raises:
        ValueError: If axes, parts, channels or lengths do not fit.

    Example:
        >>> TemporalPartAggregator(4, 8)(torch.rand(2, 8, 5, 4), torch.tensor([5, 1])).shape
        torch.Size([2, 4, 8])
    """

    keeps_float32 = True

    def __init__(self, num_parts: int, channels: int, squeeze: int = 4) -> None:
        super().__init__()
        self.num_parts, self.channels = num_parts, channels
        hidden = channels // squeeze
        wide, narrow = num_parts * channels, num_parts * hidden

        def conv(before: int, after: int, kernel_size: int) -> nn.Conv1d:
            padding = kernel_size // 2
            return nn.Conv1d(
                before, after, kernel_size, padding=padding, groups=num_parts, bias=False
            )

        self.short1, self.short2 = conv(wide, narrow, 3), conv(narrow, wide, 1)
        self.long1, self.long2 = conv(wide, narrow, 3), conv(narrow, wide, 3)

    def forward(self, parts: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns one vector per part."""
        if parts.ndim != 4 or (parts.shape[1], parts.shape[3]) != (self.channels, self.num_parts):
            raise ValueError(
                f"expected parts [N, {self.channels}, T, {self.num_parts}], got {shape_of(parts)}"
            )
        if lengths is not None:
            lengths = check_lengths(lengths, parts.shape[0], parts.shape[2]).to(parts.device)
        # Channels of a part stand together, as groups of a convolution do.
        x = mask_fill(parts.permute(0, 3, 1, 2).flatten(1, 2), lengths)
        short = torch.sigmoid(self.short2(F.leaky_relu(self.short1(x), 0.01)))
        hidden = mask_fill(F.leaky_relu(self.long1(x), 0.01), lengths)
        long = torch.sigmoid(self.long2(hidden))
        lowest = mask_fill(x, lengths, torch.finfo(x.dtype).min)
        y = short * _neighbourhood(x, lowest, 3) + long * _neighbourhood(x, lowest, 5)
        return masked_max(y, lengths).unflatten(1, (self.num_parts, self.channels))


def _neighbourhood(x: Tensor, lowest: Tensor, size: int) -> Tensor:
    """Mean (zeros outside count) plus maximum of neighbouring frames."""
    # Not pool1d: exported programs would keep the number of frames of the example.
    num_frames, reach = x.shape[2], size // 2
    zeros = F.pad(x, (reach, reach))
    lowest = F.pad(lowest, (reach, reach), value=torch.finfo(x.dtype).min)
    total, highest = zeros[..., :num_frames], lowest[..., :num_frames]
    for i in range(1, size):
        total = total + zeros[..., i : i + num_frames]
        highest = torch.maximum(highest, lowest[..., i : i + num_frames])
    return total / size + highest


class GaitPart(PartHead):
    """GaitPart: convolutions of body strips, then the short movements of every part.

    Source: the paper at the top of this file, where what differs is listed too.

    Args:
        num_classes: Training identities for a class matrix per part; 0 = none, as the authors.
        in_channels: Channels of the input.
        channels: Widths of the blocks of two convolutions.
        halving: Strips of each block: ``2 ** halving``, 0 = the whole frame.
        num_parts: P; must divide a quarter of the frame's height.
        squeeze: As for :class:`TemporalPartAggregator`.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, H a multiple of 64.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, num_parts, channels[-1]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = GaitPart(channels=(2, 4, 8)).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).embeddings.shape
        torch.Size([2, 16, 8])
    """

    architecture = "gaitpart"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 0,
        in_channels: int = 1,
        channels: tuple[int, ...] = (32, 64, 128),
        halving: tuple[int, ...] = (0, 2, 3),
        num_parts: int = 16,
        squeeze: int = 4,
    ) -> None:
        super().__init__(embedding="output")
        self.in_channels = in_channels
        self.backbone = PlainCNN(in_channels, channels, halving)
        self.part_pool = HorizontalPyramidPooling((num_parts,))
        self.num_parts, self.num_features = num_parts, channels[-1]
        self.aggregator = TemporalPartAggregator(num_parts, channels[-1], squeeze)
        self.part_fc = PartLinear(num_parts, channels[-1], channels[-1])
        self.classes = PartClasses(num_parts, channels[-1], num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: all blocks."""
        return tuple(f"backbone.blocks.{i}" for i in range(len(self.backbone.blocks)))

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps of all frames.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T, H / 4, W / 4]`` and ``lengths``. What stands past
            the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        return self.backbone(x, self.run), lengths

    def pool_parts(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Part vectors before the matrices, ``[N, num_parts, channels[-1]]``.

        Args:
            features: As from :meth:`forward_features`.
            lengths: ``[N]``, valid frames.
        """
        frames = features.transpose(1, 2).flatten(0, 1)
        parts = self.part_pool(frames).unflatten(0, (features.shape[0], -1))  # [N, T, P, C]
        return self.run(self.aggregator, parts.permute(0, 3, 1, 2), lengths)


_CONV = re.compile(r"Backbone\.forward_block\.feature\.(\d+)\.conv\.weight")
_TIME = re.compile(r"TFA\.pooling_func\.conv1d3x([13])\.(\d+)\.([02])\.conv\.weight")
# Where the convolutions stand in the authors' list: behind six of them or eight.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 16)


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours; the parts' own convolutions become grouped ones.

    Whether a convolution sees strips is in no key or shape: it follows from ``halving`` of the
    model that is built (six convolutions: 0, 2, 3; eight: 0, 0, 3, 3).

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same numbers under this model's names.

    Raises:
        UnknownKeysError: If a name is not GaitPart's.
        ValueError: If a part's convolution is missing.
    """
    renamed = rename_keys(state_dict, _new_key, "GaitPart")
    single = [key for key in renamed if key.startswith("aggregator.") and key.count(".") > 2]
    for place in sorted({key.rpartition(".")[0] for key in single}):
        numbers = sorted(int(key.rpartition(".")[2]) for key in single if key.startswith(place))
        if numbers != list(range(len(numbers))):
            raise ValueError(f"expected a convolution of every part in {place}, got {numbers}")
        tensors = [renamed.pop(f"{place}.{number}") for number in numbers]
        renamed[place] = torch.cat(tensors)
    return renamed


def _new_key(key: str) -> str | None:
    if key == "Head.fc_bin":
        return "part_fc.weight"
    conv, time = _CONV.fullmatch(key), _TIME.fullmatch(key)
    if conv and int(conv[1]) in _PLACES:
        number = _PLACES.index(int(conv[1]))
        return f"backbone.blocks.{number // 2}.block.conv{1 + number % 2}.conv.weight"
    if time:
        name = "short" if time[1] == "1" else "long"
        return f"aggregator.{name}{1 + int(time[3]) // 2}.weight.{time[2]}"
    return None


def _cfg(tag: str, **fields: object) -> PretrainedCfg:
    return opengait_cfg(f"gaitpart.{tag}", _PAPER, **{"embedding": "output", **fields})


_WIDE = {"channels": (32, 64, 128, 256), "halving": (0, 0, 3, 3)}
_GAIT3D = "Gait3D probe list against the rest"
_CFGS = {
    "casiab": _cfg(
        "casiab",
        training_data="CASIA-B, 74 subjects",
        metrics={
            "rank1": 96.1,
            "rank1_BG": 90.7,
            "rank1_CL": 78.7,
            "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
        },
    ),
    "oumvlp": _cfg(
        "oumvlp",
        model_args=_WIDE,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 88.6, "protocol": "OU-MVLP, identical views excluded"},
    ),
    "grew": _cfg(
        "grew",
        model_args=_WIDE,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 47.6, "protocol": "GREW test set, scored by its server"},
    ),
    "casiae": _cfg(
        "casiae",
        model_args=_WIDE,
        training_data="CASIA-E",
        metrics={
            "rank1": 82.9,
            "rank1_BG": 74.4,
            "rank1_CL": 60.5,
            "protocol": "CASIA-E; rank1 is normal walking (NM)",
        },
    ),
    "gait3d": _cfg(
        "gait3d",
        distance="cosine",
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 28.2, "protocol": f"{_GAIT3D}, 64 pixels"},
    ),
    "gait3d_128": _cfg(
        "gait3d_128",
        distance="cosine",
        input_size=(128, 88),
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 29.9, "protocol": f"{_GAIT3D}, 128 pixels"},
    ),
    "gait3d_parsing": _cfg(
        "gait3d_parsing",
        distance="cosine",
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 43.0,
            "mAP": 33.9,
            "protocol": f"{_GAIT3D}, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "gaitpart",
    GaitPart,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        embedding="output",
        model_args={"channels": (4, 8), "halving": (0, 1), "num_parts": 4, "squeeze": 2},
        input_size=(16, 12),
    ),
)
