"""GaitAdapter: data sets learned one after another, with a graph of what was learned before.

Paper: https://arxiv.org/abs/2508.03375. Authors' code:
https://github.com/wjjdeeplearning/GaitAdapt (no licence file; nothing of it is contained here).
Written from a description of the code.

Differences from upstream:

- In eval mode the graph spans the parts of one sequence, so that an embedding does not depend on
  its neighbours in the batch; upstream's spans the batch there, too (``graph_scope="batch"``).
- The teacher is in eval mode; upstream leaves it in training mode, with dropout and statistics of
  the batch (``begin_task(..., teacher_train_mode=True)``).
- A gate that upstream makes and never uses is left out.
- Any encoder of silhouettes in this library.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from gaitzoo.layers.checks import check_num_classes, check_size, check_sizes
from gaitzoo.layers.expanding_neck import ExpandingBNNeck
from gaitzoo.layers.heads import PartLinear
from gaitzoo.layers.part_graph import PartKnowledgeGraph
from gaitzoo.layers.pooling import GeMHPP, TemporalMax
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.encoders import (
    build_encoder,
    check_encoder,
    encoder_description,
    without_neck,
)
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.recorded import ReadyModule
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import backbone_keys

__all__ = ["AdaptedParts", "GaitAdapter", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2508.03375"
_FIRST_CLASSES = 200  # of CASIA-E, the first of the published data sets


class AdaptedParts(NamedTuple):
    """What :meth:`GaitAdapter.adapt` gives, of N sequences.

    Attributes:
        embeddings: ``[N, P, C]``, ``parts + knowledge``.
        parts: ``[N, P, C]``, part vectors of the encoder.
        knowledge: ``[N, P, C]`` in (-1, 1), what the graph adds.
        logits: ``[N, P, K]`` of every task, in their order.
    """

    embeddings: Tensor
    parts: Tensor
    knowledge: Tensor
    logits: list[Tensor]


class GaitAdapter(GaitModel):
    """GaitAdapter: an encoder, a graph that remembers, and classes of one task after the other.

    ``embeddings = parts + graph(parts)``; the logits are cosines of the encoder's parts behind a
    batch norm. ``begin_task`` adds the classes of the next data set and keeps a frozen copy of the
    model as teacher, from which :class:`gaitzoo.GaitAdapterLoss` keeps it from drifting away. No
    clip of an earlier data set is needed.

    Source: https://arxiv.org/abs/2508.03375 and the authors' code; what differs is listed at the
    top of this file. Train on clips of equal length.

    Args:
        encoder: ``None`` = the published one, GaitBase's residual network with GeM-pooled bands,
            from the arguments below; ``arch`` or ``arch.tag`` of a model of silhouettes with part
            vectors, built with fresh weights; or a model, which is copied with its weights. A neck
            of theirs is taken off.
        encoder_args: Structure of an encoder by name, beside that of its tag.
        num_classes: Identities of the first task, 0 = no classes yet.
        class_counts: Identities of every task so far, where there are several: for weights that
            went through them. Then ``num_classes`` is the first of them, or 0 for no classes.
        task: Number of the task that the logits are of.
        graph_scope: What the graph spans: ``"batch"`` (as published), ``"sample"``, or ``None`` =
            the batch in training and each sequence by itself in eval mode. With ``"batch"`` an
            embedding depends on the rest of the batch.
        vertices: Vertices of the graph.
        sigma: See :class:`PartKnowledgeGraph`.
        dropout: See :class:`PartKnowledgeGraph`.
        in_channels: Channels of the input, unless the encoder is a model.
        layers: Residual blocks of each of the four layers of the published encoder.
        channels: Widths of its four layers; embeddings have ``channels[2]`` channels.
        part_bins: Its numbers of horizontal bands; each must divide a quarter of the frame's
            height.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any number
            of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, C]`` and ``logits [N, P, K]`` of
            ``task``, cosines.

    Raises:
        TypeError: If ``encoder`` is of another type.
        ValueError: If the encoder is unknown or does not read silhouettes alone, or an argument has
            none of the values named here.

    Example:
        >>> import gaitzoo, torch
        >>> model = gaitzoo.create_model("gaitadapter_tiny", num_classes=5)
        >>> model.begin_task(3)
        >>> model.class_counts, model.task, model.teacher.class_counts
        ((5, 3), 1, (5,))
        >>> model.eval()(torch.rand(2, 4, 16, 12)).logits.shape
        torch.Size([2, 4, 3])
    """

    architecture = "gaitadapter"

    @record_args
    def __init__(
        self,
        *,
        encoder: str | GaitModel | None = None,
        encoder_args: Mapping[str, Any] | None = None,
        num_classes: int = _FIRST_CLASSES,
        class_counts: tuple[int, ...] = (),
        task: int = 0,
        graph_scope: str | None = None,
        vertices: int = 64,
        sigma: float = 2.0,
        dropout: float = 0.6,
        in_channels: int = 1,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
    ) -> None:
        super().__init__(embedding="before_bn")
        counts = _counts(num_classes, class_counts)
        if type(task) is not int or not 0 <= task < max(1, len(class_counts)):
            raise ValueError(
                f"expected task as a number from 0, below the {max(1, len(class_counts))} of "
                f"class_counts, got {task!r}"
            )
        if encoder_args and not isinstance(encoder, str):
            raise ValueError("expected encoder_args with the name of an encoder only")
        if encoder is None:
            self.encoder: GaitModel = _GeMEncoder(in_channels, layers, channels, part_bins)
        elif isinstance(encoder, str):
            arguments = dict(encoder_args or {})
            if in_channels != 1:
                arguments["in_channels"] = in_channels
            self.encoder = without_neck(build_encoder(encoder, arguments))
        else:
            self.encoder = without_neck(check_encoder(copy.deepcopy(encoder)))
        built = self.encoder
        self.in_channels, self.min_frames = built.in_channels, built.min_frames
        self.num_features, self.num_parts = built.num_features, built.num_parts
        self.task = task
        # Not "graph": modules that torch.export makes have one of their own.
        self.part_graph = PartKnowledgeGraph(
            self.num_features, vertices, sigma, dropout, graph_scope
        )
        self.neck = ExpandingBNNeck(self.num_parts, self.num_features, counts)
        init_weights(self.neck)
        self.to(next(p for p in built.parameters() if p.is_floating_point()))
        # In a tuple, which hides it from state_dict, parameters and train.
        self._teacher: tuple[GaitAdapter, ...] = ()
        if self.input_size is not None:
            self.pretrained_cfg = replace(self.pretrained_cfg, input_size=self.input_size)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """See :attr:`GaitModel.input_size`: the encoder's."""
        encoder = self.__dict__.get("_modules", {}).get("encoder")
        return encoder.input_size if isinstance(encoder, GaitModel) else None

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Identities of every task."""
        return self.neck.class_counts

    @property
    def teacher(self) -> GaitAdapter | None:
        """The model as it was before the task, frozen; ``None`` in the first task.

        It is no part of ``state_dict`` nor of what is saved: save it as a model of its own where a
        task is to be interrupted. To go on, load it, call ``begin_task`` of it with the people of
        the task, and load the state of the interrupted model into it.
        """
        if not self._teacher:
            return None
        return self._teacher[0].to(self.part_graph.vertices)

    def begin_task(self, num_classes: int, teacher_train_mode: bool = False) -> None:
        """Adds the classes of the next task, and keeps the model as it is now as teacher.

        The first task has no teacher: begin it with a model of ``num_classes=0``, or build the
        model for it. Make the optimizer of encoder and neck anew afterwards, as published; that of
        the graph goes on.

        Args:
            num_classes: Identities of the task.
            teacher_train_mode: As in the authors' code, let the teacher's batch norms use the
                statistics of the batch, and its graph drop channels.

        Raises:
            ValueError: If ``num_classes`` is no positive whole number, or the model is fused.
        """
        if self.fused:
            raise ValueError(
                "expected a plain model to train, got one from fuse_for_inference; begin the task "
                "with the model that it was made from"
            )
        check_size(num_classes=num_classes)
        self._teacher = ()
        before = copy.deepcopy(self) if self.class_counts else None
        self.neck.add_task(num_classes)
        self.task = len(self.class_counts) - 1
        if before is not None:
            # Teacher and pupil are compared: what one graph spans, the other must.
            before.part_graph.scope = self.part_graph.scope or "batch"
            before.requires_grad_(False).train(teacher_train_mode)
            self._teacher = (before,)

    def reset_classifier(self, num_classes: int) -> None:
        """Drops the classes of all tasks, and the teacher, for a new first task.

        Args:
            num_classes: Its identities, 0 = none.

        Raises:
            ValueError: See :meth:`GaitModel.reset_classifier`.
        """
        super().reset_classifier(num_classes)
        self.task, self._teacher = 0, ()

    def config_args(self) -> dict[str, Any]:
        """See :meth:`GaitModel.config_args`: the tasks so far; an encoder's name."""
        arguments = dict(self.model_args)
        if isinstance(arguments["encoder"], ReadyModule):
            described = encoder_description(self.encoder)
            if described is not None:
                arguments["encoder"], arguments["encoder_args"] = described
        arguments["class_counts"] = self.class_counts if len(self.class_counts) > 1 else ()
        arguments["task"] = self.task
        return arguments

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: those of the encoder."""
        return tuple(f"encoder.{name}" for name in self.encoder.feature_modules)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See :meth:`GaitModel.set_grad_checkpointing`."""
        super().set_grad_checkpointing(enable)
        self.encoder.set_grad_checkpointing(enable)

    def temporal_reach(self) -> tuple[int, int] | None:
        """See :meth:`GaitModel.temporal_reach`: the encoder's."""
        return self.encoder.temporal_reach()

    def temporal_maps(self, inputs: Any) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`: the encoder's."""
        return self.encoder.temporal_maps(inputs)

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Any, Any]:
        """Computes the encoder's maps.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
        """
        return self.encoder.forward_features(silhouettes, lengths)

    def forward_head(self, features: Any, lengths: Any = None) -> GaitOutput:
        """Pools the maps and adds what the graph knows."""
        found = self._adapt(features, lengths, (self.task,) if self.class_counts else ())
        return GaitOutput(
            embeddings=found.embeddings, logits=found.logits[0] if found.logits else None
        )

    def adapt(self, silhouettes: Tensor, lengths: Tensor | None = None) -> AdaptedParts:
        """The embeddings, all that they are made of, and the class scores of all tasks.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
        """
        return self._adapt(*self.forward_features(silhouettes, lengths), None)

    def _adapt(self, features: Any, lengths: Any, tasks: tuple[int, ...] | None) -> AdaptedParts:
        parts = self.encoder.forward_head(features, lengths).embeddings
        knowledge = self.part_graph(parts).to(parts.dtype)
        return AdaptedParts(parts + knowledge, parts, knowledge, self.neck(parts, tasks))


class _GeMEncoder(GaitModel):
    """The published encoder: GaitBase's network, maximum over time, GeM of bands, matrices."""

    def __init__(
        self,
        in_channels: int,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        part_bins: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.backbone = ResidualBackbone("2d", layers, channels, in_channels)
        self.temporal_pool = TemporalMax()
        self.part_pool = GeMHPP(part_bins, p=3.0, learnable=False)
        self.num_parts, self.num_features = self.part_pool.num_parts, channels[2]
        self.part_fc = PartLinear(self.num_parts, channels[3], channels[2])
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        return self.backbone.stage_names("backbone.")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        x, lengths = self.prepare(silhouettes, lengths)
        return self.backbone(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        return self.backbone.reach(), 1

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        parts = self.part_pool(self.temporal_pool(features, lengths))
        return GaitOutput(embeddings=self.part_fc(parts))


def _counts(num_classes: int, class_counts: tuple[int, ...]) -> tuple[int, ...]:
    """Identities of every task to build classes for."""
    check_num_classes(num_classes)
    if not class_counts:
        return (num_classes,) if num_classes else ()
    counts = check_sizes("class_counts", class_counts)
    # The published number comes from the cfg where nobody gave one.
    if num_classes not in (0, counts[0], _FIRST_CLASSES):
        raise ValueError(
            f"expected num_classes={counts[0]}, the first of class_counts={counts}, got "
            f"{num_classes!r}; leave class_counts out for a model of one task"
        )
    return counts if num_classes else ()


_KEYS = {
    **backbone_keys(r"Taskbone\.Backbone", "encoder.backbone"),
    "Taskbone.FCs.fc_bin": "encoder.part_fc.weight",
    r"Taskbone\.eheads\.bn1d\.(\w+)": r"neck.norm.bn.\1",
    "Graphbone.meta_graph_vertex": "part_graph.vertices",
    r"Graphbone\.distance\.0\.(\w+)": r"part_graph.edge.\1",
    "Graphbone.meta_GCN.W": "part_graph.weight",
    "Graphbone.meta_GCN.b": "part_graph.bias",
}
_HEAD = "Taskbone.eheads.fc_bin.step:"
# Nothing reads them in the authors' code.
_UNUSED = (
    "Graphbone.meta_graph_vertex_buffer",
    "Graphbone.gate.0.weight",
    "Graphbone.gate.0.bias",
)


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    The files have the backbone twice, and the second of its names counts.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not GaitAdapter's.
    """
    kept: StateDict = {}
    heads: dict[str, str] = {}
    for key, tensor in state_dict.items():
        first, _, rest = key.partition(".")
        twice = first == "ResNetbone" and f"Taskbone.Backbone.{rest}" in state_dict
        if twice or key in _UNUSED:
            continue
        kept[key] = tensor
        task = key.removeprefix(_HEAD)
        if task != key and task.isdecimal():
            later = f"later.{int(task) - 1}" if int(task) else "weight"
            heads[key.replace(".", r"\.")] = f"neck.classifier.{later}"
    return rename_by_table(kept, {**_KEYS, **heads}, "GaitAdapter")


register_model(
    "gaitadapter",
    GaitAdapter,
    {
        "cross_domain": PretrainedCfg(
            fidelity="parity",
            num_classes=_FIRST_CLASSES,
            embedding="before_bn",
            license="none stated",
            paper=_PAPER,
            origin="https://github.com/wjjdeeplearning/GaitAdapt",
            unavailable=(
                "the authors have published no weights. Train it on your data sets one after the "
                "other (examples/continual.py)"
            ),
            notes=(
                "Classes of the first published data set, CASIA-E with 200 identities; the next "
                "have 1000 (OU-MVLP), 1000 (Gait3D) and 74 (CASIA-B). Published numbers have the "
                'graph over batches of 16: graph_scope="batch".'
            ),
        )
    },
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "vertices": 6},
        input_size=(16, 12),
        embedding="before_bn",
    ),
)
