"""Noise schedule, DDIM, U-Net over clips, conditions, new identities, quality of silhouettes."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from torch import nn

from gaitzoo import (
    AppearanceMotionControl,
    DDIMSampler,
    GaitConditioner,
    GaitVideoUNet,
    IdentityTokens,
    NoiseSchedule,
    TemporalAttention,
    coarse_motion,
    interpolate_identities,
    plan_conditions,
    sample_new_identities,
    silhouette_quality,
    within_ranges,
)
from gaitzoo.layers.diffusion import (
    frames_to_signal,
    guided,
    sample_signal,
    signal_to_frames,
    standard_normal,
)


def unet(**options):
    return GaitVideoUNet(channels=(8, 16), cond_dim=12, token_dim=10, groups=4, **options).eval()


def perturb(module):
    """Random weights where layers start as zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return module


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_prediction_without_error_gives_the_clean_signal_back(prediction):
    schedule = NoiseSchedule(1000, prediction=prediction)
    times = torch.arange(0, 1000, 37)
    x = torch.rand(len(times), 6, dtype=torch.float64)
    noise = torch.randn_like(x)
    noisy = schedule.add_noise(x, noise, times)
    found = schedule.predict_x0(noisy, schedule.to_target(x, noise, times), times)
    assert (found - x).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_levels_fall_between_one_and_zero(kind):
    levels = NoiseSchedule(1000, kind).alphas_cumprod
    assert (levels[1:] < levels[:-1]).all()
    assert 0 < levels[-1] < 1e-3
    assert 0.99 < levels[0] < 1
    assert not NoiseSchedule().state_dict()


