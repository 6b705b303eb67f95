"""Poses from the files that pose estimators write.

COCO-style JSON (one file per sequence or per frame; AlphaPose's results are such a list),
OpenPose's JSON per frame, OpenGait's pickles and numpy arrays. Joints come out in COCO's order, or
in OpenPose's of 18 for models that read those.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.arrays import ARRAY_SUFFIXES, load_array
from gaitzoo.data.natural import natural_order

__all__ = ["JOINT_FORMATS", "convert_joints", "load_poses", "read_poses"]

# Where each of COCO's 17 joints stands in other formats; the count of joints tells them apart.
JOINT_FORMATS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "coco17": (17, tuple(range(17))),
    "openpose18": (18, (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)),
    "body25": (25, (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)),
    "mediapipe33": (33, (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)),
    "halpe26": (26, tuple(range(17))),
    "wholebody133": (133, tuple(range(17))),
    "halpe136": (136, tuple(range(17))),
}


# Where the neck stands in formats that have one, which COCO's 17 joints lack.
_NECKS = {"openpose18": 1, "body25": 1, "halpe26": 18, "halpe136": 18}
_SHOULDERS = [5, 6]
# Where each of OpenPose's 18 joints stands in COCO's order with the neck behind it.
_OPENPOSE18 = [0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]


def convert_joints(
    poses: Tensor, joint_format: str | None = None, to_format: str = "coco17"
) -> Tensor:
    """Joints of another format in COCO's order of 17, or in OpenPose's of 18.

    Args:
        poses: ``[T, J, 3]``.
        joint_format: One of ``JOINT_FORMATS``; ``None`` = by the number of joints.
        to_format: ``"coco17"`` or ``"openpose18"``, the ``joint_format`` of models. The latter has
            a neck: that of the poses, or the middle of the shoulders where they have none, with the
            lower confidence of both; (0, 0, 0) where a shoulder is missing.

    Returns:
        ``[T, 17, 3]`` or ``[T, 18, 3]``.

    Raises:
        ValueError: If the number of joints is not that of the format, or of no format, or joints
            are asked for in any other format.

    Example:
        >>> convert_joints(torch.zeros(5, 25, 3)).shape
        torch.Size([5, 17, 3])
        >>> convert_joints(torch.zeros(5, 17, 3), to_format="openpose18").shape
        torch.Size([5, 18, 3])
    """
    if to_format not in ("coco17", "openpose18"):
        raise ValueError(f'expected to_format "coco17" or "openpose18", got {to_format!r}')
    count = poses.shape[1] if poses.ndim == 3 else None
    if joint_format is None:
        fitting = [name for name, (number, _) in JOINT_FORMATS.items() if number == count]
        if not fitting:
            known = ", ".join(f"{number} ({name})" for name, (number, _) in JOINT_FORMATS.items())
            raise ValueError(
                f"expected poses [T, J, 3] with J among {known}, got {list(poses.shape)}"
            )
        joint_format = fitting[0]
    if joint_format not in JOINT_FORMATS:
        raise ValueError(
            f"expected joint_format among {', '.join(JOINT_FORMATS)}, got {joint_format!r}"
        )
    number, places = JOINT_FORMATS[joint_format]
    if count != number:
        raise ValueError(
            f"expected {number} joints for {joint_format}, got poses of shape {list(poses.shape)}"
        )
    coco = poses[:, list(places)]
    if to_format == "coco17":
        return coco
    if joint_format in _NECKS:
        neck = poses[:, _NECKS[joint_format]]
    else:
        shoulders = coco[:, _SHOULDERS]
        middle = torch.cat([shoulders[..., :2].mean(1), shoulders[..., 2:].amin(1)], dim=-1)
        missing = (shoulders[..., :2] == 0).all(-1).any(1)
        neck = torch.where(missing[:, None], 0, middle)
    return torch.cat([coco, neck[:, None]], dim=1)[:, _OPENPOSE18]


def load_poses(
    path: str | Path, joint_format: str | None = None, to_format: str = "coco17"
) -> Tensor:
    """Reads the poses of one sequence.

    Args:
        path: A JSON file of a sequence, a folder of one JSON file per frame (in natural order), or
            an array ``[T, J, 3]`` as ``.pkl`` (OpenGait), ``.npy`` or ``.npz``, also alone in a
            folder. Of COCO's ground truth, joints that are marked as visible (2) or hidden (1)
            have confidence 1.
        joint_format: As for :func:`convert_joints`.
        to_format: As for :func:`convert_joints`; the ``joint_format`` of the model that reads them.

    Returns:
        ``[T, 17, 3]`` (or ``[T, 18, 3]``) float32: x and y in pixels, confidence.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If a file is damaged, of another layout, or nobody is in any frame.

    Warns:
        UserWarning: If a frame holds several people (the one of the highest confidence is taken)
            or nobody (it is left out).
    """
    return read_poses(path, joint_format, to_format)[0]


def read_poses(
    path: str | Path, joint_format: str | None = None, to_format: str = "coco17"
) -> tuple[Tensor, tuple[int, ...]]:
    """As :func:`load_poses`, with the numbers of the frames that were left out.

    Args:
        path: See :func:`load_poses`.
        joint_format: See :func:`convert_joints`.
        to_format: See :func:`convert_joints`.

    Returns:
        The poses, and which frames hold nobody, counted from 0 over all frames.

    Raises:
        FileNotFoundError: See :func:`load_poses`.
        ValueError: See :func:`load_poses`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a file or folder of poses, got {str(path)!r}")
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return convert_joints(_checked(load_array(path), path), joint_format, to_format), ()
    frames: dict[Any, list[np.ndarray]] = {}
    if path.is_dir():
        files = _files_in(path)
        if len(files) == 1:
            return read_poses(files[0], joint_format, to_format)
        for file in files:
            people = [pose for _, pose in _people(_json(file), file)]
            frames[file.name] = people
    else:
        content = _json(path)
        for image in _images(content):
            frames.setdefault(image, [])
        for frame, pose in _people(content, path):
            frames.setdefault(frame, []).append(pose)
        frames = {
            frame: frames[frame]
            for frame in sorted(frames, key=lambda frame: natural_order(str(frame)))
        }
    poses = _one_per_frame(frames, path)
    if len({len(pose) for pose in poses}) > 1:
        raise ValueError(f"expected poses with equally many joints in {path}, got several counts")
    empty = tuple(i for i, people in enumerate(frames.values()) if not people)
    return convert_joints(_checked(np.stack(poses), path), joint_format, to_format), empty


