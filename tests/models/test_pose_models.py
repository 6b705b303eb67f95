"""GaitGraph, GaitGraph2, GaitTR: the authors' numbers, keys, views of a clip, files."""

import warnings

import numpy as np
import pytest
import torch
from builders import make
from conftest import relative_error
from file_sizes import explains
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, write_like_the_authors
from safetensors.torch import load_file

import gaitzoo
from gaitzoo import SKELETONS, fill_empty_joints, joint_graph, reverse_time, swap_joints
from gaitzoo.models.opengait_files import HUB_FILES
from gaitzoo.models.registry import find_architecture

MODELS = ("gaitgraph1", "gaitgraph2", "gaittr")
# What each golden case is given to, and the graphs that stand in its file. All of the authors'
# graphs are one tensor once a file is loaded: the rule's last one is in force everywhere.
CALLS = {
    "gaitgraph1": lambda model, x: model(x[..., 0].transpose(2, 3)),
    "gaitgraph2": lambda model, x: model.forward_branches(x),
    "gaittr": lambda model, x: model.forward_inputs(x),
}
KEPT = {
    "gaitgraph1": {"head.0.A": joint_graph()},
    "gaitgraph2": {"head.0.A": fill.fill_value("ResGCN.head.2.A", (4, 17, 17))},
    "gaittr": {},
}


def poses(*frames, joints=17):
    scale = torch.tensor([60.0, 200.0, 1.0])
    return [torch.rand(t, joints, 3) * scale + 1 for t in frames]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:the branches' graphs differ")
@torch.no_grad()
def test_outputs_equal_the_authors(name, tmp_path):
    doc = golden_doc(f"{name}_gait3d")
    path = tmp_path / "theirs.pt"
    write_like_the_authors(filled_weights(doc, KEPT[name]), path)
    model = gaitzoo.create_model(f"{name}.gait3d", checkpoint_path=path).eval()
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]
    wanted = load_file(GOLDEN / f"{name}_gait3d.safetensors")
    for case in doc["cases"]:
        i = case["sequence"]
        (x,) = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        assert [fill.checksum(x[i : i + 1])] == case["input_checksum"]
        found = CALLS[name](model, x[i : i + 1])
        assert found.logits is None
        reference = wanted[f"{case['id']}/embeddings"].transpose(1, 2)
        assert found.embeddings.shape == reference.shape
        assert relative_error(found.embeddings, reference) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:the branches' graphs differ")
def test_authors_keys_and_shapes_are_exactly_ours(name):
    weights = filled_weights(golden_doc(f"{name}_gait3d"), KEPT[name])
    converted = find_architecture(name).convert(weights)
    model = gaitzoo.create_model(f"{name}.gait3d")
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted.items()} == wanted


@pytest.mark.parametrize(
    ("tag", "parameters"),
    [
        ("gaitgraph1.gait3d", 319_530),
        ("gaitgraph2.gait3d", 350_822),
        ("gaitgraph2.ccpg", 438_862),
        ("gaitgraph2.grew", 763_178),
        ("gaitgraph2.oumvlp_17", 763_178),
        ("gaitgraph2.oumvlp", 765_278),
        ("gaittr.gait3d", 512_010),
        ("gaittr.ccpg", 512_562),
        ("gaittr.grew", 544_906),
        ("gaittr.oumvlp", 545_458),
    ],
)
def test_published_sizes(tag, parameters):
    with torch.device("meta"):
        model = gaitzoo.create_model(tag)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_graphs_that_differ_are_told_of():
    doc = golden_doc("gaitgraph2_gait3d")
    weights = filled_weights(doc, KEPT["gaitgraph2"])
    with pytest.warns(UserWarning, match=r"graphs differ; that of ResGCN.head.2.A"):
        converted = find_architecture("gaitgraph2").convert(weights)
    assert torch.equal(converted["adjacency"], weights["ResGCN.head.2.A"])
    for branch in (0, 1):
        weights[f"ResGCN.head.{branch}.A"] = weights["ResGCN.head.2.A"].clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_architecture("gaitgraph2").convert(weights)


