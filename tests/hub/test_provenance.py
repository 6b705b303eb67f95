"""Hashes of weights and what results say of them."""

import hashlib

import pytest
import torch
from torch import nn

import gaitzoo
from gaitzoo.hub.provenance import provenance, weights_hash


@pytest.fixture(scope="module")
def walkers():
    return gaitzoo.create_model("dygait.walkers", pretrained=True)


def test_hashes_tell_numbers_apart():
    model = gaitzoo.create_model("dygait_tiny", num_classes=3)
    known = weights_hash(model)
    again = gaitzoo.create_model("dygait_tiny", num_classes=3)
    assert weights_hash(again) != known
    again.load_state_dict(model.state_dict())
    assert weights_hash(again) == known
    assert weights_hash(nn.DataParallel(again)) == known
    assert weights_hash(torch.compile(again, backend="eager")) == known
    for name, counter in again.named_buffers():
        if "num_batches_tracked" in name:
            counter.add_(1)
    assert weights_hash(again) == known
    assert weights_hash(again.double()) != known
    with torch.no_grad():
        model.part_fc.weight.view(-1)[-1].add_(1e-3)
    assert weights_hash(model) != known


def test_hashes_stay_the_same_between_versions():
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.zeros_(layer.bias)
    text = b"bias torch.float32 [1]\n" + bytes(4)
    text += b"weight torch.float32 [1, 2]\n" + bytes.fromhex("0000003f") * 2
    assert weights_hash(layer) == hashlib.sha256(text).hexdigest()


def test_hashes_need_numbers():
    with torch.device("meta"):
        model = gaitzoo.create_model("dygait_tiny")
    with pytest.raises(ValueError, match="on the meta device; load its weights first"):
        weights_hash(model)


def test_weights_of_a_tag(walkers):
    cfg = gaitzoo.model_info("dygait.walkers")
    assert provenance(nn.DataParallel(walkers)) == {
        "gaitzoo_version": gaitzoo.__version__,
        "model": "dygait.walkers",
        "weights": "dygait.walkers",
        "weights_sha256": weights_hash(walkers),
        "trained_on": cfg.training_data,
        "license": "apache-2.0",
        "file_sha256": cfg.sha256,
    }


def test_weights_of_a_file_know_nothing_of_the_tag(walkers, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(walkers.state_dict(), path)
    model = gaitzoo.create_model("dygait.walkers", pretrained=True, num_classes=0)
    assert model.weights_of == "dygait.walkers"
    model = gaitzoo.create_model("dygait.walkers", pretrained=True)
    gaitzoo.load_checkpoint(model, path)
    assert model.weights_of is None
    known = provenance(model, path)
    assert known["weights"] == "checkpoint mine.pt"
    assert known["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert known["weights_sha256"] == weights_hash(walkers)
    assert not {"trained_on", "license"} & set(known)


def test_fresh_weights():
    known = provenance(gaitzoo.create_model("dygait_tiny"))
    assert known["weights"] == "not of a tag"
    assert set(known) == {"gaitzoo_version", "model", "weights", "weights_sha256"}
    with pytest.raises(TypeError, match="expected a gaitzoo model, got Linear"):
        provenance(nn.Linear(1, 1))
