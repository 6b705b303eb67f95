"""Batched embedding gives what one sequence at a time gives."""

import pytest
import torch
from conftest import relative_error

import gaitzoo
from gaitzoo._embed import _batches


@pytest.fixture
def model():
    return gaitzoo.create_model("dygait_tiny", num_classes=0).eval()


def clips(*frame_counts):
    return [(torch.rand(t, 16, 12) * 255).to(torch.uint8) for t in frame_counts]


@pytest.mark.parametrize("batch_frames", [1, 10, 64, 10_000])
def test_batches_change_nothing(model, batch_frames):
    sequences = clips(7, 1, 30, 2, 12, 12, 5, 64)
    found = gaitzoo.embed(model, sequences, batch_frames=batch_frames, progress=False)
    assert found.shape == (8, model.num_parts, model.num_features)
    assert found.dtype == torch.float32
    for i, sequence in enumerate(sequences):
        with torch.no_grad():
            alone = model(sequence[None]).embeddings[0]
        assert relative_error(found[i], alone) < 1e-5


def test_generators_are_read_as_they_are_needed(model):
    read = []

    def sequences():
        for i in range(200):
            read.append(i)
            yield clips(4)[0]

    calls = []
    model.register_forward_hook(lambda *_: calls.append(len(read)))
    found = gaitzoo.embed(model, sequences(), batch_frames=8, progress=False)
    assert len(found) == 200
    assert calls[0] < 50


def test_batches_stay_within_the_budget():
    numbered = [(i, torch.zeros(t, 1, 1)) for i, t in enumerate((5, 20, 3, 3, 9, 40, 1))]
    seen = []
    for batch in _batches(numbered, 20):
        longest = max(len(frames) for _, frames in batch)
        assert len(batch) == 1 or longest * len(batch) <= 20
        seen += [i for i, _ in batch]
    assert sorted(seen) == list(range(7))


def test_anything_that_is_a_silhouette_sequence_is_taken(model):
    ready = clips(6)[0]
    raw = torch.zeros(6, 100, 90, dtype=torch.uint8)
    raw[:, 20:90, 30:60] = 255
    for sequence in (ready, ready.numpy(), ready.float() / 255, raw, raw > 0):
        assert gaitzoo.embed(model, [sequence], progress=False).shape[0] == 1
    same = gaitzoo.embed(model, [ready, ready.numpy(), ready.float() / 255], progress=False)
    assert relative_error(same[1], same[0]) == 0
    assert relative_error(same[2], same[0]) < 1e-5


def test_floats_are_not_rounded(model):
    sequence = torch.rand(6, 16, 12)
    with torch.no_grad():
        wanted = model(sequence[None]).embeddings
    assert relative_error(gaitzoo.embed(model, [sequence], progress=False), wanted) < 1e-6


def test_mode_device_and_type_are_left_as_they_were(model):
    model.train()
    model.neck.eval()
    gaitzoo.embed(model, clips(4, 5), device="cpu", progress=False)
    assert model.training
    assert not model.neck.training
    assert model.blocks[0].training
    wanted = gaitzoo.embed(model.double(), clips(4), progress=False)
    assert wanted.dtype == torch.float64


def test_narrow_types_compute_under_autocast(model):
    sequences = clips(6, 9)
    wanted = gaitzoo.embed(model, sequences, progress=False)
    found = gaitzoo.embed(model, sequences, dtype=torch.bfloat16, progress=False)
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, wanted) < 0.1


def test_a_failure_leaves_the_model_as_it_was(model):
    model.train()
    with pytest.raises(ValueError, match="sequence 1: "):
        gaitzoo.embed(model, [clips(4)[0], torch.full((4, 16, 12), float("nan"))], progress=False)
    assert model.training


def test_refused(model):
    with pytest.raises(ValueError, match="at least one sequence to embed"):
        gaitzoo.embed(model, [], progress=False)
    with pytest.raises(ValueError, match="put it into a list"):
        gaitzoo.embed(model, clips(4)[0], progress=False)
    with pytest.raises(ValueError, match="batch_frames >= 1"):
        gaitzoo.embed(model, clips(4), batch_frames=0)
    with pytest.raises(TypeError, match="expected a model"):
        gaitzoo.embed("dygait", clips(4))
