"""From rendered videos with true masks to tracks, and from tracks to names."""

import functools
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import gaitzoo
from gaitzoo import FrameMasks, TrackOptions, TrackStream, extract_tracks, save_tracks
from gaitzoo.data import quality
from gaitzoo.data.video import VideoWarning, read_video
from gaitzoo.synthetic import render_walk, sample_identity

pytest.importorskip("av")
pytest.importorskip("trackers")

from video_world import RATES, iou, scene, write, write_coco, write_yolo

quick = functools.partial(extract_tracks, progress=False)
PEOPLE = (3, 5)


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """Two people who pass each other, the first one in front."""
    film = scene((PEOPLE[0], 90), (PEOPLE[1], 270), frames=90)
    film.path = write(tmp_path_factory.mktemp("crossing") / "street.mp4", film.frames)
    return film


@pytest.fixture(scope="module")
def leaving(tmp_path_factory):
    """One who walks out of the picture."""
    film = scene((3, 90, 520, 130), frames=110)
    film.path = write(tmp_path_factory.mktemp("leaving") / "street.mp4", film.frames)
    return film


def whole(film, person, track):
    """The silhouettes of the frames of a track, of the body as if nothing hid it."""
    masks = film.bodies[person][track.frames]
    return gaitzoo.normalize_silhouettes(masks, component="all").numpy() > 127


def person_of(film, track):
    """Who a track is, by its first and its last frame."""
    ends = [0, -1]
    lit = track.silhouettes[ends].numpy() > 127
    scores = []
    for masks in film.bodies:
        boxes = quality.boxes_of(masks[track.frames[ends]])
        there = (np.abs(boxes - track.boxes[ends]) <= 1).all()
        shapes = gaitzoo.normalize_silhouettes(masks[track.frames[ends]]).numpy() > 127
        scores.append(min(map(iou, lit, shapes)) if there else 0.0)
    return int(np.argmax(scores))


@pytest.mark.parametrize(("rate", "turn"), [("25", 0), ("29.97", 90), ("29.97", 270)])
def test_tracks_are_the_walks_that_were_rendered(tmp_path, crossing, rate, turn):
    path = write(tmp_path / "street.mp4", crossing.frames, RATES[rate], turn)
    stream = TrackStream(path, crossing.oracle(keypoints=True), progress=False)
    tracks = list(stream)
    hidden = [
        quality.find_occluded(m, quality.boxes_of(m)) for m in crossing.visible.swapaxes(0, 1)
    ]
    hidden = np.array(hidden).T
    assert hidden.any()
    covered = np.zeros(hidden.shape, int)
    for track in tracks:
        person = person_of(crossing, track)
        shapes = whole(crossing, person, track)
        assert min(map(iou, shapes, track.silhouettes.numpy() > 127)) > 0.95
        assert not hidden[person, track.frames].any()
        covered[person, track.frames] += 1
        np.testing.assert_allclose(track.times, track.frames / float(RATES[rate]), atol=1e-3)
        assert (track.keypoints[:, 0, 0].numpy() == track.frames).all()
        assert track.silhouettes.dtype == torch.uint8
        assert (np.diff(track.frames) == 1).all()
        np.testing.assert_array_equal(
            track.areas, crossing.bodies[person, track.frames].sum((1, 2))
        )
    # Each person once before and once behind the meeting; nothing but the first frame is missing.
    assert len(tracks) == 4
    expected = ~hidden
    expected[:, 0] = False
    np.testing.assert_array_equal(covered, expected)
    assert stream.left_out == {"occluded": int(hidden.sum()), "new": 2}
    assert stream.num_frames == 90


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_masks_of_files_give_the_walks_too(tmp_path, crossing, form, known):
    pytest.importorskip("pycocotools")
    after = None
    if form == "coco":
        path = write_coco(tmp_path / "masks.json", crossing.visible)
    else:
        path = write_yolo(tmp_path / "masks", crossing.visible)
        after = ["id"]
    masks = gaitzoo.Masks(path, identities=known, yolo_after=after)
    tracks = quick(crossing.path, masks)
    assert len(tracks) == 4
    for track in tracks:
        person = person_of(crossing, track)
        assert not known or track.person == person + 1
        shapes = whole(crossing, person, track)
        assert min(map(iou, shapes, track.silhouettes.numpy() > 127)) > 0.95
    seen = {(person_of(crossing, track), track.frames[0] < 45) for track in tracks}
    assert seen == {(person, before) for person in (0, 1) for before in (True, False)}
    assert sum(len(track.frames) for track in tracks) > 110


