"""Who walks and how: identities and the 3-D joints of a walking person.

Axes of the walker: X forward, Y to the person's left, Z up; metres; Z = 0 is the ground. Arrays
with a side axis hold the left side first. The joint-angle curves are rounded from the normative
adult curves that textbooks print (for instance Winter, "Biomechanics and Motor Control of Human
Movement"); each identity scales, shifts and times them its own way.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDES = np.array([1.0, -1.0])  # left, right, as the sign of Y
HEAD_HEIGHT = 0.138  # chin to crown, fraction of stature


def _curve(degrees: str) -> NDArray[np.complex128]:
    """Harmonics of a cycle that is given at equal steps."""
    values = np.array(degrees.split(), dtype=np.float64)
    harmonics = np.fft.rfft(values)[:8] / len(values)
    harmonics[1:] *= 2
    return harmonics


# One gait cycle in steps of 5 %, from heel strike to heel strike; the ankle's toe-up is positive.
_HIP_FLEXION = _curve("26 25 21.5 17 12 7.5 3 -1 -5 -8.5 -11 -10.5 -5.5 2.5 11 18.5 24 27 28 27")
_KNEE_FLEXION = _curve("5 10 15.5 17 15 11.5 8.5 6.5 6 8 13 22 35 48.5 58 60 53 38 19.5 6.5")
_ANKLE_FLEXION = _curve("0 -4.5 -3 0.5 3 5 6.5 8 9 9 6 -2 -13 -18 -12.5 -5.5 -1.5 0.5 1.5 1")


def _trait(default: float, low: float, high: float, *, style: float = 0.0) -> float:
    """A field of :class:`Identity`; ``style`` is the share of its range that walks vary by."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "style": style})


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Body proportions and gait of one person; ``Identity()`` is an average adult.

    Lengths marked "of stature" are fractions of ``stature``. Each field has a range, checked on
    construction, from which :func:`sample_identity` draws uniformly.

    Attributes:
        stature: Height of the standing person, metres, 1.5 to 1.95.
        leg_length: Hip joint to sole, of stature, 0.49 to 0.56.
        shoulder_width: Distance between the shoulder joints, of stature, 0.175 to 0.24.
        hip_width: Breadth of the clothed hips, of stature, 0.165 to 0.225.
        chest_depth: Front to back of the chest, of stature, 0.11 to 0.16.
        belly: How far the belly stands out, of stature, -0.01 to 0.04.
        buttocks: How far the buttocks stand out, of stature, 0 to 0.025.
        head_size: Size of the head relative to the average, 0.9 to 1.12.
        neck_length: Base of the neck to chin, of stature, 0.03 to 0.06.
        hair_volume: Thickness of the hair, of stature, 0 to 0.016.
        hair_length: 0 (short) to 1 (down to the shoulders).
        arm_length: Relative to the average, 0.9 to 1.1.
        arm_girth: Thickness of the clothed arms relative to the average, 0.8 to 1.25.
        thigh_girth: Thickness of the clothed thighs relative to the average, 0.8 to 1.22.
        calf_girth: Thickness of the clothed lower legs relative to the average, 0.8 to 1.25.
        foot_length: Length of the shoe, of stature, 0.145 to 0.185.
        cadence: Strides (two steps) per second at speed 1, 0.78 to 1.12.
        stride: Amplitude of the hip's swing relative to the average, 0.75 to 1.2.
        knee_lift: Amplitude of the knee's flexion relative to the average, 0.8 to 1.2.
        knee_bend: Flexion that the knees never lose, degrees, 0 to 14.
        arm_swing: Half of the range of the shoulder's swing, degrees, 4 to 32.
        arm_forward: Mean forward angle of the upper arms, degrees, -12 to 8.
        elbow_bend: Mean flexion of the elbows, degrees, 8 to 40.
        elbow_swing: Half of the range of the elbow's flexion, degrees, 0 to 16.
        arm_spread: How far the arms are held away from the trunk, degrees, 1 to 15.
        lean: Forward lean of the trunk, degrees, -3 to 11.
        slouch: How far the shoulders are bent forward, fraction of the trunk's length, 0 to 0.16.
        head_forward: How far the head is carried in front of the neck, of stature, -0.005 to 0.035.
        sway: Amplitude of the pelvis's sideways motion, of stature, 0.003 to 0.028.
        bounce: Amplitude of the trunk's vertical motion beyond what the legs cause, of stature, 0
            to 0.012.
        step_width: Distance between the lines of the two ankles, of stature, 0.02 to 0.11.
        toe_out: Outward turn of the feet, degrees, -6 to 22.
        pelvis_twist: Amplitude of the pelvis's turn, degrees, 1 to 11.
        shoulder_twist: Amplitude of the shoulders' turn, degrees, 1 to 14.
        leg_asymmetry: Left leg's amplitude minus right leg's, relative, -0.16 to 0.16.
        arm_asymmetry: Left arm's amplitude minus right arm's, relative, -0.7 to 0.7.
        step_asymmetry: How late the right step comes, gait cycles, -0.03 to 0.03.

    Raises:
        ValueError: A field is outside its range.

    Example:
        >>> Identity(stature=1.8).stature
        1.8
    """

    stature: float = _trait(1.70, 1.50, 1.95)
    leg_length: float = _trait(0.525, 0.49, 0.56)
    shoulder_width: float = _trait(0.205, 0.175, 0.24)
    hip_width: float = _trait(0.190, 0.165, 0.225)
    chest_depth: float = _trait(0.132, 0.11, 0.16, style=0.04)
    belly: float = _trait(0.008, -0.01, 0.04, style=0.04)
    buttocks: float = _trait(0.010, 0.0, 0.025)
    head_size: float = _trait(1.0, 0.9, 1.12)
    neck_length: float = _trait(0.045, 0.03, 0.06)
    hair_volume: float = _trait(0.006, 0.0, 0.016, style=0.05)
    hair_length: float = _trait(0.2, 0.0, 1.0)
    arm_length: float = _trait(1.0, 0.9, 1.1)
    arm_girth: float = _trait(1.0, 0.8, 1.25, style=0.06)
    thigh_girth: float = _trait(1.0, 0.8, 1.22, style=0.05)
    calf_girth: float = _trait(1.0, 0.8, 1.25, style=0.06)
    foot_length: float = _trait(0.165, 0.145, 0.185)
    cadence: float = _trait(0.95, 0.78, 1.12, style=0.04)
    stride: float = _trait(1.0, 0.75, 1.2, style=0.05)
    knee_lift: float = _trait(1.0, 0.8, 1.2, style=0.06)
    knee_bend: float = _trait(4.0, 0.0, 14.0, style=0.05)
    arm_swing: float = _trait(18.0, 4.0, 32.0, style=0.07)
    arm_forward: float = _trait(-2.0, -12.0, 8.0, style=0.07)
    elbow_bend: float = _trait(22.0, 8.0, 40.0, style=0.07)
    elbow_swing: float = _trait(8.0, 0.0, 16.0, style=0.08)
    arm_spread: float = _trait(6.0, 1.0, 15.0, style=0.07)
    lean: float = _trait(4.0, -3.0, 11.0, style=0.06)
    slouch: float = _trait(0.05, 0.0, 0.16, style=0.05)
    head_forward: float = _trait(0.012, -0.005, 0.035, style=0.06)
    sway: float = _trait(0.012, 0.003, 0.028, style=0.06)
    bounce: float = _trait(0.004, 0.0, 0.012, style=0.06)
    step_width: float = _trait(0.06, 0.02, 0.11, style=0.06)
    toe_out: float = _trait(8.0, -6.0, 22.0, style=0.06)
    pelvis_twist: float = _trait(5.0, 1.0, 11.0, style=0.06)
    shoulder_twist: float = _trait(6.0, 1.0, 14.0, style=0.06)
    leg_asymmetry: float = _trait(0.0, -0.16, 0.16, style=0.05)
    arm_asymmetry: float = _trait(0.0, -0.7, 0.7, style=0.05)
    step_asymmetry: float = _trait(0.0, -0.03, 0.03, style=0.05)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = field.metadata["low"], field.metadata["high"]
            # Written so that NaN fails too.
            if not low <= value <= high:
                raise ValueError(
                    f"Identity.{field.name} must lie in [{low}, {high}], got {value}; "
                    "sample_identity(seed) draws every field inside its range."
                )


def sample_identity(seed: int) -> Identity:
    """Draw a person; the same seed gives the same person on every machine.

    Args:
        seed: Any non-negative integer; different seeds give different people.

    Raises:
        TypeError: ``seed`` is not an integer.
        ValueError: ``seed`` is negative.

    Example:
        >>> sample_identity(3) == sample_identity(3), sample_identity(3) == sample_identity(4)
        (True, False)
    """
    check_seed(seed)
    generator = np.random.default_rng(np.random.SeedSequence((1, seed)))
    fields = dataclasses.fields(Identity)
    draws = generator.random(len(fields))
    return Identity(
        **{
            field.name: field.metadata["low"]
            + float(draw) * (field.metadata["high"] - field.metadata["low"])
            for field, draw in zip(fields, draws, strict=True)
        }
    )


def check_seed(seed: int, name: str = "seed") -> None:
    """Refuse what is not a non-negative integer."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(
            f"{name} must be an integer, got {type(seed).__name__}; pass e.g. {name}=0."
        )
    if seed < 0:
        raise ValueError(f"{name} must be 0 or more, got {seed}; pass e.g. {name}={-seed}.")


