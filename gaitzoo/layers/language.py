"""Words that tell a network where to look: text features of several levels, and maps of them.

Source: LMGait (https://arxiv.org/abs/2601.11931, AAAI 2026). A reconstruction: the abstract says
that fixed descriptions of gait are read by a frozen text encoder, that their features are refined
by adjusting several semantic levels, and that they lead the network to what matters of a gait.
[inferred]: every equation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, shape_of
from gaitzoo.layers.sequence import lengths_to_mask

__all__ = ["LanguageAlignmentLoss", "LanguageGuidedAttention", "MotionAwareness"]


class MotionAwareness(nn.Module):
    """Text features of several layers, mixed by how well each fits what is seen.

    ``z[l] = p[l] h[l] + u[l] gelu(d[l] norm(p[l] h[l]))`` for the features h of every layer l, with
    matrices p, d and u; ``gates = softmax over l of q(context) . k(z[l]) / sqrt(D)``; ``tokens =
    sum over l of gates * z[l]``. As u is zero at first, the module begins as a projection.

    Source: LMGait (https://arxiv.org/abs/2601.11931), its motion awareness module; the form is
    [inferred].

    Args:
        text_channels: Channels of the text features.
        channels: D, channels of what is seen and of the tokens.
        num_levels: L, layers of the text encoder.
        bottleneck: Channels between d and u; ``None`` = a quarter of D.
        zero_init: Begin with ``u = 0``; ``False`` = with random matrices.

    Shapes:
        features: ``[L, K, text_channels]``, of K prompts, the same for all sequences.
        context: ``[N, D]``, what is seen of each sequence.
        returns: tokens ``[N, K, D]``; gates ``[N, K, L]``, adding up to 1 over the levels.

    Raises:
        ValueError: If an argument is no positive whole number, or axes or channels do not fit.

    Example:
        >>> pool = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1))
        >>> context = pool(torch.rand(2, 3, 16, 16)).flatten(1)
        >>> tokens, gates = MotionAwareness(12, 8, num_levels=3)(torch.rand(3, 5, 12), context)
        >>> tokens.shape, gates.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 3]))
    """

    def __init__(
        self,
        text_channels: int,
        channels: int,
        num_levels: int = 3,
        bottleneck: int | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        check_size(text_channels=text_channels, channels=channels, num_levels=num_levels)
        bottleneck = max(1, channels // 4) if bottleneck is None else bottleneck
        check_size(bottleneck=bottleneck)
        self.text_channels, self.channels, self.num_levels = text_channels, channels, num_levels
        levels = range(num_levels)
        self.project = nn.ModuleList(nn.Linear(text_channels, channels) for _ in levels)
        self.adapt = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, bottleneck),
                nn.GELU(),
                nn.Linear(bottleneck, channels),
            )
            for _ in levels
        )
        self.query = nn.Linear(channels, channels)
        # A bias would add the same to the scores of all levels.
        self.key = nn.Linear(channels, channels, bias=False)
        if zero_init:
            for block in self.adapt.children():
                last = block.get_submodule("3")
                for parameter in last.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, features: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Returns tokens and gates."""
        if features.ndim != 3 or features.shape[::2] != (self.num_levels, self.text_channels):
            raise ValueError(
                f"expected text features [{self.num_levels}, K, {self.text_channels}], got "
                f"{shape_of(features)}"
            )
        if context.ndim != 2 or context.shape[1] != self.channels:
            raise ValueError(f"expected context [N, {self.channels}], got {shape_of(context)}")
        found = []
        for level, project, adapt in zip(features, self.project, self.adapt, strict=True):
            plain = project(level)
            found.append(plain + adapt(plain))
        levels = torch.stack(found, dim=1)
        scores = torch.einsum("nd,kld->nkl", self.query(context), self.key(levels))
        gates = (scores / math.sqrt(self.channels)).softmax(dim=-1)
        return torch.einsum("nkl,kld->nkd", gates, levels), gates


