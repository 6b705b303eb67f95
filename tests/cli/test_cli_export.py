"""``gaitzoo export`` writes files that were tried."""

import os
import sys

import pytest
import torch
from conftest import relative_error

import gaitzoo

pytest_plugins = ["cli_fixtures"]


def test_export_writes_the_model(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(3)
    saved = gaitzoo.create_model("gaitset_tiny", num_classes=4).eval()
    saved.save_pretrained("saved")
    options = ["gaitset_tiny", "--checkpoint", "saved/model.safetensors"]
    code, out, err = run("export", *options, "-o", "model.onnx")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    size = (tmp_path / "model.onnx").stat().st_size / 1e6
    assert lines[0].startswith(f"model.onnx: {size:.2f} MB, {options[0]} (")
    tables = [line.split(None, 3) for line in lines if line.startswith(("input", "output"))]
    assert tables == [
        ["input", "silhouettes", "float", "[N, T, 16, 12]"],
        ["input", "lengths", "int64", "[N]"],
        ["output", "embeddings", "float", f"[N, {saved.num_parts}, {saved.num_features}]"],
    ]
    assert "largest difference to the model in onnxruntime: " in lines[-1]
    session = onnxruntime.InferenceSession("model.onnx")
    for frame_counts in ((6,), (13, 1, 7, 4), (30, 9)):
        clips = [torch.rand(t, 16, 12) for t in frame_counts]
        batch, lengths = gaitzoo.pad_sequences(clips)
        with torch.no_grad():
            wanted = saved(batch, lengths).embeddings
        given = {"silhouettes": batch.numpy(), "lengths": lengths.numpy()}
        (found,) = session.run(None, given)
        assert relative_error(torch.from_numpy(found), wanted) < 1e-4
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "saved"]


@pytest.fixture
def quick_export(monkeypatch):
    """Leaves out what takes long; the file says which model it is of."""

    def export_onnx(model, path):
        path.write_text(model.pretrained_cfg.name)

    monkeypatch.setattr("gaitzoo.cli.export.export_onnx", export_onnx)
    monkeypatch.setattr("gaitzoo.cli.export._describe_graph", lambda path: [])
    monkeypatch.setattr("gaitzoo.cli.export._difference_in_onnxruntime", lambda *_: 2e-7)


def test_export_takes_a_saved_folder(run, tmp_path, monkeypatch, quick_export):
    exported = []
    monkeypatch.setattr(
        "gaitzoo.cli.export.export_onnx",
        lambda model, path: exported.append(model) or path.write_text("graph"),
    )
    saved = gaitzoo.create_model("dygait_tiny", num_classes=4).eval()
    saved.save_pretrained("saved")
    code, out, err = run("export", "local-dir:saved", "-o", "model.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("model.onnx: 0.00 MB, local-dir:saved (")
    assert (tmp_path / "model.onnx").read_text() == "graph"
    (model,) = exported
    assert type(model) is type(saved)
    assert model.model_args == {**saved.model_args, "num_classes": 0}
    clip = torch.rand(1, 7, 16, 12)
    with torch.no_grad():
        assert torch.equal(model.eval()(clip).embeddings, saved(clip).embeddings)


def test_export_replaces_files_only_by_force(run, tmp_path, quick_export):
    old = tmp_path / "model.onnx"
    old.write_text("old")
    arguments = ["export", "gaitbase_tiny", "-o", "model.onnx"]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "model.onnx exists; choose another file, or replace it with --force" in err
    assert old.read_text() == "old"
    assert run(*arguments, "--force")[0] == 0
    assert old.read_text() == "gaitbase_tiny.test"
    (tmp_path / "other.onnx.data").write_text("weights of another file")
    assert run("export", "gaitbase_tiny", "-o", "other.onnx")[0] == 2
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "other.onnx.data"]


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_export_keeps_no_file_that_is_wrong(run, tmp_path, monkeypatch, quick_export, difference):
    monkeypatch.setattr("gaitzoo.cli.export._difference_in_onnxruntime", lambda *_: difference)
    (tmp_path / "model.onnx").write_text("old")
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx", "--force")
    assert (code, out) == (2, "")
    assert "nothing was written: in onnxruntime" in err
    assert (tmp_path / "model.onnx").read_text() == "old"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_export_says_what_it_could_not_try(run, monkeypatch, quick_export):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert code == 0
    assert out.endswith("not compared with the model: onnxruntime is not installed\n")


@pytest.mark.parametrize("content", ["", "no graph"])
def test_export_keeps_no_file_that_cannot_be_run(run, tmp_path, monkeypatch, content):
    pytest.importorskip("onnxruntime")
    export = "gaitzoo.cli.export.export_onnx"
    monkeypatch.setattr(export, lambda model, path: path.write_text(content))
    monkeypatch.setattr("gaitzoo.cli.export._describe_graph", lambda path: [])
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert (code, out) == (2, "")
    assert "nothing was written: onnxruntime cannot run gaitbase_tiny.test (" in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_export_names_missing_packages(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert (code, out) == (2, "")
    assert f"needs the package '{package}'" in err
    assert "pip install 'gaitzoo[onnx]'" in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []
