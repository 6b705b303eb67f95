"""Masks that people have: every layout of files, and people split by their ids."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gaitzoo import Masks, normalize_silhouettes, split_people
from gaitzoo.data.coco_masks import decode_coco
from gaitzoo.data.segmentation import FrameMasks

SIZE = (40, 60)
FRAMES = np.zeros((3, *SIZE, 3), np.uint8)
BOXES = {1: (5, 25, 4, 14), 2: (10, 35, 30, 45)}  # top, bottom, left, right


def person(number, shift=0):
    top, bottom, left, right = BOXES[number]
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left + shift : right + shift] = True
    return mask


def label_map(frame):
    return person(1, frame) * 1 + person(2, frame) * 2


def save(values, path, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(dtype)).save(path)


def runs_of(mask):
    """COCO's uncompressed run lengths, column by column, by a loop."""
    counts, last = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def compressed(mask):
    coco = pytest.importorskip("pycocotools.mask")
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def corners(number, shift=0):
    top, bottom, left, right = BOXES[number]
    left, right = left + shift, right + shift
    return [left, top, right, top, right, bottom, left, bottom]


def expect(found, ids=True, count=3):
    """Both people in every frame, moved by one pixel per frame."""
    assert len(found) == count
    for frame, people in enumerate(found):
        assert np.array_equal(people.masks, [person(1, frame), person(2, frame)])
        assert people.masks.dtype == bool
        assert (people.ids.tolist() if ids else people.ids) == ([1, 2] if ids else None)


# Label maps


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_label_maps_hold_people_by_numbers(tmp_path, suffix):
    for frame in range(3):
        save(label_map(frame), tmp_path / f"{frame + 9}{suffix}")  # 9, 10, 11
    expect(Masks(tmp_path, identities=True)(FRAMES))
    expect(Masks(tmp_path)(FRAMES), ids=False)


def test_calls_go_on_and_restart_begins_anew(tmp_path):
    for frame in range(3):
        save(label_map(frame), tmp_path / f"{frame}.png")
    masks = Masks(tmp_path, identities=True)
    expect([*masks(FRAMES[:2]), *masks(FRAMES[:1])])
    with pytest.raises(ValueError, match=r"at most 3 frames"):
        masks(FRAMES[:1])
    masks.restart()
    expect(masks(FRAMES))


def test_palettes_void_and_white_masks(tmp_path):
    image = Image.fromarray(np.where(person(1), 255, label_map(0)).astype(np.uint8))
    image.putpalette([i for n in range(256) for i in (n, 255 - n, 7)])
    (tmp_path / "palette").mkdir()
    image.save(tmp_path / "palette" / "0.png")
    found = Masks(tmp_path / "palette", identities=True)(FRAMES[:1])[0]
    assert found.ids.tolist() == [2]  # 255 is the void around things
    save(person(1) * 255, tmp_path / "white" / "0.png")
    save(person(2) * 1, tmp_path / "white" / "1.png")
    save(np.zeros(SIZE), tmp_path / "white" / "2.png")
    found = Masks(tmp_path / "white", identities=True)(FRAMES)
    assert [people.ids.tolist() for people in found] == [[1], [1], []]
    assert np.array_equal(found[0].masks[0], person(1))
    save(label_map(0), tmp_path / "white" / "2.png")
    with pytest.raises(ValueError, match="got both"):
        Masks(tmp_path / "white")(FRAMES)


def test_classes_and_numbers_of_classes_times_1000(tmp_path):
    save(np.where(person(1) | person(2), 15, 3), tmp_path / "voc" / "0.png")
    found = Masks(tmp_path / "voc", person=15)(FRAMES[:1])[0]
    assert np.array_equal(found.masks, [person(1) | person(2)])
    values = np.where(person(2), 2007, np.where(person(1), 1001, 0))  # a pedestrian, a car
    save(values, tmp_path / "mots" / "0.png", np.uint16)
    found = Masks(tmp_path / "mots", person=2, identities=True)(FRAMES[:1])[0]
    assert found.ids.tolist() == [7]
    assert np.array_equal(found.masks[0], person(2))
    with pytest.raises(ValueError, match=r"class \* 1000"):
        Masks(tmp_path / "mots")(FRAMES[:1])


