"""Embeddings of one network drawn towards those of another."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.modes import without_autocast

__all__ = ["EmbeddingDistillation"]

_TAU = {"kl": 1.5, "clip": 0.07}
_KINDS = ("kl", "cosine", "mse", "clip")


class EmbeddingDistillation(nn.Module):
    """Distance of a student's embeddings from a teacher's, for the same sequences.

    - ``"kl"``: Kullback-Leibler divergence of ``softmax(teacher / tau)`` from
      ``softmax(student / tau)`` over the channels of each part, times ``tau ** 2``.
    - ``"cosine"``: 1 minus the cosine of each part.
    - ``"mse"``: mean squared difference.
    - ``"clip"``: every student should find its own teacher among those of the batch and the other
      way round: symmetric cross-entropy of cosines divided by ``tau``. Not 0 for equal embeddings.

    All are means over sequences and parts. The teacher takes no gradient. For robust models the
    teacher is given the clean clip, the student the corrupted one.

    Source: RobustGait (https://arxiv.org/abs/2511.13065), the four kinds and temperatures of its
    published code; that parts are averaged is [inferred].

    Args:
        kind: One of the above.
        tau: Temperature of ``"kl"`` and ``"clip"``; ``None`` = 1.5 and 0.07.

    Shapes:
        student: ``[N, P, C]``, finite.
        teacher: ``[N, P, C]``, finite.
        returns: ``[]``, float32, or float64 for float64 embeddings.

    Raises:
        TypeError: If embeddings are no floating-point tensors.
        ValueError: If the kind is unknown, the temperature not above 0 or not of this kind, shapes
            differ or a value is not finite.

    Example:
        >>> student, teacher = torch.zeros(2, 1, 4), torch.full((2, 1, 4), 0.5)
        >>> EmbeddingDistillation("mse")(student, teacher)
        tensor(0.2500)
    """

    def __init__(
        self,
        kind: Literal["kl", "cosine", "mse", "clip"] = "kl",
        tau: float | None = None,
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ValueError(f"expected kind as one of {', '.join(_KINDS)}, got {kind!r}")
        if tau is not None and (kind not in _TAU or not 0 < tau < float("inf")):
            raise ValueError(f'expected tau above 0, for "kl" and "clip" only, got {tau!r}, {kind}')
        self.kind = kind
        self.tau = _TAU.get(kind, 1.0) if tau is None else tau

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        _check(student, teacher)
        with without_autocast(student.device):
            if student.dtype != torch.float64:
                student, teacher = student.float(), teacher.float()
            teacher = teacher.detach().to(student)
            if self.kind == "mse":
                return F.mse_loss(student, teacher)
            if self.kind == "cosine":
                return (1 - F.cosine_similarity(student, teacher, dim=2)).mean()
            if self.kind == "kl":
                own = (student / self.tau).log_softmax(2)
                wanted = (teacher / self.tau).log_softmax(2)
                return self.tau**2 * (wanted.exp() * (wanted - own)).sum(2).mean()
            return self._clip(F.normalize(student, dim=2), F.normalize(teacher, dim=2))

    def _clip(self, student: Tensor, teacher: Tensor) -> Tensor:
        scores = torch.einsum("npc,mpc->pnm", student, teacher) / self.tau
        own = torch.arange(len(student), device=student.device).expand(len(scores), -1)
        there = F.cross_entropy(scores.transpose(1, 2), own)
        back = F.cross_entropy(scores, own)
        return (there + back) / 2

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"kind={self.kind!r}" + (f", tau={self.tau:g}" if self.kind in _TAU else "")


def _check(student: Tensor, teacher: Tensor) -> None:
    for name, x in (("student", student), ("teacher", teacher)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected {name} embeddings as a floating-point tensor, got {got}")
        if x.ndim != 3 or x.numel() == 0:
            raise ValueError(
                f"expected {name} embeddings [N, P, C], none of them 0, got {shape_of(x)}; one "
                "vector per sequence needs a part axis: x[:, None]"
            )
        if not torch.compiler.is_compiling() and not bool(x.isfinite().all()):
            raise ValueError(f"expected finite {name} embeddings, got NaN or infinite values")
    if student.shape != teacher.shape:
        raise ValueError(
            f"expected student and teacher of one shape, got {shape_of(student)} and "
            f"{shape_of(teacher)}; run both on the same sequences"
        )
