"""How much memory a model needs per frame, and how much there is."""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from gaitzoo.data.batches import has_time
from gaitzoo.data.modalities import find_modality, time_axis
from gaitzoo.layers.modes import unwrapped
from gaitzoo.models.base import GaitModel

__all__ = ["bytes_per_frame", "free_memory"]

# Convolution libraries keep rearranged copies of what they are given.
_WORKSPACE = 3.0
# Where free memory cannot be found out.
_MODEST_BYTES = 2 * 1024**3
# How torch runs compiled models is a setting of the whole process.
_MEASURING = threading.RLock()
# Models, and bytes by structure and frame size.
_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], int | None]]
_MEASURED = weakref.WeakKeyDictionary()


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made and that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._holders: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return tree_map_only(Tensor, self._hold, result)

    def _hold(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)
        return tensor

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.live -= size


def bytes_per_frame(
    model: nn.Module, frame_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]
) -> int | None:
    """Measures what a model holds at once for every frame of a batch.

    A copy of the model runs without computing anything: on tensors, and with weights, that have
    a shape and no memory. Hooks are called as in any other run. Done once per model and frame
    size; a model with other layers or another dtype is measured anew.

    Args:
        model: Any model of this library, also compiled; it is left alone, other threads may be
            using it.
        frame_shape: Shape of a frame, as of a sequence without its axis T: height and width, more
            channels before them. For models of several modalities a mapping from names to shapes.

    Returns:
        Bytes, with room for the convolution library; ``None`` if the model has an operation that
        cannot run this way.
    """
    inner = cast(GaitModel, unwrapped(model))
    shapes = frame_shape
    if not isinstance(shapes, Mapping):
        shapes = {inner.modalities[0]: tuple(shapes)}
    key = (_structure(inner), *((name, tuple(shape)) for name, shape in sorted(shapes.items())))
    # A graph that was compiled for real tensors would be compiled anew for these.
    with _MEASURING, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        measured = _MEASURED.setdefault(inner, {})
        if key not in measured:
            measured[key] = _measure(inner, shapes)
        return measured[key]


def _structure(model: nn.Module) -> tuple[Any, ...]:
    """What the memory depends on: kinds of layers, shapes and types of weights."""
    tensors = (*model.parameters(), *model.buffers())
    return (
        *(type(module) for module in model.modules()),
        *((tensor.shape, tensor.dtype) for tensor in tensors),
    )


def _measure(model: GaitModel, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    num_sequences, num_frames = 2, 24
    batch = {}
    for name, shape in shapes.items():
        modality = find_modality(name)
        dtype = torch.float32 if modality.bytes_mean == "none" else torch.uint8
        axis = time_axis(modality, len(shape) + 1)
        sizes = list(shape)
        if axis is not None:
            sizes.insert(axis, num_frames)
        batch[name] = torch.empty(num_sequences, *sizes, dtype=dtype, device="meta")
    timed = has_time(model.modalities)
    inputs = batch if len(model.modalities) > 1 else next(iter(batch.values()))
    lengths = torch.empty(num_sequences, dtype=torch.int64, device="meta") if timed else None
    counted = _LiveBytes()
    try:
        shadow = _shadow(model)
        with counted:
            shadow(inputs, lengths)
    # The last one is a part that cannot be copied. Real mistakes come again when computing.
    except (NotImplementedError, RuntimeError, TypeError):
        return None
    frames = num_sequences * (num_frames if timed else 1)
    return int(_WORKSPACE * counted.peak / frames) + 1


def _shadow(model: nn.Module) -> nn.Module:
    """A copy of a model on tensors that have a shape and no memory."""
    # What is in here already is not copied.
    copies: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("_hooks") or name == "model_args":
                copies[id(value)] = value
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            empty = torch.empty_like(tensor, device="meta")
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=False)
            copies[id(tensor)] = empty
    return copy.deepcopy(model, copies)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device, as far as that can be known.

    Args:
        device: Where to compute.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "cpu":
        return min(_free_on_machine(), _free_in_group())
    return _MODEST_BYTES


def _free_on_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if {"SC_AVPHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _MODEST_BYTES


def _free_in_group(group: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container may still take; very much if there is no limit."""
    limit, used, parts = (group / f"memory.{name}" for name in ("max", "current", "stat"))
    if not limit.exists() or not used.exists() or limit.read_text().strip() == "max":
        return 2**62
    free = int(limit.read_text()) - int(used.read_text())
    if parts.exists():
        # Files that were read count as used, but make room when it is needed.
        sizes = dict(line.split() for line in parts.read_text().splitlines())
        free += int(sizes.get("inactive_file", 0))
    return max(0, free)
