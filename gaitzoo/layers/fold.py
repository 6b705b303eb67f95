"""Folding the batch norms of any image network."""

from __future__ import annotations

from torch import fx, nn
from torch.fx.proxy import TraceError

from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.fused import fold

__all__ = ["fold_batch_norms"]

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


class _Tracer(fx.Tracer):
    """Keeps batch norms whole, also those that carry an activation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        batch_norm = isinstance(m, nn.modules.batchnorm._BatchNorm)
        return batch_norm or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(network: nn.Module) -> None:
    """Folds each batch norm into the convolution before it, in place.

    Only where nothing else reads what the convolution gives. Networks that cannot be traced keep
    their batch norms.

    Args:
        network: An image network in eval mode.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        return
    try:
        graph = _Tracer().trace(network)
    except _TRACE_ERRORS:
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if targets.count(node.target) > 1 or targets.count(before.target) > 1:
            continue
        conv, bn = (network.get_submodule(str(n.target)) for n in (before, node))
        rest = _behind_the_norm(bn)
        plain = type(conv) in (nn.Conv2d, Conv2d)
        if plain and isinstance(conv, nn.Conv2d) and rest is not None:
            conv.weight, conv.bias = fold(conv, bn)
            parent, _, name = str(node.target).rpartition(".")
            setattr(network.get_submodule(parent), name, rest)


def _behind_the_norm(bn: nn.Module) -> nn.Module | None:
    """What a batch norm does besides; ``None`` for anything else than a known batch norm."""
    if type(bn) is nn.BatchNorm2d and bn.track_running_stats:
        return nn.Identity()
    if type(bn).__name__ == "BatchNormAct2d" and type(bn).__module__.startswith("timm."):
        return nn.Sequential(bn.drop, bn.act)  # pyright: ignore[reportArgumentType]
    return None
