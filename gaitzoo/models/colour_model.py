"""What networks on colours have in common: DINOv2 frame by frame, then the maximum over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm1d, Linear
from typing_extensions import Self

from gaitzoo.data.colours import standardize
from gaitzoo.layers.checks import check_size, check_values, shape_of
from gaitzoo.layers.sequence import mask_fill, masked_max, to_frames, to_sequences
from gaitzoo.models.dinov2 import KNOWN_ENCODERS, Dinov2Encoder
from gaitzoo.models.max_pooled import MaxPooled

__all__ = ["ColourModel", "MaskBranch", "TokenBranch", "layer_norm_maps", "resized"]

# What encoder=None leaves out.
_DEFAULT_ENCODER = "facebook/dinov2-small"
# Far beyond colours that are standardised by any data set's statistics, far below grey levels.
_MOST_DEVIATIONS = 16.0


class TokenBranch(nn.Module):
    """Batch norm without weights, then one matrix, or two with batch norm and GELU between them.

    Source: BigGait (https://arxiv.org/abs/2402.19122), Sec. 3.3.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels between two matrices; 0 = one matrix.

    Shapes:
        x: ``[R, C_in]``, any values; in training R > 1.
        returns: ``[R, C_out]``.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 0) -> None:
        super().__init__()
        self.norm = BatchNorm1d(in_channels, affine=False)
        self.linear = Linear(in_channels, hidden or out_channels)
        self.rest = None
        if hidden:
            norm = BatchNorm1d(hidden, affine=False)
            self.rest = nn.Sequential(norm, nn.GELU(), Linear(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rows after the matrices."""
        x = self.linear(self.norm(x))
        return x if self.rest is None else self.rest(x)


class MaskBranch(nn.Module):
    """Two classes of every pixel, person and ground, from what DINOv2 says of it.

    Source: BigGait (https://arxiv.org/abs/2402.19122), Sec. 3.3. The classes have no labels: the
    branch is trained until :meth:`rebuild` gives what it was given. Differs from upstream: no
    dropout, as the branch is used when it is trained.

    Args:
        channels: Channels of the input.

    Shapes:
        maps: ``[B, C, H, W]``, any values.
        returns: ``[B, 2, H, W]``, probabilities.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = TokenBranch(channels, 2)
        self.back = Linear(2, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns the probabilities."""
        rows = maps.permute(0, 2, 3, 1)
        found = self.branch(rows.flatten(0, 2)).float().softmax(dim=1)
        return found.view(*rows.shape[:3], 2).permute(0, 3, 1, 2)

    def rebuild(self, probabilities: Tensor) -> Tensor:
        """The maps as the two classes alone explain them, to be compared with the maps.

        Args:
            probabilities: ``[B, 2, H, W]``.

        Returns:
            ``[B, C, H, W]``.
        """
        return self.back(probabilities.movedim(1, -1).to(self.back.weight.dtype)).movedim(-1, 1)


def layer_norm_maps(maps: Tensor) -> Tensor:
    """Every pixel's channels to mean zero and variance one.

    Args:
        maps: ``[B, C, H, W]``.

    Example:
        >>> layer_norm_maps(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten().round().tolist()
        [-1.0, 1.0]
    """
    return F.layer_norm(maps.movedim(1, -1), (maps.shape[1],), eps=1e-6).movedim(-1, 1)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps or images of another size, bilinear.

    Args:
        maps: ``[B, C, H, W]``.
        size: Height and width, pixels.
    """
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class ColourModel(MaxPooled):
    """Base of networks that see single frames with DINOv2 and take the maximum over time.

    A subclass calls :meth:`build_encoder`, then builds its own layers, and defines
    :meth:`join_maps` and :meth:`frame_maps`. Nothing before the maximum mixes frames, so that
    ``chunk_frames`` of them are computed at a time, with equal results.

    Attributes:
        encoder: DINOv2; ``None`` = the model reads its features.
        chunk_frames: Most frames that are computed at a time in eval mode.
        image_size: Height and width of the images that DINOv2 sees, pixels.
        map_size: Height and width of the maps that the network behind it reads, pixels.
        none_counts: Arguments of which ``None`` does not mean the default.
    """

    none_counts: ClassVar[tuple[str, ...]] = ("encoder",)
    encoder: Dinov2Encoder | None
    chunk_frames: int
    image_size: tuple[int, int]
    map_size: tuple[int, int]

    def build_encoder(
        self,
        encoder: str | Mapping[str, Any] | None,
        pretrained: bool,
        chunk_frames: int,
        image_size: tuple[int, int],
        offset: float = 0.0,
    ) -> tuple[int, int]:
        """Builds DINOv2, for a constructor to call first.

        Args:
            encoder: As for :class:`BigGait`; ``None`` = features of ``facebook/dinov2-small``.
            pretrained: Whether to load its weights from the Hub.
            chunk_frames: Most frames at a time.
            image_size: Height and width of its images.
            offset: As for :class:`gaitzoo.models.dinov2.Dinov2Encoder`.

        Returns:
            Channels and blocks of DINOv2.

        Raises:
            ValueError: If an argument has none of the values named there.
        """
        check_size(chunk_frames=chunk_frames)
        self.chunk_frames, self.image_size = chunk_frames, image_size
        if encoder is None:
            if pretrained:
                raise ValueError("expected an encoder with encoder_pretrained=True, got None")
            self.encoder, self.modalities = None, ("features",)
            fields = KNOWN_ENCODERS[_DEFAULT_ENCODER]
            channels, depth, patch = (
                fields[key] for key in ("hidden_size", "num_hidden_layers", "patch_size")
            )
        else:
            self.encoder, self.in_channels = Dinov2Encoder(encoder, pretrained, offset), 3
            channels, depth = self.encoder.channels, self.encoder.depth
            patch = self.encoder.patch_size
        if len(image_size) != 2 or any(
            type(n) is not int or n < 1 or n % patch for n in image_size
        ):
            raise ValueError(
                f"expected image_size as two positive multiples of {patch}, got {image_size!r}"
            )
        rows, columns = (n // patch for n in image_size)
        self.map_size = 2 * rows, 2 * columns
        return channels, depth

    def config_args(self) -> dict[str, Any]:
        """See :meth:`GaitModel.config_args`: weights of the encoder are saved with the rest."""
        return {**super().config_args(), "encoder_pretrained": False}

    @property
    def input_size(self) -> tuple[int, int] | None:
        """See :attr:`GaitModel.input_size`: that of features; images may have any size."""
        if "map_size" not in vars(self) or self.encoder is not None:
            return None
        return self.map_size[0] // 2, self.map_size[1] // 2

    def join_maps(self, maps: list[Tensor], normed: Tensor) -> Tensor:
        """What the network reads of DINOv2, on the channel axis.

        Args:
            maps: Outputs of all blocks, ``[B, C, h, w]`` each.
            normed: The last one after the final norm.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no join_maps")

    def frame_maps(self, features: Tensor) -> Tensor:
        """The maps before the maximum over time.

        Args:
            features: ``[B, F, h, w]`` as from :meth:`join_maps`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no frame_maps")

    def prepare(self, inputs: Any, lengths: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """As for every model; colours in bytes are divided by 255 and standardised by the cfg."""
        if self.encoder is None:
            x, lengths = super().prepare(inputs, lengths)
            if x.shape[-2:] != self.input_size:
                raise ValueError(
                    f"expected features of {self.input_size} pixels, got {shape_of(x)}"
                )
            return x, lengths
        if isinstance(inputs, Mapping) and set(inputs) == {"rgb"}:
            inputs = inputs["rgb"]
        if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.ndim == 5:
            cfg = self.pretrained_cfg
            inputs = standardize(inputs.float() / 255, cfg.mean, cfg.std, axis=1)
        x, lengths = super().prepare(inputs, lengths)
        check_values(x, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, "standardised rgb")
        height, width = self.image_size
        if x.shape[3] * width != x.shape[4] * height:
            raise ValueError(
                f"expected rgb of {height} to {width} rows to columns, for example "
                f"{self.pretrained_cfg.input_size}, got {shape_of(x)}; "
                "gaitzoo.create_transform(model) resizes, pads and cuts crops"
            )
        return x, lengths

    @torch.no_grad()
    def encode(self, rgb: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features for a model built with ``encoder=None``: DINOv2 once for many runs.

        Args:
            rgb: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``[N, F, T, h, w]``, zeros past the end of a sequence.

        Raises:
            ValueError: If the model has no encoder.
        """
        if self.encoder is None:
            raise ValueError("expected a model with an encoder, got one with encoder=None")
        x, lengths = self.prepare(rgb, lengths)
        # Frame by frame of the encoder: what is past the end is computed of zeros, then zeroed.
        return mask_fill(to_sequences(self._see(to_frames(x)), x.shape[0]), lengths)

    def drop_encoder(self) -> Self:
        """Lets go of DINOv2: the model then reads features, as one built with ``encoder=None``.

        Returns:
            The model itself.

        Raises:
            ValueError: If it has none, or one of another structure than ``encoder=None`` stands
                for, so that the model could not be saved.
        """
        if self.encoder is None:
            raise ValueError("expected a model with an encoder, got one with encoder=None")
        if self.model_args["encoder"] != _DEFAULT_ENCODER:
            raise ValueError(
                f"expected a model with {_DEFAULT_ENCODER} to leave it out, got "
                f"{self.model_args['encoder']!r}"
            )
        size = self.map_size[0] // 2, self.map_size[1] // 2
        self.encoder, self.modalities, self.in_channels = None, ("features",), self.num_joined
        self.model_args = {**self.model_args, "encoder": None}
        self.pretrained_cfg = replace(
            self.pretrained_cfg, modalities=self.modalities, input_size=size
        )
        return self

    @property
    def num_joined(self) -> int:
        """F, channels of the features."""
        raise NotImplementedError(f"{type(self).__name__} defines no num_joined")

    def _see(self, frames: Tensor) -> Tensor:
        """Features ``[B, F, h, w]`` of frames, at most ``chunk_frames`` at a time."""
        if self.encoder is None:
            return frames
        if torch.compiler.is_compiling():
            return self.join_maps(*self.encoder(resized(frames, self.image_size)))
        pieces = frames.split(self.chunk_frames)
        found = [self.join_maps(*self.encoder(resized(x, self.image_size))) for x in pieces]
        return found[0] if len(found) == 1 else torch.cat(found)

    def forward_features(
        self, silhouettes: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map that remains of all frames.

        Args:
            silhouettes: Colours or features, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, C, 1, h, w]``, the maximum over time, and ``[N]`` ones (``None`` if
            ``lengths`` is).
        """
        x, lengths = self.prepare(silhouettes, lengths)
        if torch.compiler.is_compiling():
            maps = to_sequences(self.frame_maps(self._see(to_frames(x))), x.shape[0])
            highest = masked_max(maps, lengths)
        else:
            highest = self._highest(x, lengths)
        return highest.unsqueeze(2), None if lengths is None else torch.ones_like(lengths)

    def _highest(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The maximum over the valid frames, ``[N, C, h, w]``; no other frame is computed."""
        counts = [x.shape[2]] * len(x)
        if lengths is not None and not lengths.is_meta:
            counts = lengths.tolist()
        # Batch norms in training need all frames at once.
        most = sum(counts) if self.training else self.chunk_frames
        highest: list[Tensor | None] = [None] * len(x)
        for segments in _segments(counts, most):
            frames = [x[n, :, begin:end].transpose(0, 1) for n, begin, end in segments]
            maps = self.frame_maps(self._see(torch.cat(frames)))
            sizes = [end - begin for _, begin, end in segments]
            for (n, *_), piece in zip(segments, maps.split(sizes), strict=True):
                found, before = piece.amax(dim=0), highest[n]
                highest[n] = found if before is None else torch.maximum(before, found)
        return torch.stack([one for one in highest if one is not None])

    def temporal_reach(self) -> tuple[int, int] | None:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1

    def temporal_maps(self, inputs: Any) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`: all frames become one at once."""
        features, _ = self.forward_features(inputs)
        yield features, inputs.shape[2]


def _segments(counts: list[int], most: int) -> Iterator[list[tuple[int, int, int]]]:
    """Sequence, first frame and end of pieces that have ``most`` frames together."""
    piece: list[tuple[int, int, int]] = []
    room = most
    for n, count in enumerate(counts):
        begin = 0
        while begin < count:
            end = min(count, begin + room)
            piece.append((n, begin, end))
            room -= end - begin
            begin = end
            if room == 0:
                yield piece
                piece, room = [], most
    if piece:
        yield piece
