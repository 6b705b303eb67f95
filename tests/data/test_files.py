import io
import os
import pickle
import struct
import zipfile
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gaitzoo.data.files import SequencePath, find_sequences, load_silhouettes


def clip(num_frames=4):
    """Grey levels ``[T, 40, 30]``: a bright bar that moves by one column per frame."""
    frames = np.zeros((num_frames, 40, 30), dtype=np.uint8)
    for frame in range(num_frames):
        frames[frame, 5:35, 8 + frame : 16 + frame] = 255
    return frames


def save_folder(folder, frames, names):
    folder.mkdir(parents=True, exist_ok=True)
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(folder / name)


def save_animation(path, images, **options):
    images[0].save(path, save_all=True, append_images=images[1:], **options)


def to_modes(frame):
    """The same silhouette in each mode an image file may have."""
    grey = Image.fromarray(frame)
    opaque = grey.convert("RGB")
    opaque.putalpha(255)
    white = Image.new("RGB", grey.size, "white")
    white.putalpha(grey)
    black = Image.new("RGBA", grey.size, (0, 0, 0, 0))
    black.putalpha(grey)
    cut_out = Image.new("RGB", grey.size, (200, 120, 60))
    cut_out.putalpha(grey)
    palette = Image.fromarray((frame > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "L": grey,
        "1": grey.convert("1"),
        "RGB": grey.convert("RGB"),
        "LA": opaque.convert("LA"),
        "RGBA opaque": opaque,
        "RGBA white on nothing": white,
        "RGBA black on nothing": black,
        "RGBA cut-out person": cut_out,
        "palette": palette,
        "0/1 labels": Image.fromarray((frame > 0).astype(np.uint8)),
    }


# Folders and images


def test_folder_in_natural_order(tmp_path):
    names = [f"{number}.png" for number in (1, 2, 9, 10, 11, 100)]
    frames = clip(6)
    save_folder(tmp_path, frames[::-1], names[::-1])
    (tmp_path / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "thumbnails").mkdir()
    loaded = load_silhouettes(tmp_path)
    assert loaded.dtype == torch.uint8
    assert np.array_equal(loaded.numpy(), frames)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".PNG"])
def test_folder_of_lossless_frames(tmp_path, suffix):
    folder = tmp_path / "walk"
    folder.mkdir()
    for index, frame in enumerate(clip()):
        options = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(frame).save(folder / f"{index}{suffix}", **options)
    assert np.array_equal(load_silhouettes(str(folder)).numpy(), clip())


def test_folder_of_jpeg_frames(tmp_path):
    save_folder(tmp_path, clip(), [f"{index}.jpg" for index in range(4)])
    loaded = load_silhouettes(tmp_path).numpy().astype(int)
    assert np.abs(loaded - clip()).mean() < 3


@pytest.mark.parametrize("mode", to_modes(clip(1)[0]))
def test_image_modes_with_grey_content(tmp_path, mode):
    frame = clip(1)[0]
    to_modes(frame)[mode].save(tmp_path / "frame.png")
    loaded = load_silhouettes(tmp_path / "frame.png")
    assert np.array_equal(loaded.numpy(), frame[None])


def test_opaque_silhouette_with_a_transparent_border(tmp_path):
    frame = clip(1)[0]
    layer = Image.fromarray(frame).convert("RGBA")
    opacity = np.full(frame.shape, 255, dtype=np.uint8)
    opacity[:4] = 0
    layer.putalpha(Image.fromarray(opacity))
    layer.save(tmp_path / "frame.png")
    assert np.array_equal(load_silhouettes(tmp_path / "frame.png").numpy(), frame[None])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_animations(tmp_path, suffix, mode):
    path = tmp_path / f"walk{suffix}"
    options = {".webp": {"lossless": True}, ".apng": {"format": "PNG"}}.get(suffix, {})
    save_animation(path, [Image.fromarray(frame).convert(mode) for frame in clip()], **options)
    loaded = load_silhouettes(path)
    assert loaded.shape == (4, 40, 30)
    assert np.abs(loaded.numpy().astype(int) - clip()).max() <= 1


def dithered_gif_frame():
    """White on black in a coarse colour palette whose dithering tints single pixels."""
    rng = np.random.default_rng(0)
    frame = np.zeros((128, 128, 3), dtype=np.uint8)
    frame[4:124, 40:80] = (252, 252, 255)
    edge = np.argwhere(frame[..., 0] > 0)
    edge = edge[rng.random(len(edge)) < 0.15]
    tints = np.array([(252, 252, 170), (216, 216, 255), (252, 180, 255), (180, 252, 255)])
    frame[edge[:, 0], edge[:, 1]] = tints[rng.integers(0, 4, len(edge))]
    return frame


