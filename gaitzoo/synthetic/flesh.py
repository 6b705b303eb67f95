"""What covers a walker's bones: limbs, trunk, hair, clothes and bags.

All are shapes whose outlines are easy to draw. Limbs are spheres swept along a segment; trunk and
head are a stack of level, nearly elliptical slices; a coat's skirt is the hull of the hips and of
the two legs at the hem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaitzoo.synthetic.body import SHOE_RADII, SIDES, Array, Identity, Skeleton

CONDITIONS = ("normal", "bag", "coat")
_BAGS = ("backpack", "shoulder bag", "hand bag")

# Slices of the trunk: height (0 = hip joints, 1 = base of the neck), half breadth, front, back (of
# stature).
_TRUNK = np.array(
    [
        (-0.20, 0.062, 0.042, 0.050),
        (-0.10, 0.088, 0.058, 0.065),
        (0.05, 0.095, 0.062, 0.067),
        (0.22, 0.093, 0.061, 0.062),
        (0.42, 0.089, 0.062, 0.057),
        (0.62, 0.093, 0.066, 0.060),
        (0.76, 0.098, 0.065, 0.065),
        (0.87, 0.096, 0.054, 0.062),
        (0.95, 0.076, 0.042, 0.055),
        (1.01, 0.048, 0.034, 0.045),
    ]
)
# Shares of the identity's traits in the trunk's slices: hips, shoulders, chest, belly, buttocks.
_HIP_SHARE = np.array([0.7, 1.0, 1.0, 0.8, 0.5, 0.2, 0.0, 0.0, 0.0, 0.0])
_SHOULDER_SHARE = np.array([0.0, 0.0, 0.0, 0.2, 0.4, 0.7, 1.0, 1.0, 0.8, 0.3])
_CHEST_SHARE = np.array([0.0, 0.0, 0.2, 0.5, 0.7, 0.9, 1.0, 0.9, 0.5, 0.2])
_BELLY_SHARE = np.array([0.0, 0.3, 0.7, 1.0, 1.0, 0.5, 0.1, 0.0, 0.0, 0.0])
_BUTTOCKS_SHARE = np.array([0.5, 1.0, 1.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
# Slices of the neck (height: 0 = its base, 1 = chin) and of the head (0 = chin, 1 = crown): height,
# half breadth, front, back (of stature), shares of the hair's volume and length.
_NECK = np.array(
    [
        (0.35, 0.034, 0.029, 0.041, 0.3, 1.0),
        (0.80, 0.032, 0.033, 0.042, 0.5, 1.0),
    ]
)
_HEAD = np.array(
    [
        (0.03, 0.035, 0.052, 0.044, 0.6, 0.9),
        (0.16, 0.040, 0.056, 0.048, 0.8, 0.7),
        (0.32, 0.045, 0.062, 0.054, 1.0, 0.5),
        (0.48, 0.048, 0.056, 0.059, 1.0, 0.2),
        (0.66, 0.049, 0.055, 0.060, 1.0, 0.0),
        (0.82, 0.043, 0.048, 0.053, 1.0, 0.0),
        (0.93, 0.028, 0.031, 0.036, 0.8, 0.0),
        (0.98, 0.016, 0.018, 0.021, 0.5, 0.0),
        (1.00, 0.003, 0.003, 0.004, 0.0, 0.0),
    ]
)
# Shares of the collar in the slices of neck and head.
_COLLAR_SHARE = np.array([1.0, 1.0, 0.5] + [0.0] * (len(_HEAD) - 1))


@dataclass(frozen=True)
class Outfit:
    """What a walker wears and carries; drawn once per walk. Lengths are fractions of stature."""

    padding: float = 0.0  # thickness that the coat adds to trunk and arms
    hem: float = 0.0  # where the coat ends along the thigh: 0 = no skirt, 1 = knee
    flare: float = 0.0  # extra width at the hem
    collar: float = 0.0  # thickness of collar or hood
    bag: str = ""
    bag_side: int = 0  # 0 left, 1 right
    bag_size: float = 1.0

    @property
    def arm_freedom(self) -> Array:
        """Factors ``[2]`` on the motion of the left and right arm."""
        freedom = np.ones(2)
        if self.bag in ("shoulder bag", "hand bag"):
            freedom[self.bag_side] = 0.45 if self.bag == "shoulder bag" else 0.3
        return freedom


def draw_outfit(condition: str, generator: np.random.Generator) -> Outfit:
    """Draw clothes and bag of one walk."""
    kind, side, first, second, third = generator.random(5)
    if condition == "bag":
        return Outfit(
            bag=_BAGS[int(kind * len(_BAGS))],
            bag_side=int(side < 0.5),
            bag_size=0.85 + 0.35 * first,
        )
    if condition == "coat":
        # A long thin coat or a short padded jacket, and everything between.
        return Outfit(
            padding=0.010 + 0.018 * (1 - kind) + 0.004 * first,
            hem=0.45 + 0.65 * kind,
            flare=0.004 + 0.022 * second,
            collar=0.004 + 0.020 * third,
        )
    return Outfit()


@dataclass(frozen=True)
class Limbs:
    """Swept spheres: ends ``[T, M, 3]``, radii ``[M]`` (metres), and their parts of the body."""

    start: Array
    end: Array
    start_radius: Array
    end_radius: Array
    part: tuple[str, ...]


@dataclass(frozen=True)
class Slices:
    """Level slices, lowest first: centres ``[T, K, 3]``, yaw ``[T, K]``, half sizes ``[K]``."""

    centre: Array
    yaw: Array
    breadth: Array
    front: Array
    back: Array


def grow_limbs(identity: Identity, skeleton: Skeleton, outfit: Outfit) -> Limbs:
    """Arms, legs, feet and bags."""
    size, bones = identity.stature, skeleton
    pieces: list[tuple[Array, Array, float, float, str]] = []
    arm, thigh, calf = identity.arm_girth, identity.thigh_girth, identity.calf_girth
    for side, name in enumerate(("left", "right")):

        def joint(joints: Array, side: int = side) -> Array:
            return joints[:, side]

        hip, knee, ankle = joint(bones.hips), joint(bones.knees), joint(bones.ankles)
        heel, ball, toe = joint(bones.heels), joint(bones.balls), joint(bones.toes)
        shoulder, elbow, wrist = joint(bones.shoulders), joint(bones.elbows), joint(bones.wrists)
        belly_of_calf = knee + 0.34 * (ankle - knee) + np.array([-0.006 * size, 0.0, 0.0])
        collar_bone = 0.82 * bones.neck + 0.12 * shoulder + 0.06 * bones.pelvis
        across = size * np.array([0.0, 0.011, 0.0])
        leg, foot = f"{name} lower leg", f"{name} foot"
        sleeve = 0.55 * outfit.padding
        pieces += [
            (hip, knee, 0.054 * thigh, 0.037 * (0.6 * thigh + 0.4 * calf), f"{name} thigh"),
            (knee, belly_of_calf, 0.036 * (0.4 * thigh + 0.6 * calf), 0.036 * calf, leg),
            (belly_of_calf, ankle, 0.036 * calf, 0.025 * (0.5 + 0.5 * calf), leg),
            (ankle, heel, 0.025, SHOE_RADII[0], foot),
            (ankle, ball, 0.024, SHOE_RADII[1], foot),
            (heel, ball, SHOE_RADII[0], SHOE_RADII[1], foot),
            (ball - across, ball + across, SHOE_RADII[1], SHOE_RADII[1], foot),
            (ball, toe, SHOE_RADII[1], SHOE_RADII[2], foot),
            (collar_bone, shoulder, 0.030, 0.033 * arm + sleeve, f"{name} shoulder"),
            (shoulder, elbow, 0.033 * arm + sleeve, 0.029 * arm + sleeve, f"{name} upper arm"),
            (elbow, wrist, 0.028 * arm + sleeve, 0.022 * arm + 0.8 * sleeve, f"{name} forearm"),
            (wrist, joint(bones.hands), 0.020, 0.018, f"{name} hand"),
        ]
    pieces += _bag(skeleton, outfit, size)
    start, end, start_radius, end_radius, part = zip(*pieces, strict=True)
    return Limbs(
        np.stack(start, axis=1), np.stack(end, axis=1),
        size * np.array(start_radius), size * np.array(end_radius), part,
    )  # fmt: skip


def _bag(
    skeleton: Skeleton, outfit: Outfit, size: float
) -> list[tuple[Array, Array, float, float, str]]:
    """The carried bag, as a few swept spheres that move with back, hip or hand."""
    if not outfit.bag:
        return []
    scale = outfit.bag_size

    def turned(yaw: Array, forward: float, left: float, up: float) -> Array:
        sine, cosine = np.sin(yaw), np.cos(yaw)
        x, y = forward * cosine - left * sine, forward * sine + left * cosine
        return size * np.stack([x, y, np.full_like(x, up)], axis=-1)

    if outfit.bag == "backpack":
        trunk, yaw = skeleton.neck - skeleton.pelvis, skeleton.shoulder_yaw
        top, bottom = skeleton.pelvis + 0.86 * trunk, skeleton.pelvis + 0.22 * trunk
        depth = -0.062 - 0.034 * scale
        return [
            (
                top + turned(yaw, depth + 0.012, 0.045 * sign, 0.0),
                bottom + turned(yaw, depth - 0.008, 0.048 * sign, 0.0),
                0.040 * scale,
                0.052 * scale,
                "bag",
            )
            for sign in (1.0, -1.0)
        ]
    sign = float(SIDES[outfit.bag_side])
    if outfit.bag == "shoulder bag":
        yaw, left = skeleton.pelvis_yaw, 0.112 * sign
        strap = skeleton.shoulders[:, outfit.bag_side] + turned(yaw, 0.0, -0.02 * sign, 0.02)
        top, bottom, radius, hang = 0.045, -0.045, 0.036 * scale, skeleton.pelvis
    else:
        yaw, left = np.zeros(len(skeleton.pelvis)), 0.0
        strap = skeleton.hands[:, outfit.bag_side]
        top, bottom, radius, hang = -0.075, -0.165, 0.026 * scale, strap
    half = 0.064 * scale
    corners = [
        hang + turned(yaw, forward, left, up)
        for forward, up in ((-half, top), (half, top), (half, bottom), (-half, bottom))
    ]
    ring = zip(corners, [*corners[1:], corners[0]], strict=True)
    # Rim and middle of a flat box, then its strap.
    pieces = [(start, end, radius, radius, "bag") for start, end in ring]
    # The middle is thick enough to reach the rim's centre line, so that no seam shows.
    middle, thickness = (top + bottom) / 2, (top - bottom) / 2
    reach = half - max(thickness - radius, 0.0)
    ends = [hang + turned(yaw, forward, left, middle) for forward in (-reach, reach)]
    pieces.append((ends[0], ends[1], thickness, thickness, "bag"))
    pieces.append((strap, hang + turned(yaw, 0.0, left, top), 0.010, 0.014, "bag"))
    return pieces


def _refinement(count: int, steps: int) -> Array:
    """Matrix ``[(count - 1) * steps + 1, count]`` that puts a smooth curve through points."""
    rows = []
    for position in np.arange((count - 1) * steps + 1) / steps:
        left = min(int(position), count - 2)
        t = position - left
        weights = np.zeros(count)
        # Catmull-Rom; the end points stand in for their missing neighbours.
        basis = (
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        )
        for offset, weight in zip(range(left - 1, left + 3), basis, strict=True):
            weights[min(max(offset, 0), count - 1)] += weight
        rows.append(weights)
    return np.array(rows)


_STEPS = 3
_SMOOTH = _refinement(len(_TRUNK) + len(_NECK) + len(_HEAD), _STEPS)
HEAD_SLICES = (len(_HEAD) - 1) * _STEPS + 1  # the uppermost of the stack, from the chin on


def grow_trunk(identity: Identity, skeleton: Skeleton, outfit: Outfit) -> Slices:
    """Trunk, neck and head as one stack of slices."""
    size = identity.stature
    average = Identity()
    height, breadth, front, back = _TRUNK.T
    hips = (identity.hip_width - average.hip_width) / 2
    shoulders = (identity.shoulder_width - average.shoulder_width) / 2
    chest = (identity.chest_depth - average.chest_depth) / 2
    breadth = breadth + hips * _HIP_SHARE + shoulders * _SHOULDER_SHARE + outfit.padding
    front = front + chest * _CHEST_SHARE + identity.belly * _BELLY_SHARE + outfit.padding
    back = back + chest * _CHEST_SHARE + identity.buttocks * _BUTTOCKS_SHARE + outfit.padding

    trunk = skeleton.neck - skeleton.pelvis
    # The bend of a slouching back grows towards the shoulders.
    bend = np.zeros((len(height), 3))
    bend[:, 0] = identity.slouch * size * 0.3 * (np.maximum(height, 0) ** 2 - height)
    centres = skeleton.pelvis[:, None] + height[:, None] * trunk[:, None] + bend
    share = np.clip(height, 0.0, 1.0)
    yaw = (1 - share) * skeleton.pelvis_yaw[:, None] + share * skeleton.shoulder_yaw[:, None]

    _, head_breadth, head_front, head_back, hair_share, length_share = np.concatenate(
        [_NECK, _HEAD]
    ).T
    head_size = np.where(np.arange(len(head_breadth)) < len(_NECK), 1.0, identity.head_size)
    hair, long_hair = identity.hair_volume * hair_share, identity.hair_length * length_share
    collar = outfit.collar * _COLLAR_SHARE
    along_neck = _NECK[:, :1] * (skeleton.chin - skeleton.neck)[:, None]
    # The bent trunk's top is the neck's foot, whatever the head's forward carriage.
    neck = skeleton.neck[:, None] + along_neck
    along_head = _HEAD[:, :1] * (skeleton.crown - skeleton.chin)[:, None]
    head = skeleton.chin[:, None] + along_head
    widths = np.concatenate(
        [breadth, head_size * head_breadth + 0.6 * hair + 0.010 * long_hair + collar]
    )
    fronts = np.concatenate([front, head_size * head_front + 0.25 * hair + collar])
    backs = np.concatenate([back, head_size * head_back + hair + 0.016 * long_hair + 1.8 * collar])
    centres = np.concatenate([centres, neck, head], axis=1)
    yaw = np.concatenate([yaw, np.zeros((len(yaw), len(head_size)))], axis=1)
    return Slices(
        centre=np.einsum("dk,tkc->tdc", _SMOOTH, centres),
        yaw=yaw @ _SMOOTH.T,
        breadth=size * (_SMOOTH @ widths),
        front=size * (_SMOOTH @ fronts),
        back=size * (_SMOOTH @ backs),
    )


def hem_spheres(identity: Identity, skeleton: Skeleton, outfit: Outfit) -> tuple[Array, float]:
    """Centres ``[T, 2, 3]`` and radius of the two spheres that span the hem of a coat."""
    along = min(outfit.hem, 1.0)
    below = max(outfit.hem - 1.0, 0.0)
    knees, hips, ankles = skeleton.knees, skeleton.hips, skeleton.ankles
    centres = hips + along * (knees - hips) + below * (ankles - knees)
    radius = (0.054 - 0.014 * along) * identity.thigh_girth + 0.6 * outfit.padding + outfit.flare
    # Cloth hangs level: both spheres lie at their mean height.
    centres[..., 2] = centres[..., 2].mean(axis=1, keepdims=True)
    return centres, radius * identity.stature


def keypoints_3d(identity: Identity, skeleton: Skeleton) -> Array:
    """The 17 COCO keypoints ``[T, 17, 3]``: five of the face, then pairs down to the ankles."""
    size = identity.stature * identity.head_size
    axis = skeleton.crown - skeleton.chin

    def face(level: float, forward: float, left: float) -> Array:
        return skeleton.chin + level * axis + size * np.array([forward, left, 0.0])

    head = [
        face(0.34, 0.058, 0.0),
        face(0.48, 0.048, 0.018),
        face(0.48, 0.048, -0.018),
        face(0.42, 0.0, 0.044),
        face(0.42, 0.0, -0.044),
    ]
    pairs = (
        skeleton.shoulders, skeleton.elbows, skeleton.wrists,
        skeleton.hips, skeleton.knees, skeleton.ankles,
    )  # fmt: skip
    return np.concatenate([np.stack(head, axis=1), *pairs], axis=1)