def vary_style(identity: Identity, generator: np.random.Generator) -> Identity:
    """The same person on another day: gait and clothes differ a little, bones do not."""
    fields = dataclasses.fields(identity)
    draws = generator.standard_normal(len(fields))
    changes: dict[str, float] = {}
    for field, draw in zip(fields, draws, strict=True):
        low, high = field.metadata["low"], field.metadata["high"]
        value = getattr(identity, field.name) + field.metadata["style"] * (high - low) * float(draw)
        changes[field.name] = min(max(value, low), high)
    return Identity(**changes)


@dataclass(frozen=True)
class Skeleton:
    """Joints, ``[T, 3]`` or (left, right) ``[T, 2, 3]``, metres; angles ``[T]``, radians."""

    pelvis: Array
    neck: Array  # base of the neck
    chin: Array  # on the head's vertical axis, at the chin's height
    crown: Array
    pelvis_yaw: Array
    shoulder_yaw: Array
    hips: Array
    knees: Array
    ankles: Array
    heels: Array
    balls: Array
    toes: Array
    shoulders: Array
    elbows: Array
    wrists: Array
    hands: Array


def _periodic(harmonics: NDArray[np.complex128], phase: Array) -> Array:
    """Evaluate a cycle at any phase (cycles)."""
    angles = 2 * math.pi * phase[..., None] * np.arange(len(harmonics))
    return np.cos(angles) @ harmonics.real - np.sin(angles) @ harmonics.imag


