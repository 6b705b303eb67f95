"""Runs a model on a golden case: closed-form weights, written as the authors write their files."""

import json
from pathlib import Path

import torch
from golden import fill
from safetensors.torch import load_file

import gaitzoo

GOLDEN = Path(__file__).parent / "golden"


def golden_doc(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def filled_weights(doc):
    """The authors' state dict, filled by the rule of the golden files."""
    keep = {key: torch.tensor(value) for key, value in doc["kept"].items()}
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


def golden_errors(name, model_name, tmp_path, cases=None, **model_args):
    """Largest relative error of embeddings and of logits over the cases (all, or by id)."""
    doc = golden_doc(name)
    path = tmp_path / f"{name}.pt"
    write_like_the_authors(filled_weights(doc), path)
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
            output = model(_as_batch(inputs[0]))
        for kind, found in (("embeddings", output.embeddings), ("logits", output.logits)):
            reference = wanted[f"{case['id']}/{kind}"]
            if doc[f"{kind}_layout"] != "n p c" and doc[f"{kind}_layout"] != "n p class":
                reference = reference.transpose(1, 2)
            assert found.shape == reference.shape
            errors.append(float((found - reference).abs().max() / reference.abs().max()))
    return max(errors)


def _as_batch(x):
    """Golden inputs with channels are [n, s, c, h, w]; ours are [N, C, T, H, W]."""
    return x.transpose(1, 2) if x.ndim == 5 else x
