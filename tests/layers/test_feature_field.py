"""Feature matching against loops, gait feature fields of sequences, suppression of texture."""

import math

import pytest
import torch
from conftest import relative_error
from torch import nn

from gaitzoo import GaitFeatureField, LocalFeatureMatching, TextureSuppression
from gaitzoo.testing.trial import reset_statistics


@pytest.mark.parametrize("radius", [1, 2, 3])
@torch.no_grad()
def test_even_maps_have_no_vectors_but_at_the_border(radius):
    maps = torch.full((2, 4, 2, 9, 12), 0.7)
    field = LocalFeatureMatching(radius)(maps, maps)
    assert field[..., radius:-radius, radius:-radius].abs().max() < 1e-6
    corners = field[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    signs = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]])
    half = (radius / 2 * signs)[None, :, None].expand_as(corners)
    torch.testing.assert_close(corners, half)


@torch.no_grad()
def test_vectors_stay_inside_the_window():
    query, key = 20 * torch.randn(2, 1, 4, 3, 9, 7)
    for radius in (1, 2, 3):
        lengths = LocalFeatureMatching(radius)(query, key).norm(dim=1)
        assert 0.5 * radius < lengths.max() <= radius * math.sqrt(2) + 1e-5


@pytest.mark.parametrize(("right", "down"), [(2, -1), (-3, 2), (0, 3), (1, 0)])
@torch.no_grad()
def test_vectors_point_to_where_a_pixel_has_gone(right, down):
    # Every pixel of its own kind.
    query = 40 * torch.eye(77).view(1, 77, 1, 7, 11)
    key = query.roll((down, right), dims=(3, 4))
    field = LocalFeatureMatching(3)(query, key)[0, :, 0, 3:-3, 3:-3]
    torch.testing.assert_close(field[0], torch.full_like(field[0], right))
    torch.testing.assert_close(field[1], torch.full_like(field[1], down))


def field_by_loops(query, key, radius):
    channels, height, width = query.shape
    field = torch.zeros(2, height, width, dtype=query.dtype)
    for y in range(height):
        for x in range(width):
            scores, offsets = [], []
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        product = (query[:, y, x] * key[:, y + dy, x + dx]).sum()
                        scores.append(product / math.sqrt(channels))
                        offsets.append((dx, dy))
            weights = torch.stack(scores).exp()
            weights = weights / weights.sum()
            for axis in range(2):
                place = torch.tensor([offset[axis] for offset in offsets], dtype=query.dtype)
                field[axis, y, x] = (weights * place).sum()
    return field


@pytest.mark.parametrize("radius", [1, 3])
def test_matching_against_loops(radius):
    query, key = torch.randn(2, 1, 3, 2, 7, 5, dtype=torch.float64)
    found = LocalFeatureMatching(radius)(query, key)
    for t in range(2):
        wanted = field_by_loops(query[0, :, t], key[0, :, t], radius)
        assert relative_error(found[0, :, t], wanted) < 1e-12


