"""GaitRDAE, a reconstruction: the network without blocks at first, structure, what is learned."""

import pytest
import torch
import torch.nn.functional as F
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import GaitRDAE, RDAEBlock, RegionBalanceLoss, ResidualBlock3d
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.testing.trial import reset_statistics

TINY = {"layers": (1, 1, 1, 1), "channels": (2, 8, 8, 5), "part_bins": (4,), "reduction": 4}


@torch.no_grad()
def test_at_first_it_is_the_network_without_blocks_whose_weights_fit():
    base = make("gaitbase_tiny", channels=(2, 8, 8, 5), layers=(1, 1, 1, 1))
    model = GaitRDAE(**TINY, num_classes=5).eval()
    left = model.load_state_dict(base.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert {key.partition(".")[0] for key in left.missing_keys} == {"rdae"}
    clips, lengths = torch.rand(2, 5, 16, 12), torch.tensor([5, 2])
    found, wanted = model(clips, lengths), base(clips, lengths)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.logits, wanted.logits)


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments",
    [
        {"stages_with_rdae": (1, 4), "use_rda": False},
        {"mode": "3d", "per_frame": True, "hard": True},
        {"mode": "p3d", "use_rde": False, "embedding": "bnneck"},
    ],
)
def test_variants_keep_the_length_law_and_are_fused(arguments):
    model = GaitRDAE(**TINY, **arguments, num_classes=3, zero_init_last=False).eval()
    reset_statistics(model)
    clips, lengths = torch.rand(2, 5, 16, 12), torch.tensor([5, 2])
    clips[1, 2:] = float("nan")
    output, reports = model.forward_regions(clips, lengths)
    assert torch.equal(output.embeddings, model(clips, lengths).embeddings)
    assert tuple(reports) == model.model_args.get("stages_with_rdae", (2, 3))
    for report in reports.values():
        assert report.regions.shape[:3] == (2, 4, 5)
        assert (report.receptive_fields is None) is (not arguments.get("use_rda", True))
        assert (report.weights is None) is (not arguments.get("use_rde", True))
    for i, length in enumerate(lengths):
        alone = model(clips[i : i + 1, :length]).embeddings
        assert relative_error(output.embeddings[i], alone[0]) < 1e-5
    fused = gaitzoo.fuse_for_inference(model)
    assert relative_error(fused(clips, lengths).embeddings, output.embeddings) < 1e-5
    assert fused.unfused_norms == ("neck.bn",)
    names = ["backbone.stem", "backbone.layers.0.0", "rdae.2", "rdae.3", "backbone.layers.3.0"]
    if "stages_with_rdae" not in arguments:
        assert list(model.feature_modules) == names


class ThreeD(nn.Module):
    """A stage of one's own: plain convolutions over space and time."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x, lengths=None):
        return F.leaky_relu(self.conv(x))


@torch.no_grad()
def test_stages_may_be_handed_over(tmp_path):
    stages = nn.ModuleList([ThreeD(1, 4), ResidualBlock3d(4, 8, stride=2)])
    model = GaitRDAE(
        num_classes=3,
        backbone=stages,
        backbone_channels=(4, 8),
        channels=(1, 1, 6),
        stages_with_rdae=(1, 2),
        part_bins=(4,),
        reduction=2,
        zero_init_last=False,
    ).eval()
    clips = torch.rand(2, 5, 16, 12)
    clips[1, 2:] = float("nan")
    found = model(clips, torch.tensor([5, 2])).embeddings
    assert found.shape == (2, 4, 6)
    assert relative_error(found[1], model(clips[1:, :2]).embeddings[0]) < 1e-5
    with pytest.raises(ValueError, match="a ModuleList as backbone"):
        model.save_pretrained(tmp_path / "out")


def test_published_width_has_the_stated_parameters_and_no_numbers():
    with torch.device("meta"):
        model = gaitzoo.create_model("gait_rdae", num_classes=0).eval()
    blocks = sum(p.numel() for p in model.rdae.parameters())
    assert (sum(p.numel() for p in model.parameters()), blocks) == (11_610_650, 180_058)
    for tag in gaitzoo.list_tags("gait_rdae"):
        cfg = gaitzoo.model_info(f"gait_rdae.{tag}")
        assert (cfg.fidelity, dict(cfg.metrics)) == ("reconstruction", {})
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("gait_rdae", pretrained=True)


# ---------------------------------------------------------------------- what is learned


def test_a_few_identities_are_learned_by_heart():
    model = GaitRDAE(**TINY, num_classes=3).train()
    clips, labels = torch.rand(6, 6, 16, 12), torch.tensor([0, 0, 1, 1, 2, 2])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    triplet, entropy, balance = PartTripletLoss(), PartCrossEntropyLoss(), RegionBalanceLoss()
    for _ in range(25):
        output, reports = model.forward_regions(clips)
        loss = triplet(output.embeddings, labels) + entropy(output.logits, labels)
        loss = loss + 0.01 * sum(balance(report.regions) for report in reports.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(output.logits.mean(1).argmax(1), labels)
    assert any(bool((report.weights != 0).any()) for report in reports.values())


def fitted_weights(half_with_code):
    """Weights of a still upper and a moving lower half, one of which has the number to be told.

    Both are textures times a number of the clip. The number of the other half is noise, as clothes
    are.
    """
    torch.manual_seed(0)
    n, t, h, w = 4, 8, 6, 5
    first, last = nn.Conv3d(1, 8, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(8, 1, 1)
    block = RDAEBlock(8, use_rda=False, num_regions=2, reduction=2)
    optimizer = torch.optim.Adam(nn.ModuleList([first, block, last]).parameters(), 0.02)
    for _ in range(150):
        still = torch.rand(n, 1, 1, h, w).expand(-1, -1, t, -1, -1)
        halves, numbers = [still, torch.rand(n, 1, t, h, w)], torch.rand(2, n, 1, 1, 1, 1)
        x = torch.cat([2 * a * b for a, b in zip(halves, numbers, strict=True)], dim=3)
        y, report = block(F.relu(first(x)), return_regions=True)
        told = last(y).mean((2, 3, 4))
        loss = F.mse_loss(told, numbers[half_with_code].view(n, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = torch.einsum("nr,nrthw->nthw", report.weights, report.regions).detach()
    return weights[:, :, :h].mean().item(), weights[:, :, h:].mean().item()


def test_a_moving_half_that_tells_something_is_raised_over_a_still_one_and_not_otherwise():
    """Measured: -0.02 and -0.51; where the still half has the number, -0.04 and -0.04."""
    still, moving = fitted_weights(half_with_code=1)
    assert moving > still + 0.2
    still, moving = fitted_weights(half_with_code=0)
    assert moving < still + 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stages_with_rdae": (5,)}, ValueError, "stages_with_rdae from 1 to 4, each once"),
        ({"stages_with_rdae": (2, 2)}, ValueError, "each once"),
        ({"stages_with_rdae": (0,)}, ValueError, "positive whole numbers"),
        ({"use_rda": False, "use_rde": False}, ValueError, "use_rda, use_rde or both"),
        ({"backbone": nn.Conv3d(1, 2, 3)}, TypeError, "backbone as an nn.ModuleList of stages"),
        ({"backbone": nn.ModuleList([ThreeD(1, 2)])}, ValueError, "backbone_channels as a tuple"),
        (
            {"backbone": nn.ModuleList([ThreeD(1, 2)]), "backbone_channels": (2, 3)},
            ValueError,
            "backbone_channels of 1 stages, got 2 numbers",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(arguments, error, message):
    with pytest.raises(error, match=message):
        GaitRDAE(**{**TINY, **arguments})
