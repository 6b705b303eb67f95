"""Signals as images, for networks that read images: angular fields, spectrograms, maps of a fibre.

As distributed acoustic sensing (a fibre as a line of vibration sensors) is shown to a vision
transformer in https://arxiv.org/abs/2508.04316, known by its abstract: a reconstruction, sizes and
scales are inferred. The angular field is that of https://arxiv.org/abs/1506.00327, equation 5.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_values, shape_of

__all__ = ["GramianAngularField", "LogSpectrogram", "SpaceTimeMap", "unit_range"]


class GramianAngularField(nn.Module):
    """A series as a square image: the sums (or differences) of angles that its values stand for.

    Every series is scaled to [-1, 1]. ``"summation"`` (GASF) is
    ``x_i x_j - sqrt(1 - x_i^2) sqrt(1 - x_j^2)``, ``"difference"`` (GADF)
    ``sqrt(1 - x_i^2) x_j - x_i sqrt(1 - x_j^2)``.

    Source: https://arxiv.org/abs/1506.00327, equations 5 and 6.

    Args:
        kind: ``"summation"`` or ``"difference"``.
        size: Rows and columns of the image: means of neighbouring values come first where the
            series is longer. ``None`` = as many as values.

    Shapes:
        series: ``[..., T]``, finite floats.
        returns: ``[..., size, size]`` in [-1, 1]. A constant series counts as zeros.

    Raises:
        ValueError: If ``kind`` is unknown, or there are fewer values than ``size``.
        TypeError: If the series holds no floats.

    Example:
        >>> field = GramianAngularField()(torch.tensor([0.0, 1.0, 2.0]))
        >>> field.diagonal().tolist()  # 2 x^2 - 1
        [1.0, -1.0, 1.0]

        In front of any network of images:

        >>> network = torch.nn.Sequential(GramianAngularField(size=16), torch.nn.Conv2d(1, 4, 3))
        >>> network(torch.rand(2, 1, 100)).shape
        torch.Size([2, 4, 14, 14])
    """

    def __init__(
        self, kind: Literal["summation", "difference"] = "summation", size: int | None = None
    ) -> None:
        super().__init__()
        if kind not in ("summation", "difference"):
            raise ValueError(f'expected kind "summation" or "difference", got {kind!r}')
        if size is not None:
            check_size(size=size)
        self.kind, self.size = kind, size

    def forward(self, series: Tensor) -> Tensor:
        """Returns the images."""
        _check_signal(series, 1)
        if self.size is not None:
            if series.shape[-1] < self.size:
                raise ValueError(
                    f"expected series of at least {self.size} values, got {shape_of(series)}"
                )
            flat = F.adaptive_avg_pool1d(series.reshape(-1, 1, series.shape[-1]), self.size)
            series = flat.reshape(*series.shape[:-1], self.size)
        x = 2 * unit_range(series, axes=1) - 1
        x = x.masked_fill(series.amax(-1, keepdim=True) == series.amin(-1, keepdim=True), 0)
        sine = (1 - x.square()).clamp(min=0).sqrt()
        if self.kind == "summation":
            return x[..., :, None] * x[..., None, :] - sine[..., :, None] * sine[..., None, :]
        return sine[..., :, None] * x[..., None, :] - x[..., :, None] * sine[..., None, :]


class LogSpectrogram(nn.Module):
    """Logarithm of the size of a short-time Fourier transform, with a Hann window.

    Args:
        n_fft: Values of a window.
        hop: Values from one window to the next.
        floor: Added before the logarithm: what is fainter shows no more.

    Shapes:
        series: ``[..., T]``, finite floats, at least ``n_fft`` values.
        returns: ``[..., n_fft / 2 + 1, 1 + (T - n_fft) / hop]`` (both rounded down): frequencies
            from low to high, then time.

    Raises:
        ValueError: If an argument is no positive number, or the series is too short.
        TypeError: If the series holds no floats.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 4 * torch.arange(320) / 32)
        >>> image = LogSpectrogram(n_fft=32, hop=8)(tone)
        >>> image.shape, image.mean(1).argmax().item()
        (torch.Size([17, 37]), 4)
        >>> network = nn.Sequential(LogSpectrogram(n_fft=32, hop=8), nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> network(tone.view(1, 1, 320)).shape
        torch.Size([1, 4, 15, 35])
    """

    window: Tensor

    def __init__(self, n_fft: int = 256, hop: int = 64, floor: float = 1e-6) -> None:
        super().__init__()
        check_size(n_fft=n_fft, hop=hop)
        if not floor > 0:
            raise ValueError(f"expected floor as a positive number, got {floor!r}")
        self.n_fft, self.hop, self.floor = n_fft, hop, floor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        """Returns the images."""
        _check_signal(series, 1)
        if series.shape[-1] < self.n_fft:
            raise ValueError(
                f"expected series of at least {self.n_fft} values, got {shape_of(series)}"
            )
        found = torch.stft(
            series.reshape(-1, series.shape[-1]),
            self.n_fft,
            self.hop,
            window=self.window.to(series),
            center=False,
            return_complex=True,
        )
        return (found.abs() + self.floor).log().reshape(*series.shape[:-1], *found.shape[1:])


class SpaceTimeMap(nn.Module):
    """Signals of many places as one image: each place standardised, then resized.

    Filter to the band of interest first.

    Args:
        size: Rows (places) and columns (time) of the image.
        eps: Least deviation, so that a silent place stays near zero.

    Shapes:
        signals: ``[..., places, T]``, finite floats.
        returns: ``[..., *size]``.

    Raises:
        ValueError: If an argument is no positive number, or axes do not fit.
        TypeError: If the signals are no floats.

    Example:
        >>> SpaceTimeMap((224, 224))(torch.randn(2, 1, 40, 1000)).shape
        torch.Size([2, 1, 224, 224])
        >>> network = nn.Sequential(SpaceTimeMap((16, 32)), nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> network(torch.randn(2, 1, 40, 1000)).shape
        torch.Size([2, 4, 14, 30])
    """

    def __init__(self, size: tuple[int, int] = (224, 224), eps: float = 1e-6) -> None:
        super().__init__()
        rows, columns = size
        check_size(rows=rows, columns=columns)
        self.size, self.eps = (rows, columns), eps

    def forward(self, signals: Tensor) -> Tensor:
        """Returns the images."""
        _check_signal(signals, 2)
        mean = signals.mean(-1, keepdim=True)
        deviation = signals.std(-1, keepdim=True, unbiased=False).clamp(min=self.eps)
        images = ((signals - mean) / deviation).reshape(-1, 1, *signals.shape[-2:])
        images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return images.reshape(*signals.shape[:-2], *self.size)


def unit_range(images: Tensor, axes: int = 2) -> Tensor:
    """Scales every image to [0, 1], as models of ``images`` read them.

    Args:
        images: ``[..., H, W]``, finite floats.
        axes: Axes from the last that are scaled together.

    Returns:
        The same shape; zeros where all values are equal.

    Raises:
        ValueError: If there are fewer axes, or no values.
        TypeError: If they are no floats.

    Example:
        >>> unit_range(torch.tensor([[-2.0, 0.0], [1.0, 2.0]]))
        tensor([[0.0000, 0.5000],
                [0.7500, 1.0000]])
    """
    _check_signal(images, axes)
    last = tuple(range(-axes, 0))
    low, high = images.amin(last, keepdim=True), images.amax(last, keepdim=True)
    span = (high - low).masked_fill(high == low, 1)
    return (images - low) / span


def _check_signal(x: Tensor, axes: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"expected a tensor of floats, got {kind}; convert with .float()")
    if x.ndim < axes or not x.numel():
        raise ValueError(f"expected {axes} axes or more and a value, got {shape_of(x)}")
    check_values(x, None, None, "signals")
