"""gaitzoo: gait recognition models in PyTorch. Silhouettes in, identity embeddings out."""

from gaitzoo import losses, metrics, synthetic
from gaitzoo._base import GaitModel
from gaitzoo._checkpoint import load_checkpoint
from gaitzoo._embed import embed
from gaitzoo._factory import LicenseWarning, create_model
from gaitzoo._identify import Identification, Match, identify
from gaitzoo._registry import (
    PretrainedCfg,
    PretrainedNotAvailable,
    is_model,
    list_models,
    list_tags,
    model_info,
    register_model,
)
from gaitzoo.deepgaitv2 import DeepGaitV2, GaitBase
from gaitzoo.dygait import DAM, DyGait, DyGaitBlock
from gaitzoo.export import export_onnx
from gaitzoo.files import SequencePath, find_sequences, load_silhouettes
from gaitzoo.frozen_llm import FrozenLLM
from gaitzoo.fuse import fuse_for_inference
from gaitzoo.gaitllm import GaitLLM
from gaitzoo.hstl import HSTL, HSTLFeatures, HSTLLevel
from gaitzoo.layers import (
    GeMHPP,
    HorizontalPyramidPooling,
    LocalTemporalAggregation,
    PartBNNeck,
    PartLinear,
    SharedBNNeck,
    TemporalMax,
)
from gaitzoo.outputs import GaitOutput
from gaitzoo.peaks import PeakTokenFinder, PeakTokens
from gaitzoo.preprocess import (
    SilhouetteTransform,
    create_transform,
    normalize_silhouettes,
)
from gaitzoo.regions import ASTP, FTA, ARME_Conv, FTABlock
from gaitzoo.resblocks import (
    FrameWise,
    ResidualBackbone,
    ResidualBlock2d,
    ResidualBlock3d,
    ResidualBlockP3d,
)
from gaitzoo.sentences import G2LProjector, L2GProjector, RepresentationAggregator
from gaitzoo.sequence import pad_sequences
from gaitzoo.timm_frames import TimmFrames
from gaitzoo.tokens import MotionClipAssembler, SpatialTokenizer

__version__ = "0.1.0.dev0"

__all__ = [  # noqa: RUF022 - plain order
    "ARME_Conv",
    "ASTP",
    "DAM",
    "DeepGaitV2",
    "DyGait",
    "DyGaitBlock",
    "FTA",
    "FTABlock",
    "FrameWise",
    "FrozenLLM",
    "G2LProjector",
    "GaitBase",
    "GaitLLM",
    "GaitModel",
    "GaitOutput",
    "GeMHPP",
    "HSTL",
    "HSTLFeatures",
    "HSTLLevel",
    "HorizontalPyramidPooling",
    "Identification",
    "L2GProjector",
    "LicenseWarning",
    "LocalTemporalAggregation",
    "Match",
    "MotionClipAssembler",
    "PartBNNeck",
    "PartLinear",
    "PeakTokenFinder",
    "PeakTokens",
    "PretrainedCfg",
    "PretrainedNotAvailable",
    "RepresentationAggregator",
    "ResidualBackbone",
    "ResidualBlock2d",
    "ResidualBlock3d",
    "ResidualBlockP3d",
    "SequencePath",
    "SharedBNNeck",
    "SilhouetteTransform",
    "SpatialTokenizer",
    "TemporalMax",
    "TimmFrames",
    "create_model",
    "create_transform",
    "embed",
    "export_onnx",
    "find_sequences",
    "fuse_for_inference",
    "identify",
    "is_model",
    "list_models",
    "list_tags",
    "load_checkpoint",
    "load_silhouettes",
    "losses",
    "metrics",
    "model_info",
    "normalize_silhouettes",
    "pad_sequences",
    "register_model",
    "synthetic",
]
