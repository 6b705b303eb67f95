"""SkeletonGait, SkeletonGait++, MultiGait++: numbers, keys, joins, inputs."""

import pytest
import torch
from builders import make
from conftest import relative_error
from file_sizes import explains
from parity import filled_weights, golden_doc, golden_errors

import gaitzoo
from gaitzoo import AttentionFusion, P3dLayers, SharedSpecificFusion
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.models.opengait_files import HUB_FILES
from gaitzoo.models.registry import find_architecture
from gaitzoo.testing.trial import reset_statistics

GOLDENS = {
    "skeletongait_22": "skeletongait.gait3d",
    "skeletongait_10": "skeletongait.ccpg",
    "skeletongaitpp_gait3d": "skeletongaitpp.gait3d",
    "multigaitpp_gait3d": "multigaitpp.gait3d",
    "multigaitpp_ccpg": "multigaitpp.ccpg",
}
# The published outputs of the small network are those before its BN neck.
BEFORE_NECK = {"skeletongait_10": {"embedding": "fc"}}
MODELS = ("skeletongait_tiny", "skeletongaitpp_tiny", "multigaitpp_tiny")


@pytest.mark.parametrize("golden", GOLDENS)
def test_outputs_equal_the_authors(golden, tmp_path):
    cases = [case["id"] for case in golden_doc(golden)["cases"] if case["s"] < 10]
    assert len(cases) >= 2
    errors = golden_errors(golden, GOLDENS[golden], tmp_path, cases, **BEFORE_NECK.get(golden, {}))
    assert errors < 1e-5


@pytest.mark.parametrize("golden", GOLDENS)
def test_authors_keys_and_counts_are_exactly_ours(golden):
    doc = golden_doc(golden)
    with torch.device("meta"):
        model = gaitzoo.create_model(GOLDENS[golden], num_classes=doc["facts"]["class_num"])
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    convert = find_architecture(model.architecture).convert
    found = {k: tuple(v.shape) for k, v in convert(filled_weights(doc)).items()}
    assert found == wanted
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]


@torch.no_grad()
def test_ccpg_is_compared_after_the_neck(tmp_path):
    doc = golden_doc("skeletongait_10")
    path = tmp_path / "ccpg.pt"
    torch.save({"model": filled_weights(doc)}, path)
    after, before = (
        gaitzoo.create_model(
            "skeletongait.ccpg", checkpoint_path=path, num_classes=12, **arguments
        ).eval()
        for arguments in ({}, {"embedding": "fc"})
    )
    assert after.pretrained_cfg.embedding == "after_bn"
    assert gaitzoo.model_info("skeletongait.gait3d").embedding == "before_bn"
    maps = torch.rand(1, 2, 3, 64, 44)
    found, parts = after(maps), before(maps).embeddings
    wanted = after.neck(parts)[0]
    torch.testing.assert_close(found.embeddings, wanted)
    torch.testing.assert_close(found.logits, before(maps).logits)
    assert relative_error(found.embeddings, parts) > 0.1


@torch.no_grad()
def test_attention_against_loops():
    block = AttentionFusion(3, hidden_channels=2).eval()
    reset_statistics(block)
    one, other = torch.randn(2, 3, 2, 4, 3), torch.randn(2, 3, 2, 4, 3)
    found = block(one, other)
    for n in range(2):
        for t in range(2):
            frame = torch.cat([one[n, :, t], other[n, :, t]])[None]
            scores = block.scores(frame)[0]
            for c in range(3):
                for row in range(4):
                    for column in range(3):
                        a, b = scores[[c, 3 + c], row, column].exp()
                        x, y = one[n, c, t, row, column], other[n, c, t, row, column]
                        wanted = (a * x + b * y) / (a + b)
                        torch.testing.assert_close(found[n, c, t, row, column], wanted)
    block.scores[-1].weight.zero_()
    torch.testing.assert_close(block(one, other), (one + other) / 2)


@torch.no_grad()
def test_shared_and_specific_against_loops():
    block = SharedSpecificFusion(3, hidden_channels=2).double().eval()
    reset_statistics(block)
    one, other = torch.randn(2, 1, 3, 2, 4, 3, dtype=torch.float64)
    shared, of_one, of_other = block(one, other)
    for t in range(2):
        a, b = block.scores_one(one[:, :, t])[0], block.scores_other(other[:, :, t])[0]
        for row in range(4):
            for column in range(3):
                first = [
                    (1 / (1 + (v - u).exp()))
                    for u, v in zip(a[:, row, column], b[:, row, column], strict=True)
                ]
                smaller = [min(p, 1 - p) for p in first]
                spread = max(smaller) - min(smaller) + 1e-6
                for c in range(3):
                    common = (smaller[c] - min(smaller)) / spread
                    place = (0, c, t, row, column)
                    x, y = one[place], other[place]
                    torch.testing.assert_close(shared[place], common * (x + y) / 2)
                    torch.testing.assert_close(of_one[place], x * (1 - common) * first[c])
                    torch.testing.assert_close(of_other[place], y * (1 - common) * (1 - first[c]))
    # Where all channels are alike, nothing is shared and nothing is divided by zero.
    for scores in (block.scores_one, block.scores_other):
        scores[-1].weight.zero_()
    shared, of_one, _ = block(one, other)
    assert not shared.any()
    torch.testing.assert_close(of_one, one / 2)


