"""What networks over poses have in common."""

from __future__ import annotations

from torch import Tensor, int64, nn

from gaitzoo.data.joints import find_skeleton
from gaitzoo.models.base import GaitModel

__all__ = ["PoseLinear", "PoseModel"]


class PoseLinear(nn.Linear):
    """The last matrix, in float32 or wider also where the maps are narrower.

    Shapes:
        x: ``[..., in_features]``.
        returns: ``[..., out_features]``.
    """

    keeps_float32 = True


class PoseModel(GaitModel):
    """Base of models that read poses of one joint format and have no classifier.

    Attributes:
        joint_format: ``"coco17"`` or ``"openpose18"``, which joints it reads.
        num_joints: J.
    """

    modalities = ("poses",)
    classifier_key = None
    joint_format: str
    num_joints: int

    def set_joints(self, joint_format: str) -> None:
        """Says which joints the model reads, for a constructor to call.

        Raises:
            ValueError: If the format is unknown.
        """
        self.num_joints = find_skeleton(joint_format).num_joints
        self.joint_format = joint_format

    def read(self, poses: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Checked poses with zeros past the end, and lengths.

        Args:
            poses: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``[N, T, J, 3]`` and ``[N]`` int64, or ``None``.

        Raises:
            TypeError: See :meth:`GaitModel.prepare`.
            ValueError: See :meth:`GaitModel.prepare`; or if the joints are of another format.
        """
        x, lengths = self.prepare(poses, lengths)
        if x.shape[3] != self.num_joints:
            raise ValueError(
                f"expected poses of {self.num_joints} joints ({self.joint_format}) for "
                f"{type(self).__name__}, got {x.shape[3]}; read them with "
                f"gaitzoo.data.poses.load_poses(path, to_format={self.joint_format!r})"
            )
        return x.permute(0, 2, 3, 1), None if lengths is None else lengths.to(int64)
