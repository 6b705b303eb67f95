"""RRS-Gait, a reconstruction: what its embeddings survive, structure, rules."""

import pytest
import torch
import torch.nn.functional as F
from builders import make
from conftest import relative_error
from torch import nn

import gaitzoo
from gaitzoo import ResidualBlock3d, RRSBranch, RRSGait, RRSHead, replace_convs
from gaitzoo.synthetic import render_walk, sample_identity
from gaitzoo.testing.trial import reset_statistics

TINY = {"layers": (1, 1, 1, 1), "channels": (2, 3, 4, 5), "num_classes": 0}


def mirrored(x):
    return x.flip(-1)


def turned(x):
    return x.rot90(1, (-2, -1))


def heads(**arguments):
    head = RRSHead(4, 6, **arguments).eval()
    reset_statistics(head)
    return head.double()


def walks(size=(64, 44)):
    clips = [
        render_walk(sample_identity(i), frames=5, view=view, size=size).silhouettes
        for i, view in enumerate((60.0, 90.0))
    ]
    return torch.stack(clips).double() / 255


# ---------------------------------------------------------------------- invariance, with controls


@torch.no_grad()
@pytest.mark.parametrize("mode", ["p3d", "2d"])
def test_parts_of_the_reflect_branch_survive_a_mirrored_map_and_others_do_not(mode):
    x, lengths = torch.rand(2, 4, 5, 8, 7, dtype=torch.float64), torch.tensor([5, 3])
    head = heads(mode=mode, num_bands=4, depth=2)
    found, wanted = head(mirrored(x), lengths), head(x, lengths)
    reflect, rotate, scale = (
        relative_error(a, b) for a, b in zip(found.split(5, 1), wanted.split(5, 1), strict=True)
    )
    assert reflect < 1e-10
    assert min(rotate, scale) > 0.01


@torch.no_grad()
def test_global_parts_survive_quarter_turns_and_bands_do_not():
    x = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    rotate = {"branches": ("rotate",), "angles": (0, 90, 180, 270)}
    for pool, survives in (("global", True), ("hpp", False)):
        head = heads(**rotate, pool=pool, num_bands=4)
        assert (relative_error(head(turned(x)), head(x)) < 1e-10) is survives
    head = heads(branches=("rotate",), angles=(0,), pool="global")
    assert relative_error(head(turned(x)), head(x)) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("width", [44, 43, 36])
def test_mirrored_walks_have_the_same_embedding_in_a_network_of_reflected_kernels(width):
    """The measured effect: exact with all three measures, lost without any of them."""
    x, errors = walks((64, width)), {}
    for kernels in ("reflect", "plain"):
        for downsample in ("avg", "stride"):
            torch.manual_seed(0)
            model = RRSGait(**TINY, branches=("reflect",), downsample=downsample).eval()
            if kernels == "reflect":
                replace_convs(model, "reflect", lambda _, conv: type(conv).__name__ == "Conv2d")
            reset_statistics(model)
            model.double()
            found, wanted = model(mirrored(x)).embeddings, model(x).embeddings
            errors[kernels, downsample] = relative_error(found, wanted)
    assert errors["reflect", "avg"] < 1e-10
    assert min(errors["plain", "avg"], errors["plain", "stride"]) > 0.01
    # A step of 2 is symmetric where both widths are odd: 43, then 22; 44, then 22; 36, then 18.
    assert errors["reflect", "stride"] > 1e-4


@torch.no_grad()
def test_rolled_silhouettes_move_pooled_features_a_fifth_less_with_turned_kernels():
    """Roll by 15 degrees: from 3.7 to 3.0 % of the features, mean of four random networks."""
    sine, cosine = 0.5 * (2 - 3**0.5) ** 0.5, 0.5 * (2 + 3**0.5) ** 0.5
    matrix = torch.tensor([[[cosine, -sine, 0], [sine, cosine, 0]]], dtype=torch.float64)
    x = walks((64, 64)).flatten(0, 1)[:, None]
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), x.shape, align_corners=True)
    rolled, moved = F.grid_sample(x, grid, align_corners=True), {}
    for angles in ((0,), (-15, 0, 15)):
        moved[angles] = 0.0
        for seed in range(4):
            torch.manual_seed(seed)
            convs = [gaitzoo.RotateConv2d(c, 16, angles=angles) for c in (1, 16, 16)]
            network = nn.Sequential(*(m for conv in convs for m in (conv, nn.ReLU()))).double()
            before, after = (network(images).mean((2, 3)) for images in (x, rolled))
            change = (after - before).norm(dim=1) / before.norm(dim=1)
            moved[angles] += change.mean().item() / 4
    assert moved[-15, 0, 15] < 0.9 * moved[0,]


# ---------------------------------------------------------------------- structure


@torch.no_grad()
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [({}, 51), ({"pool": "global"}, 3), ({"pool": "hpp", "branches": ("scale", "reflect")}, 32)],
)
def test_parts_and_classes_are_as_many_as_stated(arguments, parts):
    model = RRSGait(**{**TINY, "num_classes": 7}, **arguments).eval()
    output = model(torch.rand(2, 4, 64, 44), torch.tensor([4, 1]))
    assert output.embeddings.shape == (2, parts, 4)
    assert output.logits.shape == (2, parts, 7)
    for height, width, frames in ((63, 37, 1), (61, 44, 2)):
        assert model(torch.rand(1, frames, height, width)).embeddings.shape == (1, parts, 4)


