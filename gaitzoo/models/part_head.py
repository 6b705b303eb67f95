"""A head for models whose part vectors are compared as they come out of their matrices."""

from __future__ import annotations

from torch import Tensor, nn

from gaitzoo.layers.checks import check_num_classes
from gaitzoo.layers.heads import PartLinear
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput

__all__ = ["PartClasses", "PartHead"]


class PartClasses(nn.Module):
    """A class matrix per part, or none.

    Args:
        num_parts: P.
        channels: C.
        num_classes: K, 0 = none.
        normalized: Divide class vectors by their length, so that parts of length one give cosines.

    Shapes:
        parts: ``[N, P, C]``.
        returns: ``[N, P, K]``, or ``None``.
    """

    keeps_float32 = True

    def __init__(
        self, num_parts: int, channels: int, num_classes: int, normalized: bool = False
    ) -> None:
        super().__init__()
        self.num_parts, self.channels, self.normalized = num_parts, channels, normalized
        self.classifier: PartLinear | None = None
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh matrices for ``num_classes`` classes (0 = none).

        Raises:
            ValueError: If ``num_classes`` is no whole number of 0 or more.
        """
        check_num_classes(num_classes)
        self.classifier = (
            PartLinear(self.num_parts, self.channels, num_classes, self.normalized)
            if num_classes
            else None
        )

    def forward(self, parts: Tensor) -> Tensor | None:
        """Class scores of every part."""
        return None if self.classifier is None else self.classifier(parts)


class PartHead(GaitModel):
    """Base of models with a matrix per part and an optional class matrix per part behind it.

    A subclass builds ``part_fc`` and ``classes`` and defines :meth:`pool_parts`.
    """

    classifier_key = "classes.classifier"
    part_fc: PartLinear
    classes: PartClasses

    def pool_parts(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Part vectors before the matrices, ``[N, P, C]``.

        Args:
            features: As from :meth:`forward_features`.
            lengths: ``[N]``, the valid T'.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no pool_parts")

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        parts = self.part_fc(self.pool_parts(features, lengths))
        return GaitOutput(embeddings=parts, logits=self.classes(parts))