def test_label_maps_of_another_size_or_in_colours_are_refused(tmp_path):
    save(np.zeros((30, 60)), tmp_path / "size" / "0.png")
    with pytest.raises(ValueError, match="40 x 60 pixels as the frames, got 30 x 60"):
        Masks(tmp_path / "size")(FRAMES[:1])
    save(np.zeros((*SIZE, 3)), tmp_path / "colour" / "0.png")
    with pytest.raises(ValueError, match="of mode RGB"):
        Masks(tmp_path / "colour")(FRAMES[:1])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(ValueError, match="readable image"):
        Masks(tmp_path / "broken")(FRAMES[:1])


# One image per person


@pytest.mark.parametrize(
    "pattern", ["{frame}/{person}.png", "{person}/cam_{frame}.png", "f{frame}_*_p{person}.png"]
)
@pytest.mark.parametrize("first", [0, 1])
def test_images_per_person(tmp_path, pattern, first):
    for frame in range(3):
        for number in (1, 2):
            path = pattern.replace("*", "any.thing").format(frame=frame + first, person=number)
            save(person(number, frame) * 255, tmp_path / path)
    expect(Masks(tmp_path, pattern=pattern, identities=True)(FRAMES))


def test_frames_without_images_of_people_hold_nobody(tmp_path):
    save(person(1) * 1, tmp_path / "7" / "1.png")
    with pytest.raises(ValueError, match="got 7 as the lowest"):
        Masks(tmp_path, pattern="{frame}/{person}.png")
    found = Masks(tmp_path, pattern="{frame}/{person}.png", first_frame=6)(FRAMES)
    assert [len(people.masks) for people in found] == [0, 1, 0]
    with pytest.raises(ValueError, match="first_frame=8"):
        Masks(tmp_path, pattern="{frame}/{person}.png", first_frame=8)


@pytest.mark.parametrize("pattern", ["{frame}.png", "{frame}_{frame}_{person}.png", "{x}_{frame}"])
def test_patterns_name_frame_and_person(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"\{frame\} and \{person\} once each"):
        Masks(tmp_path, pattern=pattern)


# COCO


def coco_file(form, images=True):
    entries = [
        {"image_id": 10 + frame, "category_id": 3, "track_id": number, "score": 0.5}
        | {"segmentation": form(number, frame)}
        for frame in range(3)
        for number in (1, 2)
    ]
    if not images:
        return [entry | {"category_id": 1} for entry in entries]
    entries.append(entries[0] | {"category_id": 8, "track_id": 9})
    # Names, not the order of the list, tell the order of time.
    listed = [{"id": 10 + frame, "file_name": f"{frame + 9}.jpg"} for frame in (2, 0, 1)]
    categories = [{"id": 3, "name": "person"}, {"id": 8, "name": "dog"}]
    return {"images": listed, "annotations": entries, "categories": categories}


def polygons(number, frame):
    pytest.importorskip("pycocotools")
    return [corners(number, frame)]


FORMS = {
    "runs": lambda number, frame: runs_of(person(number, frame)),
    "compressed": lambda number, frame: compressed(person(number, frame)),
    "polygons": lambda number, frame: polygons(number, frame),
}


@pytest.mark.parametrize("form", FORMS)
def test_coco(tmp_path, form):
    path = tmp_path / "people.json"
    path.write_text(json.dumps(coco_file(FORMS[form])))
    found = Masks(path, identities=True)(FRAMES)
    expect(found)
    assert found[0].scores.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="at most 3 frames"):
        Masks(path)(np.zeros((4, *SIZE, 3), np.uint8))


def test_results_without_a_list_of_images(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(coco_file(FORMS["compressed"], images=False)))
    expect(Masks(path, identities=True, first_frame=10)(FRAMES))


def test_two_pieces_of_a_person_are_joined(tmp_path):
    content = coco_file(FORMS["runs"])
    for entry in content["annotations"]:
        entry["track_id"] = 1
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = Masks(tmp_path / "a.json", identities=True)(FRAMES)[0]
    assert np.array_equal(found.masks, [person(1) | person(2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=77), "image_id"),
        (lambda c: c["annotations"][0].pop("segmentation"), '"segmentation" and "image_id"'),
        (lambda c: c["annotations"][0].update(score=7), "scores from 0 to 1"),
        (lambda c: c["annotations"][0].update(track_id=None), "whole number of every person"),
        (lambda c: c.update(categories=[{"id": 3, "name": "dog"}]), "category person"),
        (lambda c: c.update(annotations=3), "expected a COCO file"),
        (lambda c: c["images"][0].update(video_id=4), "one video"),
        (lambda c: c["annotations"][0]["segmentation"].update(size=[40, 61]), "got 40 x 61"),
    ],
)
def test_broken_coco_files_are_refused(tmp_path, change, message):
    content = coco_file(FORMS["runs"])
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Masks(tmp_path / "a.json", identities=True)(FRAMES)


