"""GaitLLM: what is frozen stays frozen, real language models, checkpoints, the length law."""

import copy
import sys

import pytest
import torch
import transformers
from conftest import TOLERANCE, relative_error
from tiny_llms import LLMS, save_llm, tiny, walks

import gaitzoo
from gaitzoo import FrozenLLM, GaitLLM, PeakTokens
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.models.gaitllm.frozen_parts import fingerprint


def stage2_loss(output, labels=(0, 0, 1, 1)):
    labels = torch.tensor(labels)
    return PartTripletLoss()(output.embeddings, labels) + PartCrossEntropyLoss()(
        output.logits, labels
    )


def frozen_state(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {k: v.clone() for k, v in tensors.items() if k.startswith(("encoder.", "llm."))}


@pytest.fixture(scope="module")
def saved_llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llm"))


# ---------------------------------------------------------------------- shapes and totals


@pytest.fixture(scope="module")
def runs_on_meta():
    """Rotary positions of older versions of transformers need autocast, which meta may not have."""
    llm = FrozenLLM(LLMS["qwen2"]).to("meta")
    try:
        llm(torch.empty(1, 2, 16, device="meta"))
    except RuntimeError as error:
        pytest.skip(f"transformers does not run on the meta device: {error}")


WIDE_LLM = {**LLMS["qwen2"], "hidden_size": 64, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        return gaitzoo.create_model("gaitllm.sustech1k")


def shapes_inside(model, silhouettes, lengths=None):
    """Shape of what every part gives, by the part's name."""
    found = {}

    def note(name):
        def hook(module, inputs, output):
            if isinstance(output, PeakTokens):
                output = output.index
            found[name] = list((output[0] if isinstance(output, tuple) else output).shape)

        return hook

    handles = [part.register_forward_hook(note(name)) for name, part in model.named_children()]
    output = model(silhouettes, lengths)
    for handle in handles:
        handle.remove()
    features, _ = model.forward_features(silhouettes, lengths)
    found["features"] = list(features.shape)
    found["embeddings"], found["logits"] = list(output.embeddings.shape), list(output.logits.shape)
    return found


@pytest.mark.usefixtures("runs_on_meta")
@pytest.mark.parametrize(("frames", "kept"), [(30, 15), (10, 5), (1, 1)])
def test_every_shape_on_the_way(full, frames, kept):
    with torch.device("meta"):
        found = shapes_inside(full, torch.empty(2, frames, 64, 44))
    assert found == {
        "features": [2, 512, frames, 16, 11],
        "tokenizer": [2, frames, 1, 512],
        "finder": [2, kept],
        "assembler": [2, kept, 1, 512],
        "g2l": [2, kept, 896],
        "llm": [2, kept, 896],
        "l2g": [2, kept, 512],
        "aggregator": [2, 512],
        "temporal_pool": [2, 512, 16, 11],
        "part_pool": [2, 16, 512],
        "part_fc": [2, 17, 256],
        "neck": [2, 17, 256],
        "embeddings": [2, 17, 256],
        "logits": [2, 17, 250],
    }


def test_parameter_totals_of_the_full_model(full):
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in full.named_children()
    }
    assert sum(p.numel() for p in full.encoder.backbone.parameters()) == 5_930_944
    assert count["llm"] == 494_032_768
    assert count["tokenizer"] == 7_377_408
    assert count["assembler"] == 3_151_872
    assert count["g2l"] + count["l2g"] == 919_425
    assert count["part_fc"] + count["neck"] == 3_324_928
    assert sum(p.numel() for p in full.trainable_parameters()) == 14_773_633


@pytest.mark.usefixtures("runs_on_meta")
@pytest.mark.parametrize(
    ("arguments", "size", "cells"),
    [
        ({"encoder": "gaitbase"}, (64, 44), (16, 11)),
        ({"encoder": "deepgaitv2_2d"}, (64, 44), (16, 11)),
        ({"encoder": "deepgaitv2_3d"}, (64, 44), (16, 11)),
        ({"input_size": (128, 88)}, (128, 88), (32, 22)),
    ],
)
@pytest.mark.parametrize(("frames", "kept"), [(17, 9), (1, 1)])
def test_encoders_and_sizes_swap_in_by_argument(arguments, size, cells, frames, kept):
    with torch.device("meta"):
        model = gaitzoo.create_model("gaitllm", llm=WIDE_LLM, num_classes=7, **arguments).eval()
        found = shapes_inside(model, torch.empty(2, frames, *size))
    assert found["features"] == [2, 512, frames, *cells]
    assert found["llm"] == [2, kept, 64]
    assert found["embeddings"] == [2, 17, 256]
    assert found["logits"] == [2, 17, 7]


@pytest.mark.parametrize("encoder", ["dygait_tiny", "gaitbase_tiny", "timm_frames_tiny"])
@torch.no_grad()
def test_length_law_with_other_encoders(encoder):
    model = tiny(encoder=encoder).eval().double()
    clips, batch, lengths = walks(9, 4, 1, dtype=torch.float64)
    found = model(batch, lengths).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < 1e-12


# ---------------------------------------------------------------------- language models


@pytest.mark.parametrize("family", LLMS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@torch.no_grad()
def test_length_law_with_every_family(family, dtype):
    # Older versions of transformers write no masks in float64 for GPT-2's other attention.
    attention = "eager" if dtype == torch.float64 else None
    model = tiny(llm=LLMS[family], attn_implementation=attention).eval().to(dtype)
    clips, batch, lengths = walks(9, 5, 1, 12, 2, dtype=dtype)
    found = model(batch, lengths).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("family", LLMS)
@torch.no_grad()
def test_the_first_words_output_never_enters_the_sentence(family):
    model, features = tiny(llm=LLMS[family]).eval(), torch.randn(2, 5, 7, 4, 3)
    wanted = model.forward_sentence(features)

    def spoil(module, inputs, output):
        output.last_hidden_state[:, 0] = torch.inf

    handle = model.llm.model.register_forward_hook(spoil)
    assert torch.equal(model.forward_sentence(features), wanted)
    handle.remove()
    bare = tiny(llm=LLMS[family], bos=False).eval()
    bare.llm.model.register_forward_hook(spoil)
    assert not bare.forward_sentence(features).isfinite().all()


@torch.no_grad()
def test_order_of_the_sentence_matters_to_the_language_model_only():
    model, sentence = tiny().eval(), torch.randn(1, 5, 16)
    order = torch.tensor([4, 2, 0, 1, 3])
    found = [model.aggregator(model.l2g(model.llm(s))) for s in (sentence, sentence[:, order])]
    assert (found[0] - found[1]).abs().max() > 1e-3
    bare = [model.aggregator(model.l2g(s)) for s in (sentence, sentence[:, order])]
    torch.testing.assert_close(*bare)


@pytest.mark.parametrize("family", LLMS)
@torch.no_grad()
def test_noise_behind_kept_features_changes_nothing(family):
    model, features = tiny(llm=LLMS[family]).eval(), torch.randn(2, 5, 7, 4, 3)
    noisy = torch.cat([features, 1e3 * torch.randn(2, 5, 4, 4, 3)], dim=2)
    found = model(features=noisy, lengths=torch.tensor([7, 7])).embeddings
    assert relative_error(found, model(features=features).embeddings) < 1e-5


@torch.no_grad()
def test_rows_keep_their_own_share_in_any_order():
    model = tiny().eval()
    _, batch, lengths = walks(17, 1, 6, 9)
    peaks, wanted = model.find_peaks(batch, lengths), model(batch, lengths)
    assert peaks.lengths.tolist() == [9, 1, 3, 5]
    order = torch.tensor([2, 0, 3, 1])
    again, found = (
        model.find_peaks(batch[order], lengths[order]),
        model(batch[order], lengths[order]),
    )
    assert torch.equal(again.keep, peaks.keep[order])
    assert torch.equal(again.lengths, peaks.lengths[order])
    assert relative_error(found.embeddings, wanted.embeddings[order]) < 1e-6
    assert relative_error(found.logits, wanted.logits[order]) < 1e-6


@pytest.mark.parametrize("family", LLMS)
def test_a_bfloat16_language_model_between_float32_parts(family):
    whole, model = tiny(llm=LLMS[family]).eval(), tiny(llm=LLMS[family], llm_dtype="bfloat16")
    clips, batch, lengths = walks(9, 5, 1, 12)
    assert {p.dtype for p in model.llm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.trainable_parameters()} == {torch.float32}
    model.train()
    output = model(batch, lengths)
    assert output.embeddings.dtype == output.logits.dtype == torch.float32
    stage2_loss(output).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key
    model.eval()
    with torch.no_grad():
        found, wanted = model(batch, lengths).embeddings, whole(batch, lengths).embeddings
        # Three digits are what bfloat16 has; the encoder's own parts do not pass through it.
        assert relative_error(found[:, :-1], wanted[:, :-1]) < 1e-6
        assert relative_error(found[:, -1], wanted[:, -1]) < 0.05
        for i, clip in enumerate(clips):
            alone = model(clip[None]).embeddings[0]
            assert relative_error(found[i, :-1], alone[:-1]) < 1e-5
            assert relative_error(found[i, -1], alone[-1]) < 0.02


# ---------------------------------------------------------------------- frozen means frozen


@pytest.mark.parametrize("global_token", ["mean", "learned"])
def test_gradients_reach_what_is_trained_and_nothing_else(global_token):
    model = tiny(global_token=global_token).train()
    stage2_loss(model(torch.rand(4, 9, 16, 12))).backward()
    trained = {id(p) for p in model.trainable_parameters()}
    for key, parameter in model.named_parameters():
        if key.startswith(("encoder.", "llm.")):
            assert parameter.grad is None, key
            assert id(parameter) not in trained
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 1e-6, key
            assert id(parameter) in trained


def test_without_a_graph_through_the_language_model_nothing_is_learned():
    model = tiny().train()
    whole = model.llm.forward
    model.llm.forward = torch.no_grad()(whole)
    stage2_loss(model(torch.rand(4, 9, 16, 12))).backward()
    for part in (model.tokenizer, model.assembler, model.g2l):
        assert all(p.grad is None for p in part.parameters())


def test_a_step_leaves_the_frozen_parts_alone():
    model = tiny(llm={**LLMS["gpt2"], "resid_pdrop": 0.5, "embd_pdrop": 0.5}).train()
    assert not any(m.training for m in (*model.encoder.modules(), *model.llm.modules()))
    before = frozen_state(model)
    clips = torch.rand(4, 9, 16, 12)
    first = model.forward_sentence(*model.forward_features(clips))
    assert torch.equal(model.forward_sentence(*model.forward_features(clips)), first)
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.1, weight_decay=0.1)
    stage2_loss(model(clips)).backward()
    optimizer.step()
    after = frozen_state(model)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not torch.equal(model.forward_sentence(*model.forward_features(clips)), first)


def test_a_handed_encoder_is_copied_and_stays_trainable():
    encoder = gaitzoo.create_model("gaitbase_tiny").train()
    model = tiny(encoder=encoder)
    assert encoder.training
    assert encoder.num_classes == 5
    assert all(p.requires_grad for p in encoder.parameters())
    assert not any(p.requires_grad for p in model.encoder.parameters())


@pytest.mark.parametrize("family", LLMS)
def test_gradient_checkpointing_recomputes_every_layer(family):
    model, features = tiny(llm=LLMS[family]), torch.randn(4, 5, 7, 4, 3)
    model.train()
    calls, gradients = [], []
    for layer in model.llm._layers():
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        before = len(calls)
        stage2_loss(model(features=features)).backward()
        gradients.append((len(calls) - before, [p.grad for p in model.trainable_parameters()]))
        assert all("forward" not in vars(layer) for layer in model.llm._layers())
    assert gradients[0][0] == 2
    for plain, recomputed in zip(gradients[0][1], gradients[1][1], strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_lora_trains_adapters_inside_the_frozen_model():
    pytest.importorskip("peft")
    model = tiny(lora={"r": 2, "target_modules": ("q_proj", "v_proj")}).train()
    stage2_loss(model(torch.rand(4, 9, 16, 12))).backward()
    grown = [k for k, p in model.llm.named_parameters() if p.requires_grad]
    assert grown
    assert all("lora_" in key for key in grown)
    assert all(p.grad is None for k, p in model.llm.named_parameters() if "lora_" not in k)
    # The second matrix of an adapter starts at zero, so the first gets its gradient later.
    assert any(p.grad.abs().max() > 0 for k, p in model.llm.named_parameters() if "lora_B" in k)
    assert fingerprint(model.llm.model) == fingerprint(tiny().llm.model)


@torch.no_grad()
def test_lora_is_saved_without_the_language_model(saved_llm, tmp_path):
    pytest.importorskip("peft")
    model = tiny(llm=saved_llm, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]}).eval()
    for key, parameter in model.llm.named_parameters():
        if "lora_" in key:
            parameter.normal_()
    model.save_pretrained(tmp_path)
    inside = [key for key in model.state_dict() if key.startswith("llm.")]
    assert len(inside) == 2 * 2 * 2 + 1
    assert all("lora_" in key or key == "llm.sha256" for key in inside)
    loaded, clips = GaitLLM.from_pretrained(tmp_path), torch.rand(2, 6, 16, 12)
    assert torch.equal(loaded(clips).embeddings, model(clips).embeddings)
    plain = tiny(llm=saved_llm).eval()
    assert (plain(clips).embeddings - model(clips).embeddings).abs().max() > 1e-3


