"""Where the authors' files are, and what is known of the variants of DeepGaitV2 and GaitBase.

Read in February 2026 from the repository ``opengait/OpenGait`` on the Hugging Face Hub. The files
are only pointed at; nothing of them is contained here. Numbers are rank-1 rates in percent from
the authors' list of results (https://github.com/ShiqiYu/OpenGait), unless a protocol says
otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from gaitzoo.models.cfg import PretrainedCfg

__all__ = [
    "DEEPGAITV2_2D_CFGS",
    "DEEPGAITV2_3D_CFGS",
    "DEEPGAITV2_P3D_CFGS",
    "GAITBASE_CFGS",
    "HUB_FILES",
    "HUB_ID",
    "RELEASES",
    "RELEASE_FILES",
    "HubFile",
    "opengait_cfg",
]

HUB_ID = "opengait/OpenGait"


class HubFile(NamedTuple):
    """One file of the repository.

    Args:
        filename: Path inside the repository.
        size: Bytes.
        sha256: Hash of the content.
    """

    filename: str
    size: int
    sha256: str


HUB_FILES = {
    "deepgaitv2_p3d.gait3d": HubFile(
        "Gait3D/DeepGaitV2/DeepGaitV2/checkpoints/DeepGaitV2-60000.pt",
        204_131_161,
        "ca816eab7a937cbd8f0f9c259444a8192f5438408c4b90d3896e11749e47a383",
    ),
    "deepgaitv2_p3d.grew": HubFile(
        "GREW/DeepGaitV2/DeepGaitV2/checkpoints/DeepGaitV2-180000.pt",
        761_187_161,
        "a83ef619517651bd82a4a210c50f5ad97c90a24bc7580588fa3bef19bd2033d3",
    ),
    "deepgaitv2_p3d.oumvlp": HubFile(
        "OUMVLP/DeepGaitV2/DeepGaitV2/checkpoints/DeepGaitV2-120000.pt",
        233_255_517,
        "40e6860c43840f61f85cfa2e59d18eb47031ce647ccb88f3e4ba7c86a1968b63",
    ),
    "deepgaitv2_p3d.ccpg": HubFile(
        "CCPG/DeepGaitV2/DeepGaitV2/checkpoints/DeepGaitV2-60000.pt",
        67_679_005,
        "af29facf284862b5a4d838d8fbc70c55af1161eab6f3dd78aab8c82ddf7f6763",
    ),
    "deepgaitv2_p3d.sustech1k": HubFile(
        "SUSTech1K/DeepGaitV2/DeepGaitV2/checkpoints/DeepGaitV2_30_DA-50000.pt",
        72_597_336,
        "da3517cc514af5ae17d3e489511838e7c081b9091d810eb07d7ae6473d48d9fe",
    ),
    "gaitbase.gait3d": HubFile(
        "Gait3D/Baseline/GaitBase_DA/checkpoints/GaitBase_DA-60000.pt",
        154_419_027,
        "975a60098b7fe9414a8fc7e625f83a6ac189a89ea38322f1338cd2744fb1fc96",
    ),
    "gaitbase.grew": HubFile(
        "GREW/Baseline/GaitBase_DA/checkpoints/GaitBase_DA-180000.pt",
        355_775_432,
        "09e070ce43e3acb40b7bf84d8d29051d02d0c0c127bbb45f1df0df1067ca3779",
    ),
    "gaitbase.oumvlp": HubFile(
        "OUMVLP/Baseline/GaitBase/checkpoints/GaitBase-120000.pt",
        112_522_069,
        "f8844610c4adddd1ec5fc7b48695c8c191587c10611c1987ddf031c9454353bf",
    ),
    "gaitbase.casiab": HubFile(
        "CASIA-B/Baseline/GaitBase_DA/checkpoints/GaitBase_DA-60000.pt",
        58_540_051,
        "ff16d73d76780a1775cb4c8441ed262a9bf8836b14fad5dcec024f839c234d77",
    ),
    "gaitbase.casiae": HubFile(
        "CASIA-E/Baseline/GaitBase/checkpoints/GaitBase-60000.pt",
        62_668_819,
        "00b04b7dfb861e639cec0878f61b25301cf42619b327ee250fcb0f13556146df",
    ),
    "gaitbase.gait3d_parsing": HubFile(
        "Gait3D-Parsing/Baseline/GaitBase_btz32x2_fixed/checkpoints/GaitBase_btz32x2_fixed-120000.pt",
        154_419_283,
        "7c1d3427bbd4e9fb052dd8092cfcf2415140a440852f683006d42b70427c31e1",
    ),
    "gaitset.casiae": HubFile(
        "CASIA-E/GaitSet/GaitSet/checkpoints/GaitSet-60000.pt",
        50_517_091,
        "8c6bd8d24650d077636fc2b2f16f0374d6bb6f7b504a6e9813197927f4daa002",
    ),
    "gaitset.gait3d_parsing": HubFile(
        "Gait3D-Parsing/GaitSet/GaitSet/checkpoints/GaitSet-180000.pt",
        31_149_921,
        "97cc94febd04c8231bf007401e9dc90f866caa4f3d2ff71e40b240d95fb45db5",
    ),
    "gaitpart.casiae": HubFile(
        "CASIA-E/GaitPart/GaitPart/checkpoints/GaitPart-120000.pt",
        58_194_809,
        "83e6705f9e7aba1dc69a6a6278fb902a7b98fec62b49ee34c88408e90db810cb",
    ),
    "gaitpart.gait3d_parsing": HubFile(
        "Gait3D-Parsing/GaitPart/GaitPart/checkpoints/GaitPart-180000.pt",
        14_544_777,
        "e2803957601654ad2123e64251bc15673bfe857f286923866848253c8a0c897e",
    ),
    "gaitgl.gait3d_parsing": HubFile(
        "Gait3D-Parsing/GaitGL/GaitGL/checkpoints/GaitGL-180000.pt",
        324_816_000,
        "4c43ce4f600fa0ec08aee5d7c0e534a006b85e6e046b6914ce581757ef272d78",
    ),
    "gln.gait3d_parsing": HubFile(
        "Gait3D-Parsing/GLN/GLN/checkpoints/GLN_P2-180000.pt",
        185_465_425,
        "6d371e4407e532f71be4ddb61a0a75106b20dce10f928cb8906d4f3d5ad26ee6",
    ),
    "mtsgait.gait3d_parsing": HubFile(
        "Gait3D-Parsing/MTSGait/MTSGait/checkpoints/MTSGait-180000.pt",
        324_076_644,
        "8762b6558b1619fa5a4ef6741e88571d58489c8ed57623b952f875cb38a3cf5e",
    ),
    "swingait.gait3d": HubFile(
        "Gait3D/SwinGait/SwinGait3D_B1442_C2/checkpoints/SwinGait3D_B1442_C2-60000.pt",
        306_817_994,
        "e7411a25f94c9a58cb832968c9bd626e463bb8184909659a0a95b541a63e0694",
    ),
    "swingait.ccpg": HubFile(
        "CCPG/SwinGait/SwinGait3D_B1122_C2/checkpoints/SwinGait3D_B1122_C2-20000.pt",
        132_701_626,
        "f5ec54249d7f5a24857d8af9b38d2ee4640b4d74db1fc99b9b3a1d4c57a2c729",
    ),
    "swingait.sustech1k": HubFile(
        "SUSTech1K/SwinGait/SwinGait3D_B1122_C2/checkpoints/SwinGait3D_B1122_C2-60000.pt",
        140_074_426,
        "8bfb56ac46c49e16403d65192bdccfa915722969fbb0d42168c51cf0155f0ce0",
    ),
}

_10_LAYERS = {"layers": (1, 1, 1, 1)}
_22_LAYERS = {"layers": (1, 4, 4, 1)}


RELEASES = "https://github.com/Gait3D/Gait3D-Benchmark/releases/download/"
# Assets of the authors' releases, which have neither size nor hash published.
RELEASE_FILES = {
    "gaitset.gait3d": "v0.1/64pixel-GaitSet-180000.pt",
    "gaitset.gait3d_128": "v0.1/128pixel-GaitSet-180000.pt",
    "gaitpart.gait3d": "v0.1/64pixel-GaitPart-180000.pt",
    "gaitpart.gait3d_128": "v0.1/128pixel-GaitPart-180000.pt",
    "gaitgl.gait3d": "v0.1/64pixel-GaitGL-180000.pt",
    "gaitgl.gait3d_128": "v0.1/128pixel-GaitGL-180000.pt",
    "gln.gait3d": "v0.1/64pixel-GLN_P2-180000.pt",
    "gln.gait3d_128": "v0.1/128pixel-GLN_P2-180000.pt",
    "mtsgait.gait3d": "v1.0/Gait3D-MTSGait-180000.pt",
}


def opengait_cfg(name: str, paper: str, **fields: object) -> PretrainedCfg:
    """A tag of a model; with the authors' file, if they have published one.

    Args:
        name: ``arch.tag``, as in ``HUB_FILES`` or ``RELEASE_FILES``.
        paper: Link to the paper.
        **fields: What else is known.
    """
    if name in HUB_FILES:
        file = HUB_FILES[name]
        fields |= {
            "hub_id": HUB_ID,
            "filename": file.filename,
            "size": file.size,
            "sha256": file.sha256,
        }
    elif name in RELEASE_FILES:
        url = RELEASES + RELEASE_FILES[name]
        fields |= {"url": url, "filename": url.rpartition("/")[2]}
    return PretrainedCfg(
        license="none stated; authors: academic use only",
        paper=paper,
        origin="https://github.com/ShiqiYu/OpenGait",
        unavailable=(
            "the authors have published no file for this variant. Train the model yourself, or "
            "load a file that you have with checkpoint_path=..."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


def _deepgaitv2_cfg(name: str, **fields: object) -> PretrainedCfg:
    return opengait_cfg(name, "https://arxiv.org/abs/2303.03301", **fields)


def _gaitbase_cfg(name: str, **fields: object) -> PretrainedCfg:
    return opengait_cfg(name, "https://arxiv.org/abs/2211.06597", **fields)


DEEPGAITV2_P3D_CFGS = {
    "gait3d": _deepgaitv2_cfg(
        "deepgaitv2_p3d.gait3d",
        num_classes=3000,
        model_args=_22_LAYERS,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 74.4, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _deepgaitv2_cfg(
        "deepgaitv2_p3d.grew",
        num_classes=20000,
        model_args=_22_LAYERS,
        training_data="GREW, 20000 subjects",
        metrics={
            "rank1": 79.4,
            "mode": "3d",
            "protocol": "GREW test set, scored by its server; published for mode 3d",
        },
        notes="The published number is listed for mode 3d; the size of the file says p3d.",
    ),
    "oumvlp": _deepgaitv2_cfg(
        "deepgaitv2_p3d.oumvlp",
        num_classes=5153,
        model_args=_10_LAYERS,
        training_data="OU-MVLP, 5153 subjects",
        metrics={
            "rank1": 92.0,
            "mode": "3d",
            "protocol": "OU-MVLP, identical views excluded; published for mode 3d",
        },
        notes="The published number is listed for mode 3d; the size of the file says p3d.",
    ),
    "ccpg": _deepgaitv2_cfg(
        "deepgaitv2_p3d.ccpg",
        num_classes=100,
        model_args=_10_LAYERS,
        training_data="CCPG, 100 subjects",
        metrics={
            "rank1_CL": 78.6,
            "rank1_mean": 83.3,
            "protocol": "CCPG, full change of clothes (CL) and the mean; reported by others",
        },
    ),
    "sustech1k": _deepgaitv2_cfg(
        "deepgaitv2_p3d.sustech1k",
        num_classes=250,
        model_args=_10_LAYERS,
        training_data="SUSTech1K, 250 subjects",
        metrics={
            "rank1": 82.4,
            "rank5": 92.6,
            "rank1_NM": 87.5,
            "rank1_BG": 84.1,
            "rank1_CL": 53.4,
            "rank1_CR": 81.3,
            "rank1_UB": 86.2,
            "rank1_UF": 84.8,
            "rank1_OC": 88.5,
            "rank1_NT": 28.8,
            "protocol": "SUSTech1K, normal gallery, all probes and per condition",
        },
    ),
    "casiab": _deepgaitv2_cfg("deepgaitv2_p3d.casiab", num_classes=74, model_args=_10_LAYERS),
}

DEEPGAITV2_3D_CFGS = {
    "grew": _deepgaitv2_cfg(
        "deepgaitv2_3d.grew",
        num_classes=20000,
        model_args=_22_LAYERS,
        metrics={"rank1": 79.4, "protocol": "GREW test set, scored by its server"},
    ),
    "oumvlp": _deepgaitv2_cfg(
        "deepgaitv2_3d.oumvlp",
        num_classes=5153,
        model_args=_10_LAYERS,
        metrics={"rank1": 92.0, "protocol": "OU-MVLP, identical views excluded"},
    ),
}

DEEPGAITV2_2D_CFGS = {
    "gait3d": _deepgaitv2_cfg("deepgaitv2_2d.gait3d", num_classes=3000, model_args=_22_LAYERS),
}

GAITBASE_CFGS = {
    "gait3d": _gaitbase_cfg(
        "gaitbase.gait3d",
        num_classes=3000,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 64.6, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _gaitbase_cfg(
        "gaitbase.grew",
        num_classes=20000,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 60.1, "protocol": "GREW test set, scored by its server"},
    ),
    "oumvlp": _gaitbase_cfg(
        "gaitbase.oumvlp",
        num_classes=5153,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 90.8, "protocol": "OU-MVLP, identical views excluded"},
    ),
    "casiab": _gaitbase_cfg(
        "gaitbase.casiab",
        num_classes=74,
        training_data="CASIA-B, 74 subjects",
        metrics={
            "rank1": 97.6,
            "rank1_BG": 94.0,
            "rank1_CL": 77.4,
            "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
        },
    ),
    "casiae": _gaitbase_cfg(
        "gaitbase.casiae",
        num_classes=200,
        training_data="CASIA-E, 200 subjects",
        metrics={
            "rank1": 91.6,
            "rank1_BG": 86.7,
            "rank1_CL": 74.7,
            "protocol": "CASIA-E; rank1 is normal walking (NM)",
        },
    ),
    "gait3d_parsing": _gaitbase_cfg(
        "gaitbase.gait3d_parsing",
        num_classes=3000,
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 71.2,
            "mAP": 64.1,
            "protocol": "Gait3D probe list against the rest, parsing maps instead of silhouettes",
        },
        notes="Reads maps of body part labels 0..11 as floats, not scaled (inferred).",
    ),
    "ccpg": _gaitbase_cfg(
        "gaitbase.ccpg",
        num_classes=100,
        input_size=(64, 64),
        metrics={
            "rank1_CL": 71.6,
            "rank1_mean": 75.5,
            "protocol": "CCPG, full change of clothes (CL) and the mean; reported by others",
        },
        notes="Full-width frames, no columns cut.",
    ),
    "sustech1k": _gaitbase_cfg(
        "gaitbase.sustech1k",
        num_classes=250,
        metrics={"rank1": 76.1, "protocol": "SUSTech1K, all probes; reported by others"},
    ),
}
