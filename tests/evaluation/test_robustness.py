"""Scores on corrupted videos: formulas, scenarios, who is lost, pictures."""

import json
import math

import numpy as np
import pytest
import torch

import gaitzoo
from gaitzoo.data.corruptions import GROUPS, SEVERITIES, SilhouetteCorruption
from gaitzoo.data.segmentation import FrameMasks
from gaitzoo.evaluation.robustness import (
    RobustnessBenchmark,
    RobustnessReport,
    absolute_robustness,
    draw_corruption,
    masks_of,
    relative_robustness,
)
from gaitzoo.synthetic import find_warm_colours, paint_walk, render_walk, sample_identity

PEOPLE, VIEWS = 4, ("000", "090")


class Kept:
    """An embedder that is the mean colour of a clip and keeps what it has seen."""

    def __init__(self):
        self.batches = []

    def __call__(self, sequences):
        clips = [clip.clone() for clip in sequences]
        self.batches.append(clips)
        return torch.stack([clip.double().mean((0, 2, 3)) for clip in clips])[:, None]


@pytest.fixture
def world():
    """Everybody in a colour of their own, gallery first: two walks in two views."""
    source = torch.Generator().manual_seed(0)
    people = torch.rand(PEOPLE, 3, generator=source) * 0.5 + 0.25
    keys = [(person, walk, view) for walk in range(2) for person in range(PEOPLE) for view in VIEWS]
    videos = [
        people[person].reshape(1, 3, 1, 1) + 0.01 * torch.randn(6, 3, 12, 10, generator=source)
        for person, _, _ in keys
    ]
    return {
        "videos": [video.clamp(0, 1) for video in videos],
        "labels": [person for person, _, _ in keys],
        "views": [view for _, _, view in keys],
        "names": [f"{person}/{walk}/{view}" for person, walk, view in keys],
        "gallery": range(PEOPLE * len(VIEWS)),
    }


def benchmark(embedder=None, **options):
    return RobustnessBenchmark(embedder or Kept(), progress=False, **options)


def test_scores_are_their_formulas():
    assert absolute_robustness(0.8, 0.8) == relative_robustness(0.8, 0.8) == 1
    assert relative_robustness(0.8, 0.0) == 0
    assert absolute_robustness(0.8, 0.0) == pytest.approx(0.2)
    assert relative_robustness(0.8, 0.6) == pytest.approx(1 - 0.2 / 0.8)
    assert math.isnan(relative_robustness(0.0, 0.0))
    assert absolute_robustness(0.0, 0.0) == 1
    for function in (absolute_robustness, relative_robustness):
        with pytest.raises(ValueError, match="fraction"):
            function(80, 60)


def report_of(matrix, corruptions, severities=(1, 5), clean=0.8):
    matrix = torch.tensor(matrix, dtype=torch.float64)
    return RobustnessReport(
        "same", "rank1", clean, corruptions, severities, matrix, torch.zeros_like(matrix)
    )


def test_means_go_from_severities_over_types_to_groups():
    rows = {"gaussian_noise": (0.8, 0.4), "zoom_blur": (0.4, 0.0), "fog": (0.8, 0.8)}
    report = report_of(list(rows.values()), tuple(rows))
    assert report.per_type() == pytest.approx(
        {"gaussian_noise": 0.75, "zoom_blur": 0.25, "fog": 1.0}
    )
    assert report.per_type("absolute")["zoom_blur"] == pytest.approx((0.6 + 0.2) / 2)
    assert report.per_group() == pytest.approx({"digital": 0.5, "environmental": 1.0})
    assert report.mean() == pytest.approx(0.75)
    assert report.mean(over="types") == pytest.approx(2 / 3)
    for arguments in ({"kind": "odd"}, {"over": "severities"}):
        with pytest.raises(ValueError, match="expected"):
            report.mean(**arguments)


