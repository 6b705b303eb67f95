"""A batch-norm neck that gets new classes with every task and keeps the old ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_num_classes, check_size
from gaitzoo.layers.heads import PartBNNeck, PartLinear

__all__ = ["ExpandingBNNeck", "TaskClasses"]


class TaskClasses(PartLinear):
    """Class matrices per part of one task after the other, with columns of length one.

    The first task's are the weight of the :class:`PartLinear` that this is; ``later`` has those of
    the tasks after it.

    Args:
        num_parts: P.
        channels: C.
        num_classes: K of the first task.

    Shapes:
        x: ``[N, P, C]``.
        task: Number of the task, from 0.
        returns: ``[N, P, K]`` of that task.

    Raises:
        ValueError: If a number is no positive whole number, or shapes do not fit.
    """

    def __init__(self, num_parts: int, channels: int, num_classes: int) -> None:
        super().__init__(num_parts, channels, num_classes, normalized=True)
        self.later = nn.ParameterList()

    @property
    def class_counts(self) -> tuple[int, ...]:
        """K of every task."""
        return tuple(weight.shape[2] for weight in (self.weight, *self.later))

    def add_task(self, num_classes: int) -> None:
        """Adds fresh matrices for ``num_classes`` classes behind the others."""
        check_size(num_classes=num_classes)
        weight = self.weight.new_empty(*self.weight.shape[:2], num_classes)
        self.later.append(nn.Parameter(nn.init.xavier_uniform_(weight)))

    def forward(self, x: Tensor, task: int = 0) -> Tensor:
        """Returns the class scores of one task."""
        if task == 0:
            return super().forward(x)
        return torch.einsum("npc,pck->npk", x, F.normalize(self.later[task - 1], dim=1))


class ExpandingBNNeck(nn.Module):
    """Batch norm of every part and channel, then cosine classes of one task after the other.

    The batch norm is shared by all tasks; each task has class matrices of its own, and all are
    kept. Source: GaitAdapter (https://arxiv.org/abs/2508.03375), its expanding heads.

    Args:
        num_parts: P.
        channels: C.
        class_counts: Classes of every task so far, in their order.

    Shapes:
        x: ``[N, P, C]``; in training N > 1.
        tasks: Numbers of tasks, from 0; ``None`` = all, in their order.
        returns: A list with the cosines ``[N, P, K]`` of each of these tasks.

    Raises:
        ValueError: If a number is no positive whole number, there is no such task, or shapes do not
            fit.

    Example:
        >>> neck = ExpandingBNNeck(4, 8, class_counts=(5,))
        >>> neck.add_task(3)
        >>> [logits.shape[2] for logits in neck(torch.rand(2, 4, 8))]
        [5, 3]
    """

    keeps_float32 = True

    def __init__(self, num_parts: int, channels: int, class_counts: Sequence[int] = ()) -> None:
        super().__init__()
        self.norm = PartBNNeck(num_parts, channels, 0, order="channel")
        self.classifier: TaskClasses | None = None
        for count in class_counts:
            self.add_task(count)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Classes of every task."""
        return self.classifier.class_counts if isinstance(self.classifier, TaskClasses) else ()

    def add_task(self, num_classes: int) -> None:
        """Adds classes of a new task; what stands there stays as it is."""
        if self.classifier is not None:
            self.classifier.add_task(num_classes)
        else:
            check_size(num_classes=num_classes)
            classes = TaskClasses(self.norm.num_parts, self.norm.channels, num_classes)
            self.classifier = classes.to(next(self.norm.parameters()))

    def reset_classifier(self, num_classes: int) -> None:
        """Drops the classes of all tasks, for those of a new first task (0 = none)."""
        check_num_classes(num_classes)
        self.classifier = None
        if num_classes:
            self.add_task(num_classes)

    def forward(self, x: Tensor, tasks: Sequence[int] | None = None) -> list[Tensor]:
        """Returns the class scores of each task."""
        known = range(len(self.class_counts))
        tasks = known if tasks is None else tasks
        if any(task not in known for task in tasks):
            raise ValueError(
                f"expected tasks among the {len(known)} of this neck, numbered from 0, got "
                f"{list(tasks)}; add_task(num_classes) makes a new one"
            )
        features, _ = self.norm(x)
        if self.classifier is None:
            return []
        if not isinstance(self.classifier, TaskClasses):
            # What stands in for classes that are not there, to see what they would get.
            self.classifier(features)
            return []
        return [self.classifier(features, task) for task in tasks]
