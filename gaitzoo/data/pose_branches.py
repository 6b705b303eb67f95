"""What pose networks read: positions, velocities and bones made of poses.

Poses stay in the pixels of their image: the published networks normalise nothing but by batch norm,
so poses must be in the units of the training set. Source: GaitGraph2 (https://arxiv.org/abs/2204.07855)
and GaitTR (https://arxiv.org/abs/2204.03873); numbers as measured on the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaitzoo.data.joints import Skeleton, find_skeleton
from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask, mask_fill

__all__ = [
    "fill_empty_joints",
    "gaitgraph_inputs",
    "gaittr_inputs",
    "reverse_time",
    "swap_joints",
]

_NOSE = 0


def gaitgraph_inputs(
    poses: Tensor,
    lengths: Tensor | None = None,
    *,
    joint_format: str = "coco17",
    center: int = _NOSE,
) -> Tensor:
    """Joint, velocity and bone branches, as GaitGraph2 reads them.

    With position (x, y), score s, the centre joint c and bone b = position - that of the parent:

    * joint: ``x, y, s, x - x_c, y - y_c``
    * velocity: the step of x and y to the next frame, 0, ``s``, the step of y to the frame after it
    * bone: ``b_x, b_y, 0, s, acos(b_y / (|b| + 1e-4))``

    Velocities of the last two frames of a sequence are 0, so all are in sequences of one or two.
    The authors overwrite the fourth number of velocity and bone by the score; so it is here.

    Args:
        poses: ``[N, T, J, 3]``, x and y in pixels, confidence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T. No difference reaches past them.
        joint_format: ``"coco17"`` or ``"openpose18"``.
        center: Number of the centre joint; 0 is the nose in both formats, as for training.

    Returns:
        ``[N, T, J, 3, 5]`` (branch, number); what stands past the end holds no meaning.

    Raises:
        TypeError: If poses are no floats or lengths no integers.
        ValueError: If the format is unknown, the shape another one, or lengths do not fit.

    Example:
        >>> gaitgraph_inputs(torch.rand(2, 60, 17, 3)).shape
        torch.Size([2, 60, 17, 3, 5])
    """
    skeleton, poses, lengths = _checked(poses, lengths, joint_format)
    if type(center) is not int or not 0 <= center < skeleton.num_joints:
        raise ValueError(f"expected center in 0..{skeleton.num_joints - 1}, got {center!r}")
    points, score = poses[..., :2], poses[..., 2:]
    nothing = torch.zeros_like(score)
    step, two_steps = (_velocity(points, lengths, frames) for frames in (1, 2))
    bone = points - points[:, :, list(skeleton.parents)]
    angle = torch.acos(bone[..., 1:] / (bone.square().sum(-1, keepdim=True).sqrt() + 1e-4))
    branches = (
        (points, score, points - points[:, :, center : center + 1]),
        (step, nothing, score, two_steps[..., 1:]),
        (bone, nothing, score, angle),
    )
    return torch.stack([torch.cat(branch, dim=-1) for branch in branches], dim=3)


def gaittr_inputs(
    poses: Tensor, lengths: Tensor | None = None, *, joint_format: str = "coco17"
) -> Tensor:
    """Positions, velocities and bones on one axis, as GaitTR reads them.

    Ten numbers of every joint: position, position from the nose, the step to the next frame, the
    step to the frame after it, the bone to the parent; x and y each. Confidence is left out.
    Velocities of the last two frames of a sequence are 0.

    Args:
        poses: ``[N, T, J, 3]``, x and y in pixels, confidence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T. No difference reaches past them.
        joint_format: ``"coco17"`` or ``"openpose18"``.

    Returns:
        ``[N, T, 10, J, 1]``; what stands past the end holds no meaning.

    Raises:
        TypeError: If poses are no floats or lengths no integers.
        ValueError: If the format is unknown, the shape another one, or lengths do not fit.

    Example:
        >>> gaittr_inputs(torch.rand(2, 60, 17, 3)).shape
        torch.Size([2, 60, 10, 17, 1])
    """
    skeleton, poses, lengths = _checked(poses, lengths, joint_format)
    points = poses[..., :2]
    numbers = (
        points,
        points - points[:, :, _NOSE : _NOSE + 1],
        _velocity(points, lengths, 1),
        _velocity(points, lengths, 2),
        points - points[:, :, list(skeleton.parents)],
    )
    return torch.cat(numbers, dim=-1).transpose(2, 3).unsqueeze(-1)


def fill_empty_joints(poses: Tensor) -> Tensor:
    """Puts joints that were not found, with an x of exactly 0, into the middle of the others.

    Joint by joint: x and y become the mean over all joints of the frame, repaired ones and missing
    ones (zeros) included, in the order of their numbers; confidence becomes 0. This is what the
    authors of GaitGraph2 do with CASIA-B, GREW, CCPG and OU-MVLP.

    Args:
        poses: ``[..., J, 3]``, x and y in pixels, confidence.

    Returns:
        The same shape.

    Raises:
        ValueError: If the last axis has other than three numbers.

    Example:
        >>> fill_empty_joints(torch.tensor([[4.0, 2.0, 0.9], [0.0, 0.0, 0.0]]))
        tensor([[4.0000, 2.0000, 0.9000],
                [2.0000, 1.0000, 0.0000]])
    """
    if poses.ndim < 2 or poses.shape[-1] != 3:
        raise ValueError(f"expected poses [..., J, 3], got {shape_of(poses)}")
    joints = list(poses.unbind(-2))
    for i, joint in enumerate(joints):
        mean = torch.stack(joints, dim=-2)[..., :2].mean(-2)
        middle = torch.cat([mean, torch.zeros_like(mean[..., :1])], dim=-1)
        joints[i] = torch.where(joint[..., :1] == 0, middle, joint)
    return torch.stack(joints, dim=-2)


def swap_joints(poses: Tensor, joint_format: str = "coco17") -> Tensor:
    """Names left joints right and right ones left; coordinates stay, nothing is mirrored.

    Args:
        poses: ``[..., J, 3]``.
        joint_format: ``"coco17"`` or ``"openpose18"``.

    Returns:
        The same shape.

    Raises:
        ValueError: If the format is unknown or has another number of joints.

    Example:
        >>> swap_joints(torch.arange(51.0).view(17, 3))[15:, 0]
        tensor([48., 45.])
    """
    skeleton = find_skeleton(joint_format)
    if poses.ndim < 2 or poses.shape[-2] != skeleton.num_joints:
        raise ValueError(f"expected poses [..., {skeleton.num_joints}, 3], got {shape_of(poses)}")
    return poses[..., list(skeleton.mirrored), :]


def reverse_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Plays sequences backwards, each from its own end.

    Args:
        x: ``[N, T, ...]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.

    Returns:
        The same shape; what stands past the end stays there.

    Raises:
        TypeError: If lengths are no integers.
        ValueError: If lengths do not fit.

    Example:
        >>> reverse_time(torch.tensor([[1, 2, 0], [3, 4, 5]]), torch.tensor([2, 3]))
        tensor([[2, 1, 0],
                [5, 4, 3]])
    """
    lengths = lengths_for(lengths, x, axis=1)
    if lengths is None:
        return x.flip(1)
    frame = torch.arange(x.shape[1], device=x.device)
    source = torch.where(frame < lengths[:, None], lengths[:, None] - 1 - frame, frame)
    index = source[(..., *[None] * (x.ndim - 2))]
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


