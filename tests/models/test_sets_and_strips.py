"""GaitSet, GaitPart, GaitGL, GLN, MTSGait, ScoNet, SwinGait, TrackletGait: numbers, keys, rules."""

import pytest
import torch
from builders import make
from conftest import relative_error
from parity import filled_weights, golden_doc, golden_errors

import gaitzoo
from gaitzoo.layers.window_attention import relative_index
from gaitzoo.models.registry import find_architecture

GOLDENS = {
    "gaitset_casiab": "gaitset.casiab",
    "gaitset_oumvlp": "gaitset.oumvlp",
    "gaitpart_casiab": "gaitpart.casiab",
    "gaitpart_oumvlp": "gaitpart.oumvlp",
    "gaitgl_casiab": "gaitgl.casiab",
    "gaitgl_oumvlp": "gaitgl.oumvlp",
    "gln_phase1": "gln.phase1",
    "mtsgait_gait3d": "mtsgait.gait3d",
    "sconet_scoliosis1k": "sconet.scoliosis1k",
    "swingait_b1442": "swingait.gait3d",
    "trackletgait_gait3d": "trackletgait.gait3d",
    "trackletgait_small": "trackletgait_small",
}
KEPT = {"relative_position_index": relative_index((3, 3, 5))}
# The authors' last part of SwinGait is a copy that we leave out: 16 rows instead of 15.
COPIED_PART = 512 * 256 + 256 * 12 + 2 * 256


@pytest.mark.parametrize("golden", GOLDENS)
def test_outputs_equal_the_authors(golden, tmp_path):
    cases = [case["id"] for case in golden_doc(golden)["cases"] if case["s"] < 10]
    assert len(cases) >= 2
    errors = golden_errors(golden, GOLDENS[golden], tmp_path, cases, KEPT)
    assert errors < 1e-5


@pytest.mark.parametrize("golden", GOLDENS)
def test_authors_keys_and_counts_are_exactly_ours(golden):
    doc = golden_doc(golden)
    with torch.device("meta"):
        model = gaitzoo.create_model(GOLDENS[golden], num_classes=doc["facts"]["class_num"])
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    convert = find_architecture(model.architecture).convert
    found = {k: tuple(v.shape) for k, v in convert(filled_weights(doc, KEPT)).items()}
    assert found == wanted
    copied = COPIED_PART if golden.startswith("swingait") else 0
    assert sum(p.numel() for p in model.parameters()) + copied == doc["parameters"]


@pytest.mark.parametrize("name", ["gaitset", "gln", "sconet"])
@torch.no_grad()
def test_sets_have_no_order_and_no_doubles(name):
    model = make(f"{name}_tiny")
    clip = torch.rand(1, 6, 16, 12)
    wanted = model(clip).embeddings
    assert torch.equal(model(clip[:, [3, 0, 5, 1, 4, 2]]).embeddings, wanted)
    assert torch.equal(model(clip[:, [0, 0, 1, 2, 3, 4, 5, 5]]).embeddings, wanted)
    # A black frame is a frame: it must not stand in the padding unmasked.
    black = torch.cat([clip, torch.zeros(1, 2, 16, 12)], dim=1)
    assert torch.equal(model(black, torch.tensor([6])).embeddings, wanted)


@pytest.mark.parametrize("name", ["gaitpart", "gaitgl", "mtsgait", "swingait", "trackletgait"])
@torch.no_grad()
def test_sequences_have_an_order(name):
    model = make(f"{name}_tiny")
    clip = torch.rand(1, 9, 16, 12)
    error = relative_error(model(clip.flip(1)).embeddings, model(clip).embeddings)
    assert error > 1e-4


@torch.no_grad()
def test_tails_of_gaitgl():
    shallow = make("gaitgl_tiny")
    deep = make("gaitgl_tiny", depth=2, channels=(2, 3, 4, 4))
    clip = torch.rand(1, 8, 16, 12)
    black = clip.clone()
    black[:, -1] = 0
    assert torch.equal(shallow(clip).embeddings, shallow(black).embeddings)
    assert not torch.equal(deep(clip).embeddings, deep(black).embeddings)
    for frames, repeated in (([0], [0, 0, 0]), ([0, 1], [0, 1, 0, 1])):
        alone, again = shallow(clip[:, frames]), shallow(clip[:, repeated])
        assert relative_error(alone.embeddings, again.embeddings) < 1e-6


