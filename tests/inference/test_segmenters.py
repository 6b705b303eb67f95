"""Adapters of other libraries' networks, with tiny random models and without their weights."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub_server import HubServer, point_client_at

import gaitzoo
from gaitzoo import MediaPipePoseSegmenter, TransformersSegmenter
from gaitzoo.data.segmentation import Segmenter

transformers = pytest.importorskip("transformers", minversion="4.51")
pytest.importorskip("scipy")
pytest.importorskip("torchvision")

LABELS = {0: "bicycle", 1: "person", 2: "car"}
PADDED = {"size": {"shortest_edge": 64, "longest_edge": 128}}


def swin():
    return transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def detr(num_queries=6, **more):
    return transformers.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=num_queries,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        **more,
    )


def mask2former(labels=LABELS):
    config = transformers.Mask2FormerConfig(
        backbone_config=swin(),
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=32,
        num_attention_heads=2,
        dim_feedforward=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=6,
        id2label=labels,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    return model, transformers.Mask2FormerImageProcessor(size_divisor=32, **PADDED)


def maskformer():
    config = transformers.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=detr(),
        mask_feature_size=32,
        fpn_feature_size=32,
        id2label=LABELS,
    )
    model = transformers.MaskFormerForInstanceSegmentation(config)
    return model, transformers.MaskFormerImageProcessor(size_divisor=32, **PADDED)


def eomt():
    if not hasattr(transformers, "EomtConfig"):
        pytest.skip("this version of transformers has no EoMT")
    config = transformers.EomtConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_queries=6,
        num_blocks=1,
        num_register_tokens=1,
        id2label=LABELS,
    )
    size = {"shortest_edge": 64, "longest_edge": 64}
    processor = transformers.EomtImageProcessor(size=size, do_pad=True, do_split_image=False)
    return transformers.EomtForUniversalSegmentation(config), processor


def detr_with_masks():
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = detr(
        num_queries=1,  # of several, what others cover is left out
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        id2label=LABELS,
    )
    model = transformers.DetrForSegmentation(config)
    [bias] = [
        p for n, p in model.mask_head.named_parameters() if n.endswith("bias") and len(p) == 1
    ]
    bias.data[:] = 1  # of the masks
    return model, transformers.DetrImageProcessor(**PADDED)


def rf_detr():
    if not hasattr(transformers, "RfDetrConfig"):
        pytest.skip("this version of transformers has no RF-DETR")
    backbone = transformers.RfDetrConfig().backbone_config.to_dict()
    backbone = {k: v for k, v in backbone.items() if k not in ("stage_names", "out_features")}
    backbone |= {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "patch_size": 8}
    backbone |= {"num_attention_heads": 2, "num_windows": 2}
    backbone |= {"out_indices": [2, 4], "window_block_indices": [0]}
    config = transformers.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_ffn_dim=32,
        decoder_layers=1,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=6,
        group_detr=1,
        id2label=LABELS,
    )
    processor = transformers.RfDetrImageProcessor(size={"height": 64, "width": 64})
    return transformers.RfDetrForInstanceSegmentation(config), processor


def oneformer(folder):
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("older tokenizers are built from files")
    words = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    classes = {str(i): {"isthing": 1, "name": name} for i, name in LABELS.items()}
    (folder / "classes.json").write_text(json.dumps(classes))
    images = transformers.OneFormerImageProcessor(
        repo_path=str(folder), class_info_file="classes.json", num_text=3, **PADDED
    )
    config = transformers.OneFormerConfig(
        backbone_config=swin(),
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        num_attention_heads=2,
        dim_feedforward=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_queries=1,  # of several, what others cover is left out
        text_encoder_width=16,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=60,
        use_auxiliary_loss=False,
        id2label=LABELS,
    )
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    model = transformers.OneFormerForUniversalSegmentation(config)
    return model, transformers.OneFormerProcessor(images, tokenizer)


KINDS = {
    "rf_detr": rf_detr,
    "oneformer": oneformer,
    "mask2former": mask2former,
    "maskformer": maskformer,
    "eomt": eomt,
    "detr": detr_with_masks,
}


def save(folder, model, processor):
    """A model that takes all queries for people, saved as its publishers save theirs."""
    for name, parameter in model.named_parameters():
        if name.endswith(("class_predictor.bias", "classifier.bias", "class_embed.bias")):
            parameter.data[:] = 4 * (torch.arange(len(parameter)) == 1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    made = {}

    def of(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = save(folder, *KINDS[kind](*[folder] * (kind == "oneformer")))
        return made[kind]

    return of


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_masks_out_whatever_the_batch(saved, frames, kind):
    segmenter = TransformersSegmenter(saved(kind), threshold=0.3, batch_size=2, device="cpu")
    assert isinstance(segmenter, Segmenter)
    found = segmenter(frames)
    assert len(found) == 3
    assert sum(len(people.masks) for people in found) > 0
    alone = [segmenter(frame[None])[0] for frame in frames]
    for people, other in zip(found, alone, strict=True):
        assert people.masks.shape[1:] == (50, 70)
        assert people.masks.any((1, 2)).all()
        assert (np.diff(people.scores) <= 0).all()
        assert (people.scores >= 0.3).all()
        assert people.ids is None
        assert np.allclose(people.scores, other.scores, atol=1e-5)
        assert (people.masks == other.masks).mean() > 0.999


def test_half_precision_finds_the_same(saved, frames):
    exact, half = (
        TransformersSegmenter(saved("mask2former"), threshold=0.3, device="cpu", dtype=dtype)
        for dtype in (None, torch.bfloat16)
    )
    assert next(half.model.parameters()).dtype == torch.bfloat16
    for people, other in zip(exact(frames), half(frames), strict=True):
        assert len(people.masks) == len(other.masks) > 0
        assert np.allclose(people.scores, other.scores, atol=0.02)


def test_progress_is_shown_if_asked_for(saved, frames, capsys):
    TransformersSegmenter(saved("eomt"), device="cpu", progress=True)(frames)
    assert "segmenting" in capsys.readouterr().err
    TransformersSegmenter(saved("eomt"), device="cpu")(frames)
    assert "segmenting" not in capsys.readouterr().err


class Boxes:
    """A network that sees three things, one of them no person, at known places of its input."""

    rows = ((8, 40), (16, 64), (0, 20))
    columns = ((8, 24), (40, 88), (60, 80))

    def forward(self, pixel_values, pixel_mask):
        assert pixel_values.shape[2:] == (128, 128)
        assert pixel_mask[0].any(1).sum() == 64
        assert pixel_mask[0].any(0).sum() == 96
        masks = torch.full((len(pixel_values), 3, 128, 128), -9.0)
        for i, ((top, bottom), (left, right)) in enumerate(
            zip(self.rows, self.columns, strict=True)
        ):
            masks[:, i, top:bottom, left:right] = 9
        classes = torch.zeros(len(pixel_values), 3, 4)
        for query, (label, score) in enumerate(((1, 9), (1, 3), (2, 9))):
            classes[:, query, label] = score
        from transformers.models.mask2former.modeling_mask2former import (
            Mask2FormerForUniversalSegmentationOutput as Output,
        )

        return Output(class_queries_logits=classes, masks_queries_logits=masks)

    __call__ = forward


def test_masks_of_padded_frames_lie_where_the_people_are(tmp_path, frames):
    model, _ = mask2former()
    # Frames of 50 x 70 become 64 x 96 and are padded.
    try:
        processor = transformers.Mask2FormerImageProcessor(
            size_divisor=32, pad_size={"height": 128, "width": 128}, **PADDED
        )
    except TypeError:
        pytest.skip("this version of transformers pads to the size of the batch only")
    segmenter = TransformersSegmenter(save(tmp_path, model, processor), device="cpu")
    segmenter.model = Boxes()
    for people in segmenter(frames):
        assert len(people.masks) == 2
        assert people.scores[0] > people.scores[1]
        for i, mask in enumerate(people.masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            found = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
            wanted = np.array([*Boxes.rows[i], *Boxes.columns[i]], float)
            wanted[:2] *= 50 / 64
            wanted[2:] *= 70 / 96
            assert np.abs(found - wanted).max() < 1.1


def test_the_default_is_found_on_the_hub(saved, frames, tmp_path, monkeypatch):
    files = {file.name: file.read_bytes() for file in Path(saved("mask2former")).iterdir()}
    with HubServer() as hub:
        hub.add("facebook/mask2former-swin-tiny-coco-instance", files)
        point_client_at(hub.url, tmp_path, monkeypatch)
        segmenter = TransformersSegmenter(threshold=0.3, device="cpu")
        assert hub.count("GET", "model.safetensors") > 0
    local = TransformersSegmenter(saved("mask2former"), threshold=0.3, device="cpu")
    for people, other in zip(segmenter(frames), local(frames), strict=True):
        assert np.array_equal(people.masks, other.masks)


def test_models_of_other_kinds_are_refused(saved, tmp_path):
    classifier = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    transformers.ResNetForImageClassification(classifier).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"got .*other of the kind resnet"):
        TransformersSegmenter(str(tmp_path / "other"))
    cars = save(tmp_path / "cars", *mask2former({0: "bicycle", 1: "bus", 2: "car"}))
    with pytest.raises(ValueError, match=r"class person, got .*cars with bicycle, bus, car"):
        TransformersSegmenter(cars)


def test_half_of_the_weights_is_refused(saved, tmp_path):
    model, processor = mask2former()
    folder = save(tmp_path / "half", model, processor)
    state = {k: v for k, v in model.state_dict().items() if "pixel_level" in k}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(OSError, match="got a file without"):
        TransformersSegmenter(folder)


def test_names_that_nobody_has_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mask2former"}))
    with pytest.raises(OSError, match="preprocessor_config"):
        TransformersSegmenter(str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [{"threshold": 0}, {"threshold": "low"}, {"batch_size": 0}, {"dtype": torch.int8}],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"expected {next(iter(arguments))}"):
        TransformersSegmenter(**arguments)


def test_frames_of_another_form_are_refused(saved):
    segmenter = TransformersSegmenter(saved("eomt"), device="cpu")
    with pytest.raises(ValueError, match=r"frames \[T, H, W, 3\], got \[50, 70, 3\]"):
        segmenter(np.zeros((50, 70, 3), np.uint8))
    with pytest.raises(TypeError, match="uint8"):
        segmenter(np.zeros((1, 50, 70, 3)))


# MediaPipe


class FakePose:
    """MediaPipe's older interface: the person is what is brighter than half."""

    def __init__(self, **arguments):
        assert arguments == {"enable_segmentation": True, "min_detection_confidence": 0.5}
        self.is_closed = False

    def process(self, frame):
        if not frame.any():
            return SimpleNamespace(pose_landmarks=None, segmentation_mask=None)
        marks = [SimpleNamespace(x=i / 100, y=0.5, visibility=i / 32) for i in range(33)]
        return SimpleNamespace(
            pose_landmarks=SimpleNamespace(landmark=marks),
            segmentation_mask=frame[..., 0].astype(np.float32) / 255,
        )

    def close(self):
        self.is_closed = True


