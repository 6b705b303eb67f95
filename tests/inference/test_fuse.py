"""Fused models give what the plain ones give."""

import copy
import importlib.util
import json
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
from builders import clips_for, make, padded
from conftest import SILHOUETTES, relative_error
from torch._dynamo.testing import CompileCounter

import gaitzoo
from gaitzoo import ARME_Conv, fuse_for_inference
from gaitzoo.inference.fuse import fast_dtype
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.dynamic import DyGaitStage
from gaitzoo.layers.fold import fold_batch_norms
from gaitzoo.layers.fused import channels_last, convolve
from gaitzoo.layers.fused_dynamic import FusedDyGaitStage
from gaitzoo.layers.fused_residual import FusedResidualBlock2d
from gaitzoo.layers.residual import FrameWise, ResidualBlock2d
from gaitzoo.metrics import part_distances
from gaitzoo.synthetic import SyntheticWalkers
from gaitzoo.testing.trial import reset_statistics

MIXED = (7, 1, 2, 3, 4, 9, 5, 12)
# Other structures than those of the small variants.
VARIANTS = {
    "dygait_tiny": [
        {"shortcut": "authors"},
        {"single_stage": True},
        {"head": "bnneck", "bn_order": "part"},
        {"network": "deep", "channels": (2, 3, 4, 4), "part_bins": (4, 1)},
        {"in_channels": 2},
    ],
    "hstl_tiny": [
        {"last": (4, 4)},
        {"levels": (((16,), (2,)), ((10, 6), (4,), False)), "last": 16},
        {"in_channels": 3},
    ],
    "deepgaitv2_3d_tiny": [{"embedding": "bnneck"}],
    "deepgaitv2_p3d_tiny": [{"layers": (1, 2, 2, 1)}, {"in_channels": 2}],
    "timm_frames_tiny": [
        {"backbone": "test_efficientnet", "backbone_args": {}},
        {"backbone": "test_vit", "out_index": None, "backbone_args": {}},
    ],
}


def cases():
    for name in SILHOUETTES:
        yield name, {}
    for name, variants in VARIANTS.items():
        for model_args in variants:
            yield name, model_args


@pytest.mark.parametrize(("name", "model_args"), list(cases()))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_outputs_are_those_of_the_plain_model(name, model_args, dtype, tolerance):
    model = make(name, **model_args).to(dtype)
    fused = fuse_for_inference(model)
    for frame_counts in (MIXED, (6, 6), (3,), (1,)):
        batch, lengths = padded(clips_for(model, *frame_counts, dtype=dtype), float("nan"))
        given = [lengths] if len(set(frame_counts)) > 1 else [lengths, None]
        for each in given:
            wanted, found = model(batch, each), fused(batch, each)
            assert found.embeddings.dtype == dtype
            assert relative_error(found.embeddings, wanted.embeddings) < tolerance
            assert relative_error(found.logits, wanted.logits) < tolerance


@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_batches_give_the_numbers_of_single_sequences(name):
    fused = fuse_for_inference(make(name))
    clips = clips_for(fused, *MIXED)
    batched = fused(*padded(clips, float("inf"))).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(batched[i], fused(clip[None]).embeddings[0]) < 1e-5


@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_the_plain_model_is_left_alone(name):
    model = make(name).train()
    before = copy.deepcopy(model.state_dict())
    fused = fuse_for_inference(model)
    assert model.training
    assert not fused.training
    assert type(fused) is type(model)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    batch, lengths = padded(clips_for(model, 6, 4), float("nan"))
    untouched = batch.clone()
    fused(batch, lengths)
    assert torch.equal(batch.nan_to_num(), untouched.nan_to_num())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", SILHOUETTES)
def test_no_batch_norm_is_left_on_the_maps(name):
    fused = fuse_for_inference(make(name))
    assert not any(
        isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d))
        for module in fused.modules()
    )


@pytest.mark.parametrize("name", ["dygait_tiny", "hstl_tiny"])
def test_the_batch_norm_behind_the_part_vectors_is_folded(name):
    model = make(name)
    assert type(model.neck.bn) is torch.nn.BatchNorm1d
    fused = fuse_for_inference(model)
    assert not any(
        isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in fused.modules()
    )
    assert [name for name, _ in fused.neck.bn.named_parameters()] == ["bias"]


@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_copies_and_second_fusions_are_the_same_model(name):
    fused = fuse_for_inference(make(name))
    batch, lengths = padded(clips_for(fused, 6, 4), 0.0)
    wanted = fused(batch, lengths).embeddings
    for other in (
        copy.deepcopy(fused),
        pickle.loads(pickle.dumps(fused)),
        fuse_for_inference(fused),
    ):
        assert relative_error(other(batch, lengths).embeddings, wanted) < 1e-6


@pytest.mark.parametrize("name", SILHOUETTES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_narrow_weights_stay_close(name, dtype):
    model = make(name)
    fused = fuse_for_inference(model, dtype=dtype)
    assert next(fused.parameters()).dtype == dtype
    batch, lengths = padded(clips_for(model, 6, 4), float("nan"))
    found, wanted = fused(batch, lengths).embeddings, model(batch, lengths).embeddings
    assert found.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1))
    assert (cosine > 0.999).all()


@pytest.mark.parametrize("name", SILHOUETTES)
@torch.no_grad()
def test_walkers_are_found_with_narrow_weights_too(name):
    """Mean cosine of 0.999 at least, and the same first match for every walk."""
    model = make(name, num_classes=0)
    height, width = model.pretrained_cfg.input_size
    walks = (("normal", 0), ("normal", 1))
    # Twice as large as the models want them: walkers are drawn at 16 pixels and more.
    size = 2 * height, 2 * width
    people = SyntheticWalkers(4, sequences=walks, views=(90,), frames=12, size=size)
    clips = [people[i].silhouettes[: 12 - i % 5].float() / 255 for i in range(len(people))]
    inputs = [torch.nn.functional.avg_pool2d(clip, 2) for clip in clips]
    if model.in_channels > 1:
        inputs = [clip.expand(model.in_channels, *clip.shape) for clip in inputs]
    batch, lengths = padded(inputs, 0.0)
    wanted = model(batch, lengths).embeddings
    found = fuse_for_inference(model, torch.bfloat16)(batch, lengths).embeddings
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), wanted.flatten(1))
    assert cosine.mean() > 0.999
    matches = [part_distances(e[0::2], e[1::2]).argmin(1).tolist() for e in (found, wanted)]
    assert matches[0] == matches[1]


# Where oneDNN computes no bfloat16, torch itself gives such maps in its own order of axes.
NARROW = torch.ops.mkldnn._is_mkldnn_bf16_supported()
# In float32, one of them computes without convolutions of torch, and the other one's grouped
# convolutions of two channels give torch's order too.
KEPT = [name for name in SILHOUETTES if NARROW or name not in ("gaitgl_tiny", "gait_rdae_tiny")]


@pytest.mark.parametrize("name", KEPT)
@torch.no_grad()
def test_maps_keep_channels_last(name):
    fused = fuse_for_inference(make(name))
    seen = []

    def look(module, inputs, output):
        if inputs[0].ndim in (4, 5) and inputs[0].shape[1] > 1 and output.shape[1] > 1:
            seen.append(inputs[0].stride(1))

    for module in fused.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            module.register_forward_hook(look)
    with torch.autocast("cpu", torch.bfloat16, enabled=NARROW):
        fused(torch.stack(clips_for(fused, 9, 9)))
    assert set(seen) == {1}


@torch.no_grad()
@pytest.mark.parametrize("static", [(1, 3, 3), (3, 3, 3)])
def test_a_stage_against_the_sum_of_its_branches(static):
    stage = DyGaitStage(2, 3, static).double()
    fused = FusedDyGaitStage(stage).double()
    x = torch.randn(1, 2, 5, 6, 4).double()
    for frames in range(1, 6):
        clip = x[:, :, :frames]
        moving = clip - clip.mean(2, keepdim=True)
        wanted = stage.parallel(clip).relu()
        wanted = wanted + (stage.dam.dynamic(moving) + stage.dam.static(clip)).relu()
        assert relative_error(fused(clip), wanted) < 1e-12
        # The same frames as the head of a longer, padded sequence.
        filled = torch.where(torch.arange(5).view(1, 1, 5, 1, 1) < frames, x, 0.0)
        in_batch = fused(filled, torch.tensor([frames]))
        assert relative_error(in_batch[:, :, :frames], wanted) < 1e-12
        assert (in_batch[:, :, frames:] == 0).all()


