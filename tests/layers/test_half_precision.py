"""Half precision reads nothing that nobody has written, on any processor."""

import pytest
import torch
import torch.nn.functional as F
from builders import clips_for, make, padded
from conftest import SILHOUETTES, relative_error
from torch import nn

from gaitzoo import fuse_for_inference
from gaitzoo.layers.conv import Conv2d, Conv3d, guard_convolutions, needs_float32
from gaitzoo.layers.fused import channels_last, convolve
from gaitzoo.testing.memory import fill_freed_memory

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("nan_memory")]

# Arguments of a convolution and the map it gets: what is read wrongly on some processors.
WRONG = [
    (Conv3d(1, 4, 3, padding=1), (1, 1, 1, 8, 6)),
    (Conv3d(3, 4, 3, padding=1), (1, 3, 1, 8, 6)),
    (Conv3d(5, 4, 3, (1, 2, 2), padding=1), (2, 5, 1, 8, 6)),
    (Conv3d(33, 8, (5, 3, 3), (1, 2, 2), padding=(2, 1, 1)), (1, 33, 1, 8, 6)),
    (Conv3d(9, 9, 3, padding=1, groups=3), (1, 9, 1, 8, 6)),
    (Conv3d(6, 6, 3, padding=1, groups=2), (1, 6, 1, 8, 6)),
    (Conv3d(12, 4, 3, padding=1), (1, 12, 1, 8, 6)),
    (Conv3d(8, 4, (3, 1, 5), padding=(1, 0, 2)), (1, 8, 1, 8, 6)),
    (Conv3d(4, 4, (3, 1, 9), padding=(1, 0, 4)), (1, 4, 1, 8, 6)),
    (Conv3d(4, 4, 3, (1, 2, 2), padding=1), (1, 4, 2, 8, 2)),
    (Conv3d(3, 4, (1, 3, 3), (1, 2, 2), padding=(0, 1, 1)), (1, 3, 5, 8, 1)),
    (Conv3d(1, 4, (1, 5, 3), (1, 1, 2), padding=(0, 2, 1)), (1, 1, 2, 8, 2)),
    (Conv2d(32, 4, 3, 2, padding=1), (1, 32, 8, 2)),
    (Conv2d(7, 4, 3, 2), (1, 7, 8, 3)),
    (Conv2d(7, 4, 2, 2), (1, 7, 8, 2)),
]
# Their neighbours, which are computed as they are.
RIGHT = [
    (Conv3d(3, 4, 3, padding=1), (1, 3, 2, 8, 6)),
    (Conv3d(16, 4, 3, padding=1), (1, 16, 1, 8, 6)),
    (Conv3d(18, 4, (3, 3, 5), padding=(1, 1, 2)), (1, 18, 1, 8, 6)),
    (Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), (1, 3, 1, 8, 6)),
    (Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0)), (1, 3, 2, 8, 1)),
    (Conv2d(7, 4, 3, padding=1), (1, 7, 8, 1)),
    (Conv2d(7, 4, 3, 2, padding=1), (1, 7, 1, 8)),
    (Conv2d(7, 4, 3, 2, padding=1), (1, 7, 8, 3)),
]


def wanted_of(conv, x, dtype):
    weight, bias = (p.detach().to(dtype).float() for p in (conv.weight, conv.bias))
    function = F.conv2d if x.ndim == 4 else F.conv3d
    return function(
        x.to(dtype).float(), weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("conv", "shape"), [*WRONG, *RIGHT], ids=str)
@torch.no_grad()
def test_convolutions_over_any_memory(conv, shape, dtype):
    x = torch.randn(shape)
    wanted = wanted_of(conv, x, dtype)
    narrow = type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        groups=conv.groups,
    )
    narrow.load_state_dict(conv.state_dict())
    narrow.to(dtype)
    calls = [lambda: narrow(x.to(dtype)), lambda: narrow(channels_last(x.to(dtype)))]
    if x.ndim == 5:
        calls.append(lambda: convolve(narrow, x.to(dtype)))
    for call in calls:
        for _ in range(3):
            fill_freed_memory()
            found = call()
            assert found.dtype == dtype
            assert relative_error(found.float(), wanted) < 0.02
    with torch.autocast("cpu", dtype):
        fill_freed_memory()
        found = conv(x)
        assert found.dtype == dtype
        assert relative_error(found.float(), wanted) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rule(dtype):
    for convs, answer in ((WRONG, True), (RIGHT, False)):
        for conv, shape in convs:
            x = torch.zeros(shape)
            assert needs_float32(conv, x.to(dtype)) == answer
            assert not needs_float32(conv, x)
            assert not needs_float32(conv, x.to(dtype).to("meta"))
            with torch.autocast("cpu", dtype):
                assert needs_float32(conv, x) == answer
                assert not needs_float32(conv, x.double())


@pytest.mark.parametrize(("conv", "shape"), WRONG, ids=str)
@torch.no_grad()
def test_the_guard_computes_in_float32(conv, shape, monkeypatch):
    """On processors where the plain call is right too, the rule must have been followed."""
    seen = []
    plain = type(conv)._conv_forward

    def look(self, x, weight, bias):
        seen.append((x.dtype, weight.dtype, torch.is_autocast_enabled("cpu")))
        return plain(self, x, weight, bias)

    monkeypatch.setattr(type(conv), "_conv_forward", look)
    with torch.autocast("cpu", torch.bfloat16):
        conv(torch.zeros(shape))
    assert seen == [(torch.float32, torch.float32, False)]


def test_gradients_pass_the_guard():
    conv = Conv3d(3, 4, 3, padding=1).bfloat16()
    x = torch.randn(1, 3, 1, 8, 6).bfloat16().requires_grad_()
    conv(x).float().square().sum().backward()
    assert x.grad.dtype == conv.weight.grad.dtype == torch.bfloat16
    assert x.grad.isfinite().all()
    assert conv.weight.grad.isfinite().all()


class Own(nn.Conv2d):
    pass


def test_own_convolutions_stay_and_names_too():
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv3d(1, 2, 3)), Own(1, 2, 3))
    names = list(layers.state_dict())
    guard_convolutions(layers)
    assert [type(layers[0]), type(layers[1][0]), type(layers[2])] == [Conv2d, Conv3d, Own]
    assert list(layers.state_dict()) == names


@pytest.mark.parametrize("way", ["weights", "autocast", "fused"])
@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_models_of_one_to_five_frames(name, way):
    model = make(name, num_classes=0)
    narrow = {
        "weights": lambda: make(name, num_classes=0).bfloat16(),
        "autocast": lambda: model,
        "fused": lambda: fuse_for_inference(model, torch.bfloat16),
    }[way]()
    for frames in (1, 2, 3, 4, 5):
        batch, lengths = padded(clips_for(model, frames, 1), float("nan"))
        wanted = model(batch, lengths).embeddings
        fill_freed_memory()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            found = narrow(batch, lengths).embeddings.float()
        cosine = F.cosine_similarity(found.flatten(1), wanted.flatten(1))
        assert (cosine > 0.99).all()
