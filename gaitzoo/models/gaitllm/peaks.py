"""Which frames matter: those most like the whole walk, peaks of the similarity first.

Block of GaitLLM, usable alone: "Bridging Gait Recognition and Large Language Models Sequence
Modeling", CVPR 2025, pp. 3460-3469.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, mask_fill

__all__ = ["PeakTokenFinder", "PeakTokens", "check_tokens"]

# Angles closer than this (radians) are level.
_LEVEL = 1e-6
# A share of frames is a fraction with this denominator at most.
_FINEST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakTokens:
    """Which frames were kept, and why.

    Args:
        scores: ``[N, T]`` similarity of each frame with the whole sequence; ``-inf`` past the end.
        is_peak: ``[N, T]`` bool, frames that score above both neighbours, level with neither.
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
    discriminative frames. Our choices: mean as global token, how many are kept, and, fixed without
    a source, cosine, what a peak is, and which frames fill up when there are too few peaks.

    Scores are float64 where the device has it: frames of one walk are so alike that float32
    would decide between them by rounding, which differs from batch to batch. The tokens themselves
    may be rounded too: frames are level if their angles to the global token, in the order of size,
    follow each other by less than 1e-6, which is ten times the rounding of float32. So the same
    frame shown twice is level with itself in float32, in any batch, and the earlier is taken; for
    tokens in bfloat16 or float16 that does not hold. :meth:`select` compares scores as they are.

    The choice passes no gradient on, except through ``global_token="learned"``, see :meth:`weigh`.

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
        if max_keep is not None:
            check_size(max_keep=max_keep)
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
        check_tokens(tokens)
        lengths = lengths_for(lengths, tokens, axis=1)
        scores = self.score(tokens, lengths)
        peaks = self.select(_levels(scores.detach(), lengths), lengths)
        return PeakTokens(
            scores=mask_fill(scores, lengths, -torch.inf, axis=1),
            is_peak=peaks.is_peak,
            keep=peaks.keep,
            index=peaks.index,
            lengths=peaks.lengths,
        )

    def score(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Similarity of every frame with the global token.

        Args:
            tokens: ``[N, T, S, D]``.
            lengths: ``[N]``; ``None`` = all T.

        Returns:
            ``[N, T]``, cosines in [-1, 1]; zero past the end.
        """
        precise = tokens.dtype if tokens.device.type == "mps" else torch.float64
        frames = mask_fill(tokens.to(precise).mean(dim=2), lengths, axis=1)
        if self.query is not None:
            whole = self.query.to(precise).expand(frames.shape[0], -1)
        elif self.global_token == "max":
            whole = mask_fill(frames, lengths, -torch.inf, axis=1).amax(dim=1)
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
        lengths = lengths_for(lengths, scores, axis=1)
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

        Kept tokens are multiplied by ``1 + (score - score)``, with the second score a constant.

        Args:
            tokens: ``[N, T, S, D]``.
            peaks: What the finder chose among them.

        Returns:
            ``[N, T, S, D]``; ``tokens`` itself without a learned global token.
        """
        if self.query is None:
            return tokens
        scores = peaks.scores.masked_fill(~peaks.keep, 0.0)
        return tokens * (1 + (scores - scores.detach())).to(tokens.dtype)[:, :, None, None]

    @property
    def _share(self) -> Fraction:
        # As a fraction, 0.1 of 30 frames is 3 and not, by rounding, 4.
        share = Fraction(self.keep_ratio).limit_denominator(_FINEST)
        # Not with max(), which torch 2.6 does not trace for fractions.
        return share if share.numerator else Fraction(1, _FINEST)

    def _count(self, lengths: Tensor, is_peak: Tensor) -> Tensor:
        if self.mode == "peaks":
            count = is_peak.sum(dim=1)
        else:
            share = self._share
            count = -((-lengths * share.numerator) // share.denominator)
        return count.clamp(min=1, max=self.max_keep)


def _levels(scores: Tensor, lengths: Tensor | None) -> Tensor:
    """Scores ``[N, T]`` by rank, the same for those that only rounding tells apart."""
    # Rounding of tokens moves the angle by as much whatever it is, cosines of small angles by less.
    angle = (2 - 2 * scores).clamp(min=0).sqrt()
    angle, order = mask_fill(angle, lengths, torch.inf, axis=1).sort(dim=1, stable=True)
    before = F.pad(angle, (1, 0), value=-torch.inf)[:, :-1]
    # Past the end this is infinity minus infinity, which is not larger than anything.
    level = (angle - before > _LEVEL).cumsum(dim=1)
    return -torch.zeros_like(level).scatter(1, order, level).to(scores.dtype)


def check_tokens(tokens: Tensor, dim: int | None = None) -> None:
    """Raises unless tokens are ``[N, T, S, D]``.

    Args:
        tokens: Of a batch.
        dim: D; ``None`` = any.

    Raises:
        ValueError: If they are anything else.
    """
    if tokens.ndim != 4 or dim not in (None, tokens.shape[-1]):
        raise ValueError(f"expected tokens [N, T, S, {dim or 'D'}], got {shape_of(tokens)}")