@pytest.fixture
def fake(monkeypatch):
    pose = SimpleNamespace(Pose=FakePose)
    module = SimpleNamespace(__version__="0.10.21", solutions=SimpleNamespace(pose=pose))
    monkeypatch.setitem(sys.modules, "mediapipe", module)
    return module


def test_mediapipe_gives_one_person_with_cocos_joints(fake):
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[0, 5:30, 10:20] = 200
    segmenter = MediaPipePoseSegmenter()
    assert isinstance(segmenter, Segmenter)
    somebody, nobody = segmenter(frames)
    assert np.array_equal(somebody.masks, frames[:1, ..., 0] > 0)
    # Nose, left elbow and right ankle are MediaPipe's landmarks 0, 13 and 28.
    joints = somebody.keypoints[0]
    assert joints.shape == (17, 3)
    for joint, landmark in ((0, 0), (7, 13), (16, 28)):
        assert np.allclose(joints[joint], [landmark * 0.6, 20, landmark / 32])
    assert somebody.scores[0] == pytest.approx(joints[:, 2].mean())
    assert nobody.masks.shape == (0, 40, 60)
    assert nobody.keypoints.shape == (0, 17, 3)


def test_mediapipe_begins_anew_with_another_video(fake):
    made = []
    fake.solutions.pose.Pose = lambda **arguments: made.append(FakePose(**arguments)) or made[-1]
    segmenter = MediaPipePoseSegmenter()
    segmenter.restart()
    assert [pose.is_closed for pose in made] == [True, False]
    del segmenter
    assert made[1].is_closed


