"""Sequences of any modality from files: alone, or several that belong together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.arrays import load_array
from gaitzoo.data.files import load_silhouettes
from gaitzoo.data.modalities import find_modality
from gaitzoo.data.poses import load_poses
from gaitzoo.data.skeleton_maps import PosesToMaps

__all__ = ["entry_of", "load_sequence"]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Words that files and folders of a modality are named by.
_NAMES = {
    "silhouettes": ("silhouettes", "silhouette", "sils", "sil"),
    "skeleton_maps": ("skeleton_maps", "skeleton_map", "heatmaps", "heatmap"),
    "parsing": ("parsing", "pars", "par", "labels"),
    "rgb": ("rgb", "images", "ratio_rgb"),
    "depth": ("depth",),
    "flow": ("flow",),
    "poses": ("poses", "pose", "keypoints", "alphapose-results", "openpose"),
    "smpl": ("smpl", "smpls"),
    "joints3d": ("joints3d", "3d_joints"),
    "points": ("points", "pointclouds"),
    "images": ("maps",),
}
_LABELS = 11


def load_sequence(
    path: str | os.PathLike[str],
    modalities: str | Sequence[str] | Mapping[str, str] = "silhouettes",
) -> Tensor | dict[str, Tensor]:
    """Reads one sequence of one modality or of several.

    Of a folder with several modalities, each is found by its name (``parsing/``, ``poses.json``,
    ``sil.pkl``); OpenGait's folders, with one pickle per modality under other names, are read in
    the order of their names, if there are as many as modalities. Skeleton maps are drawn from
    poses where there are none.

    Args:
        path: A file or a folder.
        modalities: One name (the file or folder is read as it), several names, or a mapping from
            names to patterns of file names in the folder (``{"parsing": "1_*.pkl"}``).

    Returns:
        The tensor of one sequence, without the axis N, or for several modalities a dictionary.
        Grey levels stay uint8 (0..255), labels uint8 (0..11), colours are floats in [0, 1].

    Raises:
        FileNotFoundError: If there is nothing at ``path``, or a modality is not beside the others.
        ValueError: If a name is no modality, a file is damaged or holds another shape, or the
            modalities have different numbers of frames.

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
        read = _load_one(_place_alone(root, names[0]), names[0])
        return read if isinstance(modalities, str) else {names[0]: read}
    if not root.is_dir():
        raise ValueError(
            f"expected a folder with {', '.join(names)}, got the file {root}; give its folder"
        )
    found = {name: _load_one(_place(root, name, names, patterns), name) for name in names}
    counts = {}
    for name, tensor in found.items():
        modality = find_modality(name)
        if modality.time_axis is not None:
            counts[name] = tensor.shape[modality.time_axis_of(tensor)]
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"expected modalities with as many frames as each other in {root}, got "
            f"{', '.join(f'{count} of {name}' for name, count in counts.items())}"
        )
    return found


def _place_alone(root: Path, name: str) -> tuple[Path, bool]:
    """Where one modality is, and whether it is poses to be drawn."""
    if root.is_file():
        return root, name == "skeleton_maps" and root.suffix == ".json"
    inner = entry_of(root, name)
    if inner is not None:
        return inner, False
    if name == "skeleton_maps":
        poses = entry_of(root, "poses")
        if poses is not None or any(p.suffix == ".json" for p in root.iterdir()):
            return poses or root, True
    return root, False


def _place(
    root: Path, name: str, names: Sequence[str], patterns: Mapping[str, str]
) -> tuple[Path, bool]:
    if name in patterns:
        matches = sorted(p for p in root.glob(patterns[name]) if not p.name.startswith("."))
        if len(matches) != 1:
            raise FileNotFoundError(
                f"expected one file for {name} ({patterns[name]}) in {root}, got "
                f"{len(matches) or 'none'}{_listing(root)}"
            )
        return matches[0], False
    inner = entry_of(root, name)
    if inner is not None:
        return inner, False
    # OpenGait: one pickle per modality, in the order of their names.
    pickles = sorted(p for p in root.iterdir() if p.suffix == ".pkl")
    named = [p for p in pickles if any(entry_of(root, other) == p for other in names)]
    if len(pickles) == len(names) and not named:
        return pickles[list(names).index(name)], False
    if name == "skeleton_maps":
        poses = entry_of(root, "poses")
        if poses is not None:
            return poses, True
    beside = [other for other in names if other != name]
    raise FileNotFoundError(
        f"expected {name} beside {', '.join(beside)} in {root}, got no file or folder named "
        f"{' or '.join(_NAMES[name])}{_listing(root)}"
    )