def test_levels_are_those_of_the_papers():
    """A loop over the definitions."""

    def cosine(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    level, line = 1.0, 1.0
    found, linear = NoiseSchedule(50).alphas_cumprod, NoiseSchedule(1000, "linear").alphas_cumprod
    for t in range(50):
        level *= 1 - min(1 - cosine((t + 1) / 50) / cosine(t / 50), 0.999)
        assert found[t].item() == pytest.approx(level, rel=1e-5)
        line *= 1 - (1e-4 + t * (0.02 - 1e-4) / 999)
        assert linear[t].item() == pytest.approx(line, rel=1e-5)


def test_ddim_with_an_oracle_finds_the_picture_and_is_the_papers_equation():
    schedule, picture = NoiseSchedule(1000), torch.rand(2, 5) * 2 - 1

    def oracle(x, t):
        level = schedule.level(t, x)
        return (x - level.sqrt() * picture) / (1 - level).sqrt()

    start = torch.randn(2, 5)
    for steps in (2, 7, 50):
        found = sample_signal(oracle, DDIMSampler(schedule), start, steps)
        assert torch.allclose(found, picture, atol=1e-3)
    sampler = DDIMSampler(schedule)
    sampler.set_timesteps(10)
    x, noise = 0.3 * torch.randn(2, 5), 0.1 * torch.randn(2, 5)
    now, after = schedule.alphas_cumprod[300], schedule.alphas_cumprod[200]
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    assert clean.abs().max() < 1
    wanted = after.sqrt() * clean + (1 - after).sqrt() * noise
    assert torch.allclose(sampler.step(noise, 300, x).prev_sample, wanted, atol=1e-6)


def test_time_steps_begin_near_pure_noise_whatever_their_number():
    for count, steps in ((1000, 600), (60, 50), (1000, 7), (10, 10)):
        schedule, picture = NoiseSchedule(count), torch.rand(1, 5) * 2 - 1
        sampler = DDIMSampler(schedule)
        sampler.set_timesteps(steps)
        times = sampler.timesteps
        assert len(times) == len(set(times.tolist())) == steps
        assert times[-1] == 0
        assert times[0] >= count - count / steps - 1
        after = schedule.alphas_cumprod[times[1]]
        found = sampler.step(torch.zeros(1, 5), times[0], 0.01 * picture).prev_sample
        clean = 0.01 * picture / schedule.alphas_cumprod[times[0]].sqrt()
        noise = (0.01 * picture - schedule.alphas_cumprod[times[0]].sqrt() * clean.clamp(-1, 1)) / (
            1 - schedule.alphas_cumprod[times[0]]
        ).sqrt()
        wanted = after.sqrt() * clean.clamp(-1, 1) + (1 - after).sqrt() * noise
        assert torch.allclose(found, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="expected one of 10 time steps, got 11"):
        sampler.step(picture, 11, picture)
    with pytest.raises(ValueError, match="guidance as a finite number"):
        guided(picture, picture, math.nan)


def test_sampling_repeats_itself_under_one_seed_and_eta_adds_noise():
    schedule = NoiseSchedule(100)

    def sample(eta, seed):
        generator = torch.Generator().manual_seed(seed)
        noise = standard_normal(torch.empty(1, 64), torch.Generator().manual_seed(0))
        steps = []
        found = sample_signal(
            lambda x, t: 0.9 * x,
            DDIMSampler(schedule, eta),
            noise,
            100,
            generator,
            lambda number, x: steps.append(number),
        )
        assert steps == list(range(1, 101))
        return found

    assert torch.equal(sample(0.0, 1), sample(0.0, 2))
    assert torch.equal(sample(1.0, 1), sample(1.0, 1))
    assert not torch.equal(sample(1.0, 1), sample(1.0, 2))


def test_schedules_of_diffusers_are_read():
    ours = NoiseSchedule(40, prediction="v")
    theirs = SimpleNamespace(
        alphas_cumprod=ours.alphas_cumprod, config=SimpleNamespace(prediction_type="v_prediction")
    )
    read = NoiseSchedule.of_scheduler(theirs)
    assert read.prediction == "v"
    assert torch.equal(read.alphas_cumprod, ours.alphas_cumprod)
    theirs.config.prediction_type = "sample"
    with pytest.raises(ValueError, match='expected prediction "epsilon" or "v"'):
        NoiseSchedule.of_scheduler(theirs)
    with pytest.raises(TypeError, match="expected a scheduler with alphas_cumprod"):
        NoiseSchedule.of_scheduler(object())


@pytest.mark.parametrize("num_frames", [1, 8, 16, 30])
def test_unet_keeps_the_shape_of_any_number_of_frames(num_frames):
    frames = torch.rand(1, 1, num_frames, 16, 11)
    signal = frames_to_signal(frames, 4)
    assert signal.shape[-2:] == (16, 12)
    found = unet()(signal, torch.tensor([3]))
    assert found.shape == signal.shape
    assert torch.allclose(signal_to_frames(signal, (16, 11)), frames, atol=1e-6)


def test_widths_of_44_go_to_48_and_back():
    frames = torch.randint(2, (1, 1, 3, 64, 44)).float()
    signal = frames_to_signal(frames)
    assert signal.shape == (1, 1, 3, 64, 48)
    assert (signal[..., :2] == -1).all()
    assert (signal[..., -2:] == -1).all()
    assert torch.equal(signal_to_frames(signal, (64, 44)), frames)


@torch.no_grad()
def test_fresh_unets_see_frames_apart_and_changed_ones_do_not():
    net, x, t = unet(), torch.randn(1, 1, 4, 8, 8), torch.tensor([30])
    other = x.clone()
    other[:, :, 3] += 1
    assert torch.equal(net(x, t)[:, :, :3], net(other, t)[:, :, :3])
    perturb(net)
    assert not torch.allclose(net(x, t)[:, :, :3], net(other, t)[:, :, :3], atol=1e-4)


@torch.no_grad()
def test_padded_clips_and_batches_give_each_clips_own_numbers(nan_memory):
    net = perturb(unet())
    t, cond, tokens = torch.tensor([5, 900]), torch.randn(2, 12), torch.randn(2, 3, 10)
    x = torch.randn(2, 1, 5, 8, 8)
    x[1, :, 3:] = torch.nan
    maps = [torch.randn(2, 8, 5, 8, 8), torch.randn(2, 16, 5, 4, 4)]
    maps[0][1, :, 3:] = torch.nan
    found = net(x, t, cond, tokens, maps, torch.tensor([5, 3]))
    for i, length in ((0, 5), (1, 3)):
        alone = net(
            x[i : i + 1, :, :length],
            t[i : i + 1],
            cond[i : i + 1],
            tokens[i : i + 1],
            [m[i : i + 1, :, :length] for m in maps],
        )
        assert torch.allclose(found[i : i + 1, :, :length], alone, atol=1e-5)
        assert not found[i, :, length:].any()


@torch.no_grad()
def test_all_that_a_unet_is_told_matters():
    net, x = perturb(unet()), torch.randn(1, 1, 3, 8, 8)
    base = {
        "timesteps": torch.tensor([10]),
        "cond": torch.zeros(1, 12),
        "tokens": torch.randn(1, 3, 10),
        "residuals": [torch.zeros(1, 8, 3, 8, 8), torch.zeros(1, 16, 3, 4, 4)],
    }
    changes = {
        "timesteps": torch.tensor([800]),
        "cond": torch.ones(1, 12),
        "tokens": torch.randn(1, 3, 10),
        "residuals": [torch.ones(1, 8, 3, 8, 8), torch.zeros(1, 16, 3, 4, 4)],
    }
    plain = net(x, **base)
    for name, change in changes.items():
        assert not torch.allclose(plain, net(x, **{**base, name: change}), atol=1e-4), name


@torch.no_grad()
def test_attention_over_time_is_that_of_a_loop():
    block = TemporalAttention(8, 2, groups=2, reach=2, zero_start=False).eval()
    x = torch.randn(1, 8, 5, 2, 1)
    found = block(x, torch.tensor([4]))
    for row in range(2):
        normed = torch.stack([block.norm(x[:, :, t])[0, :, row, 0] for t in range(4)])
        query, key, value = block.to_qkv(normed).view(4, 3, 2, 4).unbind(1)
        for t in range(4):
            heads = []
            for head in range(2):
                scores = [
                    query[t, head] @ key[s, head] / 2 + block.bias[min(max(s - t, -2), 2) + 2, head]
                    for s in range(4)
                ]
                weights = torch.stack(scores).softmax(0)
                heads.append(weights @ value[:, head])
            wanted = x[0, :, t, row, 0] + block.project(torch.cat(heads))
            assert torch.allclose(found[0, :, t, row, 0], wanted, atol=1e-5)


def test_full_sizes():
    with torch.device("meta"):
        base = GaitVideoUNet()
        assert sum(p.numel() for p in base.parameters()) == 59_738_953


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.rand(1, 1, 2, 7, 8)}, "multiples of 2"),
        ({"timesteps": torch.tensor([1, 2])}, r"time steps \[1\]"),
        ({"cond": torch.rand(1, 3)}, r"cond \[1, 12\]"),
        ({"tokens": torch.rand(1, 2, 3)}, r"tokens \[1, S, 10\]"),
        ({"residuals": [torch.rand(1, 8, 2, 8, 8)]}, "expected residuals"),
    ],
)
def test_what_a_unet_cannot_take_is_refused(arguments, message):
    given = {"x": torch.rand(1, 1, 2, 8, 8), "timesteps": torch.tensor([1])} | arguments
    with pytest.raises(ValueError, match=message):
        unet()(**given)


