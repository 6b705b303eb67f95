"""Draw which frames GaitLLM keeps: the score of every frame above the frames themselves."""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

KEPT, DROPPED = "#d1495b", "#9aa5ab"


def main() -> None:
    """Read the command line, score a walk, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a trained GaitLLM; left out, a random one")
    parser.add_argument("--output", default="peak_tokens.png", help="picture to write")
    parser.add_argument("--person", type=int, default=7, help="seed of the person who walks")
    parser.add_argument("--frames", type=int, default=28)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.model:
        model = gaitzoo.create_model(f"local-dir:{options.model}")
    else:
        model = gaitzoo.create_model("gaitllm_tiny", input_size=(64, 44))
    assert isinstance(model, gaitzoo.GaitLLM)
    walk = render_walk(sample_identity(options.person), frames=options.frames, view=90.0)
    peaks = model.eval().find_peaks(walk.silhouettes[None])
    scores, keep = peaks.scores[0].numpy(), peaks.keep[0].numpy()
    is_peak, time = peaks.is_peak[0].numpy(), np.arange(options.frames)

    figure = Figure(figsize=(14, 3.9), dpi=110, layout="constrained")
    curve, strip = figure.subplots(2, 1, height_ratios=(2.1, 1), sharex=True)
    curve.vlines(time[keep], scores.min(), scores[keep], color=KEPT, alpha=0.25, linewidth=6)
    curve.plot(time, scores, color="#444444", linewidth=1.4, zorder=2)
    curve.scatter(time[~keep], scores[~keep], color=DROPPED, s=26, label="dropped", zorder=3)
    for chosen, marker, name in (
        (keep & is_peak, "^", "kept: a peak"),
        (keep & ~is_peak, "o", "kept: to fill up"),
    ):
        curve.scatter(
            time[chosen], scores[chosen], color=KEPT, marker=marker, s=60, label=name, zorder=4
        )
    curve.set_ylabel("similarity with\nthe whole walk")
    curve.set_title(f"{keep.sum()} of {len(keep)} frames become the gait sentence", loc="left")
    curve.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    # Frames of one walk are so alike that the numbers differ in late digits only.
    curve.set_yticks([scores.min(), scores.max()], labels=["lowest", "highest"])
    curve.spines[["top", "right"]].set_visible(False)
    curve.tick_params(axis="x", labelbottom=False)
    for place, frame in enumerate(walk.silhouettes.numpy() / 255):
        colour = np.array((0.82, 0.29, 0.36) if keep[place] else (0.62, 0.66, 0.69))
        picture = 1 - frame[..., None] * (1 - colour)
        strip.imshow(picture, extent=(place - 0.48, place + 0.48, 0, 1), aspect="auto")
    strip.set(xlim=(-0.7, len(keep) - 0.3), ylim=(0, 1), yticks=[], xlabel="frame")
    strip.set_xticks(time[::2])
    strip.spines[:].set_visible(False)
    figure.savefig(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
