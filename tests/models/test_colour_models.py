"""BigGait and BiggerGait: the authors' numbers, keys, files; chunks, features, foreground."""

import math
import re
from collections import Counter, OrderedDict

import pytest
import torch
from builders import make
from conftest import relative_error
from golden import fill
from parity import GOLDEN, golden_doc, write_like_the_authors
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import gaitzoo
from gaitzoo.hub.checkpoint import to_our_layout
from gaitzoo.models.dinov2 import Dinov2Encoder, convert_dinov2
from gaitzoo.models.opengait_files import HUB_FILES
from gaitzoo.models.registry import find_architecture

GOLDENS = {
    "biggait_ccpg": "biggait.ccpg",
    "biggergait_ccpg": "biggergait.ccpg",
    "biggergait_ccpg_grouped": "biggergait.ccpg_grouped",
}
GROUP = re.compile(r"Gait_Net\.Gait_List\.(\d+)\.(.+)")
NAMES = ("biggait_tiny", "biggergait_tiny")
# Before version 5 of transformers, whose names the authors' files have.
OLD_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def old_name(key):
    for new, old in OLD_NAMES.items():
        key = key.replace(new, old)
    return key


def in_force(doc):
    """Published keys to those of the tensors that they stand for: networks stand under two."""
    shapes = doc["state_dict"]
    groups = {int(match[1]) for key in shapes if (match := GROUP.fullmatch(key))}
    heads = {key.split(".")[2] for key in shapes if ".real_gait." in key}
    each = len(groups) // max(1, len(heads))
    names = {}
    for key in shapes:
        if match := GROUP.fullmatch(key):
            last = (int(match[1]) // each + 1) * each - 1
            names[key] = f"Gait_Net.Gait_List.{last}.{match[2]}"
        elif ".real_gait." in key:
            head, rest = key.split(".", 3)[2:]
            names[key] = f"Gait_Net.Gait_List.{(int(head) + 1) * each - 1}.{rest}"
        else:
            names[key] = key
    return names


def filled(doc):
    """The authors' state dict; what stands twice is one tensor."""
    names = in_force(doc)
    tensors = {
        key: fill.fill_value(key, doc["state_dict"][key]) for key in dict.fromkeys(names.values())
    }
    return {key: tensors[name] for key, name in names.items()}


@pytest.mark.parametrize("golden", GOLDENS)
@torch.no_grad()
def test_outputs_equal_the_authors(golden, tmp_path):
    doc = golden_doc(golden)
    weights = {old_name(key): value for key, value in filled(doc).items()}
    path = tmp_path / "authors.pt"
    write_like_the_authors(weights, path)
    model = gaitzoo.create_model(GOLDENS[golden], checkpoint_path=path, num_classes=12).eval()
    path.unlink()
    case = doc["cases"][0]
    (maps,) = fill.model_input(doc["input"], 1, case["s"], case["input_key"])
    assert [fill.checksum(maps)] == case["input_checksum"]
    output = model(maps.transpose(1, 2))
    wanted = load_file(GOLDEN / f"{golden}.safetensors")[f"{case['id']}/embeddings"]
    assert relative_error(output.embeddings, wanted.transpose(1, 2)) < 1e-5
    # They publish no class scores: the neck of their layout, part by part.
    head = "Gait_Net.Gait_List.0." if "gait_net.FCs.fc_bin" not in weights else "gait_net."
    bn = {k: weights[f"{head}BNNecks.bn1d.{k}"] for k in ("running_mean", "running_var")}
    bn |= {k: weights[f"{head}BNNecks.bn1d.{k}"] for k in ("weight", "bias")}
    classes = weights[f"{head}BNNecks.fc_bin"]
    for part in (0, len(classes) - 1):
        rows = torch.arange(256) * len(classes) + part
        x = (wanted[0, :, part] - bn["running_mean"][rows]) / (
            bn["running_var"][rows] + 1e-5
        ).sqrt()
        x = F.normalize(x * bn["weight"][rows] + bn["bias"][rows], dim=0)
        scores = x @ F.normalize(classes[part], dim=0)
        assert relative_error(output.logits[0, part], scores) < 1e-5


@pytest.mark.parametrize("golden", GOLDENS)
def test_authors_keys_are_exactly_ours(golden):
    doc = golden_doc(golden)
    with torch.device("meta"):
        model = gaitzoo.create_model(GOLDENS[golden], num_classes=12)
        theirs = {key: torch.empty(shape) for key, shape in doc["state_dict"].items()}
    convert = find_architecture(model.architecture).convert
    found = {key: tuple(value.shape) for key, value in convert(theirs).items()}
    assert found == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]
    with pytest.raises(ValueError, match="not of the authors'"):
        convert({**theirs, "other.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["biggait.ccpg", "biggergait.ccpg", "biggergait.ccgr_grouped"])
def test_own_files_are_not_taken_for_the_authors(name):
    # Most of such a file is DINOv2, under names that both layouts share in the end.
    with torch.device("meta"):
        ours = gaitzoo.create_model(name).state_dict()
    assert to_our_layout(dict(ours), name.partition(".")[0], "own.pt").keys() == ours.keys()


def test_groups_that_cannot_be_dealt_are_refused():
    convert = find_architecture("biggergait").convert
    keys = [f"Gait_Net.real_gait.{i}.FCs.fc_bin" for i in (0, 1)]
    keys += [f"Gait_Net.Gait_List.{i}.FCs.fc_bin" for i in (0, 1, 2)]
    with pytest.raises(ValueError, match="dealt to 2 networks, got 3"):
        convert({key: torch.zeros(2, 3, 4) for key in keys})


def predicted_size(name, doc, momentum, folder, **changes):
    """Bytes of a file like the authors': packaging measured on one number per tensor."""
    cfg = gaitzoo.model_info(name)
    num_classes = changes.get("num_classes", cfg.num_classes)
    tensors, trained, missing = {}, [], 0
    names = in_force(doc)
    for key in dict.fromkeys(names.values()):
        shape = doc["state_dict"][key]
        if key.endswith("BNNecks.fc_bin"):
            shape = [*shape[:2], num_classes]
        counter = key.endswith("num_batches_tracked")
        tensors[key] = torch.zeros([1] * len(shape), dtype=torch.int64 if counter else None)
        left_out = (math.prod(shape) - 1) * tensors[key].element_size()
        frozen = key.startswith(("backbone.", "Backbone.", "Mask_Branch."))
        if not frozen and not counter and "running_" not in key:
            trained.append((tensors[key].clone(), left_out))
        missing += left_out
    content = {
        "model": OrderedDict((old_name(key), tensors[known]) for key, known in names.items()),
        "iteration": 30000,
    }
    if momentum:
        missing += sum(left_out for _, left_out in trained)
        state = {i: {"momentum_buffer": tensor} for i, (tensor, _) in enumerate(trained)}
        groups = [{"lr": 0.1, "momentum": 0.9, "params": list(range(len(trained)))}]
        steps = {"milestones": Counter([10000, 20000]), "last_epoch": 30000}
        content["optimizer"] = {"state": state, "param_groups": groups}
        content["scheduler"] = steps
    path = folder / cfg.filename.rpartition("/")[2]
    torch.save(content, path)
    return path.stat().st_size + missing


FILES = {
    "biggait.ccpg": ("biggait_ccpg", False),
    "biggergait.ccpg": ("biggergait_ccpg", True),
    "biggergait.ccpg_grouped": ("biggergait_ccpg_grouped", True),
    "biggergait.ccgr_grouped": ("biggergait_ccpg_grouped", True),
}


@pytest.mark.parametrize("name", FILES)
def test_the_model_explains_the_size_of_its_file(name, tmp_path):
    golden, momentum = FILES[name]
    cfg, doc = gaitzoo.model_info(name), golden_doc(golden)
    assert cfg.sha256 == HUB_FILES[name].sha256

    def rest(**changes):
        with_momentum = changes.pop("momentum", momentum)
        return cfg.size - predicted_size(name, doc, with_momentum, tmp_path, **changes)

    # In the files of two networks, 120 bytes per tensor are not explained.
    least, most = (60_000, 70_000) if "grouped" in name else (-6_000, 2_000)
    assert least < rest() < most
    others = [{"momentum": not momentum}]
    others += [{"num_classes": cfg.num_classes + step} for step in (-1, 1)]
    for changes in others:
        assert not least < rest(**changes) < most


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_chunks_give_the_same_numbers(name):
    clips, lengths = torch.randn(3, 3, 7, 16, 8), torch.tensor([7, 1, 5])
    whole = make(name, chunk_frames=96)(clips, lengths).embeddings
    for chunk_frames in (1, 3, 4):
        model = make(name, chunk_frames=chunk_frames)
        most = []
        model.encoder.register_forward_pre_hook(lambda _, args, m=most: m.append(len(args[0])))
        found = model(clips, lengths)
        assert relative_error(found.embeddings, whole) < 1e-6
        # Padded frames are never computed.
        assert max(most) == chunk_frames
        assert sum(most) == 13


@pytest.mark.parametrize("name", ["biggait", "biggergait"])
@torch.no_grad()
def test_features_computed_before(name, tmp_path):
    small = {"channels": (2, 3, 4, 5), "part_channels": 3, "num_classes": 2}
    model = make(name, **small)
    clips, lengths = torch.randn(2, 3, 3, 64, 32), torch.tensor([3, 1])
    features = model.encode(clips, lengths)
    assert features.shape[:1] + features.shape[2:] == (2, 3, 32, 16)
    assert not features[1, :, 1:].any()
    wanted = model(clips, lengths).embeddings
    without = model.drop_encoder()
    assert relative_error(without(features, lengths).embeddings, wanted) < 1e-6
    with pytest.raises(ValueError, match=r"features of \(32, 16\)"):
        without(features[..., :1], lengths)
    for call in (lambda: without.encode(clips), without.drop_encoder):
        with pytest.raises(ValueError, match="with an encoder"):
            call()
    without.save_pretrained(tmp_path)
    again = gaitzoo.create_model(f"local-dir:{tmp_path}").eval()
    assert again.modalities == ("features",)
    assert torch.equal(again(features).embeddings, without(features).embeddings)
    with pytest.raises(ValueError, match="to leave it out"):
        make(f"{name}_tiny").drop_encoder()


@pytest.mark.parametrize(("name", "channels"), [("biggait", 1920), ("biggergait", 4608)])
@torch.no_grad()
def test_models_without_encoder_read_features(name, channels):
    small = {"channels": (2, 3, 4, 5), "part_channels": 3, "num_classes": 0}
    model = gaitzoo.create_model(name, encoder=None, **small).eval()
    assert model.modalities == ("features",)
    assert model.pretrained_cfg.input_size == (32, 16)
    assert not [key for key in model.state_dict() if key.startswith("encoder.")]
    clips = [torch.randn(channels, frames, 32, 16) for frames in (2, 1)]
    found = gaitzoo.embed(model, clips, progress=False)
    for clip, embeddings in zip(clips, found, strict=True):
        assert relative_error(embeddings, model(clip[None]).embeddings[0]) < 1e-5
    with pytest.raises(ValueError, match="encoder_pretrained"):
        gaitzoo.create_model(name, encoder=None, encoder_pretrained=True)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_bytes_are_standardised_by_the_model(name):
    model = make(name)
    frames = torch.randint(0, 256, (3, 4, 16, 8), dtype=torch.uint8)
    ready = gaitzoo.create_transform(model)(frames)
    assert ready.min() < 0
    wanted = model(ready[None]).embeddings
    assert relative_error(model(frames[None]).embeddings, wanted) < 1e-6
    embedded = gaitzoo.embed(model, [frames, frames.float() / 255, ready], progress=False)
    for one in embedded:
        assert relative_error(one, wanted[0]) < 1e-5
    with pytest.raises(ValueError, match="rows to columns"):
        model(torch.rand(1, 3, 4, 16, 16))
    with pytest.raises(ValueError, match="standardised rgb"):
        model(frames[None].float())


def test_frozen_parts_stay_and_can_be_trained():
    model = make("biggait_tiny").train()
    trained = [key for key, p in model.named_parameters() if p.requires_grad]
    assert not [key for key in trained if key.startswith(("encoder.", "mask_branch."))]
    assert not model.encoder.training
    maps = torch.randn(2, 16, 3, 4)
    branch = model.mask_branch.requires_grad_(True)
    F.mse_loss(branch.rebuild(branch(maps)), maps).backward()
    assert all(p.grad is not None and p.grad.any() for p in branch.parameters())


@torch.no_grad()
def test_statistics_of_training_are_those_of_the_person():
    model = make("biggait_tiny").train()
    model.denoising.norm.reset_running_stats()
    seen = []
    model.denoising.norm.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    clips = torch.randn(2, 3, 4, 16, 8)
    model(clips, torch.tensor([4, 3]))
    masks = []
    for clip, count in zip(clips, (4, 3), strict=True):
        features = model.encode(clip[None, :, :count])[0].transpose(0, 1)
        masks.append(model.foreground(F.interpolate(features[:, -16:], (16, 8), mode="bilinear")))
    assert seen == [int(torch.cat(masks).sum())]


@torch.no_grad()
def test_foreground_of_biggait():
    model = make("biggait_tiny")
    probabilities = torch.rand(40, 2, 16, 8)
    probabilities[:20, 0] *= 0.6
    model.mask_branch.forward = lambda _: probabilities
    found = model.foreground(torch.zeros(40, 16, 16, 8))
    swaps = 0
    for frame in range(40):
        rows = [*range(5), *range(11, 16)]
        ones = sum(bool(probabilities[frame, 0, y, x] > 0.5) for y in rows for x in range(8))
        kind = int(ones > 40)
        swaps += kind
        for y in range(16):
            for x in range(8):
                near = [
                    bool(probabilities[frame, kind, v, u] > 0.5)
                    for v in range(max(0, y - 1), min(16, y + 2))
                    for u in range(max(0, x - 1), min(8, x + 2))
                ]
                assert bool(found[frame, 0, y, x]) == any(near)
    assert 0 < swaps < 40


@torch.no_grad()
def test_foreground_of_biggergait():
    model = make("biggergait_tiny")
    person = torch.zeros(1, 2, 8, 4)
    person[:, 1, 2:5, 1:3] = 1
    person[:, 0] = 1 - person[:, 1]
    model.mask_branch.forward = lambda _: person
    found = model.foreground(torch.randn(1, 16, 8, 4))[0, 0]
    wanted = torch.zeros(16, 8, dtype=torch.bool)
    wanted[4:10, 2:6] = True
    # Rounded corners: 9 sixteenths of a pixel there.
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"image_size": (30, 16)}, "multiples of 4"),
        ({"encoder": "facebook/dinov2-tiny"}, "expected encoder among"),
        ({"encoder_layers": (0, 2)}, "numbers of blocks"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model("biggait_tiny", **arguments)


def test_heads_must_divide_the_groups():
    with pytest.raises(ValueError, match="num_heads"):
        gaitzoo.create_model("biggergait_tiny", group_layers=2, num_heads=4)


@torch.no_grad()
def test_encoder_equals_that_of_transformers():
    from transformers import Dinov2Config, Dinov2Model

    config = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    config |= {"patch_size": 4, "image_size": 12}
    encoder = Dinov2Encoder(config).eval()
    other = Dinov2Model(Dinov2Config(**config)).eval()
    other.load_state_dict(encoder.vit.state_dict())
    images = torch.randn(2, 3, 16, 8)
    wanted = other(images, output_hidden_states=True)
    maps, normed = encoder(images)
    for found, tokens in zip(
        (*maps, normed), (*wanted.hidden_states[1:], wanted.last_hidden_state), strict=True
    ):
        assert relative_error(found.flatten(2).transpose(1, 2), tokens[:, 1:]) < 1e-6
    with pytest.raises(ValueError, match="multiples of 4"):
        encoder(images[..., :7])


def test_layouts_of_dinov2():
    encoder = Dinov2Encoder({"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2})
    ours = encoder.vit.state_dict()
    old = {old_name(key): value for key, value in ours.items()}
    assert any(".attention.attention." in key for key in old)
    found = convert_dinov2(old)
    assert found.keys() == ours.keys()
    joined = {
        "blocks.1.attn.qkv.bias": torch.cat(
            [ours[f"encoder.layer.1.attention.{letter}_proj.bias"] for letter in "qkv"]
        ),
        "blocks.0.1.ls2.gamma": ours["encoder.layer.1.layer_scale2.lambda1"],
        "patch_embed.proj.bias": ours["embeddings.patch_embeddings.projection.bias"],
    }
    for key, value in convert_dinov2(joined).items():
        assert torch.equal(value, ours[key])


def test_files_have_one_layout_with_all_versions_of_transformers():
    encoder = Dinov2Encoder({"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2})
    attention = nn.Module()
    attention.attention = nn.Module()
    attention.attention.query = nn.Linear(2, 2)
    layer = nn.Module()
    layer.attention = attention
    encoder.vit = nn.Module()
    encoder.vit.layer = nn.ModuleList([layer])
    saved = encoder.state_dict()
    assert set(saved) == {f"vit.layer.0.attention.q_proj.{name}" for name in ("weight", "bias")}
    encoder.load_state_dict({key: value + 1 for key, value in saved.items()})


def test_weights_of_the_encoder_without_network():
    with pytest.raises(OSError, match="cannot load the encoder 'facebook/dinov2-small'"):
        gaitzoo.create_model("biggait", encoder_pretrained=True, num_classes=0)
