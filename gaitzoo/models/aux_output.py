"""What models return that say more than embeddings and class scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaitzoo.models.outputs import GaitOutput

__all__ = ["AuxOutput"]


@dataclass(frozen=True, slots=True)
class AuxOutput(GaitOutput):
    """Embeddings and whatever else a model says of a batch.

    Goes wherever :class:`GaitOutput` goes; joined by ``default_collate`` or gathered by
    ``nn.DataParallel``, it keeps embeddings and logits alone.

    Args:
        aux: Name to tensor, N first; the model's docstring says which. By keyword only.

    Example:
        >>> output = AuxOutput(torch.zeros(2, 16, 256), aux={"age": torch.tensor([31.0, 58.0])})
        >>> output.to(torch.float64).aux["age"]
        tensor([31., 58.], dtype=torch.float64)
    """

    aux: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    def to(self, *args: Any, **kwargs: Any) -> AuxOutput:
        """The same on another device or in another type of numbers, as ``Tensor.to``.

        Args:
            *args: As for ``Tensor.to``.
            **kwargs: As for ``Tensor.to``.
        """
        return AuxOutput(
            self.embeddings.to(*args, **kwargs),
            logits=None if self.logits is None else self.logits.to(*args, **kwargs),
            aux={name: tensor.to(*args, **kwargs) for name, tensor in self.aux.items()},
        )


# As for GaitOutput.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    torch.export.register_dataclass(AuxOutput, serialized_type_name="gaitzoo.AuxOutput")
