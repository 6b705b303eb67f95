"""What goes into a model, by its modalities: counted, cut, batched, and made up for trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.modalities import Modality, find_modality
from gaitzoo.data.silhouettes import create_transform
from gaitzoo.layers.checks import shape_of
from gaitzoo.models.base import GaitModel

__all__ = [
    "align_with",
    "batch_of",
    "by_name",
    "count_frames",
    "cut",
    "each_tensor",
    "example_sequence",
    "frame_shapes",
    "has_time",
    "time_axis",
]

# Where the model does not say: joints of COCO, points that a body is sampled at.
_JOINTS = 17
_POINTS = 64


def by_name(modalities: Sequence[str], sequence: Any) -> Mapping[str, Any]:
    """A sequence as a mapping from names to tensors, also of one modality.

    Args:
        modalities: Names, as in ``model.modalities``.
        sequence: A tensor or array, or a mapping from names to them.

    Example:
        >>> by_name(("poses",), 3)
        {'poses': 3}
    """
    return sequence if isinstance(sequence, Mapping) else {modalities[0]: sequence}


def align_with(model: GaitModel) -> Callable[[Any], Any]:
    """What brings one sequence to the size that a model reads.

    Args:
        model: Modalities, channels and frame size are its own.

    Returns:
        A function of one sequence, an array or tensor or for several modalities a mapping of
        them, that checks it and gives tensors.
    """
    transform = create_transform(model)
    axes = {name: _axes(model, name) for name in model.modalities}

    def align_one(name: str, x: Any) -> Tensor:
        if name == "silhouettes" and len(axes[name]) == 3:
            return transform.align(x)
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


def time_axis(modality: Modality, num_axes: int) -> int | None:
    """Index of T in one sequence (without the axis N); ``None`` = no time.

    Args:
        modality: What the sequence is.
        num_axes: Axes of the sequence; silhouettes may have channels in front.

    Example:
        >>> time_axis(find_modality("silhouettes"), 3), time_axis(find_modality("silhouettes"), 4)
        (0, 1)
    """
    if modality.time_axis is None:
        return None
    return modality.time_axis - 1 + max(0, num_axes + 1 - len(modality.axes.split()))


def has_time(modalities: Sequence[str]) -> bool:
    """Whether sequences have frames, and batches therefore lengths.

    Args:
        modalities: Names, as in ``model.modalities``.

    Example:
        >>> has_time(("silhouettes", "skeleton_maps")), has_time(("images",))
        (True, False)
    """
    return all(find_modality(name).time_axis is not None for name in modalities)


def count_frames(modalities: Sequence[str], sequence: Any) -> int:
    """Frames of one sequence; one for what has no time.

    Args:
        modalities: Names, as in ``model.modalities``.
        sequence: A tensor, or a mapping from names to tensors, without the axis N.

    Example:
        >>> count_frames(("skeleton_maps",), torch.zeros(2, 9, 64, 44))
        9
    """
    name, tensor = next(iter(by_name(modalities, sequence).items()))
    axis = time_axis(find_modality(name), tensor.ndim)
    return 1 if axis is None else tensor.shape[axis]


def frame_shapes(modalities: Sequence[str], sequence: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of one frame: those of the tensors without their axis T.

    Args:
        modalities: Names, as in ``model.modalities``.
        sequence: A tensor, or a mapping from names to tensors, without the axis N.

    Example:
        >>> frame_shapes(("poses",), torch.zeros(9, 17, 3))
        {'poses': (17, 3)}
    """
    shapes = {}
    for name, tensor in by_name(modalities, sequence).items():
        axis = time_axis(find_modality(name), tensor.ndim)
        shapes[name] = tuple(size for i, size in enumerate(tensor.shape) if i != axis)
    return shapes


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


def batch_of(
    modalities: Sequence[str], sequences: Sequence[Any], dtype: torch.dtype
) -> tuple[Any, Tensor | None]:
    """Pads sequences into one batch.

    Args:
        modalities: Names, as in ``model.modalities``.
        sequences: Tensors, or mappings from names to tensors, without the axis N.
        dtype: Type of the batch where the sequences are of several types.

    Returns:
        The batch, and the valid frames ``[N]`` of each sequence; ``None`` for what has no time.

    Raises:
        ValueError: If frames have several shapes.
    """
    rows = [by_name(modalities, sequence) for sequence in sequences]
    lengths = torch.tensor([count_frames(modalities, sequence) for sequence in sequences])
    batches = {
        name: _padded(find_modality(name), [row[name] for row in rows], dtype) for name in rows[0]
    }
    batch = batches if isinstance(sequences[0], Mapping) else next(iter(batches.values()))
    return batch, lengths if has_time(modalities) else None


def _padded(modality: Modality, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    if len({tensor.dtype for tensor in tensors}) > 1:
        # As the model itself would do with each of them alone.
        tensors = [
            x.to(dtype) / 255
            if x.dtype == torch.uint8 and modality.bytes_mean == "grey levels"
            else x.to(dtype)
            for x in tensors
        ]
    if len({tensor.device for tensor in tensors}) > 1:
        tensors = [tensor.cpu() for tensor in tensors]
    (frame_shape, *others) = {shape for x in tensors for shape in _shapes(modality, x)}
    if others:
        raise ValueError(
            f"expected {modality.name} with frames of one shape, got {list(frame_shape)} and "
            f"{list(others[0])}; bring them to one size first"
        )
    axis = time_axis(modality, tensors[0].ndim)
    if axis is None or len({x.shape[axis] for x in tensors}) == 1:
        return torch.stack(tensors)
    batch = torch.nn.utils.rnn.pad_sequence(
        [x.movedim(axis, 0) for x in tensors], batch_first=True, padding_value=modality.padding
    )
    return batch.movedim(1, axis + 1)


def _shapes(modality: Modality, tensor: Tensor) -> list[tuple[int, ...]]:
    return list(frame_shapes((modality.name,), tensor).values())


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
