"""Identification against a reference written as loops, and what it refuses."""

import pytest
import torch

import gaitzoo
from gaitzoo.inference.identify import identify

LABELS = ["ann", "bob", "ann", "eve", "bob"]


@pytest.fixture
def model():
    return gaitzoo.create_model("dygait_tiny", num_classes=0).eval()


@pytest.fixture
def clips():
    return [torch.rand(frames, 16, 12) for frames in (5, 9, 7, 3, 4, 8, 6, 5)]


def find(model, clips, probe_labels=None, **options):
    return identify(model, clips[:5], clips[5:], LABELS, probe_labels, progress=False, **options)


def reference(model, clips, exclude, top):
    """Matches of every probe, one sequence and one part at a time."""
    with torch.inference_mode():
        embeddings = [model(clip[None]).embeddings[0].double() for clip in clips]
    matches = []
    for q, probe in enumerate(embeddings[5:]):
        distances = [
            (sum(float((x - y).norm()) for x, y in zip(probe, known, strict=True)) / len(probe), g)
            for g, known in enumerate(embeddings[:5])
            if not exclude[q, g]
        ]
        matches.append(sorted(distances)[:top])
    return matches


@pytest.mark.parametrize("top", [1, 3, 9])
@pytest.mark.parametrize("excluding", [False, True])
def test_equals_loops(model, clips, top, excluding):
    exclude = torch.rand(3, 5) < (0.4 if excluding else 0)
    found = find(model, clips, top=top, exclude=exclude if excluding else None)
    for matches, wanted in zip(found.matches, reference(model, clips, exclude, top), strict=True):
        assert [match.index for match in matches] == [index for _, index in wanted]
        assert [match.label for match in matches] == [LABELS[index] for _, index in wanted]
        torch.testing.assert_close(
            torch.tensor([match.distance for match in matches]),
            torch.tensor([distance for distance, _ in wanted]),
            rtol=1e-4,
            atol=1e-6,
        )


def test_rank1_counts_known_probes_only(model, clips):
    nearest = [matches[0].label for matches in find(model, clips, top=1).matches]
    others = {"ann": "bob", "bob": "eve", "eve": "ann"}
    found = find(model, clips, [nearest[0], others[nearest[1]], "nobody"])
    assert found.known == (True, True, False)
    assert found.rank1 == 0.5
    assert find(model, clips, ["x", "y", "z"]).rank1 is None
    assert find(model, clips).known == (False, False, False)


def test_a_person_whose_pairs_are_all_excluded_is_unknown(model, clips):
    exclude = torch.zeros(3, 5, dtype=torch.bool)
    exclude[0, 3] = True
    found = find(model, clips, ["eve", "eve", "eve"], exclude=exclude)
    assert found.known == (False, True, True)


def test_takes_generators_and_numbers(model, clips):
    found = identify(
        model, iter(clips[:5]), iter(clips[5:]), [3, 1, 3, 2, 1], [3, 1, 2], progress=False
    )
    torch.testing.assert_close(found.distances, find(model, clips).distances)
    assert all(isinstance(match.label, int) for matches in found.matches for match in matches)


def test_distance_is_the_one_that_the_cfg_names(model, clips):
    from dataclasses import replace

    euclidean = find(model, clips).distances
    model.pretrained_cfg = replace(model.pretrained_cfg, distance="cosine")
    embeddings = gaitzoo.embed(model, clips, progress=False)
    wanted = gaitzoo.metrics.part_distances(embeddings[5:], embeddings[:5], metric="cosine")
    torch.testing.assert_close(find(model, clips).distances, wanted)
    assert not torch.allclose(euclidean, wanted)


@pytest.mark.parametrize("lazy", [False, True])
def test_refuses_another_count_of_labels(model, clips, lazy):
    sides = (iter(clips[:4]), iter(clips[5:])) if lazy else (clips[:4], clips[5:])
    with pytest.raises(ValueError, match="one label per gallery sequence, got 5 labels for 4"):
        identify(model, *sides, LABELS, progress=False)
    with pytest.raises(ValueError, match="one label per probe sequence, got 1 labels for 3"):
        find(model, clips, ["ann"])


def test_refuses_bad_options(model, clips):
    with pytest.raises(ValueError, match="top of 1 or more, got 0"):
        find(model, clips, top=0)
    with pytest.raises(TypeError, match="of one kind, got int and str"):
        find(model, clips, [1, 2, 3])
    with pytest.raises(ValueError, match="exclude of the shape"):
        find(model, clips, exclude=torch.zeros(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one sequence"):
        identify(model, [], clips, [], progress=False)
