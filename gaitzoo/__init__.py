"""gaitzoo: gait recognition models in PyTorch. Silhouettes in, identity embeddings out."""

from gaitzoo import losses, metrics, synthetic, testing
from gaitzoo.data import corruptions
from gaitzoo.data.batch_samplers import PKBatchSampler
from gaitzoo.data.batches import pad_sequences
from gaitzoo.data.check import SilhouetteReport, check_silhouettes
from gaitzoo.data.content import SilhouetteWarning
from gaitzoo.data.datasets import GaitBatch, GaitDataset, GaitSample, SequenceRecord
from gaitzoo.data.depth import crop_like_silhouette, normalize_depth
from gaitzoo.data.doppler import DopplerTimeMapPreprocessor
from gaitzoo.data.feature_linking import FeatureLinkingModel, grey_stretch
from gaitzoo.data.files import SequencePath, find_sequences, load_silhouettes
from gaitzoo.data.force_files import PhysPTForces, load_force_npz
from gaitzoo.data.generated import silhouette_quality, within_ranges
from gaitzoo.data.joints import SKELETONS, Skeleton, joint_graph
from gaitzoo.data.marker_basis import load_marker_basis
from gaitzoo.data.masks import Masks
from gaitzoo.data.mixing import mix_probabilities
from gaitzoo.data.modalities import MODALITIES, Modality
from gaitzoo.data.new_identities import (
    interpolate_identities,
    plan_conditions,
    sample_new_identities,
)
from gaitzoo.data.people import split_people
from gaitzoo.data.pose_branches import (
    fill_empty_joints,
    gaitgraph_inputs,
    gaittr_inputs,
    reverse_time,
    swap_joints,
)
from gaitzoo.data.samplers import (
    AllFrames,
    OrderedSampler,
    RandomTrackletSampler,
    SnippetFrames,
    SnippetSampler,
    UnorderedSampler,
)
from gaitzoo.data.segmentation import FrameMasks, Segmenter
from gaitzoo.data.sequences import load_sequence
from gaitzoo.data.signal_maps import (
    GramianAngularField,
    LogSpectrogram,
    SpaceTimeMap,
    unit_range,
)
from gaitzoo.data.silhouettes import SilhouetteTransform, normalize_silhouettes
from gaitzoo.data.skeleton_maps import PosesToMaps
from gaitzoo.data.splits import Partition, read_partition
from gaitzoo.data.track_files import SavedTracks, save_tracks
from gaitzoo.data.tracking import TrackOptions, TrackStream, extract_tracks
from gaitzoo.data.tracks import Track
from gaitzoo.data.transforms import ModalityTransform, create_transform
from gaitzoo.data.video import Video, VideoFrame, VideoWarning, read_video
from gaitzoo.evaluation import fidelity, open_set, robustness
from gaitzoo.evaluation.animators import Animator, CopyAnimator, FreezeAnimator, video_quality
from gaitzoo.evaluation.bootstrap import Interval, cluster_bootstrap
from gaitzoo.evaluation.evaluate import evaluate
from gaitzoo.evaluation.fidelity import GaitFidelity, make_transfer_pairs
from gaitzoo.evaluation.fidelity_reports import (
    RestorationReport,
    RestorationRow,
    TransferReport,
    TransferRow,
)
from gaitzoo.evaluation.open_set_results import OpenSetResult, OpenSetRow
from gaitzoo.evaluation.open_set_run import evaluate_open_set
from gaitzoo.evaluation.protocols import Condition, GaitProtocol
from gaitzoo.evaluation.results import ProtocolResult, ScoreRow
from gaitzoo.evaluation.submission import write_grew_submission
from gaitzoo.hub.checkpoint import load_checkpoint
from gaitzoo.hub.factory import LicenseWarning, create_model, model_entrypoint
from gaitzoo.inference.depth import MonocularDepth
from gaitzoo.inference.diffusion import DiffusionFeatureExtractor
from gaitzoo.inference.embed import embed
from gaitzoo.inference.export import export_onnx
from gaitzoo.inference.fuse import fuse_for_inference
from gaitzoo.inference.gallery import Gallery
from gaitzoo.inference.identify import Identification, Match, identify
from gaitzoo.inference.mediapipe_pose import MediaPipePoseSegmenter
from gaitzoo.inference.search import nearest
from gaitzoo.inference.segmenters import TransformersSegmenter
from gaitzoo.layers.body_parameters import SMPLEncoder
from gaitzoo.layers.body_parts import BodyPartPool, PartGraph
from gaitzoo.layers.body_segments import (
    BODY_SEGMENTS,
    SEGMENT_TABLES,
    BodySegments,
    Segment,
    SegmentMass,
)
from gaitzoo.layers.branches import AttentionFusion, P3dLayers, SharedSpecificFusion
from gaitzoo.layers.cross_level import CrossLevelFusion, ModalityGate, MultiScaleContext
from gaitzoo.layers.cross_spatial import MLGE, CrossSpatialFusion, PyramidNeck
from gaitzoo.layers.csp import SPPF, CSPBlock, CSPPyramid, PartialSelfAttention
from gaitzoo.layers.diffusion import DDIMSampler
from gaitzoo.layers.dynamic import DAM, DyGaitBlock
from gaitzoo.layers.expanding_neck import ExpandingBNNeck
from gaitzoo.layers.feature_field import (
    GaitFeatureField,
    LocalFeatureMatching,
    TextureSuppression,
)
from gaitzoo.layers.force_encoder import ForceEncoder, pool_forces
from gaitzoo.layers.force_fusion import (
    ForceCrossAttention,
    ForceFiLM,
    ForceGate,
    ForceParts,
    concat_forces,
    widen_channels,
)
from gaitzoo.layers.frame_evidence import FrameEvidence
from gaitzoo.layers.global_local import GLConv
from gaitzoo.layers.graph import GraphConv, ResGCNBlock, hop_adjacency
from gaitzoo.layers.haar import HaarDownsample2d, haar_dwt2d, haar_idwt2d
from gaitzoo.layers.heads import PartBNNeck, PartLinear, SharedBNNeck
from gaitzoo.layers.hourglass import HourglassAttention, SBCFormerBlock
from gaitzoo.layers.inverse_dynamics import BodyForces, InverseDynamics
from gaitzoo.layers.joint_attention import JointAttention
from gaitzoo.layers.kernel_forms import KernelTransform
from gaitzoo.layers.language import (
    LanguageAlignmentLoss,
    LanguageGuidedAttention,
    MotionAwareness,
)
from gaitzoo.layers.low_rank import add_lora, merge_lora
from gaitzoo.layers.masked_autoencoder import MAEOutput, MaskedAutoencoder, ViTEncoder
from gaitzoo.layers.motion import MotionTemporalCapture
from gaitzoo.layers.noise_schedule import NoiseSchedule
from gaitzoo.layers.part_crops import PartCropEncoder
from gaitzoo.layers.part_graph import PartKnowledgeGraph
from gaitzoo.layers.part_mlp import PartMLP
from gaitzoo.layers.plain import FocalConv2d, PlainCNN, SetPool, TemporalSwitch
from gaitzoo.layers.pooling import (
    GeMHPP,
    HorizontalPyramidPooling,
    LocalTemporalAggregation,
    TemporalMax,
)
from gaitzoo.layers.prompts import Adapter, PromptedViT, add_adapters
from gaitzoo.layers.region_dynamics import (
    RDAEBlock,
    RegionDynamicAggregation,
    RegionDynamicExcitation,
)
from gaitzoo.layers.region_search import RegionBalanceLoss, RegionReport, RegionSearcher
from gaitzoo.layers.regions import ASTP, FTA, ARME_Conv, FTABlock
from gaitzoo.layers.replace import replace_convs
from gaitzoo.layers.residual import (
    FrameWise,
    ResidualBackbone,
    ResidualBlock2d,
    ResidualBlock3d,
    ResidualBlockP3d,
)
from gaitzoo.layers.rrs import RRSBranch, RRSHead
from gaitzoo.layers.snippets import (
    ResidualSnippetBlock,
    SnippetBackbone,
    SnippetBlock,
    snippet_pool,
)
from gaitzoo.layers.stream_losses import StreamDiversityLoss, StreamSmoothnessLoss
from gaitzoo.layers.task_tokens import (
    BinaryHead,
    PartTokenizer,
    RegressionHead,
    UnifiedGaitTransformer,
)
from gaitzoo.layers.token_attention import TokenBlock
from gaitzoo.layers.transformed import (
    GroupPool,
    ReflectConv2d,
    RotateConv2d,
    ScaleConv2d,
    TransformedKernelConv2d,
)
from gaitzoo.layers.video_conditions import AppearanceMotionControl, IdentityTokens, coarse_motion
from gaitzoo.layers.video_unet import GaitVideoUNet, TemporalAttention
from gaitzoo.layers.volumes import (
    HeatmapEncoder,
    MarkerToMesh,
    VolumetricHeatmapHead,
    markers_from_vertices,
    soft_argmax_3d,
)
from gaitzoo.layers.walk_conditions import GaitConditioner
from gaitzoo.layers.window_attention import WindowTransformerBlock
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.biggait import BigGait
from gaitzoo.models.biggergait import BiggerGait
from gaitzoo.models.cfg import PretrainedCfg, PretrainedNotAvailable
from gaitzoo.models.cod2 import CoD2, cod2
from gaitzoo.models.cod2_loss import CoD2Loss, CoD2Output
from gaitzoo.models.combo_gait import ComboGait
from gaitzoo.models.continual import (
    NegativeDistanceStabilityLoss,
    PartLogitDistillationLoss,
    VertexStabilityLoss,
    forgetting_matrix,
)
from gaitzoo.models.deepgaitv2 import DeepGaitV2, GaitBase
from gaitzoo.models.denoisinggait import DenoisingGait
from gaitzoo.models.depthgait import DepthGait
from gaitzoo.models.dygait import DyGait
from gaitzoo.models.features import FeatureInfo, GaitFeatures
from gaitzoo.models.force_gait import ForceGait, with_forces
from gaitzoo.models.foundationgait import FoundationGait, FoundationVectors
from gaitzoo.models.gait_rdae import GaitRDAE
from gaitzoo.models.gait_reporter import GaitReporter
from gaitzoo.models.gaitadapter import AdaptedParts, GaitAdapter
from gaitzoo.models.gaitadapter_loss import GaitAdapterLoss
from gaitzoo.models.gaitcrafter import CASIA_B_COVARIATES, GaitCrafter, gaitcrafter
from gaitzoo.models.gaitgl import GaitGL
from gaitzoo.models.gaitgraph import GaitGraph1, GaitGraph2
from gaitzoo.models.gaitllm.frozen_llm import FrozenLLM
from gaitzoo.models.gaitllm.model import GaitLLM
from gaitzoo.models.gaitllm.peaks import PeakTokenFinder, PeakTokens
from gaitzoo.models.gaitllm.sentences import G2LProjector, L2GProjector, RepresentationAggregator
from gaitzoo.models.gaitllm.tokens import MotionClipAssembler, SpatialTokenizer
from gaitzoo.models.gaitpart import GaitPart, TemporalPartAggregator
from gaitzoo.models.gaitset import GaitSet
from gaitzoo.models.gaitsnippet import GaitSnippet
from gaitzoo.models.gaittr import GaitTR, GaitTRBlock
from gaitzoo.models.gln import GLN, CompactBlock
from gaitzoo.models.hstl import HSTL, HSTLFeatures, HSTLLevel
from gaitzoo.models.learning_rates import layerwise_lr_groups
from gaitzoo.models.lmgait import LMGait
from gaitzoo.models.maepd import MAEPD, load_mae_weights, maepd_mae, maepd_vpt
from gaitzoo.models.mesh_gait import MeshGait, VolumeStage
from gaitzoo.models.mesh_loss import MeshGaitLoss
from gaitzoo.models.mtsgait import MTSGait
from gaitzoo.models.multi_task_loss import IdentityLoss, MultiTaskGaitLoss
from gaitzoo.models.multigaitpp import MultiGaitPP
from gaitzoo.models.occlusion import OcclusionEvaluator, OcclusionEvaluatorLoss
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.parkinson_rgbd import RGBDGaitNet, parkinson_rgbd
from gaitzoo.models.parsinggait import ParsingGait
from gaitzoo.models.person_streams import GaitRepresentationExtractor
from gaitzoo.models.pretraining import FoundationGaitPretrainer, PartInfoNCE, cosine_momentum
from gaitzoo.models.prompt_bank import TextPromptBank
from gaitzoo.models.radar_hmdd import (
    RADAR_DIRECTIONS,
    SBCFormer,
    sbcformer_b,
    sbcformer_l,
    sbcformer_s,
    sbcformer_xs,
)
from gaitzoo.models.registry import (
    get_pretrained_cfg,
    is_model,
    is_model_pretrained,
    list_models,
    list_pretrained,
    list_tags,
    model_info,
    register_model,
)
from gaitzoo.models.rgbd_loss import RGBDGaitLoss
from gaitzoo.models.rggait import GapCorrection, ResidualGapCorrection
from gaitzoo.models.rrs_gait import RRSGait
from gaitzoo.models.sconet import ScoNet
from gaitzoo.models.skeletongait import SkeletonGait
from gaitzoo.models.skeletongaitpp import SkeletonGaitPP
from gaitzoo.models.smplgait import BodyMatrix, PlainGait, SMPLGait
from gaitzoo.models.snippet_loss import SnippetLoss, SnippetOutput
from gaitzoo.models.swingait import SwinGait
from gaitzoo.models.task_head import LinearProbe, TaskHead
from gaitzoo.models.timm_frames import TimmFrames
from gaitzoo.models.timm_pyramid import TimmPyramid
from gaitzoo.models.trackletgait import P3DHWDBlock, TrackletGait
from gaitzoo.models.video_diffusion import (
    DiffusersDenoiser,
    DiffusionLoss,
    DiffusionOutput,
    IdentityConsistencyLoss,
)
from gaitzoo.models.xgait import CrossGate, PartCrossGate, XGait
from gaitzoo.version import __version__ as __version__

