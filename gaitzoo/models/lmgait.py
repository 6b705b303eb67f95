"""LMGait: descriptions of gait lead a network to the moving regions (AAAI 2026; a reconstruction).

Paper: https://arxiv.org/abs/2601.11931. A reconstruction from the abstract and the README of the
authors: no code was read, nothing of it is contained here, and no number of theirs is to be
expected. From them: a frozen DINOv2, a frozen text encoder with a small trained module behind it
(motion awareness), several streams (representation extractor), a module for changes of posture
(motion temporal capture), a gait network. [inferred]: that the trunk is BigGait's, the words of the
prompts, every equation, where language enters, and all sizes. Not contained: the losses on mask and
streams, and the training of the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD
from gaitzoo.layers.checks import check_size, check_sizes
from gaitzoo.layers.language import LanguageGuidedAttention, MotionAwareness
from gaitzoo.layers.motion import MotionTemporalCapture
from gaitzoo.layers.sequence import lengths_to_mask, to_frames, to_sequences
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.base import record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.colour_model import layer_norm_maps, resized
from gaitzoo.models.person_streams import StreamModel
from gaitzoo.models.prompt_bank import CLOTHING_PROMPTS, GAIT_PROMPTS, TextPromptBank
from gaitzoo.models.registry import register_model

__all__ = ["LMGait"]

_PAPER = "https://arxiv.org/abs/2601.11931"


class LMGait(StreamModel):
    """LMGait, a reconstruction: BigGait's trunk, led by descriptions and aware of motion.

    Source: https://arxiv.org/abs/2601.11931, abstract and README; what is inferred is said at the
    top of this file. What is seen of the person in the whole clip chooses between layers of the
    text encoder, the prompts then raise DINOv2's features where they fit, and two narrow maps of
    these go through :class:`MotionTemporalCapture` into the gait network. DINOv2 and the mask of
    the person are frozen, text features are buffers; without files, all three are random.

    Args:
        num_classes: Training identities; 0 = no classifier.
        encoder: DINOv2, see :class:`BigGait`, and so for the next four.
        encoder_pretrained: Load DINOv2's weights by its name from the Hub (network, once).
        chunk_frames: Most frames whose features are computed at a time in eval mode.
        image_size: Height and width of the images that DINOv2 sees, pixels.
        encoder_layers: The blocks of DINOv2 that are read, counted from 0.
        prompts: Texts that say what to look at, or a bank with all features; the words are
            [inferred].
        suppressed: Texts that say what to look away from [inferred]; a bank knows its own.
        text_encoder: Name of CLIP on the Hub.
        text_pretrained: Read the texts with that encoder now (network, once); it is not kept. A
            bank needs none.
        text_levels: Layers of the text encoder, counted from 1 [inferred].
        text_channels: Channels of its states; a bank knows.
        dim: Channels in which maps and texts are compared [inferred].
        bottleneck: Channels inside :class:`MotionAwareness`; ``None`` = a quarter of ``dim``.
        zero_init: See :class:`MotionAwareness`.
        guided: What the streams are read from: ``"replace"``, the guided map, or ``"concat"``,
            DINOv2's blocks beside it [inferred].
        lags: See :class:`MotionTemporalCapture`; ``()`` = without it, frames then never see each
            other but through the choice of layers.
        hidden: Channels between the matrices of the denoising branch; 0 = one matrix.
        stream_channels: Channels of the two maps.
        stream_drop_rate: Share of sequences, in training, of which one of the two maps is zeroed.
        channels: Widths of the residual layers.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide the rows of the last map.

    Shapes:
        rgb: ``[N, 3, T, H, W]`` with H = 2 W, ImageNet-normalised floats, or uint8 0..255, which
            the model normalises. With ``encoder=None``: ``features`` ``[N, F, T, 32, 16]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`AuxOutput` with ``embeddings [N, P, part_channels]`` and ``logits``,
            cosines; ``aux`` has ``language_maps`` ``[N, K, T, 64, 32]`` in (0, 1) (zeros past the
            end), ``text_tokens`` and ``pooled`` ``[N, K, dim]`` (see
            :class:`LanguageAlignmentLoss`), ``level_gates`` ``[N, K, L]``, and ``stream``
            ``[N, stream_channels, T, 64, 32]``, the map of the denoising branch (see
            :class:`StreamDiversityLoss`).

    Raises:
        ValueError: If an argument has none of the values named here.
        OSError: If weights are asked for and cannot be loaded.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("lmgait_tiny").eval()
        >>> output = model(torch.rand(2, 3, 5, 16, 8))
        >>> output.embeddings.shape, output.aux["language_maps"].shape
        (torch.Size([2, 4, 4]), torch.Size([2, 3, 5, 16, 8]))
    """

    architecture = "lmgait"
    modalities = ("rgb",)

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 100,
        encoder: str | Mapping[str, Any] | None = "facebook/dinov2-small",
        encoder_pretrained: bool = False,
        chunk_frames: int = 96,
        image_size: tuple[int, int] = (448, 224),
        encoder_layers: tuple[int, ...] = (2, 5, 8, 11),
        prompts: tuple[str, ...] | TextPromptBank = GAIT_PROMPTS,
        suppressed: tuple[str, ...] = CLOTHING_PROMPTS,
        text_encoder: str = "openai/clip-vit-base-patch16",
        text_pretrained: bool = False,
        text_levels: tuple[int, ...] = (4, 8, 12),
        text_channels: int = 512,
        dim: int = 384,
        bottleneck: int | None = None,
        zero_init: bool = True,
        guided: Literal["replace", "concat"] = "replace",
        lags: tuple[int, ...] = (1, 2),
        hidden: int = 768,
        stream_channels: int = 16,
        stream_drop_rate: float = 0.2,
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16,),
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.embedding = "fc"
        check_size(dim=dim)
        if guided not in ("replace", "concat"):
            raise ValueError(f'expected guided "replace" or "concat", got {guided!r}')
        if not 0 <= stream_drop_rate <= 1:
            raise ValueError(f"expected a stream_drop_rate of 0 to 1, got {stream_drop_rate!r}")
        self.guided, self.stream_drop_rate = guided, stream_drop_rate
        bank = _bank(prompts, suppressed, text_encoder, text_pretrained, text_levels, text_channels)
        joined = self.build_eyes(
            encoder, encoder_pretrained, chunk_frames, image_size, encoder_layers
        )
        self.prompt_bank = bank
        read = dim if guided == "replace" else joined + dim
        self.build_streams(self.width, read, stream_channels, hidden)
        self.attention = LanguageGuidedAttention(joined, dim)
        levels, _, width = bank.features.shape
        self.awareness = MotionAwareness(width, dim, levels, bottleneck, zero_init)
        self.build_gait_network(stream_channels, channels)
        self.motions = nn.ModuleList(
            MotionTemporalCapture(channels[0], lags) for _ in range(2 if len(lags) else 0)
        )
        self.build_head(channels[3], part_channels, part_bins, num_classes)
        # What builds it again when texts came as a bank.
        self.model_args = {
            **self.model_args,
            "prompts": bank.prompts,
            "suppressed": bank.suppressed,
            "text_channels": width,
        }
        self.freeze(until="denoising")

    def config_args(self) -> dict[str, Any]:
        """See :meth:`GaitModel.config_args`: features of texts are saved with the rest."""
        return {**super().config_args(), "text_pretrained": False}

    def temporal_reach(self) -> None:
        """See :meth:`GaitModel.temporal_reach`: the whole clip chooses the text features."""

    def forward_features(
        self, silhouettes: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: Colours or features, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, h / 4, w / 4]`` and ``lengths``. What stands past the
            end of a sequence holds no meaning.
        """
        x, lengths, _ = self._maps(silhouettes, lengths)
        return x, lengths

    def forward(self, silhouettes: Any, lengths: Tensor | None = None) -> AuxOutput:
        """Embeds a batch of sequences; see the class."""
        x, lengths, aux = self._maps(silhouettes, lengths)
        output = self.forward_head(x, lengths)
        return AuxOutput(output.embeddings, logits=output.logits, aux=aux)

    def _maps(
        self, silhouettes: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        x, lengths = self.prepare(silhouettes, lengths)
        features = to_sequences(self._see(to_frames(x)), x.shape[0])
        projected, seen, context = self._look(features, lengths)
        tokens, gates = self.awareness(self.prompt_bank.features, context)
        streams, aux = self._read(features, projected, seen, tokens)
        if lengths is not None:
            valid = lengths_to_mask(lengths, x.shape[2])[:, None, :, None, None]
            aux["language_maps"] = aux["language_maps"].masked_fill(~valid, 0)
        aux["stream"] = streams[0]
        if self.training:
            streams = self._without_some(streams)
        maps = [
            stem(stream, lengths, self.run)
            for stem, stream in zip((self.part_stem, self.appearance_stem), streams, strict=True)
        ]
        for i, motion in enumerate(self.motions):
            maps[i] = self.run(motion, maps[i], lengths)
        frames = to_frames(self.run(self.fusion, *maps))
        for block in self.blocks:
            frames = self.run(block, frames)
        aux |= {"text_tokens": tokens, "level_gates": gates}
        return to_sequences(frames, x.shape[0]), lengths, aux

    def _look(self, features: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The projected map (not resized), the person's pixels, and the map's mean over them."""
        projected, seen, totals = [], [], []
        valid = None if lengths is None else lengths_to_mask(lengths, features.shape[2])
        for start, piece in self._pieces(features):
            blocks, normed = self.taken_apart(piece)
            found = self.attention.project(layer_norm_maps(blocks))
            person = self._resized(normed, self.foreground)
            if valid is not None:
                person = person & valid[:, None, start : start + piece.shape[2], None, None]
            inside = torch.where(person, self._resized(found), 0)
            projected.append(found)
            seen.append(person)
            totals.append(inside.sum((2, 3, 4), dtype=_wide(inside)))
        people = torch.cat(seen, dim=2)
        total = torch.stack(totals).sum(0)
        context = total / people.sum((2, 3, 4)).clamp(min=1)
        return torch.cat(projected, dim=2), people, context.to(features.dtype)

    def _read(
        self, features: Tensor, projected: Tensor, seen: Tensor, tokens: Tensor
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Both streams of the guided map, the maps of the prompts and what they show."""
        streams, maps, shown, weights = ([], []), [], [], []
        for start, small in self._pieces(projected):
            stop = start + small.shape[2]
            person, raised = seen[:, :, start:stop], self._resized(small)
            guided, found = self.attention.guide(raised, tokens, self.prompt_bank.signs)
            if self.guided == "concat":
                blocks, _ = self.taken_apart(features[:, :, start:stop])
                guided = torch.cat([self._resized(layer_norm_maps(blocks)), guided], dim=1)
            read = self.streams(to_frames(guided), to_frames(person))
            for stream, frames in zip(streams, read, strict=True):
                stream.append(to_sequences(frames, features.shape[0]))
            inside = torch.where(person, found, 0).flatten(2)
            shown.append(inside.to(raised.dtype) @ raised.flatten(2).transpose(1, 2))
            weights.append(inside.sum(2, keepdim=True, dtype=_wide(inside)))
            maps.append(found)
        total = torch.stack(weights).sum(0).clamp(min=1e-6)
        pooled = torch.stack(shown).sum(0, dtype=_wide(total)) / total
        aux = {"language_maps": torch.cat(maps, dim=2), "pooled": pooled.to(tokens.dtype)}
        return [torch.cat(stream, dim=2) for stream in streams], aux

    def _pieces(self, x: Tensor) -> list[tuple[int, Tensor]]:
        """First frame and frames, of all sequences: what is wide is computed piece by piece."""
        # Batch norms in training need all frames at once; graphs hold for any number of them.
        if self.training or torch.compiler.is_compiling():
            return [(0, x)]
        step = max(1, self.chunk_frames // x.shape[0])
        return list(zip(range(0, x.shape[2], step), x.split(step, dim=2), strict=True))

    def _resized(self, x: Tensor, read: Any = None) -> Tensor:
        """Maps of the size that the streams have, and what ``read`` makes of these."""
        frames = resized(to_frames(x), self.map_size)
        return to_sequences(frames if read is None else read(frames), x.shape[0])

    def _without_some(self, streams: list[Tensor]) -> list[Tensor]:
        """One of the streams zeroed in a share of the sequences."""
        count, device = len(streams[0]), streams[0].device
        dropped = torch.rand(count, device=device) < self.stream_drop_rate
        first = torch.rand(count, device=device) < 0.5
        which = (dropped & first, dropped & ~first)
        return [
            x.masked_fill(drop[:, None, None, None, None], 0)
            for x, drop in zip(streams, which, strict=True)
        ]


def _wide(x: Tensor) -> torch.dtype:
    """The type of long sums: those of half-precision numbers overflow."""
    return torch.promote_types(x.dtype, torch.float32)


def _bank(
    prompts: tuple[str, ...] | TextPromptBank,
    suppressed: tuple[str, ...],
    text_encoder: str,
    text_pretrained: bool,
    text_levels: tuple[int, ...],
    text_channels: int,
) -> TextPromptBank:
    """The texts' features: given, read now, or random."""
    levels = check_sizes("text_levels", text_levels)
    if isinstance(prompts, TextPromptBank):
        if text_pretrained:
            raise ValueError("expected prompts as texts with text_pretrained=True, got a bank")
        if len(prompts.features) != len(levels):
            raise ValueError(
                f"expected a bank of {len(levels)} levels, as many as text_levels, got "
                f"{len(prompts.features)}"
            )
        return prompts
    # Blocks of the meta device ask for shapes alone.
    if not text_pretrained or torch.empty(0).is_meta:
        check_size(text_channels=text_channels)
        count = len(prompts) + len(suppressed)
        return TextPromptBank(torch.randn(len(levels), count, text_channels), prompts, suppressed)
    bank = TextPromptBank.from_clip(text_encoder, prompts, suppressed, levels)
    if bank.features.shape[2] != text_channels:
        raise ValueError(
            f"expected text_channels={bank.features.shape[2]}, as {text_encoder} has, got "
            f"{text_channels}"
        )
    return bank


def _cfg(num_classes: int, data: str, rank1: float, **fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=num_classes,
        modalities=("rgb",),
        input_size=(256, 128),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop="resized to the height in true proportions, padded or cut to the width",
        paper=_PAPER,
        origin="https://github.com/DingWu1021/LMGait",
        fidelity="reconstruction",
        license="no weights",
        unavailable=(
            "this is a reconstruction, which no file of the authors fits; train it yourself, "
            "with encoder_pretrained=True and text_pretrained=True"
        ),
        metrics={
            "rank1_mean": rank1,
            "protocol": f"{data}, as the abstract says it of the authors' network, not of this "
            "reconstruction; conditions not stated",
        },
        **fields,
    )


_CFGS = {
    "ccpg": _cfg(100, "CCPG", 88.5),
    "sustech1k": _cfg(250, "SUSTech1K", 97.1),
    "casiab": _cfg(74, "CASIA-B* (colours)", 97.5),
}
register_model(
    "lmgait",
    LMGait,
    _CFGS,
    tiny=PretrainedCfg(
        num_classes=5,
        modalities=("rgb",),
        input_size=(16, 8),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        model_args={
            "encoder": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
            },
            "image_size": (32, 16),
            "encoder_layers": (0, 1),
            "prompts": ("arms", "legs"),
            "suppressed": ("clothes",),
            "text_levels": (1, 2),
            "text_channels": 6,
            "dim": 8,
            # All parameters then get gradients from the first step.
            "zero_init": False,
            "hidden": 6,
            "stream_channels": 4,
            "stream_drop_rate": 0.0,
            "channels": (2, 3, 4, 5),
            "part_channels": 4,
            "part_bins": (4,),
        },
    ),
)
