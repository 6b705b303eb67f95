"""All promises tried on one model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from gaitzoo.models.base import GaitModel
from gaitzoo.testing.promises import PROMISES
from gaitzoo.testing.trial import TOLERANCE, Skipped, Trial

__all__ = ["Report", "Result", "check_model"]

_WIDEST_REASON = 70


@dataclass(frozen=True)
class Result:
    """What came of one promise.

    Args:
        status: ``"passed"``, ``"failed"`` or ``"skipped"``.
        reason: Why it failed or was skipped; empty if it passed.
        error: What was raised, with its traceback; ``None`` if nothing was.

    Example:
        >>> Result("skipped", "the model has no classifier").status
        'skipped'
    """

    status: str
    reason: str = ""
    error: Exception | None = None


class Report(Mapping[str, Result]):
    """What holds of a model: a mapping from the names of promises to their results.

    Args:
        results: Result of every promise that was tried.

    Example:
        >>> report = Report({"order": Result("passed"), "fuse": Result("failed", "off by 1")})
        >>> report.failed
        ['fuse']
        >>> print(report)
        promise    result    reason
        ---------  --------  --------
        order      passed
        fuse       failed    off by 1
    """

    def __init__(self, results: Mapping[str, Result]) -> None:
        self._results = dict(results)

    def __getitem__(self, name: str) -> Result:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __str__(self) -> str:
        from tabulate import tabulate

        rows = [(name, result.status, result.reason) for name, result in self.items()]
        table = tabulate(
            rows,
            headers=["promise", "result", "reason"],
            maxcolwidths=[None, None, _WIDEST_REASON],
        )
        return "\n".join(line.rstrip() for line in table.splitlines())

    @property
    def failed(self) -> list[str]:
        """Names of the promises that do not hold."""
        return [name for name, result in self.items() if result.status == "failed"]

    def raise_if_failed(self) -> None:
        """Raises if a promise does not hold: for a test.

        Raises:
            AssertionError: With the names of these promises and the reasons.
        """
        if self.failed:
            reasons = "\n".join(f"{name}: {self[name].reason}" for name in self.failed)
            raise AssertionError(
                f"expected a model that holds every promise, got one that breaks "
                f"{len(self.failed)} of {len(self)}:\n{reasons}"
            ) from self[self.failed[0]].error


def check_model(
    model: GaitModel,
    *,
    frames: Sequence[int] = (7, 5, 1, 2, 3, 4, 9, 12),
    verbose: bool = True,
) -> Report:
    """Tries what the library relies on: whether a model of one's own is at home in it.

    Made-up sequences of whatever the model reads (``model.modalities``) go through copies of it:
    padded batches with numbers, NaN and infinity in the padding, saving and loading, training,
    autocast, :func:`gaitzoo.embed`, :func:`gaitzoo.fuse_for_inference`, ``torch.export`` and ONNX.
    The page "Models of your own" explains every promise. Takes seconds for a small model; build
    a large one narrow.

    Args:
        model: In float32 or float64, fresh or trained, in any mode, on any device; it is not
            changed, and neither is the state of torch's random numbers.
        frames: Lengths of the sequences, one or more each; the first two, the longer one first,
            are those of the promises that need only two.
        verbose: Print a table of what holds.

    Returns:
        The report: ``report["fuse"].status``, ``report.failed``, ``report.raise_if_failed()``.

    Raises:
        TypeError: If ``model`` is no model of this library or neither float32 nor float64.
        ValueError: If ``frames`` are not two whole numbers or more, the first the longer.

    Example:
        >>> import gaitzoo
        >>> report = check_model(gaitzoo.create_model("gaitbase_tiny"), verbose=False)
        >>> report["length_law"].status, report.failed
        ('passed', [])
    """
    if not isinstance(model, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(model).__name__}; derive its class from "
            "gaitzoo.GaitModel"
        )
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(dtypes) != 1 or not dtypes <= set(TOLERANCE):
        got = ", ".join(sorted(map(str, dtypes))) or "no parameter"
        raise TypeError(
            f"expected a model in float32 or float64, got {got}; convert it with model.float()"
        )
    frames = tuple(frames)
    whole = all(type(count) is int and count >= 1 for count in frames)
    if len(frames) < 2 or not whole or frames[0] <= frames[1]:
        raise ValueError(
            "expected frames as whole numbers of 1 or more, at least two and the first longer "
            f"than the second, got {frames}"
        )
    report = Report({name: _tried(name, model, frames) for name in PROMISES})
    if verbose:
        print(f"{type(model).__name__}\n\n{report}")
    return report


def _tried(name: str, model: GaitModel, frames: tuple[int, ...]) -> Result:
    devices = [torch.device("cuda")] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("default")
        torch.manual_seed(0)
        try:
            PROMISES[name](Trial.of(model, frames))
        except Skipped as reason:
            return Result("skipped", str(reason))
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            return Result("failed", f"{kind}{error}" or type(error).__name__, error)
    return Result("passed")