def test_lora_without_peft_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install peft"):
        tiny(lora={"r": 2})


# ---------------------------------------------------------------------- features, parts, peaks


@torch.no_grad()
def test_kept_features_give_the_same_embeddings():
    model = tiny().eval()
    _, batch, lengths = walks(9, 4)
    wanted = model(batch, lengths)
    features, feature_lengths = model.forward_features(batch, lengths)
    assert not features.requires_grad
    features[1, :, 4:] = float("nan")
    found = model(features=features, lengths=feature_lengths)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.logits, wanted.logits)


@torch.no_grad()
def test_find_peaks_tells_what_was_kept():
    model = tiny().eval()
    _, batch, lengths = walks(9, 4)
    peaks = model.find_peaks(batch, lengths)
    assert peaks.scores.shape == (2, 9)
    assert peaks.keep.sum(1).tolist() == peaks.lengths.tolist() == [5, 2]
    features, feature_lengths = model.forward_features(batch, lengths)
    again = model.find_peaks(features=features, lengths=feature_lengths)
    assert torch.equal(again.index, peaks.index)


@pytest.mark.parametrize("encoder", ["gaitbase_tiny", "deepgaitv2_p3d_tiny"])
@torch.no_grad()
def test_warm_head_starts_at_the_encoder_and_the_last_part_is_the_language_models(encoder):
    stage1 = gaitzoo.create_model(encoder).eval()
    for value in (stage1.neck.bn.running_mean, stage1.neck.bn.weight, stage1.neck.bn.bias):
        torch.nn.init.uniform_(value, 0.1, 0.9)
    model = tiny(encoder=stage1, warm_start_head=True).eval()
    clips = torch.rand(3, 6, 16, 12)
    wanted, found = stage1(clips), model(clips)
    assert torch.equal(found.embeddings[:, :-1], wanted.embeddings)
    torch.testing.assert_close(found.logits[:, :-1], wanted.logits)
    # Whatever the language model says.
    handle = model.aggregator.register_forward_hook(lambda *hook: 1e3 * torch.randn_like(hook[2]))
    other = model(clips)
    handle.remove()
    assert torch.equal(other.embeddings[:, :-1], wanted.embeddings)
    assert (other.embeddings[:, -1] - found.embeddings[:, -1]).abs().max() > 1
    model.part_pool.forward = lambda x: torch.randn(3, 4, x.shape[1])
    replaced = model(clips).embeddings
    torch.testing.assert_close(replaced[:, -1], found.embeddings[:, -1])
    assert (replaced[:, :-1] - found.embeddings[:, :-1]).abs().max() > 1e-3
    cold = tiny(encoder=stage1, warm_start_head=False).eval()
    assert (cold(clips).embeddings[:, :-1] - wanted.embeddings).abs().max() > 1e-3