def _direction(swing: Array, spread: Array) -> Array:
    """Unit vectors ``[T, 2, 3]`` of hanging limbs, swung forward and spread out (radians)."""
    hanging = np.cos(spread)
    return np.stack(
        [np.sin(swing) * hanging, SIDES * np.sin(spread), -np.cos(swing) * hanging], axis=-1
    )


def _feet(identity: Identity, ankles: Array, pitch: Array) -> tuple[Array, Array, Array]:
    """Heels, balls and tips of the toes for feet pitched up by ``pitch`` (radians, ``[T, 2]``)."""
    size = identity.stature
    length = identity.foot_length * size
    turn = math.radians(identity.toe_out) * SIDES

    def forward(angle: Array) -> Array:
        return np.stack(
            [np.cos(angle) * np.cos(turn), np.cos(angle) * np.sin(turn), np.sin(angle)], axis=-1
        )

    ahead, up = forward(pitch), forward(pitch + math.pi / 2)
    heels = ankles - 0.17 * length * ahead - 0.018 * size * up
    balls = ankles + 0.42 * length * ahead - 0.022 * size * up
    # Toes stay on the ground while the heel rises.
    toes = balls + 0.22 * length * forward(np.where(pitch < 0, 0.35 * pitch, pitch))
    return heels, balls, toes


# Radii of the shoe, of stature: at the heel, the ball and the toes.
SHOE_RADII = (0.0225, 0.0185, 0.0145)


