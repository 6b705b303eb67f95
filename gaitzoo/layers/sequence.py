"""Sequences of different lengths in one batch.

One rule holds everywhere: zero before a convolution, the smallest number before a maximum, the
masked sum over the length for a mean. Values past the end are replaced, never multiplied, so that
infinities and NaN in the padding do no harm. The time axis is axis 2 (``[N, C, T, ...]``), except
where a function is told of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gaitzoo.layers.checks import check_lengths, shape_of

__all__ = [
    "lengths_for",
    "lengths_to_mask",
    "mask_fill",
    "mask_fill_",
    "masked_max",
    "masked_mean",
    "over_time",
    "pad_sequences",
    "repeat_short",
    "to_frames",
    "to_sequences",
]


def lengths_to_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """Marks the real frames of padded sequences.

    Args:
        lengths: ``[N]`` int64, valid frames of each sequence.
        num_frames: T, the padded length.

    Returns:
        ``[N, T]`` bool, True = real frame.

    Example:
        >>> lengths_to_mask(torch.tensor([1, 3]), 3).tolist()
        [[True, False, False], [True, True, True]]
    """
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def lengths_for(lengths: Tensor | None, x: Tensor, axis: int = 2) -> Tensor | None:
    """Checked lengths as int64 on the device of ``x``; ``None`` stays ``None``.

    Args:
        lengths: ``[N]``, any integers; ``None`` means all T.
        x: What they are lengths of.
        axis: The one of T.

    Raises:
        TypeError: If they are no integers.
        ValueError: If they are not N numbers from 1 to T.

    Example:
        >>> lengths_for(torch.tensor([2], dtype=torch.uint8), torch.ones(1, 3), axis=1)
        tensor([2])
    """
    if lengths is None:
        return None
    # What is counted with them would not fit into small integers.
    return check_lengths(lengths, x.shape[0], x.shape[axis]).to(x.device, torch.int64)


def to_frames(x: Tensor) -> Tensor:
    """Sequences as one batch of frames; no copy where channels stand last in memory.

    Args:
        x: ``[N, C, T, H, W]``.

    Returns:
        ``[N * T, C, H, W]``.

    Example:
        >>> to_frames(torch.ones(2, 3, 5, 8, 6)).shape
        torch.Size([10, 3, 8, 6])
    """
    return x.transpose(1, 2).flatten(0, 1)


def to_sequences(frames: Tensor, num_sequences: int) -> Tensor:
    """What :func:`to_frames` took apart.

    Args:
        frames: ``[N * T, C, H, W]``.
        num_sequences: N.

    Returns:
        ``[N, C, T, H, W]``.

    Example:
        >>> to_sequences(torch.ones(10, 3, 8, 6), 2).shape
        torch.Size([2, 3, 5, 8, 6])
    """
    return frames.unflatten(0, (num_sequences, -1)).transpose(1, 2)


def mask_fill(x: Tensor, lengths: Tensor | None, value: float = 0.0, axis: int = 2) -> Tensor:
    """Replaces everything past the end of each sequence.

    Args:
        x: ``[N, C, T, ...]``, any values; what stands past the end may even be NaN.
        lengths: ``[N]`` int64; ``None`` means all T.
        value: What to write past the end.
        axis: The one of T; 1 for ``[N, T, ...]``.

    Returns:
        ``[N, C, T, ...]`` with ``value`` past the end; ``x`` itself where nothing is past it.

    Example:
        >>> mask_fill(torch.ones(1, 1, 3), torch.tensor([2])).tolist()
        [[[1.0, 1.0, 0.0]]]
    """
    start = _first_padded_frame(x, lengths, axis)
    if start is None:
        return x
    assert lengths is not None
    if start == 0:
        return x.masked_fill(_padding(x, lengths, 0, axis), value)
    return mask_fill_(x.clone(), lengths, value, axis)


def mask_fill_(x: Tensor, lengths: Tensor | None, value: float = 0.0, axis: int = 2) -> Tensor:
    """As :func:`mask_fill`, in place: for tensors that nobody else holds.

    Only frames past the end of the shortest sequence are touched where ``lengths`` can be read
    without waiting for a device. Use what is returned: graphs are traced without overwriting.

    Args:
        x: ``[N, C, T, ...]``, any values.
        lengths: ``[N]`` int64; ``None`` means all T.
        value: What to write past the end.
        axis: The one of T.

    Returns:
        ``x`` with ``value`` past the end.

    Example:
        >>> mask_fill_(torch.ones(1, 1, 3), torch.tensor([2])).tolist()
        [[[1.0, 1.0, 0.0]]]
    """
    if torch.compiler.is_compiling():
        return mask_fill(x, lengths, value, axis)
    start = _first_padded_frame(x, lengths, axis)
    if start is not None:
        assert lengths is not None
        tail = x.narrow(axis, start, x.shape[axis] - start)
        tail.masked_fill_(_padding(x, lengths, start, axis), value)
    return x


def _padding(x: Tensor, lengths: Tensor, start: int, axis: int) -> Tensor:
    """True past the end, for frames from ``start`` on; broadcasts against ``x``."""
    mask = ~lengths_to_mask(lengths - start, x.shape[axis] - start)
    # Not a view to the shape wanted: torch 2.6 does not export that for any number of frames.
    return mask[(slice(None), *[None] * (axis - 1), ..., *[None] * (x.ndim - axis - 1))]


def _first_padded_frame(x: Tensor, lengths: Tensor | None, axis: int = 2) -> int | None:
    """The first frame that is padding in any sequence, or an earlier one; ``None`` if no frame is.

    Reading lengths from an accelerator would stop it, and a graph has to hold for all lengths:
    there any frame may be padding. In training, one operation on the whole map has the simpler
    gradient.
    """
    if lengths is None:
        return None
    if lengths.device.type != "cpu" or torch.compiler.is_compiling():
        return 0
    shortest = int(lengths.min())
    if shortest >= x.shape[axis]:
        return None
    return 0 if x.requires_grad else shortest


def masked_mean(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over time of the valid frames.

    Args:
        x: ``[N, C, T, ...]``; every sequence has at least one valid frame.
        lengths: ``[N]`` int64; ``None`` means all T.

    Returns:
        ``[N, C, 1, ...]``: the time axis is kept, so that the mean can be subtracted from ``x``.

    Example:
        >>> masked_mean(torch.tensor([[[1.0, 3.0, 99.0]]]), torch.tensor([2])).item()
        2.0
    """
    start = _first_padded_frame(x, lengths)
    if start is None:
        return over_time(x, torch.mean).unsqueeze(2)
    assert lengths is not None
    # Sums of half-precision numbers overflow long before their means do.
    add_up = partial(torch.sum, dtype=torch.promote_types(x.dtype, torch.float32))
    total = over_time(mask_fill(x[:, :, start:], lengths - start), add_up).unsqueeze(2)
    if start:
        total = total + over_time(x[:, :, :start], add_up).unsqueeze(2)
    return (total / lengths.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)


