"""Folding the batch norms of any network into the convolutions before them."""

from __future__ import annotations

import inspect
from collections.abc import Collection

from torch import fx, nn
from torch.fx.proxy import TraceError

from gaitzoo.layers.conv import Conv2d, Conv3d
from gaitzoo.layers.fused import fold
from gaitzoo.layers.fused_transformed import FusedTransformedConv2d

__all__ = ["fold_batch_norms", "fold_sequential"]

# What tracing raises for networks whose code depends on values or on sizes.
_TRACE_ERRORS = (
    TraceError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
_CONVOLUTIONS = {
    (nn.Conv1d,): nn.BatchNorm1d,
    (nn.Conv2d, Conv2d): nn.BatchNorm2d,
    (nn.Conv3d, Conv3d): nn.BatchNorm3d,
}


class _Tracer(fx.Tracer):
    """Keeps our convolutions whole, batch norms, and blocks that have a fused form of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (nn.modules.batchnorm._BatchNorm, Conv2d, Conv3d))
        whole = whole or callable(getattr(m, "fused", None))
        return whole or super().is_leaf_module(m, module_qualified_name)


def fold_sequential(layers: nn.Sequential, keep: Collection[nn.Module] = ()) -> None:
    """Folds each batch norm right behind a convolution of the same row into it, in place.

    Args:
        layers: In eval mode. A ReLU behind a folded batch norm overwrites what it is given.
        keep: Modules that others use as well.
    """
    names = list(dict(layers.named_children()))
    for before, name, after in zip(names, names[1:], [*names[2:], ""], strict=False):
        conv, bn = layers.get_submodule(before), layers.get_submodule(name)
        rest = _behind_the_norm(bn)
        if rest is None or conv in keep or bn in keep:
            continue
        if isinstance(conv, FusedTransformedConv2d) and isinstance(bn, nn.BatchNorm2d):
            conv.absorb(bn)
        elif _fit(conv, bn):
            assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            conv.weight, conv.bias = fold(conv, bn)
        else:
            continue
        setattr(layers, name, rest)
        if after and type(layers.get_submodule(after)) is nn.ReLU:
            setattr(layers, after, nn.ReLU(inplace=True))


def fold_batch_norms(network: nn.Module, keep: Collection[nn.Module] = ()) -> None:
    """Folds each batch norm into the convolution before it, in place.

    Only where nothing else reads what the convolution gives, with all of the network's inputs and
    with those alone that it needs. Networks that cannot be traced keep their batch norms.

    Args:
        network: In eval mode.
        keep: Modules that others use as well.
    """
    if not any(_behind_the_norm(m) is not None for m in network.modules()):
        return
    parameters = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    pairs = _foldable(network, {})
    if defaults:
        pairs &= _foldable(network, defaults)
    for before, name in pairs:
        conv, bn = network.get_submodule(before), network.get_submodule(name)
        if conv in keep or bn in keep:
            continue
        assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        rest = _behind_the_norm(bn)
        assert rest is not None
        conv.weight, conv.bias = fold(conv, bn)
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, rest)


def _foldable(network: nn.Module, given: dict[str, object]) -> set[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone read what they give."""
    try:
        graph = _Tracer().trace(network, given)
    except _TRACE_ERRORS:
        return set()
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = set()
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if targets.count(node.target) > 1 or targets.count(before.target) > 1:
            continue
        conv, bn = (network.get_submodule(str(n.target)) for n in (before, node))
        if _behind_the_norm(bn) is not None and _fit(conv, bn):
            pairs.add((str(before.target), str(node.target)))
    return pairs


def _fit(conv: nn.Module, bn: nn.Module) -> bool:
    """Whether a batch norm is for maps of as many axes and channels as a convolution gives."""
    # Subclasses and parametrised layers compute in their own way.
    norm = next((norm for kinds, norm in _CONVOLUTIONS.items() if type(conv) in kinds), ())
    return isinstance(bn, norm) and getattr(bn, "num_features", None) == conv.out_channels


def _behind_the_norm(bn: nn.Module) -> nn.Module | None:
    """What a batch norm does besides; ``None`` for anything else than a known batch norm."""
    if getattr(bn, "running_mean", None) is None:
        return None
    if type(bn) in _CONVOLUTIONS.values():
        return nn.Identity()
    if type(bn).__name__ == "BatchNormAct2d" and type(bn).__module__.startswith("timm."):
        return nn.Sequential(bn.drop, bn.act)  # pyright: ignore[reportArgumentType]
    return None
