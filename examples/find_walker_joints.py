"""Train the volumes of Mesh-Gait on walkers with known joints, and draw where it finds new ones.

Half a minute on a processor: a very small network, frames of one direction of view.
"""

import argparse

import numpy as np
import torch
from torch import Tensor

import gaitzoo
from gaitzoo.synthetic import SegmentationNoise, sample_identity
from gaitzoo.synthetic.body import pose
from gaitzoo.synthetic.camera import Camera, align, outline_walk
from gaitzoo.synthetic.flesh import draw_outfit, keypoints_3d
from gaitzoo.synthetic.raster import to_grey

SIZE, DEPTH = (32, 24), 8
VOXELS = torch.tensor([SIZE[1] / 4, SIZE[0] / 4, DEPTH])
HIPS = slice(11, 13)
KNOWN, FOUND = "#9aa5ab", "#d1495b"


def film(seed: int, view: float) -> tuple[Tensor, Tensor]:
    """One frame of a walker, and the joints in the box of the frame.

    Args:
        seed: Of the person and of the moment.
        view: Direction of the camera in degrees, 0 = from the front.

    Returns:
        ``[1, H, W]`` uint8, and ``[1, 17, 3]``: x and y over the frame, z away from the camera in
        body heights from the hips.
    """
    source, person, camera = np.random.default_rng(seed), sample_identity(seed), Camera(view, 0.0)
    phase, outfit = source.random(1), draw_outfit("normal", source)
    outline = outline_walk(person, phase, 1.0, outfit, camera)
    skeleton = pose(person, phase, effort=1.0, arm_freedom=outfit.arm_freedom)
    near = camera.project(keypoints_3d(person, skeleton))[2]
    _, top, _, bottom = outline.bounds()
    height = np.reshape(bottom - top, (-1, 1))
    field, _, shift = align(outline, SIZE, SegmentationNoise(), source, False)
    x, y = outline.keypoints[..., 0] + np.reshape(shift, (-1, 1)), outline.keypoints[..., 1]
    away = (near[:, HIPS].mean(1, keepdims=True) - near) / height
    joints = np.stack([x / SIZE[1] - 0.5, y / SIZE[0] - 0.5, away], axis=-1)
    return to_grey(field), torch.from_numpy(joints.astype(np.float32))


def film_many(seeds: range, view: float) -> tuple[Tensor, Tensor]:
    """Frames ``[N, 1, H, W]`` of many people, and joints ``[N, 1, 17, 3]``."""
    frames, joints = zip(*(film(seed, view) for seed in seeds), strict=True)
    return torch.stack(frames), torch.stack(joints)


def train(frames: Tensor, joints: Tensor, steps: int, batch: int = 32) -> gaitzoo.MeshGait:
    """A small model that has learned the joints alone, without identities."""
    model = gaitzoo.MeshGait(
        num_classes=0,
        backbone="gaitbase",
        channels=(4, 8, 16, 16),
        part_bins=(8,),
        num_markers=1,
        depth=DEPTH,
    )
    optimizer = torch.optim.Adam(model.train().parameters(), lr=5e-3)
    for _ in range(steps):
        chosen = torch.randint(len(frames), (batch,))
        loss = (model(frames[chosen]).aux["joints"] - joints[chosen]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def find(model: gaitzoo.MeshGait, frames: Tensor) -> Tensor:
    """The joints that a model finds, ``[N, 1, 17, 3]``."""
    return model(frames, return_geometry=True).aux["joints"]


def errors(found: Tensor, joints: Tensor) -> Tensor:
    """Mean error in x, y and z, in voxels."""
    return ((found - joints) * VOXELS).abs().mean((0, 1, 2))


def draw(path: str, frames: Tensor, joints: Tensor, found: Tensor) -> None:
    """Frames with joints on them, and below the same joints from the side."""
    from matplotlib.figure import Figure

    bones = gaitzoo.SKELETONS["coco17"].edges
    figure = Figure(figsize=(2 * len(frames), 6), dpi=110, layout="constrained")
    cells = figure.subplots(2, len(frames))
    for column, frame in enumerate(frames[:, 0]):
        front, side = cells[:, column]
        front.imshow(255 - 0.25 * frame.numpy(), cmap="gray", vmin=0, vmax=255)
        for points, colour, name in (
            (joints[column, 0], KNOWN, "known"),
            (found[column, 0], FOUND, "found"),
        ):
            x, y, z = points.numpy().T
            x, y = (x + 0.5) * SIZE[1] - 0.5, (y + 0.5) * SIZE[0] - 0.5
            for a, b in bones:
                front.plot(x[[a, b]], y[[a, b]], color=colour, linewidth=1.6)
                side.plot(z[[a, b]], y[[a, b]], color=colour, linewidth=1.6)
            side.plot([], [], color=colour, label=name)
        side.set(xlim=(-0.4, 0.4), ylim=(SIZE[0], 0), yticks=[], xlabel="away from the camera")
        front.set(xticks=[], yticks=[])
        for cell in (front, side):
            cell.spines[:].set_color("#cccccc")
    cells[1, 0].legend(loc="lower left", frameon=False, fontsize=8)
    cells[0, 0].set_title("silhouettes, as the camera sees them", loc="left", fontsize=10)
    cells[1, 0].set_title("the same joints from the side", loc="left", fontsize=10)
    figure.savefig(path)


def main() -> None:
    """Read the command line, film, train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="walker_joints.png", help="picture to write")
    parser.add_argument("--view", type=float, default=45.0, help="degrees, 0 = from the front")
    parser.add_argument("--people", type=int, default=400, help="to learn from, a frame each")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(0)
    frames, joints = film_many(range(options.people), options.view)
    unseen, wanted = film_many(range(100_000, 100_060), options.view)
    found = find(train(frames, joints, options.steps), unseen)
    ours, mean = errors(found, wanted), errors(joints.mean(0), wanted)
    for axis, one, other in zip("xyz", ours.tolist(), mean.tolist(), strict=True):
        print(f"{axis}: {one:.3f} voxels off; the mean of all walkers {other:.3f}")
    draw(options.output, unseen[:5], wanted[:5], found[:5])
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
