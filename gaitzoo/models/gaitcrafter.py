"""GaitCrafter: walks of chosen people, views, clothes and loads, made of noise (ICCVW 2025).

Paper: https://arxiv.org/abs/2508.13300. A reconstruction from the abstract and notes: that a video
diffusion model is trained from scratch on silhouettes, what it is told, and that identities are
interpolated is the authors'; the network, its sizes, the codes of conditions and the recipe are
inferred. No code is public; nothing of it is contained here. No numbers of theirs are to be
expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.modalities import find_modality
from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.diffusion import (
    frames_to_signal,
    guided,
    sample_signal,
    signal_to_frames,
    standard_normal,
)
from gaitzoo.layers.sequence import mask_fill
from gaitzoo.layers.video_unet import GaitVideoUNet
from gaitzoo.layers.walk_conditions import FACTORS, GaitConditioner
from gaitzoo.models.video_diffusion import DiffusionOutput, refuse_pretrained, schedule_and_sampler

__all__ = ["CASIA_B_COVARIATES", "GaitCrafter", "gaitcrafter"]

CASIA_B_COVARIATES = {"normal": (1, 1), "bag": (1, 2), "coat": (2, 1)}
"""Clothing and carried object of CASIA-B's three conditions."""

_SIZES = {"base": ((64, 128, 256, 512), 512), "small": ((32, 64, 128, 256), 256)}


