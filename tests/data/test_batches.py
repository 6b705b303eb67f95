"""Padding: of tensors, of modalities with channels in front, of several modalities."""

import pytest
import torch

import gaitzoo
from gaitzoo import pad_sequences


def mapping(frames, **changed):
    parts = {
        "silhouettes": torch.rand(frames, 4, 3),
        "skeleton_maps": torch.rand(2, frames, 4, 3),
        "poses": torch.rand(frames, 17, 3),
    }
    return {**parts, **changed}


def test_padding_keeps_every_frame():
    sequences = [torch.rand(t, 4, 3) for t in (2, 5, 1)]
    batch, lengths = pad_sequences(sequences)
    assert lengths.tolist() == [2, 5, 1]
    for i, sequence in enumerate(sequences):
        assert torch.equal(batch[i, : len(sequence)], sequence)
        assert (batch[i, len(sequence) :] == 0).all()


@pytest.mark.parametrize(
    ("modality", "channels"), [("skeleton_maps", 2), ("rgb", 3), ("silhouettes", 3), ("flow", 2)]
)
def test_time_behind_channels(modality, channels):
    sequences = [torch.rand(channels, t, 4, 3) for t in (2, 5, 1)]
    batch, lengths = pad_sequences(sequences, modality)
    assert batch.shape == (3, channels, 5, 4, 3)
    assert lengths.tolist() == [2, 5, 1]
    for i, sequence in enumerate(sequences):
        assert torch.equal(batch[i, :, : sequence.shape[1]], sequence)
        assert (batch[i, :, sequence.shape[1] :] == 0).all()


def test_silhouettes_of_one_channel_need_no_word():
    sequences = [torch.rand(t, 4, 3) for t in (2, 5)]
    named, plain = pad_sequences(sequences, "silhouettes"), pad_sequences(sequences)
    assert torch.equal(named[0], plain[0])


def test_several_modalities_share_their_lengths():
    sequences = [mapping(t) for t in (2, 5, 1)]
    batch, lengths = pad_sequences(sequences)
    assert lengths.tolist() == [2, 5, 1]
    assert {name: list(x.shape) for name, x in batch.items()} == {
        "silhouettes": [3, 5, 4, 3],
        "skeleton_maps": [3, 2, 5, 4, 3],
        "poses": [3, 5, 17, 3],
    }
    for name, padded in batch.items():
        wanted, _ = pad_sequences([sequence[name] for sequence in sequences], name)
        assert torch.equal(padded, wanted)


def test_a_loader_collates_with_it():
    loader = torch.utils.data.DataLoader(
        [mapping(t) for t in (2, 5)], batch_size=2, collate_fn=pad_sequences
    )
    batch, lengths = next(iter(loader))
    assert batch["poses"].shape == (2, 5, 17, 3)
    assert lengths.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("sequences", "modality", "message"),
    [
        ([], None, "at least one sequence"),
        ([torch.rand(2, 4, 3), torch.rand(0, 4, 3)], None, "sequence 1; leave empty"),
        ([torch.tensor(1.0)], None, "at least one frame"),
        ([torch.rand(2, 4, 3), torch.rand(2, 4, 4)], None, "frames of one shape"),
        ([torch.rand(2, 5, 4, 3), torch.rand(2, 0, 4, 3)], "skeleton_maps", "sequence 1; leave"),
        (
            [torch.rand(3, 5, 4, 3), torch.rand(2, 5, 4, 3)],
            "rgb",
            "rgb with frames of one shape.* sequence 1",
        ),
        (
            [torch.rand(5, 4, 3), torch.rand(1, 5, 4, 3)],
            "silhouettes",
            "frames of one shape.* sequence 1",
        ),
        ([torch.rand(4, 3)], "silhouettes", "at least one frame"),
        ([torch.rand(2, 4, 3)], "heat", "a modality among silhouettes"),
        ([torch.rand(2, 4, 3)], "images", "which has none"),
        ([mapping(3)], "poses", "no modality for mappings"),
        ([{}], None, "the same modalities .*got none"),
        ([mapping(3), {"poses": torch.rand(3, 17, 3)}], None, "and poses in sequence 1"),
        (
            [mapping(3), mapping(3, poses=torch.rand(2, 17, 3))],
            None,
            "3 of silhouettes, 3 of skeleton_maps, 2 of poses in sequence 1",
        ),
    ],
)
def test_padding_refuses(sequences, modality, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences, modality)


def test_mappings_and_tensors_do_not_mix():
    with pytest.raises(TypeError, match="got Tensor and dict"):
        pad_sequences([torch.rand(2, 4, 3), mapping(2)])


def test_a_model_takes_what_comes_out():
    import two_modalities  # noqa: F401 - registers the model

    model = gaitzoo.create_model("two_branches").eval()
    sequences = [mapping(t, silhouettes=torch.rand(t, 16, 12)) for t in (2, 5)]
    for sequence in sequences:
        sequence["skeleton_maps"] = torch.rand(2, len(sequence["silhouettes"]), 16, 12)
        del sequence["poses"]
    batch, lengths = pad_sequences(sequences)
    with torch.no_grad():
        together = model(batch, lengths).embeddings
        alone = model({name: x[None] for name, x in sequences[0].items()}).embeddings
    assert torch.allclose(together[0], alone[0], atol=1e-6)
