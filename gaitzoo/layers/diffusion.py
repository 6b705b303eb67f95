"""Removal of noise: DDIM steps, guidance, silhouettes as signals.

Sources: DDIM (https://arxiv.org/abs/2010.02502), guidance without a classifier
(https://arxiv.org/abs/2207.12598). Names of methods are those of the schedulers of diffusers, which
may stand in for the classes here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.noise_schedule import NoiseSchedule

__all__ = [
    "DDIMSampler",
    "DiffusionStep",
    "frames_to_signal",
    "guided",
    "sample_signal",
    "signal_to_frames",
    "standard_normal",
]


class DiffusionStep(NamedTuple):
    """What one step of a sampler gives.

    Attributes:
        prev_sample: ``[N, ...]``, the signal with less noise.
        pred_original_sample: ``[N, ...]``, the clean signal as it is guessed now.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class DDIMSampler:
    """Removes noise in a few steps.

    With ``eta=0`` nothing but the first noise is random; with ``eta=1`` and all time steps it is
    the ancestral sampling of DDPM. The guess of the clean signal is clipped to [-1, 1] at every
    step.

    Source: DDIM (https://arxiv.org/abs/2010.02502), equations 12 and 16, over time steps spread
    evenly from 0 on, ``i * num_steps // steps``; behind the last one the signal is clean. Where
    ``steps`` divides ``num_steps``, they are those of diffusers' ``DDIMScheduler``.

    Args:
        schedule: How much noise there is.
        eta: Share of fresh noise, 0 to 1.

    Attributes:
        timesteps: ``[steps]`` int64, falling; all of them before :meth:`set_timesteps`.

    Raises:
        ValueError: If ``eta`` or a number of steps is out of range.

    Example:
        >>> sampler = DDIMSampler(NoiseSchedule(1000))
        >>> sampler.set_timesteps(4)
        >>> sampler.timesteps.tolist()
        [750, 500, 250, 0]
    """

    def __init__(self, schedule: NoiseSchedule, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"expected eta from 0 to 1, got {eta!r}")
        self.schedule, self.eta = schedule, eta
        self.set_timesteps(schedule.num_steps)

    def set_timesteps(self, steps: int, device: torch.device | str | None = None) -> None:
        """Chooses the time steps.

        Args:
            steps: How many, 2 to all of the schedule.
            device: Where they stand.
        """
        if type(steps) is not int or not 2 <= steps <= self.schedule.num_steps:
            raise ValueError(
                f"expected a whole number of steps from 2 to {self.schedule.num_steps}, got "
                f"{steps!r}"
            )
        times = [i * self.schedule.num_steps // steps for i in range(steps)]
        self._before = dict(zip(times[1:], times[:-1], strict=True))
        self.timesteps = torch.tensor(times[::-1], device=device)

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        generator: torch.Generator | None = None,
    ) -> DiffusionStep:
        """From one time step to the next one below.

        Args:
            model_output: ``[N, ...]``, what the network says of ``sample``.
            timestep: One of :attr:`timesteps`.
            sample: ``[N, ...]``, the noisy signals.
            generator: Source of fresh noise, for ``eta`` above 0.
        """
        now = int(timestep)
        before = self._before.get(now)
        if before is None and now != 0:
            raise ValueError(f"expected one of {len(self.timesteps)} time steps, got {now}")
        times = torch.full((len(sample),), now, device=sample.device)
        level = self.schedule.level(times, sample)
        after = torch.ones_like(level)
        if before is not None:
            after = self.schedule.level(torch.full_like(times, before), sample)
        clean = self.schedule.predict_x0(sample, model_output, times).clamp(-1, 1)
        # The noise that belongs to the clipped guess.
        noise = (sample - level.sqrt() * clean) / (1 - level).sqrt()
        variance = (1 - after) / (1 - level) * (1 - level / after)
        spread = self.eta * variance.clamp(min=0).sqrt()
        direction = (1 - after - spread**2).clamp(min=0).sqrt() * noise
        previous = after.sqrt() * clean + direction
        if self.eta > 0 and before is not None:
            previous = previous + spread * standard_normal(sample, generator)
        return DiffusionStep(previous.to(sample.dtype), clean)


