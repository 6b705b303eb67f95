"""Draw the forces in a synthetic walker: the ground's on its feet, and the torques of its joints.

A second on a processor.
"""

import argparse

import torch
from torch import Tensor

import gaitzoo
from gaitzoo.synthetic import sample_identity, walk_joints3d

FPS = 25.0
BONES, LEFT, RIGHT = "#9aa5ab", "#d1495b", "#00798c"
JOINTS = {"hip": 1, "knee": 4, "ankle": 7}  # of the left leg


def find_forces(seed: int) -> tuple[Tensor, gaitzoo.BodyForces]:
    """Joints ``[T, 24, 3]`` of a walk, and its forces.

    Args:
        seed: Of the person.
    """
    person = sample_identity(seed)
    joints = walk_joints3d(person, frames=60, frame_rate=FPS)
    dynamics = gaitzoo.InverseDynamics("smpl24", fps=FPS, height=person.stature)
    return joints, dynamics(joints[None])


def draw(joints: Tensor, forces: gaitzoo.BodyForces, path: str) -> None:
    """A picture of the walker with arrows under its feet, and curves of one and a half cycles.

    Args:
        joints: ``[T, 24, 3]``.
        forces: Of this clip alone.
        path: Where to write it.
    """
    import matplotlib.pyplot as plt

    figure, (body, ground, torques) = plt.subplots(
        1, 3, figsize=(15, 3.6), width_ratios=(2, 1, 1), layout="constrained"
    )
    for place, frame in enumerate(range(10, 38, 4)):
        shift = 0.8 * place - float(joints[frame, 0, 0])
        for one, other in gaitzoo.BODY_SEGMENTS["smpl24"].edges:
            x, z = joints[frame, [one, other], 0], joints[frame, [one, other], 2]
            body.plot(x + shift, z, color=BONES, linewidth=1.5)
        for foot, color in enumerate((LEFT, RIGHT)):
            ball = joints[frame, 10 + foot] + torch.tensor([shift, 0, 0])
            push = 0.6 * forces.grf[0, frame, foot]
            if push[2] > 0.06:
                style = {"arrowstyle": "->", "color": color, "linewidth": 2}
                tip = (ball[0] + push[0], ball[2] + push[2])
                body.annotate("", xy=tip, xytext=(ball[0], ball[2]), arrowprops=style)
    body.set(title="Ground forces, every fourth frame", aspect="equal", xticks=(), ylabel="metres")
    shown = slice(6, 54)
    time = torch.arange(60)[shown] / FPS
    ground.plot(time, forces.grf[0, shown, 0, 2], color=LEFT, label="left foot")
    ground.plot(time, forces.grf[0, shown, 1, 2], color=RIGHT, label="right foot")
    ground.plot(time, forces.grf[0, shown, :, 2].sum(1), color=BONES, label="both", zorder=0)
    ground.axhline(1, color="black", linewidth=0.5)
    ground.set(title="Upwards, body weights", xlabel="seconds")
    for (name, joint), color in zip(JOINTS.items(), (BONES, RIGHT, LEFT), strict=True):
        torques.plot(time, forces.torques[0, shown, joint, 1], color=color, label=f"left {name}")
    torques.axhline(0, color="black", linewidth=0.5)
    torques.set(title="Torques, weights times heights", xlabel="seconds")
    ground.set_ylim(-0.05, 1.6)
    ground.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)
    torques.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=3, help="of the person")
    parser.add_argument("--out", default="forces.png", help="picture to write")
    options = parser.parse_args()
    joints, forces = find_forces(options.seed)
    draw(joints, forces, options.out)
    mean = forces.grf[0, forces.valid[0]].sum(1).mean(0)
    print("mean force on the feet, body weights:", [round(x, 3) for x in mean.tolist()])
    print("wrote", options.out)


if __name__ == "__main__":
    main()