def entry_of(root: Path, name: str) -> Path | None:
    """The file or folder of one modality by its name (``poses.json``, ``parsing/``).

    Args:
        root: A folder.
        name: Name of the modality.

    Returns:
        ``None`` if there is none.
    """
    for entry in sorted(root.iterdir()):
        stem = entry.name if entry.is_dir() else entry.stem
        if stem.lower() in _NAMES[name]:
            return entry
    return None


def _listing(root: Path) -> str:
    entries = sorted(p.name for p in root.iterdir() if not p.name.startswith("."))
    return f" (there are {', '.join(entries[:6])}{', ...' if len(entries) > 6 else ''})"


def _load_one(place: tuple[Path, bool], name: str) -> Tensor:
    path, drawn = place
    if drawn:
        return PosesToMaps((64, 64)).draw(load_poses(path))
    if name == "silhouettes":
        return load_silhouettes(path)
    if name == "poses":
        return load_poses(path)
    if path.is_dir():
        if name not in ("parsing", "rgb"):
            raise ValueError(
                f"expected {name} as an array (.npy, .npz or .pkl), got the folder {path}"
            )
        return _stacked(path, _labels if name == "parsing" else _colours, name)
    return _shaped(load_array(path), name, path)


def _stacked(folder: Path, read: Callable[[Path], np.ndarray], name: str) -> Tensor:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES)
    if not files:
        raise ValueError(f"expected images of {name} in {folder}, got none{_listing(folder)}")
    frames = [read(file) for file in files]
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise ValueError(
            f"expected {name} images of one size in {folder}, got "
            f"{' and '.join(str(list(shape)) for shape in sorted(shapes)[:2])}"
        )
    stacked = torch.from_numpy(np.stack(frames))
    return stacked.permute(3, 0, 1, 2).float() / 255 if name == "rgb" else stacked


def _labels(path: Path) -> np.ndarray:
    """Part labels of one image: grey values, or places in a palette."""
    from PIL import Image

    with Image.open(path) as image:
        if image.mode not in ("L", "P", "I", "I;16", "1"):
            raise ValueError(
                f"expected part labels as a grey or palette image, got mode {image.mode} in {path}"
            )
        labels = np.asarray(image)
    if labels.max(initial=0) > _LABELS:
        raise ValueError(
            f"expected part labels 0 to {_LABELS}, got {labels.max()} in {path}; is this a "
            "silhouette or a colour picture of labels?"
        )
    return labels.astype(np.uint8)


def _colours(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _shaped(array: np.ndarray, name: str, path: Path) -> Tensor:
    """Axes as the modality says; OpenGait keeps frames before channels."""
    modality = find_modality(name)
    letters = modality.axes.split()[1:]
    channels = modality.channels
    if letters[:2] == ["C", "T"] and array.ndim == 4 and array.shape[0] != channels:
        if array.shape[1] == channels:
            array = array.swapaxes(0, 1)
        elif array.shape[3] == channels:
            array = np.moveaxis(array, 3, 0)
    fits = array.ndim == len(letters) and array.size > 0 and array.dtype.kind in "fiub"
    if fits and channels is not None:
        fits = array.shape[0 if letters[0] == "C" else -1] == channels
    if not fits:
        sizes = [str(channels) if axis in "CD" and channels else axis for axis in letters]
        raise ValueError(
            f"expected {name} [{', '.join(sizes)}] in {path}, got {array.dtype} of shape "
            f"{list(array.shape)}"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if name == "rgb" and tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if tensor.dtype == torch.uint8 and modality.bytes_mean != "none":
        if modality.bytes_mean == "labels" and int(tensor.max()) > _LABELS:
            raise ValueError(f"expected part labels 0 to {_LABELS} in {path}, got {tensor.max()}")
        return tensor
    return tensor.float()
