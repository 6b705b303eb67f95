"""Training of FoundationGait without labels: a student who sees bands, a teacher who sees all.

Paper: https://arxiv.org/abs/2512.00691. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here). Loops, data sets and mixed precision are the
user's; ``examples/pretrain_ssl.py`` shows them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_sizes, shape_of
from gaitzoo.layers.modes import without_autocast
from gaitzoo.losses import PartCrossEntropyLoss, gather_across_processes
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.foundationgait import FoundationGait, network_keys

__all__ = [
    "FoundationGaitPretrainer",
    "PartInfoNCE",
    "convert_pretraining",
    "cosine_momentum",
]


class PartInfoNCE(nn.Module):
    """Finds, part by part, the other view of every sequence among those of all.

    Cross-entropy over ``scale`` times the cosines of a sequence's prediction with all targets.
    Targets take no gradient.

    Source: FoundationGait (https://arxiv.org/abs/2512.00691) and the authors' configurations;
    https://arxiv.org/abs/1807.03748, equation 4.

    Args:
        scale: As for :class:`PartCrossEntropyLoss`.
        label_smoothing: As for :class:`PartCrossEntropyLoss`.

    Shapes:
        predictions: ``[N, P, C]``, any length.
        targets: ``[M, P, C]``, any length, M at least N.
        labels: ``[N]`` int64, which target is the other view; ``None`` = the one at its own place.
        returns: ``[]``, float64 for float64 vectors, else float32.

    Raises:
        TypeError: If vectors are not floating point or labels are not integers.
        ValueError: If shapes do not fit, a value is NaN or infinite, or an option is out of range.

    Example:
        >>> views = torch.eye(4)[:, None]
        >>> PartInfoNCE()(views, views)
        tensor(1.2000)
    """

    def __init__(self, scale: float = 16.0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.cross_entropy = PartCrossEntropyLoss(scale, label_smoothing)

    def forward(self, predictions: Tensor, targets: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the loss of one batch."""
        if labels is None:
            labels = torch.arange(len(predictions), device=predictions.device)
        return self.cross_entropy(_cosines(predictions, targets.detach()), labels)


class FoundationGaitPretrainer(nn.Module):
    """A student, the teacher who follows it, and what they say of two views of the same walks.

    The teacher sees whole frames and gives targets ``z`` (after the projector); the student sees
    the bands of :class:`PartCropEncoder` and gives predictions ``p`` (after the predictor). In
    training both normalise by the statistics of the batch; the teacher keeps running statistics of
    its own. After each step of the optimizer, :meth:`update_teacher` moves the teacher's
    parameters. The teacher is what embeds people afterwards.

    Source: https://arxiv.org/abs/2512.00691 and the authors' configurations: one direction, no
    exchange of the views; SGD, momentum 0.9, learning rate 0.05, weight decay 5e-4.

    Args:
        model: The student; becomes part of this module. The teacher starts as its copy.
        crops: Bands per chunk of the batch, for the student.
        gather: Joins the targets of several processes and says where this process's begin;
            ``None`` = those of ``torch.distributed``, or this process's alone outside of it.

    Shapes:
        view_q: ``[N, T, H, W]``, as for the model, for the teacher.
        view_k: ``[N, T', H, W]``, other frames of the same walks, for the student. N as for
            :class:`PartCropEncoder`.
        lengths_q: ``[N]`` int64, valid frames; ``None`` = all T.
        lengths_k: ``[N]`` int64, valid frames; ``None`` = all T'.
        returns: Cosines ``[N, P, M]`` of predictions with the M targets of all processes, and
            ``[N]`` labels, the target of the same walk: both as :class:`PartCrossEntropyLoss`
            takes them.

    Raises:
        TypeError: If ``model`` is no :class:`FoundationGait`.
        ValueError: If its embedding is not that of the predictor, the views have different numbers
            of walks, or the batch does not fit the crops.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("foundationgait_tiny", embedding="predictor")
        >>> pretrainer = FoundationGaitPretrainer(model, crops=(2, 1)).train()
        >>> cosines, labels = pretrainer(torch.rand(4, 3, 16, 12), torch.rand(4, 3, 16, 12))
        >>> cosines.shape, labels.tolist()
        (torch.Size([4, 6, 4]), [0, 1, 2, 3])
    """

    def __init__(
        self,
        model: FoundationGait,
        crops: tuple[int, ...] = (8, 4, 2, 1),
        gather: Callable[[Tensor], tuple[Tensor, int]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, FoundationGait):
            raise TypeError(f"expected a FoundationGait to train, got {type(model).__name__}")
        if model.embedding != "predictor":
            raise ValueError(
                "expected a model whose predictor is trained, got one with embedding="
                f"{model.embedding!r}; build it with embedding='predictor'"
            )
        self.crops = check_sizes("crops", crops)
        self.gather = _gather_targets if gather is None else gather
        self.student = model
        self.teacher = copy.deepcopy(model).requires_grad_(False)

    def forward(
        self,
        view_q: Tensor,
        view_k: Tensor,
        lengths_q: Tensor | None = None,
        lengths_k: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns cosines and labels."""
        if len(view_q) != len(view_k):
            raise ValueError(
                f"expected two views of the same walks, got {len(view_q)} and {len(view_k)}"
            )
        features, lengths = self.student.forward_features(view_k, lengths_k, self.crops)
        predictions = self.student.part_vectors(features, lengths).predicted
        with torch.no_grad():
            features, lengths = self.teacher.forward_features(view_q, lengths_q)
            projected = self.teacher.part_vectors(features, lengths).projected
        targets, first = self.gather(projected)
        labels = torch.arange(first, first + len(predictions), device=predictions.device)
        return _cosines(predictions, targets), labels

    @torch.no_grad()
    def update_teacher(self, step: int, total: int, start: float = 0.99) -> None:
        """Moves the teacher's parameters towards the student's; its statistics are its own.

        Args:
            step: Steps done so far, 1 after the first.
            total: Steps of the whole training.
            start: Share of the teacher that stays at step 0, see :func:`cosine_momentum`.
        """
        momentum = cosine_momentum(step, total, start)
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1 - momentum)


def cosine_momentum(step: int, total: int, start: float = 0.99, end: float = 1.0) -> float:
    """Share of the teacher that stays, which grows along half a cosine.

    Source: the authors' training of FoundationGait (https://arxiv.org/abs/2512.00691); the
    schedule is BYOL's (https://arxiv.org/abs/2006.07733), Sec. 3.3, that ends at ``total - 1``.

    Args:
        step: 0 or more.
        total: Steps of the whole training, 1 or more.
        start: At step 0, in [0, 1].
        end: From step ``total - 1`` on, in [0, 1].

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> [round(cosine_momentum(step, 101), 4) for step in (0, 50, 100)]
        [0.99, 0.995, 1.0]
    """
    if step < 0 or total < 1:
        raise ValueError(f"expected step of 0 or more of 1 or more, got {step} of {total}")
    if not (0 <= start <= 1 and 0 <= end <= 1):
        raise ValueError(f"expected start and end in [0, 1], got {start} and {end}")
    if step >= total - 1:
        return end
    return end - (end - start) * (math.cos(math.pi * step / (total - 1)) + 1) / 2


def convert_pretraining(state_dict: StateDict) -> StateDict:
    """Renames parameters of the authors' pretraining to those of the pretrainer.

    Args:
        state_dict: Student and teacher under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors, for :class:`FoundationGaitPretrainer` to load.

    Raises:
        UnknownKeysError: If a name belongs to neither.
    """
    table = network_keys("teacher_backbone", "teacher.")
    table |= network_keys("student_backbone", "student.")
    return rename_by_table(state_dict, table, "FoundationGait in pretraining")


def _cosines(predictions: Tensor, targets: Tensor) -> Tensor:
    """Cosines of every row with every target, part by part: ``[N, P, M]``, float32 or wider."""
    if predictions.ndim != 3 or predictions.shape[1:] != targets.shape[1:]:
        raise ValueError(
            "expected predictions [N, P, C] and targets [M, P, C], got "
            f"{shape_of(predictions)} and {shape_of(targets)}"
        )
    wide = torch.promote_types(predictions.dtype, torch.float32)
    # Half precision would take more from a cosine than walks of two people differ by.
    with without_autocast(predictions.device):
        predictions, targets = (F.normalize(x.to(wide), dim=2) for x in (predictions, targets))
        return torch.einsum("npc,mpc->npm", predictions, targets)


def _gather_targets(targets: Tensor) -> tuple[Tensor, int]:
    """Targets of all processes, and where this process's begin."""
    gathered = gather_across_processes(targets)
    if len(gathered) == len(targets):
        return gathered, 0
    sizes = gather_across_processes(torch.tensor([len(targets)], device=targets.device))
    return gathered, int(sizes[: dist.get_rank()].sum())
