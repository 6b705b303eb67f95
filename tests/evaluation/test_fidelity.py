"""Gait of generated videos: restoration and transfer of identity."""

import json
import math
from urllib.error import URLError

import pytest
import torch

import gaitzoo
from gaitzoo import CopyAnimator, FreezeAnimator, GaitFidelity, make_transfer_pairs, video_quality
from gaitzoo.evaluation.fidelity import dprime
from gaitzoo.evaluation.open_set import verification_errors
from gaitzoo.metrics import mean_average_precision, part_distances, rank_k

PEOPLE, CLIPS = 6, 3


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


@pytest.fixture
def world(generator):
    """Clips of people ``[N, 3, T, H, W]`` with a look and a motion of their own."""
    look = torch.rand(PEOPLE, 3, 1, 4, 4, generator=generator) / 2
    motion = torch.rand(PEOPLE, 1, 5, 4, 4, generator=generator) / 2
    noise = torch.rand(PEOPLE, CLIPS, 3, 5, 4, 4, generator=generator) / 50
    clips = (look + motion)[:, None].repeat(1, CLIPS, 1, 1, 1, 1) * 0.98 + noise
    labels = [f"p{i}" for i in range(PEOPLE) for _ in range(CLIPS)]
    return clips.flatten(0, 1), labels


def moving(clips):
    """Differences of frames alone."""
    return (clips[:, :, 1:] - clips[:, :, :-1]).flatten(1)[:, None]


def still(clips):
    """The mean frame alone."""
    return (clips.mean(2)).flatten(1)[:, None]


def transfer(animator, clips, labels, embedder, **given):
    pairs = make_transfer_pairs(labels, seed=3)
    drives, looks = (list(side) for side in zip(*pairs, strict=True))
    made = animator.animate(clips[looks, :, 0], clips[drives])
    return GaitFidelity(embedder, **given).identity_transfer(
        made,
        clips,
        [labels[i] for i in drives],
        [labels[i] for i in looks],
        labels,
        motion_sources=drives,
        appearance_sources=looks,
    )


def test_a_copy_loses_nothing(world):
    clips, labels = world
    copy = CopyAnimator().animate(clips[:, :, 0], clips)
    quality = video_quality(
        clips.repeat(1, 1, 1, 4, 4), copy.repeat(1, 1, 1, 4, 4), ("ssim", "psnr")
    )
    report = GaitFidelity(still).restoration(clips, copy, labels, quality=quality)
    row = report.rows[0]
    assert row.rank1["gen2real"] == row.rank1["real2real"] == row.rank1["gen2gen"]
    assert row.mean_ap["gen2real"] == row.mean_ap["real2real"]
    assert row.ratio == 1.0
    assert row.quality["ssim"] == pytest.approx(1.0, abs=1e-5)
    assert row.quality["psnr"] == math.inf
    assert row.own_distance == pytest.approx(0, abs=1e-6)
    assert row.genuine_percentile == row.impostor_percentile == 0
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["rows"][0]["quality"]["psnr"] is None
    assert "inf" in str(report)


