"""3 x 3 convolutions with half of the multiplications, for processors.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
https://arxiv.org/abs/1509.09308: Winograd's F(4, 3). Four neighbouring outputs of a filter of three
taps need six multiplications instead of twelve: outputs are the values of a product of polynomials,
known from its values at six points.

What differs from the paper:

- Only over rows, not over columns: one direction halves the products, a second one costs more
  additions than it saves. Taps over columns and time stay, in the library's convolutions.
- The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity instead of 0, +-1, +-2 and infinity; with
  them rounding errors stay near those of an ordinary convolution. Barabasz et al., "Error Analysis
  and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", TOMS 2020,
  https://arxiv.org/abs/1803.10986, explain why points matter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gaitzoo.layers.conv import Conv2d, Conv3d

__all__ = ["WinogradConv", "WinogradConv2d", "WinogradConv3d", "save_multiplications"]

# The points +-_NEAR and +-_FAR; the square of one is the inverse of the other's.
_NEAR, _FAR = math.sqrt(0.5), math.sqrt(2.0)
# Bytes of the maps of one strip of rows. They stay in the processor's cache, and the memory of
# freed ones is used again instead of being given back to the system.
_STRIP_BYTES = 16 * 2**20
# Products per value of the maps. Measured: below, the additions take longer than they save.
_FEWEST_PRODUCTS = 600
# Of what is computed together; with fewer, calling forty operations takes longer than the one.
_FEWEST_PIXELS = 2048
_FEWEST_ROWS = 8


class WinogradConv(nn.modules.conv._ConvNd):
    """A ``(K x) 3 x 3`` convolution for inference, with fewer multiplications where that is faster.

    One implementation: images are frames of one sequence, which have no neighbours in time.

    Args:
        conv: The plain convolution, of stride one with zeros outside.

    Shapes:
        input: ``[N, C_in, H, W]`` for images, ``[N, C_in, T, H, W]`` for sequences.
        returns: As the input, with ``C_out`` channels.
    """

    weights: Tensor
    biases: Tensor | None

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__(
            conv.in_channels,  # pyright: ignore[reportCallIssue] - of Conv2d or Conv3d
            conv.out_channels,
            conv.kernel_size,
            padding=conv.padding,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        _prepare(self)

    def takes(self, x: Tensor) -> bool:
        """Whether a map is computed with fewer multiplications."""
        return _takes(self, x)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the map."""
        if not self.takes(input):
            return super().forward(input)
        last = input.movedim(1, -1)
        if input.ndim == 4:
            return _convolve(last[None], self.weights, self.biases)[0].movedim(-1, 1)
        return _convolve(last, self.weights, self.biases).movedim(-1, 1)


class WinogradConv2d(WinogradConv, Conv2d):
    """:class:`WinogradConv` of images."""


class WinogradConv3d(WinogradConv, Conv3d):
    """:class:`WinogradConv` of sequences."""


_SAVING: dict[type[nn.Module], type[WinogradConv]] = {
    nn.Conv2d: WinogradConv2d,
    Conv2d: WinogradConv2d,
    nn.Conv3d: WinogradConv3d,
    Conv3d: WinogradConv3d,
}


def save_multiplications(module: nn.Module) -> None:
    """Replaces the convolutions inside a module that gain by it, in place.

    Args:
        module: Its weights have their final type and place: only those in float32 on a processor
            gain anything.
    """
    for name, child in module.named_children():
        saving = _SAVING.get(type(child))
        if saving is not None and _gains(child):  # pyright: ignore[reportArgumentType]
            setattr(module, name, saving(child))  # pyright: ignore[reportArgumentType]
        else:
            save_multiplications(child)


def _gains(conv: nn.Conv2d | nn.Conv3d) -> bool:
    *time, height, width = conv.kernel_size
    taps = time[0] if time else 1
    products = conv.weight.numel() / (conv.in_channels + conv.out_channels)
    return (
        torch.backends.mkldnn.is_available()
        and conv.weight.device.type == "cpu"
        and conv.weight.dtype == torch.float32
        and (taps % 2, height, width) == (1, 3, 3)
        and products >= _FEWEST_PRODUCTS
        and conv.padding == (taps // 2, 1, 1)[-len(conv.kernel_size) :]
        and conv.padding_mode == "zeros"
        and set(conv.stride) == set(conv.dilation) == {conv.groups} == {1}
    )


def _derive(conv: WinogradConv, *_: object) -> None:
    """Makes the six points' weights, ``[6, C_out, C_in, K, 1, 3]``, and biases, ``[6, C_out]``."""
    weight = conv.weight.detach().double()
    if weight.ndim == 4:
        weight = weight[:, :, None]
    first, middle, last = weight.split(1, dim=3)

    def at(point: float) -> Tensor:
        return first + middle * point + last * point**2

    near = 2 * _NEAR**2 * (_NEAR**2 - _FAR**2)
    far = 2 * _FAR**2 * (_FAR**2 - _NEAR**2)
    points = [first, at(_NEAR) / near, at(-_NEAR) / near, at(_FAR) / far, at(-_FAR) / far, last]
    weights = torch.stack(points).to(conv.weight.dtype)
    # Channels side by side, as in the maps.
    conv.weights = weights.movedim(2, -1).contiguous().movedim(-1, 2)
    if conv.bias is not None:
        # What adds up to one in each of the four outputs.
        shares = torch.tensor([1 / 2, _FAR / 2, -_FAR / 2, 1 / 4, 1 / 4, 1 / 2])
        shares = shares.to(conv.bias.device)
        conv.biases = (shares[:, None] * conv.bias.detach().double()).to(conv.bias.dtype)


def _prepare(conv: WinogradConv) -> None:
    conv.register_buffer("weights", None, persistent=False)
    conv.register_buffer("biases", None, persistent=False)
    _derive(conv)
    conv.register_load_state_dict_post_hook(_derive)


def _takes(conv: WinogradConv, x: Tensor) -> bool:
    # Compiled models are compiled for all sizes, and exported files should hold common operations.
    if torch.compiler.is_compiling() or x.ndim != conv.weight.ndim:
        return False
    computed_together = x[:1] if x.ndim == 5 else x
    return (
        x.device == conv.weights.device
        and x.device.type == "cpu"
        and x.dtype == conv.weights.dtype == torch.float32
        and x.shape[1] == conv.in_channels
        and x.shape[-2] >= _FEWEST_ROWS
        and computed_together.numel() >= _FEWEST_PIXELS * conv.in_channels
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        # Results are written into given memory, which cannot be differentiated.
        and not (torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad))
    )


