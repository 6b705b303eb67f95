"""Batched embedding gives what one sequence at a time gives."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
import torch
from builders import make
from conftest import relative_error
from torch._dynamo.testing import CompileCounter

import gaitzoo
from gaitzoo.inference.chunks import embed_in_chunks
from gaitzoo.inference.embed import _batches, _embeddings, _Runner
from gaitzoo.inference.memory import _free_in_group, _LiveBytes, bytes_per_frame


@pytest.fixture
def model():
    return gaitzoo.create_model("dygait_tiny", num_classes=0).eval()


def clips(*frame_counts):
    return [(torch.rand(t, 16, 12) * 255).to(torch.uint8) for t in frame_counts]


@pytest.mark.parametrize("batch_frames", [1, 10, 64, 10_000])
def test_batches_change_nothing(model, batch_frames):
    sequences = clips(7, 1, 30, 2, 12, 12, 5, 64)
    found = gaitzoo.embed(model, sequences, batch_frames=batch_frames, progress=False)
    assert found.shape == (8, model.num_parts, model.num_features)
    assert found.dtype == torch.float32
    for i, sequence in enumerate(sequences):
        with torch.no_grad():
            alone = model(sequence[None]).embeddings[0]
        assert relative_error(found[i], alone) < 1e-5


def test_generators_are_read_as_they_are_needed(model):
    read = []

    def sequences():
        for i in range(200):
            read.append(i)
            yield clips(4)[0]

    calls = []
    model.register_forward_hook(lambda *_: calls.append(len(read)))
    found = gaitzoo.embed(model, sequences(), batch_frames=8, progress=False)
    assert len(found) == 200
    assert calls[0] < 50


def test_batches_stay_within_the_budget():
    numbered = [(i, torch.zeros(t, 1, 1)) for i, t in enumerate((5, 20, 3, 3, 9, 40, 1))]
    seen = []
    for batch in _batches(numbered, 20, most_padding=1.0):
        longest = max(len(frames) for _, frames in batch)
        assert len(batch) == 1 or longest * len(batch) <= 20
        seen += [i for i, _ in batch]
    assert sorted(seen) == list(range(7))


def test_anything_that_is_a_silhouette_sequence_is_taken(model):
    ready = clips(6)[0]
    raw = torch.zeros(6, 100, 90, dtype=torch.uint8)
    raw[:, 20:90, 30:60] = 255
    for sequence in (ready, ready.numpy(), ready.float() / 255, raw, raw > 0):
        assert gaitzoo.embed(model, [sequence], progress=False).shape[0] == 1
    same = gaitzoo.embed(model, [ready, ready.numpy(), ready.float() / 255], progress=False)
    assert relative_error(same[1], same[0]) == 0
    assert relative_error(same[2], same[0]) < 1e-5


def test_floats_are_not_rounded(model):
    sequence = torch.rand(6, 16, 12)
    with torch.no_grad():
        wanted = model(sequence[None]).embeddings
    assert relative_error(gaitzoo.embed(model, [sequence], progress=False), wanted) < 1e-6


def test_mode_device_and_type_are_left_as_they_were(model):
    model.train()
    model.neck.eval()
    gaitzoo.embed(model, clips(4, 5), device="cpu", progress=False)
    assert model.training
    assert not model.neck.training
    assert model.blocks[0].training
    wanted = gaitzoo.embed(model.double(), clips(4), progress=False)
    assert wanted.dtype == torch.float64


def test_narrow_types_compute_under_autocast(model):
    sequences = clips(6, 9)
    wanted = gaitzoo.embed(model, sequences, progress=False)
    found = gaitzoo.embed(model, sequences, dtype=torch.bfloat16, progress=False)
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, wanted) < 0.1


def test_a_failure_leaves_the_model_as_it_was(model):
    model.train()
    with pytest.raises(ValueError, match="sequence 1: "):
        gaitzoo.embed(model, [clips(4)[0], torch.full((4, 16, 12), float("nan"))], progress=False)
    assert model.training


def test_refused(model):
    with pytest.raises(ValueError, match="at least one sequence to embed"):
        gaitzoo.embed(model, [], progress=False)
    with pytest.raises(ValueError, match="put it into a list"):
        gaitzoo.embed(model, clips(4)[0], progress=False)
    with pytest.raises(ValueError, match="batch_frames >= 1"):
        gaitzoo.embed(model, clips(4), batch_frames=0)
    with pytest.raises(ValueError, match="max_memory >= 1"):
        gaitzoo.embed(model, clips(4), max_memory=0)
    with pytest.raises(TypeError, match="expected a gaitzoo model"):
        gaitzoo.embed("dygait", clips(4))


LONG = ["deepgaitv2_2d_tiny", "deepgaitv2_3d_tiny", "deepgaitv2_p3d_tiny", "gaitbase_tiny"]
LONG += ["hstl_tiny", "timm_frames_tiny"]
LONG += ["gaitset_tiny", "gln_tiny", "sconet_tiny"]  # sets: frames never see each other
LONG += ["gaitgl_tiny", "mtsgait_tiny", "swingait_tiny", "trackletgait_tiny"]


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", LONG)
@torch.no_grad()
def test_pieces_give_the_numbers_of_the_whole(name, fuse):
    model = make(name, num_classes=0).double()
    model = gaitzoo.fuse_for_inference(model) if fuse else model
    reach, step = model.temporal_reach()
    assert reach % step == 0
    for frames in (40, 41, 42, 43):
        sequence = torch.rand(1, frames, 16, 12, dtype=torch.float64)
        wanted = model(sequence).embeddings
        for max_frames in (1, 2 * reach + 4, 2 * reach + 9, 39, 1000):
            found = embed_in_chunks(model, sequence[0], max_frames)
            assert relative_error(found, wanted) < 1e-12


@pytest.mark.parametrize("name", LONG)
@torch.no_grad()
def test_no_frame_beyond_the_reach_matters(name):
    model = make(name, num_classes=0).double()
    reach, _ = model.temporal_reach()
    clip = torch.rand(1, 61, 16, 12, dtype=torch.float64)
    changed = clip.clone()
    at = 30
    changed[:, at] = torch.rand(16, 12, dtype=torch.float64)
    maps = (model.temporal_maps(x) for x in (clip, changed))
    for before, after in zip(*maps, strict=True):
        moved = (before[0] != after[0]).flatten(3).any(-1).any(0).any(0)
        frames = moved.nonzero().flatten() * before[1]
        assert at - reach <= frames.min() + before[1] - 1
        assert frames.max() <= at + reach


def test_models_with_a_mean_over_time_are_never_cut(model):
    assert model.temporal_reach() is None
    with pytest.raises(ValueError, match=r"temporal_reach\(\), got DyGait"):
        embed_in_chunks(model, torch.rand(9, 16, 12), 4)
    sequence = clips(50)[0]
    with torch.no_grad():
        wanted = model(sequence[None]).embeddings
    found = gaitzoo.embed(model, [sequence], max_memory=1, progress=False)
    assert relative_error(found, wanted) < 1e-5


@torch.no_grad()
def test_a_long_sequence_among_short_ones_stays_within_the_memory():
    model = make("deepgaitv2_p3d_tiny", num_classes=0)
    sequences = clips(5, 2000, 9, 12, 7)
    needed = bytes_per_frame(model, (16, 12))
    frames = []
    model.backbone.register_forward_hook(
        lambda _, inputs, __: frames.append(inputs[0].shape[0] * inputs[0].shape[2])
    )
    found = gaitzoo.embed(model, sequences, max_memory=100 * needed, progress=False)
    assert max(frames) <= 100
    for i, sequence in enumerate(sequences):
        assert relative_error(found[i], model(sequence[None]).embeddings[0]) < 1e-5


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_all_tensors_of_a_long_sequence_among_short_ones_fit_the_budget(name, fuse):
    model = make(name, num_classes=0)
    model = gaitzoo.fuse_for_inference(model) if fuse else model
    sequences = clips(5, 2000, 9, 12, 60, 60, 7)
    budget = 150 * bytes_per_frame(model, (16, 12))
    with _LiveBytes() as counted:
        gaitzoo.embed(model, sequences, max_memory=budget, progress=False)
    assert 0.1 * budget < counted.peak < budget


@torch.no_grad()
def test_memory_per_frame_is_what_the_maps_take():
    class OneMap(gaitzoo.GaitBase):
        def forward_features(self, silhouettes, lengths=None):
            x = silhouettes.float().unsqueeze(1)
            first = x.expand(-1, 10, -1, -1, -1) + 1
            second = first + 1
            del first
            return second + 1, lengths

        def forward_head(self, features, lengths=None):
            return features.amax()

    found = bytes_per_frame(OneMap(channels=(2, 2, 2, 2)).eval(), (16, 12))
    # Two maps of ten channels and the frames, three times for the convolution library.
    assert found == pytest.approx(3 * (2 * 10 + 1) * 16 * 12 * 4, rel=0.01)


def test_sequences_too_short_for_pieces_are_never_cut():
    model = make("hstl_tiny", num_classes=0)
    sequences = clips(50, 2, 1, 4)
    found = gaitzoo.embed(model, sequences, max_memory=1, progress=False)
    for i, sequence in enumerate(sequences):
        with torch.no_grad():
            wanted = model(sequence[None]).embeddings[0]
        assert relative_error(found[i], wanted) < 1e-5
    Exhausted(model, 1, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match="sequence of 2 frames does not fit"):
        gaitzoo.embed(model, clips(2), progress=False)


def test_the_smaller_of_both_limits_counts(model):
    budget = 20 * bytes_per_frame(model, (16, 12))
    sizes = []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[:2].numel()))
    for batch_frames, most in ((50, 20), (10, 10)):
        sizes.clear()
        gaitzoo.embed(
            model, clips(*[5] * 20), batch_frames=batch_frames, max_memory=budget, progress=False
        )
        assert sizes == [most] * (100 // most)


def test_short_clips_are_whole_however_little_memory_seems_free(monkeypatch):
    monkeypatch.setattr("gaitzoo.inference.embed.free_memory", lambda device: 0)
    model = make("deepgaitv2_p3d_tiny", num_classes=0)
    frames = []
    model.backbone.register_forward_hook(lambda _, inputs, __: frames.append(inputs[0].shape[2]))
    gaitzoo.embed(model, clips(60, 64), progress=False)
    assert frames[1:] == [64, 60]


def test_cached_files_of_a_container_count_as_free(tmp_path):
    assert _free_in_group(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("990\n")
    assert _free_in_group(tmp_path) == 10
    (tmp_path / "memory.stat").write_text("anon 40\nfile 940\ninactive_file 700\nactive_file 240\n")
    assert _free_in_group(tmp_path) == 710
    (tmp_path / "memory.current").write_text("2000\n")
    assert _free_in_group(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_in_group(tmp_path) > 2**60


def test_measuring_leaves_the_weights_alone(model):
    seen = []
    weights = {id(parameter) for parameter in model.parameters()}

    def look(module, inputs):
        assert {id(parameter) for parameter in model.parameters()} == weights
        seen.append((inputs[0].device.type, {p.device.type for p in model.parameters()}))

    for module in (model, *model.blocks):
        module.register_forward_pre_hook(look)
    assert bytes_per_frame(model, (16, 12)) > 0
    assert seen == [("meta", {"cpu"})] * (1 + len(model.blocks))


def test_compiled_models_are_measured_without_compiling(model):
    wanted = bytes_per_frame(model, (16, 12))
    traced = CompileCounter()
    with warnings.catch_warnings():
        # The compiler itself uses what later versions of Python and torch have deprecated.
        warnings.simplefilter("ignore")
        wrapped = torch.compile(model, backend=traced)
        assert bytes_per_frame(wrapped, (16, 12)) == wanted
        model.compile(backend=traced)
        assert bytes_per_frame(model, (16, 12)) == wanted
    assert traced.frame_count == 0


def test_threads_may_share_a_model(model):
    sequences = clips(*range(1, 13))
    wanted = gaitzoo.embed(model, sequences, progress=False)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: gaitzoo.embed(model, sequences, progress=False), range(12)):
            assert relative_error(found, wanted) < 1e-6


def test_only_memory_of_the_processor_is_pinned(model):
    runner = _Runner(model, model, torch.device("cuda"), None)
    on_gpu = Mock(device=torch.device("cuda:0"))
    runner._sent(on_gpu)
    on_gpu.pin_memory.assert_not_called()
    on_gpu.to.assert_called_once_with(torch.device("cuda"))
    on_processor = Mock(device=torch.device("cpu"))
    runner._sent(on_processor)
    on_processor.pin_memory().to.assert_called_once_with(torch.device("cuda"), non_blocking=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sequences_may_lie_on_the_gpu(model, device):
    sequences = clips(9, 9, 5, 9)
    wanted = gaitzoo.embed(model, sequences, progress=False)
    mixed = [sequences[0].cuda(), sequences[1], sequences[2].cuda(), sequences[3].cuda()]
    for given in (mixed, [sequence.cuda() for sequence in sequences]):
        found = gaitzoo.embed(model, given, device=device, progress=False)
        assert relative_error(found, wanted) < 1e-3  # TF32


def test_batches_on_a_processor_stay_in_its_cache(model, monkeypatch):
    needed = bytes_per_frame(model, (16, 12))
    monkeypatch.setattr("gaitzoo.inference.embed._CACHED_BYTES", 20 * needed)
    sizes, sequences = [], clips(*[4] * 12, 30)

    def look(module, inputs):
        if inputs[0].device.type != "meta":  # there memory is measured
            sizes.append(inputs[0].shape[:2].numel())

    model.register_forward_pre_hook(look)
    wanted = gaitzoo.embed(model, sequences, batch_frames=78, progress=False)
    assert sorted(sizes) == [30, 48]
    sizes.clear()
    found = gaitzoo.embed(model, sequences, progress=False)
    assert sorted(sizes) == [8, 20, 20, 30]  # a longer sequence is one batch all the same
    assert relative_error(found, wanted) < 1e-5


class Exhausted:
    """Lets a model run out of memory above a number of frames."""

    def __init__(self, model, most_frames, error):
        self.most_frames, self.error, self.failures = most_frames, error, 0
        model.register_forward_pre_hook(self)
        if hasattr(model, "backbone"):
            model.backbone.register_forward_pre_hook(self)

    def __call__(self, module, inputs):
        frames = inputs[0]
        frames = frames if frames.ndim == 4 else frames[:, 0]
        if frames.device.type != "meta" and frames.shape[0] * frames.shape[1] > self.most_frames:
            self.failures += 1
            raise self.error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_batch_that_runs_out_of_memory_is_halved(model, error):
    sequences = clips(9, 9, 9, 9, 9, 9, 8, 3)
    wanted = gaitzoo.embed(model, sequences, progress=False)
    exhausted = Exhausted(model, 20, error)
    found = gaitzoo.embed(model, sequences, progress=False)
    assert exhausted.failures
    assert relative_error(found, wanted) < 1e-5


@torch.no_grad()
def test_a_sequence_that_runs_out_of_memory_is_cut():
    model = make("deepgaitv2_p3d_tiny", num_classes=0)
    sequences = clips(9, 300, 9)
    wanted = gaitzoo.embed(model, sequences, progress=False)
    exhausted = Exhausted(model, 80, OUT_OF_MEMORY[0])
    found = gaitzoo.embed(model, sequences, progress=False)
    assert exhausted.failures
    assert relative_error(found, wanted) < 1e-5


def test_what_did_not_fit_is_not_tried_again(model):
    sequences = clips(*[9] * 48)
    exhausted = Exhausted(model, 30, OUT_OF_MEMORY[0])
    gaitzoo.embed(model, sequences, batch_frames=72, progress=False)
    # Batches of 8, then of 4, then no more of either.
    assert exhausted.failures == 2
    model = make("deepgaitv2_p3d_tiny", num_classes=0)
    exhausted = Exhausted(model, 80, OUT_OF_MEMORY[0])
    gaitzoo.embed(model, clips(300, 300, 300), batch_frames=256, progress=False)
    # One whole, then pieces of 150, then of 75.
    assert exhausted.failures == 2


def test_what_cannot_fit_at_all_is_said(model):
    Exhausted(model, 20, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match="sequence of 50 frames does not fit"):
        gaitzoo.embed(model, clips(50), progress=False)


def test_other_errors_are_passed_on(model):
    Exhausted(model, 20, RuntimeError("a mistake"))
    with pytest.raises(RuntimeError, match="a mistake"):
        gaitzoo.embed(model, clips(50), progress=False)


class Reading(torch.nn.Module):
    """Reads a value, which tensors without memory do not have."""

    def forward(self, x, *rest):
        return x if x.sum().item() >= 0 else -x


class Refusing(torch.nn.Module):
    def forward(self, x, *rest):
        if x.device.type == "meta":
            raise NotImplementedError("no such operation on tensors without memory")
        return x


@pytest.mark.parametrize("first", [Reading(), Refusing()])
def test_models_that_cannot_be_measured_run_all_the_same(first):
    model = make("gaitbase_tiny", num_classes=0)
    model.first = first
    model.register_forward_pre_hook(lambda module, inputs: (module.first(inputs[0]), *inputs[1:]))
    assert bytes_per_frame(model, (16, 12)) is None
    assert gaitzoo.embed(model, clips(4, 9), progress=False).shape[0] == 2


def test_processors_pad_little():
    numbered = [(i, torch.zeros(t, 1, 1)) for i, t in enumerate((20, 60, 33, 47, 25, 60, 29, 33))]
    batches = list(_batches(numbered, 256, most_padding=0.03))
    for batch in batches:
        lengths = [len(frames) for _, frames in batch]
        assert sum(lengths) >= 0.97 * len(lengths) * max(lengths)
    assert len(batches) == 6


def test_batches_are_made_while_the_one_before_is_computed(model):
    """Results are fetched one batch late, so that an accelerator never waits for padding."""
    events = []
    model.register_forward_hook(lambda *_: events.append("computed"))
    numbered = iter(enumerate(clips(9, 9, 9)))
    runner = _Runner(model, model, torch.device("cpu"), None)
    for numbers, _ in _embeddings(runner, numbered, 9, None):
        events.append(numbers[0])
    # The first one is measured, not computed.
    assert events == ["computed"] * 3 + [0, "computed", 1, 2]


def test_refused_places_and_types(model):
    for dtype in (torch.float64, torch.int32, "bfloat16"):
        with pytest.raises(ValueError, match=r"expected dtype torch\.bfloat16, "):
            gaitzoo.embed(model, clips(4), dtype=dtype, progress=False)
    with pytest.raises(ValueError, match="expected a device such as 'cpu'"):
        gaitzoo.embed(model, clips(4), device="foo", progress=False)
    with pytest.raises(ValueError, match="weights are lost"):
        gaitzoo.embed(model, clips(4), device="meta", progress=False)
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(ValueError, match="without any"):
        gaitzoo.embed(gaitzoo.GaitModel(), clips(4), progress=False)


def test_types_mixed_in_a_batch_change_nothing_in_float64(model):
    model = model.double()
    sequences = [clips(6)[0], torch.rand(6, 16, 12, dtype=torch.float64), torch.rand(6, 16, 12)]
    together = gaitzoo.embed(model, sequences, progress=False)
    for i, sequence in enumerate(sequences):
        alone = gaitzoo.embed(model, [sequence], progress=False)[0]
        assert relative_error(together[i], alone) < 1e-12


@torch.no_grad()
def test_a_processor_convolves_with_channels_last_in_batches_only():
    model = gaitzoo.create_model("gaitset_tiny", num_classes=0).eval()
    strides = []
    block = model.get_submodule(model.feature_modules[0])
    block.register_forward_hook(lambda _, inputs, output: strides.append(output.stride(1)))
    sequences = clips(4, 3)
    together = gaitzoo.embed(model, sequences, progress=False)
    assert strides[-2:] == [1, 1]  # before them, memory was measured
    strides.clear()
    alone = torch.cat([model(sequence[None]).embeddings for sequence in sequences])
    assert strides
    assert 1 not in strides
    assert relative_error(together, alone) < 1e-5