@torch.no_grad()
def test_small_single_maps_are_convolved_as_any_other():
    conv = torch.nn.Conv3d(4, 3, 3, padding=1)
    x = torch.randn(1, 4, 3, 8, 6)
    assert relative_error(convolve(conv, x), conv(x)) < 1e-5
    assert convolve(conv.double(), x.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(3, 1, 2, 4), (3, 1, 2, 4, 5), (3, 2, 2, 4, 5)])
def test_one_channel_has_a_layout_too(shape):
    x = torch.randn(shape)
    found = channels_last(x)
    assert torch.equal(found, x)
    assert found.stride(1) == 1
    assert found.stride(-1) == shape[1]


class Branching(torch.nn.Module):
    """The convolution's output is read twice, so its batch norm must stay."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.bn = torch.nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        return y + self.bn(y)


class Deciding(Branching):
    """Code that depends on values cannot be traced."""

    def forward(self, x):
        return self.bn(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize("network", [Branching(), Deciding()])
@torch.no_grad()
def test_batch_norms_stay_where_folding_would_change_numbers(network):
    network.bn.running_mean.uniform_(-1, 1)
    network.eval()
    x = torch.rand(2, 1, 8, 8)
    wanted = network(x)
    fold_batch_norms(network)
    assert isinstance(network.bn, torch.nn.BatchNorm2d)
    assert torch.equal(network(x), wanted)


@torch.no_grad()
def test_compiled_models_are_models(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.update(options))
    fused = fuse_for_inference(make("gaitbase_tiny"), compile=True)
    assert asked == {"dynamic": True}
    assert isinstance(fused, gaitzoo.GaitBase)


# The others are built of the same fused blocks.
@pytest.mark.parametrize(
    "name", ["deepgaitv2_3d_tiny", "deepgaitv2_p3d_tiny", "dygait_tiny", "hstl_tiny"]
)
@torch.no_grad()
def test_compiles_without_graph_breaks(name):
    fused = fuse_for_inference(make(name))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # The compiler itself uses what later versions of Python and torch have deprecated.
        warnings.simplefilter("ignore")
        # "eager" traces as every backend does, and leaves out minutes of C++ compilation.
        traced = CompileCounter()
        compiled = torch.compile(fused, fullgraph=True, backend=traced, dynamic=True)
        # Frames of any remainder by three, which is how many HSTL joins into one.
        for frame_counts in ((9, 5), (12, 3, 7), (17, 4), (10, 10, 1)):
            batch, lengths = padded(clips_for(fused, *frame_counts), 0.0)
            for given in (lengths, None):
                found, wanted = compiled(batch, given), fused(batch, given)
                assert relative_error(found.embeddings, wanted.embeddings) < 1e-5
        # One graph with lengths and one without, however many sequences and frames. Torch before
        # 2.7 makes others of HSTL for sequences that end in one step.
        assert traced.frame_count == 2 or (
            name == "hstl_tiny" and not hasattr(torch.compiler, "is_exporting")
        )


def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "examples" / "benchmark.py"
    spec = importlib.util.spec_from_file_location("benchmark", script)
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark", benchmark)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "LENGTHS", (3, 5, 4, 4))
    monkeypatch.setitem(benchmark.MODELS, "small", ("gaitbase", {"channels": (2, 3, 4, 4)}))
    monkeypatch.setattr(benchmark, "measured_peak", lambda device, dtype: 1e11)
    arguments = "--models small --rounds 2 --clips 4 --device cpu --long 20 --ways batched fused"
    written = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    ways = [*arguments.split(), "fused bf16"]
    monkeypatch.setattr(sys, "argv", [str(script), *ways, *written])
    benchmark.main()
    assert "20 frames among short clips" in capsys.readouterr().out
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["way"] for row in rows] == ["naive", "batched", "fused", "fused bf16"]
    for row in rows:
        narrow = row["way"] == "fused bf16"
        assert len(row["seconds"]) == 2
        assert row["cosine"] == pytest.approx(1, abs=1e-3 if narrow else 1e-6)
        assert row["rank1"] == rows[0]["rank1"]
        assert row["tflops"] > 0
    assert rows[0]["ratio"] == 1
    assert (tmp_path / "a.png").stat().st_size > 1000


@torch.no_grad()
def test_embed_takes_fused_models():
    model = make("hstl_tiny", num_classes=0)
    clips = clips_for(model, 5, 30, 8)
    wanted = gaitzoo.embed(model, clips, progress=False)
    for dtype, tolerance in ((None, 1e-5), (torch.bfloat16, 0.1)):
        found = gaitzoo.embed(fuse_for_inference(model, dtype), clips, progress=False)
        assert found.dtype == torch.float32
        assert relative_error(found, wanted) < tolerance


@pytest.mark.parametrize("name", SILHOUETTES)
def test_fused_models_are_neither_saved_nor_trained(name, tmp_path):
    model = make(name)
    for fused in (fuse_for_inference(model), copy.deepcopy(fuse_for_inference(model))):
        with pytest.raises(ValueError, match="a plain model to save, got one from fuse_for_inf"):
            fused.save_pretrained(tmp_path / "saved")
        with pytest.raises(ValueError, match="a plain model to save, got one from fuse_for_inf"):
            fused.push_to_hub("somebody/model")
        with pytest.raises(ValueError, match="a plain model to train, got one from fuse_for_inf"):
            fused.train()
        with pytest.raises(ValueError, match="a fresh classifier, got one from fuse_for_inf"):
            fused.reset_classifier(3)
        assert not any(module.training for module in fused.modules())
        assert fused.eval() is fused
        fused.reset_classifier(0)
        assert fused.num_classes == 0
    assert list(tmp_path.iterdir()) == []
    assert model.train().training


def test_weights_of_fused_models_fit_no_plain_model():
    model = make("dygait_tiny")
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(fuse_for_inference(model).state_dict())


class Row(torch.nn.Module):
    """A block of plain modules, one batch norm before a convolution."""

    def __init__(self):
        super().__init__()
        self.before = torch.nn.BatchNorm3d(1)
        self.row = torch.nn.Sequential(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4), torch.nn.ReLU()
        )
        self.conv = torch.nn.Conv3d(4, 3, 3, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm3d(3)

    def forward(self, x, lengths=None):
        return self.bn(self.conv(self.row(self.before(x))))


class Foreign(gaitzoo.GaitModel):
    classifier_key = None

    def __init__(self):
        super().__init__()
        self.in_channels, self.num_features, self.num_parts = 1, 3, 1
        self.block = Row()

    def forward(self, silhouettes, lengths=None):
        x, lengths = self.prepare(silhouettes, lengths)
        return gaitzoo.GaitOutput(embeddings=self.block(x).amax(dim=(2, 3, 4))[:, None])


@torch.no_grad()
def test_plain_modules_of_other_models_fuse_and_what_is_left_is_named():
    model = Foreign().eval()
    reset_statistics(model)
    with pytest.warns(UserWarning, match=r"1 batch norms of Foreign .* \(block.before\)"):
        fused = fuse_for_inference(model)
    assert fused.unfused_norms == ("block.before",)
    assert model.unfused_norms == ()
    x = torch.rand(2, 5, 8, 6)
    assert relative_error(fused(x).embeddings, model(x).embeddings) < 1e-5
    assert type(model.block.conv) is torch.nn.Conv3d
    assert isinstance(fused.block.conv, Conv3d)


def foreign(forward, **modules):
    """A model as others write it: some modules, and a function that gives its embeddings."""

    class Made(gaitzoo.GaitModel):
        classifier_key = None

        def __init__(self):
            super().__init__()
            self.in_channels, self.num_features, self.num_parts = 1, 4, 1
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, silhouettes, lengths=None):
            x, lengths = self.prepare(silhouettes, lengths)
            return gaitzoo.GaitOutput(embeddings=forward(self, x, lengths))

    model = Made().eval()
    reset_statistics(model)
    return model


def vectors(maps):
    return maps.amax(dim=2).mean(dim=(2, 3))[:, None]


def conv_bn(kind=torch.nn.Sequential, conv=None):
    conv = conv or torch.nn.Conv3d(1, 4, 3, padding=1)
    return kind(conv, torch.nn.BatchNorm3d(4), torch.nn.ReLU())


class Reading(torch.nn.Sequential):
    """Reads what its convolution gives, besides the batch norm."""

    def forward(self, x):
        return self[2](self[1](self[0](x)) + self[0](x))


class Keeping(torch.nn.Module):
    """Shows others what its convolution gave."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4)

    def forward(self, x):
        self.seen = self.conv(x)
        return self.bn(self.seen)


