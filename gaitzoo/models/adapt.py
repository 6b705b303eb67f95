"""Weights of models with other input channels than the one that is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["adapt_input_channels"]


def adapt_input_channels(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], before: int, after: int
) -> dict[str, Tensor]:
    """Brings the first convolutions to another number of input channels, by timm's rule.

    For one channel, the channels of the weights are summed; for others, they are repeated and
    scaled so that an input whose channels are all the same gives the same map as before.

    Args:
        state_dict: Parameters of a file, in our layout.
        wanted: Parameters of the model that they are for.
        before: Input channels in the file.
        after: Input channels of the model.

    Returns:
        The parameters; those that do not read the input are left as they are.
    """
    adapted = dict(state_dict)
    for key, tensor in state_dict.items():
        shape = list(tensor.shape)
        if key in wanted and len(shape) > 2 and shape[1] == before:
            shape[1] = after
            if shape == list(wanted[key].shape):
                adapted[key] = _adapted(tensor, after)
    return adapted


def _adapted(weight: Tensor, channels: int) -> Tensor:
    before = weight.shape[1]
    # Half precision would round the scaled numbers a second time.
    numbers = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if channels == 1:
        numbers = numbers.sum(1, keepdim=True)
    else:
        repeats = -(-channels // before)
        numbers = numbers.repeat(1, repeats, *[1] * (weight.ndim - 2))[:, :channels]
        numbers = numbers * (before / channels)
    return numbers
