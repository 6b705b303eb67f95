"""Published structures: shapes without memory, and the length law with real widths."""

import json

import pytest
import torch
from conftest import LISTED

import gaitzoo
from gaitzoo.data.batches import has_time
from gaitzoo.inference.inputs import each_tensor, example_sequence
from gaitzoo.models.registry import find_architecture
from gaitzoo.testing.trial import Trial


def classifier_key(name):
    return find_architecture(name.partition(".")[0]).model_class.classifier_key


def structures():
    """One name for every distinct structure in the registry."""
    seen = {}
    for architecture in LISTED:
        # The language model of GaitLLM would be downloaded; its own tests build it from a config.
        if architecture != "gaitllm":
            for tag in gaitzoo.list_tags(architecture):
                cfg = gaitzoo.model_info(f"{architecture}.{tag}")
                plain = json.dumps([dict(cfg.model_args), cfg.input_size], sort_keys=True)
                seen.setdefault((architecture, plain), cfg.name)
    return sorted(seen.values())


@pytest.mark.parametrize("name", structures())
def test_shapes_on_the_meta_device(name):
    cfg = gaitzoo.model_info(name)
    # Weights that come with the library have no classifier.
    classes = (cfg.num_classes or 5) if classifier_key(name) is not None else 0
    with torch.device("meta"):
        model = gaitzoo.create_model(name, num_classes=classes).eval()
        clips = each_tensor(example_sequence(model, 30), lambda x: torch.empty(2, *x.shape))
        output = model(clips)
        lengths = torch.empty(2, dtype=torch.int64) if has_time(model.modalities) else None
        with_lengths = model(clips, lengths)
    assert output.embeddings.shape == (2, model.num_parts, model.num_features)
    if name in ("gln.casiab", "gln.phase1") or not classes:
        # The first phase of GLN's training has no compact block, and so no classes.
        assert output.logits is None
    else:
        rows = 1 if name.startswith("gln.") else model.num_parts
        assert output.logits.shape == (2, rows, classes)
    assert with_lengths.embeddings.shape == output.embeddings.shape


# The largest, which take long: a smaller structure of each architecture is tried.
LARGE = {
    "biggergait.ccpg",
    "dygait.gait3d",
    "dygait.grew",
    "foundationgait.gait3d",
    "foundationgait.large",
    "parkinson_rgbd.l",
}


@pytest.mark.parametrize("name", [name for name in structures() if name not in LARGE])
@torch.no_grad()
def test_length_law_with_published_widths(name):
    model = gaitzoo.create_model(name, num_classes=0).eval()
    Trial(model, (4, 1)).lengths_law(float("nan"))
