"""``gaitzoo tracks``, and a video as the probe of ``gaitzoo identify``."""

import json
from pathlib import Path

import numpy as np
import pytest
from cli_world import walk
from PIL import Image

from gaitzoo.data.video import read_video

pytest.importorskip("av")
pytest.importorskip("trackers")

from video_world import scene, write

pytest_plugins = ["cli_fixtures"]


@pytest.fixture(scope="module")
def film():
    return scene((3, 90), (5, 270), frames=50)


@pytest.fixture
def street(film, tmp_path):
    """A video and the numbers of people in its pixels."""
    write(tmp_path / "street.mp4", film.frames)
    (tmp_path / "masks").mkdir()
    for number, visible in enumerate(film.visible.swapaxes(0, 1)):
        labels = (visible * np.array([1, 2])[:, None, None]).sum(0).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number:03d}.png")
    return tmp_path


def tracks(*more):
    return ["tracks", "street.mp4", "-o", "out", "--masks", "masks", "-q", *more]


def test_tracks_are_written_with_pictures(run, street):
    code, printed, errors = run(*tracks())
    assert (code, errors) == (0, "")
    assert "street: 4 track(s) in 50 frames" in printed
    assert "left out: " in printed
    out = street / "out"
    assert sorted(entry.name for entry in out.iterdir()) == [
        *(f"street-00{number}{end}" for number in range(4) for end in ("", ".png")),
        *("street.jsonl", "street.mp4"),
    ]
    overlay = list(read_video(out / "street.mp4"))
    assert len(overlay) == 50
    original = list(read_video(street / "street.mp4"))
    first = json.loads((out / "street.jsonl").read_text().splitlines()[1])
    left, top, right, bottom = first["boxes"][5]
    place = first["frames"][5]
    drawn = np.abs(overlay[place].pixels.astype(int) - original[place].pixels).mean(2)
    assert drawn[top:bottom, left:right].mean() > 15
    assert np.median(drawn) < 8
    with Image.open(out / "street-000.png") as sheet:
        assert sheet.width > 600
    code, printed, _ = run(*tracks())
    assert code == 0
    assert "there already" in printed
    code, _, errors = run(*tracks("--min-frames", 20))
    assert code == 2
    assert "made with another min_frames" in errors
    code, printed, _ = run(*tracks("--min-frames", 49, "--force"))
    assert (code, "0 track(s)" in printed) == (0, True)
    assert sorted(entry.name for entry in out.iterdir()) == ["street.jsonl", "street.mp4"]
    code, printed, _ = run(*tracks("--min-frames", 48, "--force", "--no-pictures"))
    assert (code, "0 track(s)" in printed) == (0, True)
    assert [entry.name for entry in out.iterdir()] == ["street.jsonl"]


def test_masks_of_another_number_of_frames_are_said(run, street):
    Image.new("L", (288, 160)).save(street / "masks" / "051.png")
    code, _, errors = run(*tracks("--no-pictures"))
    assert code == 0
    assert "masks has masks of 51 frames, street.mp4 50 frames; check that they belong" in errors


def test_a_video_is_identified(run, street):
    for person in (3, 4, 5):
        (street / "known" / f"p{person}").mkdir(parents=True)
        np.save(street / "known" / f"p{person}" / "walk.npy", walk(person, frames=8))
    words = ["identify", "--gallery", "known", "--probe", "street.mp4", "--masks", "masks"]
    code, printed, errors = run(*words, "--model", "dygait_tiny", "-q", "--json")
    assert code == 0
    assert "street-000: " in errors
    assert [probe["identity"] for probe in json.loads(printed)["probes"]] == [
        f"street-00{number}" for number in range(4)
    ]
    code, _, errors = run(*words, "--model", "dygait_tiny", "-q", "--min-frames", 90)
    assert code == 2
    assert "found no track in 50 frames; left out: too short" in errors


def test_bad_videos_give_one_line(run, street):
    content = (street / "street.mp4").read_bytes()
    (street / "cut.mp4").write_bytes(content[: len(content) // 2])
    (street / "text.mp4").write_text("a letter\n")
    for name in ("cut.mp4", "text.mp4"):
        code, printed, errors = run("tracks", name, "-o", "out", "-q")
        assert (code, printed, errors.count("\n")) == (2, "", 1)
        assert f"error: expected a video in {name}, got a file that cannot be opened" in errors
    code, _, errors = run("tracks", "street.mp4", "-o", ".", "--masks", "masks", "-q")
    assert code == 2
    assert "expected another folder than that of the video" in errors
    (street / "foreign").mkdir()
    (street / "foreign" / "street.mp4").write_text("of somebody")
    words = ["tracks", "street.mp4", "-o", "foreign", "--masks", "masks", "-q"]
    code, _, errors = run(*words)
    assert code == 2
    assert f"expected no file {Path('foreign', 'street.mp4')}, where" in errors
    assert (street / "foreign" / "street.mp4").read_text() == "of somebody"
    for more in ((), ("--no-pictures",), ("--no-pictures", "--force"), ("--force",)):
        # Also beside tracks of this command: nothing but its own pictures is replaced.
        (street / "foreign" / "street.jsonl").touch()
        code, _, errors = run(*words, *more)
        assert (code, "that is not of this command" in " ".join(errors.split())) == (2, True)
        assert (street / "foreign" / "street.mp4").read_text() == "of somebody"
    write(street / "foreign" / "street.mp4", np.zeros((2, 64, 64, 3), np.uint8))
    code, _, errors = run(*words, "--force")
    assert (code, "not of this command" in " ".join(errors.split())) == (2, True)
    mask = sorted((street / "masks").iterdir())[0].read_bytes()  # a PNG
    (street / "sheets").mkdir()
    for content in (b"of somebody", mask):
        (street / "sheets" / "street-007.png").write_bytes(content)
        for more in ((), ("--force",)):
            code, _, errors = run("tracks", "street.mp4", "-o", "sheets", *words[4:], *more)
            assert (code, "a picture to look at is" in " ".join(errors.split())) == (2, True)
        assert (street / "sheets" / "street-007.png").read_bytes() == content
        assert [path.name for path in (street / "sheets").iterdir()] == ["street-007.png"]
    code, _, errors = run("tracks", "masks", "-o", "masks", "--masks", "masks", "-q")
    assert code == 2
    assert "expected another folder than that of the video" in errors
    code, _, errors = run("tracks", "none.mp4", "-o", "out")
    assert (code, errors.count("\n")) == (2, 1)


def test_a_bad_video_among_good_ones_is_named_at_the_end(run, street, film, monkeypatch):
    (street / "text.mp4").write_text("a letter\n")
    code, printed, errors = run("tracks", "text.mp4", *tracks()[1:])
    assert (code, printed) == (2, "")
    assert "expected one video with --masks, got several" in errors
    monkeypatch.setattr("gaitzoo.cli.segment._make", lambda options: film.oracle())
    words = ["tracks", "text.mp4", "street.mp4", "-o", "out", "-q", "--no-pictures"]
    code, printed, errors = run(*words)
    assert code == 2
    assert "street: 4 track(s)" in printed
    assert "error: 1 of 2 videos: expected a video in text.mp4, got" in errors
    words = ["tracks", "street.mp4", "street.mp4", "-o", "out", "-q", "--no-pictures"]
    code, printed, errors = run(*words, "--min-frames", "9")
    assert code == 2
    assert "error: 2 of 2 videos: expected tracks of street.mp4 with these settings" in errors
    assert not (street / "out" / "street.mp4").exists()
