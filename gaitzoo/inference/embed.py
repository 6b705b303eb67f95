"""Embedding many sequences of any lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gaitzoo.data.batches import batch_of, count_frames, frame_shapes
from gaitzoo.data.modalities import find_modality
from gaitzoo.inference.chunks import embed_in_chunks
from gaitzoo.inference.inputs import align_with, each_tensor
from gaitzoo.inference.memory import bytes_per_frame, free_memory
from gaitzoo.layers.modes import evaluating, standing_last, unwrapped
from gaitzoo.models.base import GaitModel

__all__ = ["embed"]

# Batches that are sorted by length together. Sorting within a window keeps generators
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

    A sequence is what ``model.modalities`` names, without the axis N: a tensor, or for several
    modalities a mapping from names to tensors. It is brought to the model's input as by
    ``gaitzoo.create_transform(model)``: raw masks are cropped to the person and resized,
    height-normalised ones are cut, ready ones taken as they are. Sequences are then sorted by
    length, padded and run in batches in eval mode; the model is left in the mode it was in.
    Threads may share a model that is in eval mode already.

    A sequence too long for ``max_memory`` is cut into overlapping pieces, with equal results, by
    models in which a frame's influence on others ends (``model.temporal_reach()``): most of
    them. DyGait's mean over time reaches over the whole sequence, and GaitPart's maximum is of
    parts, not of maps; both are run whole, whatever memory that takes. A batch that runs out of
    memory is halved and run again.

    Args:
        model: A model of this library, plain or from :func:`gaitzoo.fuse_for_inference`; also
            compiled, or inside ``nn.DataParallel`` (which is left out: one device computes).
        sequences: Any iterable, also a generator. Silhouettes are frames ``[T, H, W]`` as arrays
            or tensors, uint8 in 0..255, masks, or floats in [0, 1] (``[C, T, H, W]`` for models
            of several channels); lengths and sizes may differ. Other modalities:
            ``gaitzoo.data.modalities``.
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
        TypeError: If ``model`` is no model of this library, or a sequence of another type.
        ValueError: If there is no sequence, or one of them is not what the model reads (the
            message says which and why).
        MemoryError: If one sequence alone does not fit into memory.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0)
        >>> clips = [torch.rand(9, 16, 12), torch.rand(4, 16, 12), torch.rand(1, 16, 12)]
        >>> gaitzoo.embed(model, clips, progress=False).shape
        torch.Size([3, 6, 4])
    """
    inner = _checked_model(model)
    _check_arguments(inner, sequences, batch_frames, max_memory)
    _check_place(device, dtype)
    run = model if hasattr(model, "_orig_mod") else inner
    found: dict[int, Tensor] = {}
    total = len(sequences) if hasattr(sequences, "__len__") else None  # pyright: ignore
    with (
        _evaluating(inner, device) as computing_on,
        tqdm(total=total, unit="seq", desc="embedding", disable=not progress) as bar,
    ):
        runner = _Runner(inner, run, computing_on, dtype)
        aligned = _aligned(inner, sequences)
        for numbers, embeddings in _embeddings(runner, aligned, batch_frames, max_memory):
            embeddings = embeddings.cpu()
            embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            found.update(zip(numbers, embeddings, strict=True))
            bar.update(len(numbers))
    if not found:
        raise ValueError("expected at least one sequence to embed, got none")
    return torch.stack([found[i] for i in range(len(found))])


def _checked_model(model: object) -> GaitModel:
    inner = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(inner, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(inner).__name__}; see gaitzoo.create_model"
        )
    if next(inner.parameters(), None) is None:
        raise ValueError("expected a model with parameters, got one without any")
    return inner


def _check_arguments(
    model: GaitModel, sequences: object, batch_frames: int | None, max_memory: int | None
) -> None:
    for name, value in (("batch_frames", batch_frames), ("max_memory", max_memory)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"expected {name} >= 1 or None, got {value!r}")
    if isinstance(sequences, Mapping):
        raise ValueError(
            f"expected an iterable of sequences, got one mapping with "
            f"{', '.join(map(str, sequences)) or 'nothing'}; put it into a list"
        )
    if isinstance(sequences, Tensor) and sequences.ndim <= _axes_of_one(model):
        raise ValueError(
            f"expected an iterable of sequences, got one of shape {list(sequences.shape)}; "
            "put it into a list"
        )


