"""Embedding many sequences of any lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gaitzoo._base import GaitModel
from gaitzoo.preprocess import create_transform
from gaitzoo.sequence import pad_sequences

__all__ = ["embed"]

# Batches whose sequences are sorted by length together. Sorting within a window keeps generators
# from being read to their end before anything is computed.
_WINDOW = 16


def embed(
    model: GaitModel,
    sequences: Iterable[Any],
    *,
    batch_frames: int = 256,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Tensor:
    """Embeds sequences of any lengths; the numbers are those of one sequence at a time.

    Every sequence is brought to the model's input size as by
    ``gaitzoo.create_transform(model)``: raw masks are cropped to the person and resized,
    height-normalised ones are cut, ready ones taken as they are. Sequences are then sorted by
    length, padded and run in batches in eval mode; the model is left in the mode it was in.

    Args:
        model: A model of this library.
        sequences: Any iterable, also a generator, of frames ``[T, H, W]`` as arrays or tensors:
            uint8 in 0..255, masks, or floats in [0, 1]; lengths and sizes may differ.
        batch_frames: Frames of a batch, padding included. A longer sequence runs alone.
        device: Where to compute; ``None`` = where the model is. The model goes there and back.
        dtype: Compute in this type under autocast, for example ``torch.bfloat16``; ``None`` = in
            the model's own.
        progress: Show a progress bar.

    Returns:
        ``[N, P, C]`` float32 (float64 for a float64 model) on the CPU, in the order of
        ``sequences``.

    Raises:
        ValueError: If there is no sequence, or one of them is no silhouette sequence (the message
            says which and why).

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0)
        >>> clips = [torch.rand(9, 16, 12), torch.rand(4, 16, 12), torch.rand(1, 16, 12)]
        >>> gaitzoo.embed(model, clips, progress=False).shape
        torch.Size([3, 6, 4])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, got {type(model).__name__}; see create_model")
    if not isinstance(batch_frames, int) or batch_frames < 1:
        raise ValueError(f"expected batch_frames >= 1, got {batch_frames!r}")
    if isinstance(sequences, Tensor) and sequences.ndim == 3:
        raise ValueError(
            f"expected an iterable of sequences, got one of shape {list(sequences.shape)}; "
            "put it into a list"
        )
    found: dict[int, Tensor] = {}
    with _evaluating(model, device) as computing_on:
        total = len(sequences) if hasattr(sequences, "__len__") else None  # pyright: ignore
        with tqdm(total=total, unit="seq", desc="embedding", disable=not progress) as bar:
            for window in _windows(_aligned(model, sequences), _WINDOW * batch_frames):
                for batch in _batches(window, batch_frames):
                    outputs = _run(model, [frames for _, frames in batch], computing_on, dtype)
                    found.update(zip((i for i, _ in batch), outputs, strict=True))
                    bar.update(len(batch))
    if not found:
        raise ValueError("expected at least one sequence to embed, got none")
    return torch.stack([found[i] for i in range(len(found))])


@contextmanager
def _evaluating(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """Puts a model into eval mode on a device, and everything back afterwards."""
    home = next(model.parameters()).device
    training = [module for module in model.modules() if module.training]
    target = home if device is None else torch.device(device)
    try:
        model.eval().to(target)
        yield target
    finally:
        model.to(home)
        for module in training:
            module.training = True


def _aligned(model: GaitModel, sequences: Iterable[Any]) -> Iterator[tuple[int, Tensor]]:
    transform = create_transform(model)
    for i, frames in enumerate(sequences):
        try:
            yield i, transform.align(frames)
        except (ValueError, TypeError) as error:
            raise type(error)(f"sequence {i}: {error}") from error


def _windows(
    numbered: Iterator[tuple[int, Tensor]], max_frames: int
) -> Iterator[list[tuple[int, Tensor]]]:
    window: list[tuple[int, Tensor]] = []
    frames = 0
    for i, sequence in numbered:
        window.append((i, sequence))
        frames += len(sequence)
        if frames >= max_frames:
            yield window
            window, frames = [], 0
    if window:
        yield window


def _batches(
    window: list[tuple[int, Tensor]], batch_frames: int
) -> Iterator[list[tuple[int, Tensor]]]:
    """Sequences of similar lengths whose padded batch stays within the budget."""
    batch: list[tuple[int, Tensor]] = []
    for i, sequence in sorted(window, key=lambda item: len(item[1]), reverse=True):
        # Sorted downwards: the first of a batch is its longest.
        if batch and (len(batch) + 1) * len(batch[0][1]) > batch_frames:
            yield batch
            batch = []
        batch.append((i, sequence))
    yield batch


def _run(
    model: GaitModel, sequences: list[Tensor], device: torch.device, dtype: torch.dtype | None
) -> Tensor:
    if len({sequence.dtype for sequence in sequences}) > 1:
        sequences = [s / 255 if s.dtype == torch.uint8 else s.float() for s in sequences]
    silhouettes, lengths = pad_sequences(sequences)
    if bool((lengths == lengths[0]).all()):
        padded_lengths = None
    else:
        padded_lengths = lengths.to(device)
    autocast = nullcontext() if dtype is None else torch.autocast(device.type, dtype)
    with torch.inference_mode(), autocast:
        embeddings = model(silhouettes.to(device), padded_lengths).embeddings
    return embeddings.cpu().to(torch.promote_types(embeddings.dtype, torch.float32))
