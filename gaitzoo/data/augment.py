"""Training augmentations for silhouettes, synthetic or real; a whole sequence at a time.

Every function takes one sequence ``[T, H, W]``, float in [0, 1] or uint8 in 0..255, and returns
one of the same shape and dtype. What a camera or a surrounding causes (mirroring, tilt,
perspective, something in front) is the same in all frames; what a segmentation causes (the
outline) changes from frame to frame. Random numbers come from the ``generator`` alone.

Example:
    >>> walk = torch.randint(256, (30, 64, 44), dtype=torch.uint8)
    >>> RandomAugment()(walk, torch.Generator().manual_seed(0)).shape
    torch.Size([30, 64, 44])
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import shape_of

__all__ = [
    "RandomAugment",
    "change_perspective",
    "coarsen",
    "erase_rectangle",
    "flip_horizontally",
    "rotate",
    "roughen_outline",
]


def flip_horizontally(silhouettes: Tensor) -> Tensor:
    """Mirrors all frames left to right: the walk seen from the other side.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``.

    Example:
        >>> flip_horizontally(torch.tensor([[[0.0, 0.5, 1.0]]]))
        tensor([[[1.0000, 0.5000, 0.0000]]])
    """
    check_sequence(silhouettes)
    return silhouettes.flip(2)


def rotate(silhouettes: Tensor, degrees: float) -> Tensor:
    """Turns all frames about their centre, as a tilted camera does.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        degrees: Angle, clockwise, -180 to 180.

    Returns:
        A sequence of the same shape and dtype; what turns in from outside is background.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or the angle is out of range.

    Example:
        >>> top = torch.zeros(1, 3, 3)
        >>> top[0, 0, 1] = 1
        >>> rotate(top, 90.0)[0, 1].round()
        tensor([0., 0., 1.])
    """
    check_sequence(silhouettes)
    if not -180.0 <= degrees <= 180.0:
        raise ValueError(f"expected degrees in -180..180, got {degrees}; take it modulo 360")
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    aspect = silhouettes.shape[1] / silhouettes.shape[2]
    # From a pixel of the result to its source, which is the turn back, in units of half sides.
    to_source = torch.tensor(
        [[cosine, sine * aspect, 0.0], [-sine / aspect, cosine, 0.0], [0.0, 0.0, 1.0]]
    )
    return _warp(silhouettes, to_source)


def change_perspective(silhouettes: Tensor, corner_shifts: Tensor) -> Tensor:
    """Moves the corners of all frames, as another place or tilt of the camera does.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        corner_shifts: ``[4, 2]``, how far the top left, top right, bottom left and bottom right
            corner of the result lie inside (positive) or outside the source, as fractions of
            width and height, each above -0.25 and below 0.25, where no corner can fold over. 0.1
            everywhere magnifies.

    Returns:
        A sequence of the same shape and dtype; what comes in from outside is background.

    Raises:
        TypeError: If the silhouettes are no tensor, or neither floating point nor uint8.
        ValueError: If a shape does not fit, or a shift is out of range.

    Example:
        >>> walk = torch.rand(5, 64, 44)
        >>> torch.allclose(change_perspective(walk, torch.zeros(4, 2)), walk, atol=1e-4)
        True
    """
    check_sequence(silhouettes)
    corner_shifts = torch.as_tensor(corner_shifts)
    if corner_shifts.shape != (4, 2):
        raise ValueError(
            f"expected corner_shifts [4, 2], got {shape_of(corner_shifts)}; one (x, y) per corner: "
            "top left, top right, bottom left, bottom right"
        )
    if not bool((corner_shifts.abs() < 0.25).all()):
        raise ValueError(
            "expected corner_shifts between -0.25 and 0.25, fractions of width and height, got "
            f"{corner_shifts.tolist()}"
        )
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    moved = corners * (1 - 2 * corner_shifts.float().cpu())
    return _warp(silhouettes, _homography(corners, moved))


def erase_rectangle(
    silhouettes: Tensor, top: float, left: float, height: float, width: float
) -> Tensor:
    """Makes a rectangle background in all frames: something stands in front, or is cut off.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        top: Upper edge, fraction of the frame's height, 0 to 1.
        left: Left edge, fraction of the frame's width, 0 to 1.
        height: Fraction of the frame's height, 0 to 1; what lies outside is cut.
        width: Fraction of the frame's width, 0 to 1.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or a fraction is out of range.

    Example:
        >>> erase_rectangle(torch.ones(1, 2, 4), top=0.5, left=0.0, height=0.5, width=0.5)
        tensor([[[1., 1., 1., 1.],
                 [0., 0., 1., 1.]]])
    """
    check_sequence(silhouettes)
    for name, value in (("top", top), ("left", left), ("height", height), ("width", width)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"expected {name} in [0, 1], a fraction of the frame, got {value}")
    rows, columns = silhouettes.shape[1:]
    erased = silhouettes.clone()
    erased[
        :,
        round(top * rows) : round((top + height) * rows),
        round(left * columns) : round((left + width) * columns),
    ] = 0
    return erased


def roughen_outline(
    silhouettes: Tensor, strength: float, generator: torch.Generator | None = None
) -> Tensor:
    """Lets the outline wander, anew in each frame, as a poor segmentation does.

    A smooth random field is added to the blurred frame, which is then cut at one half with an edge
    about a pixel wide. Background and body farther than two pixels from an outline stay as they
    are.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        strength: 0 (only blurred and sharpened) to 1 (about two pixels in and out).
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or the strength is out of range.

    Example:
        >>> roughen_outline(torch.zeros(3, 64, 44), 1.0).max()
        tensor(0.)
    """
    check_sequence(silhouettes)
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"expected strength in [0, 1], got {strength}")
    frames, height, width = silhouettes.shape
    coarse = torch.randn(frames, 1, height // 4 + 2, width // 4 + 2, generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    # Less than 0.4, beyond which plain background and plain body would no longer stay.
    field = (0.25 * strength * field).clamp(-0.399, 0.399).to(silhouettes.device)
    values = F.pad(_to_float(silhouettes)[:, None], (2, 2, 2, 2), mode="replicate")
    blurred = F.avg_pool2d(values, kernel_size=5, stride=1)
    # The blur turns an edge into a ramp of 1/5 per pixel; 5 makes it one pixel wide again.
    return _from_float(((blurred + field - 0.5) * 5 + 0.5).clamp(0, 1)[:, 0], silhouettes)


def coarsen(silhouettes: Tensor, factor: float) -> Tensor:
    """Shrinks all frames and enlarges them again, as a camera farther away sees them.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
        factor: How many times coarser, 1 (unchanged) to 8.

    Returns:
        A sequence of the same shape and dtype.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, or the factor is out of range.

    Example:
        >>> coarsen(torch.tensor([[[0.0, 1.0, 0.0, 1.0]]]), 4.0)
        tensor([[[0.5000, 0.5000, 0.5000, 0.5000]]])
    """
    check_sequence(silhouettes)
    if not 1.0 <= factor <= 8.0:
        raise ValueError(f"expected factor in [1, 8], 1 changes nothing, got {factor}")
    size = silhouettes.shape[1:]
    small = [max(1, round(side / factor)) for side in size]
    values = F.interpolate(_to_float(silhouettes)[None], small, mode="area")
    values = F.interpolate(values, size, mode="bilinear", align_corners=False)[0]
    return _from_float(values, silhouettes)


@dataclass(frozen=True, kw_only=True)
class RandomAugment:
    """Applies each augmentation with a chance of its own, in the order of the fields.

    Turn off ``flip`` where left and right tell people apart and all cameras see the same side.

    Attributes:
        flip: Chance of :func:`flip_horizontally`, like all chances 0 to 1.
        rotate: Chance of :func:`rotate` by up to ``max_degrees`` to either side.
        perspective: Chance of :func:`change_perspective` by up to ``max_shift`` per corner.
        erase: Chance of :func:`erase_rectangle`, of up to ``max_erased`` of height and width.
        roughen: Chance of :func:`roughen_outline`, of any strength up to 1.
        coarsen: Chance of :func:`coarsen`, by up to ``max_coarsening``.
        max_degrees: 0 to 180.
        max_shift: 0 up to and without 0.25.
        max_erased: 0 to 1.
        max_coarsening: 1 to 8.

    Raises:
        ValueError: If a field is out of range.

    Example:
        >>> mirrored = RandomAugment(flip=1, rotate=0, perspective=0, erase=0, roughen=0)
        >>> mirrored(torch.tensor([[[0.0, 0.5, 1.0]]]))
        tensor([[[1.0000, 0.5000, 0.0000]]])
    """

    flip: float = 0.5
    rotate: float = 0.2
    perspective: float = 0.2
    erase: float = 0.2
    roughen: float = 0.2
    coarsen: float = 0.0
    max_degrees: float = 10.0
    max_shift: float = 0.1
    max_erased: float = 0.3
    max_coarsening: float = 3.0

    def __post_init__(self) -> None:
        ranges = {
            "max_degrees": (0.0, 180.0),
            "max_shift": (0.0, 0.249),
            "max_coarsening": (1.0, 8.0),
        }
        for field in dataclasses.fields(self):
            value, (low, high) = getattr(self, field.name), ranges.get(field.name, (0.0, 1.0))
            if not low <= value <= high:
                raise ValueError(
                    f"expected RandomAugment.{field.name} in [{low:g}, {high:g}], got {value}"
                )

    def __call__(self, silhouettes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augments one sequence.

        Args:
            silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.
            generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

        Returns:
            A sequence of the same shape and dtype.

        Raises:
            TypeError: If it is no tensor, or neither floating point nor uint8.
            ValueError: If the shape is not ``[T, H, W]``.
        """
        check_sequence(silhouettes)
        chances = torch.tensor([self.flip, self.rotate, self.perspective, self.erase, self.roughen])
        happens = (torch.rand(5, generator=generator) < chances).tolist()
        if happens[0]:
            silhouettes = flip_horizontally(silhouettes)
        if happens[1]:
            turn = 2 * float(torch.rand((), generator=generator)) - 1
            silhouettes = rotate(silhouettes, self.max_degrees * turn)
        if happens[2]:
            shifts = 2 * torch.rand(4, 2, generator=generator) - 1
            silhouettes = change_perspective(silhouettes, self.max_shift * shifts)
        if happens[3]:
            top, left, height, width = torch.rand(4, generator=generator).tolist()
            height, width = height * self.max_erased, width * self.max_erased
            silhouettes = erase_rectangle(
                silhouettes, top * (1 - height), left * (1 - width), height, width
            )
        if happens[4]:
            strength = float(torch.rand((), generator=generator))
            silhouettes = roughen_outline(silhouettes, strength, generator)
        # Drawn only where it can happen: without it the numbers stay those of before.
        if self.coarsen and float(torch.rand((), generator=generator)) < self.coarsen:
            factor = 1 + (self.max_coarsening - 1) * float(torch.rand((), generator=generator))
            silhouettes = coarsen(silhouettes, factor)
        return silhouettes


