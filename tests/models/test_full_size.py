"""Published structures: shapes without memory, and the length law with real widths."""

import json

import pytest
import torch
from conftest import LISTED, relative_error

import gaitzoo


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
    with torch.device("meta"):
        # Weights that come with the library have no classifier.
        model = gaitzoo.create_model(name, num_classes=cfg.num_classes or 5).eval()
        channels = () if model.in_channels == 1 else (model.in_channels,)
        silhouettes = torch.empty(2, *channels, 30, *cfg.input_size)
        output = model(silhouettes)
        with_lengths = model(silhouettes, torch.empty(2, dtype=torch.int64))
    assert output.embeddings.shape == (2, model.num_parts, model.num_features)
    if name in ("gln.casiab", "gln.phase1"):
        # The first phase of GLN's training has no compact block, and so no classes.
        assert output.logits is None
    else:
        rows = 1 if name.startswith("gln.") else model.num_parts
        assert output.logits.shape == (2, rows, cfg.num_classes or 5)
    assert with_lengths.embeddings.shape == output.embeddings.shape


@pytest.mark.parametrize("name", structures())
@torch.no_grad()
def test_length_law_with_published_widths(name):
    model = gaitzoo.create_model(name, num_classes=0).eval()
    channels = () if model.in_channels == 1 else (model.in_channels,)
    clips = [torch.rand(*channels, t, *model.pretrained_cfg.input_size) for t in (4, 1, 2)]
    batch = torch.full((3, *channels, 4, *model.pretrained_cfg.input_size), float("nan"))
    for i, clip in enumerate(clips):
        batch[i, ..., : clip.shape[-3], :, :] = clip
    found = model(batch, torch.tensor([4, 1, 2])).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < 1e-5
