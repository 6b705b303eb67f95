"""Distances and scores against published numbers, loop-written references and scikit-learn."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import fill
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch import Tensor

import gaitzoo.data.ranking
from gaitzoo import metrics

GOLDEN = Path(__file__).parent / "golden"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "metrics.json").read_text())["cases"]}
TENSORS = load_file(GOLDEN / "metrics.safetensors")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
METRIC = {"euc": "euclidean", "cos": "cosine"}


def features(labels: list, key: str, noise: float, channels: int = 16, parts: int = 4) -> Tensor:
    return fill.labelled_features(labels, channels, parts, key, noise=noise).transpose(1, 2)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive_distances(query: Tensor, gallery: Tensor, metric: str) -> Tensor:
    rows = []
    for q in query.double():
        row = []
        for g in gallery.double():
            terms = []
            for x, y in zip(q, g, strict=True):
                if metric == "euclidean":
                    terms.append(math.sqrt(float(((x - y) ** 2).sum())))
                else:
                    terms.append(1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)))
            row.append(sum(terms) / len(terms))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def naive_scores(distances, query_labels, gallery_labels, exclude=None) -> dict[str, Any]:
    """Rank of every match of every query by one plain sort per query."""
    ranks_of_queries = []
    for i, label in enumerate(query_labels):
        allowed = [j for j in range(len(gallery_labels)) if exclude is None or not exclude[i][j]]
        order = sorted(allowed, key=lambda j: float(distances[i][j]))
        ranks = [r for r, j in enumerate(order, 1) if gallery_labels[j] == label]
        if ranks:
            ranks_of_queries.append(ranks)
    num = len(ranks_of_queries)
    precisions = [
        sum(hits / rank for hits, rank in enumerate(ranks, 1)) / len(ranks)
        for ranks in ranks_of_queries
    ]
    return {
        "cmc": [sum(ranks[0] <= k for ranks in ranks_of_queries) / num for k in range(1, 21)],
        "mAP": sum(precisions) / num,
        "mINP": sum(len(ranks) / ranks[-1] for ranks in ranks_of_queries) / num,
    }


# Distances


@pytest.mark.parametrize("name", ["euc", "cos"])
def test_part_distances_equal_published_numbers(name: str) -> None:
    query = features([i % 5 for i in range(9)], f"dist_{name}/x", 1.0, 32, 16)
    gallery = features([i % 5 for i in range(14)], f"dist_{name}/y", 1.0, 32, 16)
    distances = metrics.part_distances(query, gallery, metric=METRIC[name])
    torch.testing.assert_close(distances, TENSORS[f"dist_{name}/distance"], **TOLERANCE)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_size", [1, 2, 3, 100])
def test_part_distances_equal_loops_in_any_blocks(metric: str, block_size: int) -> None:
    query, gallery = randn(5, 3, 4, seed=1), randn(7, 3, 4, seed=2)
    expected = naive_distances(query, gallery, metric)
    found = metrics.part_distances(query, gallery, metric=metric, block_size=block_size)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-7)
    found = metrics.part_distances(
        query.double(), gallery.double(), metric=metric, block_size=block_size
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("offset", "spread"), [(0.0, 1e-3), (0.0, 1.0), (10.0, 1e-3), (1000.0, 1.0)]
)
def test_distances_of_close_vectors_keep_their_digits(offset: float, spread: float) -> None:
    """A float32 expanded square is off by 100 % and more in the hardest of these."""
    gallery = offset + spread * randn(6, 2, 256, seed=3)
    expected = naive_distances(gallery, gallery, "euclidean").float()
    found = metrics.part_distances(gallery, gallery)
    apart = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(found[apart], expected[apart], rtol=1e-5, atol=0)
    # Equal vectors: 0 up to the rounding of float64 squares.
    assert found.diagonal().max() <= 1e-7 * gallery.norm(dim=2).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_half_precision_is_computed_in_full(dtype: torch.dtype, metric: str) -> None:
    query, gallery = randn(4, 3, 64, seed=4).to(dtype), randn(5, 3, 64, seed=5).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = metrics.part_distances(query, gallery, metric=metric)
    assert found.dtype == torch.float32
    expected = metrics.part_distances(query.float(), gallery.float(), metric=metric)
    assert torch.equal(found, expected)


@pytest.mark.numeric
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("shift", [0, 10])
@pytest.mark.parametrize(
    ("parts", "channels"), [(2, 1), (2, 3), (2, 33), (16, 256), (62, 256), (1, 16384)]
)
def test_equal_vectors_have_no_distance_wherever_they_stand(metric, shift, parts, channels) -> None:
    gallery = torch.randn(31, parts, channels) + shift
    gallery[4::5] = gallery[0]
    equal = (gallery == gallery[0]).all(2).all(1)
    for block_size in (1, 7, 64):
        distances = metrics.part_distances(gallery, gallery, metric=metric, block_size=block_size)
        assert bool((distances.diagonal() == 0).all())
        assert bool((distances[equal][:, equal] == 0).all())
        if metric == "euclidean" or channels > 1:  # numbers of one sign have a cosine of 1
            assert bool((distances[equal][:, ~equal] > 1e-6).all())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_part_distances_have_gradients(metric: str) -> None:
    query = randn(3, 2, 4, seed=6, dtype=torch.float64).requires_grad_()
    gallery = randn(4, 2, 4, seed=7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, g: metrics.part_distances(q, g, metric=metric, block_size=2), (query, gallery)
    )


def test_cosine_of_zeros_is_one_and_of_equal_parts_zero() -> None:
    query = torch.stack([torch.zeros(2, 4), torch.ones(2, 4)])
    distances = metrics.part_distances(query, 3 * query, metric="cosine")
    torch.testing.assert_close(distances, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("query", "gallery", "options", "error", "message"),
    [
        (randn(2, 4), randn(3, 2, 4), {}, ValueError, r"query.*\[2, 4\].*x\[:, None\]"),
        (randn(2, 2, 4), randn(0, 2, 4), {}, ValueError, r"gallery.*none of them 0.*\[0, 2, 4\]"),
        (randn(2, 2, 4), randn(3, 3, 4), {}, ValueError, r"same parts.*\[2, 2, 4\].*\[3, 3, 4\]"),
        (randn(2, 2, 4).int(), randn(3, 2, 4), {}, TypeError, "query.*int32.*embeddings"),
        (randn(2, 2, 4), [1.0], {}, TypeError, "gallery.*list"),
        (randn(2, 2, 4) / 0, randn(3, 2, 4), {}, ValueError, "finite query.*NaN or infinite"),
        (randn(2, 2, 4), randn(3, 2, 4) * torch.nan, {}, ValueError, "finite gallery.*NaN"),
        (randn(2, 2, 4), randn(3, 2, 4).to("meta"), {}, ValueError, "one device, got cpu and meta"),
        (randn(2, 2, 4), randn(3, 2, 4), {"metric": "l2"}, ValueError, "\"cosine\", got 'l2'"),
        (randn(2, 2, 4), randn(3, 2, 4), {"block_size": 0}, ValueError, "1 or more, got 0"),
    ],
)
def test_bad_embeddings_are_refused(query, gallery, options, error, message) -> None:
    with pytest.raises(error, match=message):
        metrics.part_distances(query, gallery, **options)


# Published protocols


def casia_b(case: dict[str, Any], noise: float) -> tuple[Tensor, list[str], list[str], list[str]]:
    rows = [
        (f"{identity:03d}", sequence, view)
        for identity in range(75, 75 + case["ids"])
        for sequence in case["sequences"]
        for view in case["views"]
    ]
    labels, sequences, views = (list(column) for column in zip(*rows, strict=True))
    return features(labels, case["id"], noise), labels, sequences, views


@pytest.mark.parametrize(("case_id", "noise"), [("casiab_euc", 2.0), ("casiab_cos", 2.2)])
@pytest.mark.parametrize("condition", ["NM", "BG", "CL"])
def test_casia_b_equals_published_tables(case_id: str, noise: float, condition: str) -> None:
    case = CASES[case_id]
    embeddings, labels, sequences, views = casia_b(case, noise)
    gallery = [i for i, s in enumerate(sequences) if s in ("nm-01", "nm-02", "nm-03", "nm-04")]
    probes = {"NM": ("nm-05", "nm-06"), "BG": ("bg-01", "bg-02"), "CL": ("cl-01", "cl-02")}
    query = [i for i, sequence in enumerate(sequences) if sequence in probes[condition]]
    table = metrics.cross_view_rank1(
        metrics.part_distances(
            embeddings[query], embeddings[gallery], metric=METRIC[case["metric"]]
        ),
        [labels[i] for i in query],
        [labels[i] for i in gallery],
        [views[i] for i in query],
        [views[i] for i in gallery],
    )
    assert table.query_views == table.gallery_views == tuple(case["views"])
    published = case["rank1_probe_view_by_gallery_view"][condition]
    percent = (table.rank1 * 100).round(decimals=2)
    assert percent.tolist() == published
    # Published means are means of rounded cells, ours are not rounded anywhere.
    assert 100 * table.mean() == pytest.approx(case["result"][f"{condition}@R1"], abs=0.005)
    rounded = metrics.CrossViewRank1(percent, table.query_views, table.gallery_views)
    assert rounded.mean() == pytest.approx(case["result"][f"{condition}@R1"], abs=1e-9)


@pytest.mark.parametrize("name", ["euc", "cos"])
def test_gait3d_equals_published_scores(name: str) -> None:
    case = CASES[f"gait3d_{name}"]
    is_probe = torch.tensor(case["is_probe"], dtype=torch.bool)
    embeddings = features(case["labels"], case["id"], 1.9)
    labels = np.array(case["labels"])
    distances = metrics.part_distances(
        embeddings[is_probe], embeddings[~is_probe], metric=METRIC[name]
    )
    sides = labels[is_probe.numpy()], labels[~is_probe.numpy()]
    scores = metrics.retrieval_scores(distances, *sides)
    published = {key.replace("Rank-", "rank"): value / 100 for key, value in case["result"].items()}
    assert scores == pytest.approx(published, rel=1e-6)
    assert metrics.rank_k(distances, *sides, k=(1, 5, 10)) == pytest.approx(
        [published["rank1"], published["rank5"], published["rank10"]], rel=1e-6
    )
    assert metrics.mean_average_precision(distances, *sides) == scores["mAP"]
    assert metrics.mean_inp(distances, *sides) == scores["mINP"]


def test_grew_equals_published_scores() -> None:
    labels = [f"{i:05d}" for i in range(30) for _ in range(3)]
    embeddings = features(labels, "grew_euc", 1.8)
    distances = metrics.part_distances(embeddings[[i for i in range(90) if i % 3]], embeddings[::3])
    scores = metrics.rank_k(
        distances, [label for i, label in enumerate(labels) if i % 3], labels[::3], k=(1, 5)
    )
    published = CASES["grew_euc"]["result"]
    assert scores == pytest.approx([published["Rank-1"] / 100, published["Rank-5"] / 100])


def test_screening_equals_published_scores() -> None:
    names = ["negative", "neutral", "positive"]
    labels = [i * i % 3 for i in range(CASES["scoliosis"]["n"])]
    logits = features([names[label] for label in labels], "scoliosis", 1.6, 3, 16)
    scores = metrics.screening_scores(logits, labels)
    published = CASES["scoliosis"]["result"]
    assert scores == pytest.approx({k: published[f"test_{k}"] for k in scores}, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1, 3], ValueError, "0..2, got 0 to 3"),
        ([0, 1], ValueError, "one per row"),
        ([0.0, 1.0, 2.0], TypeError, "whole numbers"),
    ],
)
def test_bad_classes_are_refused(labels, error, message) -> None:
    with pytest.raises(error, match=message):
        metrics.screening_scores(torch.rand(3, 2, 3), labels)


def test_oumvlp_probes_without_gallery_are_misses_or_left_out() -> None:
    """Four probes, two of people without gallery: OpenGait's code says 0.5, many papers 1.0."""
    distances = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.3, 0.4], [0.4, 0.3]])
    sides = distances, ["a", "b", "c", "d"], ["a", "b"], ["000"] * 4, ["090"] * 2
    assert metrics.cross_view_rank1(*sides).mean() == 1.0
    assert metrics.cross_view_rank1(*sides, unmatched="miss").mean() == 0.5
    with pytest.raises(ValueError, match="unmatched"):
        metrics.cross_view_rank1(*sides, unmatched="count")


