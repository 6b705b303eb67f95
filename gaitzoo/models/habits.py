"""What users of timm expect of a model, on all models alike."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from gaitzoo.models.adapt import adapt_input_channels
from gaitzoo.models.features import FeatureInfo, describe_features, maps_of
from gaitzoo.models.groups import layer_groups, names_without_decay
from gaitzoo.models.outputs import GaitOutput

__all__ = ["TimmHabits"]


class TimmHabits(nn.Module):
    """Maps inside a model and groups of its parameters, in timm's words.

    A subclass names the modules that give maps (:attr:`feature_modules`). Every ``forward_head``
    also takes ``pre_logits=True`` and then returns what the classifier gets, ``[N, P, C]``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward_head" in vars(cls):
            cls.forward_head = _with_pre_logits(vars(cls)["forward_head"])  # pyright: ignore

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """Names of the modules that give maps, in the order in which they are called.

        A map is ``[N, C, T', H', W']``, or ``[N * T, C, H', W']`` of layers that see single
        frames. ``()`` = the model gives none.
        """
        return ()

    @property
    def feature_info(self) -> FeatureInfo:
        """What is known of the maps of :meth:`forward_intermediates`.

        Raises:
            ValueError: If the model names no maps.
        """
        if "_feature_info" not in vars(self):
            # Not through nn.Module.__setattr__, so that it is kept beside the modules.
            object.__setattr__(self, "_feature_info", describe_features(self))
        return vars(self)["_feature_info"]

    def forward_intermediates(
        self,
        silhouettes: Any,
        lengths: Tensor | None = None,
        indices: int | Sequence[int] | None = None,
        *,
        intermediates_only: bool = False,
    ) -> Any:
        """Computes the maps inside the model.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
            indices: Which maps, as in :attr:`feature_info`: indices (negative ones count from the
                last), a number of last ones, or ``None`` = all.
            intermediates_only: Give the maps alone, and compute nothing that comes after them.

        Returns:
            A list of maps ``[N, C, T', H', W']``, zeros past the end of a sequence, whose valid
            frames are ``feature_info.out_lengths(lengths)``. Before it, unless
            ``intermediates_only``, what ``forward_features`` returns.

        Raises:
            ValueError: If the model names no maps or is fused, or an index is out of range.

        Example:
            >>> import gaitzoo, torch
            >>> model = gaitzoo.create_model("gaitbase_tiny")
            >>> features, maps = model.forward_intermediates(torch.rand(2, 3, 16, 12), indices=2)
            >>> [x.shape[1] for x in maps], model.forward_head(*features).embeddings.shape
            ([4, 5], torch.Size([2, 4, 4]))
        """
        features, maps = maps_of(self, silhouettes, lengths, indices, stop=intermediates_only)
        return maps if intermediates_only else (features, maps)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Layers from the first to the last, for learning rates that fall from layer to layer.

        ``timm.optim.create_optimizer_v2(model, layer_decay=0.75)`` reads it.

        Args:
            coarse: Whole stages instead of blocks.

        Returns:
            Name of each group to a pattern for the names of its parameters. The classifier and
            the norm before it fit none: they are the last group.
        """
        key = getattr(self, "classifier_key", None) or ""
        head = key.rpartition(".")[0] or key
        return layer_groups(self, head or None, coarse)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay would only harm: biases, norms, single numbers."""
        return names_without_decay(self)

    def adapt_input_channels(
        self, state_dict: Mapping[str, Tensor], before: int
    ) -> dict[str, Tensor]:
        """Weights of a model with other input channels, made to fit this one by timm's rule.

        First convolutions are summed for one channel, else repeated and scaled.

        Args:
            state_dict: Parameters under this model's names; left as they are.
            before: Input channels that they were trained with.
        """
        after = getattr(self, "in_channels", before)
        return adapt_input_channels(state_dict, self.state_dict(), before, after)


def _with_pre_logits(head: Callable[..., GaitOutput]) -> Callable[..., Any]:
    """A ``forward_head`` that also takes ``pre_logits``."""
    signature = inspect.signature(head)
    if "pre_logits" in signature.parameters:
        return head

    @functools.wraps(head)
    def forward_head(self: Any, *args: Any, pre_logits: bool = False, **kwargs: Any) -> Any:
        if pre_logits:
            return _before_classifier(self, functools.partial(head, self, *args, **kwargs))
        return head(self, *args, **kwargs)

    option = inspect.Parameter("pre_logits", inspect.Parameter.KEYWORD_ONLY, default=False)
    forward_head.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[*signature.parameters.values(), option]
    )
    return forward_head


class _Catch(nn.Module):
    """Stands where a classifier would be, and keeps what it gets."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors


def _before_classifier(model: Any, head: Callable[[], GaitOutput]) -> Tensor:
    """What the classifier gets, or would get if there was one."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0])

    owner_name, _, name = (model.classifier_key or "").rpartition(".")
    owner = functools.reduce(lambda x, part: getattr(x, part, None), owner_name.split("."), model)
    classifier = model.get_classifier()
    with ExitStack() as stack:
        if owner_name and isinstance(owner, nn.Module) and classifier is None:
            classifier = _Catch()
            setattr(owner, name, classifier)
            stack.callback(setattr, owner, name, None)
        if classifier is not None:
            stack.callback(classifier.register_forward_pre_hook(keep).remove)
        embeddings = head().embeddings
    if not found:
        return embeddings
    # One vector per sequence is one part.
    return found[0].unsqueeze(1) if found[0].ndim == 2 else found[0]
