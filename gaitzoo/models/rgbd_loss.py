"""The loss of networks that read colours and depth.

Source: the reconstruction of https://arxiv.org/abs/2512.04425, where it is inferred.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.models.aux_output import AuxOutput

__all__ = ["RGBDGaitLoss"]


class RGBDGaitLoss(nn.Module):
    """Cross-entropy of the classes, and of each modality alone at a smaller weight.

    Source: the reconstruction of https://arxiv.org/abs/2512.04425, inferred. A sequence without a
    modality gives a constant there, and no gradient.

    Args:
        class_weights: One per class, for sets in which some are rare; ``None`` = all alike.
        aux_weight: Weight of the heads of one modality.

    Shapes:
        output: From :class:`RGBDGaitNet`.
        labels: ``[N]`` int64, 0 to K - 1.
        returns: A number.

    Raises:
        ValueError: If the output has no logits, or labels do not fit.

    Example:
        >>> output = AuxOutput(torch.zeros(2, 1, 4), logits=torch.zeros(2, 1, 2))
        >>> round(RGBDGaitLoss()(output, torch.tensor([0, 1])).item(), 4)
        0.6931
    """

    class_weights: Tensor | None

    def __init__(
        self, class_weights: Sequence[float] | None = None, aux_weight: float = 0.3
    ) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float)
        self.register_buffer("class_weights", weights)
        self.aux_weight = aux_weight

    def forward(self, output: AuxOutput, labels: Tensor) -> Tensor:
        """Returns the loss."""
        logits = output.logits
        if logits is None or labels.shape != logits.shape[:1]:
            raise ValueError(
                "expected logits and one label per sequence, got "
                f"{'none' if logits is None else shape_of(logits)} and {shape_of(labels)}"
            )
        loss = F.cross_entropy(logits[:, 0], labels, self.class_weights)
        for name in ("rgb", "depth"):
            if (alone := output.aux.get(f"logits_{name}")) is not None:
                loss = loss + self.aux_weight * F.cross_entropy(alone, labels, self.class_weights)
        return loss
