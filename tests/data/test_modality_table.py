"""The table of modalities, and what each does with a batch."""

import pytest
import torch

import gaitzoo
from gaitzoo import MODALITIES, Modality
from gaitzoo.data.modalities import find_modality

SIZES = {"N": 2, "C": 3, "T": 5, "H": 8, "W": 6, "J": 17, "P": 30, "D": 3}


def batch_for(modality):
    """Values of the modality's range in its axes."""
    letters = modality.axes.split()
    sizes = {**SIZES, letters[1 if modality.has_channel_axis else -1]: modality.channels}
    shape = [sizes[letter] or SIZES[letter] for letter in letters]
    if modality.is_map and not modality.has_channel_axis:
        shape = [SIZES[letter] for letter in letters]
    x = torch.rand(shape)
    return (x * 11).round() if modality.bytes_mean == "labels" else x


@pytest.mark.parametrize("name", MODALITIES)
def test_every_modality_is_whole(name):
    modality = find_modality(name)
    assert modality.name == name
    assert modality.axes.startswith("N ")
    assert name in modality.file_names
    assert modality.time_axis is not None or name == "images"
    others = [other for other in MODALITIES.values() if other.name != name]
    assert not any(set(modality.file_names) & set(other.file_names) for other in others)


@pytest.mark.parametrize("name", MODALITIES)
def test_channels_first_and_padding_masked(name):
    modality = find_modality(name)
    x = batch_for(modality)
    if modality.time_axis is None:
        prepared, lengths = modality.prepare(x)
        assert prepared.shape == x.shape
        assert lengths is None
        with pytest.raises(ValueError, match=f"no lengths for {name}"):
            modality.prepare(x, torch.tensor([5, 3]))
        return
    x.narrow(modality.time_axis, 3, 2)[1] = float("nan")
    with pytest.raises(ValueError, match=rf"{name} .*NaN"):
        modality.prepare(x)
    prepared, lengths = modality.prepare(x, torch.tensor([5, 3]))
    assert lengths is not None
    assert lengths.tolist() == [5, 3]
    channels = modality.channels or (3 if modality.has_channel_axis else 1)
    assert prepared.shape[:3] == (2, channels, 5)
    assert (prepared[1, :, 3:] == modality.padding).all()
    sequence = modality.prepare(x[:1])[0][0]
    assert torch.equal(prepared[0], sequence)
    if modality.is_map:
        assert torch.equal(sequence, x[0] if modality.has_channel_axis else x[:1])
    else:
        assert torch.equal(sequence.movedim(0, -1), x[0])


@pytest.mark.parametrize("name", MODALITIES)
def test_time_of_one_sequence(name):
    modality = find_modality(name)
    if modality.time_axis is None:
        with pytest.raises(ValueError, match="which has none"):
            modality.time_axis_of(torch.rand(3, 8, 6))
        return
    sequence = batch_for(modality)[0]
    assert sequence.shape[modality.time_axis_of(sequence)] == 5


def test_bytes_mean_what_they_are():
    levels = torch.full((1, 2, 8, 6), 255, dtype=torch.uint8)
    assert find_modality("silhouettes").prepare(levels)[0].max() == 1
    maps = torch.full((1, 2, 2, 8, 6), 51, dtype=torch.uint8)
    torch.testing.assert_close(find_modality("skeleton_maps").prepare(maps)[0], maps / 255)
    labels = torch.full((1, 2, 8, 6), 11, dtype=torch.uint8)
    assert find_modality("parsing").prepare(labels)[0].max() == 11
    with pytest.raises(TypeError, match=r"expected rgb as floats, got torch\.uint8"):
        find_modality("rgb").prepare(torch.zeros(1, 3, 2, 8, 6, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("parsing", torch.full((1, 2, 8, 6), 200, dtype=torch.uint8), r"parsing in \[0, 11\]"),
        ("skeleton_maps", torch.full((1, 2, 2, 8, 6), 7.0), r"skeleton_maps in \[0, 1\]"),
        ("skeleton_maps", torch.rand(1, 3, 2, 8, 6), r"2 channel\(s\) on axis 1 of \[N, 2, T, H"),
        ("poses", torch.rand(1, 5, 17, 2), r"3 channel\(s\) on axis 3 of \[N, T, J, 3\]"),
        ("poses", torch.rand(5, 17, 3), r"\[N, T, J, 3\], got \[5, 17, 3\]; add the batch axis"),
        ("smpl", torch.rand(1, 0, 85), "at least one frame"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, x, message):
    with pytest.raises(ValueError, match=message):
        find_modality(name).prepare(x)


def test_types_are_checked():
    with pytest.raises(TypeError, match=r"expected poses as a torch\.Tensor \[N, T, J, 3\], got l"):
        find_modality("poses").prepare([[[[1.0, 2.0, 3.0]]]])  # pyright: ignore
    with pytest.raises(TypeError, match="expected poses as floats, got"):
        find_modality("poses").prepare(torch.ones(1, 5, 17, 3, dtype=torch.int64))


def test_modalities_that_are_none():
    with pytest.raises(ValueError, match="a modality among silhouettes"):
        find_modality("sonar")
    with pytest.raises(ValueError, match='axes that begin with "N "'):
        Modality(name="sonar", axes="T H W")
    with pytest.raises(ValueError, match="bytes_mean as one of"):
        Modality(name="sonar", axes="N T H W", bytes_mean="decibels")
    with pytest.raises(ValueError, match="expected modalities among"):
        gaitzoo.PretrainedCfg(modalities=("sonar",))


def test_labels_between_two_parts_are_refused():
    with pytest.raises(ValueError, match=r"whole numbers, got 3\.5; resize labels to the nearest"):
        MODALITIES["parsing"].prepare(torch.full((1, 2, 4, 4), 3.5))


@pytest.mark.parametrize("joints", [17, 18, 25])
def test_poses_in_shares_of_the_frame_do_not_pass_as_silhouettes(joints):
    with pytest.raises(ValueError, match=f"poses of {joints} joints"):
        MODALITIES["silhouettes"].prepare(torch.rand(2, 5, joints, 3))
