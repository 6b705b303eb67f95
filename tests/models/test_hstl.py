"""HSTL: parity with the authors' outputs, totals, hierarchies, and every rule of its blocks."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCE, relative_error
from golden import fill
from parity import (
    GOLDEN,
    filled_weights,
    golden_doc,
    sine_fill,
    sine_frames,
    write_like_the_authors,
)
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

import gaitzoo
from gaitzoo import ASTP, FTA, HSTL, ARME_Conv, FTABlock, GeMHPP, HSTLLevel
from gaitzoo.hub.checkpoint import load_checkpoint
from gaitzoo.models.hstl import convert_checkpoint
from gaitzoo.synthetic import render_walk, sample_identity

# Per variant: convolution widths of each level, regions of each level, poolings with a 1x1
# convolution, the last pooling ("HPP" or its number of regions), parts.
AUTHORS = {
    "casiab": (((1, 32), (32, 32, 64), (64, 128, 128)), (1, 2, 4), "1 2 2_fta", "HPP", 73),
    "casiab_17": (((1, 32), (32, 32, 64), (64, 128, 128)), (1, 2, 4), "1 2 2_fta 3 4", 8, 17),
    "oumvlp": (
        ((1, 32, 32), (32, 64, 64), (64, 128, 128), (128, 256, 256)),
        (1, 3, 5, 6),
        "1 2 2_fta 3",
        "HPP",
        50,
    ),
    "gait3d": (
        ((1, 32, 32), (32, 64, 64), (64, 128, 128), (128, 256, 256)),
        (1, 2, 4, 5),
        "1 2 2_fta 3",
        "HPP",
        46,
    ),
}


def authors_shapes(variant, num_classes):
    """Names and shapes of a file of the authors."""
    widths, regions, projected, last, parts = AUTHORS[variant]
    channels = widths[-1][-1]
    shapes = {}
    pooled = {str(i): (w[-1], r) for i, (w, r) in enumerate(zip(widths, regions, strict=True), 1)}
    pooled["2_fta"] = pooled["2"]
    if last != "HPP":
        pooled[str(len(widths) + 1)] = (channels, last)
    for i, (width, count) in enumerate(zip(widths, regions, strict=True), 1):
        for j in range(len(width) - 1):
            kernel = (width[j + 1], width[j], 3, 3, 3)
            if i == 1:
                shapes[f"arme1.{2 * j}.conv3d.weight"] = kernel
            else:
                for r in range(count):
                    shapes[f"arme{i}.{j}.conv3d.{r}.conv3d.weight"] = kernel
    for r in range(regions[1]):
        for j in (0, 1):
            shapes[f"fta.mma.{r}.fcs.{j}.weight"] = (64, 64, 1)
            shapes[f"fta.mma.{r}.fcs.{j}.bias"] = (64,)
    for name, (width, count) in pooled.items():
        shapes |= {f"astp{name}.hpp.{r}.p": (1,) for r in range(count)}
        if name in projected.split():
            shapes[f"astp{name}.proj.conv.weight"] = (channels, width, 1, 1)
    if last == "HPP":
        shapes["HPP.p"] = (1,)
    shapes["Head0.fc_bin"] = (parts, channels, channels)
    shapes["Head1.fc_bin"] = (parts, channels, num_classes)
    names = ("weight", "bias", "running_mean", "running_var")
    shapes |= {f"Bn.{name}": (channels,) for name in names}
    shapes["Bn.num_batches_tracked"] = ()
    return shapes


def random_file(variant, path, num_classes=5):
    weights = {k: torch.rand(shape) for k, shape in authors_shapes(variant, num_classes).items()}
    weights["Bn.num_batches_tracked"] = torch.tensor(7)
    write_like_the_authors(weights, path)
    return weights


@pytest.mark.parametrize(
    ("tag", "cases"),
    [
        ("casiab", {"eval/s30/seq0", "eval/s7/seq1", "eval/s2/seq0", "eval/s4/seq2"}),
        ("oumvlp", {"eval/s7/seq0", "eval/s2/seq0", "eval/s1/seq3", "eval/s30/seq1"}),
    ],
)
@torch.no_grad()
def test_outputs_equal_the_authors(tag, cases, tmp_path):
    doc = golden_doc(f"hstl_{tag}")
    wanted = load_file(GOLDEN / f"hstl_{tag}.safetensors")
    path = tmp_path / "HSTL-90000.pt"
    write_like_the_authors(filled_weights(doc), path)
    model = gaitzoo.create_model(f"hstl.{tag}", checkpoint_path=path, num_classes=12).eval()
    chosen = [case for case in doc["cases"] if case["id"] in cases]
    assert len(chosen) == len(cases)
    for case in chosen:
        i = case["sequence"]
        (silhouettes,) = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        assert fill.checksum(silhouettes[i : i + 1]) == case["input_checksum"][0]
        output = model(silhouettes[i : i + 1])
        logits = wanted[f"{case['id']}/logits"]
        if doc["logits_layout"] == "class n p":
            logits = logits.permute(1, 2, 0)
        assert relative_error(output.embeddings, wanted[f"{case['id']}/embeddings"]) < 1e-5
        assert relative_error(output.logits, logits) < 1e-5


@pytest.mark.parametrize(
    ("tag", "frames", "total", "absolute", "picked"),
    [
        ("casiab", 1, 39.089733165, 590.143854512, (0.001842777, 0.060775489, 0.013291785)),
        ("casiab", 2, 38.840605565, 592.619781799, (-0.022662376, 0.000770054, 0.013359553)),
        ("casiab", 7, 38.671535913, 590.870776140, (0.009782183, 0.013641034, 0.013325848)),
        ("oumvlp", 1, -0.037819518, 814.148836612, (0.026906186, 0.090052557, 0.010204092)),
        ("oumvlp", 2, -0.678472403, 821.780740494, (0.066676639, 0.089651339, 0.010204092)),
        ("oumvlp", 7, -0.395001109, 818.634216703, (0.045039977, 0.089819778, 0.010204092)),
        ("gait3d", 1, -0.243250412, 752.308361100, (0.030709412, 0.089482742, 0.010204113)),
        ("gait3d", 2, -0.683175260, 758.701787098, (0.045800115, 0.089403860, 0.010204113)),
        ("gait3d", 7, -0.486813181, 755.572985291, (0.041063314, 0.089528192, 0.010204113)),
    ],
)
@torch.no_grad()
def test_networks_give_the_reference_sums(tag, frames, total, absolute, picked):
    model = gaitzoo.create_model(f"hstl.{tag}", num_classes=10).double().eval()
    model.load_state_dict(convert_checkpoint(sine_fill(authors_shapes(tag, 10))))
    embeddings = model(sine_frames(frames)).embeddings[0]
    found = [embeddings.sum(), embeddings.abs().sum()]
    found += [embeddings[0, 0], embeddings[1, 3], embeddings[-1, -1]]
    assert [f.item() for f in found] == pytest.approx([total, absolute, *picked], abs=1e-6, rel=0)


@pytest.mark.parametrize(
    ("tag", "entries", "total", "without_classes", "gmac"),
    [
        ("casiab", 41, 4_745_834, 4_054_378, (25.83, 37.56)),
        ("oumvlp", 72, 89_103_603, 23_145_203, (29.41, 42.74)),
        ("gait3d", 58, 54_719_087, 19_391_087, (29.38, 42.71)),
        ("casiab_17", 50, 3_330_673, 3_169_649, None),
    ],
)
def test_totals(tag, entries, total, without_classes, gmac):
    with torch.device("meta"):
        model = gaitzoo.create_model(f"hstl.{tag}").eval()
        silhouettes = [torch.empty(1, 30, 64, width) for width in (44, 64)]
    shapes = authors_shapes(tag, model.num_classes)
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = {key: value.shape for key, value in convert_checkpoint(meta).items()}
    assert converted == {key: value.shape for key, value in model.state_dict().items()}
    assert len(shapes) == entries
    assert sum(p.numel() for p in model.parameters()) == total
    for wanted, batch in zip(gmac or (), silhouettes, strict=False):
        with FlopCounterMode(display=False) as counter:
            model(batch)
        assert counter.get_total_flops() / 2e9 == pytest.approx(wanted, abs=0.006)
    model.reset_classifier(0)
    assert sum(p.numel() for p in model.parameters()) == without_classes


@pytest.mark.parametrize("name", ["hstl_casiab", "hstl_oumvlp"])
def test_layout_written_here_is_that_of_the_golden_files(name):
    shapes = authors_shapes(name.removeprefix("hstl_"), 12)
    doc = golden_doc(name)
    assert {k: list(v) for k, v in shapes.items()} == doc["state_dict"]


@pytest.mark.parametrize("width", [44, 64])
@pytest.mark.parametrize(
    ("tag", "maps", "parts"),
    [
        ("casiab", [(32, 30, 64), (64, 30, 64), (64, 10, 64), (128, 10, 64)], [1, 2, 2, 4, 64]),
        ("casiab_17", [(32, 30, 64), (64, 30, 64), (64, 10, 64), (128, 10, 64)], [1, 2, 2, 4, 8]),
        (
            "oumvlp",
            [(32, 30, 64), (64, 30, 32), (64, 10, 32), (128, 10, 32), (256, 10, 32)],
            [1, 3, 3, 5, 6, 32],
        ),
        (
            "gait3d",
            [(32, 30, 64), (64, 30, 32), (64, 10, 32), (128, 10, 32), (256, 10, 32)],
            [1, 2, 2, 4, 5, 32],
        ),
    ],
)
def test_maps_and_parts_of_every_level(tag, maps, parts, width):
    with torch.device("meta"):
        model = gaitzoo.create_model(f"hstl.{tag}").eval()
        places = model.forward_levels(torch.empty(1, 30, 64, width))
    wanted = [(*shape, width * shape[2] // 64) for shape in [*maps, maps[-1]]]
    assert [tuple(place.features.shape[1:]) for place in places] == wanted
    assert [place.parts.shape[1] for place in places] == parts
    assert {place.parts.shape[2] for place in places} == {model.num_features}
    assert sum(parts) == model.num_parts


@torch.no_grad()
def test_parts_of_a_level_stand_where_they_belong():
    model = gaitzoo.create_model("hstl_tiny").eval()
    clips, lengths = torch.rand(2, 7, 16, 12), torch.tensor([7, 4])
    places = model.forward_levels(clips, lengths)
    features, counts = model.forward_features(clips, lengths)
    for place, of_place, count in zip(places, features, counts, strict=True):
        assert torch.equal(of_place, place.features)
        assert torch.equal(count, place.lengths)
    assert sum(place.parts.shape[1] for place in places) == model.num_parts
    # Each map reaches its own parts only.
    one = model.forward_head(features, counts).embeddings
    other = model.forward_head((features[0] * 0.5, *features[1:]), counts).embeddings
    changed = (one != other).flatten(0, 1).any(-1).view(2, -1).any(0)
    assert changed.tolist() == [i < places[0].parts.shape[1] for i in range(model.num_parts)]
    assert [place.lengths.tolist() for place in places] == [[7, 4]] * 2 + [[2, 1]] * 3
    for place in places:
        for n, length in enumerate(place.lengths.tolist()):
            assert (place.features[n, :, length:] == 0).all()
    # Rows of a level's pooling, taken from its own map by hand.
    peak = places[1].features[0, :, :7].amax(1)
    projected = model.levels[1].astp.project(peak[None])
    lower = GeMHPP((1,))(projected[:, :, 5:8])
    torch.testing.assert_close(places[1].parts[:1, 1:], lower)


def test_arme_with_one_region_is_a_plain_convolution():
    block = ARME_Conv(2, 3, (6,))
    x = torch.randn(2, 2, 4, 6, 5)
    weight = block.convs[0].weight
    torch.testing.assert_close(block(x), F.leaky_relu(F.conv3d(x, weight, padding=1), 0.01))


def test_arme_regions_are_apart():
    block = ARME_Conv(2, 3, (4, 3))
    x = torch.randn(2, 2, 4, 7, 5)
    block.convs[1].load_state_dict(block.convs[0].state_dict())
    whole = F.leaky_relu(F.conv3d(x, block.convs[0].weight, padding=1), 0.01)
    same = torch.isclose(block(x), whole, atol=1e-6).all(dim=(0, 1, 2, 4))
    assert same.tolist() == [True, True, True, False, False, True, True]
    before = block(x)
    torch.nn.init.normal_(block.convs[1].weight)
    assert torch.equal(block(x)[..., :4, :], before[..., :4, :])
    assert not torch.isclose(block(x)[..., 4:, :], before[..., 4:, :]).any(dim=4).all()


@torch.no_grad()
def test_arme_by_loops():
    block = ARME_Conv(2, 3, (2, 3)).double()
    x = torch.randn(1, 2, 3, 5, 4, dtype=torch.float64)
    wanted = torch.zeros(1, 3, 3, 5, 4, dtype=torch.float64)
    for (top, bottom), conv in zip(((0, 2), (2, 5)), block.convs, strict=True):
        region = F.pad(x[:, :, :, top:bottom], (1, 1, 1, 1, 1, 1))
        for t in range(3):
            for h in range(bottom - top):
                for w in range(4):
                    window = region[0, :, t : t + 3, h : h + 3, w : w + 3]
                    wanted[0, :, t, top + h, w] = (conv.weight * window).sum((1, 2, 3, 4))
    wanted = torch.where(wanted > 0, wanted, 0.01 * wanted)
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("frames", range(1, 13))
def test_fta_lengths(frames):
    x = torch.randn(1, 2, frames, 3, 3)
    for block in (FTA(2), FTABlock(2, (1, 2))):
        if frames < 3:
            with pytest.raises(ValueError, match=f"at least 3 frames, got {frames}"):
                block(x)
        else:
            assert block(x).shape == (1, 2, frames // 3, 3, 3)
            assert block.out_lengths(torch.tensor([frames])).tolist() == [frames // 3]


def without_scores(fta):
    for parameter in fta.parameters():
        torch.nn.init.zeros_(parameter)
    return fta


@torch.no_grad()
def test_fta_windows():
    def weighted(short, long, frame):
        """Output of one bright frame when only one of the two windows counts."""
        fta = without_scores(FTA(1))
        fta.short_score.bias.fill_(short)
        fta.long_score.bias.fill_(long)
        x = torch.zeros(1, 1, 9, 1, 1)
        x[0, 0, frame] = 1.0
        return fta(x).flatten().tolist()

    assert weighted(0.0, 200.0, 2) == [1.0, 1.0, 0.0]
    assert weighted(200.0, 0.0, 2) == [1.0, 0.0, 0.0]
    assert weighted(0.0, 0.0, 2) == [1.0, 0.5, 0.0]
    assert weighted(0.0, 0.0, 3) == [0.5, 1.0, 0.0]
    assert weighted(0.0, 0.0, 8) == [0.0, 0.0, 1.0]


def fta_by_loops(fta, x):
    """One sequence ``[C, T, H, W]``: windows clipped to it, weights that sum to one."""
    steps = []
    for t in range(x.shape[1] // 3):
        short = x[:, 3 * t : 3 * t + 3].amax(1)
        long = x[:, max(3 * t - 1, 0) : 3 * t + 4].amax(1)
        summary = (short + long).mean((1, 2))
        scores = [
            layer.weight[:, :, 0] @ summary + layer.bias
            for layer in (fta.short_score, fta.long_score)
        ]
        high = torch.exp(scores[0]) / (torch.exp(scores[0]) + torch.exp(scores[1]))
        steps.append(high[:, None, None] * short + (1 - high)[:, None, None] * long)
    return torch.stack(steps, 1)


@pytest.mark.parametrize("garbage", [9.0, float("nan"), float("inf")])
@torch.no_grad()
def test_fta_by_loops_in_padded_batches(garbage):
    block = FTABlock(2, (1, 3)).double()
    lengths = torch.arange(3, 13)
    x = torch.randn(10, 2, 12, 4, 3, dtype=torch.float64) - 2.0
    for n, length in enumerate(lengths.tolist()):
        x[n, :, length:] = garbage
    found = block(x, lengths)
    for n, length in enumerate(lengths.tolist()):
        regions = (x[n, :, :length, :1], x[n, :, :length, 1:])
        wanted = [fta_by_loops(f, r) for f, r in zip(block.regions, regions, strict=True)]
        torch.testing.assert_close(found[n, :, : length // 3], torch.cat(wanted, 2))
        assert (found[n, :, length // 3 :] == 0).all()
    torch.testing.assert_close(block.regions[0](x[..., :1, :], lengths), found[..., :1, :])


def test_fta_gradients_are_finite_in_padded_batches():
    block = FTABlock(2, (1, 3))
    x = torch.full((2, 2, 9, 4, 3), float("nan"))
    x[0], x[1, :, :3] = torch.randn(2, 9, 4, 3), torch.randn(2, 3, 4, 3)
    x.requires_grad_()
    block(x, torch.tensor([9, 3])).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad[1, :, 3:] == 0).all()
    for parameter in block.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


@torch.no_grad()
def test_astp_sees_the_maximum_in_any_order():
    block = ASTP(3, 5, (2, 4, 1))
    x = torch.randn(2, 3, 6, 7, 4)
    parts = block(x)
    assert parts.shape == (2, 3, 5)
    assert torch.equal(block(x[:, :, torch.randperm(6)]), parts)
    lengths = torch.tensor([6, 2])
    padded = x.clone()
    padded[1, :, 2:] = float("nan")
    found = block(padded, lengths)
    torch.testing.assert_close(found[0], parts[0])
    torch.testing.assert_close(found[1:], block(x[1:, :, :2]))


@torch.no_grad()
def test_astp_is_a_generalised_mean_with_exponents_of_its_own():
    block = ASTP(3, 3, (2, 4), project=False).double()
    x = torch.rand(1, 3, 6, 6, 4, dtype=torch.float64)
    block.pools[1].p.fill_(2.0)
    peak = x.amax(2)
    upper = peak[:, :, :2].pow(6.5).mean((2, 3)).pow(1 / 6.5)
    lower = peak[:, :, 2:].pow(2.0).mean((2, 3)).pow(0.5)
    torch.testing.assert_close(block(x), torch.stack([upper, lower], 1))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("last", [4, (3, 5)])
@pytest.mark.parametrize("garbage", [7.0, float("nan")])
@torch.no_grad()
def test_every_length_from_1_to_40(dtype, last, garbage):
    model = gaitzoo.create_model("hstl_tiny", last=last).eval().to(dtype)
    clips = [torch.rand(t, 16, 12, dtype=dtype) for t in range(1, 41)]
    batch = torch.full((40, 40, 16, 12), garbage, dtype=dtype)
    for i, clip in enumerate(clips):
        batch[i, : i + 1] = clip
    found = model(batch, torch.arange(1, 41))
    for i, clip in enumerate(clips):
        alone = model(clip[None])
        assert relative_error(found.embeddings[i], alone.embeddings[0]) < TOLERANCE[dtype]
        assert relative_error(found.logits[i], alone.logits[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize(("frames", "played", "out"), [(1, 3, 1), (2, 4, 1), (3, 3, 1), (6, 6, 2)])
@torch.no_grad()
def test_short_sequences_are_played_again(frames, played, out):
    model = gaitzoo.create_model("hstl_tiny").eval()
    clip = torch.rand(1, frames, 16, 12)
    explicit = model(clip.repeat(1, played // frames, 1, 1))
    assert torch.equal(model(clip).embeddings, explicit.embeddings)
    assert model.forward_levels(clip)[-1].features.shape[2] == out


@torch.no_grad()
def test_embedding_is_the_shared_batch_norm_of_the_parts():
    model = gaitzoo.create_model("hstl_tiny").eval()
    assert model.pretrained_cfg.embedding == "after_bn"
    batch_norm = model.neck.bn
    assert batch_norm.running_mean.shape == (model.num_features,)
    torch.nn.init.uniform_(batch_norm.running_mean)
    torch.nn.init.uniform_(batch_norm.running_var, 0.5, 2.0)
    clips = torch.rand(2, 4, 16, 12)
    output = model(clips)
    parts = torch.cat([place.parts for place in model.forward_levels(clips)], 1)
    parts = torch.einsum("npc,pcd->npd", parts, model.part_fc.weight)
    wanted = (parts - batch_norm.running_mean) / (batch_norm.running_var + 1e-5).sqrt()
    wanted = wanted * batch_norm.weight + batch_norm.bias
    torch.testing.assert_close(output.embeddings, wanted)
    logits = torch.einsum("npc,pck->npk", wanted, model.neck.classifier.weight)
    torch.testing.assert_close(output.logits, logits)


def test_batch_statistics_never_see_padding():
    models = [gaitzoo.create_model("hstl_tiny").train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    clips = [torch.rand(t, 16, 12) for t in (9, 4)]
    batch, lengths = gaitzoo.pad_sequences(clips)
    longer = torch.cat([batch, torch.rand(2, 5, 16, 12)], 1)
    models[0](batch, lengths)
    models[1](longer, lengths)
    for one, other in zip(*(model.neck.bn.buffers() for model in models), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tag", list(AUTHORS))
def test_files_of_every_hierarchy_load(tag, tmp_path):
    path = tmp_path / "authors.pt"
    weights = random_file(tag, path)
    model = gaitzoo.create_model(f"hstl.{tag}", checkpoint_path=path)
    assert model.num_classes == 5
    # Our own layout goes through the same door; and nothing got lost on the way.
    model.save_pretrained(tmp_path / "saved")
    again = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}")
    assert again.model_args == model.model_args | {"num_classes": 5}
    kept = again.state_dict()
    assert len(kept) == len(weights)
    for key, new in zip(weights, convert_checkpoint(dict(weights)), strict=True):
        assert torch.equal(kept[new], weights[key])


def test_regions_and_windows_keep_their_order(tmp_path):
    weights = random_file("oumvlp", tmp_path / "authors.pt")
    model = gaitzoo.create_model("hstl.oumvlp", checkpoint_path=tmp_path / "authors.pt")
    pairs = {
        "arme1.2.conv3d.weight": model.levels[0].arme[1].convs[0].weight,
        "arme4.1.conv3d.5.conv3d.weight": model.levels[3].arme[1].convs[5].weight,
        "fta.mma.2.fcs.0.weight": model.levels[1].fta.regions[2].short_score.weight,
        "fta.mma.2.fcs.1.bias": model.levels[1].fta.regions[2].long_score.bias,
        "astp2.hpp.1.p": model.levels[1].astp.pools[1].p,
        "astp2_fta.hpp.1.p": model.levels[1].fta_astp.pools[1].p,
        "astp2_fta.proj.conv.weight": model.levels[1].fta_astp.project.weight,
        "HPP.p": model.last_pool.p,
    }
    for key, parameter in pairs.items():
        assert torch.equal(parameter, weights[key]), key


@pytest.mark.parametrize(
    ("in_file", "asked"),
    [
        ("casiab_17", "casiab"),
        ("casiab", "casiab_17"),
        ("oumvlp", "gait3d"),
        ("gait3d", "oumvlp"),
        ("casiab_17", "grew"),
    ],
)
def test_another_hierarchy_is_refused_by_name(in_file, asked, tmp_path):
    random_file(in_file, tmp_path / "authors.pt")
    with pytest.raises(ValueError, match=rf"it fits hstl\.{in_file}[.,].* Nothing was loaded"):
        gaitzoo.create_model(f"hstl.{asked}", checkpoint_path=tmp_path / "authors.pt")


def test_unknown_names_are_refused(tmp_path):
    weights = random_file("casiab", tmp_path / "authors.pt")
    weights["arme2.2.conv3d.0.conv3d.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "changed.pt")
    with pytest.raises(ValueError, match=r"looks like the authors' hstl, but 1 key.*arme2\.2"):
        load_checkpoint(gaitzoo.create_model("hstl.casiab"), tmp_path / "changed.pt")


@torch.no_grad()
def test_own_hierarchy_for_another_height(tmp_path):
    levels = tuple(
        level._replace(heights=tuple(2 * rows for rows in level.heights), channels=(2,))
        for level in HSTL().hierarchy
    )
    model = HSTL(num_classes=3, levels=levels, last=(16,) * 8, part_channels=2).eval()
    clips = torch.rand(2, 4, 128, 20)
    wanted = model(clips).embeddings
    assert wanted.shape == (2, 17, 2)
    saved = json.loads((model.save_pretrained(tmp_path) / "config.json").read_text())
    assert saved["model_args"]["levels"][1] == [[80, 48], [2], True, False, True]
    assert torch.equal(HSTL.from_pretrained(tmp_path)(clips).embeddings, wanted)
    plain = tuple(tuple(level) for level in levels)
    again = HSTL(num_classes=3, levels=plain, last=[16] * 8, part_channels=2)
    assert again.hierarchy == levels


@pytest.mark.parametrize("rows", [32, 65, 128])
def test_wrong_heights_are_refused_with_the_one_that_fits(rows):
    with torch.device("meta"):
        model = gaitzoo.create_model("hstl.casiab", num_classes=0)
        clips = torch.empty(1, 3, rows, 44)
    with pytest.raises(
        ValueError, match=rf"frames of 64 rows.* got {rows} rows.*levels=.*HSTLLevel.*to {rows}$"
    ):
        model(clips)


def test_refused_sizes_of_maps():
    model = gaitzoo.create_model("hstl_tiny")
    with pytest.raises(ValueError, match="at least 2 columns, got 1"):
        model(torch.rand(1, 3, 16, 1))
    with pytest.raises(ValueError, match="forward_features gives them"):
        model.forward_head(torch.rand(1, 4, 3, 8, 6))
    x = torch.rand(1, 2, 3, 7, 4)
    for block in (ARME_Conv(2, 2, (4, 2)), ASTP(2, 2, (4, 2)), FTABlock(2, (4, 2))):
        with pytest.raises(ValueError, match=r"regions of \(4, 2\) rows, got \[1, 2, 3, 7, 4\]"):
            block(x)
    with pytest.raises(ValueError, match=r"expected a map \[N, 2, T, H, W\]"):
        FTA(2)(x[0])


def blocks_with_lengths():
    return [ARME_Conv(2, 3, (3, 3)), ASTP(2, 3, (3, 3)), FTA(2), FTABlock(2, (3, 3))]


@pytest.mark.parametrize("block", blocks_with_lengths(), ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_blocks_alone_never_see_the_padding(block, garbage):
    clips = [torch.randn(2, t, 6, 4) for t in (9, 3, 5)]
    x = torch.full((3, 2, 9, 6, 4), garbage)
    for i, clip in enumerate(clips):
        x[i, :, : clip.shape[1]] = clip
    x.requires_grad_()
    found = block(x, torch.tensor([9, 3, 5]))
    found.square().sum().backward()
    assert x.grad is not None
    for i, clip in enumerate(clips):
        wanted = block(clip[None])[0]
        alone = found[i] if wanted.ndim == 2 else found[i, :, : wanted.shape[1]]
        torch.testing.assert_close(alone, wanted)
        assert torch.isfinite(x.grad[i]).all()
        assert (x.grad[i, :, clip.shape[1] :] == 0).all()


@pytest.mark.parametrize("block", blocks_with_lengths(), ids=lambda b: type(b).__name__)
def test_blocks_refuse_what_does_not_fit(block):
    x = torch.rand(2, 2, 9, 6, 4)
    for lengths, error, message in (
        (torch.tensor([9]), ValueError, r"shape \[2\], got \[1\]"),
        (torch.tensor([9, 10]), ValueError, "to 9 .* got 9 to 10"),
        (torch.tensor([9, 0]), ValueError, "got 0 to 9"),
        (torch.tensor([9.0, 5.0]), TypeError, "int64 tensor"),
        ([9, 5], TypeError, "int64 tensor"),
    ):
        with pytest.raises(error, match=message):
            block(x, lengths)
    with pytest.raises(ValueError, match=r"a map \[N, 2, T, H, W\], got \[2, 3, 9, 6, 4\]"):
        block(torch.rand(2, 3, 9, 6, 4))
    with pytest.raises(TypeError, match=r"floats, got torch\.uint8"):
        block(x.to(torch.uint8))
    if isinstance(block, (FTA, FTABlock)):
        with pytest.raises(ValueError, match=r"lengths from 3 to 9 .* repeat short sequences"):
            block(x, torch.tensor([9, 2]))


def twice_shortened():
    return (
        HSTLLevel((8,), (4,), shorten=True),
        HSTLLevel((4, 4), (4,), shorten=True),
        HSTLLevel((2, 6), (4,)),
    )


@torch.no_grad()
def test_length_law_with_two_shortenings():
    model = HSTL(num_classes=0, part_channels=4, last=4, levels=twice_shortened()).eval().double()
    assert model.min_frames == 9
    clips = [torch.rand(t, 8, 6, dtype=torch.float64) for t in (20, *range(1, 13))]
    batch = torch.full((13, 20, 8, 6), float("nan"), dtype=torch.float64)
    for i, clip in enumerate(clips):
        batch[i, : len(clip)] = clip
    found = model(batch, torch.tensor([len(clip) for clip in clips])).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < 1e-12


@pytest.mark.parametrize("rows", [32, 128])
@torch.no_grad()
def test_hierarchies_of_other_heights_go_through_embed_and_files(rows, tmp_path):
    levels = [HSTLLevel([rows], [2]), HSTLLevel([rows // 4, 3 * rows // 4], [4, 4], shorten=True)]
    model = gaitzoo.create_model(
        "hstl.casiab", num_classes=0, levels=levels, last=8, part_channels=4
    )
    assert model.pretrained_cfg.input_size == (rows, rows * 22 // 32)
    assert not model.pretrained_cfg.metrics
    clip = torch.rand(6, *model.pretrained_cfg.input_size)
    wanted = model.eval()(clip[None]).embeddings
    assert relative_error(gaitzoo.embed(model, [clip], progress=False), wanted) < 1e-6
    model.save_pretrained(tmp_path)
    again = HSTL.from_pretrained(tmp_path)
    assert again.model_args == model.model_args
    assert again.pretrained_cfg.input_size == model.pretrained_cfg.input_size
    assert relative_error(again(clip[None]).embeddings, wanted) == 0


LEVEL = HSTLLevel((8,), (4,))


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"levels": None}, "levels as a tuple of HSTLLevel"),
        ({"levels": (((8,), "ab"),)}, "channels of a level as a tuple of positive"),
        ({"levels": (((8,), (0, 4)),)}, r"positive whole numbers, got \(0, 4\)"),
        ({"levels": (((8,), (4.0,)),)}, r"positive whole numbers, got \(4.0,\)"),
        ({"levels": (((8,), (4,), True, False, 2),)}, "as True or False"),
        ({"levels": (((9,), (4,), True, True), ((4,), (4,)))}, "even number of rows in level 1"),
        ({"levels": (((8,), (128,)),), "last": True}, "last as a number of bands"),
        ({"in_channels": 0}, "positive whole number, got 0"),
        ({"levels": ()}, "levels as a tuple of HSTLLevel"),
        ({"levels": LEVEL}, "one level alone needs a comma"),
        ({"levels": (((8,),),)}, r"expected levels as HSTLLevel"),
        ({"levels": (LEVEL._replace(channels=()),)}, "channels of a level as a tuple of positive"),
        (
            {"levels": (LEVEL._replace(channels=4),)},
            "channels of a level as .* got 4",
        ),
        (
            {"levels": (LEVEL._replace(heights=(8, 0)),)},
            "heights of a level as a tuple",
        ),
        ({"levels": (LEVEL._replace(heights=8),)}, "heights of a level as a tuple"),
        ({"levels": (LEVEL, LEVEL._replace(heights=(4, 3)))}, "level 2 that add up to its 8 rows"),
        (
            {"levels": (LEVEL._replace(halve=True), LEVEL)},
            r"level 2 that add up to its 4 rows, got \(8,\), which add up to 8",
        ),
        ({"levels": (LEVEL._replace(channels=(2,), project=False),)}, "pass project=True"),
        ({"levels": (LEVEL,), "last": 3}, "divides the 8 rows of the deepest map"),
        ({"levels": (LEVEL._replace(channels=(2,)),), "last": 8}, "only heights in last"),
        ({"levels": (LEVEL,), "last": (4, 3)}, "heights in last that add up to the 8 rows"),
        ({"levels": (LEVEL._replace(halve=True),), "last": 8}, "divides the 4 rows"),
    ],
)
def test_refused_hierarchies(model_args, message):
    with pytest.raises(ValueError, match=message):
        HSTL(part_channels=4, **model_args)


def test_learns_to_tell_walkers_apart():
    model = gaitzoo.create_model("hstl_tiny", num_classes=4)
    people = [sample_identity(i) for i in range(4)]
    clips = torch.stack(
        [
            render_walk(person, frames=8, size=(16, 16), seed=walk).silhouettes
            for person in people
            for walk in range(4)
        ]
    )
    labels = torch.arange(4).repeat_interleave(4)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(80):
        logits = model(clips).logits
        loss = F.cross_entropy(logits.mT, labels[:, None].expand(-1, model.num_parts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    embeddings = model.eval()(clips).embeddings.detach()
    distances = gaitzoo.metrics.part_distances(embeddings, embeddings)
    distances.fill_diagonal_(float("inf"))
    assert (labels[distances.argmin(1)] == labels).all()
