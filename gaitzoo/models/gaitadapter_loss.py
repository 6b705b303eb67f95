"""The losses of GaitAdapter together: the new data set learned, the earlier ones kept.

Source: GaitAdapter, https://arxiv.org/abs/2508.03375.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.continual import (
    NegativeDistanceStabilityLoss,
    PartLogitDistillationLoss,
    VertexStabilityLoss,
)
from gaitzoo.models.gaitadapter import GaitAdapter

__all__ = ["GaitAdapterLoss"]


class GaitAdapterLoss(nn.Module):
    """The losses of one step of :class:`GaitAdapter`, from the second task on with its teacher.

    Triplet loss on the embeddings and cross-entropy on the newest task's logits; with a teacher
    also the stability of distances to other people (EDSN), of the earlier tasks' logits (KD) and of
    the graph's vertices (STA). Their sum is what is trained, every weight 1 as published. Source:
    https://arxiv.org/abs/2508.03375 and the authors' code.

    Args:
        triplet: Of ``[N, P, C]`` and labels; ``None`` = :class:`gaitzoo.losses.PartTripletLoss`
            with margin 0.2.
        cross_entropy: Of ``[N, P, K]`` and labels; ``None`` =
            :class:`gaitzoo.losses.PartCrossEntropyLoss` with scale 16 and smoothing 0.1.
        temperature: Of KD, above 0.

    Shapes:
        silhouettes: As for the model's call.
        labels: ``[N]`` int64, identities of the newest task, from 0, two different ones at least.
        lengths: As for the model's call.
        returns: Name to loss, ``[]`` each: ``triplet`` and ``cross_entropy``; with a teacher
            ``edsn``, ``kd`` and ``sta`` too.

    Raises:
        TypeError: If the model is of another class.
        ValueError: If the model has no classes, or several tasks and no teacher, as one has that
            was saved and loaded; or as the single losses say.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("gaitadapter_tiny").train()
        >>> model.begin_task(2)
        >>> clips, labels = torch.rand(4, 3, 16, 12), torch.tensor([0, 0, 1, 1])
        >>> sorted(GaitAdapterLoss()(model, clips, labels))
        ['cross_entropy', 'edsn', 'kd', 'sta', 'triplet']
    """

    def __init__(
        self,
        triplet: nn.Module | None = None,
        cross_entropy: nn.Module | None = None,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.triplet = PartTripletLoss() if triplet is None else triplet
        self.cross_entropy = PartCrossEntropyLoss() if cross_entropy is None else cross_entropy
        self.edsn = NegativeDistanceStabilityLoss()
        self.kd = PartLogitDistillationLoss(temperature)
        self.sta = VertexStabilityLoss()

    def forward(
        self,
        model: GaitAdapter,
        silhouettes: Tensor,
        labels: Tensor,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Runs model and teacher on one batch and returns their losses."""
        # A compiled model passes all names on.
        if not isinstance(getattr(model, "_orig_mod", model), GaitAdapter):
            raise TypeError(
                f"expected a GaitAdapter, got {type(model).__name__}; other models have no tasks, "
                "see gaitzoo.losses, and of one for several processes pass model.module"
            )
        if not model.class_counts:
            raise ValueError("expected a model with classes, got none; model.begin_task(people)")
        teacher = model.teacher
        if teacher is None and len(model.class_counts) > 1:
            raise ValueError(
                f"expected a teacher in task {model.task}, got none, which is not saved with a "
                "model; load the model saved before the task, begin_task of it, then "
                "load_state_dict of this one"
            )
        new = model.adapt(silhouettes, lengths)
        losses = {
            "triplet": self.triplet(new.embeddings, labels),
            "cross_entropy": self.cross_entropy(new.logits[-1], labels),
        }
        if teacher is not None:
            with torch.no_grad():
                old = teacher.adapt(silhouettes, lengths)
            losses["edsn"] = self.edsn(new.embeddings, old.embeddings, labels)
            losses["kd"] = self.kd(torch.cat(new.logits[:-1], 2), torch.cat(old.logits, 2))
            losses["sta"] = self.sta(model.part_graph.vertices, teacher.part_graph.vertices)
        return losses
