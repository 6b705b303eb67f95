"""Silhouettes of people who are partly hidden for a whole clip.

Source: RG-Gait (https://arxiv.org/abs/2507.10978) and MimicGait (WACV 2025), by the authors' code:
https://github.com/Ayush-00/rg-gait and https://github.com/Ayush-00/mimicgait. Frames keep their
size here; upstream makes all of them 64 x 64.

The functions do what their numbers say; the classes draw these numbers from a ``generator`` alone
and take one sequence ``[T, H, W]``, float in [0, 1] or uint8 in 0..255.

Example:
    >>> walk = torch.randint(256, (30, 64, 44), dtype=torch.uint8)
    >>> occlude = OneOf([HalfBodyOcclusion(), MovingPatchOcclusion()], chance=0.5)
    >>> occlude(walk, torch.Generator().manual_seed(0)).shape
    torch.Size([30, 64, 44])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.augment import check_sequence
from gaitzoo.layers.checks import check_values

__all__ = [
    "HalfBodyOcclusion",
    "MiddleBandOcclusion",
    "MovingPatchOcclusion",
    "OccludedFrames",
    "OcclusionExamples",
    "OneOf",
    "hide_moving_patch",
    "hide_rows",
    "keep_window",
]


def keep_window(
    silhouettes: Tensor,
    rows: tuple[int, int],
    columns: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Cuts a window out of all frames and stretches it, as a detector's crop of what is seen.

    Stretched by bilinear interpolation, then cut at half of white: the result is black or white.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        rows: First row that is kept, and the one behind the last.
        columns: First column that is kept, and the one behind the last; ``None`` = all.
        size: Height and width of the result; ``None`` = those of the frames.

    Returns:
        ``[T, H, W]`` of 0 and 1, or of 0 and 255 for uint8, in the same dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, floats are not in [0, 1], or the window is
            empty or outside.

    Example:
        >>> keep_window(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), rows=(1, 2))
        tensor([[[1., 0.],
                 [1., 0.]]])
    """
    check_sequence(silhouettes)
    if silhouettes.is_floating_point():
        # What lies between black and white is cut at a half: floats up to 255 would all be white.
        check_values(silhouettes, 0, 1)
    height, width = silhouettes.shape[1:]
    columns = (0, width) if columns is None else columns
    _check_span("rows", rows, height)
    _check_span("columns", columns, width)
    window = silhouettes[:, slice(*rows), slice(*columns)]
    stretched = F.interpolate(
        window[None].float(), size or (height, width), mode="bilinear", align_corners=False
    )[0]
    white = 255 if silhouettes.dtype == torch.uint8 else 1
    return (stretched > white / 2).to(silhouettes.dtype) * white


def hide_rows(silhouettes: Tensor, rows: tuple[int, int]) -> Tensor:
    """Makes rows of all frames background.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        rows: First row that is hidden, and the one behind the last.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or no rows or rows outside are named.

    Example:
        >>> hide_rows(torch.ones(1, 3, 2), rows=(1, 2))
        tensor([[[1., 1.],
                 [0., 0.],
                 [1., 1.]]])
    """
    check_sequence(silhouettes)
    _check_span("rows", rows, silhouettes.shape[1])
    hidden = silhouettes.clone()
    hidden[:, slice(*rows)] = 0
    return hidden


def hide_moving_patch(silhouettes: Tensor, height: int, width: int, speed: float) -> Tensor:
    """Makes a rectangle background that stands at the bottom left and moves to the right.

    In frame ``t`` it begins at column ``floor(t * speed)``.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        height: Rows from the bottom, 1 to H.
        width: Columns, 1 to W.
        speed: Columns per frame, 0 or more.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or a number is out of range.

    Example:
        >>> hide_moving_patch(torch.ones(2, 1, 3), height=1, width=1, speed=1.0)
        tensor([[[0., 1., 1.]],
        <BLANKLINE>
                [[1., 0., 1.]]])
    """
    check_sequence(silhouettes)
    frames, rows, columns = silhouettes.shape
    for name, value, most in (("height", height, rows), ("width", width, columns)):
        if not 1 <= value <= most:
            raise ValueError(f"expected {name} from 1 to {most} pixels, got {value}")
    if not 0 <= speed < float("inf"):
        raise ValueError(f"expected speed as columns per frame, 0 or more, got {speed}")
    hidden = silhouettes.clone()
    for t in range(frames):
        first = int(t * speed)
        hidden[t, rows - height :, first : first + width] = 0
    return hidden