def test_files_that_are_no_json(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="damaged or no JSON"):
        Masks(tmp_path / "a.json")


def test_run_lengths_equal_a_loop():
    generator = np.random.default_rng(0)
    for _ in range(30):
        height, width = generator.integers(1, 40, 2)
        mask = np.kron(generator.random((height, width)) < 0.5, np.ones((3, 4))) > 0
        assert np.array_equal(decode_coco(runs_of(mask)), mask)
        assert np.array_equal(decode_coco(compressed(mask)), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": "oooooooooo"},
        {"size": [4, 4], "counts": "\x00"},
        {"size": [4, 4], "counts": None},
        {"size": [0, 4], "counts": []},
        {"size": [4], "counts": [4]},
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        "polygon",
    ],
)
def test_damaged_run_lengths_and_polygons_are_refused(segmentation):
    with pytest.raises(ValueError, match="expected"):
        decode_coco(segmentation, (4, 4))


def test_text_of_run_lengths_cut_anywhere_is_refused():
    text = compressed(label_map(0) > 0)["counts"]
    for cut in range(len(text)):
        with pytest.raises(ValueError, match="or a part"):
            decode_coco({"size": list(SIZE), "counts": text[:cut]})


# YOLO


def yolo_line(number, frame, after=""):
    numbers = np.array(corners(number, frame)) / ([60, 40] * 4)
    return " ".join(["0", *(f"{value:.6f}" for value in numbers), *after.split()])


def test_yolo(tmp_path):
    pytest.importorskip("pycocotools")
    for frame in range(3):
        lines = [yolo_line(number, frame) for number in (1, 2)]
        (tmp_path / f"video2_{frame + 1}.txt").write_text("\n".join([*lines, "16 0.1 0.1 0.2 0.2"]))
    expect(Masks(tmp_path)(FRAMES), ids=False)
    for frame in range(3):
        lines = [yolo_line(number, frame, f"0.25 {number}") for number in (1, 2)]
        (tmp_path / f"video2_{frame + 1}.txt").write_text("\n".join(lines))
    found = Masks(tmp_path, identities=True, yolo_after=("score", "id"))(FRAMES)
    expect(found)
    assert found[0].scores.tolist() == [0.25, 0.25]
    assert [
        len(p.masks) for p in Masks(tmp_path, first_frame=0, yolo_after=("score", "id"))(FRAMES)
    ] == [0, 2, 2]


@pytest.mark.parametrize("after", ["0.9", "0.9 1", "0.9 2", "7"])
def test_numbers_behind_the_corners_are_named_by_the_user(tmp_path, after):
    (tmp_path / "0.txt").write_text(yolo_line(1, 0, after))
    with pytest.raises(ValueError, match="yolo_after"):
        Masks(tmp_path)(FRAMES[:1])


@pytest.mark.parametrize("line", ["0", "0 0.1 0.2", "0 0.1 x 0.2 0.3 0.4 0.5", "0 nan 0 0 1 1 0.5"])
def test_broken_lines_are_refused(tmp_path, line):
    (tmp_path / "0.txt").write_text(line)
    with pytest.raises(ValueError, match="expected"):
        Masks(tmp_path)(FRAMES[:1])


def test_places_without_masks(tmp_path):
    with pytest.raises(FileNotFoundError, match="masks"):
        Masks(tmp_path / "nothing")
    with pytest.raises(ValueError, match="got neither"):
        Masks(tmp_path)
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(ValueError, match=r"\.json"):
        Masks(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="expected person as a whole number"):
        Masks(tmp_path, person="dog")


# People by ids


def big(number, frame):
    return np.kron(person(number, frame), np.ones((3, 3))) > 0


def clip():
    """Id to its frames; the second person is not in the first frame."""
    return {1: [big(1, f) for f in range(3)], 2: [None, big(2, 1), big(2, 2)]}


def wanted():
    return {
        number: normalize_silhouettes(
            torch.from_numpy(np.array([m for m in masks if m is not None]))
        )
        for number, masks in clip().items()
    }