def test_rerank_equals_published_numbers() -> None:
    case = CASES["rerank_6_6"]
    num_query, num_gallery = case["queries"], case["gallery"]
    people = [i % 7 for i in range(num_query)] + [i % 7 for i in range(num_gallery)]
    embeddings = features(people, "rerank_6_6", 1.5)
    distances = metrics.part_distances(embeddings, embeddings)
    found = metrics.rerank(
        distances[:num_query, :num_query],
        distances[:num_query, num_query:],
        distances[num_query:, num_query:],
        k1=case["k1"],
        k2=case["k2"],
        original_weight=case["lambda_value"],
    )
    torch.testing.assert_close(
        distances[:num_query, num_query:], TENSORS["rerank_6_6/original"], **TOLERANCE
    )
    # The published code rounds its vectors to float16.
    torch.testing.assert_close(found, TENSORS["rerank_6_6/final"], rtol=0, atol=2e-3)
    assert found.argmin(1).tolist() == case["result"]["nearest"]


def test_rerank_of_equal_sequences_is_finite() -> None:
    distances = torch.zeros(6, 6)
    found = metrics.rerank(distances[:2, :2], distances[:2, 2:], distances[2:, 2:], k1=3, k2=1)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 2), (3, 4), (4, 4)), {}, r"query_query \[3, 3\].*got \[2, 2\]"),
        (((3, 3), (3, 4), (3, 4)), {}, r"gallery_gallery \[4, 4\].*got \[3, 4\]"),
        (((3, 3), (3, 4), (4, 4)), {"k1": 7}, r"1\.\.6.*k1=7"),
        (((3, 3), (3, 4), (4, 4)), {"k1": 3, "k2": 0}, "expected k2 as a whole number"),
        (((3, 3), (3, 4), (4, 4)), {"k1": 3, "original_weight": 2}, "original_weight=2"),
    ],
)
def test_bad_reranking_is_refused(shapes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.rerank(*(torch.rand(shape) for shape in shapes), **options)


# Scores


def random_problem(seed: int, with_ties: bool) -> tuple[Tensor, list[int], list[int], Tensor]:
    generator = np.random.default_rng(seed)
    distances = generator.random((15, 40))
    if with_ties:
        distances = np.round(distances, 1)
    query_labels = generator.integers(0, 8, 15).tolist()  # 6 and 7 are not in the gallery
    gallery_labels = generator.integers(0, 6, 40).tolist()
    exclude = generator.random((15, 40)) < 0.3
    return torch.from_numpy(distances), query_labels, gallery_labels, torch.from_numpy(exclude)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("with_exclude", [False, True])
@pytest.mark.parametrize("rows_at_once", [4, 1024])
def test_scores_equal_loops(seed, with_ties, with_exclude, rows_at_once, monkeypatch) -> None:
    monkeypatch.setattr(gaitzoo.data.ranking, "_ROWS_SORTED_AT_ONCE", rows_at_once)
    distances, query_labels, gallery_labels, exclude = random_problem(seed, with_ties)
    mask = exclude if with_exclude else None
    expected = naive_scores(distances, query_labels, gallery_labels, mask)
    sides = distances, query_labels, gallery_labels
    curve = metrics.cmc(*sides, max_rank=20, exclude=mask)
    assert curve.tolist() == pytest.approx(expected["cmc"], rel=1e-12)
    assert metrics.rank_k(*sides, exclude=mask) == curve[0]
    assert metrics.rank_k(*sides, k=(7, 2), exclude=mask) == (curve[6], curve[1])
    assert metrics.mean_average_precision(*sides, exclude=mask) == pytest.approx(expected["mAP"])
    assert metrics.mean_inp(*sides, exclude=mask) == pytest.approx(expected["mINP"], rel=1e-12)
    scores = metrics.retrieval_scores(*sides, ranks=(3,), exclude=mask)
    assert scores == pytest.approx(
        {"rank3": expected["cmc"][2], "mAP": expected["mAP"], "mINP": expected["mINP"]}
    )


def test_mean_average_precision_equals_scikit_learn() -> None:
    distances, query_labels, gallery_labels, _ = random_problem(5, with_ties=False)
    gallery = np.array(gallery_labels)
    expected = [
        average_precision_score(gallery == label, -row)
        for label, row in zip(query_labels, distances.numpy(), strict=True)
        if label in gallery_labels
    ]
    found = metrics.mean_average_precision(distances, query_labels, gallery_labels)
    assert found == pytest.approx(np.mean(expected), rel=1e-9)


def test_inverse_negative_penalty_counts_every_query_once() -> None:
    """Matches at ranks 1 and 4, and 1 and 2: (2/4 + 2/2) / 2, not diluted by 1/4 and 1/2."""
    distances = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 4.0, 2.0]])
    assert metrics.mean_inp(distances, ["a", "a"], ["a", "b", "b", "a"]) == 0.75


