"""Tokens of gait: a few vectors per frame, and what the dropped frames add to the kept ones.

Blocks of GaitLLM, each usable alone: "Bridging Gait Recognition and Large Language Models Sequence
Modeling", CVPR 2025, pp. 3460-3469. The paper leaves much open; what a docstring calls "our choice"
has no source and is an argument, and what it calls fixed has none either. timm's patch embedding
and transformer blocks are imported when the first tokenizer is built.

Tokens stand as ``[N, T, S, D]``: S tokens for each of T frames. Sequences of different lengths are
padded on the T axis; what stands past the end never matters and comes out as zeros.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes, shape_of
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, mask_fill, to_frames
from gaitzoo.models.gaitllm.peaks import PeakTokens, check_tokens

__all__ = ["MotionClipAssembler", "SpatialTokenizer"]


class SpatialTokenizer(nn.Module):
    """Turns the feature map of every frame into S tokens, frames apart.

    The map is cut into patches; learnable tokens are put before them, positions are added, and
    after a few transformer blocks the places of the learnable tokens are the frame's tokens.

    Source: GaitLLM (CVPR 2025), spatial tokenizer: the learnable token, absolute positions and
    transformer blocks are the paper's. Our choices: patch size, two blocks, one token per frame;
    fixed, without a source: learned positions, and blocks that are pre-norm and without biases in
    the attention (a bias of keys has no effect).

    Args:
        in_channels: C of the map.
        dim: D of the tokens.
        feature_size: Height and width of the map; it is filled up with zeros at the right and
            bottom to whole patches.
        patch_size: Height and width of a patch, in cells of the map. ``(1, 1)`` keeps every cell
            apart and costs four times as much.
        num_tokens: S.
        depth: Transformer blocks.
        num_heads: Heads of the attention.
        mlp_ratio: Hidden width of the blocks, as a multiple of ``dim``.

    Shapes:
        features: ``[N, C, T, H, W]``, any values, with H and W as in ``feature_size``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, T, S, D]``; zeros past the end.

    Raises:
        ValueError: If a number is not positive, ``num_heads`` does not divide ``dim``, or a map
            has another size.

    Example:
        >>> tokenizer = SpatialTokenizer(8, 16, feature_size=(4, 3), depth=1, num_heads=2)
        >>> tokenizer(torch.rand(2, 8, 5, 4, 3), torch.tensor([5, 2])).shape
        torch.Size([2, 5, 1, 16])
    """

    def __init__(
        self,
        in_channels: int = 512,
        dim: int = 512,
        *,
        feature_size: tuple[int, int] = (16, 11),
        patch_size: tuple[int, int] = (2, 2),
        num_tokens: int = 1,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels, num_tokens=num_tokens, depth=depth)
        check_sizes("feature_size", feature_size)
        check_sizes("patch_size", patch_size)
        _check_heads(dim, num_heads)
        # Here, because timm takes longer to import than this library.
        from timm.layers.patch_embed import PatchEmbed
        from timm.models.vision_transformer import Block

        self.in_channels, self.num_tokens = in_channels, num_tokens
        self.feature_size = (feature_size[0], feature_size[1])
        self.patches = PatchEmbed(
            img_size=None,
            patch_size=(patch_size[0], patch_size[1]),  # pyright: ignore[reportArgumentType]
            in_chans=in_channels,
            embed_dim=dim,
            dynamic_img_pad=True,
        )
        rows, columns = (
            -(-size // patch) for size, patch in zip(feature_size, patch_size, strict=True)
        )
        self.token = nn.Parameter(torch.empty(1, num_tokens, dim))
        self.positions = nn.Parameter(torch.empty(1, num_tokens + rows * columns, dim))
        nn.init.normal_(self.token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=False) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the tokens of every frame."""
        if features.ndim != 5 or (
            features.shape[1] != self.in_channels or features.shape[3:] != self.feature_size
        ):
            height, width = self.feature_size
            raise ValueError(
                f"expected features [N, {self.in_channels}, T, {height}, {width}], got "
                f"{shape_of(features)}; build the tokenizer with this number of channels and this "
                "feature_size"
            )
        lengths = lengths_for(lengths, features)
        frames = to_frames(mask_fill(features, lengths))
        tokens = self.patches(frames)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1).to(tokens), tokens], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens[:, : self.num_tokens])
        tokens = rearrange(tokens, "(n t) s d -> n t s d", n=features.shape[0])
        return mask_fill(tokens, lengths, axis=1)


