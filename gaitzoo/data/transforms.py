"""What brings sequences of any modality to the input of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.colours import normalize_colours
from gaitzoo.data.content import Finding, warn_of
from gaitzoo.data.modalities import Modality, check_same_frames, find_modality
from gaitzoo.data.normalize import EMPTY_GREY_SUM
from gaitzoo.data.silhouettes import SilhouetteTransform
from gaitzoo.layers.checks import shape_of

__all__ = ["ModalityTransform", "create_transform", "normalize_labels"]

_RESIZED = ("silhouettes", "skeleton_maps", "parsing", "parsing_images", "flow_images")
# Computed from colours of the very crops that silhouettes beside them show.
_OF_CROPS = ("features", "diffusion_features")
_HIGHEST_LABEL = 11


@dataclass(frozen=True)
class ModalityTransform:
    """Brings sequences of one or several modalities to the input of a model.

    Silhouettes go through :class:`SilhouetteTransform`. Skeleton maps, parsing and pictures of
    parsing or flow of ``H x H`` pixels are cut to ``(H, W)`` on both sides; parsing of any other
    size is cropped to the person and resized by nearest neighbours (:func:`normalize_labels`). A
    frame in which one of them shows nobody is left out of all modalities. Silhouettes beside
    features must have their size. Colours go through
    :func:`gaitzoo.data.colours.normalize_colours` if there is a ``mean``; otherwise they stay as
    they are, and so do depth, flow and what is no map.

    Args:
        modalities: Names, as in ``model.modalities``.
        input_size: Height and width in pixels that the model reads; for silhouettes, skeleton maps
            and parsing ``H >= W``, both even.
        normalized: As for :class:`SilhouetteTransform`.
        in_channels: Channels that a model of one modality reads; ``None`` = those of the modality.
            Silhouettes of several channels, ``[C, T, H, W]``, stay as they are.
        mean: Of colours, with ``std``; ``None`` = colours stay as they are.
        std: Of colours.

    Raises:
        ValueError: If a name is no modality, there is none, or the size is no such pair.

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
    in_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("expected at least one modality, got none")
        if any(self._is_resized(find_modality(name)) for name in self.modalities):
            SilhouetteTransform(self.input_size, self.normalized)

    def align(self, sequence: Any) -> Any:
        """Sizes as the model reads them; grey levels and labels stay bytes.

        Args:
            sequence: A tensor or array without the axis N, or for several modalities a mapping
                from names to them.

        Returns:
            A tensor, or for several modalities a dictionary; may share memory with what was given.

        Raises:
            TypeError: If there is neither a tensor nor an array where one should be.
            ValueError: If names, axes, numbers of frames, sizes or values do not fit, or nobody is
                in any frame.

        Warns:
            SilhouetteWarning: See :meth:`SilhouetteTransform.align`; also where poses are within
                0..1, which are no pixels.
        """
        given = isinstance(sequence, Mapping)
        if given != (len(self.modalities) > 1) or (given and set(sequence) != {*self.modalities}):
            got = f"a mapping with {', '.join(map(str, sequence))}" if given else "no mapping"
            raise ValueError(f"expected {self._wanted()}, got {got}")
        parts = {
            name: self._checked(find_modality(name), sequence[name] if given else sequence)
            for name in self.modalities
        }
        counts = {
            name: x.shape[find_modality(name).time_axis_of(x)]
            for name, x in parts.items()
            if find_modality(name).time_axis is not None
        }
        check_same_frames(counts)
        found: list[Finding] = []
        aligned, empty = {}, {}
        for name, x in parts.items():
            aligned[name], empty[name] = self._align_one(find_modality(name), x, found)
        warn_of(found)
        if any(empty.values()):
            aligned = _common_frames(aligned, empty, next(iter(counts.values())))
        return aligned if given else aligned[self.modalities[0]]

    def __call__(self, sequence: Any) -> Any:
        """Aligns and scales to what a model reads.

        Args:
            sequence: See :meth:`align`.

        Returns:
            float32, a tensor or a dictionary; add the batch axis with ``[None]``.

        Raises:
            TypeError: See :meth:`align`.
            ValueError: See :meth:`align`.
        """
        aligned = self.align(sequence)
        if isinstance(aligned, Mapping):
            return {name: _scaled(find_modality(name), x) for name, x in aligned.items()}
        return _scaled(find_modality(self.modalities[0]), aligned)

    def _is_resized(self, modality: Modality) -> bool:
        return modality.name in _RESIZED and not self._has_several_channels(modality)

    def _has_several_channels(self, modality: Modality) -> bool:
        """Whether silhouettes come with channels in front."""
        several = len(self.modalities) == 1 and (self.in_channels or 1) > 1
        return several and modality.name == "silhouettes"

    def _axes(self, modality: Modality) -> list[str]:
        """Axes of one sequence: letters, and sizes where they are known."""
        own = self.in_channels if len(self.modalities) == 1 else None
        channels = own or modality.channels
        letters = modality.axes.split()[1:]
        if self._has_several_channels(modality):
            return [str(channels), *letters]
        place = 0 if modality.has_channel_axis else -1
        if channels and (modality.has_channel_axis or not modality.is_map):
            letters[place] = str(channels)
        return letters

    def _wanted(self) -> str:
        words = [
            f"{name} [{', '.join(self._axes(find_modality(name)))}]" for name in self.modalities
        ]
        return words[0] if len(words) == 1 else f"a mapping with {', '.join(words)}"

    def _checked(self, modality: Modality, x: Any) -> Tensor:
        x = _as_tensor(modality.name, x)
        axes = self._axes(modality)
        fits = x.ndim == len(axes) and x.numel() > 0
        known = zip(axes, x.shape, strict=False)
        if not fits or any(axis.isdecimal() and int(axis) != size for axis, size in known):
            raise ValueError(f"expected {modality.name} [{', '.join(axes)}], got {shape_of(x)}")
        return x

    def _check_crops(self, silhouettes: Tensor) -> None:
        """Raises where silhouettes would be cropped away from what stands beside them."""
        beside = [name for name in self.modalities if name in _OF_CROPS]
        size = tuple(silhouettes.shape[-2:])
        if beside and size != tuple(self.input_size):
            height, width = self.input_size
            raise ValueError(
                f"expected silhouettes of {height} x {width} pixels beside {beside[0]}, got "
                f"{size[0]} x {size[1]}; cut both out of the frames by the same boxes and resize "
                "the masks"
            )

    def _align_one(
        self, modality: Modality, x: Tensor, found: list[Finding]
    ) -> tuple[Tensor, frozenset[int]]:
        """The aligned frames, and the numbers of those that were left out."""
        if modality.name == "rgb" and self.mean is not None:
            return normalize_colours(x, self.input_size, self.mean, self.std), frozenset()
        if modality.name == "poses":
            _warn_of_fractions(x, found)
        if not self._is_resized(modality):
            return x, frozenset()
        height, width = self.input_size
        if modality.name == "silhouettes":
            self._check_crops(x)
            mine: list[Finding] = []
            transform = SilhouetteTransform(self.input_size, self.normalized)
            aligned = transform.examine(x, mine)
            found += mine
            left_out = [finding.frames for finding in mine if finding.kind == "empty frames"]
            return aligned, frozenset().union(*left_out)
        if modality.name == "parsing":
            x = _as_labels(x)
        size, empty = tuple(x.shape[-2:]), frozenset[int]()
        if size == (height, width):
            return x, empty
        if size != (height, height):
            if modality.name != "parsing":
                advice = "bring them to one of these sizes"
                if modality.name == "skeleton_maps":
                    advice = (
                        "draw them from poses in this size, "
                        f"gaitzoo.PosesToMaps(({height}, {width}))"
                    )
                raise ValueError(
                    f"expected {modality.name} of {height} x {width} or {height} x {height} "
                    f"pixels, got {size[0]} x {size[1]}; {advice}"
                )
            empty = frozenset((~_shows_somebody(x)).nonzero().flatten().tolist())
            x = normalize_labels(x, height)
        margin = (height - width) // 2
        return x[..., margin : margin + width].contiguous(), empty


