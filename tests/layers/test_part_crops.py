"""Bands that a network sees alone, and matrices per part with batch norm."""

import pytest
import torch
from torch import nn

from gaitzoo import PartCropEncoder, PartMLP, ResidualBackbone


class Averages(nn.Module):
    """A network without borders: means of 4x4 pixels."""

    def forward(self, x, lengths):
        return nn.functional.avg_pool3d(x, (1, 4, 4))


class Recorder(Averages):
    """What the network was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, lengths):
        self.calls.append((x.shape[0], x.shape[3], lengths))
        return super().forward(x, lengths)


def trunk():
    torch.manual_seed(1)
    network = ResidualBackbone("p3d", (1, 1, 1, 1), (2, 3, 4, 5))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.eval()


@pytest.mark.parametrize("crops", [(2,), (4,), (8,), (8, 4, 2, 1), (2, 2, 1, 1)])
def test_rows_keep_their_order(crops):
    x = torch.rand(4 * len(crops), 1, 3, 64, 44)
    maps = PartCropEncoder(Averages())(x, crops)
    assert maps.shape[3] == 16
    torch.testing.assert_close(maps, Averages()(x, None))


def test_what_the_network_sees():
    network = Recorder()
    lengths = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    PartCropEncoder(network)(torch.rand(8, 1, 9, 64, 44), (4, 1), lengths)
    (count, height, first), (whole, full, second) = network.calls
    # Two sequences in four bands, two in five.
    assert (count, height) == (18, 16)
    assert first.tolist() == [1] * 4 + [2] * 4 + [3] * 5 + [4] * 5
    assert (whole, full, second.tolist()) == (4, 64, [5, 6, 7, 8])


@torch.no_grad()
def test_one_band_is_the_plain_network():
    network, x = trunk(), torch.rand(3, 1, 2, 64, 44)
    assert torch.equal(PartCropEncoder(network)(x, (1,)), network(x))


@torch.no_grad()
def test_bands_equal_those_cut_by_hand():
    network, x = trunk(), torch.rand(4, 1, 2, 64, 44)
    found = PartCropEncoder(network)(x, (4,))
    for i in range(2):
        wanted = [network(x[i : i + 1, :, :, 16 * b : 16 * b + 16]) for b in range(4)]
        torch.testing.assert_close(found[i : i + 1], torch.cat(wanted, 3), rtol=1e-5, atol=1e-6)
    for i in range(2, 4):
        padded = torch.zeros(1, 1, 2, 80, 44)
        padded[:, :, :, 8:72] = x[i]
        wanted = [network(padded[:, :, :, 16 * b : 16 * b + 16]) for b in range(5)]
        wanted = torch.cat(wanted, 3)[:, :, :, 2:18]
        torch.testing.assert_close(found[i : i + 1], wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_bands_are_independent():
    encoder, x = PartCropEncoder(trunk()), torch.rand(2, 1, 2, 64, 44)
    other = x.clone()
    other[0, :, :, :8] = 1 - other[0, :, :, :8]
    before, after = encoder(x, (8,)), encoder(other, (8,))
    changed = (before != after).any(dim=(1, 2, 4))
    assert changed[0].tolist() == [True, True] + [False] * 14
    assert not changed[1].any()


@torch.no_grad()
def test_order_inside_a_half_does_not_matter():
    encoder, x = PartCropEncoder(trunk()), torch.rand(8, 1, 2, 64, 44)
    # One chunk of two halves of four.
    halves = [2, 0, 1, 3, 7, 5, 4, 6]
    torch.testing.assert_close(encoder(x[halves], (4,)), encoder(x, (4,))[halves])


@torch.no_grad()
def test_padded_clips_give_their_own_maps():
    encoder, x = PartCropEncoder(trunk()), torch.rand(4, 1, 5, 64, 44)
    lengths = torch.tensor([5, 2, 3, 1])
    found = encoder(x, (2,), lengths)
    for i, frames in enumerate(lengths.tolist()):
        # Alone in both halves of a chunk of two; its own half is what counts.
        alone = encoder(x[[i, i], :, :frames], (2,))[i // 2]
        torch.testing.assert_close(found[i, :, :frames], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "height", "crops", "message"),
    [
        (6, 64, (2, 1), "multiple of 4"),
        (8, 64, (2, 2, 1), "multiple of 6"),
        (2, 60, (8,), "64 divides for 8 bands"),
        (2, 64, (), "crops as a tuple"),
        (2, 64, (0,), "crops as a tuple"),
    ],
)
def test_batches_and_heights_that_do_not_fit_are_refused(size, height, crops, message):
    with pytest.raises(ValueError, match=message):
        PartCropEncoder(Averages())(torch.rand(size, 1, 2, height, 44), crops)


def test_a_network_of_another_stride_is_refused():
    with pytest.raises(ValueError, match="makes 8 rows one"):
        PartCropEncoder(Averages(), stride=8)(torch.rand(2, 1, 2, 64, 44), (2,))


@pytest.mark.parametrize("last_norm", [True, False])
@torch.no_grad()
def test_part_mlp_equals_loops(last_norm):
    block = PartMLP(3, 4, 5, last_norm=last_norm).eval()
    norms = [block.bn1] + ([block.bn2] if last_norm else [])
    for norm in norms:
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 3, 4)

    def normalize(norm, value, index):
        scale = norm.weight[index] / (norm.running_var[index] + norm.eps).sqrt()
        return (value - norm.running_mean[index]) * scale + norm.bias[index]

    found = block(x)
    for n in range(2):
        for p in range(3):
            inner = torch.stack(
                [
                    normalize(block.bn1, x[n, p] @ block.fc1.weight[p, :, c], c * 3 + p)
                    for c in range(5)
                ]
            ).relu()
            for c in range(4):
                wanted = inner @ block.fc2.weight[p, :, c]
                if last_norm:
                    wanted = normalize(block.bn2, wanted, c * 3 + p)
                torch.testing.assert_close(found[n, p, c], wanted)


def test_part_mlp_refuses_a_batch_of_one_in_training():
    with pytest.raises(ValueError, match="two sequences or more"):
        PartMLP(3, 4)(torch.rand(1, 3, 4))