class MotionClipAssembler(nn.Module):
    """Brings what the dropped frames hold into the kept ones, by cross-attention.

    ``y = kept + attention(LN(kept), LN(dropped))``, then ``y + MLP(LN(y))``; a sequence without a
    dropped frame goes through the MLP alone.

    Source: GaitLLM (CVPR 2025), motion clip assembler: cross-attention from the kept tokens to the
    redundant ones. Our choices: the scope; fixed, without a source: pre-norm residual, the MLP, no
    position in time.

    Args:
        dim: D of the tokens.
        num_heads: Heads of the attention.
        mlp_ratio: Hidden width of the MLP, as a multiple of ``dim``.
        scope: ``"global"``: every kept frame sees every dropped frame of its sequence.
            ``"clip"``: each dropped frame is seen by the kept frame nearest in time alone (of two
            as near, the earlier).
        depth: How many times.

    Shapes:
        tokens: ``[N, T, S, D]``, any values.
        peaks: :class:`PeakTokens` for these tokens.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, K, S, D]``, the kept frames in the order of time; zeros past
            ``peaks.lengths``.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``, ``scope`` is unknown, or tokens and
            peaks do not belong together.

    Example:
        >>> tokens = torch.rand(2, 9, 1, 16)
        >>> peaks = gaitzoo.PeakTokenFinder(keep_ratio=0.5)(tokens)
        >>> MotionClipAssembler(16, num_heads=2)(tokens, peaks).shape
        torch.Size([2, 5, 1, 16])
    """

    def __init__(
        self,
        dim: int = 512,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        scope: Literal["global", "clip"] = "global",
        depth: int = 1,
    ) -> None:
        super().__init__()
        if scope not in ("global", "clip"):
            raise ValueError(f'expected scope "global" or "clip", got {scope!r}')
        check_size(depth=depth)
        _check_heads(dim, num_heads)
        self.dim, self.scope = dim, scope
        self.blocks = nn.ModuleList(_CrossBlock(dim, num_heads, mlp_ratio) for _ in range(depth))

    def forward(self, tokens: Tensor, peaks: PeakTokens, lengths: Tensor | None = None) -> Tensor:
        """Returns the kept tokens after they have looked at the others."""
        check_tokens(tokens, self.dim)
        if peaks.keep.shape != tokens.shape[:2]:
            raise ValueError(
                f"expected peaks of these {tokens.shape[0]} sequences of {tokens.shape[1]} frames, "
                f"got peaks of {shape_of(peaks.keep)}"
            )
        lengths = lengths_for(lengths, tokens, axis=1)
        num_tokens = tokens.shape[2]
        tokens = mask_fill(tokens, lengths, axis=1)
        index = peaks.index[:, :, None, None].expand(-1, -1, num_tokens, self.dim)
        kept = mask_fill(tokens.gather(1, index), peaks.lengths, axis=1)
        # Every token of a frame sees, and is seen, alike.
        seen = self._seen(peaks, lengths)
        seen = repeat(seen, "n k t -> n (k s) (t other)", s=num_tokens, other=num_tokens)
        kept, others = (rearrange(x, "n t s d -> n (t s) d") for x in (kept, tokens))
        for block in self.blocks:
            kept = block(kept, others, seen)
        kept = rearrange(kept, "n (k s) d -> n k s d", s=num_tokens)
        return mask_fill(kept, peaks.lengths, axis=1)

    def _seen(self, peaks: PeakTokens, lengths: Tensor | None) -> Tensor:
        """``[N, K, T]`` bool: which frames a kept frame looks at."""
        dropped = ~peaks.keep
        if lengths is not None:
            dropped = dropped & lengths_to_mask(lengths, dropped.shape[1])
        num_kept = peaks.index.shape[1]
        if self.scope == "global":
            return dropped[:, None].expand(-1, num_kept, -1)
        place = torch.arange(num_kept, device=dropped.device)
        time = torch.arange(dropped.shape[1], device=dropped.device)
        distance = (peaks.index[:, :, None] - time).abs()
        # Ties go to the smaller place; places that hold nothing are farther than any frame.
        distance = distance * num_kept + place[:, None]
        farthest = (dropped.shape[1] + 1) * (num_kept + 1)
        distance = distance.masked_fill((place >= peaks.lengths[:, None])[:, :, None], farthest)
        nearest = distance.argmin(dim=1, keepdim=True)
        return (nearest == place[:, None]) & dropped[:, None]


class _CrossBlock(nn.Module):
    """Pre-norm cross-attention and MLP; a query that may see nothing gets nothing added."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_kept = nn.LayerNorm(dim)
        self.norm_others = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        hidden = math.ceil(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, kept: Tensor, others: Tensor, seen: Tensor) -> Tensor:
        """Kept ``[N, L, D]``, others ``[N, M, D]``, seen ``[N, L, M]`` bool."""
        key, value = self.key_value(self.norm_others(others)).chunk(2, dim=-1)
        query = self.query(self.norm_kept(kept))
        query, key, value = (
            rearrange(x, "n l (h d) -> n h l d", h=self.num_heads) for x in (query, key, value)
        )
        sees_any = seen.any(dim=-1, keepdim=True)
        # A row without any key would be NaN; it looks at everything and is left out below.
        mask = (seen | ~sees_any)[:, None]
        moved = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        moved = self.out(rearrange(moved, "n h l d -> n l (h d)"))
        kept = kept + moved.masked_fill(~sees_any, 0.0)
        return kept + self.mlp(self.norm(kept))


def _check_heads(dim: int, num_heads: int) -> None:
    check_size(dim=dim, num_heads=num_heads)
    if dim % num_heads:
        raise ValueError(f"expected dim as a multiple of num_heads, got {dim} and {num_heads}")