def test_a_report_prints_writes_and_draws(tmp_path):
    report = report_of([(0.8, 0.25), (0.5, 0.5)], ("fog", "motion_blur"))
    text = str(report)
    assert "same, clean 80.0" in text
    assert "fog" in text
    assert "25.0" in text
    assert "mean: environmental" in text
    assert "mean: motion_blur" not in text  # of no group: its own row says it
    stored = json.loads(report.to_json(tmp_path / "scores.json"))
    assert stored == json.loads((tmp_path / "scores.json").read_text())
    assert stored["matrix"]["fog"] == [0.8, 0.25]
    pytest.importorskip("matplotlib")
    figure = report.plot(tmp_path / "heat.png", "a model")
    axes = figure.axes[0]
    assert axes.get_title().startswith("a model\nRank-1, %")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog", "motion blur"]
    assert [label.get_text() for label in axes.texts] == ["80", "25", "50", "50"]
    assert (tmp_path / "heat.png").stat().st_size > 5000


def test_nobody_found_on_clean_videos_is_no_number_in_json():
    report = report_of([(0.0, 0.0)], ("fog",), clean=0.0)
    assert json.loads(report.to_json())["relative_types"]["fog"] is None


def test_clean_gallery_stays_as_it_is(world):
    kept = Kept()
    run = benchmark(kept, scenario="clean_gallery")
    report = run(**world, corruptions=["gaussian_noise", "fog"], severities=[1, 5])
    clean, *probes = kept.batches[0], *kept.batches[1:]
    assert len(probes) == 1 + 4  # clean, then each condition
    assert all(torch.equal(a, b) for a, b in zip(clean, world["videos"], strict=False))
    for number, batch in enumerate(probes):
        for clip, video in zip(batch, world["videos"][8:], strict=True):
            assert torch.equal(clip, video) == (number == 0)
    assert report.clean == 1.0
    assert report.matrix.shape == (2, 2)


def test_same_corrupts_both_sides_alike(world):
    kept = Kept()
    report = benchmark(kept)(**world, corruptions=["gaussian_noise"], severities=[2])
    assert len(kept.batches) == 4
    videos = world["videos"]
    for batch, clean in ((kept.batches[2], videos[8:]), (kept.batches[3], videos[:8])):
        offs = [float((clip - video).std()) for clip, video in zip(batch, clean, strict=True)]
        assert offs == pytest.approx([0.12] * 8, rel=0.1)
        assert len(set(offs)) == 8  # noise of its own for each sequence
    assert report.scenario == "same"


def test_a_mixed_gallery_is_a_function_of_seed_and_name(world):
    kept = Kept()
    names, severities = ["low_light", "gaussian_noise", "fog"], [1, 3]
    run = benchmark(kept, scenario="mixed_gallery", seed=5)
    run(**world, corruptions=names, severities=severities)
    assert len(kept.batches) == 2 + 1 + 6  # the gallery is corrupted once
    mixed = kept.batches[2]
    # In another company and order each is corrupted as before.
    other = Kept()
    run = benchmark(other, scenario="mixed_gallery", seed=5)
    order = {**world, "gallery": [6, 3, 1]}
    run(**order, probes=range(8, 16), corruptions=names, severities=severities)
    assert all(torch.equal(c, mixed[n]) for c, n in zip(other.batches[2], [6, 3, 1], strict=True))
    drawn = {draw_corruption(seed, "x", names, severities) for seed in range(100)}
    assert drawn == {(name, severity) for name in names for severity in severities}
    for nothing in (([], severities), (names, [])):
        with pytest.raises(ValueError, match="names and severities to draw from"):
            draw_corruption(0, "x", *nothing)


def test_numbers_repeat_and_depend_on_the_seed(world):
    def numbers(seed):
        kept = Kept()
        benchmark(kept, seed=seed)(**world, corruptions=["shot_noise"], severities=[5])
        return torch.stack(kept.batches[2])

    assert torch.equal(numbers(0), numbers(0))
    assert not torch.equal(numbers(0), numbers(1))


