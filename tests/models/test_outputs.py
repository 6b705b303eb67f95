"""What models return goes where tensors go."""

import abc
import copy
import dataclasses
import pickle

import pytest
import torch
from torch.nn.parallel import scatter_gather
from torch.utils.data import default_collate

import gaitzoo
from gaitzoo import GaitOutput


def output(num_sequences=2, classes=3):
    logits = torch.rand(num_sequences, 4, classes) if classes else None
    return GaitOutput(embeddings=torch.rand(num_sequences, 4, 5), logits=logits)


def test_it_cannot_be_changed_and_logits_are_named():
    one = output()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.embeddings = torch.zeros(1)
    with pytest.raises(TypeError):
        GaitOutput(one.embeddings, one.logits)
    embeddings, logits = one
    assert embeddings is one.embeddings
    assert logits is one.logits
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(again.embeddings, embeddings)


def test_it_moves_as_a_tensor():
    half = output().to(torch.float16)
    assert half.embeddings.dtype == half.logits.dtype == torch.float16
    meta = output(classes=0).to("meta", non_blocking=True)
    assert meta.embeddings.is_meta
    assert meta.logits is None


class Transferable(abc.ABC):  # noqa: B024 - decides by its hook
    """What Lightning moves as a whole: anything with a method "to"."""

    @classmethod
    def __subclasshook__(cls, subclass):
        return callable(getattr(subclass, "to", None))


def test_lightning_moves_it_whole():
    assert issubclass(GaitOutput, Transferable)
    utilities = pytest.importorskip("lightning_utilities.core.apply_func")
    predictions = [output(), {"batch": output(classes=0)}]
    moved = utilities.apply_to_collection(predictions, Transferable, lambda x: x.to("meta"))
    assert moved[0].embeddings.is_meta
    assert moved[1]["batch"].embeddings.is_meta


def test_collation_joins_sequences():
    joined = default_collate([output(1), output(2)])
    assert joined.embeddings.shape == (3, 4, 5)
    assert joined.logits.shape == (3, 4, 3)
    batch = default_collate(
        [{"output": output(1, 0), "label": 3}, {"output": output(1, 0), "label": 4}]
    )
    assert batch["output"].embeddings.shape == (2, 4, 5)
    assert batch["output"].logits is None
    assert batch["label"].tolist() == [3, 4]
    with pytest.raises(ValueError, match="1 of 2"):
        default_collate([output(1), output(1, 0)])


@pytest.mark.parametrize("classes", [0, 3])
def test_data_parallel_joins_the_devices_outputs(monkeypatch, classes):
    class Gather:
        """Joins tensors on the processor, which torch's own function does not."""

        @staticmethod
        def apply(_, axis, *tensors):
            return torch.cat(tensors, axis)

    monkeypatch.setattr(scatter_gather, "Gather", Gather)
    parts = [output(1, classes), output(3, classes)]
    joined = scatter_gather.gather(parts, "cpu")
    assert isinstance(joined, GaitOutput)
    assert torch.equal(joined.embeddings, torch.cat([part.embeddings for part in parts]))
    assert (joined.logits is None) == (classes == 0)


def test_metric_losses_take_flat_embeddings():
    model = gaitzoo.create_model("dygait_tiny").train()
    flat = model(torch.rand(4, 5, 16, 12)).embeddings.flatten(1)
    assert flat.shape == (4, model.num_parts * model.num_features)
    # Distances of flat vectors, as metric losses compute them, reach every part.
    loss = torch.nn.functional.triplet_margin_loss(flat[:2], flat[2:], flat[2:].flip(0))
    loss.backward()
    assert model.part_fc.weight.grad.flatten(1).any(1).all()