def test_gradients_of_matching():
    query, key = (
        torch.randn(1, 2, 1, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(LocalFeatureMatching(2), (query, key))


def test_matching_is_never_half_precise():
    query, key = torch.rand(2, 1, 4, 1, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = LocalFeatureMatching(2)(query, key)
    torch.testing.assert_close(found, LocalFeatureMatching(2)(query.float(), key.float()))


def small_field(**options):
    torch.manual_seed(0)
    field = GaitFeatureField(
        4, static_channels=(6, 5, 4), dynamic_channels=(5, 4, 3), **options
    ).eval()
    reset_statistics(field)
    return field


def test_encoders_have_the_published_sizes():
    field = GaitFeatureField()

    def count(*parts):
        return sum(p.numel() for part in parts for p in part.parameters())

    for query, key in zip(field.static_queries, field.static_keys, strict=True):
        assert count(query, key) == 117_504
    assert count(field.dynamic_query, field.dynamic_key) == 7_280
    assert count(field) == 3 * 117_504 + 7_280


@torch.no_grad()
def test_a_frozen_video_moves_as_one_frame_does():
    field = small_field()
    frame, mask = torch.randn(1, 4, 1, 10, 7), torch.rand(1, 1, 10, 7) - 0.3
    static, dynamic = field(frame.expand(-1, -1, 3, -1, -1), mask.expand(-1, 3, -1, -1))
    outside = mask <= 0
    query, key = (
        encoder(frame[:, :, 0], outside)[:, :, None]
        for encoder in (field.dynamic_query, field.dynamic_key)
    )
    wanted = field.dynamic_matching(query, key)
    for t in range(3):
        torch.testing.assert_close(dynamic[:, :, t], wanted[:, :, 0])
        torch.testing.assert_close(static[:, :, t], static[:, :, 0])
    # One pair of channels per radius, the smallest first.
    for i, radius in enumerate((1, 2, 3)):
        pair = [
            parts[i](frame[:, :, 0], outside) for parts in (field.static_queries, field.static_keys)
        ]
        one = LocalFeatureMatching(radius)(*(x[:, :, None] for x in pair))
        torch.testing.assert_close(static[:, 2 * i : 2 * i + 2, :1], one)


@torch.no_grad()
def test_frames_are_compared_with_the_next_and_the_last_with_itself():
    field = small_field()
    counts = (4, 1, 3)
    clips = [(torch.randn(1, 4, t, 10, 7), torch.rand(1, t, 10, 7) - 0.3) for t in counts]
    features, masks = torch.full((3, 4, 5, 10, 7), 9.0), torch.ones(3, 5, 10, 7)
    for i, (clip, mask) in enumerate(clips):
        features[i, :, : counts[i]], masks[i, : counts[i]] = clip[0], mask[0]
    together = field(features, masks, torch.tensor(counts))
    for i, (clip, mask) in enumerate(clips):
        for found, alone in zip(together, field(clip, mask), strict=True):
            torch.testing.assert_close(found[i, :, : counts[i]], alone[0])
        # The last frame stands for a clip of its own; all others depend on what comes.
        ends = field(clip[:, :, -1:], mask[:, -1:])[1]
        alone = field(clip, mask)[1]
        torch.testing.assert_close(alone[:, :, -1:], ends)
        if counts[i] > 1:
            first = field(clip[:, :, :1], mask[:, :1])[1]
            assert relative_error(alone[:, :, :1], first) > 1e-3


@torch.no_grad()
def test_what_stands_behind_people_reaches_three_pixels_at_most():
    field = small_field()
    encoder = field.static_queries[0]
    person = torch.zeros(1, 1, 24, 20, dtype=torch.bool)
    person[..., 4:20, 5:15] = True
    frame = torch.randn(1, 4, 24, 20)
    other = torch.where(person, frame, torch.randn_like(frame))
    found, changed = encoder(frame, ~person), encoder(other, ~person)
    near = nn.functional.max_pool2d((~person).float(), 7, stride=1, padding=3) > 0
    assert torch.equal(found.masked_fill(near, 0), changed.masked_fill(near, 0))
    # All is alike a pixel away from the person: nothing of the background is left.
    far = nn.functional.max_pool2d(person.float(), 3, stride=1, padding=1) == 0
    assert torch.equal(found.masked_fill(~far, 0), changed.masked_fill(~far, 0))
    # Before the 3x3 convolution behind the mask nothing is left of it at all.
    masked = [encoder.encoder(x).sigmoid().masked_fill(~person, 0) for x in (frame, other)]
    assert not masked[0].masked_fill(person, 0).any()
    assert not torch.equal(*masked)


def test_fields_refuse_what_does_not_fit():
    field = small_field()
    features, mask = torch.rand(1, 4, 2, 8, 6), torch.ones(1, 2, 8, 6)
    with pytest.raises(ValueError, match=r"a mask \[N, T, H, W\] of the size of the map"):
        field(features, mask[..., :5])
    with pytest.raises(ValueError, match=r"a map \[N, 4, T, H, W\]"):
        field(features[:, :3], mask)
    with pytest.raises(TypeError, match="the mask as a tensor"):
        field(features, mask.numpy())
    with pytest.raises(ValueError, match="lengths from 1 to 2"):
        field(features, mask, torch.tensor([3]))
    with pytest.raises(ValueError, match="two maps of one shape"):
        LocalFeatureMatching()(features, features[..., :5])
    with pytest.raises(ValueError, match="radius"):
        LocalFeatureMatching(0)
    with pytest.raises(ValueError, match="static_radii"):
        GaitFeatureField(static_radii=())
    with pytest.raises(ValueError, match="three dynamic_channels"):
        GaitFeatureField(dynamic_channels=(4, 4))


def suppressed_by_loops(field, mask, threshold):
    """One sequence, ``[2 * R, T, H, W]``."""
    found = field.clone()
    _, frames, height, width = field.shape
    for r in range(len(field) // 2):
        for t in range(frames):
            for y in range(height):
                for x in range(width):
                    near = [
                        (v, u)
                        for v in range(max(0, y - 1), min(height, y + 2))
                        for u in range(max(0, x - 1), min(width, x + 2))
                    ]
                    square = mask[t, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
                    long = any(
                        field[2 * r : 2 * r + 2, t, v, u].norm() > threshold for v, u in near
                    )
                    if bool((square > 0).all()) and long:
                        found[2 * r : 2 * r + 2, t, y, x] = 0
    return found


def test_suppression_against_loops():
    field, mask = 0.2 * torch.randn(4, 4, 2, 12, 9), torch.ones(4, 2, 12, 9)
    mask[..., :2, :4] = 0
    suppress = TextureSuppression(share=0.5, threshold=0.5).train()
    found = suppress(field, mask, torch.Generator().manual_seed(1))
    assert torch.equal(found, suppress(field, mask, torch.Generator().manual_seed(1)))
    drawn = [i for i in range(4) if not torch.equal(found[i], field[i])]
    assert len(drawn) == 2
    for i in drawn:
        assert torch.equal(found[i], suppressed_by_loops(field[i], mask[i], 0.5))
    whole = TextureSuppression(share=1.0).train()(field, mask)
    inside = nn.functional.max_pool2d((mask <= 0).float(), 5, stride=1, padding=2) == 0
    lengths = whole.unflatten(1, (-1, 2)).norm(dim=2)
    assert lengths.masked_fill(~inside[:, None], 0).max() <= 0.5
    assert torch.equal(whole.masked_fill(inside[:, None], 0), field.masked_fill(inside[:, None], 0))


def test_suppression_happens_in_training_alone():
    field, mask = torch.randn(5, 2, 1, 8, 8), torch.ones(5, 1, 8, 8)
    assert TextureSuppression(1.0).eval()(field, mask) is field
    assert TextureSuppression(0.0).train()(field, mask) is field
    # Shares are rounded to whole sequences.
    for share, count in ((0.09, 0), (0.3, 2), (0.7, 4), (1.0, 5)):
        found = TextureSuppression(share, threshold=0.0).train()(field, mask)
        assert sum(not torch.equal(a, b) for a, b in zip(found, field, strict=True)) == count
    seen = {
        int(
            (TextureSuppression(0.2, 0.0).train()(field, mask) == 0)
            .flatten(1)
            .any(1)
            .int()
            .argmax()
        )
        for _ in range(60)
    }
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, "share from 0 to 1"),
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"erosion": 4}, "odd"),
        ({"erosion": 0}, "erosion"),
    ],
)
def test_suppression_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextureSuppression(**arguments)


def test_suppression_refuses_half_a_vector():
    with pytest.raises(ValueError, match="two channels each"):
        TextureSuppression()(torch.rand(1, 3, 1, 8, 8), torch.ones(1, 1, 8, 8))
