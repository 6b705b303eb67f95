import numpy as np
import pytest
import torch

import gaitzoo
from gaitzoo import check_silhouettes, normalize_silhouettes
from gaitzoo.synthetic import render_walk, sample_identity


def walk(person=0, frames=30, size=(160, 200)):
    identity = sample_identity(900 + person)
    return render_walk(identity, frames=frames, size=size, aligned=False).silhouettes


def kinds(report):
    return [finding.kind for finding in report.findings]


@pytest.mark.parametrize(
    "make", [lambda x: x, normalize_silhouettes, lambda x: normalize_silhouettes(x)[..., 10:54]]
)
def test_clean_clips_have_no_findings(make):
    report = check_silhouettes(make(walk()))
    assert report.findings == ()
    assert report.is_usable
    assert report.is_clean
    assert report.worst_frames == ()
    assert "fine" in str(report)


@pytest.mark.filterwarnings("error")
def test_findings_are_listed_not_warned_of():
    frames = walk()
    frames[4] = 0
    frames[7:9, 3:5, 3:5] = 255
    both = torch.maximum(frames, frames.roll(80, 2))
    report = check_silhouettes(255 - both)
    assert kinds(report)[0] in ("inverted", "several bodies")
    assert {"inverted", "several bodies", "empty frames"} <= {*kinds(report)}
    assert report.summary() == "doubtful"
    assert report.is_usable
    assert not report.is_clean
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, reverse=True)  # warnings before notes
    assert 4 not in report.worst_frames
    by_kind = {finding.kind: finding for finding in report.findings}
    assert by_kind["empty frames"].frames == (4,)


REFUSED = {
    "class ids": walk() // 255 * 3,
    "grey picture": (walk().float() * 0.4 + 100).to(torch.uint8),
    "empty": torch.zeros(5, 64, 44),
    "values": walk().float(),
    "faint": walk() / 255 / 255,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_models_refuse_is_a_finding(kind):
    report = check_silhouettes(REFUSED[kind])
    assert kinds(report) == [kind]
    assert report.summary() == "refused"
    assert not report.is_usable
    assert f"refused  {kind}: expected" in str(report)


def test_other_shapes_are_a_finding():
    report = check_silhouettes(torch.zeros(64, 44))
    assert (report.num_frames, report.size, kinds(report)) == (0, (0, 0), ["values"])


def test_other_types_raise():
    with pytest.raises(TypeError, match="tensor or numpy array"):
        check_silhouettes([[1]])


def test_notes_on_clips_that_models_take():
    frames = walk(frames=12)
    assert kinds(check_silhouettes(frames)) == ["short"]
    low = torch.cat([frames] * 3)[:, :110]
    report = check_silhouettes(low)
    assert report.is_clean
    assert "cut off" in kinds(report)
    assert kinds(check_silhouettes(walk(size=(40, 60)))) == ["small"]
    flickering = torch.cat([frames] * 3)
    flickering[20, 70:] = 0
    by_kind = {finding.kind: finding for finding in check_silhouettes(flickering).findings}
    assert by_kind["flicker"].frames == (20, 21)


def test_frames_are_worded_in_ranges():
    frames = walk()
    frames[[0, 1, 2, 9, 20, 21]] = 0
    assert "[frames 0-2, 9, 20-21]" in str(check_silhouettes(frames))


def test_the_size_of_the_model_counts():
    ready = walk(size=(128, 88))
    ready = normalize_silhouettes(ready, 128)[..., 20:108]
    assert check_silhouettes(ready, input_size=(128, 88)).findings == ()
    assert gaitzoo.check_silhouettes(np.asarray(ready)).is_clean
