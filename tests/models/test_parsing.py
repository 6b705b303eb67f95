"""ParsingGait, XGait, SMPLGait and the baseline of Gait3D: numbers, keys, rules."""

import pytest
import torch
from builders import make
from conftest import relative_error
from parity import filled_weights, golden_doc, golden_errors

import gaitzoo
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