@pytest.mark.parametrize("pairs", ["cross_view", "re_id", "all"])
def test_scores_are_those_of_evaluate(world, pairs):
    kept = Kept()
    run = benchmark(kept, pairs=pairs, scenario="clean_gallery")
    report = run(**world, corruptions=["gaussian_noise"], severities=[5])
    embeddings = torch.cat(
        [torch.stack([c.double().mean((0, 2, 3)) for c in kept.batches[n]]) for n in (2, 0)]
    )
    query, gallery = embeddings[:8], embeddings[8:]
    labels, views = np.array(world["labels"][:8]), np.array(world["views"][:8])
    hits = {}
    for n in range(8):
        columns = {"all": [slice(None)], "re_id": [(labels != labels[n]) | (views != views[n])]}
        columns["cross_view"] = [views == view for view in VIEWS if view != views[n]]
        for chosen in columns[pairs]:
            nearest = (query[n] - gallery[chosen]).norm(dim=1).argmin()
            hits.setdefault(views[n], []).append(labels[chosen][nearest] == labels[n])
    wanted = np.mean([np.mean(each) for each in hits.values()])
    assert float(report.matrix) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("pairs", "score"),
    [("cross_view", "rank1"), ("re_id", "mAP"), ("all", "mAP"), ("all", "rank1")],
)
def test_who_is_not_seen_is_not_found(world, pairs, score):
    corrupted = []

    class Marked(torch.nn.Module):
        def __init__(self, name, severity, generator=None):
            super().__init__()

        def forward(self, video):
            return video + 1

    def extract(video):
        if float(video.mean()) < 1:
            return video
        corrupted.append(video)
        if len(corrupted) in lost:
            raise ValueError("nobody")
        return video - 1

    lost = {1, 2, 5}  # three of eight probes
    run = benchmark(
        extractor=extract, make=Marked, pairs=pairs, score=score, scenario="clean_gallery"
    )
    report = run(**world, corruptions=["any"], severities=[1])
    assert report.clean == 1.0
    assert float(report.lost) == 3 / 8
    assert float(report.matrix) == pytest.approx(5 / 8)
    # Sequences of the gallery that are lost: one person, then one view, then all.
    for lost in ({9, 10}, {9, 11, 13, 15}):
        corrupted.clear()
        run = benchmark(extractor=extract, make=Marked, pairs=pairs, score=score)
        report = run(**world, corruptions=["any"], severities=[1])
        if pairs == "all" and lost != {9, 10}:
            assert float(report.matrix) == 1.0  # the other view is there
        else:
            assert float(report.matrix) == pytest.approx(3 / 4 if lost == {9, 10} else 1 / 2)
    corrupted.clear()
    lost = set(range(9, 17))
    assert float(run(**world, corruptions=["any"], severities=[1]).matrix) == 0
    corrupted.clear()
    lost = set(range(1, 9))
    assert float(run(**world, corruptions=["any"], severities=[1]).matrix) == 0


def test_errors_on_clean_videos_are_no_losses(world):
    def extract(video):
        raise ValueError("expected something else")

    with pytest.raises(ValueError, match=r"sequence 0/0/000, clean: expected something else"):
        benchmark(extractor=extract)(**world, corruptions=["fog"])


