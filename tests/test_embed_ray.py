"""The example on Ray: a run that is killed and started again has every sequence once."""

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import relative_error

import gaitzoo
from gaitzoo.hub.reading import read_safetensors
from gaitzoo.synthetic import render_walk, sample_identity

pytest.importorskip("ray.data")
EXAMPLE = Path(__file__).parent.parent / "examples" / "embed_ray.py"
VIEWS = ("000", "090")
PEOPLE = 5


@pytest.fixture
def data(tmp_path):
    """Two walks each of five people."""
    root = tmp_path / "data"
    for person in range(PEOPLE):
        for number, view in enumerate(VIEWS):
            folder = root / f"{person:03d}" / "nm-01" / view
            folder.mkdir(parents=True)
            walk = render_walk(sample_identity(person), frames=5 + person + number, seed=number)
            np.save(folder / "walk.npy", walk.silhouettes.numpy())
    return root


@pytest.fixture
def environment():
    # Names of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {
            **os.environ,
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
        }


def test_a_killed_run_goes_on_without_loss_or_doubles(data, tmp_path, environment):
    output, parts = tmp_path / "out", tmp_path / "out" / "parts"
    command = [sys.executable, str(EXAMPLE), str(data), "-o", str(output), "--part-size", "2"]
    broken = data / "004" / "nm-01" / "090" / "walk.npy"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])  # however late the signal comes, this run does not end well
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while run.poll() is None and not list(parts.glob("0*.safetensors")):
            time.sleep(0.01)
        run.kill()
        assert run.wait() != 0
    broken.write_bytes(whole)
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("0*.safetensors")}
    assert 0 < len(kept) < PEOPLE, (tmp_path / "log").read_text()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # A part that was being written when the signal came may be there since.
    assert f"of {PEOPLE} parts are done already" in done.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())

    tensors, metadata = read_safetensors(output / "embeddings.safetensors")
    dataset = gaitzoo.GaitDataset(data)
    assert json.loads(metadata["names"]) == [record.name for record in dataset.records]
    assert json.loads(metadata["identities"]) == [record.identity for record in dataset.records]
    model = gaitzoo.create_model("dygait.walkers", pretrained=True, num_classes=0)
    wanted = gaitzoo.embed(model, dataset.sequences(), progress=False)
    assert relative_error(tensors["embeddings"], wanted) < 1e-5

    embed_data_set = runpy.run_path(str(EXAMPLE))["embed_data_set"]
    options = argparse.Namespace(
        data=data,
        output=output,
        layout=None,
        model="dygait.walkers",
        checkpoint=None,
        part_size=3,
    )
    with pytest.raises(ValueError, match="expected parts of this run"):
        embed_data_set(options)