def _warn_of_fractions(poses: Tensor, found: list[Finding]) -> None:
    """Nobody is a pixel tall: such coordinates are shares of the frame."""
    places = poses[..., :2]
    if bool(((places >= 0) & (places <= 1)).all()) and bool((places > 0).any()):
        text = (
            "expected poses in pixels, got x and y within 0..1; multiply x by the width and y by "
            "the height of the frame"
        )
        found.append(Finding("scaled poses", "warning", text))


def _common_frames(
    aligned: Mapping[str, Tensor], left_out: Mapping[str, frozenset[int]], total: int
) -> dict[str, Tensor]:
    """Leaves the frames that one modality lost out of the others as well."""
    kept = set(range(total)).difference(*left_out.values())
    if not kept:
        raise ValueError(
            f"expected somebody in some frame of all modalities, got none of {total} frames in "
            f"which {' and '.join(name for name, lost in left_out.items() if lost)} both show one"
        )
    common = {}
    for name, x in aligned.items():
        own = [frame for frame in range(total) if frame not in left_out[name]]
        places = [place for place, frame in enumerate(own) if frame in kept]
        axis = find_modality(name).time_axis_of(x)
        common[name] = x.index_select(axis, torch.tensor(places, device=x.device))
    return common


def _as_tensor(name: str, x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x.detach()
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        got = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"expected {name} as a tensor or an array of numbers, got {got}")
    if x.dtype.kind in "iu" and x.dtype.itemsize > 1:
        x = x.astype(np.int64)  # also foreign byte orders, as the next
    elif x.dtype.kind == "f" and x.dtype not in (np.float16, np.float32, np.float64):
        x = x.astype(np.float64)
    # torch warns of memory that it must not write to.
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def _as_labels(x: Tensor) -> Tensor:
    """Labels of body parts as bytes, whatever whole or floating numbers they came as."""
    lowest, highest = (float(bound) for bound in torch.aminmax(x))
    fits = lowest >= 0 and highest <= _HIGHEST_LABEL
    if not fits or (x.is_floating_point() and not bool((x == x.round()).all())):
        raise ValueError(
            f"expected parsing as whole numbers 0 to {_HIGHEST_LABEL} (body parts), got values "
            f"from {lowest:g} to {highest:g}; a mask of the person is silhouettes"
        )
    return x.to(torch.uint8)


