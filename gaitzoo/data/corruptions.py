"""The 15 corruptions of RobustGait in five severities, and training on corrupted clips.

Corruptions are modules for any video, applied before segmentation: what they do to silhouettes is
what the segmentation makes of it. Groups and severities are those of RobustGait; that zoom_in is
digital and low_light environmental is [inferred].

Source: RobustGait (https://arxiv.org/abs/2511.13065) and its published code
(https://github.com/Reeshoon/RobustGait), written anew. By default each severity is worse than the
one before and the shape stays; ``upstream=True`` follows the published code where it differs.

Example:
    >>> video = torch.rand(8, 3, 64, 48)
    >>> corruption("zoom_in", severity=3)(video).shape
    torch.Size([8, 3, 64, 48])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.corrupt_blur import DefocusBlur, MotionBlur, ZoomBlur, ZoomIn
from gaitzoo.data.corrupt_noise import (
    GaussianNoise,
    ImpulseNoise,
    ImpulseNoise2,
    ShotNoise,
    SpeckleNoise,
)
from gaitzoo.data.corrupt_time import Freeze, Sampling
from gaitzoo.data.corrupt_weather import (
    Fog,
    LowLight,
    Occlusion,
    Rain,
    Snow,
    blob_occluder,
)
from gaitzoo.data.corruption import SEVERITIES, Corruption
from gaitzoo.layers.checks import shape_of

__all__ = [
    "CORRUPTIONS",
    "GROUPS",
    "SEVERITIES",
    "SILHOUETTE_CORRUPTIONS",
    "Corruption",
    "DefocusBlur",
    "Fog",
    "Freeze",
    "GaussianNoise",
    "ImpulseNoise",
    "ImpulseNoise2",
    "LowLight",
    "MotionBlur",
    "Occlusion",
    "Rain",
    "RandomCorruption",
    "Sampling",
    "ShotNoise",
    "SilhouetteCorruption",
    "Snow",
    "SpeckleNoise",
    "ZoomBlur",
    "ZoomIn",
    "blob_occluder",
    "corruption",
]

CORRUPTIONS: Mapping[str, type[Corruption]] = MappingProxyType(
    {
        "gaussian_noise": GaussianNoise,
        "shot_noise": ShotNoise,
        "speckle_noise": SpeckleNoise,
        "impulse_noise": ImpulseNoise,
        "impulse_noise2": ImpulseNoise2,
        "defocus_blur": DefocusBlur,
        "zoom_blur": ZoomBlur,
        "motion_blur": MotionBlur,
        "zoom_in": ZoomIn,
        "low_light": LowLight,
        "fog": Fog,
        "rain": Rain,
        "snow": Snow,
        "freeze": Freeze,
        "sampling": Sampling,
        "occlusion": Occlusion,
    }
)
"""Name to class; motion_blur is published, but not among the 15 of the benchmark."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "digital": (
            "gaussian_noise",
            "shot_noise",
            "speckle_noise",
            "impulse_noise",
            "impulse_noise2",
            "defocus_blur",
            "zoom_blur",
            "zoom_in",
        ),
        "environmental": ("low_light", "fog", "rain", "snow"),
        "temporal": ("freeze", "sampling"),
        "occlusion": ("occlusion",),
    }
)
"""The 15 types of the benchmark by group."""

SILHOUETTE_CORRUPTIONS = (
    "impulse_noise",
    "impulse_noise2",
    "zoom_in",
    "freeze",
    "sampling",
    "occlusion",
)
"""Those that make sense on silhouettes too, where there is no video."""


