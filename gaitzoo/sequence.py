"""Sequences of different lengths in one batch.

One rule holds everywhere: zero before a convolution, the smallest number before a maximum, the
masked sum over the length for a mean. Values past the end are replaced, never multiplied, so that
infinities and NaN in the padding do no harm. The time axis is axis 2 (``[N, C, T, ...]``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gaitzoo._checks import check_lengths, shape_of

__all__ = [
    "lengths_to_mask",
    "mask_fill",
    "masked_max",
    "masked_mean",
    "pad_sequences",
    "repeat_short",
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


def mask_fill(x: Tensor, lengths: Tensor | None, value: float = 0.0) -> Tensor:
    """Replaces everything past the end of each sequence.

    Args:
        x: ``[N, C, T, ...]``, any values; what stands past the end may even be NaN.
        lengths: ``[N]`` int64; ``None`` means all T and returns ``x`` itself.
        value: What to write past the end.

    Returns:
        ``[N, C, T, ...]`` with ``value`` past the end.

    Example:
        >>> mask_fill(torch.ones(1, 1, 3), torch.tensor([2])).tolist()
        [[[1.0, 1.0, 0.0]]]
    """
    if lengths is None:
        return x
    mask = lengths_to_mask(lengths, x.shape[2])
    return x.masked_fill(~mask.view(mask.shape[0], 1, -1, *[1] * (x.ndim - 3)), value)


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
    if lengths is None:
        return x.mean(dim=2, keepdim=True)
    total = mask_fill(x, lengths).sum(dim=2, keepdim=True)
    return total / lengths.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


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
    return mask_fill(x, lengths, torch.finfo(x.dtype).min).amax(dim=2)


def repeat_short(
    x: Tensor, lengths: Tensor | None, min_frames: int
) -> tuple[Tensor, Tensor | None]:
    """Repeats each sequence that is too short, whole, until it has ``min_frames`` frames.

    With ``min_frames=3`` one frame becomes three and two frames become four (the whole sequence
    is played again, never cut). Longer sequences are left alone.

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
    # The longest that a short sequence can become: min_frames - 1 frames, played twice.
    padded_frames = 2 * (min_frames - 1)
    if x.shape[2] > padded_frames:
        padded_frames = x.shape[2]
    short = lengths < min_frames
    repeated = -(-min_frames // lengths.clamp(min=1)) * lengths
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
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), check_lengths(
        lengths, len(sequences), int(lengths.max())
    )