def test_identify_finds_the_people_of_a_video(crossing):
    tracks = quick(crossing.path, crossing.oracle())
    gallery, names = [], []
    for person in range(6):
        for view in (90, 270):
            walk = render_walk(sample_identity(person), frames=30, view=view, seed=7, size=(64, 64))
            gallery.append(walk.silhouettes)
            names.append(person)
    model = gaitzoo.create_model("dygait", pretrained=True, num_classes=0).eval()
    transform = gaitzoo.create_transform(model)
    found = gaitzoo.identify(
        model,
        [transform(clip) for clip in gallery],
        [transform(track.silhouettes) for track in tracks],
        names,
        progress=False,
    )
    expected = [PEOPLE[person_of(crossing, track)] for track in tracks]
    assert [matches[0].label for matches in found.matches] == expected
    assert set(expected) == set(PEOPLE)


def test_a_body_that_the_border_cuts_is_no_silhouette(leaving):
    stream = TrackStream(leaving.path, leaving.oracle(), progress=False)
    (track,) = stream
    last = int(np.flatnonzero(leaving.cut[0])[0])
    assert last < 109
    assert (track.frames[0], track.frames[-1]) == (1, last - 1)
    assert stream.left_out == {"border": 110 - last, "new": 1}
    assert min(map(iou, whole(leaving, 0, track), track.silhouettes.numpy() > 127)) > 0.95


def test_known_people_are_not_tracked_but_cut(crossing):
    tracks = quick(crossing.path, crossing.oracle(known=True))
    assert sorted(track.person for track in tracks) == [0, 0, 1, 1]
    for track in tracks:
        assert track.person == person_of(crossing, track)
        assert track.frames[0] in (0, *range(50, 60))  # here the first frame is there


@pytest.mark.parametrize(("missing", "tracks"), [(5, 1), (30, 2)])
def test_short_gaps_are_bridged(leaving, missing, tracks):
    leaving = replace(leaving, visible=leaving.visible.copy())
    leaving.visible[:, 40 : 40 + missing] = False
    found = quick(leaving.path, leaving.oracle())
    assert len(found) == tracks
    frames = np.concatenate([track.frames for track in found])
    assert not set(range(40, 40 + missing)) & set(frames.tolist())
    assert quick(leaving.path, leaving.oracle(), max_gap=0.0) == []


@pytest.mark.parametrize("rate", [25, 30])
def test_a_gap_of_just_max_gap_is_bridged_wherever_it_is(tmp_path, rate):
    """Times of frames are no round numbers, and 0.4 s is a whole number of frames."""
    for number in range(50):
        Image.new("RGB", (40, 60)).save(tmp_path / f"{number}.png")
    video = read_video(tmp_path, frame_rate=rate)
    mask = np.zeros((1, 60, 40), bool)
    mask[:, 5:55, 12:28] = True
    known = FrameMasks(mask, np.ones(1), np.array([7]))
    nobody = FrameMasks(mask[:0], np.ones(0), np.zeros(0, np.int64))
    for missing, tracks in ((round(0.4 * rate) - 1, 1), (round(0.4 * rate), 2)):
        for start in range(15, 36 - missing):
            gone = range(start, start + missing)
            found = iter([nobody if number in gone else known for number in range(50)])
            cut = quick(video, lambda frames, left=found: [next(left) for _ in frames])
            assert len(cut) == tracks


def test_blurred_frames_are_dropped_and_counted(tmp_path, leaving):
    frames = leaving.frames.copy()
    for number in (30, 31, 60):
        blurred = Image.fromarray(frames[number]).filter(ImageFilter.GaussianBlur(3))
        frames[number] = np.asarray(blurred)
    (track,) = quick(write(tmp_path / "street.mp4", frames), leaving.oracle())
    assert track.dropped == {"blurred": 3}
    assert not {30, 31, 60} & set(track.frames.tolist())


