"""Draw skeleton maps beside the silhouettes and joints that they are made from, of three walks."""

import argparse

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import gaitzoo
from gaitzoo.data.skeleton_maps import COCO17_LIMBS
from gaitzoo.synthetic import render_walk, sample_identity

WALKS = (
    ("from the side", 90.0, "normal"),
    ("towards the camera", 0.0, "normal"),
    ("from behind, coat", 144.0, "coat"),
)


def draw_pose(axes: Axes, silhouette: Tensor, joints: Tensor) -> None:
    """Draw a silhouette with the joints and limbs in it."""
    axes.imshow(silhouette, cmap="gray")
    x, y = joints[:, 0] - 0.5, joints[:, 1] - 0.5
    for ends in COCO17_LIMBS:
        axes.plot(x[list(ends)], y[list(ends)], color="tab:orange", linewidth=1.2)
    axes.scatter(x, y, s=7, color="tab:red", zorder=3)


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="skeleton_maps.png", help="picture to write")
    options = parser.parse_args()
    draw = gaitzoo.PosesToMaps((64, 44))
    figure = Figure(figsize=(12, 2.35), dpi=110, layout="constrained")
    columns = figure.subplots(1, 3 * len(WALKS))
    for i, (title, view, condition) in enumerate(WALKS):
        walk = render_walk(
            sample_identity(7),
            frames=5,
            view=view,
            condition=condition,
            size=(128, 88),
            phase=0.85,
            seed=3,
        )
        limbs, joints = draw(walk.keypoints)[:, 4]
        pose_axes, *map_axes = columns[3 * i : 3 * i + 3]
        draw_pose(pose_axes, walk.silhouettes[4], walk.keypoints[4])
        pose_axes.set_title(f"{title}:\njoints", fontsize=9)
        for axes, levels, name in zip(map_axes, (limbs, joints), ("limbs", "joints"), strict=True):
            axes.imshow(levels, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"map of {name}", fontsize=9)
    for axes in columns:
        axes.set(xticks=[], yticks=[])
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
