"""Weather, darkness and things in front of a person.

Source: RobustGait (https://arxiv.org/abs/2511.13065) and its published code
(https://github.com/Reeshoon/RobustGait), which takes fog and rain from Albumentations 1.4.18
(https://github.com/albumentations-team/albumentations, MIT). Fog and rain here follow the same
rules with torch's random numbers: the same strength, other drops and wisps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.corrupt_blur import gaussian_kernel, pad_mirrored
from gaitzoo.data.corruption import Corruption
from gaitzoo.layers.checks import shape_of

__all__ = ["Fog", "LowLight", "Occluder", "Occlusion", "Rain", "Snow", "blob_occluder"]

Occluder: TypeAlias = Callable[[int, int, torch.Generator | None], Tensor]

_SLANT = 10  # pixels that drops lean at most
_DROP_GREY = 200 / 255
_FOG_KERNEL = 25
_FOG_SIGMA = 0.3 * ((_FOG_KERNEL - 1) / 2 - 1) + 0.8
_WHITER = 2.5  # snow: factor on lightness
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


class LowLight(Corruption):
    """A single lamp above the middle of the frame, and darkness farther away.

    Brightness is multiplied by ``strength * (1 - distance / radius)``, at most 1, with distances in
    pixels from the middle of the upper edge. Strength is 5, 4, 3, 2 or 1, so that severity 5 is the
    darkest; with ``upstream=True`` it is the severity itself, as published, and 5 the brightest.
    Whatever lies within ``radius * (1 - 1 / strength)`` stays as it is.

    Args:
        severity: 1 to 5.
        generator: Not used.
        upstream: See above.
        radius: Pixels at which it is dark; 350 is published, for frames of 240 x 320.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Raises:
        TypeError: As for :class:`Corruption`.
        ValueError: As for :class:`Corruption`, or if the radius is not above 0.

    Example:
        >>> float(LowLight(5)(torch.ones(1, 3, 176, 2))[0, 0, 175, 1])
        0.5
    """

    def __init__(
        self,
        severity: int,
        generator: torch.Generator | None = None,
        *,
        upstream: bool = False,
        radius: float = 350.0,
    ) -> None:
        super().__init__(severity, generator, upstream=upstream)
        if not 0 < radius < float("inf"):
            raise ValueError(f"expected a radius above 0 pixels, got {radius!r}")
        self.radius = radius

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        height, width = frames.shape[-2:]
        strength = self.severity if self.upstream else 6 - self.severity
        x = torch.arange(width, dtype=torch.float64) - width // 2
        distance = torch.hypot(x, torch.arange(height, dtype=torch.float64)[:, None])
        light = strength * (1 - (distance / self.radius).clamp(0, 1))
        return frames * light.clamp(0, 1).to(frames)


class Fog(Corruption):
    """Wisps of fog, thickest in the middle; the same in all frames of a clip.

    White disks over shrinking regions, blurred, are blended with the frame. Intensity is drawn from
    0.49, 0.59, 0.69, 0.79 or 0.89 to 0.09 more; opacity is at most 0.06, 0.06, 0.07, 0.07 or 0.08
    of it: a weak corruption. An approximation of Albumentations 1.4.16 to 1.4.18 with other random
    numbers. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> bool(Fog(3)(torch.zeros(2, 3, 64, 48)).max() > 0)
        True
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        return torch.stack([self._covered(clip) for clip in frames])

    def _covered(self, clip: Tensor) -> Tensor:
        intensity = self.row((0.49, 0.59, 0.69, 0.79, 0.89)) + 0.09 * float(self.uniform(1))
        layer = self._layer(clip.shape[-2], clip.shape[-1], intensity).to(clip)
        opacity = layer * intensity * self.row((0.06, 0.06, 0.07, 0.07, 0.08))
        return clip * (1 - opacity) + layer * opacity

    def _layer(self, height: int, width: int, intensity: float) -> Tensor:
        """How much fog there is, ``[H, W]`` in [0, 1]."""
        region = max(1, int(width // 3 * intensity))
        layer = torch.zeros(height, width)
        largest = max(2, int(min(height, width) * 0.1 * intensity))
        y, x = torch.arange(height)[:, None], torch.arange(width)
        rows, columns = height, width
        for _ in range(10):
            if min(rows, columns) <= region:
                break
            count = int(rows * columns / region**2 * intensity * 10)
            room = torch.tensor([2 * (rows // 2) + 1.0, 2 * (columns // 2) + 1.0, 1.0])
            for top, left, size in (self.uniform(count, 3) * room).tolist():
                centre_y = (height - 1) // 2 - rows // 2 + int(top)
                centre_x = (width - 1) // 2 - columns // 2 + int(left)
                smallest = max(1, largest // 2)
                radius = smallest + int(size * (largest - smallest))
                seen_y = slice(max(0, centre_y - radius), max(0, centre_y + radius + 1))
                seen_x = slice(max(0, centre_x - radius), max(0, centre_x + radius + 1))
                off_y, off_x = y[seen_y] - centre_y, x[seen_x] - centre_x
                layer[seen_y, seen_x][off_y**2 + off_x**2 <= radius**2] = 1
            rows, columns = int(rows * 0.9), int(columns * 0.9)
        bell = gaussian_kernel(_FOG_KERNEL, _FOG_SIGMA).float()
        padded = pad_mirrored(layer, _FOG_KERNEL // 2, _FOG_KERNEL // 2)[None, None]
        return F.conv2d(F.conv2d(padded, bell[None, None, None]), bell[None, None, :, None])[0, 0]


class Rain(Corruption):
    """Falling drops before a darker, blurred scene.

    One drop for every 770, 770, 600, 600 or 500 pixels, a grey line 10, 10, 20, 30 or 60 pixels
    long; a box blur of 2, 4, 5, 6 or 7 pixels; brightness times 0.7, 0.7, 0.6, 0.55 or 0.5. The
    slant is drawn, -10 to 10 pixels for a drop. Drops fall by their length from frame to frame;
    with ``upstream=True`` slant and drops are drawn anew for every frame, as published. An
    approximation of Albumentations 1.4.16 to 1.4.18. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> bool(Rain(3)(torch.ones(2, 3, 64, 48)).max() <= 0.6)
        True
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        height, width = frames.shape[-2:]
        rained = frames.clone()
        for clip in rained:
            slant, starts = self._draw(height, width)
            for number, frame in enumerate(clip):
                if self.upstream and number:
                    slant, starts = self._draw(height, width)
                elif number:
                    fallen = starts + torch.tensor([self._length, slant])
                    starts = fallen.remainder(torch.tensor([height, width]))
                self._draw_drops(frame, slant, starts)
        size = int(self.row((2, 4, 5, 6, 7)))
        padded = pad_mirrored(rained.flatten(0, 2), size // 2, size - 1 - size // 2)
        blurred = F.avg_pool2d(padded, size, stride=1).reshape(frames.shape)
        return blurred * self.row((0.7, 0.7, 0.6, 0.55, 0.5))

    @property
    def _length(self) -> int:
        return int(self.row((10, 10, 20, 30, 60)))

    def _draw(self, height: int, width: int) -> tuple[int, Tensor]:
        """The slant, and rows and columns ``[drops, 2]`` where drops begin."""
        slant = int(2 * _SLANT * float(self.uniform(1)) - _SLANT)
        count = height * width // int(self.row((770, 770, 600, 600, 500)))
        room = torch.tensor([max(height - self._length, 0) + 1.0, max(width - abs(slant), 0) + 1.0])
        starts = (self.uniform(count, 2) * room).long()
        starts[:, 1] += max(0, -slant)
        return slant, starts

    def _draw_drops(self, frame: Tensor, slant: int, starts: Tensor) -> None:
        height, width = frame.shape[-2:]
        along = torch.arange(self._length + 1)
        y = starts[:, :1] + along
        x = starts[:, 1:] + (along * slant / self._length).round().long()
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        frame[:, y[inside], x[inside]] = _DROP_GREY


class Snow(Corruption):
    """Snow on the ground: the lower 40 % of the rows become 2.5 times lighter, bright spots aside.

    Lightness (of hue, lightness, saturation) below 91, 98, 104, 111 or 117 of 255 is multiplied.
    With ``upstream=True`` all colours pass through 8-bit hue, lightness and saturation, as
    published, which moves them by a few levels. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> Snow(1)(torch.full((1, 3, 5, 1), 0.25))[0, 0, :, 0]
        tensor([0.2500, 0.2500, 0.2500, 0.6250, 0.6250])
    """

    rounds = True

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        point = 127.5 * self.row((0.05, 0.1, 0.15, 0.2, 0.25)) + 85
        colours = frames.expand(-1, -1, 3, -1, -1)
        if self.upstream:
            # Which of two levels a half becomes depends on how bytes are scaled.
            colours = (colours * 255).round() * (1 / 255)
        hue, light, saturation = _to_hls(colours)
        if self.upstream:
            hue, light, saturation = _whole(hue, 180), _whole(light, 255), _whole(saturation, 255)
        snowed = light * 255 < point
        snowed[..., : int(0.6 * frames.shape[-2]), :] = False
        whiter = (light * _WHITER).clamp(max=1)
        if self.upstream:
            whiter = (whiter * 255 + 1e-3).floor() / 255
        result = _from_hls(hue, torch.where(snowed, whiter, light), saturation)
        if not self.upstream:
            result = torch.where(snowed[:, :, None], result, frames)
        return result[:, :, : frames.shape[2]]


class Occlusion(Corruption):
    """Something that stands in front, in the same place in all frames.

    Args:
        severity: 1 to 5.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.
        upstream: Not used.
        occluder: What stands there: ``[4, h, w]``, red, green, blue and opacity as floats in
            [0, 1] or uint8, resized to the frame (bicubic, smoothed); or a function that is called
            once per clip with height, width and generator and gives such a tensor; ``None`` = grey
            blobs that cover 10, 20, 30, 40 or 50 % of the frame [inferred: the published
            lists of objects cut from COCO pictures are not public].

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Raises:
        TypeError: As for :class:`Corruption`.
        ValueError: As for :class:`Corruption`, or if the occluder is no such tensor.

    Example:
        >>> wall = torch.ones(4, 2, 2)
        >>> wall[3, :, 1] = 0
        >>> Occlusion(1, occluder=wall)(torch.zeros(1, 3, 2, 2))[0, 0]
        tensor([[1., 0.],
                [1., 0.]])
    """

    rounds = True

    def __init__(
        self,
        severity: int,
        generator: torch.Generator | None = None,
        *,
        upstream: bool = False,
        occluder: Tensor | Occluder | None = None,
    ) -> None:
        super().__init__(severity, generator, upstream=upstream)
        self.occluder = occluder
        if isinstance(occluder, Tensor):
            _check_occluder(occluder)

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        return torch.stack([self._covered(clip) for clip in frames])

    def _covered(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[-2:]
        thing = self.occluder
        if thing is None:
            thing = blob_occluder(height, width, self.generator, share=self.row(_SHARES))
        elif not isinstance(thing, Tensor):
            thing = thing(height, width, self.generator)
            _check_occluder(thing)
        thing = thing.float() / 255 if thing.dtype == torch.uint8 else thing.float()
        if thing.shape[1:] != (height, width):
            thing = F.interpolate(
                thing[None], (height, width), mode="bicubic", align_corners=False, antialias=True
            )[0].clamp(0, 1)
        colour, opacity = thing[:3].to(clip), thing[3:].to(clip)
        if clip.shape[1] == 1:
            colour = colour.mean(0, keepdim=True)
        return clip * (1 - opacity) + colour * opacity


def blob_occluder(
    height: int,
    width: int,
    generator: torch.Generator | None = None,
    *,
    share: float,
    colour: float | None = None,
) -> Tensor:
    """Blobs that cover a share of a frame.

    Args:
        height: Of the frame.
        width: Of the frame.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.
        share: Of the pixels, from 0 to 1.
        colour: Grey level in [0, 1]; ``None`` = a random one.

    Returns:
        ``[4, height, width]`` floats in [0, 1]: red, green, blue, opacity (0 or 1).

    Raises:
        ValueError: If the share is not in [0, 1].

    Example:
        >>> int(blob_occluder(10, 10, share=0.3)[3].sum())
        30
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of the frame in [0, 1], got {share!r}")
    coarse = torch.randn(1, 1, 4, 4, generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).flatten()
    covered = torch.zeros(height * width)
    covered[field.topk(round(share * height * width)).indices] = 1
    shade = torch.rand(1, generator=generator) if colour is None else torch.tensor([colour])
    return torch.cat([shade.expand(3, height * width), covered[None]]).reshape(4, height, width)


def _check_occluder(occluder: Tensor) -> None:
    if not isinstance(occluder, Tensor):
        raise ValueError(f"expected an occluder [4, h, w], got {type(occluder).__name__}")
    if occluder.ndim != 3 or occluder.shape[0] != 4 or occluder.numel() == 0:
        raise ValueError(
            f"expected an occluder [4, h, w] (red, green, blue, opacity), got {shape_of(occluder)}"
        )


def _whole(x: Tensor, steps: int) -> Tensor:
    return (x * steps).round() / steps


def _to_hls(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, lightness and saturation ``[N, T, H, W]`` in [0, 1] of ``[N, T, 3, H, W]``."""
    red, green, blue = frames.unbind(2)
    high, low = frames.amax(2), frames.amin(2)
    spread = high - low
    light = (high + low) / 2
    # Where a divisor is 0 the spread is, too.
    grey = spread == 0
    safe = spread.masked_fill(grey, 1)
    saturation = spread / (1 - (2 * light - 1).abs()).masked_fill(grey, 1)
    hue = torch.where(high == red, (green - blue) / safe, (blue - red) / safe + 2)
    hue = torch.where(
        (high == blue) & (high != red) & (high != green), (red - green) / safe + 4, hue
    )
    return (hue / 6).remainder(1).masked_fill(grey, 0), light, saturation


def _from_hls(hue: Tensor, light: Tensor, saturation: Tensor) -> Tensor:
    """The way back, ``[N, T, 3, H, W]``."""
    reach = saturation * torch.minimum(light, 1 - light)
    colours = []
    for shift in (0, 8, 4):
        place = (shift + 12 * hue).remainder(12)
        peak = torch.minimum(place - 3, 9 - place).clamp(-1, 1)
        colours.append(light - reach * peak)
    return torch.stack(colours, 2)
