"""Part-wise training losses, and the gather that makes them see every process's batch.

Both losses compute each part on its own and average over the parts, in float32 at least, also
under autocast. Neither gathers anything by itself:

- ``PartCrossEntropyLoss`` is a mean over sequences, which ``DistributedDataParallel`` averages
  correctly as long as the processes hold equally many.
- ``PartTripletLoss`` compares sequences, so call ``gather_across_processes`` on the embeddings and
  on the labels first to compare those of all processes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.distillation import EmbeddingDistillation

__all__ = [
    "EmbeddingDistillation",
    "HardnessExclusionTripletLoss",
    "PartCrossEntropyLoss",
    "PartTripletLoss",
    "SupConDistanceLoss",
    "gather_across_processes",
]


class PartTripletLoss(nn.Module):
    """Triplet loss on the Euclidean distances of each part.

    A triple is an anchor, a positive of the same identity and a negative of another, and costs
    ``relu(distance(anchor, positive) - distance(anchor, negative) + margin)``.

    - ``mining="all"``: every triple of the batch; mean over the triples of a part that cost
      anything (0 if none does), then over the parts. The anchor counts among its own positives, as
      in the training code of the gait models here, which asks for negatives beyond the margin.
    - ``mining="hard"``: per anchor and part the farthest positive and the nearest negative; mean
      over anchors and parts. An anchor alone with its identity has a positive distance of 0.

    Identities may have different numbers of sequences. ``"all"`` needs memory for parts x (pairs
    of one identity) x sequences; distances are computed in float64, so that close embeddings keep
    their digits and equal ones have finite gradients.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification"
    (https://arxiv.org/abs/1703.07737), Sec. 2, "batch all" with the mean over non-zero terms and
    "batch hard"; per part as in GaitSet (https://arxiv.org/abs/1811.06186).

    Args:
        margin: Distance that negatives should be farther away than positives.
        mining: ``"all"`` or ``"hard"``.

    Shapes:
        embeddings: ``[N, P, C]``, finite.
        labels: ``[N]`` integer identities, at least two different ones.
        returns: ``[]``, float64 for float64 embeddings, else float32.

    Raises:
        TypeError: If embeddings are not floating point or labels are not integers.
        ValueError: If a shape does not fit, an embedding is NaN or infinite, there is one identity
            only, or an option is unknown.

    Example:
        >>> embeddings = torch.tensor([0.0, 0.1, 0.2]).reshape(3, 1, 1)
        >>> PartTripletLoss(mining="hard")(embeddings, torch.tensor([0, 0, 1]))
        tensor(0.1333)
    """

    def __init__(self, margin: float = 0.2, mining: Literal["all", "hard"] = "all") -> None:
        super().__init__()
        if not 0 <= margin < float("inf"):
            raise ValueError(f"expected a margin of 0 or more, got {margin}")
        if mining not in ("all", "hard"):
            raise ValueError(f'expected mining "all" or "hard", got {mining!r}')
        self.margin = margin
        self.mining = mining

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        _check_batch(embeddings, "embeddings", "[N, P, C]", labels)
        labels = labels.to(embeddings.device)
        same = labels[:, None] == labels
        if not torch.compiler.is_compiling() and bool(same.all()):
            raise ValueError(
                f"expected at least two identities in a batch, got {len(labels)} sequence(s) of "
                "one; sample several identities per batch, or gather_across_processes first"
            )
        distances = _distances_within_parts(embeddings)
        if self.mining == "all":
            return self._all_triples(distances, same)
        farthest = distances.masked_fill(~same, 0).amax(2)
        nearest = distances.masked_fill(same, torch.inf).amin(2)
        return F.relu(farthest - nearest + self.margin).mean()

    def _all_triples(self, distances: Tensor, same: Tensor) -> Tensor:
        anchor, positive = same.nonzero(as_tuple=True)
        to_positive = distances[:, anchor, positive, None]
        costs = F.relu(to_positive - distances[:, anchor] + self.margin)
        left_out = same[anchor] | self._excluded(to_positive)
        costs = costs.masked_fill(left_out, 0).flatten(1)
        return (costs.sum(1) / (costs > 0).sum(1).clamp(min=1)).mean()

    def _excluded(self, to_positive: Tensor) -> Tensor:
        """Which pairs of one identity ``[P, pairs, 1]`` are left out: none."""
        return torch.zeros_like(to_positive, dtype=torch.bool)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"margin={self.margin}, mining={self.mining!r}"


class HardnessExclusionTripletLoss(PartTripletLoss):
    """Triplet loss over all triples but those with a very distant positive.

    Per part, ``m`` is the mean and ``M`` the largest of all distances within identities (each
    sequence to itself counts); triples with a positive of ``m + ratio * (M - m)`` or more are left
    out: bad silhouettes would lead the training. The limit takes no gradient.

    Source: TrackletGait (https://arxiv.org/abs/2508.02143), hardness exclusion. Identities may
    have different numbers of sequences, which upstream's form does not allow.

    Args:
        margin: As for :class:`PartTripletLoss`.
        ratio: Where between mean (0) and largest (1) the limit lies; above 1 nothing is left out.

    Shapes:
        embeddings: ``[N, P, C]``, finite.
        labels: ``[N]`` integer identities, at least two different ones.
        returns: ``[]``, float64 for float64 embeddings, else float32.

    Raises:
        TypeError: As for :class:`PartTripletLoss`.
        ValueError: As for :class:`PartTripletLoss`, or if ``ratio`` is below 0.

    Example:
        >>> embeddings = torch.tensor([0.0, 0.1, 0.2, 0.3]).reshape(4, 1, 1)
        >>> HardnessExclusionTripletLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.1000)
    """

    def __init__(self, margin: float = 0.2, ratio: float = 2 / 3) -> None:
        super().__init__(margin)
        if not 0 <= ratio < float("inf"):
            raise ValueError(f"expected a ratio of 0 or more, got {ratio}")
        self.ratio = ratio

    def _excluded(self, to_positive: Tensor) -> Tensor:
        distances = to_positive.detach()
        mean, largest = distances.mean(1, keepdim=True), distances.amax(1, keepdim=True)
        return distances >= mean + self.ratio * (largest - mean)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"margin={self.margin}, ratio={self.ratio:g}"


class PartCrossEntropyLoss(nn.Module):
    """Cross-entropy of the class scores of each part, mean over sequences and parts.

    With smoothing ``e`` the cost of one part is ``(1 - e) * -log p[label] + e * mean(-log p)``,
    where ``p = softmax(scale * logits)``.

    Source: the recipe of the gait models here (``scale`` 16 for cosine-like logits of a
    normalised classifier, 1 for others); smoothing as in Szegedy et al., "Rethinking the Inception
    Architecture" (https://arxiv.org/abs/1512.00567), Sec. 7.

    Args:
        scale: Factor on the logits, above 0.
        label_smoothing: ``e``, from 0 up to and without 1.

    Shapes:
        logits: ``[N, P, K]``, finite.
        labels: ``[N]`` integers in 0..K-1.
        returns: ``[]``, float64 for float64 logits, else float32.

    Raises:
        TypeError: If logits are not floating point or labels are not integers.
        ValueError: If a shape does not fit, a logit is NaN or infinite, a label is outside 0..K-1,
            or an option is out of range.

    Example:
        >>> PartCrossEntropyLoss()(torch.zeros(2, 16, 10), torch.tensor([3, 9]))
        tensor(2.3026)
    """

    def __init__(self, scale: float = 16.0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 < scale < float("inf"):
            raise ValueError(f"expected a scale above 0, got {scale}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"expected label_smoothing in [0, 1), got {label_smoothing}")
        self.scale = scale
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        _check_batch(logits, "logits", "[N, P, K]", labels)
        _, num_parts, num_classes = logits.shape
        if not torch.compiler.is_compiling():
            lowest, highest = (int(value) for value in labels.aminmax())
            if lowest < 0 or highest >= num_classes:
                raise ValueError(
                    f"expected labels in 0..{num_classes - 1} for {num_classes} classes, got "
                    f"{lowest} to {highest}; number the identities from 0, or build the model "
                    "with more classes"
                )
        labels = labels.to(logits.device, torch.int64).repeat_interleave(num_parts)
        with torch.autocast(logits.device.type, enabled=False):
            scaled = self.scale * _at_least_float32(logits).flatten(0, 1)
            return F.cross_entropy(scaled, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"scale={self.scale}, label_smoothing={self.label_smoothing}"


class SupConDistanceLoss(nn.Module):
    """Supervised contrastive loss on distances of unit vectors, as GaitGraph2 is trained with.

    For every sequence, the mean over those of its identity of minus the log-softmax, over all
    others, of negative distances divided by the temperature; then the mean over sequences whose
    loss is above 0. Sequences without another one of their identity give 0. Parts are averaged.

    Source: https://arxiv.org/abs/2204.07855 and https://arxiv.org/abs/2004.11362, equation 2, with
    Euclidean distances in place of dot products, as in the authors' code; it is undefined there
    where no sequence has a loss, and 0 here.

    Args:
        temperature: What distances are divided by, above 0.

    Shapes:
        embeddings: ``[N, P, C]``, any scale.
        labels: ``[N]`` int64.
        returns: Scalar float32 (float64 for float64 embeddings), 0 or more.

    Raises:
        TypeError: If embeddings are no floats or labels no integers.
        ValueError: If the temperature is not above 0, shapes do not fit or a value is not finite.

    Example:
        >>> loss = SupConDistanceLoss()
        >>> loss(torch.rand(4, 1, 8), torch.tensor([0, 0, 1, 1])).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"expected a temperature above 0, got {temperature!r}")
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss."""
        _check_batch(embeddings, "embeddings", "[N, P, C]", labels)
        unit = F.normalize(_at_least_float32(embeddings), dim=2)
        scores = -_distances_within_parts(unit) / self.temperature
        itself = torch.eye(len(labels), dtype=torch.bool, device=scores.device)
        log_shares = scores.masked_fill(itself, float("-inf")).log_softmax(2)
        labels = labels.to(scores.device)
        positive = (labels[:, None] == labels) & ~itself
        sums = log_shares.masked_fill(~positive, 0).sum(2)
        losses = -sums / positive.sum(1).clamp(min=1)
        counts = (losses > 0).sum(1)
        return (losses.clamp(min=0).sum(1) / counts.clamp(min=1)).mean()


def gather_across_processes(tensor: Tensor) -> Tensor:
    """Concatenates a tensor of every process along the first axis; gradients flow back to all.

    Returns ``tensor`` itself outside of ``torch.distributed`` or in a group of one. Every process
    must call it, with equal dtypes and equal axes after the first, and must run backward if one
    does. The first axis may differ. NCCL takes GPU tensors only, so move labels there too.

    Gradients: every process then computes the same loss on the union of the batches. Backward
    sums what all of them send to a tensor, W times its gradient for W processes, and
    ``DistributedDataParallel`` divides parameter gradients by W. The result is the gradient of the
    same loss in one process on the union batch, so do not multiply the loss by W.

    Args:
        tensor: ``[N, ...]`` embeddings, or labels (without gradient), of this process.

    Returns:
        ``[N_1 + ... + N_W, ...]`` in the order of the processes.

    Raises:
        TypeError: If it is not a tensor.
        ValueError: If it has no axis.

    Example:
        >>> embeddings, labels = torch.rand(4, 16, 8), torch.tensor([0, 0, 1, 1])
        >>> loss = PartTripletLoss()
        >>> loss(gather_across_processes(embeddings), gather_across_processes(labels)).shape
        torch.Size([])
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a torch.Tensor to gather, got {type(tensor).__name__}")
    if tensor.ndim == 0:
        raise ValueError("expected a tensor [N, ...] to gather, got one value; use value[None]")
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    size = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    return _Gather.apply(tensor, [int(size) for size in sizes])


class _Gather(torch.autograd.Function):
    """All-gather whose backward returns to each process the sum of what all sent to its rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int]) -> Tensor:
        ctx.start, ctx.sizes = sum(sizes[: dist.get_rank()]), sizes
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        return torch.cat([rows[:size] for rows, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.sizes[dist.get_rank()]], None


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _distances_within_parts(embeddings: Tensor) -> Tensor:
    """``[N, P, C]`` -> Euclidean distances ``[P, N, N]``.

    The expanded square needs float64, see ``metrics.part_distances``; the direct form would need
    ``P * N * N * C`` numbers for its gradient on a GPU.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        parts = embeddings.double().transpose(0, 1)
        distances = torch.cdist(parts, parts, compute_mode="use_mm_for_euclid_dist")
        itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
        return distances.masked_fill(itself, 0).to(_at_least_float32(embeddings).dtype)


def _check_batch(x: Tensor, name: str, wanted: str, labels: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected {name} as a floating-point tensor {wanted}, got {got}")
    if x.ndim != 3 or x.numel() == 0:
        raise ValueError(
            f"expected {name} {wanted}, none of them 0, got {shape_of(x)}; the part axis is in "
            "the middle, and one vector per sequence needs one: x[:, None]"
        )
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"expected labels as an int64 tensor [N], got {got}; use torch.tensor(...)")
    if labels.shape != (len(x),):
        raise ValueError(
            f"expected one label per sequence, shape [{len(x)}], got {shape_of(labels)}"
        )
    if not torch.compiler.is_compiling() and not bool(x.isfinite().all()):
        raise ValueError(
            f"expected finite {name}, got NaN or infinite values; lower the learning rate, or "
            "use bfloat16 or float32 where float16 overflows"
        )
