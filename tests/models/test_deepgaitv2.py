"""DeepGaitV2 and GaitBase: parity with the authors' outputs, their files' sizes, every block."""

import io
from collections import Counter, OrderedDict
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from parity import filled_weights, golden_doc, golden_errors

import gaitzoo
from gaitzoo import (
    DeepGaitV2,
    FrameWise,
    GaitBase,
    ResidualBackbone,
    ResidualBlock2d,
    ResidualBlock3d,
    ResidualBlockP3d,
)
from gaitzoo.models.residual_keys import convert_residual

DEPTHS = {"10": (1, 1, 1, 1), "14": (1, 2, 2, 1), "22": (1, 4, 4, 1), "30": (1, 4, 8, 1)}
SMALL = {"channels": (4, 4, 6, 8), "layers": (1, 1, 1, 1), "num_classes": 5}
GOLDENS = {
    "deepgaitv2_2d_10": ("deepgaitv2_2d", {"layers": DEPTHS["10"]}),
    "deepgaitv2_2d_14": ("deepgaitv2_2d", {"layers": DEPTHS["14"]}),
    "deepgaitv2_2d_22": ("deepgaitv2_2d", {"layers": DEPTHS["22"]}),
    "deepgaitv2_3d_10": ("deepgaitv2_3d", {"layers": DEPTHS["10"]}),
    "deepgaitv2_3d_14": ("deepgaitv2_3d", {"layers": DEPTHS["14"]}),
    "deepgaitv2_p3d_10": ("deepgaitv2_p3d", {"layers": DEPTHS["10"]}),
    "deepgaitv2_p3d_22": ("deepgaitv2_p3d", {"layers": DEPTHS["22"]}),
    "gaitbase_casiab": ("gaitbase.casiab", {}),
    "gaitbase_ccpg_w64": ("gaitbase.ccpg", {}),
    "gaitbase_lidar3ch": ("gaitbase", {"in_channels": 3}),
}


@pytest.mark.parametrize("golden", GOLDENS)
def test_outputs_equal_the_authors(golden, tmp_path):
    name, model_args = GOLDENS[golden]
    # Short clips; the 3-D networks are slow, and the long clips agree just as well.
    cases = {"eval/s7/seq0", "eval/s2/seq0", "eval/s1/seq3"}
    assert golden_errors(golden, name, tmp_path, cases, **model_args) < 1e-5


@pytest.mark.parametrize("golden", GOLDENS)
def test_authors_keys_and_shapes_are_exactly_ours(golden):
    name, model_args = GOLDENS[golden]
    doc = golden_doc(golden)
    with torch.device("meta"):
        model = gaitzoo.create_model(name, num_classes=12, **model_args)
    theirs = {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}
    converted = {key: value.shape for key, value in convert_residual(theirs).items()}
    assert converted == {key: value.shape for key, value in model.state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]


@pytest.mark.parametrize(
    ("mode", "depth", "parameters"),
    [
        ("2d", "10", 4_896_960),
        ("2d", "14", 6_373_056),
        ("2d", "22", 9_325_248),
        ("2d", "30", 14_047_936),
        ("p3d", "10", 5_930_944),
        ("p3d", "14", 7_653_568),
        ("p3d", "22", 11_098_816),
        ("p3d", "30", 16_609_984),
        ("3d", "10", 14_186_688),
        ("3d", "14", 18_611_904),
        ("3d", "22", 27_462_336),
        ("3d", "30", 41_622_208),
    ],
)
def test_parameter_totals(mode, depth, parameters):
    with torch.device("meta"):
        model = gaitzoo.create_model(f"deepgaitv2_{mode}", layers=DEPTHS[depth], num_classes=7)
    assert sum(p.numel() for p in model.backbone.parameters()) == parameters
    head = 16 * 512 * 256 + 2 * 4096 + 4096 * 7
    assert sum(p.numel() for p in model.parameters()) == parameters + head


