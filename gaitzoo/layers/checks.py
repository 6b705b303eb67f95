"""Checks of what users hand in: expected, got, fix.

Checks run before anything is computed. Those that read tensor values are left out where they
would stop a GPU (a read of device memory waits for everything before it) and while a graph is
being traced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "LOWEST_WHITE",
    "check_batch",
    "check_features",
    "check_lengths",
    "check_num_classes",
    "check_parts_divide",
    "check_size",
    "check_sizes",
    "check_values",
    "check_whole",
    "plain_values",
    "shape_of",
    "white_of",
]


LOWEST_WHITE = 128
"""Whole numbers of a silhouette reach this; class ids stay below."""


def shape_of(x: Tensor) -> str:
    """The shape as people write it: ``[2, 30, 64, 44]``."""
    return str(list(x.shape))


def check_batch(silhouettes: Tensor, in_channels: int = 1) -> None:
    """Raises unless ``silhouettes`` is a batch that a model can take.

    Args:
        silhouettes: ``[N, T, H, W]`` for one channel, ``[N, C, T, H, W]`` for any number.
        in_channels: C that the model was built for.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the number of axes or channels is wrong, an axis is empty, or frames look
            like joints.
    """
    if not isinstance(silhouettes, Tensor):
        raise TypeError(
            f"expected silhouettes as a torch.Tensor, got {type(silhouettes).__name__}; "
            "use torch.as_tensor, or gaitzoo.embed, which takes arrays too"
        )
    if not (silhouettes.is_floating_point() or silhouettes.dtype == torch.uint8):
        raise TypeError(
            "expected silhouettes as floats in [0, 1] or as uint8 in 0..255, got "
            f"{silhouettes.dtype}; convert with .float() (masks of 0 and 1) or .to(torch.uint8)"
        )
    wanted = "[N, T, H, W]" if in_channels == 1 else f"[N, {in_channels}, T, H, W]"
    if silhouettes.ndim not in ((4, 5) if in_channels == 1 else (5,)):
        hint = "; add the batch axis with silhouettes[None]" if silhouettes.ndim == 3 else ""
        raise ValueError(f"expected silhouettes {wanted}, got {shape_of(silhouettes)}{hint}")
    if silhouettes.ndim == 5 and silhouettes.shape[1] != in_channels:
        hint = f"build the model with in_channels={silhouettes.shape[1]} or drop the extra channels"
        if silhouettes.shape[2] == in_channels:
            hint = "channels stand before frames: silhouettes.transpose(1, 2)"
        raise ValueError(
            f"expected {in_channels} input channel(s) on axis 1 of {wanted}, got "
            f"{shape_of(silhouettes)}; {hint}"
        )
    height, width = silhouettes.shape[-2:]
    # Joints with two or three numbers each; no person is so narrow.
    if silhouettes.ndim == 4 and width in (2, 3) and height > 4 * width:
        raise ValueError(
            f"expected silhouettes {wanted}, got {shape_of(silhouettes)}, which look like poses "
            f"of {height} joints; gaitzoo.PosesToMaps makes maps of them, or take a model that "
            'reads "poses"'
        )
    if silhouettes.numel() == 0:
        raise ValueError(
            f"expected silhouettes with at least one frame and pixel, got {shape_of(silhouettes)}"
        )


def white_of(silhouettes: Tensor) -> Tensor:
    """What white is in uint8 silhouettes: 255, or 1 in sequences that are masks of 0 and 1.

    Args:
        silhouettes: ``[N, ...]`` uint8, padding black.

    Returns:
        ``[N, 1, ...]`` uint8.

    Raises:
        ValueError: If a sequence stays far below white, as class ids do. Tensors on accelerators
            are not read.
    """
    highest = silhouettes.flatten(1).amax(1)
    if not torch.compiler.is_compiling() and silhouettes.device.type == "cpu":
        faint = highest[(highest > 1) & (highest < LOWEST_WHITE)]
        if len(faint):
            raise ValueError(
                f"expected uint8 silhouettes in 0..255 or masks of 0 and 1, got at most "
                f"{int(faint[0])} in a sequence, as in a label map; give the mask of the person "
                "(frames == id)"
            )
    white = torch.where(highest <= 1, 1, 255).to(torch.uint8)
    return white.view(-1, *[1] * (silhouettes.ndim - 1))


def check_values(
    x: Tensor, lowest: float | None, highest: float | None, name: str = "silhouettes"
) -> None:
    """Raises unless the values are finite and lie in the range that the model was made for.

    Args:
        x: Model input of any shape after masking.
        lowest: Smallest allowed value; ``None`` = any.
        highest: Largest allowed value; ``None`` = any.
        name: What the values are, for the message.

    Raises:
        ValueError: If a value is NaN, infinite or outside the range (with a little slack for
            resizing overshoot). Tensors on accelerators are not read.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return
    found_lowest, found_highest = (float(v) for v in torch.aminmax(x.detach()))
    finite = math.isfinite(found_lowest) and math.isfinite(found_highest)
    if finite and (lowest is None or highest is None):
        return
    wanted = "finite numbers" if lowest is None else f"in [{lowest:g}, {highest:g}]"
    if not finite:
        raise ValueError(
            f"expected {name} {wanted}, got NaN or infinite values; find where they come from: "
            f"{name} are never NaN"
        )
    assert lowest is not None
    assert highest is not None
    slack = 0.01 * (highest - lowest)
    if found_lowest < lowest - slack or found_highest > highest + slack:
        fix = "pass uint8 in 0..255, or divide by 255 first"
        if (lowest, highest) != (0, 1):
            fix = "bring them into this range first"
        raise ValueError(
            f"expected {name} {wanted}, got values from {found_lowest:g} to {found_highest:g}; "
            f"{fix}"
        )