def test_a_model_reads_corrupted_silhouettes():
    model = gaitzoo.create_model("dygait_tiny", num_classes=0).eval()
    walks = [
        render_walk(sample_identity(n // 2), frames=9, size=(64, 64), seed=n).silhouettes
        for n in range(6)
    ]
    run = RobustnessBenchmark(
        model, pairs="all", make=SilhouetteCorruption, progress=False, batch_frames=64
    )
    report = run(
        walks, [0, 0, 1, 1, 2, 2], [0, 2, 4], corruptions=["freeze", "impulse_noise"],
        severities=[1, 5],
    )  # fmt: skip
    assert report.matrix.shape == (2, 2)
    embeddings = gaitzoo.embed(model, walks, progress=False)
    probes, gallery = embeddings[1::2], embeddings[::2]
    nearest = gaitzoo.metrics.part_distances(probes, gallery).argmin(1)
    assert report.clean == pytest.approx(float((nearest == torch.arange(3)).double().mean()))


def test_painted_walks_are_found_again():
    walk = render_walk(sample_identity(1), frames=6, view=54.0, size=(128, 96), aligned=False)
    video = paint_walk(walk.silhouettes, seed=3)
    assert video.shape == (6, 3, 128, 96)
    assert video.dtype == torch.uint8
    assert torch.equal(video, paint_walk(walk.silhouettes, seed=3))
    assert not torch.equal(video, paint_walk(walk.silhouettes, seed=4))
    body = walk.silhouettes > 127
    for form in (video, video / 255):
        found = find_warm_colours(form) > 127
        assert float((found & body).sum() / (found | body).sum()) > 0.85
    for wrong in (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4, 3)):
        with pytest.raises(ValueError, match="expected a video"):
            find_warm_colours(wrong)
    with pytest.raises(ValueError, match="expected silhouettes"):
        paint_walk(torch.zeros(2, 1, 4, 4))


def test_standing_cameras_film_walkers_that_cross_the_frame():
    walkers = gaitzoo.synthetic.SyntheticWalkers(
        1, sequences=(("normal", 0),), views=(90,), size=(64, 96), aligned=False
    )
    columns = walkers[0].silhouettes.float().mean(1)
    centres = (columns * torch.arange(96)).sum(1) / columns.sum(1)
    assert abs(float(centres[-1] - centres[0])) > 20


def test_a_segmenter_becomes_an_extractor():
    def segmenter(frames):
        assert frames.shape == (3, 8, 6, 3)
        assert frames.dtype == np.uint8
        masks = np.zeros((2, 8, 6), bool)
        masks[0, :2], masks[1, 4:] = True, True
        nobody = FrameMasks(masks[:0], np.zeros(0))
        return [FrameMasks(masks, np.array(s)) for s in ([0.9, 0.2], [0.1, 0.8])] + [nobody]

    for video in (torch.zeros(3, 3, 8, 6), torch.zeros(3, 3, 8, 6, dtype=torch.uint8)):
        masks = masks_of(segmenter)(video)
        assert masks.dtype == torch.uint8
        assert masks[:, :, 0].tolist() == [[255] * 2 + [0] * 6, [0] * 4 + [255] * 4, [0] * 8]


def test_what_does_not_fit_is_refused(world):
    for options, message in (
        ({"scenario": "odd"}, "scenario"),
        ({"pairs": "odd"}, "pairs"),
        ({"score": "odd"}, "score"),
        ({"score": "mAP"}, "mAP"),
    ):
        with pytest.raises(ValueError, match=message):
            benchmark(**options)
    with pytest.raises(TypeError, match="device"):
        benchmark(device="cpu")
    run = benchmark()
    for change, message in (
        ({"labels": [0]}, "labels for each of 16"),
        ({"names": ["x"] * 16}, "different names"),
        ({"gallery": []}, "gallery as different numbers"),
        ({"gallery": [0, 0]}, "gallery as different numbers"),
        ({"gallery": [99]}, "from 0 to 15"),
        ({"views": None}, "expected views"),
        ({"corruptions": ["hail"]}, "among"),
        ({"severities": [7]}, "from 1 to 5"),
        ({"severities": []}, "at least one severity"),
        ({"labels": list(range(16))}, "who are in the gallery"),
        ({"views": ["000"] * 16}, "who are in the gallery"),
    ):
        with pytest.raises(ValueError, match=message):
            run(**{**world, **change})
    with pytest.raises(ValueError, match="an embedding for each"):
        benchmark(lambda clips: torch.zeros(len(list(clips)) + 1, 1, 3))(**world)


def test_the_benchmark_has_fifteen_types_in_five_severities():
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names)) == 15
    assert len(SEVERITIES) == 5
    assert "motion_blur" not in names
