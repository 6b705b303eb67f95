"""GaitLLM: a frozen language model reads the sentence that a walk's key frames make.

Paper: Bridging Gait Recognition and Large Language Models Sequence Modeling, CVPR 2025
(pp. 3460-3469; S. Yang, J. Wang, S. Hou, X. Liu, C. Cao, L. Wang, Y. Huang). No code of the authors
is known, and nothing of it is contained here.

Differences from upstream: unknown. What is known of the paper is its pipeline: frozen encoder,
spatial tokenizer, peak token finder, motion clip assembler, frozen language model, projector,
maximum over the sentence, one more part beside the encoder's. Everything else is our choice:
marked so in the docstrings here and in those of the blocks, an argument or, where a docstring
states it, fixed without a source. Published numbers are of the authors' model, not of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import check_features
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.sequence import lengths_for
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.gaitllm.cfgs import CFGS, TINY_CFG
from gaitzoo.models.gaitllm.frozen_parts import FrozenPartsModel
from gaitzoo.models.gaitllm.peaks import PeakTokenFinder, PeakTokens
from gaitzoo.models.gaitllm.ready import check_ready, make_llm, token_shape
from gaitzoo.models.gaitllm.sentences import G2LProjector, L2GProjector, RepresentationAggregator
from gaitzoo.models.gaitllm.stage1 import copy_head, make_encoder, map_shape
from gaitzoo.models.gaitllm.tokens import MotionClipAssembler, SpatialTokenizer
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["GaitLLM"]

# A language model that reads this many frames needs no limit: no walk is so long, and a limit
# makes programs exported for any number of frames impossible.
_LONG = 4096


class GaitLLM(FrozenPartsModel):
    """GaitLLM: key frames of a frozen encoder, read by a frozen language model, as one more part.

    Trained are the tokenizer, the assembler, two projectors and the head
    (:meth:`trainable_parameters`). The encoder and the language model never change: no gradients,
    eval mode also under ``.train()``; gradients do pass through the language model. The encoder
    runs without a graph, so its features can be computed once and be kept:
    ``model(features=features, lengths=feature_lengths)``.

    Embeddings are the encoder's parts and, last, one part from the language model, before batch
    norm. Batch norm sits in the head only, so padded batches may be trained on.

    Checkpoints hold what was trained. An encoder or language model that came by name is kept as
    its name and a hash of its weights, which must agree when the checkpoint is loaded; one that
    has no other home (random weights, a module) is saved with the rest.

    Source: CVPR 2025, pp. 3460-3469. What is known and what is our choice is listed at the top of
    this file and in the docstrings of the blocks.

    Args:
        encoder: Stage 1. A name for :func:`gaitzoo.create_model` (also ``local-dir:``,
            ``hf-hub:``), or a module with ``forward_features(silhouettes, lengths)`` that gives
            ``[N, C, T', H', W']`` and lengths; a module is copied. The paper's is DeepGaitV2-P3D
            with 10 layers.
        encoder_args: Structure of the encoder: arguments for its name, or, for saved models and
            modules, what they must have been built with.
        encoder_pretrained: Load the published weights of the encoder's tag.
        save_encoder: Keep the encoder's weights in checkpoints even if they came by name.
        llm: As for :class:`FrozenLLM` (a ready model is frozen in place, not copied), or a
            :class:`FrozenLLM`, in place of the five arguments that follow and ``bos``. The
            paper's is not stated; default is our choice.
        llm_revision: Branch, tag or commit of the language model; ``None`` = the newest. The
            commit that was loaded is saved.
        llm_dtype: ``"float32"``, ``"bfloat16"`` (for GPUs) or ``"float16"``.
        attn_implementation: As for :class:`FrozenLLM`.
        lora: As for :class:`FrozenLLM`; not in the paper. ``lora_dropout`` never acts.
        bos: Put the language model's first word before the sentence (our choice).
        tokenizer: A ready module in place of the :class:`SpatialTokenizer` that the arguments
            below describe, called alike: ``tokenizer(features, lengths)`` gives ``[N, T', S, D]``.
            Ready modules are trained with the rest, as they are, not copied; a model with one has
            a ``state_dict()`` but cannot be saved by :meth:`save_pretrained`.
        finder: A ready module in place of the :class:`PeakTokenFinder`, called alike:
            ``finder(tokens, lengths)`` gives :class:`PeakTokens`.
        assembler: A ready module in place of the :class:`MotionClipAssembler`, called alike:
            ``assembler(tokens, peaks, lengths)`` gives ``[N, K, S, D]``.
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        input_size: Height and width of the frames, pixels.
        token_dim: Width of the tokens (our choice, with the seven below).
        patch_size: Cells of the feature map in a patch.
        num_tokens: Tokens per frame.
        depth: Transformer blocks of the tokenizer.
        num_heads: Heads of tokenizer and assembler.
        mlp_ratio: Hidden width of their MLPs, as a multiple.
        assembler_scope: ``"global"`` or ``"clip"``, see :class:`MotionClipAssembler`.
        assembler_depth: How many times the assembler looks.
        keep_ratio: As for :class:`PeakTokenFinder`, with the four below (all our choice).
        peak_mode: ``"topk_peaks"`` or ``"peaks"``.
        global_token: ``"mean"``, ``"max"`` or ``"learned"``.
        max_keep: Most frames kept; ``None`` = as many as the language model can read (no limit
            for those that read 4096 frames or more).
        keep_similar: Keep frames like the whole; ``False`` = those unlike it.
        l2g_bias: Bias of the projector back (our choice: none).
        aggregation: ``"gmp"``, ``"gap"`` or ``"last"``, see :class:`RepresentationAggregator`.
        part_bins: Numbers of horizontal bands; ``None`` = the encoder's own, or 16.
        embed_dim: Channels of the embeddings; ``None`` = the encoder's own, or 256.
        warm_start_head: Start from the encoder's own head, on all parts but the last. ``None`` =
            if it has one that fits; ``True`` = it must; ``False`` = start afresh. Our choice.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8, or as the encoder takes them.
        lengths: ``[N]`` int64, valid frames (of ``features``, if those are given); ``None`` = all.
        features: ``[N, C, T', H', W']`` from :meth:`forward_features`, instead of silhouettes.
        returns: :class:`GaitOutput` with ``[N, P + 1, embed_dim]`` embeddings.

    Raises:
        ValueError: If an argument has none of the values named here, or the encoder or the
            tokenizer does not fit.
        TypeError: If the encoder has no ``forward_features``, or a ready part is no module.
        OSError: If the language model cannot be loaded.

    Example:
        >>> llm = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 1,
        ...        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
        ...        "vocab_size": 50}
        >>> model = GaitLLM(encoder="gaitbase_tiny", llm=llm, token_dim=8, num_heads=2)
        >>> model.eval()(torch.rand(2, 5, 64, 44), torch.tensor([5, 3])).embeddings.shape
        torch.Size([2, 5, 4])
    """

    architecture = "gaitllm"
    maps_in = "encoder"

    @record_args
    def __init__(
        self,
        *,
        encoder: str | nn.Module = "deepgaitv2_p3d",
        encoder_args: Mapping[str, Any] | None = None,
        encoder_pretrained: bool = False,
        save_encoder: bool = False,
        llm: Any = "Qwen/Qwen2.5-0.5B",
        llm_revision: str | None = None,
        llm_dtype: str | None = None,
        attn_implementation: str | None = None,
        lora: Mapping[str, Any] | None = None,
        bos: bool = True,
        tokenizer: nn.Module | None = None,
        finder: nn.Module | None = None,
        assembler: nn.Module | None = None,
        num_classes: int = 74,
        in_channels: int = 1,
        input_size: tuple[int, int] = (64, 44),
        token_dim: int = 512,
        patch_size: tuple[int, int] = (2, 2),
        num_tokens: int = 1,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        assembler_scope: str = "global",
        assembler_depth: int = 1,
        keep_ratio: float = 0.5,
        peak_mode: str = "topk_peaks",
        global_token: str = "mean",
        max_keep: int | None = None,
        keep_similar: bool = True,
        l2g_bias: bool = False,
        aggregation: str = "gmp",
        part_bins: tuple[int, ...] | None = None,
        embed_dim: int | None = None,
        warm_start_head: bool | None = None,
    ) -> None:
        super().__init__(embedding="before_bn")
        self.encoder = make_encoder(encoder, encoder_args, encoder_pretrained, in_channels)
        self.in_channels = getattr(self.encoder, "in_channels", in_channels)
        channels, *size = map_shape(self.encoder, self.in_channels, input_size)
        self.llm = make_llm(
            llm,
            revision=llm_revision,
            dtype=llm_dtype,
            attn_implementation=attn_implementation,
            bos=bos,
            lora=lora,
        )
        check_ready(tokenizer=tokenizer, finder=finder, assembler=assembler)
        if tokenizer is None:
            tokenizer = SpatialTokenizer(
                channels,
                token_dim,
                feature_size=(size[0], size[1]),
                patch_size=patch_size,
                num_tokens=num_tokens,
                depth=depth,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
            )
        else:
            num_tokens, token_dim = token_shape(tokenizer, channels, (size[0], size[1]))
        if finder is None:
            finder = PeakTokenFinder(
                keep_ratio,
                peak_mode,  # pyright: ignore[reportArgumentType] - checked there
                global_token,  # pyright: ignore[reportArgumentType]
                self._most_frames(num_tokens) if max_keep is None else max_keep,
                largest=keep_similar,
                dim=token_dim if global_token == "learned" else None,
            )
        if assembler is None:
            assembler = MotionClipAssembler(
                token_dim,
                num_heads,
                mlp_ratio,
                assembler_scope,  # pyright: ignore[reportArgumentType]
                assembler_depth,
            )
        self.tokenizer, self.finder, self.assembler = tokenizer, finder, assembler
        self.g2l = G2LProjector(token_dim, self.llm.hidden_size, self.llm.embedding_scale)
        self.l2g = L2GProjector(self.llm.hidden_size, channels, l2g_bias)
        self.aggregator = RepresentationAggregator(aggregation)  # pyright: ignore[reportArgumentType]
        self._build_head(channels, num_classes, part_bins, embed_dim, warm_start_head)
        self._freeze(encoder, encoder_pretrained, save_encoder)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes blocks and the language model's layers again in the backward pass."""
        super().set_grad_checkpointing(enable)
        self.llm.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """See :meth:`GaitModel.no_weight_decay`; tokens and positions neither."""
        learned = {"tokenizer.token", "tokenizer.positions"}
        return super().no_weight_decay() | (learned & {name for name, _ in self.named_parameters()})

    @torch.no_grad()
    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the frozen encoder's map, without a graph, and its valid frames.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
        """
        if not isinstance(self.encoder, GaitModel):
            silhouettes, lengths = self.prepare(silhouettes, lengths)
        return self.encoder.forward_features(silhouettes, lengths)  # pyright: ignore[reportCallIssue]

    def forward_tokens(
        self, features: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, PeakTokens]:
        """Returns the tokens of all frames ``[N, T', S, D]`` and which frames were kept.

        Args:
            features: ``[N, C, T', H', W']`` from :meth:`forward_features`.
            lengths: ``[N]``, the valid T'.
        """
        tokens = self.run(self.tokenizer, features.to(self.part_fc.weight.dtype), lengths)
        return tokens, self.finder(tokens, lengths)

    def forward_sentence(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns what the language model makes of a walk, ``[N, C]``.

        Args:
            features: ``[N, C, T', H', W']`` from :meth:`forward_features`.
            lengths: ``[N]``, the valid T'.
        """
        tokens, peaks = self.forward_tokens(features, lengths)
        if isinstance(self.finder, PeakTokenFinder):
            tokens = self.finder.weigh(tokens, peaks)
        clips = self.run(self.assembler, tokens, peaks, lengths)
        sentence = self.g2l(rearrange(clips, "n k s d -> n (k s) d"))
        count = peaks.lengths * clips.shape[2]
        return self.aggregator(self.l2g(self.llm(sentence, count), count), count)

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools the encoder's parts, adds the language model's and embeds every part."""
        sentence = self.forward_sentence(features, lengths)
        bands = self.temporal_pool(features.to(self.part_fc.weight.dtype), lengths)
        parts = torch.cat([self.part_pool(bands), sentence[:, None].to(bands.dtype)], dim=1)
        parts = self.part_fc(parts)
        return GaitOutput(embeddings=parts, logits=self.neck(parts)[1])

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - silhouettes may be left out
        self,
        silhouettes: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> GaitOutput:
        """Embeds a batch of sequences, or of features kept from :meth:`forward_features`."""
        return self.forward_head(*self._features(silhouettes, lengths, features))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **load_args: Any) -> Self:
        """As for every model; ``llm=`` names the place where the language model lies now.

        It must be the one that the model was trained with, as its hash tells.

        Args:
            name_or_path: A folder on disk or a Hub repository ``org/name``.
            **load_args: As for every model.

        Raises:
            OSError: If the language model cannot be loaded.
            ValueError: As for every model, or if the language model has other weights.
        """
        if "llm" in load_args:
            # The commit that was saved is one of the other place.
            load_args.setdefault("llm_revision", None)
        return super().from_pretrained(name_or_path, **load_args)

    @torch.no_grad()
    def find_peaks(
        self,
        silhouettes: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> PeakTokens:
        """Which frames the language model gets to read, and the score of every frame.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
            features: As for the model's call.

        Raises:
            ValueError: If silhouettes and features are given, or neither.
        """
        features, lengths = self._features(silhouettes, lengths, features)
        return self.forward_tokens(features, lengths)[1]

    def _features(
        self, silhouettes: Tensor | None, lengths: Tensor | None, features: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if (silhouettes is None) == (features is None):
            raise ValueError("expected silhouettes or features, one of the two")
        if silhouettes is not None:
            features, lengths = self.forward_features(silhouettes, lengths)
        assert features is not None
        check_features(features, self.l2g.linear.out_features)
        return features, lengths_for(lengths, features)

    def _most_frames(self, num_tokens: int) -> int | None:
        longest = self.llm.max_tokens
        if longest is None or longest >= _LONG * num_tokens:
            return None
        return longest // num_tokens

    def _build_head(
        self,
        channels: int,
        num_classes: int,
        part_bins: tuple[int, ...] | None,
        embed_dim: int | None,
        warm: bool | None,
    ) -> None:
        own_pool = getattr(self.encoder, "part_pool", None)
        own_neck = getattr(self.encoder, "neck", None)
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(
            tuple(part_bins or getattr(own_pool, "part_bins", (16,)))
        )
        self.num_parts = self.part_pool.num_parts + 1
        self.num_features = embed_dim or getattr(self.encoder, "num_features", 256)
        self.part_fc = PartLinear(self.num_parts, channels, self.num_features)
        self.neck = PartBNNeck(
            self.num_parts, self.num_features, num_classes, getattr(own_neck, "order", "channel")
        )
        assert isinstance(self.neck, PartBNNeck)
        copy_head(self.encoder, self.part_pool.part_bins, self.part_fc, self.neck, warm=warm)


# Encoders whose tags have another depth than the paper's baseline.
_DEPTH_OPEN = ("deepgaitv2_p3d", "deepgaitv2_3d", "deepgaitv2_2d")


def _gaitllm(**model_args: Any) -> GaitLLM:
    """GaitLLM on DeepGaitV2-P3D with 10 layers; tags: ``gait3d`` (default) and others.

    Args:
        **model_args: Arguments of :class:`GaitLLM`. An encoder named ``deepgaitv2_...`` gets 10
            layers if ``encoder_args`` is left out; ``encoder_args={}`` = as many as its tag says.
    """
    encoder = model_args.get("encoder", "deepgaitv2_p3d")
    if isinstance(encoder, str) and encoder.partition(".")[0] in _DEPTH_OPEN:
        model_args.setdefault("encoder_args", {"layers": (1, 1, 1, 1)})
    return GaitLLM(**model_args)


register_model(
    "gaitllm",
    _gaitllm,
    CFGS,
    tiny=TINY_CFG,
)
