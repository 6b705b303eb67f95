"""Tokens from sequences of body-model parameters (SMPL): no body model is needed.

Source: Combo-Gait (https://arxiv.org/abs/2510.10417). A reconstruction: the paper says that there
is an encoder of SMPL features; layers and sizes are inferred, the first ones from SMPLGait
(https://arxiv.org/abs/2204.02569).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask
from gaitzoo.layers.token_attention import TokenAttention, TokenBlock, sinusoidal_positions

__all__ = ["SMPL_FIELDS", "SMPLEncoder", "check_valid", "vertical_from_body"]

SMPL_FIELDS: Mapping[str, tuple[int, int]] = {"camera": (0, 3), "pose": (3, 75), "shape": (75, 85)}
"""Columns of the usual vector of 85 numbers: first, and the one after the last."""

_ROTATIONS = {"axis_angle": 3, "6d": 6}


def vertical_from_body(rotation: Tensor) -> Tensor:
    """The vertical axis (y) as a turned body sees it: pitch and roll, smooth, whatever the yaw.

    Args:
        rotation: How the body is turned: axis times angle in radians ``[..., 3]``, or the first
            two columns of the matrix, one behind the other, ``[..., 6]``.

    Returns:
        Unit vectors ``[..., 3]``: the second row of the rotation's matrix.

    Raises:
        ValueError: If the last axis has neither 3 nor 6 numbers.

    Example:
        >>> vertical_from_body(torch.tensor([[0.0, 1.3, 0.0]]))  # turned about the vertical
        tensor([[0., 1., 0.]])
    """
    if rotation.shape[-1] == 6:
        first = F.normalize(rotation[..., :3], dim=-1)
        second = rotation[..., 3:]
        second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
        third = torch.linalg.cross(first, second)
        return torch.stack([first[..., 1], second[..., 1], third[..., 1]], dim=-1)
    if rotation.shape[-1] != 3:
        raise ValueError(f"expected rotations [..., 3] or [..., 6], got {shape_of(rotation)}")
    angle = torch.linalg.vector_norm(rotation, dim=-1, keepdim=True).clamp(min=1e-6)
    x, y, z = (rotation / angle).unbind(-1)
    sine, cosine = angle.sin()[..., 0], angle.cos()[..., 0]
    rest = y * (1 - cosine)
    return torch.stack([x * rest + z * sine, y * rest + cosine, z * rest - x * sine], dim=-1)


class SMPLEncoder(nn.Module):
    """A few tokens from body-model parameters of any number of frames, and one of the shape.

    Camera, pose and shape of every frame go through three linear layers (each with batch norm,
    ReLU and dropout), then through transformer blocks over time; learned queries gather what came
    out. The shape, which does not change in time, is averaged over frames and becomes the last
    token.

    Of the root's rotation, yaw says which way somebody walks, and is left out unless asked for:
    :func:`vertical_from_body` stands in its place (inferred; the camera's y axis counts as
    vertical). Frames past the end or not valid take no part, in batch statistics neither.

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), SMPL encoder. A reconstruction: all
    sizes, the queries and the token of the shape are inferred.

    Args:
        in_dim: D, numbers per frame.
        dim: Width of the tokens, even and a multiple of ``num_heads``.
        layers: Transformer blocks over time.
        num_tokens: Q, learned queries.
        fields: Columns of ``"pose"``, ``"shape"`` and, if there is one, ``"camera"``, each as the
            first and the one after the last; other columns are not read.
        rotations: How joints' rotations are written, root first: ``"axis_angle"`` (3 numbers in
            radians) or ``"6d"`` (the first two columns of the matrix).
        drop_yaw: Leave out the yaw of the root.
        hidden: Widths of the first two linear layers.
        num_heads: Heads of all attention.
        drop_rate: Dropout of the linear layers, in training.
        block_drop_rate: Dropout of the transformer blocks, in training.

    Shapes:
        smpl: ``[N, T, D]``, radians and whatever units the fitter gives.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        valid: ``[N, T]`` bool, False where fitting failed; what stands there, even NaN, never
            matters. ``None`` = all are valid.
        returns: tokens ``[N, Q + 1, dim]``, zeros where there is no valid frame, and whether they
            are seen, ``[N, Q + 1]`` bool.

    Raises:
        TypeError: If ``valid`` is no bool tensor, ``lengths`` no integers or ``smpl`` no floats.
        ValueError: If a size, field or shape does not fit, or a batch in training has one valid
            frame, of which batch norm has no statistics.

    Example:
        Age from the body alone, in a foreign network:

        >>> encoder, age = SMPLEncoder(dim=16, num_heads=4), torch.nn.Linear(16, 1)
        >>> tokens, seen = encoder(torch.rand(2, 9, 85), torch.tensor([9, 4]))
        >>> tokens.shape, age(torch.relu(tokens.mean(1))).shape
        (torch.Size([2, 5, 16]), torch.Size([2, 1]))
    """

    keeps_float32 = True

    def __init__(
        self,
        in_dim: int = 85,
        dim: int = 256,
        layers: int = 2,
        num_tokens: int = 4,
        *,
        fields: Mapping[str, tuple[int, int]] = SMPL_FIELDS,
        rotations: str = "axis_angle",
        drop_yaw: bool = True,
        hidden: tuple[int, int] = (128, 256),
        num_heads: int = 8,
        drop_rate: float = 0.2,
        block_drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_size(in_dim=in_dim, dim=dim, layers=layers, num_tokens=num_tokens)
        if dim % 2:
            raise ValueError(f"expected an even dim, half sines and half cosines, got {dim}")
        if rotations not in _ROTATIONS:
            raise ValueError(f"expected rotations among {', '.join(_ROTATIONS)}, got {rotations!r}")
        self.in_dim, self.dim, self.num_tokens = in_dim, dim, num_tokens
        self.fields = _checked_fields(fields, in_dim)
        self.root_width, self.drop_yaw = _ROTATIONS[rotations], drop_yaw
        pose = self._width("pose")
        if pose % self.root_width:
            raise ValueError(
                f"expected a pose of {self.root_width} numbers per joint ({rotations}), got {pose}"
            )
        width = pose + self._width("shape") + self._width("camera")
        width += 3 - self.root_width if drop_yaw else 0
        widths = (width, *hidden, dim)
        check_size(**{f"hidden{i}": size for i, size in enumerate(hidden)})
        self.frame_mlp = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (
                    nn.Linear(before, after),
                    nn.BatchNorm1d(after),
                    nn.ReLU(),
                    nn.Dropout(drop_rate),
                )
            )
        )
        self.blocks = nn.ModuleList(
            TokenBlock(dim, num_heads, drop_rate=block_drop_rate) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(num_tokens, dim) / dim**0.5)
        self.pool = TokenAttention(dim, num_heads)
        self.shape_token = nn.Linear(self._width("shape"), dim)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference: itself, small beside the maps."""
        return self

    def forward(
        self, smpl: Tensor, lengths: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the tokens, and whether they are seen."""
        lengths, valid = self._check(smpl, lengths, valid)
        frames = torch.ones(smpl.shape[:2], dtype=torch.bool, device=smpl.device)
        if lengths is not None:
            frames = lengths_to_mask(lengths, smpl.shape[1])
        if valid is not None:
            frames = frames & valid.to(smpl.device)
        smpl = smpl.masked_fill(~frames[..., None], 0)
        shape = smpl[..., slice(*self.fields["shape"])]
        x = self._frames(self._described(smpl), frames)
        x = x + sinusoidal_positions(smpl.shape[1], self.dim, x)
        for block in self.blocks:
            x = block(x, frames)
        tokens = self.pool(self.queries.expand(x.shape[0], -1, -1), self.norm(x), frames)
        mean = shape.sum(1) / frames.sum(1, keepdim=True).clamp(min=1)
        tokens = torch.cat([tokens, self.shape_token(mean)[:, None].to(tokens.dtype)], dim=1)
        seen = frames.any(1)[:, None].expand(-1, tokens.shape[1])
        return tokens.masked_fill(~seen[..., None], 0), seen

    def _width(self, field: str) -> int:
        begin, end = self.fields.get(field, (0, 0))
        return end - begin

    def _described(self, smpl: Tensor) -> Tensor:
        """Camera, root, joints and shape of every frame, in this order whatever the columns'."""
        pose = smpl[..., slice(*self.fields["pose"])]
        root, joints = pose[..., : self.root_width], pose[..., self.root_width :]
        parts = [vertical_from_body(root) if self.drop_yaw else root, joints]
        if "camera" in self.fields:
            parts.insert(0, smpl[..., slice(*self.fields["camera"])])
        return torch.cat([*parts, smpl[..., slice(*self.fields["shape"])]], dim=-1)

    def _frames(self, x: Tensor, frames: Tensor) -> Tensor:
        """The linear layers on every frame; in training on the valid ones alone."""
        if not self.training:
            return self.frame_mlp(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        count = int(frames.sum())
        found = x.new_zeros(*x.shape[:2], self.dim)
        if count == 0:
            return found
        if count == 1:
            raise ValueError(
                "expected two valid frames or more in train mode, got one, of which batch norm has "
                "no statistics; call eval(), or train on larger batches"
            )
        chosen = self.frame_mlp(x[frames])
        return found.to(chosen.dtype).masked_scatter(frames[..., None], chosen)

    def _check(
        self, smpl: Tensor, lengths: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if not isinstance(smpl, Tensor) or not smpl.is_floating_point():
            got = smpl.dtype if isinstance(smpl, Tensor) else type(smpl).__name__
            raise TypeError(f"expected body parameters [N, T, {self.in_dim}] of floats, got {got}")
        if smpl.ndim != 3 or smpl.shape[2] != self.in_dim or smpl.numel() == 0:
            raise ValueError(
                f"expected body parameters [N, T, {self.in_dim}], got {shape_of(smpl)}"
            )
        check_valid(valid, smpl)
        return lengths_for(lengths, smpl, axis=1), valid


def check_valid(valid: Tensor | None, smpl: Tensor) -> None:
    """Raises unless ``valid`` marks frames of body parameters.

    Args:
        valid: ``[N, T]`` bool; ``None`` = all are valid.
        smpl: ``[N, T, D]``.

    Raises:
        TypeError: If it is no bool tensor.
        ValueError: If it has another shape.
    """
    if valid is None:
        return
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        got = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
        raise TypeError(f"expected valid frames as a bool tensor [N, T], got {got}")
    if valid.shape != smpl.shape[:2]:
        raise ValueError(f"expected valid {shape_of(smpl[..., 0])}, got {shape_of(valid)}")


def _checked_fields(
    fields: Mapping[str, tuple[int, int]], in_dim: int
) -> dict[str, tuple[int, int]]:
    if not isinstance(fields, Mapping) or not {"pose", "shape"} <= set(fields) <= set(SMPL_FIELDS):
        raise ValueError(
            'expected fields as columns of "pose", "shape" and, if there is one, "camera", got '
            f"{fields!r}"
        )
    checked = {}
    for name, columns in fields.items():
        begin, end = columns
        if any(type(n) is not int for n in columns) or not 0 <= begin < end <= in_dim:
            raise ValueError(
                f"expected columns of {name} as (first, one after the last) of {in_dim}, got "
                f"{columns!r}"
            )
        checked[name] = (begin, end)
    return checked