def test_half_bodies_and_second_bodies_are_dropped(leaving):
    leaving = replace(leaving, visible=leaving.visible.copy())
    rows = np.flatnonzero(leaving.visible[0, 50].any(1))
    leaving.visible[0, 50, rows[len(rows) // 3] :] = False  # the legs are not found
    leaving.visible[0, 70] |= np.roll(leaving.visible[0, 70], 90, 1)  # somebody else as well
    stream = TrackStream(leaving.path, leaving.oracle(known=True), progress=False)
    found = list(stream)
    assert 50 not in np.concatenate([track.frames for track in found])
    assert 70 not in np.concatenate([track.frames for track in found])
    assert stream.left_out["several bodies"] == 1
    assert stream.left_out["area"] + stream.left_out["small"] == 1


def test_low_bodies_and_short_views_are_left_out(leaving):
    stream = TrackStream(
        leaving.path, leaving.oracle(), TrackOptions(min_height=150), progress=False
    )
    assert list(stream) == []
    assert set(stream.left_out) == {"small", "border", "new"}
    stream = TrackStream(
        leaving.path, leaving.oracle(), TrackOptions(min_frames=200), progress=False
    )
    assert list(stream) == []
    assert set(stream.left_out) == {"too short", "border", "new"}
    assert list(TrackStream(leaving.path, leaving.oracle(), TrackOptions(min_score=0.95))) == []


def test_a_person_found_twice_is_one(leaving):
    oracle = leaving.oracle()

    def twice(frames):
        found = []
        for people in oracle(frames):
            masks = np.concatenate([people.masks, np.roll(people.masks, 1, 1)])
            found.append(
                FrameMasks(masks, np.full(len(masks), 0.8) + 0.1 * (np.arange(len(masks)) == 0))
            )
        return found

    (track,) = quick(leaving.path, twice)
    assert min(map(iou, whole(leaving, 0, track), track.silhouettes.numpy() > 127)) > 0.95


@pytest.mark.parametrize("batch", [1, 500])
def test_batches_change_nothing(leaving, batch):
    (one,), (other,) = (
        quick(leaving.path, leaving.oracle()),
        quick(leaving.path, leaving.oracle(), batch_frames=batch),
    )
    np.testing.assert_array_equal(one.frames, other.frames)
    assert torch.equal(one.silhouettes, other.silhouettes)


def test_bad_segmenters_and_arguments_are_refused(leaving):
    with pytest.raises(ValueError, match="masks of 8 frames from the segmenter, got 0"):
        quick(leaving.path, lambda frames: [])
    for found, got in (None, "NoneType"), ([None] * 8, "list of NoneType"):
        with pytest.raises(TypeError, match=f"list of FrameMasks from the segmenter, got {got}"):
            quick(leaving.path, lambda frames, found=found: found)
    empty = FrameMasks(np.zeros((0, 5, 5), bool), np.zeros(0))
    with pytest.raises(
        ValueError, match=r"frame's size \[160, 288\] from the segmenter, got \[5, 5\]"
    ):
        quick(leaving.path, lambda frames: [empty] * len(frames))
    for name, value in (
        ("min_frames", 0),
        ("min_height", 1.5),
        ("size", 63),
        ("max_gap", -1),
        ("min_score", float("nan")),
        ("batch_frames", True),
    ):
        with pytest.raises(ValueError, match=f"expected .*{name.removeprefix('the ')}"):
            quick(leaving.path, leaving.oracle(), **{name: value})


@pytest.mark.parametrize(
    ("masks", "fields", "error"),
    [
        (np.zeros((1, 4, 4)), {}, "masks as a bool numpy array, got float64"),
        (np.zeros((4, 4), bool), {}, r"masks of shape \[M, H, W\], got \[4, 4\]"),
        (None, {"scores": np.ones(2)}, r"scores of shape \[1\], got \[2\]"),
        (None, {"scores": np.array([50.0])}, r"scores in \[0, 1\]"),
        (None, {"ids": np.zeros(1)}, "ids as a integer numpy array"),
        (None, {"keypoints": np.zeros((1, 33, 3))}, r"keypoints of shape \[1, 17, 3\]"),
    ],
)
def test_masks_are_checked(masks, fields, error):
    masks = np.zeros((1, 4, 4), bool) if masks is None else masks
    with pytest.raises((TypeError, ValueError), match=error):
        FrameMasks(**{"masks": masks, "scores": np.ones(1), **fields})


def test_occlusion_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        masks = np.zeros((4, 60, 60), bool)
        for mask in masks:
            top, left = rng.integers(0, 30, 2)
            mask[top : top + 25, left : left + rng.integers(3, 12)] = True
        masks[3] = False
        expected = np.zeros(4, bool)
        for one in range(4):
            for other in range(4):
                if one != other:
                    a, b = np.argwhere(masks[one]), np.argwhere(masks[other])
                    far = np.abs(a[:, None] - b).max(2)
                    expected[one] |= bool(far.size) and far.min() <= 2
        np.testing.assert_array_equal(
            quality.find_occluded(masks, quality.boxes_of(masks)), expected
        )


def save(path, root, oracle, **more):
    return save_tracks(path, root, oracle, segmenter_name="truth", progress=False, **more)


def test_saved_tracks_are_a_tree_of_opengait(tmp_path, crossing):
    tracks = quick(crossing.path, crossing.oracle())
    found = save(crossing.path, tmp_path / "out", crossing.oracle())
    sequences = gaitzoo.find_sequences(tmp_path / "out")
    assert [sequence.name for sequence in sequences] == [
        f"street-00{number}/street/00{number}/00{number}" for number in range(4)
    ]
    for track, sequence, known in zip(tracks, sequences, found.tracks, strict=True):
        read = pickle.loads((tmp_path / "out" / known["path"]).read_bytes())
        assert read.dtype == np.uint8
        assert torch.equal(gaitzoo.load_silhouettes(sequence.path), track.silhouettes)
        assert torch.equal(torch.from_numpy(read), track.silhouettes)
        assert sequence.identity == known["identity"] == track.name
        assert known["boxes"] == track.boxes.tolist()
    lines = [json.loads(line) for line in found.record.read_text().splitlines()]
    assert lines[0]["left_out"] == found.left_out
    assert lines[1:] == found.tracks


def test_a_video_that_is_there_is_not_read_again(tmp_path, leaving):
    first = save(leaving.path, tmp_path / "out", leaving.oracle(), identity="ann")
    assert [track["path"] for track in first.tracks] == ["ann/street/000/000.pkl"]

    def never(frames):
        raise AssertionError

    again = save(leaving.path, tmp_path / "out", never, identity="ann")
    assert again.resumed
    assert again.tracks == first.tracks
    options = TrackOptions(min_frames=20)
    with pytest.raises(FileExistsError, match="made with another identity, min_frames"):
        save(leaving.path, tmp_path / "out", never, options=options)
    forced = save(leaving.path, tmp_path / "out", leaving.oracle(), options=options, force=True)
    assert not forced.resumed
    assert not (tmp_path / "out" / "ann").exists()
    assert [s.identity for s in gaitzoo.find_sequences(tmp_path / "out")] == ["street-000"]


def test_other_masks_under_the_same_path_are_noticed(tmp_path, leaving):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "0.png").write_bytes(b"one")

    def save_here(oracle):
        return save(leaving.path, tmp_path / "out", oracle, masks=masks)

    assert not save_here(leaving.oracle()).resumed
    (masks / ".DS_Store").write_bytes(b"of a system")
    assert save_here(None).resumed
    (masks / "0.png").write_bytes(b"two")
    with pytest.raises(FileExistsError, match="made with another content_of_masks"):
        save_here(None)
    (masks / "0.png").write_bytes(b"one")
    (masks / "0.png").rename(masks / "1.png")
    with pytest.raises(FileExistsError, match="made with another content_of_masks"):
        save_here(None)


def test_a_run_that_is_killed_leaves_nothing_that_counts(tmp_path, crossing):
    out = tmp_path / "out"
    oracle = crossing.oracle()

    def killed(frames):
        if oracle.seen > 60:
            raise KeyboardInterrupt
        return oracle(frames)

    with pytest.raises(KeyboardInterrupt):
        save(crossing.path, out, killed)
    assert list(out.iterdir()) == []
    # What a process leaves that ends without a word.
    (out / ".street.unfinished" / "street-000").mkdir(parents=True)
    (out / "street-000" / "street" / "009").mkdir(parents=True)
    found = save(crossing.path, out, crossing.oracle())
    assert not found.resumed
    assert sorted(entry.name for entry in out.iterdir()) == [
        *(f"street-00{number}" for number in range(4)),
        "street.jsonl",
    ]
    assert not (out / "street-000" / "street" / "009").exists()


@pytest.mark.parametrize("change", ["frame rate", "pixels"])
def test_another_video_of_the_same_name_and_size_is_noticed(tmp_path, change):
    """Files of images without compression are all of one size."""
    for folder in ("one", "other"):
        (tmp_path / folder / "walk").mkdir(parents=True)
        for number in range(2):
            level = 9 * (folder == "other" and change == "pixels" and number == 1)
            Image.new("L", (40, 60), level).save(tmp_path / folder / "walk" / f"{number}.bmp")

    def nobody(frames):
        return [FrameMasks(np.zeros((0, 60, 40), bool), np.zeros(0)) for _ in frames]

    out = tmp_path / "out"
    assert not save(tmp_path / "one" / "walk", out, nobody).resumed
    assert save(tmp_path / "one" / "walk", out, nobody).resumed
    rate = 10 if change == "frame rate" else None
    with pytest.raises(FileExistsError, match=r"made with another (content_of_video|frame_rate) "):
        save(read_video(tmp_path / "other" / "walk", frame_rate=rate), out, nobody)


def test_bad_names_are_refused_before_the_video_is_read(tmp_path, leaving):
    def never(frames):
        raise AssertionError

    with pytest.raises(ValueError, match="expected an identity that can name a folder, got 'a/b'"):
        save(leaving.path, tmp_path / "out", never, identity="a/b")
    with pytest.raises(ValueError, match='content "silhouettes" or "poses", got'):
        save(leaving.path, tmp_path / "out", never, content="rgb")
    odd = replace(read_video(leaving.path), path=tmp_path / "17:30.mp4")
    with pytest.raises(ValueError, match=r"expected a video .* that can name a folder, got '17:30"):
        save(odd, tmp_path / "out", never)
    assert not (tmp_path / "out").exists()


def test_one_name_is_for_one_person(tmp_path, crossing):
    with pytest.raises(ValueError, match="expected ann alone in street, got two people at 0"):
        save(crossing.path, tmp_path / "out", crossing.oracle(), identity="ann")
    assert list((tmp_path / "out").iterdir()) == []
    for name in ("", "a/b", "..", "."):
        with pytest.raises(ValueError, match="identity that can name a folder"):
            save(crossing.path, tmp_path / "out", crossing.oracle(), identity=name)


def test_other_files_are_no_record(tmp_path, leaving):
    for content in ("", "[1]", '{"a": 1}', "text"):
        (tmp_path / "street.jsonl").write_text(content)
        with pytest.raises(ValueError, match="expected the record of a video's tracks"):
            save(leaving.path, tmp_path, leaving.oracle())


def test_keypoints_are_saved_as_poses(tmp_path, leaving):
    (track,) = quick(leaving.path, leaving.oracle(keypoints=True))
    saved = track.save(tmp_path / "poses", "ann", content="poses")
    poses = gaitzoo.load_sequence(saved, "poses")
    assert torch.equal(poses, track.keypoints)
    with pytest.raises(ValueError, match="expected keypoints in track street-000, got none"):
        replace(track, keypoints=None).save(tmp_path, content="poses")
    with pytest.raises(ValueError, match='content "silhouettes" or "poses", got'):
        track.save(tmp_path, content="rgb")
    with pytest.raises(ValueError, match="expected times of 103 frames"):
        replace(track, times=track.times[1:])


def test_masks_from_files_of_another_number_of_frames_are_said(tmp_path):
    for folder, count in (("walk", 4), ("masks", 5)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.new("L", (40, 60)).save(tmp_path / folder / f"{number}.png")
    masks = gaitzoo.Masks(tmp_path / "masks")
    with pytest.warns(VideoWarning, match="masks of the 4 frames read of .*, got masks of 5"):
        assert extract_tracks(tmp_path / "walk", masks, progress=False) == []
