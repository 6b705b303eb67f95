"""MultiGait++: what several inputs share and what each holds alone (AAAI 2025).

Paper: https://arxiv.org/abs/2412.11495. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences. Upstream joins the sequences of a batch
  into one and convolves across the joins.
- Inputs come apart, by name; upstream stacks them as channels.
- Any widths, and any size of frames that the part bins divide; upstream fixes 64 and 256.

Upstream divides whatever parsing and flow files hold by 255, and says nowhere how they are stored
(labels or grey levels; which colours flow has). The inputs here are therefore such pictures, 0..255
or divided: ``parsing_images`` and ``flow_images``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaitzoo.data.modalities import check_same_sizes, find_modality
from gaitzoo.layers.branches import P3dLayers, SharedSpecificFusion
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.residual import FrameWise, ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS, layer_keys, stem_keys

__all__ = ["MultiGaitPP"]


class MultiGaitPP(MaxPooled):
    """MultiGait++: two branches, taken apart into three, and joined again.

    Source: https://arxiv.org/abs/2412.11495, Sec. 4; what differs is listed at the top of this
    file. Every branch reads one input, or several stacked as channels.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        first: Modalities of the first branch, maps of one value range.
        second: Modalities of the second branch.
        layers: Blocks of each of the four layers; the first stands in both branches, the second
            and third in all three.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        hidden_channels: As for :class:`SharedSpecificFusion`.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.

    Shapes:
        inputs: A mapping with all of ``first`` and ``second``, for example ``{"silhouettes":
            [N, T, H, W], "parsing_images": [N, T, H, W]}``, in [0, 1] or uint8 0..255.
        lengths: ``[N]`` int64, valid frames of all of them; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = MultiGaitPP(num_classes=3, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> inputs = {name: torch.rand(2, 5, 64, 44) for name in model.modalities}
        >>> model(inputs, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 16, 3])
    """

    architecture = "multigaitpp"
    modalities = ("silhouettes", "parsing_images")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        first: tuple[str, ...] = ("silhouettes",),
        second: tuple[str, ...] = ("parsing_images",),
        layers: tuple[int, ...] = (1, 2, 2, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        hidden_channels: int = 4,
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        self.embedding = embedding
        self.first, self.second = _checked_modalities(first, second)
        self.modalities = (*self.first, *self.second)
        width, depths, widths = channels[0], layers[1:3], channels[1:3]
        self.first_branch, self.second_branch = (
            ResidualBackbone("2d", layers[:1], channels[:1], _num_channels(names))
            for names in (self.first, self.second)
        )
        self.split = SharedSpecificFusion(width, hidden_channels)
        self.first_layers, self.shared_layers, self.second_layers = (
            P3dLayers(width, depths, widths, (2, 2)) for _ in range(3)
        )
        self.fusion = FrameWise(Conv2d(3 * channels[2], channels[2], 1, bias=False))
        self.trunk = P3dLayers(channels[2], layers[3:], channels[3:], (1,))
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: of two branches, of three, and after them."""
        return (
            *self.first_branch.stage_names("first_branch."),
            *self.second_branch.stage_names("second_branch."),
            *self.first_layers.stage_names("first_layers."),
            *self.shared_layers.stage_names("shared_layers."),
            *self.second_layers.stage_names("second_layers."),
            "fusion",
            *self.trunk.stage_names("trunk."),
        )

    def forward_features(
        self, silhouettes: Mapping[str, Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: All inputs, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` (both rounded up) and ``lengths``.
            What stands past the end of a sequence holds no meaning.
        """
        inputs, lengths = self.prepare(silhouettes, lengths)
        check_same_sizes(inputs)
        one, other = (
            branch(torch.cat([inputs[name] for name in names], dim=1), lengths, self.run)
            for branch, names in (
                (self.first_branch, self.first),
                (self.second_branch, self.second),
            )
        )
        shared, of_one, of_other = self.run(self.split, one, other)
        maps = [
            self.first_layers(of_one, lengths, self.run),
            self.shared_layers(shared, lengths, self.run),
            self.second_layers(of_other, lengths, self.run),
        ]
        x = self.run(self.fusion, torch.cat(maps, dim=1))
        return self.trunk(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.shared_layers.reach() + self.trunk.reach(), 1


def _checked_modalities(
    first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(first, str) or isinstance(second, str):
        raise ValueError(f"expected tuples of names of modalities, got {first!r} and {second!r}")
    first, second = tuple(first), tuple(second)
    names = (*first, *second)
    if not first or not second or len(set(names)) < len(names):
        raise ValueError(
            "expected one modality or more in each branch, each in one branch alone, got "
            f"{first!r} and {second!r}"
        )
    for name in names:
        modality = find_modality(name)
        if not modality.is_map or modality.time_axis is None:
            raise ValueError(f"expected modalities whose frames are maps, got {name!r}")
    return first, second


def _num_channels(names: tuple[str, ...]) -> int:
    return sum(find_modality(name).channels or 1 for name in names)


_KEYS = {
    **stem_keys("part1_layer0", "first_branch.stem"),
    **layer_keys("part1_layer1", "first_branch.layers.0"),
    **stem_keys("part2_layer0", "second_branch.stem"),
    **layer_keys("part2_layer1", "second_branch.layers.0"),
    # Their first scores are those of the second part.
    r"csquare\.conv1\.forward_block\.(.+)": r"split.scores_other.\1",
    r"csquare\.conv2\.forward_block\.(.+)": r"split.scores_one.\1",
    **layer_keys("part1_layer2", "first_layers.layers.0"),
    **layer_keys("part1_layer3", "first_layers.layers.1"),
    **layer_keys("layer2", "shared_layers.layers.0"),
    **layer_keys("layer3", "shared_layers.layers.1"),
    **layer_keys("part2_layer2", "second_layers.layers.0"),
    **layer_keys("part2_layer3", "second_layers.layers.1"),
    r"fusion\.conv\.forward_block\.0\.(.+)": r"fusion.block.\1",
    **layer_keys("layer4", "trunk.layers.0"),
    **HEAD_KEYS,
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not MultiGait++'s.
    """
    return rename_by_table(state_dict, _KEYS, "MultiGait++")


def _cfg(
    tag: str, first: tuple[str, ...], second: tuple[str, ...], depth: int, **fields: object
) -> PretrainedCfg:
    model_args = {"first": first, "second": second, "layers": (1, depth, depth, 1)}
    fields = {"modalities": (*first, *second), "model_args": model_args, **fields}
    return opengait_cfg(f"multigaitpp.{tag}", "https://arxiv.org/abs/2412.11495", **fields)


_SILHOUETTES = ("silhouettes",)
_BODY = ("silhouettes", "parsing_images")
_FLOW = ("flow_images",)
_CFGS = {
    "gait3d": _cfg("gait3d", _SILHOUETTES, ("parsing_images",), 2, num_classes=3000),
    "grew": _cfg("grew", _SILHOUETTES, _FLOW, 2, num_classes=20000),
    "ccpg": _cfg(
        "ccpg",
        _BODY,
        _FLOW,
        1,
        num_classes=100,
        metrics={"rank1_mean": 87.6, "protocol": "CCPG, the mean; reported by others"},
    ),
    "sustech1k": _cfg(
        "sustech1k",
        _BODY,
        _FLOW,
        1,
        num_classes=250,
        metrics={"rank1": 87.6, "protocol": "SUSTech1K, all probes; reported by others"},
    ),
}
register_model(
    "multigaitpp",
    MultiGaitPP,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 2, 1, 1)},
        input_size=(16, 12),
    ),
)
