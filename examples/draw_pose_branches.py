"""Draw what pose networks read, positions, velocities and bones of one frame, and their graph."""

import argparse

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

FRAME = 4
LONGER = 4  # times that steps are drawn longer than they are


def draw_edges(axes: Axes, points: Tensor) -> None:
    """Draw the edges of the graph."""
    for ends in gaitzoo.SKELETONS["coco17"].edges:
        x, y = points[list(ends)].T
        axes.plot(x, y, color="tab:orange", linewidth=1.2, zorder=1)


def draw_arrows(axes: Axes, starts: Tensor, steps: Tensor) -> None:
    """Draw one arrow per joint."""
    x, y = starts.T
    u, v = steps.T
    axes.quiver(
        x, y, u, v, angles="xy", scale_units="xy", scale=1, width=0.008, color="tab:blue", zorder=2
    )


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="pose_branches.png", help="picture to write")
    options = parser.parse_args()
    walk = render_walk(
        sample_identity(7), frames=12, view=90.0, size=(128, 112), aligned=False, phase=0.8, seed=3
    )
    branches = gaitzoo.gaitgraph_inputs(walk.keypoints[None])[0, FRAME]
    points, velocities, bones = branches[:, 0, :2], branches[:, 1, :2], branches[:, 2, :2]
    figure = Figure(figsize=(10, 3.3), dpi=110, layout="constrained")
    *bodies, matrix = figure.subplots(1, 4)
    titles = ("joints", f"velocities, {LONGER} times as long", "bones from their parents")
    for axes, title in zip(bodies, titles, strict=True):
        axes.imshow(walk.silhouettes[FRAME], cmap="gray", vmax=500)
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[])
    draw_edges(bodies[0], points - 0.5)
    left, top = points.amin(0).tolist()
    right, bottom = points.amax(0).tolist()
    for axes in bodies:
        axes.set(xlim=(left - 18, right + 10), ylim=(bottom + 8, top - 10))
        axes.scatter(*(points - 0.5).T, s=8, color="tab:red", zorder=3)
    draw_arrows(bodies[1], points - 0.5, velocities * LONGER)
    draw_arrows(bodies[2], points - 0.5 - bones, bones)
    graph = gaitzoo.joint_graph()
    hops = (graph > 0).float().argmax(0).where((graph > 0).any(0), 4)
    image = matrix.imshow(hops, cmap="viridis_r", vmin=-0.5, vmax=4.5, interpolation="nearest")
    matrix.set_title("the graph: edges between joints", fontsize=10)
    ticks = range(0, 17, 4)
    matrix.set(xlabel="joint", ylabel="joint", xticks=ticks, yticks=ticks)
    bar = figure.colorbar(image, ax=matrix, ticks=range(5), boundaries=[i - 0.5 for i in range(6)])
    bar.ax.set_yticklabels(["0", "1", "2", "3", "more"])
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
