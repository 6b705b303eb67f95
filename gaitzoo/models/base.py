"""What all models have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, float32, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from gaitzoo.data.modalities import find_modality
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.habits import TimmHabits
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.recorded import record_args
from gaitzoo.models.shared import SharedModel
from gaitzoo.models.walkers import warn_of_walkers

__all__ = ["GaitModel", "init_weights", "num_classes_of", "record_args"]


class GaitModel(TimmHabits, SharedModel):
    """Base of the models: frames in, embeddings out.

    A subclass builds its layers in a constructor under :func:`record_args`, whose keyword
    arguments JSON can hold (they are saved beside the weights), and defines
    :meth:`forward_features` and :meth:`forward_head`, or :meth:`forward` alone. It says what it
    reads (``modalities``) and where its classifier is (``classifier_key``); both a classifier and
    a neck are optional. :func:`gaitzoo.register_model` gives it a name, without which it cannot
    be saved.

    Shapes:
        inputs: For one modality its tensor, for several a mapping from names to tensors; axes as
            in ``gaitzoo.data.modalities``. Silhouettes: ``[N, T, H, W]``, floats in [0, 1] or
            uint8 in 0..255; with ``in_channels`` other than one ``[N, C, T, H, W]``.
        lengths: ``[N]`` int64, valid frames of each sequence; ``None`` means all T. What stands
            past the end of a sequence never matters.
        returns: :class:`GaitOutput`.

    Attributes:
        architecture: Registered name of the model family.
        modalities: Names of what it reads.
        classifier_key: Dotted name of the module with the class weights (a matrix per part
            ``[P, C, K]`` or ``nn.Linear``), whose parent has ``reset_classifier(num_classes)``;
            ``None`` = the model has no classifier.
        model_args: Arguments that the model was built with; see also :meth:`config_args`.
        pretrained_cfg: What is known of its variant or weights.
        min_frames: Frames that the layers need; shorter sequences are repeated until they have
            as many.
        weights_of: Name of the tag whose weights it was given; ``None`` = fresh or from elsewhere.
        fused: Whether :func:`gaitzoo.fuse_for_inference` made it, so that it can only be run.
        maps_in: Name of the submodule that ends where maps do; "" = the model itself. A narrow type
            given to :func:`gaitzoo.fuse_for_inference` is for that part alone.
        neck_folds_into: Name of the matrices whose output ``neck`` alone reads where it is a
            :class:`SharedBNNeck`, so that fusing makes one of the two; ``None`` = there are none.
        unfused_norms: Names of the batch norms that fusing left in a fused model.
        num_features: C of the embeddings.
        num_parts: P of the embeddings.
    """

    architecture: str = ""
    modalities: tuple[str, ...] = ("silhouettes",)
    classifier_key: ClassVar[str | None] = "neck.classifier"
    min_frames: int = 1
    fused: bool = False
    maps_in: ClassVar[str] = ""
    neck_folds_into: ClassVar[str | None] = None
    unfused_norms: tuple[str, ...] = ()
    weights_of: str | None = None

    model_args: dict[str, Any]
    pretrained_cfg: PretrainedCfg
    in_channels: int
    num_features: int
    num_parts: int

    def __init__(self, embedding: str = "output") -> None:
        super().__init__()
        if "model_args" not in vars(self):
            self.model_args = {}
        self.grad_checkpointing = False
        self._frozen: frozenset[str] = frozenset()
        # Built directly, a model is no known variant; create_model puts the tag's cfg here.
        self.pretrained_cfg = PretrainedCfg(architecture=self.architecture, embedding=embedding)
        if self.input_size is not None:
            self.pretrained_cfg = replace(self.pretrained_cfg, input_size=self.input_size)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the frames that the structure is made for; ``None`` = several fit."""
        return self.model_args.get("input_size")

    def config_args(self) -> dict[str, Any]:
        """Arguments that build this structure again, as JSON can hold them; they are saved.

        Those that the model was built with. A model overrides this where what it was given is not
        what describes it now: a module, a name whose weights may change. The number of classes
        need not be among them.
        """
        return dict(self.model_args)

    def get_classifier(self) -> nn.Module | None:
        """The module with the class weights; ``None`` = there is none."""
        found: Any = self
        for name in (self.classifier_key or "").split("."):
            found = getattr(found, name, None) if name else None
        return found

    @property
    def num_classes(self) -> int:
        """K, classes of the classifier; 0 = no classifier, ``logits`` are ``None``."""
        weight = getattr(self.get_classifier(), "weight", None)
        return 0 if weight is None else num_classes_of(tuple(weight.shape))

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the classifier by a fresh one for ``num_classes`` identities (0 = none).

        Raises:
            ValueError: If a fused model is to get a classifier that would have to be trained, a
                model without a place for one is to get one, or ``num_classes`` is no whole number
                of 0 or more.

        Warns:
            UserWarning: If the weights are those of ``walkers``, a small network for trials.
        """
        if num_classes and self.fused:
            raise ValueError(
                "expected a plain model to give a fresh classifier, got one from "
                "fuse_for_inference, which cannot be trained; change the model that it was made "
                "from and fuse that"
            )
        owner = None
        if self.classifier_key is not None:
            owner = self
            for name in self.classifier_key.split(".")[:-1]:
                owner = getattr(owner, name, None)
        reset = getattr(owner, "reset_classifier", None)
        if owner is self or reset is None:
            if self.get_classifier() is not None:
                raise ValueError(
                    f"expected a module around {self.classifier_key} of {type(self).__name__} that "
                    "has reset_classifier(num_classes), got none; define it there, or override "
                    f"reset_classifier in {type(self).__name__}"
                )
            if num_classes:
                raise ValueError(
                    f"expected num_classes=0 for {type(self).__name__}, which has no classifier, "
                    f"got {num_classes!r}; train with a loss on its embeddings"
                )
            return
        reset(num_classes)
        if num_classes:
            warn_of_walkers(self.weights_of, stacklevel=2)

    def freeze(self, until: str | None = None) -> Self:
        """Stops training for good: no gradients, and batch-norm statistics stay as they are.

        What is frozen goes to eval mode and stays there, also when the model is put into training
        mode.

        Args:
            until: Dotted name of the first module that is still trained, in the order in which
                modules are defined; everything before it is frozen. ``None`` = everything is.

        Returns:
            The model itself.

        Raises:
            ValueError: If there is no such module.

        Example:
            >>> import gaitzoo
            >>> model = gaitzoo.create_model("gaitbase_tiny").freeze(until="part_fc").train()
            >>> model.backbone.training, model.neck.training
            (False, True)
        """
        names = [name for name, _ in self.named_modules() if name]
        if until is None:
            frozen = ["", *names]
        elif until in names:
            before = names[: names.index(until)]
            frozen = [name for name in before if not f"{until}.".startswith(f"{name}.")]
        else:
            raise ValueError(
                f"expected until as the name of a module of {type(self).__name__}, got {until!r}; "
                f"for example {', '.join(name for name, _ in self.named_children())}"
            )
        for name in frozen:
            for parameter in self.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(False)
        self._frozen = self._frozen | frozenset(frozen)
        return self.train(self.training)

    @property
    def frozen(self) -> bool:
        """Whether the whole model is frozen."""
        return "" in self._frozen

    def train(self, mode: bool = True) -> Self:
        """Puts the model into training mode, or into eval mode with ``False``.

        Raises:
            ValueError: If a fused model is to be trained.
        """
        if mode and self.fused:
            raise ValueError(
                "expected a plain model to train, got one from fuse_for_inference, which has no "
                "batch norms and overwrites its maps; train the model that it was made from"
            )
        super().train(mode)
        if mode:
            for name in self._frozen:
                self.get_submodule(name).training = False
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: blocks are computed again in the backward pass."""
        self.grad_checkpointing = enable

    def forward_features(self, silhouettes: Any, lengths: Tensor | None = None) -> tuple[Any, Any]:
        """Computes the feature map before temporal pooling.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, C, T', H', W']`` and its valid frames ``[N]`` (``None`` = all T');
            of a model that pools several maps, tuples of both.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward_features")

    def forward_head(self, features: Any, lengths: Any = None) -> GaitOutput:
        """Pools a feature map over time and body parts and embeds every part.

        Args:
            features: ``[N, C, T', H', W']`` from :meth:`forward_features`.
            lengths: ``[N]``, the valid T' that :meth:`forward_features` gave.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward_head")

    def temporal_reach(self) -> tuple[int, int] | None:
        """How far a frame's influence goes before the maximum over time.

        Sequences that do not fit into memory are cut by it (:func:`gaitzoo.embed`); a model with
        a reach has maps (:meth:`temporal_maps`) that reach its head through that maximum alone.

        Returns:
            Input frames before and after, and the step of frames at which pieces may begin (the
            number of frames that become one); ``None`` where a frame's influence has no end, as
            with a mean over time, or is not known.
        """
        return None

    def temporal_maps(self, inputs: Any) -> Iterator[tuple[Tensor, int]]:
        """The maps that :meth:`forward_head` takes, one after the other.

        Only asked of models with a :meth:`temporal_reach`. For a model with several maps the head
        takes a tuple of them.

        Args:
            inputs: As for the model's call, without padding.

        Yields:
            A map ``[N, C, T', H', W']``, and how many frames of the input became one in it.
        """
        features, _ = self.forward_features(inputs)
        yield features, 1

    def forward(self, silhouettes: Any, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds a batch of sequences; see the class for shapes and ranges."""
        features, lengths = self.forward_features(silhouettes, lengths)
        return self.forward_head(features, lengths)

    def prepare(self, inputs: Any, lengths: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """Checks a batch and gives it as masked floats, channels first and time behind them.

        Args:
            inputs: As for the model's call: a tensor, or for several modalities a mapping.
            lengths: As for the model's call.

        Returns:
            ``[N, C, T, ...]`` in the value range of the model (a dictionary of them for several
            modalities), and ``lengths`` on the device of the batch.

        Raises:
            TypeError: If the inputs are of another type.
            ValueError: If modalities, axes, lengths or values do not fit.
        """
        floats = (p.dtype for p in self.parameters() if p.is_floating_point())
        dtype = next(floats, float32)
        if len(self.modalities) == 1:
            (name,) = self.modalities
            if isinstance(inputs, Mapping):
                self._check_names(inputs)
                inputs = inputs[name]
            own_range = self.pretrained_cfg.value_range if name == "silhouettes" else None
            return find_modality(name).prepare(
                inputs,
                lengths,
                dtype=dtype,
                channels=getattr(self, "in_channels", None),
                value_range=own_range,
            )
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"expected a mapping with {', '.join(self.modalities)} for {type(self).__name__}, "
                f"got {type(inputs).__name__}"
            )
        self._check_names(inputs)
        prepared: dict[str, Tensor] = {}
        checked = lengths
        for name in self.modalities:
            prepared[name], checked = find_modality(name).prepare(
                inputs[name], lengths, dtype=dtype
            )
        shapes = {name: (x.shape[0], x.shape[2]) for name, x in prepared.items()}
        # Compared one by one: a set of sizes would fix them in a graph that is to hold for all.
        first = shapes[self.modalities[0]]
        if any(shape != first for shape in shapes.values()):
            raise ValueError(
                "expected modalities with as many sequences and frames as each other, got "
                f"{', '.join(f'{n} x {t} of {name}' for name, (n, t) in shapes.items())}"
            )
        return prepared, checked

    def _check_names(self, inputs: Mapping[str, Any]) -> None:
        if set(inputs) != set(self.modalities):
            raise ValueError(
                f"expected {', '.join(self.modalities)} for {type(self).__name__}, got "
                f"{', '.join(map(str, inputs)) or 'nothing'}"
            )

    def run(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Calls a block, recomputing it in the backward pass if that was asked for.

        Batch norms inside count a batch once, also when it is computed twice.

        Args:
            block: A module, or a function without state.
            *inputs: Its inputs.
        """
        if not (self.grad_checkpointing and self.training and is_grad_enabled()):
            return block(*inputs)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(block)

        return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


def init_weights(module: nn.Module) -> None:
    """Initialises a model as the field does.

    Convolutions and linear layers get Xavier-uniform weights and zero biases, batch norms weights
    around one (standard deviation 0.02). Matrices of parts initialise themselves.

    Args:
        module: Changed in place, with everything in it.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def num_classes_of(shape: tuple[int, ...]) -> int:
    """Classes of a classifier's weight.

    Args:
        shape: ``[P, C, K]`` of a matrix per part, ``[K, C]`` of ``nn.Linear``.
    """
    return shape[0] if len(shape) == 2 else shape[-1] if shape else 0


@contextmanager
def _statistics_kept(block: object) -> Iterator[None]:
    """Leaves the running statistics alone: the first of two equal passes has updated them."""
    modules = block.modules() if isinstance(block, nn.Module) else ()
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    counted = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, before in zip(norms, momenta, counts, counted, strict=True):
            norm.momentum = momentum
            if count is not None and before is not None:
                count.copy_(before)
