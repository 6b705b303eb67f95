"""Facts of joint formats: who is next to whom, who is whose mirror image, which graph they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gaitzoo.layers.body_segments import BODY_SEGMENTS
from gaitzoo.layers.graph import hop_adjacency

__all__ = ["SKELETONS", "Skeleton", "find_skeleton", "joint_graph"]


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Joints of a format, by their numbers.

    Args:
        name: Name of the format, as in ``gaitzoo.data.poses.JOINT_FORMATS``.
        edges: Pairs of neighbours.
        parents: Where the bone of every joint begins; a joint that is its own parent has none.
        mirrored: The joint on the other side of the body, for every joint.
        center: Joint of the trunk that others are measured from where a graph is asked for it.

    Example:
        >>> SKELETONS["coco17"].num_joints, SKELETONS["openpose18"].num_joints
        (17, 18)
    """

    name: str
    edges: tuple[tuple[int, int], ...]
    parents: tuple[int, ...]
    mirrored: tuple[int, ...]
    center: int

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)


def _table(*skeletons: Skeleton) -> Mapping[str, Skeleton]:
    return {skeleton.name: skeleton for skeleton in skeletons}


SKELETONS: Mapping[str, Skeleton] = _table(
    Skeleton(
        name="coco17",
        edges=BODY_SEGMENTS["coco17"].edges,
        parents=(5, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        mirrored=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
        center=0,
    ),
    Skeleton(
        name="openpose18",
        edges=(
            *((0, 1), (0, 14), (0, 15), (14, 16), (15, 17), (1, 2), (2, 3), (3, 4), (1, 5)),
            *((5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
        ),
        parents=(1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
        mirrored=(0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16),
        center=1,
    ),
)


def find_skeleton(joint_format: str) -> Skeleton:
    """The facts of a joint format.

    Args:
        joint_format: One of the keys of ``SKELETONS``.

    Raises:
        ValueError: If there is none; the message names what there is.

    Example:
        >>> find_skeleton("coco17").parents[9]
        7
    """
    if joint_format not in SKELETONS:
        raise ValueError(
            f"expected joint_format among {', '.join(SKELETONS)}, got {joint_format!r}; other "
            "formats can be converted, gaitzoo.data.poses.convert_joints"
        )
    return SKELETONS[joint_format]


def joint_graph(joint_format: str = "coco17", max_hops: int = 3) -> Tensor:
    """The graph of a skeleton as pose networks read it, one matrix per distance.

    Source: ResGCN (https://arxiv.org/abs/2010.09978), Sec. 3, with the edges of OpenGait.

    Args:
        joint_format: One of the keys of ``SKELETONS``.
        max_hops: Longest distance that counts.

    Returns:
        ``[max_hops + 1, J, J]`` float32, see :func:`gaitzoo.layers.graph.hop_adjacency`.

    Raises:
        ValueError: If the format is unknown or ``max_hops`` no positive whole number.

    Example:
        >>> joint_graph("openpose18").shape
        torch.Size([4, 18, 18])
    """
    skeleton = find_skeleton(joint_format)
    return hop_adjacency(skeleton.num_joints, skeleton.edges, max_hops)
