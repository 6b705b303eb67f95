"""HSTL: parity with the authors' outputs, totals, hierarchies, and every rule of its blocks."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCE, relative_error
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, write_like_the_authors
from safetensors.torch import load_file

import gaitzoo
from gaitzoo import ASTP, FTA, HSTL, ARME_Conv, FTABlock, GeMHPP, HSTLLevel
from gaitzoo._checkpoint import load_checkpoint
from gaitzoo.hstl import convert_checkpoint

# Per variant: convolution widths of each level, regions of each level, poolings with a 1x1
# convolution, the last pooling ("HPP" or its number of regions), parts, entries, parameters.
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
        ("casiab", {"eval/s7/seq1", "eval/s2/seq0", "eval/s1/seq3", "eval/s4/seq2"}),
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
    for case in doc["cases"]:
        if case["id"] not in cases:
            continue
        i = case["sequence"]
        (silhouettes,) = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        assert fill.checksum(silhouettes[i : i + 1]) == case["input_checksum"][0]
        output = model(silhouettes[i : i + 1])
        logits = wanted[f"{case['id']}/logits"]
        if doc["logits_layout"] == "class n p":
            logits = logits.permute(1, 2, 0)
        assert relative_error(output.embeddings, wanted[f"{case['id']}/embeddings"]) < 1e-5
        assert relative_error(output.logits, logits) < 1e-5


def sine_fill(shapes):
    """The closed-form weights of the published reference sums; order is that of the names."""
    filled = {}
    for k, (key, shape) in enumerate(sorted(shapes.items())):
        size = torch.Size(shape).numel()
        wave = torch.sin(0.37 * torch.arange(size, dtype=torch.float64) + k).reshape(shape)
        if key.endswith(("running_mean", "num_batches_tracked")):
            filled[key] = torch.zeros(shape, dtype=torch.float64)
        elif key.endswith("running_var"):
            filled[key] = torch.ones(shape, dtype=torch.float64)
        elif key.endswith(".p"):
            filled[key] = torch.full(shape, 6.5, dtype=torch.float64)
        elif len(shape) == 1:
            filled[key] = 0.1 * wave + (1.0 if key == "Bn.weight" else 0.0)
        elif key.endswith("fc_bin"):
            filled[key] = wave / shape[1] ** 0.5
        else:
            filled[key] = wave / (size / shape[0]) ** 0.5
    return filled


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
    j = torch.arange(frames * 64 * 44, dtype=torch.float64)
    silhouettes = (torch.sin(0.011 * j + 0.002 * j**2 / 2816) > 0).double()
    embeddings = model(silhouettes.reshape(1, frames, 64, 44)).embeddings[0]
    found = [embeddings.sum(), embeddings.abs().sum()]
    found += [embeddings[0, 0], embeddings[1, 3], embeddings[-1, -1]]
    assert [f.item() for f in found] == pytest.approx([total, absolute, *picked], abs=1e-6, rel=0)
