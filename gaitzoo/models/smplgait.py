"""SMPLGait: silhouettes turned by body-model parameters (CVPR 2022), and its plain network alone.

Paper: https://arxiv.org/abs/2204.02569. Authors' code:
https://github.com/Gait3D/Gait3D-Benchmark (academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are left out of the maximum, so padded batches give the numbers of single
  sequences. In training the batch norms of the parameters would still count them: train on clips
  of equal length.
- The size of the matrix is an argument, for other sizes of frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.plain import PlainCNN
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS

__all__ = ["BodyMatrix", "PlainGait", "SMPLGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2204.02569"
_SMPL = 85  # camera 3, pose 72, shape 10


class BodyMatrix(nn.Module):
    """A matrix per frame from body-model parameters, near the identity.

    Three linear layers, each with batch norm and ReLU behind it; the identity is added.

    Source: SMPLGait (https://arxiv.org/abs/2204.02569), Sec. 4.2, 3-D spatial transformation.

    Args:
        size: Rows and columns of the matrix.
        channels: Widths of the first two layers.
        drop_rate: Dropout behind the second and third linear layer, in training.

    Shapes:
        x: ``[B, 85]``: camera 3, pose 72 (radians), shape 10.
        returns: ``[B, size, size]``.

    Raises:
        ValueError: If an argument is no positive whole number, or axes do not fit.

    Example:
        >>> BodyMatrix(16)(torch.rand(2, 85)).shape
        torch.Size([2, 16, 16])
    """

    keeps_float32 = True

    def __init__(
        self, size: int = 16, channels: tuple[int, int] = (128, 256), drop_rate: float = 0.2
    ) -> None:
        super().__init__()
        first, second = channels
        check_size(size=size, first=first, second=second)
        self.size = size
        self.fc1, self.bn1 = nn.Linear(_SMPL, first), nn.BatchNorm1d(first)
        self.fc2, self.bn2 = nn.Linear(first, second), nn.BatchNorm1d(second)
        self.fc3, self.bn3 = nn.Linear(second, size * size), nn.BatchNorm1d(size * size)
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the matrices."""
        if x.ndim != 2 or x.shape[1] != _SMPL:
            raise ValueError(f"expected parameters [B, {_SMPL}], got {shape_of(x)}")
        x = F.relu(self.bn1(self.fc1(x)))
        x = F.relu(self.bn2(self.dropout(self.fc2(x))))
        x = F.relu(self.bn3(self.dropout(self.fc3(x))))
        return x.unflatten(1, (self.size, self.size)) + torch.eye(self.size).to(x)


class PlainGait(MaxPooled):
    """The baseline of Gait3D: a plain network of single frames, horizontal bands, BN neck.

    Source: https://arxiv.org/abs/2204.02569, Sec. 4.1, silhouettes alone. The order of frames
    never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        channels: Widths of the three pairs of convolutions; a smaller map follows the first two.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, H and W multiples of 4.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = PlainGait(num_classes=3, channels=(4, 4, 8), part_channels=8).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 31, 3])
    """

    architecture = "plaingait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        channels: tuple[int, int, int] = (64, 128, 256),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.cnn = PlainCNN(in_channels, channels)
        self.build_head(channels[-1], part_channels, part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the three pairs."""
        return tuple(f"cnn.blocks.{i}" for i in range(len(self.cnn.blocks)))

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
        return self.cnn(x, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1


class SMPLGait(MaxPooled):
    """SMPLGait: the baseline of Gait3D, with maps multiplied by a matrix of the body's parameters.

    Source: https://arxiv.org/abs/2204.02569; what differs is listed at the top of this file. The
    order of frames never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        channels: Widths of the three pairs of convolutions; a smaller map follows the first two.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        matrix_size: Rows and columns of the matrix; maps get zeros to the right until they are as
            wide. At least a quarter of the frame's width.
        body_channels: Widths of the first two layers that see the parameters.
        drop_rate: Dropout of these layers, in training.

    Shapes:
        inputs: ``{"silhouettes": [N, T, H, W], "smpl": [N, T, 85]}``: floats in [0, 1] or uint8,
            H and W multiples of 4; camera 3, pose 72 in radians, shape 10. ``"parsing"`` stands
            in place of ``"silhouettes"`` where the tag says so.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``.

    Raises:
        ValueError: If an argument has none of the values named here, or frames are too wide.

    Example:
        >>> model = SMPLGait(num_classes=3, channels=(4, 4, 8), part_channels=8).eval()
        >>> inputs = {"silhouettes": torch.rand(2, 5, 64, 44), "smpl": torch.rand(2, 5, 85)}
        >>> model(inputs, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 31, 3])
    """

    architecture = "smplgait"
    modalities = ("silhouettes", "smpl")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        channels: tuple[int, int, int] = (64, 128, 256),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        matrix_size: int = 16,
        body_channels: tuple[int, int] = (128, 256),
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.embedding = "fc"
        # In front: inputs are read in the type of the first layer, which stays float32 when the
        # maps get a narrower one.
        self.body = BodyMatrix(matrix_size, body_channels, drop_rate)
        self.cnn = PlainCNN(1, channels)
        self.build_head(channels[-1], part_channels, part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the three pairs, before the matrix."""
        return tuple(f"cnn.blocks.{i}" for i in range(len(self.cnn.blocks)))

    def forward_features(
        self, silhouettes: Mapping[str, Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps of all frames, turned by the body's parameters.

        Args:
            silhouettes: Both inputs, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T, H / 4, matrix_size]`` and ``lengths``. What stands
            past the end of a sequence holds no meaning.
        """
        inputs, lengths = self.prepare(silhouettes, lengths)
        x = inputs[self.modalities[0]]
        matrices = self.run(self.body, inputs["smpl"].transpose(1, 2).flatten(0, 1))
        frames = to_frames(self.cnn(x, self.run))
        return to_sequences(self._turned(frames, matrices), x.shape[0]), lengths

    def _turned(self, frames: Tensor, matrices: Tensor) -> Tensor:
        """Every channel's map, as wide as the matrix, times the matrix."""
        height, width = frames.shape[2:]
        size = self.body.size
        if width > size:
            raise ValueError(
                f"expected frames of at most {4 * size} columns for matrices of {size} x {size}, "
                f"got maps of {width} columns; build the model with matrix_size={width} or more"
            )
        # All channels below each other: one product per frame.
        rows = F.pad(frames, (0, size - width)).flatten(1, 2)
        return torch.bmm(rows, matrices.to(rows.dtype)).unflatten(1, (-1, height))

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1


# The authors' list counts activations and pools too.
_CNN_KEYS = {
    rf"Backbone\.forward_block\.feature\.{place}\.conv\.(\w+)": (
        rf"cnn.blocks.{i // 2}.block.conv{1 + i % 2}.conv.\1"
    )
    for i, place in enumerate((0, 2, 5, 7, 10, 12))
}
_PLAIN_KEYS = {**_CNN_KEYS, **HEAD_KEYS}
_KEYS = {r"((?:fc|bn)[123])\.(\w+)": r"body.\1.\2", **_PLAIN_KEYS}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under the names of :class:`SMPLGait`.

    Raises:
        UnknownKeysError: If a name is not SMPLGait's.
    """
    return rename_by_table(state_dict, _KEYS, "SMPLGait")


def _convert_plain(state_dict: StateDict) -> StateDict:
    return rename_by_table(state_dict, _PLAIN_KEYS, "baseline of Gait3D")


_PROTOCOL = "Gait3D probe list against the rest"
_CFGS = {
    "gait3d": opengait_cfg(
        "smplgait.gait3d",
        _PAPER,
        num_classes=3000,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 46.3, "protocol": f"{_PROTOCOL}, 64 pixels"},
    ),
    "gait3d_128": opengait_cfg(
        "smplgait.gait3d_128",
        _PAPER,
        num_classes=3000,
        input_size=(128, 88),
        model_args={"matrix_size": 32},
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 53.2, "protocol": f"{_PROTOCOL}, 128 pixels"},
        notes=(
            "The size of the matrix is inferred from that of the maps; a file of another structure "
            "is refused."
        ),
    ),
    "gait3d_parsing": opengait_cfg(
        "smplgait.gait3d_parsing",
        _PAPER,
        num_classes=3000,
        modalities=("parsing", "smpl"),
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 60.6,
            "protocol": f"{_PROTOCOL}, parsing maps instead of silhouettes",
        },
        notes="Reads maps of body part labels 0..11 as floats, not scaled (inferred).",
    ),
}
_PLAIN_CFGS = {
    "gait3d": opengait_cfg(
        "plaingait.gait3d",
        _PAPER,
        fidelity="paper",
        num_classes=3000,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 42.9, "protocol": f"{_PROTOCOL}, 64 pixels"},
    ),
    "gait3d_128": opengait_cfg(
        "plaingait.gait3d_128",
        _PAPER,
        fidelity="paper",
        num_classes=3000,
        input_size=(128, 88),
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 47.7, "protocol": f"{_PROTOCOL}, 128 pixels"},
    ),
}
_TINY = {"channels": (2, 3, 4), "part_channels": 4, "part_bins": (4, 2)}
register_model(
    "smplgait",
    SMPLGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={**_TINY, "matrix_size": 4, "body_channels": (6, 7)},
        input_size=(16, 12),
    ),
)
register_model(
    "plaingait",
    PlainGait,
    _PLAIN_CFGS,
    convert=_convert_plain,
    tiny=PretrainedCfg(num_classes=5, model_args=_TINY, input_size=(16, 12)),
)
