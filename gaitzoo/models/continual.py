"""Losses that keep a model from forgetting earlier tasks, and how much it forgot.

Source: GaitAdapter, https://arxiv.org/abs/2508.03375, as its published code computes them. In all
of them the teacher is the model as it was before the task; it takes no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo import losses
from gaitzoo.layers.checks import shape_of

__all__ = [
    "NegativeDistanceStabilityLoss",
    "PartLogitDistillationLoss",
    "VertexStabilityLoss",
    "forgetting_matrix",
]

_FLOOR = 1e-4


class NegativeDistanceStabilityLoss(nn.Module):
    """EDSN: sequences of other people keep their relative distances, as the teacher has them.

    Per part and anchor, P is the softmax of the distances to all sequences of other identities
    (not of their negatives), Q the same by the teacher; both are at least 1e-4. The loss is the sum
    of ``Q * log(Q / P)`` over those sequences, mean over anchors and parts. It is 0 for equal
    embeddings; where no value is at its floor it is never below 0.

    Source: https://arxiv.org/abs/2508.03375 and the published code.

    Shapes:
        embeddings: ``[N, P, C]``, finite.
        teacher: ``[N, P, C]``, finite, of the same sequences.
        labels: ``[N]`` integer identities, at least two different ones.
        returns: ``[]``, float64 for float64 embeddings, else float32.

    Raises:
        TypeError: If embeddings are not floating point or labels are not integers.
        ValueError: If shapes do not fit, a value is not finite, or there is one identity only.

    Example:
        >>> embeddings = torch.rand(4, 2, 8)
        >>> NegativeDistanceStabilityLoss()(embeddings, embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.)
    """

    def forward(self, embeddings: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        losses._check_batch(embeddings, "embeddings", "[N, P, C]", labels)
        losses._check_batch(teacher, "teacher", "[N, P, C]", labels)
        _check_same(embeddings, teacher)
        labels = labels.to(embeddings.device)
        same = labels[:, None] == labels
        if not torch.compiler.is_compiling() and bool(same.all()):
            raise ValueError(
                f"expected at least two identities in a batch, got {len(labels)} sequence(s) of "
                "one; sample several identities per batch"
            )
        own = _shares(embeddings, same)
        wanted = _shares(teacher.detach().to(embeddings), same)
        terms = (wanted * (wanted / own).log()).masked_fill(same, 0)
        return terms.sum(2).mean()


class VertexStabilityLoss(nn.Module):
    """STA: the vertices of a knowledge graph keep their directions.

    Mean over vertices of the squared distance of both vectors, each divided by its length.
    Source: https://arxiv.org/abs/2508.03375 and the published code.

    Shapes:
        vertices: ``[K, C]``, see :class:`gaitzoo.PartKnowledgeGraph`.
        teacher: ``[K, C]``, those of the teacher.
        returns: ``[]``, 0 to 4.

    Raises:
        TypeError: If one of them is no floating-point tensor.
        ValueError: If shapes do not fit or a value is not finite.

    Example:
        >>> VertexStabilityLoss()(torch.eye(3), 5 * torch.eye(3))
        tensor(0.)
    """

    def forward(self, vertices: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss."""
        _check_floats(2, "[K, C]", vertices=vertices, teacher=teacher)
        _check_same(vertices, teacher)
        vertices = losses._at_least_float32(vertices)
        wanted = F.normalize(teacher.detach().to(vertices), dim=1)
        return (F.normalize(vertices, dim=1) - wanted).square().sum(1).mean()


class PartLogitDistillationLoss(nn.Module):
    """KD: class scores of the earlier tasks stay as the teacher gives them.

    ``T ** 2`` times the mean, over sequences and parts, of the cross-entropy of
    ``softmax(student / T)`` under ``softmax(teacher / T)``: the classes of all earlier tasks
    together, cosines without a scale. It is not 0 for equal scores, but smallest.

    Source: https://arxiv.org/abs/2508.03375 and the published code.

    Args:
        temperature: T, above 0.

    Shapes:
        student: ``[N, P, K]``, finite; classes that the teacher does not have may follow, and
            then share in the student's softmax.
        teacher: ``[N, P, K_old]``, finite, ``K_old <= K``.
        returns: ``[]``.

    Raises:
        TypeError: If one of them is no floating-point tensor.
        ValueError: If the temperature is not above 0, shapes do not fit or a value is not finite.

    Example:
        >>> PartLogitDistillationLoss()(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3))
        tensor(4.3944)
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"expected a temperature above 0, got {temperature!r}")
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        _check_floats(3, "[N, P, K]", student=student, teacher=teacher)
        old = teacher.shape[2]
        if student.shape[:2] != teacher.shape[:2] or student.shape[2] < old:
            raise ValueError(
                "expected scores of the same sequences and parts, and of at least the teacher's "
                f"classes, got {shape_of(student)} and {shape_of(teacher)}"
            )
        student = losses._at_least_float32(student)
        wanted = (teacher.detach().to(student) / self.temperature).softmax(2)
        own = (student / self.temperature).log_softmax(2)[..., :old]
        return -(self.temperature**2) * (wanted * own).sum(2).mean()

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"temperature={self.temperature:g}"


def forgetting_matrix(accuracies: Tensor | Sequence[Sequence[float]]) -> Tensor:
    """How much of every data set is forgotten after every step: best earlier minus now.

    Args:
        accuracies: ``[steps, data sets]`` in any unit, larger is better: those of all data sets
            after every step; NaN where one was not tested.

    Returns:
        ``[steps, data sets]`` in the same unit, float64: the best of all steps before minus that of
        the step, below 0 where it rose. NaN where there is nothing to compare. The last row is the
        forgetting of the literature.

    Raises:
        ValueError: If there are not two axes, or an accuracy is infinite.

    Example:
        >>> nan = float("nan")
        >>> forgetting_matrix([[90, nan], [70, 80], [75, 60]]).tolist()
        [[nan, nan], [20.0, nan], [15.0, 20.0]]
    """
    table = torch.as_tensor(accuracies, dtype=torch.float64)
    if table.ndim != 2 or table.numel() == 0 or bool(table.isinf().any()):
        raise ValueError(
            "expected accuracies [steps, data sets], finite or NaN where none was measured, got "
            f"{shape_of(table)}"
        )
    lowest = table.new_full((1, table.shape[1]), -torch.inf)
    best = torch.cat([lowest, table.nan_to_num(-torch.inf)]).cummax(0).values[:-1]
    return best.masked_fill(best.isinf(), torch.nan) - table


def _shares(embeddings: Tensor, same: Tensor) -> Tensor:
    """Softmax ``[P, N, N]`` of every anchor's distances to other identities, 1e-4 at least."""
    distances = losses._distances_within_parts(embeddings)
    return distances.masked_fill(same, -torch.inf).softmax(2).clamp(min=_FLOOR)


def _check_same(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected the teacher's in the same shape, got {shape_of(student)} and "
            f"{shape_of(teacher)}; run both on the same sequences"
        )


def _check_floats(axes: int, wanted: str, **given: Tensor) -> None:
    for name, x in given.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected {name} as a floating-point tensor {wanted}, got {got}")
        if x.ndim != axes or x.numel() == 0:
            raise ValueError(f"expected {name} {wanted}, none of them 0, got {shape_of(x)}")
        if not torch.compiler.is_compiling() and not bool(x.isfinite().all()):
            raise ValueError(f"expected finite {name}, got NaN or infinite values")
