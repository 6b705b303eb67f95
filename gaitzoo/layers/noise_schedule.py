"""How much noise stands in a signal at every time step.

Sources: DDPM (https://arxiv.org/abs/2006.11239), the cosine schedule of
https://arxiv.org/abs/2102.09672, v-prediction (https://arxiv.org/abs/2202.00512). Names of methods
are those of the schedulers of diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import check_size, shape_of

__all__ = ["NoiseSchedule"]

_OFFSET = 0.008  # of the cosine schedule, so that the first steps are not too small
_LARGEST_BETA = 0.999
_LINEAR = (1e-4, 0.02)  # betas of 1000 steps
_PREDICTIONS = {"epsilon": "epsilon", "v": "v", "v_prediction": "v"}


class NoiseSchedule(nn.Module):
    """How much noise stands in a signal at every time step, and what a network predicts of it.

    ``x_t = sqrt(a_t) * x_0 + sqrt(1 - a_t) * noise``, with ``a`` falling from nearly 1 at step 0 to
    nearly 0 at the last. A network with ``prediction="epsilon"`` says the noise, one with ``"v"``
    says ``sqrt(a_t) * noise - sqrt(1 - a_t) * x_0``. There are buffers only, which are not saved.

    Source: https://arxiv.org/abs/2102.09672, equation 17 (``"cosine"``, steps limited to a beta of
    0.999), https://arxiv.org/abs/2006.11239 (``"linear"``, betas 1e-4 to 0.02 for 1000 steps,
    scaled for other numbers), https://arxiv.org/abs/2202.00512 (``"v"``).

    Args:
        num_steps: Time steps, 2 or more.
        kind: ``"cosine"`` or ``"linear"``.
        prediction: ``"epsilon"`` or ``"v"``.

    Attributes:
        alphas_cumprod: ``a``, ``[num_steps]`` float32, strictly falling in (0, 1).

    Shapes:
        x: Signals ``[N, ...]``, any floats.
        noise: As ``x``.
        timesteps: ``[N]`` int64 in 0..num_steps-1.
        returns: ``[N, ...]``, as ``x``.

    Raises:
        ValueError: If an argument is out of range, or shapes or time steps do not fit.

    Example:
        >>> schedule, x, noise = NoiseSchedule(100), torch.rand(2, 3), torch.randn(2, 3)
        >>> t = torch.tensor([5, 70])
        >>> noisy = schedule.add_noise(x, noise, t)
        >>> torch.allclose(schedule.predict_x0(noisy, noise, t), x, atol=1e-5)
        True

        Any network can be taught to find the noise:

        >>> net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))
        >>> loss = nn.functional.mse_loss(net(noisy), schedule.to_target(x, noise, t))
    """

    alphas_cumprod: Tensor

    def __init__(
        self, num_steps: int = 1000, kind: str = "cosine", prediction: str = "epsilon"
    ) -> None:
        super().__init__()
        check_size(num_steps=num_steps)
        if num_steps < 2:
            raise ValueError(f"expected num_steps of 2 or more, got {num_steps}")
        if kind == "cosine":
            phase = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
            level = torch.cos((phase + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
            betas = (1 - level[1:] / level[:-1]).clamp(max=_LARGEST_BETA)
        elif kind == "linear":
            first, last = (beta * 1000 / num_steps for beta in _LINEAR)
            betas = torch.linspace(first, last, num_steps, dtype=torch.float64)
            betas = betas.clamp(max=_LARGEST_BETA)
        else:
            raise ValueError(f'expected kind "cosine" or "linear", got {kind!r}')
        self._set(torch.cumprod(1 - betas, 0), prediction)

    @classmethod
    def of_scheduler(cls, scheduler: Any) -> Self:
        """The schedule of a scheduler of diffusers, for training with its noise.

        Args:
            scheduler: Has ``alphas_cumprod`` and ``config.prediction_type`` (``"epsilon"`` or
                ``"v_prediction"``): DDPM, DDIM, DPM-Solver and most others.

        Raises:
            TypeError: If it has no ``alphas_cumprod``.
            ValueError: If its prediction is another one.
        """
        levels = getattr(scheduler, "alphas_cumprod", None)
        if not isinstance(levels, Tensor) or levels.ndim != 1 or len(levels) < 2:
            raise TypeError(
                "expected a scheduler with alphas_cumprod [num_steps], got "
                f"{type(scheduler).__name__}"
            )
        made = cls(len(levels))
        config = getattr(scheduler, "config", None)
        made._set(levels.double(), getattr(config, "prediction_type", "epsilon"))
        return made

    def _set(self, levels: Tensor, prediction: str) -> None:
        if prediction not in _PREDICTIONS:
            raise ValueError(f'expected prediction "epsilon" or "v", got {prediction!r}')
        self.prediction = _PREDICTIONS[prediction]
        self.num_steps = len(levels)
        self.register_buffer("alphas_cumprod", levels.float(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the buffer, but keeps all its digits when the network gets fewer."""
        exact = self.alphas_cumprod
        super()._apply(fn, recurse)
        if self.alphas_cumprod.dtype.itemsize < exact.dtype.itemsize:
            self.alphas_cumprod = exact.to(self.alphas_cumprod.device)
        return self

    def level(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """``a`` at the time steps, with as many axes as the signal.

        Args:
            timesteps: ``[N]``.
            like: The signals, ``[N, ...]``.

        Returns:
            ``[N, 1, ...]`` of 32 bits or more: with fewer, levels near 1 are 1.
        """
        found = self.at(timesteps)
        found = found.to(like.device, torch.promote_types(like.dtype, torch.float32))
        if len(found) != len(like):
            raise ValueError(
                f"expected a time step for each of {len(like)} signals, got {len(found)}"
            )
        return found.view(-1, *[1] * (like.ndim - 1))

    def at(self, timesteps: Tensor) -> Tensor:
        """``a`` at the time steps, ``[N]`` float32.

        Args:
            timesteps: ``[N]``.
        """
        if timesteps.ndim != 1 or timesteps.is_floating_point():
            raise ValueError(
                f"expected time steps [N] as whole numbers, got {shape_of(timesteps)} "
                f"{timesteps.dtype}"
            )
        if timesteps.device.type == "cpu" and timesteps.numel():
            low, high = (int(t) for t in timesteps.aminmax())
            if low < 0 or high >= self.num_steps:
                raise ValueError(
                    f"expected time steps in 0..{self.num_steps - 1}, got {low} to {high}"
                )
        return self.alphas_cumprod[timesteps.to(self.alphas_cumprod.device)]

    def draw(self, count: int, device: torch.device | None = None) -> Tensor:
        """Random time steps for a batch, ``[N]`` int64.

        Args:
            count: N.
            device: Where they stand.
        """
        return torch.randint(self.num_steps, (count,), device=device)

    def add_noise(self, x: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noisy signals ``x_t``.

        Args:
            x: Clean signals.
            noise: Standard normal numbers.
            timesteps: See the class.
        """
        _check_same(x, noise)
        level = self.level(timesteps, x)
        return (level.sqrt() * x + (1 - level).sqrt() * noise).to(x.dtype)

    def to_target(self, x: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should say.

        Args:
            x: Clean signals.
            noise: What was added.
            timesteps: See the class.
        """
        _check_same(x, noise)
        if self.prediction == "epsilon":
            return noise
        level = self.level(timesteps, x)
        return (level.sqrt() * noise - (1 - level).sqrt() * x).to(x.dtype)

    def predict_x0(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """The clean signals that a prediction means.

        Args:
            noisy: ``x_t``.
            prediction: What the network says of it.
            timesteps: See the class.
        """
        _check_same(noisy, prediction)
        level = self.level(timesteps, noisy)
        if self.prediction == "epsilon":
            found = (noisy - (1 - level).sqrt() * prediction) / level.sqrt()
        else:
            found = level.sqrt() * noisy - (1 - level).sqrt() * prediction
        return found.to(noisy.dtype)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"num_steps={self.num_steps}, prediction={self.prediction!r}"


def _check_same(x: Tensor, other: Tensor) -> None:
    if x.shape != other.shape:
        raise ValueError(
            f"expected noise or prediction of the signal's shape, got {shape_of(other)} for "
            f"{shape_of(x)}"
        )
