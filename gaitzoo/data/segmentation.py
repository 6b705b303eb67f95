"""What stands between a video and its silhouettes: the people of a frame, and who finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["FrameMasks", "Segmenter", "check_rgb", "check_share"]

_KEYPOINTS = 17


@dataclass(frozen=True, eq=False)
class FrameMasks:
    """The people of one frame.

    Args:
        masks: ``[M, H, W]`` bool, one person each, on the pixels of the frame; M may be 0.
        scores: ``[M]`` floating point, in [0, 1]: how sure the segmenter is.
        ids: ``[M]`` int64, identities known beforehand, each once per frame; ``None`` = people
            are to be tracked.
        keypoints: ``[M, 17, 3]`` floating point, COCO's joints as x and y in pixels of the frame
            and confidence in [0, 1]; ``None`` = the segmenter finds none.

    Raises:
        TypeError: If a field is no array of its number type.
        ValueError: If shapes disagree, a score is outside [0, 1], or an id stands twice.

    Example:
        >>> FrameMasks(np.zeros((0, 48, 64), bool), np.zeros(0)).masks.shape
        (0, 48, 64)
    """

    masks: np.ndarray
    scores: np.ndarray
    ids: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check(self.masks, "masks", "b", "bool", "[M, H, W]", ndim=3)
        count = len(self.masks)
        _check(self.scores, "scores", "f", "floating point", f"[{count}]", (count,))
        if not ((self.scores >= 0) & (self.scores <= 1)).all():  # so written that NaN fails too
            raise ValueError(
                f"expected scores in [0, 1], got {self.scores}. Divide percentages by 100."
            )
        if self.ids is not None:
            _check(self.ids, "ids", "iu", "integer", f"[{count}]", (count,))
            if len(set(self.ids.tolist())) < count:
                raise ValueError(
                    f"expected every id once per frame, got {self.ids.tolist()}. Join the masks "
                    f"of one person with numpy.logical_or."
                )
        if self.keypoints is not None:
            shape = (count, _KEYPOINTS, 3)
            _check(self.keypoints, "keypoints", "f", "floating point", f"{list(shape)}", shape)


@runtime_checkable
class Segmenter(Protocol):
    """Finds the people of frames: any callable of this form.

    One that remembers frames from call to call has a method ``restart()`` besides, which is called
    before the first frame of a video.
    """

    def __call__(self, frames: np.ndarray, /) -> list[FrameMasks]:
        """Segments frames.

        Args:
            frames: ``[T, H, W, 3]`` uint8, RGB.

        Returns:
            One entry per frame.
        """
        ...


def check_rgb(frames: np.ndarray) -> None:
    """Raises unless ``frames`` are what a segmenter takes.

    Args:
        frames: ``[T, H, W, 3]`` uint8, RGB.

    Raises:
        TypeError: If it is no array of uint8.
        ValueError: If its shape is another, or an axis is empty.

    Example:
        >>> check_rgb(np.zeros((2, 48, 64, 3), np.uint8))
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"expected frames as a uint8 numpy array, got {got}. Convert it first.")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(
            f"expected frames [T, H, W, 3], got {list(frames.shape)}. One frame alone becomes "
            f"frames[None]; colours stand last."
        )


def check_share(**shares: Any) -> None:
    """Raises unless every share lies between 0 and 1.

    Args:
        **shares: By the names of the arguments.

    Raises:
        ValueError: If one is anything else.

    Example:
        >>> check_share(threshold=0.5)
    """
    for name, share in shares.items():
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ValueError(f"expected {name} between 0 and 1, got {share!r}")


def _check(
    values: np.ndarray,
    name: str,
    kinds: str,
    kind: str,
    axes: str,
    shape: tuple[int, ...] | None = None,
    ndim: int | None = None,
) -> None:
    """Refuses what is no array of a number type and shape."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        got = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"expected {name} as a {kind} numpy array, got {got}. Convert it first.")
    if (shape is not None and values.shape != shape) or (ndim is not None and values.ndim != ndim):
        raise ValueError(
            f"expected {name} of shape {axes}, got {list(values.shape)}. One entry per person."
        )