def pose(
    identity: Identity, phase: Array, *, effort: float = 1.0, arm_freedom: Array | None = None
) -> Skeleton:
    """Joints of a walker at the given phases.

    Args:
        identity: The person.
        phase: ``[T]``, gait cycles; 0 is the left heel's strike.
        effort: Factor on the swing of legs and arms (fast walking is above 1).
        arm_freedom: ``[2]``, factors in [0, 1] on the left and right arm's motion; ``None`` means
            free arms.
    """
    size = identity.stature
    freedom = np.ones(2) if arm_freedom is None else arm_freedom
    phases = phase[:, None] + np.array([0.0, 0.5 - identity.step_asymmetry])
    cycle = 2 * math.pi * phase

    amplitude = identity.stride * effort * (1 + 0.5 * SIDES * identity.leg_asymmetry)
    hip = 9.0 + amplitude * (_periodic(_HIP_FLEXION, phases) - 9.0) + 0.45 * identity.knee_bend
    knee = _periodic(_KNEE_FLEXION, phases) * identity.knee_lift * np.sqrt(amplitude)
    knee = np.maximum(knee, 1.0) + identity.knee_bend
    ankle = _periodic(_ANKLE_FLEXION, phases) + 0.5 * identity.knee_bend
    pitch = hip - knee + ankle
    # The sole lies flat on the ground in the middle of the stance.
    flat = np.clip(1.6 - np.abs(np.mod(phases, 1.0) - 0.235) / 0.12, 0.0, 1.0)
    hip, knee, pitch = (np.radians(angle) for angle in (hip, knee, pitch * (1 - flat)))

    thigh = (0.475 * identity.leg_length) * size
    shank = (0.525 * identity.leg_length - 0.040) * size
    hip_half = 0.27 * identity.hip_width * size
    sway = identity.sway * size * np.cos(cycle - 2 * math.pi * 0.3)
    yaw = -math.radians(identity.pelvis_twist) * np.cos(cycle)
    shoulder_yaw = math.radians(identity.shoulder_twist) * np.cos(cycle - 0.3)
    roll = 0.06 * identity.sway / 0.028 * np.cos(cycle - 2 * math.pi * 0.2)

    def beside(centre: Array, half: float, angle: Array, tilt: Array) -> Array:
        offset = np.stack([-np.sin(angle), np.cos(angle), np.sin(tilt)], axis=-1) * half
        return centre[:, None] + SIDES[:, None] * offset[:, None]

    pelvis = np.stack([np.zeros_like(sway), sway, np.zeros_like(sway)], axis=-1)
    hips = beside(pelvis, hip_half, yaw, roll)
    # Swinging legs go round the standing one; the ankles keep to their lines while the pelvis
    # sways.
    swinging = np.clip(np.sin(2 * math.pi * (phases - 0.55)), 0.0, 1.0)
    line = SIDES * (0.5 * identity.step_width * size + 0.012 * size * swinging)
    spread = np.arctan2(SIDES * (line - hips[..., 1]), thigh + shank)
    knees = hips + thigh * _direction(hip, spread)
    ankles = knees + shank * _direction(hip - knee, spread)
    heels, balls, toes = _feet(identity, ankles, pitch)
    soles = [
        points[..., 2] - radius * size
        for points, radius in zip((heels, balls, toes), SHOE_RADII, strict=True)
    ]
    rise = np.zeros((len(phase), 3))
    rise[:, 2] = -np.min(np.stack(soles), axis=(0, 2))

    trunk, chin, crown = _trunk(identity, pelvis, cycle, roll)
    upper = 0.83 * trunk[:, None]  # shoulders sit a little below the neck's base
    centre = pelvis + upper[:, 0] + np.array([-0.006 * size, 0.0, 0.0])
    shoulders = beside(centre, 0.5 * identity.shoulder_width * size, shoulder_yaw, -0.4 * roll)
    swing = np.cos(2 * math.pi * (phases - 0.5) - 0.25) * math.sqrt(effort)
    swing = swing * (1 + 0.5 * SIDES * identity.arm_asymmetry) * freedom
    arm = np.radians(identity.arm_forward + identity.arm_swing * swing)
    elbow = identity.elbow_bend * (0.4 + 0.6 * freedom) + identity.elbow_swing * swing
    elbow = np.radians(np.maximum(elbow, 3.0))
    abduction = np.full_like(arm, math.radians(identity.arm_spread))
    length = identity.arm_length * size
    elbows = shoulders + 0.172 * length * _direction(arm, abduction)
    inwards = 0.3 * abduction - 0.25 * np.sin(elbow)
    forearm = _direction(arm + elbow, inwards)
    wrists = elbows + 0.142 * length * forearm
    hands = wrists + 0.052 * length * forearm
    lift = rise[:, None]
    return Skeleton(
        pelvis=pelvis + rise, neck=pelvis + trunk + rise, chin=chin + rise, crown=crown + rise,
        pelvis_yaw=yaw, shoulder_yaw=shoulder_yaw, hips=hips + lift, knees=knees + lift,
        ankles=ankles + lift, heels=heels + lift, balls=balls + lift, toes=toes + lift,
        shoulders=shoulders + lift, elbows=elbows + lift, wrists=wrists + lift, hands=hands + lift,
    )  # fmt: skip


def _trunk(
    identity: Identity, pelvis: Array, cycle: Array, roll: Array
) -> tuple[Array, Array, Array]:
    """Vector from pelvis to the neck's base, and the chin's and crown's places, each ``[T, 3]``."""
    size = identity.stature
    head = HEAD_HEIGHT * identity.head_size
    length = (1 - identity.leg_length - identity.neck_length - head) * size
    lean = math.radians(identity.lean) + 0.012 * np.cos(2 * cycle)
    height = length * np.cos(lean) + identity.bounce * size * np.cos(2 * cycle - 4.0)
    trunk = np.stack(
        [length * (np.sin(lean) + identity.slouch), -0.5 * length * np.sin(roll), height], axis=-1
    )
    forward = (identity.head_forward + 0.012) * size
    chin = pelvis + trunk + np.array([forward, 0.0, identity.neck_length * size])
    crown = chin + np.array([0.15 * forward, 0.0, head * size])
    return trunk, chin, crown


def stride_length(identity: Identity, effort: float) -> float:
    """Metres covered in one gait cycle, from how far the standing feet travel under the body."""
    skeleton = pose(identity, np.array([0.03, 0.45]), effort=effort)
    travel = float(skeleton.ankles[0, 0, 0] - skeleton.ankles[1, 0, 0])
    return travel / 0.42
