"""How much of a walking person is hidden: a small network that judges single frames.

Paper: RG-Gait, https://arxiv.org/abs/2507.10978 (IJCB 2025); its first stage is that of MimicGait
(WACV 2025). Authors' code: https://github.com/Ayush-00/rg-gait and
https://github.com/Ayush-00/mimicgait (no licence files; nothing of them is contained here).

Differences from upstream:

- The amount of a clip is the mean of its frames' in training and inference; upstream takes it from
  the mean frame for clips of equal length (``amount="clip"``).
- The loss takes plain class scores; upstream applies softmax before its cross-entropy, which
  applies it again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.data.modalities import find_modality
from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.sequence import masked_mean, to_frames
from gaitzoo.models.base import init_weights

__all__ = ["OcclusionEvaluator", "OcclusionEvaluatorLoss"]

_WIDTHS = (32, 64, 128)
_SMALLEST = 4  # pixels; fewer leave nothing behind two of the pools


class OcclusionEvaluator(nn.Module):
    """Judges how much of a body is hidden, frame by frame: three convolutions and two layers.

    Source: RG-Gait (https://arxiv.org/abs/2507.10978), occlusion evaluation module, by the authors'
    code; 100,993 parameters without types. Train it on single frames
    (:class:`gaitzoo.data.occlusion.OcclusionExamples`) with :class:`OcclusionEvaluatorLoss`.

    Args:
        embed_dim: E, channels of the embedding.
        in_channels: Channels of the input.
        num_types: Kinds of occlusion that a head for training tells apart, 0 = no such head.
        amount: ``"frames"``, the mean of the frames' amounts, or ``"clip"``, the amount of the mean
            frame.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8, 4 pixels or more each way;
            ``[N, C, T, H, W]`` for any number of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: The embedding ``[N, E]``, 0 or more, and the amount ``[N]`` in [0, 1].

    Raises:
        TypeError: If the input is of another type.
        ValueError: If an argument has none of the values named here, or the input does not fit.

    Example:
        >>> evaluator = OcclusionEvaluator()
        >>> embedding, amount = evaluator(torch.rand(2, 5, 64, 44), torch.tensor([5, 3]))
        >>> embedding.shape, amount.shape
        (torch.Size([2, 64]), torch.Size([2]))
    """

    keeps_float32 = True

    def __init__(
        self,
        embed_dim: int = 64,
        in_channels: int = 1,
        num_types: int = 0,
        amount: str = "frames",
    ) -> None:
        super().__init__()
        check_size(embed_dim=embed_dim, in_channels=in_channels)
        if type(num_types) is not int or num_types < 0:
            raise ValueError(f"expected num_types as a whole number of 0 or more, got {num_types}")
        if amount not in ("frames", "clip"):
            raise ValueError(f'expected amount "frames" or "clip", got {amount!r}')
        self.embed_dim, self.in_channels, self.amount = embed_dim, in_channels, amount
        layers: list[nn.Module] = []
        before = in_channels
        for width in _WIDTHS:
            # The last pool has a margin: 16 x 11 becomes 9 x 6.
            pool = nn.MaxPool2d(2, padding=1 if width == _WIDTHS[-1] else 0)
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), pool]
            before = width
        self.convs = nn.Sequential(*layers)
        self.project = nn.Linear(before, embed_dim)
        self.amount_head = nn.Linear(embed_dim, 1)
        self.type_head = nn.Linear(embed_dim, num_types) if num_types else None
        init_weights(self)

    def frame_vectors(self, x: Tensor) -> Tensor:
        """Embeddings of single frames.

        Args:
            x: ``[N, C, T, H, W]``, floats in [0, 1].

        Returns:
            ``[N, E, T]``, 0 or more.

        Raises:
            ValueError: If frames are too small or channels do not fit.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels or min(x.shape[3:]) < _SMALLEST:
            raise ValueError(
                f"expected silhouettes [N, {self.in_channels}, T, H, W] of {_SMALLEST} x "
                f"{_SMALLEST} pixels or more, got {shape_of(x)}"
            )
        # Inside a fused model of half precision, this part stays in float32.
        frames = to_frames(x.to(self.project.weight.dtype))
        vectors = F.relu(self.project(self.convs(frames).mean(dim=(2, 3))))
        return vectors.unflatten(0, (x.shape[0], -1)).transpose(1, 2)

    def over_clip(self, vectors: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embedding and amount of whole clips.

        Args:
            vectors: ``[N, E, T]`` from :meth:`frame_vectors`.
            lengths: ``[N]`` int64, valid frames; ``None`` = all T.

        Returns:
            ``[N, E]`` and ``[N]``.
        """
        embedding = masked_mean(vectors, lengths).squeeze(2)
        if self.amount == "clip":
            return embedding, torch.sigmoid(self.amount_head(embedding)).squeeze(1)
        amounts = torch.sigmoid(self.amount_head(vectors.transpose(1, 2))).transpose(1, 2)
        return embedding, masked_mean(amounts, lengths).flatten()

    def type_logits(self, embedding: Tensor) -> Tensor:
        """Scores of the kinds of occlusion.

        Args:
            embedding: ``[N, E]``, as from the call.

        Returns:
            ``[N, num_types]``.

        Raises:
            ValueError: If the evaluator was built without types.
        """
        if self.type_head is None:
            raise ValueError("expected an evaluator with types, got num_types=0; build it with 3")
        return self.type_head(embedding)

    def forward(self, silhouettes: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the embedding and the amount."""
        x, lengths = find_modality("silhouettes").prepare(
            silhouettes, lengths, dtype=self.project.weight.dtype, channels=self.in_channels
        )
        return self.over_clip(self.frame_vectors(x), lengths)


class OcclusionEvaluatorLoss(nn.Module):
    """Cross-entropy of the kind of occlusion and weighted squared error of its amount.

    Source: first stage of RG-Gait (https://arxiv.org/abs/2507.10978), by the authors' code of
    MimicGait: weight 10, Adam with learning rate 1e-4, batches of 32 frames, 50 epochs.

    Args:
        weight: Of the squared error, 0 or more.

    Shapes:
        type_logits: ``[N, K]``, any values.
        amount: ``[N]`` in [0, 1].
        types: ``[N]`` int64, 0 to K - 1.
        target: ``[N]`` in [0, 1].
        returns: ``[]``.

    Raises:
        ValueError: If shapes do not fit, or a number is out of range.

    Example:
        >>> loss = OcclusionEvaluatorLoss()
        >>> logits = torch.tensor([[0.0, 0.0, 0.0]])
        >>> loss(logits, torch.tensor([0.5]), torch.tensor([1]), torch.tensor([0.4]))
        tensor(1.1986)
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"expected weight as a finite number of 0 or more, got {weight!r}")
        self.weight = weight

    def forward(self, type_logits: Tensor, amount: Tensor, types: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        n = len(type_logits)
        if type_logits.ndim != 2 or any(x.shape != (n,) for x in (amount, types, target)):
            raise ValueError(
                "expected type_logits [N, K] and amount, types and target [N], got "
                f"{', '.join(shape_of(x) for x in (type_logits, amount, types, target))}"
            )
        for name, x, most in (("target", target, 1.0), ("types", types, type_logits.shape[1] - 1)):
            if not bool(((x >= 0) & (x <= most)).all()):
                raise ValueError(f"expected {name} from 0 to {most:g}, got {x.tolist()}")
        return F.cross_entropy(type_logits, types) + self.weight * F.mse_loss(
            amount, target.to(amount)
        )
