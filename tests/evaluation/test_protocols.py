"""Protocols against loops, published numbers and each other."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from test_metrics import CASES, METRIC, casia_b, features

import gaitzoo
import gaitzoo.evaluation.comparison as module
from gaitzoo.evaluation.protocols import PROTOCOLS
from gaitzoo.metrics import part_distances

CPU = {"device": "cpu"}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_ranks(row, label, labels, allowed):
    order = sorted(allowed, key=lambda j: float(row[j]))
    return [rank for rank, j in enumerate(order, 1) if labels[j] == label]


def naive_cross_view(distances, labels, views, query, gallery, k, unmatched, same_views=False):
    """Mean over probe views of the mean over gallery views of Rank-k."""
    means = []
    for probe_view in sorted({views[i] for i in query}):
        cells = []
        for gallery_view in sorted({views[j] for j in gallery}):
            if gallery_view == probe_view and not same_views:
                continue
            hits, count = 0, 0
            for i in query:
                if views[i] != probe_view:
                    continue
                allowed = [j for j in gallery if views[j] == gallery_view and j != i]
                ranks = naive_ranks(distances[i], labels[i], labels, allowed)
                if not ranks and unmatched == "skip":
                    continue
                count += 1
                hits += bool(ranks and ranks[0] <= k)
            if count:
                cells.append(hits / count)
        if cells:
            means.append(sum(cells) / len(cells))
    return sum(means) / len(means)


def naive_whole(distances, labels, query, gallery, ranks, removed, unmatched):
    """Rank-k, mAP and mINP of whole galleries; ``removed(i, j)`` pairs take no part."""
    lists = []
    for i in query:
        allowed = [j for j in gallery if j != i and not removed(i, j)]
        lists.append(naive_ranks(distances[i], labels[i], labels, allowed))
    known = [found for found in lists if found]
    total = len(lists) if unmatched == "miss" else len(known)
    scores = {f"rank{k}": sum(f[0] <= k for f in known) / total for k in ranks}
    precision = [sum(n / r for n, r in enumerate(f, 1)) / len(f) for f in known]
    scores["mAP"] = sum(precision) / len(known)
    scores["mINP"] = sum(len(f) / f[-1] for f in known) / len(known)
    return scores


def random_data(kinds, views, people=6, seed=0, drop=0.15):
    generator = np.random.default_rng(seed)
    rows = [
        (f"{person:03d}", kind, view)
        for person in range(people)
        for kind in kinds
        for view in views
        if generator.random() > drop
    ]
    order = generator.permutation(len(rows))
    labels, types, seen = (list(column) for column in zip(*(rows[i] for i in order), strict=True))
    who = torch.tensor([float(label) for label in labels])
    embeddings = randn(len(rows), 2, 3, seed=seed) + 0.6 * who[:, None, None]
    # Equal embeddings: ties are broken by the order of the gallery.
    embeddings[1::7] = embeddings[0]
    return embeddings, labels, types, seen


def chosen(types, wanted, contains=False):
    test = (lambda t: any(part in t for part in wanted)) if contains else (lambda t: t in wanted)
    return [i for i, each in enumerate(types) if not wanted or test(each)]


@pytest.fixture(params=[1, 300, 2**24])
def few_pairs(request, monkeypatch):
    """Blocks of one row, of several, and one block."""
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", {"cpu": request.param, "accelerator": 1})
    monkeypatch.setattr(module, "_PAIRS_RANKED_AT_ONCE", 1 if request.param < 1000 else 2**24)
    monkeypatch.setattr(module, "_COLUMNS_AT_ONCE", 5 if request.param < 1000 else 4096)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(2))
def test_casia_b_equals_loops(metric, seed, few_pairs):
    kinds = [f"nm-0{i}" for i in range(1, 7)] + ["bg-01", "bg-02", "cl-01", "cl-02", "other"]
    data = random_data(kinds, ["000", "090", "180"], seed=seed)
    embeddings, labels, types, views = data
    result = gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="casiab", metric=metric, **CPU
    )
    distances = part_distances(embeddings, embeddings, metric=metric)
    gallery = chosen(types, kinds[:4])
    for name, query in (("NM", kinds[4:6]), ("BG", kinds[6:8]), ("CL", kinds[8:10])):
        query = chosen(types, query)
        expected = naive_cross_view(distances, labels, views, query, gallery, 1, "miss")
        assert result[name].scores["rank1"] == pytest.approx(expected)
        assert result[name].cmc[0] == pytest.approx(expected)
        assert (result[name].num_query, result[name].num_gallery) == (len(query), len(gallery))
    assert result.num_unused == types.count("other")
    assert result.mean()["rank1"] == pytest.approx(
        sum(result[name].scores["rank1"] for name in ("NM", "BG", "CL")) / 3
    )


def test_oumvlp_counts_both_ways(few_pairs):
    embeddings, labels, types, views = random_data(["00", "01"], ["000", "030", "090"], drop=0.4)
    result = gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="oumvlp", **CPU
    )
    distances = part_distances(embeddings, embeddings)
    query, gallery = chosen(types, ["00"]), chosen(types, ["01"])
    found = {row.unmatched: row.scores["rank1"] for row in result.rows}
    for unmatched in ("miss", "skip"):
        expected = naive_cross_view(distances, labels, views, query, gallery, 1, unmatched)
        assert found[unmatched] == pytest.approx(expected)
    assert found["miss"] < found["skip"]
    assert "probes without gallery are misses" in str(result)


def test_sustech1k_matches_parts_of_types(few_pairs):
    kinds = ["00-nm", "01-nm", "01-bg", "01-cl-nt", "02-cr", "02-ub", "03-uf", "04-oc", "01-nt"]
    embeddings, labels, types, views = random_data(kinds, ["000", "090", "000-far"], people=4)
    result = gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="sustech1k", **CPU
    )
    distances = part_distances(embeddings, embeddings)
    gallery = chosen(types, ["00-nm"])
    for condition in PROTOCOLS["sustech1k"].conditions:
        query = chosen(types, condition.query, contains=True)
        for k in (1, 5):
            expected = naive_cross_view(distances, labels, views, query, gallery, k, "miss")
            assert result[condition.name].scores[f"rank{k}"] == pytest.approx(expected)
    assert result["Night"].num_query == sum("nt" in each for each in types)


def test_ccpg_in_three_settings(few_pairs):
    kinds = ["U0_D0_BG", "U0_D0", "U3_D3", "U1_D0", "U1_D1", "U2_D2", "U0_D3"]
    embeddings, labels, types, views = random_data(kinds, ["1_a", "1_b", "2_a", "3_a"])
    result = gaitzoo.evaluate(embeddings, labels, types=types, views=views, protocol="ccpg", **CPU)
    distances = part_distances(embeddings, embeddings)
    cameras = [view[0] for view in views]
    assert len(result.rows) == 12
    for row in result.rows:
        condition = next(c for c in PROTOCOLS["ccpg"].conditions if c.name == row.condition)
        query, gallery = chosen(types, condition.query), chosen(types, condition.gallery)
        if row.pairs == "re_id":
            expected = naive_whole(
                distances, labels, query, gallery, (1,),
                lambda i, j: labels[i] == labels[j] and cameras[i] == cameras[j], "skip",
            )  # fmt: skip
            assert row.scores == pytest.approx(expected)
        else:
            same = row.pairs == "all_views"
            expected = naive_cross_view(distances, labels, cameras, query, gallery, 1, "miss", same)
            assert row.scores == pytest.approx({"rank1": expected})
    assert result.mean("re_id")["mAP"] == pytest.approx(
        np.mean([row.scores["mAP"] for row in result.rows if row.pairs == "re_id"])
    )


def test_ccgr_compares_every_sequence_with_all_others(few_pairs):
    embeddings, labels, types, views = random_data(["nm", "bag", "box"], ["00", "10"], people=5)
    result = gaitzoo.evaluate(embeddings, labels, types=types, views=views, protocol="ccgr", **CPU)
    distances = part_distances(embeddings, embeddings)
    everything = range(len(labels))

    def alike(i, j, hard):
        return labels[i] == labels[j] and (views[i] == views[j] or (hard and types[i] == types[j]))

    for row in result.rows:
        hard = row.pairs == "re_id_types"
        expected = naive_whole(
            distances, labels, everything, everything, (1, 5),
            lambda i, j, hard=hard: alike(i, j, hard), "skip",
        )  # fmt: skip
        assert row.scores == pytest.approx(expected)


@pytest.mark.parametrize("as_names", [False, True])
def test_gait3d_equals_loops(as_names, few_pairs):
    embeddings, labels, types, views = random_data(["camid0", "camid9"], ["seq0", "seq1"])
    is_probe = (np.random.default_rng(3).random(len(labels)) < 0.3).tolist()
    names = ["-".join(row) for row in zip(labels, types, views, strict=True)]
    listed = [name for name, probe in zip(names, is_probe, strict=True) if probe]
    result = gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="gait3d",
        probes=listed if as_names else is_probe, **CPU,
    )  # fmt: skip
    distances = part_distances(embeddings, embeddings)
    query = [i for i, probe in enumerate(is_probe) if probe]
    gallery = [i for i, probe in enumerate(is_probe) if not probe]
    expected = naive_whole(
        distances, labels, query, gallery, (1, 5, 10), lambda i, j: False, "skip"
    )
    assert result["test"].scores == pytest.approx(expected)


# Published numbers


@pytest.mark.parametrize(("case_id", "noise"), [("casiab_euc", 2.0), ("casiab_cos", 2.2)])
def test_casia_b_equals_published_tables(case_id, noise):
    case = CASES[case_id]
    embeddings, labels, types, views = casia_b(case, noise)
    result = gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="casiab",
        metric=METRIC[case["metric"]], **CPU,
    )  # fmt: skip
    for name, published in case["rank1_probe_view_by_gallery_view"].items():
        table = result[name].table
        assert (table.rank1 * 100).round(decimals=2).tolist() == published
        mean = 100 * result[name].scores["rank1"]
        assert mean == pytest.approx(case["result"][f"{name}@R1"], abs=0.005)


@pytest.mark.parametrize("name", ["euc", "cos"])
def test_gait3d_equals_published_scores(name):
    case = CASES[f"gait3d_{name}"]
    result = gaitzoo.evaluate(
        features(case["labels"], case["id"], 1.9), case["labels"], protocol="gait3d",
        probes=torch.tensor(case["is_probe"], dtype=torch.bool), metric=METRIC[name], **CPU,
    )  # fmt: skip
    published = {key.replace("Rank-", "rank"): value / 100 for key, value in case["result"].items()}
    assert result["test"].scores == pytest.approx(published, rel=1e-6)


def test_grew_equals_published_scores():
    labels = [f"{i:05d}" for i in range(30) for _ in range(3)]
    embeddings = features(labels, "grew_euc", 1.8)
    result = gaitzoo.evaluate(embeddings, labels, types=["01", "02", "02"] * 30, protocol="grew")
    published = CASES["grew_euc"]["result"]
    assert result["test"].scores["rank1"] == pytest.approx(published["Rank-1"] / 100)
    assert result["test"].scores["rank5"] == pytest.approx(published["Rank-5"] / 100)


def test_reranked_equals_metrics():
    case = CASES["rerank_6_6"]
    people = [i % 7 for i in range(case["queries"])] + [i % 7 for i in range(case["gallery"])]
    embeddings = features(people, "rerank_6_6", 1.5)
    probes = [i < case["queries"] for i in range(len(people))]
    result = gaitzoo.evaluate(
        embeddings, people, protocol="gait3d", probes=probes, rerank=True, **CPU
    )
    d, n = gaitzoo.metrics.part_distances(embeddings, embeddings), case["queries"]
    distances = gaitzoo.metrics.rerank(d[:n, :n], d[:n, n:], d[n:, n:])
    expected = gaitzoo.metrics.retrieval_scores(distances, people[:n], people[n:])
    assert result["test"].scores == pytest.approx(expected)
    assert "re-ranked" in str(result)


# The submission file


@pytest.mark.parametrize("distinct", [False, True])
def test_grew_submission(tmp_path, distinct):
    people, probes = 25, 4
    labels = [f"{i:05d}" for i in range(people) for _ in range(2)] + ["test"] * probes
    types = ["01", "02"] * people + ["03"] * probes
    views = ["x"] * 2 * people + [f"video{i}" for i in range(probes)]
    embeddings = randn(len(labels), 2, 3)
    path = tmp_path / "submission.csv"
    count = gaitzoo.write_grew_submission(path, embeddings, labels, types, views, distinct=distinct)
    assert count == probes
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["videoId", *(f"rank{k}" for k in range(1, 21))]
    distances = part_distances(embeddings, embeddings)
    for number, row in enumerate(rows[1:]):
        i = 2 * people + number
        order = sorted(range(2 * people), key=lambda j: float(distances[i][j]))
        names = [int(labels[j]) for j in order]
        names = list(dict.fromkeys(names)) if distinct else names
        assert row == [f"video{number}", *map(str, names[:20])]
    with pytest.raises(ValueError, match="probes of type 03"):
        gaitzoo.write_grew_submission(path, embeddings[:20], labels[:20], types[:20], views[:20])


# Results


@pytest.fixture(scope="module")
def casia_result():
    kinds = [f"nm-0{i}" for i in range(1, 7)] + ["bg-01", "cl-01"]
    embeddings, labels, types, views = random_data(kinds, ["000", "018", "090"], people=12, drop=0)
    return gaitzoo.evaluate(
        embeddings, labels, types=types, views=views, protocol="casiab", bootstrap=300, **CPU
    )


def test_result_prints_the_table_of_papers(casia_result):
    text = str(casia_result)
    for word in ("CASIA-B", "NM", "BG", "CL", "mean", "000", "018", "090", "identical views"):
        assert word in text
    nm = casia_result["NM"]
    assert f"{100 * nm.scores['rank1']:.2f}" in text
    latex = casia_result.to_latex()
    assert latex.count(r"\toprule") == 2
    assert all(line.startswith("%") for line in latex.splitlines() if "CASIA" in line)


def test_result_as_json(casia_result, tmp_path):
    path = tmp_path / "result.json"
    text = casia_result.to_json(path)
    read = json.loads(path.read_text())
    assert read == json.loads(text)
    assert [row["condition"] for row in read["rows"]] == ["NM", "BG", "CL"]
    assert read["rows"][0]["scores"] == casia_result["NM"].scores
    assert len(read["rows"][0]["cmc"]) == 20


def test_pictures_are_drawn(casia_result, tmp_path):
    casia_result.plot_cmc(tmp_path / "cmc.png")
    casia_result.plot_views("NM", tmp_path / "views.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("cmc.png", "views.png"))
    with pytest.raises(KeyError, match="NM, BG, CL"):
        casia_result.plot_views("XX")


def test_intervals_hold_the_score_and_repeat(casia_result):
    for row in casia_result.rows:
        low, high = row.intervals["rank1"]
        assert low <= row.scores["rank1"] <= high
        assert low < high


def test_intervals_equal_drawing_people_by_hand():
    """Every draw scored as if people had been copied."""
    labels = [0] * 3 + [1] * 2 + [2] * 4 + [0, 1, 2]
    embeddings = randn(12, 1, 2, seed=1)
    probes = [True] * 9 + [False] * 3
    result = gaitzoo.evaluate(
        embeddings, labels, protocol="gait3d", probes=probes, bootstrap=50, seed=5, **CPU
    )
    distances = gaitzoo.metrics.part_distances(embeddings[:9], embeddings[9:])
    values = []
    for counts in np.random.default_rng(5).multinomial(3, [1 / 3] * 3, 50):
        rows = [i for i in range(9) for _ in range(counts[labels[i]])]
        score = gaitzoo.metrics.retrieval_scores(
            distances[rows], [labels[i] for i in rows], [0, 1, 2]
        )
        values.append(score["mAP"])
    assert result["test"].intervals["mAP"] == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_missing_conditions_are_said():
    embeddings, labels, types, views = random_data(["nm-01", "nm-05"], ["000", "090"], drop=0)
    result = gaitzoo.evaluate(embeddings, labels, types=types, views=views, protocol="casiab")
    assert result.missing == ("BG", "CL")
    assert "no sequences for BG, CL" in str(result)
    with pytest.raises(ValueError, match="none of BG, CL"):
        result.mean()


def test_own_protocol():
    walk = gaitzoo.Condition("mine", ("b",), ("a",))
    own = gaitzoo.GaitProtocol("Own", (walk,), pairs=("all",), ranks=(1, 2), retrieval=True)
    embeddings = torch.tensor([0.0, 5.0, 1.0, 4.9])[:, None, None]
    result = gaitzoo.evaluate(embeddings, [1, 2, 2, 1], types=[*"aabb"], protocol=own, **CPU)
    assert result["mine"].scores == {"rank1": 0.0, "rank2": 1.0, "mAP": 0.5, "mINP": 0.5}
    assert not math.isnan(result["mine"].cmc[5])
    with pytest.raises(ValueError, match="by views"):
        result.plot_views("mine")


GOOD = {
    "embeddings": torch.rand(4, 1, 2),
    "labels": [0, 0, 1, 1],
    "types": ["nm-01", "nm-05"] * 2,
    "views": ["000", "090"] * 2,
    "protocol": "casiab",
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"protocol": "casia"}, ValueError, "among casiab, oumvlp.*'casia'"),
        ({"protocol": 3}, TypeError, "a name or a GaitProtocol"),
        ({"views": None}, ValueError, "expected views for CASIA-B"),
        ({"types": None}, ValueError, "expected types for CASIA-B"),
        ({"labels": [0, 1]}, ValueError, "expected 4 labels"),
        ({"views": ["000"] * 4}, ValueError, "two different views"),
        ({"types": ["a", "b"] * 2}, ValueError, "got types a, b"),
        ({"embeddings": torch.rand(4, 1, 2) / 0}, ValueError, "finite"),
        ({"labels": [0, 1, 2, 3]}, ValueError, "NM: expected at least one probe"),
        ({"metric": "l2"}, ValueError, "l2"),
        ({"rerank": True}, ValueError, "whole galleries"),
        ({"bootstrap": -1}, ValueError, "0 or more"),
        ({"probes": [True] * 4}, ValueError, "no list"),
        ({"protocol": "gait3d"}, ValueError, "a list of probes"),
        ({"protocol": "gait3d", "probes": ["0-x-y"]}, ValueError, "1 of 1.*'0-x-y'"),
        ({"protocol": "gait3d", "probes": [True]}, ValueError, "4 probes"),
        ({"protocol": "gait3d", "probes": [1, 2, 3, 4]}, TypeError, "as bool"),
        ({"protocol": "gait3d", "probes": [True] * 4}, ValueError, "a gallery beside them"),
    ],
)
def test_bad_input_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        gaitzoo.evaluate(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": ("some",)}, "pairs as a tuple of cross_view"),
        ({"pairs": "all"}, "pairs as a tuple"),
        ({"unmatched": ()}, "unmatched as a tuple"),
        ({"ranks": (0,)}, "ranks"),
        ({"match": "regex"}, "match"),
        ({"conditions": ()}, "different names"),
    ],
)
def test_bad_protocols_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        gaitzoo.GaitProtocol("x", **fields)
