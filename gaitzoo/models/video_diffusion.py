"""What generators of walks share: schedules from elsewhere, networks from elsewhere, the loss.

Sources: https://arxiv.org/abs/2006.11239 (loss), https://arxiv.org/abs/2303.09556 (min-SNR). Used
by CoD2 (https://arxiv.org/abs/2511.06245) and GaitCrafter (https://arxiv.org/abs/2508.13300).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.diffusion import DDIMSampler
from gaitzoo.layers.noise_schedule import NoiseSchedule
from gaitzoo.layers.sequence import lengths_to_mask
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedNotAvailable

__all__ = [
    "DiffusersDenoiser",
    "DiffusionLoss",
    "DiffusionOutput",
    "IdentityConsistencyLoss",
    "clip_errors",
    "refuse_pretrained",
    "schedule_and_sampler",
]


class DiffusionOutput(NamedTuple):
    """What a generator gives in training, of N clips.

    Attributes:
        pred: ``[N, 1, T, H', W']``, what the network says.
        target: ``[N, 1, T, H', W']``, what it should say.
        x0_pred: ``[N, T, H, W]`` in [0, 1], the silhouettes that ``pred`` means.
        weight: ``[N]``, share of signal in what the network saw: 1 = no noise, 0 = nothing else.
        prediction: ``"epsilon"`` or ``"v"``, what ``pred`` is.
        lengths: ``[N]``, valid frames; ``None`` = all.
    """

    pred: Tensor
    target: Tensor
    x0_pred: Tensor
    weight: Tensor
    prediction: str
    lengths: Tensor | None


class DiffusionLoss(nn.Module):
    """Mean squared error of what a network says of noisy clips.

    Source: https://arxiv.org/abs/2006.11239, equation 14; with ``min_snr``
    https://arxiv.org/abs/2303.09556, Sec. 3.4: a clip counts ``min(snr, min_snr) / snr`` (for
    ``"v"`` ``/ (snr + 1)``), so that nearly clean clips count less.

    Args:
        min_snr: Signal-to-noise ratio above which clips count less, often 5; ``None`` = all count
            the same.

    Shapes:
        output: :class:`DiffusionOutput`.
        returns: ``[]`` float32, mean over clips; of each, the mean over its own frames.

    Raises:
        ValueError: If ``min_snr`` is not above 0.

    Example:
        >>> zeros, ones = torch.zeros(2, 1, 3, 4, 4), torch.ones(2, 1, 3, 4, 4)
        >>> output = DiffusionOutput(zeros, ones, zeros[:, 0], torch.full((2,), 0.5), "v", None)
        >>> DiffusionLoss()(output)
        tensor(1.)
    """

    def __init__(self, min_snr: float | None = None) -> None:
        super().__init__()
        if min_snr is not None and not 0 < min_snr < float("inf"):
            raise ValueError(f"expected min_snr above 0, got {min_snr!r}")
        self.min_snr = min_snr

    def forward(self, output: DiffusionOutput) -> Tensor:
        """Returns the loss of one batch."""
        errors = clip_errors(output.pred, output.target, output.lengths)
        if self.min_snr is None:
            return errors.mean()
        ratio = output.weight / (1 - output.weight)
        whole = ratio if output.prediction == "epsilon" else ratio + 1
        return (errors * ratio.clamp(max=self.min_snr) / whole).mean()


class IdentityConsistencyLoss(nn.Module):
    """How far a recogniser sees the guessed silhouettes from the true ones.

    ``weight * (1 - cosine)`` of the embeddings of each part, mean over parts and clips; the weight
    is the share of signal, since guesses from much noise are nobody. The recogniser is frozen.

    Source: https://arxiv.org/abs/2508.13300 keeps identities; this term is inferred and no part of
    the default recipe.

    Args:
        recogniser: A model of silhouettes; becomes part of this module, frozen for good.

    Shapes:
        output: :class:`DiffusionOutput`.
        silhouettes: ``[N, T, H, W]``, the true ones.
        returns: ``[]``.

    Raises:
        TypeError: If ``recogniser`` is no model of silhouettes alone.

    Example:
        >>> import gaitzoo
        >>> loss = IdentityConsistencyLoss(gaitzoo.create_model("gaitbase_tiny"))
        >>> clip = torch.rand(2, 3, 16, 12)
        >>> output = DiffusionOutput(clip, clip, clip, torch.ones(2), "epsilon", None)
        >>> bool(loss(output, clip) < 1e-5)
        True
    """

    def __init__(self, recogniser: GaitModel) -> None:
        super().__init__()
        check_recogniser(recogniser)
        self.recogniser = recogniser.freeze()

    def forward(self, output: DiffusionOutput, silhouettes: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        guessed = self.recogniser(output.x0_pred, output.lengths).embeddings
        with torch.no_grad():
            true = self.recogniser(silhouettes, output.lengths).embeddings
        apart = 1 - F.cosine_similarity(guessed, true, dim=2)
        return (output.weight[:, None] * apart).mean()


class DiffusersDenoiser(nn.Module):
    """A ``UNet3DConditionModel`` of diffusers in the place of :class:`GaitVideoUNet`.

    The condition becomes a token before the others; that network accepts labels and does not use
    them.

    Args:
        unet: Called with clips, time steps and ``encoder_hidden_states=[N, S, D]``, gives
            ``.sample``.
        stride: Height and width become multiples of it before.

    Shapes:
        x: ``[N, C, T, H, W]``.
        timesteps: ``[N]`` int64.
        cond: ``[N, D]``; ``None`` = no such token.
        tokens: ``[N, S, D]``; ``None`` = no others.
        returns: As ``x``.

    Raises:
        ValueError: If neither ``cond`` nor ``tokens`` is given, or there are maps to add or clips
            of different lengths, for which that network has no place.

    Example:
        >>> class UNet(nn.Module):
        ...     def forward(self, x, t, encoder_hidden_states):
        ...         self.sample = x * encoder_hidden_states.mean()
        ...         return self
        >>> denoiser = DiffusersDenoiser(UNet())
        >>> denoiser(torch.ones(1, 1, 4, 8, 8), torch.tensor([3]), torch.rand(1, 6)).shape
        torch.Size([1, 1, 4, 8, 8])
    """

    def __init__(self, unet: nn.Module, stride: int = 8) -> None:
        super().__init__()
        self.unet, self.stride = unet, stride

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        cond: Tensor | None = None,
        tokens: Tensor | None = None,
        residuals: Sequence[Tensor] | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Returns what the network says."""
        if residuals is not None:
            raise ValueError("expected no residuals for a network of diffusers, got some")
        if lengths is not None and bool((lengths < x.shape[2]).any()):
            raise ValueError(
                "expected clips of equal length for a network of diffusers, which looks at all "
                f"frames, got lengths {lengths.tolist()} of {x.shape[2]}"
            )
        states = [] if cond is None else [cond[:, None]]
        states += [] if tokens is None else [tokens]
        if not states:
            raise ValueError("expected cond or tokens for a network of diffusers, got neither")
        found: Any = self.unet(x, timesteps, encoder_hidden_states=torch.cat(states, dim=1))
        return found.sample


