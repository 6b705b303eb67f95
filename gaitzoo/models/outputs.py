"""What every model returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

__all__ = ["GaitOutput"]


@dataclass(frozen=True, slots=True)
class GaitOutput:
    """Embeddings of walking people, one row of parts per sequence.

    Goes where tensors go: ``output.to(device)`` (Lightning's ``predict`` moves it so),
    ``torch.utils.data.default_collate``, which joins outputs along N, and ``nn.DataParallel``.
    Iterating gives the fields: ``embeddings, logits = model(silhouettes)``. Losses that take one
    vector per sequence, such as those of pytorch-metric-learning, take
    ``output.embeddings.flatten(1)``.

    Args:
        embeddings: ``[N, P, C]``, one vector per body part; compare them with
            :func:`gaitzoo.metrics.part_distances`. Whether it is taken before or after the
            batch-norm neck is the model's choice, written in ``model.pretrained_cfg.embedding``.
        logits: ``[N, P, K]`` class scores of every part, ``None`` for a model without a
            classifier (``num_classes=0``). By keyword only.

    Example:
        >>> output = GaitOutput(embeddings=torch.zeros(2, 16, 256))
        >>> output.embeddings.shape, output.logits
        (torch.Size([2, 16, 256]), None)
        >>> output.to(torch.float16).embeddings.flatten(1).shape
        torch.Size([2, 4096])
    """

    embeddings: Tensor
    logits: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # DataParallel joins the outputs of its devices as type(output)(iterator of the fields).
        fields: Any = self.embeddings
        # Tensors are asked for first, because compilers trace this.
        if not isinstance(fields, Tensor) and isinstance(fields, Iterator):
            embeddings, logits = fields
            object.__setattr__(self, "embeddings", embeddings)
            object.__setattr__(self, "logits", logits)

    def __iter__(self) -> Iterator[Tensor | None]:
        yield self.embeddings
        yield self.logits

    def to(self, *args: Any, **kwargs: Any) -> GaitOutput:
        """The same on another device or in another type of numbers, as ``Tensor.to``.

        Args:
            *args: As for ``Tensor.to``.
            **kwargs: As for ``Tensor.to``.
        """
        logits = None if self.logits is None else self.logits.to(*args, **kwargs)
        return GaitOutput(embeddings=self.embeddings.to(*args, **kwargs), logits=logits)


def _collate(batch: Sequence[GaitOutput], **_: Any) -> GaitOutput:
    """Joins outputs along N."""
    logits = [output.logits for output in batch if output.logits is not None]
    if logits and len(logits) < len(batch):
        raise ValueError(
            f"expected outputs that all have logits, or none, got {len(logits)} of {len(batch)}; "
            "collate their embeddings alone"
        )
    return GaitOutput(
        embeddings=torch.cat([output.embeddings for output in batch]),
        logits=torch.cat(logits) if logits else None,
    )


# torch's type names no classes of others, which its documentation invites to be added.
_collate_functions: dict[Any, Callable[..., Any]] = default_collate_fn_map  # pyright: ignore
_collate_functions[GaitOutput] = _collate

# An unregistered dataclass cannot be the output of an exported program.
with warnings.catch_warnings():
    # torch 2.6 warns of the name of one of its own functions.
    warnings.simplefilter("ignore", FutureWarning)
    torch.export.register_dataclass(GaitOutput, serialized_type_name="gaitzoo.GaitOutput")