def test_dithered_palettes_are_grey(tmp_path):
    frame = dithered_gif_frame()
    spread = np.ptp(frame.astype(int), axis=2)
    assert spread.max() > 80  # single pixels are clearly coloured
    images = [Image.fromarray(np.roll(frame, shift, axis=1)) for shift in range(3)]
    save_animation(tmp_path / "walk.gif", images)
    loaded = load_silhouettes(tmp_path / "walk.gif")
    assert loaded.shape == (3, 128, 128)
    assert loaded[0, 4:124, 40:80].min() > 150
    assert loaded[0, :, :40].max() == 0


def colour_images():
    rng = np.random.default_rng(0)
    shade = np.linspace(40, 220, 64)[:, None, None] + rng.normal(0, 8, (64, 64, 1))
    photograph = np.clip(shade * np.array([1.0, 0.9, 0.75]), 0, 255).astype(np.uint8)
    on_red = np.full((64, 64, 3), (128, 0, 0), dtype=np.uint8)
    on_red[10:50, 20:40] = (0, 128, 0)
    return {"photograph": photograph, "figure on red": on_red}


@pytest.mark.parametrize("kind", colour_images())
@pytest.mark.parametrize("name", ["frame.png", "frame.jpg", "frame.webp", "frame.gif"])
def test_refuses_colour(tmp_path, kind, name):
    path = tmp_path / name
    Image.fromarray(colour_images()[kind]).save(path)
    with pytest.raises(ValueError, match=rf"grey silhouette in .*{name}, got a colour image.*Segm"):
        load_silhouettes(path)


def test_refuses_animations_among_frames(tmp_path):
    save_folder(tmp_path, clip()[:1], ["0.png"])
    save_animation(tmp_path / "1.png", [Image.fromarray(frame) for frame in clip()])
    with pytest.raises(ValueError, match=r"one frame per image .*, got 4 in 1\.png"):
        load_silhouettes(tmp_path)


@pytest.mark.parametrize("content", ["000/1.png", "a.gif", "a.npy", "a.pkl"])
def test_refuses_folders_of_sequences(tmp_path, content):
    (tmp_path / content).parent.mkdir(exist_ok=True)
    (tmp_path / content).touch()
    with pytest.raises(ValueError, match=r"got a folder of sequences .*find_sequences lists them"):
        load_silhouettes(tmp_path)


def test_refuses_empty_folders(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"expected frames \(\.png.* found none"):
        load_silhouettes(tmp_path)


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got .*gone, which does not exist.*Check"):
        load_silhouettes(tmp_path / "gone")


@pytest.mark.parametrize("name", ["walk.mp4", "walk", "walk.tiff", "walk.pt"])
def test_unknown_types(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"expected one of \.png.*\.pkl .*got .*{name}"):
        load_silhouettes(tmp_path / name)


def test_refuses_deep_pixels(tmp_path):
    Image.fromarray(clip()[0].astype(np.uint16) * 257).save(tmp_path / "frame.png")
    with pytest.raises(ValueError, match=r"8 bits per channel in .*png, got pixel mode I"):
        load_silhouettes(tmp_path / "frame.png")


def test_refuses_other_formats_under_known_names(tmp_path):
    Image.fromarray(clip()[0]).save(tmp_path / "frame.png", format="TIFF")
    with pytest.raises(ValueError, match=r"readable image \(PNG, JPEG, BMP, WebP, GIF\)"):
        load_silhouettes(tmp_path / "frame.png")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"text" * 50])
def test_refuses_what_is_no_image(tmp_path, suffix, content):
    path = tmp_path / f"walk{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="readable image"):
        load_silhouettes(path)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp"])
def test_refuses_cut_off_animations(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    save_animation(whole, [Image.fromarray(frame) for frame in clip()], **options)
    expected, data = load_silhouettes(whole), whole.read_bytes()
    end_chunks = 20 if suffix == ".png" else 1  # frames are complete before IEND
    for length in range(0, len(data) - end_chunks):
        cut.write_bytes(data[:length])
        with pytest.raises(ValueError, match="readable image"):
            load_silhouettes(cut)
    assert expected.shape == (4, 40, 30)


def test_refuses_a_cut_off_frame_in_a_folder(tmp_path):
    save_folder(tmp_path, clip(), [f"{index}.png" for index in range(4)])
    data = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"readable image .*2\.png"):
        load_silhouettes(tmp_path)