def _files_in(folder: Path) -> list[Path]:
    """JSON files in natural order, or the one array that is there instead of them."""
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in visible if entry.suffix.lower() == ".json"]
    files.sort(key=lambda entry: natural_order(entry.name))
    arrays = [entry for entry in visible if entry.suffix.lower() in ARRAY_SUFFIXES]
    if not files and len(arrays) != 1:
        raise ValueError(
            f"expected a folder of JSON files of poses, or of one array, got {len(arrays) or 'no'} "
            f"arrays and no JSON in {folder}"
        )
    return files or arrays


def _one_per_frame(frames: Mapping[Any, list[np.ndarray]], path: Path) -> list[np.ndarray]:
    empty = sum(not people for people in frames.values())
    several = sum(len(people) > 1 for people in frames.values())
    poses = [
        max(people, key=lambda p: float(p[:, 2].mean())) for people in frames.values() if people
    ]
    if not poses:
        raise ValueError(f"expected somebody in some frame of {path}, got nobody")
    if several:
        warnings.warn(
            f"{several} of {len(frames)} frames of {path} hold several people; the one of the "
            "highest confidence was taken. Split people by their tracks first",
            stacklevel=5,
        )
    if empty:
        warnings.warn(
            f"{empty} of {len(frames)} frames of {path} hold nobody and were left out",
            stacklevel=5,
        )
    return poses


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON file: {error}") from error


def _images(content: Any) -> list[Any]:
    """Frames of a COCO file in which nobody may be."""
    images = content.get("images") if isinstance(content, dict) else None
    return [image.get("id") for image in images or [] if isinstance(image, dict)]


def _people(content: Any, path: Path) -> Iterator[tuple[Any, np.ndarray]]:
    """Frame and pose of everybody in a file."""
    if isinstance(content, dict):
        for key in ("annotations", "people"):
            if isinstance(content.get(key), list):
                content = content[key]
                break
        else:
            content = [content]
    if not isinstance(content, list):
        raise ValueError(
            f"expected poses in {path} (COCO annotations, AlphaPose results or OpenPose people), "
            f"got {type(content).__name__}"
        )
    for i, person in enumerate(content):
        found = person.get("keypoints", person.get("pose_keypoints_2d")) if _is(person) else None
        if found is None:
            raise ValueError(
                f'expected entries with "keypoints" or "pose_keypoints_2d" in {path}, got '
                f"{_words(person)} as entry {i}"
            )
        frame = person.get("image_id", person.get("frame", person.get("frame_id", 0)))
        yield frame if isinstance(frame, (str, int)) else str(frame), _pose(found, path, i)


def _is(person: Any) -> bool:
    return isinstance(person, dict)


def _words(person: Any) -> str:
    return ", ".join(map(str, list(person)[:4])) if _is(person) else type(person).__name__


def _pose(found: Any, path: Path, number: int) -> np.ndarray:
    """``[J, 3]`` from a flat list or a list of joints."""
    try:
        array = np.asarray(found, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"expected numbers as keypoints of entry {number} in {path}") from error
    if array.ndim == 1 and array.size % 3 == 0 and array.size:
        array = array.reshape(-1, 3)
    if array.ndim == 2 and array.shape[1] == 3 and set(array[:, 2]) <= {0.0, 1.0, 2.0}:
        array[:, 2] = array[:, 2].clip(max=1)  # of annotators: 0 = not there, 1 = hidden, 2 = seen
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(
            f"expected keypoints [J, 3] or x, y, confidence of every joint in a row as entry "
            f"{number} in {path}, got shape {list(array.shape)}"
        )
    return array


def _checked(array: np.ndarray, path: Path) -> Tensor:
    if array.ndim != 3 or array.shape[2] != 3 or len(array) == 0 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"expected poses [T, J, 3] in {path}, got {array.dtype} of shape {list(array.shape)}"
        )
    with np.errstate(over="ignore"):
        narrow = np.array(array, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise ValueError(f"expected finite poses in {path}, got NaN or infinite numbers")
    return torch.from_numpy(narrow)
