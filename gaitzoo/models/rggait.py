"""RG-Gait: the embedding of a hidden body corrected by a learned residual (IJCB 2025).

Paper: https://arxiv.org/abs/2507.10978. Authors' code: https://github.com/Ayush-00/rg-gait (no
licence file; nothing of it is contained here). Written from a description of the code.

Differences from upstream:

- The frozen parts are in eval mode for good; upstream only stops their gradients, so that their
  batch-norm statistics move in training and clips in full view change a little.
- The amount of a clip is the mean of its frames'; see :mod:`gaitzoo.models.occlusion`.
- Any encoder of silhouettes in this library, not three.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gaitzoo.layers.heads import PartBNNeck, PartLinear, SharedBNNeck
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, UnknownKeysError, rename_by_table
from gaitzoo.models.encoders import (
    build_encoder,
    check_encoder,
    encoder_description,
    without_neck,
)
from gaitzoo.models.occlusion import OcclusionEvaluator
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.recorded import ReadyModule
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import convert_residual
from gaitzoo.models.swingait import convert_checkpoint as convert_swingait

__all__ = ["GapCorrection", "ResidualGapCorrection", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2507.10978"


class GapCorrection(NamedTuple):
    """What :meth:`ResidualGapCorrection.correct` gives, of N sequences.

    Attributes:
        embeddings: ``[N, P, C]``, ``visible + amount * residual``.
        logits: ``[N, P, K]``, or ``None`` without classes.
        visible: ``[N, P, C]``, embeddings of the frozen encoder.
        residual: ``[N, P, C]``, the gap as it was learned.
        amount: ``[N]`` in [0, 1], how much is hidden.
        occlusion: ``[N, E]``, embedding of the occlusion.
    """

    embeddings: Tensor
    logits: Tensor | None
    visible: Tensor
    residual: Tensor
    amount: Tensor
    occlusion: Tensor


class ResidualGapCorrection(GaitModel):
    """RG-Gait: a frozen encoder, plus what a trained one adds in proportion to what is hidden.

    ``embeddings = encoder(x) + amount(x) * mixer([restorer(x), occlusion(x)])``, part by part, and
    a BN neck behind it. With amount 0 the embeddings are exactly the encoder's. Encoder and
    evaluator are frozen: no gradients, eval mode also under ``.train()``; ``restorer``, ``mixer``
    and ``neck`` are trained. ``encoder`` and ``restorer`` end at their part vectors: a neck of
    theirs is taken off.

    Source: https://arxiv.org/abs/2507.10978 and the authors' code; what differs is listed at the
    top of this file. Trained in three stages: the evaluator (:class:`OcclusionEvaluator`), the
    encoder on clips in full view, then this model with a triplet loss on the embeddings and
    cross-entropy on the logits; ``examples/train_rggait.py`` shows them. Train on clips of equal
    length.

    Args:
        encoder: ``arch`` or ``arch.tag`` of a model of silhouettes with part vectors, built with
            fresh weights; or a model, which is copied with its weights. The neck, too, then starts
            as the model's.
        encoder_args: Structure of an encoder by name, beside that of its tag.
        layers: Blocks of each layer of an encoder by name: short for
            ``encoder_args={"layers": ...}``.
        evaluator: A trained evaluator, copied without its types; ``None`` = a fresh one.
        num_classes: Training identities, 0 = no classifier; ``None`` = as many as the encoder has,
            0 of an encoder by name. With as many as the encoder, its class weights are kept.
        in_channels: Channels of the input, of an encoder by name.
        occlusion_dim: Channels of the fresh evaluator's embedding.
        amount: How the fresh evaluator judges a clip, ``"frames"`` or ``"clip"``; see
            :class:`OcclusionEvaluator`.
        copy_encoder: The restorer starts with the encoder's weights; ``False`` = with fresh ones,
            as in the published settings.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any number
            of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, C]`` as the encoder's.

    Raises:
        TypeError: If ``encoder`` or ``evaluator`` is of another type.
        ValueError: If the encoder is unknown or does not read silhouettes alone, or an argument has
            none of the values named here.

    Example:
        >>> import gaitzoo
        >>> encoder = gaitzoo.create_model("gaitbase_tiny", num_classes=7)
        >>> model = ResidualGapCorrection(encoder=encoder).eval()
        >>> model(torch.rand(2, 5, 16, 12), torch.tensor([5, 1])).logits.shape
        torch.Size([2, 4, 7])
    """

    architecture = "rggait"

    @record_args
    def __init__(
        self,
        *,
        encoder: str | GaitModel = "gaitbase",
        encoder_args: Mapping[str, Any] | None = None,
        layers: tuple[int, ...] | None = None,
        evaluator: OcclusionEvaluator | None = None,
        num_classes: int | None = None,
        in_channels: int = 1,
        occlusion_dim: int = 64,
        amount: str = "frames",
        copy_encoder: bool = False,
    ) -> None:
        super().__init__(embedding="before_bn")
        arguments = dict(encoder_args or {})
        if layers is not None:
            arguments["layers"] = layers
        if in_channels != 1:
            arguments["in_channels"] = in_channels
        if isinstance(encoder, str):
            built, fresh = build_encoder(encoder, arguments), build_encoder(encoder, arguments)
        else:
            if arguments:
                raise ValueError(
                    f"expected {', '.join(arguments)} with the name of an encoder only, got a model"
                )
            built = check_encoder(copy.deepcopy(encoder))
            fresh = _fresh(built)
        like = next(p for p in built.parameters() if p.is_floating_point())
        self.in_channels = built.in_channels
        self.num_features, self.num_parts = built.num_features, built.num_parts
        self.min_frames = built.min_frames
        neck = _neck_of(built, num_classes)
        self.encoder = without_neck(built)
        self.evaluator = _evaluator(evaluator, self.in_channels, occlusion_dim, amount)
        self.restorer = without_neck(fresh)
        if copy_encoder:
            self.restorer.load_state_dict(self.encoder.state_dict())
        self.mixer = PartLinear(
            self.num_parts, self.num_features + self.evaluator.embed_dim, self.num_features
        )
        self.neck = neck.requires_grad_(True)
        self.to(like)
        self.freeze(until="restorer")
        if self.input_size is not None:
            self.pretrained_cfg = replace(self.pretrained_cfg, input_size=self.input_size)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """See :attr:`GaitModel.input_size`: the encoder's."""
        encoder = self._modules.get("encoder")
        return encoder.input_size if isinstance(encoder, GaitModel) else None

    def config_args(self) -> dict[str, Any]:
        """See :meth:`GaitModel.config_args`: an encoder that was handed over, by its name."""
        arguments = dict(self.model_args)
        if isinstance(arguments["encoder"], ReadyModule):
            described = encoder_description(self.encoder)
            if described is not None:
                arguments["encoder"], arguments["encoder_args"] = described
        arguments["evaluator"] = None  # its weights come with the others
        arguments["occlusion_dim"] = self.evaluator.embed_dim
        arguments["amount"] = self.evaluator.amount
        return arguments

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: those of the trained encoder."""
        return tuple(f"restorer.{name}" for name in self.restorer.feature_modules)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See :meth:`GaitModel.set_grad_checkpointing`."""
        super().set_grad_checkpointing(enable)
        self.restorer.set_grad_checkpointing(enable)

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """Computes the maps of both encoders, and what the evaluator says of every frame.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            The encoder's map (or maps), the restorer's, and ``[N, E, T, 1, 1]`` of the evaluator;
            and the valid frames of each.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        given = x[:, 0] if self.in_channels == 1 else x
        # First what gives the maps: a backbone (features_only) ends there.
        restored, restored_counts = _as_tuples(*self.restorer.forward_features(given, lengths))
        with torch.no_grad():
            maps, counts = _as_tuples(*self.encoder.forward_features(given, lengths))
            frames = self.evaluator.frame_vectors(x)[..., None, None]
        return (*maps, *restored, frames), (*counts, *restored_counts, lengths)

    def correct(
        self, features: tuple[Tensor, ...], lengths: tuple[Tensor | None, ...] | None = None
    ) -> GapCorrection:
        """The corrected embeddings and all that they are made of.

        Args:
            features: From :meth:`forward_features`.
            lengths: From :meth:`forward_features`; ``None`` = all frames are valid.
        """
        counts = (None,) * len(features) if lengths is None else lengths
        half = len(features) // 2
        with torch.no_grad():
            visible = _parts(self.encoder, features[:half], counts[:half])
            frames = features[-1].squeeze(4).squeeze(3)
            occlusion, amount = self.evaluator.over_clip(frames, counts[-1])
        restored = _parts(self.restorer, features[half:-1], counts[half:-1])
        spread = occlusion[:, None].expand(-1, self.num_parts, -1).to(restored.dtype)
        residual = self.mixer(torch.cat([restored, spread], dim=2))
        embeddings = visible + amount[:, None, None] * residual
        _, logits = self.neck(embeddings)
        return GapCorrection(embeddings, logits, visible, residual, amount, occlusion)

    def forward_head(self, features: Any, lengths: Any = None) -> GaitOutput:
        """Pools the maps and corrects the embeddings."""
        corrected = self.correct(features, lengths)
        return GaitOutput(embeddings=corrected.embeddings, logits=corrected.logits)


def _fresh(encoder: GaitModel) -> GaitModel:
    """An encoder of the same structure with fresh weights."""
    described = encoder_description(encoder)
    if described is None:
        raise ValueError(
            "expected an encoder that its registered name builds again, for a second one like it, "
            f"got a {type(encoder).__name__}; call gaitzoo.register_model for its class, and build "
            "it from arguments"
        )
    return build_encoder(*described)


def _neck_of(encoder: GaitModel, num_classes: int | None) -> PartBNNeck | SharedBNNeck:
    """A copy of the encoder's neck for ``num_classes``, or a fresh one."""
    wanted = encoder.num_classes if num_classes is None else num_classes
    parts, channels = encoder.num_parts, encoder.num_features
    neck = copy.deepcopy(getattr(encoder, "neck", None))
    fits = isinstance(neck, (PartBNNeck, SharedBNNeck))
    if not fits or (neck.num_parts, neck.channels) != (parts, channels):
        return PartBNNeck(parts, channels, wanted)
    if wanted != encoder.num_classes:
        neck.reset_classifier(wanted)
    return neck


