"""Gait feature fields: where a pixel finds what resembles it, in its own frame and in the next.

Source: DenoisingGait (https://arxiv.org/abs/2505.18582, CVPR 2025), feature matching and texture
suppression. Written from a description of the method; nothing of the authors' code is contained
here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, to_frames, to_sequences

__all__ = ["GaitFeatureField", "LocalFeatureMatching", "TextureSuppression"]


class LocalFeatureMatching(nn.Module):
    """The mean offset at which a pixel's neighbourhood resembles it; no parameters.

    Every pixel of ``query`` is compared with the pixels of ``key`` in a square window around it:
    products of their channels, divided by the root of C, softmax over the window. The field is the
    mean of the offsets under these weights. Offsets that leave the image do not take part, so that
    in even maps the field is zero but within ``radius`` pixels of the image's border.

    Source: DenoisingGait (https://arxiv.org/abs/2505.18582), feature matching.

    Args:
        radius: Pixels that the window reaches to every side.

    Shapes:
        query: ``[N, C, T, H, W]``, any values.
        key: The same.
        returns: ``[N, 2, T, H, W]``: offsets to the right and downwards, pixels, at most
            ``radius`` each; float32 or wider.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If ``radius`` is no positive whole number, or the maps have other axes or
            different shapes.

    Example:
        >>> field = LocalFeatureMatching(3)(torch.ones(1, 4, 1, 9, 8), torch.ones(1, 4, 1, 9, 8))
        >>> field[0, :, 0, 4, 4].tolist(), field[0, :, 0, 0, 0].tolist()
        ([0.0, 0.0], [1.5, 1.5])
    """

    def __init__(self, radius: int = 3) -> None:
        super().__init__()
        check_size(radius=radius)
        self.radius = radius

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Returns the field."""
        check_features(query, None)
        check_features(key, query.shape[1])
        # Compared one by one: lists of sizes would fix them in a graph that is to hold for all.
        if any(a != b for a, b in zip(query.shape, key.shape, strict=True)):
            raise ValueError(
                f"expected two maps of one shape, got {shape_of(query)} and {shape_of(key)}"
            )
        # Weights in half precision would hide all but the largest vectors.
        wide = torch.promote_types(query.dtype, torch.float32)
        frames, others = to_frames(query).to(wide), to_frames(key).to(wide)
        weights = self.weights(frames, others)
        offsets = torch.arange(weights.shape[-1], device=query.device, dtype=wide) - self.radius
        right, down = ((weights.sum(axis) * offsets).sum(-1) for axis in (-2, -1))
        return to_sequences(torch.stack([right, down], dim=1), query.shape[0])

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """How much a pixel resembles those around it.

        Args:
            query: ``[B, C, H, W]`` floats.
            key: The same.

        Returns:
            ``[B, H, W, K, K]``, K = 2 * radius + 1, rows of the window before its columns; each
            window adds up to one.
        """
        height, width = query.shape[-2:]
        border = (self.radius,) * 4
        outside = F.pad(query.new_zeros(1, height, width), border, value=1.0) > 0
        query = (query / query.shape[1] ** 0.5).unsqueeze(-1)
        # Row by row of the window: all at once would take as many copies of the map as it has
        # pixels.
        rows = [(query * row).sum(dim=1) for row in self._rows(F.pad(key, border))]
        scores = torch.stack(rows, dim=-2)
        scores = scores.masked_fill(torch.stack(self._rows(outside), dim=-2), float("-inf"))
        return scores.flatten(-2).softmax(dim=-1).view_as(scores)

    def _rows(self, padded: Tensor) -> list[Tensor]:
        """``[..., H, W, K]`` for every row of the window, views of a map with a border."""
        size = 2 * self.radius + 1
        height = padded.shape[-2] - 2 * self.radius
        return [padded.narrow(-2, row, height).unfold(-1, size, 1) for row in range(size)]


class _MaskedEncoder(nn.Module):
    """Four convolutions of single frames, then a sigmoid, on the person's pixels alone.

    Args:
        in_channels: Channels of the input.
        channels: Widths of the first two convolutions, of the third and of the fourth.
        decoded: Whether a 3x3 convolution follows behind the mask.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int, int], decoded: bool) -> None:
        super().__init__()
        first, second, third = channels
        self.encoder = nn.Sequential(
            *_convolution(in_channels, first, 1),
            *_convolution(first, first, 3),
            nn.ReLU(),
            *_convolution(first, second, 3),
            nn.ReLU(),
            *_convolution(second, third, 1),
        )
        self.decoder = nn.Sequential(*_convolution(third, third, 3), nn.ReLU()) if decoded else None

    def forward(self, frames: Tensor, outside: Tensor) -> Tensor:
        """``[B, C, H, W]`` of frames, and True where nobody is, ``[B, 1, H, W]``."""
        x = self.encoder(frames).sigmoid().masked_fill(outside, 0)
        return x if self.decoder is None else self.decoder(x)


def _convolution(before: int, after: int, kernel_size: int) -> tuple[nn.Module, nn.Module]:
    convolution = Conv2d(before, after, kernel_size, padding=kernel_size // 2, bias=False)
    return convolution, nn.BatchNorm2d(after)


class GaitFeatureField(nn.Module):
    """Vectors that say where a pixel's likeness is: within its frame and in the next one.

    The static field compares a frame with itself, at several radii with encoders of their own; the
    dynamic field compares it with the next frame, the last one with itself. Encoders see what
    surrounds the person; what they give is kept on the person's pixels.

    Source: DenoisingGait (https://arxiv.org/abs/2505.18582), feature matching. Differs from
    upstream: the last frame of a sequence is always compared with itself; there, in batches that
    are packed into one long sequence, with the first frame of the next sequence.

    Batch-norm statistics see what is in the batch, padding included: train on clips of equal
    length. In eval mode padding never matters.

    Args:
        in_channels: Channels of the input.
        static_radii: Radii of the static field, pixels.
        dynamic_radius: Radius of the dynamic field.
        static_channels: Widths of the static encoders: of the first two convolutions, of the third
            and of the last two.
        dynamic_channels: Widths of the dynamic encoders: of the first two convolutions, of the
            third and of the fourth.

    Shapes:
        features: ``[N, in_channels, T, H, W]``, any values; zeros past the end of a sequence.
        mask: ``[N, T, H, W]``, the person is where it is above 0 (or True).
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: the static field ``[N, 2 * R, T, H, W]`` of R radii and the dynamic field
            ``[N, 2, T, H, W]``; per radius the offsets to the right and downwards, pixels. What
            stands past the end of a sequence holds no meaning.

    Raises:
        TypeError: If ``features`` is no tensor of floats, or ``lengths`` no integer tensor.
        ValueError: If an argument is no positive whole number, or axes, channels, sizes or lengths
            do not fit.

    Example:
        >>> features, mask = torch.rand(1, 4, 2, 12, 6), torch.ones(1, 2, 12, 6)
        >>> static, dynamic = GaitFeatureField()(features, mask)
        >>> static.shape, dynamic.shape
        (torch.Size([1, 6, 2, 12, 6]), torch.Size([1, 2, 2, 12, 6]))
    """

    def __init__(
        self,
        in_channels: int = 4,
        static_radii: Sequence[int] = (1, 2, 3),
        dynamic_radius: int = 3,
        static_channels: tuple[int, int, int] = (64, 32, 16),
        dynamic_channels: tuple[int, int, int] = (16, 8, 4),
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels)
        for name, widths in (("static", static_channels), ("dynamic", dynamic_channels)):
            if len(check_sizes(f"{name}_channels", widths)) != 3:
                raise ValueError(f"expected three {name}_channels, got {widths!r}")
        self.in_channels = in_channels
        self.static_matchings = nn.ModuleList(
            LocalFeatureMatching(radius) for radius in check_sizes("static_radii", static_radii)
        )
        self.static_queries, self.static_keys = (
            nn.ModuleList(
                _MaskedEncoder(in_channels, static_channels, decoded=True)
                for _ in self.static_matchings
            )
            for _ in range(2)
        )
        self.dynamic_matching = LocalFeatureMatching(dynamic_radius)
        self.dynamic_query, self.dynamic_key = (
            _MaskedEncoder(in_channels, dynamic_channels, decoded=False) for _ in range(2)
        )

    @property
    def static_channels(self) -> int:
        """Channels of the static field, two per radius."""
        return 2 * len(self.static_matchings)

    def forward(
        self, features: Tensor, mask: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the static and the dynamic field."""
        check_features(features, self.in_channels, lengths)
        _check_mask(features, mask)
        frames, outside = to_frames(features), to_frames(mask.unsqueeze(1) <= 0)

        def encoded(encoder: nn.Module) -> Tensor:
            return to_sequences(encoder(frames, outside), features.shape[0])

        static = [
            matching(encoded(query), encoded(key))
            for matching, query, key in zip(
                self.static_matchings, self.static_queries, self.static_keys, strict=True
            )
        ]
        key = _next_frames(encoded(self.dynamic_key), lengths_for(lengths, features))
        dynamic = self.dynamic_matching(encoded(self.dynamic_query), key)
        return torch.cat(static, dim=1).to(features.dtype), dynamic.to(features.dtype)


class TextureSuppression(nn.Module):
    """Takes strong vectors out of some sequences in training: they are clothes' texture.

    In the sequences that are drawn, inside of the eroded mask, every vector within one pixel of a
    vector that is longer than ``threshold`` becomes zero, radius by radius. The rim of the person
    and what surrounds it stay. In eval mode nothing happens.

    Source: DenoisingGait (https://arxiv.org/abs/2505.18582), texture suppression. Differs from
    upstream: one threshold for all radii (there, a radius of 3 has 0.5 whatever the threshold, the
    value of all published recipes). Inferred: vectors outside of the eroded mask count as long
    ones too; the mask is eroded as if the person went on beyond the image.

    Args:
        share: Of the sequences of a batch that are drawn, rounded to whole ones; 0 = none.
        threshold: Length of a vector, pixels.
        erosion: Rows and columns of the square by which the mask is eroded, pixels, odd.

    Shapes:
        field: ``[N, 2 * R, T, H, W]``, vectors of R radii.
        mask: ``[N, T, H, W]``, the person is where it is above 0 (or True).
        returns: as ``field``.

    Raises:
        TypeError: If ``field`` is no tensor of floats.
        ValueError: If an argument is out of range, or axes, channels or sizes do not fit.

    Example:
        >>> suppress = TextureSuppression(share=1.0, threshold=0.5, erosion=1).train()
        >>> field = torch.tensor([0.1, 0.2, 0.1, 0.9]).repeat(2, 1).view(1, 2, 1, 1, 4)
        >>> suppress(field, torch.ones(1, 1, 1, 4))[0, 0, 0, 0]
        tensor([0.1000, 0.2000, 0.0000, 0.0000])
    """

    def __init__(self, share: float = 0.5, threshold: float = 0.5, erosion: int = 5) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"expected share from 0 to 1, got {share!r}")
        if not 0 <= threshold < float("inf"):
            raise ValueError(f"expected threshold as pixels, 0 or more, got {threshold!r}")
        check_size(erosion=erosion)
        if erosion % 2 == 0:
            raise ValueError(f"expected erosion as an odd number of pixels, got {erosion!r}")
        self.share, self.threshold, self.erosion = share, threshold, erosion

    def forward(
        self, field: Tensor, mask: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Returns the field without its texture.

        Args:
            field: See the class.
            mask: See the class.
            generator: Draws the sequences; ``None`` = torch's own.
        """
        check_features(field, None)
        _check_mask(field, mask)
        if field.shape[1] % 2:
            raise ValueError(f"expected vectors of two channels each, got {shape_of(field)}")
        num_drawn = round(field.shape[0] * self.share)
        if not self.training or num_drawn == 0:
            return field
        device = "cpu" if generator is None else generator.device
        order = torch.randperm(field.shape[0], generator=generator, device=device)
        drawn = (order.argsort() < num_drawn).to(field.device).view(-1, 1, 1, 1, 1, 1)
        vectors = field.unflatten(1, (-1, 2))
        strong = (vectors.norm(dim=2) > self.threshold).to(field.dtype)
        near = F.max_pool2d(strong.flatten(0, 2), 3, stride=1, padding=1).view_as(strong) > 0
        outside = (mask <= 0).to(field.dtype)
        inside = F.max_pool2d(outside, self.erosion, stride=1, padding=self.erosion // 2) <= 0
        removed = near.unsqueeze(2) & inside[:, None, None] & drawn
        return vectors.masked_fill(removed, 0).flatten(1, 2)


def _next_frames(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The next frame in the place of each, the last one in its own; ``[N, C, T, H, W]``."""
    following = torch.cat([x[:, :, 1:], x[:, :, -1:]], dim=2)
    if lengths is None:
        return following
    goes_on = lengths_to_mask(lengths - 1, x.shape[2])[:, None, :, None, None]
    return torch.where(goes_on, following, x)


def _check_mask(x: Tensor, mask: Tensor) -> None:
    wanted = (x.shape[0], *x.shape[2:])
    if not isinstance(mask, Tensor):
        raise TypeError(f"expected the mask as a tensor [N, T, H, W], got {type(mask).__name__}")
    if mask.ndim != 4 or any(a != b for a, b in zip(mask.shape, wanted, strict=True)):
        raise ValueError(
            f"expected a mask [N, T, H, W] of the size of the map {shape_of(x)}, got "
            f"{shape_of(mask)}"
        )
