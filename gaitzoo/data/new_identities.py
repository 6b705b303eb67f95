"""People who do not exist: vectors between those of people who do, and plans of what they walk.

Source: GaitCrafter (https://arxiv.org/abs/2508.13300), new identities by interpolation of
identity embeddings. A reconstruction: shares, rejection of copies and plans are inferred.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.checks import check_size, check_values, shape_of

__all__ = ["interpolate_identities", "plan_conditions", "sample_new_identities"]

_MODES = ("slerp", "lerp")
_TRIES = 200  # draws per wanted person before giving up
_PARALLEL = 1e-4  # radians; closer vectors are mixed along the straight line


def interpolate_identities(
    a: Tensor, b: Tensor, lam: float | Tensor, mode: str = "slerp"
) -> Tensor:
    """Vectors between those of two people.

    Source: https://arxiv.org/abs/2508.13300; which interpolation is used was not to be seen.

    Args:
        a: ``[..., D]``, finite.
        b: ``[..., D]``, finite.
        lam: 0 = ``a``, 1 = ``b``; a number or ``[...]``.
        mode: ``"slerp"`` along the arc between the directions (lengths are mixed along the line, so
            that unit vectors stay unit vectors), or ``"lerp"`` along the straight line.

    Returns:
        ``[..., D]``.

    Raises:
        ValueError: If shapes do not fit, ``lam`` lies outside of [0, 1], ``mode`` is unknown, or
            an arc is asked for between vectors that point in opposite directions or are zero.

    Example:
        >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> interpolate_identities(a, b, 0.5)
        tensor([0.7071, 0.7071])
    """
    if mode not in _MODES:
        raise ValueError(f"expected mode as one of {', '.join(_MODES)}, got {mode!r}")
    if a.ndim < 1 or a.shape != b.shape:
        raise ValueError(f"expected two vectors of one shape, got {shape_of(a)} and {shape_of(b)}")
    share = torch.as_tensor(lam, dtype=a.dtype, device=a.device)
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"expected lam from 0 to 1, got {lam}")
    share = share.expand(a.shape[:-1])[..., None]
    line = torch.lerp(a, b, share)
    if mode == "lerp":
        return line
    long_a, long_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    if not bool((torch.minimum(long_a, long_b) > 0).all()):
        raise ValueError('expected vectors with a direction, got zeros; use mode="lerp"')
    one, other = a / long_a, b / long_b
    # Of the half chord, which keeps its digits where a cosine loses them.
    angle = 2 * torch.asin(((one - other).norm(dim=-1, keepdim=True) / 2).clamp(max=1))
    if bool((torch.pi - angle < _PARALLEL).any()):
        raise ValueError("expected directions with one arc between them, got opposite ones")
    arc = (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / angle.sin()
    arc = arc * torch.lerp(long_a, long_b, share)
    found = torch.where(angle < _PARALLEL, line, arc)
    return torch.where(share == 0, a, torch.where(share == 1, b, found))


def sample_new_identities(
    bank: Tensor,
    n: int,
    max_cosine: float = 0.9,
    generator: torch.Generator | None = None,
    *,
    lam: tuple[float, float] = (0.3, 0.7),
    mode: str = "slerp",
    people: int = 2,
) -> Tensor:
    """Vectors of new people, none of them too close to anyone known.

    Each is a mix of different people of the bank: two at a random place between them, or, with
    ``people`` of 3 and more, all with Dirichlet shares along straight lines. Mixes with a cosine
    above ``max_cosine`` to any vector of the bank are rejected: they would be copies of somebody.

    Source: https://arxiv.org/abs/2508.13300; range, rejection and mixes of three are inferred.
    That no one can be recognised in the results does not follow from this check alone.

    Args:
        bank: ``[M, D]``, a vector of each known person.
        n: How many new ones.
        max_cosine: See above, in (-1, 1].
        generator: Source of the draws; ``None`` = torch's own.
        lam: Lowest and highest place between two.
        mode: See :func:`interpolate_identities`.
        people: How many are mixed, 2 or more.

    Returns:
        ``[n, D]``.

    Raises:
        ValueError: If an argument is out of range, or almost every mix is a copy of somebody.

    Example:
        >>> bank = torch.eye(4)
        >>> new = sample_new_identities(bank, 3, generator=torch.Generator().manual_seed(0))
        >>> new.shape, bool((F.normalize(new, dim=1) @ bank.T <= 0.9).all())
        (torch.Size([3, 4]), True)
    """
    check_size(n=n, people=people)
    low, high = lam
    if bank.ndim != 2 or people < 2 or len(bank) < people:
        raise ValueError(
            f"expected a bank [M, D] of at least {max(people, 2)} people, got {shape_of(bank)} to "
            f"mix {people} of"
        )
    check_values(bank, None, None, "identities")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"expected lam as two numbers with 0 <= low <= high <= 1, got {lam!r}")
    if not -1 < max_cosine <= 1:
        raise ValueError(f"expected max_cosine in (-1, 1], got {max_cosine!r}")
    known, found = F.normalize(bank, dim=1), []
    for _ in range(_TRIES * n):
        chosen = bank[torch.randperm(len(bank), generator=generator)[:people].to(bank.device)]
        draws = torch.rand(people, generator=generator).to(bank)
        if people == 2:
            place = float(low + (high - low) * draws[0])
            mix = interpolate_identities(chosen[0], chosen[1], place, mode)
        else:
            shares = -torch.log1p(-draws)  # exponential: their shares are Dirichlet(1, ..., 1)
            mix = (shares / shares.sum()) @ chosen
        if float((known @ F.normalize(mix, dim=0)).max()) <= max_cosine:
            found.append(mix)
        if len(found) == n:
            return torch.stack(found)
    raise ValueError(
        f"expected a bank with room between its people, got {len(found)} of {n} mixes with cosines "
        f"of at most {max_cosine}; raise max_cosine or give people who differ more"
    )


def plan_conditions(
    identities: Tensor,
    views: Sequence[float],
    covariates: Sequence[tuple[int, int]] = ((1, 1),),
    repeats: int = 1,
) -> dict[str, Tensor]:
    """Every person from every side in every outfit, as conditions of a generator.

    Args:
        identities: ``[M]`` int64 numbers or ``[M, D]`` vectors of people.
        views: Degrees, or numbers of views.
        covariates: Pairs of classes: clothing and carried object.
        repeats: How often each combination comes, for several walks of each.

    Returns:
        ``identity``, ``view``, ``clothing``, ``object``, each with M x views x covariates x repeats
        rows, the last of these changing fastest: what :meth:`GaitCrafter.sample` takes.

    Raises:
        ValueError: If there is nothing to combine, or a shape does not fit.

    Example:
        >>> plan = plan_conditions(torch.arange(2), (0.0, 90.0), ((1, 1), (1, 2)))
        >>> plan["identity"].tolist(), plan["view"].tolist()
        ([0, 0, 0, 0, 1, 1, 1, 1], [0.0, 0.0, 90.0, 90.0, 0.0, 0.0, 90.0, 90.0])
        >>> plan["object"].tolist()
        [1, 2, 1, 2, 1, 2, 1, 2]
    """
    check_size(repeats=repeats)
    if identities.ndim not in (1, 2) or not len(identities) or not len(views) or not covariates:
        raise ValueError(
            "expected identities [M] or [M, D], views and covariates, at least one of each, got "
            f"{shape_of(identities)}, {len(views)} and {len(covariates)}"
        )
    sizes = (len(identities), len(views), len(covariates), repeats)
    rows = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    # One axis alone would come back without its second one.
    person, view, outfit, _ = rows.view(-1, 4).T
    pairs = torch.tensor(covariates, dtype=torch.int64)[outfit]
    return {
        "identity": identities[person.to(identities.device)],
        "view": torch.as_tensor(views)[view],
        "clothing": pairs[:, 0],
        "object": pairs[:, 1],
    }