# ---------------------------------------------------------------------- checkpoints


@torch.no_grad()
def test_named_parts_are_kept_as_names_and_hashes(saved_llm, tmp_path):
    stage1 = gaitzoo.create_model("gaitbase_tiny").eval()
    stage1.save_pretrained(tmp_path / "stage1")
    model = tiny(encoder=f"local-dir:{tmp_path / 'stage1'}", llm=saved_llm).eval()
    clips = torch.rand(2, 6, 16, 12)
    wanted = model(clips).embeddings
    model.save_pretrained(tmp_path / "stage2")
    state = model.state_dict()
    frozen = [key for key in state if key.startswith(("encoder.", "llm."))]
    assert sorted(frozen) == ["encoder.sha256", "llm.sha256"]
    assert bytes(state["llm.sha256"].tolist()).hex() == fingerprint(model.llm.model)
    loaded = GaitLLM.from_pretrained(tmp_path / "stage2")
    assert torch.equal(loaded(clips).embeddings, wanted)
    assert loaded.config_args() == model.config_args()
    assert loaded.config_args()["llm"] == saved_llm

    other = GaitLLM.from_pretrained(tmp_path / "stage2", num_classes=9)
    assert torch.equal(other(clips).embeddings, wanted)
    assert other.num_classes == 9

    holder = torch.nn.ModuleDict(
        {"inner": tiny(encoder=model.model_args["encoder"], llm=saved_llm)}
    )
    holder.load_state_dict(torch.nn.ModuleDict({"inner": model}).state_dict())
    assert torch.equal(holder["inner"].eval()(clips).embeddings, wanted)

    # Somebody puts other weights where the language model was.
    altered = transformers.AutoModel.from_pretrained(saved_llm)
    altered.layers[0].mlp.up_proj.weight.mul_(1.5)
    altered.save_pretrained(tmp_path / "altered")
    wrong = tiny(encoder=model.model_args["encoder"], llm=str(tmp_path / "altered"))
    before = {k: v.clone() for k, v in wrong.state_dict().items()}
    with pytest.raises(ValueError, match="the llm that this checkpoint was trained with"):
        wrong.load_state_dict(state)
    assert all(torch.equal(v, before[k]) for k, v in wrong.state_dict().items())


