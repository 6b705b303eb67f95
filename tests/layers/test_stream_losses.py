"""Losses on narrow maps: sums written out, what they are drawn to, lengths."""

import math

import pytest
import torch

from gaitzoo import GaitRepresentationExtractor, StreamDiversityLoss, StreamSmoothnessLoss

NAN = float("nan")


def streams(n=2, c=4, t=3, h=5, w=4):
    return torch.rand(n, c, t, h, w, dtype=torch.float64)


def naive_smoothness(frames):
    """``[C, H, W]`` each; every pixel's neighbours, beyond the rim those of the rim."""
    total = count = 0
    for frame in frames:
        for channel in frame:
            height, width = channel.shape
            for y in range(height):
                for x in range(width):
                    at = [
                        [
                            float(
                                channel[
                                    min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)
                                ]
                            )
                            for j in (-1, 0, 1)
                        ]
                        for i in (-1, 0, 1)
                    ]
                    across = sum((1, 2, 1)[i] * (at[i][2] - at[i][0]) for i in range(3))
                    down = sum((1, 2, 1)[j] * (at[2][j] - at[0][j]) for j in range(3))
                    total += abs(across) + abs(down)
                    count += 1
    return total / count


@pytest.mark.parametrize("skip_last", [True, False])
def test_smoothness_is_the_mean_of_both_sobel_filters(skip_last):
    stream, lengths = streams(), torch.tensor([3, 1])
    stream[1, :, 1:] = NAN
    kept = stream[:, :-1] if skip_last else stream
    frames = [kept[n, :, t] for n, length in enumerate(lengths) for t in range(length)]
    found = StreamSmoothnessLoss(skip_last)(stream, lengths)
    assert math.isclose(float(found), naive_smoothness(frames), rel_tol=1e-12)
    if skip_last:
        stream[:, -1] = 9
        assert StreamSmoothnessLoss()(stream, lengths) == found


def test_diversity_is_what_entropy_lacks():
    stream, lengths = streams(), torch.tensor([3, 1])
    stream[1, :, 1:] = NAN
    use = [float(stream[0, c].sum() + stream[1, c, 0].sum()) for c in range(4)]
    entropy = -sum(u / sum(use) * math.log2(u / sum(use)) for u in use)
    found = StreamDiversityLoss()(stream, lengths)
    assert math.isclose(float(found), 2 - entropy, rel_tol=1e-12)
    equal = torch.full((1, 4, 2, 3, 3), 0.25)
    assert StreamDiversityLoss()(equal).abs() < 1e-6
    assert StreamDiversityLoss()(torch.zeros(1, 4, 2, 3, 3)) == 2


def test_a_branch_learns_to_use_all_channels_smoothly():
    extractor = GaitRepresentationExtractor(6, 8, 4, hidden=0).train()
    extractor.foreground = lambda normed: torch.ones(len(normed), 1, *normed.shape[2:]).bool()
    extractor.denoising.linear.bias.data[0] = 4.0  # nearly all is in the first channel
    maps, normed = torch.randn(3, 8, 6, 4), torch.randn(3, 6, 6, 4)
    optimizer = torch.optim.Adam(extractor.denoising.parameters(), 0.05)
    values = []
    for _ in range(60):
        stream = extractor(maps, normed)[0].unsqueeze(2)
        values.append([StreamDiversityLoss()(stream), StreamSmoothnessLoss()(stream)])
        optimizer.zero_grad()
        (values[-1][0] + values[-1][1]).backward()
        optimizer.step()
    assert values[0][0] > 1
    assert values[-1][0] < 0.1
    assert values[-1][1] < values[0][1]


@pytest.mark.parametrize("loss", [StreamSmoothnessLoss(), StreamDiversityLoss()])
def test_gradients_past_the_end_are_zero(loss):
    stream = streams().float()
    stream[1, :, 1:] = NAN
    stream.requires_grad_()
    loss(stream, torch.tensor([3, 1])).backward()
    assert stream.grad.isfinite().all()
    assert not stream.grad[1, :, 1:].any()
    assert stream.grad[0].any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="two channels or more"):
        StreamSmoothnessLoss()(streams(c=1))
    for loss in (StreamSmoothnessLoss(), StreamDiversityLoss()):
        with pytest.raises(TypeError, match="float"):
            loss(streams().long())
        with pytest.raises(ValueError, match="lengths from 1 to 3"):
            loss(streams(), torch.tensor([3, 4]))
