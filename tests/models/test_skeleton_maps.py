"""SkeletonGait, SkeletonGait++, MultiGait++: numbers, keys, joins, inputs."""

import pytest
import torch
import torch.nn.functional as F
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