def corruption(
    name: str,
    severity: int,
    *,
    upstream: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Corruption:
    """Makes a corruption by its name.

    Args:
        name: A key of ``CORRUPTIONS``.
        severity: 1 (mild) to 5.
        upstream: Follow the published code where it differs from what the severities promise.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.
        **options: Further arguments of the class.

    Raises:
        ValueError: If the name is unknown or the severity not 1 to 5.

    Example:
        >>> corruption("fog", 2)
        Fog(severity=2)
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"expected a corruption among {', '.join(CORRUPTIONS)}, got {name!r}")
    return CORRUPTIONS[name](severity, generator, upstream=upstream, **options)


class SilhouetteCorruption(nn.Module):
    """A corruption of silhouettes themselves, for those who have no video.

    What is in front of a person is background: occlusion erases.

    Args:
        name: One of ``SILHOUETTE_CORRUPTIONS``.
        severity: 1 (mild) to 5.
        upstream: Follow the published code where it differs from what the severities promise.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

    Shapes:
        silhouettes: ``[..., T, H, W]``, uint8 in 0..255 or floats in [0, 1], without padding.
        returns: The same shape and type (sampling with ``upstream=True`` may be longer).

    Raises:
        TypeError: If silhouettes are no tensor, or neither floating point nor uint8.
        ValueError: If an argument is none of the above, or a shape or value does not fit.

    Example:
        >>> SilhouetteCorruption("occlusion", 5)(torch.ones(4, 64, 44)).mean()
        tensor(0.5000)
    """

    def __init__(
        self,
        name: str,
        severity: int,
        *,
        upstream: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if name not in SILHOUETTE_CORRUPTIONS:
            raise ValueError(
                f"expected a corruption of silhouettes among {', '.join(SILHOUETTE_CORRUPTIONS)}, "
                f"got {name!r}; the others need the video: corruption({name!r}, ...) on its frames"
            )
        options = {}
        if name == "occlusion":
            options["occluder"] = partial(blob_occluder, share=severity / 10, colour=0.0)
        self.corruption = corruption(
            name, severity, upstream=upstream, generator=generator, **options
        )

    def forward(self, silhouettes: Tensor) -> Tensor:
        """Returns the corrupted silhouettes."""
        if isinstance(silhouettes, Tensor) and silhouettes.ndim < 3:
            raise ValueError(f"expected silhouettes [..., T, H, W], got {shape_of(silhouettes)}")
        if not isinstance(silhouettes, Tensor):
            return self.corruption(silhouettes)  # which refuses it
        return self.corruption(silhouettes[..., None, :, :])[..., 0, :, :]


class RandomCorruption(nn.Module):
    """Training on corrupted clips: now and then a random corruption of a random severity.

    Source: noise-aware training of RobustGait: one type for a whole sequence, all types alike,
    severities 1, 2 and 3 with chances of 0.6, 0.3 and 0.1. There, corrupted silhouettes are made
    beforehand.

    Args:
        p: Chance that a sequence is corrupted: 1 minus the share of clean ones. The published
            shares were not found; 0.5 is [inferred].
        names: Types; ``None`` = the 15 of ``GROUPS``, or those of ``SILHOUETTE_CORRUPTIONS`` where
            ``make`` is :class:`SilhouetteCorruption`.
        severities: Those that are drawn.
        weights: Their chances, in any unit.
        make: Called with ``name, severity, generator=generator``: :func:`corruption` for videos,
            :class:`SilhouetteCorruption` for silhouettes.
        generator: Source of the random numbers, on the CPU; ``None`` = torch's own.

    Shapes:
        sequence: One sequence as what ``make`` gives reads it, ``[T, 3, H, W]`` or ``[T, H, W]``.
        returns: The same shape and type.

    Raises:
        TypeError: As the corruption.
        ValueError: If an argument is out of range, or as the corruption.

    Example:
        >>> policy = RandomCorruption(make=SilhouetteCorruption)
        >>> policy(torch.ones(30, 64, 44)).shape
        torch.Size([30, 64, 44])
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        names: Sequence[str] | None = None,
        severities: Sequence[int] = (1, 2, 3),
        weights: Sequence[float] = (0.6, 0.3, 0.1),
        make: Callable[..., nn.Module] = corruption,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"expected p as a chance in [0, 1], got {p!r}")
        if names is None and make is SilhouetteCorruption:
            names = SILHOUETTE_CORRUPTIONS
        elif names is None:
            names = tuple(name for group in GROUPS.values() for name in group)
        if len(severities) != len(weights) or not all(w >= 0 for w in weights) or not sum(weights):
            raise ValueError(
                f"expected a weight of 0 or more for each of the severities "
                f"{tuple(severities)}, not all 0, got {tuple(weights)}"
            )
        if not names:
            raise ValueError("expected at least one corruption, got none")
        for name in names:
            for severity in severities:
                make(name, severity)  # refuses what it does not know
        self.p = p
        self.names = tuple(names)
        self.severities = tuple(severities)
        self.weights = tuple(weights)
        self.make = make
        self.generator = generator

    def forward(self, sequence: Tensor) -> Tensor:
        """Returns the sequence, corrupted or as it was."""
        if float(torch.rand((), generator=self.generator)) >= self.p:
            return sequence
        number = int(torch.randint(len(self.names), (), generator=self.generator))
        chances = torch.tensor(self.weights, dtype=torch.float64)
        severity = int(torch.multinomial(chances, 1, generator=self.generator))
        make = self.make(self.names[number], self.severities[severity], generator=self.generator)
        return make(sequence)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"p={self.p:g}, severities={self.severities}, weights={self.weights}"
