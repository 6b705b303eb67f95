import numpy as np
import pytest

from gaitzoo.data.bodies import LIMB, OTHER, PERSON, SPECK, erase, find_pieces, judge


def flood_fill(mask):
    """Areas of the connected pieces of one frame, by filling them one after the other."""
    waiting = {tuple(pixel) for pixel in np.argwhere(mask)}
    areas = []
    while waiting:
        front, area = [waiting.pop()], 0
        while front:
            y, x = front.pop()
            area += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & waiting
            waiting -= near
            front += near
        areas.append(area)
    return sorted(areas)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(3, 17, 23), (2, 1, 40), (2, 40, 1)])
def test_agrees_with_a_flood_fill(shape, share):
    lit = np.random.default_rng(0).random(shape) < share
    pieces = find_pieces(lit)
    for number, frame in enumerate(lit):
        assert sorted(pieces.area[pieces.frame == number].tolist()) == flood_fill(frame)
    filled = np.zeros(lit.size, bool)
    for start, stop in zip(pieces.starts, pieces.stops, strict=True):
        assert not filled[start:stop].any()
        filled[start:stop] = True
    assert np.array_equal(filled.reshape(shape), lit)


def test_boxes_and_erasing():
    frames = np.zeros((2, 6, 9), np.uint8)
    frames[0, 1:4, 2:5] = 7
    frames[1, 0, 8] = frames[1, 1, 7] = 9
    pieces = find_pieces(frames > 0)
    assert pieces.frame.tolist() == [0, 1]
    assert pieces.box.tolist() == [[1, 4, 2, 5], [0, 2, 7, 9]]
    erase(frames, pieces, np.array([False, True]))
    assert frames.sum() == 63
    assert not frames[1].any()


def kinds_of(*boxes):
    """Kinds of rectangles ``(top, bottom, left, right)`` in one frame, in their order."""
    lit = np.zeros((1, 200, 200), bool)
    for top, bottom, left, right in boxes:
        lit[0, top:bottom, left:right] = True
    pieces = find_pieces(lit)
    kinds = judge(pieces)
    assert len(kinds) == len(boxes)
    return [int(kinds[pieces.box.tolist().index(list(box))]) for box in boxes]


BODY = (40, 140, 80, 120)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((3, 4, 3, 4), SPECK),
        ((36, 38, 100, 103), SPECK),  # dust close to the head
        ((90, 98, 180, 188), SPECK),  # a thing far away
        ((100, 110, 122, 134), LIMB),  # a hand
        ((160, 170, 85, 110), LIMB),  # a foot below a hidden shin
        ((145, 190, 80, 120), LIMB),  # legs below a rail
        ((60, 140, 150, 180), OTHER),  # somebody else
        ((60, 140, 122, 150), OTHER),  # also if close
        ((60, 90, 150, 180), OTHER),  # a child
    ],
)
def test_what_belongs_to_the_person(box, kind):
    assert kinds_of(BODY, box) == [PERSON, kind]


def test_empty_frames_have_no_pieces():
    pieces = find_pieces(np.zeros((2, 3, 4), bool))
    assert judge(pieces).tolist() == []
