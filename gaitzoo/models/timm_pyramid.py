"""Networks that give three maps of a picture, at 1/8, 1/16 and 1/32, by their names.

timm (https://github.com/huggingface/pytorch-image-models) is imported when the first one is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.conv import guard_convolutions
from gaitzoo.layers.csp import CSPPyramid
from gaitzoo.models.timm_builder import channels_stand_last, check_backbone_args

__all__ = ["CSP_SIZES", "TimmPyramid", "pyramid_channels", "pyramid_encoder"]

CSP_SIZES = {"csp_n": (0.25, 0.5), "csp_s": (0.5, 0.5), "csp_l": (1.0, 1.0)}
"""Width and depth of :class:`CSPPyramid` by the names of its sizes."""

_STEPS = (8, 16, 32)


class TimmPyramid(nn.Module):
    """A network of timm by its name, as the encoder of a :class:`RGBDGaitNet` or any other.

    Args:
        name: timm's name; the network must have levels at 1/8, 1/16 and 1/32, as ResNets, ConvNeXt,
            MobileNets and their like have.
        in_channels: Channels of the picture.
        pretrained: Load timm's weights; frames are then to be normalised as timm says.
        backbone_args: Others of ``timm.create_model``.

    Shapes:
        x: ``[B, in_channels, H, W]``.
        returns: Three maps ``[B, channels[i], H / 8, W / 8]`` and so on.

    Attributes:
        channels: Of the three maps.

    Raises:
        ValueError: If timm has no such network or it has no such levels.
        ConnectionError: If timm cannot get the weights.

    Example:
        >>> pyramid = TimmPyramid("resnet18", in_channels=1).eval()
        >>> pyramid.channels
        (128, 256, 512)
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        pretrained: bool = False,
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels)
        check_backbone_args(backbone_args)
        import timm

        arguments = {"features_only": True, "in_chans": in_channels, **(backbone_args or {})}
        try:
            trial: Any = timm.create_model(name, **arguments)
            steps = trial.feature_info.reduction()
            wanted = [steps.index(step) for step in _STEPS]
            network: Any = timm.create_model(
                name, pretrained=pretrained, out_indices=wanted, **arguments
            )
        except OSError as error:
            raise ConnectionError(
                f"cannot get timm's weights of {name!r}: {error}; pretrained=False starts from "
                "random weights"
            ) from error
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected a network of timm with maps at 1/8, 1/16 and 1/32, got {name!r}: "
                f"{error}; choose another, for example 'resnet18'"
            ) from error
        guard_convolutions(network)
        self.in_channels = in_channels
        self.channels = tuple(network.feature_info.channels())
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the three maps."""
        maps = self.network(x)
        if channels_stand_last(self.network):
            maps = [y.permute(0, 3, 1, 2) for y in maps]
        return tuple(maps)


def pyramid_encoder(
    encoder: str | nn.Module, in_channels: int, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """A network of three maps from its name; a module stays as it is.

    Args:
        encoder: ``"csp_n"``, ``"csp_s"``, ``"csp_l"``, a name of timm, or a module.
        in_channels: Channels of the picture.
        arguments: Others of :class:`CSPPyramid`, or of ``timm.create_model``.

    Raises:
        ValueError: If timm has no such network.
    """
    if isinstance(encoder, nn.Module):
        return encoder
    if encoder in CSP_SIZES:
        width, depth = CSP_SIZES[encoder]
        return CSPPyramid(in_channels, **{"width": width, "depth": depth, **(arguments or {})})
    return TimmPyramid(encoder, in_channels, backbone_args=arguments)


@torch.no_grad()
def pyramid_channels(encoder: nn.Module, in_channels: int) -> tuple[int, ...]:
    """Channels of the three maps; of unknown modules found with an empty frame.

    Args:
        encoder: Gives three maps.
        in_channels: Channels of the picture.

    Raises:
        ValueError: If the maps do not have the sizes wanted.
    """
    if isinstance(encoder, (CSPPyramid, TimmPyramid)):
        return encoder.channels
    training = encoder.training
    like = next(encoder.parameters(), torch.zeros(()))
    maps = encoder.eval()(like.new_zeros(1, in_channels, 64, 64))
    encoder.train(training)
    shapes = [list(x.shape[1:]) for x in maps]
    if [shape[1:] for shape in shapes] != [[8, 8], [4, 4], [2, 2]]:
        raise ValueError(
            "expected an encoder that gives maps of 8, 4 and 2 rows of a frame of 64, got "
            f"{', '.join(map(str, shapes))}"
        )
    return tuple(shape[0] for shape in shapes)
