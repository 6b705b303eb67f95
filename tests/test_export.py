"""ONNX files, run by onnxruntime alone, give the numbers of the models they come from."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative_error
from test_contract import TINY, clips_for, make, padded

import gaitzoo
from gaitzoo.export import whole_files

onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLES = Path(__file__).parents[1] / "examples"


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(session, batch, lengths):
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {"silhouettes": batch.numpy(), "lengths": lengths.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_any_number_of_sequences_and_frames(name, tmp_path):
    model = make(name)
    assert gaitzoo.export_onnx(model, tmp_path / "model.onnx") == tmp_path / "model.onnx"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    session = session_of(tmp_path / "model.onnx")
    for frame_counts in ((6,), (8, 2, 5), (7, 1, 2, 3, 4, 9, 5, 12), (30, 12)):
        batch, lengths = padded(clips_for(model, *frame_counts), 0.5)
        found, wanted = run(session, batch, lengths), model(batch, lengths)
        assert relative_error(found["embeddings"], wanted.embeddings) < 1e-4
        assert relative_error(found["logits"], wanted.logits) < 1e-4


@torch.no_grad()
def test_plain_models_without_classifier(tmp_path):
    model = make("gaitbase_tiny", num_classes=0).train()
    gaitzoo.export_onnx(model, tmp_path / "model.onnx", fuse=False)
    assert model.training
    session = session_of(tmp_path / "model.onnx")
    batch, lengths = padded(clips_for(model, 8, 3), 0.0)
    found = run(session, batch, lengths)
    assert list(found) == ["embeddings"]
    assert relative_error(found["embeddings"], model.eval()(batch, lengths).embeddings) < 1e-4

    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == "gaitbase_tiny.test"
    assert json.loads(facts["input_size"]) == [16, 12]
    assert json.loads(facts["value_range"]) == [0.0, 1.0]


def test_the_example_runs_a_file_without_torch(tmp_path, monkeypatch, capsys):
    gaitzoo.export_onnx(make("gaitbase_tiny", num_classes=0), tmp_path / "model.onnx")
    clips = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, frames in zip(clips, (9, 6), strict=True):
        np.save(path, (np.random.default_rng(0).random((frames, 16, 12)) * 255).astype(np.uint8))
    script = EXAMPLES / "onnx_inference.py"
    source = script.read_text()
    assert "import torch" not in source
    assert "import gaitzoo" not in source
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "model.onnx"), *map(str, clips)])
    runpy.run_path(str(script), run_name="__main__")
    assert "a.npy" in capsys.readouterr().out


def test_refused(tmp_path):
    with pytest.raises(TypeError, match="expected a gaitzoo model, got Linear"):
        gaitzoo.export_onnx(torch.nn.Linear(1, 1), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match=r"expected a model in float32, got torch\.float64"):
        gaitzoo.export_onnx(make("gaitbase_tiny").double(), tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match=r"existing folder to write model\.onnx into"):
        gaitzoo.export_onnx(make("gaitbase_tiny"), tmp_path / "missing" / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"package '{package}' .*pip install 'gaitzoo\[onnx\]'"):
        gaitzoo.export_onnx(make("gaitbase_tiny"), tmp_path / "model.onnx")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_arrive_together_or_not_at_all(tmp_path):
    (tmp_path / "model.onnx").write_text("old")

    def fail():
        with whole_files(tmp_path / "model.onnx") as path:
            path.with_name("model.onnx.data").write_text("weights")
            path.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert contents(tmp_path) == {"model.onnx": "old"}
    with whole_files(tmp_path / "model.onnx") as path:
        path.with_name("model.onnx.data").write_text("weights")
        path.write_text("new")
        assert contents(tmp_path / path.parent.name) == {
            "model.onnx": "new",
            "model.onnx.data": "weights",
        }
    assert contents(tmp_path) == {"model.onnx": "new", "model.onnx.data": "weights"}


@torch.no_grad()
def test_large_weights_lie_beside_the_file(tmp_path, monkeypatch):
    # What torch's exporter does with more weights than one file can hold.
    monkeypatch.setattr(torch.onnx._internal.exporter._onnx_program, "_LARGE_MODEL_THRESHOLD", 100)
    model = make("gaitbase_tiny", num_classes=0)
    gaitzoo.export_onnx(model, tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    batch, lengths = padded(clips_for(model, 8, 3), 0.0)
    found = run(session_of(tmp_path / "model.onnx"), batch, lengths)["embeddings"]
    assert relative_error(found, model(batch, lengths).embeddings) < 1e-4