def test_schedules_refuse_what_they_cannot_mean():
    schedule, x = NoiseSchedule(10), torch.rand(2, 3)
    with pytest.raises(ValueError, match=r"time steps in 0\.\.9"):
        schedule.add_noise(x, x, torch.tensor([0, 10]))
    with pytest.raises(ValueError, match="a time step for each"):
        schedule.add_noise(x, x, torch.tensor([0]))
    with pytest.raises(ValueError, match="steps from 2 to 10"):
        DDIMSampler(schedule).set_timesteps(11)
    with pytest.raises(ValueError, match="of the signal's shape"):
        schedule.predict_x0(x, x[:1], torch.tensor([0, 1]))


def test_guidance_of_one_and_zero_are_the_two_predictions():
    null, conditional = torch.randn(4), torch.randn(4)
    assert torch.equal(guided(null, conditional, 1), conditional)
    assert torch.equal(guided(null, conditional, 0), null)


def test_fresh_control_adds_nothing_and_a_trained_one_its_own_frames():
    control = AppearanceMotionControl((8, 16), hidden=4).eval()
    seen = torch.rand(2, 1, 16, 12)
    x = torch.rand(2, 1, 4, 16, 12)
    x[1, :, 2:] = torch.nan
    motion = coarse_motion(x, torch.tensor([4, 2]))
    assert not any(m.any() for m in control(seen, motion))
    perturb(control)
    maps = control(seen, motion)
    alone = control(seen[1:], coarse_motion(x[1:, :, :2]))
    for padded, own in zip(maps, alone, strict=True):
        assert torch.allclose(padded[1:, :, :2], own, atol=1e-6)