def test_parameters_of_each_stage():
    for depth, totals in {
        "10": [704, 73_984, 279_552, 1_116_160, 4_460_544],
        "22": [704, 73_984, 1_314_048, 5_249_536, 4_460_544],
    }.items():
        with torch.device("meta"):
            backbone = ResidualBackbone("p3d", DEPTHS[depth])
        stages = [backbone.stem, *backbone.layers]
        assert [sum(p.numel() for p in stage.parameters()) for stage in stages] == totals


# ------------------------------------------------------- the authors' files, by their sizes

# What each file must hold besides the network's own numbers: "momentum" = one more float per
# parameter (SGD), "none" = the network alone.
FILES = {
    "deepgaitv2_p3d.gait3d": ("deepgaitv2_p3d_22", "momentum"),
    "deepgaitv2_p3d.grew": ("deepgaitv2_p3d_22", "momentum"),
    "deepgaitv2_p3d.oumvlp": ("deepgaitv2_p3d_10", "momentum"),
    "deepgaitv2_p3d.ccpg": ("deepgaitv2_p3d_10", "momentum"),
    "deepgaitv2_p3d.sustech1k": ("deepgaitv2_p3d_10", "momentum"),
    "gaitbase.gait3d": ("gaitbase_casiab", "momentum"),
    "gaitbase.grew": ("gaitbase_casiab", "none"),
    "gaitbase.oumvlp": ("gaitbase_casiab", "none"),
    "gaitbase.casiab": ("gaitbase_casiab", "momentum"),
    "gaitbase.casiae": ("gaitbase_casiab", "momentum"),
    "gaitbase.gait3d_parsing": ("gaitbase_casiab", "momentum"),
}


def is_parameter(key):
    return key.rpartition(".")[2] in ("weight", "bias", "fc_bin")


@lru_cache
def overhead(golden, optimizer):
    """Bytes of a file in the authors' layout that are no tensor data: names, pickle and zip."""
    shapes = golden_doc(golden)["state_dict"]
    weights = OrderedDict()
    for key, shape in shapes.items():
        counter = key.endswith("num_batches_tracked")
        weights[key] = torch.empty(shape, dtype=torch.int64 if counter else torch.float32)
    # Modules note their version beside their tensors, containers included.
    modules = OrderedDict({"": {"version": 1}})
    for key in shapes:
        names = key.split(".")[:-1]
        for end in range(1, len(names) + 1):
            modules[".".join(names[:end])] = {"version": 1}
    weights._metadata = modules
    content = {"model": weights}
    parameters = [value for key, value in weights.items() if is_parameter(key)]
    if optimizer == "momentum":
        state = {i: {"momentum_buffer": p.clone()} for i, p in enumerate(parameters)}
        group = {
            "lr": 1e-4,
            "momentum": 0.9,
            "dampening": 0,
            "weight_decay": 5e-4,
            "nesterov": False,
            "initial_lr": 0.1,
            "params": list(range(len(parameters))),
        }
        content |= {
            "optimizer": {"state": state, "param_groups": [group]},
            "scheduler": {
                "milestones": Counter((20000, 40000, 50000)),
                "gamma": 0.1,
                "base_lrs": [0.1],
                "last_epoch": 60000,
                "_step_count": 60001,
                "_last_lr": [1e-4],
            },
            "iteration": 60000,
        }
    file = io.BytesIO()
    torch.save(content, file)
    data = sum(v.nbytes for v in weights.values())
    if optimizer == "momentum":
        data += sum(p.nbytes for p in parameters)
    return len(file.getvalue()) - data


