"""What the commands of the command line do; :mod:`gaitzoo.cli` says how they are called."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from gaitzoo.cli.demo import FRAMES, VIEWS, Trial, try_on_walkers
from gaitzoo.cli.files import (
    Clips,
    check_output,
    find_sequences_at,
    load_model,
    name_sequences,
    write,
)
from gaitzoo.data.files import SequencePath
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced
from gaitzoo.hub.checkpoint import structure_alone, write_safetensors
from gaitzoo.hub.factory import create_model
from gaitzoo.inference.embed import embed
from gaitzoo.inference.export import check_packages, export_onnx, fewest_frames, whole_files
from gaitzoo.inference.identify import Identification, Match, identify
from gaitzoo.layers.sequence import pad_sequences
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.registry import list_models, list_tags, model_info

__all__ = ["DEMO_PICTURE", "run_demo", "run_embed", "run_export", "run_identify", "run_models"]

DEMO_PICTURE = "gaitzoo-demo.png"
_FRAMES_SHOWN = 5
_MATCHES_SHOWN = 3
_PROBES_SHOWN = 24
_DEMO_PROBES_SHOWN = 12
# Sequences that an exported file is tried on, and how far it may be off.
_TRIED_LENGTHS = (14, 5, 11)
_LARGEST_DIFFERENCE = 1e-4


def run_models(options: argparse.Namespace) -> None:
    """Lists models, as a table or as JSON."""
    names = list_models(options.pattern)
    if "tiny" not in options.pattern:
        # Made for tests: of no use to people who do not know them by name.
        names = [name for name in names if not name.partition(".")[0].endswith("_tiny")]
    if "." not in options.pattern:
        names = [f"{name}.{tag}".rstrip(".") for name in names for tag in list_tags(name)]
    if not names:
        raise ValueError(f"no model is named like {options.pattern!r}; 'gaitzoo models' lists all")
    cfgs = [model_info(name) for name in names]
    if options.json:
        print(json.dumps([_cfg_as_json(cfg) for cfg in cfgs], indent=2))
        return
    rows = [
        (
            cfg.name,
            f"{_count_parameters(cfg):,}",
            "{} x {}".format(*cfg.input_size),
            _weights_column(cfg),
            _rank1_column(cfg),
            cfg.license if cfg.has_weights else "",
        )
        for cfg in cfgs
    ]
    print(
        tabulate(
            rows,
            ("model", "parameters", "input", "weights", "Rank-1 %", "licence of the weights"),
            colalign=("left", "right", "right", "right", "right", "left"),
            disable_numparse=True,
        )
    )
    print(
        "\nParameters include the classifier of the data set. Rank-1 is as published: 'mean' over "
        "several\nconditions, a mode in brackets if that one was measured instead, (walkers) if "
        "gaitzoo\nmeasured it on synthetic people. 'gaitzoo models PATTERN --json' says under "
        "which protocol,\nand all else that is known."
    )


def _cfg_as_json(cfg: PretrainedCfg) -> dict[str, Any]:
    known = {
        "name": cfg.name,
        "parameters": _count_parameters(cfg),
        "has_weights": cfg.has_weights,
        **cfg.to_dict(),
    }
    if cfg.has_weights:
        del known["unavailable"]
    return known


def _weights_column(cfg: PretrainedCfg) -> str:
    if not cfg.has_weights:
        return "none"
    return "yes" if cfg.size is None else f"{cfg.size / 1e6:.1f} MB"


def _rank1_column(cfg: PretrainedCfg) -> str:
    """The published rate; marked where it is a mean, or that of another mode of the network."""
    rate, mark = cfg.metrics.get("rank1"), ""
    if rate is None:
        rate, mark = cfg.metrics.get("rank1_mean"), " mean"
    if rate is None:
        rate, mark = cfg.metrics.get("rank1_walkers"), " (walkers)"
    if "mode" in cfg.metrics:
        mark += f" ({cfg.metrics['mode']})"
    return "" if rate is None else f"{rate}{mark}"


def _count_parameters(cfg: PretrainedCfg) -> int:
    """Parameters with the classifier, counted without allocating them."""
    with structure_alone():
        model = create_model(cfg.name)
    return sum(parameter.numel() for parameter in model.parameters())


def run_embed(options: argparse.Namespace) -> None:
    """Writes embeddings with their names."""
    several = len(options.paths) > 1
    named = [pair for path in options.paths for pair in name_sequences(path, several)]
    sequences = [sequence for _, sequence in named]
    output = check_output(options.output, sequences, options.checkpoint)
    model, weights = load_model(options)
    embeddings = embed(model, Clips(sequences, model), **_embed_options(options))
    metadata = {
        "names": json.dumps([name for name, _ in named]),
        "identities": json.dumps([sequence.identity for sequence in sequences]),
        "model": options.model,
        "weights": weights,
    }
    write_safetensors(output, {"embeddings": embeddings}, metadata)
    print(f"{output}: embeddings {list(embeddings.shape)} for {len(sequences)} sequence(s)")


def run_identify(options: argparse.Namespace) -> None:
    """Prints the best matches of every probe, and draws them."""
    gallery, probes = find_sequences_at(options.gallery), find_sequences_at(options.probe)
    picture = None
    if options.picture is not None:
        picture = check_output(options.picture, gallery + probes, options.checkpoint, ".png")
    gallery_paths, probe_paths = (
        [sequence.path.resolve() for sequence in side] for side in (gallery, probes)
    )
    itself = torch.tensor([[known == path for known in gallery_paths] for path in probe_paths])
    if bool(itself.all(1).any()):
        raise ValueError(
            "expected a gallery of other sequences than the probe, got only the probe itself "
            f"in {options.gallery}"
        )
    model, weights = load_model(options)
    kept = _FRAMES_SHOWN if picture else 0
    gallery_clips, probe_clips = Clips(gallery, model, kept), Clips(probes, model, kept)
    found = identify(
        model,
        gallery_clips,
        probe_clips,
        [sequence.identity for sequence in gallery],
        [sequence.identity for sequence in probes],
        exclude=itself,
        top=options.top,
        **_embed_options(options),
    )
    if options.json:
        described = _found_as_json(gallery, probes, found)
        print(json.dumps({"model": options.model, "weights": weights, **described}, indent=2))
    else:
        _print_matches(gallery, probes, found)
    if picture:
        count = min(len(probes), _PROBES_SHOWN)
        rows = []
        for index in range(count):
            known_identity = probes[index].identity if found.known[index] else None
            row = [_panel(probe_clips.shown[index], probes[index].name)]
            for match in found.matches[index][:_MATCHES_SHOWN]:
                frames, name = gallery_clips.shown[match.index], gallery[match.index].name
                row.append(_panel(frames, name, match, known_identity))
            rows.append(row)
        shown = "" if count == len(probes) else f" ({count} of {len(probes)} probes)"
        title = f"probes and the nearest of the gallery: {options.model}, {weights}{shown}"
        _draw(rows, title, picture)
        if not options.json:
            print(f"\npicture: {picture}{shown}")


def _print_matches(
    gallery: list[SequencePath], probes: list[SequencePath], found: Identification
) -> None:
    headers = ["probe", "rank", "identity", "match", "distance", "same person"]
    rows = [
        [
            probe.name if rank == 1 else "",
            rank,
            match.label,
            gallery[match.index].name,
            f"{match.distance:.4f}",
            ("yes" if match.label == probe.identity else "no") if known else "",
        ]
        for probe, matches, known in zip(probes, found.matches, found.known, strict=True)
        for rank, match in enumerate(matches, 1)
    ]
    columns = len(headers) if found.rank1 is not None else len(headers) - 1
    align = ("left", "right", "left", "left", "right", "left")[:columns]
    rows = [row[:columns] for row in rows]
    print(tabulate(rows, headers[:columns], colalign=align, disable_numparse=True))
    if found.rank1 is not None:
        print(
            f"\nRank-1: {found.rank1:.1%} (probes whose identity is in the gallery: "
            f"{sum(found.known)} of {len(probes)})"
        )


def _found_as_json(
    gallery: list[SequencePath], probes: list[SequencePath], found: Identification
) -> dict[str, Any]:
    def described(sequence: SequencePath) -> dict[str, Any]:
        return {"identity": sequence.identity, "name": sequence.name, "path": str(sequence.path)}

    return {
        "rank1": found.rank1,
        "known_probes": sum(found.known),
        "probes": [
            {
                **described(probe),
                "known": known,
                "matches": [
                    {**described(gallery[match.index]), "distance": match.distance}
                    for match in matches
                ],
            }
            for probe, matches, known in zip(probes, found.matches, found.known, strict=True)
        ],
    }


def run_export(options: argparse.Namespace) -> None:
    """Writes a model as an ONNX file, tried before it is there."""
    output = check_output(options.output, [], options.checkpoint, ".onnx")
    for path in (output, Path(f"{output}.data")):
        if path.exists() and not options.force:
            raise FileExistsError(f"{path} exists; choose another file, or replace it with --force")
    check_packages()
    model, weights = load_model(options)
    with whole_files(output) as unfinished:
        export_onnx(model, unfinished)
        rows = _describe_graph(unfinished)
        if importlib.util.find_spec("onnxruntime") is None:
            tried = "not compared with the model: onnxruntime is not installed"
        else:
            difference = _difference_in_onnxruntime(model, unfinished)
            if not difference <= _LARGEST_DIFFERENCE:
                raise ValueError(
                    f"nothing was written: in onnxruntime the embeddings of {options.model} are "
                    f"off by {difference:.1e} of the largest, expected {_LARGEST_DIFFERENCE} at "
                    "most; are the weights those of a trained model?"
                )
            tried = f"largest difference to the model in onnxruntime: {difference:.1e} of the "
            tried += f"largest embedding ({len(_TRIED_LENGTHS)} sequences)"
        files = sorted(unfinished.parent.iterdir())
        sizes = [(output.parent / file.name, file.stat().st_size) for file in files]
    for path, size in sizes:
        print(f"{path}: {size / 1e6:.2f} MB, {options.model} ({weights})")
    print()
    print(tabulate(rows, ("", "name", "type", "shape"), disable_numparse=True))
    print(f"\nN sequences of T frames ({fewest_frames(model)} or more), lengths of each.\n{tried}")


def _describe_graph(path: Path) -> list[tuple[str, str, str, str]]:
    """Inputs and outputs of an ONNX file: kind, name, type, shape."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    rows = []
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
            type_name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            rows.append((kind, value.name, type_name, f"[{', '.join(sizes)}]"))
    return rows


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: RuntimeError, and classes of its own that share no base."""
    own = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")).values()
    classes = [thing for thing in own if isinstance(thing, type) and issubclass(thing, Exception)]
    return (RuntimeError, *classes)


def _difference_in_onnxruntime(model: GaitModel, path: Path) -> float:
    """Largest difference of embeddings, as a fraction of the largest."""
    import onnxruntime

    channels = () if model.in_channels == 1 else (model.in_channels,)
    size = model.pretrained_cfg.input_size
    low, high = model.pretrained_cfg.value_range
    source = torch.Generator().manual_seed(0)
    frame_counts = (max(_TRIED_LENGTHS[0], fewest_frames(model)), *_TRIED_LENGTHS[1:])
    clips = [torch.rand(t, *channels, *size, generator=source) for t in frame_counts]
    silhouettes, lengths = pad_sequences([clip * (high - low) + low for clip in clips])
    if channels:
        silhouettes = silhouettes.transpose(1, 2).contiguous()
    with torch.inference_mode():
        wanted = model.eval()(silhouettes, lengths).embeddings
    given = {"silhouettes": silhouettes.numpy(), "lengths": lengths.numpy()}
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = torch.as_tensor(session.run(["embeddings"], given)[0])
    except _onnxruntime_errors() as error:
        raise ValueError(
            f"nothing was written: onnxruntime cannot run {model.pretrained_cfg.name} ({error})"
        ) from error
    return float((found - wanted).abs().max() / wanted.abs().max())


def run_demo(options: argparse.Namespace) -> None:
    """Tries a model on synthetic walkers; prints scores and draws matches."""
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    picture = check_output(folder / DEMO_PICTURE, [], options.checkpoint)
    model, weights = load_model(options)
    count = options.identities
    trial = try_on_walkers(model, count, seed=options.seed, **_embed_options(options))
    views = " and ".join(map(str, VIEWS))
    print(
        f"{count} synthetic people: {len(trial.gallery)} gallery clips, {len(trial.probes)} "
        f"probes, {FRAMES} frames each, filmed from {views} degrees.\n"
        "A probe is compared with the clips of the other view only.\n"
    )
    headers = ("Rank-1", f"{options.model} ({weights})", "gait energy image", "chance")
    rows = [
        (condition, f"{by_model:.1%}", f"{by_image:.1%}", f"{1 / count:.1%}")
        for condition, (by_model, by_image) in trial.scores.items()
    ]
    print(tabulate(rows, headers, colalign=("left", "right", "right", "right")))
    title = f"synthetic probes and the nearest of the gallery: {options.model}, {weights}"
    _draw(_demo_rows(trial), title, picture)
    print(f"\npicture: {picture}")


def _demo_rows(trial: Trial) -> list[list[Panel]]:
    """Panels of the first people in all conditions."""
    pairs = list(zip(trial.probes, trial.identification.matches, strict=True))
    rows = []
    for probe, matches in pairs[:_DEMO_PROBES_SHOWN]:
        name = f"person {probe.label}, {probe.condition}, {probe.view:.0f} degrees"
        row = [_panel(probe.silhouettes, name)]
        for match in matches[:_MATCHES_SHOWN]:
            clip = trial.gallery[match.index]
            name = f"person {clip.label}, {clip.condition}, {clip.view:.0f} degrees"
            row.append(_panel(clip.silhouettes, name, match, probe.label))
        rows.append(row)
    return rows


def _panel(
    frames: Tensor, name: str, match: Match | None = None, true_label: str | int | None = None
) -> Panel:
    """The panel of a probe, or of a match, whose border shows whether it is the right person."""
    frames = evenly_spaced(frames, _FRAMES_SHOWN)
    if match is None:
        return Panel(frames, [name])
    distance = f"distance {match.distance:.4f}"
    if true_label is None:
        return Panel(frames, [name, distance])
    if match.label == true_label:
        return Panel(frames, [name, f"{distance}, same person"], "right")
    return Panel(frames, [name, f"{distance}, another person"], "wrong")


def _draw(rows: list[list[Panel]], title: str, path: Path) -> None:
    sheet = contact_sheet(rows, title=title, headings=("probe", "nearest", "second", "third"))
    write(path, lambda unfinished: sheet.save(unfinished, "PNG"))


def _embed_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "batch_frames": options.batch_frames,
        "device": options.device,
        "progress": not options.quiet,
    }