def check_whole(x: Tensor, name: str) -> None:
    """Raises unless the values are whole numbers, as labels are.

    Args:
        x: Model input of any shape.
        name: What the values are, for the message.

    Raises:
        ValueError: If a value lies between two labels. Tensors on accelerators are not read.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.is_floating_point():
        return
    between = x[x != x.round()]
    if between.numel():
        raise ValueError(
            f"expected {name} of whole numbers, got {float(between[0]):g}; resize labels to the "
            "nearest one (gaitzoo.create_transform), never by averaging"
        )


def plain_values(value: Any, kind: type[list[Any]] | type[tuple[Any, ...]] = tuple) -> Any:
    """The same values with one kind of sequence, at any depth: JSON has lists only.

    Args:
        value: Numbers, texts and the like, in mappings, lists and tuples.
        kind: What lists and tuples become.

    Example:
        >>> plain_values({"size": [64, (44,)]})
        {'size': (64, (44,))}
    """
    if isinstance(value, Mapping):
        return {key: plain_values(inner, kind) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return kind(plain_values(inner, kind) for inner in value)
    return value


def check_features(
    x: Tensor, channels: int | None, lengths: Tensor | None = None, shortest: int = 1
) -> None:
    """Raises unless a block that sees time can take a feature map and its lengths.

    Args:
        x: ``[N, C, T, H, W]``.
        channels: C that the block was built for; ``None`` = any.
        lengths: ``[N]`` int64, or ``None``.
        shortest: Frames that a sequence must have.

    Raises:
        TypeError: If ``x`` is no floating-point tensor or ``lengths`` no integer tensor.
        ValueError: If axes, channels, frames or lengths do not fit.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected a map [N, C, T, H, W] of floats, got {got}")
    if x.ndim != 5 or (channels is not None and x.shape[1] != channels):
        wanted = "C" if channels is None else channels
        raise ValueError(
            f"expected a map [N, {wanted}, T, H, W], got {shape_of(x)}; channels stand on axis 1, "
            "frames on axis 2 (silhouettes[:, None] makes a map of one channel)"
        )
    if x.shape[2] < shortest:
        raise ValueError(
            f"expected at least {shortest} frames, got {x.shape[2]} in {shape_of(x)}; "
            "repeat short sequences first (gaitzoo.layers.sequence.repeat_short)"
        )
    if lengths is not None:
        check_lengths(lengths, x.shape[0], x.shape[2], shortest)


