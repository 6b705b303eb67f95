"""Models of other inputs than silhouettes go through all that is done with models."""

import json

import pytest
import torch
import two_modalities  # noqa: F401 - registers its models
from conftest import relative_error

import gaitzoo
from gaitzoo.data.batches import by_name
from gaitzoo.inference.chunks import embed_in_chunks
from gaitzoo.inference.inputs import example_sequence
from gaitzoo.inference.memory import bytes_per_frame
from gaitzoo.testing.trial import Trial, reset_statistics

NAMES = ["two_branches", "poses_alone", "images_alone"]


def make(name, **model_args):
    torch.manual_seed(0)
    return gaitzoo.create_model(name, **model_args).eval()


def sequences_for(model, *frame_counts):
    return [example_sequence(model, count, seed=seed) for seed, count in enumerate(frame_counts)]


def alone(model, sequence):
    if isinstance(sequence, dict):
        return model({name: x[None] for name, x in sequence.items()})
    return model(sequence[None])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_frames", [None, 1, 12])
@torch.no_grad()
def test_embed_gives_the_numbers_of_one_at_a_time(name, batch_frames):
    model = make(name)
    sequences = sequences_for(model, 7, 1, 30, 4, 4)
    found = gaitzoo.embed(model, sequences, batch_frames=batch_frames, progress=False)
    assert found.shape == (5, model.num_parts, model.num_features)
    for embedding, sequence in zip(found, sequences, strict=True):
        assert relative_error(embedding, alone(model, sequence).embeddings[0]) < 1e-5


@torch.no_grad()
def test_models_of_three_channels_take_channels_first():
    model = gaitzoo.create_model("gaitbase_tiny", num_classes=0, in_channels=3).eval()
    sequences = [torch.rand(3, t, 16, 12) for t in (5, 9)]
    sequences.append((torch.rand(3, 4, 16, 12) * 255).to(torch.uint8))
    found = gaitzoo.embed(model, sequences, progress=False)
    for embedding, sequence in zip(found, sequences, strict=True):
        assert relative_error(embedding, model(sequence[None]).embeddings[0]) < 1e-5
    with pytest.raises(ValueError, match=r"sequence 0: expected silhouettes \[3, T, H, W\], got"):
        gaitzoo.embed(model, [torch.rand(5, 16, 12)], progress=False)
    with pytest.raises(ValueError, match="put it into a list"):
        gaitzoo.embed(model, sequences[0], progress=False)


@torch.no_grad()
def test_long_sequences_of_several_modalities_are_cut():
    model = make("two_branches").double()
    (sequence,) = sequences_for(model, 41)
    sequence = {name: x.double() for name, x in sequence.items()}
    wanted = alone(model, sequence).embeddings
    for max_frames in (3, 10, 40, 100):
        assert relative_error(embed_in_chunks(model, sequence, max_frames), wanted) < 1e-12
    frames = []
    model.silhouette_branch.register_forward_hook(lambda _, x, __: frames.append(x[0].shape[2]))
    shapes = {"silhouettes": (16, 12), "skeleton_maps": (2, 16, 12)}
    budget = 12 * bytes_per_frame(model, shapes)
    frames.clear()
    found = gaitzoo.embed(model, [sequence], max_memory=budget, progress=False)
    assert max(frames) <= 12
    assert relative_error(found[0], wanted[0]) < 1e-12


