"""Who is who from frame to frame.

Boxes of the masks are followed by ByteTrack from ``trackers``
(https://github.com/roboflow/trackers): Apache-2.0, a clean-room implementation with eight releases
in 2026 up to September, which takes the time of each frame. Looked at and not taken:
``supervision`` (MIT), from which its makers moved the tracker to ``trackers``; ``motpy`` (MIT),
without a release since 2021; ``boxmot``, AGPL-3.0.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022
(https://arxiv.org/abs/2110.06864).
"""

from __future__ import annotations

import warnings

import numpy as np

__all__ = ["Follower"]


class Follower:
    """ByteTrack on the boxes of one video.

    Args:
        max_gap: Seconds for which it looks out for somebody lost.
        frame_rate: Frames per second.

    Raises:
        ImportError: If ``trackers`` is missing.
    """

    def __init__(self, max_gap: float, frame_rate: float) -> None:
        try:
            import supervision
            import trackers
        except ImportError as error:
            raise ImportError(
                "expected the package trackers to follow people, got none; pip install "
                '"gaitzoo[video]", or take a segmenter that gives ids'
            ) from error
        self._detections = supervision.Detections
        self._tracker = trackers.ByteTrackTracker(
            lost_track_buffer=max(1, round(30 * max_gap)),  # in frames of 1/30 s, at any rate
            frame_rate=frame_rate,
            # Doubtful masks were left out before.
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )

    def __call__(self, boxes: np.ndarray, scores: np.ndarray, time: float) -> np.ndarray:
        """Follows people into the next frame.

        Args:
            boxes: ``[M, 4]`` left, top, right, bottom in pixels.
            scores: ``[M]`` in [0, 1].
            time: Seconds, later than those of the frame before.

        Returns:
            ``[M]`` int64: one number per person; -1 for who is seen for the first time.
        """
        ids = np.full(len(boxes), -1, np.int64)
        given = self._detections(
            xyxy=boxes.astype(np.float32).reshape(-1, 4),
            confidence=scores.astype(np.float32),
            data={"place": np.arange(len(boxes))},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of boxes that a filter let collapse
            found = self._tracker.update(given, timestamp=time)
        if len(found):
            ids[np.asarray(found.data["place"], np.int64)] = np.asarray(found.tracker_id)
        return ids
