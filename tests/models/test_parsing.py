"""ParsingGait, XGait, SMPLGait and the baseline of Gait3D: numbers, keys, rules."""

import pytest
import torch
from builders import make
from conftest import relative_error
from file_sizes import explains
from parity import filled_weights, golden_doc, golden_errors

import gaitzoo
from gaitzoo import BodyPartPool, PartCrossGate, PartGraph
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.layers.body_parts import COARSE_LINKS, COARSE_PARTS, FINE_LINKS, FINE_PARTS
from gaitzoo.models.registry import find_architecture

GOLDENS = {
    "parsinggait_coarse": ("parsinggait.gait3d", {"graph": "coarse"}),
    "parsinggait_fine": ("parsinggait.gait3d", {"graph": "fine"}),
    "parsinggait_both": ("parsinggait.gait3d", {"graph": "both"}),
    "xgait_gait3d": ("xgait.gait3d", {}),
    "smplgait_gait3d": ("smplgait.gait3d", {}),
}


@pytest.mark.parametrize("golden", GOLDENS)
def test_outputs_equal_the_authors(golden, tmp_path):
    name, arguments = GOLDENS[golden]
    cases = [case["id"] for case in golden_doc(golden)["cases"] if case["s"] < 10]
    assert len(cases) >= 2
    assert golden_errors(golden, name, tmp_path, cases, **arguments) < 1e-5


@pytest.mark.parametrize("golden", GOLDENS)
def test_authors_keys_and_counts_are_exactly_ours(golden):
    doc = golden_doc(golden)
    name, arguments = GOLDENS[golden]
    classes = doc["facts"]["class_num"]
    with torch.device("meta"):
        model = gaitzoo.create_model(name, num_classes=classes, **arguments)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    convert = find_architecture(model.architecture).convert
    found = {k: tuple(v.shape) for k, v in convert(filled_weights(doc)).items()}
    assert found == wanted
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]


@pytest.mark.parametrize("graph", ["coarse", "fine", "both"])
def test_parts_of_the_graphs(graph):
    model = make("parsinggait_tiny", graph=graph)
    labels = torch.randint(0, 12, (2, 3, 16, 12)).float()
    parts = 4 + {"coarse": 5, "fine": 11, "both": 16}[graph]
    assert model(labels).embeddings.shape == (2, parts, 4)
    assert model.model_args["graph"] == graph


def test_another_graph_is_refused(tmp_path):
    weights = filled_weights(golden_doc("parsinggait_fine"))
    torch.save({"model": weights}, tmp_path / "fine.pt")
    with pytest.raises(ValueError, match="fine"):
        gaitzoo.create_model("parsinggait.gait3d", checkpoint_path=tmp_path / "fine.pt")
    with pytest.raises(ValueError, match='"coarse", "fine" or "both"'):
        gaitzoo.create_model("parsinggait.gait3d", graph="finer")


@torch.no_grad()
def test_pooled_parts_against_loops():
    x, labels = torch.randn(2, 3, 4, 3), torch.randint(0, 12, (2, 1, 8, 6)).float()
    pool = BodyPartPool(COARSE_PARTS)
    pool.gammas.uniform_(-0.5, 1.5)
    found = pool(x, labels)
    for n in range(2):
        for k, part in enumerate(COARSE_PARTS):
            weighted = x[n].clone()
            for row in range(4):
                for column in range(3):
                    gamma = pool.gammas[k]
                    inside = int(labels[n, 0, 2 * row, 2 * column]) in part
                    weighted[:, row, column] *= gamma if inside else 1 - gamma
            wanted = weighted.mean((1, 2)) + weighted.amax((1, 2))
            torch.testing.assert_close(found[n, k], wanted)


@pytest.mark.parametrize(
    ("parts", "links"), [(COARSE_PARTS, COARSE_LINKS), (FINE_PARTS, FINE_LINKS)]
)
@torch.no_grad()
def test_graph_against_loops(parts, links):
    graph = PartGraph(parts, links, channels=3).eval()
    first, _ = graph.layers
    first.bias.normal_()
    for name in ("running_mean", "running_var", "weight", "bias"):
        getattr(first.bn, name).uniform_(0.5, 1.5)
    given = torch.randn(2, len(parts), 3)
    found = first(given)
    for n in range(2):
        for i, row in enumerate(links):
            total = first.bias.clone()
            for j in row:
                scale = len(links[i]) ** -0.5 * len(links[j]) ** -0.5
                total += scale * given[n, j] @ first.weight
            place = slice(3 * i, 3 * i + 3)
            bn = first.bn
            total = (total - bn.running_mean[place]) / (bn.running_var[place] + bn.eps).sqrt()
            wanted = (total * bn.weight[place] + bn.bias[place]).relu()
            torch.testing.assert_close(found[n, i], wanted)