@torch.no_grad()
def test_the_encoder_can_be_saved_with_the_rest(saved_llm, tmp_path):
    gaitzoo.create_model("gaitbase_tiny").save_pretrained(tmp_path / "stage1")
    name = f"local-dir:{tmp_path / 'stage1'}"
    model = tiny(encoder=name, llm=saved_llm, save_encoder=True).eval()
    clips = torch.rand(2, 6, 16, 12)
    model.save_pretrained(tmp_path / "stage2")
    assert any(key.startswith("encoder.backbone") for key in model.state_dict())
    for file in (tmp_path / "stage1").iterdir():
        file.unlink()
    loaded = GaitLLM.from_pretrained(tmp_path / "stage2")
    assert torch.equal(loaded(clips).embeddings, model(clips).embeddings)


class OwnEncoder(torch.nn.Module):
    """What anybody may bring."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 6, 3, stride=4, padding=1)

    def forward_features(self, silhouettes, lengths=None):
        frames = silhouettes.transpose(1, 2).flatten(0, 1)
        maps = self.conv(frames).unflatten(0, (len(silhouettes), -1))
        return maps.transpose(1, 2), lengths


@torch.no_grad()
def test_any_module_is_an_encoder_but_cannot_be_named(tmp_path):
    model = tiny(encoder=OwnEncoder(), part_bins=(4,), embed_dim=7).eval()
    clips, batch, lengths = walks(5, 3)
    found = model(batch, lengths).embeddings
    assert found.shape == (2, 5, 7)
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < 1e-5
    with pytest.raises(ValueError, match="a folder cannot rebuild"):
        model.save_pretrained(tmp_path)
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(batch, lengths).embeddings, found)


@pytest.mark.parametrize("tag", gaitzoo.list_tags("gaitllm"))
def test_nobody_has_published_weights(tag):
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match=r"examples/train_gaitllm\.py"):
        gaitzoo.create_model(f"gaitllm.{tag}", pretrained=True)
    cfg = gaitzoo.model_info(f"gaitllm.{tag}")
    assert not cfg.reproduced
    assert gaitzoo.is_model(cfg.model_args["encoder"])


# ---------------------------------------------------------------------- export


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_short_contexts_export_for_one_number_of_frames():
    model = tiny(llm=LLMS["gpt2"]).eval()
    example = (torch.rand(2, 9, 16, 12), torch.tensor([9, 5]))
    sequences = torch.export.Dim("N", min=1, max=64)
    program = torch.export.export(
        model, example, dynamic_shapes=({0: sequences}, {0: sequences})
    ).module()
    batch, lengths = torch.rand(3, 9, 16, 12), torch.tensor([9, 1, 4])
    found, wanted = program(batch, lengths), model(batch, lengths)
    assert relative_error(found.embeddings, wanted.embeddings) < 1e-5


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"llm": "no/such-model"}, OSError, "cannot load the language model 'no/such-model'"),
        ({"llm": 3}, TypeError, "a Hub name, a folder, a configuration or a model"),
        ({"encoder": torch.nn.Linear(2, 2)}, TypeError, "forward_features"),
        ({"encoder": "gaitbas_tiny"}, ValueError, "closest names"),
        ({"warm_start_head": True, "embed_dim": 9}, ValueError, "warm_start_head=True"),
        (
            {"encoder": OwnEncoder(), "encoder_args": {"layers": (1, 1, 1, 1)}},
            ValueError,
            "encoder built with",
        ),
        ({"encoder": OwnEncoder(), "encoder_pretrained": True}, ValueError, "encoder_pretrained"),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(arguments, error, message):
    with pytest.raises(error, match=message):
        tiny(**arguments)


def test_bad_calls_are_refused_with_a_reason():
    model = tiny().eval()
    for call in (model, model.find_peaks):
        with pytest.raises(ValueError, match="silhouettes or features"):
            call()
        with pytest.raises(ValueError, match=r"map \[N, 5, T, H, W\]"):
            call(features=torch.rand(1, 6, 4, 4, 3))
        with pytest.raises(ValueError, match=r"map \[N, 5, T, H, W\]"):
            call(features=torch.rand(5, 4, 4, 3))
        with pytest.raises(TypeError, match=r"of floats, got torch\.int64"):
            call(features=torch.ones(1, 5, 4, 4, 3, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"features \[N, 5, T, 4, 3\]"):
            call(features=torch.rand(1, 5, 4, 4, 4))
        with pytest.raises(ValueError, match="lengths from 1 to 4"):
            call(features=torch.rand(1, 5, 4, 4, 3), lengths=torch.tensor([5]))
