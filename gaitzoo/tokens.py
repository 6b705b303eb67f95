"""Tokens of gait: a few vectors per frame, the frames that matter, and what the others add to them.

Blocks of GaitLLM, each usable alone: "Bridging Gait Recognition and Large Language Models Sequence
Modeling", CVPR 2025, pp. 3460-3469. The paper leaves much open; what a docstring calls "our choice"
has no source and is an argument. timm's patch embedding and transformer blocks are imported when
the first tokenizer is built.

Tokens stand as ``[N, T, S, D]``: S tokens for each of T frames. Sequences of different lengths are
padded on the T axis; what stands past the end never matters and comes out as zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo._checks import check_lengths, shape_of
from gaitzoo.sequence import lengths_to_mask, mask_fill

__all__ = [
    "G2LProjector",
    "L2GProjector",
    "MotionClipAssembler",
    "PeakTokenFinder",
    "PeakTokens",
    "RepresentationAggregator",
    "SpatialTokenizer",
]


class SpatialTokenizer(nn.Module):
    """Turns the feature map of every frame into S tokens, frames apart.

    The map is cut into patches; learnable tokens are put before them, positions are added, and
    after a few transformer blocks the places of the learnable tokens are the frame's tokens.

    Source: GaitLLM (CVPR 2025), spatial tokenizer: the learnable token, absolute positions and
    transformer blocks are the paper's. Our choices: patch size, learned positions, two pre-norm
    blocks without biases in the attention (a bias of keys has no effect), one token per frame.

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
        for name, value in {
            "in_channels": in_channels,
            "num_tokens": num_tokens,
            "depth": depth,
            "feature_size": min(feature_size),
            "patch_size": min(patch_size),
        }.items():
            if value < 1:
                raise ValueError(f"expected {name} of 1 or more, got {value}")
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
        num_sequences, _, num_frames = features.shape[:3]
        lengths = _checked(lengths, features, num_sequences, num_frames)
        frames = mask_fill(features, lengths).transpose(1, 2).flatten(0, 1)
        tokens = self.patches(frames)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1).to(tokens), tokens], dim=1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens[:, : self.num_tokens])
        return zero_past(tokens.unflatten(0, (num_sequences, num_frames)), lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakTokens:
    """Which frames were kept, and why.

    Args:
        scores: ``[N, T]`` similarity of each frame with the whole sequence; ``-inf`` past the end.
        is_peak: ``[N, T]`` bool, frames whose score is above both neighbours'.
        keep: ``[N, T]`` bool, the frames that were kept.
        index: ``[N, K]`` int64, the kept frames in the order of time; 0 where there are fewer.
        lengths: ``[N]`` int64, how many were kept of each sequence.

    Example:
        >>> PeakTokenFinder().select(torch.tensor([[0.1, 0.9, 0.2, 0.3]])).index.tolist()
        [[1, 3]]
    """

    scores: Tensor
    is_peak: Tensor
    keep: Tensor
    index: Tensor
    lengths: Tensor


class PeakTokenFinder(nn.Module):
    """Keeps the frames whose tokens are most like the whole sequence, peaks of the curve first.

    A frame's score is the cosine of its mean token and the sequence's global token. Kept are, of
    each sequence, a share of its own valid frames: peaks before others, higher scores before lower
    ones, earlier frames before later ones.

    Source: GaitLLM (CVPR 2025), peak token finder: similarity with a global token selects the most
    discriminative frames. Our choices: mean as global token, cosine, how many are kept, what a
    peak is, and which frames fill up when there are too few peaks.

    Scores are float64 where the device has it: frames of one walk are so alike that float32
    would decide between them by rounding, which differs from batch to batch. The choice passes no
    gradient on, except through ``global_token="learned"``, see :meth:`weigh`.

    Args:
        keep_ratio: Share of the valid frames that is kept, rounded up, in (0, 1].
        mode: ``"topk_peaks"`` keeps exactly that share; ``"peaks"`` keeps every peak and nothing
            else (the best frame, if there is none), whatever ``keep_ratio`` says.
        global_token: ``"mean"`` or ``"max"`` of the valid frames, or ``"learned"``, a parameter.
        max_keep: No more frames than this; ``None`` = no limit.
        largest: Keep frames like the whole; ``False`` keeps those unlike it.
        dim: Width of the tokens, for ``global_token="learned"`` only.

    Shapes:
        tokens: ``[N, T, S, D]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`PeakTokens`; K depends on T alone.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> peaks = PeakTokenFinder(keep_ratio=0.5)(torch.rand(2, 9, 1, 16), torch.tensor([9, 4]))
        >>> peaks.index.shape, peaks.lengths.tolist()
        (torch.Size([2, 5]), [5, 2])
    """

    def __init__(
        self,
        keep_ratio: float = 0.5,
        mode: Literal["topk_peaks", "peaks"] = "topk_peaks",
        global_token: Literal["mean", "max", "learned"] = "mean",
        max_keep: int | None = None,
        *,
        largest: bool = True,
        dim: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 < keep_ratio <= 1:
            raise ValueError(f"expected a keep_ratio above 0 and up to 1, got {keep_ratio}")
        if mode not in ("topk_peaks", "peaks"):
            raise ValueError(f'expected mode "topk_peaks" or "peaks", got {mode!r}')
        if global_token not in ("mean", "max", "learned"):
            raise ValueError(
                f'expected global_token "mean", "max" or "learned", got {global_token!r}'
            )
        if max_keep is not None and max_keep < 1:
            raise ValueError(f"expected max_keep of 1 or more, or None, got {max_keep}")
        if (global_token == "learned") != (dim is not None):
            raise ValueError(
                f'expected dim with global_token="learned" and only there, got dim={dim} with '
                f"{global_token!r}"
            )
        self.keep_ratio, self.mode, self.global_token = keep_ratio, mode, global_token
        self.max_keep, self.largest = max_keep, largest
        self.query = None
        if dim is not None:
            self.query = nn.Parameter(torch.empty(dim))
            nn.init.normal_(self.query, std=0.02)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return (
            f"keep_ratio={self.keep_ratio}, mode={self.mode!r}, "
            f"global_token={self.global_token!r}, max_keep={self.max_keep}"
        )

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> PeakTokens:
        """Returns the kept frames and their scores."""
        _check_tokens(tokens)
        lengths = _checked(lengths, tokens, *tokens.shape[:2])
        return self.select(self.score(tokens, lengths), lengths)

    def score(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Similarity of every frame with the global token.

        Args:
            tokens: ``[N, T, S, D]``.
            lengths: ``[N]``; ``None`` = all T.

        Returns:
            ``[N, T]``, cosines in [-1, 1]; zero past the end.
        """
        precise = tokens.dtype if tokens.device.type == "mps" else torch.float64
        frames = zero_past(tokens.to(precise).mean(dim=2), lengths)
        if self.query is not None:
            whole = self.query.to(precise).expand(frames.shape[0], -1)
        elif self.global_token == "max":
            whole = masked(frames, lengths, -torch.inf).amax(dim=1)
        else:
            count = frames.shape[1] if lengths is None else lengths[:, None].to(precise)
            whole = frames.sum(dim=1) / count
        whole = F.normalize(whole, dim=-1)
        return (F.normalize(frames, dim=-1) * whole[:, None]).sum(dim=-1)

    def select(self, scores: Tensor, lengths: Tensor | None = None) -> PeakTokens:
        """Chooses frames by their scores alone.

        Args:
            scores: ``[N, T]``, finite where valid.
            lengths: ``[N]``; ``None`` = all T.

        Returns:
            The kept frames.

        Raises:
            ValueError: If ``scores`` is no ``[N, T]``.
        """
        if scores.ndim != 2:
            raise ValueError(f"expected scores [N, T], got {shape_of(scores)}")
        num_frames = scores.shape[1]
        lengths = _checked(lengths, scores, *scores.shape)
        if lengths is None:
            lengths = torch.full_like(scores[:, 0], num_frames, dtype=torch.int64)
        valid = lengths_to_mask(lengths, num_frames)
        scores = scores.masked_fill(~valid, -torch.inf)
        curve = scores.detach() if self.largest else -scores.detach()
        curve = curve.masked_fill(~valid, -torch.inf)
        padded = F.pad(curve, (1, 1), value=-torch.inf)
        before, after = padded[:, :-2], padded[:, 2:]
        is_peak = (curve > before) & (curve > after) & valid
        # Two stable sorts: by score, then valid peaks first and padding last.
        order = curve.argsort(dim=1, descending=True, stable=True)
        group = (~is_peak).to(torch.uint8) + (~valid).to(torch.uint8)
        order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
        count = self._count(lengths, is_peak)
        chosen = torch.arange(num_frames, device=scores.device) < count[:, None]
        keep = torch.zeros_like(chosen).scatter(1, order, chosen)
        # Every kept frame goes to the place that its rank in time says, the others to one too many.
        width = self.width(num_frames)
        place = torch.where(keep, keep.cumsum(dim=1) - 1, width)
        time = torch.arange(num_frames, device=scores.device).expand_as(place)
        index = place.new_zeros(place.shape[0], width + 1).scatter(1, place, time)[:, :-1]
        return PeakTokens(scores=scores, is_peak=is_peak, keep=keep, index=index, lengths=count)

    def width(self, num_frames: int) -> int:
        """K, the most frames that can be kept of T.

        Args:
            num_frames: T.
        """
        if self.mode == "peaks":
            most = (num_frames + 1) // 2
        else:
            share = self._share
            most = (num_frames * share.numerator + share.denominator - 1) // share.denominator
        return most if self.max_keep is None else min(most, self.max_keep)

    def weigh(self, tokens: Tensor, peaks: PeakTokens) -> Tensor:
        """Lets gradients reach a learned global token; the values stay as they are.

        Kept tokens are multiplied by ``1 + score - score``, with the second score a constant.

        Args:
            tokens: ``[N, T, S, D]``.
            peaks: What the finder chose among them.

        Returns:
            ``[N, T, S, D]``; ``tokens`` itself without a learned global token.
        """
        if self.query is None:
            return tokens
        scores = peaks.scores.masked_fill(~peaks.keep, 0.0)
        return tokens * (1 + scores - scores.detach()).to(tokens.dtype)[:, :, None, None]

    @property
    def _share(self) -> Fraction:
        # As a fraction, 0.1 of 30 frames is 3 and not, by rounding, 4.
        return Fraction(self.keep_ratio).limit_denominator(100_000)

    def _count(self, lengths: Tensor, is_peak: Tensor) -> Tensor:
        if self.mode == "peaks":
            count = is_peak.sum(dim=1)
        else:
            share = self._share
            count = -((-lengths * share.numerator) // share.denominator)
        return count.clamp(min=1, max=self.max_keep)


class MotionClipAssembler(nn.Module):
    """Brings what the dropped frames hold into the kept ones, by cross-attention.

    ``y = kept + attention(LN(kept), LN(dropped))``, then ``y + MLP(LN(y))``; a sequence without a
    dropped frame goes through the MLP alone.

    Source: GaitLLM (CVPR 2025), motion clip assembler: cross-attention from the kept tokens to the
    redundant ones. Our choices: pre-norm residual, the MLP, no position in time, and the scope.

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
        >>> peaks = PeakTokenFinder(keep_ratio=0.5)(tokens)
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
        if depth < 1:
            raise ValueError(f"expected depth of 1 or more, got {depth}")
        _check_heads(dim, num_heads)
        self.dim, self.scope = dim, scope
        self.blocks = nn.ModuleList(_CrossBlock(dim, num_heads, mlp_ratio) for _ in range(depth))

    def forward(self, tokens: Tensor, peaks: PeakTokens, lengths: Tensor | None = None) -> Tensor:
        """Returns the kept tokens after they have looked at the others."""
        _check_tokens(tokens, self.dim)
        if peaks.keep.shape != tokens.shape[:2]:
            raise ValueError(
                f"expected peaks of these {tokens.shape[0]} sequences of {tokens.shape[1]} frames, "
                f"got peaks of {shape_of(peaks.keep)}"
            )
        lengths = _checked(lengths, tokens, *tokens.shape[:2])
        num_tokens = tokens.shape[2]
        tokens = zero_past(tokens, lengths)
        index = peaks.index[:, :, None, None].expand(-1, -1, num_tokens, self.dim)
        kept = zero_past(tokens.gather(1, index), peaks.lengths).flatten(1, 2)
        seen = self._seen(peaks, lengths)
        # Every token of a frame sees, and is seen, alike.
        seen = seen.repeat_interleave(num_tokens, 1).repeat_interleave(num_tokens, 2)
        others = tokens.flatten(1, 2)
        for block in self.blocks:
            kept = block(kept, others, seen)
        return zero_past(kept.unflatten(1, (-1, num_tokens)), peaks.lengths)

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
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        sees_any = seen.any(dim=-1, keepdim=True)
        # A row without any key would be NaN; it looks at everything and is left out below.
        mask = (seen | ~sees_any)[:, None]
        moved = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        moved = self.out(moved.transpose(1, 2).flatten(2))
        kept = kept + moved.masked_fill(~sees_any, 0.0)
        return kept + self.mlp(self.norm(kept))


class G2LProjector(nn.Module):
    """Brings gait tokens to the width and scale of a language model's words.

    ``LN``, a linear layer, times one learned number.

    Source: none; GaitLLM (CVPR 2025) names no such layer, but the widths differ. Our choices: all.

    Args:
        dim: D of the tokens.
        llm_dim: Width of the language model.
        scale: First value of the learned number, best the root mean square of its word embeddings
            (:attr:`gaitzoo.FrozenLLM.embedding_scale`).

    Shapes:
        tokens: ``[N, L, D]``.
        returns: ``[N, L, llm_dim]``.

    Example:
        >>> G2LProjector(16, 24, scale=0.02)(torch.rand(2, 5, 16)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(self, dim: int, llm_dim: int, scale: float | Tensor = 1.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, llm_dim)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.scale = nn.Parameter(torch.as_tensor(scale, dtype=torch.get_default_dtype()).clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the sentence for the language model."""
        return self.linear(self.norm(tokens)) * self.scale


class L2GProjector(nn.Module):
    """Brings what a language model says back to the width of gait features.

    Source: GaitLLM (CVPR 2025), language-to-gait projector: fully connected, back to the encoder's
    width. Our choices: one layer, and no bias (behind a maximum over the sentence it would shift
    all samples alike).

    Args:
        llm_dim: Width of the language model.
        out_channels: C of the gait features.
        bias: Whether there is a bias.

    Shapes:
        hidden: ``[N, L, llm_dim]``.
        lengths: ``[N]`` int64, valid places of the sentence; ``None`` = all L.
        returns: ``[N, L, C]``; zeros past the end.

    Raises:
        ValueError: If the width is another one.

    Example:
        >>> L2GProjector(24, 8)(torch.rand(2, 5, 24)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, llm_dim: int, out_channels: int = 512, bias: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(llm_dim, out_channels, bias=bias)
        nn.init.xavier_uniform_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the projected sentence."""
        if hidden.ndim != 3 or hidden.shape[2] != self.linear.in_features:
            raise ValueError(
                f"expected a sentence [N, L, {self.linear.in_features}], got {shape_of(hidden)}"
            )
        lengths = _checked(lengths, hidden, *hidden.shape[:2])
        return zero_past(self.linear(zero_past(hidden, lengths)), lengths)


class RepresentationAggregator(nn.Module):
    """One vector from a sentence: maximum, mean, or the last valid place.

    Source: GaitLLM (CVPR 2025), representation aggregator; the paper compares the three and takes
    the maximum.

    Args:
        mode: ``"gmp"`` (maximum), ``"gap"`` (mean) or ``"last"``.

    Shapes:
        sentence: ``[N, L, C]``, any values.
        lengths: ``[N]`` int64, valid places; ``None`` = all L.
        returns: ``[N, C]``.

    Raises:
        ValueError: If ``mode`` is unknown or the sentence has another shape.

    Example:
        >>> sentence = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> [RepresentationAggregator(m)(sentence, torch.tensor([2])).item()
        ...  for m in ("gmp", "gap", "last")]
        [3.0, 2.0, 3.0]
    """

    def __init__(self, mode: Literal["gmp", "gap", "last"] = "gmp") -> None:
        super().__init__()
        if mode not in ("gmp", "gap", "last"):
            raise ValueError(f'expected mode "gmp", "gap" or "last", got {mode!r}')
        self.mode = mode

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return repr(self.mode)

    def forward(self, sentence: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the vector."""
        if sentence.ndim != 3:
            raise ValueError(f"expected a sentence [N, L, C], got {shape_of(sentence)}")
        lengths = _checked(lengths, sentence, *sentence.shape[:2])
        if self.mode == "gmp":
            lowest = torch.finfo(sentence.dtype).min
            return masked(sentence, lengths, lowest).amax(dim=1)
        if lengths is None:
            return sentence[:, -1] if self.mode == "last" else sentence.mean(dim=1)
        if self.mode == "last":
            place = (lengths - 1)[:, None, None].expand(-1, 1, sentence.shape[2])
            return sentence.gather(1, place).squeeze(1)
        return zero_past(sentence, lengths).sum(dim=1) / lengths[:, None].to(sentence.dtype)


def masked(x: Tensor, lengths: Tensor | None, value: float) -> Tensor:
    """Writes a value past the end of every row of ``[N, L, ...]``."""
    if lengths is None:
        return x
    mask = lengths_to_mask(lengths, x.shape[1])
    return x.masked_fill(~mask.view(*mask.shape, *[1] * (x.ndim - 2)), value)


def zero_past(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zeros past the end of every row of ``[N, L, ...]``."""
    return masked(x, lengths, 0.0)


def _checked(
    lengths: Tensor | None, x: Tensor, num_sequences: int, num_frames: int
) -> Tensor | None:
    if lengths is None:
        return None
    return check_lengths(lengths, num_sequences, num_frames).to(x.device)


def _check_tokens(tokens: Tensor, dim: int | None = None) -> None:
    if tokens.ndim != 4 or dim not in (None, tokens.shape[-1]):
        raise ValueError(f"expected tokens [N, T, S, {dim or 'D'}], got {shape_of(tokens)}")


def _check_heads(dim: int, num_heads: int) -> None:
    if dim < 1 or num_heads < 1 or dim % num_heads:
        raise ValueError(f"expected dim as a multiple of num_heads, got {dim} and {num_heads}")
