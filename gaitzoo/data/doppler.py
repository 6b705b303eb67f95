"""From a Doppler-time map of a walking person to the image that a network reads.

Source: https://arxiv.org/abs/2507.22567 (radar-based human motion direction determination).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.data.clahe import equalize_tiles
from gaitzoo.data.feature_linking import FeatureLinkingModel, check_maps, min_max, to_bytes
from gaitzoo.layers.checks import check_size

__all__ = ["DopplerTimeMapPreprocessor"]

_COLOURS = 64


class DopplerTimeMapPreprocessor(nn.Module):
    """Enhances Doppler-time maps and colours them.

    Source: https://arxiv.org/abs/2507.22567, authors' code, which does in this order: values to
    [0, 1]; local contrast (:mod:`gaitzoo.data.clahe`); what lies below a share of the highest value
    becomes 0; rounding to 0 or 1, because the authors' conversion to bytes does not scale; feature
    linking; resizing to ``size`` pixels (bicubic, averaged where it shrinks); colours. Resizing to
    ``image_size`` is bilinear [inferred].

    Args:
        threshold: Share of the highest value below which nothing is kept, 0 to 1.
        size: Rows and columns after feature linking.
        clahe: Raise local contrast first.
        colormap: ``"jet"``, or ``None`` = grey, one channel.
        image_size: Rows and columns of the result; ``None`` = ``size``.

    Shapes:
        maps: ``[N, 1, H, W]`` or one map ``[H, W]``, finite numbers of any range, rows Doppler,
            columns time.
        returns: ``[N, 3, image_size, image_size]`` float32 in [0, 1], red, green and blue (or one
            channel); without N for one map.

    Raises:
        TypeError: If the maps are no tensor of numbers.
        ValueError: If axes do not fit, a value is not finite, or an argument has none of the values
            named here.

    Example:
        >>> preprocess = DopplerTimeMapPreprocessor(image_size=224)
        >>> preprocess(torch.rand(40, 30)).shape
        torch.Size([3, 224, 224])
    """

    def __init__(
        self,
        threshold: float = 0.62,
        size: int = 64,
        clahe: bool = True,
        colormap: str | None = "jet",
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        check_size(size=size, image_size=size if image_size is None else image_size)
        if not 0 <= threshold <= 1:
            raise ValueError(f"expected threshold from 0 to 1, got {threshold!r}")
        if colormap not in ("jet", None):
            raise ValueError(f'expected colormap as "jet" or None, got {colormap!r}')
        self.threshold, self.size, self.clahe, self.colormap = threshold, size, clahe, colormap
        self.image_size = size if image_size is None else image_size
        self.feature_linking = FeatureLinkingModel()

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return (
            f"threshold={self.threshold}, size={self.size}, clahe={self.clahe}, "
            f"colormap={self.colormap!r}, image_size={self.image_size}"
        )

    def kept(self, maps: Tensor) -> Tensor:
        """The pixels that feature linking sees as bright.

        Args:
            maps: ``[N, 1, H, W]``.

        Returns:
            The same shape, uint8, 0 or 1.
        """
        x = min_max(check_maps(maps, "Doppler-time maps"))
        if self.clahe:
            x = equalize_tiles(x)
        above = x >= self.threshold * x.amax((-2, -1), True)
        return (above & (x >= 0.5)).to(torch.uint8)

    @torch.no_grad()
    def forward(self, maps: Tensor) -> Tensor:
        """Returns the coloured images."""
        if isinstance(maps, Tensor) and maps.ndim == 2:
            return self(maps[None, None])[0]
        x = self.feature_linking(self.kept(maps))
        if tuple(x.shape[2:]) != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
            x = to_bytes(x.clamp(0, 1)).float() / 255
        if self.colormap is not None:
            x = _coloured(min_max(x))
        if self.image_size != self.size:
            x = F.interpolate(x, (self.image_size,) * 2, mode="bilinear", antialias=True)
        return x.clamp(0, 1)


def jet_colours() -> Tensor:
    """MATLAB's colour table ``jet(64)``: ``[64, 3]`` float64, red, green and blue in [0, 1].

    Example:
        >>> jet_colours()[[0, -1]].tolist()
        [[0.0, 0.0, 0.5625], [0.5, 0.0, 0.0]]
    """
    steps = torch.arange(1, _COLOURS + 1, dtype=torch.float64)
    rising = [(steps - start) / 16 for start in (24, 8, -8)]
    falling = [(end - steps) / 16 for end in (72, 56, 40)]
    ramps = [torch.minimum(up, down) for up, down in zip(rising, falling, strict=True)]
    return torch.stack(ramps, dim=1).clamp(0, 1)


def _coloured(grey: Tensor) -> Tensor:
    """``[N, 1, H, W]`` in [0, 1] to red, green and blue as bytes would hold them."""
    index = ((_COLOURS - 1) * grey[:, 0].double() + 0.5).floor().long()
    table = to_bytes(jet_colours()).float() / 255
    return table.to(grey)[index].movedim(-1, 1).contiguous()
