"""Videos of rendered walkers before moving textures, with the true masks."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from gaitzoo.data.segmentation import FrameMasks
from gaitzoo.synthetic import render_walk, sample_identity

HEIGHT, WIDTH = 160, 288
COLOURS = ((170, 60, 50), (50, 70, 160), (60, 130, 60))
RATES = {"25": Fraction(25), "29.97": Fraction(30000, 1001)}


@dataclass
class Scene:
    """Frames ``[T, H, W, 3]`` and, front person first, whole bodies ``[P, T, H, W]`` in the frame
    and what is visible of them; ``cut [P, T]`` where the frame cuts a body."""

    frames: np.ndarray
    bodies: np.ndarray
    visible: np.ndarray
    cut: np.ndarray
    people: tuple
    path: Path | None = None  # where the frames were written

    def oracle(self, **fields):
        return Oracle(self.visible, **fields)


class Oracle:
    """True masks as a segmenter; people come in another order in every frame."""

    def __init__(self, visible, known=False, keypoints=False):
        self.visible, self.known, self.keypoints = visible, known, keypoints
        self.seen = 0

    def __call__(self, frames):
        found = []
        for number in range(self.seen, self.seen + len(frames)):
            people = [p for p in range(len(self.visible)) if self.visible[p, number].any()]
            people = people[:: 1 if number % 2 else -1]
            points = np.full((len(people), 17, 3), float(number)) if self.keypoints else None
            ids = np.array(people, np.int64) if self.known else None
            masks = self.visible[people, number]
            found.append(FrameMasks(masks, np.full(len(people), 0.9), ids, points))
        self.seen += len(frames)
        return found


def texture(seed, height, width, cell, colour, contrast):
    """Soft blotches of ``cell`` pixels around a colour, with fine grain."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, 256, (height // cell + 2, width // cell + 2, 3), np.uint8)
    picture = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    grain = generator.integers(-10, 11, (height, width, 1))
    pixels = np.array(colour) + contrast * (np.asarray(picture, np.float64) - 128) + grain
    return np.clip(pixels, 0, 255).astype(np.uint8)


def body(person, view, frames, width=WIDTH, left=0, seed=0, condition="normal"):
    """Whole body and whether the frame ``[left, left + WIDTH)`` of a wider picture cuts it."""
    walk = render_walk(
        sample_identity(person),
        frames=frames,
        view=view,
        size=(HEIGHT, width),
        aligned=False,
        seed=seed,
        condition=condition,
    )
    whole = walk.silhouettes.numpy() > 127
    seen = whole[:, :, left : left + WIDTH]
    columns = np.where(whole.any(1), np.arange(width), -1)
    first = np.where(whole.any(1), np.arange(width), width).min(1)
    return seen, (first <= left + 1) | (columns.max(1) >= left + WIDTH - 2)


def scene(*people, frames=80, shift=2, **walks):
    """People are (identity, view) or (identity, view, width, left), the front one first."""
    pairs = [body(who, view, frames, *rest, **walks) for who, view, *rest in people]
    bodies = np.stack([pair[0] for pair in pairs])
    visible = bodies.copy()
    for behind in range(1, len(bodies)):
        visible[behind] &= ~bodies[:behind].any(0)
    ground = texture(0, HEIGHT, WIDTH + shift * frames, 24, (150, 160, 140), 0.35)
    pixels = np.stack([ground[:, shift * t : shift * t + WIDTH] for t in range(frames)])
    for number, masks in enumerate(visible):
        clothes = texture(10 + number, HEIGHT, WIDTH, 5, COLOURS[number], 0.3)
        pixels[masks] = np.broadcast_to(clothes, pixels.shape)[masks]
    cut = np.stack([pair[1] for pair in pairs])
    return Scene(pixels, bodies, visible, cut, tuple(who for who, *_ in people))


def write(path, frames, rate=25, turn=0, mirrored=False, codec="libx264", **container):
    """A video that a player turns by ``turn`` degrees counterclockwise back to ``frames``."""
    stored = frames[:, :, ::-1] if mirrored else frames
    stored = np.ascontiguousarray(np.rot90(stored, -turn // 90, (1, 2)))
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = stored.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if turn or mirrored:
            stream.set_display_rotation(turn, hflip=mirrored)
        for pixels in stored:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
    return path


def polygons(mask):
    """Corners ``[x, y, x, y, ...]`` of each piece of a mask; cuts lead to its holes and back."""
    import cv2

    fine = 4  # outlines go through the middles of pixels: of small ones, they lose little
    big = mask.repeat(fine, 0).repeat(fine, 1).astype(np.uint8)
    outlines, family = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [np.concatenate([ring, ring[:1]]).reshape(-1, 2) for ring in outlines]
    pieces = {number: [rings[number]] for number, (*_, of) in enumerate(family[0]) if of < 0}
    for number, (*_, of) in enumerate(family[0]):
        if of >= 0:
            pieces[of] += [rings[number], rings[of][:1]]
    return [((np.concatenate(rings) + 0.5) / fine).ravel() for rings in pieces.values()]


def write_coco(path, visible):
    """Run lengths of COCO of the people ``[P, T, H, W]``, numbered from 1."""
    from pycocotools import mask as coco

    entries = []
    for person, masks in enumerate(visible, 1):
        for frame, runs in enumerate(
            coco.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
        ):
            runs["counts"] = runs["counts"].decode()
            known = {"image_id": frame, "category_id": 1, "track_id": person, "score": 0.9}
            entries.append({**known, "segmentation": runs})
    path.write_text(json.dumps([entry for entry in entries if coco.area(entry["segmentation"])]))
    return path


def write_yolo(folder, visible):
    """A file of polygons for each frame, with the number of the person behind them."""
    folder.mkdir()
    for frame, masks in enumerate(visible.swapaxes(0, 1)):
        lines = [
            " ".join(
                [
                    "0",
                    *(f"{v:.6f}" for v in (corners.reshape(-1, 2) / (WIDTH, HEIGHT)).ravel()),
                    str(person),
                ]
            )
            for person, mask in enumerate(masks, 1)
            if mask.any()
            for corners in polygons(mask)
        ]
        (folder / f"{frame:03d}.txt").write_text("\n".join(lines))
    return folder


def iou(one, other):
    return (one & other).sum() / (one | other).sum()