def _velocity(points: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """How far joints get in some frames; 0 in the last two frames of a sequence."""
    count = points.shape[1]
    frame = torch.arange(count, device=points.device)
    steps = points.index_select(1, (frame + frames).clamp(max=count - 1)) - points
    moving = (frame < count - 2)[None] if lengths is None else lengths_to_mask(lengths - 2, count)
    return torch.where(moving[:, :, None, None], steps, 0)


def _checked(
    poses: Tensor, lengths: Tensor | None, joint_format: str
) -> tuple[Skeleton, Tensor, Tensor | None]:
    skeleton = find_skeleton(joint_format)
    if not isinstance(poses, Tensor) or not poses.is_floating_point():
        got = poses.dtype if isinstance(poses, Tensor) else type(poses).__name__
        raise TypeError(f"expected poses as a tensor of floats, got {got}; use torch.as_tensor")
    wanted = f"[N, T, {skeleton.num_joints}, 3]"
    if poses.ndim != 4 or poses.shape[3] != 3 or poses.numel() == 0:
        hint = "; add the batch axis with poses[None]" if poses.ndim == 3 else ""
        raise ValueError(f"expected poses {wanted}, got {shape_of(poses)}{hint}")
    if poses.shape[2] != skeleton.num_joints:
        raise ValueError(
            f"expected poses {wanted} of {joint_format}, got {shape_of(poses)}; "
            f"gaitzoo.data.poses.convert_joints(poses, to_format={joint_format!r}) converts a "
            "sequence of another format"
        )
    lengths = lengths_for(lengths, poses, axis=1)
    return skeleton, mask_fill(poses, lengths, axis=1), lengths