__all__ = [  # noqa: RUF022 - plain order
    "ARME_Conv",
    "ASTP",
    "AdaptedParts",
    "Adapter",
    "AllFrames",
    "Animator",
    "AppearanceMotionControl",
    "AttentionFusion",
    "AuxOutput",
    "BODY_SEGMENTS",
    "BigGait",
    "BiggerGait",
    "BinaryHead",
    "BodyForces",
    "BodyMatrix",
    "BodyPartPool",
    "BodySegments",
    "CASIA_B_COVARIATES",
    "CSPBlock",
    "CSPPyramid",
    "CoD2",
    "CoD2Loss",
    "CoD2Output",
    "ComboGait",
    "CompactBlock",
    "Condition",
    "CopyAnimator",
    "CrossGate",
    "CrossLevelFusion",
    "CrossSpatialFusion",
    "DAM",
    "DDIMSampler",
    "DeepGaitV2",
    "DenoisingGait",
    "DepthGait",
    "DiffusersDenoiser",
    "DiffusionFeatureExtractor",
    "DiffusionLoss",
    "DiffusionOutput",
    "DopplerTimeMapPreprocessor",
    "DyGait",
    "DyGaitBlock",
    "ExpandingBNNeck",
    "FTA",
    "FTABlock",
    "FeatureInfo",
    "FeatureLinkingModel",
    "FocalConv2d",
    "ForceCrossAttention",
    "ForceEncoder",
    "ForceFiLM",
    "ForceGait",
    "ForceGate",
    "ForceParts",
    "FoundationGait",
    "FoundationGaitPretrainer",
    "FoundationVectors",
    "FrameEvidence",
    "FrameMasks",
    "FrameWise",
    "FreezeAnimator",
    "FrozenLLM",
    "G2LProjector",
    "GLConv",
    "GLN",
    "GaitAdapter",
    "GaitAdapterLoss",
    "GaitBase",
    "GaitBatch",
    "GaitConditioner",
    "GaitCrafter",
    "GaitDataset",
    "GaitFeatureField",
    "GaitFeatures",
    "GaitFidelity",
    "GaitGL",
    "GaitGraph1",
    "GaitGraph2",
    "GaitLLM",
    "GaitModel",
    "GaitOutput",
    "GaitPart",
    "GaitProtocol",
    "GaitRDAE",
    "GaitReporter",
    "GaitRepresentationExtractor",
    "GaitSample",
    "GaitSet",
    "GaitSnippet",
    "GaitTR",
    "GaitTRBlock",
    "GaitVideoUNet",
    "Gallery",
    "GapCorrection",
    "GeMHPP",
    "GramianAngularField",
    "GraphConv",
    "GroupPool",
    "HSTL",
    "HSTLFeatures",
    "HSTLLevel",
    "HaarDownsample2d",
    "HeatmapEncoder",
    "HorizontalPyramidPooling",
    "HourglassAttention",
    "Identification",
    "IdentityConsistencyLoss",
    "IdentityLoss",
    "IdentityTokens",
    "Interval",
    "InverseDynamics",
    "JointAttention",
    "KernelTransform",
    "L2GProjector",
    "LMGait",
    "LanguageAlignmentLoss",
    "LanguageGuidedAttention",
    "LicenseWarning",
    "LinearProbe",
    "LocalFeatureMatching",
    "LocalTemporalAggregation",
    "LogSpectrogram",
    "MAEOutput",
    "MAEPD",
    "MLGE",
    "MODALITIES",
    "MTSGait",
    "MarkerToMesh",
    "MaskedAutoencoder",
    "Masks",
    "Match",
    "MediaPipePoseSegmenter",
    "MeshGait",
    "MeshGaitLoss",
    "Modality",
    "ModalityGate",
    "ModalityTransform",
    "MonocularDepth",
    "MotionAwareness",
    "MotionClipAssembler",
    "MotionTemporalCapture",
    "MultiGaitPP",
    "MultiScaleContext",
    "MultiTaskGaitLoss",
    "NegativeDistanceStabilityLoss",
    "NoiseSchedule",
    "OcclusionEvaluator",
    "OcclusionEvaluatorLoss",
    "OpenSetResult",
    "OpenSetRow",
    "OrderedSampler",
    "P3DHWDBlock",
    "P3dLayers",
    "PKBatchSampler",
    "ParsingGait",
    "PartBNNeck",
    "PartCropEncoder",
    "PartCrossGate",
    "PartGraph",
    "PartInfoNCE",
    "PartKnowledgeGraph",
    "PartLinear",
    "PartLogitDistillationLoss",
    "PartMLP",
    "PartTokenizer",
    "PartialSelfAttention",
    "Partition",
    "PeakTokenFinder",
    "PeakTokens",
    "PhysPTForces",
    "PlainCNN",
    "PlainGait",
    "PosesToMaps",
    "PretrainedCfg",
    "PretrainedNotAvailable",
    "PromptedViT",
    "ProtocolResult",
    "PyramidNeck",
    "RADAR_DIRECTIONS",
    "RDAEBlock",
    "RGBDGaitLoss",
    "RGBDGaitNet",
    "RRSBranch",
    "RRSGait",
    "RRSHead",
    "RandomTrackletSampler",
    "ReflectConv2d",
    "RegionBalanceLoss",
    "RegionDynamicAggregation",
    "RegionDynamicExcitation",
    "RegionReport",
    "RegionSearcher",
    "RegressionHead",
    "RepresentationAggregator",
    "ResGCNBlock",
    "ResidualBackbone",
    "ResidualBlock2d",
    "ResidualBlock3d",
    "ResidualBlockP3d",
    "ResidualGapCorrection",
    "ResidualSnippetBlock",
    "RestorationReport",
    "RestorationRow",
    "RotateConv2d",
    "SBCFormer",
    "SBCFormerBlock",
    "SEGMENT_TABLES",
    "SKELETONS",
    "SMPLEncoder",
    "SMPLGait",
    "SPPF",
    "SavedTracks",
    "ScaleConv2d",
    "ScoNet",
    "ScoreRow",
    "Segment",
    "SegmentMass",
    "Segmenter",
    "SequencePath",
    "SequenceRecord",
    "SetPool",
    "SharedBNNeck",
    "SharedSpecificFusion",
    "SilhouetteReport",
    "SilhouetteTransform",
    "SilhouetteWarning",
    "Skeleton",
    "SkeletonGait",
    "SkeletonGaitPP",
    "SnippetBackbone",
    "SnippetBlock",
    "SnippetFrames",
    "SnippetLoss",
    "SnippetOutput",
    "SnippetSampler",
    "SpaceTimeMap",
    "SpatialTokenizer",
    "StreamDiversityLoss",
    "StreamSmoothnessLoss",
    "SwinGait",
    "TaskHead",
    "TemporalAttention",
    "TemporalMax",
    "TemporalPartAggregator",
    "TemporalSwitch",
    "TextPromptBank",
    "TextureSuppression",
    "TimmFrames",
    "TimmPyramid",
    "TokenBlock",
    "Track",
    "TrackOptions",
    "TrackStream",
    "TrackletGait",
    "TransferReport",
    "TransferRow",
    "TransformedKernelConv2d",
    "TransformersSegmenter",
    "UnifiedGaitTransformer",
    "UnorderedSampler",
    "VertexStabilityLoss",
    "ViTEncoder",
    "Video",
    "VideoFrame",
    "VideoWarning",
    "VolumeStage",
    "VolumetricHeatmapHead",
    "WindowTransformerBlock",
    "XGait",
    "add_adapters",
    "add_lora",
    "check_silhouettes",
    "cluster_bootstrap",
    "coarse_motion",
    "cod2",
    "concat_forces",
    "corruptions",
    "cosine_momentum",
    "create_model",
    "create_transform",
    "crop_like_silhouette",
    "embed",
    "evaluate",
    "evaluate_open_set",
    "export_onnx",
    "extract_tracks",
    "fidelity",
    "fill_empty_joints",
    "find_sequences",
    "forgetting_matrix",
    "fuse_for_inference",
    "gaitcrafter",
    "gaitgraph_inputs",
    "gaittr_inputs",
    "get_pretrained_cfg",
    "grey_stretch",
    "haar_dwt2d",
    "haar_idwt2d",
    "hop_adjacency",
    "identify",
    "interpolate_identities",
    "is_model",
    "is_model_pretrained",
    "joint_graph",
    "layerwise_lr_groups",
    "list_models",
    "list_pretrained",
    "list_tags",
    "load_checkpoint",
    "load_force_npz",
    "load_mae_weights",
    "load_marker_basis",
    "load_sequence",
    "load_silhouettes",
    "losses",
    "maepd_mae",
    "maepd_vpt",
    "make_transfer_pairs",
    "markers_from_vertices",
    "merge_lora",
    "metrics",
    "mix_probabilities",
    "model_entrypoint",
    "model_info",
    "nearest",
    "normalize_depth",
    "normalize_silhouettes",
    "open_set",
    "pad_sequences",
    "parkinson_rgbd",
    "plan_conditions",
    "pool_forces",
    "read_partition",
    "read_video",
    "record_args",
    "register_model",
    "replace_convs",
    "reverse_time",
    "robustness",
    "sample_new_identities",
    "save_tracks",
    "sbcformer_b",
    "sbcformer_l",
    "sbcformer_s",
    "sbcformer_xs",
    "silhouette_quality",
    "snippet_pool",
    "soft_argmax_3d",
    "split_people",
    "swap_joints",
    "synthetic",
    "testing",
    "unit_range",
    "video_quality",
    "widen_channels",
    "with_forces",
    "within_ranges",
    "write_grew_submission",
]