def check_lengths(
    lengths: Tensor, num_sequences: int, num_frames: int, shortest_allowed: int = 1
) -> Tensor:
    """Raises unless ``lengths`` fits a padded batch; returns it.

    Args:
        lengths: ``[N]`` int64 with values 1 to T.
        num_sequences: N.
        num_frames: T.
        shortest_allowed: Smallest value allowed.

    Raises:
        TypeError: If it is not an integer tensor.
        ValueError: If its shape is not ``[N]`` or a value is out of range. The values of tensors
            on accelerators are not read.
    """
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.is_complex():
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(
            f"expected lengths as an int64 tensor [N], got {got}; use torch.tensor([...])"
        )
    if lengths.dtype == torch.bool:
        raise TypeError("expected lengths as frame counts, got bool; use mask.sum(1) for a mask")
    if lengths.shape != (num_sequences,):
        raise ValueError(
            f"expected one length per sequence, shape [{num_sequences}], got {shape_of(lengths)}"
        )
    if not torch.compiler.is_compiling() and lengths.device.type == "cpu":
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < shortest_allowed or longest > num_frames:
            fix = (
                "leave empty sequences out and pass the number of frames before padding"
                if shortest_allowed == 1
                else "repeat short sequences first (gaitzoo.layers.sequence.repeat_short)"
            )
            raise ValueError(
                f"expected lengths from {shortest_allowed} to {num_frames} (the frames of the "
                f"batch), got {shortest} to {longest}; {fix}"
            )
    return lengths


def check_parts_divide(x: Tensor, part_bins: tuple[int, ...]) -> None:
    """Raises unless a map can be cut into equal bands of rows.

    Args:
        x: The map, ``[N, C, H, W]``.
        part_bins: Numbers of bands wanted.

    Raises:
        ValueError: If a number of bands does not divide the height.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"expected a map [N, C, H, W] of floats, got {shape_of(x)} {x.dtype}; pool over time "
            "first, for example with gaitzoo.TemporalMax"
        )
    height = x.shape[2]
    wrong = [bins for bins in part_bins if height % bins]
    if wrong:
        raise ValueError(
            f"expected a height that {', '.join(map(str, part_bins))} band(s) divide, got "
            f"{height} rows in the map {shape_of(x)}, which {', '.join(map(str, wrong))} does not; "
            "use frames of the height that the model was made for, or other part_bins"
        )


def check_size(**sizes: Any) -> None:
    """Raises unless every size is a positive whole number.

    Args:
        **sizes: By the names of the arguments.

    Raises:
        ValueError: If one is anything else.

    Example:
        >>> check_size(in_channels=32, kernel_size=3)
    """
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"expected {name} as a positive whole number, got {size!r}")


def check_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Raises unless ``sizes`` are positive whole numbers, one or more; returns them as a tuple.

    Args:
        name: Of the argument.
        sizes: Sequence of them.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> check_sizes("part_bins", [16, 8])
        (16, 8)
    """
    given = tuple(sizes) if isinstance(sizes, Sequence) else ()
    if not given or any(type(size) is not int or size < 1 for size in given):
        raise ValueError(f"expected {name} as a tuple of positive whole numbers, got {sizes!r}")
    return given


def check_num_classes(num_classes: Any) -> None:
    """Raises unless ``num_classes`` is a whole number of 0 or more.

    Args:
        num_classes: Classes of a head, 0 = no classifier.

    Raises:
        ValueError: If it is anything else.
    """
    if type(num_classes) is not int or num_classes < 0:
        raise ValueError(
            "expected num_classes as a whole number, num_classes >= 0 (0 = no classifier), got "
            f"{num_classes!r}"
        )