def test_what_mediapipe_lacks_is_said(fake, monkeypatch, tmp_path):
    del fake.solutions
    fake.__version__ = "1.2.3"
    with pytest.raises(ImportError, match=r"1\.2\.3 carries no models.*gaitzoo\[mediapipe\]"):
        MediaPipePoseSegmenter()
    with pytest.raises(FileNotFoundError, match=r"pose_landmarker_\*\.task"):
        MediaPipePoseSegmenter(tmp_path / "pose.task")
    with pytest.raises(ValueError, match="threshold between 0 and 1"):
        MediaPipePoseSegmenter(threshold=2)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ImportError, match=r"gaitzoo\[mediapipe\]"):
        MediaPipePoseSegmenter()


def shaded(silhouette):
    """A body of skin, shirt and trousers, lit from one side, before a grey wall."""
    lit = silhouette > 127
    inside = np.cumsum(lit, 1) * lit
    width = np.maximum(lit.sum(1, keepdims=True), 1)
    across = np.clip(inside / width, 0, 1)
    light = 0.45 + 0.55 * np.sin(np.pi * across)
    rows = np.flatnonzero(lit.any(1))
    height = (np.arange(len(lit)) - rows[0]) / max(rows[-1] - rows[0], 1)
    colours = np.array([[205, 160, 135], [150, 40, 45], [45, 55, 110], [30, 25, 25]])
    body = colours[np.digitize(height, [0.14, 0.5, 0.94])][:, None] * light[..., None]
    wall = np.random.default_rng(0).integers(120, 150, (*silhouette.shape, 3))
    return np.where(lit[..., None], body, wall).astype(np.uint8)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_mediapipe_on_shaded_walkers():
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this version of mediapipe carries no models")
    walker = gaitzoo.synthetic.sample_identity(3)
    walk = gaitzoo.synthetic.render_walk(
        walker, frames=20, size=(480, 640), aligned=False, seed=1
    ).silhouettes.numpy()
    found = MediaPipePoseSegmenter()(np.stack([shaded(frame) for frame in walk]))
    overlaps = []
    for people, frame in zip(found, walk, strict=True):
        wanted = frame > 127
        mask = people.masks[0] if len(people.masks) else np.zeros_like(wanted)
        overlaps.append((mask & wanted).sum() / (mask | wanted).sum())
    assert np.median(overlaps) > 0.9
