"""Compares walking sequences with a model in an ONNX file: numpy and onnxruntime are enough.

Make the file once, where gaitzoo is installed (pip install onnx onnxscript):

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
    height, width = json.loads(session.get_modelmeta().custom_metadata_map["input_size"])
    clips = [np.load(path) for path in arguments.sequences]
    for path, clip in zip(arguments.sequences, clips, strict=True):
        if clip.ndim != 3 or clip.shape[1:] != (height, width) or clip.dtype != np.uint8:
            parser.error(
                f"expected uint8 frames [T, {height}, {width}] in {path}, got {clip.dtype} of "
                f"shape {list(clip.shape)}"
            )

    silhouettes, lengths = pad(clips)
    embeddings = session.run(["embeddings"], {"silhouettes": silhouettes, "lengths": lengths})[0]
    distances = part_distances(np.asarray(embeddings), np.asarray(embeddings))
    for path, row in zip(arguments.sequences, distances, strict=True):
        print(path, " ".join(f"{distance:8.4f}" for distance in row))


def pad(clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One batch ``[N, T, H, W]`` in [0, 1] and ``lengths`` ``[N]``; six frames at least."""
    lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
    batch = np.zeros((len(clips), max(6, lengths.max()), *clips[0].shape[1:]), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip / np.float32(255)
    return batch, lengths


def part_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Mean over body parts of the Euclidean distances, ``[Q, G]``."""
    differences = query[:, None] - gallery[None]
    return np.sqrt((differences**2).sum(axis=3)).mean(axis=2)


if __name__ == "__main__":
    main()
