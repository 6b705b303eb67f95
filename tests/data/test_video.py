"""Frames of videos: times, rotation, shape of pixels, damage, folders."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import gaitzoo
from gaitzoo.data.video import VideoWarning, read_video

av = pytest.importorskip("av")

from video_world import RATES, write  # noqa: E402  (needs av)


def marked(count=30, height=64, width=96):
    """Frames with a red corner above on the left and a bar that moves to the right."""
    frames = np.full((count, height, width, 3), 60, np.uint8)
    frames[:, : height // 4, : width // 4] = (250, 20, 20)
    for number in range(count):
        frames[number, height // 2 :, number : number + 8] = 230
    return frames


def close(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean() < 6


@pytest.mark.parametrize("rate", RATES)
def test_all_frames_come_with_their_times(tmp_path, rate):
    frames = marked()
    video = read_video(write(tmp_path / "walk.mp4", frames, RATES[rate]))
    assert (video.name, video.size, video.num_frames) == ("walk", (64, 96), 30)
    assert video.frame_rate == pytest.approx(float(RATES[rate]))
    found = list(video)
    assert [frame.number for frame in found] == list(range(30))
    times = np.arange(30) / float(RATES[rate])
    np.testing.assert_allclose([frame.time for frame in found], times, atol=1e-3)
    for frame, pixels in zip(found, frames, strict=True):
        assert close(frame.pixels, pixels)
    assert len(list(video)) == 30  # again from the beginning


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_frames_stand_upright(tmp_path, turn, mirrored):
    frames = marked(4)
    video = read_video(write(tmp_path / "walk.mp4", frames, turn=turn, mirrored=mirrored))
    assert video.size == (64, 96)
    assert all(close(frame.pixels, pixels) for frame, pixels in zip(video, frames, strict=True))


def test_pixels_become_square(tmp_path):
    path = tmp_path / "walk.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for pixels in marked(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
    video = read_video(path)
    assert video.size == (64, 144)
    red = (next(iter(video)).pixels[..., 0] > 150).any(0)
    assert abs(int(np.flatnonzero(red[:80])[-1]) - 35) <= 2  # a quarter of 144 columns


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    path, ticks = tmp_path / "walk.mkv", [0, 40, 80, 200, 230, 400]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for tick, pixels in zip(ticks, marked(6), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    times = [frame.time for frame in read_video(path)]
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=2e-3)


def test_a_broken_tail_gives_what_there_is(tmp_path):
    """With the index in front, as phones and the web write it, or without one."""
    rng = np.random.default_rng(0)
    frames = marked(120) ^ rng.integers(0, 16, (120, 64, 96, 3), np.uint8)
    for name, more in (("walk.mp4", {"options": {"movflags": "faststart"}}), ("walk.mkv", {})):
        path = write(tmp_path / name, frames, **more)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        video = read_video(path)
        with pytest.warns(VideoWarning, match=r"expected a whole video in .*it ends early") as said:
            found = list(video)
        assert 20 < len(found) < 100
        assert len(said) == 1
        assert "\n" not in str(said[0].message)
        for frame in found[:-2]:
            assert close(frame.pixels, frames[frame.number])


def test_damaged_frames_are_left_out(tmp_path):
    path = write(tmp_path / "walk.mp4", marked(120))
    content = bytearray(path.read_bytes())
    middle = content.find(b"mdat") + 1200
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.warns(VideoWarning, match="damaged ones left out"):
        assert 0 < len(list(read_video(path))) < 120


@pytest.mark.parametrize("kind", ["truncated", "text", "playlist", "concat", "empty", "noise"])
def test_what_is_no_video_gives_one_line(tmp_path, kind):
    path = write(tmp_path / "walk.mp4", marked(40))
    content = path.read_bytes()
    other = str(tmp_path / "other.mp4")
    write(tmp_path / "other.mp4", marked(5))
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],  # the index stands at the end
            "text": b"Dear Ann,\nhere is the video.\n" * 20,
            "playlist": f"#EXTM3U\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n".encode(),
            "concat": f"ffconcat version 1.0\nfile {other}\n".encode(),
            "empty": b"",
            "noise": np.random.default_rng(0).bytes(5000),
        }[kind]
    )
    with pytest.raises(ValueError, match=r"expected a video in .*walk\.mp4, got") as error:
        read_video(path)
    assert "\n" not in str(error.value)


def test_a_folder_of_images_in_natural_order(tmp_path):
    for number in (10, 9, 2):
        Image.fromarray(marked(12)[number]).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    video = read_video(tmp_path, frame_rate=12.5)
    assert (video.size, video.num_frames, video.name) == ((64, 96), 3, tmp_path.name)
    found = list(video)
    assert [frame.time for frame in found] == [0, 0.08, 0.16]
    for frame, number in zip(found, (2, 9, 10), strict=True):
        np.testing.assert_array_equal(frame.pixels, marked(12)[number])
    Image.new("RGB", (90, 64)).save(tmp_path / "frame11.png")
    with pytest.raises(ValueError, match=r"frames of one size .* in frame 3, \[64, 90\]"):
        list(read_video(tmp_path))


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a video or a folder of frames, got"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="found none"):
        read_video(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="frame_rate above 0"):
            read_video(tmp_path, frame_rate=rate)
    path = write(tmp_path / "walk.mp4", marked(3))
    with pytest.raises(ValueError, match="frame_rate for a folder of images alone"):
        read_video(path, frame_rate=25)


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "walk.mp4", marked(3))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "gaitzoo\[video\]"'):
        read_video(path)


def test_public_name():
    assert gaitzoo.read_video is read_video
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert issubclass(gaitzoo.VideoWarning, UserWarning)
