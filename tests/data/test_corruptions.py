"""Corruptions against the published ones, and what they promise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import fill
from safetensors.torch import load_file

from gaitzoo.data.corrupt_blur import DefocusBlur, MotionBlur, pad_mirrored
from gaitzoo.data.corrupt_time import Freeze
from gaitzoo.data.corrupt_weather import LowLight, Occlusion, blob_occluder
from gaitzoo.data.corruptions import (
    CORRUPTIONS,
    GROUPS,
    SEVERITIES,
    SILHOUETTE_CORRUPTIONS,
    RandomCorruption,
    SilhouetteCorruption,
    corruption,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "robustgait_corruptions"
DOC = json.loads(GOLDEN.with_suffix(".json").read_text())
TENSORS = load_file(GOLDEN.with_suffix(".safetensors"))
CASES = {case["id"]: case for case in DOC["cases"]}
BENCHMARK = tuple(name for group in GROUPS.values() for name in group)


def clip(T, h, w, key):  # noqa: N803 - as in the golden file
    maps = fill.smooth_maps(1, T, 3, h, w, key)[0]
    return (255 * maps + 0.5).floor().to(torch.uint8).permute(0, 2, 3, 1)


def seeded(number):
    return torch.Generator().manual_seed(number)


def cases_of(*names):
    return [case for case in CASES if case.partition("/")[0] in names]


def levels_off(result, name):
    assert result.shape == TENSORS[name].shape
    return (result.int() - TENSORS[name].int()).abs()


def psnr(video, clean):
    error = float((video.double() - clean.double()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


# Where a value lies between two levels, float32 and float64 may cut it differently.
@pytest.mark.parametrize(
    "name",
    cases_of(
        "defocus_blur", "low_light", "zoom_blur", "zoom_blur_wide", "zoom_blur_tall", "zoom_in"
    ),
)
def test_deterministic_corruptions_are_the_published_ones(name):
    case = CASES[name]
    video = clip(**case["clip"])
    off = levels_off(corruption(case["corruption"], case["severity"], upstream=True)(video), name)
    assert off.max() <= 1
    assert off.float().mean() < 0.05


@pytest.mark.parametrize("name", cases_of("snow"))
def test_snow_is_the_published_one(name):
    case = CASES[name]
    off = levels_off(
        corruption("snow", case["severity"], upstream=True)(clip(**case["clip"])), name
    )
    # A hue between two 8-bit steps may fall to either.
    assert off.max() <= 5
    assert (off > 1).float().mean() < 1e-3


@pytest.mark.parametrize("name", cases_of("motion_blur"))
def test_motion_blur_is_the_published_one(name):
    case = CASES[name]
    blur = MotionBlur(case["severity"])
    frames = clip(**case["clip"]).permute(0, 3, 1, 2).float() / 255
    result = [blur.smear(f, angle) for f, angle in zip(frames, case["angles"], strict=True)]
    result = (torch.stack(result) * 255 + 1e-3).floor().permute(0, 2, 3, 1)
    assert levels_off(result, name).max() <= 1


@pytest.mark.parametrize("name", cases_of("gaussian_noise", "speckle_noise"))
def test_noise_is_the_published_one_for_its_random_numbers(name):
    case = CASES[name]
    noise = corruption(case["corruption"], case["severity"])
    state = np.random.RandomState(case["seed"])

    def drawn(like):
        frames, channels, height, width = like.shape[1:]
        values = [state.normal(size=(height, width, channels)) for _ in range(frames)]
        return torch.from_numpy(np.stack(values)).permute(0, 3, 1, 2)[None].to(like)

    noise.normal = drawn
    assert levels_off(noise(clip(**case["clip"])), name).max() <= 1


def test_an_occluder_is_pasted_as_published():
    case = CASES["occlusion"]
    height, width = case["object"]["h"], case["object"]["w"]
    x, y = fill._grid(height, width)
    mask = ((x - 0.1) / 0.45) ** 2 + ((y - 0.55) / 0.33) ** 2 <= 1
    thing = clip(1, height, width, case["object"]["key"])[0].permute(2, 0, 1)
    alpha = 255 * torch.from_numpy(mask.astype(np.uint8)).reshape(1, height, width)
    result = Occlusion(3, occluder=torch.cat([thing, alpha]))(clip(**case["clip"]))
    # Pillow rounds to bytes after each axis, and the result of torch is cut to [0, 1].
    off = levels_off(result, "occlusion")
    assert off.max() <= 8
    assert (off > 1).float().mean() < 0.03


@pytest.mark.parametrize("severity", SEVERITIES)
def test_kernels_and_masks_are_the_published_ones(severity):
    wanted = TENSORS[f"defocus_kernel/{severity}"]
    torch.testing.assert_close(DefocusBlur(severity).kernel().float(), wanted, rtol=0, atol=1e-7)
    white = torch.full((1, 384, 256, 3), 255, dtype=torch.uint8)
    mask = LowLight(severity, upstream=True)(white)[0, ::16, ::16, 0]
    assert torch.equal(mask, TENSORS[f"low_light_mask/{severity}"])


@pytest.mark.parametrize("name", [n for n in DOC["summary"]["rows"] if n in BENCHMARK[:12]])
def test_strength_is_the_published_one(name):
    video = clip(**DOC["summary"]["clip"])
    rows = DOC["summary"]["rows"][name]
    for severity, row in zip(SEVERITIES, rows, strict=True):
        result = corruption(name, severity, upstream=True, generator=seeded(1))(video)
        strength = psnr(result, video)
        if row["psnr"] is None:
            assert strength == math.inf
            continue
        # Few impulses on a small clip and few drops and wisps: their number is random.
        tolerance = {"fog": 1.0, "impulse_noise2": 0.3}.get(name, 0.2)
        assert abs(strength - row["psnr"]) < tolerance
        assert abs(float(result.float().mean()) - row["mean"]) < 1.1
        assert abs(float(result.float().std()) - row["std"]) < 0.5


@pytest.mark.parametrize("name", list(DOC["noise_levels"]["table"]))
def test_noise_on_plain_grey_is_as_published(name):
    doc = DOC["noise_levels"]
    for severity, rows in zip(SEVERITIES, doc["table"][name], strict=True):
        for level, row in zip(doc["levels"], rows, strict=True):
            grey = torch.full((4, 3, 128, 128), level, dtype=torch.uint8)
            result = corruption(name, severity, generator=seeded(level))(grey)
            found = [
                float(result.float().mean()),
                float(result.float().std()),
                float((result == 0).float().mean()),
                float((result == 255).float().mean()),
            ]
            assert found[:2] == pytest.approx(row[:2], abs=1.2), (severity, level)
            assert found[2:] == pytest.approx(row[2:], abs=0.006), (severity, level)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_has_the_published_strength_on_large_frames(severity):
    video = clip(1, 240, 320, "fog")
    result = corruption("fog", severity, generator=seeded(severity))(video)
    assert abs(psnr(result, video) - (37, 34, 32, 31, 28)[severity - 1]) < 1.5


@pytest.mark.parametrize(
    "case",
    DOC["temporal"],
    ids=lambda c: f"{c['corruption']}-{c['severity']}-{c['T']}-{c.get('seed')}",
)
def test_lost_frames_are_the_published_ones(case, monkeypatch):
    numbers = torch.arange(float(case["T"])).div(64).reshape(-1, 1, 1, 1)
    if case["corruption"] == "freeze":
        kept = sorted(set(case["frames"]))
        drawn = Freeze(case["severity"], upstream=True)._kept(case["T"])
        assert len(kept) in (drawn, drawn + 1)
        chosen = torch.tensor(kept[-drawn:] if len(kept) >= drawn else kept)
        rest = [n for n in range(case["T"]) if n not in chosen]
        order = torch.cat([chosen, torch.tensor(rest, dtype=torch.long)])
        monkeypatch.setattr(torch, "randperm", lambda count, generator: order)
    result = corruption(case["corruption"], case["severity"], upstream=True)(numbers)
    assert (result.flatten() * 64).long().tolist() == case["frames"]


VIDEOS = {
    "bytes": torch.randint(256, (5, 3, 40, 28), dtype=torch.uint8, generator=seeded(0)),
    "floats": torch.rand(2, 5, 3, 28, 40, generator=seeded(1)),
    "one frame": torch.rand(1, 3, 33, 20, generator=seeded(2)),
    "as read": torch.randint(256, (2, 30, 50, 3), dtype=torch.uint8, generator=seeded(3)),
    "grey": torch.rand(3, 1, 24, 16, generator=seeded(4)),
    "tiny": torch.rand(2, 3, 2, 1, generator=seeded(5)),
    "half": torch.rand(2, 3, 24, 16, generator=seeded(6)).half(),
}


@pytest.mark.parametrize("video", VIDEOS.values(), ids=VIDEOS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_type_and_range_stay(name, video):
    for severity in SEVERITIES:
        before = video.clone()
        result = corruption(name, severity, generator=seeded(7))(video)
        assert result.shape == video.shape
        assert result.dtype == video.dtype
        assert torch.equal(video, before)
        if video.is_floating_point():
            assert result.min() >= 0
            assert result.max() <= 1
        again = corruption(name, severity, generator=seeded(7))(video)
        assert torch.equal(result, again)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_both_orders_of_axes_are_one_video(name):
    video = VIDEOS["bytes"]
    first = corruption(name, 3, generator=seeded(0))(video)
    last = corruption(name, 3, generator=seeded(0))(video.movedim(1, 3))
    assert torch.equal(first, last.movedim(3, 1))


@pytest.mark.parametrize("severity", [0, 6, 2.0, "3", None, True])
def test_other_severities_are_refused(severity):
    for name in CORRUPTIONS:
        with pytest.raises(ValueError, match="from 1 to 5"):
            corruption(name, severity)


def test_what_is_no_video_is_refused():
    noise = corruption("gaussian_noise", 1)
    with pytest.raises(TypeError, match=r"as a torch\.Tensor"):
        noise(np.zeros((2, 3, 4, 4)))
    with pytest.raises(TypeError, match="int64"):
        noise(torch.zeros(2, 3, 4, 4, dtype=torch.long))
    for shape in ((3, 4, 4), (2, 4, 4, 4), (0, 3, 4, 4)):
        with pytest.raises(ValueError, match="expected a video"):
            noise(torch.zeros(shape))
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        noise(torch.full((2, 3, 4, 4), 255.0))
    with pytest.raises(ValueError, match="NaN"):
        noise(torch.full((2, 3, 4, 4), float("nan")))
    with pytest.raises(ValueError, match="expected a corruption among"):
        corruption("hail", 1)
    with pytest.raises(ValueError, match="above 0 pixels"):
        corruption("low_light", 1, radius=0)
    for occluder in (torch.ones(3, 4, 4), lambda *_: np.ones((4, 4, 4))):
        with pytest.raises(ValueError, match="expected an occluder"):
            corruption("occlusion", 1, occluder=occluder)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="share"):
        blob_occluder(4, 4, share=1.5)


@pytest.mark.parametrize("name", [*GROUPS["digital"], "motion_blur", "low_light", "fog"])
def test_each_severity_is_worse_than_the_one_before(name):
    # Blotches of all sizes, as in photographs.
    source = seeded(0)
    video = torch.zeros(6, 3, 240, 320)
    for cells in (4, 8, 16, 32, 64):
        coarse = torch.randn(1, 3, cells, cells, generator=source) / cells**0.5
        video += torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic")
    video = (255 * torch.sigmoid(2 * video)).to(torch.uint8)
    if name == "zoom_in":  # one frame has no zoom
        video = video[:4]
    elif name != "fog":
        video = video[:1]
    if name == "zoom_blur":
        video = video[..., :120, :100]
    strengths = [psnr(corruption(name, s, generator=seeded(s))(video), video) for s in SEVERITIES]
    assert strengths == sorted(strengths, reverse=True)
    assert len(set(strengths)) == 5


def test_upstream_brightens_low_light_and_softens_freeze():
    video = clip(1, 240, 320, "low")
    means = [float(LowLight(s, upstream=True)(video).float().mean()) for s in SEVERITIES]
    assert means == sorted(means)
    assert means[0] < means[4]
    assert Freeze(5, upstream=True)._kept(60) > Freeze(4, upstream=True)._kept(60)
    assert Freeze(5)._kept(60) < Freeze(4)._kept(60)


def test_impulses_are_as_many_as_said():
    grey = torch.full((1, 3, 200, 200), 0.5)
    for name, shares in (
        ("impulse_noise", (0.03, 0.06, 0.09, 0.17, 0.27)),
        ("impulse_noise2", (0.01, 0.03, 0.05, 0.09, 0.11)),
    ):
        for severity, share in zip(SEVERITIES, shares, strict=True):
            result = corruption(name, severity, generator=seeded(severity))(grey)
            for value in (0.0, 1.0):
                found = float((result == value).float().mean())
                sigma = math.sqrt(share / 2 * (1 - share / 2) / grey.numel())
                assert abs(found - share / 2) < 3 * sigma


def test_noise_has_the_variance_of_its_law():
    grey = torch.full((1, 3, 200, 200), 0.5)
    for severity, sigma in ((1, 0.08), (2, 0.12)):
        # Before anything is cut off at 0 and 1.
        off = corruption("gaussian_noise", severity, generator=seeded(0)).corrupt(grey[None]) - 0.5
        assert float(off.std()) == pytest.approx(sigma, rel=0.01)
        off = corruption("speckle_noise", severity, generator=seeded(0)).corrupt(grey[None]) - 0.5
        assert float(off.std()) == pytest.approx((0.075, 0.1)[severity - 1], rel=0.01)
    for severity, quanta in zip(SEVERITIES, (250, 100, 50, 30, 15), strict=True):
        result = corruption("shot_noise", severity, generator=seeded(0)).corrupt(grey[None])
        assert float(result.var()) == pytest.approx(0.5 / quanta, rel=0.02)
        assert float(result.mean()) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_lost_frames_are_held(count):
    video = torch.rand(count, 3, 8, 8)
    for severity, rate in zip(SEVERITIES, (2, 4, 8, 16, 32), strict=True):
        sampled = corruption("sampling", severity)(video)
        left = [n for n in range(count) if n % rate == 0]
        assert len(left) == -(-count // rate)
        for number, frame in enumerate(sampled):
            assert torch.equal(frame, video[number // rate * rate])
        longer = corruption("sampling", severity, upstream=True)(video)
        assert len(longer) == -(-count // rate) * rate
        frozen = corruption("freeze", severity, generator=seeded(severity))(video)
        where = [int((video == frame).flatten(1).all(1).nonzero()[0]) for frame in frozen]
        assert where[0] == 0
        assert where == sorted(where)
        assert all(place <= number for number, place in enumerate(where))
        assert len(set(where)) <= Freeze(severity)._kept(count) + 1


def test_a_maximum_over_time_sees_the_surviving_frames_only():
    video = torch.rand(20, 3, 8, 8)
    per_frame = torch.nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        for name in ("freeze", "sampling"):
            result = corruption(name, 3, generator=seeded(0))(video)
            survivors = torch.stack([f for f in video if (result == f).flatten(1).all(1).any()])
            torch.testing.assert_close(per_frame(result).amax(0), per_frame(survivors).amax(0))


def test_zoom_in_starts_with_the_frame_itself_and_magnifies_the_last():
    video = torch.zeros(3, 1, 40, 40)
    video[:, :, 18:22, 18:22] = 1
    result = corruption("zoom_in", 5)(video)
    assert torch.equal(result[0], video[0])
    assert float(result[2].sum() / video[2].sum()) == pytest.approx(3.5**2, rel=0.1)


def test_rain_falls_unless_it_is_drawn_anew():
    grey = torch.full((3, 3, 80, 60), 0.2)

    def drops(upstream):
        return corruption("rain", 1, generator=seeded(0), upstream=upstream)(grey)

    one = drops(False)
    # Drops are 10 pixels long and fall by as much; away from the edges where they enter.
    fallen = [one[1].roll((0, -10 % 80), (0, 1)), one[0]]
    assert torch.allclose(fallen[0][:, 15:60].sum(), fallen[1][:, 15:60].sum(), rtol=0.05)
    assert not torch.equal(drops(True)[1], drops(True)[0])


def test_snow_leaves_what_it_does_not_reach():
    video = VIDEOS["bytes"]
    result = corruption("snow", 3)(video)
    assert torch.equal(result[:, :, :24], video[:, :, :24])
    bright = video.float().amax(1) + video.float().amin(1) >= 2 * 105
    kept = bright[:, None].expand_as(video).clone()
    kept[:, :, :24] = True
    assert torch.equal(result[kept], video[kept])
    # The others keep their hue.
    changed = (result != video).any(1)
    assert changed[:, 24:].any()
    order = video.float().argmax(1) == result.float().argmax(1)
    assert order[changed].float().mean() > 0.95


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blobs_cover_their_share_in_all_frames(severity):
    result = corruption("occlusion", severity, generator=seeded(0))(
        torch.full((4, 3, 50, 40), 2e-3)
    )
    covered = result != 2e-3
    assert float(covered.float().mean()) == pytest.approx(severity / 10, abs=1e-3)
    assert torch.equal(covered[0], covered[3])


def test_mirrors_go_on_where_frames_are_small():
    frames = torch.rand(2, 3, 5, 7)
    wanted = torch.nn.functional.pad(frames, (2, 4, 2, 4), mode="reflect")
    assert torch.equal(pad_mirrored(frames, 2, 4), wanted)
    row = np.pad(frames[0, 0, 0].numpy(), (20, 13), mode="reflect")
    assert np.array_equal(pad_mirrored(frames[..., :1, :], 20, 13)[0, 0, 0].numpy(), row)


@pytest.mark.parametrize("name", SILHOUETTE_CORRUPTIONS)
def test_silhouettes_are_corrupted_as_grey_videos(name):
    silhouettes = torch.randint(2, (2, 12, 16, 11), generator=seeded(0), dtype=torch.uint8) * 255
    result = SilhouetteCorruption(name, 4, generator=seeded(1))(silhouettes)
    assert result.shape == silhouettes.shape
    assert result.dtype == torch.uint8
    assert not torch.equal(result, silhouettes)
    if name != "occlusion":
        video = corruption(name, 4, generator=seeded(1))(silhouettes[:, :, None])
        assert torch.equal(result, video[:, :, 0])
    else:
        assert bool((result <= silhouettes).all())  # something in front is background
    floats = SilhouetteCorruption(name, 4, generator=seeded(1))(silhouettes / 255)
    assert torch.equal((floats * 255).round().to(torch.uint8), result)


def test_silhouettes_have_no_weather():
    with pytest.raises(ValueError, match="need the video"):
        SilhouetteCorruption("fog", 1)
    with pytest.raises(ValueError, match="expected silhouettes"):
        SilhouetteCorruption("freeze", 1)(torch.zeros(4, 4))
    with pytest.raises(TypeError, match="ndarray"):
        SilhouetteCorruption("freeze", 1)(np.zeros((4, 4, 4)))


def test_the_policy_draws_as_often_as_it_says():
    made = []

    class Marked(torch.nn.Module):
        def __init__(self, name, severity, generator=None):
            super().__init__()
            self.drawn = (name, severity)

        def forward(self, sequence):
            made.append(self.drawn)
            return sequence + 1

    policy = RandomCorruption(0.75, make=Marked, generator=seeded(0))
    sequence = torch.zeros(1)
    changed = sum(float(policy(sequence)) for _ in range(4000)) / 4000
    assert changed == pytest.approx(0.75, abs=0.03)
    names, severities = zip(*made, strict=True)
    assert set(names) == set(BENCHMARK)
    for name in BENCHMARK:
        assert names.count(name) / len(names) == pytest.approx(1 / 15, abs=0.02)
    for severity, chance in ((1, 0.6), (2, 0.3), (3, 0.1)):
        assert severities.count(severity) / len(names) == pytest.approx(chance, abs=0.03)


def test_the_policy_repeats_and_knows_silhouettes():
    silhouettes = torch.rand(12, 16, 11)

    def drawn():
        policy = RandomCorruption(1.0, make=SilhouetteCorruption, generator=seeded(3))
        return torch.stack([policy(silhouettes) for _ in range(5)])

    assert torch.equal(drawn(), drawn())
    assert RandomCorruption(make=SilhouetteCorruption).names == SILHOUETTE_CORRUPTIONS
    assert RandomCorruption(0.0)(silhouettes) is silhouettes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.5}, "chance"),
        ({"weights": (1.0,)}, "weight"),
        ({"weights": (0, 0, 0)}, "weight"),
        ({"names": ()}, "at least one"),
        ({"names": ("hail",)}, "among"),
        ({"severities": (1, 2, 9)}, "from 1 to 5"),
    ],
)
def test_a_wrong_policy_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomCorruption(**arguments)
