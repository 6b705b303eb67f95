"""Maps inside a model: which there are, and a model that gives them instead of embeddings.

Words and results are those of timm's ``FeatureInfo``, ``forward_intermediates`` and
``features_only``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.modalities import find_modality
from gaitzoo.layers.sequence import mask_fill, repeat_short

__all__ = ["FeatureInfo", "GaitFeatures", "describe_features", "maps_of", "take_indices"]

# Frames of the sequence that maps are measured with: a multiple of every step over time.
_PROBE_FRAMES = 243


class FeatureInfo:
    """What is known of the maps of a model, without computing them.

    Args:
        info: Of every map, from the first to the last: ``"num_chs"`` (channels), ``"reduction"``
            (how many rows of the frame became one), ``"frames"`` (how many frames became one) and
            ``"module"`` (name of the module that gives it).
        out_indices: Which maps are given.
        min_frames: Frames to which short sequences are repeated.

    Example:
        >>> import gaitzoo
        >>> info = gaitzoo.create_model("gaitbase_tiny").feature_info
        >>> info.channels(), info.reduction()
        ([2, 2, 3, 4, 5], [1, 1, 2, 4, 4])
        >>> info.module_name(1), len(info)
        ('backbone.layers.0.0', 5)
    """

    def __init__(
        self, info: Sequence[dict[str, Any]], out_indices: Sequence[int], min_frames: int = 1
    ) -> None:
        self.info = [{**one, "index": i} for i, one in enumerate(info)]
        self.out_indices = tuple(out_indices)
        self.min_frames = min_frames

    def from_other(self, out_indices: int | Sequence[int] | None) -> FeatureInfo:
        """The same for other maps.

        Args:
            out_indices: As for :func:`take_indices`.
        """
        return FeatureInfo(self.info, take_indices(len(self), out_indices), self.min_frames)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """One fact of maps.

        Args:
            key: ``"num_chs"``, ``"reduction"``, ``"frames"``, ``"module"`` or ``"index"``.
            idx: Index of a map, or several; ``None`` = those that are given.

        Returns:
            The fact of one map, or a list.
        """
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All facts of the maps that are given, or those named by ``keys``."""
        return [
            {k: v for k, v in self.info[i].items() if keys is None or k in keys}
            for i in self.out_indices
        ]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of maps, see :meth:`get`."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """How many rows of the frame became one, see :meth:`get`."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Names of the modules that give the maps, see :meth:`get`."""
        return self.get("module", idx)

    def out_lengths(self, lengths: Tensor) -> list[Tensor]:
        """Valid frames of the maps that are given.

        Args:
            lengths: ``[N]`` int64, valid frames of the sequences.
        """
        frames = torch.zeros(len(lengths), 1, int(lengths.max()), device=lengths.device)
        _, repeated = repeat_short(frames, lengths, self.min_frames)
        assert repeated is not None
        return [repeated // step for step in self.get("frames")]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class GaitFeatures(nn.Module):
    """A model that gives maps instead of embeddings; its head is left out.

    What ``create_model(name, features_only=True)`` returns. Gradients reach everything that is
    left.

    Args:
        model: A :class:`GaitModel` that names its maps; taken over and changed in place.
        out_indices: Which maps: indices (negative ones count from the last), a number of last
            ones, or ``None`` = all.

    Attributes:
        feature_info: What is known of the maps.
        pretrained_cfg: As of the model.

    Shapes:
        silhouettes: As for the model.
        lengths: As for the model.
        returns: A list of maps ``[N, C, T', H', W']`` from the first to the last, zeros past the
            end of a sequence. ``feature_info.out_lengths(lengths)`` gives their valid frames.

    Raises:
        ValueError: If the model names no maps or an index is out of range.

    Example:
        >>> import gaitzoo
        >>> net = gaitzoo.create_model("dygait_tiny", features_only=True, out_indices=(0, -1))
        >>> [tuple(x.shape) for x in net(torch.rand(2, 6, 16, 12))]
        [(2, 2, 6, 16, 12), (2, 4, 2, 8, 6)]
    """

    def __init__(self, model: Any, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        info: FeatureInfo = model.feature_info
        self.feature_info = info.from_other(out_indices)
        self.pretrained_cfg = model.pretrained_cfg
        last = info.module_name(max(self.feature_info.out_indices))
        _leave_out(model, _modules_before(model, last))
        self.model = model

    def forward(self, silhouettes: Any, lengths: Tensor | None = None) -> list[Tensor]:
        """Computes the maps, and nothing that comes after the last of them."""
        indices = list(self.feature_info.out_indices)
        return maps_of(self.model, silhouettes, lengths, indices, stop=True)[1]


def take_indices(count: int, indices: int | Sequence[int] | None) -> list[int]:
    """Which of several maps are meant, from the first to the last.

    Args:
        count: How many there are.
        indices: Indices, negative ones from the last; a number = so many last ones; ``None`` =
            all.

    Raises:
        ValueError: If there is no such map.

    Example:
        >>> take_indices(5, (-1, 0)), take_indices(5, 2)
        ([0, 4], [3, 4])
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise ValueError(f"expected 1 to {count} last maps, got {indices}")
        return list(range(count - indices, count))
    wrong = [i for i in indices if type(i) is not int or not -count <= i < count]
    if wrong or not len(indices):
        raise ValueError(
            f"expected indices of maps from {-count} to {count - 1}, got {indices!r}; "
            "model.feature_info says which there are"
        )
    return sorted({i % count for i in indices})


class _Reached(Exception):  # noqa: N818 - no error: the last wanted map has been computed
    """Ends a forward pass."""


def maps_of(
    model: Any,
    inputs: Any,
    lengths: Tensor | None,
    indices: int | Sequence[int] | None,
    *,
    stop: bool,
) -> tuple[Any, list[Tensor]]:
    """The maps that modules of a model give, and what ``forward_features`` gives.

    Args:
        model: A :class:`GaitModel`.
        inputs: As for the model's call.
        lengths: As for the model's call.
        indices: As for :func:`take_indices`.
        stop: Compute nothing after the last map; then there are no features, only ``None``.

    Raises:
        ValueError: If the model names no maps or is fused, or an index is out of range.
    """
    names = _names(model)
    taken = take_indices(len(names), indices)
    maps: dict[int, Tensor] = {}
    features = None
    with ExitStack() as stack:
        for i in taken:

            def keep(_module: Any, _args: Any, output: Tensor, i: int = i) -> None:
                # A layer that is called again belongs to another place.
                maps.setdefault(i, output)
                if stop and i == taken[-1]:
                    raise _Reached

            stack.callback(model.get_submodule(names[i]).register_forward_hook(keep).remove)
        with suppress(_Reached):
            features = model.forward_features(inputs, lengths)
    first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
    found = [_with_time(maps[i], len(first), model) for i in taken]
    if lengths is not None:
        info = model.feature_info.from_other(taken)
        counts = info.out_lengths(lengths.to(found[0].device))
        found = [mask_fill(x, count) for x, count in zip(found, counts, strict=True)]
    return features, found


def describe_features(model: Any) -> FeatureInfo:
    """Channels and sizes of a model's maps, measured without memory and without its weights.

    Args:
        model: A :class:`GaitModel`; left as it is.

    Raises:
        ValueError: If it names no maps.
    """
    names = _names(model)
    shapes: dict[str, torch.Size] = {}
    with ExitStack() as stack:
        for name in names:

            def keep(_module: Any, _args: Any, output: Tensor, name: str = name) -> None:
                shapes.setdefault(name, _with_time(output, 1, model).shape)

            stack.callback(model.get_submodule(name).register_forward_hook(keep).remove)
        rows = _run_without_memory(model)
    info = [
        {
            "num_chs": shapes[name][1],
            "reduction": max(1, round(rows / shapes[name][-2])),
            "frames": max(1, round(_PROBE_FRAMES / shapes[name][2]))
            if len(shapes[name]) > 4
            else 1,
            "module": name,
        }
        for name in names
    ]
    return FeatureInfo(info, range(len(info)), model.min_frames)


def _names(model: Any) -> tuple[str, ...]:
    if model.fused:
        raise ValueError(
            "expected a plain model to give maps, got one from fuse_for_inference, which "
            "overwrites its maps; ask the model that it was made from"
        )
    names = model.feature_modules
    if not names:
        raise ValueError(
            f"expected a model that names its maps (feature_modules), got {type(model).__name__}, "
            "which names none; forward_features gives what its head takes"
        )
    return names


def _with_time(features: Tensor, num_sequences: int, model: Any) -> Tensor:
    """``[N * T, C, H, W]`` of layers that see single frames to ``[N, C, T, H, W]``."""
    has_time = any(find_modality(name).time_axis is not None for name in model.modalities)
    if features.ndim != 4 or not has_time:
        return features
    return features.unflatten(0, (num_sequences, -1)).transpose(1, 2)


class _Features(nn.Module):
    """A model of which only the features are computed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        return self.model.forward_features(inputs)


def _run_without_memory(model: Any) -> int:
    """Computes features on the meta device; returns the rows of the frames."""
    height, width = model.pretrained_cfg.input_size
    sizes = {"N": 1, "T": _PROBE_FRAMES, "H": height, "W": width}
    inputs = {}
    for name in model.modalities:
        modality = find_modality(name)
        channels = modality.channels or getattr(model, "in_channels", 1)
        letters = modality.axes.split()
        if name == "silhouettes" and channels != 1:
            letters = ["N", "C", *letters[1:]]
        shape = [sizes.get(letter, channels) for letter in letters]
        inputs[name] = torch.empty(shape, device="meta")
    example: Mapping[str, Tensor] | Tensor = inputs
    if len(inputs) == 1:
        (example,) = inputs.values()
    probe = _Features(model)
    tensors = {**dict(probe.named_parameters()), **dict(probe.named_buffers())}
    on_meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    with _eval_mode(model), torch.no_grad():
        torch.func.functional_call(probe, on_meta, (example,))
    return height


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode in this block: statistics of batch norms stay, and every module its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _modules_before(model: Any, last: str) -> set[nn.Module]:
    """The modules that have done their work when one of them gives its map."""
    done: set[nn.Module] = set()
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def note(module: nn.Module, *_: Any, is_last: bool = name == last) -> None:
                done.add(module)
                if is_last:
                    raise _Reached

            stack.callback(module.register_forward_hook(note).remove)
        with suppress(_Reached):
            _run_without_memory(model)
    return done


def _leave_out(parent: nn.Module, needed: set[nn.Module]) -> None:
    """Replaces children that are not needed, nor anything in them."""
    for name, child in list(parent.named_children()):
        if child in needed:
            continue
        # Lists keep their lengths, by which models name their maps.
        if needed.isdisjoint(child.modules()) and not isinstance(child, nn.ModuleList):
            setattr(parent, name, nn.Identity())
        else:
            _leave_out(child, needed)
