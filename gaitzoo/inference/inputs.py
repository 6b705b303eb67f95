"""What goes into a model, by its modalities: aligned, cut, and made up for trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.batches import by_name
from gaitzoo.data.modalities import Modality, find_modality, time_axis
from gaitzoo.data.transforms import create_transform
from gaitzoo.models.base import GaitModel

__all__ = ["align_with", "cut", "each_tensor", "example_sequence"]

# Where the model does not say: joints of COCO, points that a body is sampled at.
_JOINTS = 17
_POINTS = 64


def align_with(model: GaitModel) -> Callable[[Any], Any]:
    """What brings one sequence to the size that a model reads.

    Args:
        model: Modalities, channels and frame size are its own.

    Returns:
        A function of one sequence, an array or tensor or for several modalities a mapping of
        them, that checks it and gives tensors.
    """
    return create_transform(model).align


def each_tensor(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Changes the tensor, or every tensor of a mapping.

    Args:
        inputs: A tensor or a mapping from names to tensors.
        change: Called with each tensor.

    Example:
        >>> each_tensor({"a": torch.ones(2)}, lambda x: x + 1)
        {'a': tensor([2., 2.])}
    """
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return change(inputs)


def cut(model: GaitModel, sequence: Any, begin: int, end: int) -> Any:
    """Some frames of a sequence as a batch of one, on the model's device.

    Args:
        model: Modalities are its own.
        sequence: A tensor, or a mapping from names to tensors, without the axis N.
        begin: First frame.
        end: The frame after the last.
    """
    device = next(model.parameters()).device

    def piece(name: str, tensor: Tensor) -> Tensor:
        axis = time_axis(find_modality(name), tensor.ndim)
        assert axis is not None
        return tensor.narrow(axis, begin, end - begin)[None].to(device)

    pieces = {n: piece(n, tensor) for n, tensor in by_name(model.modalities, sequence).items()}
    return pieces if isinstance(sequence, Mapping) else next(iter(pieces.values()))


def example_sequence(model: GaitModel, num_frames: int, seed: int | None = None) -> Any:
    """A made-up sequence of the shape that a model reads.

    Args:
        model: Modalities, channels and frame size are its own; also ``num_joints`` and
            ``num_points``, where they are not 17 and 64.
        num_frames: T.
        seed: Of random values within the model's range; ``None`` = all of the lowest value.

    Returns:
        A tensor, or for several modalities a mapping from names to tensors, float32 without the
        axis N.
    """
    source = None if seed is None else torch.Generator().manual_seed(seed)
    sequences = {}
    for name in model.modalities:
        modality = find_modality(name)
        shape = _example_shape(model, modality, num_frames)
        low, high = modality.value_range or (0.0, 1.0)
        if name == "silhouettes":
            low, high = model.pretrained_cfg.value_range
        values = torch.zeros(shape) if source is None else torch.rand(shape, generator=source)
        sequences[name] = values * (high - low) + low
        if name == "poses":
            # Beyond 1, where they could be shares of a frame.
            sequences[name] *= torch.tensor([2.0, 2.0, 1.0])
        if modality.bytes_mean == "labels":
            sequences[name] = sequences[name].round()
    return sequences if len(sequences) > 1 else sequences[model.modalities[0]]


def _example_shape(model: GaitModel, modality: Modality, num_frames: int) -> tuple[int, ...]:
    # Only models of one modality say its channels.
    channels = getattr(model, "in_channels", None) if len(model.modalities) == 1 else None
    channels = channels or modality.channels or 1
    height, width = model.pretrained_cfg.input_size
    sizes = {
        "C": channels,
        "T": num_frames,
        "H": height,
        "W": width,
        "J": getattr(model, "num_joints", _JOINTS),
        "P": getattr(model, "num_points", _POINTS),
        "D": channels,
    }
    letters = modality.axes.split()[1:]
    if modality.name == "silhouettes" and channels > 1:
        letters = ["C", *letters]
    return tuple(sizes[letter] for letter in letters)
