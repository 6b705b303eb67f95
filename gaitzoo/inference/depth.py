"""Depth of single pictures, as a frozen network guesses it: the second input of DepthGait.

Source: DepthGait (https://arxiv.org/abs/2508.03397, ACM MM 2025), a reconstruction; which network
its authors used is unknown. The networks are those of transformers, which is imported when one is
loaded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import check_values, shape_of

__all__ = ["MonocularDepth"]


class MonocularDepth(nn.Module):
    """A frozen network that guesses the depth of every pixel of a picture.

    Give it whole pictures, not crops of people: their surroundings tell how far away things are.
    Scale and shift of the result, and whether near or far is large, are the network's own;
    :func:`gaitzoo.normalize_depth` takes scale and shift away.

    Args:
        model: Called with pictures, gives depth ``[B, h, w]`` or ``[B, 1, h, w]``, or something
            with such a ``predicted_depth``, as models of transformers do. Frozen in place.
        processor: Called as ``processor(images=..., do_rescale=False, return_tensors="pt")``, gives
            ``pixel_values`` for the model, as transformers' image processors do; ``None`` = the
            model reads pictures as they are.

    Shapes:
        rgb: ``[B, 3, H, W]``, floats in [0, 1] or uint8 0..255.
        returns: ``[B, 1, H, W]`` float32, bilinear where the network has another size.

    Raises:
        ValueError: If axes or values are out of range, or the network gives another shape.

    Example:
        >>> brightness = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(3, 1, 1))
        >>> depth = MonocularDepth(brightness)(torch.rand(2, 3, 48, 32))
        >>> depth.shape, depth.requires_grad
        (torch.Size([2, 1, 48, 32]), False)
    """

    def __init__(self, model: nn.Module, processor: Any = None) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.processor = processor
        self.eval()

    @classmethod
    def from_pretrained(cls, name: str = "depth-anything/Depth-Anything-V2-Small-hf") -> Self:
        """Loads a network by its name (network, once) or from a folder.

        Depth Anything V2 Small is under the Apache licence; its larger sizes are not for
        commercial use.

        Args:
            name: Repository on the Hub, or a folder, in the layout of transformers.

        Raises:
            OSError: If it cannot be loaded.
        """
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            model = AutoModelForDepthEstimation.from_pretrained(name)
            return cls(model, AutoImageProcessor.from_pretrained(name))
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise OSError(
                f"cannot load the depth network {name!r}: {reason}. Its weights come from the Hub "
                "(network, once); a folder in the layout of transformers serves too"
            ) from error

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> Tensor:
        """Returns the depth."""
        if rgb.ndim != 4 or rgb.shape[1] != 3 or rgb.numel() == 0:
            raise ValueError(f"expected rgb [B, 3, H, W], got {shape_of(rgb)}")
        x = rgb.float() / 255 if rgb.dtype == torch.uint8 else rgb
        check_values(x, 0, 1, "rgb")
        if self.processor is not None:
            read = self.processor(images=x, do_rescale=False, return_tensors="pt")
            x = read["pixel_values"].to(rgb.device)
        found = self.model(x)
        depth = getattr(found, "predicted_depth", found)
        depth = depth.unsqueeze(1) if depth.ndim == 3 else depth
        if depth.ndim != 4 or depth.shape[:2] != (rgb.shape[0], 1):
            raise ValueError(
                f"expected depth [{rgb.shape[0]}, h, w] of the network, got {shape_of(depth)}"
            )
        return F.interpolate(depth.float(), rgb.shape[-2:], mode="bilinear", align_corners=False)