def test_equal_distances_keep_gallery_order() -> None:
    distances = torch.zeros(2, 300)
    gallery_labels = [0] * 100 + [1] * 200
    assert metrics.cmc(distances, [1, 1], gallery_labels, max_rank=102).tolist() == [
        *[0.0] * 100, 1.0, 1.0,
    ]  # fmt: skip
    table = metrics.cross_view_rank1(distances, [0, 1], gallery_labels, [0, 0], [9] * 300)
    assert table.rank1.tolist() == [[0.5]]


def test_curve_reaches_one_at_the_size_of_the_gallery() -> None:
    curve = metrics.cmc(torch.rand(3, 4), [0, 1, 1], [1, 0, 1, 0], max_rank=6)
    assert curve[3:].tolist() == [1.0, 1.0, 1.0]
    assert metrics.rank_k(torch.rand(3, 4), [0, 1, 1], [1, 0, 1, 0], k=50) == 1.0


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        np.array,
        tuple,
        lambda labels: [str(label) for label in labels],
        lambda labels: np.array([f"id-{label}" for label in labels]),
        lambda labels: torch.tensor(labels, dtype=torch.int32),
    ],
)
def test_labels_of_every_kind_give_the_same(convert) -> None:
    distances, query_labels, gallery_labels, _ = random_problem(6, with_ties=False)
    expected = metrics.retrieval_scores(distances, query_labels, gallery_labels)
    found = metrics.retrieval_scores(distances, convert(query_labels), convert(gallery_labels))
    assert found == expected


