"""Networks that see horizontal bands of a frame, each alone, as an augmentation.

Source: FoundationGait, https://arxiv.org/abs/2512.00691, and the authors' configurations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes, shape_of

__all__ = ["PartCropEncoder", "encode_crops"]


class PartCropEncoder(nn.Module):
    """Runs a network on horizontal bands of the frames and puts its maps together again.

    The batch is cut into as many equal chunks as there are ``crops``; chunk j, in one call of the
    network, sees bands of ``H / crops[j]`` rows, which are sequences of their own. The first half
    of a chunk is cut from its top; the second half is moved by half a band, with black rows above
    and below, so that it gives a band more, and loses the rows of its map that came of these. With
    ``crops[j] = 1`` a chunk is seen as it is. In training, batch norms see one chunk at a time.

    Source: FoundationGait (https://arxiv.org/abs/2512.00691) and the authors' configurations.

    Args:
        trunk: Takes ``[N, C, T, H, W]`` and ``lengths`` (``[N]`` or ``None``) and gives a map
            ``[N, C', T', H / stride, W']`` for every height H.
        stride: Rows of the input that become one row of the map.

    Shapes:
        x: ``[N, C, T, H, W]``, any values; ``2 * crop * stride`` divides H.
        crops: Numbers of bands, one per chunk. As many as there are must divide N, and chunks of
            several bands have an even number of sequences.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C', T', H / stride, W']``, sequences in their order.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If batch, height or crops do not fit, or the network gives another height.

    Example:
        >>> import gaitzoo
        >>> trunk = gaitzoo.ResidualBackbone("p3d", (1, 1, 1, 1), (4, 4, 8, 8))
        >>> PartCropEncoder(trunk)(torch.rand(8, 1, 3, 64, 44), (8, 4, 2, 1)).shape
        torch.Size([8, 8, 3, 16, 11])
    """

    def __init__(self, trunk: nn.Module, stride: int = 4) -> None:
        super().__init__()
        check_size(stride=stride)
        self.trunk, self.stride = trunk, stride

    def forward(self, x: Tensor, crops: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        """Returns the maps of whole frames."""
        return encode_crops(self.trunk, x, crops, lengths, self.stride)


def encode_crops(
    encode: Callable[..., Tensor],
    x: Tensor,
    crops: tuple[int, ...],
    lengths: Tensor | None = None,
    stride: int = 4,
) -> Tensor:
    """What :class:`PartCropEncoder` does, with a function.

    Args:
        encode: As ``trunk`` there.
        x: ``[N, C, T, H, W]``.
        crops: Numbers of bands, one per chunk.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        stride: Rows of the input that become one row of the map.

    Returns:
        ``[N, C', T', H / stride, W']``.

    Raises:
        TypeError: As there.
        ValueError: As there.
    """
    crops = check_sizes("crops", crops)
    check_features(x, None, lengths)
    chunk_size, rest = divmod(len(x), len(crops))
    if rest or not chunk_size or (chunk_size % 2 and max(crops) > 1):
        raise ValueError(
            f"expected a batch that {len(crops)} crops cut into equal chunks of an even number of "
            f"sequences (a multiple of {2 * len(crops)}), got {len(x)} sequences; sample as many, "
            "or choose other crops"
        )
    for crop in crops:
        if crop > 1 and x.shape[3] % (2 * crop * stride):
            raise ValueError(
                f"expected frames with a height that {2 * crop * stride} divides for {crop} bands "
                f"of an even number of rows of the map, got {shape_of(x)}; choose fewer bands"
            )
    maps = []
    for j, crop in enumerate(crops):
        chunk = slice(j * chunk_size, (j + 1) * chunk_size)
        valid = None if lengths is None else lengths[chunk]
        maps.append(_encode_chunk(encode, x[chunk], crop, valid, stride))
    return torch.cat(maps)


def _encode_chunk(
    encode: Callable[..., Tensor], x: Tensor, crop: int, lengths: Tensor | None, stride: int
) -> Tensor:
    """Maps of whole frames from ``crop`` bands of each."""
    if crop == 1:
        return _encode(encode, x, lengths, stride)
    half, height = len(x) // 2, x.shape[3] // crop
    counts = torch.tensor([crop, crop + 1], device=x.device).repeat_interleave(half)
    moved = F.pad(x[half:], (0, 0, height // 2, height // 2))
    bands = torch.cat([_cut(x[:half], crop), _cut(moved, crop + 1)])
    if lengths is not None:
        lengths = lengths.repeat_interleave(counts.to(lengths.device))
    maps = _encode(encode, bands, lengths, stride)
    aligned, shifted = maps.split([half * crop, half * (crop + 1)])
    margin = height // (2 * stride)
    shifted = _join(shifted, crop + 1)[:, :, :, margin:-margin]
    return torch.cat([_join(aligned, crop), shifted])


def _encode(
    encode: Callable[..., Tensor], x: Tensor, lengths: Tensor | None, stride: int
) -> Tensor:
    maps = encode(x, lengths)
    if maps.ndim != 5 or maps.shape[3] * stride != x.shape[3]:
        raise ValueError(
            f"expected a network that makes {stride} rows one, got {shape_of(maps)} for "
            f"{shape_of(x)}; give its stride"
        )
    return maps


def _cut(x: Tensor, bands: int) -> Tensor:
    return rearrange(x, "n c t (b h) w -> (n b) c t h w", b=bands)


def _join(maps: Tensor, bands: int) -> Tensor:
    return rearrange(maps, "(n b) c t h w -> n c t (b h) w", b=bands)
