"""Data sets as they lie on disk: layouts, splits, copies, several modalities, workers."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from dataset_trees import TREES, raw_walk, write_images, write_pickle, write_tree
from torch.utils.data import DataLoader

import gaitzoo
from gaitzoo import GaitDataset, OrderedSampler, PKBatchSampler
from gaitzoo.data.layouts import find_layout


def said(record):
    return record.identity, record.type, record.view


@pytest.mark.parametrize("layout", TREES)
def test_official_trees_are_recognised(layout, tmp_path):
    wanted = write_tree(tmp_path, layout)
    found = GaitDataset(tmp_path)
    assert found.layout == layout
    assert {record.name: said(record) for record in found.records} == wanted
    assert found.left_out == ()
    for index, record in enumerate(found.records):
        sample = found[index]
        assert torch.equal(sample.sequence, gaitzoo.load_silhouettes(tmp_path / record.name))
        label = -1 if record.identity is None else found.identities.index(record.identity)
        assert sample.label == found.labels[index] == label
    named = GaitDataset(tmp_path, layout)
    assert named.records == found.records


def test_ccgr_must_be_said(tmp_path):
    write_images(tmp_path / "1" / "NM1" / "10_3", raw_walk())
    assert GaitDataset(tmp_path).layout == "opengait"
    assert said(GaitDataset(tmp_path, "ccgr").record(0)) == ("1", "NM1", "10_3")


@pytest.mark.parametrize("layout", ["casiab", "oumvlp", "gait3d", "sustech1k"])
def test_another_tree_is_refused_with_what_it_is(layout, tmp_path):
    write_tree(tmp_path, layout)
    other = "ccpg" if layout == "casiab" else "casiab"
    path = next(iter(TREES[layout]))
    with pytest.raises(ValueError, match=f"looks like layout '{layout}'") as error:
        GaitDataset(tmp_path, other)
    assert path in str(error.value)


def test_a_folder_above_is_named(tmp_path):
    write_tree(tmp_path / "DatasetB" / "silhouettes", "casiab")
    with pytest.raises(ValueError, match="DatasetB/silhouettes looks like layout 'casiab'"):
        GaitDataset(tmp_path, "casiab")


@pytest.mark.parametrize("first", ["train", "gallery", "Silhouette_090-00", "cam_3"])
@pytest.mark.parametrize("layout", [None, "folders", "opengait"])
def test_views_and_splits_are_never_people(first, layout, tmp_path):
    write_images(tmp_path / first / "ann" / "monday", raw_walk())
    with pytest.raises(ValueError, match=r"views or splits, not people|looks like layout"):
        GaitDataset(tmp_path, layout)
    found = GaitDataset(tmp_path, "{split}/{identity}/{type}")
    assert (said(found.record(0)), found.record(0).split) == (("ann", "monday", ""), first)


def test_nothing_and_no_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        GaitDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        GaitDataset(tmp_path / "gone")
    with pytest.raises(ValueError, match="expected a layout among"):
        find_layout("{identity}/{identity}")
    with pytest.raises(ValueError, match="expected a layout among"):
        find_layout("casia")


def test_a_stray_folder_is_left_out_with_a_warning(tmp_path):
    write_tree(tmp_path, "casiab")
    write_images(tmp_path / "results" / "old", raw_walk())
    with pytest.warns(UserWarning, match=r"1 folder\(s\) that were left out \(results/old\)"):
        found = GaitDataset(tmp_path, "casiab")
    assert (len(found), found.left_out) == (2, ("results/old",))


def test_copies_of_a_walk_count_once(tmp_path):
    raw = raw_walk()
    aligned = gaitzoo.normalize_silhouettes(raw).numpy()
    leaf = tmp_path / "001" / "U0_D0" / "01_0"
    write_pickle(leaf / "01_0-sils.pkl", raw)
    write_pickle(leaf / "01_0-aligned-sils.pkl", aligned)
    write_pickle(leaf / "01_0-rgbs.pkl", np.zeros((6, 3, 8, 8), np.uint8))
    write_pickle(leaf / "01_0-ratios.pkl", np.ones(6))
    write_images(leaf, raw)
    found = GaitDataset(tmp_path, "ccpg")
    assert len(found) == 1
    assert found[0].sequence.shape == aligned.shape
    by_pattern = GaitDataset(tmp_path, modalities={"silhouettes": "01_0-sils.pkl"})
    assert by_pattern[0].sequence["silhouettes"].shape == raw.shape
    both = GaitDataset(tmp_path, modalities=("silhouettes", "rgb"))[0].sequence
    assert {name: x.shape[0] for name, x in both.items()} == {"silhouettes": 6, "rgb": 3}


def test_sensors_are_told_apart(tmp_path):
    leaf = tmp_path / "0000" / "00-nm" / "000"
    write_pickle(leaf / "00-000-LiDAR-PCDs.pkl", np.ones((4, 9, 3), np.float32))
    write_pickle(leaf / "01-000-LiDAR-PCDs_depths.pkl", np.ones((4, 1, 64, 64), np.uint8))
    write_pickle(leaf / "02-000-LiDAR-PCDs_sils.pkl", raw_walk(frames=4))
    write_pickle(leaf / "05-000-Camera-Ratios-HW.pkl", np.ones(4))
    write_pickle(leaf / "06-000-Camera-Sils_raw.pkl", raw_walk(frames=4))
    write_pickle(leaf / "07-000-Camera-Sils_aligned.pkl", raw_walk(frames=4))
    names = ("points", "depth", "silhouettes")
    files = GaitDataset(tmp_path, "sustech1k", modalities=names).record(0).files
    assert [files[name].name[:2] for name in names] == ["00", "01", "07"]


def test_folders_of_modalities_hold_the_same_walks(tmp_path):
    tail = "0000/camid0_videoid2/seq0"
    write_images(tmp_path / "2D_Silhouettes" / tail, raw_walk())
    write_pickle(tmp_path / "3D_SMPLs" / tail / "seq0.pkl", np.ones((6, 85), np.float32))
    sequence = GaitDataset(tmp_path, modalities=("silhouettes", "smpl"))[0].sequence
    assert sequence["smpl"].shape == (6, 85)
    with pytest.raises(ValueError, match=r"expected parsing in .* without"):
        GaitDataset(tmp_path, modalities="parsing")


def test_modalities_in_folders_of_a_walk(tmp_path):
    write_images(tmp_path / "ann" / "monday" / "silhouettes", raw_walk())
    write_pickle(tmp_path / "ann" / "monday" / "poses.pkl", np.ones((6, 17, 3), np.float32))
    found = GaitDataset(tmp_path, modalities=("silhouettes", "poses"))
    assert [said(record) for record in found.records] == [("ann", "monday", "")]
    assert found[0].sequence["poses"].shape == (6, 17, 3)
    openpose = GaitDataset(tmp_path, modalities="poses", to_format="openpose18")
    assert openpose[0].sequence.shape == (6, 18, 3)


def test_files_that_fit_equally_well_are_refused(tmp_path):
    for name in ("one.pkl", "two.pkl"):
        write_pickle(tmp_path / "001" / "nm-01" / "090" / name, raw_walk())
    with pytest.raises(ValueError, match=r"one\.pkl and two\.pkl; say which"):
        GaitDataset(tmp_path)


def test_files_of_a_person_are_walks_of_their_own(tmp_path):
    (tmp_path / "ann").mkdir()
    for name in ("monday", "tuesday"):
        np.save(tmp_path / "ann" / f"{name}.npy", raw_walk())
    np.save(tmp_path / "bob.npy", raw_walk())
    found = GaitDataset(tmp_path)
    assert [said(r)[:2] for r in found.records] == [
        ("ann", "monday"),
        ("ann", "tuesday"),
        ("bob", ""),
    ]


@pytest.mark.parametrize(
    ("layout", "split", "wanted"),
    [
        ("casiab", "train", ["001"]),
        ("casiab", "test", ["075"]),
        ("oumvlp", "train", ["00001"]),
        ("oumvlp", "test", ["00002"]),
        ("grew", "train", ["00001train"]),
        ("grew", "test", ["00001"]),
    ],
)
def test_splits_that_are_a_rule(layout, split, wanted, tmp_path):
    write_tree(tmp_path, layout)
    found = GaitDataset(tmp_path, split=split)
    assert found.identities == wanted
    if (layout, split) == ("grew", "test"):
        assert found.labels.tolist() == [0, 0, -1]


def test_the_last_person_of_oumvlp_is_tested(tmp_path):
    for person in ("10305", "10306", "10307"):
        write_images(tmp_path / "Silhouette_000-00" / person, raw_walk(frames=1))
    assert GaitDataset(tmp_path, split="test").identities == ["10306", "10307"]


def test_partition_files(tmp_path):
    write_tree(tmp_path / "data", "gait3d")
    file = tmp_path / "Gait3D.json"
    with pytest.raises(ValueError, match="expected partition=FILE"):
        GaitDataset(tmp_path / "data", split="test")
    probe = ["0001-camid9_videoid2-seq1"]
    sets = {"TRAIN_SET": ["0000"], "TEST_SET": ["0001", "0009"], "PROBE_SET": probe}
    file.write_text(json.dumps(sets))
    assert GaitDataset(tmp_path / "data", split="train", partition=file).identities == ["0000"]
    with pytest.warns(UserWarning, match="not there: 0009"):
        found = GaitDataset(tmp_path / "data", split="test", partition=file)
    assert (found.identities, found.probe) == (["0001"], frozenset(probe))
    with pytest.raises(ValueError, match='expected split="train" or "test"'):
        GaitDataset(tmp_path / "data", partition=file)
    for content, message in (
        ("{", "got: "),
        ("[]", "got list"),
        ('{"TRAIN_SET": []}', "NoneType for TEST_SET"),
        ('{"TRAIN_SET": ["1"], "TEST_SET": ["1"]}', "nobody in both sets"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            gaitzoo.read_partition(file)


@pytest.fixture
def walkers(tmp_path):
    """Three people with three walks each of 5 to 13 frames, normalised."""
    for person in range(3):
        for number in range(3):
            frames = np.full((5 + person + 3 * number, 16, 12), 255, np.uint8)
            for time, frame in enumerate(frames):  # no two frames are alike
                frame[time, :3] = 0
            write_pickle(tmp_path / f"{person:03d}" / f"nm-{number:02d}" / "090" / "a.pkl", frames)
    return tmp_path


def test_items_do_not_depend_on_workers(walkers):
    def batches(workers, epoch=2):
        dataset = GaitDataset(walkers, frames=OrderedSampler(4, skip=2), seed=5)
        sampler = PKBatchSampler(dataset.labels, 2, 4, num_batches=3, seed=1)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            dataset, batch_sampler=sampler, collate_fn=dataset.collate, num_workers=workers
        )
        return list(loader)

    alone, shared = batches(0), batches(2)
    for one, two in zip(alone, shared, strict=True):
        assert one.sequences.shape == (8, 4, 16, 12)
        assert torch.equal(one.sequences, two.sequences)
        assert torch.equal(one.labels, two.labels)
        assert one.records == two.records
        # A person with three walks gives four: one of them twice, and with other frames.
        assert one.labels.bincount().sort().values[-2:].tolist() == [4, 4]
    assert not torch.equal(batches(0, epoch=3)[0].sequences, alone[0].sequences)
    repeated = [
        batch.sequences[[record.name == name for record in batch.records]]
        for batch in alone
        for name in {record.name for record in batch.records}
    ]
    twice = [clips for clips in repeated if len(clips) > 1]
    assert twice
    assert any(not torch.equal(clips[0], clips[1]) for clips in twice)


def test_processes_share_a_batch_without_sharing_people():
    labels = [person for person in range(8) for _ in range(5)] + [-1]
    whole = PKBatchSampler(labels, 4, 3, seed=9, world_size=1)
    parts = [PKBatchSampler(labels, 4, 3, seed=9, rank=r, world_size=2) for r in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == sorted(shares[0] + shares[1])
        people = [{labels[place] for place in share} for share in shares]
        assert not people[0] & people[1]
        assert len(set(batch)) == 12
        assert all([labels[p] for p in batch].count(x) == 3 for x in people[0] | people[1])
    assert len({tuple(batch) for batch in whole}) == len(whole) == 3
    for options, message in (
        ({"people": 9}, "9 people or more, got 8"),
        ({"people": 3, "world_size": 2, "rank": 0}, "multiple of the 2 processes"),
        ({"rank": 2, "world_size": 2}, "rank 0 to 1"),
        ({"walks": 0}, "walks as a whole number"),
        ({"num_batches": 0}, "num_batches of 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            PKBatchSampler(labels, **options)
    for bad in (["ann", "bob"], [0, "bob"], [0.5, 1.0]):
        with pytest.raises(TypeError, match="expected labels as"):
            PKBatchSampler(bad, 1, 1)


def test_data_sets_can_be_sent_to_processes(walkers):
    dataset = GaitDataset(walkers, frames=OrderedSampler(4))
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3].sequence, dataset[3].sequence)
    assert len(pickle.dumps(dataset)) < 6000
    with pytest.raises(IndexError, match="0 to 8"):
        dataset[9]
    assert dataset.record(-1) == dataset.record(8)


def test_padded_batches_and_transforms(walkers):
    dataset = GaitDataset(walkers, transform=lambda frames: frames.float() / 255)
    batch = dataset.collate([dataset[0], dataset[8]])
    assert batch.lengths.tolist() == [5, 13]
    assert batch.sequences.shape == (2, 13, 16, 12)
    assert batch.sequences.max() == 1
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [len(sequence) for sequence in dataset.sequences()] == [5, 8, 11, 6, 9, 12, 7, 10, 13]
    assert (dataset.types[:2], set(dataset.views)) == (["nm-00", "nm-01"], {"090"})


def test_errors_of_a_transform_name_the_file(walkers):
    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    write_pickle(walkers / "000" / "nm-00" / "090" / "a.pkl", np.zeros((5, 16, 12), np.uint8))
    dataset = GaitDataset(walkers, transform=gaitzoo.create_transform(model))
    with pytest.raises(ValueError, match=r"nm-00.090.a\.pkl: expected at least one frame"):
        dataset[0]


def test_links_that_lead_back_up_end(tmp_path):
    write_tree(tmp_path, "casiab")
    (tmp_path / "001" / "nm-01" / "again").symlink_to(tmp_path, target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(GaitDataset(tmp_path, "casiab")) == 2
