"""What a video diffusion network is told of a walk: who walks, how they look, how they move.

Source: CoD2 (https://arxiv.org/abs/2511.06245), conditions on two levels: identity as tokens,
appearance and motion as maps. A reconstruction: the abstract names the two levels, their forms
here are inferred; maps enter as in ControlNet (https://arxiv.org/abs/2302.05543), Sec. 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, mask_fill, to_frames, to_sequences

__all__ = ["AppearanceMotionControl", "IdentityTokens", "coarse_motion"]


class IdentityTokens(nn.Module):
    """Part vectors of a recogniser as tokens, one per body part.

    A matrix, a layer norm and a learned place per part. In training whole sequences are replaced,
    now and then, by learned tokens that say nothing: guidance compares with those.

    Source: https://arxiv.org/abs/2511.06245, identity features that steer generation; the form is
    inferred.

    Args:
        embed_dim: C of the part vectors.
        parts: P.
        dim: Numbers of a token.
        drop: Chance in training that a sequence says nothing.

    Shapes:
        embeddings: ``[N, P, C]``.
        dropped: ``[N]`` bool, True = says nothing; ``None`` = at random in training, else none.
        returns: ``[N, P, dim]``.

    Raises:
        ValueError: If an argument is out of range, or shapes do not fit.

    Example:
        >>> tokens = IdentityTokens(8, parts=4, dim=6)(torch.rand(2, 4, 8))
        >>> nn.TransformerEncoderLayer(6, 2, batch_first=True)(tokens).shape
        torch.Size([2, 4, 6])
    """

    def __init__(self, embed_dim: int, parts: int, dim: int = 256, drop: float = 0.1) -> None:
        super().__init__()
        check_size(embed_dim=embed_dim, parts=parts, dim=dim)
        self.drop = check_chance("drop", drop)
        self.shape = (parts, embed_dim)
        self.project = nn.Linear(embed_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.place = nn.Parameter(0.02 * torch.randn(parts, dim))
        self.null = nn.Parameter(0.02 * torch.randn(parts, dim))

    def forward(self, embeddings: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Returns the tokens."""
        if embeddings.ndim != 3 or embeddings.shape[1:] != self.shape:
            parts, size = self.shape
            raise ValueError(
                f"expected embeddings [N, {parts}, {size}], got {shape_of(embeddings)}"
            )
        if dropped is None:
            dropped = self.draw_drop(embeddings)
        _check_flags("dropped", dropped, len(embeddings))
        found = self.norm(self.project(embeddings)) + self.place
        return torch.where(dropped.to(found.device)[:, None, None], self.null.to(found), found)

    def draw_drop(self, embeddings: Tensor) -> Tensor:
        """Which sequences say nothing, ``[N]`` bool: random in training, none otherwise.

        Args:
            embeddings: ``[N, ...]``.
        """
        return draw_flags(len(embeddings), self.drop if self.training else 0.0, embeddings.device)


