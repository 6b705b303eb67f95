"""Convolutions with fewer multiplications give what the ordinary ones give."""

import copy

import pytest
import torch
from builders import clips_for, make, padded
from conftest import SILHOUETTES, relative_error
from torch import nn

import gaitzoo
from gaitzoo import fuse_for_inference
from gaitzoo.layers import winograd
from gaitzoo.layers.fused import channels_last, convolve
from gaitzoo.layers.winograd import WinogradConv2d, WinogradConv3d, save_multiplications


@pytest.fixture
def always(monkeypatch):
    """Also where it does not pay: for few channels and small maps, a strip of four rows a time."""
    monkeypatch.setattr(winograd, "_FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(winograd, "_FEWEST_PIXELS", 0)
    monkeypatch.setattr(winograd, "_FEWEST_ROWS", 0)
    monkeypatch.setattr(winograd, "_STRIP_BYTES", 1)


def replaced(conv):
    """What becomes of a convolution inside a model."""
    parent = nn.Sequential(conv)
    save_multiplications(parent)
    return parent[0]


def wanted_of(conv, x):
    """The ordinary convolution, in float64."""
    return copy.deepcopy(conv).double()(x.double())


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("taps", [1, 3, 5])
@torch.no_grad()
def test_three_dimensions_of_any_size(taps, bias):
    padding = taps // 2, 1, 1
    conv = nn.Conv3d(5, 7, (taps, 3, 3), padding=padding, bias=bias)
    saving = replaced(conv)
    assert type(saving) is WinogradConv3d
    # Heights of every remainder by four, less than a group of rows, and one of everything.
    for shape in [
        (2, 4, 8, 6),
        (1, 3, 9, 5),
        (1, 2, 10, 1),
        (3, 1, 11, 4),
        (1, 1, 1, 1),
        (2, 2, 3, 3),
    ]:
        x = torch.randn(shape[0], 5, *shape[1:])
        for layout in (x, channels_last(x)):
            assert saving.takes(layout)
            found = saving(layout)
            assert relative_error(found, wanted_of(conv, x)) < 2e-6
            assert found.stride(1) == 1
            assert torch.equal(convolve(saving, layout), found)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("strip_bytes", [1, 20_000, 2**24])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_two_dimensions_of_any_size(strip_bytes, bias, monkeypatch):
    monkeypatch.setattr(winograd, "_STRIP_BYTES", strip_bytes)
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    saving = replaced(conv)
    assert type(saving) is WinogradConv2d
    for shape in [(1, 1, 1), (7, 8, 6), (3, 9, 5), (2, 10, 1), (5, 3, 3)]:
        x = torch.randn(shape[0], 5, *shape[1:])
        for layout in (x, channels_last(x)):
            found = saving(layout)
            assert relative_error(found, wanted_of(conv, x)) < 2e-6
            assert found.stride(1) == 1


@torch.no_grad()
def test_rounding_errors_stay_near_those_of_an_ordinary_convolution():
    conv = nn.Conv3d(128, 64, 3, padding=1, bias=False)
    x = channels_last(torch.randn(1, 128, 7, 32, 22).relu())
    saving = replaced(conv)
    assert saving.takes(x)
    wanted = wanted_of(conv, x)
    # The usual points 0, 1, -1, 2, -2 come to nearly twice as much.
    assert relative_error(saving(x), wanted) < 3e-6


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 5, padding=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(128, 128, 3, padding=1, dtype=torch.float64),
        nn.Conv2d(128, 128, 3, padding=1, dtype=torch.bfloat16),
        nn.Conv2d(128, 128, 3, padding=1, device="meta"),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv3d(32, 64, 3, padding=1),
        nn.Conv3d(128, 128, 3, padding=(0, 1, 1)),
        nn.Conv3d(128, 128, 3, padding=1, stride=(3, 1, 1)),
        nn.Conv3d(512, 512, (3, 1, 1), padding=(1, 0, 0)),
        nn.ConvTranspose2d(128, 128, 3, padding=1),
    ],
    ids=str,
)
def test_others_stay(conv):
    assert replaced(conv) is conv


