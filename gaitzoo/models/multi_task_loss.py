"""Losses of models that say more than who walks: identity, and attributes that may be unknown."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.outputs import GaitOutput

__all__ = ["IdentityLoss", "MultiTaskGaitLoss", "check_weights"]


class IdentityLoss(nn.Module):
    """The recipe of the field: triplet loss on embeddings, cross-entropy on logits.

    Source: GaitBase (https://arxiv.org/abs/2211.06597), Sec. 4, losses.

    Args:
        margin: Of the triplet loss.
        scale: Factor on the logits.

    Shapes:
        output: As a model returns it; without logits, the triplet loss is all.
        labels: ``[N]`` integer identities.
        returns: ``[]``.

    Raises:
        TypeError: As the two losses.
        ValueError: As the two losses.

    Example:
        >>> output = GaitOutput(torch.zeros(2, 4, 8), logits=torch.zeros(2, 4, 3))
        >>> IdentityLoss()(output, torch.tensor([0, 1]))  # margin + log 3
        tensor(1.2986)
    """

    def __init__(self, margin: float = 0.2, scale: float = 16.0) -> None:
        super().__init__()
        self.triplet = PartTripletLoss(margin)
        self.cross_entropy = PartCrossEntropyLoss(scale)

    def forward(self, output: GaitOutput, labels: Tensor) -> Tensor:
        """Returns the loss."""
        loss = self.triplet(output.embeddings, labels)
        if output.logits is None:
            return loss
        return loss + self.cross_entropy(output.logits, labels)


class MultiTaskGaitLoss(nn.Module):
    """Identity and attributes together, where some attributes of some people are unknown.

    ``identity + sum of weight * loss(attribute)``: smooth L1 of numbers in standard deviations,
    binary cross-entropy of logits, each the mean over the known ones; an attribute that nobody in
    the batch has costs nothing. With ``learned``, every task has a learned log-variance ``s``, and
    its loss becomes ``exp(-s) * loss + s / 2``.

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), weighted multi-task loss. A
    reconstruction: norms and weights are inferred. Learned weights: Kendall et al.
    (https://arxiv.org/abs/1705.07115), Eq. 7, with one factor for all kinds of tasks.

    Args:
        weights: Name of each attribute to its weight, 0 or more.
        stds: Name of each attribute that is a number to its standard deviation, as the model's
            :attr:`ComboGait.attribute_stds`; attributes that it lacks are logits.
        learned: Learn how much each task counts; give the loss's parameters to the optimizer.
        margin: Of the triplet loss.
        scale: Factor on the logits of identities.

    Shapes:
        output: As :class:`ComboGait` returns it.
        labels: ``[N]`` integer identities.
        targets: Name of each attribute to ``[N]``: numbers in real units, NaN = unknown; 0 or 1 of
            logits, -1 (or NaN) = unknown. An attribute that is left out is unknown of all.
        returns: ``[]``.

    Raises:
        TypeError: If weights are no mapping.
        ValueError: If a weight or deviation is out of range, names do not fit, the model has no
            such attribute, or a target is another value.

    Example:
        >>> loss = MultiTaskGaitLoss({"age": 0.1}, {"age": 10.0})
        >>> output = AuxOutput(torch.zeros(2, 4, 8), aux={"age": torch.tensor([40.0, 50.0])})
        >>> unknown, ten_years = torch.tensor([[torch.nan, torch.nan], [30.0, torch.nan]])
        >>> loss(output, torch.tensor([0, 1]), {"age": unknown})
        tensor(0.2000)
        >>> loss(output, torch.tensor([0, 1]), {"age": ten_years})
        tensor(0.2500)
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        stds: Mapping[str, float],
        learned: bool = False,
        *,
        margin: float = 0.2,
        scale: float = 16.0,
    ) -> None:
        super().__init__()
        check_weights(weights)
        if set(stds) - set(weights) or any(not 0 < std < float("inf") for std in stds.values()):
            raise ValueError(
                f"expected stds above 0 of attributes among {', '.join(weights) or 'none'}, got "
                f"{dict(stds)!r}"
            )
        self.weights, self.stds = dict(weights), dict(stds)
        self.identity = IdentityLoss(margin, scale)
        self.log_variances = (
            nn.ParameterDict({f"task_{n}": nn.Parameter(torch.zeros(())) for n in ("id", *weights)})
            if learned
            else None
        )

    def forward(self, output: AuxOutput, labels: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the loss."""
        if set(targets) - set(self.weights):
            raise ValueError(
                f"expected targets of {', '.join(self.weights)}, got {', '.join(targets)}"
            )
        total = self._weighed("id", self.identity(output, labels), 1)
        for name, weight in self.weights.items():
            if name not in output.aux:
                raise ValueError(
                    f"expected an output with {name}, got {', '.join(output.aux) or 'none'}; build "
                    f"the model with the attribute {name}"
                )
            found = output.aux[name]
            found = found if found.dtype == torch.float64 else found.float()
            wanted = targets.get(name, torch.full_like(found, torch.nan))
            loss, known = self._attribute(name, found, wanted)
            total = total + weight * self._weighed(name, loss, known.any())
        return total

    def _attribute(self, name: str, found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of the known ones (0 of none), and which are known."""
        if wanted.shape != found.shape:
            raise ValueError(
                f"expected targets {shape_of(found)} of {name}, got {shape_of(wanted)}"
            )
        wanted = wanted.to(found)
        known = ~wanted.isnan()
        if name in self.stds:
            wanted = torch.where(known, wanted, 0)
            self._check(name, wanted.isfinite(), wanted, "finite numbers, NaN = unknown")
            losses = F.smooth_l1_loss(
                found / self.stds[name], wanted / self.stds[name], reduction="none"
            )
        else:
            known = known & (wanted != -1)
            wanted = torch.where(known, wanted, 0)
            self._check(name, (wanted == 0) | (wanted == 1), wanted, "0 or 1, -1 = unknown")
            losses = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1), known

    @staticmethod
    def _check(name: str, right: Tensor, wanted: Tensor, words: str) -> None:
        if torch.compiler.is_compiling() or wanted.device.type != "cpu" or bool(right.all()):
            return
        raise ValueError(f"expected targets of {name} as {words}, got {wanted[~right][0].item():g}")

    def _weighed(self, name: str, loss: Tensor, counts: Tensor | int) -> Tensor:
        if self.log_variances is None:
            return loss
        variance = self.log_variances[f"task_{name}"]
        return (-variance).exp() * loss + counts * variance / 2


def check_weights(weights: Mapping[str, float]) -> None:
    """Raises unless every weight of a loss is a finite number of 0 or more.

    Args:
        weights: By their names.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If a weight is another value.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f"expected weights as a mapping, got {type(weights).__name__}")
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"expected a weight of 0 or more for {name}, got {weight!r}")
