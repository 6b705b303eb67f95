"""Two narrow maps of a person that a large vision model's features turn into.

Source: BigGait (https://arxiv.org/abs/2402.19122), Sec. 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.branches import AttentionFusion
from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.residual import ResidualBackbone, ResidualBlock2d
from gaitzoo.models.base import init_weights
from gaitzoo.models.colour_model import ColourModel, MaskBranch, TokenBranch

__all__ = ["GaitRepresentationExtractor", "PersonStreams", "StreamModel"]

# Rows at the top and at the bottom that hold more ground than person.
_BORDER_ROWS = 5


class PersonStreams(nn.Module):
    """Base of what finds the person's pixels and reads two maps of them.

    Attributes:
        mask_branch: What tells person and ground apart.
        denoising: Channels of a softmax: maps like a silhouette.
        appearance: Channels of a sigmoid, after ``appearance_norm``: maps like a body.
        appearance_norm: Batch norm without weights.
    """

    mask_branch: MaskBranch
    denoising: TokenBranch
    appearance: TokenBranch
    appearance_norm: nn.BatchNorm1d

    def build_streams(
        self, width: int, in_channels: int, stream_channels: int, hidden: int
    ) -> None:
        """Builds the branches, for a constructor to call.

        Args:
            width: Channels of the map that the mask is found in.
            in_channels: Channels of the map that the streams are read from.
            stream_channels: Channels of each stream.
            hidden: Channels between the matrices of the denoising branch; 0 = one matrix.
        """
        self.mask_branch = MaskBranch(width)
        self.denoising = TokenBranch(in_channels, stream_channels, hidden)
        self.appearance = TokenBranch(in_channels, stream_channels)
        self.appearance_norm = nn.BatchNorm1d(stream_channels, affine=False)

    def foreground(self, normed: Tensor) -> Tensor:
        """Where the person is.

        Args:
            normed: Last block of DINOv2 after its norm, resized, ``[B, C, H, W]``.

        Returns:
            ``[B, 1, H, W]`` bool.
        """
        probabilities = self.mask_branch(normed)
        person = probabilities[:, 0].round()
        border = person[:, :_BORDER_ROWS].sum((1, 2)) + person[:, -_BORDER_ROWS:].sum((1, 2))
        # A class that fills the rims of a crop is the ground; the other one is the person.
        swapped = border > _BORDER_ROWS * person.shape[2]
        person = torch.where(swapped[:, None, None], probabilities[:, 1].round(), person)
        return F.max_pool2d(person.unsqueeze(1), 3, stride=1, padding=1) > 0

    def streams(self, maps: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps of the person.

        Args:
            maps: ``[B, C, H, W]``.
            seen: ``[B, 1, H, W]`` bool, the person's pixels; all others are zero in the result,
                and in training no part of batch statistics.

        Returns:
            The map of the denoising branch and that of the appearance branch,
            ``[B, stream_channels, H, W]`` each, in [0, 1].
        """
        return self._on_person(self._denoised, maps, seen), self._on_person(self._looks, maps, seen)

    def _denoised(self, rows: Tensor) -> Tensor:
        return self.denoising(rows).softmax(dim=1)

    def _looks(self, rows: Tensor) -> Tensor:
        return self.appearance_norm(self.appearance(rows)).sigmoid()

    def _on_person(self, branch: Callable[[Tensor], Tensor], maps: Tensor, seen: Tensor) -> Tensor:
        """A branch on the person's pixels; all others are zero."""
        rows, mask = maps.permute(0, 2, 3, 1), seen[:, 0]
        if not self.training:
            found = branch(rows.flatten(0, 2)).unflatten(0, rows.shape[:3])
            return torch.where(mask[..., None], found, 0).permute(0, 3, 1, 2)
        # Statistics of a batch are those of the person alone.
        chosen = branch(rows[mask])
        found = chosen.new_zeros(*mask.shape, chosen.shape[1])
        return found.masked_scatter(mask[..., None], chosen).permute(0, 3, 1, 2)