class GaitCrafter(nn.Module):
    """A generator of walking silhouettes.

    Called on true silhouettes it gives what :class:`DiffusionLoss` compares; :meth:`sample` makes
    new ones. It is no recogniser: the registry does not know it, and it is saved as any module.

    Source: https://arxiv.org/abs/2508.13300, a reconstruction; see the top of this file. The
    recipe of common practice: Adam, 1e-4, 32 clips of 16 frames, a moving average of the weights
    (0.9999), all of which are the user's.

    Args:
        denoiser: :class:`GaitVideoUNet`, or any network with its call.
        conditioner: Makes ``[N, cond_dim]`` of the conditions.
        schedule: :class:`NoiseSchedule`, :class:`DDIMSampler` or a scheduler of diffusers;
            ``None`` = 1000 steps, cosine, noise predicted.
        input_size: Height and width of the silhouettes, pixels.
        use_tokens: Give the four conditions to the network as tokens, too (a denoiser with a
            ``token_dim`` of the conditioner's ``dim``).

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, any T; 16 frames are usual.
        conditions: Names to tensors, as :class:`GaitConditioner` takes them; ``None`` = nothing.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        timesteps: ``[N]`` int64; ``None`` = at random.
        noise: ``[N, 1, T, H', W']``, with the border that makes height and width multiples of the
            network's stride; ``None`` = at random.
        returns: :class:`DiffusionOutput`.

    Raises:
        TypeError: If the schedule is none, or a condition no tensor.
        ValueError: If shapes do not fit, or a condition is none of the four.

    Example:
        >>> unet = GaitVideoUNet(channels=(8, 16), cond_dim=32)
        >>> model = GaitCrafter(unet, GaitConditioner(num_ids=2, dim=32), input_size=(16, 11))
        >>> output = model(torch.rand(2, 5, 16, 11), {"identity": torch.tensor([0, 1])})
        >>> output.pred.shape, output.x0_pred.shape
        (torch.Size([2, 1, 5, 16, 12]), torch.Size([2, 5, 16, 11]))
        >>> model.eval().sample({"identity": torch.tensor([1])}, num_frames=4, steps=2).shape
        torch.Size([1, 4, 16, 11])
    """

    def __init__(
        self,
        denoiser: nn.Module,
        conditioner: GaitConditioner,
        schedule: Any = None,
        *,
        input_size: tuple[int, int] = (64, 44),
        use_tokens: bool = False,
    ) -> None:
        super().__init__()
        height, width = input_size
        check_size(height=height, width=width)
        self.denoiser, self.conditioner = denoiser, conditioner
        self.schedule, self.sampler = schedule_and_sampler(schedule)
        self.input_size, self.use_tokens = (height, width), use_tokens
        self.stride = int(getattr(denoiser, "stride", 8))  # pyright: ignore[reportArgumentType]

    def forward(
        self,
        silhouettes: Tensor,
        conditions: Mapping[str, Tensor] | None = None,
        lengths: Tensor | None = None,
        timesteps: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> DiffusionOutput:
        """Returns prediction and target of one batch."""
        dtype = self.conditioner.null.dtype
        frames, lengths = find_modality("silhouettes").prepare(
            silhouettes, lengths, dtype=dtype, channels=1
        )
        if frames.shape[-2:] != self.input_size:
            raise ValueError(
                f"expected silhouettes of {self.input_size} pixels, got {shape_of(silhouettes)}"
            )
        signal = frames_to_signal(frames, self.stride)
        count = len(signal)
        if timesteps is None:
            timesteps = self.schedule.draw(count, signal.device)
        noise = standard_normal(signal, None) if noise is None else noise
        target = self.schedule.to_target(signal, noise, timesteps)
        noisy = self.schedule.add_noise(signal, noise, timesteps)
        factors = self._factors(conditions, count)
        pred = self._predict(noisy, timesteps, factors, lengths)
        clean = self.schedule.predict_x0(noisy, pred, timesteps)
        x0_pred = mask_fill(signal_to_frames(clean, self.input_size)[:, 0], lengths, axis=1)
        weight = self.schedule.at(timesteps).to(signal.device)
        return DiffusionOutput(pred, target, x0_pred, weight, self.schedule.prediction, lengths)

    def _factors(
        self, conditions: Mapping[str, Tensor] | None, count: int, dropped: Tensor | None = None
    ) -> Tensor:
        """The vectors of the conditions, ``[N, 4, dim]``; ``dropped [4]`` of all sequences."""
        conditions = _checked(conditions)
        mask = None if dropped is None else dropped.expand(count, -1)
        if not conditions and mask is None:
            mask = torch.ones(count, 4, dtype=torch.bool)
        factors = self.conditioner.factors(**conditions, drop_mask=mask)
        if len(factors) != count:
            raise ValueError(f"expected conditions of {count} sequences, got {len(factors)}")
        return factors

    def _predict(
        self, noisy: Tensor, timesteps: Tensor, factors: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        arguments: dict[str, Any] = {"tokens": factors} if self.use_tokens else {}
        if lengths is not None:
            arguments["lengths"] = lengths
        return self.denoiser(noisy, timesteps, cond=factors.sum(1), **arguments)

    @torch.no_grad()
    def sample(
        self,
        conditions: Mapping[str, Tensor] | None = None,
        num_frames: int = 16,
        steps: int = 50,
        guidance: float | tuple[float, float] = 2.0,
        generator: torch.Generator | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Makes walks.

        Args:
            conditions: Names to tensors, as for the call; N is theirs, 1 without any.
            num_frames: T.
            steps: Steps of the sampler.
            guidance: How far the prediction is driven away from that without conditions: 1 = not,
                0 = conditions do not count. Two numbers: for the identity, and for view, clothing
                and object (three passes of the network instead of two).
            generator: Source of the noise; ``None`` = torch's own.
            callback: Called after every step with its number and the noisy signals
                ``[N, 1, T, H', W']``, for a progress bar.
            noise: ``[N, 1, T, H', W']`` to begin with; ``None`` = drawn.

        Returns:
            ``[N, T, H, W]`` floats in [0, 1]; ``> 0.5`` makes masks of them.

        Raises:
            TypeError: If a condition is no tensor.
            ValueError: If an argument does not fit.
        """
        check_size(num_frames=num_frames)
        count = max([1, *(len(value) for value in _checked(conditions).values())])
        kept, left_out = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
        full = self._factors(conditions, count, kept)
        null = self._factors(None, count, left_out)
        person = full
        if isinstance(guidance, tuple):
            person = self._factors(conditions, count, torch.tensor([False, True, True, True]))

        def predict(x: Tensor, timesteps: Tensor) -> Tensor:
            if isinstance(guidance, tuple):
                for_person, for_others = guidance
                nobody = self._predict(x, timesteps, null)
                known = self._predict(x, timesteps, person)
                all_known = self._predict(x, timesteps, full)
                return guided(nobody, known, for_person) + for_others * (all_known - known)
            if guidance == 1:
                return self._predict(x, timesteps, full)
            nobody = self._predict(x, timesteps, null)
            if guidance == 0:
                return nobody
            return guided(nobody, self._predict(x, timesteps, full), guidance)

        height, width = self.input_size
        empty = self.conditioner.null.new_zeros(count, 1, num_frames, height, width)
        bordered = frames_to_signal(empty, self.stride)
        if noise is None:
            noise = standard_normal(bordered, generator)
        elif noise.shape != bordered.shape:
            raise ValueError(f"expected noise {shape_of(bordered)}, got {shape_of(noise)}")
        clean = sample_signal(predict, self.sampler, noise, steps, generator, callback)
        return signal_to_frames(clean, self.input_size)[:, 0]


def gaitcrafter(
    size: str = "base",
    pretrained: bool = False,
    *,
    num_ids: int | None = None,
    id_dim: int | None = None,
    schedule: Any = None,
    input_size: tuple[int, int] = (64, 44),
    **conditioner_args: Any,
) -> GaitCrafter:
    """A fresh GaitCrafter.

    Args:
        size: ``"base"`` (channels 64 to 512) or ``"small"`` (32 to 256).
        pretrained: ``True`` raises: there are no weights.
        num_ids: See :class:`GaitConditioner`.
        id_dim: See :class:`GaitConditioner`.
        schedule: See :class:`GaitCrafter`.
        input_size: See :class:`GaitCrafter`.
        **conditioner_args: Others of :class:`GaitConditioner`.

    Raises:
        PretrainedNotAvailable: If weights are asked for.
        ValueError: If the size is unknown, or an argument does not fit.

    Example:
        >>> model = gaitcrafter("small", num_ids=74)
        >>> round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
        15.1
    """
    refuse_pretrained("GaitCrafter", pretrained)
    if size not in _SIZES:
        raise ValueError(f"expected size as one of {', '.join(_SIZES)}, got {size!r}")
    channels, dim = _SIZES[size]
    return GaitCrafter(
        GaitVideoUNet(channels=channels, cond_dim=dim),
        GaitConditioner(num_ids, id_dim, dim=dim, **conditioner_args),
        schedule,
        input_size=input_size,
    )


def _checked(conditions: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    given = dict(conditions or {})
    for name, value in given.items():
        if name not in FACTORS:
            raise ValueError(f"expected conditions among {', '.join(FACTORS)}, got {name!r}")
        if not isinstance(value, Tensor):
            raise TypeError(f"expected {name} as a tensor [N], got {type(value).__name__}")
        if not value.ndim or not len(value):
            raise ValueError(f"expected {name} of one sequence or more, got {shape_of(value)}")
    return given
