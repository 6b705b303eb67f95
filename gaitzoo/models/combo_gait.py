"""Combo-Gait: silhouettes and body-model parameters, identity and attributes (a reconstruction).

Paper: https://arxiv.org/abs/2510.10417. No code, no weights and no table of sizes were found, and
nothing of it is contained here: this is a reconstruction from the abstract and from notes by
others. They say that there are a silhouette
encoder, an encoder of SMPL features, one transformer over both and heads of several tasks, trained
by a weighted sum of losses. All sizes, the token layout, the treatment of missing inputs and
invalid frames, the normalised orientation and all weights are inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.modalities import check_same_frames, find_modality
from gaitzoo.layers.body_parameters import SMPL_FIELDS, SMPLEncoder, check_valid
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.task_tokens import (
    BinaryHead,
    PartTokenizer,
    RegressionHead,
    UnifiedGaitTransformer,
)
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.named_backbones import named_backbone
from gaitzoo.models.registry import register_model

__all__ = ["ComboGait"]

_PAPER = "https://arxiv.org/abs/2510.10417"
# Mean and standard deviation of adults, roughly: give those of the training labels.
_ATTRIBUTES: Mapping[str, tuple[float, float] | None] = {
    "age": (40.0, 15.0),
    "bmi": (26.0, 5.0),
    "gender": None,
}


class ComboGait(GaitModel):
    """Combo-Gait: who walks, and how old and heavy, from silhouettes, a fitted body, or both.

    Silhouettes become one token per horizontal band, the sequence of body-model parameters a few
    more, and a transformer joins both with one learned token per task. A part vector is the
    encoder's own band plus what the transformer made of it; the token of the identity is one part
    more. Every attribute has a head on its own token.

    A reconstruction from abstract and notes, https://arxiv.org/abs/2510.10417; what is inferred is
    listed at the top of this file. No attribute comes with trained weights, and one trained on some
    group of people says little of others: have them audited before anybody relies on them.

    Args:
        num_classes: Training identities, 0 = no classifier.
        attributes: Name of each attribute to mean and standard deviation of the training labels,
            or to ``None`` for yes or no. The defaults are round numbers, not those of a data set.
        bins: Name of an attribute to values whose expectation it is, see :class:`RegressionHead`.
        backbone: ``"gaitbase"``, ``"deepgaitv2_2d"``, ``"deepgaitv2_p3d"`` or ``"deepgaitv2_3d"``.
        layers: Blocks of the backbone's four layers; ``None`` = those of its family.
        channels: Widths of the four layers.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        part_channels: C of the embeddings.
        dim: Width of the tokens.
        depth: Blocks of the transformer.
        num_heads: Heads of all attention.
        body_layers: Blocks over time, of the parameters.
        body_tokens: Tokens of the parameters, without that of the shape.
        body_hidden: Widths of the first two layers that see the parameters.
        smpl_columns: D, numbers per frame.
        fields: Columns of camera, pose and shape, see :class:`SMPLEncoder`.
        rotations: How rotations are written, see :class:`SMPLEncoder`.
        drop_yaw: Leave out which way the body faces, see :class:`SMPLEncoder`.
        drop_rate: Dropout of the transformer, in training.
        modality_drop_rate: Share of sequences, in training, of which each input is withheld; never
            both.

    Shapes:
        inputs: ``{"silhouettes": [N, T, H, W], "smpl": [N, T, D]}``, or one of them alone: floats
            in [0, 1] or uint8, H and W multiples of 4; camera, pose in radians, shape.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        smpl_valid: ``[N, T]`` bool, False where fitting the body failed: what stands there, even
            NaN, never matters. ``None`` = all are valid.
        returns: :class:`AuxOutput` with ``embeddings [N, P + 1, part_channels]``; ``aux`` has each
            attribute ``[N]`` by its name, in its own units, or as a logit for yes or no.

    Raises:
        TypeError: If inputs are no mapping of tensors, or ``smpl_valid`` is no bool tensor.
        ValueError: If an argument has none of the values named here, or nothing is given.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("combo_gait_tiny").eval()
        >>> body = {"smpl": torch.rand(2, 5, 85)}
        >>> output = model({"silhouettes": torch.rand(2, 5, 16, 12), **body})
        >>> output.embeddings.shape, sorted(output.aux), model(body).aux["age"].shape
        (torch.Size([2, 5, 4]), ['age', 'bmi', 'gender'], torch.Size([2]))
    """

    architecture = "combo_gait"
    modalities = ("silhouettes", "smpl")
    maps_in = "tokenizer.backbone"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        attributes: Mapping[str, Sequence[float] | None] = _ATTRIBUTES,
        bins: Mapping[str, Sequence[float]] | None = None,
        backbone: str = "deepgaitv2_2d",
        layers: tuple[int, ...] | None = None,
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        part_channels: int = 256,
        dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
        body_layers: int = 2,
        body_tokens: int = 4,
        body_hidden: tuple[int, int] = (128, 256),
        smpl_columns: int = 85,
        fields: Mapping[str, tuple[int, int]] = SMPL_FIELDS,
        rotations: str = "axis_angle",
        drop_yaw: bool = True,
        drop_rate: float = 0.1,
        modality_drop_rate: float = 0.1,
    ) -> None:
        super().__init__(embedding="before_bn")
        if not 0 <= modality_drop_rate < 1:
            raise ValueError(
                f"expected a modality_drop_rate of 0 up to 1, got {modality_drop_rate!r}"
            )
        heads = _attribute_heads(attributes, bins or {}, dim)
        # In front: inputs are read in the type of the first layer, which stays float32 when the
        # maps get a narrower one.
        self.body = SMPLEncoder(
            smpl_columns,
            dim,
            body_layers,
            body_tokens,
            fields=fields,
            rotations=rotations,
            drop_yaw=drop_yaw,
            hidden=body_hidden,
            num_heads=num_heads,
            block_drop_rate=drop_rate,
        )
        network = named_backbone(backbone, channels, layers)
        init_weights(network)
        self.tokenizer = PartTokenizer(network, channels[-1], dim, part_bins)
        bands = self.tokenizer.num_parts
        self.transformer = UnifiedGaitTransformer(
            dim,
            depth,
            num_heads,
            tasks=("id", *attributes),
            groups={"silhouettes": bands, "smpl": body_tokens + 1},
            drop_rate=drop_rate,
        )
        self.num_parts, self.num_features = bands + 1, part_channels
        self.modality_drop_rate = modality_drop_rate
        self.heads = nn.ModuleDict({f"task_{name}": head for name, head in heads.items()})
        self.part_fc = PartLinear(self.num_parts, dim, part_channels)
        self.neck = PartBNNeck(self.num_parts, part_channels, num_classes)

    @property
    def attribute_stds(self) -> dict[str, float]:
        """Standard deviations of the attributes that are numbers, as the loss takes them."""
        return {
            name.removeprefix("task_"): float(head.std)
            for name, head in self.heads.items()
            if isinstance(head, RegressionHead)
        }

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stages of the backbone."""
        return self._backbone.stage_names("tokenizer.backbone.")

    @property
    def _backbone(self) -> Any:
        return self.tokenizer.backbone

    def forward_features(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        smpl_valid: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Computes the map of the silhouettes and the tokens of the body.

        Args:
            silhouettes: The inputs, as for the model's call.
            lengths: As for the model's call.
            smpl_valid: As for the model's call.

        Returns:
            ``(maps [N, channels[3], T, H / 4, W / 4], tokens [N, Q + 1, dim], seen [N, Q + 1])``
            and ``(lengths, None, None)``; ``None`` in place of what is missing.
        """
        inputs, lengths = self._read(silhouettes, lengths, smpl_valid)
        maps = tokens = seen = None
        if "silhouettes" in inputs:
            maps = self._backbone(inputs["silhouettes"], lengths, self.run)
        if "smpl" in inputs:
            tokens, seen = self.run(self.body, inputs["smpl"], lengths, smpl_valid)
            if maps is None:
                _check_seen(seen)
        return (maps, tokens, seen), (lengths, None, None)

    def forward_head(
        self, features: tuple[Tensor | None, Tensor | None, Tensor | None], lengths: Any = None
    ) -> AuxOutput:
        """Joins both, embeds every part and reads the attributes.

        Args:
            features: As from :meth:`forward_features`.
            lengths: The second of what it gives, or ``[N]``; ``None`` = all T.
        """
        maps, body, body_seen = features
        frames = lengths[0] if isinstance(lengths, tuple) else lengths
        tokens, seen = {}, {}
        if maps is not None:
            tokens["silhouettes"] = self.tokenizer.pool(maps, frames)
        if body is not None:
            tokens["smpl"] = body
            seen["smpl"] = body_seen
        if self.training and len(tokens) == 2:
            seen = self._withhold(tokens, seen)
        tasks, groups = self.transformer(tokens, seen, self.run)
        parts = groups["silhouettes"]
        if "silhouettes" in tokens:
            own = tokens["silhouettes"]
            if "silhouettes" in seen:
                own = own.masked_fill(~seen["silhouettes"][..., None], 0)
            parts = parts + own
        parts = self.part_fc(torch.cat([parts, tasks["id"][:, None]], dim=1))
        _, logits = self.neck(parts)
        aux = {n: self.heads[f"task_{n}"](tasks[n]) for n in self.transformer.tasks[1:]}
        return AuxOutput(parts, logits=logits, aux=aux)

    def forward(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        smpl_valid: Tensor | None = None,
    ) -> AuxOutput:
        """Embeds a batch of sequences and reads their attributes; see the class."""
        features, counts = self.forward_features(silhouettes, lengths, smpl_valid)
        return self.forward_head(features, counts)

    def _withhold(self, tokens: dict[str, Tensor], seen: dict[str, Any]) -> dict[str, Tensor]:
        """What is still seen when inputs of some sequences are withheld, never both of one."""
        bands, body = tokens["silhouettes"], seen["smpl"]
        drawn = torch.rand(len(bands), 2, device=bands.device) < self.modality_drop_rate
        # A sequence without a valid body keeps its silhouettes.
        silhouettes = drawn[:, 0] & ~drawn[:, 1] & body.any(1)
        keep = ~silhouettes[:, None].expand(-1, bands.shape[1])
        return {"silhouettes": keep, "smpl": body & ~(drawn[:, 1] & ~drawn[:, 0])[:, None]}

    def _read(
        self, inputs: Mapping[str, Tensor], lengths: Tensor | None, smpl_valid: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Checked inputs: maps with channels first, parameters as ``[N, T, D]``."""
        if not isinstance(inputs, Mapping):
            raise TypeError(
                "expected a mapping with silhouettes, smpl or both for ComboGait, got "
                f"{type(inputs).__name__}"
            )
        if not inputs or set(inputs) - set(self.modalities):
            raise ValueError(
                "expected silhouettes, smpl or both for ComboGait, got "
                f"{', '.join(map(str, inputs)) or 'nothing'}"
            )
        given = dict(inputs)
        if smpl_valid is not None:
            if "smpl" not in given:
                raise ValueError("expected smpl beside smpl_valid, got silhouettes alone")
            if isinstance(given["smpl"], Tensor) and given["smpl"].ndim == 3:
                check_valid(smpl_valid, given["smpl"])
                wrong = ~smpl_valid.to(given["smpl"].device)
                given["smpl"] = given["smpl"].masked_fill(wrong[..., None], 0)
        dtype = next(p.dtype for p in self.parameters() if p.is_floating_point())
        checked, read = lengths, {}
        for name in (name for name in self.modalities if name in given):
            channels = self.body.in_dim if name == "smpl" else None
            read[name], checked = find_modality(name).prepare(
                given[name], lengths, dtype=dtype, channels=channels
            )
        counts = {name: (x.shape[0], x.shape[2]) for name, x in read.items()}
        if len(read) == 2 and counts["silhouettes"] != counts["smpl"]:
            for axis in (0, 1):
                check_same_frames({name: count[axis] for name, count in counts.items()})
        if "smpl" in read:
            read["smpl"] = read["smpl"].transpose(1, 2)
        return read, checked


def _check_seen(seen: Tensor) -> None:
    """Raises if there is nothing to go by; tensors on accelerators are not read."""
    if torch.compiler.is_compiling() or seen.device.type != "cpu" or bool(seen.any(1).all()):
        return
    raise ValueError(
        "expected a valid frame of every body without silhouettes, got none of sequence "
        f"{int((~seen.any(1)).nonzero()[0])}; leave it out, or give its silhouettes"
    )


def _attribute_heads(
    attributes: Mapping[str, Sequence[float] | None],
    bins: Mapping[str, Sequence[float]],
    dim: int,
) -> dict[str, nn.Module]:
    """A head per attribute."""
    if not isinstance(attributes, Mapping):
        raise ValueError(
            "expected attributes as a mapping from names to (mean, std) or None, got "
            f"{attributes!r}"
        )
    heads: dict[str, nn.Module] = {}
    for name, statistics in attributes.items():
        if name == "id" or (statistics is not None and len(statistics) != 2):
            raise ValueError(
                'expected attributes other than "id" as (mean, std) or None, got '
                f"{name!r}: {statistics!r}"
            )
        if statistics is None:
            heads[name] = BinaryHead(dim)
        else:
            heads[name] = RegressionHead(dim, *statistics, bins=bins.get(name))
    numbers = {name for name, head in heads.items() if isinstance(head, RegressionHead)}
    if set(bins) - numbers:
        raise ValueError(
            f"expected bins of {', '.join(sorted(numbers)) or 'no attribute'}, got "
            f"{', '.join(bins)}"
        )
    return heads


_CFGS = {
    "gait3d": PretrainedCfg(
        fidelity="reconstruction",
        num_classes=3000,
        paper=_PAPER,
        license="no weights",
        training_data="none; the paper's is BRIAR, which is restricted",
        unavailable=(
            "no code or weights of Combo-Gait were found, and BRIAR is restricted; train the model "
            "on silhouettes with SMPL parameters, such as Gait3D's"
        ),
        notes=(
            "A reconstruction from the abstract and notes; sizes are inferred. Gait3D stands in "
            "for the paper's data; it has no attributes."
        ),
    ),
}
register_model(
    "combo_gait",
    ComboGait,
    _CFGS,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "layers": (1, 1, 1, 1),
            "channels": (2, 3, 4, 5),
            "part_bins": (4,),
            "part_channels": 4,
            "dim": 8,
            "depth": 2,
            "num_heads": 2,
            "body_layers": 1,
            "body_tokens": 2,
            "body_hidden": (6, 7),
        },
        input_size=(16, 12),
    ),
)
