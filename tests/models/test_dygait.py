"""DyGait: parity with the authors' outputs, totals, layer shapes, and every rule of its blocks."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from parity import filled_weights, golden_doc, golden_errors, sine_fill, sine_frames

import gaitzoo
from gaitzoo import DAM, DyGait, DyGaitBlock
from gaitzoo.layers.dynamic import DyGaitStage
from gaitzoo.models.dygait import convert_checkpoint


@pytest.mark.parametrize(
    ("golden", "name", "model_args", "cases"),
    [
        ("dygait_grew_ch32", "dygait.grew", {"channels": (32, 32, 32, 32)}, None),
        (
            "dygait_gait3d_ch32",
            "dygait.gait3d",
            {"channels": (32, 32, 32, 32)},
            None,
        ),
        (
            "dygait_grew",
            "dygait.grew",
            {"shortcut": "authors"},
            None,
        ),
    ],
)
def test_outputs_equal_the_authors(golden, name, model_args, cases, tmp_path):
    assert golden_errors(golden, name, tmp_path, cases, **model_args) < 1e-5


@pytest.mark.parametrize(
    ("channels", "total", "absolute", "first", "last"),
    [
        (1, 101.607456018, 343.850075966, 0.356851025, 0.998858052),
        (4, 96.848031357, 315.722908052, None, 0.751553530),
    ],
)
def test_block_gives_the_reference_sums(channels, total, absolute, first, last):
    names = {
        f"conv{stage}{kind}.weight": (4, channels if stage == 1 else 4, depth, 3, 3)
        for stage in (1, 2)
        for kind, depth in (("g", 3), ("d", 3), ("s", 1 if stage == 1 else 3))
    }
    weights = convert_checkpoint({f"conv3d0.{k}": v for k, v in sine_fill(names).items()})
    block = DyGaitBlock(channels, 4).double()
    block.load_state_dict({k.removeprefix("blocks.0."): v for k, v in weights.items()})
    x = torch.sin(0.7 * torch.arange(channels * 120, dtype=torch.float64))
    y = block(x.reshape(1, channels, 5, 6, 4)).flatten()
    assert y.sum().item() == pytest.approx(total, rel=1e-9)
    assert y.abs().sum().item() == pytest.approx(absolute, rel=1e-9)
    assert y[-1].item() == pytest.approx(last, abs=1e-9)
    if first is not None:
        assert y[0].item() == pytest.approx(first, abs=1e-9)


@pytest.mark.parametrize(
    ("frames", "sums", "picked"),
    [
        (
            1,
            (-5.376276788, 244.300239039, 0.194054706, 8.934226027),
            (1.722243117, 0.810417784, -1.241306399),
        ),
        (
            2,
            (-12.955130023, 693.651192903, 0.209909762, 9.429190989),
            (3.283415089, 1.178726060, -3.663268758),
        ),
        (
            7,
            (-45.063825123, 281.474605056, 0.211683358, 10.152709562),
            (1.022597399, 1.118731772, -1.392944478),
        ),
    ],
)
def test_deep_network_gives_the_reference_sums(frames, sums, picked):
    model = gaitzoo.create_model(
        "dygait.grew", channels=(8, 8, 8, 8), num_classes=5, shortcut="authors"
    ).double()
    shapes = dict(golden_doc("dygait_grew_ch32")["state_dict"])
    narrow = {k: [5 if d == 12 else d for d in shape] for k, shape in shapes.items()}
    narrow = {k: [{32: 8, 992: 248}.get(d, d) for d in shape] for k, shape in narrow.items()}
    model.load_state_dict(convert_checkpoint(sine_fill(narrow)))
    output = model.eval()(sine_frames(frames))
    found = [output.embeddings.sum(), output.embeddings.abs().sum()]
    assert output.logits is not None
    found += [output.logits.sum(), output.logits.abs().sum()]
    embeddings = output.embeddings[0]
    found += [embeddings[0, 0], embeddings[1, 3], embeddings[30, 7]]
    assert [f.item() for f in found] == pytest.approx([*sums, *picked], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "model_args", "total"),
    [
        ("dygait.grew", {"shortcut": "authors"}, 402_439_105),
        ("dygait.grew", {}, 402_439_105 + 172_032),
        ("dygait.gait3d", {"shortcut": "authors"}, 134_414_273),
        ("dygait.gait3d", {}, 134_414_273 + 172_032),
        ("dygait.oumvlp", {"shortcut": "authors", "head": "bnneck"}, 62_152_929),
        ("dygait.oumvlp", {"shortcut": "authors"}, 62_137_569),
        ("dygait.oumvlp", {}, 62_137_569 + 43_008),
        ("dygait.casiab", {"shortcut": "authors", "head": "bnneck"}, 5_502_817),
        ("dygait.casiab", {"shortcut": "authors"}, 5_494_881),
        ("dygait.casiab", {}, 5_494_881 + 10_240),
    ],
)
def test_parameter_totals(name, model_args, total):
    with torch.device("meta"):
        model = gaitzoo.create_model(name, **model_args)
    assert sum(p.numel() for p in model.parameters()) == total


def test_authors_keys_and_shapes_are_exactly_ours():
    doc = golden_doc("dygait_grew")
    with torch.device("meta"):
        model = gaitzoo.create_model("dygait.grew", shortcut="authors", num_classes=12)
    meta = {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}
    converted = {key: value.shape for key, value in convert_checkpoint(meta).items()}
    assert converted == {key: value.shape for key, value in model.state_dict().items()}
    assert len(meta) == 39


@pytest.mark.parametrize(
    ("name", "frames", "size", "shapes"),
    [
        (
            "dygait.grew",
            30,
            (64, 44),
            [
                (64, 30, 64, 44),
                (128, 30, 32, 22),
                (128, 10, 32, 22),
                (256, 10, 32, 22),
                (512, 10, 16, 11),
                (512, 10, 16, 11),
            ],
        ),
        (
            "dygait.gait3d",
            30,
            (128, 88),
            [
                (64, 30, 128, 88),
                (128, 30, 64, 44),
                (128, 10, 64, 44),
                (256, 10, 64, 44),
                (512, 10, 32, 22),
                (512, 10, 32, 22),
            ],
        ),
        (
            "dygait.casiab",
            30,
            (64, 44),
            [
                (32, 30, 64, 44),
                (32, 10, 64, 44),
                (64, 10, 64, 44),
                (128, 10, 32, 22),
                (128, 10, 32, 22),
            ],
        ),
        (
            "dygait.casiab",
            6,
            (64, 64),
            [
                (32, 6, 64, 64),
                (32, 2, 64, 64),
                (64, 2, 64, 64),
                (128, 2, 32, 32),
                (128, 2, 32, 32),
            ],
        ),
    ],
)
def test_layer_shapes(name, frames, size, shapes):
    with torch.device("meta"):
        model = gaitzoo.create_model(name).eval()
        silhouettes = torch.empty(1, frames, *size)
    found = []
    for module in [model.stem, model.aggregation, *model.blocks]:
        if module is not None:
            module.register_forward_hook(lambda _m, _i, out: found.append(tuple(out.shape[1:])))
    output = model(silhouettes)
    assert found == shapes
    assert output.embeddings.shape == (1, model.num_parts, model.num_features)
    assert output.logits is not None
    assert output.logits.shape == (1, model.num_parts, model.num_classes)


def test_block_by_loops():
    """A stage and a block written with loops over frames and windows."""
    torch.manual_seed(1)
    block = DyGaitBlock(2, 3).double()
    x = torch.randn(1, 2, 4, 5, 3, dtype=torch.float64)

    def convolved(conv, z):
        padded = F.pad(z, (1, 1, 1, 1, conv.kernel_size[0] // 2, conv.kernel_size[0] // 2))
        out = torch.zeros(1, conv.out_channels, *z.shape[2:], dtype=z.dtype)
        for t in range(z.shape[2]):
            for h in range(z.shape[3]):
                for w in range(z.shape[4]):
                    window = padded[0, :, t : t + conv.kernel_size[0], h : h + 3, w : w + 3]
                    out[0, :, t, h, w] = (conv.weight * window).sum((1, 2, 3, 4))
        return out

    def stage(z, layer):
        moving = z - z.mean(2, keepdim=True)
        dam = convolved(layer.dam.dynamic, moving) + convolved(layer.dam.static, z)
        return convolved(layer.parallel, z).clamp(min=0) + dam.clamp(min=0)

    assert block.shortcut is not None
    wanted = stage(stage(x, block.stage1), block.stage2)
    wanted += torch.einsum("ncthw,dc->ndthw", x, block.shortcut.weight[:, :, 0, 0, 0])
    torch.testing.assert_close(block(x), wanted)


def test_shortcuts_agree_where_the_authors_define_them():
    for widths, same in (((1, 8), True), ((8, 8), True), ((4, 8), False)):
        projected, authors = (DyGaitBlock(*widths, shortcut=s) for s in ("projection", "authors"))
        authors.load_state_dict(projected.state_dict(), strict=same)
        x = torch.randn(2, widths[0], 4, 6, 5)
        assert torch.allclose(projected(x), authors(x)) == same
    block = DyGaitBlock(1, 8)
    x = torch.randn(2, 1, 4, 6, 5)
    without = block.stage2(block.stage1(x))
    torch.testing.assert_close(block(x), without + x.repeat(1, 8, 1, 1, 1))


def test_dynamic_branch_sees_only_what_moves():
    dam = DAM(3, 4)
    still = torch.rand(1, 3, 1, 6, 5).expand(-1, -1, 5, -1, -1)
    before = dam(still)
    torch.nn.init.normal_(dam.dynamic.weight)
    torch.testing.assert_close(dam(still), before)

    moving = torch.rand(1, 3, 5, 6, 5)
    offset = torch.rand(1, 3, 1, 6, 5)
    torch.nn.init.zeros_(dam.static.weight)
    torch.testing.assert_close(dam(moving + offset), dam(moving))


def test_single_stage_is_one_stage():
    block = DyGaitBlock(4, 4, single_stage=True)
    x = torch.randn(1, 4, 4, 6, 5)
    torch.testing.assert_close(block(x), block.stage1(x) + x)
    assert isinstance(block.stage1, DyGaitStage)
    assert block.stage2 is None


@pytest.mark.parametrize(
    ("frames", "played", "out"), [(1, 3, 1), (2, 4, 1), (3, 3, 1), (4, 4, 1), (5, 5, 1), (6, 6, 2)]
)
def test_frame_counts(frames, played, out):
    model = gaitzoo.create_model("dygait_tiny").eval()
    clip = torch.rand(1, frames, 16, 12)
    features, _ = model.forward_features(clip)
    assert features.shape[2] == out
    explicit = model(clip.repeat(1, played // frames, 1, 1))
    assert torch.equal(model(clip).embeddings, explicit.embeddings)


def test_bn_order_changes_logits_only(tmp_path):
    doc = golden_doc("dygait_grew_ch32")
    weights = filled_weights(doc)
    path = tmp_path / "authors.pt"
    torch.save({"model": weights}, path)
    part, channel = (
        gaitzoo.create_model(
            "dygait.grew", channels=(32,) * 4, bn_order=order, checkpoint_path=path
        ).eval()
        for order in ("part", "channel")
    )
    clip = torch.rand(1, 4, 64, 44)
    one, other = part(clip), channel(clip)
    assert torch.equal(one.embeddings, other.embeddings)
    assert relative_error(one.logits, other.logits) > 1e-3
    for key in ("bn.weight", "bn.running_mean"):
        kept = part.state_dict()[f"neck.{key}"]
        assert torch.equal(kept, weights[f"BNNecks.bn1d.{key.removeprefix('bn.')}"])


def test_embedding_side_of_the_batch_norm():
    for name, side in (("dygait.casiab", "after_bn"), ("dygait.grew", "before_bn")):
        model = gaitzoo.create_model(
            name, channels=(2, 2, 2, 2)[: 3 if "casiab" in name else 4], num_classes=3
        ).eval()
        assert model.pretrained_cfg.embedding == side
        torch.nn.init.constant_(model.neck.bn.bias, 5.0)
        torch.nn.init.zeros_(model.neck.bn.weight)
        embeddings = model(torch.rand(1, 3, 64, 44)).embeddings
        assert ((embeddings == 5.0).all().item()) == (side == "after_bn")
    swapped = gaitzoo.create_model("dygait.grew", channels=(2,) * 4, num_classes=3, head="gaitgl")
    assert swapped.pretrained_cfg.embedding == "after_bn"


def test_learns_to_tell_clips_apart():
    torch.manual_seed(0)
    model = gaitzoo.create_model("dygait_tiny", num_classes=4)
    labels = torch.arange(4).repeat_interleave(4)
    base = torch.rand(4, 6, 16, 12).repeat_interleave(4, 0)
    clips = (base + 0.2 * torch.rand(16, 6, 16, 12)).clamp(0, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        logits = model(clips).logits
        loss = F.cross_entropy(logits.transpose(1, 2), labels[:, None].expand(-1, model.num_parts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    embeddings = model.eval()(clips).embeddings.detach()
    distances = gaitzoo.metrics.part_distances(embeddings, embeddings)
    distances.fill_diagonal_(float("inf"))
    assert (labels[distances.argmin(1)] == labels).all()


@pytest.mark.parametrize(
    "extra",
    ["Head1.fc_bin", "GLConvA0.conv1g.weight", "Bn.weight", "Bn.whatever.weight", "conv3d0.conv1g"],
)
def test_keys_of_the_other_network_never_replace_the_right_ones(extra, tmp_path):
    weights = filled_weights(golden_doc("dygait_grew_ch32"))
    path = tmp_path / "mixed.pt"
    torch.save({"model": {**weights, extra: torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match="key"):
        gaitzoo.create_model("dygait.grew", channels=(32,) * 4, checkpoint_path=path)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"channels": 4}, "3 for the shallow one, got 4"),
        (
            {"channels": (0, 4, 4)},
            r"positive whole numbers, got \(0, 4, 4\)",
        ),
        ({"in_channels": 0}, "positive whole number, got 0"),
        ({"single_stage": "no"}, "single_stage as True or False"),
        ({"network": "medium"}, '"deep" or "shallow"'),
        ({"network": "deep"}, "4 channels for the deep"),
        ({"head": "linear"}, '"bnneck" or "gaitgl"'),
        ({"shortcut": "identity"}, '"projection" or "authors"'),
        ({"head": "bnneck", "bn_order": "row"}, '"part" or "channel"'),
        ({"num_classes": -1}, "num_classes >= 0"),
        ({"part_bins": (3.5,)}, "positive whole numbers"),
    ],
)
def test_refused_arguments(model_args, message):
    with pytest.raises(ValueError, match=message):
        DyGait(**model_args)


def test_refused_kernels_and_heights():
    with pytest.raises(ValueError, match="odd kernel sizes"):
        DAM(1, 2, static_kernel_size=(2, 3, 3))
    model = DyGait(num_classes=0, network="deep", channels=(2, 2, 2, 2), part_bins=(32,))
    with pytest.raises(ValueError, match=r"got 16 rows .*which 32 does not"):
        model(torch.rand(1, 3, 64, 44))
