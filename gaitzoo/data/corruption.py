"""What all corruptions of videos share: severities, forms of a video, random numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_values, shape_of

__all__ = ["SEVERITIES", "Corruption"]

SEVERITIES = (1, 2, 3, 4, 5)

# What float32 loses by dividing by 255 and multiplying again must not cost a level.
_LEVEL_SLACK = 1e-3


class Corruption(nn.Module):
    """One way in which a video gets worse, in one of five severities.

    Args:
        severity: 1 (mild) to 5.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.
        upstream: Follow the published code where it differs from what the severities promise.

    Shapes:
        video: ``[..., T, C, H, W]`` with 3 channels (red, green, blue) or 1, or
            ``[..., T, H, W, 3]`` as videos are read; uint8 in 0..255 or floats in [0, 1], without
            padding. Leading axes are sequences that are corrupted one by one.
        returns: The same shape and type.

    Raises:
        TypeError: If the video is no tensor, or neither floating point nor uint8.
        ValueError: If the severity is not 1 to 5, or the shape or a value of the video does not
            fit.
    """

    rounds = False
    """Whether bytes are rounded; the published noise and blur cut fractions off."""

    def __init__(
        self,
        severity: int,
        generator: torch.Generator | None = None,
        *,
        upstream: bool = False,
    ) -> None:
        super().__init__()
        if type(severity) is not int or severity not in SEVERITIES:
            raise ValueError(f"expected severity as a whole number from 1 to 5, got {severity!r}")
        self.severity = severity
        self.generator = generator
        self.upstream = upstream

    def forward(self, video: Tensor) -> Tensor:
        """Returns the corrupted video."""
        frames, restore = _unpack(video)
        return restore(self.corrupt(frames).clamp(0, 1), self.rounds)

    def corrupt(self, frames: Tensor) -> Tensor:
        """The rule itself.

        Args:
            frames: ``[N, T, C, H, W]`` floats in [0, 1].

        Returns:
            ``[N, T', C, H', W']``; values outside of [0, 1] are cut.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Shows the severity when printed."""
        return f"severity={self.severity}" + (", upstream=True" if self.upstream else "")

    def row(self, values: tuple[float, ...]) -> float:
        """The value of this severity."""
        return values[self.severity - 1]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers; equal on every device."""
        return torch.randn(like.shape, generator=self.generator).to(like)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), on the CPU."""
        return torch.rand(shape, generator=self.generator)


def _unpack(video: Tensor) -> tuple[Tensor, Callable[[Tensor, bool], Tensor]]:
    """The video as ``[N, T, C, H, W]`` floats, and the way back to its own form."""
    if not isinstance(video, Tensor):
        raise TypeError(
            f"expected a video as a torch.Tensor, got {type(video).__name__}; use torch.as_tensor"
        )
    if not (video.is_floating_point() or video.dtype == torch.uint8):
        raise TypeError(
            f"expected a video of floats in [0, 1] or of uint8 in 0..255, got {video.dtype}; "
            "convert masks with .float()"
        )
    last = video.ndim >= 4 and video.shape[-1] == 3 and video.shape[-3] != 3
    fits = video.ndim >= 4 and video.numel() > 0 and (last or video.shape[-3] in (1, 3))
    if not fits:
        raise ValueError(
            "expected a video [..., T, 3, H, W], [..., T, 1, H, W] or [..., T, H, W, 3], none of "
            f"them 0, got {shape_of(video)}; for silhouettes [..., T, H, W] take "
            "SilhouetteCorruption"
        )
    frames = video.movedim(-1, -3) if last else video
    leading = frames.shape[:-4]
    frames = frames.reshape(-1, *frames.shape[-4:])
    if video.dtype == torch.uint8:
        frames = frames.float() / 255
    else:
        check_values(frames, 0, 1, "videos")
        frames = frames.to(torch.promote_types(video.dtype, torch.float32))

    def restore(result: Tensor, rounds: bool) -> Tensor:
        if video.dtype == torch.uint8:
            result = (255 * result + (0.5 if rounds else _LEVEL_SLACK)).floor()
        result = result.to(video.dtype).reshape(*leading, *result.shape[1:])
        return result.movedim(-3, -1).contiguous() if last else result

    return frames, restore
