"""DenoisingGait: the authors' numbers and keys, its two inputs, training."""

import pytest
import torch
from builders import make
from conftest import relative_error
from parity import golden_doc, golden_errors

import gaitzoo
from gaitzoo import AttentionFusion, LocalFeatureMatching
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.models.registry import find_architecture
from gaitzoo.testing.trial import reset_statistics

GOLDEN = "denoisinggait_ccpg"


def rounded_as_upstream(self, query, key):
    """The field as a mean of positions minus the pixel's own: in float32 that costs digits."""
    weights = self.weights(to_frames(query), to_frames(key))
    height, width = query.shape[-2:]
    steps = torch.arange(-self.radius, self.radius + 1.0)
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    own = torch.stack([x, y], dim=-1)
    positions = own[:, :, None] + torch.stack([right, down], dim=-1).flatten(0, 1)
    means = torch.matmul(weights.flatten(-2).unsqueeze(-2), positions[None]).squeeze(-2)
    return to_sequences((means - own).movedim(-1, 1), query.shape[0])


def test_outputs_equal_the_authors(tmp_path, monkeypatch):
    # They subtract positions of up to 95 pixels from each other in float32: the last digits of
    # the published numbers are rounding of that.
    cases = ["eval/s4/seq2"]
    assert golden_errors(GOLDEN, "denoisinggait.ccpg", tmp_path, cases) < 3e-5
    monkeypatch.setattr(LocalFeatureMatching, "forward", rounded_as_upstream)
    assert golden_errors(GOLDEN, "denoisinggait.ccpg", tmp_path, cases) < 5e-6


def test_authors_keys_and_counts_are_exactly_ours():
    doc = golden_doc(GOLDEN)
    with torch.device("meta"):
        model = gaitzoo.create_model("denoisinggait.ccpg", num_classes=12)
        published = gaitzoo.create_model("denoisinggait.ccpg")
        theirs = {key: torch.empty(shape) for key, shape in doc["state_dict"].items()}
    convert = find_architecture("denoisinggait").convert
    found = {key: tuple(value.shape) for key, value in convert(theirs).items()}
    assert found == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]
    assert published.num_classes == 100
    assert sum(p.numel() for p in published.parameters()) == 10_273_200
    with pytest.raises(ValueError, match="not of the authors' DenoisingGait"):
        convert({**theirs, "other.weight": torch.zeros(1)})


@torch.no_grad()
def test_a_batch_of_the_published_structure():
    model = gaitzoo.create_model("denoisinggait.ccpg", num_classes=0).eval()
    inputs = {"diffusion_features": torch.randn(2, 4, 2, 96, 48)}
    inputs["silhouettes"] = torch.ones(2, 2, 96, 48)
    assert model(inputs, torch.tensor([2, 1])).embeddings.shape == (2, 24, 256)


@torch.no_grad()
def test_weights_of_the_branches_add_up_to_one():
    block = AttentionFusion(3, hidden_channels=4, kernel_size=1).eval()
    reset_statistics(block)
    assert [m.kernel_size for m in block.scores if hasattr(m, "kernel_size")] == [(1, 1)] * 3
    x = torch.randn(2, 3, 2, 4, 5)
    torch.testing.assert_close(block(x, x), x)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    weights = block(one, none)
    assert weights.min() > 0
    assert weights.max() < 1
    with pytest.raises(ValueError, match="odd number"):
        AttentionFusion(3, kernel_size=2)


def inputs_of(model, frames=5, seed=0):
    torch.manual_seed(seed)
    height, width = model.pretrained_cfg.input_size
    features = torch.randn(2, 4, frames, height, width)
    return {
        "diffusion_features": features,
        "silhouettes": (torch.rand(2, frames, height, width) > 0.4).float(),
    }


@torch.no_grad()
def test_all_that_is_not_black_is_the_person():
    model = make("denoisinggait_tiny")
    inputs = inputs_of(model)
    wanted = model(inputs).embeddings
    masks = inputs["silhouettes"]
    for silhouettes in (0.02 * masks, masks.to(torch.uint8), 200 * masks.to(torch.uint8)):
        found = model({**inputs, "silhouettes": silhouettes}).embeddings
        assert torch.equal(found, wanted)
    other = model({**inputs, "silhouettes": 1 - masks}).embeddings
    assert relative_error(other, wanted) > 1e-3


@torch.no_grad()
def test_sequences_have_an_order():
    model = make("denoisinggait_tiny")
    inputs = inputs_of(model)
    flipped = {"diffusion_features": inputs["diffusion_features"].flip(2)}
    flipped["silhouettes"] = inputs["silhouettes"].flip(1)
    assert relative_error(model(flipped).embeddings, model(inputs).embeddings) > 1e-5


def test_inputs_that_do_not_belong_together_are_refused():
    model = make("denoisinggait_tiny")
    inputs = inputs_of(model)
    for change, message in (
        ({"silhouettes": inputs["silhouettes"][..., :7]}, "as many rows and columns"),
        ({"diffusion_features": inputs["diffusion_features"][:, :3]}, r"4 channel\(s\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model({**inputs, **change})
    # Raw masks would be cropped to the person, who then stands elsewhere than in the features.
    sequence = {name: x[0] for name, x in inputs.items()}
    raw = {**sequence, "silhouettes": torch.ones(5, 40, 30)}
    with pytest.raises(ValueError, match=r"16 x 8 pixels beside diffusion_features, got 40 x 30"):
        gaitzoo.embed(model, [raw], progress=False)
    with torch.no_grad():
        found = gaitzoo.embed(model, [sequence], progress=False)
        assert relative_error(found[0], model(inputs).embeddings[0]) < 1e-5


def test_texture_is_suppressed_in_training():
    inputs = inputs_of(make("denoisinggait_tiny"))
    inputs["silhouettes"].fill_(1)
    for share in (0.0, 1.0):
        model = make("denoisinggait_tiny", suppressed_share=share, suppression_threshold=0.0)
        seen = []
        model.static_branch.register_forward_pre_hook(lambda _, args, s=seen: s.append(args[0]))
        model.train()(inputs)
        with torch.no_grad():
            model.eval()(inputs)
        assert bool(seen[0].any()) == (share == 0)
        assert seen[1].any()
    assert gaitzoo.create_model("denoisinggait.casiab", num_classes=0).suppression.share == 0
    assert gaitzoo.create_model("denoisinggait", num_classes=0).suppression.share == 0.5


def test_no_weights_are_published():
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="no file for this variant"):
        gaitzoo.create_model("denoisinggait.ccpg", pretrained=True)
    assert gaitzoo.model_info("denoisinggait").fidelity == "parity"
