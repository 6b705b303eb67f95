"""Forces that somebody else's program has written, brought to the frames of a clip.

PhysPT (https://github.com/zhangy76/PhysPT, MIT) predicts joint torques and ground forces from
videos. It is not contained here: it needs SMPL bodies, which must be registered for, and weights
that its authors host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.arrays import READ_ERRORS

__all__ = ["PhysPTForces", "load_force_npz"]

_JOINTS = 23  # of SMPL, without the root
_POINTS = 29  # of the feet, where the ground acts


@dataclass(frozen=True, eq=False)
class PhysPTForces:
    """Forces of a clip, as PhysPT gives them.

    Args:
        torques: ``[T, 24, 3]`` float32, SMPL's joints; zeros at the root and in frames without.
        grf: ``[T, 29, 3]`` float32, the ground's force on points of the feet, z upwards; ``None`` =
            the file has none.
        valid: ``[T]`` bool, frames that the file has.

    Example:
        >>> np.savez("walk.npz", pred_torques=np.ones((2, 69)), frame_idx=np.array([1, 2]))
        >>> forces = PhysPTForces.from_npz("walk.npz", num_frames=4)
        >>> forces.torques.shape, forces.valid.tolist()
        (torch.Size([4, 24, 3]), [False, True, True, False])
    """

    torques: Tensor
    grf: Tensor | None
    valid: Tensor

    @classmethod
    def from_npz(cls, path: str | Path, num_frames: int | None = None) -> PhysPTForces:
        """Reads ``pred_torques``, ``pred_grf`` and ``frame_idx``.

        Args:
            path: A ``.npz`` file: ``pred_torques [M, 69]`` or ``[M, 23, 3]``, ``frame_idx [M]``
                whole numbers, and perhaps ``pred_grf [M, 87]`` or ``[M, 29, 3]``. PhysPT gives two
                frames fewer than the video has.
            num_frames: T of the clip; ``None`` = up to the last frame of the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such archive, lacks an array, or arrays and frames do not fit.
        """
        arrays = _read(Path(path), ("pred_torques", "frame_idx"), ("pred_grf",))
        frames = arrays["frame_idx"]
        whole = np.issubdtype(frames.dtype, np.integer)
        if frames.ndim != 1 or not len(frames) or not whole or len(np.unique(frames)) < len(frames):
            raise ValueError(
                f"expected frame_idx of {path} as different whole numbers [M], got {frames.dtype} "
                f"{list(frames.shape)}"
            )
        last = int(frames.max())
        count = last + 1 if num_frames is None else num_frames
        if int(frames.min()) < 0 or last >= count:
            raise ValueError(
                f"expected frame_idx of {path} from 0 to {count - 1}, the frames of the clip, got "
                f"{frames.min()} to {last}"
            )
        torques = _vectors(arrays["pred_torques"], len(frames), _JOINTS, f"pred_torques of {path}")
        index = torch.from_numpy(frames.astype(np.int64))
        placed = torch.zeros(count, _JOINTS + 1, 3)
        placed[index, 1:] = torques
        valid = torch.zeros(count, dtype=torch.bool)
        valid[index] = True
        grf = None
        if "pred_grf" in arrays:
            grf = torch.zeros(count, _POINTS, 3)
            grf[index] = _vectors(arrays["pred_grf"], len(frames), _POINTS, f"pred_grf of {path}")
        return cls(placed, grf, valid)


def load_force_npz(path: str | Path, num_frames: int | None = None) -> tuple[Tensor, Tensor]:
    """Joint torques of a clip, as :class:`ForceGait` reads them, and which frames have any.

    Args:
        path: A ``.npz`` file with ``torques [T, J, 3]`` and perhaps ``valid [T]`` (booleans), or
            one of PhysPT (:class:`PhysPTForces`).
        num_frames: T of the clip; ``None`` = as many as the file has.

    Returns:
        ``[T, J, 3]`` float32 and ``[T]`` bool. Numbers are those of the file: divide newton metres
        (inferred to be PhysPT's unit) by mass times 9.81 times height before :class:`ForceGait`
        reads them, which cuts off what is above 0.15.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such archive, or arrays and frames do not fit.

    Example:
        >>> np.savez("own.npz", torques=np.zeros((5, 24, 3)))
        >>> torques, valid = load_force_npz("own.npz")
        >>> torques.shape, bool(valid.all())
        (torch.Size([5, 24, 3]), True)
    """
    arrays = _read(Path(path), (), ("torques", "valid", "pred_torques"))
    if "torques" not in arrays:
        if "pred_torques" not in arrays:
            raise ValueError(f"expected torques or pred_torques in {path}, got neither")
        forces = PhysPTForces.from_npz(path, num_frames)
        return forces.torques, forces.valid
    torques = arrays["torques"]
    if torques.ndim != 3 or not torques.size:
        raise ValueError(f"expected torques [T, J, 3] in {path}, got {list(torques.shape)}")
    found = _vectors(torques, len(torques), torques.shape[1], f"torques of {path}")
    if num_frames not in (None, len(found)):
        raise ValueError(f"expected torques of {num_frames} frames in {path}, got {len(found)}")
    valid = arrays.get("valid", np.ones(len(found), dtype=bool))
    if valid.dtype != bool or valid.shape != (len(found),):
        raise ValueError(
            f"expected valid in {path} as {len(found)} booleans, got {valid.dtype} "
            f"{list(valid.shape)}"
        )
    return found, torch.from_numpy(valid.copy())


def _read(path: Path, needed: tuple[str, ...], wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an archive, as far as it has them; nothing is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of forces, got {path}, which is none")
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            arrays = {name: archive[name] for name in (*needed, *wanted) if name in archive.files}
    except READ_ERRORS as error:
        raise ValueError(f"expected {path} as a .npz archive of arrays, got: {error}") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in {path}, got an archive without")
    return arrays


def _vectors(array: np.ndarray, frames: int, count: int, words: str) -> Tensor:
    """``[M, count, 3]`` float32 from that, or from rows of ``3 * count`` numbers."""
    numbers = np.issubdtype(array.dtype, np.number)
    if not numbers or array.shape not in ((frames, 3 * count), (frames, count, 3)):
        raise ValueError(
            f"expected {words} as numbers [{frames}, {count}, 3], got {array.dtype} "
            f"{list(array.shape)}"
        )
    found = torch.from_numpy(array.astype(np.float32).reshape(frames, count, 3))
    if not bool(found.isfinite().all()):
        raise ValueError(f"expected {words} as finite numbers, got NaN or infinite ones")
    return found