def test_excluded_pairs_take_no_part() -> None:
    """The same camera holds the nearest sequences; without it the other person comes first."""
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    mask = metrics.same_view_mask(["cam1"], ["cam1", "cam2", "cam2", "cam1"])
    assert mask.tolist() == [[True, False, False, True]]
    sides = distances, ["a"], ["a", "b", "a", "a"]
    assert metrics.rank_k(*sides) == 1.0
    assert metrics.rank_k(*sides, k=(1, 2), exclude=mask) == (0.0, 1.0)
    assert metrics.mean_inp(*sides, exclude=mask) == 0.5


def test_cross_view_table_with_different_views_and_empty_cells() -> None:
    query_labels, query_views = ["a", "b", "a"], [90, 90, 0]
    gallery_labels, gallery_views = ["b", "a", "b", "a"], [90, 90, 18, 0]
    distances = torch.tensor([
        [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1],
    ])  # fmt: skip
    table = metrics.cross_view_rank1(
        distances, query_labels, gallery_labels, query_views, gallery_views
    )
    assert (table.query_views, table.gallery_views) == ((0, 90), (0, 18, 90))
    # Query "a" at 0 finds no "a" at 18; query "b" at 90 no "b" at 0.
    expected = torch.tensor([[1.0, torch.nan, 1.0], [1.0, 1.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(table.rank1, expected, equal_nan=True)
    assert table.per_query_view().tolist() == [1.0, 1.0]
    assert table.mean() == 1.0


GOOD = {"distances": torch.rand(2, 3), "query_labels": [0, 1], "gallery_labels": [0, 1, 2]}
MASK = torch.zeros(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"distances": torch.rand(2, 3, 1)}, ValueError, r"a matrix.*\[2, 3, 1\].*part_distances"),
        ({"distances": torch.rand(0, 3)}, ValueError, r"at least one row.*\[0, 3\]"),
        ({"distances": torch.ones(2, 3).long()}, TypeError, "floating-point.*int64"),
        ({"distances": [[1.0]]}, TypeError, "floating-point.*list"),
        ({"distances": torch.rand(2, 3) / 0}, ValueError, "finite distances.*exclude="),
        ({"distances": torch.rand(2, 3) * torch.nan}, ValueError, "finite distances.*NaN"),
        ({"query_labels": [0, 1, 2]}, ValueError, "2 query and 3 gallery labels.*got 3 and 3"),
        ({"gallery_labels": torch.zeros(3, 1).long()}, ValueError, r"one axis, got \[3, 1\]"),
        ({"gallery_labels": torch.zeros(3)}, TypeError, "gallery labels as integers.*float"),
        ({"gallery_labels": [True] * 3}, TypeError, "gallery labels as integers.*bool"),
        ({"gallery_labels": ["0", 1, 2]}, TypeError, "gallery labels as integers.*int, str"),
        ({"query_labels": "ab"}, TypeError, r"query labels.*str \(empty\)"),
        ({"query_labels": ["0", "1"]}, TypeError, "of one kind, got str and int; convert"),
        ({"exclude": MASK.float()}, TypeError, "bool tensor, got torch.float32"),
        ({"exclude": MASK.T}, ValueError, r"distances \[2, 3\], got \[3, 2\]"),
        ({"exclude": ~MASK}, ValueError, "with a match in the gallery, got none"),
        ({"query_labels": [7, 8]}, ValueError, "with a match in the gallery, got none; check"),
    ],
)
@pytest.mark.parametrize(
    "score", [metrics.rank_k, metrics.mean_average_precision, metrics.mean_inp]
)
def test_bad_rankings_are_refused(score, changes: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        score(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: metrics.cmc(**GOOD, max_rank=0), "max_rank as a whole number of 1 or more, got 0"),
        (lambda: metrics.rank_k(**GOOD, k=0), "or several of them, got 0"),
        (lambda: metrics.rank_k(**GOOD, k=()), "or several of them, got ()"),
        (lambda: metrics.retrieval_scores(**GOOD, ranks=(1, 0)), "or several of them, got (1, 0)"),
        (
            lambda: metrics.cross_view_rank1(**GOOD, query_views=[0], gallery_views=[0, 0, 0]),
            "expected 2 query and 3 gallery views for distances [2, 3], got 1 and 3",
        ),
        (
            lambda: metrics.cross_view_rank1(torch.rand(1, 1), ["a"], ["b"], [0], [90]),
            "expected at least one query with a match in the gallery, got none",
        ),
    ],
)
def test_bad_options_are_refused(compute, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        compute()


def test_several_ranks_may_come_as_a_list():
    distances = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4]])
    assert metrics.rank_k(distances, [0, 2], [0, 1, 2], k=[1, 3]) == (0.5, 1.0)
    for k in (1.5, 0, [], True, "1"):
        with pytest.raises(ValueError, match="expected k as a whole number"):
            metrics.rank_k(distances, [0, 2], [0, 1, 2], k=k)
    with pytest.raises(ValueError, match="expected max_rank as a whole number"):
        metrics.cmc(distances, [0, 2], [0, 1, 2], max_rank=2.5)


def test_one_view_has_no_cross_view_mean():
    distances = torch.tensor([[0.1, 0.9]])
    table = metrics.cross_view_rank1(distances, [0], [0, 1], ["000"], ["000", "000"])
    with pytest.raises(ValueError, match="at least two different views"):
        table.mean()