def _evaluator(evaluator: Any, in_channels: int, embed_dim: int, amount: str) -> OcclusionEvaluator:
    """A copy of a trained evaluator without types, or a fresh one."""
    if evaluator is None:
        return OcclusionEvaluator(embed_dim, in_channels, amount=amount)
    if not isinstance(evaluator, OcclusionEvaluator):
        raise TypeError(
            f"expected evaluator as an OcclusionEvaluator, got {type(evaluator).__name__}"
        )
    if evaluator.in_channels != in_channels:
        raise ValueError(
            f"expected an evaluator of {in_channels} channel(s) as the encoder, got one of "
            f"{evaluator.in_channels}"
        )
    evaluator = copy.deepcopy(evaluator)
    evaluator.type_head = None
    return evaluator


def _as_tuples(maps: Any, counts: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Maps and valid frames of an encoder with one map as of one with several."""
    if not isinstance(maps, tuple):
        return (maps,), (counts,)
    return maps, (None,) * len(maps) if counts is None else counts


def _parts(
    encoder: GaitModel, maps: tuple[Tensor, ...], counts: tuple[Tensor | None, ...]
) -> Tensor:
    """Part vectors ``[N, P, C]`` of an encoder's maps."""
    if len(maps) == 1:
        return encoder.forward_head(maps[0], counts[0]).embeddings
    return encoder.forward_head(maps, counts).embeddings


_ENCODERS = {"full_component": "encoder", "mimic_component": "restorer"}
_KEYS = {
    "occ_mixer_fc.fc_bin": "mixer.weight",
    "BNNecks.fc_bin": "neck.classifier.weight",
    r"BNNecks\.bn1d\.(\w+)": r"neck.bn.\1",
    r"occ_detector\.layer1\.0\.(\w+)": r"evaluator.convs.0.\1",
    r"occ_detector\.layer2\.0\.(\w+)": r"evaluator.convs.3.\1",
    r"occ_detector\.layer3\.0\.(\w+)": r"evaluator.convs.6.\1",
    r"occ_detector\.layer4\.0\.(\w+)": r"evaluator.project.\1",
    r"occ_detector\.layer_amount\.0\.(\w+)": r"evaluator.amount_head.\1",
}
# The authors' files have these tensors twice, and the last of the two names counts.
_SECOND_NAMES = {"fc1": "layer4.0", "fc_amount_head": "layer_amount.0"}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, with GaitBase, DeepGaitV2 or SwinGait inside.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not RG-Gait's.
    """
    inside: dict[str, StateDict] = {ours: {} for ours in _ENCODERS.values()}
    others: StateDict = {}
    for key, tensor in state_dict.items():
        first, _, rest = key.partition(".")
        if first in _ENCODERS:
            inside[_ENCODERS[first]][rest] = tensor
            continue
        match = re.fullmatch(r"occ_detector\.(fc1|fc_amount_head)\.(\w+)", key)
        if match:
            key = f"occ_detector.{_SECOND_NAMES[match[1]]}.{match[2]}"
            if key in state_dict:
                continue
        others[key] = tensor
    renamed = rename_by_table(others, _KEYS, "RG-Gait")
    for ours, parameters in inside.items():
        renamed |= {f"{ours}.{key}": x for key, x in _convert_encoder(parameters).items()}
    return renamed


def _convert_encoder(parameters: StateDict) -> StateDict:
    """One encoder's parameters under our names, or the error of what it resembles most."""
    errors = []
    for convert in (convert_residual, convert_swingait):
        try:
            return convert(parameters)
        except UnknownKeysError as error:
            errors.append(error)
    raise min(errors, key=lambda error: len(error.unknown))


def _cfg(num_classes: int, training_data: str, **model_args: Any) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="parity",
        num_classes=num_classes,
        model_args=model_args,
        training_data=training_data,
        embedding="before_bn",
        license="none stated",
        paper=_PAPER,
        origin="https://github.com/Ayush-00/rg-gait",
        unavailable=(
            "the authors have published no weights. Wrap an encoder with weights, "
            "gaitzoo.ResidualGapCorrection(encoder=gaitzoo.create_model(..., pretrained=True)), "
            "and train it (examples/train_rggait.py)"
        ),
    )


_GAIT3D = "Gait3D, 3000 subjects"
_CFGS = {
    "gaitbase": _cfg(3000, _GAIT3D, encoder="gaitbase"),
    "deepgaitv2_p3d": _cfg(3000, _GAIT3D, encoder="deepgaitv2_p3d", layers=(1, 4, 4, 1)),
    "deepgaitv2_p3d_10": _cfg(3000, "none", encoder="deepgaitv2_p3d", layers=(1, 1, 1, 1)),
    "swingait": _cfg(20000, "GREW, 20000 subjects", encoder="swingait.grew"),
}
_TINY_ENCODER = {"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 1, 1, 1)}
register_model(
    "rggait",
    ResidualGapCorrection,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "encoder": "deepgaitv2_p3d",
            "encoder_args": _TINY_ENCODER,
            "occlusion_dim": 6,
        },
        input_size=(16, 12),
        embedding="before_bn",
    ),
)
