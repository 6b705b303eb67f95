"""Galleries in files, searches, and the answer "nobody"."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gaitzoo
import gaitzoo.inference.search as search
from gaitzoo.hub.provenance import weights_hash
from gaitzoo.metrics import part_distances


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return gaitzoo.create_model("dygait_tiny", num_classes=0)


@pytest.fixture
def gallery(model):
    gallery = gaitzoo.Gallery(model)
    gallery.add(["bob", "ann", "bob"], randn(3, 6, 4), model)
    return gallery


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("sizes", [(2, 3), (1024, 4096)])
def test_nearest_equals_a_sort_of_all_distances(metric, sizes, monkeypatch):
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", sizes[0])
    monkeypatch.setattr(search, "_COLUMNS_AT_ONCE", sizes[1])
    query, everybody = randn(5, 3, 4), randn(11, 3, 4, seed=1)
    everybody[7] = everybody[2]  # equal distances keep their order
    expected = part_distances(query, everybody, metric=metric).sort(dim=1, stable=True)
    distances, places = gaitzoo.nearest(query, everybody, 6, metric=metric)
    assert torch.equal(places, expected.indices[:, :6])
    torch.testing.assert_close(distances, expected.values[:, :6])


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_faiss_finds_the_same():
    pytest.importorskip("faiss")
    query, everybody = randn(5, 3, 4), randn(50, 3, 4, seed=1)
    expected = gaitzoo.nearest(query, everybody, 6, metric="cosine")
    found = gaitzoo.nearest(query, everybody, 6, metric="cosine", engine="faiss")
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match='"cosine" for faiss'):
        gaitzoo.nearest(query, everybody, 6, engine="faiss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 4}, "at most 3"),
        ({"top": 0}, "1 or more"),
        ({"metric": "l2"}, "l2"),
        ({"engine": "scann"}, "scann"),
    ],
)
def test_bad_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gaitzoo.nearest(randn(2, 1, 3), randn(3, 1, 3), **{"top": 1, **options})


def test_gallery_through_a_file(gallery, model, tmp_path):
    path = tmp_path / "known.safetensors"
    gallery.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["weights_sha256"] == weights_hash(model)
    assert json.loads(metadata["names"]) == ["bob", "ann", "bob"]
    loaded = gaitzoo.Gallery.load(path)
    assert (loaded.names, loaded.people) == (("bob", "ann", "bob"), ("ann", "bob"))
    assert torch.equal(loaded.embeddings, gallery.embeddings)
    assert loaded.model_name == gallery.model_name
    probe = randn(2, 6, 4, seed=3)
    assert loaded.search(probe, model) == gallery.search(probe, model)
    loaded.add(["eve"], randn(1, 6, 4, seed=4), loaded.weights_sha256)
    assert len(loaded) == 4
    assert "4 sequences of 3 people" in repr(loaded)


def test_search_and_threshold(gallery, model):
    probe = gallery.embeddings[1:2] + 0.01
    far = probe + 100
    found = gallery.search(torch.cat([probe, far]), model, top=9)
    assert found[0][0].label == "ann"
    assert len(found[0]) == 3
    distances = part_distances(probe, gallery.embeddings)[0]
    assert found[0][0].distance == pytest.approx(float(distances[1]))
    limited = gallery.search(torch.cat([probe, far]), model, threshold=0.5)
    assert [match.label for match in limited[0]] == ["ann"]
    assert limited[1] == ()


def test_people_can_be_removed(gallery):
    assert gallery.remove("bob") == 2
    assert gallery.names == ("ann",)
    with pytest.raises(KeyError, match="bob"):
        gallery.remove("bob")
    gallery.remove("ann")
    assert len(gallery) == 0
    with pytest.raises(ValueError, match="somebody in it"):
        gallery.save("nowhere.safetensors")


def test_embeddings_of_another_model_are_refused(gallery, model):
    torch.manual_seed(1)
    other = gaitzoo.create_model("dygait_tiny", num_classes=0)
    for refuse in (
        lambda: gallery.add(["eve"], randn(1, 6, 4), other),
        lambda: gallery.search(randn(1, 6, 4), other),
        lambda: gallery.search(randn(1, 6, 4), "0" * 64),
    ):
        with pytest.raises(ValueError, match="those of other weights"):
            refuse()
    with pytest.raises(ValueError, match=r"expected embeddings \[3, 6, 4\]"):
        gallery.search(randn(1, 5, 4), model)
    with pytest.raises(ValueError, match="expected 1 names, got 2"):
        gallery.add(["a", "b"], randn(1, 6, 4), model)
    with pytest.raises(TypeError, match="list of text"):
        gallery.add("a", randn(1, 6, 4), model)
    assert len(gallery) == 3


def test_other_files_are_refused(gallery, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        gaitzoo.Gallery.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        gaitzoo.Gallery.load(path)
    save_file({"embeddings": randn(1, 2, 3)}, path)
    with pytest.raises(ValueError, match=r"Gallery\.save"):
        gaitzoo.Gallery.load(path)
    gallery.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for changes in ({"names": "[]"}, {"names": "["}, {"names": "3"}):
        save_file({"embeddings": randn(1, 2, 3)}, path, {**metadata, **changes})
        with pytest.raises(ValueError, match=r"names|damaged"):
            gaitzoo.Gallery.load(path)


def test_identify_answers_nobody(model):
    clips = [torch.rand(6, 16, 12, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    sides = model, clips[:2], [clips[0], clips[2]], ["ann", "bob"]
    found = gaitzoo.identify(*sides, progress=False)
    assert found.people[0] == "ann"
    assert found.people[1] in ("ann", "bob")
    nearest = found.matches[1][0].distance
    strict = gaitzoo.identify(*sides, threshold=nearest / 2, progress=False)
    assert strict.people == ("ann", None)
    assert [len(matches) for matches in strict.matches] == [1, 0]
    for threshold in (float("nan"), "0.5", True):
        with pytest.raises(ValueError, match="threshold as a finite distance"):
            gaitzoo.identify(*sides, threshold=threshold, progress=False)
