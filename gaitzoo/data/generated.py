"""Which generated silhouettes look like a person at all.

Source: GaitCrafter (https://arxiv.org/abs/2508.13300) mixes generated walks into training; that
they are filtered, and by what, is inferred.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaitzoo.data.bodies import find_pieces
from gaitzoo.data.modalities import find_modality
from gaitzoo.layers.sequence import lengths_to_mask

__all__ = ["silhouette_quality", "within_ranges"]


def silhouette_quality(
    silhouettes: Tensor, lengths: Tensor | None = None, threshold: float = 0.5
) -> dict[str, Tensor]:
    """Measures of every sequence that are odd where a generator went wrong.

    Args:
        silhouettes: ``[N, T, H, W]`` floats in [0, 1] or uint8 in 0..255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        threshold: Values above it are the person.

    Returns:
        Each ``[N]`` float32: ``area``, mean share of the picture that is the person;
        ``area_change``, mean change of the area from frame to frame, as a share of ``area``;
        ``pieces``, mean number of connected pieces per frame; ``largest_piece``, mean share of the
        person that is in the largest of them (0 in empty frames); ``grey``, share of the area
        within 0.25 of the threshold, the undecided.

    Raises:
        TypeError: If ``silhouettes`` is no such tensor.
        ValueError: If shapes or values do not fit.

    Example:
        >>> clip = torch.zeros(1, 2, 10, 8)
        >>> clip[:, :, 2:6, 2:6], clip[:, 1, 8, 7] = 1, 1
        >>> found = silhouette_quality(clip)
        >>> found["pieces"].tolist(), round(found["area"].item(), 4)
        ([1.5], 0.2062)
    """
    frames, lengths = find_modality("silhouettes").prepare(silhouettes, lengths, channels=1)
    frames = frames[:, 0]
    count, num_frames, height, width = frames.shape
    if lengths is None:
        lengths = torch.full((count,), num_frames)
    lengths = lengths.to(frames.device)
    valid = lengths_to_mask(lengths, num_frames)
    lit = (frames > threshold) & valid[..., None, None]
    area = lit.sum((2, 3)).float()
    pieces = find_pieces(lit.flatten(0, 1).cpu().numpy())
    owner = torch.from_numpy(pieces.frame).to(frames.device)
    numbers = torch.bincount(owner, minlength=count * num_frames).view(count, -1).float()
    sizes = torch.from_numpy(pieces.area).to(frames.device).float()
    largest = torch.zeros(count * num_frames, device=frames.device)
    largest = largest.scatter_reduce(0, owner, sizes, "amax").view(count, -1)
    step = (area[:, 1:] - area[:, :-1]).abs() * valid[:, 1:]
    undecided = ((frames - threshold).abs() < 0.25) & valid[..., None, None]
    total = area.sum(1).clamp(min=1)
    return {
        "area": area.sum(1) / lengths / (height * width),
        "area_change": step.sum(1) / (lengths - 1).clamp(min=1) / (total / lengths),
        "pieces": numbers.sum(1) / lengths,
        "largest_piece": (largest / area.clamp(min=1)).sum(1) / lengths,
        "grey": undecided.sum((1, 2, 3)) / total,
    }


def within_ranges(
    measures: Mapping[str, Tensor], ranges: Mapping[str, tuple[float, float]]
) -> Tensor:
    """Which sequences have all measures in their ranges.

    Args:
        measures: Names to ``[N]``, as of :func:`silhouette_quality`; more may stand beside them,
            such as the cosine of a recogniser's embedding with that of the person meant.
        ranges: Names to lowest and highest allowed value.

    Returns:
        ``[N]`` bool; NaN lies in no range.

    Raises:
        ValueError: If no range is given, or one is of no measure.

    Example:
        >>> within_ranges({"pieces": torch.tensor([1.0, 3.0])}, {"pieces": (1, 1.5)}).tolist()
        [True, False]
    """
    unknown = sorted(set(ranges) - set(measures))
    if unknown or not ranges:
        raise ValueError(
            f"expected ranges of {', '.join(measures)}, got {', '.join(unknown) or 'none'}"
        )
    inside = [
        (measures[name] >= low) & (measures[name] <= high) for name, (low, high) in ranges.items()
    ]
    return torch.stack(inside).all(0)
