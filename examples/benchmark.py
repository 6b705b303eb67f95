"""How fast the models embed: one sequence at a time, in batches, fused, narrow, compiled.

    python examples/benchmark.py                     # all of MODELS, on the GPU if there is one
    python examples/benchmark.py --models dygait hstl.gait3d --rounds 9 --json speed.json
    python examples/benchmark.py --plot speed.png    # needs matplotlib

All ways take turns, round by round, so that whatever else the machine does slows all of them.
Ratios are medians over rounds of the ratio within a round. "naive" is what research code does: one
sequence at a time through the plain model, float32, contiguous.

"of peak" is the arithmetic that a way executes (convolutions and matrix products; padding not
counted) per second, over the faster of a large matrix product and a large convolution in the same
type, timed in this run.
Fused models execute less arithmetic: compare sequences per second first.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import gaitzoo
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.synthetic import SyntheticWalkers

LENGTHS = (20, 60, 33, 47, 25, 52, 29, 38, 44, 21, 57, 36, 30, 41, 23, 50)
# Name in the table, and what to create.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dygait": ("dygait.casiab", {}),
    "hstl": ("hstl.casiab", {}),
    "deepgaitv2_p3d-10": ("deepgaitv2_p3d.casiab", {"layers": (1, 1, 1, 1)}),
    "gaitbase": ("gaitbase.casiab", {}),
    "gaitset": ("gaitset.casiab", {}),
    "gaitpart": ("gaitpart.casiab", {}),
    "gln": ("gln.gait3d", {}),
    "gaitgl": ("gaitgl.casiab", {}),
    "mtsgait": ("mtsgait.gait3d", {}),
    "swingait": ("swingait.ccpg", {}),
    "sconet": ("sconet.scoliosis1k", {}),
    "trackletgait": ("trackletgait.gait3d", {}),
    "skeletongait-10": ("skeletongait.ccpg", {}),
    "skeletongaitpp-10": ("skeletongaitpp.ccpg", {}),
    "multigaitpp-10": ("multigaitpp.ccpg", {}),
    "parsinggait": ("parsinggait.gait3d", {}),
    "xgait": ("xgait.gait3d", {}),
    "smplgait": ("smplgait.gait3d", {}),
    "gaitgraph1": ("gaitgraph1.gait3d", {}),
    "gaitgraph2": ("gaitgraph2.gait3d", {}),
    "gaittr": ("gaittr.gait3d", {}),
}
WAYS = ("naive", "batched", "fused", "fused bf16", "compiled")


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
        model: Its name.
        way: How it was run.
        seconds: Of every round.
        sequences_per_second: Median.
        ratio: To the naive way, median of the rounds' ratios.
        peak_mib: Most memory taken besides what was taken before; ``None`` = unknown.
        tflops: Arithmetic executed per second, 10^12.
        of_peak: The same over what the machine reaches in this type.
        cosine: Mean over clips, of the embeddings with the naive way's.
        rank1: On the clips, second walks as gallery.
    """

    model: str
    way: str
    seconds: list[float]
    sequences_per_second: float
    ratio: float
    peak_mib: float | None
    tflops: float
    of_peak: float
    cosine: float
    rank1: float


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names, or arch.tag")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5, help="how often every way is run")
    parser.add_argument("--clips", type=int, default=16, help="even number of clips")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--long", type=int, default=0, metavar="T", help="also embed one long clip")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw the table here")
    options = parser.parse_args()
    if options.clips < 4 or options.clips % 2:
        parser.error(f"expected an even number of clips, 4 or more, got {options.clips}")
    if options.rounds < 1:
        parser.error(f"expected one round or more, got {options.rounds}")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    ways = [way for way in WAYS if way in options.ways or way == "naive"]

    peaks = {dtype: measured_peak(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    machine = describe(device, peaks)
    print(machine["text"], flush=True)
    rows: list[Row] = []
    for name in options.models:
        model_rows = measure(name, ways, options.clips, options.rounds, device, peaks)
        rows += model_rows
        print(table(model_rows), flush=True)
    print()
    print(table(rows))
    if options.long:
        for name in options.models:
            print(long_clip(name, options.long, device), flush=True)
    if options.json:
        content = {
            "machine": machine,
            "frames": [LENGTHS[i % len(LENGTHS)] for i in range(options.clips)],
            "rounds": options.rounds,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(content, indent=1))
    if options.plot:
        draw(rows, options.plot)


def measure(
    name: str,
    ways: list[str],
    num_clips: int,
    rounds: int,
    device: torch.device,
    peaks: dict[torch.dtype, float],
) -> list[Row]:
    """Runs every way of one model ``rounds`` times, in turns."""
    torch.compiler.reset()  # the compiler keeps a few graphs only, for all models together
    model = create(name).to(device)
    clips, labels = walks(model, num_clips)
    runs = {way: prepared(model, way, clips, device) for way in ways}
    # The first run pays for compilation and for choosing algorithms.
    embeddings = {way: run() for way, run in runs.items()}
    # Runs of their own: giving memory back before them makes them slower.
    peak_bytes = {way: peak_memory(runs[way], device) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(rounds):
        # Every other round runs backwards: no way always follows the same one.
        for way in ways if i % 2 == 0 else reversed(ways):
            seconds[way].append(timed(runs[way], device))
    fused = gaitzoo.fuse_for_inference(model)
    executed = dict.fromkeys(ways, flops(fused, clips))
    executed |= dict.fromkeys(("naive", "batched"), flops(model, clips))
    if device.type == "cpu":  # where fused models in float32 save multiplications as they run
        executed["fused"] = flops(fused, clips, device)
    rows = []
    for way in ways:
        ratios = [a / b for a, b in zip(seconds["naive"], seconds[way], strict=True)]
        median = statistics.median(seconds[way])
        speed = executed[way] / median
        found = peak_bytes[way]
        rows.append(
            Row(
                model=name,
                way=way,
                seconds=seconds[way],
                sequences_per_second=len(clips) / median,
                ratio=statistics.median(ratios),
                peak_mib=None if found is None else found / 2**20,
                tflops=speed / 1e12,
                of_peak=speed / peaks[torch.bfloat16 if "bf16" in way else torch.float32],
                cosine=cosine(embeddings[way], embeddings["naive"]),
                rank1=rank1(embeddings[way], labels),
            )
        )
    return rows


def create(name: str) -> gaitzoo.GaitModel:
    """The model with random weights, which are as fast as any."""
    torch.manual_seed(0)
    architecture, model_args = MODELS.get(name, (name, {}))
    return gaitzoo.create_model(architecture, num_classes=0, **model_args).eval()


def walks(model: gaitzoo.GaitModel, num_clips: int) -> tuple[list[Any], list[int]]:
    """Two clips each of several people: walkers, or noise for models of other modalities."""
    if model.modalities == ("silhouettes",) and model.in_channels == 1:
        return walkers(num_clips, model.pretrained_cfg.input_size)
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(num_clips)]
    clips = [example_sequence(model, frames, seed=i) for i, frames in enumerate(lengths)]
    return clips, [i // 2 for i in range(num_clips)]


def walkers(num_clips: int, size: tuple[int, int]) -> tuple[list[Tensor], list[int]]:
    """Two walks each of synthetic people, uint8 frames, in the mixed lengths."""
    people = SyntheticWalkers(
        num_clips // 2,
        sequences=(("normal", 0), ("normal", 1)),
        views=(90,),
        frames=max(LENGTHS),
        size=size,
    )
    samples = [people[i] for i in range(len(people))]
    clips = [s.silhouettes[: LENGTHS[i % len(LENGTHS)]] for i, s in enumerate(samples)]
    return clips, [sample.label for sample in samples]


def prepared(
    model: gaitzoo.GaitModel, way: str, clips: list[Any], device: torch.device
) -> Callable[[], Tensor]:
    """A function that embeds all clips in one way."""
    if way == "naive":
        return lambda: one_by_one(model, clips, device)
    if way == "batched":
        used = model
    elif way == "fused bf16":
        used = gaitzoo.fuse_for_inference(model, torch.bfloat16)
    else:
        used = gaitzoo.fuse_for_inference(model, compile=way == "compiled")
    return lambda: gaitzoo.embed(used, clips, progress=False)


@torch.no_grad()
def one_by_one(model: gaitzoo.GaitModel, clips: list[Any], device: torch.device) -> Tensor:
    """What research code does."""
    found = []
    for clip in clips:
        batch = each_tensor(clip, lambda x: x[None].to(device))
        if isinstance(batch, Tensor) and batch.dtype == torch.uint8:
            batch = batch.float() / 255
        found.append(model(batch).embeddings.cpu())
    return torch.cat(found)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run, to its very end."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits for an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a run takes at most, besides what was taken before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # gives back what earlier runs have freed, so that it counts again
    reset.write_text("5")  # Linux: forget the process's highest resident size
    before = resident(status, "VmRSS")
    run()
    return resident(status, "VmHWM") - before


def resident(status: Path, field: str) -> int:
    """A line of Linux's process status, in bytes."""
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def flops(model: gaitzoo.GaitModel, clips: list[Any], device: str | torch.device = "meta") -> int:
    """Operations of convolutions and matrix products, by default on tensors without memory."""
    state = {
        name: torch.empty_like(tensor, device="meta") if device == "meta" else tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    counted = {torch.ops.aten.mkldnn_convolution: convolution_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counted) as counter:
        for clip in clips:
            batch = each_tensor(clip, lambda x: x[None].to(device))
            torch.func.functional_call(model, state, (batch,))
    return counter.get_total_flops()


def convolution_flops(
    x_shape: list[int], weight_shape: list[int], *_: Any, out_shape: list[int], **__: Any
) -> int:
    """Operations of a convolution called by the name of its library, which torch leaves out."""
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product or a large convolution, whichever is faster."""
    large = device.type == "cuda"
    size, frames = (8192, 512) if large else (2048, 16)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(frames, 256, 32, 32, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    works = [
        (lambda: a @ b, 2 * size**3),
        (lambda: F.conv2d(x, weight, padding=1), 2 * x.numel() * weight[0].numel()),
    ]
    best = 0.0
    with torch.no_grad():
        for run, operations in works:
            run()
            best = max(best, operations / min(timed(run, device) for _ in range(7)))
    return best


def cosine(found: Tensor, wanted: Tensor) -> float:
    """Mean cosine of the embeddings of all clips."""
    return float(F.cosine_similarity(found.flatten(1), wanted.flatten(1)).mean())


def rank1(embeddings: Tensor, labels: list[int]) -> float:
    """Share of first walks whose nearest second walk is of the same person."""
    distances = part_distances(embeddings[0::2], embeddings[1::2])
    return rank_k(distances, labels[0::2], labels[1::2])


def long_clip(name: str, frames: int, device: torch.device) -> str:
    """Peak memory of one long clip among short ones, under a budget that it does not fit."""
    model = gaitzoo.fuse_for_inference(create(name).to(device))
    clips, _ = walkers(16, model.pretrained_cfg.input_size)
    clips.insert(3, clips[1].repeat(-(-frames // len(clips[1])), 1, 1)[:frames])
    budget = 2**30
    peak = peak_memory(
        lambda: gaitzoo.embed(model, clips, max_memory=budget, progress=False), device
    )
    shown = "unknown" if peak is None else f"{peak / 2**20:.0f} MiB"
    return f"{name}, {frames} frames among short clips, max_memory 1024 MiB: peak {shown}"


def describe(device: torch.device, peaks: dict[torch.dtype, float]) -> dict[str, Any]:
    """What the numbers depend on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0].partition(":")[2].strip() if names else processor
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    reached = {str(dtype).removeprefix("torch."): peak / 1e12 for dtype, peak in peaks.items()}
    threads = torch.get_num_threads()
    shown = ", ".join(f"{dtype} {peak:.2f} TFLOP/s" for dtype, peak in reached.items())
    capability = "" if device.type == "cuda" else f" ({torch.backends.cpu.get_cpu_capability()})"
    text = f"{chip}{capability}, {threads} threads, torch {torch.__version__}; peak {shown}"
    return {"device": chip, "threads": threads, "torch": torch.__version__, "peaks": reached} | {
        "text": text
    }


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    columns = {
        "model": [row.model for row in rows],
        "way": [row.way for row in rows],
        "sequences/s": [f"{row.sequences_per_second:.2f}" for row in rows],
        "ratio": [f"{row.ratio:.2f}" for row in rows],
        "peak MiB": ["" if row.peak_mib is None else f"{row.peak_mib:.0f}" for row in rows],
        "TFLOP/s": [f"{row.tflops:.3f}" for row in rows],
        "of peak": [f"{row.of_peak:.0%}" for row in rows],
        "cosine": [f"{row.cosine:.6f}" for row in rows],
        "Rank-1": [f"{row.rank1:.0%}" for row in rows],
    }
    return tabulate(columns, headers="keys", tablefmt="github", disable_numparse=True)


def draw(rows: list[Row], path: Path) -> None:
    """Ratios to the naive way, a group of bars per model."""
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row.model for row in rows))
    ways = list(dict.fromkeys(row.way for row in rows))
    figure, axes = plt.subplots(figsize=(1.5 + 1.9 * len(models), 3.6), layout="constrained")
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        ratios = [row.ratio for row in rows if row.way == way]
        places = [x + (i - (len(ways) - 1) / 2) * width for x in range(len(models))]
        bars = axes.bar(places, ratios, width, label=way)
        axes.bar_label(bars, fmt="%.1f", fontsize=7)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(models)), models)
    axes.set_ylabel("speed, relative to one by one")
    axes.legend(ncols=len(ways), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    with warnings.catch_warnings():
        # The compiler itself uses what later versions of torch and Python have deprecated.
        warnings.simplefilter("ignore")
        main()