@torch.no_grad()
def test_gln_compact_block():
    model = make("gln_tiny", embedding="compact")
    clip = torch.rand(2, 5, 16, 12)
    output = model(clip)
    assert output.embeddings.shape == (2, 1, 4)
    assert output.logits.shape == (2, 1, 5)
    parts = make("gln_tiny")
    parts.load_state_dict(model.state_dict())
    assert torch.equal(parts(clip).logits, output.logits)
    assert parts(clip).embeddings.shape == (2, 18, 4)
    assert not [n for n, p in model.named_parameters() if "bn.bias" in n and p.requires_grad]
    with pytest.raises(ValueError, match="compact=True"):
        gaitzoo.create_model("gln_tiny", compact=False, embedding="compact")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("gln", (14, 12), "multiples of 4"),
        ("gaitgl", (15, 12), "2 strips divide"),
        ("gaitpart", (20, 12), "strips divide|band"),
        ("gaitset", (20, 12), "band"),
    ],
)
def test_heights_that_do_not_divide_are_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        make(f"{name}_tiny")(torch.rand(1, 3, *size))


def test_parts_of_gaitsets_first_release():
    model = make("gaitset_tiny", part_bins=(16, 8, 4, 2, 1), num_classes=0)
    doc_keys = {
        "set_block1.block.conv1": "set_layer1.forward_block",
        "set_block1.block.conv2": "set_layer2.forward_block",
        "set_block2.block.conv1": "set_layer3.forward_block",
        "set_block2.block.conv2": "set_layer4.forward_block",
        "set_block3.block.conv1": "set_layer5.forward_block",
        "set_block3.block.conv2": "set_layer6.forward_block",
        "global_block2.conv1": "gl_layer1",
        "global_block2.conv2": "gl_layer2",
        "global_block3.conv1": "gl_layer3",
        "global_block3.conv2": "gl_layer4",
    }
    ours = model.state_dict()
    theirs = {f"{b}.conv.weight": ours[f"{a}.conv.weight"] for a, b in doc_keys.items()}
    # Their order: bins 1, 2, 4, 8, 16; of each first the set's bands, then the whole's.
    rows, start = [], 0
    offsets = {16: 0, 8: 16, 4: 24, 2: 28, 1: 30}
    for bins in (1, 2, 4, 8, 16):
        rows += [offsets[bins] + i for i in range(bins)]
        rows += [31 + offsets[bins] + i for i in range(bins)]
        start += 2 * bins
    assert start == 62
    theirs["fc_bin.0"] = ours["part_fc.weight"][rows]
    converted = find_architecture("gaitset").convert(theirs)
    assert set(converted) == set(ours)
    assert all(torch.equal(converted[key], ours[key]) for key in ours)


def test_six_and_eight_convolutions_of_gaitpart_are_told_apart(tmp_path):
    weights = filled_weights(golden_doc("gaitpart_oumvlp"))
    path = tmp_path / "wide.pt"
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError, match=r"gaitpart\.oumvlp"):
        gaitzoo.create_model("gaitpart.casiab", checkpoint_path=path)


def test_swingait_refuses_another_table_of_distances():
    convert = find_architecture("swingait").convert
    key = "transformer.layers.0.blocks.0.attn.relative_position_index"
    with pytest.raises(ValueError, match="table of distances"):
        convert({key: KEPT["relative_position_index"].flip(0)})
    assert convert({key: KEPT["relative_position_index"]}) == {}


def test_drop_path_rates_of_swingait():
    with torch.device("meta"):
        model = gaitzoo.create_model("swingait.gait3d")
    blocks = (*model.stage1, *model.stage2)
    rates = [block.drop_path.drop_prob for block in blocks]
    assert rates == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert [block.moved for block in blocks] == [False, True, False, True, False, True]


def test_sconet_predicts_a_class_per_walk():
    model = make("sconet_tiny")
    clips = torch.rand(3, 5, 16, 12)
    logits = model(clips).logits
    assert logits.shape == (3, 4, 3)
    assert torch.equal(model.predict(clips), logits.mean(1).argmax(1))
    with pytest.raises(ValueError, match="num_classes=0"):
        make("sconet_tiny", num_classes=0).predict(clips)