def schedule_and_sampler(schedule: Any) -> tuple[NoiseSchedule, Any]:
    """A schedule for training and what removes noise by it.

    Args:
        schedule: :class:`NoiseSchedule`, :class:`DDIMSampler`, a scheduler of diffusers, or
            ``None`` = 1000 steps, cosine.
    """
    if schedule is None:
        schedule = NoiseSchedule()
    if isinstance(schedule, NoiseSchedule):
        return schedule, DDIMSampler(schedule)
    if isinstance(schedule, DDIMSampler):
        return schedule.schedule, schedule
    for name in ("set_timesteps", "step"):
        if not hasattr(schedule, name):
            raise TypeError(
                "expected a NoiseSchedule, a DDIMSampler or a scheduler of diffusers, got "
                f"{type(schedule).__name__} without {name}"
            )
    return NoiseSchedule.of_scheduler(schedule), schedule


def clip_errors(pred: Tensor, target: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean squared error of every clip over its own frames, ``[N]`` float32.

    Args:
        pred: ``[N, C, T, H, W]``.
        target: ``[N, C, T, H, W]``.
        lengths: ``[N]``, valid frames; ``None`` = all T.
    """
    if pred.shape != target.shape:
        raise ValueError(
            f"expected a prediction {shape_of(target)} as its target, got {shape_of(pred)}"
        )
    errors = F.mse_loss(pred.float(), target.float(), reduction="none").mean((1, 3, 4))
    if lengths is None:
        return errors.mean(1)
    valid = lengths_to_mask(lengths, pred.shape[2])
    return errors.masked_fill(~valid, 0).sum(1) / lengths


def check_recogniser(model: Any) -> None:
    """Raises unless a model reads silhouettes alone.

    Args:
        model: The model.
    """
    if not isinstance(model, GaitModel) or model.modalities != ("silhouettes",):
        reads = "+".join(getattr(model, "modalities", ())) or type(model).__name__
        raise TypeError(f"expected a model that reads silhouettes, got one of {reads}")


def refuse_pretrained(name: str, pretrained: bool) -> None:
    """Raises if weights are asked for, which nobody has published.

    Args:
        name: Of the system.
        pretrained: Whether they are.
    """
    if pretrained:
        raise PretrainedNotAvailable(
            f"nobody has published weights of {name}, and its training data are given on request "
            "only; train it on your own silhouettes, as examples/generate_walks.py does"
        )