class AppearanceMotionControl(nn.Module):
    """A picture of the walker and coarse motion, as maps to add inside a video U-Net.

    Appearance is one frame, the same for all frames of the result; motion comes per frame from
    :func:`coarse_motion`. Each goes through small convolutions to the size of every level; the last
    convolution of each starts as zero, so that a fresh control adds nothing.

    Source: https://arxiv.org/abs/2511.06245, low-level conditions that keep the result consistent;
    the form is inferred, after https://arxiv.org/abs/2302.05543, Sec. 3.

    Args:
        channels: Channels of each level of the U-Net, the finest first.
        hidden: Channels inside.
        drop: Chance in training, for appearance and for motion of each sequence, to be left out.

    Shapes:
        reference: ``[N, 1, H, W]``, a frame in [-1, 1].
        motion: ``[N, 1, T, H', W']``, see :func:`coarse_motion`; the size does not matter.
        returns: A list, per level ``[N, channels[l], T, H / 2**l, W / 2**l]``.

    Raises:
        TypeError: If ``motion`` is no tensor of floats.
        ValueError: If an argument is out of range, or shapes do not fit.

    Example:
        >>> control = AppearanceMotionControl((8, 16))
        >>> first, second = control(torch.rand(2, 1, 16, 12), torch.rand(2, 1, 5, 4, 3))
        >>> first.shape, second.shape, bool(first.any())
        (torch.Size([2, 8, 5, 16, 12]), torch.Size([2, 16, 5, 8, 6]), False)
        >>> net = nn.Conv3d(1, 8, 3, padding=1)
        >>> (net(torch.rand(2, 1, 5, 16, 12)) + first).shape
        torch.Size([2, 8, 5, 16, 12])
    """

    def __init__(self, channels: Sequence[int], hidden: int = 32, drop: float = 0.1) -> None:
        super().__init__()
        self.channels = check_sizes("channels", channels)
        check_size(hidden=hidden)
        self.drop = check_chance("drop", drop)
        self.stride = 2 ** (len(self.channels) - 1)
        self.look = nn.ModuleList(
            nn.Sequential(
                Conv2d(hidden if level else 1, hidden, 3, 2 if level else 1, 1), nn.SiLU()
            )
            for level in range(len(self.channels))
        )
        self.move = nn.Sequential(
            Conv2d(1, hidden, 3, padding=1), nn.SiLU(), Conv2d(hidden, hidden, 3, padding=1)
        )
        self.look_out = nn.ModuleList(_zero_conv(hidden, size) for size in self.channels)
        self.move_out = nn.ModuleList(_zero_conv(hidden, size) for size in self.channels)

    def forward(self, reference: Tensor, motion: Tensor) -> list[Tensor]:
        """Returns a map per level."""
        check_features(motion, 1)
        count = len(motion)
        if reference.ndim != 4 or reference.shape[:2] != (count, 1):
            raise ValueError(f"expected reference [{count}, 1, H, W], got {shape_of(reference)}")
        if reference.shape[2] % self.stride or reference.shape[3] % self.stride:
            raise ValueError(
                f"expected a reference of multiples of {self.stride} pixels, got "
                f"{shape_of(reference)}"
            )
        chance = self.drop if self.training else 0.0
        no_look, no_move = (
            draw_flags(count, chance, motion.device).view(-1, 1, 1, 1, 1) for _ in range(2)
        )
        moving = F.silu(self.move(to_frames(motion)))
        seen, maps = reference, []
        for encode, look, move in zip(self.look, self.look_out, self.move_out, strict=True):
            seen = encode(seen)
            moved = to_sequences(move(_resized(moving, seen)), count)
            looked = look(seen).unsqueeze(2)
            # Left out by where, so that a frame of NaN does no harm.
            maps.append(looked.masked_fill(no_look, 0) + moved.masked_fill(no_move, 0))
        return maps


def coarse_motion(signal: Tensor, lengths: Tensor | None = None, pool: int = 4) -> Tensor:
    """What changes from each frame to the next, in tiles too coarse to copy a frame from.

    Source: https://arxiv.org/abs/2511.06245; differences of frames, averaged, are inferred.

    Args:
        signal: ``[N, 1, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        pool: Height and width of a tile, pixels; they divide H and W.

    Returns:
        ``[N, 1, T, H / pool, W / pool]``: frame ``t + 1`` minus frame ``t``, zero at the last one
        and past it.

    Raises:
        TypeError: If ``signal`` is no tensor of floats.
        ValueError: If shapes or lengths do not fit.

    Example:
        >>> coarse_motion(torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 3, 1, 1), pool=1).flatten()
        tensor([1., 2., 0.])
    """
    check_features(signal, 1, lengths)
    check_size(pool=pool)
    count, _, num_frames, height, width = signal.shape
    if height % pool or width % pool:
        raise ValueError(f"expected pool to divide {height} x {width} pixels, got {pool}")
    coarse = to_sequences(F.avg_pool2d(to_frames(signal), pool), count)
    change = F.pad(coarse[:, :, 1:] - coarse[:, :, :-1], (0, 0, 0, 0, 0, 1))
    lengths = lengths_for(lengths, signal)
    if lengths is None:
        return change
    moving = lengths_to_mask(lengths - 1, num_frames)[:, None, :, None, None]
    return mask_fill(change.masked_fill(~moving, 0), lengths)


def draw_flags(count: int, chance: float, device: torch.device) -> Tensor:
    """Random flags, ``[N]`` bool; nothing is drawn where the chance is 0.

    Args:
        count: N.
        chance: Of True.
        device: Where they stand.
    """
    if chance == 0:
        return torch.zeros(count, dtype=torch.bool, device=device)
    return torch.rand(count, device=device) < chance


def check_chance(name: str, chance: float) -> float:
    """Raises unless a chance lies in [0, 1); returns it.

    Args:
        name: Of the argument.
        chance: The chance.
    """
    if not 0 <= chance < 1:
        raise ValueError(f"expected {name} in [0, 1), got {chance!r}")
    return chance


def _check_flags(name: str, flags: Tensor, count: int) -> None:
    if flags.dtype != torch.bool or flags.shape != (count,):
        raise ValueError(f"expected {name} [{count}] bool, got {shape_of(flags)} {flags.dtype}")


def _zero_conv(in_channels: int, out_channels: int) -> Conv2d:
    conv = Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _resized(frames: Tensor, like: Tensor) -> Tensor:
    """Frames of another size: averages where it is smaller, repeated pixels where it is larger."""
    size = (like.shape[-2], like.shape[-1])
    if frames.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(frames, size)
    return F.interpolate(frames, size, mode="nearest")