def label_clip():
    frames = np.zeros((3, 120, 180), np.int32)
    for number, masks in clip().items():
        for frame, mask in zip(frames, masks, strict=True):
            if mask is not None:
                frame[mask] = number
    return frames


def by_frames(convert):
    return [
        {number: convert(masks[f]) for number, masks in clip().items() if masks[f] is not None}
        for f in range(3)
    ]


def stack():
    empty = np.zeros((120, 180), bool)
    return np.array(
        [[empty if masks[f] is None else masks[f] for masks in clip().values()] for f in range(3)]
    )


def frame_masks():
    found = []
    for people in by_frames(lambda mask: mask):
        ids = np.array(list(people), np.int64)
        found.append(FrameMasks(np.array(list(people.values())), np.ones(len(ids)), ids))
    return found


ONE_BY_ONE = [(i, mask) for people in by_frames(lambda m: m) for i, mask in people.items()]
INPUTS = {
    "label map": (label_clip, None),
    "label tensor": (lambda: torch.from_numpy(label_clip()), None),
    "void": (lambda: np.where(label_clip() == 0, 255, label_clip()) % 256, None),
    "stack": (stack, [1, 2]),
    "stack of 0 and 255": (lambda: torch.from_numpy(stack() * np.uint8(255)), np.array([1, 2])),
    "stack of floats": (lambda: stack().astype(np.float32), [1, 2]),
    "mappings": (lambda: by_frames(lambda m: m), None),
    "run lengths": (lambda: by_frames(runs_of), None),
    "frame masks": (frame_masks, None),
    "one by one": (lambda: [mask for _, mask in ONE_BY_ONE], [i for i, _ in ONE_BY_ONE]),
}


@pytest.mark.parametrize("form", INPUTS)
def test_people_are_split(form):
    masks, ids = INPUTS[form]
    found = split_people(masks(), ids)
    assert list(found) == [1, 2]
    for number, frames in wanted().items():
        assert torch.equal(found[number], frames)


def test_crops_of_varying_sizes():
    crops = []
    for _, mask in ONE_BY_ONE:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        margin = len(crops) % 3
        crops.append(np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin))
    found = split_people(crops, [i for i, _ in ONE_BY_ONE])
    for number, frames in wanted().items():
        assert found[number].shape == frames.shape
        # The sides are scaled in whole pixels of another width.
        assert (found[number].int() - frames).abs().float().mean() < 6


def test_white_alone_is_one_person_and_small_people_are_left_out():
    labels = label_clip()
    assert list(split_people((labels == 2).astype(np.uint8) * 255)) == [1]
    labels[:, 0, :5] = 7
    with pytest.warns(UserWarning, match="of 7; they were left out"):
        assert list(split_people(labels)) == [1, 2]


@pytest.mark.parametrize(
    ("masks", "ids", "message"),
    [
        (np.zeros((2, 9, 9), np.uint8), None, "in some frame, got none"),
        (np.zeros((9, 9), np.uint8), None, r"got \[9, 9\]"),
        (-np.ones((2, 9, 9), np.int8), None, "ids of 1 and more"),
        (np.ones((2, 9, 9), np.uint8), [1], "no ids with a label map"),
        (np.ones((2, 1, 9, 9), np.uint8) * 7, None, "masks of 0 and 1"),
        (np.ones((2, 2, 9, 9), bool), [1], "for each mask of a frame"),
        (np.ones((2, 2, 9, 9), bool), [1, 1], "every id once"),
        ([np.ones((9, 9), bool)], None, "for each mask of the list"),
        ([np.ones((9, 9), bool)], ["anna"], "whole numbers"),
        ([np.ones((2, 9, 9), bool)], [1], r"masks \[h, w\]"),
        ([FrameMasks(np.ones((1, 9, 9), bool), np.ones(1))], None, "with ids"),
        ([{"size": [9, 9], "counts": [81]}], None, "expected ids"),
    ],
)
def test_what_cannot_be_split(masks, ids, message):
    with pytest.raises(ValueError, match=message):
        split_people(masks, ids)


def test_types_that_are_no_masks():
    with pytest.raises(TypeError, match="whole numbers, got float"):
        split_people(np.ones((2, 9, 9)))
    with pytest.raises(TypeError, match="expected arrays, or a list by frames, got str"):
        split_people("masks")
    with pytest.raises(TypeError, match="arrays or run lengths, got list"):
        split_people([[[1, 0]]], [1])
