"""Contact sheets: sizes, colours, proportions and captions."""

import numpy as np
import pytest
import torch
from PIL import Image

from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced

GREEN, RED, GREY = (0, 146, 88), (222, 66, 44), (189, 193, 198)


def bar(frames=3, height=32, width=16):
    """A white bar of half the frame's width and three quarters of its height."""
    sequence = torch.zeros(frames, height, width, dtype=torch.uint8)
    sequence[:, height // 8 : -height // 8, width // 4 : -width // 4] = 255
    return sequence


def pixels(sheet):
    return np.asarray(sheet)


def count(sheet, colour):
    return int((pixels(sheet) == np.array(colour, dtype=np.uint8)).all(axis=2).sum())


def pictured_person(sheet):
    """Height and width of the white bar of the only frame on a sheet."""
    image = pixels(sheet)
    dark = (image.max(axis=2) < 100).nonzero()
    frame = image[dark[0].min() : dark[0].max() + 1, dark[1].min() : dark[1].max() + 1]
    rows, columns = (frame.min(axis=2) > 128).nonzero()
    return rows.max() - rows.min() + 1, columns.max() - columns.min() + 1


@pytest.mark.parametrize(
    ("frames", "wanted", "chosen"),
    [(10, 4, [0, 3, 6, 9]), (3, 5, [0, 1, 2]), (1, 5, [0]), (9, 1, [0]), (5, 2, [0, 4])],
)
def test_evenly_spaced_frames(frames, wanted, chosen):
    assert evenly_spaced(torch.arange(frames), wanted).tolist() == chosen


def test_evenly_spaced_refuses_no_frames():
    with pytest.raises(ValueError, match="count of 1 or more, got 0"):
        evenly_spaced(torch.arange(3), 0)


def test_sheet_grows_with_panels_and_is_rgb():
    one = contact_sheet([[Panel(bar())]])
    beside = contact_sheet([[Panel(bar()), Panel(bar())]])
    below = contact_sheet([[Panel(bar())], [Panel(bar())]])
    assert isinstance(one, Image.Image)
    assert one.mode == "RGB"
    assert beside.height == one.height
    assert beside.width - 16 == 2 * (one.width - 16)
    assert below.width == one.width
    assert below.height - 16 == 2 * (one.height - 16)


@pytest.mark.parametrize(("height", "width"), [(32, 16), (64, 44), (128, 128), (16, 12)])
def test_people_keep_their_proportions(height, width):
    sheet = contact_sheet([[Panel(bar(1, height, width))]], frame_height=96)
    tall, wide = pictured_person(sheet)
    assert tall == pytest.approx(72, abs=2)
    assert wide == pytest.approx(96 * width / height / 2, abs=2)


def test_border_tells_right_from_wrong():
    sheets = {
        verdict: contact_sheet([[Panel(bar(), verdict=verdict)]])
        for verdict in ("right", "wrong", None)
    }
    for verdict, colour in (("right", GREEN), ("wrong", RED), (None, GREY)):
        for other, sheet in sheets.items():
            assert (count(sheet, colour) > 0) == (other == verdict)


def test_rows_may_differ_in_length_and_frames_in_number():
    rows = [[Panel(bar(5)), Panel(bar(2), verdict="wrong")], [Panel(bar(1), verdict="right")]]
    sheet = contact_sheet(rows)
    assert count(sheet, GREEN) > 0
    assert count(sheet, RED) > 0


def test_title_headings_and_captions_are_drawn():
    plain = contact_sheet([[Panel(bar())]])
    texts = contact_sheet([[Panel(bar(), ["ann"])]], title="matches", headings=["probe"])
    ink = (32, 33, 36)
    assert count(plain, ink) == 0
    assert count(texts, ink) > 10
    assert count(texts, (95, 99, 104)) > 10
    assert texts.height > plain.height


def test_long_captions_stay_below_their_panel():
    caption = ["a/very/long/path/" * 20]
    sheet = contact_sheet([[Panel(bar(), caption), Panel(bar())]])
    assert sheet.width == contact_sheet([[Panel(bar()), Panel(bar())]]).width
    panel_width = (sheet.width - 16) // 2
    below = pixels(sheet)[-30:, panel_width + 4 :]
    assert (below == 255).all()


def test_masks_and_floats_look_like_grey_levels():
    wanted = pixels(contact_sheet([[Panel(bar())]]))
    for frames in (bar() > 0, bar().float() / 255, bar().numpy(), bar() // 255):
        np.testing.assert_array_equal(pixels(contact_sheet([[Panel(frames)]])), wanted)


@pytest.mark.parametrize("rows", [[], [[]], [[Panel(bar())], []]])
def test_refuses_a_sheet_without_panels(rows):
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet(rows)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match='"right", "wrong" or None'):
        Panel(bar(), verdict="yes")
    with pytest.raises(TypeError, match="list of lines"):
        Panel(bar(), "ann")
    with pytest.raises(ValueError, match=r"\[T, H, W\]"):
        Panel(bar()[0])
    with pytest.raises(ValueError, match="frame_height of 8 pixels or more, got 4"):
        contact_sheet([[Panel(bar())]], frame_height=4)
    with pytest.raises(ValueError, match="at most 65500 pixels"):
        contact_sheet([[Panel(bar(1))]] * 700)
