"""Segmenters: networks that find the people of video frames, as adapters of other libraries.

Each is a :class:`gaitzoo.data.segmentation.Segmenter`: frames in, masks of people out, so that any
other network takes its place by a function of a few lines. Their libraries are imported, and
their weights loaded, when one is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gaitzoo.data.segmentation import FrameMasks, check_rgb, check_share
from gaitzoo.layers.checks import check_size

__all__ = ["TransformersSegmenter"]

_DTYPES = (None, torch.float32, torch.bfloat16, torch.float16)
_EXTRA = "pip install 'gaitzoo[segmentation]'"


class TransformersSegmenter:
    """People by an instance segmentation model of transformers.

    Models that ``AutoModelForUniversalSegmentation`` or, in versions of transformers that have
    it, ``AutoModelForInstanceSegmentation`` builds: Mask2Former, MaskFormer, OneFormer, EoMT,
    DETR, RF-DETR. Frames are prepared and masks made by the model's own processor; of its masks,
    those of the class ``person`` count. No code from the Hub runs.

    Source: https://github.com/huggingface/transformers; Mask2Former: Cheng et al.,
    "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022,
    https://arxiv.org/abs/2112.01527.
    Differs: masks of frames that the processor pads are read without the padding, over which
    transformers stretches them; overlapping masks stay whole where the processor can give them.

    Args:
        name: Name on the Hub, or a folder that ``save_pretrained`` wrote. Its licence is its own.
        revision: Branch, tag or commit on the Hub.
        threshold: Lowest score of a person, in (0, 1).
        batch_size: Frames that are computed together.
        device: Where to compute; ``None`` = a GPU if torch has one, else the processor.
        dtype: ``torch.bfloat16`` or ``torch.float16`` to compute in it; ``None`` = float32.
        progress: Show a progress bar over the frames of a call.

    Raises:
        ValueError: If an argument is out of range, the model is of another kind, or it has no
            class ``person``.
        OSError: If there is no such model, or weights of it are missing.
        ImportError: If a package that the model needs is missing.

    Example::

        segmenter = TransformersSegmenter("facebook/mask2former-swin-tiny-coco-instance")
        people = segmenter(frames)  # [T, H, W, 3] uint8
    """

    def __init__(
        self,
        name: str = "facebook/mask2former-swin-tiny-coco-instance",
        *,
        revision: str | None = None,
        threshold: float = 0.5,
        batch_size: int = 4,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        progress: bool = False,
    ) -> None:
        check_size(batch_size=batch_size)
        check_share(threshold=threshold)
        if dtype not in _DTYPES:
            raise ValueError(f"expected dtype torch.bfloat16, torch.float16 or None, got {dtype!r}")
        self.name, self.threshold = name, threshold
        self.batch_size, self.progress = batch_size, progress
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(default if device is None else device)
        self.dtype = dtype or torch.float32
        model, self._processor, self._is_oneformer = _load(name, revision)
        self._people = _classes_of_people(model.config.id2label, name)
        self.model = model.to(self.device, self.dtype).eval()

    def __call__(self, frames: np.ndarray) -> list[FrameMasks]:
        """Segments frames.

        Args:
            frames: ``[T, H, W, 3]`` uint8, RGB.

        Returns:
            T entries with masks and scores, those of the highest scores first.

        Raises:
            TypeError: If ``frames`` is no array of uint8.
            ValueError: If its shape is another.
        """
        check_rgb(frames)
        found: list[FrameMasks] = []
        with tqdm(
            total=len(frames), unit="frame", desc="segmenting", disable=not self.progress
        ) as bar:
            for begin in range(0, len(frames), self.batch_size):
                batch = frames[begin : begin + self.batch_size]
                found += self._segment(batch)
                bar.update(len(batch))
        return found

    @torch.inference_mode()
    def _segment(self, frames: np.ndarray) -> list[FrameMasks]:
        size = (frames.shape[1], frames.shape[2])
        words = {"task_inputs": ["instance"] * len(frames)} if self._is_oneformer else {}
        prepared = self._processor(
            images=list(frames), input_data_format="channels_last", return_tensors="pt", **words
        )
        taken = inspect.signature(self.model.forward).parameters
        inputs = {
            key: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for key, value in prepared.items()
            if key in taken and isinstance(value, Tensor)
        }
        outputs = self.model(**inputs)
        # Not every image processor makes masks on the device of its outputs.
        outputs = type(outputs)(
            {
                key: value.float().cpu() if isinstance(value, Tensor) else value
                for key, value in outputs.items()
            }
        )
        padded = _padded_size(size, prepared.get("pixel_mask"))
        segment = getattr(self._processor, "image_processor", self._processor)
        segment = segment.post_process_instance_segmentation
        arguments = {"threshold": self.threshold, "target_sizes": [padded] * len(frames)}
        if "return_binary_maps" in inspect.signature(segment).parameters:
            arguments["return_binary_maps"] = True
        return [self._people_of(result, size) for result in segment(outputs, **arguments)]

    def _people_of(self, result: Mapping[str, Any], size: tuple[int, int]) -> FrameMasks:
        """The people of one frame, from what the processor made of it."""
        height, width = size
        segments, maps = result["segments_info"], result["segmentation"]
        people: list[tuple[float, np.ndarray]] = []
        for i, segment in enumerate(segments):
            if segment["label_id"] in self._people:
                mask = maps[i] > 0 if maps.ndim == 3 else maps == segment["id"]
                mask = mask[:height, :width].numpy()
                if mask.any():
                    people.append((min(max(float(segment["score"]), 0.0), 1.0), mask))
        people.sort(key=lambda person: -person[0])
        masks = np.array([mask for _, mask in people], bool).reshape(-1, height, width)
        return FrameMasks(masks, np.array([score for score, _ in people], np.float64))


def _load(name: str, revision: str | None) -> tuple[Any, Any, bool]:
    """Model, processor, and whether both read words too, as OneFormer's do."""
    import transformers

    safe: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **safe)
        kind = _kind_of(config, name)
        is_oneformer = config.model_type == "oneformer"
        reader = transformers.AutoProcessor if is_oneformer else transformers.AutoImageProcessor
        processor = reader.from_pretrained(name, **safe)
        model, info = kind.from_pretrained(name, config=config, output_loading_info=True, **safe)
    except ImportError as error:
        raise ImportError(f"{name} needs a package that is missing ({error}); {_EXTRA}") from error
    lost = sorted(key for key in info["missing_keys"] if not _can_be_missing(key))
    if lost:
        raise OSError(
            f"expected all weights of {name}, got a file without {len(lost)} of them "
            f"({', '.join(lost[:3])}); take a checkpoint for instance segmentation, not a backbone"
        )
    makes_masks = getattr(processor, "image_processor", processor)
    if not hasattr(makes_masks, "post_process_instance_segmentation"):
        raise ValueError(
            f"expected an image processor that makes masks of instances, got "
            f"{type(makes_masks).__name__} of {name}"
        )
    return model, processor, is_oneformer


