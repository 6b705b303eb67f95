"""Runs a model on a golden case: closed-form weights, written as the authors write their files."""

import json
from pathlib import Path

import torch
from golden import fill
from safetensors.torch import load_file

import gaitzoo
from gaitzoo.data.modalities import find_modality

GOLDEN = Path(__file__).parent / "golden"


def golden_doc(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def filled_weights(doc, kept=None):
    """The authors' state dict, filled by the rule of the golden files.

    ``kept``: the tables that stand in the file as the model makes them, by the end of their key.
    """
    keep = {}
    for key, value in doc["kept"].items():
        known = [table for ending, table in (kept or {}).items() if key.endswith(ending)]
        keep[key] = torch.tensor(value) if not known else known[0]
        if known:
            assert fill.checksum(known[0]) == value["checksum"]
    weights = fill.fill_state_dict(doc["state_dict"], keep)
    for key, checksum in doc["weight_checksums"].items():
        assert fill.checksum(weights[key]) == checksum
    return weights


def write_like_the_authors(weights, path):
    """A pickle with optimizer state and iteration beside the parameters."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save(
        {"model": weights, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "iteration": 3},
        path,
    )


def golden_errors(name, model_name, tmp_path, cases=None, kept=None, **model_args):
    """Largest relative error of embeddings and of logits over the cases (all, or by id).

    The published embeddings of ScoNet are its logits.
    """
    doc = golden_doc(name)
    path = tmp_path / f"{name}.pt"
    write_like_the_authors(filled_weights(doc, kept), path)
    model = gaitzoo.create_model(
        model_name, checkpoint_path=path, num_classes=doc["facts"]["class_num"], **model_args
    ).eval()
    path.unlink()
    wanted = load_file(GOLDEN / f"{name}.safetensors")
    chosen = [case for case in doc["cases"] if cases is None or case["id"] in cases]
    assert chosen
    errors = []
    for case in chosen:
        i = case["sequence"]
        inputs = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        inputs = [x[i : i + 1] for x in inputs]
        assert [fill.checksum(x) for x in inputs] == case["input_checksum"]
        with torch.no_grad():
            output = model(_as_inputs(inputs, model.modalities))
        for kind, found in (("embeddings", output.embeddings), ("logits", output.logits)):
            if doc[f"{kind}_layout"] is None:
                continue
            if name.startswith("sconet"):
                found = output.logits
            reference = wanted[f"{case['id']}/{kind}"]
            if doc[f"{kind}_layout"] != "n p c" and doc[f"{kind}_layout"] != "n p class":
                reference = reference.transpose(1, 2)
            assert found.shape == reference.shape
            errors.append(float((found - reference).abs().max() / reference.abs().max()))
    return max(errors)


def _as_inputs(inputs, modalities):
    """One tensor, or several by the names of what the model reads, which keeps their order.

    Channels of one tensor are shared out among the maps that a model reads.
    """
    if len(inputs) == 1:
        if find_modality(modalities[0]).time_axis is None:
            return inputs[0][:, 0]
        batch = _as_batch(inputs[0])
        if len(modalities) == 1:
            return batch
        kinds = [find_modality(name) for name in modalities]
        maps = batch.split([kind.channels or 1 for kind in kinds], dim=1)
        return {
            kind.name: x if kind.has_channel_axis else x[:, 0]
            for kind, x in zip(kinds, maps, strict=True)
        }
    return {name: _as_batch(x) for name, x in zip(modalities, inputs, strict=True)}


def _as_batch(x):
    """Golden inputs with channels are [n, s, c, h, w]; ours are [N, C, T, H, W]."""
    return x.transpose(1, 2) if x.ndim == 5 else x


_BATCH_NORM_WEIGHTS = ("Bn.weight", "BNNecks.bn1d.weight")


def sine_fill(shapes):
    """The closed-form weights of the published reference sums; order is that of the names."""
    filled = {}
    for k, (key, shape) in enumerate(sorted(shapes.items())):
        size = torch.Size(shape).numel()
        wave = torch.sin(0.37 * torch.arange(size, dtype=torch.float64) + k).reshape(shape)
        if key.endswith(("running_mean", "num_batches_tracked")):
            filled[key] = torch.zeros(shape, dtype=torch.float64)
        elif key.endswith("running_var"):
            filled[key] = torch.ones(shape, dtype=torch.float64)
        elif key.endswith(".p"):
            filled[key] = torch.full(shape, 6.5, dtype=torch.float64)
        elif len(shape) == 1:
            filled[key] = 0.1 * wave + (1.0 if key in _BATCH_NORM_WEIGHTS else 0.0)
        elif key.endswith("fc_bin"):
            filled[key] = wave / shape[1] ** 0.5
        else:
            filled[key] = wave / (size / shape[0]) ** 0.5
    return filled


def sine_frames(frames):
    """The closed-form frames of the published reference sums: ``[1, T, 64, 44]`` of 0 and 1."""
    j = torch.arange(frames * 64 * 44, dtype=torch.float64)
    silhouettes = (torch.sin(0.011 * j + 0.002 * j**2 / 2816) > 0).double()
    return silhouettes.reshape(1, frames, 64, 44)
