"""Compares walking sequences with a model in an ONNX file: numpy and onnxruntime are enough.

Make the file once, where gaitzoo is installed (pip install 'gaitzoo[onnx]'):

    gaitzoo export dygait.casiab -o dygait.onnx

and run it anywhere (pip install numpy onnxruntime) on sequences of silhouettes that are ready for
the model, uint8 ``[T, H, W]`` in 0..255:

    python onnx_inference.py dygait.onnx first.npy second.npy third.npy
"""

import argparse
import json

import numpy as np
import onnxruntime


def main() -> None:
    """Prints the distances between all sequences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="ONNX file from gaitzoo export")
    parser.add_argument("sequences", nargs="+", help=".npy files, uint8 [T, H, W]")
    arguments = parser.parse_args()

    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    height, width = json.loads(facts["input_size"])
    if json.loads(facts["value_range"]) != [0, 1]:
        parser.error(f"expected a model that reads values in [0, 1], got {facts['value_range']}")
    clips = [np.load(path) for path in arguments.sequences]
    for path, clip in zip(arguments.sequences, clips, strict=True):
        fits = clip.ndim == 3 and clip.shape[1:] == (height, width) and clip.dtype == np.uint8
        if not fits or len(clip) == 0:
            parser.error(
                f"expected uint8 frames [T, {height}, {width}], one at least, in {path}, got "
                f"{clip.dtype} of shape {list(clip.shape)}"
            )

    silhouettes, lengths = pad(clips, json.loads(facts["fewest_frames"]))
    embeddings = session.run(["embeddings"], {"silhouettes": silhouettes, "lengths": lengths})[0]
    distances = part_distances(np.asarray(embeddings), np.asarray(embeddings))
    for path, row in zip(arguments.sequences, distances, strict=True):
        print(path, " ".join(f"{distance:8.4f}" for distance in row))


def pad(clips: list[np.ndarray], fewest_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch ``[N, T, H, W]`` in [0, 1] and ``lengths`` ``[N]``; T is the fewest at least."""
    lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
    shape = (len(clips), max(fewest_frames, lengths.max()), *clips[0].shape[1:])
    batch = np.zeros(shape, dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip / np.float32(255)
    return batch, lengths


def part_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Mean over body parts of the Euclidean distances, ``[Q, G]``."""
    differences = query[:, None] - gallery[None]
    return np.sqrt((differences**2).sum(axis=3)).mean(axis=2)


if __name__ == "__main__":
    main()
