"""How often each of several data sets is drawn from."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["mix_probabilities"]


def mix_probabilities(
    sizes: Mapping[str, float], power: float = 1 / 3, discount: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Probabilities of data sets that grow more slowly than their sizes, for training on several.

    A batch comes from one data set. Seed the draw by the number of the step, and all processes
    draw the same one.

    Source: FoundationGait (https://arxiv.org/abs/2512.00691), size to the power of one third, and
    the largest set, of faulty silhouettes, counted as a tenth.

    Args:
        sizes: Name of each data set to its number of sequences, above 0.
        power: 1 = by size, 0 = all alike.
        discount: What sizes of some data sets are divided by before, above 0.

    Returns:
        Name of each data set to its probability; they add up to one.

    Raises:
        ValueError: If there is no data set, a number is out of range, or a discounted name is none
            of them.

    Example:
        >>> shares = mix_probabilities({"a": 1000, "b": 80000}, discount={"b": 10})
        >>> {name: round(share, 3) for name, share in shares.items()}
        {'a': 0.333, 'b': 0.667}
    """
    discount = discount or {}
    if not sizes:
        raise ValueError("expected sizes of one data set or more, got none")
    unknown = set(discount) - set(sizes)
    if unknown:
        raise ValueError(
            f"expected discounts of {', '.join(sizes)}, got {', '.join(sorted(unknown))} besides"
        )
    for name, number in (*sizes.items(), *discount.items()):
        if not 0 < number < float("inf"):
            raise ValueError(f"expected size and discount of {name} above 0, got {number!r}")
    if not 0 <= power <= 1:
        raise ValueError(f"expected a power from 0 to 1, got {power!r}")
    weights = {name: (size / discount.get(name, 1)) ** power for name, size in sizes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
