"""What every model returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["GaitOutput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GaitOutput:
    """Embeddings of walking people, one row of parts per sequence.

    Args:
        embeddings: ``[N, P, C]``, one vector per body part; compare them with
            :func:`gaitzoo.metrics.part_distances`. Whether it is taken before or after the
            batch-norm neck is the model's choice, written in ``model.pretrained_cfg.embedding``.
        logits: ``[N, P, K]`` class scores of every part, ``None`` for a model without a
            classifier (``num_classes=0``).

    Example:
        >>> output = GaitOutput(embeddings=torch.zeros(2, 16, 256))
        >>> output.embeddings.shape, output.logits
        (torch.Size([2, 16, 256]), None)
    """

    embeddings: Tensor
    logits: Tensor | None = None


# An unregistered dataclass cannot be the output of an exported program.
with warnings.catch_warnings():
    # torch 2.6 warns of the name of one of its own functions.
    warnings.simplefilter("ignore", FutureWarning)
    torch.export.register_dataclass(GaitOutput, serialized_type_name="gaitzoo.GaitOutput")