class KeepingAsItIs(Keeping):
    def fused(self, dtype):
        return self


class Apart(torch.nn.Module):
    """A convolution and its batch norm in modules of their own, beside a block that stays."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.ModuleDict({"conv": torch.nn.Conv3d(1, 4, 3, padding=1)})
        self.second = torch.nn.ModuleDict({"bn": torch.nn.BatchNorm3d(4)})
        self.block = KeepingAsItIs()

    def forward(self, x):
        return self.second["bn"](self.first["conv"](x)) + self.block(x)


SHARED = torch.nn.Conv3d(1, 4, 3, padding=1)
# Uses of modules that folding one behind the other would not survive, and that code shows.
UNUSUAL = {
    "regions side by side": foreign(
        lambda m, x, _: vectors(m.row[0](x) + m.row[1](x)),
        row=torch.nn.ModuleList([ARME_Conv(1, 4, (4, 4)), ARME_Conv(1, 4, (4, 4))]),
    ),
    "regions of other heights": foreign(
        lambda m, x, _: vectors(m.row[1](m.row[0](x))),
        row=torch.nn.ModuleList([ARME_Conv(1, 4, (4, 4)), ARME_Conv(4, 4, (2, 6))]),
    ),
    "activation before the neck": foreign(
        lambda m, x, _: m.neck(m.part_fc(vectors(m.conv(x))).relu())[0],
        conv=torch.nn.Conv3d(1, 4, 3, padding=1),
        part_fc=gaitzoo.PartLinear(1, 4, 4),
        neck=gaitzoo.SharedBNNeck(1, 4, 0),
    ),
    "embeddings before the neck": foreign(
        lambda m, x, _: m.part_fc(vectors(m.conv(x))),
        conv=torch.nn.Conv3d(1, 4, 3, padding=1),
        part_fc=gaitzoo.PartLinear(1, 4, 4),
        neck=gaitzoo.SharedBNNeck(1, 4, 0),
    ),
    "one convolution, two norms": foreign(
        lambda m, x, _: vectors(m.one(x) + m.other(x)),
        one=conv_bn(conv=SHARED),
        other=conv_bn(conv=SHARED),
    ),
    "a Sequential of its own": foreign(lambda m, x, _: vectors(m.row(x)), row=conv_bn(Reading)),
    "left as it is": foreign(
        lambda m, x, _: vectors(m.block(x) + m.block.seen), block=KeepingAsItIs()
    ),
    "inside a block that is traced": foreign(
        lambda m, x, _: vectors(m.block(x) + m.block.block.seen), block=Apart()
    ),
    "another norm": foreign(
        lambda m, x, _: vectors(m.row(x)),
        row=torch.nn.Sequential(torch.nn.Conv3d(1, 4, 1), torch.nn.SyncBatchNorm(4)),
    ),
}


@pytest.mark.filterwarnings("ignore:.* could not be folded")
@pytest.mark.parametrize("name", UNUSUAL)
@torch.no_grad()
def test_unusual_uses_of_modules_keep_their_numbers(name):
    model, x = UNUSUAL[name], torch.rand(2, 5, 8, 6)
    wanted = model(x).embeddings
    assert relative_error(fuse_for_inference(model)(x).embeddings, wanted) < 1e-5
    assert torch.equal(model(x).embeddings, wanted)


@torch.no_grad()
def test_blocks_inside_others_are_asked_and_what_stands_apart_is_found():
    frames = FrameWise(ResidualBlock2d(1, 4))
    model = foreign(lambda m, x, _: vectors(m.frames(x) + m.apart(x)), frames=frames, apart=Apart())
    with pytest.warns(UserWarning, match="1 batch norms of Made .*apart.block.bn"):
        fused = fuse_for_inference(model)
    assert isinstance(fused.frames.block, FusedResidualBlock2d)
    assert fused.unfused_norms == ("apart.block.bn",)
    x = torch.rand(2, 5, 8, 6)
    assert relative_error(fused(x).embeddings, model(x).embeddings) < 1e-5


HIDDEN = {
    "a convolution called alone": foreign(
        lambda m, x, _: vectors(m.row(x) + m.row[0](x)), row=conv_bn()
    ),
    "what a block has kept": foreign(
        lambda m, x, _: vectors(m.block(x) + m.block.seen), block=Keeping()
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
@torch.no_grad()
def test_what_no_code_shows_is_refused(name):
    with pytest.raises(ValueError, match="to give the embeddings of the plain one, got others"):
        fuse_for_inference(HIDDEN[name])
    # Neither in half precision, nor where the model itself is run in it.
    with pytest.raises(ValueError, match=r"define fused\(self, dtype\)"):
        fuse_for_inference(HIDDEN[name], torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_heads_of_other_models_take_what_comes_in_half_precision(dtype):
    modules = {"row": conv_bn(), "pool": gaitzoo.TemporalMax(), "last": torch.nn.Linear(4, 4)}
    model = foreign(
        lambda m, x, lengths: m.last(m.pool(m.row(x), lengths).mean(dim=(2, 3)))[:, None], **modules
    )
    x = torch.rand(2, 5, 8, 6)
    fused = fuse_for_inference(model, dtype)
    assert fused.last.weight.dtype == dtype
    for one in (fused, copy.deepcopy(fused)):
        found = one(x).embeddings
        assert found.dtype == torch.float32
        assert relative_error(found, model(x).embeddings) < 0.02


@torch.no_grad()
def test_fusing_does_not_depend_on_where_it_is_called():
    model = make("gaitgl_tiny", num_classes=0)
    with torch.autocast("cpu", torch.bfloat16):
        fused = fuse_for_inference(model)
    x = torch.stack(clips_for(model, 6, 6))
    assert relative_error(fused(x).embeddings, model(x).embeddings) < 1e-5


def test_the_norms_of_necks_are_named_without_a_warning():
    assert fuse_for_inference(make("gaitbase_tiny")).unfused_norms == ("neck.bn",)
    assert fuse_for_inference(make("hstl_tiny")).unfused_norms == ()


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ("AVX2", torch.float32),
        ("avx512_core", torch.float32),
        ("AVX512_CORE_BF16", torch.float32),
        ("AVX10_1_512", torch.float32),
        ("AVX512_CORE_AMX", torch.bfloat16),
        ("DEFAULT", torch.bfloat16),
    ],
)
def test_auto_follows_the_limit_of_the_library(limit, wanted, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert fast_dtype("cpu") == wanted
    fused = fuse_for_inference(make("gaitbase_tiny"), "auto")
    assert next(fused.parameters()).dtype == wanted


@pytest.mark.parametrize("has_units", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_units_for_it(has_units, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_units, raising=False)
    dtype = torch.bfloat16 if has_units else torch.float32
    assert fast_dtype() == fast_dtype(torch.device("cpu")) == dtype
    model = make("gaitbase_tiny")
    assert next(fuse_for_inference(model, "auto").parameters()).dtype == dtype
    assert next(fuse_for_inference(model.double(), "auto").parameters()).dtype == torch.float64
    assert fast_dtype("meta") == torch.float32


def test_refused():
    with pytest.raises(TypeError, match=r"expected a gaitzoo model, got Linear"):
        fuse_for_inference(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"floating-point torch.dtype"):
        fuse_for_inference(make("gaitbase_tiny"), dtype=torch.int8)
    with pytest.raises(TypeError, match=r"or 'auto', got 'fast'"):
        fuse_for_inference(make("gaitbase_tiny"), dtype="fast")