def unexplained_bytes(cfg, golden, optimizer, **changes):
    """Size of the authors' file minus what this model, written in their layout, would take."""
    with torch.device("meta"):
        model = gaitzoo.create_model(cfg.name, **changes)
    parameters = sum(p.nbytes for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    copies = {"none": 1, "momentum": 2, "adam": 3}[optimizer]
    beside = "none" if optimizer == "none" else "momentum"
    return cfg.size - copies * parameters - buffers - overhead(golden, beside)


@pytest.mark.parametrize("name", FILES)
def test_the_model_explains_the_size_of_the_authors_file(name):
    cfg = gaitzoo.model_info(name)
    golden, optimizer = FILES[name]
    # A class more or less is 16,384 bytes or twice that, a residual block a megabyte.
    assert -2_000 < unexplained_bytes(cfg, golden, optimizer) < 6_500


@pytest.mark.parametrize("name", FILES)
def test_no_other_structure_explains_the_size(name):
    cfg = gaitzoo.model_info(name)
    golden, optimizer = FILES[name]
    others = [
        (optimizer, {"num_classes": cfg.num_classes - 1}),
        (optimizer, {"num_classes": cfg.num_classes + 1}),
        ({"none": "momentum", "momentum": "none"}[optimizer], {}),
        ("adam", {}),
    ]
    others += [(optimizer, {"layers": d}) for d in DEPTHS.values() if d != layers_of(cfg)]
    for other, changes in others:
        assert abs(unexplained_bytes(cfg, golden, other, **changes)) > 10_000
    for mode in ("2d", "3d", "p3d"):
        with torch.device("meta"):
            model = DeepGaitV2(mode=mode, layers=layers_of(cfg), num_classes=cfg.num_classes)
        copies = 1 if optimizer == "none" else 2
        size = copies * sum(p.nbytes for p in model.parameters())
        own_mode = mode == ("p3d" if name.startswith("deep") else "2d")
        # Names, zip and buffers never reach a quarter of a megabyte.
        assert (0 < cfg.size - size < 250_000) == own_mode


def layers_of(cfg):
    return tuple(cfg.model_args.get("layers", (1, 1, 1, 1)))


def test_every_tag_with_a_file_says_what_a_download_needs():
    names = gaitzoo.list_models("deepgaitv2_*", pretrained=True)
    names += gaitzoo.list_models("gaitbase*", pretrained=True)
    assert sorted(names) == sorted(FILES)
    for name in names:
        cfg = gaitzoo.model_info(name)
        assert cfg.hub_id == "opengait/OpenGait"
        assert cfg.filename is not None
        assert cfg.filename.endswith(".pt")
        assert cfg.sha256 is not None
        assert len(cfg.sha256) == 64
        assert cfg.license == "none stated; authors: academic use only"
        assert "protocol" in cfg.metrics
        assert not cfg.reproduced


# ------------------------------------------------------------------------ files of the user


def write(path, weights):
    torch.save({"model": weights, "optimizer": {}, "scheduler": {}, "iteration": 3}, path)
    return path


def small_weights(golden, num_classes=12):
    """The golden's keys at a tenth of the width."""
    narrow = {64: 4, 128: 4, 256: 6, 512: 8, 4096: 96}
    shapes = golden_doc(golden)["state_dict"]
    doc = {"kept": {}, "weight_checksums": {}, "state_dict": {}}
    for key, shape in shapes.items():
        doc["state_dict"][key] = [narrow.get(d, d) for d in shape]
    doc["state_dict"]["BNNecks.fc_bin"][2] = num_classes
    return filled_weights(doc)


def test_gaitbase_is_the_frame_wise_deepgaitv2(tmp_path):
    weights = small_weights("gaitbase_casiab")
    path = write(tmp_path / "gaitbase.pt", weights)
    args = {"channels": SMALL["channels"], "checkpoint_path": path}
    base = gaitzoo.create_model("gaitbase", **args).eval()
    deep = gaitzoo.create_model("deepgaitv2_2d", layers=(1, 1, 1, 1), **args).eval()
    assert list(base.state_dict()) == list(deep.state_dict())
    clip = torch.rand(2, 5, 64, 44)
    assert torch.equal(base(clip).embeddings, deep(clip).embeddings)
    assert torch.equal(base(clip).logits, deep(clip).logits)
    # The other way round: their names for DeepGaitV2 hold the same tensors in the same order.
    theirs = golden_doc("deepgaitv2_2d_10")["state_dict"]
    renamed = dict(zip(theirs, (weights[k] for k in sorted_like(theirs, weights)), strict=True))
    path = write(tmp_path / "deepgaitv2.pt", renamed)
    again = gaitzoo.create_model("gaitbase", **{**args, "checkpoint_path": path}).eval()
    assert torch.equal(again(clip).embeddings, base(clip).embeddings)


def sorted_like(deepgaitv2_keys, gaitbase_keys):
    """GaitBase's key for each of DeepGaitV2's, by the names that both give to blocks."""
    for key in deepgaitv2_keys:
        if key.startswith("layer0.forward_block.0"):
            yield "Backbone.forward_block.conv1.conv.weight"
        elif key.startswith("layer0.forward_block.1"):
            yield f"Backbone.forward_block.bn1.{key.rpartition('.')[2]}"
        elif key.startswith("layer"):
            yield f"Backbone.forward_block.{key.replace('forward_block.', '')}"
        else:
            assert key in gaitbase_keys
            yield key


@pytest.mark.parametrize("golden", ["deepgaitv2_p3d_10", "deepgaitv2_3d_10", "gaitbase_casiab"])
def test_other_class_counts_drop_the_class_matrix_alone(golden, tmp_path):
    name = GOLDENS[golden][0]
    path = write(tmp_path / "file.pt", small_weights(golden))
    args = {"channels": SMALL["channels"], "layers": (1, 1, 1, 1), "checkpoint_path": path}
    as_saved = gaitzoo.create_model(name, **args).eval()
    assert as_saved.num_classes == 12
    clip = torch.rand(2, 3, 64, 44)
    for num_classes in (0, 3):
        model = gaitzoo.create_model(name, num_classes=num_classes, **args).eval()
        output = model(clip)
        assert torch.equal(output.embeddings, as_saved(clip).embeddings)
        assert torch.equal(model.neck.bn.weight, as_saved.neck.bn.weight)
        shape = None if output.logits is None else output.logits.shape
        assert shape == (None if num_classes == 0 else (2, 16, 3))


def test_without_classes_the_class_matrix_is_never_made():
    model = gaitzoo.create_model("deepgaitv2_p3d.grew", num_classes=0)
    assert model.neck.classifier is None
    assert sum(p.numel() for p in model.parameters()) == 11_098_816 + 2_097_152 + 8_192


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer3.0.sbn.weight"), r"1 missing \(backbone.layers.2.0.temporal_bn"),
        (lambda w: w.update({"layer3.1.bn1.weight": torch.ones(6)}), "1 left over|1 key"),
        (lambda w: w.update({"layer5.0.bn1.weight": torch.ones(6)}), "layer5.0.bn1.weight"),
        (lambda w: w.update({"FCs.fc_bin": torch.ones(16, 8, 7)}), "of another shape"),
    ],
)
def test_files_that_do_not_fit_are_refused_whole(change, message, tmp_path):
    weights = small_weights("deepgaitv2_p3d_10")
    change(weights)
    path = write(tmp_path / "file.pt", weights)
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model(
            "deepgaitv2_p3d", checkpoint_path=path, channels=SMALL["channels"], layers=(1, 1, 1, 1)
        )


