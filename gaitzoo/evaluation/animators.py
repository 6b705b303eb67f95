"""Generators of walking people behind one small interface, and how their pictures look.

Source: "Is Visual Realism Enough? Evaluating Gait Biometric Fidelity in Generative AI Human
Animation" (https://arxiv.org/abs/2512.19275), rebuilt from its abstract and second-hand outlines of
its protocol: a reconstruction. No generator of the study is wrapped here; one of your own needs one
method. How much of a person's gait survives says :mod:`gaitzoo.evaluation.fidelity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gaitzoo.layers.checks import shape_of

__all__ = ["Animator", "CopyAnimator", "FreezeAnimator", "video_quality"]

QUALITIES = ("ssim", "psnr", "lpips")
_SSIM_WINDOW = 11  # rows and columns of its usual Gaussian window


@runtime_checkable
class Animator(Protocol):
    """What makes a picture of one person walk like another.

    Shapes:
        reference: ``[N, 3, H, W]`` in [0, 1], how the person looks.
        driving: ``[N, 3, T, H, W]`` in [0, 1], how it moves.
        returns: ``[N, 3, T, H, W]`` in [0, 1].

    Example:
        >>> class Generator:
        ...     def animate(self, reference, driving):
        ...         return (reference[:, :, None] + driving) / 2
        >>> isinstance(Generator(), Animator)
        True
    """

    def animate(self, reference: Tensor, driving: Tensor) -> Tensor:
        """Makes the videos."""
        ...


class CopyAnimator:
    """The driving videos themselves: the motion is perfect, and so is the wrong appearance.

    Shapes:
        As :class:`Animator`.

    Raises:
        ValueError: If shapes do not belong together.

    Example:
        >>> driving = torch.rand(2, 3, 5, 8, 6)
        >>> torch.equal(CopyAnimator().animate(torch.rand(2, 3, 8, 6), driving), driving)
        True
    """

    def animate(self, reference: Tensor, driving: Tensor) -> Tensor:
        """Gives the driving videos."""
        _check_sides(reference, driving)
        return driving


class FreezeAnimator:
    """The reference in every frame: the appearance is perfect, and nothing moves.

    Shapes:
        As :class:`Animator`.

    Raises:
        ValueError: If shapes do not belong together.

    Example:
        >>> frozen = FreezeAnimator().animate(torch.rand(2, 3, 8, 6), torch.rand(2, 3, 5, 8, 6))
        >>> frozen.shape, bool((frozen == frozen[:, :, :1]).all())
        (torch.Size([2, 3, 5, 8, 6]), True)
    """

    def animate(self, reference: Tensor, driving: Tensor) -> Tensor:
        """Repeats the reference."""
        _check_sides(reference, driving)
        return reference[:, :, None].repeat(1, 1, driving.shape[2], 1, 1)


def _check_sides(reference: Tensor, driving: Tensor) -> None:
    if reference.ndim != 4 or driving.ndim != 5 or driving.numel() == 0:
        raise ValueError(
            "expected reference [N, 3, H, W] and driving [N, 3, T, H, W], got "
            f"{shape_of(reference)} and {shape_of(driving)}"
        )
    if reference.shape != driving[:, :, 0].shape:
        raise ValueError(
            "expected a reference for each driving video and of its size, got "
            f"{shape_of(reference)} for {shape_of(driving)}; resize one of them"
        )


def video_quality(
    real: Tensor, generated: Tensor, metrics: Sequence[str] = QUALITIES
) -> dict[str, Tensor]:
    """Likeness of videos frame by frame, as the eye sees it and not as gait recognition does.

    Computed by torchmetrics (``pip install 'gaitzoo[fidelity]'``). ``"lpips"`` (AlexNet) needs
    weights, which torchvision downloads once.

    Args:
        real: ``[N, 3, T, H, W]`` in [0, 1].
        generated: The same shape, aligned frame by frame.
        metrics: Among ``"ssim"`` (1 = equal), ``"psnr"`` (decibels, infinite = equal) and
            ``"lpips"`` (0 = equal).

    Returns:
        For each metric ``[N]`` float32, the mean over frames; the error of PSNR is averaged
        over all frames of a video before the logarithm.

    Raises:
        ImportError: If torchmetrics is missing.
        ValueError: If a metric is unknown, shapes differ, values are not in [0, 1], or frames are
            smaller than the window of SSIM, 11 x 11 pixels.
        OSError: If weights for ``"lpips"`` are not there and cannot be downloaded.

    Example:
        >>> videos = torch.rand(2, 3, 2, 16, 16)
        >>> quality = video_quality(videos, videos, ("ssim", "psnr"))
        >>> [round(value, 4) for value in quality["ssim"].tolist()], quality["psnr"].tolist()
        ([1.0, 1.0], [inf, inf])
    """
    if isinstance(metrics, str) or not metrics or set(metrics) - {*QUALITIES}:
        got = repr(metrics) if isinstance(metrics, str) else ", ".join(metrics) or "none"
        raise ValueError(f"expected a tuple of metrics among {', '.join(QUALITIES)}, got {got}")
    for name, side in (("real", real), ("generated", generated)):
        if side.ndim != 5 or side.shape[1] != 3 or side.numel() == 0:
            raise ValueError(f"expected {name} videos [N, 3, T, H, W], got {shape_of(side)}")
        # NaN is not within the limits either.
        if not side.is_floating_point() or not bool(((side >= 0) & (side <= 1)).all()):
            raise ValueError(f"expected {name} videos as floats in [0, 1]; divide bytes by 255")
    if real.shape != generated.shape:
        raise ValueError(
            "expected real and generated videos of one shape, got "
            f"{shape_of(real)} and {shape_of(generated)}; align them frame by frame"
        )
    if "ssim" in metrics and min(real.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"expected videos of {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels or more for ssim, got "
            f"{shape_of(real)}; enlarge both, or leave it out"
        )
    try:
        import torchmetrics.functional.image as images
    except ImportError as error:
        raise ImportError(
            "video_quality needs torchmetrics; pip install 'gaitzoo[fidelity]'"
        ) from error
    sides = [side.float().transpose(1, 2).flatten(0, 1) for side in (real, generated)]
    count, frames = real.shape[0], real.shape[2]
    found: dict[str, Tensor] = {}
    for metric in metrics:
        if metric == "psnr":
            found[metric] = images.peak_signal_noise_ratio(
                generated.float(), real.float(), 1.0, reduction="none", dim=(1, 2, 3, 4)
            )
            continue
        if metric == "ssim":
            values = images.structural_similarity_index_measure(
                sides[1], sides[0], data_range=1.0, reduction="none"
            )
        else:
            values = _perceptual_distances(*sides)
        if not isinstance(values, Tensor):
            raise TypeError(f"expected a value per frame from torchmetrics, got {type(values)}")
        found[metric] = values.reshape(count, frames).mean(1)
    return found


def _perceptual_distances(real: Tensor, generated: Tensor) -> Tensor:
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

    try:
        lpips = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
    except OSError as error:
        raise OSError(
            "expected torchvision's weights of AlexNet for lpips, got none and no download; "
            'leave "lpips" out of metrics, or put alexnet-owt-7be5be79.pth into '
            f"{torch.hub.get_dir()}/checkpoints"
        ) from error
    lpips = lpips.to(real.device)
    with torch.inference_mode():
        return torch.stack([lpips(x[None], y[None]) for x, y in zip(generated, real, strict=True)])