def test_motion_is_the_difference_of_tiles():
    x = torch.rand(1, 1, 3, 8, 8)
    found = coarse_motion(x, torch.tensor([2]))
    wanted = x[0, 0, 1, :4, 4:].mean() - x[0, 0, 0, :4, 4:].mean()
    assert found[0, 0, 0, 0, 1].item() == pytest.approx(wanted.item(), abs=1e-6)
    assert not found[:, :, 1:].any()


def test_tokens_say_who_or_nothing():
    tokens = IdentityTokens(6, 4, dim=8, drop=0.5)
    people = torch.rand(200, 4, 6)
    dropped = torch.arange(200) < 2
    found = tokens(people, dropped)
    assert torch.equal(found[0], tokens.null)
    assert not torch.equal(found[2], found[3])
    share = (tokens.train()(people) == tokens.null).all(2).all(1).float().mean()
    assert 0.3 < share < 0.7
    assert not (tokens.eval()(people) == tokens.null).all(2).any()


def test_views_are_periodic_and_differ():
    conditioner = GaitConditioner(dim=16).eval()
    found = conditioner(view=torch.tensor([0.0, 360.0, -90.0, 270.0, 90.0]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.allclose(found[2], found[4])


def test_missing_conditions_are_those_that_are_dropped():
    conditioner = GaitConditioner(num_ids=3, dim=16).eval()
    given = {
        "identity": torch.tensor([2, -1]),
        "view": torch.tensor([18.0, torch.nan]),
        "clothing": torch.tensor([1, 0]),
        "object": torch.tensor([2, 0]),
    }
    nothing = conditioner()
    found = conditioner(**given)
    assert torch.allclose(found[1:], nothing)
    everything = torch.ones(2, 4, dtype=torch.bool)
    assert torch.allclose(conditioner(**given, drop_mask=everything), nothing.expand(2, -1))
    for i, name in enumerate(given):
        mask = torch.zeros(2, 4, dtype=torch.bool)
        mask[:, i] = True
        rest = {key: value for key, value in given.items() if key != name}
        assert torch.allclose(conditioner(**given, drop_mask=mask), conditioner(**rest))


def test_conditions_are_dropped_in_training_only():
    conditioner = GaitConditioner(num_ids=2, dim=8, drop=0.3)
    given = {"identity": torch.zeros(400, dtype=torch.int64), "view": torch.zeros(400)}
    known = conditioner.train().factors(**given) != conditioner.null
    shares = known.any(2).float().mean(0)
    assert 0.4 < shares[0] < 0.6  # kept by itself and with the others: 0.7 * 0.7
    assert torch.equal(conditioner.eval().factors(**given)[0], conditioner.factors(**given)[-1])


def test_rows_of_the_table_and_their_numbers_are_the_same_people():
    conditioner = GaitConditioner(num_ids=3, dim=16, identity_dim=6).eval()
    assert conditioner.identities is not None
    numbers = conditioner(identity=torch.tensor([2, 0]))
    assert torch.equal(numbers, conditioner(identity=conditioner.identities[[2, 0]]))
    embeddings = GaitConditioner(id_dim=8, dim=16).eval()
    parts = torch.rand(2, 2, 4)
    assert torch.equal(embeddings(identity=parts), embeddings(identity=parts.flatten(1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"identity": torch.tensor([3])}, "identity in 0..2 or -1 for unknown"),
        ({"identity": torch.rand(1, 3)}, r"identity \[N\] int64 or \[N, 256\] floats"),
        ({"view": torch.tensor([torch.inf])}, "finite degrees"),
        ({"clothing": torch.tensor([4])}, "clothing in 1..3 or 0"),
        ({"object": torch.tensor([1.0])}, "object .* whole numbers"),
        ({"view": torch.zeros(2), "object": torch.ones(1, dtype=torch.int64)}, "one number"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        GaitConditioner(num_ids=3, dim=8)(**given)


def test_arcs_between_people():
    a, b = F.normalize(torch.randn(2, 7, 5), dim=2)
    assert torch.equal(interpolate_identities(a, b, 0.0), a)
    assert torch.equal(interpolate_identities(a, b, 1.0), b)
    middle = interpolate_identities(a, b, 0.5)
    assert torch.allclose(middle.norm(dim=1), torch.ones(7), atol=1e-5)
    assert torch.allclose(middle, interpolate_identities(b, a, 0.5), atol=1e-5)
    third = interpolate_identities(a, b, torch.full((7,), 0.3))
    angles = torch.stack([(a * third).sum(1), (a * b).sum(1)]).clamp(-1, 1).acos()
    assert torch.allclose(angles[0], 0.3 * angles[1], atol=1e-3)
    assert torch.allclose(interpolate_identities(a, a, 0.4), a, atol=1e-6)
    assert torch.allclose(interpolate_identities(a, b, 0.4, "lerp"), 0.6 * a + 0.4 * b, atol=1e-6)
    with pytest.raises(ValueError, match="opposite"):
        interpolate_identities(a, -a, 0.5)


@pytest.mark.parametrize("people", [2, 3])
def test_new_people_are_no_copies(people):
    bank = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    new = sample_new_identities(bank, 8, 0.85, generator, people=people)
    cosines = F.normalize(new, dim=1) @ F.normalize(bank, dim=1).T
    assert cosines.max() <= 0.85 + 1e-6
    again = sample_new_identities(bank, 8, 0.85, torch.Generator().manual_seed(0), people=people)
    assert torch.equal(new, again)
    with pytest.raises(ValueError, match="room between its people"):
        sample_new_identities(bank[:1].repeat(3, 1) + 0.01 * bank[:3], 2)
    with pytest.raises(ValueError, match="identities finite numbers"):
        sample_new_identities(bank / 0, 2)


def test_plans_have_every_combination_once():
    plan = plan_conditions(torch.rand(3, 4), (0, 18, 36), ((1, 1), (2, 1)), repeats=2)
    assert plan["identity"].shape == (36, 4)
    rows = {
        (round(person[0].item(), 6), view.item(), clothes.item())
        for person, view, clothes in zip(
            plan["identity"], plan["view"], plan["clothing"], strict=True
        )
    }
    assert len(rows) == 18
    again = plan_conditions(torch.arange(2), torch.tensor([0.0, 90.0]))
    assert again["view"].tolist() == [0.0, 90.0] * 2


def test_quality_finds_what_is_odd():
    clips = torch.zeros(3, 4, 12, 10)
    clips[:, :, 2:10, 3:7] = 1
    clips[1, :, ::3, 9] = 1  # specks
    clips[2, 1::2] = 0  # flickers
    found = silhouette_quality(clips)
    assert found["pieces"].tolist() == [1, 5, 0.5]
    assert found["area_change"][2] > 1 > found["area_change"][0]
    good = within_ranges(found, {"pieces": (1, 1.2), "area_change": (0, 0.5)})
    assert good.tolist() == [True, False, False]
    padded = torch.cat([clips, torch.full((3, 2, 12, 10), 1.0)], dim=1)
    again = silhouette_quality(padded, torch.full((3,), 4))
    assert all(torch.allclose(found[name], again[name]) for name in found)
    with pytest.raises(ValueError, match="got height"):
        within_ranges(found, {"height": (0, 1)})


def test_blocks_work_inside_of_a_foreign_network():
    net = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), TemporalAttention(8), nn.Conv3d(8, 1, 1))
    net(torch.rand(1, 2, 3, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in net[2].parameters())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_steps_are_those_of_diffusers(betas, prediction):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule=betas,
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=prediction,
    )
    schedule = NoiseSchedule.of_scheduler(theirs)
    own = NoiseSchedule(1000, "linear" if betas == "linear" else "cosine")
    assert relative_error(own.alphas_cumprod, theirs.alphas_cumprod) < 1e-6
    sample, output = torch.randn(2, 2, 1, 3, 8, 8)
    times = torch.tensor([10, 700])
    added = theirs.add_noise(sample, output, times)
    assert relative_error(schedule.add_noise(sample, output, times), added) < 1e-6
    sampler = DDIMSampler(schedule)
    sampler.set_timesteps(20)
    theirs.set_timesteps(20)
    assert sampler.timesteps.tolist() == theirs.timesteps.tolist()
    for time in (950, 500, 0):
        wanted = theirs.step(output, time, sample, use_clipped_model_output=True).prev_sample
        assert relative_error(sampler.step(output, time, sample)[0], wanted) < 1e-6


# Of diffusers itself, with new versions of numpy.
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_schedulers_of_every_kind_find_the_picture_of_an_oracle(name):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)()
    schedule, picture = NoiseSchedule.of_scheduler(scheduler), torch.rand(1, 1, 8, 8) * 2 - 1
    spreads = []

    def oracle(x, t):
        level = schedule.level(t, x)
        noise = (x - level.sqrt() * picture) / (1 - level).sqrt()
        spreads.append(noise.std().item())
        return noise

    torch.manual_seed(0)
    found = sample_signal(oracle, scheduler, torch.randn(1, 1, 8, 8), 20)
    assert (found - picture).abs().max() < 0.05
    # What the network sees is as noisy as it was in training.
    assert 0.5 < min(spreads[:10]) <= max(spreads[:10]) < 1.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_levels_keep_their_digits_when_networks_get_fewer(dtype):
    schedule, picture = NoiseSchedule(1000), torch.rand(1, 6) * 2 - 1
    levels = schedule.alphas_cumprod.clone()
    assert torch.equal(schedule.to(dtype).alphas_cumprod, levels)

    def oracle(x, t):
        level = schedule.level(t, x)
        return ((x - level.sqrt() * picture) / (1 - level).sqrt()).to(dtype)

    found = sample_signal(oracle, DDIMSampler(schedule), torch.randn(1, 6).to(dtype), 20)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), picture, atol=0.05)
    x, t = picture.to(dtype), torch.tensor([3])
    assert schedule.add_noise(x, x, t).dtype == schedule.to_target(x, x, t).dtype == dtype
    assert schedule.predict_x0(x, x, t).dtype == dtype
