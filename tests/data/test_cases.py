"""Masks as segmenters, annotation tools, cameras and people write them, each with its right end.

The right end is the input that the plain mask gives, a warning beside it, or an error that names
the fix.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import gaitzoo
from gaitzoo import SilhouetteTransform, SilhouetteWarning, load_silhouettes, normalize_silhouettes
from gaitzoo.synthetic import render_walk, sample_identity

# Mean difference of grey levels: another walker is at 7 or more, a shift by a column at 9.
CLOSE = 1.5


def walk(person=0, frames=6, size=(160, 200), view=90.0):
    """A soft-edged raw mask ``[T, H, W]``, uint8."""
    film = {"frames": frames, "size": size, "view": view, "aligned": False, "seed": 3}
    return render_walk(sample_identity(700 + person), **film).silhouettes.numpy()


def binary(**film):
    return (walk(**film) > 127).astype(np.uint8) * 255


def difference(frames, wanted):
    return (frames.float() - wanted.float()).abs().mean().item()


def write(folder, images, suffix="png", **options):
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(folder / f"{number:03d}.{suffix}", **options)
    return folder


# Class ids


@pytest.mark.parametrize("ids", [{1: 2}, {1: 1, 2: 2}, {1: 15}, {1: 90}, {1: 15, 2: 255}])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_class_ids_are_refused(ids, dtype):
    body = binary() > 0
    upper = body & (np.arange(160) < 80)[None, :, None]
    if 255 in ids.values():  # VOC's border around things
        upper = body & ~(np.roll(body, 1, 2) & np.roll(body, -1, 2))
    labels = np.where(upper, ids.get(2, ids[1]), body * ids[1]).astype(dtype)
    transform = SilhouetteTransform((64, 44))
    for use in (normalize_silhouettes, transform, transform.align):
        with pytest.raises(ValueError, match=r"class ids of a label map.*frames == id"):
            use(labels)


def test_class_ids_are_refused_beside_a_wide_border_without_a_class():
    body = binary() > 0
    labels = body.astype(np.uint8)
    labels[:, :, :40] = 255
    assert (labels == 255).sum() > (labels == 1).sum()
    with pytest.raises(ValueError, match="class ids of a label map"):
        normalize_silhouettes(labels)
    stray = binary()
    stray[:, 0, 0] = 1  # a leftover of something else is no class
    assert torch.equal(normalize_silhouettes(stray), normalize_silhouettes(binary()))


def test_class_ids_are_refused_at_every_size_and_by_models():
    model = gaitzoo.create_model("gaitbase_tiny", num_classes=0).eval()
    height, width = model.pretrained_cfg.input_size
    labels = torch.zeros(2, 5, height, width, dtype=torch.uint8)
    labels[0, :, :, 2:8], labels[1, :, :, 2:8] = 255, 11
    with pytest.raises(ValueError, match=r"at most 11 in a sequence.*frames == id"):
        model(labels)
    with pytest.raises(ValueError, match=r"sequence 1: .*class ids"):
        gaitzoo.embed(model, labels, progress=False)


@pytest.mark.parametrize("training", [False, True])
def test_models_take_masks_of_0_and_1_as_masks(training):
    model = gaitzoo.create_model("gaitbase_tiny", num_classes=0).train(training)
    height, width = model.pretrained_cfg.input_size
    masks = (torch.rand(3, 5, height, width) > 0.5).to(torch.uint8)
    levels = masks * 255
    mixed = torch.stack([masks[0], levels[1], masks[2]])
    wanted = model(levels).embeddings
    assert torch.equal(model(mixed).embeddings, wanted)
    assert torch.equal(model(masks.float()).embeddings, wanted)
    # What stands behind the end of a sequence does not say what its values mean.
    lengths = torch.tensor([3, 5, 2])
    padded = masks.clone()
    padded[0, 3:], padded[2, 2:] = 200, 77
    assert torch.equal(model(padded, lengths).embeddings, model(levels, lengths).embeddings)


def test_dim_masks_are_no_silhouettes():
    dim = torch.from_numpy(binary() // 255 * 150)
    ready = (normalize_silhouettes(binary())[..., 10:54] > 127).to(torch.uint8) * 150
    with pytest.warns(SilhouetteWarning, match=r"white \(255\), got at most 150"):
        SilhouetteTransform((64, 44)).align(ready)
    with pytest.raises(ValueError, match="soft or dim silhouettes"):
        normalize_silhouettes(dim)


# Pictures and inverted masks


def test_videos_are_refused():
    noise = np.random.default_rng(0).integers(-20, 20, binary().shape)
    video = (np.where(binary() > 0, 90, 150) + noise).astype(np.uint8)
    with pytest.raises(ValueError, match=r"100% of the lit pixels are grey.*Segment"):
        SilhouetteTransform((64, 44)).align(video)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_colour_frames_before_a_greyish_wall_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(-5, 5, (*binary().shape, 3))
    grey = np.where(binary() > 0, 70, 160)[..., None] + np.array([3, 0, -3]) + noise
    with pytest.raises(ValueError, match=r"got a picture: .*grey.*Segment"):
        load_silhouettes(write(tmp_path / "video", grey.astype(np.uint8), suffix))


@pytest.mark.parametrize(
    "invert",
    [
        lambda frames: 255 - frames,
        lambda frames: torch.from_numpy(1 - frames / 255),
        lambda frames: frames <= 127,
    ],
    ids=["grey", "floats", "bool"],
)
def test_inverted_masks_are_inverted_with_a_warning(invert):
    frames = binary()
    wanted = normalize_silhouettes(frames)
    with pytest.warns(SilhouetteWarning, match=r"dark figure on a bright ground.*255 - frames"):
        found = normalize_silhouettes(invert(frames))
    assert torch.equal(found, wanted)
    for ready in (wanted, wanted[..., 10:54]):
        with pytest.warns(SilhouetteWarning, match="dark figure"):
            aligned = SilhouetteTransform((64, 44)).align(255 - ready)
        assert torch.equal(aligned, wanted[..., 10:54])


@pytest.mark.parametrize("shape", [(5, 64, 44), (5, 64, 64), (5, 120, 90)])
@pytest.mark.parametrize("value", [0, 0.0, 0.004])
def test_clips_without_anybody_are_refused(shape, value):
    frames = torch.full(shape, value)
    with pytest.raises(ValueError, match=r"at least one frame with a silh|brightest pixels are 1"):
        SilhouetteTransform((64, 44)).align(frames.to(torch.uint8) if value == 0 else frames)


def test_raw_frames_that_are_bright_all_over_are_refused():
    with pytest.raises(ValueError, match="bright all over"):
        normalize_silhouettes(torch.ones(5, 90, 120))


# Specks, traces of compression, several bodies


@pytest.mark.parametrize("level", [1, 90, 255])
def test_stray_pixels_change_nothing(level):
    frames = binary()
    dotted = frames.copy()
    dotted[:, 0, 0] = dotted[:, -1, 150] = dotted[::2, 3, 60:63] = level
    assert torch.equal(normalize_silhouettes(dotted), normalize_silhouettes(frames))
    published = normalize_silhouettes(dotted, component="all")
    assert difference(published, normalize_silhouettes(frames)) > 5


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_lossy_images_are_as_good_as_lossless_ones(tmp_path, quality):
    frames = binary()
    lossy = load_silhouettes(write(tmp_path / "walk", frames, "jpg", quality=quality))
    assert ((lossy > 0) & (lossy < 32)).any()  # rings around the person
    assert difference(normalize_silhouettes(lossy), normalize_silhouettes(frames)) < CLOSE


def test_video_levels_are_as_good_as_full_ones():
    frames = binary()
    limited = np.where(frames > 0, 235, 16).astype(np.uint8)
    found = normalize_silhouettes(limited)
    assert difference(found.float() * 255 / 235, normalize_silhouettes(frames)) < CLOSE


@pytest.mark.parametrize("make", [walk, binary])
def test_clean_masks_are_not_cleaned(make):
    for view in (0.0, 45.0, 90.0, 180.0):
        frames = make(view=view)
        published = normalize_silhouettes(frames, component="all")
        assert torch.equal(normalize_silhouettes(frames), published)


def test_of_two_people_the_larger_is_kept_with_a_warning():
    frames = np.pad(binary(), ((0, 0), (0, 0), (0, 120)))
    child = frames[:, ::2, ::2]
    both = frames.copy()
    both[:, 75:155, 180:] = child[..., :140]
    wanted = normalize_silhouettes(frames)
    with pytest.warns(SilhouetteWarning, match=r"several bodies in 6 of 6 frames"):
        found = normalize_silhouettes(both)
    assert torch.equal(found, wanted)
    assert torch.equal(normalize_silhouettes(both, component="largest"), wanted)
    assert not torch.equal(normalize_silhouettes(both, component="all"), wanted)


def test_pieces_of_one_body_stay_together():
    frames = binary()
    top, bottom = (np.flatnonzero(frames.any((0, 2)))[end] for end in (0, -1))
    for place, gap in ((0.5, 6), (0.9, 3)):  # hidden by a rail; ankles that were missed
        row = int(top + place * (bottom - top))
        in_pieces = frames.copy()
        in_pieces[:, row : row + gap] = 0
        kept = normalize_silhouettes(in_pieces)
        assert torch.equal(kept, normalize_silhouettes(in_pieces, component="all"))
        alone = normalize_silhouettes(in_pieces, component="largest")
        assert difference(alone, kept) > CLOSE


def test_frames_on_their_side_warn():
    with pytest.warns(SilhouetteWarning, match=r"wider than high in 6 of 6 frames.*rot90"):
        normalize_silhouettes(np.rot90(binary(), axes=(1, 2)))


def test_very_short_raw_clips_warn():
    with pytest.warns(SilhouetteWarning, match="4 frames with a person or more, got 3"):
        SilhouetteTransform((64, 44)).align(binary(frames=3))


# Content decides, not shape


def test_raw_squares_of_the_models_height_are_normalised():
    raw = walk(size=(64, 64))
    wanted = normalize_silhouettes(raw)[..., 10:54]
    transform = SilhouetteTransform((64, 44))
    assert torch.equal(transform.align(raw), wanted)
    assert torch.equal(SilhouetteTransform((64, 44), False).align(raw), wanted)
    cut = SilhouetteTransform((64, 44), normalized=True).align(raw)
    assert np.array_equal(cut, raw[..., 10:54])
    normalized = normalize_silhouettes(raw)
    assert torch.equal(transform.align(normalized), wanted)


def test_raw_masks_of_the_models_own_size_warn():
    raw = np.zeros((6, 64, 44), np.uint8)
    raw[:, 20:40, 2:10] = 255
    with pytest.warns(SilhouetteWarning, match="normalized=False"):
        assert np.array_equal(SilhouetteTransform((64, 44)).align(raw), raw)
    assert np.array_equal(SilhouetteTransform((64, 44), normalized=True).align(raw), raw)
    aligned = SilhouetteTransform((64, 44), normalized=False).align(raw)
    assert torch.equal(aligned, normalize_silhouettes(raw)[..., 10:54])


def test_normalized_frames_have_the_models_height():
    with pytest.raises(ValueError, match=r"64 x 44 or 64 x 64 pixels .*got 160 x 200"):
        SilhouetteTransform((64, 44), normalized=True).align(binary())


# Files


def label_image(mask, index=1, colour=(128, 0, 0)):
    image = Image.fromarray(mask.astype(np.uint8) * index)
    palette = np.zeros((256, 3), np.uint8)
    palette[index] = colour
    image.putpalette(palette.tobytes())
    return image


@pytest.mark.parametrize(
    ("index", "colour"), [(1, (128, 0, 0)), (15, (192, 128, 128)), (7, (128, 128, 128))]
)
def test_palette_masks_are_read(tmp_path, index, colour):
    masks = binary() > 0
    folder = write(tmp_path / "walk", [label_image(mask, index, colour) for mask in masks])
    assert np.array_equal(load_silhouettes(folder).numpy(), masks * np.uint8(255))


def test_masks_of_one_flat_colour_are_read(tmp_path):
    masks = binary() > 0
    folder = write(tmp_path / "walk", masks[..., None] * np.array([0, 200, 30], np.uint8))
    assert np.array_equal(load_silhouettes(folder).numpy(), masks * np.uint8(255))


def test_palette_masks_of_several_classes_are_refused(tmp_path):
    labels = np.where(np.arange(160)[:, None] < 80, 1, 2) * (binary()[0] > 0)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "frame.png")
    with pytest.raises(
        ValueError, match=r"palette image.*index 1 \(128, 0, 0\), index 2 .*== index"
    ):
        load_silhouettes(tmp_path / "frame.png")


def test_palette_masks_of_changing_classes_are_refused(tmp_path):
    masks = binary() > 0
    images = [label_image(masks[0]), label_image(masks[1], 2, (0, 128, 0))]
    with pytest.raises(ValueError, match=r"index 1 .* in .*000\.png, index 2 .* in .*001\.png"):
        load_silhouettes(write(tmp_path / "walk", images))


@pytest.mark.parametrize("channels", [1, 3])
def test_opacity_is_the_silhouette_wherever_it_is_a_mask(tmp_path, channels):
    masks = walk()
    texture = np.random.default_rng(0).integers(20, 240, (*masks.shape, channels), np.uint8)
    cut_out = np.concatenate([texture, masks[..., None]], axis=-1)
    found = load_silhouettes(write(tmp_path / "walk", cut_out))
    assert np.array_equal(found.numpy(), masks)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_tags_are_obeyed(tmp_path, suffix):
    frames = binary()
    on_its_side = Image.fromarray(np.rot90(frames[0]))
    tags = on_its_side.getexif()
    tags[0x0112] = 6  # turn right to look at it
    on_its_side.save(tmp_path / f"frame.{suffix}", exif=tags)
    loaded = load_silhouettes(tmp_path / f"frame.{suffix}")
    assert loaded.shape == (1, 160, 200)
    assert difference(loaded, torch.from_numpy(frames[:1])) < CLOSE


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.filterwarnings("ignore:expected a person bright on black")
def test_crops_of_varying_size_are_normalised_frame_by_frame(tmp_path, inverted):
    crops = []
    for number, frame in enumerate(binary()):
        rows, columns = (np.flatnonzero(frame.any(axis)) for axis in (1, 0))
        margin = 3 + 2 * number
        crops.append(np.pad(frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin))
    wanted = normalize_silhouettes(binary())
    one_by_one = torch.cat([normalize_silhouettes(crop[None]) for crop in crops])
    if inverted:
        crops = [255 - crop for crop in crops]
    loaded = load_silhouettes(write(tmp_path / "crops", crops))
    found = normalize_silhouettes(loaded)
    # The widest crop got no margin at its sides. Widths are rounded down in resizing, which
    # stretches narrow ones more.
    widest = max(range(len(crops)), key=lambda number: crops[number].shape[1])
    assert torch.equal(found[widest], one_by_one[widest])
    assert difference(found, wanted) <= difference(one_by_one, wanted) < 4


def test_frames_of_several_sequences_in_one_folder_warn(tmp_path):
    for start in ("001-nm-01-090", "001-nm-05-090"):
        for number, frame in enumerate(binary()):
            Image.fromarray(frame).save(tmp_path / f"{start}-{number:03d}.png")
    with pytest.warns(SilhouetteWarning, match=r"begin in 2 ways .*001-nm-05-090.*separate"):
        assert len(load_silhouettes(tmp_path)) == 12


@pytest.mark.parametrize("name", ["gei.png", "GEI.png", "001_gei.png"])
def test_energy_images_are_left_out_with_a_warning(tmp_path, name):
    write(tmp_path, binary())
    Image.fromarray(walk().mean(0).astype(np.uint8)).save(tmp_path / name)
    with pytest.warns(SilhouetteWarning, match=rf"got {name}, which was left out"):
        loaded = load_silhouettes(tmp_path)
    assert np.array_equal(loaded.numpy(), binary())


def test_an_energy_image_alone_is_read(tmp_path):
    Image.fromarray(binary()[0]).save(tmp_path / "gei.png")
    assert len(load_silhouettes(tmp_path)) == 1


# Memory


def test_large_frames_are_normalised_few_at_a_time(monkeypatch):
    from gaitzoo.data import normalize

    frames = binary()
    wanted = normalize_silhouettes(frames)
    groups = []
    alone = normalize._person_alone
    monkeypatch.setattr(normalize, "_PIXELS_AT_ONCE", 2 * frames[0].size)
    monkeypatch.setattr(
        normalize, "_person_alone", lambda x, *rest: groups.append(len(x)) or alone(x, *rest)
    )
    assert torch.equal(normalize_silhouettes(frames), wanted)
    assert groups == [2, 2, 2]
