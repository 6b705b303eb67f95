"""Training of narrow 1 x 1 convolutions with a step, where channels stand last."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from gaitzoo.layers.conv import Conv2d

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("nan_memory")]


def narrow(channels):
    conv = Conv2d(channels, 8, 1, stride=2).to(memory_format=torch.channels_last)
    x = torch.randn(5, channels, 16, 16).contiguous(memory_format=torch.channels_last)
    return conv, x


@pytest.mark.parametrize("channels", [2, 3, 5, 7, 12])
def test_gradients_are_those_of_float64(channels):
    conv, x = narrow(channels)
    conv(x.requires_grad_()).sin().sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (x, conv.weight, conv.bias)]
    F.conv2d(*exact, stride=2).sin().sum().backward()
    for found, wanted in zip((x, conv.weight, conv.bias), exact, strict=True):
        assert relative_error(found.grad, wanted.grad) < 1e-5


def test_only_calls_that_can_go_wrong_take_the_step_before(monkeypatch):
    """On processors where the plain call is right too, the rule must have been followed."""
    seen = []
    plain = F.conv2d

    def look(x, *args, **kwargs):
        seen.append(x.shape[-1])
        return plain(x, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", look)
    conv, x = narrow(3)
    conv(x)
    with torch.no_grad():
        conv(x)
    wide, many = narrow(8)
    wide(many)
    conv.weight.requires_grad_(False)
    conv(x)
    assert seen == [8, 16, 16, 16]


@pytest.mark.parametrize("options", [{"padding": 1}, {"groups": 2}, {"stride": (1, 2)}])
def test_other_steps_give_what_the_plain_convolution_gives(options):
    conv = Conv2d(4, 8, 1, **{"stride": 2, **options})
    x = torch.randn(3, 4, 9, 7)
    wanted = torch.nn.Conv2d._conv_forward(conv, x, conv.weight, conv.bias)
    assert relative_error(conv(x), wanted) < 1e-6