class GaitRepresentationExtractor(PersonStreams):
    """The person's pixels, and two narrow maps of them: one like a silhouette, one like a body.

    Source: BigGait (https://arxiv.org/abs/2402.19122), Sec. 3.3; :class:`BigGait` has the same
    branches. The mask has no labels: train ``mask_branch`` until :meth:`MaskBranch.rebuild` gives
    back what it was given, then freeze it. Losses on the first stream:
    :class:`StreamSmoothnessLoss`, :class:`StreamDiversityLoss`.

    Args:
        width: Channels of the map that the mask is found in.
        in_channels: Channels of the map that the streams are read from.
        stream_channels: Channels of each stream.
        hidden: Channels between the matrices of the denoising branch; 0 = one matrix.

    Shapes:
        maps: ``[B, in_channels, H, W]``, any values.
        normed: ``[B, width, H, W]``, any values; the mask is found in it.
        returns: two streams ``[B, stream_channels, H, W]`` in [0, 1], zero off the person; and the
            person's pixels ``[B, 1, H, W]``, bool.

    Raises:
        ValueError: If an argument is no positive whole number (``hidden`` may be 0), or axes,
            channels or sizes do not fit.

    Example:
        >>> extractor = GaitRepresentationExtractor(6, 8, 4, hidden=5).eval()
        >>> net = torch.nn.Conv2d(4, 2, 3)  # of a network of one's own
        >>> one, other, seen = extractor(torch.rand(3, 8, 16, 8), torch.rand(3, 6, 16, 8))
        >>> net(one).shape, other.shape, seen.dtype
        (torch.Size([3, 2, 14, 6]), torch.Size([3, 4, 16, 8]), torch.bool)
    """

    def __init__(
        self, width: int, in_channels: int, stream_channels: int = 16, hidden: int = 768
    ) -> None:
        super().__init__()
        check_size(width=width, in_channels=in_channels, stream_channels=stream_channels)
        if type(hidden) is not int or hidden < 0:
            raise ValueError(f"expected hidden as a whole number of 0 or more, got {hidden!r}")
        self.width, self.in_channels = width, in_channels
        self.build_streams(width, in_channels, stream_channels, hidden)

    def forward(self, maps: Tensor, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the streams and the person's pixels."""
        for x, channels in ((maps, self.in_channels), (normed, self.width)):
            if x.ndim != 4 or x.shape[1] != channels:
                raise ValueError(f"expected a map [B, {channels}, H, W], got {shape_of(x)}")
        seen = self.foreground(normed)
        if seen.shape[0] != maps.shape[0] or seen.shape[2:] != maps.shape[2:]:
            raise ValueError(
                f"expected maps of one size, got {shape_of(maps)} and {shape_of(normed)}"
            )
        return (*self.streams(maps, seen), seen)


class StreamModel(PersonStreams, ColourModel):
    """Base of networks that read two streams of DINOv2's features: eyes, and what reads streams.

    Attributes:
        width: Channels of DINOv2.
        encoder_layers: Blocks of DINOv2 that are read.
        part_stem: What reads the stream of the denoising branch.
        appearance_stem: What reads that of the appearance branch.
        fusion: What joins the two.
        blocks: What reads both.
    """

    width: int
    encoder_layers: tuple[int, ...]
    part_stem: ResidualBackbone
    appearance_stem: ResidualBackbone
    fusion: AttentionFusion
    blocks: nn.ModuleList

    def build_eyes(
        self,
        encoder: str | Mapping[str, Any] | None,
        pretrained: bool,
        chunk_frames: int,
        image_size: tuple[int, int],
        encoder_layers: tuple[int, ...],
    ) -> int:
        """Builds DINOv2, for a constructor to call first.

        Args:
            encoder: As for :class:`BigGait`, and so for the rest.
            pretrained: Whether to load its weights from the Hub.
            chunk_frames: Most frames at a time.
            image_size: Height and width of its images.
            encoder_layers: The blocks that are read, counted from 0.

        Returns:
            Channels of all of these together.

        Raises:
            ValueError: If an argument has none of the values named there.
        """
        self.width, depth = self.build_encoder(
            encoder, pretrained, chunk_frames, image_size, offset=0.1
        )
        if any(type(n) is not int or not 0 <= n < depth for n in encoder_layers):
            raise ValueError(
                f"expected encoder_layers as numbers of blocks from 0 to {depth - 1}, got "
                f"{encoder_layers!r}"
            )
        self.encoder_layers = tuple(encoder_layers)
        if self.encoder is None:
            self.in_channels = self.num_joined
        return len(encoder_layers) * self.width

    def build_gait_network(self, stream_channels: int, channels: tuple[int, ...]) -> None:
        """Builds what reads the streams, for a constructor to call.

        Args:
            stream_channels: Channels of each stream.
            channels: Widths of the four layers.
        """
        first = channels[0]
        self.part_stem = ResidualBackbone("2d", (1,), (first,), stream_channels)
        self.appearance_stem = ResidualBackbone("2d", (1,), (first,), stream_channels)
        self.fusion = AttentionFusion(first, max(1, first // 16))
        self.blocks = nn.ModuleList(
            ResidualBlock2d(before, after, stride)
            for before, after, stride in zip(channels, channels[1:], (2, 2, 1), strict=False)
        )
        for part in (self.part_stem, self.appearance_stem, self.fusion, self.blocks):
            init_weights(part)

    @property
    def num_joined(self) -> int:
        """See :attr:`ColourModel.num_joined`."""
        return (len(self.encoder_layers) + 1) * self.width

    def join_maps(self, maps: list[Tensor], normed: Tensor) -> Tensor:
        """See :meth:`ColourModel.join_maps`: the blocks, then the last one after its norm."""
        return torch.cat([*(maps[i] for i in self.encoder_layers), normed], dim=1)

    def taken_apart(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`join_maps` joined: the blocks, and the last after its norm.

        Args:
            features: ``[N, F, ...]``.
        """
        blocks, normed = features.split([features.shape[1] - self.width, self.width], dim=1)
        return blocks, normed