def _kind_of(config: Any, name: str) -> Any:
    """The class that builds models of a configuration."""
    import transformers

    # Older versions have no classes for instances alone.
    kinds = [transformers.AutoModelForUniversalSegmentation]
    kinds += [k for k in [getattr(transformers, "AutoModelForInstanceSegmentation", None)] if k]
    for kind in kinds:
        if type(config) in kind._model_mapping:
            return kind
    raise ValueError(
        f"expected a model for instance segmentation (Mask2Former, MaskFormer, OneFormer, EoMT, "
        f"DETR, RF-DETR), got {name} of the kind {config.model_type}"
    )


def _can_be_missing(key: str) -> bool:
    """What only training needs, or what is computed."""
    return key.startswith("criterion.") or key.endswith(
        ("num_batches_tracked", "relative_position_index", "position_ids")
    )


def _classes_of_people(names: Mapping[Any, str], model: str) -> set[int]:
    found = {
        int(number)
        for number, name in names.items()
        if "person" in (word.strip() for word in str(name).lower().split(","))
    }
    if not found:
        shown = ", ".join(str(name) for name in list(names.values())[:5])
        raise ValueError(
            f"expected a model with the class person, got {model} with {shown}, ...; take one "
            "that was trained on COCO"
        )
    return found


def _padded_size(size: tuple[int, int], mask: Tensor | None) -> tuple[int, int]:
    """What the height and width of frames grow to by the padding to the right and below."""
    if mask is None:
        return size
    rows, columns = mask[0].any(1), mask[0].any(0)
    grown = (len(rows) / int(rows.sum()), len(columns) / int(columns.sum()))
    return round(size[0] * grown[0]), round(size[1] * grown[1])