class LanguageGuidedAttention(nn.Module):
    """Where each prompt is seen, and the map raised there.

    ``maps = sigmoid(cos(v, tokens) / temperature)`` for the projected map v at every pixel;
    ``guided = v * (1 + mean over prompts of sign * maps)``. The temperature is learned, from 0.07.

    Source: LMGait (https://arxiv.org/abs/2601.11931); the form is [inferred], and that prompts
    with the sign -1 lower what they show too.

    Args:
        in_channels: Channels of the map.
        channels: D, channels of the tokens and of the guided map.
        temperature: At first; positive.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        tokens: ``[N, K, D]``.
        signs: ``[K]``, 1 or -1; ``None`` = all 1.
        returns: the guided map ``[N, D, T, H, W]``; maps of the prompts ``[N, K, T, H, W]``, in
            (0, 1).

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If an argument is not positive, or axes, channels or numbers do not fit.

    Example:
        >>> conv, attention = torch.nn.Conv3d(3, 8, 1), LanguageGuidedAttention(8, 6)
        >>> guided, maps = attention(conv(torch.rand(2, 3, 5, 16, 8)), torch.rand(2, 4, 6))
        >>> torch.nn.Conv3d(6, 1, 3)(guided).shape, maps.shape
        (torch.Size([2, 1, 3, 14, 6]), torch.Size([2, 4, 5, 16, 8]))
    """

    def __init__(self, in_channels: int, channels: int, temperature: float = 0.07) -> None:
        super().__init__()
        check_size(in_channels=in_channels, channels=channels)
        if not 0 < temperature < math.inf:
            raise ValueError(f"expected a temperature above 0, got {temperature!r}")
        self.in_channels, self.channels = in_channels, channels
        self.linear = nn.Linear(in_channels, channels)
        # The logarithm of its inverse, which may have any value.
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def temperature(self) -> float:
        """What cosines are divided by."""
        return math.exp(-float(self.log_scale))

    def project(self, x: Tensor) -> Tensor:
        """The map in the channels of the tokens, before anything is raised.

        Args:
            x: ``[N, C, T, H, W]``.

        Returns:
            ``[N, D, T, H, W]``.
        """
        check_features(x, self.in_channels)
        return self.linear(x.movedim(1, -1)).movedim(-1, 1)

    def guide(
        self, projected: Tensor, tokens: Tensor, signs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The second step, on a map that :meth:`project` gave.

        Args:
            projected: ``[N, D, T, H, W]``.
            tokens: See the class.
            signs: See the class.
        """
        check_features(projected, self.channels)
        if (
            tokens.ndim != 3
            or tokens.shape[0] != projected.shape[0]
            or tokens.shape[2] != (self.channels)
        ):
            raise ValueError(
                f"expected tokens [N, K, {self.channels}] of {projected.shape[0]} sequences, got "
                f"{shape_of(tokens)}"
            )
        if signs is not None and signs.shape != tokens.shape[1:2]:
            raise ValueError(f"expected signs [{tokens.shape[1]}], got {shape_of(signs)}")
        cosines = torch.einsum(
            "ndthw,nkd->nkthw", F.normalize(projected, dim=1), F.normalize(tokens, dim=2)
        )
        maps = (cosines * self.log_scale.exp()).sigmoid()
        signed = maps if signs is None else maps * signs.to(maps)[:, None, None, None]
        return projected * (1 + signed.mean(dim=1, keepdim=True)), maps

    def forward(
        self, x: Tensor, tokens: Tensor, signs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the guided map and the maps of the prompts."""
        return self.guide(self.project(x), tokens, signs)


class LanguageAlignmentLoss(nn.Module):
    """What a prompt's map shows is to be like the prompt, and maps are to differ.

    ``mean over k of (1 - cos(pooled[k], token[k])) + overlap * mean over pairs j < k of the mean of
    min(map[j], map[k])``. The paper's README speaks of bringing text and images together; the form
    is [inferred]. The usual weight of the whole is 0.1.

    Args:
        overlap: Weight of the second term; 0 leaves it out.

    Shapes:
        pooled: ``[N, K, D]``, means of the projected map, weighted by each prompt's map.
        tokens: ``[N, K, D]``.
        maps: ``[N, K, T, H, W]`` in [0, 1].
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[]``.

    Raises:
        ValueError: If ``overlap`` is negative or shapes do not fit.

    Example:
        >>> same = torch.rand(2, 3, 8)
        >>> LanguageAlignmentLoss(overlap=0)(same, same, torch.rand(2, 3, 5, 4, 4)).round()
        tensor(0.)
    """

    def __init__(self, overlap: float = 1.0) -> None:
        super().__init__()
        if not 0 <= overlap < math.inf:
            raise ValueError(f"expected overlap of 0 or more, got {overlap!r}")
        self.overlap = overlap

    def forward(
        self, pooled: Tensor, tokens: Tensor, maps: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Returns the loss."""
        if pooled.ndim != 3 or pooled.shape != tokens.shape or maps.shape[:2] != pooled.shape[:2]:
            raise ValueError(
                "expected pooled [N, K, D], tokens [N, K, D] and maps [N, K, T, H, W], got "
                f"{shape_of(pooled)}, {shape_of(tokens)} and {shape_of(maps)}"
            )
        check_features(maps, None, lengths)
        loss = (1 - F.cosine_similarity(pooled, tokens, dim=2)).mean()
        count = maps.shape[1]
        if self.overlap == 0 or count == 1:
            return loss
        first, second = torch.triu_indices(count, count, 1, device=maps.device)
        shared = torch.minimum(maps[:, first], maps[:, second]).mean(dim=(1, 3, 4))
        if lengths is None:
            return loss + self.overlap * shared.mean()
        valid = lengths_to_mask(lengths.to(maps.device), maps.shape[2])
        return loss + self.overlap * shared[valid].mean()
