"""What is known of the variants of DeepGaitV2 and GaitBase, and the tags of the authors' files.

Numbers are rank-1 rates in percent from the authors' list of results
(https://github.com/ShiqiYu/OpenGait), unless a protocol says otherwise.
"""

from __future__ import annotations

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.opengait_files import HUB_FILES, HUB_ID, RELEASE_FILES, RELEASES

__all__ = [
    "DEEPGAITV2_2D_CFGS",
    "DEEPGAITV2_3D_CFGS",
    "DEEPGAITV2_P3D_CFGS",
    "GAITBASE_CFGS",
    "opengait_cfg",
]

_10_LAYERS = {"layers": (1, 1, 1, 1)}
_22_LAYERS = {"layers": (1, 4, 4, 1)}


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
    fields.setdefault("fidelity", "parity")
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
