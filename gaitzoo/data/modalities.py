"""What a sequence can consist of: one entry per modality, and everything goes by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gaitzoo.layers.checks import (
    check_batch,
    check_lengths,
    check_values,
    check_whole,
    shape_of,
    white_of,
)
from gaitzoo.layers.sequence import mask_fill

__all__ = [
    "MODALITIES",
    "Modality",
    "check_same_frames",
    "check_same_sizes",
    "find_modality",
    "time_axis",
]

# What bytes mean: grey levels are divided by 255, labels are taken as they are, others refused.
_BYTES = ("grey levels", "labels", "none")


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One kind of input.

    Args:
        name: Its name, as in ``model.modalities``.
        axes: Axes of a batch, letters as in the documentation: N sequences, C channels, T frames,
            H and W rows and columns, J joints, P points, D numbers.
        channels: Fixed size of the channels (axis C, or the last axis of poses and bodies);
            ``None`` = as the model says.
        value_range: Lowest and highest value; ``None`` = any finite number.
        bytes_mean: What uint8 values are: ``"grey levels"`` (divided by 255), ``"labels"`` (taken
            as they are), or ``"none"`` (refused).
        padding: What padding holds.
        unit: Words for the values, for messages.
        file_names: Names, without suffix, of its file or folder beside those of other modalities.

    Raises:
        ValueError: If ``axes`` does not begin with N or ``bytes_mean`` is unknown.

    Example:
        >>> MODALITIES["poses"].time_axis, MODALITIES["skeleton_maps"].time_axis
        (1, 2)
    """

    name: str
    axes: str
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    bytes_mean: str = "none"
    padding: float = 0.0
    unit: str = ""
    file_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.axes.startswith("N "):
            raise ValueError(f'expected axes that begin with "N ", got {self.axes!r}')
        if self.bytes_mean not in _BYTES:
            raise ValueError(
                f"expected bytes_mean as one of {', '.join(_BYTES)}, got {self.bytes_mean!r}"
            )

    @property
    def time_axis(self) -> int | None:
        """Index of T in a batch; one less in a single sequence. ``None`` = no time."""
        letters = self.axes.split()
        return letters.index("T") if "T" in letters else None

    @property
    def is_map(self) -> bool:
        """Whether frames are images."""
        return self.axes.endswith("H W")

    @property
    def has_channel_axis(self) -> bool:
        """Whether channels stand on axis 1 of a batch."""
        return self.axes.split()[1] == "C"

    def time_axis_of(self, sequence: Tensor) -> int:
        """Index of T in one sequence; silhouettes may come with channels in front.

        Args:
            sequence: A batch without its axis N.

        Raises:
            ValueError: If the modality has no time.
        """
        if self.time_axis is None:
            raise ValueError(f"expected a modality with frames, got {self.name}, which has none")
        axis = time_axis(self, sequence.ndim)
        assert axis is not None
        return axis

    def prepare(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        channels: int | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Checks a batch and gives it as masked floats with channels first and time behind.

        Args:
            x: The batch, axes as the modality says.
            lengths: ``[N]`` int64, valid frames; ``None`` = all.
            dtype: Type of the result.
            channels: Channels that the model was built for; ``None`` = those of the modality.
            value_range: What the model takes instead of the modality's range.

        Returns:
            ``[N, C, T, H, W]`` for maps, ``[N, C, T, J]`` for joints and points, ``[N, C, T]``
            for vectors, ``[N, C, H, W]`` for images; and the checked lengths.

        Raises:
            TypeError: If ``x`` is no tensor of a type that the modality takes.
            ValueError: If axes, channels, lengths or values do not fit.
        """
        channels = self.channels if channels is None else channels
        if self.name == "silhouettes":
            check_batch(x, channels or 1)
            batch = x.unsqueeze(1) if x.ndim == 4 else x
        else:
            self._check_axes(x, channels)
            batch = self._channels_first(x)
        if self.time_axis is None:
            if lengths is not None:
                raise ValueError(f"expected no lengths for {self.name}, which have no frames")
        else:
            if lengths is not None:
                lengths = check_lengths(lengths, batch.shape[0], batch.shape[2]).to(batch.device)
            batch = mask_fill(batch, lengths, self.padding)
        if batch.dtype == torch.uint8 and self.bytes_mean == "grey levels":
            white = white_of(batch).to(dtype) if self.name == "silhouettes" else 255
            return batch.to(dtype) / white, lengths
        lowest, highest = value_range or self.value_range or (None, None)
        check_values(batch, lowest, highest, self.name)
        if self.bytes_mean == "labels":
            check_whole(batch, self.name)
        return batch.to(dtype), lengths

    def _channels_first(self, x: Tensor) -> Tensor:
        if self.is_map:
            return x if self.has_channel_axis else x.unsqueeze(1)
        return x.movedim(-1, 1)

    def _check_axes(self, x: Tensor, channels: int | None) -> None:
        letters = self.axes.split()
        sizes = {"C": channels, letters[-1]: None if self.is_map else channels}
        wanted = f"[{', '.join(str(sizes.get(letter) or letter) for letter in letters)}]"
        if not isinstance(x, Tensor):
            raise TypeError(
                f"expected {self.name} as a torch.Tensor {wanted}, got {type(x).__name__}; "
                "use torch.as_tensor"
            )
        if not (x.is_floating_point() or (x.dtype == torch.uint8 and self.bytes_mean != "none")):
            also = "" if self.bytes_mean == "none" else f" or as uint8 {self.bytes_mean}"
            raise TypeError(
                f"expected {self.name} as floats{also}, got {x.dtype}; convert with .float()"
            )
        if x.ndim != len(letters):
            hint = "; add the batch axis with x[None]" if x.ndim == len(letters) - 1 else ""
            raise ValueError(f"expected {self.name} {wanted}, got {shape_of(x)}{hint}")
        channel_axis = 1 if self.has_channel_axis else -1
        if (self.has_channel_axis or not self.is_map) and channels not in (
            None,
            x.shape[channel_axis],
        ):
            raise ValueError(
                f"expected {channels} channel(s) on axis {channel_axis % x.ndim} of {wanted} "
                f"({self.name}), got {shape_of(x)}"
            )
        if x.numel() == 0:
            raise ValueError(f"expected {self.name} with at least one frame, got {shape_of(x)}")


def _table(*modalities: Modality) -> Mapping[str, Modality]:
    return {modality.name: modality for modality in modalities}


MODALITIES: Mapping[str, Modality] = _table(
    Modality(
        name="silhouettes",
        axes="N T H W",
        value_range=(0.0, 1.0),
        bytes_mean="grey levels",
        unit="share of the pixel that is the person",
        file_names=("silhouettes", "silhouette", "sils", "sil"),
    ),
    Modality(
        name="skeleton_maps",
        axes="N C T H W",
        channels=2,
        value_range=(0.0, 1.0),
        bytes_mean="grey levels",
        unit="limbs, joints",
        file_names=("skeleton_maps", "skeleton_map", "heatmaps", "heatmap"),
    ),
    Modality(
        name="parsing",
        axes="N T H W",
        value_range=(0.0, 11.0),
        bytes_mean="labels",
        unit="body parts, whole numbers",
        file_names=("parsing", "pars", "par", "labels"),
    ),
    Modality(
        name="rgb",
        axes="N C T H W",
        channels=3,
        unit="as the model's cfg says",
        file_names=("rgb", "ratio_rgb"),
    ),
    Modality(
        name="depth",
        axes="N C T H W",
        channels=1,
        unit="as the model's cfg says",
        file_names=("depth",),
    ),
    Modality(
        name="flow", axes="N C T H W", channels=2, unit="pixels per frame", file_names=("flow",)
    ),
    Modality(
        name="parsing_images",
        axes="N T H W",
        value_range=(0.0, 1.0),
        bytes_mean="grey levels",
        unit="values of parsing pictures, divided by 255",
        file_names=("parsing_images", "parsing_image"),
    ),
    Modality(
        name="flow_images",
        axes="N C T H W",
        channels=3,
        value_range=(0.0, 1.0),
        bytes_mean="grey levels",
        unit="colours of flow pictures, divided by 255",
        file_names=("flow_images", "flow_image"),
    ),
    Modality(
        name="poses",
        axes="N T J D",
        channels=3,
        unit="x and y in pixels, confidence",
        file_names=("poses", "pose", "keypoints", "alphapose-results", "openpose"),
    ),
    Modality(
        name="smpl",
        axes="N T D",
        channels=85,
        unit="camera, radians, shape",
        file_names=("smpl", "smpls"),
    ),
    Modality(
        name="joints3d",
        axes="N T J D",
        channels=3,
        unit="metres",
        file_names=("joints3d", "3d_joints"),
    ),
    Modality(
        name="forces",
        axes="N T J D",
        channels=3,
        unit="torques of joints: body weights times body heights",
        file_names=("forces", "torques"),
    ),
    Modality(
        name="points",
        axes="N T P D",
        channels=3,
        unit="metres",
        file_names=("points", "pointclouds"),
    ),
    Modality(
        name="features",
        axes="N C T H W",
        unit="as the encoder that computed them gives them",
        file_names=("features",),
    ),
    Modality(
        name="diffusion_features",
        axes="N C T H W",
        channels=4,
        unit="what a latent diffusion model takes for noise",
        file_names=("diffusion_features", "diffusion"),
    ),
    Modality(
        name="images",
        axes="N C H W",
        value_range=(0.0, 1.0),
        bytes_mean="grey levels",
        unit="maps without time",
        file_names=("images", "maps"),
    ),
)


def check_same_frames(counts: Mapping[str, int], where: str = "") -> None:
    """Raises unless modalities that belong together have as many frames as each other.

    Args:
        counts: Name to number of frames.
        where: Words for the message, with a space in front.

    Raises:
        ValueError: If the numbers differ.
    """
    if len(set(counts.values())) > 1:
        raise ValueError(
            "expected modalities with as many frames as each other, got "
            f"{', '.join(f'{count} of {name}' for name, count in counts.items())}{where}"
        )


def check_same_sizes(inputs: Mapping[str, Tensor]) -> None:
    """Raises unless maps that are joined pixel by pixel have as many rows and columns.

    Args:
        inputs: Name to maps, ``[..., H, W]``.

    Raises:
        ValueError: If the numbers differ.
    """
    (rows, columns), *others = [x.shape[-2:] for x in inputs.values()]
    if any(size[0] != rows or size[1] != columns for size in others):
        raise ValueError(
            "expected modalities with as many rows and columns as each other, got "
            f"{', '.join(f'{x.shape[-2]} x {x.shape[-1]} of {n}' for n, x in inputs.items())}"
        )


def time_axis(modality: Modality, num_axes: int) -> int | None:
    """Index of T in one sequence (without the axis N); ``None`` = no time.

    Args:
        modality: What the sequence is.
        num_axes: Axes of the sequence; silhouettes may have channels in front.

    Example:
        >>> time_axis(find_modality("silhouettes"), 3), time_axis(find_modality("silhouettes"), 4)
        (0, 1)
    """
    if modality.time_axis is None:
        return None
    return modality.time_axis + num_axes - len(modality.axes.split())


def find_modality(name: str) -> Modality:
    """The modality of a name.

    Args:
        name: One of the keys of ``MODALITIES``.

    Raises:
        ValueError: If there is none; the message names what there is.

    Example:
        >>> find_modality("parsing").value_range
        (0.0, 11.0)
    """
    if name not in MODALITIES:
        raise ValueError(f"expected a modality among {', '.join(MODALITIES)}, got {name!r}")
    return MODALITIES[name]
