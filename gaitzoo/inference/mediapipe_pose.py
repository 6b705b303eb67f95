"""MediaPipe Pose as a segmenter: the mask and the joints of one person, on the processor."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaitzoo.data.poses import convert_joints
from gaitzoo.data.segmentation import FrameMasks, check_rgb, check_share

__all__ = ["MediaPipePoseSegmenter"]

_MILLISECONDS = 40  # between frames; MediaPipe smooths over time
_PAGE = "https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker"

# From a frame [H, W, 3] to the mask [H, W] in [0, 1] and landmarks [33, 3] (x and y as shares of
# width and height, visibility), or nobody.
_Finder = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray] | None"]


class MediaPipePoseSegmenter:
    """The most prominent person of each frame, with joints, by MediaPipe Pose.

    Runs without a download where MediaPipe's wheel carries the models (versions before 0.10.30,
    for Python up to 3.12: ``pip install 'gaitzoo[mediapipe]'``); newer versions need a file of
    the models. Frames are taken as a video: the person is followed and the mask smoothed from
    frame to frame, over calls too. :meth:`restart` forgets the person, for another video.

    Source: Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", 2020,
    https://arxiv.org/abs/2006.10204; https://github.com/google-ai-edge/mediapipe (Apache-2.0).
    Differs: of its 33 landmarks, COCO's 17 joints are kept; the score of a person, which
    MediaPipe does not give, is the mean visibility of these.

    Args:
        model_path: ``pose_landmarker_*.task`` from Google's page; ``None`` = the models in
            MediaPipe's wheel.
        threshold: Mask values from here on are the person, in (0, 1).
        min_confidence: Of the detection of a person, in (0, 1).

    Raises:
        ValueError: If a number is out of range.
        FileNotFoundError: If there is nothing at ``model_path``.
        ImportError: Without MediaPipe, or with a version that carries no models and no
            ``model_path``.

    Example::

        people = MediaPipePoseSegmenter()(frames)  # [T, H, W, 3] uint8
        people[0].keypoints  # [1, 17, 3], or [0, 17, 3] where nobody was found
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        *,
        threshold: float = 0.5,
        min_confidence: float = 0.5,
    ) -> None:
        check_share(threshold=threshold, min_confidence=min_confidence)
        if model_path is not None and not Path(model_path).is_file():
            raise FileNotFoundError(
                f"expected a file pose_landmarker_*.task, got {str(model_path)!r}; see {_PAGE}"
            )
        self.threshold = threshold
        self._arguments = (model_path, min_confidence)
        self._start()

    def __call__(self, frames: np.ndarray) -> list[FrameMasks]:
        """Segments the next frames of a video.

        Args:
            frames: ``[T, H, W, 3]`` uint8, RGB.

        Returns:
            T entries of one person with keypoints, or of nobody.

        Raises:
            TypeError: If ``frames`` is no array of uint8.
            ValueError: If its shape is another.
        """
        check_rgb(frames)
        return [self._segment(frame) for frame in frames]

    def restart(self) -> None:
        """Forgets the person of the last frame."""
        self._close()
        self._start()

    def _start(self) -> None:
        model_path, confidence = self._arguments
        if model_path is None:
            self._find, close = _solution(confidence)
        else:
            self._find, close = _task(model_path, confidence)
        # MediaPipe's own way out fails while Python ends.
        self._close = weakref.finalize(self, close)

    def _segment(self, frame: np.ndarray) -> FrameMasks:
        height, width = frame.shape[:2]
        found = self._find(np.ascontiguousarray(frame))
        mask = None if found is None else found[0] >= self.threshold
        if found is None or mask is None or not mask.any():
            nobody = np.zeros((0, height, width), bool)
            return FrameMasks(nobody, np.zeros(0), keypoints=np.zeros((0, 17, 3)))
        landmarks = found[1] * (width, height, 1)
        landmarks[:, 2] = landmarks[:, 2].clip(0, 1)
        joints = convert_joints(torch.from_numpy(landmarks)[None], "mediapipe33").numpy()
        return FrameMasks(mask[None], joints[..., 2].mean(1), keypoints=joints)


def _solution(confidence: float) -> tuple[_Finder, Callable[[], None]]:
    """MediaPipe's older interface, with the models of its wheel, and how to close it."""
    mediapipe = _mediapipe()
    if not hasattr(mediapipe, "solutions"):
        raise ImportError(
            f"mediapipe {mediapipe.__version__} carries no models; pip install "
            f"'gaitzoo[mediapipe]' (a version before 0.10.30, Python up to 3.12), or give the file "
            f"pose_landmarker_full.task as model_path ({_PAGE})"
        )
    pose = mediapipe.solutions.pose.Pose(
        enable_segmentation=True, min_detection_confidence=confidence
    )

    def find(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        found = pose.process(frame)
        if found.pose_landmarks is None or found.segmentation_mask is None:
            return None
        return found.segmentation_mask, _array(found.pose_landmarks.landmark)

    return find, pose.close


def _task(model_path: str | Path, confidence: float) -> tuple[_Finder, Callable[[], None]]:
    """MediaPipe's newer interface, with a file of models, and how to close it."""
    mediapipe = _mediapipe()
    tasks = importlib.import_module("mediapipe.tasks.python")
    vision = importlib.import_module("mediapipe.tasks.python.vision")
    landmarker = vision.PoseLandmarker.create_from_options(
        vision.PoseLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(model_path)),
            running_mode=vision.RunningMode.VIDEO,
            output_segmentation_masks=True,
            min_pose_detection_confidence=confidence,
        )
    )
    time = 0

    def find(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        nonlocal time
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
        found = landmarker.detect_for_video(image, time)
        time += _MILLISECONDS
        if not found.pose_landmarks or not found.segmentation_masks:
            return None
        mask = np.array(found.segmentation_masks[0].numpy_view())
        return mask.reshape(frame.shape[:2]), _array(found.pose_landmarks[0])

    return find, landmarker.close


def _array(landmarks: Any) -> np.ndarray:
    return np.array([(mark.x, mark.y, mark.visibility) for mark in landmarks], np.float64)


def _mediapipe() -> Any:
    try:
        return importlib.import_module("mediapipe")
    except ImportError as error:
        raise ImportError(
            f"MediaPipe Pose needs the package mediapipe ({error}); pip install "
            "'gaitzoo[mediapipe]' (Python up to 3.12)"
        ) from error
