"""Where the authors' files are: their repository on the Hugging Face Hub, and their releases.

Read in February 2026. The files are only pointed at; nothing of them is contained here.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["HUB_FILES", "HUB_ID", "RELEASES", "RELEASE_FILES", "HubFile"]

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
    "skeletongait.ccpg": HubFile(
        "CCPG/DeepGaitV2/SkeletonGait/checkpoints/SkeletonGait-60000.pt",
        67_683_613,
        "3f1bb09ef1d2ee484218ff8efec44cfc4bda21f00c529c399d4e3ed2af0f2085",
    ),
    "skeletongait.gait3d": HubFile(
        "Gait3D/DeepGaitV2/SkeletonGait/checkpoints/SkeletonGait-60000.pt",
        204_178_943,
        "744646de9d4f9c466ea3a20566c2b2d0f4a15fd3165dc90ec615f67238473cc7",
    ),
    "skeletongait.grew": HubFile(
        "GREW/DeepGaitV2/SkeletonGait/checkpoints/SkeletonGait-180000.pt",
        761_196_650,
        "a436a9b127b5ebcd923501708285248aa4325f59be005a38ed9d8355f65fd8c2",
    ),
    "skeletongait.oumvlp": HubFile(
        "OUMVLP/DeepGaitV2/SkeletonGait/checkpoints/SkeletonGait-120000.pt",
        233_270_437,
        "9cf28d60afc17865718af55a0e5652cfaed2236c825bfd40c69843240a749bd3",
    ),
    "skeletongait.sustech1k": HubFile(
        "SUSTech1K/DeepGaitV2/SkeletonGait/checkpoints/SkeletonGait_30_DA-50000.pt",
        72_602_244,
        "821df64ec79382bedf50b00d991d847ce636773d58aaf93a85477c436e03a173",
    ),
    "skeletongaitpp.ccpg": HubFile(
        "CCPG/SkeletonGaitPP/SkeletonGaitPP/checkpoints/SkeletonGaitPP-60000.pt",
        68_337_598,
        "03bf989cb27304cec90c8f9b968c7b7a90e69c3df4052112c5cbd2d159a038cd",
    ),
    "skeletongaitpp.gait3d": HubFile(
        "Gait3D/SkeletonGaitPP/SkeletonGaitPP/checkpoints/SkeletonGaitPP-60000.pt",
        204_760_379,
        "12ab664326898a170286487764c40a686519ab85cb71bb2940e1a9668d1ee1d6",
    ),
    "skeletongaitpp.grew": HubFile(
        "GREW/SkeletonGaitPP/SkeletonGaitPP/checkpoints/SkeletonGaitPP-180000.pt",
        761_875_210,
        "71a75239822b02747a1cacaf0834f2fee0477c90c6a8f888120f61474589b886",
    ),
    "skeletongaitpp.sustech1k": HubFile(
        "SUSTech1K/SkeletonGaitPP/SkeletonGaitPP/checkpoints/SkeletonGaitPP_30_DA-50000.pt",
        73_227_448,
        "c25c899df28b14e4d61e452080e8140fc584570f27de7bc8be0645c8e808feec",
    ),
    "gaitgraph1.gait3d": HubFile(
        "Gait3D/GaitGraph1/GaitGraph1_phase1/checkpoints/GaitGraph1_phase1-20000.pt",
        4_114_625,
        "411a96c8673a86873572060b65691b187b3105e47c8e6ebb91c9483d8efb3948",
    ),
    "gaitgraph1.grew": HubFile(
        "GREW/GaitGraph1/GaitGraph1_phase1/checkpoints/GaitGraph1_phase1-150000.pt",
        8_884_280,
        "670e72f52f197706bd201ba09f9018ffcaf5ebedaf40cde16e4f0019f4f6b4c2",
    ),
    "gaitgraph1.oumvlp": HubFile(
        "OUMVLP/GaitGraph1/GaitGraph1_phase1/checkpoints/GaitGraph1_phase1-150000.pt",
        4_522_429,
        "85c0afaa6f9a1ba6b78bf27b6685447ba83ea82611d6cc6b698004eade9392ea",
    ),
    "gaitgraph1.oumvlp_17": HubFile(
        "OUMVLP/GaitGraph1/GaitGraph1_phase1_17/checkpoints/GaitGraph1_phase1_17-150000.pt",
        4_542_271,
        "902a887e1443ec39caf0d07adda8f67d3646d4e67863e2cdd4862a4caf627dfa",
    ),
    "gaitgraph2.gait3d": HubFile(
        "Gait3D/GaitGraph2/GaitGraph2/checkpoints/GaitGraph2-02000.pt",
        4_502_834,
        "b724d0b4897d570d57f790b678e6224b0fec22f0db09c4c335cba336d02f5bcb",
    ),
    "gaitgraph2.grew": HubFile(
        "GREW/GaitGraph2/GaitGraph2/checkpoints/GaitGraph2-00034.pt",
        19_161_770,
        "a3e495ed886681e27119a723fe110e84d381b073f25b9bffd32c1608075aca12",
    ),
    "gaitgraph2.oumvlp": HubFile(
        "OUMVLP/GaitGraph2/GaitGraph2_phase2/checkpoints/GaitGraph2_phase2-80000.pt",
        9_740_369,
        "bbbbda71e5602905f24227306b40d169f4825549c6351eea5bea0525d3f2412b",
    ),
    "gaitgraph2.oumvlp_17": HubFile(
        "OUMVLP/GaitGraph2/GaitGraph2_phase2_17/checkpoints/GaitGraph2_phase2_17-80000.pt",
        9_715_429,
        "62fd96429bf4be3adeb3d9fea5bc3d27d3d3f6cf36d213e7c34e43795855cacf",
    ),
    "gaittr.gait3d": HubFile(
        "Gait3D/GaitTR/GaitTR/checkpoints/GaitTR-40000.pt",
        6_302_580,
        "b444b119969a66fb893710b31fde46a5b2d0852bda915a2754d5773bbaa4025c",
    ),
    "gaittr.grew": HubFile(
        "GREW/GaitTR/GaitTR/checkpoints/GaitTR-150000.pt",
        6_693_933,
        "42100bcb013ec348902e88bc2d3b72c79424a52265b2b50fb759253b02815faf",
    ),
    "gaittr.oumvlp": HubFile(
        "OUMVLP/GaitTR/GaitTR/checkpoints/GaitTR-150000.pt",
        6_717_359,
        "31bb7f55bb30583438655bf79ab3ed167fb878b932e894c7feb8abe819d95f7b",
    ),
    "gaittr.oumvlp_17": HubFile(
        "OUMVLP/GaitTR/GaitTR_17/checkpoints/GaitTR_17-150000.pt",
        6_694_910,
        "3e26f54cf59571dd740c4a9569b4b7932936acb3d22299ace211de1190a04732",
    ),
    "parsinggait.gait3d": HubFile(
        "Gait3D-Parsing/ParsingGait/ParsingGait/checkpoints/ParsingGait-120000.pt",
        194_745_763,
        "3768d8ec00e22cd6ee693204863936826358d15a05d8f5d8d3acaea9f966c860",
    ),
    "smplgait.gait3d_parsing": HubFile(
        "Gait3D-Parsing/SMPLGait/SMPLGait/checkpoints/SMPLGait-180000.pt",
        325_431_161,
        "08a8ba01173e2408ca7672fe5c59c03565ce7804a9cfc92ef2ddf34543cb824f",
    ),
    "biggait.ccpg": HubFile(
        "CCPG/BigGait__Dinov2_Gaitbase/BigGait__Dinov2_Gaitbase_Frame30/checkpoints/BigGait__Dinov2_Gaitbase_Frame30-40000.pt",
        123_323_595,
        "cc7f9980cb2c8ecffcdc39976a6953ecda7e2020166288ea686c2ce22bb679f9",
    ),
    "biggergait.ccgr_grouped": HubFile(
        "CCGR/BiggerGait__Dinov2/BiggerGait__Dinov2_Group/BiggerGait__SmallDINOv2_Gaitbase_84Frame30_448224_6432HPP32_NoAlign_Sep12B_WiMask_Share_2B_6G-30000.pt",
        316_775_988,
        "ebc2d9dfc354cc36c093e22ce9d9f4ff15abe08d72df2570f11d452a3e1a9d69",
    ),
    "biggergait.ccpg": HubFile(
        "CCPG/BiggerGait__DINOv2/BiggerGait__Dinov2/BiggerGait__SmallDINOv2_Gaitbase_84Frame30_448224_6432HPP32_NoAlign_Sep12B_WiMask-30000.pt",
        1_051_492_528,
        "b6e3812922ce5210b376173caf684ebd4ebf2bfa4005a1df4a3baf78edd33dbc",
    ),
    "biggergait.ccpg_grouped": HubFile(
        "CCPG/BiggerGait__DINOv2/BiggerGait__Dinov2_Group/BiggerGait__SmallDINOv2_Gaitbase_84Frame30_448224_6432HPP32_NoAlign_Sep12B_WiMask_2B_6G-30000.pt",
        255_037_838,
        "727fdd0e0326c213ede6eef6cd7d8150d2ca25e01be7b7edac842627a8603768",
    ),
}

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
    "plaingait.gait3d": "v0.1/64pixel-Baseline-180000.pt",
    "plaingait.gait3d_128": "v0.1/128pixel-Baseline-180000.pt",
    "smplgait.gait3d": "v0.1/64pixel-SMPLGait_64pixel-180000.pt",
    "smplgait.gait3d_128": "v0.1/128pixel-SMPLGait_128pixel-180000.pt",
    "xgait.gait3d": "v1.1/Gait3D-XGait-120000.pt",
    "mtsgait.gait3d": "v1.0/Gait3D-MTSGait-180000.pt",
}