def test_a_file_of_another_variant_is_named(tmp_path):
    shapes = golden_doc("deepgaitv2_p3d_10")["state_dict"]
    weights = {key: torch.zeros(shape) for key, shape in shapes.items()}
    path = tmp_path / "file.pt"
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError, match=r"it fits .*deepgaitv2_p3d\.ccpg"):
        gaitzoo.create_model("deepgaitv2_p3d.gait3d", checkpoint_path=path)


# --------------------------------------------------------------------------------- blocks


def convolved(conv, x):
    """A bias-free convolution of ``[C, T, H, W]`` by loops, zeros around."""
    weight = conv.weight if conv.weight.ndim == 5 else conv.weight[:, :, None]
    stride = conv.stride if len(conv.stride) == 3 else (1, *conv.stride)
    pads = [size // 2 for size in weight.shape[2:]]
    padded = F.pad(x, [p for size in reversed(pads) for p in (size, size)])
    sizes = [-(-n // s) for n, s in zip(x.shape[1:], stride, strict=True)]
    out = torch.zeros(weight.shape[0], *sizes, dtype=x.dtype)
    for t in range(sizes[0]):
        for h in range(sizes[1]):
            for w in range(sizes[2]):
                i, j, k = t * stride[0], h * stride[1], w * stride[2]
                kt, kh, kw = weight.shape[2:]
                window = padded[:, i : i + kt, j : j + kh, k : k + kw]
                out[:, t, h, w] = (weight * window).sum((1, 2, 3, 4))
    return out


def normed(norm, x):
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean[:, None, None, None]) * scale[:, None, None, None] + norm.bias[
        :, None, None, None
    ]


def block_by_loops(block, x):
    def conv_bn(conv, norm, z):
        return normed(norm, convolved(conv, z))

    y = conv_bn(block.conv1, block.bn1, x).clamp(min=0)
    if isinstance(block, ResidualBlockP3d):
        y = (y + conv_bn(block.temporal_conv, block.temporal_bn, y)).clamp(min=0)
    y = conv_bn(block.conv2, block.bn2, y)
    shortcut = x if block.shortcut is None else conv_bn(*block.shortcut, x)
    return (y + shortcut).clamp(min=0)


def with_random_norms(module):
    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                torch.nn.init.normal_(tensor)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.double().eval()


@pytest.mark.parametrize("make", [ResidualBlock2d, ResidualBlock3d, ResidualBlockP3d])
@pytest.mark.parametrize("widths_and_stride", [(2, 2, 1), (2, 3, 1), (2, 3, 2)])
@torch.no_grad()
def test_blocks_by_loops(make, widths_and_stride):
    block = with_random_norms(make(*widths_and_stride))
    assert (block.shortcut is None) == (widths_and_stride == (2, 2, 1))
    x = torch.randn(2, 2, 4, 5, 3, dtype=torch.float64)
    run = FrameWise(block) if make is ResidualBlock2d else block
    wanted = torch.stack([block_by_loops(block, clip) for clip in x])
    torch.testing.assert_close(run(x), wanted)


@pytest.mark.parametrize("make", [ResidualBlock2d, ResidualBlock3d, ResidualBlockP3d])
def test_blocks_say_what_they_take(make):
    wrong = {"in_channels": (0, 4), "out_channels": (4, -1), "stride": (4, 4, 0)}
    for name, sizes in (*wrong.items(), ("in_channels", (4.0, 4)), ("in_channels", (True, 4))):
        with pytest.raises(ValueError, match=f"expected {name} as a positive whole number"):
            make(*sizes)
    block = make(2, 3)
    axes = "BHW" if make is ResidualBlock2d else "NTHW"
    shape = [2] * len(axes)
    with pytest.raises(ValueError, match=rf"expected .*\[{axes[0]}, 2, "):
        block(torch.rand(*shape[:1], 5, *shape[1:]))
    with pytest.raises(ValueError, match=rf"expected .*\[{axes[0]}, 2, "):
        block(torch.rand(*shape))
    with pytest.raises(TypeError, match=r"of floats, got torch\.uint8"):
        block(torch.zeros(*shape[:1], 2, *shape[1:], dtype=torch.uint8))
    if make is not ResidualBlock2d:
        with pytest.raises(ValueError, match="lengths from 1 to 2"):
            block(torch.rand(2, 2, 2, 4, 4), torch.tensor([3, 1]))


def test_backbone_and_frame_wise_say_what_they_take():
    backbone = ResidualBackbone("p3d", (1, 1, 1, 1), (4, 4, 6, 8))
    with pytest.raises(ValueError, match=r"map \[N, 1, T, H, W\]"):
        backbone(torch.rand(2, 3, 4, 16, 12))
    with pytest.raises(TypeError, match="lengths as an int64 tensor"):
        backbone(torch.rand(2, 1, 4, 16, 12), torch.tensor([4.0, 2.0]))
    with pytest.raises(ValueError, match=r"map \[N, C, T, H, W\]"):
        FrameWise(torch.nn.Identity())(torch.rand(2, 3, 16, 12))


def test_frame_wise_is_a_loop_over_frames():
    block = torch.nn.Conv2d(2, 3, kernel_size=3, stride=2)
    x = torch.randn(2, 2, 4, 9, 7)
    wanted = torch.stack([block(x[:, :, t]) for t in range(4)], dim=2)
    torch.testing.assert_close(FrameWise(block)(x), wanted)


@pytest.mark.parametrize("make", [ResidualBlock3d, ResidualBlockP3d])
@torch.no_grad()
def test_blocks_over_time_do_not_see_the_padding(make):
    block = with_random_norms(make(2, 3, 2))
    x = torch.randn(2, 2, 5, 8, 6, dtype=torch.float64)
    x[1, :, 3:] = float("nan")
    found = block(x, torch.tensor([5, 3]))
    torch.testing.assert_close(found[1, :, :3], block(x[1:, :, :3])[0])
    torch.testing.assert_close(found[0], block(x[:1])[0])


# ---------------------------------------------------------------------------------- model


@pytest.mark.parametrize("mode", ["2d", "3d", "p3d"])
@pytest.mark.parametrize("size", [(64, 44), (64, 64), (128, 88), (128, 128), (62, 43)])
def test_map_and_embedding_shapes(mode, size):
    with torch.device("meta"):
        model = DeepGaitV2(mode=mode, num_classes=7).eval()
        silhouettes = torch.empty(2, 6, *size)
        features, lengths = model.forward_features(silhouettes)
        assert lengths is None
        assert features.shape == (2, 512, 6, -(-size[0] // 4), -(-size[1] // 4))
        output = model(silhouettes)
    assert output.embeddings.shape == (2, 16, 256)
    assert output.logits is not None
    assert output.logits.shape == (2, 16, 7)


@pytest.mark.parametrize("mode", ["2d", "3d", "p3d"])
@torch.no_grad()
def test_order_of_frames_matters_only_over_time(mode):
    model = DeepGaitV2(mode=mode, **SMALL).eval()
    clip = torch.rand(1, 6, 64, 44)
    shuffled = clip[:, torch.tensor([3, 0, 5, 1, 4, 2])]
    error = relative_error(model(shuffled).embeddings, model(clip).embeddings)
    assert error < 1e-6 if mode == "2d" else error > 1e-4
    # The same frame again and again is the same as once, where frames are seen alone.
    still = clip[:, :1].expand(-1, 4, -1, -1)
    error = relative_error(model(still).embeddings, model(clip[:, :1]).embeddings)
    assert error < 1e-6 if mode == "2d" else error > 1e-4


@pytest.mark.parametrize("make", [DeepGaitV2, GaitBase])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_length_law_at_depth(make, dtype, tolerance):
    args = {**SMALL, "layers": (2, 2, 2, 2)}
    modes = ({"mode": m} for m in ("2d", "3d", "p3d")) if make is DeepGaitV2 else ({},)
    for mode in modes:
        model = with_random_norms(make(**mode, **args)).to(dtype)
        lengths = torch.tensor([1, 2, 3, 7, 12])
        batch = torch.full((5, 12, 64, 44), float("nan"), dtype=dtype)
        for row, length in zip(batch, lengths.tolist(), strict=True):
            row[:length] = torch.rand(length, 64, 44, dtype=dtype)
        found = model(batch, lengths).embeddings
        for i, length in enumerate(lengths.tolist()):
            wanted = model(batch[i : i + 1, :length]).embeddings[0]
            assert relative_error(found[i], wanted) < tolerance


def test_embedding_side_of_the_batch_norm():
    fc, bnneck = (DeepGaitV2(embedding=side, **SMALL).eval() for side in ("fc", "bnneck"))
    bnneck.load_state_dict(fc.state_dict())
    clip = torch.rand(2, 3, 64, 44)
    before, after = fc(clip), bnneck(clip)
    assert fc.pretrained_cfg.embedding == "before_bn"
    assert bnneck.pretrained_cfg.embedding == "after_bn"
    torch.testing.assert_close(after.embeddings, fc.neck(before.embeddings)[0])
    torch.testing.assert_close(after.embeddings.norm(dim=2), torch.ones(2, 16))
    assert torch.equal(before.logits, after.logits)
    created = gaitzoo.create_model("deepgaitv2_p3d", embedding="bnneck", **SMALL)
    assert created.pretrained_cfg.embedding == "after_bn"


@pytest.mark.parametrize("name", ["deepgaitv2_p3d_tiny", "gaitbase_tiny"])
def test_frozen_models_stay_as_they_are(name):
    encoder = gaitzoo.create_model(name)
    assert encoder.freeze() is encoder
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    wrapper = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(4, 2)}).train()
    assert not any(module.training for module in encoder.modules())
    assert wrapper["head"].training
    embeddings = encoder(torch.rand(2, 3, 16, 12)).embeddings
    wrapper["head"](embeddings).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_recomputing_counts_statistics_once():
    models = [gaitzoo.create_model("deepgaitv2_p3d_tiny").train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].set_grad_checkpointing()
    clip = torch.rand(3, 4, 16, 12)
    for model in models:
        model(clip).logits.square().sum().backward()
    for (key, plain), recomputed in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        assert torch.equal(plain, recomputed), key
    for plain, recomputed in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(plain.grad, recomputed.grad)


@torch.no_grad()
def test_label_maps_are_floats_or_whole_numbers():
    model = gaitzoo.create_model("gaitbase.gait3d_parsing", channels=(4, 4, 6, 8), num_classes=0)
    labels = torch.randint(0, 12, (2, 3, 64, 44))
    found = model.eval()(labels.float()).embeddings
    assert found.shape == (2, 16, 6)
    assert torch.equal(model(labels.to(torch.uint8)).embeddings, found)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"mode": "4d"}, 'mode "2d", "3d" or "p3d", got \'4d\''),
        ({"layers": (1, 1, 1)}, r"as many of layers as of channels, got \(64, 128, 256, 512\)"),
        ({"layers": (1, 0, 1, 1)}, "layers as up to four positive"),
        ({"channels": (64, 128, 256, 0)}, "channels as up to four positive"),
        ({"in_channels": 0}, "in_channels as a positive whole number, got 0"),
        ({"embedding": "emb2"}, 'embedding "fc" or "bnneck", got \'emb2\''),
        ({"part_bins": ()}, "part_bins as a tuple"),
        ({"num_classes": -1}, "num_classes >= 0"),
        ({"num_classes": "7"}, "num_classes as a whole number, .* got '7'"),
        ({"num_classes": 7.0}, "num_classes as a whole number, .* got 7.0"),
        ({"num_classes": True}, "num_classes as a whole number, .* got True"),
        ({"layers": 4}, "layers as up to four .* got 4"),
        ({"layers": (1, True, 1, 1)}, "layers as up to four positive"),
        ({"channels": 64}, "channels as up to four .* got 64"),
        ({"part_bins": 16}, "part_bins as a tuple"),
        ({"mode": ["2d"]}, 'mode "2d", "3d" or "p3d", got'),
    ],
)
def test_bad_arguments(model_args, message):
    with pytest.raises(ValueError, match=message):
        DeepGaitV2(**model_args)


def test_bands_that_do_not_divide_the_map():
    model = DeepGaitV2(**SMALL).eval()
    with pytest.raises(ValueError, match=r"16 band.* got 15 rows"):
        model(torch.rand(1, 2, 60, 44))


def test_an_entry_has_one_mode():
    with pytest.raises(ValueError, match="create deepgaitv2_3d instead"):
        gaitzoo.create_model("deepgaitv2_2d", mode="3d")
    with pytest.raises(ValueError, match="got '4d'; leave it out"):
        gaitzoo.create_model("deepgaitv2_2d", mode="4d")
    for mode in ("2d", "3d", "p3d"):
        model = gaitzoo.create_model(f"deepgaitv2_{mode}", **SMALL)
        assert model.backbone.mode == mode
        assert model.architecture == f"deepgaitv2_{mode}"
    assert gaitzoo.create_model("gaitbase", **SMALL).architecture == "gaitbase"