def _scaled(modality: Modality, x: Tensor) -> Tensor:
    if x.dtype == torch.uint8 and modality.bytes_mean == "grey levels":
        return x.float() / 255
    return x.float()


def _shows_somebody(frames: Tensor) -> Tensor:
    """``[T]``: frames with as many pixels of a person as silhouettes need."""
    return 255 * (frames > 0).sum((1, 2)) > EMPTY_GREY_SUM


def normalize_labels(frames: Tensor, size: int = 64) -> Tensor:
    """Crops label maps to the person and resizes them by nearest neighbours.

    Per frame: drop it if at most 39 pixels show a person; keep the rows that hold anything; resize
    to height ``size`` with the sides in proportion; find the first column at which more than half
    of the person's pixels are passed; keep ``size // 2`` columns to either side of it, zeros where
    the image ends.

    Source: the pre-treatment of parsing maps in OpenGait (https://github.com/ShiqiYu/OpenGait).

    Args:
        frames: ``[T, H, W]`` whole numbers, 0 = background.
        size: Rows and columns of the result, even.

    Returns:
        ``[T', size, size]`` of the same type; ``T' <= T`` because frames without a person are
        dropped.

    Raises:
        ValueError: If there are no three axes, ``size`` is no even number of 2 or more, or nobody
            is in any frame.

    Example:
        >>> labels = torch.zeros(2, 40, 30, dtype=torch.uint8)
        >>> labels[0, 10:30, 10:16] = 2
        >>> normalize_labels(labels, 8).tolist()[0][0]
        [0, 0, 0, 2, 2, 2, 0, 0]
    """
    if frames.ndim != 3 or frames.numel() == 0:
        raise ValueError(f"expected label maps [T, H, W], got {shape_of(frames)}")
    if type(size) is not int or size < 2 or size % 2:
        raise ValueError(f"expected size as an even number of 2 or more, got {size!r}")
    shown = frames[_shows_somebody(frames)]
    if len(shown) == 0:
        raise ValueError(
            f"expected label maps with a person, got {len(frames)} frames of (nearly) nothing but "
            "background; check the segmentation"
        )
    return torch.stack([_normalize_frame(frame, size) for frame in shown])


def _normalize_frame(frame: Tensor, size: int) -> Tensor:
    rows = (frame > 0).any(1).nonzero().flatten()
    crop = frame[int(rows[0]) : int(rows[-1]) + 1]
    width = max(1, size * crop.shape[1] // crop.shape[0])
    resized = F.interpolate(crop[None, None].float(), (size, width), mode="nearest")[0, 0]
    mass = (resized > 0).sum(0).cumsum(0)
    centre = int((2 * mass <= mass[-1]).sum())
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
        >>> create_transform(SimpleNamespace(input_size=(64, 44)))
        SilhouetteTransform(input_size=(64, 44), normalized=None)
        >>> cfg = SimpleNamespace(input_size=(64, 44), modalities=("parsing",))
        >>> create_transform(cfg)(torch.zeros(9, 64, 64)).shape
        torch.Size([9, 64, 44])
    """
    modalities = tuple(_said(model_or_cfg, "modalities") or ("silhouettes",))
    in_channels = _said(model_or_cfg, "in_channels")
    cfg = getattr(model_or_cfg, "pretrained_cfg", None) or model_or_cfg
    input_size = _said(cfg, "input_size")
    if input_size is None:
        raise TypeError(
            f"expected a model with pretrained_cfg.input_size or an object with input_size, got "
            f"{type(model_or_cfg).__name__}; pass create_model(name), or call "
            "SilhouetteTransform((height, width)) directly"
        )
    if modalities == ("silhouettes",) and (in_channels or 1) == 1:
        return SilhouetteTransform(input_size, normalized)
    mean, std = _said(cfg, "mean"), _said(cfg, "std")
    return ModalityTransform(modalities, input_size, normalized, in_channels, mean, std)


def _said(source: object, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
