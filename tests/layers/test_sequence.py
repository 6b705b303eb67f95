"""Masks, means, maxima, repeats and padding against loops over single sequences."""

import pytest
import torch

from gaitzoo.layers.sequence import (
    lengths_to_mask,
    mask_fill,
    masked_max,
    masked_mean,
    pad_sequences,
    repeat_short,
)

LENGTHS = torch.tensor([5, 1, 3])


def padded_with(garbage):
    x = torch.randn(3, 2, 5, 4, 3)
    for i, length in enumerate(LENGTHS):
        x[i, :, length:] = garbage
    return x


def test_mask_marks_real_frames():
    mask = lengths_to_mask(LENGTHS, 5)
    for i, length in enumerate(LENGTHS.tolist()):
        for t in range(5):
            assert mask[i, t].item() == (t < length)


@pytest.mark.parametrize("garbage", [7.0, float("nan"), float("inf")])
def test_fill_mean_and_max_see_valid_frames_only(garbage):
    x = padded_with(garbage)
    filled = mask_fill(x, LENGTHS, value=-2.0)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = x[i, :, :length]
        assert torch.equal(filled[i, :, :length], alone)
        assert (filled[i, :, length:] == -2.0).all()
        torch.testing.assert_close(masked_mean(x, LENGTHS)[i, :, 0], alone.mean(1))
        assert torch.equal(masked_max(x, LENGTHS)[i], alone.amax(1))


def test_without_lengths_all_frames_count():
    x = torch.randn(2, 3, 4, 5)
    assert mask_fill(x, None) is x
    torch.testing.assert_close(masked_mean(x, None), x.mean(2, keepdim=True))
    assert torch.equal(masked_max(x, None), x.amax(2))


def test_gradients_never_reach_the_padding():
    x = padded_with(float("nan")).requires_grad_()
    (masked_mean(x, LENGTHS).sum() + masked_max(x, LENGTHS).sum()).backward()
    assert x.grad is not None
    for i, length in enumerate(LENGTHS.tolist()):
        assert (x.grad[i, :, length:] == 0).all()
        assert torch.isfinite(x.grad[i]).all()


@pytest.mark.parametrize(("frames", "repeated"), [(1, 3), (2, 4), (3, 3), (4, 4), (7, 7)])
def test_short_sequences_are_played_again_whole(frames, repeated):
    alone = torch.randn(1, 2, frames, 3)
    wanted = alone.repeat(1, 1, repeated // frames, 1)
    assert torch.equal(repeat_short(alone, None, 3)[0], wanted)

    batch = torch.full((2, 2, 7, 3), float("nan"))
    batch[0, :, :frames] = alone[0]
    batch[1] = 1.0
    found, lengths = repeat_short(batch, torch.tensor([frames, 7]), 3)
    assert lengths is not None
    assert lengths.tolist() == [repeated, 7]
    assert torch.equal(found[0, :, :repeated], wanted[0])
    assert (found[0, :, repeated:] == 0).all()


def test_repeats_may_be_longer_than_the_batch():
    found, lengths = repeat_short(torch.tensor([[[5.0, 7.0, 0.0]]]), torch.tensor([2]), 3)
    assert lengths is not None
    assert lengths.tolist() == [4]
    assert found.tolist() == [[[5.0, 7.0, 5.0, 7.0]]]


def test_padding_keeps_every_frame():
    sequences = [torch.rand(t, 4, 3) for t in (2, 5, 1)]
    batch, lengths = pad_sequences(sequences)
    assert lengths.tolist() == [2, 5, 1]
    for i, sequence in enumerate(sequences):
        assert torch.equal(batch[i, : len(sequence)], sequence)
        assert (batch[i, len(sequence) :] == 0).all()


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one sequence"),
        ([torch.rand(2, 4, 3), torch.rand(0, 4, 3)], "sequence 1; leave empty"),
        ([torch.rand(2, 4, 3), torch.rand(2, 4, 4)], "frames of one shape"),
    ],
)
def test_padding_refuses(sequences, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_do_not_overflow(dtype):
    x = torch.full((2, 1, 3000, 1), 40.0, dtype=dtype)
    means = masked_mean(x, torch.tensor([3000, 2999]))
    assert means.dtype == dtype
    assert means.flatten().tolist() == [40.0, 40.0]
