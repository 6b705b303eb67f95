"""3-D joints of a walker, as a motion capture system would give them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gaitzoo.synthetic.body import Array, Identity, Skeleton, check_seed, pose, stride_length

__all__ = ["walk_joints3d"]


def walk_joints3d(
    identity: Identity,
    *,
    frames: int = 60,
    frame_rate: float = 25.0,
    speed: float = 1.0,
    phase: float = 0.0,
) -> Tensor:
    """Joints of a person who walks straight on, in the order of SMPL's 24.

    The same joint angles that :func:`render_walk` films, at an even pace and without its small
    changes of style. Spine and collar joints stand between the pelvis, the neck and the shoulders.

    Args:
        identity: Who walks.
        frames: Length of the clip, 1 or more.
        frame_rate: Frames per second.
        speed: Walking speed relative to the person's own, 0.5 to 1.6.
        phase: Gait phase of the first frame, in cycles from the left heel's strike.

    Returns:
        ``[T, 24, 3]`` float32, metres: x forward, y to the person's left, z up, 0 = the ground.

    Raises:
        TypeError: If ``identity`` is of another class, or ``frames`` no integer.
        ValueError: If a number is outside its range.

    Example:
        >>> joints = walk_joints3d(Identity(stature=1.8), frames=30)
        >>> joints.shape, bool(1.4 < joints[0, 15, 2] < 1.6)  # the chin
        (torch.Size([30, 24, 3]), True)
    """
    if not isinstance(identity, Identity):
        raise TypeError(
            f"identity must be an Identity, got {type(identity).__name__}; "
            "use sample_identity(seed)."
        )
    check_seed(frames, "frames")
    if frames < 1:
        raise ValueError("frames must be 1 or more, got 0; a gait cycle takes about 26 frames.")
    if not (math.isfinite(frame_rate) and frame_rate > 0):
        raise ValueError(f"frame_rate must be positive, got {frame_rate}; e.g. 25.0.")
    if not 0.5 <= speed <= 1.6:
        raise ValueError(f"speed must lie in [0.5, 1.6], got {speed}; 1 is the person's own speed.")
    if not math.isfinite(phase):
        raise ValueError(f"phase must be finite, got {phase}; 0 is the left heel's strike.")
    effort = math.sqrt(speed)
    cycles = identity.cadence * effort * np.arange(frames) / frame_rate
    joints = _smpl_joints(pose(identity, np.asarray(phase + cycles, np.float64), effort=effort))
    joints[..., 0] += (cycles * stride_length(identity, effort))[:, None]
    return torch.from_numpy(joints.astype(np.float32))


def _smpl_joints(skeleton: Skeleton) -> Array:
    """``[T, 24, 3]``."""
    pelvis, neck = skeleton.pelvis, skeleton.neck
    spine = [pelvis + share * (neck - pelvis) for share in (0.25, 0.5, 0.75)]
    collars = (neck[:, None] + skeleton.shoulders) / 2
    pairs = {
        1: skeleton.hips,
        4: skeleton.knees,
        7: skeleton.ankles,
        10: skeleton.balls,
        13: collars,
        16: skeleton.shoulders,
        18: skeleton.elbows,
        20: skeleton.wrists,
        22: skeleton.hands,
    }
    joints = np.empty((len(pelvis), 24, 3))
    for index, joint in zip(
        (0, 3, 6, 9, 12, 15), (pelvis, *spine, neck, skeleton.chin), strict=True
    ):
        joints[:, index] = joint
    for index, pair in pairs.items():
        joints[:, index : index + 2] = pair
    return joints