def test_refuses_decompression_bombs(tmp_path, monkeypatch):
    Image.fromarray(clip()[0]).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match=r"bomb\.png, got: .*decompression bomb"):
        load_silhouettes(tmp_path / "bomb.png")


# Arrays


ARRAYS = {
    "uint8": clip(),
    "bool": clip() > 0,
    "0/1": clip() // 255,
    "unit floats": (clip() / 255).astype(np.float32),
    "half floats": (clip() / 255).astype(np.float16),
    "int64": clip().astype(np.int64),
    "big-endian": clip().astype(">u2"),
    "Fortran order": np.asfortranarray(clip()),
    "moved axes": clip().transpose(1, 0, 2).copy().transpose(1, 0, 2),
    "every second": np.repeat(clip(), 2, axis=0)[::2],
    "grey channels": np.repeat(clip()[..., None], 3, axis=-1),
    "one channel": clip()[..., None],
}


def write_array(path, array, protocol=4):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, silhouettes=array)
    else:
        path.write_bytes(pickle.dumps(array, protocol))


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_arrays(tmp_path, kind, suffix):
    write_array(tmp_path / f"walk{suffix}", ARRAYS[kind])
    loaded = load_silhouettes(tmp_path / f"walk{suffix}")
    assert loaded.dtype == torch.uint8
    assert np.array_equal(loaded.numpy(), clip())


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_one_frame_arrays(tmp_path, shape):
    frame = clip(1)[0] if len(shape) == 2 else np.repeat(clip(1)[0][..., None], 3, axis=-1)
    np.save(tmp_path / "frame.npy", frame)
    assert np.array_equal(load_silhouettes(tmp_path / "frame.npy").numpy(), clip(1))


def test_floats_are_rounded(tmp_path):
    np.save(tmp_path / "walk.npy", np.array([[[0.0, 0.001, 0.0021, 0.5, 0.999, 1.0]]]))
    assert load_silhouettes(tmp_path / "walk.npy").flatten().tolist() == [0, 0, 1, 128, 255, 255]


