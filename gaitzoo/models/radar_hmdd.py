"""Direction of walking from radar: SBCFormer on enhanced Doppler-time maps (HMDD).

Paper: https://arxiv.org/abs/2507.22567 (radar-based human motion direction determination); the
network is SBCFormer (WACV 2024, https://github.com/xyongLu/SBCFormer), slightly changed. Authors'
code:
https://github.com/JoeyBGOfficial/Low-Cost-Accurate-Radar-Based-Human-Motion-Direction-Determination
(for PaddlePaddle; nothing of it is contained here).

Differences from upstream:

- Any square image of a multiple of 32 pixels can be read; upstream reads 224 pixels.
- What the authors do to colours before the network is a choice (``upstream_input``); by default
  the image is read as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD
from gaitzoo.layers.checks import check_num_classes, check_size, check_sizes, shape_of
from gaitzoo.layers.hourglass import NORM_EPS, SBCFormerBlock, conv_norm
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.sbcformer_keys import convert_sbcformer

__all__ = [
    "RADAR_DIRECTIONS",
    "SBCFormer",
]

_PAPER = "https://arxiv.org/abs/2507.22567"
RADAR_DIRECTIONS = (0, 30, 45, 60, 90, 300, 315, 330)
"""Degrees between the line of sight and the way that somebody walks, of the eight classes."""

_STRIDES = (8, 16, 32)  # pixels of the image that became one, in each of the three stages


class _Neck(nn.Module):
    """Layer norm, then class scores."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        check_num_classes(num_classes)
        self.classifier = None
        if num_classes:
            self.classifier = nn.Linear(len(self.norm.weight), num_classes).to(self.norm.weight)
            _init(self.classifier)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.norm(x)
        return x, None if self.classifier is None else self.classifier(x)


