"""Layers that add forces to what a gait network has: each changes nothing before it is trained.

Idea: https://arxiv.org/abs/2512.20451, known by its abstract; that several ways of fusion are
compared is inferred, and which ones is not known. All take ``None`` for the forces, and a mask of
sequences or frames whose forces are known: what is not known adds nothing, trained or not.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.force_encoder import check_force_mask

__all__ = [
    "ForceCrossAttention",
    "ForceFiLM",
    "ForceGate",
    "ForceParts",
    "concat_forces",
    "widen_channels",
]

Layer = TypeVar("Layer", nn.Linear, nn.Conv1d, nn.Conv2d)


class ForceFiLM(nn.Module):
    """Scales and shifts every channel of a map by the forces of its frame.

    ``x * (1 + gamma(f)) + beta(f)``, frame by frame, the same for all places of a frame.

    Source: a reconstruction of the idea of https://arxiv.org/abs/2512.20451.

    Args:
        channels: C of the map.
        force_dim: F of the tokens.
        zero_init: Whether the layer changes nothing before it is trained.

    Shapes:
        x: ``[N, C, T, ...]``.
        forces: ``[N, F, T]``, or ``None``.
        valid: ``[N, T]`` bool; ``None`` = all.
        returns: As ``x``.

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> conv, film = torch.nn.Conv3d(1, 4, 3, padding=1), ForceFiLM(4, force_dim=16)
        >>> x = conv(torch.rand(2, 1, 6, 16, 11))
        >>> torch.equal(film(x, torch.rand(2, 16, 6)), x)
        True
    """

    def __init__(self, channels: int, force_dim: int = 128, zero_init: bool = True) -> None:
        super().__init__()
        check_size(channels=channels, force_dim=force_dim)
        self.channels = channels
        self.linear = _last(nn.Linear(force_dim, 2 * channels), zero_init)

    def forward(self, x: Tensor, forces: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Returns the changed map."""
        if x.ndim < 3 or x.shape[1] != self.channels:
            raise ValueError(f"expected a map [N, {self.channels}, T, ...], got {shape_of(x)}")
        if forces is None:
            return x
        wanted = (x.shape[0], self.linear.in_features, x.shape[2])
        _check_forces(forces, wanted, "a token per frame of the map")
        seen = check_force_mask(valid, (x.shape[0], x.shape[2]), x.device)
        changes = self.linear(forces.transpose(1, 2)).masked_fill(~seen[..., None], 0)
        changes = changes.transpose(1, 2).to(x.dtype)
        gamma, beta = changes.view(*changes.shape, *[1] * (x.ndim - 3)).chunk(2, dim=1)
        return x * (1 + gamma) + beta


