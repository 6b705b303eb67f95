"""Error rates, thresholds and normalisation against loops."""

import math

import numpy as np
import pytest
import torch

import gaitzoo
from gaitzoo import open_set


def problem(seed, ties=False):
    generator = np.random.default_rng(seed)
    query = generator.integers(0, 8, 20).tolist()  # 6 and 7 are unknown
    gallery = generator.integers(0, 6, 30).tolist()
    distances = generator.random((20, 30))
    distances -= 0.4 * (np.array(query)[:, None] == np.array(gallery))
    if ties:
        distances = distances.round(1)
    exclude = torch.from_numpy(generator.random((20, 30)) < 0.2)
    return torch.from_numpy(distances), query, gallery, exclude


def naive_verification(distances, query, gallery, exclude, threshold):
    wrong = different = refused = same = 0
    for i, who in enumerate(query):
        for j, known in enumerate(gallery):
            if exclude is not None and exclude[i, j]:
                continue
            accepted = float(distances[i, j]) <= threshold
            if who == known:
                same, refused = same + 1, refused + (not accepted)
            else:
                different, wrong = different + 1, wrong + accepted
    return wrong / different, refused / same


def naive_identification(distances, query, gallery, exclude, threshold, rank):
    false_positive = unknown = false_negative = known = 0
    for i, who in enumerate(query):
        allowed = [j for j in range(len(gallery)) if exclude is None or not exclude[i, j]]
        order = sorted(allowed, key=lambda j: float(distances[i, j]))
        candidates = [j for j in order[:rank] if float(distances[i, j]) <= threshold]
        if any(gallery[j] == who for j in allowed):
            known += 1
            false_negative += not any(gallery[j] == who for j in candidates)
        else:
            unknown += 1
            false_positive += bool(candidates)
    return false_positive / unknown, false_negative / known


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("with_exclude", [False, True])
def test_rates_equal_loops(seed, ties, with_exclude):
    distances, query, gallery, exclude = problem(seed, ties)
    mask = exclude if with_exclude else None
    verification = open_set.verification_errors(distances, query, gallery, mask)
    thresholds, false_positive, false_negative = verification.points()
    for k in range(0, len(thresholds), 7):
        expected = naive_verification(distances, query, gallery, mask, thresholds[k])
        assert verification.rates_at(thresholds[k]) == pytest.approx(expected)
        assert (false_positive[k], false_negative[k]) == pytest.approx(expected)
    for rank in (1, 3):
        found = open_set.identification_errors(distances, query, gallery, rank=rank, exclude=mask)
        for threshold in (-1.0, 0.0, 0.11, 0.4, 2.0):
            expected = naive_identification(distances, query, gallery, mask, threshold, rank)
            assert found.rates_at(threshold) == pytest.approx(expected)


def test_identification_in_blocks(monkeypatch):
    distances, query, gallery, exclude = problem(4)
    whole = open_set.identification_errors(distances, query, gallery, exclude=exclude)
    monkeypatch.setattr(open_set, "_ROWS_AT_ONCE", 3)
    blocks = open_set.identification_errors(distances, query, gallery, exclude=exclude)
    assert (whole.mated == blocks.mated).all()
    assert (whole.non_mated == blocks.non_mated).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_is_the_largest_that_keeps_the_rate(ties, rate, dtype):
    distances, query, gallery, _ = problem(5, ties)
    distances = distances.to(dtype)
    curve = open_set.verification_errors(distances, query, gallery)
    threshold = curve.threshold_at(rate)
    # As a user applies it, in the type of the distances.
    different = torch.tensor(query)[:, None] != torch.tensor(gallery)
    assert float((distances <= threshold)[different].double().mean()) <= rate
    larger = [t for t in distances.double().unique().tolist() if t > threshold]
    assert all(curve.rates_at(t)[0] > rate for t in larger)
    assert curve.true_positive_at(rate) == 1 - curve.rates_at(threshold)[1]


def test_no_error_allowed_where_the_nearest_pair_is_wrong():
    curve = open_set.verification_errors(torch.tensor([[0.5, 0.1]]), [0], [0, 1])
    threshold = curve.threshold_at(0.0)
    assert curve.rates_at(threshold) == (0.0, 1.0)
    assert not bool((torch.tensor([0.1]) <= threshold).any())


def test_equal_error_rate():
    """Errors cross between 2 of 4 pairs of strangers and 2 of 4 of one person."""
    distances = torch.tensor([[1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]])
    curve = open_set.verification_errors(distances, [0], [0] * 4 + [1] * 4)
    assert curve.eer() == 0.5
    assert curve.eer_threshold() == 4.0
    better = open_set.verification_errors(distances, [0], [0, 0, 1, 1, 0, 0, 1, 1])
    assert better.eer() == 0.0


@pytest.mark.parametrize("name", ["plot_roc", "plot_det"])
def test_curves_are_drawn(name, tmp_path):
    distances, query, gallery, _ = problem(6)
    curve = open_set.verification_errors(distances, query, gallery)
    figure = getattr(curve, name)(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    x_label = figure.axes[0].get_xlabel()
    assert "false match rate" in x_label


def test_perfect_curve_is_drawn_too(tmp_path):
    curve = open_set.verification_errors(torch.tensor([[0.1, 0.9]]), [0], [0, 1])
    figure = curve.plot_det(tmp_path / "det.png")
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[50.0, 50.0], [100.0, 50.0]]


