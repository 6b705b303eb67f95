"""Very long sequences in pieces, with the numbers of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.regions import ASTP
from gaitzoo.layers.sequence import masked_max
from gaitzoo.models.base import GaitModel
from gaitzoo.models.deepgaitv2 import DeepGaitV2
from gaitzoo.models.hstl import HSTL
from gaitzoo.models.timm_frames import TimmFrames

__all__ = ["embed_in_chunks", "temporal_reach"]


def temporal_reach(model: GaitModel) -> tuple[int, int] | None:
    """How far a frame's influence goes before the maximum over time.

    Args:
        model: Any model.

    Returns:
        Input frames before and after, and the step of frames at which pieces may begin (the
        number of frames that become one); ``None`` where a frame's influence has no end, as with
        DyGait's mean over time, or is not known.
    """
    if isinstance(model, TimmFrames):
        return 0, 1
    if isinstance(model, DeepGaitV2):
        return sum(_side_frames(conv) for conv in _convs_over_time(model.backbone)), 1
    if isinstance(model, HSTL):
        reach, step = 0, 1
        for level in _levels(model):
            # Regions stand side by side: one behind the other are only those of one region.
            reach += step * len(_convs_over_time(level)) // len(level.astp.heights)
            if level.fta is not None:
                # The long window sees one frame more on each side than what becomes one.
                reach += step
                step *= 3
        return -(-reach // step) * step, step
    return None


def embed_in_chunks(model: GaitModel, silhouettes: Tensor, max_frames: int) -> Tensor:
    """Embeds one long sequence piece by piece.

    Neighbouring pieces overlap by as many frames as influence each other; of every map only the
    frames that see no cut enter the running maximum.

    Args:
        model: A model with a :func:`temporal_reach`, in eval mode.
        silhouettes: ``[1, T, H, W]`` (or ``[1, C, T, H, W]``) as for the model, on any device;
            pieces go to the model's.
        max_frames: Frames of a piece, overlaps included; pieces never get shorter than what the
            overlaps leave room for.

    Returns:
        ``[1, P, C]``.
    """
    found = temporal_reach(model)
    if found is None:
        raise ValueError(f"expected a model whose frames can be cut, got {type(model).__name__}")
    reach, step = found
    device = next(model.parameters()).device
    time = silhouettes.ndim - 3
    num_frames = silhouettes.shape[time]
    stride = max(step, (max_frames - 2 * reach) // step * step)
    # A short rest goes with the last piece: models need a few frames at least.
    starts = range(0, max(1, num_frames - model.min_frames), stride)
    maxima: list[Tensor] = []
    for start in starts:
        last = start == starts[-1]
        begin, end = max(0, start - reach), num_frames if last else start + stride + reach
        piece = silhouettes.narrow(time, begin, min(end, num_frames) - begin).to(device)
        maps = _maps(model, piece)
        for i, (features, frames_per_step) in enumerate(maps):
            first = (start - begin) // frames_per_step
            kept = features.shape[2] - first if last else stride // frames_per_step
            highest = masked_max(features.narrow(2, first, kept), None).unsqueeze(2)
            if start == 0:
                maxima.append(highest)
            else:
                torch.maximum(maxima[i], highest, out=maxima[i])
    return _embed_maxima(model, maxima)


def _maps(model: GaitModel, silhouettes: Tensor) -> Iterator[tuple[Tensor, int]]:
    """The maps whose maxima over time a model needs, and how many frames became one in them."""
    if not isinstance(model, HSTL):
        yield model.forward_features(silhouettes)[0], 1
        return
    x, _ = model.prepare(silhouettes, None)
    step = 1
    for level in _levels(model):
        for block in level.arme:
            x = block(x)
        yield x, step
        if level.fta is not None:
            x = level.fta(x)
            step *= 3
            yield x, step
        if level.halve is not None:
            x = level.halve(x)
    yield x, step


def _embed_maxima(model: GaitModel, maxima: list[Tensor]) -> Tensor:
    """The rest of a model, which takes a map's maximum for a sequence of one frame."""
    if not isinstance(model, HSTL):
        return model.forward_head(maxima[0]).embeddings
    pools = [pool for level in _levels(model) for pool in (level.astp, level.fta_astp)]
    pools = [pool for pool in pools if pool is not None]
    parts = [pool(x) for pool, x in zip(pools, maxima[:-1], strict=True)]
    if isinstance(model.last_pool, ASTP):
        parts.append(model.last_pool(maxima[-1]))
    else:
        parts.append(model.last_pool(model.temporal_pool(maxima[-1])))
    features = torch.cat(parts, dim=1).transpose(1, 2)
    return model.forward_head(features[:, :, None, :, None]).embeddings


def _levels(model: HSTL) -> list[Any]:
    return list(model.levels.children())


def _convs_over_time(module: nn.Module) -> list[nn.Conv3d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1]


def _side_frames(conv: nn.Conv3d) -> int:
    return conv.kernel_size[0] // 2
