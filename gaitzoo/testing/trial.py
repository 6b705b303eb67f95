"""A model on trial: a copy of it, and made-up sequences that it reads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.batches import batch_of, by_name, count_frames, has_time
from gaitzoo.data.modalities import find_modality, time_axis
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.models.base import GaitModel
from gaitzoo.models.outputs import GaitOutput

__all__ = [
    "BrokenPromiseError",
    "Skipped",
    "Trial",
    "hold",
    "hold_equal",
    "largest_difference",
    "reset_statistics",
]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Largest difference that counts as equal, as a fraction of the largest number."""


class BrokenPromiseError(AssertionError):
    """A promise that does not hold."""


class Skipped(Exception):  # noqa: N818 - no error
    """A promise that this model does not give, or that cannot be tried here."""


def hold(condition: bool, message: str) -> None:
    """Raises :class:`BrokenPromiseError` unless a condition holds.

    Args:
        condition: What must be true.
        message: What was expected, what came, what to do.
    """
    if not condition:
        raise BrokenPromiseError(message)


@torch.no_grad()
def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, as a fraction of the largest wanted number.

    Args:
        found: Any tensor.
        wanted: Of the same shape.

    Example:
        >>> largest_difference(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0]))
        0.2
    """
    hold(
        found.shape == wanted.shape,
        f"expected shape {list(wanted.shape)}, got {list(found.shape)}",
    )
    if not wanted.numel():
        return 0.0
    found, wanted = found.double(), wanted.double()
    scale = wanted.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return ((found - wanted).abs().max() / scale).item()


def hold_equal(found: GaitOutput, wanted: GaitOutput, tolerance: float) -> None:
    """Raises :class:`BrokenPromiseError` unless two outputs are equal.

    Args:
        found: What came.
        wanted: What was expected.
        tolerance: Relative difference that they may have.
    """
    for name in ("embeddings", "logits"):
        one, other = getattr(found, name), getattr(wanted, name)
        hold((one is None) == (other is None), f"expected {name} in both outputs or in none")
        if other is not None:
            error = largest_difference(one, other)
            hold(error < tolerance, f"expected equal {name}, got a difference of {error:.1g}")


@dataclass(frozen=True)
class Trial:
    """What a promise is tried on.

    Args:
        model: The model; the promises may change it.
        frames: Lengths of sequences.
    """

    model: GaitModel
    frames: tuple[int, ...]

    @classmethod
    def of(cls, model: GaitModel, frames: Sequence[int]) -> Trial:
        """A trial of a copy in eval mode.

        Args:
            model: It is not changed.
            frames: Lengths of sequences.
        """
        return cls(copy.deepcopy(model).eval(), tuple(frames))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the model's numbers."""
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def tolerance(self) -> float:
        """Largest relative difference that counts as equal."""
        return TOLERANCE[self.dtype]

    @property
    def has_time(self) -> bool:
        """Whether sequences have frames, and batches lengths."""
        return has_time(self.model.modalities)

    def sequences(self, frames: Sequence[int] | None = None) -> list[Any]:
        """Made-up sequences, without the axis N.

        Args:
            frames: Their lengths; ``None`` = those of the trial.
        """

        def converted(x: Tensor) -> Tensor:
            return x.to(self.device, self.dtype)

        return [
            each_tensor(example_sequence(self.model, count, seed=seed), converted)
            for seed, count in enumerate(self.frames if frames is None else frames)
        ]

    def batch(
        self, frames: Sequence[int] | None = None, garbage: float = 0.0
    ) -> tuple[Any, Tensor | None]:
        """The same sequences as a batch, and their lengths.

        Args:
            frames: Their lengths; ``None`` = those of the trial.
            garbage: What stands past the end of a sequence.
        """
        sequences = self.sequences(frames)
        inputs, lengths = batch_of(self.model.modalities, sequences, self.dtype)
        if lengths is None:
            return inputs, None
        for name, tensor in by_name(self.model.modalities, inputs).items():
            axis = time_axis(find_modality(name), tensor.ndim - 1)
            assert axis is not None
            for row, count in zip(tensor, lengths.tolist(), strict=True):
                row.narrow(axis, count, row.shape[axis] - count).fill_(garbage)
        return inputs, lengths.to(self.device)

    def pair(self, garbage: float = 0.0) -> tuple[Any, Tensor | None]:
        """A batch of the first two lengths."""
        return self.batch(self.frames[:2], garbage)

    def equals(self) -> Any:
        """A batch of two sequences of the first length."""
        return self.batch([self.frames[0]] * 2)[0]

    def lengths_law(self, garbage: float) -> None:
        """Holds sequences in a padded batch against the same sequences alone.

        Args:
            garbage: What stands in the padding.
        """
        together = self.model(*self.batch(garbage=garbage))
        for i, sequence in enumerate(self.sequences()):
            alone = self.model(each_tensor(sequence, lambda x: x[None]))
            for name in ("embeddings", "logits"):
                found, wanted = getattr(together, name), getattr(alone, name)
                if wanted is None:
                    continue
                error = largest_difference(found[i], wanted[0])
                count = count_frames(self.model.modalities, sequence)
                hold(
                    error < self.tolerance,
                    f"expected {name} of {count} frames in a batch padded with {garbage:g} within "
                    f"{self.tolerance:g} of the same sequence alone, got {error:.1g}; mask frames "
                    "past the end before every layer over time (gaitzoo.layers.sequence)",
                )


def reset_statistics(model: nn.Module) -> None:
    """Gives batch norms statistics as after training: fresh ones hide a norm in a wrong place.

    Args:
        model: Changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
