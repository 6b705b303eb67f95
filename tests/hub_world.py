"""A Hub, a cache and a model of its own for tests of downloads and sharing."""

import io
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hub_server import HubServer, point_client_at, sha256

import gaitzoo
from gaitzoo import PretrainedCfg
from gaitzoo.hub import factory
from gaitzoo.models import registry
from gaitzoo.models.conversion import rename_keys
from gaitzoo.models.dygait import DyGait
from gaitzoo.models.registry import register_model

REPO, FILE = "authors/weights", "data/Net/checkpoints/Net-60000.pt"
ARGS = {"channels": (2, 4, 4), "part_bins": (4, 2)}


def their_key(key):
    return key.removeprefix("their.") if key.startswith("their.") else None


def convert(state_dict):
    return rename_keys(state_dict, their_key, "Wired")


def wired(**model_args) -> DyGait:
    return DyGait(**model_args)


def authors_file(model, **more):
    """The bytes of a file as training writes it, with the states of optimizer and scheduler."""
    content = {
        "model": {f"their.{key}": value for key, value in model.state_dict().items()},
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(2, 3)}},
            "param_groups": [{"lr": 0.1, "nesterov": False, "params": [0]}],
        },
        "scheduler": {"milestones": Counter([20, 30]), "gamma": 0.1, "_last_lr": [0.1]},
        "iteration": 60000,
        **more,
    }
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Hostile:
    """Runs code when it is unpickled by a reader that admits anything."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class World:
    """A Hub, a cache, and a model whose weights the Hub has."""

    def __init__(self, hub, home):
        self.hub, self.home = hub, home
        self.model = DyGait(num_classes=5, **ARGS).eval()
        self.content = authors_file(self.model)
        hub.add(REPO, {FILE: self.content})
        self.cfg = PretrainedCfg(
            model_args=ARGS,
            num_classes=5,
            input_size=(16, 12),
            embedding="after_bn",
            license="academic use only",
            hub_id=REPO,
            filename=FILE,
            size=len(self.content),
            sha256=sha256(self.content),
        )
        self.register()

    def register(self, **changes):
        self.cfg = replace(self.cfg, **changes)
        registry._ARCHITECTURES.pop("wired", None)

        register_model("wired", wired, {"test": self.cfg, "none": PretrainedCfg()}, convert=convert)

    def publish(self, content, **changes):
        """Replaces the file on the Hub, and what the cfg says of it."""
        self.hub.add(REPO, {FILE: content})
        known = {"size": len(content), "sha256": sha256(content)}
        self.register(**{**known, **changes})

    def load(self, **args):
        return gaitzoo.create_model("wired.test", pretrained=True, **args)

    def kept(self):
        return [path for path in (self.home / "assets").rglob("*") if path.is_file()]

    def refused(self, kind, match, **args):
        """The load fails with this message and leaves no converted file behind."""
        with pytest.raises(kind, match=match):
            self.load(**args)
        assert self.kept() == []

    def check(self, model, classes=5):
        assert model.num_classes == classes
        for key, value in self.model.state_dict().items():
            if classes == 5 or "classifier" not in key:
                assert torch.equal(model.state_dict()[key], value)


@contextmanager
def open_world(monkeypatch, home):
    """The world while the block runs; afterwards registry, cache and client are as they were."""
    # Few models: errors name the owners of a file, which builds all that there are.
    known = {name: registry._ARCHITECTURES[name] for name in ("dygait", "hstl")}
    monkeypatch.setattr(registry, "_ARCHITECTURES", known)
    monkeypatch.setattr(factory, "_licenses_shown", set())
    with HubServer() as hub:
        point_client_at(hub.url, home, monkeypatch)
        yield World(hub, home)


def flip(content):
    """One bit of the last number turned."""
    return content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]