def guided(null: Tensor, conditional: Tensor, guidance: float) -> Tensor:
    """A prediction driven away from what is said without conditions.

    Source: https://arxiv.org/abs/2207.12598, with 1 as the conditional prediction itself.

    Args:
        null: ``[N, ...]``, prediction without conditions.
        conditional: ``[N, ...]``, prediction with them.
        guidance: 0 = ``null``, 1 = ``conditional``, above 1 = beyond it.

    Raises:
        ValueError: If ``guidance`` is not finite.

    Example:
        >>> guided(torch.zeros(1), torch.ones(1), 2.0)
        tensor([2.])
    """
    if not math.isfinite(guidance):
        raise ValueError(f"expected guidance as a finite number, got {guidance!r}")
    if guidance == 1:
        return conditional
    return null + guidance * (conditional - null)


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers; a generator of the CPU gives the same ones for every device.

    Args:
        like: Shape, type and device.
        generator: Their source; ``None`` = torch's own.
    """
    device = like.device if generator is None else generator.device
    drawn = torch.randn(like.shape, generator=generator, device=device, dtype=torch.float32)
    return drawn.to(like)


@torch.no_grad()
def sample_signal(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    noise: Tensor,
    steps: int = 50,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Makes signals of noise.

    Args:
        predict: Called with ``x_t [N, ...]`` and time steps ``[N]``; what the network says.
        scheduler: :class:`DDIMSampler`, or a scheduler of diffusers: ``set_timesteps``,
            ``timesteps`` and ``step(prediction, t, x_t, generator=...).prev_sample`` are called,
            and, where it has them, ``init_noise_sigma`` and ``scale_model_input`` used, without
            which those of Euler's kind would go wrong. Time steps between whole ones are rounded.
        noise: ``[N, ...]`` standard normal numbers.
        steps: How many.
        generator: Source of fresh noise, where the scheduler adds any.
        callback: Called after every step with its number, from 1 on, and the signals.

    Returns:
        ``[N, ...]``.

    Example:
        A network that sees through all noise gives its picture back:

        >>> schedule, picture = NoiseSchedule(100), torch.rand(1, 4)
        >>> def predict(x, t):
        ...     level = schedule.level(t, x)
        ...     return (x - level.sqrt() * picture) / (1 - level).sqrt()
        >>> found = sample_signal(predict, DDIMSampler(schedule), torch.randn(1, 4), steps=10)
        >>> torch.allclose(found, picture, atol=1e-4)
        True
    """
    scheduler.set_timesteps(steps, device=noise.device)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scaled = getattr(scheduler, "scale_model_input", lambda x, timestep: x)
    takes = inspect.signature(scheduler.step).parameters
    fresh = {"generator": generator} if "generator" in takes else {}
    for number, timestep in enumerate(scheduler.timesteps, start=1):
        times = torch.full((len(x),), round(float(timestep)), device=x.device)
        found = predict(scaled(x, timestep), times)
        x = scheduler.step(found, timestep, x, **fresh).prev_sample
        if callback is not None:
            callback(number, x)
    return x


def frames_to_signal(frames: Tensor, stride: int = 8) -> Tensor:
    """Silhouettes as a network that halves them sees them: in [-1, 1], with a black border.

    Args:
        frames: ``[N, 1, T, H, W]`` floats in [0, 1].
        stride: Height and width become multiples of it.

    Returns:
        ``[N, 1, T, H', W']``; what is missing stands on both sides in equal parts.

    Example:
        >>> frames_to_signal(torch.ones(1, 1, 5, 64, 44)).shape
        torch.Size([1, 1, 5, 64, 48])
    """
    check_size(stride=stride)
    height, width = (-size % stride for size in frames.shape[-2:])
    borders = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(frames * 2 - 1, borders, value=-1.0)


def signal_to_frames(signal: Tensor, size: tuple[int, int]) -> Tensor:
    """What :func:`frames_to_signal` did, undone, and clipped to [0, 1].

    Args:
        signal: ``[N, 1, T, H', W']``, any values.
        size: Height and width of the frames.

    Returns:
        ``[N, 1, T, H, W]``.

    Example:
        >>> frames = torch.rand(1, 1, 2, 64, 44)
        >>> found = signal_to_frames(frames_to_signal(frames), (64, 44))
        >>> torch.allclose(found, frames, atol=1e-6)
        True
    """
    height, width = size
    if signal.shape[-2] < height or signal.shape[-1] < width:
        raise ValueError(
            f"expected a signal of at least {height} x {width} pixels, got {shape_of(signal)}"
        )
    top, left = (signal.shape[-2] - height) // 2, (signal.shape[-1] - width) // 2
    cut = signal[..., top : top + height, left : left + width]
    return (cut.clamp(-1, 1) + 1) / 2
