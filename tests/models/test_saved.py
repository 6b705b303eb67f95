"""Saved models and public names of the first layout of the package, which people still have."""

from pathlib import Path

import pytest
import torch
from builders import clips_for
from conftest import relative_error
from safetensors.torch import load_file

import gaitzoo

SAVED = sorted((Path(__file__).parents[1] / "saved").iterdir())
OLD_NAMES = """
ARME_Conv ASTP DAM DeepGaitV2 DyGait DyGaitBlock FTA FTABlock FrameWise FrozenLLM G2LProjector
GaitBase GaitLLM GaitModel GaitOutput GeMHPP HSTL HSTLFeatures HSTLLevel
HorizontalPyramidPooling Identification L2GProjector LicenseWarning LocalTemporalAggregation
Match MotionClipAssembler PartBNNeck PartLinear PeakTokenFinder PeakTokens PretrainedCfg
PretrainedNotAvailable RepresentationAggregator ResidualBackbone ResidualBlock2d ResidualBlock3d
ResidualBlockP3d SequencePath SharedBNNeck SilhouetteTransform SpatialTokenizer TemporalMax
TimmFrames create_model create_transform embed export_onnx find_sequences fuse_for_inference
identify is_model list_models list_tags load_checkpoint load_silhouettes losses metrics
model_info normalize_silhouettes pad_sequences register_model synthetic
"""


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
@torch.no_grad()
def test_models_saved_before_the_folders_give_the_same_numbers(folder):
    # In float64, where the order of sums, which depends on the number of threads, is not seen.
    model = gaitzoo.create_model(f"local-dir:{folder}").eval().double()
    torch.manual_seed(1)
    batch = torch.stack(clips_for(model, 6, 6)).double()
    wanted = load_file(folder / "expected.safetensors")["embeddings"]
    assert relative_error(model(batch).embeddings, wanted) < 1e-6
    again = type(model).from_pretrained(folder).double()
    assert torch.equal(again(batch).embeddings, model(batch).embeddings)


def test_there_is_a_saved_model_of_every_kind():
    assert [folder.name for folder in SAVED] == [
        "deepgaitv2_p3d_tiny",
        "dygait_tiny",
        "gaitllm_tiny",
        "hstl_tiny",
    ]


@pytest.mark.parametrize("name", OLD_NAMES.split())
def test_names_of_the_first_layout_come_from_the_top(name):
    assert name in gaitzoo.__all__
    assert getattr(gaitzoo, name) is not None
