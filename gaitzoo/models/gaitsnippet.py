"""GaitSnippet: gait recognition beyond unordered sets and ordered sequences (ICLR 2026).

Paper: https://arxiv.org/abs/2508.07782. No code and no weights were found. This is a reconstruction
from the abstract and from others' notes on the paper: the authors' numbers are not to be expected.

Differences from upstream are unknown.

What is inferred, as an argument or said at its block: layer 1 without snippets, the norm and the
ReLU of the snippet block, matrices and neck of its own for the snippet branch, the bands of the
head, the short segment at the end of a walk. The sampler is :class:`gaitzoo.SnippetSampler`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask
from gaitzoo.layers.snippets import SnippetBackbone, check_snippets, snippet_pool
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.snippet_loss import SnippetOutput

__all__ = ["GaitSnippet"]

_PAPER = "https://arxiv.org/abs/2508.07782"
_HEADS = ("own", "shared", "none")


class GaitSnippet(MaxPooled):
    """GaitSnippet: a walk as a set of snippets, each a set of frames of one gait cycle.

    A residual network on frames, in the last three layers of which every frame also gets what its
    snippet has in common; then the maximum over all frames, horizontal bands and a BN neck. In
    training, the snippets are embedded too, by a branch that :class:`SnippetLoss` needs: a loop
    with another loss takes ``snippet_head="none"``.

    Which frames are a snippet: in eval mode every ``segment`` frames from the first on; in training
    mode every ``frames_per_snippet``, as :class:`gaitzoo.SnippetSampler` draws them; or what
    ``snippet_ids`` says. The order of frames in a snippet, and of whole snippets, never matters.

    Source: https://arxiv.org/abs/2508.07782; what is inferred is listed at the top of this file.
    Batch-norm statistics see what is in the batch: train on clips of equal length, which the
    sampler gives.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input; other than one for other modalities.
        layers: Blocks of each of the four layers.
        channels: Widths of the layers.
        embed_dim: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        snippet_stages: Numbers of the layers, from 1, that have snippet blocks.
        segment: Frames of a snippet in eval mode, about a gait cycle.
        frames_per_snippet: Frames of a snippet in training mode.
        snippet_head: What embeds the snippets in training: ``"own"`` matrices and neck, those of
            the walks (``"shared"``), or nothing (``"none"``).

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any
            number of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        snippet_ids: ``[N, T]`` int64, the snippet of each valid frame from 0 on, in any order;
            ``None`` = as the mode says.
        returns: :class:`GaitOutput` with ``embeddings [N, P, embed_dim]``; in training mode
            :class:`SnippetOutput`.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = GaitSnippet(num_classes=0, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> model(torch.rand(2, 40, 64, 44), lengths=torch.tensor([40, 1])).embeddings.shape
        torch.Size([2, 16, 256])
    """

    architecture = "gaitsnippet"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        embed_dim: int = 256,
        part_bins: tuple[int, ...] = (16,),
        snippet_stages: tuple[int, ...] = (2, 3, 4),
        segment: int = 16,
        frames_per_snippet: int = 8,
        snippet_head: str = "own",
    ) -> None:
        if snippet_head not in _HEADS:
            raise ValueError(
                f'expected snippet_head "own", "shared" or "none", got {snippet_head!r}'
            )
        check_size(segment=segment, frames_per_snippet=frames_per_snippet)
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.segment, self.frames_per_snippet = segment, frames_per_snippet
        self.snippet_head = snippet_head
        self.backbone = SnippetBackbone(layers, channels, in_channels, snippet_stages)
        self.build_head(channels[-1], embed_dim, part_bins, num_classes)
        self.snippet_fc: PartLinear | None = None
        self.snippet_neck: PartBNNeck | None = None
        if snippet_head == "own":
            self.snippet_fc = PartLinear(self.num_parts, channels[-1], embed_dim)
            self.snippet_neck = PartBNNeck(self.num_parts, embed_dim, 0, order="channel")
        self._add_snippet_classes()
        init_weights(self)

    def reset_classifier(self, num_classes: int) -> None:
        """See :meth:`GaitModel.reset_classifier`; the snippets' classifier is replaced, too."""
        super().reset_classifier(num_classes)
        self._add_snippet_classes()

    def _add_snippet_classes(self) -> None:
        """Puts the snippets' class matrices inside the walks': both come and go together."""
        classifier = self.neck.classifier
        if self.snippet_neck is not None and classifier is not None:
            classes = PartLinear(self.num_parts, self.num_features, self.num_classes, True)
            classifier.add_module("snippets", classes.to(classifier.weight))

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: pieces begin where segments do."""
        return 0, self.segment

    def forward_features(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        snippet_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
            snippet_ids: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T, H / 4, W / 4]`` (both rounded up) and ``lengths``.
            What stands past the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        snippets = self._snippets(x, lengths, snippet_ids)
        return self.backbone(x, lengths, self.run, snippets), lengths

    def forward_snippets(
        self,
        features: Tensor,
        lengths: Tensor | None = None,
        snippet_ids: Tensor | None = None,
    ) -> SnippetOutput:
        """Embeds the walks and every snippet: what the model gives in training mode.

        Args:
            features: From :meth:`forward_features`.
            lengths: From :meth:`forward_features`.
            snippet_ids: What :meth:`forward_features` was given.

        Raises:
            ValueError: If the model has no snippet branch.
        """
        if self.snippet_head == "none":
            raise ValueError('expected a model with a snippet branch, got snippet_head="none"')
        snippets = self._snippets(features, lengths, snippet_ids)
        pooled, valid = snippet_pool(features, snippets, lengths)
        parts = self.part_pool(pooled.transpose(1, 2)[valid])
        if self.snippet_fc is None or self.snippet_neck is None:
            found = self.embed_parts(parts)
            vectors, logits = found.embeddings, found.logits
        else:
            vectors = self.snippet_fc(parts)
            after_bn, _ = self.snippet_neck(vectors)
            classifier = self.neck.classifier
            classes = None if classifier is None else classifier.get_submodule("snippets")
            logits = None if classes is None else classes(after_bn)
        walks = self.forward_head(features, lengths)
        return SnippetOutput(
            walks.embeddings,
            logits=walks.logits,
            snippet_embeddings=vectors,
            snippet_logits=logits,
            snippet_index=valid.nonzero()[:, 0],
        )

    def forward(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        snippet_ids: Tensor | None = None,
    ) -> GaitOutput:
        """Embeds a batch of sequences; see the class for shapes and ranges."""
        features, lengths = self.forward_features(silhouettes, lengths, snippet_ids)
        if self.training and self.snippet_head != "none":
            return self.forward_snippets(features, lengths, snippet_ids)
        return self.forward_head(features, lengths)

    def _snippets(
        self, x: Tensor, lengths: Tensor | None, snippet_ids: Tensor | None
    ) -> Tensor | int:
        """Snippets for the blocks; raises if a valid frame is in none."""
        if snippet_ids is None:
            return self.frames_per_snippet if self.training else self.segment
        num_frames = x.shape[2]
        check_snippets(snippet_ids, x.shape[0], num_frames)
        numbers = snippet_ids.to(x.device, torch.int64)
        lengths = lengths_for(lengths, x)
        if lengths is not None:
            numbers = numbers.masked_fill(~lengths_to_mask(lengths, num_frames), -1)
        without = numbers.ge(0).sum(1) < (num_frames if lengths is None else lengths)
        if bool(without.any()):
            raise ValueError(
                "expected a snippet for every valid frame, got -1 for some; put padded frames at "
                "the end and pass lengths"
            )
        return numbers


def _cfg(num_classes: int, **fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="reconstruction",
        num_classes=num_classes,
        license="none: no weights exist",
        paper=_PAPER,
        unavailable=(
            "the authors have published neither code nor weights. Train the model yourself "
            "(docs/gaitsnippet.md), or load a file that you have with checkpoint_path=..."
        ),
        notes=(
            "Rebuilt from the abstract and from notes on the paper: the published numbers are "
            "the authors' and not to be expected of this code."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


_CFGS = {
    "gait3d": _cfg(
        3000,
        training_data="Gait3D, 3000 subjects",
        metrics={
            "rank1": 77.5,
            "mAP": 69.4,
            "protocol": "Gait3D probe list against the rest; mAP reported by others",
        },
    ),
    "grew": _cfg(
        20000,
        training_data="GREW, 20000 subjects",
        metrics={
            "rank1": 81.7,
            "rank5": 90.9,
            "protocol": "GREW test set, scored by its server; rank5 reported by others",
        },
    ),
    "ccpg": _cfg(
        100,
        training_data="CCPG, 100 subjects",
        metrics={"average": 95.1, "protocol": "CCPG, mean of its conditions; reported by others"},
    ),
}
_TINY = PretrainedCfg(
    num_classes=5,
    model_args={
        "layers": (1, 2, 1, 1),
        "channels": (2, 3, 4, 5),
        "embed_dim": 4,
        "part_bins": (4,),
        "segment": 4,
        "frames_per_snippet": 2,
    },
    input_size=(16, 12),
)
register_model("gaitsnippet", GaitSnippet, _CFGS, tiny=_TINY)
