"""GaitCrafter and CoD2: guidance, gradients, weights of guesses, and that tiny ones learn."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import (
    CoD2,
    CoD2Loss,
    DDIMSampler,
    DiffusionLoss,
    GaitConditioner,
    GaitCrafter,
    GaitOutput,
    GaitVideoUNet,
    IdentityConsistencyLoss,
    NoiseSchedule,
    PretrainedNotAvailable,
)
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss

LABELS = torch.tensor([0, 0, 1, 1])


def crafter(**options):
    unet = GaitVideoUNet(channels=(8, 16), cond_dim=16, blocks=1, groups=4)
    conditioner = GaitConditioner(num_ids=2, dim=16, identity_dim=8)
    return GaitCrafter(unet, conditioner, input_size=(16, 11), **options)


def collaboration(num_classes=3, **options):
    extractor = gaitzoo.create_model("gaitbase_tiny", num_classes=num_classes)
    unet = GaitVideoUNet(channels=(8, 16), cond_dim=8, token_dim=8, blocks=1, groups=4)
    return CoD2(extractor, unet, token_dim=8, **options)


def told(model, **options):
    """A batch with all that is random in its place."""
    clips = (torch.rand(4, 5, 16, 12) > 0.5).float()
    given = {
        "timesteps": torch.tensor([10, 399, 400, 900]),
        "noise": torch.randn(4, 1, 5, 16, 12),
        "reference": clips[:, 0],
    }
    return model(clips, **(given | options))


class Rememberer(nn.Module):
    """A network of diffusion that knows the one clip there is."""

    def __init__(self, clip, schedule):
        super().__init__()
        self.clip, self.schedule, self.stride = clip, schedule, 2

    def forward(self, x, t, cond=None, tokens=None, residuals=None, lengths=None):
        level = self.schedule.level(t, x)
        return (x - level.sqrt() * (2 * self.clip - 1)) / (1 - level).sqrt()


def test_sampling_with_an_oracle_gives_the_clip():
    clip, schedule = torch.rand(1, 1, 3, 16, 12), NoiseSchedule()
    model = GaitCrafter(
        Rememberer(clip, schedule), GaitConditioner(dim=4), schedule, input_size=(16, 12)
    )
    found = model.eval().sample(num_frames=3, steps=20)
    assert torch.allclose(found, clip[:, 0], atol=1e-3)


def test_any_scheduler_with_three_methods_serves():
    schedule = NoiseSchedule(50)
    ours = DDIMSampler(schedule)
    theirs = SimpleNamespace(
        alphas_cumprod=schedule.alphas_cumprod,
        config=SimpleNamespace(prediction_type="epsilon"),
        add_noise=schedule.add_noise,
        set_timesteps=lambda steps, device: ours.set_timesteps(steps, device),
        step=ours.step,
        timesteps=torch.tensor([40, 30, 20, 10, 0]),
    )
    torch.manual_seed(1)
    one = crafter(schedule=theirs).eval()
    other = crafter(schedule=schedule).eval()
    other.load_state_dict(one.state_dict())
    found, wanted = (
        m.sample(num_frames=2, steps=5, generator=torch.Generator().manual_seed(0))
        for m in (one, other)
    )
    assert torch.equal(found, wanted)
    with pytest.raises(TypeError, match="without set_timesteps"):
        crafter(schedule=object())


def test_guidance_of_gaitcrafter():
    model, noise = crafter().eval(), torch.randn(2, 1, 3, 16, 12)
    conditions = {"identity": torch.tensor([0, 1]), "view": torch.tensor([0.0, 90.0])}

    def sample(guidance, given=conditions):
        return model.sample(given, 3, 4, guidance, noise=noise)

    conditional, null = sample(1.0), sample(0.0)
    unknown = {"identity": torch.tensor([-1, -1])}
    assert torch.allclose(null, sample(1.0, unknown), atol=1e-5)
    assert not torch.allclose(null, conditional, atol=1e-4)
    assert torch.allclose(sample((2.0, 2.0)), sample(2.0), atol=1e-4)
    assert torch.allclose(sample((1.0, 0.0)), sample(1.0, {"identity": torch.arange(2)}), atol=1e-4)


def test_gaitcrafter_in_padded_batches_gives_each_clips_own_numbers(nan_memory):
    model = crafter().eval()
    clips, noise = torch.rand(2, 5, 16, 11), torch.randn(2, 1, 5, 16, 12)
    clips[1, 3:] = torch.nan
    t, views = torch.tensor([100, 700]), torch.tensor([0.0, 90.0])
    found = model(clips, {"view": views}, torch.tensor([5, 3]), t, noise)
    alone = model(clips[1:, :3], {"view": views[1:]}, None, t[1:], noise[1:, :, :3])
    assert relative_error(found.pred[1:, :, :3], alone.pred) < 1e-5
    assert relative_error(found.x0_pred[1:, :3], alone.x0_pred) < 1e-5
    assert not found.x0_pred[1, 3:].any()
    both = DiffusionLoss()(found)
    errors = [(found.pred[0] - found.target[0]).square().mean(), DiffusionLoss()(alone)]
    assert torch.allclose(both, torch.stack(errors).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        ({"identiy": torch.tensor([0])}, ValueError, "among identity, view, clothing, object"),
        ({"view": 90.0}, TypeError, r"view as a tensor \[N\], got float"),
        ({"view": torch.zeros(0)}, ValueError, "of one sequence or more"),
        ({"identity": torch.tensor([0])}, ValueError, "conditions of 2 sequences, got 1"),
    ],
)
def test_conditions_that_gaitcrafter_does_not_know_are_refused(conditions, error, message):
    with pytest.raises(error, match=message):
        crafter()(torch.rand(2, 3, 16, 11), conditions)


def test_weights_by_signal_to_noise():
    model = crafter()
    clips, t = torch.rand(2, 3, 16, 11), torch.tensor([20, 800])
    output = model(clips, timesteps=t, noise=torch.randn(2, 1, 3, 16, 12))
    errors = (output.pred - output.target).square().mean((1, 2, 3, 4))
    ratio = output.weight / (1 - output.weight)
    assert ratio[0] > 5 > ratio[1]
    wanted = (errors * torch.stack([5 / ratio[0], torch.tensor(1.0)])).mean()
    assert torch.allclose(DiffusionLoss(min_snr=5)(output), wanted, rtol=1e-5)


def test_a_recogniser_can_watch_over_identities():
    extractor = gaitzoo.create_model("gaitbase_tiny", num_classes=0)
    loss = IdentityConsistencyLoss(extractor).train()
    model = GaitCrafter(crafter().denoiser, crafter().conditioner, input_size=(16, 12))
    clips = (torch.rand(2, 3, 16, 12) > 0.5).float()
    output = model(clips, timesteps=torch.tensor([50, 300]))
    found = loss(output, clips)
    assert 0 < found < 1
    found.backward()
    assert model.denoiser.stem.weight.grad.any()
    assert not extractor.training
    with pytest.raises(TypeError, match="reads silhouettes"):
        IdentityConsistencyLoss(nn.Linear(1, 1))


def test_two_people_are_learned_and_exchanging_them_exchanges_the_walks():
    """The claim of the paper in small: samples are of the person who was asked for."""
    clips = torch.zeros(2, 2, 8, 6)
    for frame in range(2):
        clips[0, frame, 1:7, 2 + frame : 3 + frame] = 1  # thin
        clips[1, frame, 1:7, 1 - frame : 5 - frame] = 1  # wide, the other way
    model = GaitCrafter(
        GaitVideoUNet(channels=(8, 16), cond_dim=16, blocks=1, groups=4, spatial_levels=0),
        GaitConditioner(num_ids=2, dim=16, identity_dim=8),
        NoiseSchedule(prediction="v"),
        input_size=(8, 6),
    )
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    people, losses = torch.arange(2).repeat(4), []
    for _ in range(150):
        loss = DiffusionLoss()(model(clips[people], {"identity": people}))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    wanted = torch.tensor([0, 1, 1, 0])
    generator = torch.Generator().manual_seed(0)
    made = model.eval().sample({"identity": wanted}, 2, 20, 3.0, generator) > 0.5
    known = clips > 0.5
    shared = (made[:, None] & known).sum((2, 3, 4)) / (made[:, None] | known).sum((2, 3, 4))
    assert shared.argmax(1).tolist() == wanted.tolist()


def test_in_eval_mode_cod2_is_its_extractor():
    model = collaboration().eval()
    clips, lengths = torch.rand(3, 6, 16, 12), torch.tensor([6, 2, 4])
    wanted = model.extractor(clips, lengths)
    del model.denoiser, model.control, model.tokens
    found = model(clips, lengths)
    assert isinstance(found, GaitOutput)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.logits, wanted.logits)


def test_the_extractor_is_saved_and_loaded_alone(tmp_path):
    model = collaboration().eval()
    model.extractor.save_pretrained(tmp_path)
    again = gaitzoo.create_model(f"local-dir:{tmp_path}").eval()
    clips = torch.rand(2, 3, 16, 12)
    assert torch.equal(again(clips).embeddings, model(clips).embeddings)


@pytest.mark.parametrize("detached", [False, True])
def test_the_error_of_the_noise_teaches_the_extractor(detached):
    model = collaboration(detach_condition=detached, drop=0.0).train()
    output = told(model)
    (output.noise_pred - output.noise_target).square().mean().backward()
    grads = [p.grad for p in model.extractor.parameters() if p.grad is not None]
    assert any(g.any() for g in grads) is not detached
    assert model.tokens.project.weight.grad.any()


def test_guesses_count_below_t_max_by_their_share_of_signal():
    model = collaboration(t_max=0.4).train()
    output = told(model)
    levels = model.schedule.alphas_cumprod
    assert torch.allclose(
        output.gen_weight, torch.stack([levels[10], levels[399], *[levels[0] * 0] * 2])
    )
    assert output.x0_pred.shape == (4, 5, 16, 12)
    assert 0 <= output.x0_pred.min() <= output.x0_pred.max() <= 1


def test_weights_scale_the_gradient_of_each_guess():
    model = collaboration().train()
    output = told(model, timesteps=torch.tensor([10, 200, 300, 390]))
    entropy = PartCrossEntropyLoss()
    nothing = PartTripletLoss(margin=0.0)
    loss = CoD2Loss(lambda_diff=0, lambda_gen=1, triplet=nothing)
    generated = loss.terms(output, LABELS)["generated"]
    wanted = (entropy(output.gen_logits, LABELS) + nothing(output.gen_embeddings, LABELS)).item()
    assert generated.item() == pytest.approx(wanted, rel=1e-5)
    (found,) = torch.autograd.grad(generated, output.gen_logits, retain_graph=True)
    (plain,) = torch.autograd.grad(
        entropy(output.gen_logits, LABELS), output.gen_logits, retain_graph=True
    )
    assert torch.allclose(found, output.gen_weight[:, None, None] * plain, atol=1e-8)


def test_without_guesses_the_loss_is_that_of_plain_joint_training():
    model = collaboration().train()
    output = told(model)
    plain = PartTripletLoss()(output.embeddings, LABELS)
    plain = plain + PartCrossEntropyLoss()(output.logits, LABELS)
    plain = plain + (output.noise_pred - output.noise_target).square().mean()
    assert torch.allclose(CoD2Loss(lambda_gen=0)(output, LABELS), plain, rtol=1e-5)
    # Two guesses count here, both of person 0: no triplets by themselves, some with true walks.
    mixed, alone = (
        CoD2Loss(mix=mix).terms(output, LABELS)["generated"].item() for mix in (True, False)
    )
    entropy = PartCrossEntropyLoss()(output.gen_logits[:2], LABELS[:2]).item()
    assert alone == pytest.approx(entropy, rel=1e-5)
    assert mixed > alone


@pytest.mark.parametrize("detached", [False, True])
def test_guesses_teach_the_extractor_and_unless_detached_the_denoiser(detached):
    model = collaboration(detach_generated=detached).train()
    told(model, timesteps=torch.tensor([5, 10, 20, 30])).gen_embeddings.square().sum().backward()
    assert model.extractor.part_fc.weight.grad.any()
    grad = model.denoiser.stem.weight.grad
    assert (grad is not None and bool(grad.any())) is not detached


def test_guesses_leave_statistics_alone_unless_told_otherwise():
    moved = {}
    for kept in (True, False):
        torch.manual_seed(0)
        model = collaboration(keep_statistics=kept).train()
        told(model)
        norm = next(m for m in model.extractor.modules() if isinstance(m, nn.BatchNorm2d))
        moved[kept] = int(norm.num_batches_tracked)
        assert norm.training
    assert moved == {True: 1, False: 2}


def test_long_and_padded_clips_give_pieces_of_their_own_frames(nan_memory):
    model = collaboration(num_classes=0, frames=4).train()
    clips = torch.rand(3, 9, 16, 12)
    clips[1, 3:], clips[2, 7:] = torch.nan, torch.nan
    output = model(clips, torch.tensor([9, 3, 7]))
    assert output.lengths.tolist() == [4, 3, 4]
    assert output.logits is None
    assert all(
        x.isfinite().all() for x in (output.noise_pred, output.x0_pred, output.gen_embeddings)
    )
    assert not output.x0_pred[1, 3:].any()
    CoD2Loss()(output, torch.tensor([0, 1, 1])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_guidance_and_lengths_of_generated_walks():
    model = collaboration().eval()
    clips, lengths = torch.rand(2, 5, 16, 12), torch.tensor([5, 3])
    clips[1, 3:] = torch.nan
    noise = torch.randn(2, 1, 5, 16, 12)

    def make(guidance):
        return model.generate(clips, lengths, 3, guidance, noise=noise)

    assert not torch.allclose(make(1.0), make(0.0), atol=1e-4)
    alone = model.generate(clips[1:, :3], None, 3, noise=noise[1:, :, :3])
    assert torch.allclose(make(2.0)[1:, :3], alone, atol=1e-4)
    assert not make(2.0)[1, 3:].any()
    # Tokens that say nothing are the prediction without conditions.
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.tokens.place.copy_(silent.tokens.null)
        silent.tokens.norm.weight.zero_()
    found = silent.generate(clips, lengths, 3, 1.0, noise=noise)
    assert torch.allclose(found, make(0.0), atol=1e-5)
    with pytest.raises(ValueError, match="expected eval mode"):
        model.train().generate(clips)


def test_identity_tokens_are_used_by_a_trained_denoiser():
    """Exchanging the people that the denoiser is told of raises its error."""
    clips = torch.zeros(2, 1, 16, 12)
    clips[0, :, 2:14, 4:6] = 1
    clips[1, :, 2:14, 2:10] = 1
    model = collaboration(control_channels=(), drop=0.0, t_max=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    labels, loss_of, errors = torch.arange(2).repeat(4), CoD2Loss(lambda_gen=0), []
    for _ in range(80):
        terms = loss_of.terms(model(clips[labels]), labels)
        optimizer.zero_grad()
        (terms["recognition"] + terms["diffusion"]).backward()
        optimizer.step()
        errors.append(terms["diffusion"].item())
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])
    model.eval()
    labels = labels.repeat(8)
    signal, t = 2 * clips[labels, None] - 1, torch.full((64,), 850)
    noise = torch.randn_like(signal)
    noisy = model.schedule.add_noise(signal, noise, t)
    with torch.no_grad():
        tokens = model.tokens(model.extractor(clips[labels]).embeddings)
        own, other = (
            (model.denoiser(noisy, t, tokens=x) - noise).square().mean()
            for x in (tokens, tokens.flip(0))
        )
    assert other > 1.05 * own


def test_names_build_and_nobody_has_weights():
    with pytest.raises(PretrainedNotAvailable, match="weights of CoD2"):
        gaitzoo.cod2(pretrained=True)
    with pytest.raises(PretrainedNotAvailable, match="weights of GaitCrafter"):
        gaitzoo.gaitcrafter(pretrained=True)
    with pytest.raises(ValueError, match="size as one of base, small"):
        gaitzoo.gaitcrafter("huge")
    with torch.device("meta"):
        model = gaitzoo.cod2(num_classes=100)
        crafted = gaitzoo.gaitcrafter(num_ids=74)
        small = gaitzoo.gaitcrafter("small", num_ids=74)
    assert model.extractor.architecture == "deepgaitv2_p3d"
    counts = [
        sum(p.numel() for p in m.parameters()) for m in (model, model.denoiser, crafted, small)
    ]
    assert counts == [39_871_849, 26_099_497, 60_159_305, 15_143_113]


def test_what_cod2_cannot_use_is_refused():
    unet = GaitVideoUNet(channels=(8, 16), cond_dim=8, token_dim=8)
    with pytest.raises(TypeError, match="reads silhouettes"):
        CoD2(gaitzoo.create_model("skeletongait_tiny"), unet)
    extractor = gaitzoo.create_model("gaitbase_tiny")
    with pytest.raises(ValueError, match="control_channels"):
        CoD2(extractor, nn.Identity())
    with pytest.raises(ValueError, match="t_max from 0 to 1"):
        CoD2(extractor, unet, t_max=2)
    with pytest.raises(TypeError, match=r"call \.train"):
        CoD2Loss()(extractor.eval()(torch.rand(2, 3, 16, 12)), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="expected reference"):
        told(collaboration().train(), reference=torch.rand(4, 8, 8))