def masked_max(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Maximum over time of the valid frames.

    Args:
        x: ``[N, C, T, ...]``; every sequence has at least one valid frame.
        lengths: ``[N]`` int64; ``None`` means all T.

    Returns:
        ``[N, C, ...]`` without the time axis.

    Example:
        >>> masked_max(torch.tensor([[[-2.0, -1.0, 99.0]]]), torch.tensor([2])).item()
        -1.0
    """
    start = _first_padded_frame(x, lengths)
    if start is None:
        return over_time(x, torch.amax)
    assert lengths is not None
    tail = mask_fill(x[:, :, start:], lengths - start, torch.finfo(x.dtype).min)
    tail_max = over_time(tail, torch.amax)
    return torch.maximum(tail_max, over_time(x[:, :, :start], torch.amax)) if start else tail_max


def over_time(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduces the time axis, in the order in which the values lie in memory.

    Where the channels of a pixel lie side by side, this is twenty times faster on CPUs than
    ``reduce(x, dim=2)``.

    Args:
        x: ``[N, C, T, ...]``.
        reduce: ``torch.amax``, ``torch.mean`` or ``torch.sum``.

    Returns:
        ``[N, C, ...]``.

    Example:
        >>> over_time(torch.tensor([[[1.0, 3.0]]]), torch.mean).item()
        2.0
    """
    if x.stride(1) != 1:
        return reduce(x, dim=2)
    return reduce(x.movedim(1, -1), dim=1).movedim(-1, 1)


def repeat_short(
    x: Tensor, lengths: Tensor | None, min_frames: int
) -> tuple[Tensor, Tensor | None]:
    """Repeats each sequence that is too short, whole, until it has ``min_frames`` frames.

    With ``min_frames=3`` one frame becomes three and two frames become four (whole repetitions,
    never cut). Longer sequences are left alone.

    Args:
        x: ``[N, C, T, ...]``.
        lengths: ``[N]`` int64 with values 1 to T; ``None`` means all T.
        min_frames: Frames that the model needs.

    Returns:
        The sequences, ``[N, C, T', ...]`` with zeros past the end, and their lengths (``None``
        if ``lengths`` is).

    Example:
        >>> x, lengths = repeat_short(torch.tensor([[[5.0, 7.0]]]), torch.tensor([2]), 3)
        >>> x.tolist(), lengths.tolist()
        ([[[5.0, 7.0, 5.0, 7.0]]], [4])
    """
    if lengths is None:
        repeats = -(-min_frames // x.shape[2])
        return (x.repeat(1, 1, repeats, *[1] * (x.ndim - 3)) if repeats > 1 else x), None
    can_be_read = lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    if can_be_read and int(lengths.min()) >= min_frames:
        return mask_fill(x, lengths), lengths
    # The longest that a short sequence can become: min_frames - 1 frames, twice.
    padded_frames = 2 * (min_frames - 1)
    if x.shape[2] > padded_frames:
        padded_frames = x.shape[2]
    short = lengths < min_frames
    repeated = (lengths + min_frames - 1) // lengths.clamp(min=1) * lengths
    new_lengths = torch.where(short, repeated, lengths)
    frame = torch.arange(padded_frames, device=x.device)
    source = torch.where(
        short[:, None], frame % lengths.clamp(min=1)[:, None], frame.clamp(max=x.shape[2] - 1)
    )
    index = source.view(x.shape[0], 1, padded_frames, *[1] * (x.ndim - 3))
    x = x.gather(2, index.expand(-1, x.shape[1], -1, *x.shape[3:]))
    return mask_fill(x, new_lengths), new_lengths


def pad_sequences(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks sequences of different lengths into one padded batch (a ``collate_fn``).

    Args:
        sequences: Tensors ``[T_i, H, W]`` (or any shape after ``T_i``, the same for all), of one
            dtype on one device.

    Returns:
        The batch ``[N, T, H, W]`` with zeros past the end, and ``lengths`` ``[N]`` int64.

    Raises:
        ValueError: If there is no sequence, one has no frame, or frame shapes differ.

    Example:
        >>> batch, lengths = pad_sequences([torch.ones(2, 64, 44), torch.ones(5, 64, 44)])
        >>> batch.shape, lengths.tolist()
        (torch.Size([2, 5, 64, 44]), [2, 5])
    """
    if len(sequences) == 0:
        raise ValueError("expected at least one sequence to pad, got none")
    for i, sequence in enumerate(sequences):
        if sequence.ndim < 1 or sequence.shape[0] == 0:
            raise ValueError(
                f"expected sequences with at least one frame, got {shape_of(sequence)} as "
                f"sequence {i}; leave empty sequences out"
            )
        if sequence.shape[1:] != sequences[0].shape[1:]:
            raise ValueError(
                f"expected frames of one shape, got {shape_of(sequences[0])} as sequence 0 and "
                f"{shape_of(sequence)} as sequence {i}; bring them to one size first, for "
                "example with gaitzoo.create_transform(model)"
            )
    lengths = torch.tensor([sequence.shape[0] for sequence in sequences])
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths
