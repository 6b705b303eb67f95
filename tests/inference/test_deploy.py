"""Compiled and exported models give the numbers of the plain ones."""

import warnings

import pytest
import torch
from builders import clips_for, make, padded
from conftest import SAME_WAY, TRACED, relative_error


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # The compiler itself uses what later versions of Python and torch have deprecated.
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(("name", "traced"), SAME_WAY.items())
def test_models_that_are_not_traced_are_built_like_one_that_is(name, traced):
    model, other = make(name), make(traced)
    assert traced in TRACED
    assert type(model) is type(other)
    assert {type(m) for m in model.modules()} <= {type(m) for m in other.modules()}


@pytest.mark.parametrize("name", TRACED)
@torch.no_grad()
def test_compiles_without_graph_breaks(name):
    model = make(name)
    # "eager" traces as every backend does, and leaves out minutes of C++ compilation.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for frame_counts in ((6, 4), (9, 5, 7), (12, 3)):
        batch, lengths = padded(clips_for(model, *frame_counts), 0.0)
        any_size(batch, lengths)
        wanted = model(batch, lengths)
        found = compiled(batch, lengths)
        assert relative_error(found.embeddings, wanted.embeddings) < 1e-5
        assert relative_error(found.logits, wanted.logits) < 1e-5
    assert relative_error(compiled(batch).embeddings, model(batch).embeddings) < 1e-5


def any_size(batch, lengths):
    """Says at once what a second batch would show: that sequences and frames vary in number."""
    for tensor, axis in ((batch, 0), (batch, 1 if batch.ndim == 4 else 2), (lengths, 0)):
        torch._dynamo.mark_dynamic(tensor, axis)


# SwinGait's windows of three frames fix T in torch.export's programs; its ONNX files take any T.
OPEN_IN_TIME = [name for name in TRACED if name != "swingait_tiny"]


# Calls without lengths are traced by the compiler for all of them, so that few are exported.
WITHOUT_LENGTHS = ["gaitset_tiny", "gaitgl_tiny", "hstl_tiny", "deepgaitv2_p3d_tiny"]


@pytest.mark.parametrize(
    ("name", "with_lengths"),
    [*((name, True) for name in OPEN_IN_TIME), *((name, False) for name in WITHOUT_LENGTHS)],
)
@torch.no_grad()
def test_exports_with_any_number_of_sequences_and_frames(name, with_lengths):
    model = make(name)
    batch, lengths = padded(clips_for(model, 9, 5), 0.0)
    sequences = torch.export.Dim("N", min=1, max=64)
    # Models that join three frames into one need two of them: size one is special when exporting.
    frames = torch.export.Dim("T", min=6, max=4096)
    time = 1 if batch.ndim == 4 else 2
    arguments = (batch, lengths) if with_lengths else (batch,)
    shapes = (
        ({0: sequences, time: frames}, {0: sequences})
        if with_lengths
        else ({0: sequences, time: frames},)
    )
    program = torch.export.export(model, arguments, dynamic_shapes=shapes).module()
    for frame_counts in ((6,), (8, 2, 5), (12, 1, 3, 30)):
        batch, lengths = padded(clips_for(model, *frame_counts), 0.0)
        arguments = (batch, lengths) if with_lengths else (batch,)
        found, wanted = program(*arguments), model(*arguments)
        assert relative_error(found.embeddings, wanted.embeddings) < 1e-5
        assert relative_error(found.logits, wanted.logits) < 1e-5
