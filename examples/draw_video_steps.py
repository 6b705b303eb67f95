"""Draw how a video becomes silhouettes and names: frame, masks, tracks, faults, matches.

Two rendered people pass each other before a moving ground, and one of them leaves the picture.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

import gaitzoo
from gaitzoo import FrameMasks, TrackStream
from gaitzoo.data.quality import boxes_of, find_occluded
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced
from gaitzoo.evaluation.videos import draw_tracks
from gaitzoo.synthetic import render_walk, sample_identity

FRAMES, HEIGHT, WIDTH = 90, 240, 400
PEOPLE = (3, 5)
COLOURS = ((230, 159, 0), (86, 180, 233))
CLOTHES = ((170, 60, 50), (50, 70, 160))
APART, HALF, BLURRED, TWO = 14, 20, 24, 28  # frames, before the people meet


def texture(seed: int, width: int, cell: int, colour: tuple[int, ...]) -> np.ndarray:
    """Soft blotches of ``cell`` pixels around a colour: ``[HEIGHT, width, 3]`` uint8."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, 256, (HEIGHT // cell + 2, width // cell + 2, 3), np.uint8)
    blotches = Image.fromarray(cells).resize((width, HEIGHT), Image.Resampling.BICUBIC)
    grain = generator.integers(-10, 11, (HEIGHT, width, 1))
    pixels = np.array(colour) + 0.35 * (np.asarray(blotches, np.float64) - 128) + grain
    return pixels.clip(0, 255).astype(np.uint8)


def render() -> tuple[np.ndarray, np.ndarray]:
    """Frames ``[T, H, W, 3]`` and true masks ``[T, 2, H, W]``, of what is visible."""
    beside = 100  # pixels, in which the first one is seen no more
    settings = {"frames": FRAMES, "aligned": False, "seed": 1}
    first = render_walk(
        sample_identity(PEOPLE[0]), view=90, size=(HEIGHT, WIDTH + beside), **settings
    ).silhouettes[:, :, beside:]
    second = render_walk(
        sample_identity(PEOPLE[1]), view=270, size=(HEIGHT, WIDTH), **settings
    ).silhouettes
    masks = np.stack([first.numpy() > 127, second.numpy() > 127], 1)
    masks[:, 1] &= ~masks[:, 0]
    ground = texture(0, WIDTH + 2 * FRAMES, 24, (150, 160, 140))
    frames = np.stack([ground[:, 2 * number :][:, :WIDTH] for number in range(FRAMES)])
    for person, colour in enumerate(CLOTHES):
        clothes = np.broadcast_to(texture(10 + person, WIDTH, 5, colour), frames.shape)
        frames[masks[:, person]] = clothes[masks[:, person]]
    return frames, masks


def track(frames: np.ndarray, masks: np.ndarray, *, known: bool) -> tuple[TrackStream, list]:
    """Tracks of frames with their masks, by ByteTrack if who is who is not ``known``."""
    left = iter(masks)

    def segment(batch: np.ndarray) -> list[FrameMasks]:
        ids = np.arange(len(PEOPLE)) if known else None
        return [FrameMasks(next(left), np.ones(len(PEOPLE)), ids) for _ in batch]

    with TemporaryDirectory() as folder:
        street = Path(folder, "street")
        street.mkdir()
        for number, pixels in enumerate(frames):
            Image.fromarray(pixels).save(street / f"{number}.png")
        stream = TrackStream(street, segment, progress=False)
        return stream, list(stream)


def show(axes: Axes, picture: np.ndarray | Image.Image, title: str, colour: str = "black") -> None:
    """One picture without ticks."""
    axes.imshow(np.asarray(picture), cmap="gray", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9, loc="left", color=colour)


def draw_steps(frames: np.ndarray, masks: np.ndarray, tracks: list, path: Path) -> None:
    """A frame, its masks, the tracks drawn over it, and silhouettes of both tracks."""
    coloured = np.zeros_like(frames[APART])
    for mask, colour in zip(masks[APART], COLOURS, strict=True):
        coloured[mask] = colour
    people = []
    for found in tracks:
        (at,) = np.flatnonzero(found.frames == APART)
        box, silhouette = found.boxes[at].tolist(), found.silhouettes[at].numpy()
        people.append((found.number, found.name, box, silhouette))
    figure = Figure(figsize=(11, 3.5), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.7, 1), squeeze=False)[:, 0]
    pictures = (frames[APART], coloured, draw_tracks(frames[APART], people))
    titles = ("1. frame", "2. masks, one for each person", "3. tracks")
    for axes, picture, title in zip(above.subplots(1, 3), pictures, titles, strict=True):
        show(axes, picture, title)
    for axes, found in zip(below.subplots(1, 2), tracks, strict=True):
        strip = np.concatenate(list(evenly_spaced(found.silhouettes, 8).numpy()), 1)
        show(axes, strip, f"4. aligned silhouettes of {found.name}, 64 x 64")
    figure.savefig(path)