def _axes_of_one(model: GaitModel) -> int:
    """Axes of one sequence, at least."""
    channels = getattr(model, "in_channels", 1)
    several = model.modalities == ("silhouettes",) and channels > 1
    return min(len(find_modality(name).axes.split()) - 1 for name in model.modalities) + several


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
    runner: _Runner,
    aligned: Iterator[tuple[int, Any]],
    batch_frames: int | None,
    max_memory: int | None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yields numbers of sequences and their embeddings, one batch behind the computation.

    While an accelerator computes a batch, the next one is padded and on its way.
    """
    first = next(aligned, None)
    if first is None:
        return
    model = runner.model
    kind = "cpu" if runner.device.type == "cpu" else "accelerator"
    needed = bytes_per_frame(model, frame_shapes(model.modalities, first[1]))
    fitting = None if needed is None else _fitting_frames(needed, max_memory, runner.device)
    if batch_frames is None:
        batch_frames = min(fitting or _MODEST_FRAMES, _MOST_FRAMES)
        if kind == "cpu" and needed is not None:
            batch_frames = min(batch_frames, max(1, _CACHED_BYTES // needed))
    elif max_memory is not None and fitting is not None:
        batch_frames = min(batch_frames, fitting)
    runner.fitting = fitting

    def frames_of(sequence: Any) -> int:
        return count_frames(model.modalities, sequence)

    waiting: tuple[list[int], Tensor] | None = None
    for window in _windows(chain([first], aligned), _WINDOW * batch_frames, frames_of):
        for batch in _batches(window, batch_frames, _MOST_PADDING[kind], frames_of):
            computed = [i for i, _ in batch], runner.run([sequence for _, sequence in batch])
            if waiting is not None:
                yield waiting
            waiting = computed
    if waiting is not None:
        yield waiting


def _fitting_frames(needed: int, max_memory: int | None, device: torch.device) -> int:
    """Frames that fit into memory together, at ``needed`` bytes each."""
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


def _aligned(model: GaitModel, sequences: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    align = align_with(model)
    for i, sequence in enumerate(sequences):
        try:
            yield i, align(sequence)
        except (ValueError, TypeError) as error:
            raise type(error)(f"sequence {i}: {error}") from error


def _windows(
    numbered: Iterator[tuple[int, Any]], max_frames: int, frames_of: Callable[[Any], int] = len
) -> Iterator[list[tuple[int, Any]]]:
    window: list[tuple[int, Any]] = []
    frames = 0
    for i, sequence in numbered:
        window.append((i, sequence))
        frames += frames_of(sequence)
        if frames >= max_frames:
            yield window
            window, frames = [], 0
    if window:
        yield window


def _batches(
    window: list[tuple[int, Any]],
    batch_frames: int,
    most_padding: float,
    frames_of: Callable[[Any], int] = len,
) -> Iterator[list[tuple[int, Any]]]:
    """Sequences of similar lengths that stay within the budget when they are padded."""
    batch: list[tuple[int, Any]] = []
    frames = longest = 0
    for i, sequence in sorted(window, key=lambda item: frames_of(item[1]), reverse=True):
        count = frames_of(sequence)
        # Sorted downwards: the first of a batch is its longest.
        padded = (len(batch) + 1) * longest
        padding = padded - frames - count
        if batch and (padded > batch_frames or padding > most_padding * padded):
            yield batch
            batch, frames = [], 0
        if not batch:
            longest = count
        batch.append((i, sequence))
        frames += count
    yield batch


class _Runner:
    """Runs batches; what does not fit into memory is run in halves or pieces.

    What has turned out not to fit is not tried again.

    Args:
        model: In eval mode, on its device.
        call: The model, or its compiled form.
        device: Where the model is.
        dtype: For autocast; ``None`` = the model's own.

    Attributes:
        fitting: Frames that fit into memory together; ``None`` = unknown.
    """

    def __init__(
        self,
        model: GaitModel,
        call: Callable[..., Any],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.model, self.call, self.device, self.dtype = model, call, device, dtype
        self.fitting: int | None = None
        self.can_cut = model.temporal_reach() is not None
        self.most_frames: float = math.inf  # of a batch of several sequences

    def run(self, sequences: list[Any]) -> Tensor:
        """Embeds aligned sequences; gives ``[N, P, C]``, perhaps still being computed."""
        longest = max(count_frames(self.model.modalities, sequence) for sequence in sequences)
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

    def _run_halves(self, sequences: list[Any]) -> Tensor:
        half = len(sequences) // 2
        return torch.cat([self.run(sequences[:half]), self.run(sequences[half:])])

    def _run_whole(self, sequences: list[Any]) -> Tensor:
        own = next(self.model.parameters()).dtype
        batch, lengths = batch_of(self.model.modalities, sequences, own)
        if lengths is not None:
            needed = bool((lengths != lengths[0]).any())
            lengths = self._sent(lengths) if needed else None
        with torch.inference_mode(), self._autocast(), self._layout():
            return self.call(each_tensor(batch, self._sent), lengths).embeddings

    def _run_in_pieces(self, sequence: Any, max_frames: int) -> Tensor:
        """Halves the pieces until they fit."""
        max_frames = max(max_frames, self.model.min_frames)
        while max_frames >= self.model.min_frames:
            self.fitting = max_frames
            try:
                with torch.inference_mode(), self._autocast():
                    return embed_in_chunks(self.model, sequence, max_frames)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            max_frames //= 2
        raise self._too_long(sequence)

    def _too_long(self, sequence: Any) -> MemoryError:
        frames = count_frames(self.model.modalities, sequence)
        return MemoryError(
            f"a sequence of {frames} frames does not fit into the memory of {self.device}; "
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

    def _layout(self) -> AbstractContextManager[object]:
        # A processor convolves and pools narrow maps faster so. Half precision is left alone: its
        # libraries have faults in single channels.
        wide = next(self.model.parameters()).dtype in (torch.float32, torch.float64)
        pays = wide and self.dtype is None and self.device.type == "cpu"
        return standing_last() if pays else nullcontext()


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)
