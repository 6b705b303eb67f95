"""CoD2: a recogniser and a diffusion model that train each other.

Paper: https://arxiv.org/abs/2511.06245. A reconstruction from the abstract and notes: that the
recogniser's identity feature and low-level detail steer the generator, and that generated walks
train the recogniser, is the authors'; every layer, weight and schedule here is inferred. No code is
public; nothing of it is contained here. No numbers of theirs are to be expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from gaitzoo.layers.video_conditions import AppearanceMotionControl, IdentityTokens, coarse_motion
from gaitzoo.layers.video_unet import GaitVideoUNet
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cod2_loss import CoD2Output
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import find_architecture, model_info
from gaitzoo.models.video_diffusion import (
    check_recogniser,
    refuse_pretrained,
    schedule_and_sampler,
)

__all__ = ["CoD2", "cod2"]

_POOL = 4  # pixels of a tile of motion, to either side


class CoD2(nn.Module):
    """A recogniser whose identity feature steers a generator that makes examples for it.

    In training a piece of every clip gets noise. The denoiser is told who walks
    (:class:`IdentityTokens` of the recogniser's part vectors), how they look and coarsely how they
    move (:class:`AppearanceMotionControl`), and says the noise; the silhouettes that it thereby
    means go through the recogniser, with the same labels. In eval mode the output is the
    recogniser's, to the bit: everything else can be deleted after training.

    Source: https://arxiv.org/abs/2511.06245, a reconstruction; see the top of this file. Train on
    clips of equal length where the recogniser has batch norms.

    Args:
        extractor: A model of silhouettes with one input channel.
        denoiser: :class:`GaitVideoUNet` with a ``token_dim``, or any network with its call.
        schedule: :class:`NoiseSchedule`, :class:`DDIMSampler` or a scheduler of diffusers;
            ``None`` = 1000 steps, cosine, noise predicted.
        t_max: Share of the time steps below which guesses count, 0 to 1.
        detach_condition: Keep the gradient of the denoiser from reaching the recogniser through
            the tokens.
        token_dim: Numbers of a token.
        control_channels: Channels of the denoiser's levels; ``None`` = its ``channels``, ``()`` =
            no appearance and motion.
        frames: Most frames of the piece that gets noise.
        drop: Chance in training for tokens, appearance and motion, each, to be left out.
        detach_generated: Let the guesses train the recogniser alone, not the denoiser.
        keep_statistics: Normalise guesses by the recogniser's running statistics and leave those
            alone.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        timesteps: ``[N]`` int64; ``None`` = at random.
        noise: ``[N, 1, T', H', W']``, T' at most ``frames``, with the border that makes height and
            width multiples of the network's stride; ``None`` = at random.
        reference: ``[N, H, W]``, a frame that shows the looks, for example of another walk of the
            same person; ``None`` = one of the clip, at random.
        returns: In training :class:`CoD2Output`, else :class:`GaitOutput`.

    Raises:
        TypeError: If the extractor is no model of silhouettes, or the schedule none.
        ValueError: If an argument is out of range, or shapes do not fit.

    Example:
        >>> import gaitzoo
        >>> extractor = gaitzoo.create_model("gaitbase_tiny", num_classes=3)
        >>> unet = GaitVideoUNet(channels=(8, 16), cond_dim=16, token_dim=12)
        >>> model = CoD2(extractor, unet, token_dim=12)
        >>> output = model(torch.rand(2, 5, 16, 12))
        >>> output.noise_pred.shape, output.x0_pred.shape
        (torch.Size([2, 1, 5, 16, 12]), torch.Size([2, 5, 16, 12]))
        >>> model.eval()(torch.rand(2, 5, 16, 12)).embeddings.shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        extractor: GaitModel,
        denoiser: nn.Module,
        schedule: Any = None,
        t_max: float = 0.4,
        detach_condition: bool = False,
        *,
        token_dim: int = 256,
        control_channels: tuple[int, ...] | None = None,
        frames: int = 16,
        drop: float = 0.1,
        detach_generated: bool = False,
        keep_statistics: bool = True,
    ) -> None:
        super().__init__()
        check_recogniser(extractor)
        check_size(frames=frames, token_dim=token_dim)
        if not 0 <= t_max <= 1:
            raise ValueError(f"expected t_max from 0 to 1, got {t_max!r}")
        if getattr(extractor, "in_channels", 1) != 1:
            raise ValueError(
                f"expected an extractor of one channel, got one of {extractor.in_channels}"
            )
        if control_channels is None:
            found = getattr(denoiser, "channels", None)
            if not isinstance(found, tuple):
                raise ValueError(
                    "expected control_channels for a denoiser without channels, got None; () = no "
                    "appearance and motion"
                )
            control_channels = found
        self.extractor, self.denoiser = extractor, denoiser
        self.schedule, self.sampler = schedule_and_sampler(schedule)
        self.tokens = IdentityTokens(extractor.num_features, extractor.num_parts, token_dim, drop)
        self.control = (
            AppearanceMotionControl(control_channels, drop=drop) if control_channels else None
        )
        self.t_max, self.frames = t_max, frames
        self.detach_condition, self.detach_generated = detach_condition, detach_generated
        self.keep_statistics = keep_statistics
        self.stride = int(getattr(denoiser, "stride", 8))  # pyright: ignore[reportArgumentType]

    def forward(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        timesteps: Tensor | None = None,
        noise: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> CoD2Output | GaitOutput:
        """Returns all that the loss compares, or embeddings."""
        if not self.training:
            return self.extractor(silhouettes, lengths)
        x, lengths = self.extractor.prepare(silhouettes, lengths)
        known: GaitOutput = self.extractor(x[:, 0], lengths)
        seen = self._reference(x, lengths, reference)
        clip, lengths = self._piece(x, lengths)
        signal = frames_to_signal(clip, self.stride)
        if timesteps is None:
            timesteps = self.schedule.draw(len(signal), signal.device)
        noise = standard_normal(signal, None) if noise is None else noise
        target = self.schedule.to_target(signal, noise, timesteps)
        noisy = self.schedule.add_noise(signal, noise, timesteps)
        embeddings = known.embeddings
        tokens = self.tokens(embeddings.detach() if self.detach_condition else embeddings)
        residuals = self._residuals(signal, seen, lengths)
        pred = self._predict(noisy, timesteps, tokens, residuals, lengths)
        clean = self.schedule.predict_x0(noisy, pred, timesteps)
        guessed = signal_to_frames(clean, (clip.shape[3], clip.shape[4]))[:, 0]
        guessed = mask_fill(guessed, lengths, axis=1)
        with _statistics_of(self.extractor, kept=self.keep_statistics):
            again: GaitOutput = self.extractor(
                guessed.detach() if self.detach_generated else guessed, lengths
            )
        early = timesteps < self.t_max * self.schedule.num_steps
        weight = self.schedule.at(timesteps).to(signal.device) * early.to(signal.device)
        return CoD2Output(
            known.embeddings,
            known.logits,
            pred,
            target,
            guessed,
            again.embeddings,
            again.logits,
            weight,
            lengths,
        )

    def _piece(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Consecutive frames of every sequence, from a random one on."""
        count, _, num_frames = x.shape[:3]
        if num_frames <= self.frames:
            return x, lengths
        valid = x.new_full((count,), num_frames, dtype=torch.int64) if lengths is None else lengths
        room = (valid - self.frames).clamp(min=0)
        start = (torch.rand(count, device=x.device) * (room + 1)).long().clamp(max=room)
        rows = start[:, None] + torch.arange(self.frames, device=x.device)
        piece = x[torch.arange(count, device=x.device)[:, None], :, rows].transpose(1, 2)
        return piece, None if lengths is None else valid.clamp(max=self.frames)

    def _reference(self, x: Tensor, lengths: Tensor | None, given: Tensor | None) -> Tensor:
        """A frame of every sequence as a signal, ``[N, 1, H', W']``."""
        count, _, num_frames = x.shape[:3]
        if given is not None:
            if given.shape != (count, *x.shape[-2:]):
                wanted = [count, *x.shape[-2:]]
                raise ValueError(f"expected reference {wanted}, got {shape_of(given)}")
            modality = find_modality("silhouettes")
            frames, _ = modality.prepare(given[:, None], dtype=x.dtype, channels=1)
            return frames_to_signal(frames, self.stride)[:, :, 0]
        valid = num_frames if lengths is None else lengths
        share = torch.rand(count, device=x.device) if self.training else x.new_zeros(count)
        chosen = (share * valid).long()
        return frames_to_signal(
            x[torch.arange(count, device=x.device), :, chosen][:, :, None], self.stride
        )[:, :, 0]

    def _residuals(
        self, signal: Tensor, seen: Tensor, lengths: Tensor | None
    ) -> list[Tensor] | None:
        if self.control is None:
            return None
        pool = _POOL if self.stride % _POOL == 0 else self.stride
        return self.control(seen, coarse_motion(signal, lengths, pool))

    def _predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        tokens: Tensor,
        residuals: list[Tensor] | None,
        lengths: Tensor | None,
    ) -> Tensor:
        others: dict[str, Any] = {} if residuals is None else {"residuals": residuals}
        if lengths is not None:
            others["lengths"] = lengths
        return self.denoiser(noisy, timesteps, tokens=tokens, **others)

    @torch.no_grad()
    def generate(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        steps: int = 50,
        guidance: float = 2.0,
        generator: torch.Generator | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
        *,
        reference: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Makes new walks of the people seen, as long as the given ones.

        Args:
            silhouettes: As for the call: who walks, how they look and coarsely how they move.
            lengths: As for the call.
            steps: Steps of the sampler.
            guidance: How much the identity counts: 1 = as trained, 0 = not at all.
            generator: Source of the noise; ``None`` = torch's own.
            callback: Called after every step with its number and the noisy signals.
            reference: As for the call; ``None`` = the first frame.
            noise: ``[N, 1, T, H', W']`` to begin with; ``None`` = drawn.

        Returns:
            ``[N, T, H, W]`` floats in [0, 1], zeros past the end.

        Raises:
            ValueError: If the model is in training mode, or shapes do not fit.
        """
        if self.training:
            raise ValueError("expected eval mode to generate, got training mode; call .eval()")
        x, lengths = self.extractor.prepare(silhouettes, lengths)
        embeddings = self.extractor(x[:, 0], lengths).embeddings
        signal = frames_to_signal(x, self.stride)
        residuals = self._residuals(signal, self._reference(x, lengths, reference), lengths)
        nobody = torch.ones(len(x), dtype=torch.bool, device=x.device)
        tokens, null = self.tokens(embeddings), self.tokens(embeddings, nobody)
        noise = standard_normal(signal, generator) if noise is None else noise

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            if guidance == 1:
                return self._predict(noisy, timesteps, tokens, residuals, lengths)
            without = self._predict(noisy, timesteps, null, residuals, lengths)
            if guidance == 0:
                return without
            with_tokens = self._predict(noisy, timesteps, tokens, residuals, lengths)
            return guided(without, with_tokens, guidance)

        clean = sample_signal(predict, self.sampler, noise, steps, generator, callback)
        frames = signal_to_frames(clean, (x.shape[3], x.shape[4]))[:, 0]
        return mask_fill(frames, lengths, axis=1)


def cod2(
    extractor: str | GaitModel = "deepgaitv2_p3d",
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    channels: tuple[int, ...] = (64, 128, 256, 256),
    token_dim: int = 256,
    schedule: Any = None,
    **options: Any,
) -> CoD2:
    """A fresh CoD2 around a recogniser.

    Attention over time stands at the two lowest levels.

    Args:
        extractor: Name of a model of silhouettes, built with fresh weights, or a model.
        pretrained: ``True`` raises: there are no weights.
        num_classes: Training identities of an extractor by name; ``None`` = as its tag says.
        channels: Of the denoiser, see :class:`GaitVideoUNet`.
        token_dim: Numbers of a token, and of the denoiser's condition.
        schedule: See :class:`CoD2`.
        **options: Others of :class:`CoD2`.

    Raises:
        PretrainedNotAvailable: If weights are asked for.
        ValueError: If the extractor is unknown, or an argument does not fit.

    Example:
        >>> model = cod2("gaitbase_tiny", channels=(8, 16), token_dim=16, num_classes=4)
        >>> model.extractor.architecture, model.extractor.num_classes
        ('gaitbase', 4)
    """
    refuse_pretrained("CoD2", pretrained)
    if isinstance(extractor, str):
        info = model_info(extractor)
        arguments = dict(info.model_args)
        arguments["num_classes"] = info.num_classes if num_classes is None else num_classes
        built = find_architecture(info.architecture).model_class(**arguments)
    elif num_classes is not None:
        raise ValueError("expected num_classes with the name of an extractor only, got a model")
    else:
        built = extractor
    denoiser = GaitVideoUNet(
        channels=channels,
        cond_dim=token_dim,
        token_dim=token_dim,
        temporal_levels=min(2, len(channels)),
    )
    return CoD2(built, denoiser, schedule, token_dim=token_dim, **options)


@contextmanager
def _statistics_of(model: nn.Module, kept: bool) -> Iterator[None]:
    """Batch norms by their running statistics, for as long as it lasts."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and kept
    ]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