@torch.no_grad()
def test_ordinary_where_it_would_not_be_faster_or_not_work():
    conv = nn.Conv2d(192, 192, 3, padding=1)
    saving = replaced(conv)
    large, small = torch.randn(1, 192, 64, 32), torch.randn(1, 192, 16, 11)
    assert saving.takes(large)
    assert not saving.takes(small)
    assert not saving.takes(torch.randn(9, 192, 4, 99))  # rows are computed by fours
    over_time = replaced(nn.Conv3d(64, 64, 3, padding=1))
    assert over_time.takes(torch.randn(1, 64, 12, 16, 11))
    assert not over_time.takes(torch.randn(12, 64, 1, 16, 11))  # one sequence after the other
    assert torch.equal(saving(small), conv(small))
    with torch.autocast("cpu", torch.bfloat16):
        assert not saving.takes(large)
        assert saving(large).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="to have 192 channels, but got 96"):
        saving(large[:, :96].repeat(2, 1, 1, 1))
    narrow = copy.deepcopy(saving).bfloat16()
    assert not narrow.takes(large.bfloat16())
    assert narrow(large.bfloat16()).dtype == torch.bfloat16
    assert saving.to("meta")(large.to("meta")).device.type == "meta"


def test_inputs_can_be_differentiated():
    conv = nn.Conv2d(192, 192, 3, padding=1).requires_grad_(False)
    saving = replaced(conv)
    x = torch.randn(1, 192, 64, 32, requires_grad=True)
    found, wanted = (torch.autograd.grad(c(x).square().sum(), x)[0] for c in (saving, conv))
    assert torch.equal(found, wanted)


def test_weights_can_be_differentiated():
    saving = replaced(nn.Conv2d(192, 192, 3, padding=1))
    assert saving(torch.randn(1, 192, 64, 32)).requires_grad


@pytest.mark.parametrize("dimensions", [2, 3])
@torch.no_grad()
def test_loaded_weights_count(dimensions):
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    first, second = (nn.Sequential(replaced(kind(192, 192, 3, padding=1))) for _ in range(2))
    x = torch.randn(1, 192, 12, 16, 11) if dimensions == 3 else torch.randn(1, 192, 64, 32)
    assert first[0].takes(x)
    copied = copy.deepcopy(first)
    for one in (first, copied):
        one.load_state_dict(second.state_dict())
        assert torch.equal(one(x), second(x))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_models_give_the_same_embeddings(name):
    model = make(name, num_classes=0)
    fused = fuse_for_inference(model)
    calls = []
    for module in fused.modules():
        if isinstance(module, (WinogradConv2d, WinogradConv3d)):
            module.register_forward_hook(lambda module, inputs, _: calls.append(inputs[0]))
    batch, lengths = padded(clips_for(model, 7, 1, 3, 12), float("nan"))
    wanted = model(batch, lengths).embeddings
    assert relative_error(fused(batch, lengths).embeddings, wanted) < 1e-5
    assert calls


@pytest.mark.parametrize(
    ("name", "fewest"), [("dygait.casiab", 6), ("hstl.casiab", 6), ("gaitbase.casiab", 3)]
)
def test_published_models_save_multiplications(name, fewest):
    fused = fuse_for_inference(gaitzoo.create_model(name, num_classes=0))
    saving = [m for m in fused.modules() if isinstance(m, (WinogradConv2d, WinogradConv3d))]
    assert len(saving) >= fewest
    # What is derived from the weights is not kept with them.
    assert not any(key.endswith((".weights", ".biases")) for key in fused.state_dict())


def test_exported_and_compiled_graphs_hold_the_ordinary_convolution():
    conv = replaced(nn.Conv2d(192, 192, 3, padding=1)).requires_grad_(False)
    x = torch.randn(1, 192, 64, 32)
    assert conv.takes(x)
    exported = torch.export.export(conv, (x,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert len(targets) == 1
    assert "conv2d" in targets[0]
