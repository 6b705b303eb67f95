"""Sequences of any modality: counted, and padded into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from gaitzoo.data.modalities import Modality, check_same_frames, find_modality, time_axis
from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.sequence import pad_sequences as pad_tensors

__all__ = [
    "batch_of",
    "by_name",
    "count_frames",
    "frame_shapes",
    "has_time",
    "pad_sequences",
]


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


@overload
def pad_sequences(
    sequences: Sequence[Tensor], modality: str | None = None
) -> tuple[Tensor, Tensor]: ...
@overload
def pad_sequences(
    sequences: Sequence[Mapping[str, Tensor]], modality: None = None
) -> tuple[dict[str, Tensor], Tensor]: ...
def pad_sequences(sequences: Sequence[Any], modality: str | None = None) -> tuple[Any, Tensor]:
    """Stacks sequences of different lengths into one padded batch (a ``collate_fn``).

    Args:
        sequences: Tensors without the axis N, of one dtype on one device and with frames of one
            shape; or mappings from names of modalities to them.
        modality: What the tensors are, so that their frames are found (skeleton maps have
            channels in front); ``None`` = frames stand on the first axis. Mappings say it.

    Returns:
        The batch (a dictionary for mappings) with the modality's padding past the end, and
        ``lengths`` ``[N]`` int64.

    Raises:
        TypeError: If some sequences are mappings and others are not.
        ValueError: If there is no sequence, one has no frame, frame shapes, names or numbers of
            frames differ, or the modality is unknown or has no frames.

    Example:
        >>> batch, lengths = pad_sequences([torch.ones(2, 64, 44), torch.ones(5, 64, 44)])
        >>> batch.shape, lengths.tolist()
        (torch.Size([2, 5, 64, 44]), [2, 5])
        >>> walks = [{"poses": torch.ones(t, 17, 3)} for t in (2, 5)]
        >>> pad_sequences(walks)[0]["poses"].shape
        torch.Size([2, 5, 17, 3])
    """
    if len(sequences) == 0:
        raise ValueError("expected at least one sequence to pad, got none")
    named = [isinstance(sequence, Mapping) for sequence in sequences]
    if any(named) and not all(named):
        kinds = sorted({type(sequence).__name__ for sequence in sequences})
        raise TypeError(
            f"expected tensors, or mappings from modalities to them, got {' and '.join(kinds)}"
        )
    if not any(named):
        return pad_tensors(sequences) if modality is None else _pad(modality, sequences)
    if modality is not None:
        raise ValueError(f"expected no modality for mappings, which name theirs, got {modality!r}")
    names = tuple(sequences[0])
    for i, sequence in enumerate(sequences):
        if not names or set(sequence) != set(names):
            raise ValueError(
                f"expected the same modalities in every sequence, got {', '.join(names) or 'none'} "
                f"in sequence 0 and {', '.join(sequence) or 'none'} in sequence {i}"
            )
        counts = {name: count_frames((name,), x) for name, x in sequence.items()}
        check_same_frames(counts, f" in sequence {i}")
    padded = {name: _pad(name, [sequence[name] for sequence in sequences]) for name in names}
    return {name: batch for name, (batch, _) in padded.items()}, padded[names[0]][1]


def _pad(name: str, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    modality = find_modality(name)
    first = None
    for i, x in enumerate(tensors):
        axis = modality.time_axis_of(x)
        if not 0 <= axis < x.ndim or x.shape[axis] == 0:
            raise ValueError(
                f"expected {name} with at least one frame, got {shape_of(x)} as sequence {i}; "
                "leave empty sequences out"
            )
        frame = (*x.shape[:axis], *x.shape[axis + 1 :])
        first = first or frame
        if frame != first or x.ndim != tensors[0].ndim:
            raise ValueError(
                f"expected {name} with frames of one shape, got {shape_of(tensors[0])} as "
                f"sequence 0 and {shape_of(x)} as sequence {i}; bring them to one size first, for "
                "example with gaitzoo.create_transform(model)"
            )
    batch, lengths = batch_of((name,), tensors, torch.float32)
    assert lengths is not None
    return batch, lengths