def draw_faults(frames: np.ndarray, masks: np.ndarray, path: Path) -> None:
    """A good mask and bad ones, with what became of them; raises if the tracks say other words."""
    frames, masks = frames.copy(), masks.copy()
    rows = np.flatnonzero(masks[HALF, 0].any(1))
    masks[HALF, 0, rows[len(rows) // 2] :] = False
    softened = Image.fromarray(frames[BLURRED]).filter(ImageFilter.GaussianBlur(4))
    frames[BLURRED] = np.asarray(softened)
    masks[TWO, 0] |= masks[TWO, 1]
    masks[TWO, 1] = False
    stream, tracks = track(frames, masks, known=True)
    found = tracks[0].dropped, set(stream.left_out)
    expected = {"area": 1, "blurred": 1, "several bodies": 1}
    if found[0] != expected or not found[1] >= {"occluded", "border"}:
        raise RuntimeError(f"expected the faults that were made, got {found}")
    meet = [
        number for number, both in enumerate(masks) if find_occluded(both, boxes_of(both)).any()
    ]
    leave = np.flatnonzero(masks[:, 0, :, 0].any(1))
    shown = (
        ("good", APART),
        ("occluded:\ntrack cut", meet[len(meet) // 3]),
        ("border:\ntrack cut", int(leave[len(leave) // 2])),
        ("area:\nleft out", HALF),
        ("blurred:\nleft out", BLURRED),
        ("several bodies:\nleft out", TWO),
    )
    boxes = [boxes_of(masks[number, :1])[0] for _, number in shown]
    crops = [slice(max(0, left - 12), right + 12) for left, _, right, _ in np.array(boxes)]
    widths = [min(WIDTH, crop.stop) - crop.start for crop in crops]
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
    columns = figure.subplots(1, len(shown), width_ratios=widths)
    top, bottom = boxes[0][1] - 12, boxes[0][3] + 12
    for axes, (title, number), crop in zip(columns, shown, crops, strict=True):
        picture = frames[number].astype(np.float64)
        mask = masks[number, 0]
        picture[mask] = 0.35 * picture[mask] + 0.65 * np.array(COLOURS[0])
        colour = "#009258" if title == "good" else "#de422c"
        show(axes, picture.astype(np.uint8)[top:bottom, crop], title, colour)
    figure.savefig(path)


def draw_matches(tracks: list, path: Path) -> None:
    """Both tracks beside the nearest walks of a gallery of six people."""
    names = [person for person in range(6) for _ in range(2)]
    gallery = [
        render_walk(sample_identity(person), view=view, size=(64, 64), seed=7).silhouettes
        for person, view in zip(names, (90, 270) * 6, strict=True)
    ]
    model = gaitzoo.create_model("dygait.walkers", pretrained=True, num_classes=0).eval()
    transform = gaitzoo.create_transform(model)
    probes = [found.silhouettes for found in tracks]
    found = gaitzoo.identify(
        model, [transform(walk) for walk in gallery], [transform(walk) for walk in probes], names,
        top=2, progress=False,
    )  # fmt: skip
    rows = []
    for probe, walk, matches, person in zip(tracks, probes, found.matches, PEOPLE, strict=True):
        row = [Panel(evenly_spaced(walk, 5), [probe.name])]
        for match in matches:
            is_right = match.label == person
            caption = [
                f"person {match.label}",
                f"distance {match.distance:.4f}, {'same' if is_right else 'another'} person",
            ]
            frames = evenly_spaced(gallery[match.index], 5)
            row.append(Panel(frames, caption, "right" if is_right else "wrong"))
        rows.append(row)
    title = "tracks of the video and the nearest of the gallery: dygait.walkers"
    contact_sheet(rows, title=title, headings=("track", "nearest", "second")).save(path)


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default=".", help="folder for the three pictures")
    folder = Path(parser.parse_args().output)
    folder.mkdir(parents=True, exist_ok=True)
    frames, masks = render()
    _, tracks = track(frames, masks, known=False)
    # In the order of the people, where they are apart.
    boxes = [box.tolist() for box in boxes_of(masks[APART])]
    tracks = [found for found in tracks if APART in found.frames]
    tracks.sort(key=lambda found: boxes.index(found.boxes[found.frames == APART][0].tolist()))
    draw_steps(frames, masks, tracks, folder / "video_steps.png")
    draw_faults(frames, masks, folder / "video_masks.png")
    draw_matches(tracks, folder / "video_match.png")


if __name__ == "__main__":
    main()