def test_normalisation_equals_loops():
    generator = np.random.default_rng(7)
    d, q, g = (torch.from_numpy(generator.random(s)) for s in ((4, 5), (4, 9), (5, 9)))
    z = open_set.z_norm(d, g.T)
    s = open_set.as_norm(d, q, g, top=3)
    for i in range(4):
        for j in range(5):
            strangers = g[j].tolist()
            mean = sum(strangers) / 9
            deviation = math.sqrt(sum((x - mean) ** 2 for x in strangers) / 9)
            assert float(z[i, j]) == pytest.approx((float(d[i, j]) - mean) / deviation)
            terms = []
            for side in (sorted(q[i].tolist())[:3], sorted(strangers)[:3]):
                mean = sum(side) / 3
                deviation = math.sqrt(sum((x - mean) ** 2 for x in side) / 3)
                terms.append((float(d[i, j]) - mean) / deviation)
            assert float(s[i, j]) == pytest.approx(sum(terms) / 2)


def test_normalisation_evens_out_galleries_that_are_close_to_everybody():
    generator = torch.Generator().manual_seed(8)
    near = torch.tensor([0.0, 3.0, 6.0, 9.0])  # how far each of the gallery is from all
    people = torch.arange(4)
    distances = near + torch.rand(4, 4, generator=generator)
    distances[people, people] -= 0.9
    cohort = near + torch.rand(50, 4, generator=generator)
    plain = open_set.verification_errors(distances, people, people).eer()
    normal = open_set.verification_errors(open_set.z_norm(distances, cohort), people, people).eer()
    assert normal < plain


D = torch.rand(2, 3)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: open_set.verification_errors(D, [0, 0], [0, 0, 0]), "pairs.*6 and 0"),
        (lambda: open_set.verification_errors(D, [7, 8], [0, 1, 2]), "pairs.*0 and 6"),
        (lambda: open_set.identification_errors(D, [0, 1], [0, 1, 2]), "searches.*2 and 0"),
        (lambda: open_set.verification_errors(D, [0, 0], [0]), "2 query and 3 gallery"),
        (lambda: open_set.identification_errors(D, [0, 9], [0, 1, 2], rank=0), "rank as a whole"),
        (
            lambda: open_set.identification_errors(
                D, [0, 9], [0, 1, 2], exclude=torch.ones(2, 3, dtype=torch.bool)
            ),
            "all pairs excluded",
        ),
        (lambda: open_set.z_norm(D, D.T), "3 columns.*got 2"),
        (lambda: open_set.z_norm(D, torch.ones(4, 3)), "equally far"),
        (lambda: open_set.z_norm(D, D[:1]), "at least 2"),
        (lambda: open_set.as_norm(D, D, D), "3 rows of gallery_cohort, got 2"),
        (lambda: open_set.as_norm(D, D[:, :2], torch.rand(3, 3)), "2 columns.*got 3"),
        (
            lambda: open_set.verification_errors(D, [0, 1], [0, 1, 2]).threshold_at(1.5),
            r"in \[0, 1\]",
        ),
    ],
)
def test_bad_input_is_refused(compute, message):
    with pytest.raises(ValueError, match=message):
        compute()


# Confidence intervals


def test_clusters_are_drawn_whole():
    seen = []
    identities = ["a", "b", "a", "c", "b", "a"]

    def statistic(rows):
        seen.append(sorted(rows.tolist()))
        return float(len(rows))

    found = gaitzoo.cluster_bootstrap(statistic, identities, resamples=20, seed=1)
    assert found.value == 6
    members = {"a": [0, 2, 5], "b": [1, 4], "c": [3]}
    drawn = np.random.default_rng(1)
    for rows in seen[:20]:
        people = drawn.integers(0, 3, 3).tolist()
        assert rows == sorted(i for person in people for i in members["abc"[person]])


def test_whole_people_give_wider_intervals_than_single_sequences():
    generator = np.random.default_rng(2)
    people = np.repeat(np.arange(30), 20)
    hits = torch.from_numpy((generator.random(30) < 0.6).astype(float)[people])
    by_person = gaitzoo.cluster_bootstrap(lambda rows: float(hits[rows].mean()), people)
    alone = gaitzoo.cluster_bootstrap(lambda rows: float(hits[rows].mean()), np.arange(600))
    assert by_person.high - by_person.low > 2.5 * (alone.high - alone.low)
    assert str(by_person).endswith("(95%)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "1 or more"),
        ({"level": 1.0}, "level"),
        ({"identities": [3, 3]}, "two people"),
    ],
)
def test_bad_bootstraps_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gaitzoo.cluster_bootstrap(**{"statistic": len, "identities": [0, 1], **options})


def test_no_score_at_all_is_refused():
    with pytest.raises(ValueError, match="NaN of all"):
        gaitzoo.cluster_bootstrap(lambda rows: math.nan, [0, 1], resamples=3)