class ForceGate(nn.Module):
    """Adds a vector of the forces to every part, as far as a gate of both lets it through.

    ``e + sigmoid(W [e; z]) * V z``.

    Source: a reconstruction of the idea of https://arxiv.org/abs/2512.20451.

    Args:
        channels: C of the parts.
        force_dim: F of the vector.
        zero_init: Whether the layer changes nothing before it is trained (V of zeros).

    Shapes:
        parts: ``[N, P, C]``.
        forces: ``[N, F]``, or ``None``.
        valid: ``[N]`` bool; ``None`` = all.
        returns: ``[N, P, C]``.

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> embed, gate = torch.nn.Linear(40, 8), ForceGate(8, force_dim=16)
        >>> parts = embed(torch.rand(2, 5, 40))
        >>> torch.equal(gate(parts, torch.rand(2, 16)), parts)
        True
    """

    keeps_float32 = True

    def __init__(self, channels: int, force_dim: int = 128, zero_init: bool = True) -> None:
        super().__init__()
        check_size(channels=channels, force_dim=force_dim)
        self.channels = channels
        self.gate = nn.Linear(channels + force_dim, channels)
        self.value = _last(nn.Linear(force_dim, channels, bias=False), zero_init)

    def forward(self, parts: Tensor, forces: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Returns the changed parts."""
        _check_parts(parts, self.channels)
        if forces is None:
            return parts
        _check_forces(forces, (parts.shape[0], self.value.in_features), "a vector per sequence")
        seen = check_force_mask(valid, (parts.shape[0],), parts.device)
        beside = forces[:, None].expand(-1, parts.shape[1], -1).to(parts.dtype)
        gate = self.gate(torch.cat([parts, beside], dim=2)).sigmoid()
        added = gate * self.value(forces)[:, None]
        return parts + added.masked_fill(~seen[:, None, None], 0)


class ForceParts(nn.Module):
    """Appends a vector of the forces as one more part.

    Source: a reconstruction of the idea of https://arxiv.org/abs/2512.20451.

    Args:
        channels: C of the parts.
        force_dim: F of the vector.
        zero_init: Whether the new part is zero before it is trained.

    Shapes:
        parts: ``[N, P, C]``.
        forces: ``[N, F]``, or ``None``.
        valid: ``[N]`` bool; ``None`` = all.
        returns: ``[N, P + 1, C]``; the last part is zero where no forces are known.

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> embed, append = torch.nn.Linear(40, 8), ForceParts(8, force_dim=16)
        >>> append(embed(torch.rand(2, 5, 40)), torch.rand(2, 16)).shape
        torch.Size([2, 6, 8])
    """

    keeps_float32 = True

    def __init__(self, channels: int, force_dim: int = 128, zero_init: bool = True) -> None:
        super().__init__()
        check_size(channels=channels, force_dim=force_dim)
        self.channels = channels
        self.linear = _last(nn.Linear(force_dim, channels, bias=False), zero_init)

    def forward(self, parts: Tensor, forces: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Returns the parts and one more."""
        _check_parts(parts, self.channels)
        if forces is None:
            return torch.cat([parts, parts.new_zeros(parts.shape[0], 1, self.channels)], dim=1)
        _check_forces(forces, (parts.shape[0], self.linear.in_features), "a vector per sequence")
        seen = check_force_mask(valid, (parts.shape[0],), parts.device)
        part = self.linear(forces).masked_fill(~seen[:, None], 0)
        return torch.cat([parts, part[:, None].to(parts.dtype)], dim=1)


class ForceCrossAttention(nn.Module):
    """Lets every part ask the forces of all frames, and adds the answer.

    Source: a reconstruction of the idea of https://arxiv.org/abs/2512.20451.

    Args:
        channels: C of the parts.
        force_dim: F of the tokens.
        num_heads: Heads, which divide C.
        zero_init: Whether the layer changes nothing before it is trained.

    Shapes:
        parts: ``[N, P, C]``.
        forces: ``[N, F, T]``, or ``None``.
        valid: ``[N, T]`` bool, frames that may be asked; ``None`` = all.
        returns: ``[N, P, C]``.

    Raises:
        ValueError: If shapes do not fit, or C is no multiple of the heads.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> embed, ask = torch.nn.Linear(40, 8), ForceCrossAttention(8, force_dim=16)
        >>> parts = embed(torch.rand(2, 5, 40))
        >>> torch.equal(ask(parts, torch.rand(2, 16, 7)), parts)
        True
    """

    keeps_float32 = True

    def __init__(
        self, channels: int, force_dim: int = 128, num_heads: int = 4, zero_init: bool = True
    ) -> None:
        super().__init__()
        check_size(channels=channels, force_dim=force_dim, num_heads=num_heads)
        if channels % num_heads:
            raise ValueError(
                f"expected channels as a multiple of {num_heads} heads, got {channels}; choose "
                "another num_heads"
            )
        self.channels, self.force_dim = channels, force_dim
        self.attention = nn.MultiheadAttention(
            channels, num_heads, kdim=force_dim, vdim=force_dim, batch_first=True
        )
        _last(self.attention.out_proj, zero_init)

    def forward(self, parts: Tensor, forces: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Returns the changed parts."""
        _check_parts(parts, self.channels)
        if forces is None:
            return parts
        frames = forces.shape[-1]
        _check_forces(forces, (parts.shape[0], self.force_dim, frames), "a token per frame")
        seen = check_force_mask(valid, (parts.shape[0], frames), parts.device)
        none = ~seen.any(1)
        # A softmax over nothing would be NaN: such sequences ask all frames and add nothing.
        asked = seen | none[:, None]
        tokens = forces.transpose(1, 2).to(parts.dtype)
        tokens = tokens.masked_fill(~seen[..., None], 0)
        added, _ = self.attention(
            parts, tokens, tokens, key_padding_mask=~asked, need_weights=False
        )
        return parts + added.masked_fill(none[:, None, None], 0)


def concat_forces(poses: Tensor, torques: Tensor | None, valid: Tensor | None = None) -> Tensor:
    """Torques as further numbers of every joint: ``(x, y, confidence)`` and three more.

    A network that reads them needs a wider first layer (:func:`widen_channels`).

    Args:
        poses: ``[N, T, J, D]``.
        torques: ``[N, T, J, 3]``, zeros at joints without; ``None`` = zeros everywhere.
        valid: ``[N, T]`` bool, frames whose torques are known; the others get zeros. ``None`` =
            all.

    Returns:
        ``[N, T, J, D + 3]``.

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> concat_forces(torch.rand(2, 9, 17, 3), torch.rand(2, 9, 17, 3)).shape
        torch.Size([2, 9, 17, 6])
    """
    if poses.ndim != 4:
        raise ValueError(f"expected poses [N, T, J, D], got {shape_of(poses)}")
    if torques is None:
        torques = poses.new_zeros(*poses.shape[:3], 3)
    if torques.shape != (*poses.shape[:3], 3):
        raise ValueError(
            f"expected torques {[*poses.shape[:3], 3]} beside poses {shape_of(poses)}, got "
            f"{shape_of(torques)}"
        )
    seen = check_force_mask(valid, poses.shape[:2], poses.device)
    torques = torques.to(poses).masked_fill(~seen[..., None, None], 0)
    return torch.cat([poses, torques], dim=-1)


def widen_channels(layer: Layer, extra: int) -> Layer:
    """A first layer that reads more channels, whose weights are zero: its output stays the same.

    Args:
        layer: ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d``, one group; it is not changed.
        extra: Channels behind those that it has.

    Returns:
        A copy for ``extra`` more channels.

    Raises:
        ValueError: If ``extra`` is no positive whole number, or the layer has groups.
        TypeError: If it is another layer.

    Example:
        >>> layer = torch.nn.Linear(3, 8)
        >>> x = torch.rand(2, 9, 17, 6)
        >>> torch.allclose(widen_channels(layer, 3)(x), layer(x[..., :3]), atol=1e-6)
        True
    """
    check_size(extra=extra)
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        raise TypeError(
            f"expected nn.Linear, nn.Conv1d or nn.Conv2d to widen, got {type(layer).__name__}"
        )
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"expected a convolution of one group, got {layer}")
    wide = copy.deepcopy(layer)
    weight = layer.weight.detach()
    added = weight.new_zeros(weight.shape[0], extra, *weight.shape[2:])
    wide.weight = nn.Parameter(torch.cat([weight, added], dim=1))
    if isinstance(wide, nn.Linear):
        wide.in_features += extra
    else:
        wide.in_channels += extra
    return wide


def _last(layer: nn.Linear, zero_init: bool) -> nn.Linear:
    """The layer, of zeros if asked for."""
    if zero_init:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


def _check_parts(parts: Tensor, channels: int) -> None:
    if parts.ndim != 3 or parts.shape[2] != channels:
        raise ValueError(f"expected parts [N, P, {channels}], got {shape_of(parts)}")


def _check_forces(forces: Tensor, shape: tuple[int, ...], words: str) -> None:
    if tuple(forces.shape) != shape:
        raise ValueError(f"expected forces {list(shape)}, {words}, got {shape_of(forces)}")