@pytest.mark.parametrize("block", [AttentionFusion(4), SharedSpecificFusion(4)])
def test_maps_of_different_sizes_are_not_joined(block):
    with pytest.raises(ValueError, match="two maps of one shape"):
        block(torch.rand(1, 4, 2, 8, 6), torch.rand(1, 4, 2, 8, 7))
    with pytest.raises(ValueError, match=r"a map \[N, 4, T, H, W\]"):
        block(torch.rand(1, 4, 2, 8, 6), torch.rand(1, 3, 2, 8, 6))


def test_layers_need_as_many_widths_as_strides():
    with pytest.raises(ValueError, match="as many layers as channels and strides"):
        P3dLayers(4, (1, 1), (4, 8), (2,))
    with pytest.raises(ValueError, match="layers"):
        P3dLayers(4, (0,), (4,), (2,))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_sequences_have_an_order(name):
    model = make(name)
    clip = each_tensor(example_sequence(model, 9, seed=0), lambda x: x[None])
    flipped = {
        key: x.flip(gaitzoo.MODALITIES[key].time_axis)
        for key, x in (clip.items() if isinstance(clip, dict) else [("skeleton_maps", clip)])
    }
    flipped = flipped if isinstance(clip, dict) else flipped["skeleton_maps"]
    assert relative_error(model(flipped).embeddings, model(clip).embeddings) > 1e-4


@pytest.mark.parametrize("name", MODELS[1:])
@torch.no_grad()
def test_every_input_matters(name):
    model = make(name)
    clip = each_tensor(example_sequence(model, 4, seed=3), lambda x: x[None])
    wanted = model(clip).embeddings
    for key in clip:
        changed = {**clip, key: torch.zeros_like(clip[key])}
        assert relative_error(model(changed).embeddings, wanted) > 1e-3
    wide = {**clip, "silhouettes": torch.rand(1, 4, 16, 16)}
    with pytest.raises(ValueError, match=r"rows and columns as each other.*16 x 16 of silhouettes"):
        model(wide)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_long_sequences_in_pieces(name):
    model = make(name)
    long = example_sequence(model, 60, seed=2)
    wanted = model(each_tensor(long, lambda x: x[None])).embeddings
    found = gaitzoo.embed(model, [long], max_memory=20_000, progress=False)
    assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_fused_copies_in_half_precision(name):
    model = make(name)
    fused = gaitzoo.fuse_for_inference(model, dtype=torch.bfloat16)
    assert all("neck" in norm for norm in fused.unfused_norms)
    clip = each_tensor(example_sequence(model, 6, seed=1), lambda x: x[None])
    found, wanted = fused(clip).embeddings, model(clip).embeddings
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(1), wanted.flatten(1)).min() > 0.999


def test_inputs_of_multigait_are_arguments(tmp_path):
    small = {"channels": (2, 3, 4, 5), "layers": (1, 1, 1, 1), "num_classes": 0}
    chosen = {"first": ("skeleton_maps",), "second": ("silhouettes", "flow_images")}
    model = gaitzoo.create_model("multigaitpp.ccpg", **small, **chosen).eval()
    names = ("skeleton_maps", "silhouettes", "flow_images")
    assert model.modalities == model.pretrained_cfg.modalities == names
    assert model.first_branch.in_channels == 2
    assert model.second_branch.in_channels == 4
    model.save_pretrained(tmp_path)
    loaded = gaitzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert loaded.modalities == names
    clip = each_tensor(example_sequence(model, 3, seed=0), lambda x: x[None])
    with torch.no_grad():
        assert torch.equal(loaded(clip).embeddings, model(clip).embeddings)
    cfg = gaitzoo.model_info("multigaitpp.sustech1k")
    assert cfg.modalities == ("silhouettes", "parsing_images", "flow_images")
    assert gaitzoo.create_transform(cfg).modalities == cfg.modalities


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": ()}, "one modality or more in each branch"),
        ({"first": ("flow_images",), "second": ("flow_images",)}, "in one branch alone"),
        ({"first": "silhouettes"}, "tuples of names"),
        ({"second": ("poses",)}, "frames are maps"),
        ({"second": ("gait",)}, "expected a modality among"),
    ],
)
def test_inputs_that_multigait_cannot_join_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model("multigaitpp_tiny", **arguments)


FILES = [name for name in HUB_FILES if name.startswith("skeletongait")]


def test_every_hub_file_of_these_families_has_a_tag():
    assert len(FILES) == 9
    for name in FILES:
        cfg = gaitzoo.model_info(name)
        assert cfg.has_weights
        assert cfg.sha256 == HUB_FILES[name].sha256
    for tag in gaitzoo.list_tags("multigaitpp"):
        with pytest.raises(gaitzoo.PretrainedNotAvailable, match="no file for this variant"):
            gaitzoo.create_model(f"multigaitpp.{tag}", pretrained=True)


# Bytes per tensor beside its numbers: the files come from several versions of torch.
SHARE = {"least": 325, "most": 510}


@pytest.mark.parametrize("name", FILES)
def test_the_sizes_of_the_files_say_what_they_hold(name):
    assert explains(name, 2, **SHARE)  # momentum
    for copies in (1, 3):
        assert not explains(name, copies, **SHARE)
    classes = gaitzoo.model_info(name).num_classes
    for other in (classes - 4, classes + 4):
        assert not explains(name, 2, num_classes=other, **SHARE)
    layers = gaitzoo.model_info(name).model_args["layers"]
    for other in {(1, 1, 1, 1), (1, 2, 2, 1), (1, 4, 4, 1)} - {layers}:
        assert not explains(name, 2, layers=other, **SHARE)
