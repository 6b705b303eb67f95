"""What CoD2 gives in training, and the loss that compares it.

Paper: https://arxiv.org/abs/2511.06245; a reconstruction, see :mod:`gaitzoo.models.cod2`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.video_diffusion import clip_errors

__all__ = ["CoD2Loss", "CoD2Output"]


class CoD2Output(NamedTuple):
    """What :class:`CoD2` gives in training, of N sequences.

    Attributes:
        embeddings: ``[N, P, C]`` of the true silhouettes.
        logits: ``[N, P, K]``; ``None`` without classes.
        noise_pred: ``[N, 1, T', H', W']``, what the network says of the noisy clips.
        noise_target: ``[N, 1, T', H', W']``, what it should say.
        x0_pred: ``[N, T', H, W]`` in [0, 1], silhouettes as they were guessed in one step.
        gen_embeddings: ``[N, P, C]`` of the guessed silhouettes.
        gen_logits: ``[N, P, K]``; ``None`` without classes.
        gen_weight: ``[N]`` in [0, 1], how much the guess counts; 0 = it came from too much noise.
        lengths: ``[N]``, valid frames of the clips; ``None`` = all T'.
    """

    embeddings: Tensor
    logits: Tensor | None
    noise_pred: Tensor
    noise_target: Tensor
    x0_pred: Tensor
    gen_embeddings: Tensor
    gen_logits: Tensor | None
    gen_weight: Tensor
    lengths: Tensor | None


class CoD2Loss(nn.Module):
    """Triplet and cross-entropy of true silhouettes, error of the noise, both again of guesses.

    ``triplet + entropy + lambda_diff * error + lambda_gen * (triplet + entropy of guesses)``.
    Guesses with a weight of 0 are left out; of the others each gets its weight's share of the
    gradient, while the value is that of equal weights. Where they are of one person alone, they
    have no triplets. Set ``lambda_gen`` to 0 for the first steps: guesses are nobody then.

    Source: https://arxiv.org/abs/2511.06245; all weights are inferred, margin and scale are those
    of the recognisers.

    Args:
        lambda_diff: Weight of the error, 0 or more.
        lambda_gen: Weight of what guesses cost, 0 or more.
        mix: Compare guesses with true embeddings too, in one set of triplets.
        triplet: Loss on embeddings; ``None`` = :class:`PartTripletLoss` with margin 0.2.
        entropy: Loss on logits; ``None`` = :class:`PartCrossEntropyLoss` with scale 16.

    Shapes:
        output: :class:`CoD2Output`.
        labels: ``[N]`` int64, at least two identities.
        returns: ``[]``.

    Raises:
        TypeError: If labels are no integers, or the model was in eval mode.
        ValueError: If a weight is below 0, or labels do not fit.

    Example:
        >>> parts, clip = torch.rand(4, 2, 8), torch.zeros(4, 1, 3, 4, 4)
        >>> output = CoD2Output(
        ...     parts, None, clip, clip, clip[:, 0], parts, None, torch.zeros(4), None
        ... )
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> torch.equal(CoD2Loss()(output, labels), PartTripletLoss()(parts, labels))
        True
    """

    def __init__(
        self,
        lambda_diff: float = 1.0,
        lambda_gen: float = 0.1,
        mix: bool = False,
        *,
        triplet: nn.Module | None = None,
        entropy: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("lambda_diff", lambda_diff), ("lambda_gen", lambda_gen)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"expected {name} of 0 or more, got {weight!r}")
        self.lambda_diff, self.lambda_gen, self.mix = lambda_diff, lambda_gen, mix
        self.triplet = PartTripletLoss(0.2) if triplet is None else triplet
        self.entropy = PartCrossEntropyLoss(16.0) if entropy is None else entropy

    def forward(self, output: CoD2Output, labels: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        terms = self.terms(output, labels)
        loss = terms["recognition"] + self.lambda_diff * terms["diffusion"]
        return loss + self.lambda_gen * terms["generated"] if self.lambda_gen else loss

    def terms(self, output: CoD2Output, labels: Tensor) -> dict[str, Tensor]:
        """The three sums by name, each ``[]``, before their weights.

        ``generated`` is 0 where ``lambda_gen`` is.

        Args:
            output: See the class.
            labels: See the class.
        """
        if not isinstance(output, CoD2Output):
            raise TypeError(
                f"expected a CoD2Output, got {type(output).__name__}; call .train() on the model"
            )
        errors = clip_errors(output.noise_pred, output.noise_target, output.lengths)
        recognition = self.triplet(output.embeddings, labels)
        if output.logits is not None:
            recognition = recognition + self.entropy(output.logits, labels)
        generated = recognition.new_zeros(())
        counted = (output.gen_weight > 0).nonzero()[:, 0]
        if self.lambda_gen and len(counted):
            generated = self._generated(output, labels.to(counted.device), counted)
        return {"recognition": recognition, "diffusion": errors.mean(), "generated": generated}

    def _generated(self, output: CoD2Output, labels: Tensor, counted: Tensor) -> Tensor:
        weight = output.gen_weight[counted, None, None]

        def share(x: Tensor) -> Tensor:
            """The guesses, with their shares of the gradient."""
            x = x[counted]
            return x.detach() + weight.to(x.dtype) * (x - x.detach())

        embeddings, owners = share(output.gen_embeddings), labels[counted]
        compared, names = embeddings, owners
        if self.mix:
            compared = torch.cat([output.embeddings, embeddings])
            names = torch.cat([labels, owners])
        loss = embeddings.sum() * 0
        if bool((names != names[0]).any()):
            loss = self.triplet(compared, names)
        if output.gen_logits is not None:
            loss = loss + self.entropy(share(output.gen_logits), owners)
        return loss
