"""Heads for tasks beside identity, on top of any model: diagnosis, attributes, numbers.

Source: the probes of FoundationGait, https://arxiv.org/abs/2512.00691, by the authors'
configurations (scoliosis, depression, attributes).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.heads import PartBNNeck
from gaitzoo.losses import PartCrossEntropyLoss
from gaitzoo.models.base import GaitModel

__all__ = ["LinearProbe", "TaskHead"]


class TaskHead(nn.Module):
    """One linear head per task on the embeddings of any model: classes, or a number.

    Every part is brought to length one and all are joined to a vector. A head for classes is a
    batch norm and the cosines with class vectors; one for a number (age, a score) is a batch norm
    and a linear layer.

    Source: linear probes of FoundationGait (https://arxiv.org/abs/2512.00691), by the authors'
    configurations: one head of two classes per attribute. They have no heads for numbers.

    Args:
        num_parts: P of the embeddings.
        channels: C of the embeddings.
        tasks: Name of each task to its number of classes; 1 = a number. Names have no dots.

    Shapes:
        embeddings: ``[N, P, C]``, any values; in training N > 1.
        returns: Name of each task to cosines ``[N, K]``, or to numbers ``[N]``.

    Raises:
        TypeError: If ``tasks`` is no mapping.
        ValueError: If there is no task, a name or a number of classes is none, or embeddings have
            another shape.

    Example:
        >>> head = TaskHead(31, 8, {"scoliosis": 3, "age": 1})
        >>> outputs = head(torch.rand(4, 31, 8))
        >>> outputs["scoliosis"].shape, outputs["age"].shape
        (torch.Size([4, 3]), torch.Size([4]))
        >>> targets = {"scoliosis": torch.tensor([0, 2, 1, 0]), "age": torch.rand(4)}
        >>> head.loss(outputs, targets).shape
        torch.Size([])
    """

    def __init__(self, num_parts: int, channels: int, tasks: Mapping[str, int]) -> None:
        super().__init__()
        check_size(num_parts=num_parts, channels=channels)
        if not isinstance(tasks, Mapping):
            raise TypeError(
                "expected tasks as a mapping from names to numbers of classes, got "
                f"{type(tasks).__name__}; for example {{'scoliosis': 3}}"
            )
        if not tasks:
            raise ValueError("expected one task or more, got none")
        for name, classes in tasks.items():
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"expected names of tasks as texts without dots, got {name!r}")
            check_size(**{name: classes})
        self.num_parts, self.channels, self.tasks = num_parts, channels, dict(tasks)
        width = num_parts * channels
        self.heads = nn.ModuleDict(
            {
                # A module's own attributes are no names for modules in it.
                f"task_{name}": PartBNNeck(1, width, classes) if classes > 1 else _Number(width)
                for name, classes in tasks.items()
            }
        )
        self.cross_entropy = PartCrossEntropyLoss()

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Returns what the heads say."""
        if embeddings.ndim != 3 or embeddings.shape[1:] != (self.num_parts, self.channels):
            raise ValueError(
                f"expected embeddings [N, {self.num_parts}, {self.channels}], got "
                f"{shape_of(embeddings)}"
            )
        if self.training and len(embeddings) == 1:
            raise ValueError(
                "expected two sequences or more in train mode, got one, of which batch norm has no "
                "statistics; call eval() to predict, or train on larger batches"
            )
        vectors = F.normalize(embeddings, dim=2).flatten(1)[:, None]
        outputs = {}
        for name, classes in self.tasks.items():
            found = self.heads[f"task_{name}"](vectors)
            outputs[name] = found[1][:, 0] if classes > 1 else found
        return outputs

    def loss(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Sum over tasks: cross-entropy (scale 16, smoothing 0.1) of classes, or squared error.

        Args:
            outputs: As from the call.
            targets: Name of each task to classes ``[N]`` int64, or to numbers ``[N]``.

        Raises:
            TypeError: If classes are no integers, or numbers no tensor.
            ValueError: If a task has no targets, or they do not fit.
        """
        if set(targets) != set(self.tasks):
            raise ValueError(
                f"expected targets of {', '.join(self.tasks)}, got {', '.join(targets) or 'none'}"
            )
        losses = []
        for name, classes in self.tasks.items():
            found, wanted = outputs[name], targets[name]
            if classes > 1:
                losses.append(self.cross_entropy(found[:, None], wanted))
                continue
            if not isinstance(wanted, Tensor):
                raise TypeError(
                    f"expected numbers for {name} as a tensor [N], got {type(wanted).__name__}; "
                    "use torch.tensor(...)"
                )
            if wanted.shape != found.shape or not bool(wanted.isfinite().all()):
                raise ValueError(
                    f"expected finite numbers [{len(found)}] for {name}, got {shape_of(wanted)}"
                )
            losses.append(F.mse_loss(found, wanted.to(found)))
        return torch.stack(losses).sum()

    @staticmethod
    def predict(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The class ``[N]`` int64 or the number ``[N]`` of every sequence, for each task.

        Args:
            outputs: As from the call.
        """
        return {name: x.argmax(1) if x.ndim == 2 else x for name, x in outputs.items()}


class LinearProbe(nn.Module):
    """A frozen model with trained heads: what its embeddings know of a task.

    Source: FoundationGait (https://arxiv.org/abs/2512.00691), linear probing. To fine-tune the
    model as well, call a :class:`TaskHead` on its embeddings instead.

    Args:
        model: Frozen in place, for good; stays in eval mode.
        tasks: As for :class:`TaskHead`.

    Shapes:
        silhouettes: As for the model; several modalities as it takes them.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: As :class:`TaskHead`.

    Raises:
        TypeError: If ``model`` is no model of this library.
        ValueError: As for :class:`TaskHead`.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("foundationgait_tiny", embedding="projector")
        >>> probe = LinearProbe(model, {"scoliosis": 3}).eval()
        >>> probe(torch.rand(2, 4, 16, 12))["scoliosis"].shape
        torch.Size([2, 3])
    """

    def __init__(self, model: GaitModel, tasks: Mapping[str, int]) -> None:
        super().__init__()
        if not isinstance(model, GaitModel):
            raise TypeError(f"expected a gaitzoo model, got {type(model).__name__}")
        self.head = TaskHead(model.num_parts, model.num_features, tasks)
        self.model = model.eval().freeze()

    def train(self, mode: bool = True) -> LinearProbe:
        """Puts the heads into training mode; the model stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, silhouettes: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Returns what the heads say of the embeddings."""
        with torch.no_grad():
            embeddings = self.model(silhouettes, lengths).embeddings
        return self.head(embeddings)


class _Number(nn.Module):
    """Batch norm and a linear layer that gives one number per vector of ``[N, 1, C]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn, self.linear = nn.BatchNorm1d(width), nn.Linear(width, 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns the numbers, ``[N]``."""
        return self.linear(self.bn(vectors[:, 0]))[:, 0]
