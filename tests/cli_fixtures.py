"""Folders of walks, and the command line run in one of its own."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from cli_world import walk
from PIL import Image

import gaitzoo
from gaitzoo.cli import entry as cli
from gaitzoo.cli import files as cli_files


@pytest.fixture
def people(tmp_path):
    """Folders ``known`` (ann, bob) and ``new`` (ann, zoe) in every file layout."""
    known, new = tmp_path / "known", tmp_path / "new"
    for folder in (known / "ann", known / "bob" / "monday", new / "ann", new / "zoe"):
        folder.mkdir(parents=True)
    np.save(known / "ann" / "one.npy", walk(0))
    frames = [Image.fromarray(frame) for frame in walk(0, seed=1)]
    frames[0].save(known / "ann" / "two.gif", save_all=True, append_images=frames[1:])
    for number, frame in enumerate(walk(1)):
        Image.fromarray(frame).save(known / "bob" / "monday" / f"{number}.png")
    (new / "ann" / "three.pkl").write_bytes(pickle.dumps(walk(0, seed=2)))
    np.savez(new / "zoe" / "four.npz", walk(2, frames=4))
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in a folder of its own; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def with_weights(monkeypatch):
    """Makes the tiny model one that has weights: those of seed 7."""
    from dataclasses import replace

    real = gaitzoo.models.registry.find_architecture

    def find_architecture(name):
        architecture = real(name)
        cfgs = {
            tag: replace(cfg, filename="tiny.safetensors", size=1_500_000)
            for tag, cfg in architecture.cfgs.items()
        }
        return replace(architecture, cfgs=cfgs)

    def create_model(name, pretrained=False, **options):
        assert pretrained
        del options["checkpoint_path"]
        warnings.warn("weights of\nothers", gaitzoo.LicenseWarning, stacklevel=1)
        torch.manual_seed(7)
        return gaitzoo.create_model(name, **options)

    monkeypatch.setattr(gaitzoo.models.registry, "find_architecture", find_architecture)
    monkeypatch.setattr(cli_files, "create_model", create_model)