def _convolve(x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
    """Convolves ``[N, T, H, W, C_in]``; gives ``[N, T, H, W, C_out]``."""
    out = x.new_empty(*x.shape[:4], weights.shape[1])
    # Without taps over time, a few whole frames at a time; else a few rows of all frames.
    rows = x[:1, :1] if weights.shape[3] == 1 else x[:1]
    strip = max(1, _STRIP_BYTES // _group_bytes(rows, weights))
    frames = max(1, strip // -(-x.shape[2] // 4)) if weights.shape[3] == 1 else x.shape[1]
    for sequence, out_sequence in zip(x.split(1), out.split(1), strict=True):
        pieces = zip(sequence.split(frames, 1), out_sequence.split(frames, 1), strict=True)
        for piece, out_piece in pieces:
            _convolve_strips(piece, weights, biases, out_piece, strip)
    return out


def _group_bytes(x: Tensor, weights: Tensor) -> int:
    """What four rows of ``[1, T, H, W, C]`` take on the way, at the six points."""
    channels = weights.shape[1] + weights.shape[2]
    return 6 * channels * x.shape[1] * x.shape[3] * x.element_size()


def _convolve_strips(
    x: Tensor, weights: Tensor, biases: Tensor | None, out: Tensor, strip: int
) -> None:
    """Convolves ``[1, T, H, W, C_in]`` into ``[1, T, H, W, C_out]``, ``strip`` times four rows."""
    groups = -(-x.shape[2] // 4)
    strip = -(-groups // -(-groups // strip))  # all strips about as high as each other
    padding = weights.shape[3] // 2, 0, 1
    for begin in range(0, groups, strip):
        end = min(begin + strip, groups)
        found = []
        for i, point in enumerate(_at_points(_with_border(x, 4 * begin - 1, 4 * end + 1))):
            bias = None if biases is None else biases[i]
            y = torch.mkldnn_convolution(
                point.permute(0, 4, 1, 2, 3), weights[i], bias, padding, (1, 1, 1), (1, 1, 1), 1
            )
            found.append(y.permute(0, 2, 3, 4, 1))
        _write_outputs(found, out[:, :, 4 * begin : 4 * end])


def _with_border(x: Tensor, begin: int, end: int) -> Tensor:
    """Rows ``begin`` to ``end`` of ``[1, T, H, W, C]``, zeros where there are none."""
    padded = x.new_empty(*x.shape[:2], end - begin, *x.shape[3:])
    first, last = max(begin, 0), min(end, x.shape[2])
    padded[:, :, : first - begin] = 0
    padded[:, :, first - begin : last - begin] = x[:, :, first:last]
    padded[:, :, last - begin :] = 0
    return padded


def _at_points(x: Tensor) -> list[Tensor]:
    """What is multiplied at the six points, from every six rows of which two overlap."""
    num_groups = (x.shape[2] - 2) // 4
    d0, d1, d2, d3, d4, d5 = (x[:, :, i::4][:, :, :num_groups] for i in range(6))
    near, far = _NEAR**2, _FAR**2
    even_near, odd_near = torch.sub(d4, d2, alpha=far), torch.sub(d3, d1, alpha=far)
    even_far, odd_far = torch.sub(d4, d2, alpha=near), torch.sub(d3, d1, alpha=near)
    return [
        torch.sub(d0 + d4, d2, alpha=near + far),
        torch.add(even_near, odd_near, alpha=_NEAR),
        torch.sub(even_near, odd_near, alpha=_NEAR),
        torch.add(even_far, odd_far, alpha=_FAR),
        torch.sub(even_far, odd_far, alpha=_FAR),
        torch.sub(d1 + d5, d3, alpha=near + far),
    ]


def _write_outputs(found: list[Tensor], out: Tensor) -> None:
    """Puts the six products together to four rows; the last rows of ``out`` may be missing."""
    zero, near, minus_near, far, minus_far, infinity = found
    even_near, even_far = near + minus_near, far + minus_far
    odd_near, odd_far = near.sub_(minus_near), far.sub_(minus_far)

    def write(row: int, a: Tensor, b: Tensor, factor: float) -> None:
        place = out[:, :, row::4]
        rows = place.shape[2]
        torch.add(a[:, :, :rows], b[:, :, :rows], alpha=factor, out=place)

    write(0, zero.add_(even_near), even_far, 1.0)
    write(3, infinity.add_(odd_near, alpha=_NEAR**3), odd_far, _FAR**3)
    write(1, odd_near.mul_(_NEAR), odd_far, _FAR)
    write(2, even_near.mul_(_NEAR**2), even_far, _FAR**2)
