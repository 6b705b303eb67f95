"""ONNX files, run by onnxruntime alone, give the numbers of the models they come from."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import clips_for, make, padded
from conftest import TRACED, relative_error

import gaitzoo
from gaitzoo.inference.export import whole_model
from gaitzoo.metrics import part_distances

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLES = Path(__file__).parents[2] / "examples"


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(session, batch, lengths):
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {"silhouettes": batch.numpy(), "lengths": lengths.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("name", TRACED)
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
    model.neck.eval()
    gaitzoo.export_onnx(model, tmp_path / "model.onnx", fuse=False)
    assert model.training
    assert model.backbone.training
    assert not any(module.training for module in model.neck.modules())
    session = session_of(tmp_path / "model.onnx")
    batch, lengths = padded(clips_for(model, 8, 3), 0.0)
    found = run(session, batch, lengths)
    assert list(found) == ["embeddings"]
    assert relative_error(found["embeddings"], model.eval()(batch, lengths).embeddings) < 1e-4

    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == "gaitbase_tiny.test"
    assert json.loads(facts["input_size"]) == [16, 12]
    assert json.loads(facts["value_range"]) == [0.0, 1.0]
    assert json.loads(facts["fewest_frames"]) == 6


@torch.no_grad()
def test_models_that_join_more_frames_need_more(tmp_path):
    levels = (
        gaitzoo.HSTLLevel((16,), (4,), halve=True, shorten=True),
        gaitzoo.HSTLLevel((5, 3), (4,), project=False, shorten=True),
    )
    model = make("hstl_tiny", num_classes=0, levels=levels)
    assert model.min_frames == 9
    session = session_of(gaitzoo.export_onnx(model, tmp_path / "model.onnx"))
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["fewest_frames"]) == 18
    for frame_counts in ((18,), (25, 2, 11)):
        batch, lengths = padded(clips_for(model, *frame_counts), 0.5)
        found = run(session, batch, lengths)["embeddings"]
        assert relative_error(found, model(batch, lengths).embeddings) < 1e-4


class Untraceable(gaitzoo.GaitBase):
    def forward_features(self, silhouettes, lengths=None):
        raise RuntimeError("no such operation\nin a graph")


def test_models_that_no_graph_can_hold_are_named(tmp_path):
    (tmp_path / "model.onnx").write_text("old")
    model = Untraceable(num_classes=0, channels=(2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"can express, got .*RuntimeError: no such") as caught:
        gaitzoo.export_onnx(model, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert model.training
    assert contents(tmp_path) == {"model.onnx": "old"}


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Runs the example on files in a folder; gives code, stdout and stderr."""

    def example(*names):
        script = EXAMPLES / "onnx_inference.py"
        paths = [str(tmp_path / name) for name in names]
        monkeypatch.setattr(sys, "argv", [str(script), *paths])
        code = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return example


@pytest.fixture(scope="module")
def gaitbase_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gaitbase") / "model.onnx"
    return gaitzoo.export_onnx(make("gaitbase_tiny", num_classes=0), path)


def test_the_example_gives_the_distances_of_the_library(tmp_path, example, gaitbase_file):
    model = make("gaitbase_tiny", num_classes=0)
    shutil.copy(gaitbase_file, tmp_path)
    for frame_counts in ((9, 2), (2, 1)):
        clips = [(torch.rand(t, 16, 12) * 255).to(torch.uint8) for t in frame_counts]
        for name, clip in zip(("a.npy", "b.npy"), clips, strict=True):
            np.save(tmp_path / name, clip.numpy())
        code, out, err = example("model.onnx", "a.npy", "b.npy")
        assert (code, err) == (0, "")
        rows = [line.split() for line in out.splitlines()]
        assert [row[0] for row in rows] == [str(tmp_path / name) for name in ("a.npy", "b.npy")]
        found = torch.tensor([[float(distance) for distance in row[1:]] for row in rows])
        embeddings = gaitzoo.embed(model, clips, progress=False)
        wanted = part_distances(embeddings, embeddings)
        assert wanted[0, 1] > 0.01
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)


def test_the_example_needs_neither_torch_nor_the_library():
    source = (EXAMPLES / "onnx_inference.py").read_text()
    assert "import torch" not in source
    assert "import gaitzoo" not in source


def test_the_example_refuses_what_the_file_is_not_made_for(tmp_path, example, gaitbase_file):
    shutil.copy(gaitbase_file, tmp_path)
    for clip in (np.zeros((0, 16, 12), np.uint8), np.zeros((5, 16, 12), np.float32)):
        np.save(tmp_path / "a.npy", clip)
        code, _, err = example("model.onnx", "a.npy")
        assert code == 2
        assert "expected uint8 frames [T, 16, 12], one at least, in " in err
    graph = onnx.load(tmp_path / "model.onnx")
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "value_range")
    entry.value = "[-1.0, 1.0]"
    onnx.save(graph, tmp_path / "model.onnx")
    code, _, err = example("model.onnx", "a.npy")
    assert code == 2
    assert "values in [0, 1], got [-1.0, 1.0]" in err


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
        with whole_model(tmp_path / "model.onnx") as path:
            path.with_name("model.onnx.data").write_text("weights")
            path.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert contents(tmp_path) == {"model.onnx": "old"}
    with whole_model(tmp_path / "model.onnx") as path:
        path.with_name("model.onnx.data").write_text("weights")
        path.write_text("new")
        assert contents(tmp_path / path.parent.name) == {
            "model.onnx": "new",
            "model.onnx.data": "weights",
        }
    assert contents(tmp_path) == {"model.onnx": "new", "model.onnx.data": "weights"}


def test_weights_of_a_replaced_file_go_with_it(tmp_path):
    for name in ("model.onnx", "model.onnx.data", "other.onnx.data"):
        (tmp_path / name).write_text("old")
    for name in ("model.onnx", "other.onnx"):
        with whole_model(tmp_path / name) as path:
            path.write_text("new")
    # Nothing was replaced there: whose those weights are is not known.
    kept = {"model.onnx": "new", "other.onnx": "new", "other.onnx.data": "old"}
    assert contents(tmp_path) == kept


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