def _init(module: nn.Module) -> None:
    """Initialises as the authors do; batch norms are so already."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SBCFormer(GaitModel):
    """SBCFormer: convolutions and attention in an hourglass, from images without time.

    Source: https://arxiv.org/abs/2507.22567 (which way somebody walks, from a Doppler-time map);
    the network is SBCFormer (WACV 2024, https://github.com/xyongLu/SBCFormer). ``radar_hmdd`` is
    its size XS with eight classes, :data:`RADAR_DIRECTIONS`. The images come from
    :class:`gaitzoo.DopplerTimeMapPreprocessor`; a mirrored one shows another direction, so never
    flip them in training. The authors train with
    ``torch.nn.CrossEntropyLoss(label_smoothing=0.1)`` and Adam (1.47e-3, L2 of 1e-5).

    Args:
        num_classes: Classes; 0 = no classifier.
        in_channels: Channels of the image.
        img_size: Rows and columns of the image, a multiple of 32.
        channels: Widths of the three stages; embeddings have ``channels[2]`` channels.
        num_heads: Heads of the attention in each stage.
        layers: Transformer blocks in each stage.
        conv_layers: Inverted residual blocks in each stage.
        key_dim: Width of a head's queries and keys.
        expansion: Times that inverted residual blocks are wider in the middle.
        upstream_input: Read red-green-blue images as the authors' training does: in reverse
            order, minus ImageNet's means (0.485, ...), divided by its deviations.

    Shapes:
        images: ``[N, in_channels, img_size, img_size]`` in [0, 1] or uint8 0..255.
        returns: :class:`GaitOutput` with ``embeddings [N, 1, channels[2]]`` and ``logits``
            ``[N, 1, num_classes]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = SBCFormer(img_size=64, channels=(4, 6, 8), num_heads=(1, 1, 2)).eval()
        >>> model(torch.rand(2, 3, 64, 64)).logits.shape
        torch.Size([2, 1, 8])
    """

    architecture = "radar_hmdd"
    modalities = ("images",)

    imagenet: Tensor

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 8,
        in_channels: int = 3,
        img_size: int = 224,
        channels: tuple[int, int, int] = (96, 160, 288),
        num_heads: tuple[int, int, int] = (3, 5, 6),
        layers: tuple[int, int, int] = (2, 3, 2),
        conv_layers: tuple[int, int, int] = (2, 2, 1),
        key_dim: int = 16,
        expansion: int = 2,
        upstream_input: bool = False,
    ) -> None:
        check_size(in_channels=in_channels, img_size=img_size, key_dim=key_dim, expansion=expansion)
        sizes = [
            _three("channels", channels),
            _three("num_heads", num_heads),
            _three("layers", layers),
            _three("conv_layers", conv_layers),
        ]
        if img_size % _STRIDES[2]:
            raise ValueError(f"expected img_size as a multiple of 32, got {img_size}")
        if channels[0] % 4:
            raise ValueError(f"expected channels[0] as a multiple of 4, got {channels[0]}")
        if upstream_input and in_channels != 3:
            raise ValueError(
                "expected in_channels=3 with upstream_input=True (red, green, blue), got "
                f"{in_channels}"
            )
        self.img_size = img_size
        super().__init__()
        self.in_channels, self.upstream_input = in_channels, upstream_input
        widths = (in_channels, channels[0] // 4, channels[0] // 2, channels[0])
        stem: list[nn.Module] = []
        for before, after in pairwise(widths):
            stem += [*conv_norm(before, after, 3, stride=2), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList(
            SBCFormerBlock(
                width,
                heads,
                img_size // stride,
                _STRIDES[2] // stride,
                conv_layers=convs,
                layers=depth,
                key_dim=key_dim,
                expansion=expansion,
            )
            for width, heads, depth, convs, stride in zip(*sizes, _STRIDES, strict=True)
        )
        self.merges = nn.ModuleList(
            nn.Sequential(*conv_norm(before, after, 3, stride=2))
            for before, after in pairwise(channels)
        )
        self.neck = _Neck(channels[2], num_classes)
        self.num_features, self.num_parts = channels[2], 1
        table = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device="cpu")[:, None, :, None, None]
        self.register_buffer("imagenet", table, persistent=False)
        _init(self)

    @property
    def input_size(self) -> tuple[int, int]:
        """See :attr:`GaitModel.input_size`."""
        return self.img_size, self.img_size

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the three stages."""
        return tuple(f"stages.{i}" for i in range(len(self.stages)))

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Computes the map before pooling.

        Args:
            silhouettes: Images, as for the model's call.
            lengths: Always ``None``: images have no time.

        Returns:
            ``features`` ``[N, channels[2], img_size / 32, img_size / 32]`` and ``None``.

        Raises:
            ValueError: If the images have another size.
        """
        x, _ = self.prepare(silhouettes, lengths)
        if tuple(x.shape[2:]) != self.input_size:
            raise ValueError(
                f"expected images of {self.img_size} x {self.img_size} pixels, got {shape_of(x)}; "
                "resize them, or build the model with another img_size"
            )
        if self.upstream_input:
            mean, std = self.imagenet.to(x)
            x = (x.flip(1) - mean) / std
        for into, stage in zip((self.stem, *self.merges), self.stages, strict=True):
            x = self.run(stage, into(x))
        return x, None

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Averages over the map and normalises; classes see what is compared.

        Args:
            features: As from :meth:`forward_features`.
            lengths: Always ``None``.
        """
        embeddings, logits = self.neck(features.mean(dim=(2, 3))[:, None])
        return GaitOutput(embeddings=embeddings, logits=logits)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The class of every image: the largest score.

        Args:
            images: As for the model's call.

        Returns:
            ``[N]`` int64, of eight classes numbers of :data:`RADAR_DIRECTIONS`.

        Raises:
            ValueError: If the model has no classifier.
        """
        logits = self(images).logits
        if logits is None:
            raise ValueError("expected a model with classes to predict, got num_classes=0")
        return logits[:, 0].argmax(dim=1)


def _three(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if len(check_sizes(name, sizes)) != 3:
        raise ValueError(f"expected three numbers as {name}, one per stage, got {sizes!r}")
    return tuple(sizes)


_SIZES: dict[str, dict[str, Any]] = {
    "xs": {},
    "s": {"channels": (96, 192, 320), "num_heads": (3, 5, 7), "layers": (2, 4, 3)},
    "b": {
        "channels": (128, 256, 384),
        "num_heads": (4, 6, 8),
        "layers": (2, 4, 3),
        "key_dim": 24,
    },
    "l": {
        "channels": (192, 288, 384),
        "num_heads": (4, 6, 8),
        "layers": (2, 4, 3),
        "key_dim": 32,
        "expansion": 4,
    },
}


def sbcformer_xs(**model_args: Any) -> SBCFormer:
    """SBCFormer of 5.3 million parameters, the one of ``radar_hmdd``.

    Args:
        **model_args: As for :class:`SBCFormer`.

    Example:
        >>> sum(p.numel() for p in sbcformer_xs().parameters())
        5307473
    """
    return SBCFormer(**{**_SIZES["xs"], **model_args})


def sbcformer_s(**model_args: Any) -> SBCFormer:
    """SBCFormer of 8.1 million parameters.

    Args:
        **model_args: As for :class:`SBCFormer`.

    Example:
        >>> sbcformer_s(num_classes=4).num_features
        320
    """
    return SBCFormer(**{**_SIZES["s"], **model_args})


def sbcformer_b(**model_args: Any) -> SBCFormer:
    """SBCFormer of 13.4 million parameters.

    Args:
        **model_args: As for :class:`SBCFormer`.

    Example:
        >>> sbcformer_b(num_classes=4).num_features
        384
    """
    return SBCFormer(**{**_SIZES["b"], **model_args})


def sbcformer_l(**model_args: Any) -> SBCFormer:
    """SBCFormer of 18.1 million parameters.

    Args:
        **model_args: As for :class:`SBCFormer`.

    Example:
        >>> sbcformer_l(num_classes=4).num_features
        384
    """
    return SBCFormer(**{**_SIZES["l"], **model_args})


def _cfg(size: str, **fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="parity",
        model_args=_SIZES[size],
        num_classes=len(RADAR_DIRECTIONS),
        input_size=(224, 224),
        crop="none",
        embedding="output",
        license="MIT licence file; its text asks for learning use only",
        paper=_PAPER,
        origin=(
            "https://github.com/JoeyBGOfficial/"
            "Low-Cost-Accurate-Radar-Based-Human-Motion-Direction-Determination"
        ),
        unavailable=(
            "the authors' weights are PaddlePaddle files that could not be had. Train the model "
            "yourself, or load a file that you have with checkpoint_path=..."
        ),
        **fields,
    )


_CFGS = {
    "xs": _cfg(
        "xs",
        training_data="MMRGait-1.0, 121 subjects",
        metrics={
            "accuracy": 98.76,
            "protocol": (
                "eight directions, 80 / 20 random split of all images, so the same people and "
                "walks may be on both sides; reported by others"
            ),
        },
        notes="Classes: 0, 30, 45, 60, 90, 300, 315, 330 degrees from the line of sight.",
    ),
    "s": _cfg("s"),
    "b": _cfg("b"),
    "l": _cfg("l"),
}
register_model(
    "radar_hmdd",
    SBCFormer,
    _CFGS,
    convert=convert_sbcformer,
    tiny=PretrainedCfg(
        num_classes=3,
        model_args={
            "img_size": 64,
            "channels": (4, 6, 8),
            "num_heads": (1, 1, 2),
            "layers": (1, 1, 1),
            "conv_layers": (1, 1, 1),
            "key_dim": 2,
        },
        input_size=(64, 64),
    ),
)
