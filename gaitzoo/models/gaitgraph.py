"""GaitGraph and GaitGraph2: graph convolutions over poses (ICIP 2021, CVPR workshops 2022).

Papers: https://arxiv.org/abs/2101.11228 and https://arxiv.org/abs/2204.07855, on ResGCN,
https://arxiv.org/abs/2010.09978. Authors' code: https://github.com/tteepe/GaitGraph2 and
https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained here).

Differences from upstream:

- Whole sequences are embedded; upstream tests on a random window of 60 frames (30 for OU-MVLP),
  repeated where a sequence is shorter. Cut sequences before the call to have windows.
- Padded frames reach no convolution and no mean, and playing backwards begins at a sequence's own
  end, so padded batches give the numbers of single sequences.
- One graph per model. The authors' branches and main network share one in memory, so that a loaded
  file's last branch counts for all; its graph is the one that is read, with a warning where the
  others differ.
- Missing joints are repaired inside the model, before anything else, where the authors' data
  transform does it. For GaitGraph1 the data sets that need it are inferred from GaitGraph2's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.data.joints import find_skeleton, joint_graph
from gaitzoo.data.pose_branches import (
    fill_empty_joints,
    gaitgraph_inputs,
    reverse_time,
    swap_joints,
)
from gaitzoo.layers.checks import check_sizes, shape_of
from gaitzoo.layers.graph import ResGCNBlock, ResGCNInput
from gaitzoo.layers.sequence import lengths_for, mask_fill, masked_mean
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.gaitgraph_files import (
    GAITGRAPH1_CFGS,
    GAITGRAPH2_CFGS,
    convert_checkpoint,
)
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.pose_model import PoseLinear, PoseModel
from gaitzoo.models.registry import register_model

__all__ = ["GaitGraph1", "GaitGraph2"]


class _ResGCN(PoseModel):
    """Branches of graph convolutions, joined into one network, a mean, a matrix.

    A subclass says what a branch reads, which views of a clip are embedded and how their vectors
    are joined.
    """

    adjacency: Tensor

    def build(
        self,
        num_branches: int,
        branch_widths: tuple[int, ...],
        main_widths: tuple[int, ...],
        reduction: int,
        joint_format: str,
        embedding_dim: int,
    ) -> None:
        """Builds the network, for a constructor to call.

        Raises:
            ValueError: If an argument has none of the values that the class names.
        """
        branch_widths = check_sizes("branch_widths", branch_widths)
        main_widths = check_sizes("main_widths", main_widths)
        if len(branch_widths) < 3 or len(main_widths) < 2 or branch_widths[-1] != main_widths[0]:
            raise ValueError(
                "expected three or more branch_widths, two or more main_widths and the last of a "
                f"branch as the first of the main network, got {branch_widths} and {main_widths}"
            )
        self.set_joints(joint_format)
        self.register_buffer("adjacency", joint_graph(joint_format))
        self.branches = nn.ModuleList(
            _branch(branch_widths, reduction, self.num_joints) for _ in range(num_branches)
        )
        self.main = nn.ModuleList()
        before = num_branches * main_widths[0]
        for i, (narrow, wide) in enumerate(pairwise(main_widths)):
            stride = 2 if i == 0 or narrow != wide else 1
            self.main.append(ResGCNBlock(before, wide, self.num_joints, reduction, stride))
            before = wide
        self.head = PoseLinear(before, embedding_dim)
        init_weights(self)

    def map_branches(
        self, branches: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The map before the mean.

        Args:
            branches: ``[N, T, V, B, C]``: what each of B branches reads.
            lengths: ``[N]``, valid frames, or ``None``.

        Returns:
            ``[N, main_widths[-1], T', V]`` and the valid T'.
        """
        maps = []
        for i, layers in enumerate(self.branches):
            x = mask_fill(branches[:, :, :, i].permute(0, 3, 1, 2), lengths)
            assert isinstance(layers, nn.ModuleList)
            maps.append(self._through(layers, x, lengths)[0])
        return self._through(self.main, torch.cat(maps, dim=1), lengths)

    def _through(
        self, layers: nn.ModuleList, x: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        for layer in layers:
            assert isinstance(layer, ResGCNInput | ResGCNBlock)
            x = self.run(layer, x, self.adjacency, lengths)
            lengths = None if lengths is None else layer.out_lengths(lengths)
        return x, lengths

    def map_views(
        self, views: list[Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The maps of several views of the same clips, on the channel axis.

        Args:
            views: Branches as for :meth:`map_branches`.
            lengths: ``[N]``, valid frames, or ``None``.
        """
        count = len(views)
        repeated = None if lengths is None else lengths.repeat(count)
        features, out_lengths = self.map_branches(torch.cat(views), repeated)
        features = features.unflatten(0, (count, -1)).transpose(0, 1).flatten(1, 2)
        if out_lengths is not None:
            out_lengths = out_lengths.unflatten(0, (count, -1))[0]
        return features, out_lengths

    def vectors(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Every view's vector, ``[N, views, embedding_dim]``.

        Args:
            features: Maps of the views on the channel axis, ``[N, views * C, T', V]``.
            lengths: ``[N]``, the valid T', or ``None``.
        """
        pooled = masked_mean(features.mean(3), lengths).squeeze(2)
        return self.head(pooled.unflatten(1, (-1, self.head.in_features)))


def _branch(widths: tuple[int, ...], reduction: int, num_joints: int) -> nn.ModuleList:
    layers = nn.ModuleList([ResGCNInput(widths[0], widths[1], num_joints)])
    for narrow, wide in pairwise(widths[1:]):
        layers.append(ResGCNBlock(narrow, wide, num_joints, reduction))
    return layers


class GaitGraph1(_ResGCN):
    """GaitGraph: one branch of graph convolutions over raw poses.

    Source: https://arxiv.org/abs/2101.11228, in the form of OpenGait; what differs is listed at
    the top of this file. Coordinates are not normalised: give poses in the pixels of the training
    set. Batch-norm statistics see what is in the batch: train on clips of equal length.

    Args:
        branch_widths: Numbers of a joint, channels of the first block, channels of the others.
        main_widths: Channels of the branch, then of the blocks behind it; time is halved by the
            first of them and by every one that changes width.
        reduction: Narrowing inside a block.
        joint_format: ``"coco17"`` or ``"openpose18"``.
        embedding_dim: C of the embeddings.
        tta: In eval mode, embed every clip forwards and backwards and take the mean of both.
        fill_empty: Repair missing joints first (:func:`gaitzoo.fill_empty_joints`).

    Shapes:
        poses: ``[N, T, J, 3]``: x and y in pixels, confidence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, 1, embedding_dim]``; a model without
            classes.

    Raises:
        ValueError: If an argument has none of the values named here, or poses have other joints.

    Example:
        >>> model = GaitGraph1(branch_widths=(3, 8, 8), main_widths=(8, 16)).eval()
        >>> model(torch.rand(2, 60, 17, 3), torch.tensor([60, 9])).embeddings.shape
        torch.Size([2, 1, 128])
    """

    architecture = "gaitgraph1"

    @record_args
    def __init__(
        self,
        *,
        branch_widths: tuple[int, ...] = (3, 64, 64, 32),
        main_widths: tuple[int, ...] = (32, 128, 128, 256, 256),
        reduction: int = 8,
        joint_format: str = "coco17",
        embedding_dim: int = 128,
        tta: bool = True,
        fill_empty: bool = False,
    ) -> None:
        super().__init__(embedding="output")
        self.tta, self.fill_empty = tta, fill_empty
        self.num_features, self.num_parts = embedding_dim, 1
        self.build(1, branch_widths, main_widths, reduction, joint_format, embedding_dim)

    def forward_features(  # pyright: ignore[reportIncompatibleMethodOverride] - poses
        self, poses: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps before the mean.

        Args:
            poses: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, views * main_widths[-1], T', J]``, views being the clip forwards
            and, in eval mode with ``tta``, backwards; and the valid T'.
        """
        x, lengths = self.read(poses, lengths)
        x = fill_empty_joints(x) if self.fill_empty else x
        views = [x] if self.training or not self.tta else [x, reverse_time(x, lengths)]
        return self.map_views([view.unsqueeze(3) for view in views], lengths)

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Means over frames and joints, a matrix, and the mean of the views."""
        vectors = self.vectors(features, lengths)
        return GaitOutput(embeddings=F.normalize(vectors.mean(1, keepdim=True), dim=2))


class GaitGraph2(_ResGCN):
    """GaitGraph2: graph convolutions over joint, velocity and bone branches.

    Source: https://arxiv.org/abs/2204.07855, in the form of OpenGait; what differs is listed at
    the top of this file. Coordinates are not normalised: give poses in the pixels of the training
    set. Batch-norm statistics see what is in the batch: train on clips of equal length. In
    training mode embeddings are those of the clip alone, ``[N, 1, embedding_dim]``.

    Args:
        branch_widths: Numbers of a joint, channels of the first block, channels of the others.
        main_widths: Channels of a branch, then of the blocks behind all three; time is halved by
            the first of them and by every one that changes width.
        reduction: Narrowing inside a block.
        joint_format: ``"coco17"`` or ``"openpose18"``.
        embedding_dim: C of one view's vector.
        tta: In eval mode, embed every clip as it is, backwards, and with left and right joints
            exchanged (coordinates stay), and put the three vectors behind each other. As upstream,
            the latter two are measured from the graph's centre, which is the neck of 18 joints,
            the clip as it is from the nose.
        fill_empty: Repair missing joints first (:func:`gaitzoo.fill_empty_joints`).

    Shapes:
        poses: ``[N, T, J, 3]``: x and y in pixels, confidence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, 1, 3 * embedding_dim]``, compared as
            one vector by its cosine (``embedding_dim`` without ``tta``); a model without classes.

    Raises:
        ValueError: If an argument has none of the values named here, or poses have other joints.

    Example:
        >>> model = GaitGraph2(branch_widths=(5, 8, 8), main_widths=(8, 16)).eval()
        >>> model(torch.rand(2, 60, 17, 3), torch.tensor([60, 9])).embeddings.shape
        torch.Size([2, 1, 384])
    """

    architecture = "gaitgraph2"

    @record_args
    def __init__(
        self,
        *,
        branch_widths: tuple[int, ...] = (5, 64, 32),
        main_widths: tuple[int, ...] = (32, 128, 256),
        reduction: int = 8,
        joint_format: str = "coco17",
        embedding_dim: int = 128,
        tta: bool = True,
        fill_empty: bool = False,
    ) -> None:
        super().__init__(embedding="output")
        self.tta, self.fill_empty = tta, fill_empty
        self.num_features, self.num_parts = (3 if tta else 1) * embedding_dim, 1
        self.build(3, branch_widths, main_widths, reduction, joint_format, embedding_dim)

    def forward_features(  # pyright: ignore[reportIncompatibleMethodOverride] - poses
        self, poses: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps before the mean.

        Args:
            poses: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, views * main_widths[-1], T', J]``, views being the clip and, in eval
            mode with ``tta``, the clip backwards and with sides exchanged; and the valid T'.
        """
        x, lengths = self.read(poses, lengths)
        x = fill_empty_joints(x) if self.fill_empty else x
        branches = gaitgraph_inputs(x, lengths, joint_format=self.joint_format)
        return self.map_views(self._views(branches, lengths), lengths)

    def forward_branches(self, branches: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds branches that were made before, as by :func:`gaitzoo.gaitgraph_inputs`.

        Args:
            branches: ``[N, T, J, 3, 5]``; the other views are made of the first branch.
            lengths: As for the model's call.

        Raises:
            ValueError: If the shape is another one, or lengths do not fit.
        """
        if branches.ndim != 5 or branches.shape[2:4] != (self.num_joints, 3):
            raise ValueError(
                f"expected branches [N, T, {self.num_joints}, 3, 5], got {shape_of(branches)}"
            )
        lengths = lengths_for(lengths, branches, axis=1)
        branches = mask_fill(branches, lengths, axis=1)
        return self.forward_head(*self.map_views(self._views(branches, lengths), lengths))

    def _views(self, branches: Tensor, lengths: Tensor | None) -> list[Tensor]:
        if self.training or not self.tta:
            return [branches]
        x = branches[:, :, :, 0, :3]
        center = find_skeleton(self.joint_format).center
        others = (reverse_time(x, lengths), swap_joints(x, self.joint_format))
        return [
            branches,
            *(
                gaitgraph_inputs(view, lengths, joint_format=self.joint_format, center=center)
                for view in others
            ),
        ]

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Means over frames and joints, and a matrix; the views' vectors behind each other."""
        return GaitOutput(embeddings=self.vectors(features, lengths).flatten(1).unsqueeze(1))


register_model(
    "gaitgraph1",
    GaitGraph1,
    GAITGRAPH1_CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        model_args={
            "branch_widths": (3, 8, 8),
            "main_widths": (8, 16, 24),
            "reduction": 2,
            "embedding_dim": 8,
        },
    ),
)
register_model(
    "gaitgraph2",
    GaitGraph2,
    GAITGRAPH2_CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        model_args={
            "branch_widths": (5, 8, 8),
            "main_widths": (8, 16, 24),
            "reduction": 2,
            "embedding_dim": 8,
        },
    ),
)