BAD_ARRAYS = {
    "colour": (np.arange(4 * 5 * 5 * 3).reshape(4, 5, 5, 3) % 200, "got colour frames"),
    "five axes": (np.zeros((1, 2, 2, 2, 2)), r"\[T, H, W\], got shape"),
    "one axis": (np.zeros(5), r"\[T, H, W\], got shape"),
    "no frames": (np.zeros((0, 5, 5), np.uint8), "at least one frame"),
    "NaN": (np.full((1, 5, 5), np.nan), "got values from nan"),
    "infinite": (np.full((1, 5, 5), np.inf), r"in \[0, 1\]"),
    "grey floats": (np.full((1, 5, 5), 255.0), "Divide grey levels by 255"),
    "negative": (np.full((1, 5, 5), -1), "0..255, got values from -1"),
    "wide": (np.full((1, 5, 5), 300), "0..255, got values from 300"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_refuses_bad_arrays(tmp_path, kind, suffix):
    array, message = BAD_ARRAYS[kind]
    write_array(tmp_path / f"walk{suffix}", array)
    with pytest.raises(ValueError, match=rf"walk\{suffix}.*{message}"):
        load_silhouettes(tmp_path / f"walk{suffix}")


@pytest.mark.parametrize(
    "array", [np.array([[[None]]]), np.array([[["a"]]]), np.ones((1, 2, 2)) * 1j]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_refuses_arrays_of_anything_but_numbers(tmp_path, array, suffix):
    write_array(tmp_path / f"walk{suffix}", array)
    with pytest.raises(ValueError, match=r"expected an? .*walk|walk.*expected an array"):
        load_silhouettes(tmp_path / f"walk{suffix}")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_refuses_cut_off_arrays(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_array(whole, clip())
    data = whole.read_bytes()
    lengths = {*range(0, min(len(data), 200)), *range(0, len(data), 97), len(data) - 1}
    for length in sorted(lengths):
        cut.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"numpy array.* in .*cut.*numpy\.save"):
            load_silhouettes(cut)


def test_refuses_damaged_archives(tmp_path):
    path = tmp_path / "walk.npz"
    np.savez_compressed(path, clip())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read"):
        load_silhouettes(path)


def test_refuses_archives_of_several_arrays(tmp_path):
    np.savez(tmp_path / "walk.npz", silhouettes=clip(), depth=clip())
    with pytest.raises(ValueError, match=r"one array .*, got 2: silhouettes, depth"):
        load_silhouettes(tmp_path / "walk.npz")
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    with pytest.raises(ValueError, match=r"one array .*, got 0: none"):
        load_silhouettes(tmp_path / "none.npz")


def test_refuses_other_files_under_numpy_names(tmp_path):
    np.save(tmp_path / "array.npy", clip())
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("notes.txt", "no array")
    for name in ("array.npz", "text.npz"):
        with pytest.raises(ValueError, match=name):
            load_silhouettes(tmp_path / name)


def test_header_that_promises_too_much_allocates_nothing(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**4)}
    np.lib.format.write_array_header_1_0(buffer, header)
    (tmp_path / "walk.npy").write_bytes(buffer.getvalue() + b"\x00" * 100)
    with pytest.raises(ValueError, match="cannot be read"):
        load_silhouettes(tmp_path / "walk.npy")


# Pickles


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
@pytest.mark.parametrize("kind", ["uint8", "Fortran order", "moved axes", "big-endian"])
def test_pickles_of_every_numpy(tmp_path, protocol, core, kind):
    data = pickle.dumps(ARRAYS[kind], protocol)
    written = b"numpy._core." if b"numpy._core." in data else b"numpy.core."
    name_length = data.index(written) - 1
    data = data.replace(written, core)
    if protocol >= 4:  # these store the length of a name, and that of the frame around it
        data = bytearray(data)
        data[name_length] += len(core) - len(written)
        frame_length = struct.unpack_from("<Q", data, 3)[0] + len(core) - len(written)
        struct.pack_into("<Q", data, 3, frame_length)
    (tmp_path / "walk.pkl").write_bytes(data)
    assert np.array_equal(load_silhouettes(tmp_path / "walk.pkl").numpy(), clip())


class Runs:
    """An object whose pickle calls ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "os.mkdir": lambda trap: Runs(os.mkdir, trap),
    "eval": lambda trap: Runs(eval, f"__import__('os').mkdir({trap!r})"),
    "inside an array": lambda trap: np.array([Runs(os.mkdir, trap)], dtype=object),
    "inside a list": lambda trap: [clip(), Runs(os.mkdir, trap)],
    "numpy's own loader": lambda trap: Runs(np.load, trap),
    "numpy's runner": lambda trap: Runs(np.vectorize, os.mkdir),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_do_not_run(tmp_path, kind, protocol):
    trap = tmp_path / "trap"
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(HOSTILE[kind](str(trap)), protocol))
    with pytest.raises(ValueError, match=r"walk\.pkl, got: (a reference to|an array of dtype)"):
        load_silhouettes(tmp_path / "walk.pkl")
    assert not trap.exists()


def test_refused_names_are_named(tmp_path):
    (tmp_path / "walk.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match=r"a reference to os\.system, refused"):
        load_silhouettes(tmp_path / "walk.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([clip()]), "an object of type list"),
        (pickle.dumps("text"), "an object of type str"),
        (pickle.dumps(np.uint8(3)), r"numpy\._?core\.multiarray\.scalar"),
        (pickle.dumps(torch.zeros(1)), r"torch\._utils"),
        (b"\x80\x04Nr\xff\xff\xff\xff.", "a memo of 4294967295 entries"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "bytes"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.", "type _Array"),
        (b"cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR.", "an array of dtype 'O8'"),
        (b"cnumpy\ndtype\n(S'u1'\nI00\nI01\ntR(I3\nS'?'\ntb.", "unknown byte order"),
        (b"cnumpy\ndtype\n(S'u1'\nI00\nI01\ntRI7\nb.", "int"),
    ],
)
def test_refuses_other_pickles(tmp_path, content, message):
    (tmp_path / "walk.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"walk\.pkl, got: .*({message})"):
        load_silhouettes(tmp_path / "walk.pkl")


def test_refuses_shapes_that_do_not_fit_the_data(tmp_path):
    data = pickle.dumps(np.zeros((7, 11, 13), np.uint8), 3)
    for wrong in (6, 8, 255):
        shape = b"K" + bytes([7]) + b"K\x0bK\x0d"
        assert data.count(shape) == 1
        changed = data.replace(shape, b"K" + bytes([wrong]) + b"K\x0bK\x0d")
        (tmp_path / "walk.pkl").write_bytes(changed)
        with pytest.raises(ValueError, match="shape, type and data do not fit"):
            load_silhouettes(tmp_path / "walk.pkl")


# Finding


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def listed(root):
    return [(found.identity, found.name) for found in find_sequences(root)]


def test_finds_the_opengait_layout(tmp_path):
    touch(tmp_path, "010/nm-01/000/000.pkl", "2/nm-01/090/090.pkl", "2/bg-01/090/090.pkl")
    assert listed(tmp_path) == [
        ("2", "2/bg-01/090/090"),
        ("2", "2/nm-01/090/090"),
        ("010", "010/nm-01/000/000"),
    ]


def test_finds_folders_of_frames_and_files(tmp_path):
    touch(tmp_path, "ann/10/0.png", "ann/10/1.png", "ann/9/0.jpg", "bob/0.bmp", "cleo/a.b.gif")
    touch(tmp_path, "dan.npz", "eve/walk.npy", "eve/notes.txt", ".git/x/0.png", "ann/.old.gif")
    assert listed(tmp_path) == [
        ("ann", "ann/9"),
        ("ann", "ann/10"),
        ("bob", "bob"),
        ("cleo", "cleo/a.b"),
        ("dan", "dan"),
        ("eve", "eve/walk"),
    ]
    assert find_sequences(str(tmp_path))[1].path == tmp_path / "ann" / "10"


def test_found_sequences_can_be_loaded(tmp_path):
    save_folder(tmp_path / "ann" / "walk", clip(), [f"{index}.png" for index in range(4)])
    (tmp_path / "bob" / "nm" / "000").mkdir(parents=True)
    write_array(tmp_path / "bob" / "nm" / "000" / "000.pkl", clip())
    for name in ("cleo.webp", "dan.webp"):
        save_animation(tmp_path / name, [Image.fromarray(f) for f in clip()], lossless=True)
    sequences = find_sequences(tmp_path)
    assert [sequence.identity for sequence in sequences] == ["ann", "bob", "cleo", "dan"]
    for sequence in sequences:
        assert np.array_equal(load_silhouettes(sequence.path).numpy(), clip())


def test_loose_images_beside_sequences_are_left_out(tmp_path):
    touch(tmp_path, "preview.jpg", "ann/walk.gif")
    assert listed(tmp_path) == [("ann", "ann/walk")]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "data/ann/walk.gif")
    (tmp_path / "data" / "ann" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "bob").symlink_to(tmp_path / "elsewhere")
    touch(tmp_path, "elsewhere/walk.gif")
    assert listed(tmp_path / "data") == [("ann", "ann/walk"), ("bob", "bob/walk")]


def test_a_sequence_path_cannot_be_changed():
    sequence = SequencePath("ann", "ann/walk", Path("ann/walk.gif"))
    with pytest.raises(FrozenInstanceError):
        setattr(sequence, "identity", "bob")  # noqa: B010


def test_find_refuses_what_holds_no_sequences(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_sequences(tmp_path / "gone")
    touch(tmp_path, "empty/notes.txt", "walk.gif", "frames/0.png")
    with pytest.raises(ValueError, match=r"found none.*id/type/view/view\.pkl.*id\.gif"):
        find_sequences(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"got the file .*walk\.gif.*load_silhouettes"):
        find_sequences(tmp_path / "walk.gif")
    with pytest.raises(ValueError, match=r"holds the frames of one.*load_silhouettes"):
        find_sequences(tmp_path / "frames")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04cnumpy\ndtype\n(K\x01" + b"\x85" * 200_000 + b"\x89\x88tR.",
        b"\x80\x04(K\x01" + b"\x85" * 300_000 + b"K\x01d.",
        b"\x80\x04}K\x01K\x02s.",
    ],
    ids=["deep dtype", "deep dictionary", "dictionary"],
)
def test_pickles_that_are_no_array_programs_are_refused(program, tmp_path):
    path = tmp_path / "deep.pkl"
    path.write_bytes(program)
    with pytest.raises(ValueError, match="numpy array of numbers"):
        load_silhouettes(path)


def test_sequences_that_differ_in_their_suffix_have_names_of_their_own(tmp_path):
    (tmp_path / "ann").mkdir()
    for name in ("walk.npy", "other.npy"):
        np.save(tmp_path / "ann" / name, np.ones((2, 8, 8), np.uint8))
    np.savez(tmp_path / "ann" / "walk.npz", np.ones((2, 8, 8), np.uint8))
    names = [sequence.name for sequence in find_sequences(tmp_path)]
    assert names == ["ann/other", "ann/walk.npy", "ann/walk.npz"]