def check_sequence(silhouettes: Tensor) -> None:
    """Raises unless it is one sequence that this file's functions take.

    Args:
        silhouettes: ``[T, H, W]``, float in [0, 1] or uint8.

    Raises:
        TypeError: If it is no tensor, or neither floating point nor uint8.
        ValueError: If the shape is not ``[T, H, W]``, none of them 0.
    """
    if not isinstance(silhouettes, Tensor):
        raise TypeError(
            f"expected silhouettes as a torch.Tensor, got {type(silhouettes).__name__}; "
            "use torch.as_tensor"
        )
    if not (silhouettes.is_floating_point() or silhouettes.dtype == torch.uint8):
        raise TypeError(
            "expected silhouettes as floats in [0, 1] or as uint8 in 0..255, got "
            f"{silhouettes.dtype}; convert with .float() (masks of 0 and 1) or .to(torch.uint8)"
        )
    if silhouettes.ndim != 3 or silhouettes.numel() == 0:
        raise ValueError(
            f"expected one sequence [T, H, W], none of them 0, got {shape_of(silhouettes)}; "
            "augment the sequences of a batch one by one"
        )


def _to_float(silhouettes: Tensor) -> Tensor:
    return silhouettes.float() / 255 if silhouettes.dtype == torch.uint8 else silhouettes.float()


def _from_float(values: Tensor, like: Tensor) -> Tensor:
    if like.dtype == torch.uint8:
        return (values * 255).round().to(torch.uint8)
    return values.to(like.dtype)


def _homography(points: Tensor, images: Tensor) -> Tensor:
    """The ``[3, 3]`` matrix that takes four points ``[4, 2]`` to their images ``[4, 2]``."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points.tolist(), images.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    # Float64: the equations of small shifts are nearly those of no shift.
    entries = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    )
    return torch.cat([entries, entries.new_ones(1)]).reshape(3, 3).float()


def _warp(silhouettes: Tensor, to_source: Tensor) -> Tensor:
    """Samples every pixel at ``to_source`` of its place; edges lie at -1 and 1 on both axes."""
    height, width = silhouettes.shape[1:]
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    places = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], 2)
    sources = F.pad(places, (0, 1), value=1.0) @ to_source.T
    grid = (sources[..., :2] / sources[..., 2:]).to(silhouettes.device)
    # The frames share the grid, so they go through as channels of one picture.
    values = F.grid_sample(_to_float(silhouettes)[None], grid[None], align_corners=False)[0]
    return _from_float(values, silhouettes)
