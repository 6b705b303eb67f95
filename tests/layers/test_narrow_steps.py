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


def test_only_calls_that_can_go_wrong_are_copied(monkeypatch):
    """On processors where the plain call is right too, the rule must have been followed."""
    seen = []
    plain = Conv2d._conv_forward

    def look(self, x, weight, bias):
        seen.append(x.is_contiguous())
        return plain(self, x, weight, bias)

    monkeypatch.setattr(Conv2d, "_conv_forward", look)
    conv, x = narrow(3)
    conv(x)
    with torch.no_grad():
        conv(x)
    wide, many = narrow(8)
    wide(many)
    conv.weight.requires_grad_(False)
    conv(x)
    assert seen == [True, False, False, False]
