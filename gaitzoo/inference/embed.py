"""Embedding many sequences of any lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gaitzoo.data.silhouettes import create_transform
from gaitzoo.inference.chunks import embed_in_chunks, temporal_reach
from gaitzoo.inference.memory import bytes_per_frame, free_memory
from gaitzoo.layers.modes import evaluating
from gaitzoo.layers.sequence import pad_sequences
from gaitzoo.models.base import GaitModel

__all__ = ["embed"]

# Batches whose sequences are sorted by length together. Sorting within a window keeps generators
# from being read to their end before anything is computed.
_WINDOW = 16
# What is more makes nothing faster. A processor computes frames one after the other: it loses by
# padding, and more so once the maps of a batch leave its cache. An accelerator must be filled.
_CACHED_BYTES = 128 * 2**20
_MOST_FRAMES = 8192
_MOST_PADDING = {"cpu": 0.03, "accelerator": 0.25}
# Frames of a batch where neither memory nor model can be measured.
_MODEST_FRAMES = 256
# What is free is an estimate. This many frames are tried however little there seems to be.
_FEWEST_FRAMES = 64
# Words of errors that are no torch.OutOfMemoryError: the CPU's allocator, C++, CUDA's libraries.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def embed(
    model: GaitModel,
    sequences: Iterable[Any],
    *,
    batch_frames: int | None = None,
    max_memory: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Tensor:
    """Embeds sequences of any lengths; the numbers are those of one sequence at a time.

    Every sequence is brought to the model's input size as by
    ``gaitzoo.create_transform(model)``: raw masks are cropped to the person and resized,
    height-normalised ones are cut, ready ones taken as they are. Sequences are then sorted by
    length, padded and run in batches in eval mode; the model is left in the mode it was in.
    Threads may share a model that is in eval mode already.

    A sequence too long for ``max_memory`` is cut into overlapping pieces, with equal results, by
    models in which a frame's influence on others ends: DeepGaitV2, GaitBase, HSTL and timm
    networks. DyGait's mean over time reaches over the whole sequence; it is run whole, whatever
    memory that takes. A batch that runs out of memory is halved and run again.

    Args:
        model: A model of this library, plain or from :func:`gaitzoo.fuse_for_inference`.
        sequences: Any iterable, also a generator, of frames ``[T, H, W]`` as arrays or tensors:
            uint8 in 0..255, masks, or floats in [0, 1]; lengths and sizes may differ.
        batch_frames: Frames of a batch, padding included; a longer sequence runs alone.
            ``None`` = from ``max_memory`` and what the model holds per frame, which is measured;
            on a processor also small enough for its cache.
            If both are given, the smaller batch counts.
        max_memory: Bytes that the maps of a batch may take; ``None`` = half of what is free on
            the device, or what 64 frames need if that is more.
        device: Where to compute; ``None`` = where the model is. The model goes there and back.
        dtype: Compute in this type under autocast, for example ``torch.bfloat16``; ``None`` = in
            the model's own.
        progress: Show a progress bar.

    Returns:
        ``[N, P, C]`` float32 (float64 for a float64 model) on the CPU, in the order of
        ``sequences``.

    Raises:
        ValueError: If there is no sequence, one of them is no silhouette sequence (the message
            says which and why), or the model takes other modalities than silhouettes.
        MemoryError: If one sequence alone does not fit into memory.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0)
        >>> clips = [torch.rand(9, 16, 12), torch.rand(4, 16, 12), torch.rand(1, 16, 12)]
        >>> gaitzoo.embed(model, clips, progress=False).shape
        torch.Size([3, 6, 4])
    """
    _check_arguments(model, sequences, batch_frames, max_memory)
    _check_place(device, dtype)
    found: dict[int, Tensor] = {}
    total = len(sequences) if hasattr(sequences, "__len__") else None  # pyright: ignore
    with (
        _evaluating(model, device) as computing_on,
        tqdm(total=total, unit="seq", desc="embedding", disable=not progress) as bar,
    ):
        for numbers, embeddings in _embeddings(
            model, _aligned(model, sequences), batch_frames, max_memory, computing_on, dtype
        ):
            embeddings = embeddings.cpu()
            embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            found.update(zip(numbers, embeddings, strict=True))
            bar.update(len(numbers))
    if not found:
        raise ValueError("expected at least one sequence to embed, got none")
    return torch.stack([found[i] for i in range(len(found))])


def _check_arguments(
    model: object, sequences: object, batch_frames: int | None, max_memory: int | None
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, got {type(model).__name__}; see create_model")
    if next(model.parameters(), None) is None:
        raise ValueError("expected a model with parameters, got one without any")
    if getattr(model, "in_channels", 1) != 1:
        raise ValueError(
            f"expected a model of one-channel silhouettes, got in_channels={model.in_channels}; "
            "call the model itself on batches [N, C, T, H, W]"
        )
    for name, value in (("batch_frames", batch_frames), ("max_memory", max_memory)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"expected {name} >= 1 or None, got {value!r}")
    if isinstance(sequences, Tensor) and sequences.ndim == 3:
        raise ValueError(
            f"expected an iterable of sequences, got one of shape {list(sequences.shape)}; "
            "put it into a list"
        )


def _check_place(device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"expected dtype torch.bfloat16, torch.float16 or None, got {dtype!r}; for float64 "
            "call model.double() first"
        )
    try:
        target = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"expected a device such as 'cpu' or 'cuda:0', got {device!r}") from error
    if target is not None and target.type == "meta":
        raise ValueError("expected a device that computes, got 'meta', where weights are lost")


def _embeddings(
    model: GaitModel,
    aligned: Iterator[tuple[int, Tensor]],
    batch_frames: int | None,
    max_memory: int | None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yields numbers of sequences and their embeddings, one batch behind the computation.

    While an accelerator computes a batch, the next one is padded and on its way.
    """
    first = next(aligned, None)
    if first is None:
        return
    kind = "cpu" if device.type == "cpu" else "accelerator"
    needed = bytes_per_frame(model, tuple(first[1].shape[1:]))
    fitting = None if needed is None else _fitting_frames(needed, max_memory, device)
    if batch_frames is None:
        batch_frames = min(fitting or _MODEST_FRAMES, _MOST_FRAMES)
        if kind == "cpu" and needed is not None:
            batch_frames = min(batch_frames, max(1, _CACHED_BYTES // needed))
    elif max_memory is not None and fitting is not None:
        batch_frames = min(batch_frames, fitting)
    runner = _Runner(model, fitting, device, dtype)
    waiting: tuple[list[int], Tensor] | None = None
    for window in _windows(chain([first], aligned), _WINDOW * batch_frames):
        for batch in _batches(window, batch_frames, _MOST_PADDING[kind]):
            computed = [i for i, _ in batch], runner.run([frames for _, frames in batch])
            if waiting is not None:
                yield waiting
            waiting = computed
    if waiting is not None:
        yield waiting


def _fitting_frames(needed: int, max_memory: int | None, device: torch.device) -> int:
    """Frames whose maps fit into memory together, each of which takes ``needed`` bytes."""
    if max_memory is None:
        return max(_FEWEST_FRAMES, free_memory(device) // 2 // needed)
    return max(1, max_memory // needed)


@contextmanager
def _evaluating(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """Puts a model into eval mode on a device, and everything back afterwards."""
    home = next(model.parameters()).device
    target = home if device is None else torch.device(device)
    with evaluating(model):
        try:
            model.to(target)
            yield target
        finally:
            model.to(home)


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
    window: list[tuple[int, Tensor]], batch_frames: int, most_padding: float
) -> Iterator[list[tuple[int, Tensor]]]:
    """Sequences of similar lengths whose padded batch stays within the budget."""
    batch: list[tuple[int, Tensor]] = []
    frames = 0
    for i, sequence in sorted(window, key=lambda item: len(item[1]), reverse=True):
        # Sorted downwards: the first of a batch is its longest.
        padded = (len(batch) + 1) * len(batch[0][1]) if batch else 0
        padding = padded - frames - len(sequence)
        if batch and (padded > batch_frames or padding > most_padding * padded):
            yield batch
            batch, frames = [], 0
        batch.append((i, sequence))
        frames += len(sequence)
    yield batch


class _Runner:
    """Runs batches; what does not fit into memory is run in halves or pieces.

    What has turned out not to fit is not tried again.

    Args:
        model: In eval mode, on its device.
        fitting: Frames that fit into memory together; ``None`` = unknown.
        device: Where the model is.
        dtype: For autocast; ``None`` = the model's own.
    """

    def __init__(
        self,
        model: GaitModel,
        fitting: int | None,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.model, self.fitting, self.device, self.dtype = model, fitting, device, dtype
        self.can_cut = temporal_reach(model) is not None
        self.most_frames: float = math.inf  # of a batch of several sequences

    def run(self, sequences: list[Tensor]) -> Tensor:
        """Embeds a batch of ``[T_i, H, W]``; gives ``[N, P, C]``, perhaps still being computed."""
        longest = max(len(frames) for frames in sequences)
        several = len(sequences) > 1
        if several and longest * len(sequences) > self.most_frames:
            return self._run_halves(sequences)
        # Shorter sequences are repeated inside the model, which pieces would not be.
        cuttable = self.can_cut and not several and longest > self.model.min_frames
        if cuttable and self.fitting is not None and longest > self.fitting:
            return self._run_in_pieces(sequences[0], self.fitting)
        try:
            return self._run_whole(sequences)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Here the failed attempt is forgotten, with all that it held.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if several:
            self.most_frames = longest * -(-len(sequences) // 2)
            return self._run_halves(sequences)
        if cuttable:
            return self._run_in_pieces(sequences[0], longest // 2)
        raise self._too_long(sequences[0])

    def _run_halves(self, sequences: list[Tensor]) -> Tensor:
        half = len(sequences) // 2
        return torch.cat([self.run(sequences[:half]), self.run(sequences[half:])])

    def _run_whole(self, sequences: list[Tensor]) -> Tensor:
        if len({sequence.dtype for sequence in sequences}) > 1:
            # As the model itself would do with each of them alone.
            own = next(self.model.parameters()).dtype
            sequences = [
                s.to(own) / 255 if s.dtype == torch.uint8 else s.to(own) for s in sequences
            ]
        if len({sequence.device for sequence in sequences}) > 1:
            sequences = [sequence.to(self.device) for sequence in sequences]
        silhouettes, lengths = pad_sequences(sequences)
        padded_lengths = None
        if bool((lengths != lengths[0]).any()):
            padded_lengths = self._sent(lengths)
        with torch.inference_mode(), self._autocast():
            return self.model(self._sent(silhouettes), padded_lengths).embeddings

    def _run_in_pieces(self, frames: Tensor, max_frames: int) -> Tensor:
        """Halves the pieces until they fit."""
        max_frames = max(max_frames, self.model.min_frames)
        while max_frames >= self.model.min_frames:
            self.fitting = max_frames
            try:
                with torch.inference_mode(), self._autocast():
                    return embed_in_chunks(self.model, frames[None], max_frames)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            max_frames //= 2
        raise self._too_long(frames)

    def _too_long(self, frames: Tensor) -> MemoryError:
        return MemoryError(
            f"a sequence of {len(frames)} frames does not fit into the memory of {self.device}; "
            "embed it in shorter clips, use a narrower dtype, or another device"
        )

    def _sent(self, tensor: Tensor) -> Tensor:
        # Only memory of the processor can be pinned.
        if self.device.type != "cuda" or tensor.device.type != "cpu":
            return tensor.to(self.device)
        # Copied without waiting, behind what the device still computes.
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)