@torch.no_grad()
def test_views_of_gaitgraph2():
    model = make("gaitgraph2_tiny", joint_format="openpose18")
    (clip,) = poses(11, joints=18)
    found = model(clip[None]).embeddings.view(3, -1)
    # As it is from the nose; backwards and exchanged from the graph's centre, the neck.
    plain = make("gaitgraph2_tiny", joint_format="openpose18", tta=False)
    plain.load_state_dict(model.state_dict())
    views = (
        gaitzoo.gaitgraph_inputs(x, joint_format="openpose18", center=center)
        for x, center in (
            (clip[None], 0),
            (reverse_time(clip[None]), 1),
            (swap_joints(clip[None], "openpose18"), 1),
        )
    )
    for row, view in zip(found, views, strict=True):
        assert relative_error(row, plain.forward_branches(view).embeddings[0, 0]) < 1e-5
    assert plain.num_features == 8
    assert model.train()(clip[None].repeat(2, 1, 1, 1)).embeddings.shape == (2, 1, 8)


@torch.no_grad()
def test_gaitgraph1_is_the_mean_of_both_directions():
    model, plain = make("gaitgraph1_tiny"), make("gaitgraph1_tiny", tta=False)
    (clip,) = poses(11)
    backwards = model(clip.flip(0)[None]).embeddings
    assert relative_error(backwards, model(clip[None]).embeddings) < 1e-5
    assert relative_error(plain(clip.flip(0)[None]).embeddings, backwards) > 1e-3
    assert model(clip[None]).embeddings.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["gaitgraph1", "gaitgraph2"])
@torch.no_grad()
def test_missing_joints_are_repaired_where_the_authors_do(name):
    model, repairing = make(f"{name}_tiny"), make(f"{name}_tiny", fill_empty=True)
    (clip,) = poses(9)
    assert torch.equal(model(clip[None]).embeddings, repairing(clip[None]).embeddings)
    clip[3, 9:11] = 0
    wanted = model(fill_empty_joints(clip)[None]).embeddings
    assert torch.equal(repairing(clip[None]).embeddings, wanted)
    assert relative_error(model(clip[None]).embeddings, wanted) > 1e-5


@torch.no_grad()
def test_gaittr_does_not_read_confidence():
    model = make("gaittr_tiny")
    (clip,) = poses(9)
    other = clip.clone()
    other[..., 2] = 0
    assert torch.equal(model(clip[None]).embeddings, model(other[None]).embeddings)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("joint_format", list(SKELETONS))
@torch.no_grad()
def test_pixels_keep_their_precision_in_narrow_types(name, joint_format):
    model = make(f"{name}_tiny", joint_format=joint_format)
    clips = [x + 500 for x in poses(9, 4, joints=SKELETONS[joint_format].num_joints)]
    for norm in model.modules():
        # Statistics of such poses: positions of hundreds of pixels, steps of a few.
        if isinstance(norm, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            norm.momentum = None
            norm.reset_running_stats()
    model.train()
    model(torch.stack([clips[0]] * 2))
    model.eval()
    fused = gaitzoo.fuse_for_inference(model, torch.bfloat16)
    batch, lengths = gaitzoo.pad_sequences(clips)
    found, wanted = fused(batch, lengths).embeddings, model(batch, lengths).embeddings
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1))
    assert (cosine > 0.99).all()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    model = make(f"{name}_tiny")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The second batch has other numbers of sequences and of frames at once: traced again once.
        for frames in ((6, 4), (9, 5, 7), (12, 3)):
            batch, lengths = gaitzoo.pad_sequences(poses(*frames))
            wanted = model(batch, lengths).embeddings
            assert relative_error(compiled(batch, lengths).embeddings, wanted) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_other_joints_are_refused(name):
    with pytest.raises(ValueError, match=r"17 joints \(coco17\).*got 18"):
        make(f"{name}_tiny")(torch.rand(1, 5, 18, 3))
    with pytest.raises(ValueError, match="joint_format among"):
        make(f"{name}_tiny", joint_format="body25")
    with pytest.raises(ValueError, match="num_classes"):
        make(f"{name}_tiny", num_classes=5)