def test_published_width_gives_256_channels_and_the_stated_parameters():
    with torch.device("meta"):
        model = gaitzoo.create_model("rrs_gait", num_classes=0).eval()
        output = model(torch.rand(2, 4, 64, 44))
    assert output.embeddings.shape == (2, 51, 256)
    assert sum(p.numel() for p in model.parameters()) == 20_764_864
    for tag in gaitzoo.list_tags("rrs_gait"):
        cfg = gaitzoo.model_info(f"rrs_gait.{tag}")
        assert (cfg.fidelity, dict(cfg.metrics)) == ("reconstruction", {})
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("rrs_gait", pretrained=True)


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments",
    [
        {"placement": "stage4"},
        {"downsample": "avg"},
        {"mode": "2d", "downsample": "avg", "placement": "stage4"},
        {"mode": "3d", "depth": 2, "reduce": "mean", "scale_mode": "resize", "scales": (1, 3)},
    ],
)
def test_variants_keep_the_length_law_and_are_fused(arguments):
    model = RRSGait(**TINY, num_bands=4, **arguments).eval()
    reset_statistics(model)
    clips = torch.rand(2, 5, 16, 12)
    lengths = torch.tensor([5, 2])
    clips[1, 2:] = float("nan")
    found = model(clips, lengths).embeddings
    for i, length in enumerate(lengths):
        alone = model(clips[i : i + 1, :length]).embeddings
        assert relative_error(found[i], alone[0]) < 1e-5
    fused = gaitzoo.fuse_for_inference(model)(clips, lengths).embeddings
    assert relative_error(fused, found) < 1e-5
    reach = model.temporal_reach()
    assert reach is not None
    longest = torch.rand(1, 40, 16, 12)
    maps, _ = model.forward_features(longest)
    longest[:, 0] = 1 - longest[:, 0]
    moved = (model.forward_features(longest)[0] - maps).abs().amax((0, 1, 3, 4)) > 0
    assert int(moved.nonzero().max()) <= reach[0]


class OwnTrunk(nn.Module):
    """A trunk of one's own: a residual block of this library on every other pixel."""

    def __init__(self):
        super().__init__()
        self.block = ResidualBlock3d(1, 6, stride=2)

    def forward(self, x, lengths=None):
        return self.block(x, lengths)


@torch.no_grad()
def test_trunk_and_head_may_be_handed_over(tmp_path):
    head = RRSHead(6, 8, ("scale",), pool="global")
    model = RRSGait(num_classes=3, trunk=OwnTrunk(), trunk_channels=6, head=head).eval()
    clips = torch.rand(2, 4, 16, 12)
    output = model(clips, torch.tensor([4, 2]))
    assert output.embeddings.shape == (2, 1, 8)
    assert relative_error(output.embeddings[1], model(clips[1:, :2]).embeddings[0]) < 1e-5
    assert model.temporal_reach() is None
    with pytest.raises(ValueError, match="a OwnTrunk as trunk, a RRSHead as head"):
        model.save_pretrained(tmp_path / "out")
    base = make("gaitbase_tiny")
    model = RRSGait(**TINY, trunk=base.backbone, trunk_channels=5, mode="2d", num_bands=4).eval()
    assert model.temporal_reach() == (0, 1)
    order = torch.tensor([3, 1, 0, 2])
    assert relative_error(model(clips[:, order]).embeddings, model(clips).embeddings) < 1e-5


@torch.no_grad()
def test_weights_of_a_residual_network_fit_the_trunk():
    base, model = make("deepgaitv2_p3d_tiny"), make("rrs_gait_tiny", layers=(1, 2, 1, 1))
    model.backbone.load_state_dict(base.backbone.state_dict())
    clips = torch.rand(1, 3, 16, 12)
    assert torch.equal(model.backbone(clips[:, None]), base.forward_features(clips)[0])


@torch.no_grad()
def test_a_compiled_head_gives_the_same():
    head = RRSHead(3, 4, num_bands=4).eval()
    x, lengths = torch.rand(2, 3, 4, 8, 6), torch.tensor([4, 2])
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    assert relative_error(compiled(x, lengths), head(x, lengths)) < 1e-5
    other = RRSHead(3, 4, num_bands=4).eval()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(x, lengths), head(x, lengths))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: RRSGait(**TINY, placement="tail"), ValueError, 'placement "head" or "stage4"'),
        (lambda: RRSGait(**TINY, downsample="max"), ValueError, 'downsample "stride" or "avg"'),
        (lambda: RRSGait(**TINY, branches=()), ValueError, "one branch or more, each once"),
        (lambda: RRSGait(**TINY, branches=("scale",) * 2), ValueError, "each once"),
        (lambda: RRSGait(**TINY, branches=("shear",)), ValueError, "a kind among reflect"),
        (lambda: RRSGait(**TINY, pool="max"), ValueError, 'pool "global", "hpp" or "both"'),
        (lambda: RRSGait(**TINY, trunk=nn.ReLU()), ValueError, "trunk_channels as a positive"),
        (lambda: RRSGait(**TINY, trunk="gaitbase"), TypeError, "trunk as a module or None"),
        (lambda: RRSGait(**TINY, head=nn.ReLU()), TypeError, "head as an RRSHead or None"),
        (lambda: RRSBranch("scale", 2, 4, mode="3d"), ValueError, 'mode "p3d" or "2d"'),
        (lambda: RRSBranch("scale", 2, 4)(torch.rand(1, 3, 2, 4, 4)), ValueError, r"\[N, 2, T"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(build, error, message):
    with pytest.raises(error, match=message):
        build()
