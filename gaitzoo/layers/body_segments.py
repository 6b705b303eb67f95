"""Segments of the human body: masses, centres of mass, and where they lie between joints.

Masses, centres and radii of gyration: P. de Leva, "Adjustments to Zatsiorsky-Seluyanov's segment
inertia parameters", Journal of Biomechanics 29(9), 1996, Table 4, as textbooks print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "BODY_SEGMENTS",
    "SEGMENT_TABLES",
    "BodySegments",
    "Segment",
    "SegmentMass",
    "find_body_segments",
    "find_segment_table",
]


@dataclass(frozen=True)
class SegmentMass:
    """What is known of a kind of segment.

    Args:
        mass: Share of the body's mass.
        center: Centre of mass, from the proximal end, as a share of the length.
        gyration: Radius of gyration about a transverse axis through the centre, as a share of the
            length.
    """

    mass: float
    center: float
    gyration: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a skeleton; its ends are joints, or the middle of several.

    Args:
        kind: Name in a table of masses.
        proximal: Joints whose mean is the end nearer to the trunk; of the trunk the lower one.
        distal: Joints whose mean is the other end.
        parent: Number of the segment that it hangs on; ``None`` = the root.
        joint: Number of the joint that its forces and torques are written to; ``None`` for the
            root, on which nothing acts but the rest of the body.
        center: Centre of mass, instead of that of the table.
        gyration: Radius of gyration, instead of that of the table.
    """

    kind: str
    proximal: tuple[int, ...]
    distal: tuple[int, ...]
    parent: int | None
    joint: int | None
    center: float | None = None
    gyration: float | None = None


@dataclass(frozen=True, kw_only=True)
class BodySegments:
    """A skeleton as segments, the root first and every parent before its children.

    Args:
        num_joints: J of the joints.
        segments: The segments.
        feet: Numbers of the segments that touch the ground.
        contacts: Of each of them the joint where the ground's force acts.
        sides: Joints of the left and right hip: the line between them is the body's transverse
            axis.
        edges: Pairs of neighbouring joints, for networks on the graph of the skeleton.

    Raises:
        ValueError: If there is not exactly one root in front, a parent comes after its child, a
            joint does not exist, or feet and contacts are not as many as each other.

    Example:
        >>> [segment.kind for segment in BODY_SEGMENTS["coco17"].segments][:3]
        ['trunk', 'head', 'upper_arm']
    """

    num_joints: int
    segments: tuple[Segment, ...]
    feet: tuple[int, ...]
    contacts: tuple[int, ...]
    sides: tuple[int, int]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        parents = [segment.parent for segment in self.segments]
        joints = [segment.joint for segment in self.segments]
        rooted = parents[:1] == joints[:1] == [None]
        if not rooted or any(
            parent is None or joint is None or not 0 <= parent < i
            for i, (parent, joint) in enumerate(zip(parents, joints, strict=True))
            if i
        ):
            raise ValueError(
                "expected segments with one root (no parent, no joint) in front and every parent "
                f"before its children, got parents {parents} and joints {joints}"
            )
        ends = [joint for s in self.segments for joint in (*s.proximal, *s.distal)]
        edges = [joint for edge in self.edges for joint in edge]
        used = [*ends, *self.contacts, *self.sides, *edges]
        used += [joint for joint in joints if joint is not None]
        wrong = sorted({joint for joint in used if not 0 <= joint < self.num_joints})
        empty = [s.kind for s in self.segments if not s.proximal or not s.distal]
        if wrong or empty:
            raise ValueError(
                f"expected segments between joints 0 to {self.num_joints - 1}, got "
                f"{f'joints {wrong}' if wrong else f'no joints of {empty}'}"
            )
        if not self.feet or len(self.feet) != len(self.contacts):
            raise ValueError(
                "expected one contact per foot and a foot or more, got "
                f"{len(self.feet)} feet and {len(self.contacts)} contacts"
            )
        if any(not 0 <= foot < len(self.segments) for foot in self.feet):
            raise ValueError(
                f"expected feet among segments 0 to {len(self.segments) - 1}, got {self.feet}"
            )


SEGMENT_TABLES: Mapping[str, Mapping[str, SegmentMass]] = {
    "male": {
        "head": SegmentMass(0.0694, 1 - 0.5976, 0.376),
        "trunk": SegmentMass(0.4346, 1 - 0.4486, 0.347),
        "upper_arm": SegmentMass(0.0271, 0.5772, 0.269),
        "forearm": SegmentMass(0.0162, 0.4574, 0.265),
        "hand": SegmentMass(0.0061, 0.7900, 0.513),
        "thigh": SegmentMass(0.1416, 0.4095, 0.329),
        "shank": SegmentMass(0.0433, 0.4459, 0.249),
        "foot": SegmentMass(0.0137, 0.4415, 0.245),
    },
    "female": {
        "head": SegmentMass(0.0668, 1 - 0.5894, 0.359),
        "trunk": SegmentMass(0.4257, 1 - 0.4151, 0.339),
        "upper_arm": SegmentMass(0.0255, 0.5754, 0.260),
        "forearm": SegmentMass(0.0138, 0.4559, 0.257),
        "hand": SegmentMass(0.0056, 0.7474, 0.454),
        "thigh": SegmentMass(0.1478, 0.3612, 0.364),
        "shank": SegmentMass(0.0481, 0.4416, 0.267),
        "foot": SegmentMass(0.0129, 0.4014, 0.279),
    },
}
"""Kinds of segments with their masses, of men and women; head and trunk from their lower end."""


