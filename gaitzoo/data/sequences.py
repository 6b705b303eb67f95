"""Sequences of any modality from files: alone, or several that belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gaitzoo.data.arrays import ARRAY_SUFFIXES, load_array
from gaitzoo.data.colours import stack_crops
from gaitzoo.data.files import load_silhouettes
from gaitzoo.data.images import FRAME_SUFFIXES, decode_image
from gaitzoo.data.modalities import MODALITIES, Modality, check_same_frames, find_modality
from gaitzoo.data.natural import natural_order
from gaitzoo.data.poses import read_poses
from gaitzoo.data.skeleton_maps import PosesToMaps

__all__ = ["entry_of", "load_files", "load_sequence"]

_ANIMATIONS = (".gif", ".apng", ".png", ".webp")
_SUFFIXES = (*ARRAY_SUFFIXES, *_ANIMATIONS, ".json")
_OF_IMAGES = ("parsing", "parsing_images", "rgb", "flow_images")
_LABEL_MODES = ("1", "L", "P", "I", "I;16")


class _Place(NamedTuple):
    """Where a modality is, and whether there are poses that it is to be drawn from."""

    path: Path
    drawn: bool = False


def load_sequence(
    path: str | os.PathLike[str],
    modalities: str | Sequence[str] | Mapping[str, str] = "silhouettes",
    *,
    joint_format: str | None = None,
    to_format: str = "coco17",
) -> Tensor | dict[str, Tensor]:
    """Reads one sequence of one modality or of several.

    * Silhouettes: everything that :func:`gaitzoo.load_silhouettes` reads.
    * Poses: OpenGait's pickles and other arrays ``[T, J, 3]``; JSON in the style of COCO, as
      AlphaPose and many others write it, or of OpenPose, one file per sequence or per frame.
    * Skeleton maps: arrays ``[T, 2, H, W]`` or ``[2, T, H, W]``; where there are none, they are
      drawn from poses (:class:`gaitzoo.PosesToMaps`).
    * Parsing: folders of grey or palette images of part labels, arrays ``[T, H, W]``.
    * Pictures of parsing and flow (``parsing_images``, ``flow_images``): the same with any grey
      levels, and in colour.
    * RGB: folders of images, arrays ``[T, H, W, 3]``, ``[T, 3, H, W]`` or ``[3, T, H, W]``. Images
      of several sizes, as crops are, become as high as the highest, in true proportions.
    * All others: arrays, frames or channels first.

    Arrays are ``.npy``, ``.npz`` or ``.pkl``; of pickles, nothing but an array is read.

    Of a folder with several modalities, each is found by its name, perhaps with a number in front
    (``parsing/``, ``poses.json``, ``1_sil.pkl``). OpenGait's folders, with one pickle per modality
    under names that say nothing, are read in the order of these names. Frames in which a pose
    estimator found nobody are left out of all modalities.

    Args:
        path: A file or a folder.
        modalities: One name (the file or folder is read as it), several names, or a mapping from
            names to patterns of file names in the folder (``{"parsing": "1_*.pkl"}``).
        joint_format: Of poses, see :func:`gaitzoo.data.poses.convert_joints`; ``None`` = by the
            number of joints.
        to_format: Joints that poses come in, ``"coco17"`` or ``"openpose18"``: the
            ``joint_format`` of the model that reads them. Skeleton maps are drawn from the former.

    Returns:
        The tensor of one sequence, without the axis N, or for several modalities a dictionary.
        Grey levels stay uint8 (0..255), labels uint8 (0..11), colours are floats in [0, 1].

    Raises:
        FileNotFoundError: If there is nothing at ``path``, or a modality is not beside the others.
        ValueError: If a name is no modality or fits several files, a file is damaged or holds
            another shape, or the modalities have different numbers of frames.

    Warns:
        UserWarning: If a frame of poses shows several people (the one of the highest confidence
            is taken) or nobody.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/poses.npy", np.ones((9, 17, 3)))
        ...     np.save(f"{folder}/sil.npy", np.full((9, 64, 44), 255, dtype=np.uint8))
        ...     sequence = load_sequence(folder, ("silhouettes", "poses"))
        >>> {name: list(x.shape) for name, x in sequence.items()}
        {'silhouettes': [9, 64, 44], 'poses': [9, 17, 3]}
    """
    root = Path(path)
    names = [modalities] if isinstance(modalities, str) else list(modalities)
    if not names:
        raise ValueError("expected at least one modality, got none")
    for name in names:
        find_modality(name)
    if not root.exists():
        raise FileNotFoundError(f"expected a file or folder of {', '.join(names)}, got {root}")
    patterns = modalities if isinstance(modalities, Mapping) else {}
    if len(names) == 1 and not patterns:
        read, _ = _load_one(_place_alone(root, names[0]), names[0], joint_format, to_format)
        return read if isinstance(modalities, str) else {names[0]: read}
    if not root.is_dir():
        raise ValueError(
            f"expected a folder with {', '.join(names)}, got the file {root}; give its folder"
        )
    places = {name: _place(root, name, names, patterns) for name in names}
    return _load_together(places, root, joint_format, to_format)


def load_files(
    files: Mapping[str, Path],
    where: Path,
    *,
    joint_format: str | None = None,
    to_format: str = "coco17",
) -> dict[str, Tensor]:
    """Reads modalities that belong together from a file or folder for each.

    Args:
        files: Name of the modality to what holds it.
        where: The sequence, for messages.
        joint_format: See :func:`load_sequence`.
        to_format: See :func:`load_sequence`.

    Returns:
        See :func:`load_sequence`.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        ValueError: See :func:`load_sequence`.
    """
    for name, path in files.items():
        find_modality(name)
        if not path.exists():
            raise FileNotFoundError(f"expected {name} in {path}, which does not exist")
    places = {name: _place_alone(path, name) for name, path in files.items()}
    return _load_together(places, where, joint_format, to_format)


def _load_together(
    places: Mapping[str, _Place], root: Path, joint_format: str | None, to_format: str
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    empty: dict[str, tuple[int, ...]] = {}
    for name, place in places.items():
        found[name], empty[name] = _load_one(place, name, joint_format, to_format)
    return _same_frames(found, empty, root)


def _same_frames(
    found: dict[str, Tensor], empty: Mapping[str, tuple[int, ...]], root: Path
) -> dict[str, Tensor]:
    """Leaves frames without poses out of the other modalities too; compares numbers of frames."""
    axes = {
        name: find_modality(name).time_axis_of(x)
        for name, x in found.items()
        if find_modality(name).time_axis is not None
    }
    for name, left_out in empty.items():
        if not left_out:
            continue
        total = found[name].shape[axes[name]] + len(left_out)
        kept = torch.tensor([frame for frame in range(total) if frame not in left_out])
        for other, axis in axes.items():
            if not empty[other] and found[other].shape[axis] == total:
                found[other] = found[other].index_select(axis, kept)
    counts = {name: found[name].shape[axis] for name, axis in axes.items()}
    check_same_frames(counts, f" in {root}")
    return found


def _place_alone(root: Path, name: str) -> _Place:
    if root.is_file():
        return _Place(root, name == "skeleton_maps" and root.suffix.lower() == ".json")
    inner = _entry(root, name)
    if inner is not None:
        return _Place(inner)
    if name == "skeleton_maps":
        poses = _entry(root, "poses")
        if poses is not None or any(p.suffix.lower() == ".json" for p in root.iterdir()):
            return _Place(poses or root, drawn=True)
    return _Place(root)


def _place(root: Path, name: str, names: Sequence[str], patterns: Mapping[str, str]) -> _Place:
    if name in patterns:
        matches = [p for p in root.glob(patterns[name]) if not p.name.startswith(".")]
        if len(matches) != 1:
            raise FileNotFoundError(
                f"expected one file for {name} ({patterns[name]}) in {root}, got "
                f"{len(matches) or 'none'}{_listing(root)}"
            )
        return _Place(matches[0])
    inner = _entry(root, name)
    if inner is not None:
        return _Place(inner)
    # OpenGait: one pickle per modality, in the order of their names, which say nothing.
    pickles = sorted(p for p in root.iterdir() if p.suffix == ".pkl")
    telling = [p for p in pickles if any(_is_named(p, other) for other in MODALITIES.values())]
    if len(pickles) == len(names) and not telling:
        return _Place(pickles[list(names).index(name)])
    if name == "skeleton_maps":
        poses = _entry(root, "poses")
        if poses is not None:
            return _Place(poses, drawn=True)
    beside = ", ".join(other for other in names if other != name)
    raise FileNotFoundError(
        f"expected {name} beside {beside} in {root}, got no file or folder named "
        f"{' or '.join(find_modality(name).file_names)}{_listing(root)}"
    )


def entry_of(root: Path, name: str) -> Path | None:
    """The file or folder of one modality by its name (``poses.json``, ``parsing/``).

    Args:
        root: A folder.
        name: Name of the modality.

    Returns:
        The first that fits; ``None`` if there is none.
    """
    return next(iter(_entries(root, name)), None)


def _entries(root: Path, name: str) -> list[Path]:
    modality = find_modality(name)
    return [entry for entry in sorted(root.iterdir()) if _is_named(entry, modality)]


def _entry(root: Path, name: str) -> Path | None:
    entries = _entries(root, name)
    if len(entries) > 1:
        raise ValueError(
            f"expected one file or folder of {name} in {root}, got "
            f"{' and '.join(entry.name for entry in entries)}; say which, as "
            f'{{"{name}": "{entries[0].name}"}}'
        )
    return entries[0] if entries else None


def _is_named(entry: Path, modality: Modality) -> bool:
    """Whether a file or folder is named by a modality; a number may stand in front."""
    if not entry.is_dir() and entry.suffix.lower() not in _SUFFIXES:
        return False
    stem = entry.name if entry.is_dir() else entry.stem
    names = {stem.lower(), re.sub(r"^\d+[ _.-]+", "", stem.lower())}
    return not names.isdisjoint(modality.file_names)


def _listing(root: Path) -> str:
    entries = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
    return f" (there are {', '.join(entries[:6])}{', ...' if len(entries) > 6 else ''})"


def _load_one(
    place: _Place, name: str, joint_format: str | None, to_format: str
) -> tuple[Tensor, tuple[int, ...]]:
    """A sequence, and the numbers of frames that were left out of it."""
    path = place.path
    if name == "silhouettes":
        return load_silhouettes(path), ()
    if name == "poses" or place.drawn:
        poses, empty = read_poses(path, joint_format, "coco17" if place.drawn else to_format)
        return (PosesToMaps((64, 64)).draw(poses) if place.drawn else poses), empty
    if not path.is_dir():
        return _shaped(load_array(path), find_modality(name), path), ()
    visible = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    visible.sort(key=lambda entry: natural_order(entry.name))
    images = [entry for entry in visible if entry.suffix.lower() in FRAME_SUFFIXES]
    arrays = [entry for entry in visible if entry.suffix.lower() in ARRAY_SUFFIXES]
    if images and name == "parsing":
        return _stacked(images, name, _labels), ()
    if images and name == "rgb":
        frames = torch.from_numpy(stack_crops([_colours(file) for file in images]))
        return frames.permute(3, 0, 1, 2).float() / 255, ()
    if images and name == "parsing_images":
        return _stacked(images, name, _greys), ()
    if images and name == "flow_images":
        return _stacked(images, name, _colours).permute(3, 0, 1, 2).contiguous(), ()
    if len(arrays) == 1 and not images:
        return _shaped(load_array(arrays[0]), find_modality(name), arrays[0]), ()
    also = " or a folder of images" if name in _OF_IMAGES else ""
    raise ValueError(
        f"expected {name} as an array ({', '.join(ARRAY_SUFFIXES)}){also}, got the folder {path}"
        f"{_listing(path)}"
    )


def _stacked(files: list[Path], name: str, read: Callable[[Path], np.ndarray]) -> Tensor:
    frames = [read(file) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"expected {name} images of one size, got {list(frames[0].shape)} in {files[0]} "
                f"and {list(frame.shape)} in {file}"
            )
    return torch.from_numpy(np.stack(frames))


def _labels(path: Path) -> np.ndarray:
    """Part labels of one image: grey values, or places in a palette."""
    image = _only_frame(path)
    if image.mode not in _LABEL_MODES:
        raise ValueError(
            f"expected part labels as a grey or palette image, got mode {image.mode} in {path}; "
            "save the numbers of the parts, not their colours"
        )
    return _checked_labels(np.asarray(image), path)


def _greys(path: Path) -> np.ndarray:
    """Values of a grey or palette image as they stand in it."""
    image = _only_frame(path)
    if image.mode not in ("L", "P"):
        raise ValueError(
            f"expected a grey or palette image of 8 bits, got mode {image.mode} in {path}"
        )
    return np.asarray(image)


def _colours(path: Path) -> np.ndarray:
    return np.asarray(_only_frame(path).convert("RGB"))


def _only_frame(path: Path) -> Image.Image:
    frames = [image.copy() for image in decode_image(path)]
    if len(frames) != 1:
        raise ValueError(f"expected one frame per image, got {len(frames)} in {path}")
    return frames[0]


def _checked_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    _, highest = MODALITIES["parsing"].value_range or (0, 0)
    if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
        raise ValueError(
            f"expected part labels 0 to {highest:g} in {path}, got {labels.min()} to "
            f"{labels.max()}; is this a silhouette, or a coloured picture of labels?"
        )
    return labels.astype(np.uint8)


def _shaped(array: np.ndarray, modality: Modality, path: Path) -> Tensor:
    """Axes and types as the modality says; OpenGait keeps frames before channels."""
    letters = modality.axes.split()[1:]
    channels = modality.channels
    if letters[:2] == ["C", "T"]:
        array = _channels_first(array, channels, path)
    fits = array.ndim == len(letters) and array.size > 0 and array.dtype.kind in "fiub"
    if fits and channels is not None:
        fits = array.shape[0 if letters[0] == "C" else -1] == channels
    if not fits:
        sizes = [str(channels) if axis in "CD" and channels else axis for axis in letters]
        raise ValueError(
            f"expected {modality.name} [{', '.join(sizes)}] in {path}, got {array.dtype} of shape "
            f"{list(array.shape)}"
        )
    integers = array.dtype.kind in "iub"
    if integers:
        if modality.bytes_mean == "labels":
            array = _checked_labels(array, path)
        elif modality.bytes_mean == "grey levels" or modality.name == "rgb":
            array = _checked_greys(array, modality.name, path)
    if array.dtype != np.uint8 or modality.bytes_mean == "none":
        array = array.astype(np.float32)  # also foreign byte orders
    # torch warns of memory that it must not write to, as that of pickles is.
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    return tensor / 255 if modality.name == "rgb" and integers else tensor


def _channels_first(array: np.ndarray, channels: int | None, path: Path) -> np.ndarray:
    """``[C, T, H, W]`` of an array with channels in any other place."""
    if array.ndim == 3 and channels == 1:
        return array[None]
    if array.ndim != 4 or channels is None:
        return array
    # As many frames as channels: pickles, OpenGait's, begin with frames, other arrays do not.
    places = (1, 0, 3) if path.suffix.lower() == ".pkl" else (0, 1, 3)
    place = next((axis for axis in places if array.shape[axis] == channels), 0)
    return np.moveaxis(array, place, 0)


def _checked_greys(array: np.ndarray, name: str, path: Path) -> np.ndarray:
    if array.min() < 0 or array.max() > 255:
        raise ValueError(
            f"expected {name} as grey levels 0 to 255 or as floats in {path}, got whole numbers "
            f"from {array.min()} to {array.max()}"
        )
    return array.astype(np.uint8)
