"""What every registered model promises, tested on the small variants of all of them.

The promises themselves stand in ``gaitzoo.testing``, where people's own models find them too.
"""

import foreign_pose_model  # noqa: F401 - registers its model
import pytest
import torch
import two_modalities  # noqa: F401 - registers its models
from builders import make, padded
from conftest import LISTED, SILHOUETTES, TINY, relative_error

import gaitzoo
from gaitzoo import MODALITIES
from gaitzoo.data.batches import has_time
from gaitzoo.models.registry import find_architecture
from gaitzoo.testing.promises import PROMISES
from gaitzoo.testing.trial import Skipped, Trial

FRAMES = (7, 5, 1, 2, 3, 4, 9, 12)
WITH_CLASSES = [
    name for name in TINY if find_architecture(name).model_class.classifier_key is not None
]
# Models of other inputs than silhouettes, and how to build them.
OTHERS = {
    "two_branches": {"num_classes": 3},
    "pose_graph": {},
    "poses_alone": {},
    "images_alone": {},
}
# These take seconds, and are tried elsewhere: tests/inference tries them on those of silhouettes,
# on more shapes, and writes the ONNX files of these others; tests/test_testing.py tries pose_graph.
SLOW = {
    **dict.fromkeys(SILHOUETTES, ("export", "onnx")),
    "two_branches": ("onnx",),
    "pose_graph": ("export", "onnx"),
    "poses_alone": ("onnx",),
    "images_alone": ("onnx",),
}
# Numbers that must be the same on every processor, whatever stood in memory before.
NUMERIC = ("length_law", "autocast", "embed", "fuse")
# What a model may not give: all else holds for all of them.
OPTIONAL = {
    "two_branches": set(),
    "pose_graph": {"classes", "features", "grey_levels"},
    "poses_alone": {"classes", "features", "grey_levels"},
    "images_alone": {"classes", "features", "equal_lengths"},
}


def optional(model):
    """What a model of this library does not give for a reason that it says itself."""
    if model.classifier_key is None:
        yield "classes"
    if all(MODALITIES[name].bytes_mean == "none" for name in model.modalities):
        yield "grey_levels"
    if not has_time(model.modalities):
        yield "equal_lengths"


def cases():
    for name in (*TINY, *OTHERS):
        for promise in PROMISES:
            if promise not in SLOW.get(name, ()):
                marks = [pytest.mark.numeric] if promise in NUMERIC else []
                yield pytest.param(name, promise, id=f"{name}-{promise}", marks=marks)


def test_there_is_a_small_variant_of_every_architecture():
    assert {name.removesuffix("_tiny") for name in TINY} <= set(LISTED)
    classes = {type(gaitzoo.create_model(name, num_classes=0)) for name in TINY}
    for name in LISTED:
        with torch.device("meta"):
            assert type(gaitzoo.create_model(name, num_classes=0)) in classes


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize(("name", "promise"), list(cases()))
def test_promise(name, promise):
    model = make(name, **OTHERS.get(name, {}))
    try:
        PROMISES[promise](Trial(model, FRAMES))
    except Skipped as reason:
        if promise not in {*OPTIONAL.get(name, optional(model)), "onnx"}:
            raise
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", [*TINY, "two_branches", "pose_graph"])
@torch.no_grad()
def test_length_law_for_every_length_from_1_to_40(name):
    Trial(make(name).double(), tuple(range(40, 0, -1))).lengths_law(float("nan"))


@pytest.mark.parametrize("name", WITH_CLASSES)
@torch.no_grad()
def test_classes_are_those_of_the_cfg_or_none(name):
    model = make(name)
    assert model.num_classes == model.pretrained_cfg.num_classes > 0
    batch = Trial(model, FRAMES).equals()
    # GLN has class scores of its compact block, which joins the parts.
    num_parts = 1 if name == "gln_tiny" else model.num_parts
    assert model(batch).logits.shape == (2, num_parts, model.num_classes)
    assert make(name, num_classes=0)(batch).logits is None


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_saved_weights_load_by_name(name, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    other = gaitzoo.create_model(name, checkpoint_path=file).eval()
    batch = Trial(model, FRAMES).equals()
    assert torch.equal(other(batch).embeddings, model(batch).embeddings)
    classes = {"num_classes": model.num_classes} if name in WITH_CLASSES else {}
    assert other.model_args == {**model.model_args, **classes}
    assert other.pretrained_cfg == model.pretrained_cfg


def bad_inputs(model):
    height, width = model.pretrained_cfg.input_size
    channels = () if model.in_channels == 1 else (model.in_channels,)
    good = torch.rand(2, *channels, 6, height, width)
    lengths = torch.tensor([6, 4])
    return [
        (good.numpy(), None, TypeError, "expected silhouettes as a torch.Tensor, got ndarray"),
        (good.long(), None, TypeError, r"floats in \[0, 1\] or as uint8"),
        (good[0], None, ValueError, "expected silhouettes"),
        (good[..., :0], None, ValueError, "at least one frame"),
        (good * 255, None, ValueError, "pass uint8 in 0..255, or divide by 255"),
        (good * float("nan"), None, ValueError, "NaN or infinite"),
        (good, [6, 4], TypeError, "lengths as an int64 tensor"),
        (good, lengths.float(), TypeError, "lengths as an int64 tensor"),
        (good, lengths > 5, TypeError, "mask.sum"),
        (good, lengths[:1], ValueError, r"one length per sequence, shape \[2\], got \[1\]"),
        (good, torch.tensor([6, 7]), ValueError, "lengths from 1 to 6 .* got 6 to 7"),
        (good, torch.tensor([6, 0]), ValueError, "lengths from 1 to 6 .* got 0 to 6"),
    ]


@pytest.mark.parametrize("name", SILHOUETTES)
def test_bad_input_is_refused_with_a_reason(name):
    model = make(name)
    for silhouettes, lengths, error, message in bad_inputs(model):
        with pytest.raises(error, match=message):
            model(silhouettes, lengths)


@pytest.mark.parametrize("name", SILHOUETTES)
def test_wrong_channel_count_is_refused(name):
    model = make(name)
    height, width = model.pretrained_cfg.input_size
    with pytest.raises(ValueError, match=r"input channel|expected silhouettes"):
        model(torch.rand(2, model.in_channels + 1, 6, height, width))


@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_other_channel_counts_can_be_built(name):
    model = make(name, in_channels=3)
    height, width = model.pretrained_cfg.input_size
    clips = [torch.rand(3, t, height, width) for t in (5, 2)]
    batched = model(*padded(clips, float("nan"))).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(batched[i], model(clip[None]).embeddings[0]) < 1e-5
