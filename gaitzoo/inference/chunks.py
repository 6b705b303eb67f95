"""Very long sequences in pieces, with the numbers of the whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.batches import count_frames
from gaitzoo.inference.inputs import cut
from gaitzoo.layers.sequence import masked_max
from gaitzoo.models.base import GaitModel

__all__ = ["embed_in_chunks"]


def embed_in_chunks(model: GaitModel, sequence: Any, max_frames: int) -> Tensor:
    """Embeds one long sequence piece by piece.

    Neighbouring pieces overlap by as many frames as influence each other; of every map only the
    frames that see no cut enter the running maximum.

    Args:
        model: A model with a ``temporal_reach()``, in eval mode.
        sequence: One sequence as for the model, without the axis N, on any device; pieces go to
            the model's.
        max_frames: Frames of a piece, overlaps included; pieces never get shorter than what the
            overlaps leave room for.

    Returns:
        ``[1, P, C]``.

    Raises:
        ValueError: If the model has no reach.
    """
    found = model.temporal_reach()
    if found is None:
        raise ValueError(f"expected a model with a temporal_reach(), got {type(model).__name__}")
    reach, step = found
    num_frames = count_frames(model.modalities, sequence)
    stride = max(step, (max_frames - 2 * reach) // step * step)
    # A short rest goes with the last piece: models need a few frames at least.
    starts = range(0, max(1, num_frames - model.min_frames), stride)
    maxima: list[Tensor] = []
    for start in starts:
        last = start == starts[-1]
        begin, end = max(0, start - reach), num_frames if last else start + stride + reach
        piece = cut(model, sequence, begin, min(end, num_frames))
        for i, (features, frames_per_step) in enumerate(model.temporal_maps(piece)):
            first = (start - begin) // frames_per_step
            kept = features.shape[2] - first if last else stride // frames_per_step
            highest = masked_max(features.narrow(2, first, kept), None).unsqueeze(2)
            if start == 0:
                maxima.append(highest)
            else:
                torch.maximum(maxima[i], highest, out=maxima[i])
    # A head takes a map's maximum for a sequence of one frame.
    features: Any = maxima[0] if len(maxima) == 1 else tuple(maxima)
    return model.forward_head(features).embeddings
