"""What goes into a model, by its modalities: counted, cut, batched, and made up for trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.batches import by_name, count_frames, time_axis
from gaitzoo.data.modalities import Modality, find_modality
from gaitzoo.data.transforms import ModalityTransform
from gaitzoo.layers.checks import shape_of
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
    size = model.pretrained_cfg.input_size
    axes = {name: _axes(model, name) for name in model.modalities}

    def align_one(name: str, x: Any) -> Tensor:
        modality = find_modality(name)
        is_video = modality.time_axis is not None and modality.is_map
        if is_video and (name != "silhouettes" or len(axes[name]) == 3):
            return ModalityTransform((name,), size).align(x)
        x = torch.as_tensor(x)
        if x.ndim != len(axes[name]) or 0 in x.shape:
            raise ValueError(f"expected {_wanted({name: axes[name]})}, got {shape_of(x)}")
        return x

    def align(sequence: Any) -> Any:
        given = isinstance(sequence, Mapping)
        if given != (len(axes) > 1) or (given and set(sequence) != set(axes)):
            got = f"a mapping with {', '.join(map(str, sequence))}" if given else "no mapping"
            raise ValueError(f"expected {_wanted(axes)}, got {got}")
        aligned = {
            name: align_one(name, x) for name, x in by_name(model.modalities, sequence).items()
        }
        counts = {name: count_frames((name,), x) for name, x in aligned.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                "expected modalities with as many frames as each other, got "
                f"{', '.join(f'{count} of {name}' for name, count in counts.items())}"
            )
        return aligned if given else aligned[model.modalities[0]]

    return align


def _axes(model: GaitModel, name: str) -> list[str]:
    """Letters of one sequence's axes."""
    letters = find_modality(name).axes.split()[1:]
    # A model of one channel need not say so.
    channels = getattr(model, "in_channels", 1)
    several = name == "silhouettes" and len(model.modalities) == 1 and channels > 1
    return [str(channels), *letters] if several else letters


def _wanted(axes: Mapping[str, list[str]]) -> str:
    words = [f"{name} [{', '.join(letters)}]" for name, letters in axes.items()]
    return words[0] if len(words) == 1 else f"a mapping with {', '.join(words)}"


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