@torch.no_grad()
def test_identify_finds_the_same_walks():
    model = make("two_branches", num_classes=0)
    sequences = sequences_for(model, 5, 7, 9)
    found = gaitzoo.inference.identify.identify(
        model, sequences, sequences[1:], ["ann", "bob", "eve"], ["bob", "eve"], progress=False
    )
    assert found.rank1 == 1.0
    assert [matches[0].label for matches in found.matches] == ["bob", "eve"]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_saved_models_come_back(name, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path)
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert type(loaded) is type(model)
    assert loaded.modalities == model.modalities
    (sequence,) = sequences_for(model, 6)
    assert torch.equal(alone(loaded, sequence).embeddings, alone(model, sequence).embeddings)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_onnx_files_have_an_input_per_modality(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = make(name)
    reset_statistics(model)
    gaitzoo.export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    timed = name != "images_alone"
    names = [entry.name for entry in session.get_inputs()]
    assert names == [*model.modalities, *(["lengths"] if timed else [])]
    assert json.loads(session.get_modelmeta().custom_metadata_map["modalities"]) == list(
        model.modalities
    )
    # Padded batches, against the model's own.
    trial = Trial(model, (7, 5, 1, 2, 3, 4, 9, 12))
    for counts in ((8, 2, 5), trial.frames):
        batch, lengths = trial.batch(counts)
        given = {key: x.numpy() for key, x in by_name(model.modalities, batch).items()}
        if timed:
            given["lengths"] = lengths.numpy()
        outputs = [entry.name for entry in session.get_outputs()]
        found = dict(zip(outputs, session.run(None, given), strict=True))
        wanted = model(batch, lengths)
        assert ("logits" in found) == (wanted.logits is not None)
        for key, value in found.items():
            assert relative_error(torch.from_numpy(value), getattr(wanted, key)) < 1e-4
    for frames in (6, 13):
        sequences = sequences_for(model, frames, frames, frames)
        rows = [s if isinstance(s, dict) else {model.modalities[0]: s} for s in sequences]
        given = {name: torch.stack([row[name] for row in rows]).numpy() for name in rows[0]}
        if timed:
            given["lengths"] = torch.full((3,), frames).numpy()
        found = session.run(["embeddings"], given)[0]
        wanted = torch.cat([alone(model, sequence).embeddings for sequence in sequences])
        assert relative_error(torch.from_numpy(found), wanted) < 1e-4


def wrong(model, **changes):
    (sequence,) = sequences_for(model, 5)
    return {**sequence, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["silhouettes"], r"a mapping with silhouettes \[T, H, W\], skeleton_maps"),
        (lambda s: {"silhouettes": s["silhouettes"]}, "got a mapping with silhouettes$"),
        (lambda s: {**s, "poses": torch.rand(5, 17, 3)}, "got a mapping with .*poses"),
        (lambda s: {**s, "skeleton_maps": torch.rand(3, 16, 12)}, r"maps \[.*\], got \[3, 16, 12"),
        (lambda s: {**s, "silhouettes": torch.rand(4, 16, 12)}, "4 of silhouettes, 5 of skeleton"),
    ],
)
def test_sequences_that_lack_something_are_refused_by_name(change, message):
    model = make("two_branches")
    good, also_good = sequences_for(model, 5, 5)
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        gaitzoo.embed(model, [good, change(also_good)], progress=False)
    assert str(caught.value).startswith("sequence 1: ")
    with pytest.raises(ValueError, match="one mapping with silhouettes, skeleton_maps; put it"):
        gaitzoo.embed(model, good, progress=False)


def test_poses_are_no_silhouettes_and_silhouettes_no_poses():
    silhouettes = gaitzoo.create_model("dygait_tiny", num_classes=0)
    poses = torch.rand(2, 30, 17, 3) * 60
    for given in (poses, [poses]):
        with pytest.raises((TypeError, ValueError), match="silhouettes"):
            gaitzoo.embed(silhouettes, given, progress=False)
    with pytest.raises(ValueError, match="poses"):
        gaitzoo.embed(make("poses_alone"), [torch.rand(5, 16, 12)], progress=False)
    with pytest.raises(ValueError, match="images"):
        gaitzoo.embed(make("images_alone"), [torch.rand(5, 16, 12)], progress=False)


@torch.no_grad()
def test_wrapped_models_are_taken():
    model = gaitzoo.create_model("hstl_tiny", num_classes=0).eval()
    sequences = [torch.rand(t, 16, 12) for t in (5, 9, 60)]
    wanted = gaitzoo.embed(model, sequences, progress=False)
    compiled = torch.compile(model, backend="eager")
    for wrapped in (torch.nn.DataParallel(model), compiled, torch.nn.DataParallel(compiled)):
        for options in ({}, {"max_memory": 1}):
            found = gaitzoo.embed(wrapped, sequences, progress=False, **options)
            assert relative_error(found, wanted) < 1e-5


def test_memory_is_measured_once_per_model_and_frame_size(monkeypatch):
    measured = []
    real = gaitzoo.inference.memory._measure

    def measure(model, shapes):
        measured.append(shapes)
        return real(model, shapes)

    monkeypatch.setattr("gaitzoo.inference.memory._measure", measure)
    model = gaitzoo.create_model("gaitbase_tiny", num_classes=0).eval()
    first = bytes_per_frame(model, (16, 12))
    for _ in range(3):
        gaitzoo.embed(model, [torch.rand(5, 16, 12)], progress=False)
    assert len(measured) == 1
    assert bytes_per_frame(model, (32, 24)) > 3 * first
    assert len(measured) == 2
    assert bytes_per_frame(model.double(), (16, 12)) > 1.5 * first
    fused = gaitzoo.fuse_for_inference(model)
    bytes_per_frame(fused, (16, 12))
    model.backbone.layers[3].append(torch.nn.Identity())
    bytes_per_frame(model, (16, 12))
    assert len(measured) == 5
