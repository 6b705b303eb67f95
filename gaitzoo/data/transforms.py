"""What brings sequences of any modality to the input of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.modalities import Modality, find_modality
from gaitzoo.data.silhouettes import SilhouetteTransform
from gaitzoo.data.silhouettes import create_transform as create_silhouette_transform
from gaitzoo.layers.checks import shape_of

__all__ = ["ModalityTransform", "create_transform", "normalize_labels"]


@dataclass(frozen=True)
class ModalityTransform:
    """Brings sequences of one or several modalities to the input of a model.

    Silhouettes go through :class:`SilhouetteTransform`. Other maps of ``H x H`` pixels are cut to
    ``(H, W)`` on both sides; label maps of any other size are cropped to the person and resized by
    nearest neighbours (:func:`normalize_labels`). Colours, depth, flow and what is no map stay as
    they are.

    Args:
        modalities: Names, as in ``model.modalities``.
        input_size: Height and width in pixels that the model reads; ``H >= W``, both even.
        normalized: As for :class:`SilhouetteTransform`.

    Raises:
        ValueError: If a name is no modality or the size no such pair.

    Example:
        >>> transform = ModalityTransform(("skeleton_maps", "silhouettes"), (64, 44))
        >>> sequence = {"skeleton_maps": torch.rand(2, 5, 64, 64)}
        >>> sequence["silhouettes"] = torch.ones(5, 64, 44)
        >>> {name: list(x.shape) for name, x in transform(sequence).items()}
        {'skeleton_maps': [2, 5, 64, 44], 'silhouettes': [5, 64, 44]}
    """

    modalities: tuple[str, ...]
    input_size: tuple[int, int]
    normalized: bool | None = None

    def __post_init__(self) -> None:
        for name in self.modalities:
            find_modality(name)
        SilhouetteTransform(self.input_size, self.normalized)

    def align(self, sequence: Any) -> Any:
        """Sizes as the model reads them; grey levels and labels stay bytes.

        Args:
            sequence: A tensor or array without the axis N, or for several modalities a mapping
                from names to them.

        Returns:
            A tensor, or for several modalities a dictionary.

        Raises:
            TypeError: If there is no mapping for several modalities.
            ValueError: If names, axes, sizes or values do not fit.
        """
        if len(self.modalities) == 1 and not isinstance(sequence, Mapping):
            return self._align_one(self.modalities[0], sequence)
        if not isinstance(sequence, Mapping):
            raise TypeError(
                f"expected a mapping with {', '.join(self.modalities)}, got "
                f"{type(sequence).__name__}"
            )
        if set(sequence) != set(self.modalities):
            raise ValueError(
                f"expected {', '.join(self.modalities)}, got "
                f"{', '.join(map(str, sequence)) or 'nothing'}"
            )
        return {name: self._align_one(name, sequence[name]) for name in self.modalities}

    def __call__(self, sequence: Any) -> Any:
        """Aligns and scales to what ``model(sequence[None])`` reads.

        Args:
            sequence: See :meth:`align`.

        Returns:
            float32; add the batch axis with ``[None]``.
        """
        aligned = self.align(sequence)
        if isinstance(aligned, Mapping):
            return {name: _scaled(find_modality(name), x) for name, x in aligned.items()}
        return _scaled(find_modality(self.modalities[0]), aligned)

    def _align_one(self, name: str, x: Any) -> Tensor:
        modality = find_modality(name)
        if name == "silhouettes":
            return SilhouetteTransform(self.input_size, self.normalized).align(x)
        x = torch.as_tensor(x)
        letters = modality.axes.split()[1:]
        if x.ndim != len(letters) or 0 in x.shape:
            raise ValueError(f"expected {name} [{', '.join(letters)}], got {shape_of(x)}")
        if name not in ("skeleton_maps", "parsing"):
            return x
        height, width = self.input_size
        if tuple(x.shape[-2:]) == (height, width):
            return x
        if tuple(x.shape[-2:]) != (height, height):
            if name != "parsing":
                raise ValueError(
                    f"expected {name} of {height} x {width} or {height} x {height} pixels, got "
                    f"{shape_of(x)}; draw them from poses (gaitzoo.PosesToMaps)"
                )
            x = normalize_labels(x, height)
        margin = (height - width) // 2
        return x[..., margin : margin + width].contiguous()


def _scaled(modality: Modality, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8 and modality.bytes_mean == "grey levels":
        return x.float() / 255
    return x.float()


def normalize_labels(frames: Tensor, size: int = 64) -> Tensor:
    """Crops label maps to the person and resizes them by nearest neighbours.

    Source: the pre-treatment of parsing maps in OpenGait (https://github.com/ShiqiYu/OpenGait):
    rows that hold anything, ``size`` rows, centred on the column that halves the person's pixels.
    Frames without a person stay empty.

    Args:
        frames: ``[T, H, W]`` whole numbers, 0 = background.
        size: Rows and columns of the result, even.

    Returns:
        ``[T, size, size]`` of the same type.

    Raises:
        ValueError: If there are no three axes, ``size`` is no even number of 2 or more, or nobody
            is in any frame.

    Example:
        >>> labels = torch.zeros(1, 40, 30, dtype=torch.uint8)
        >>> labels[0, 10:30, 10:16] = 2
        >>> normalize_labels(labels, 8)[0, 0].tolist()
        [0, 0, 0, 2, 2, 0, 0, 0]
    """
    if frames.ndim != 3 or frames.numel() == 0:
        raise ValueError(f"expected label maps [T, H, W], got {shape_of(frames)}")
    if type(size) is not int or size < 2 or size % 2:
        raise ValueError(f"expected size as an even number of 2 or more, got {size!r}")
    if not bool((frames > 0).any()):
        raise ValueError("expected a person in some frame, got label maps of background alone")
    return torch.stack([_normalize_frame(frame, size) for frame in frames])


def _normalize_frame(frame: Tensor, size: int) -> Tensor:
    rows = (frame > 0).any(1).nonzero().flatten()
    if len(rows) == 0:
        return frame.new_zeros(size, size)
    crop = frame[int(rows[0]) : int(rows[-1]) + 1]
    width = max(1, int(crop.shape[1] * size / crop.shape[0]))
    resized = F.interpolate(crop[None, None].float(), (size, width), mode="nearest")[0, 0]
    mass = (resized > 0).sum(0).cumsum(0)
    centre = int((mass > mass[-1] / 2).nonzero()[0])
    # The window may leave the image: empty columns on either side.
    padded = F.pad(resized, (size // 2, size // 2))
    return padded[:, centre : centre + size].to(frame.dtype)


def create_transform(
    model_or_cfg: object, *, normalized: bool | None = None
) -> SilhouetteTransform | ModalityTransform:
    """Makes the transform that fits a model or its pretrained configuration.

    Args:
        model_or_cfg: A model, a cfg, anything with ``input_size`` as (height, width) in pixels, or
            a mapping of :func:`gaitzoo.data.resolve_data_config`; without ``modalities`` it reads
            silhouettes.
        normalized: See :class:`SilhouetteTransform`.

    Returns:
        The transform, sequences in any usual form in, model input out.

    Raises:
        TypeError: If there is no ``input_size`` to read.
        ValueError: If ``input_size`` is no (height, width) pair.

    Example:
        >>> from types import SimpleNamespace
        >>> create_transform(SimpleNamespace(input_size=(64, 44), modalities=("parsing",)))
        ModalityTransform(modalities=('parsing',), input_size=(64, 44), normalized=None)
    """
    silhouettes = create_silhouette_transform(model_or_cfg, normalized=normalized)
    if isinstance(model_or_cfg, Mapping):
        modalities = model_or_cfg.get("modalities")
    else:
        modalities = getattr(model_or_cfg, "modalities", None)
    if not modalities or tuple(modalities) == ("silhouettes",):
        return silhouettes
    return ModalityTransform(tuple(modalities), silhouettes.input_size, normalized)
