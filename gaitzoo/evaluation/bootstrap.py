"""How far scores would move with other people: identities drawn again, with all that is theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.ranking import Labels, encode

__all__ = ["Interval", "check_resamples", "cluster_bootstrap", "resample_weights"]


@dataclass(frozen=True)
class Interval:
    """A score and how sure it is.

    Args:
        value: The score of all sequences.
        low: Lower bound.
        high: Upper bound.
        level: Confidence, 0.95 = 95 %.
    """

    value: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] ({self.level:.0%})"


def cluster_bootstrap(
    statistic: Callable[[Tensor], float],
    identities: Labels,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Confidence interval of any score, with identities as what is drawn.

    Sequences of a person resemble each other: drawing sequences one by one gives intervals that
    are too narrow. Here whole people are drawn, with replacement, and the score is computed of
    all sequences of those drawn; bounds are percentiles over the draws (Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, ch. 13; clusters: Davison & Hinkley, 1997, sec. 3.8).

    Args:
        statistic: From numbers of sequences ``[M]`` int64, possibly several times the same, to
            the score. NaN (no score for this draw) is left out.
        identities: ``[N]`` identities of the sequences.
        resamples: How many draws.
        level: Confidence, between 0 and 1.
        seed: Of the draws.

    Returns:
        The score of all sequences and its bounds.

    Raises:
        TypeError: If identities are neither all strings nor all integers.
        ValueError: If an option is out of range, there are fewer than two people, or the score is
            NaN in every draw.

    Example:
        >>> hit = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
        >>> found = cluster_bootstrap(lambda rows: float(hit[rows].mean()), [0, 0, 1, 1, 2, 2])
        >>> round(found.value, 3), found.low, found.high
        (0.667, 0.5, 1.0)
    """
    check_resamples(resamples, least=1)
    if not 0 < level < 1:
        raise ValueError(f"expected level between 0 and 1, got {level!r}")
    codes, _ = encode(identities, identities, "identities")
    order = codes.argsort(stable=True)
    members = order.split(torch.bincount(codes).tolist())
    if len(members) < 2:
        raise ValueError("expected sequences of at least two people, got one; no interval")
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(members), len(members)).tolist()
        values.append(float(statistic(torch.cat([members[number] for number in drawn]))))
    if np.isnan(values).all():
        raise ValueError("expected a score of some draws, got NaN of all; look at the statistic")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(float(statistic(torch.arange(len(codes)))), low, high, level)


def resample_weights(num_identities: int, resamples: int, seed: int) -> Tensor:
    """How often each identity is drawn, ``[resamples, num_identities]`` float64."""
    generator = np.random.default_rng(seed)
    share = np.full(num_identities, 1 / num_identities)
    return torch.from_numpy(generator.multinomial(num_identities, share, resamples)).double()


def check_resamples(resamples: object, least: int) -> None:
    """Raises unless a count of draws is a whole number of ``least`` or more."""
    if type(resamples) is not int or resamples < least:
        raise ValueError(f"expected draws as a whole number of {least} or more, got {resamples!r}")