def test_links_are_mutual_and_each_part_has_its_own():
    for links in (COARSE_LINKS, FINE_LINKS):
        for i, row in enumerate(links):
            assert i in row
            assert all(i in links[j] for j in row)
    assert sorted(label for part in COARSE_PARTS for label in part) == list(range(1, 12))
    # As published: no link of torso (2) and dress (11).
    assert 10 not in FINE_LINKS[1]


@pytest.mark.parametrize("name", ["parsinggait_tiny", "xgait_tiny", "smplgait_tiny"])
@torch.no_grad()
def test_frames_have_no_order_and_no_doubles(name):
    model = make(name)
    clip = each_tensor(example_sequence(model, 6, seed=0), lambda x: x[None])
    wanted = model(clip).embeddings
    for frames in ([3, 0, 5, 1, 2, 4], [0, 0, 1, 2, 3, 4, 5, 5]):
        changed = each_tensor(clip, lambda x, frames=frames: x[:, frames])
        assert relative_error(model(changed).embeddings, wanted) < 1e-6


@pytest.mark.parametrize("name", ["parsinggait_tiny", "xgait_tiny", "smplgait_tiny"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_fused_copies_give_the_same_embeddings(name, dtype):
    model = make(name)
    fused = gaitzoo.fuse_for_inference(model, dtype=dtype)
    clips = each_tensor(example_sequence(model, 5, seed=1), lambda x: torch.stack([x, x.flip(0)]))
    lengths = torch.tensor([5, 3])
    found, wanted = (net(clips, lengths).embeddings for net in (fused, model))
    assert found.dtype == torch.float32
    if dtype == torch.float32:
        assert relative_error(found, wanted) < 1e-5
    else:
        assert torch.cosine_similarity(found.flatten(1), wanted.flatten(1)).min() > 0.999


@pytest.mark.parametrize("name", ["parsinggait_tiny", "xgait_tiny", "smplgait_tiny"])
def test_long_sequences_in_pieces(name):
    model = make(name)
    long = example_sequence(model, 60, seed=2)
    wanted = model(each_tensor(long, lambda x: x[None])).embeddings
    found = gaitzoo.embed(model, [long], max_memory=20_000, progress=False)
    assert relative_error(found, wanted) < 1e-5


@torch.no_grad()
def test_every_input_of_two_matters():
    for name in ("xgait_tiny", "smplgait_tiny"):
        model = make(name)
        clip = each_tensor(example_sequence(model, 4, seed=3), lambda x: x[None])
        wanted = model(clip).embeddings
        for key in clip:
            changed = {**clip, key: torch.zeros_like(clip[key])}
            assert relative_error(model(changed).embeddings, wanted) > 1e-3


@torch.no_grad()
def test_rows_of_the_joined_map_have_gates_of_their_own():
    block = PartCrossGate(8, reduction=4).eval()
    one, other = torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8, 3)
    labels = torch.randint(0, 12, (2, 1, 32, 12)).float()
    wanted = block(one, other, labels)
    changed_rows = []
    for gate in block.gates:
        before = gate.gate[0].weight.clone()
        gate.gate[0].weight.zero_()
        changed = (block(one, other, labels) != wanted).any(dim=(0, 1, 3))
        changed_rows.append(changed.nonzero().flatten().tolist())
        gate.gate[0].weight.copy_(before)
    assert changed_rows == [[0, 1], [2, 3, 4, 5], [6, 7]]
    with pytest.raises(ValueError, match="four rows"):
        block(one[:, :, :3], other[:, :, :3], labels)


def test_a_file_of_xgait_that_lacks_a_head_is_refused():
    weights = filled_weights(golden_doc("xgait_gait3d"))
    del weights["FCs_gcm.fc_bin"]
    with pytest.raises(ValueError, match="heads sil, par, gcm, pcm"):
        find_architecture("xgait").convert(weights)


@torch.no_grad()
def test_the_baseline_is_mtsgait_without_neighbours():
    plain = make("plaingait_tiny")
    other = make("mtsgait_tiny", hops=(), channels=(2, 3, 4))
    switches = other.switches
    for i, (conv1, conv2) in enumerate((
        (other.stem.block, switches[0].conv.block),
        (switches[1].conv.block, switches[2].conv.block),
        (switches[3].conv.block, switches[4].conv.block),
    )):  # fmt: skip
        block = plain.cnn.blocks[i].block
        block.conv1.conv.weight.copy_(conv1.weight)
        block.conv2.conv.weight.copy_(conv2.weight)
    plain.part_fc.load_state_dict(other.part_fc.state_dict())
    clip = torch.rand(2, 5, 16, 12)
    assert relative_error(plain(clip).embeddings, other(clip).embeddings) < 1e-6


@torch.no_grad()
def test_the_matrix_of_smplgait_against_loops():
    model = make("smplgait_tiny")
    inputs = {"silhouettes": torch.rand(1, 2, 16, 12), "smpl": torch.rand(1, 2, 85)}
    features, _ = model.forward_features(inputs)
    assert features.shape == (1, 4, 2, 4, 4)
    for t in range(2):
        matrix = model.body(inputs["smpl"][:, t])[0]
        maps = model.cnn(inputs["silhouettes"][:, None, [t]])[0, :, 0]
        for row in range(4):
            for column in range(4):
                wanted = sum(maps[:, row, w] * matrix[w, column] for w in range(3))
                torch.testing.assert_close(features[0, :, t, row, column], wanted)


def test_frames_too_wide_for_the_matrix_are_refused():
    inputs = {"silhouettes": torch.rand(1, 2, 16, 24), "smpl": torch.rand(1, 2, 85)}
    with pytest.raises(ValueError, match="matrix_size=6"):
        make("smplgait_tiny")(inputs)


def test_smplgait_on_label_maps():
    with torch.device("meta"):
        model = gaitzoo.create_model("smplgait.gait3d_parsing").eval()
        labels, body = torch.empty(1, 2, 64, 44), torch.empty(1, 2, 85)
        assert model({"parsing": labels, "smpl": body}).embeddings.shape == (1, 31, 256)


RELEASED = {
    "xgait.gait3d": "v1.1/Gait3D-XGait-120000.pt",
    "smplgait.gait3d": "v0.1/64pixel-SMPLGait_64pixel-180000.pt",
    "smplgait.gait3d_128": "v0.1/128pixel-SMPLGait_128pixel-180000.pt",
    "plaingait.gait3d": "v0.1/64pixel-Baseline-180000.pt",
    "plaingait.gait3d_128": "v0.1/128pixel-Baseline-180000.pt",
    "mtsgait.gait3d": "v1.0/Gait3D-MTSGait-180000.pt",
    **{
        f"{arch}.gait3d{suffix}": f"v0.1/{size}pixel-{file}-180000.pt"
        for arch, file in (
            ("gaitset", "GaitSet"),
            ("gaitpart", "GaitPart"),
            ("gaitgl", "GaitGL"),
            ("gln", "GLN_P2"),
        )
        for size, suffix in ((64, ""), (128, "_128"))
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_files_of_the_releases_have_tags(name):
    cfg = gaitzoo.model_info(name)
    base = "https://github.com/Gait3D/Gait3D-Benchmark/releases/download/"
    assert (cfg.url, cfg.has_weights, cfg.hub_id) == (base + RELEASED[name], True, None)
    assert cfg.input_size == ((128, 88) if name.endswith("_128") else (64, 44))


# Copies of the numbers: with momentum two, with Adam three.
HUB = {"parsinggait.gait3d": 2, "smplgait.gait3d_parsing": 3}
LEAST = 325  # bytes per tensor; GaitBase's files with momentum have 344


@pytest.mark.parametrize("name", HUB)
def test_the_sizes_of_the_files_say_what_they_hold(name):
    assert explains(name, HUB[name], least=LEAST)
    for copies in {1, 2, 3} - {HUB[name]}:
        assert not explains(name, copies, least=LEAST)
    for classes in (2999, 3001):
        assert not explains(name, HUB[name], least=LEAST, num_classes=classes)


def test_the_file_of_parsinggait_is_of_the_coarse_graph():
    for graph in ("fine", "both"):
        for copies in (1, 2, 3):
            assert not explains("parsinggait.gait3d", copies, least=LEAST, graph=graph)


def test_models_of_silhouettes_have_files_for_label_maps():
    names = ("gaitbase", "gaitset", "gaitpart", "gaitgl", "gln", "mtsgait")
    for name in names:
        with torch.device("meta"):
            model = gaitzoo.create_model(f"{name}.gait3d_parsing")
        assert model.modalities == ("parsing",)
        assert model.pretrained_cfg.has_weights
