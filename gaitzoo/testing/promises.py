"""What every model promises, by name: functions that raise where a promise does not hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from gaitzoo.testing import calls, services
from gaitzoo.testing.trial import Trial

__all__ = ["PROMISES", "Promise"]

Promise = Callable[[Trial], None]


def _quietly(promise: Promise) -> Promise:
    def quiet(trial: Trial) -> None:
        # Tracers use what later versions of torch have deprecated; noise is no usual silhouette.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            promise(trial)

    quiet.__doc__ = promise.__doc__
    return quiet


PROMISES: Mapping[str, Promise] = {
    "length_law": calls.length_law,
    "length_law_float64": calls.length_law_float64,
    "equal_lengths": calls.equal_lengths,
    "order": calls.order,
    "shapes": calls.shapes,
    "classes": calls.classes,
    "features": calls.features,
    "grey_levels": calls.grey_levels,
    "bad_inputs": calls.bad_inputs,
    "gradients": calls.gradients,
    "checkpointing": calls.checkpointing,
    "copies": services.copies,
    "saving": services.saving,
    "checkpoint": services.checkpoint,
    "autocast": calls.autocast,
    "embed": _quietly(services.embedding),
    "fuse": _quietly(services.fuse),
    "export": _quietly(services.export),
    "onnx": _quietly(services.onnx),
}
"""Names of the promises and the functions that try them."""