def test_structures_and_built_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="first of the main network"):
        make("gaitgraph1_tiny", main_widths=(16, 24))
    with pytest.raises(ValueError, match=r"branches \[N, T, 17, 3, 5\]"):
        make("gaitgraph2_tiny").forward_branches(torch.rand(1, 5, 17, 5, 3))
    with pytest.raises(ValueError, match=r"inputs \[N, T, 10, 17, 1\]"):
        make("gaittr_tiny").forward_inputs(torch.rand(1, 5, 17, 10, 1))


@pytest.mark.parametrize("joint_format", list(SKELETONS))
def test_a_file_reaches_a_model_in_its_joints(joint_format, tmp_path):
    from gaitzoo.data.files import SequencePath

    np.save(tmp_path / "poses.npy", np.random.default_rng(0).random((7, 25, 3)) + 1)
    model = make("gaittr_tiny", joint_format=joint_format)
    read = gaitzoo.load_sequence(tmp_path, "poses", to_format=model.joint_format)
    assert read.shape == (7, SKELETONS[joint_format].num_joints, 3)
    assert gaitzoo.embed(model, [read], progress=False).shape == (1, 1, 8)
    clips = pytest.importorskip("gaitzoo.cli.files").Clips
    (frames,) = clips([SequencePath("b", "a", tmp_path)], model)
    assert torch.equal(frames, read)


FILES = [tag for tag in HUB_FILES if tag.partition(".")[0] in MODELS]
# Beside a weight lie two more numbers of Adam, and five in two files of GREW.
COPIES = dict.fromkeys(FILES, 3) | {"gaitgraph1.grew": 6, "gaitgraph2.grew": 6}
# A tensor's share: names, headers, rounding to 64 bytes, and Adam's counters, where there are any.
SHARES = dict.fromkeys(FILES, (355, 425)) | {
    "gaitgraph1.grew": (315, 330),
    "gaitgraph2.grew": (315, 330),
}
OTHERS = {
    "gaitgraph1": (
        {"reduction": 4},
        {"main_widths": (32, 128, 256, 256)},
        {"main_widths": (32, 128, 128, 128, 256, 256)},
        {"branch_widths": (3, 64, 32)},
    ),
    "gaitgraph2": (
        {"reduction": 2},
        {"main_widths": (32, 128, 256, 256)},
        {"branch_widths": (5, 64, 64, 64, 32)},
    ),
    "gaittr": ({"widths": (64, 128, 256)}, {"widths": (64, 64, 64, 128, 256)}),
}


def fits(tag, copies, **changes):
    least, most = SHARES[tag]
    return explains(tag, copies, least=least, most=most, **changes)


@pytest.mark.parametrize("tag", FILES)
def test_the_model_explains_the_size_of_its_file(tag):
    assert len(FILES) == 12
    assert gaitzoo.model_info(tag).sha256 == HUB_FILES[tag].sha256
    assert fits(tag, COPIES[tag])


@pytest.mark.parametrize("tag", FILES)
def test_no_other_structure_explains_the_size(tag):
    for copies in {1, 2, 3, 6} - {COPIES[tag]}:
        assert not fits(tag, copies)
    dim = gaitzoo.model_info(tag).model_args.get("embedding_dim", 128)
    for changes in (*OTHERS[tag.partition(".")[0]], {"embedding_dim": 384 - dim}):
        assert not fits(tag, COPIES[tag], **changes)
