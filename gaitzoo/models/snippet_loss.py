"""Training of GaitSnippet: what the model gives, and the loss of walks and their snippets.

Source: GaitSnippet (https://arxiv.org/abs/2508.07782), rebuilt from notes on the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.outputs import GaitOutput

__all__ = ["SnippetLoss", "SnippetOutput"]


@dataclass(frozen=True, slots=True)
class SnippetOutput(GaitOutput):
    """What :class:`gaitzoo.GaitSnippet` gives in training: vectors of walks and of their snippets.

    Iterating gives the embeddings and logits of the walks alone, as of any output.

    Args:
        embeddings: ``[N, P, C]``, of the walks.
        logits: ``[N, P, K]``, or ``None`` without classes.
        snippet_embeddings: ``[S, P, C]``, of all snippets with a frame, walk by walk.
        snippet_logits: ``[S, P, K]``, or ``None`` without classes.
        snippet_index: ``[S]`` int64, the walk of each snippet, 0 to N - 1.

    Example:
        >>> import gaitzoo, torch
        >>> model = gaitzoo.create_model("gaitsnippet_tiny").train()
        >>> output = model(torch.rand(2, 8, 16, 12))
        >>> output.embeddings.shape, output.snippet_embeddings.shape
        (torch.Size([2, 4, 4]), torch.Size([8, 4, 4]))
    """

    snippet_embeddings: Tensor | None = field(default=None, kw_only=True)
    snippet_logits: Tensor | None = field(default=None, kw_only=True)
    snippet_index: Tensor | None = field(default=None, kw_only=True)

    def to(self, *args: Any, **kwargs: Any) -> SnippetOutput:
        """The same on another device or in another type of numbers, as ``Tensor.to``.

        Args:
            *args: As for ``Tensor.to``.
            **kwargs: As for ``Tensor.to``.
        """

        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(*args, **kwargs)

        embeddings = self.embeddings.to(*args, **kwargs)
        index = self.snippet_index
        return SnippetOutput(
            embeddings,
            logits=moved(self.logits),
            snippet_embeddings=moved(self.snippet_embeddings),
            snippet_logits=moved(self.snippet_logits),
            # Numbers of walks stay whole whatever the type of the vectors.
            snippet_index=None if index is None else index.to(embeddings.device),
        )


class SnippetLoss(nn.Module):
    """Triplet loss and cross-entropy of walks, plus the same of their snippets.

    ``L = triplet + entropy + alpha * (triplet* + entropy*)``. The starred terms take every snippet
    as a sample of its walk's identity.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), rebuilt from notes, with the usual
    losses of the field.

    Args:
        alpha: Weight of the snippets, 0 or more; 0 = the walks alone, of any model.
        triplet: Of ``[N, P, C]`` and labels; ``None`` = :class:`gaitzoo.losses.PartTripletLoss`
            with margin 0.2.
        cross_entropy: Of ``[N, P, K]`` and labels; ``None`` =
            :class:`gaitzoo.losses.PartCrossEntropyLoss` with scale 16 and smoothing 0.1.

    Shapes:
        output: What :class:`gaitzoo.GaitSnippet` gives in training mode.
        labels: ``[N]`` int64, identities of the walks, at least two different ones.
        returns: ``[]``.

    Raises:
        ValueError: If ``alpha`` is below 0, there are no logits, or there are no snippets and
            ``alpha`` is above 0; or as the two losses say.

    Example:
        >>> import gaitzoo, torch
        >>> model = gaitzoo.create_model("gaitsnippet_tiny").train()
        >>> SnippetLoss()(model(torch.rand(2, 8, 16, 12)), torch.tensor([0, 2])).shape
        torch.Size([])
    """

    def __init__(
        self,
        alpha: float = 0.75,
        triplet: nn.Module | None = None,
        cross_entropy: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"expected an alpha of 0 or more, got {alpha}")
        self.alpha = alpha
        self.triplet = PartTripletLoss() if triplet is None else triplet
        self.cross_entropy = PartCrossEntropyLoss() if cross_entropy is None else cross_entropy

    def forward(self, output: GaitOutput, labels: Tensor) -> Tensor:
        """Returns the loss of one batch."""
        loss = self._of(output.embeddings, output.logits, labels)
        if self.alpha == 0:
            return loss
        if not isinstance(output, SnippetOutput) or output.snippet_index is None:
            raise ValueError(
                "expected the output of a GaitSnippet in training mode, got "
                f"{type(output).__name__} without snippets; call model.train(), build the model "
                "with a snippet branch, or take alpha=0"
            )
        assert output.snippet_embeddings is not None
        of_snippets = labels.to(output.snippet_index.device)[output.snippet_index]
        vectors, logits = output.snippet_embeddings, output.snippet_logits
        return loss + self.alpha * self._of(vectors, logits, of_snippets)

    def _of(self, embeddings: Tensor, logits: Tensor | None, labels: Tensor) -> Tensor:
        if logits is None:
            raise ValueError(
                "expected an output with logits, got None; build the model with num_classes"
            )
        return self.triplet(embeddings, labels) + self.cross_entropy(logits, labels)

    def extra_repr(self) -> str:
        """Shows the options when printed."""
        return f"alpha={self.alpha}"
