"""The head that most networks of the OpenGait family share.

Source: GaitBase, https://arxiv.org/abs/2211.06597 (CVPR 2023), Sec. 4.
"""

from __future__ import annotations

from torch import Tensor

from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput

__all__ = ["MaxPooled"]


class MaxPooled(GaitModel):
    """The head of GaitBase: maximum over time, horizontal bands, a matrix per band, a BN neck.

    Base of models that hold these four. Source: https://arxiv.org/abs/2211.06597, Sec. 4.

    Attributes:
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it.
    """

    embedding: str
    temporal_pool: TemporalMax
    part_pool: HorizontalPyramidPooling
    part_fc: PartLinear
    neck: PartBNNeck

    @staticmethod
    def side_of(embedding: str) -> str:
        """The words of a cfg for an ``embedding``.

        Args:
            embedding: ``"fc"`` or ``"bnneck"``.

        Raises:
            ValueError: If it is neither.

        Example:
            >>> MaxPooled.side_of("fc")
            'before_bn'
        """
        if embedding not in ("fc", "bnneck"):
            raise ValueError(f'expected embedding "fc" or "bnneck", got {embedding!r}')
        return "before_bn" if embedding == "fc" else "after_bn"

    def build_head(
        self,
        in_channels: int,
        channels: int,
        part_bins: tuple[int, ...],
        num_classes: int,
        *,
        extra_parts: int = 0,
    ) -> None:
        """Builds the four, for a constructor to call when its network stands.

        Args:
            in_channels: Channels of the map.
            channels: Channels of the embeddings.
            part_bins: Numbers of horizontal bands.
            num_classes: Training identities, 0 = no classifier.
            extra_parts: Parts behind the bands, which the model itself makes.

        Raises:
            ValueError: If an argument is no positive number, or ``num_classes`` negative.
        """
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(part_bins)
        self.num_parts = self.part_pool.num_parts + extra_parts
        self.num_features = channels
        self.part_fc = PartLinear(self.num_parts, in_channels, channels)
        self.neck = PartBNNeck(self.num_parts, channels, num_classes, order="channel")

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        return self.embed_parts(self.part_pool(self.temporal_pool(features, lengths)))

    def embed_parts(self, parts: Tensor) -> GaitOutput:
        """Embeds every part.

        Args:
            parts: Part vectors before the matrices, ``[N, P, C]``.
        """
        parts = self.part_fc(parts)
        after_bn, logits = self.neck(parts)
        return GaitOutput(embeddings=parts if self.embedding == "fc" else after_bn, logits=logits)
