"""Open-set figures of a data set against loops."""

import json
import math

import numpy as np
import pytest
import torch

import gaitzoo
from gaitzoo.evaluation import open_set_run

CASIA = {"NM": ("nm-05",), "CL": ("cl-01",)}


def world(people=16, seed=0, noise=0.6):
    """Embeddings, labels, types, views: three gallery walks and two probes before three cameras."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        (f"{person:03d}", kind, view)
        for person in range(people)
        for kind in ("nm-01", "nm-02", "nm-05", "cl-01")
        for view in ("000", "036", "090")
    ]
    labels, types, views = (list(column) for column in zip(*rows, strict=True))
    centres = torch.randn(people, 2, 4, generator=generator)
    own = torch.tensor([int(label) for label in labels])
    embeddings = centres[own] + noise * torch.randn(len(rows), 2, 4, generator=generator)
    return embeddings, labels, types, views


def naive(embeddings, labels, types, views, known, strangers, probes, thresholds):
    """FMR, FNMR, FPIR and FNIR with views of one angle left out."""
    counts = {name: [0, 0] for name in ("FMR", "FNMR", "FPIR", "FNIR")}

    def count(name, error):
        counts[name][0] += bool(error)
        counts[name][1] += 1

    gallery = [i for i, who in enumerate(labels) if who in known and types[i] in ("nm-01", "nm-02")]
    for i, who in enumerate(labels):
        if types[i] not in probes or who not in (*known, *strangers):
            continue
        found = []
        for j in gallery:
            if views[i] == views[j]:
                continue
            distance = float((embeddings[i].double() - embeddings[j].double()).norm(dim=1).mean())
            distance = float(torch.tensor(distance, dtype=torch.float32))
            found.append((distance, labels[j]))
            if labels[j] == who:
                count("FNMR", distance > thresholds[0])
            else:
                count("FMR", distance <= thresholds[0])
        nearest, name = min(found)
        if who in known:
            count("FNIR", nearest > thresholds[1] or name != who)
        else:
            count("FPIR", nearest <= thresholds[1])
    return {name: wrong / total for name, (wrong, total) in counts.items()}


@pytest.mark.parametrize("seed", range(2))
def test_rates_equal_loops(seed, monkeypatch):
    data = world(seed=seed)
    monkeypatch.setattr("gaitzoo.evaluation.comparison._PAIRS_RANKED_AT_ONCE", 64)
    embeddings, labels, types, views = data
    found = gaitzoo.evaluate_open_set(
        embeddings, labels, types=types, views=views, protocol="casiab", rate=0.2, seed=seed
    )
    order = np.random.default_rng(seed).permutation(16).reshape(4, 4)
    groups = [tuple(sorted(f"{person:03d}" for person in part)) for part in order]
    assert list(found.people.values()) == groups
    assert found.missing == ("BG",)
    thresholds = found.pair_threshold, found.search_threshold
    for condition, probes in CASIA.items():
        row = found[condition]
        assert row.rates == pytest.approx(naive(*data, *groups[2:], probes, thresholds))
        assert row.pairs.rates_at(thresholds[0]) == pytest.approx(
            (row.rates["FMR"], row.rates["FNMR"])
        )
        assert row.searches.rates_at(thresholds[1]) == pytest.approx(
            (row.rates["FPIR"], row.rates["FNIR"])
        )
        assert 0.0 < row.rates["FNIR"] < 1.0
    # The thresholds are those of the other half: no larger one keeps the rate there.
    chosen = naive(*data, *groups[:2], ("nm-05", "cl-01"), thresholds)
    assert 0.15 < chosen["FMR"] <= 0.2
    assert chosen["FPIR"] <= 0.2
    looser = naive(*data, *groups[:2], ("nm-05", "cl-01"), [t + 0.3 for t in thresholds])
    assert looser["FMR"] > 0.2
    assert looser["FPIR"] > 0.2


def test_whole_galleries_and_listed_probes():
    """Without settings by views only a sequence and itself are no pair."""
    embeddings, labels, types, views = world()
    probes = [kind in ("nm-05", "cl-01") for kind in types]
    found = gaitzoo.evaluate_open_set(
        embeddings, labels, types=types, views=views, protocol="gait3d", probes=probes
    )
    (row,) = found.rows
    # 4 known people, 6 gallery sequences each; 6 probes of each of them and of 4 strangers.
    assert (len(row.pairs.mated), len(row.pairs.non_mated)) == (4 * 6 * 6, 4 * 6 * 18 + 4 * 6 * 24)
    assert (len(row.searches.mated), len(row.searches.non_mated)) == (24, 24)


def test_people_and_probes_without_partners_are_left_out():
    embeddings, labels, types, views = world(people=17)
    lone = [i for i, who in enumerate(labels) if who == "016" and types[i] != "nm-05"]
    keep = [i for i in range(len(labels)) if i not in lone]
    embeddings = embeddings[keep]
    labels, types, views = ([column[i] for i in keep] for column in (labels, types, views))
    found = gaitzoo.evaluate_open_set(
        embeddings, labels, types=types, views=views, protocol="casiab"
    )
    assert found.num_left_out == 1
    assert "1 people without probes or gallery" in str(found)
    someone = found.people["test known"][0]
    keep = [
        i for i, who in enumerate(labels)
        if who != someone or views[i] == "090" or types[i] not in ("nm-01", "nm-02")
    ]  # fmt: skip
    views = [views[i] for i in keep]
    found = gaitzoo.evaluate_open_set(
        embeddings[keep], [labels[i] for i in keep], types=[types[i] for i in keep], views=views,
        protocol="casiab",
    )  # fmt: skip
    assert [row.num_left_out for row in found.rows] == [1, 1]
    assert len(found["NM"].searches.mated) == 4 * 3 - 1
    assert "any: NM 1, CL 1" in str(found)


def test_intervals_hold_the_rates_and_repeat():
    embeddings, labels, types, views = world(people=32)
    sides = {"types": types, "views": views, "protocol": "casiab", "rate": 0.2}
    one, two = (
        gaitzoo.evaluate_open_set(embeddings, labels, bootstrap=200, **sides) for _ in range(2)
    )
    for row in one.rows:
        for name, value in row.rates.items():
            low, high = row.intervals[name]
            assert low <= value <= high
        assert row.intervals["FNIR"][0] < row.intervals["FNIR"][1]
    assert one.to_dict() == two.to_dict()
    assert one["NM"].intervals != one["CL"].intervals


def test_of_many_pairs_some_make_the_curve(monkeypatch):
    embeddings, labels, types, views = world(people=40)
    sides = {"types": types, "views": views, "protocol": "casiab", "rate": 0.1}
    whole = gaitzoo.evaluate_open_set(embeddings, labels, **sides)
    monkeypatch.setattr(open_set_run, "_PAIRS_KEPT", 900)
    part = gaitzoo.evaluate_open_set(embeddings, labels, **sides)
    assert 300 < len(part["NM"].pairs.non_mated) < 900 < len(whole["NM"].pairs.non_mated)
    assert part["NM"].pairs.eer() == pytest.approx(whole["NM"].pairs.eer(), abs=0.05)
    assert len(part["NM"].pairs.mated) == len(whole["NM"].pairs.mated)
    assert part.search_threshold == whole.search_threshold
    exact = whole["NM"].pairs.rates_at(part.pair_threshold)
    assert (part["NM"].rates["FMR"], part["NM"].rates["FNMR"]) == pytest.approx(exact)


def test_result_as_tables_files_and_pictures(tmp_path):
    embeddings, labels, types, views = world(people=32)
    found = gaitzoo.evaluate_open_set(
        embeddings, labels, types=types, views=views, protocol="casiab"
    )
    text = str(found)
    assert "gallery of 8 people, 8 others are strangers (seed 0)" in text
    assert f"FPIR and FNIR at distance {found.search_threshold:.6g}" in text
    # 24 searches of strangers cannot show a rate of 1 %.
    assert found["NM"].fnir_at_fpir()[0.01] is None
    assert found["NM"].fnir_at_fpir()[0.1] is not None
    assert "-: too few" in text
    # Eight strangers of the validation, three views, two conditions.
    assert found.num_chosen_on[1] == 48
    assert "chosen on 48 searches of different people, too few to show a rate of 1 %" in text
    assert "of pairs was chosen" not in text
    assert found.to_latex().count("toprule") == 2
    json.dumps(found.to_dict(), allow_nan=False)
    for plot, label in ((found.plot_roc, "false match"), (found.plot_det, "identification")):
        figure = plot(tmp_path / "curve.png")
        assert [line.get_label() for line in figure.axes[0].lines] == ["NM", "CL"]
        assert label in figure.axes[0].get_xlabel()
        assert (tmp_path / "curve.png").stat().st_size > 5000


def test_curves_of_many_points_are_thinned():
    generator = np.random.default_rng(0)
    mated, other = generator.normal(0, 1, 20_000), generator.normal(1.5, 1, 50_000)
    curve = gaitzoo.open_set.ErrorCurve(np.sort(mated), np.sort(other), ("FMR", "FNMR"))
    for plot in (curve.plot_roc, curve.plot_det):
        drawn = plot().axes[0].lines[0].get_xydata()
        assert 300 < len(drawn) < 30_000
        assert drawn[-1].tolist()[0] == 100.0
        assert np.abs(np.diff(np.log10(drawn[100:, 0]))).max() < 0.2


E, L, T, V = world(people=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "between 0 and 1"),
        ({"rate": math.nan}, "between 0 and 1"),
        ({"labels": ["a"] * len(L)}, "four people or more .* got 1"),
        ({"protocol": "oumvlp"}, "four people or more .* got 0"),
        ({"views": None}, "expected views"),
        ({"views": ["000"] * len(L)}, "pairs of known and of unknown people"),
        ({"bootstrap": -1}, "draws"),
        ({"metric": "city"}, "metric"),
    ],
)
def test_bad_input_is_refused(options, message):
    given = {"embeddings": E, "labels": L, "types": T, "views": V, "protocol": "casiab"}
    with pytest.raises(ValueError, match=message):
        gaitzoo.evaluate_open_set(**{**given, **options})
