"""A U-Net over clips that says what noise is in them.

Source: Video Diffusion Models (https://arxiv.org/abs/2204.03458), the factorised 3-D U-Net:
convolutions and attention inside of frames, attention over time between them. What CoD2 and
GaitCrafter use instead was not to be seen; sizes are those of common practice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, mask_fill, to_frames, to_sequences

__all__ = ["GaitVideoUNet", "TemporalAttention"]

_TIME_CODE = 256  # numbers that a time step is written in
_LONGEST_PERIOD = 10_000


class TemporalAttention(nn.Module):
    """Attention over the frames at every place of a map, with a bias by distance in time.

    ``x + project(attention(norm(x)))``. The projection starts as zero, so that a fresh block
    changes nothing and frames are apart; ``zero_start=False`` gives it random weights.

    Source: https://arxiv.org/abs/2204.03458, Sec. 3. Distances of more than ``reach`` frames count
    as ``reach``.

    Args:
        channels: C.
        num_heads: Heads, dividing C.
        groups: Groups of the norm, dividing C; statistics are those of one frame.
        reach: Distances that have a bias of their own.
        zero_start: See above.

    Shapes:
        x: ``[N, C, T, H, W]``, any values; what stands past the end does not matter.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``, with zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If an argument is out of range, or shapes or lengths do not fit.

    Example:
        >>> net = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), TemporalAttention(8), nn.ReLU())
        >>> net(torch.rand(2, 1, 5, 8, 6)).shape
        torch.Size([2, 8, 5, 8, 6])
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 4,
        *,
        groups: int = 8,
        reach: int = 32,
        zero_start: bool = True,
    ) -> None:
        super().__init__()
        check_size(channels=channels, num_heads=num_heads, groups=groups, reach=reach)
        _check_divides("num_heads", num_heads, channels)
        _check_divides("groups", groups, channels)
        self.channels, self.num_heads, self.reach = channels, num_heads, reach
        self.norm = nn.GroupNorm(groups, channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(2 * reach + 1, num_heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.project = nn.Linear(channels, channels)
        if zero_start:
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map with what frames say to each other."""
        check_features(x, self.channels, lengths)
        lengths = lengths_for(lengths, x)
        x = mask_fill(x, lengths)
        count, _, num_frames, height, width = x.shape
        normed = to_sequences(self.norm(to_frames(x)), count)
        # [N, places, T, C]
        at_places = normed.permute(0, 3, 4, 2, 1).flatten(1, 2)
        heads = self.to_qkv(at_places).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(3, 0, 1, 4, 2, 5)
        frame = torch.arange(num_frames, device=x.device)
        distance = (frame - frame[:, None]).clamp(-self.reach, self.reach) + self.reach
        weights = self.bias[distance].permute(2, 0, 1).to(x.dtype)
        weights = weights.expand(count, 1, -1, -1, -1)
        if lengths is not None:
            valid = lengths_to_mask(lengths, num_frames)[:, None, None, None]
            weights = weights.masked_fill(~valid, torch.finfo(x.dtype).min)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=weights)
        found = self.project(found.transpose(2, 3).flatten(3))
        found = found.unflatten(1, (height, width)).permute(0, 4, 3, 1, 2)
        return mask_fill(x + found, lengths)


class GaitVideoUNet(nn.Module):
    """The noise in clips, told a time step and whatever else is known of them.

    Per level: residual blocks of convolutions inside of frames (group norm over one frame, scaled
    and shifted by time step and condition); at the lowest levels attention between the places of a
    frame, and to ``tokens``; at the lowest or all levels :class:`TemporalAttention`. Between levels
    height and width are halved, time never. Fresh temporal layers change nothing: before training,
    frames are apart.

    Source: a reconstruction after https://arxiv.org/abs/2204.03458, for CoD2
    (https://arxiv.org/abs/2511.06245) and GaitCrafter (https://arxiv.org/abs/2508.13300). Inferred
    are all sizes, and where attention stands.

    Args:
        in_channels: Channels of the clip.
        channels: Channels of each level, the finest first.
        cond_dim: Numbers of the condition that is added to the time step's.
        token_dim: Numbers of a token; ``None`` = no attention to tokens.
        blocks: Residual blocks of each level on the way down, and on the way up.
        spatial_levels: How many of the lowest levels have attention inside of frames, and to
            tokens.
        temporal_levels: How many of the lowest levels have attention over time; ``None`` = all.
        num_heads: Heads of attention, dividing the channels of the levels that have any.
        groups: Groups of the norms, dividing all ``channels``.
        reach: See :class:`TemporalAttention`.

    Attributes:
        stride: Height and width must be multiples of it.

    Shapes:
        x: ``[N, C, T, H, W]`` noisy clips, about [-1, 1] before the noise; any T.
        timesteps: ``[N]`` int64.
        cond: ``[N, cond_dim]``; ``None`` = nothing known.
        tokens: ``[N, S, token_dim]``; ``None`` = none are looked at.
        residuals: Per level ``[N, channels[l], T, H / 2**l, W / 2**l]``, added where the way down
            meets the way up; ``None`` = nothing.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: As ``x``, zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If an argument is out of range, or shapes do not fit.

    Example:
        >>> unet = GaitVideoUNet(channels=(8, 16), cond_dim=32, token_dim=12)
        >>> x, t = torch.randn(2, 1, 5, 16, 12), torch.tensor([3, 900])
        >>> unet(x, t, torch.rand(2, 32), torch.rand(2, 7, 12)).shape
        torch.Size([2, 1, 5, 16, 12])

        Steered by any network that gives a vector:

        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32))
        >>> unet(x, t, encoder(torch.rand(2, 3, 4, 4))).shape
        torch.Size([2, 1, 5, 16, 12])
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        cond_dim: int = 512,
        token_dim: int | None = None,
        *,
        blocks: int = 2,
        spatial_levels: int = 2,
        temporal_levels: int | None = None,
        num_heads: int = 4,
        groups: int = 8,
        reach: int = 32,
    ) -> None:
        super().__init__()
        self.channels = check_sizes("channels", channels)
        check_size(in_channels=in_channels, cond_dim=cond_dim, blocks=blocks, groups=groups)
        if token_dim is not None:
            check_size(token_dim=token_dim)
        levels = len(self.channels)
        temporal = levels if temporal_levels is None else temporal_levels
        for name, number in (("spatial_levels", spatial_levels), ("temporal_levels", temporal)):
            if type(number) is not int or not 0 <= number <= levels:
                raise ValueError(f"expected {name} from 0 to {levels}, got {number!r}")
        self.in_channels, self.cond_dim, self.token_dim = in_channels, cond_dim, token_dim
        self.stride = 2 ** (levels - 1)
        self.time = nn.Sequential(
            nn.Linear(_TIME_CODE, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim)
        )

        def block(level: int, incoming: int) -> _Block:
            return _Block(
                incoming,
                self.channels[level],
                cond_dim,
                groups,
                num_heads,
                spatial=level >= levels - spatial_levels,
                token_dim=token_dim,
                reach=reach if level >= levels - temporal else None,
            )

        first = self.channels[0]
        self.stem = Conv2d(in_channels, first, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.halve, self.widen = nn.ModuleList(), nn.ModuleList()
        incoming = first
        for level, width in enumerate(self.channels):
            into = [incoming, *[width] * (blocks - 1)]
            self.down.append(nn.ModuleList(block(level, size) for size in into))
            incoming = width
            if level < levels - 1:
                self.halve.append(Conv2d(width, width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList([block(levels - 1, incoming), block(levels - 1, incoming)])
        for level in reversed(range(levels)):
            width = self.channels[level]
            if level < levels - 1:
                self.widen.append(Conv2d(incoming, width, 3, padding=1))
            into = [2 * width, *[width] * (blocks - 1)]
            self.up.append(nn.ModuleList(block(level, size) for size in into))
            incoming = width
        self.out = nn.Sequential(
            nn.GroupNorm(groups, first), nn.SiLU(), Conv2d(first, in_channels, 3, padding=1)
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        cond: Tensor | None = None,
        tokens: Tensor | None = None,
        residuals: Sequence[Tensor] | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Returns the noise, or whatever the network is trained to say."""
        self._check(x, timesteps, cond, tokens, residuals)
        lengths = lengths_for(lengths, x)
        x = mask_fill(x, lengths)
        count = x.shape[0]
        context = self.time(_time_code(timesteps.to(x.device)).to(x.dtype))
        if cond is not None:
            context = context + cond
        x = to_sequences(self.stem(to_frames(x)), count)
        skips: list[Tensor] = []
        for level, level_blocks in enumerate(self.down):
            for block in level_blocks.children():
                x = block(x, context, tokens, lengths)
            skips.append(x if residuals is None else x + residuals[level])
            if level < len(self.halve):
                x = to_sequences(self.halve[level](to_frames(x)), count)
        for block in self.middle:
            x = block(x, context, tokens, lengths)
        for number, level_blocks in enumerate(self.up):
            if number:
                wider = F.interpolate(to_frames(x), scale_factor=2.0, mode="nearest")
                x = to_sequences(self.widen[number - 1](wider), count)
            x = torch.cat([x, skips.pop()], dim=1)
            for block in level_blocks.children():
                x = block(x, context, tokens, lengths)
        return mask_fill(to_sequences(self.out(to_frames(x)), count), lengths)

    def _check(
        self,
        x: Tensor,
        timesteps: Tensor,
        cond: Tensor | None,
        tokens: Tensor | None,
        residuals: Sequence[Tensor] | None,
    ) -> None:
        check_features(x, self.in_channels)
        count, _, num_frames, height, width = x.shape
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"expected height and width as multiples of {self.stride}, got {shape_of(x)}; "
                "gaitzoo.layers.diffusion.frames_to_signal adds a border"
            )
        if timesteps.shape != (count,):
            raise ValueError(f"expected time steps [{count}], got {shape_of(timesteps)}")
        if cond is not None and cond.shape != (count, self.cond_dim):
            raise ValueError(f"expected cond [{count}, {self.cond_dim}], got {shape_of(cond)}")
        if tokens is not None and (
            self.token_dim is None
            or tokens.ndim != 3
            or (tokens.shape[0], tokens.shape[2]) != (count, self.token_dim)
        ):
            wanted = "none" if self.token_dim is None else f"[{count}, S, {self.token_dim}]"
            raise ValueError(f"expected tokens {wanted}, got {shape_of(tokens)}; see token_dim")
        if residuals is not None:
            wanted = [
                [count, size, num_frames, height >> level, width >> level]
                for level, size in enumerate(self.channels)
            ]
            if [list(residual.shape) for residual in residuals] != wanted:
                raise ValueError(
                    f"expected residuals {wanted}, got {[list(r.shape) for r in residuals]}"
                )


class _Block(nn.Module):
    """A residual block and the attention behind it."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        cond_dim: int,
        groups: int,
        num_heads: int,
        *,
        spatial: bool,
        token_dim: int | None,
        reach: int | None,
    ) -> None:
        super().__init__()
        _check_divides("groups", groups, channels)
        _check_divides("groups", groups, in_channels)
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)
        self.modulate = nn.Linear(cond_dim, 2 * channels)
        self.shortcut = Conv2d(in_channels, channels, 1) if in_channels != channels else None
        self.spatial = _FrameAttention(channels, num_heads, groups) if spatial else None
        self.tokens = (
            _FrameAttention(channels, num_heads, groups, token_dim)
            if spatial and token_dim is not None
            else None
        )
        self.temporal = (
            None
            if reach is None
            else TemporalAttention(channels, num_heads, groups=groups, reach=reach)
        )

    def forward(
        self, x: Tensor, context: Tensor, tokens: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        count, _, num_frames = x.shape[:3]
        frames = to_frames(x)
        scale, shift = (
            self.modulate(F.silu(context))
            .repeat_interleave(num_frames, 0)[..., None, None]
            .chunk(2, dim=1)
        )
        inner = self.conv1(F.silu(self.norm1(frames)))
        inner = self.conv2(F.silu(self.norm2(inner) * (1 + scale) + shift))
        frames = inner + (frames if self.shortcut is None else self.shortcut(frames))
        if self.spatial is not None:
            frames = self.spatial(frames)
        if self.tokens is not None and tokens is not None:
            frames = self.tokens(frames, tokens.repeat_interleave(num_frames, 0))
        x = to_sequences(frames, count)
        # Without frames to attend to, what stands past the end never reaches those before it.
        return x if self.temporal is None else self.temporal(x, lengths)


class _FrameAttention(nn.Module):
    """Attention of the places of a frame to each other, or to tokens."""

    def __init__(
        self, channels: int, num_heads: int, groups: int, token_dim: int | None = None
    ) -> None:
        super().__init__()
        _check_divides("num_heads", num_heads, channels)
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(groups, channels)
        source = channels if token_dim is None else token_dim
        self.to_query = nn.Linear(channels, channels, bias=False)
        self.to_key_value = nn.Linear(source, 2 * channels, bias=False)
        self.project = nn.Linear(channels, channels)

    def forward(self, frames: Tensor, tokens: Tensor | None = None) -> Tensor:
        places = self.norm(frames).flatten(2).transpose(1, 2)
        source = places if tokens is None else tokens
        query = self.to_query(places).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        pairs = self.to_key_value(source).unflatten(-1, (2, self.num_heads, -1))
        key, value = pairs.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)
        found = self.project(found.transpose(1, 2).flatten(2))
        return frames + found.transpose(1, 2).unflatten(2, frames.shape[-2:])


def _time_code(timesteps: Tensor) -> Tensor:
    """Time steps as sines and cosines, ``[N, 256]`` float32."""
    half = _TIME_CODE // 2
    rates = torch.exp(
        torch.arange(half, device=timesteps.device) * (-math.log(_LONGEST_PERIOD) / half)
    )
    angles = timesteps[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _check_divides(name: str, number: int, channels: int) -> None:
    if channels % number:
        raise ValueError(f"expected {name} to divide {channels} channels, got {number}")