@dataclass(frozen=True, kw_only=True)
class HalfBodyOcclusion:
    """Hides the top or the bottom of a body: the rest fills the frame, as in a detector's crop.

    Attributes:
        portion: Range of the hidden share of the height, each in [0, 1).

    Raises:
        ValueError: If the range is out of order or bounds.

    Example:
        >>> half = HalfBodyOcclusion(portion=(0.5, 0.5))
        >>> half(torch.ones(1, 4, 2)).sum()
        tensor(8.)
    """

    portion: tuple[float, float] = (0.1, 0.6)

    def __post_init__(self) -> None:
        _check_range("portion", self.portion, 0.0, 0.99)

    def __call__(self, silhouettes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Hides one half of one sequence.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Returns:
            A sequence of the same shape and dtype, black and white.
        """
        check_sequence(silhouettes)
        height = silhouettes.shape[1]
        portion = _draw(self.portion, generator)
        keeps_top = float(torch.rand((), generator=generator)) < 0.5
        return keep_window(silhouettes, _kept_rows(height, portion, keeps_top))


@dataclass(frozen=True, kw_only=True)
class MiddleBandOcclusion:
    """Hides a band in the middle of a body.

    Attributes:
        portion: Range of the hidden share of the height, each in (0, 1].

    Raises:
        ValueError: If the range is out of order or bounds.

    Example:
        >>> MiddleBandOcclusion(portion=(0.5, 0.5))(torch.ones(1, 4, 1)).flatten()
        tensor([1., 0., 0., 1.])
    """

    portion: tuple[float, float] = (0.3, 0.6)

    def __post_init__(self) -> None:
        _check_range("portion", self.portion, 0.01, 1.0)

    def __call__(self, silhouettes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Hides the band of one sequence.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Returns:
            A sequence of the same shape and dtype.
        """
        check_sequence(silhouettes)
        height = silhouettes.shape[1]
        portion = _draw(self.portion, generator)
        first, last = int((1 - portion) * height / 2), int((1 + portion) * height / 2)
        return hide_rows(silhouettes, (first, max(last, first + 1)))


@dataclass(frozen=True, kw_only=True)
class MovingPatchOcclusion:
    """Something low moves past in front of a body, from the left; with full height, a pole.

    Attributes:
        height: Range of its share of the frame's height, each in (0, 1]; ``(1, 1)`` = a pole.
        width: Range of its share of the frame's width, each in (0, 1].
        speed: Range of columns per frame, each 0 or more.

    Raises:
        ValueError: If a range is out of order or bounds.

    Example:
        >>> pole = MovingPatchOcclusion(height=(1, 1), width=(0.5, 0.5), speed=(0, 0))
        >>> pole(torch.ones(1, 2, 4))
        tensor([[[0., 0., 1., 1.],
                 [0., 0., 1., 1.]]])
    """

    height: tuple[float, float] = (0.3, 0.5)
    width: tuple[float, float] = (0.4, 0.6)
    speed: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        _check_range("height", self.height, 0.01, 1.0)
        _check_range("width", self.width, 0.01, 1.0)
        _check_range("speed", self.speed, 0.0, float("inf"))

    def __call__(self, silhouettes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Hides what is behind the patch in one sequence.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Returns:
            A sequence of the same shape and dtype.
        """
        check_sequence(silhouettes)
        height, width = (
            max(1, int(_draw(share, generator) * pixels))
            for share, pixels in zip((self.height, self.width), silhouettes.shape[1:], strict=True)
        )
        return hide_moving_patch(silhouettes, height, width, _draw(self.speed, generator))


Occlusion = Callable[[Tensor, "torch.Generator | None"], Tensor]


class OneOf:
    """Puts at most one kind of occlusion on a clip.

    Published settings: half of the body with chance 0.5 in training and in the benchmark (0.3 for
    DeepGaitV2 on Gait3D), else in full view.

    Args:
        transforms: What may happen, each as likely: ``transform(silhouettes, generator)``.
        chance: That one of them happens, 0 to 1.

    Raises:
        ValueError: If there is no transform, or the chance is out of range.

    Example:
        >>> OneOf([HalfBodyOcclusion()], chance=0.0)(torch.full((1, 2, 2), 0.3)).max()
        tensor(0.3000)
    """

    def __init__(self, transforms: Sequence[Occlusion], chance: float = 0.5) -> None:
        if not transforms or not 0 <= chance <= 1:
            raise ValueError(
                "expected one transform or more and chance in [0, 1], got "
                f"{len(transforms)} and {chance}"
            )
        self.transforms, self.chance = tuple(transforms), chance

    def __call__(self, silhouettes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Occludes one sequence, or leaves it as it is.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Returns:
            A sequence of the same shape and dtype.
        """
        check_sequence(silhouettes)
        if float(torch.rand((), generator=generator)) >= self.chance:
            return silhouettes
        chosen = int(torch.randint(len(self.transforms), (), generator=generator))
        return self.transforms[chosen](silhouettes, generator)


class OccludedFrames(NamedTuple):
    """Frames to train an evaluator on, from :class:`OcclusionExamples`.

    Attributes:
        frames: ``[T, H, W]``, as given.
        types: ``[T]`` int64: 0 = in full view, 1 = the top is seen, 2 = the bottom is seen.
        amounts: ``[T]`` float32, the target.
    """

    frames: Tensor
    types: Tensor
    amounts: Tensor


@dataclass(frozen=True, kw_only=True)
class OcclusionExamples:
    """Makes single frames, each occluded by itself, with what an evaluator should say of them.

    A third of the frames stays in full view, of a third the top is kept, of a third the bottom. As
    upstream, the kept strip also loses half as many columns as it has rows, at both sides of a
    square frame, before it is stretched; narrower frames count as the middle of a square one
    [inferred].

    Source: first stage of RG-Gait (https://arxiv.org/abs/2507.10978), by the code of MimicGait.

    Attributes:
        kept: Range of the kept share of the height, each in (0, 0.9].
        target: What an amount means, ``"hidden"`` or, as upstream, ``"kept"``: the share of the
            height; 0 in full view either way. The amount scales what is added to an embedding, so
            it has to grow with what is hidden [inferred]; for the published shares of 0.4 to 0.6
            the two are alike.
        trim: Cut columns, too; ``False`` = as :class:`HalfBodyOcclusion` hides, for evaluators that
            meet such clips. Shares far above 0.6 leave few columns.

    Raises:
        ValueError: If the range is out of order or bounds, or the target is unknown.

    Example:
        >>> examples = OcclusionExamples()(torch.ones(5, 64, 64), torch.Generator().manual_seed(0))
        >>> examples.frames.shape, examples.types.shape, examples.amounts.shape
        (torch.Size([5, 64, 64]), torch.Size([5]), torch.Size([5]))
    """

    kept: tuple[float, float] = (0.4, 0.6)
    target: str = "hidden"
    trim: bool = True

    def __post_init__(self) -> None:
        _check_range("kept", self.kept, 0.01, 0.9)
        if self.target not in ("hidden", "kept"):
            raise ValueError(f'expected target "hidden" or "kept", got {self.target!r}')

    def __call__(
        self, silhouettes: Tensor, generator: torch.Generator | None = None
    ) -> OccludedFrames:
        """Occludes every frame by itself.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8; of one clip or of several.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Raises:
            TypeError: If it is no tensor, or neither floating point nor uint8.
            ValueError: If the shape is not ``[T, H, W]``.
        """
        check_sequence(silhouettes)
        types = torch.randint(3, (len(silhouettes),), generator=generator)
        shares = torch.tensor([_draw(self.kept, generator) for _ in silhouettes])
        frames = silhouettes.clone()
        height, width = silhouettes.shape[1:]
        for i, (kind, share) in enumerate(zip(types.tolist(), shares.tolist(), strict=True)):
            if kind:
                rows = _kept_rows(height, 1 - share, keeps_top=kind == 1)
                # A square frame of as many rows would keep height - (last - first) columns.
                left = (width - height + rows[1] - rows[0]) // 2 if self.trim else 0
                left = min(max(left, 0), (width - 1) // 2)
                columns = (left, width - left)
                frames[i : i + 1] = keep_window(silhouettes[i : i + 1], rows, columns)
        amounts = shares if self.target == "kept" else 1 - shares
        return OccludedFrames(frames, types, amounts.where(types > 0, 0.0))


def _kept_rows(height: int, portion: float, keeps_top: bool) -> tuple[int, int]:
    """Rows that are seen when ``portion`` of the height is hidden; one at least."""
    if keeps_top:
        return 0, max(1, int((1 - portion) * height))
    return min(int(portion * height), height - 1), height


def _draw(bounds: tuple[float, float], generator: torch.Generator | None) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def _check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    first, last = bounds
    if not low <= first <= last <= high:
        raise ValueError(
            f"expected {name} as two numbers in [{low:g}, {high:g}], the lower first, got {bounds}"
        )


def _check_span(name: str, span: tuple[int, int], count: int) -> None:
    first, last = span
    if not 0 <= first < last <= count:
        raise ValueError(
            f"expected {name} (first, one behind the last) inside 0..{count}, got {span}"
        )