def _limbs(*rows: tuple[str, int, int, int]) -> tuple[Segment, ...]:
    """Segments that reach from one joint to another: kind, proximal, distal, parent."""
    return tuple(
        Segment(kind=kind, proximal=(near,), distal=(far,), parent=parent, joint=near)
        for kind, near, far, parent in rows
    )


# The joint of the head lies below its middle, and the neck's base far below: how far beyond the
# joint the centre of the head is, is inferred from the proportions of an average adult.
_SMPL_HEAD = Segment(
    kind="head", proximal=(12,), distal=(15,), parent=0, joint=12, center=2.2, gyration=1.15
)
# From the middle of the shoulders to that of the ears, where the head's centre is.
_COCO_HEAD = Segment(
    kind="head", proximal=(5, 6), distal=(3, 4), parent=0, joint=0, center=1.0, gyration=0.3
)

BODY_SEGMENTS: Mapping[str, BodySegments] = {
    "smpl24": BodySegments(
        num_joints=24,
        segments=(
            Segment(kind="trunk", proximal=(1, 2), distal=(12,), parent=None, joint=None),
            _SMPL_HEAD,
            *_limbs(("upper_arm", 16, 18, 0), ("forearm", 18, 20, 2), ("hand", 20, 22, 3)),
            *_limbs(("upper_arm", 17, 19, 0), ("forearm", 19, 21, 5), ("hand", 21, 23, 6)),
            *_limbs(("thigh", 1, 4, 0), ("shank", 4, 7, 8), ("foot", 7, 10, 9)),
            *_limbs(("thigh", 2, 5, 0), ("shank", 5, 8, 11), ("foot", 8, 11, 12)),
        ),
        feet=(10, 13),
        contacts=(10, 11),
        sides=(1, 2),
        edges=(
            *((0, 1), (0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10)),
            *((8, 11), (9, 12), (9, 13), (9, 14), (12, 15), (13, 16), (14, 17), (16, 18)),
            *((17, 19), (18, 20), (19, 21), (20, 22), (21, 23)),
        ),
    ),
    # No joints beyond wrists and ankles: hands and feet are points there.
    "coco17": BodySegments(
        num_joints=17,
        segments=(
            Segment(kind="trunk", proximal=(11, 12), distal=(5, 6), parent=None, joint=None),
            _COCO_HEAD,
            *_limbs(("upper_arm", 5, 7, 0), ("forearm", 7, 9, 2), ("hand", 9, 9, 3)),
            *_limbs(("upper_arm", 6, 8, 0), ("forearm", 8, 10, 5), ("hand", 10, 10, 6)),
            *_limbs(("thigh", 11, 13, 0), ("shank", 13, 15, 8), ("foot", 15, 15, 9)),
            *_limbs(("thigh", 12, 14, 0), ("shank", 14, 16, 11), ("foot", 16, 16, 12)),
        ),
        feet=(10, 13),
        contacts=(15, 16),
        sides=(11, 12),
        edges=(
            *((0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9), (6, 8)),
            *((8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
        ),
    ),
}
"""Segments of SMPL's 24 joints (the ground acts at the ball) and COCO's 17 (at the ankle)."""


def find_body_segments(skeleton: str | BodySegments) -> BodySegments:
    """The segments of a skeleton.

    Args:
        skeleton: A key of ``BODY_SEGMENTS``, or segments of one's own, which are given back.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> find_body_segments("smpl24").num_joints
        24
    """
    if isinstance(skeleton, BodySegments):
        return skeleton
    if skeleton not in BODY_SEGMENTS:
        raise ValueError(
            f"expected skeleton among {', '.join(BODY_SEGMENTS)} or BodySegments, got {skeleton!r}"
        )
    return BODY_SEGMENTS[skeleton]


def find_segment_table(table: str | Mapping[str, SegmentMass]) -> Mapping[str, SegmentMass]:
    """Masses of the kinds of segments.

    Args:
        table: A key of ``SEGMENT_TABLES``, or a table of one's own, which is given back.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> find_segment_table("male")["thigh"].mass
        0.1416
    """
    if isinstance(table, Mapping):
        return table
    if table not in SEGMENT_TABLES:
        raise ValueError(
            f"expected table among {', '.join(SEGMENT_TABLES)} or a mapping, got {table!r}"
        )
    return SEGMENT_TABLES[table]