def test_scores_of_restoration_are_those_of_the_library(generator):
    real = torch.randn(12, 2, 4, generator=generator)
    made = real + torch.randn(12, 2, 4, generator=generator)
    labels = [i // 3 for i in range(12)]
    views = [i % 3 for i in range(12)]
    conditions = ["wild" if i % 2 else "lab" for i in range(12)]
    tool = GaitFidelity(normalized=False, bootstrap=20)
    report = tool.restoration(real, made, labels, conditions=conditions, views=views)
    distances = part_distances(made, real)
    excluded = torch.tensor(
        [[i == j or views[i] == views[j] for j in range(12)] for i in range(12)]
    )
    assert [row.condition for row in report.rows] == ["all", "lab", "wild"]
    for row in report.rows:
        kept = [i for i in range(12) if row.condition in ("all", conditions[i])]
        people = [labels[i] for i in kept]
        given = distances[kept], people, labels
        wanted = rank_k(*given, (1, 5), excluded[kept])
        assert (row.rank1["gen2real"], row.rank5["gen2real"]) == pytest.approx(wanted)
        precision = mean_average_precision(*given, excluded[kept])
        assert row.mean_ap["gen2real"] == pytest.approx(precision)
        assert row.eer == pytest.approx(verification_errors(*given, excluded[kept]).eer())
        own = distances.diagonal()[kept].double()
        assert row.own_distance == pytest.approx(float(own.mean()))
        between = part_distances(real, real).double()
        pairs = [(i, j) for i in range(12) for j in range(12) if not excluded[i, j]]
        for same, found in ((True, row.genuine_percentile), (False, row.impostor_percentile)):
            others = [between[i, j] for i, j in pairs if (labels[i] == labels[j]) == same]
            below = [sum(other < d for other in others) / len(others) for d in own]
            assert found == pytest.approx(100 * sum(below) / len(below))
        assert row.interval[0] <= row.rank1["gen2real"] <= row.interval[1]


def test_a_condition_without_matches_has_no_rates(generator):
    real, made = torch.randn(2, 5, 2, 4, generator=generator)
    labels, conditions = [0, 0, 1, 1, 2], ["a", "a", "a", "a", "alone"]
    rows = GaitFidelity(bootstrap=5).restoration(real, made, labels, conditions=conditions).rows
    plain = GaitFidelity().restoration(real[:4], made[:4], labels[:4]).rows[0]
    assert rows[2].num_clips == 1
    assert all(map(math.isnan, (rows[2].rank1["gen2real"], rows[2].eer, rows[2].ratio)))
    assert 0 <= rows[1].eer <= 1
    # The fifth clip is somebody whom others may be taken for.
    assert rows[1].rank1["gen2real"] <= plain.rank1["gen2real"]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_leakage_falls_from_picture_to_motion(generator, metric):
    moves, looks = torch.randn(2, 8, 1, 64, generator=generator)
    gallery = moves + looks
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    drive, look = (list(side) for side in zip(*pairs, strict=True))
    found = []
    for alpha in (0.0, 0.3, 0.5, 0.7, 1.0):
        made = alpha * moves[drive] + (1 - alpha) * looks[look]
        report = GaitFidelity(metric=metric).identity_transfer(
            made, gallery, drive, look, list(range(8))
        )
        found.append(report.rows[0])
    leakage = [row.leakage for row in found]
    assert leakage[0] == 1.0
    assert leakage[-1] == 0.0
    assert leakage == sorted(leakage, reverse=True)
    assert [row.motion_nearer for row in found] == sorted(row.motion_nearer for row in found)


def test_leakage_is_a_half_between_equal_sides():
    moves, looks = torch.eye(16)[:, None].split(8)
    # Each pair comes both ways round: of equal distances the first of the gallery wins.
    drive, look = zip(*((i, j) for i in range(8) for j in range(8) if i != j), strict=True)
    made = (moves[list(drive)] + looks[list(look)]) / 2
    row = GaitFidelity().identity_transfer(made, moves + looks, drive, look, list(range(8))).rows[0]
    assert (row.leakage, row.motion_nearer, row.motion_rank1) == (0.5, 0.5, 0.5)


def test_frozen_videos_have_no_motion_to_find(world):
    clips, labels = world
    row = transfer(FreezeAnimator(), clips, labels, still).rows[0]
    assert row.appearance_rank1 == 1.0
    assert row.leakage == 1.0
    # All frozen clips are alike to it: zeros, as near to one as to the other.
    row = transfer(FreezeAnimator(), clips, labels, moving, normalized=False).rows[0]
    assert row.motion_rank1 <= 2 / PEOPLE
    row = transfer(CopyAnimator(), clips, labels, moving).rows[0]
    assert (row.motion_rank1, row.leakage, row.motion_nearer) == (1.0, 0.0, 1.0)


def test_sources_in_the_gallery_change_nothing(world):
    clips, labels = world
    made = clips[:2] * 0.5 + clips[[5, 7]] * 0.5
    given = {"motion_ids": labels[:2], "appearance_ids": [labels[5], labels[7]]}
    tool = GaitFidelity(still)
    others = [2, *range(3, 18)]
    others = [i for i in others if i not in (5, 7)]
    without = tool.identity_transfer(
        made, clips[others], gallery_ids=[labels[i] for i in others], **given
    )
    excluded = tool.identity_transfer(
        made[:1].repeat(1, 1, 1, 1, 1),
        clips[[0, 5, *others]],
        gallery_ids=[labels[i] for i in (0, 5, *others)],
        motion_ids=labels[:1],
        appearance_ids=[labels[5]],
        motion_sources=[0],
        appearance_sources=[1],
    )
    alone = tool.identity_transfer(
        made[:1],
        clips[others],
        gallery_ids=[labels[i] for i in others],
        motion_ids=labels[:1],
        appearance_ids=[labels[5]],
    )
    assert excluded.to_dict() == alone.to_dict()
    assert without.rows[0].num_clips == 2


def test_order_and_names_change_nothing(world, generator):
    clips, labels = world
    made = clips + torch.rand(clips.shape, generator=generator)
    tool = GaitFidelity(still)
    report = tool.restoration(clips, made, labels)
    order = torch.randperm(len(labels), generator=generator).tolist()
    names = {name: number * 7 + 3 for number, name in enumerate(reversed(dict.fromkeys(labels)))}
    shuffled = tool.restoration(clips[order], made[order], [names[labels[i]] for i in order])
    assert shuffled.rows[0].rank1 == report.rows[0].rank1
    assert shuffled.rows[0].eer == report.rows[0].eer
    assert shuffled.rows[0].own_distance == pytest.approx(report.rows[0].own_distance)


def test_pairs_are_of_two_people_and_the_same_for_a_seed():
    names = ["a", "a", "b", "c", "c"]
    pairs = make_transfer_pairs(names, seed=2)
    assert pairs == make_transfer_pairs(names, seed=2)
    assert [drives for drives, _ in pairs] == [0, 1, 2, 3, 4]
    assert all(names[drives] != names[looks] for drives, looks in pairs)
    assert len({tuple(make_transfer_pairs(names, seed=seed)) for seed in range(9)}) > 1
    only = make_transfer_pairs(names, constraint=lambda drives, looks: looks == 2)
    assert only == [(0, 2), (1, 2), (3, 2), (4, 2)]
    with pytest.raises(ValueError, match="two people or more that may be paired, got 1 people"):
        make_transfer_pairs(["a", "a"])


def test_errors_of_equal_distributions_and_dprime_by_hand():
    distances = torch.tensor([[0.1, 0.1], [0.1, 0.1]])
    assert verification_errors(distances, [0, 1], [0, 1]).eer() == 0.5
    assert dprime(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == pytest.approx(8**0.5)
    with pytest.raises(ValueError, match="two numbers or more"):
        dprime(torch.ones(1), torch.ones(3))


@torch.no_grad()
def test_a_model_gives_the_same_in_batches_and_nearly_in_half_precision(generator):
    model = gaitzoo.create_model("gaitset_tiny", num_classes=0).eval()
    clips = [torch.rand(4 + i % 3, 16, 12, generator=generator) for i in range(8)]
    made = [(clip + torch.rand(clip.shape, generator=generator)) / 2 for clip in clips]
    labels = [i // 2 for i in range(8)]
    whole, pieces = (
        GaitFidelity(model, progress=False, batch_frames=frames).restoration(clips, made, labels)
        for frames in (None, 5)
    )
    assert pieces.rows[0].rank1 == whole.rows[0].rank1
    assert pieces.rows[0].own_distance == pytest.approx(whole.rows[0].own_distance, rel=1e-5)
    embedded = [gaitzoo.embed(model, side, progress=False).half() for side in (clips, made)]
    half = GaitFidelity().restoration(*embedded, labels)
    assert half.rows[0].rank1["gen2real"] == pytest.approx(
        whole.rows[0].rank1["gen2real"], abs=0.01
    )


def test_tables_and_picture(world, tmp_path):
    clips, labels = world
    report = transfer(CopyAnimator(), clips, labels, still, bootstrap=10)
    assert "leakage" in str(report)
    assert "100.0" in str(report)
    report.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert len(report.to_dict()["rows"][0]["motion_curve"]) == 20
    conditions = ["a"] * 9 + ["b"] * 9
    table = str(GaitFidelity(still).restoration(clips, clips, labels, conditions=conditions))
    assert [line.split()[0] for line in table.splitlines()[2:11:3]] == ["all", "a", "b"]
    assert [line.split()[1] for line in table.splitlines()[2:11:3]] == ["real2real"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0] * 5}, "real for each of 5 labels, got 4"),
        ({"generated": torch.rand(3, 1, 2)}, "generated for each of 4 labels, got 3"),
        ({"conditions": ["a"]}, "conditions for each of 4"),
        ({"conditions": ["all", "a", "a", "a"]}, 'conditions other than "all"'),
        ({"quality": {"ssim": torch.ones(2)}}, "ssim for each of 4"),
        ({"labels": [0, 1, 2, 3]}, "match in the gallery, got none"),
        ({"generated": torch.full((4, 1, 2), torch.nan)}, "finite"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    given = {"real": torch.rand(4, 1, 2), "generated": torch.rand(4, 1, 2), "labels": [0, 0, 1, 1]}
    with pytest.raises(ValueError, match=message):
        GaitFidelity().restoration(**{**given, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"appearance_ids": [0, 0]}, "two people per generated clip"),
        ({"appearance_ids": [1]}, "appearance_ids for each of 2"),
        ({"motion_sources": [0, 4]}, r"motion_sources from -1 \(none\) to 3"),
        ({"motion_sources": [0]}, "motion_sources as a whole number for each of 2"),
        ({"gallery_ids": [0, 0, 0, 0]}, "match in the gallery|besides the sources"),
    ],
)
def test_transfers_that_cannot_be_are_refused(change, message):
    given = {
        "generated": torch.rand(2, 1, 2),
        "gallery": torch.rand(4, 1, 2),
        "motion_ids": [0, 0],
        "appearance_ids": [1, 1],
        "gallery_ids": [0, 0, 1, 1],
    }
    with pytest.raises(ValueError, match=message):
        GaitFidelity().identity_transfer(**{**given, **change})


def test_clips_without_an_embedder_are_refused(world):
    clips, labels = world
    with pytest.raises(TypeError, match="give an embedder for clips"):
        GaitFidelity().restoration(list(clips), clips, labels)
    with pytest.raises(ValueError, match="a model with batch_frames"):
        GaitFidelity(still, batch_frames=3)


def test_videos_that_cannot_be_compared_are_refused(monkeypatch):
    videos = torch.rand(1, 3, 2, 16, 16)
    for real, made, message in (
        (videos, videos[:, :, :1], "of one shape"),
        (videos * 2, videos, r"real videos as floats in \[0, 1\]"),
        (videos, videos * torch.nan, "generated videos as floats"),
        (videos[0], videos, "expected real videos"),
    ):
        with pytest.raises(ValueError, match=message):
            video_quality(real, made)
    with pytest.raises(ValueError, match="metrics among ssim, psnr, lpips, got mse"):
        video_quality(videos, videos, ("mse",))
    with pytest.raises(ValueError, match="a tuple of metrics among ssim, psnr, lpips, got 'ssim'"):
        video_quality(videos, videos, "ssim")
    with pytest.raises(ValueError, match="11 x 11 pixels or more for ssim"):
        video_quality(videos[..., :9], videos[..., :9], ("ssim",))
    with pytest.raises(ValueError, match="reference for each driving video and of its size"):
        CopyAnimator().animate(videos[:, :, 0, :8], videos)
    with pytest.raises(ValueError, match=r"expected reference \[N, 3, H, W\]"):
        FreezeAnimator().animate(videos, videos)
    with pytest.raises(ValueError, match=r"got \[1, 3, 16, 16\] and \[1, 3, 0, 16, 16\]"):
        FreezeAnimator().animate(videos[:, :, 0], videos[:, :, :0])


def test_missing_weights_of_lpips_are_named(monkeypatch):
    pytest.importorskip("torchmetrics")

    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    videos = torch.rand(1, 3, 1, 64, 64)
    with pytest.raises(OSError, match="torchvision's weights of AlexNet for lpips, got none"):
        video_quality(videos, videos, ("lpips",))
