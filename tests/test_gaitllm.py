"""GaitLLM: what is frozen stays frozen, real language models, checkpoints, the length law."""

import copy
import sys

import pytest
import torch
import transformers
from conftest import TOLERANCE, relative_error

import gaitzoo
from gaitzoo import FrozenLLM, GaitLLM
from gaitzoo.frozen_llm import KNOWN_CONFIGS, fingerprint
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss

_SHARED = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
_ROTARY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
LLMS = {
    "llama": {"model_type": "llama", **_ROTARY, **_SHARED},
    "qwen2": {"model_type": "qwen2", **_ROTARY, **_SHARED},
    "gemma": {"model_type": "gemma", **_ROTARY, **_SHARED, "head_dim": 8},
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        **_SHARED,
    },
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 12,
        "vocab_size": 40,
        "init_std": 0.2,
    },
}


def tiny(**arguments):
    torch.manual_seed(0)
    return gaitzoo.create_model("gaitllm_tiny", **arguments)


def walks(*frame_counts, dtype=torch.float32):
    clips = [torch.rand(t, 16, 12, dtype=dtype) for t in frame_counts]
    batch = torch.full((len(clips), max(frame_counts), 16, 12), float("nan"), dtype=dtype)
    for i, clip in enumerate(clips):
        batch[i, : len(clip)] = clip
    return clips, batch, torch.tensor(frame_counts)


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
    """A folder as transformers writes it, which is what a Hub name ends in."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("llm")
    config = transformers.AutoConfig.for_model(**LLMS["qwen2"])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return str(path)


# ---------------------------------------------------------------------- shapes and totals


def test_shapes_and_parameter_totals_of_the_full_model():
    with torch.device("meta"):
        model = gaitzoo.create_model("gaitllm.sustech1k")
        features, lengths = model.forward_features(torch.empty(2, 10, 64, 44))
        tokens, peaks = model.forward_tokens(features, lengths)
        output = model(torch.empty(2, 10, 64, 44))
    assert features.shape == (2, 512, 10, 16, 11)
    assert tokens.shape == (2, 10, 1, 512)
    assert peaks.index.shape == (2, 5)
    assert output.embeddings.shape == (2, 17, 256)
    assert output.logits.shape == (2, 17, 250)
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    assert sum(p.numel() for p in model.encoder.backbone.parameters()) == 5_930_944
    assert count["llm"] == 494_032_768
    assert count["tokenizer"] == 7_377_408
    assert count["assembler"] == 3_151_872
    assert count["g2l"] + count["l2g"] == 919_425
    assert count["part_fc"] + count["neck"] == 3_324_928
    assert sum(p.numel() for p in model.trainable_parameters()) == 14_773_633


def test_other_encoders_swap_in_by_name():
    with torch.device("meta"):
        for name in ("gaitbase", "deepgaitv2_2d", "deepgaitv2_3d"):
            model = gaitzoo.create_model("gaitllm", encoder=name, num_classes=0).eval()
            assert model(torch.empty(1, 1, 64, 44)).embeddings.shape == (1, 17, 256)
            features, _ = model.forward_features(torch.empty(1, 1, 64, 44))
            assert features.shape == (1, 512, 1, 16, 11)


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
    model = tiny(llm=LLMS[family]).eval().to(dtype)
    clips, batch, lengths = walks(9, 5, 1, 12, 2, dtype=dtype)
    found = model(batch, lengths).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("family", LLMS)
@torch.no_grad()
def test_language_models_read_forward_only(family):
    llm = FrozenLLM(LLMS[family], bos=False)
    sentence = torch.randn(1, 6, llm.hidden_size)
    changed = sentence.clone()
    changed[:, 3] = torch.randn(llm.hidden_size)
    moved = (llm(changed) - llm(sentence)).abs().amax(dim=2)[0]
    assert (moved[:3] < 1e-5).all()
    assert (moved[3:] > 1e-4).all()


@pytest.mark.parametrize("family", LLMS)
@torch.no_grad()
def test_the_sentence_stands_behind_the_first_word(family):
    llm = FrozenLLM(LLMS[family])
    sentence = torch.randn(1, 4, llm.hidden_size)
    word = llm.model.get_input_embeddings()(torch.tensor([[llm.bos_token_id]]))
    hidden = llm.model(inputs_embeds=torch.cat([word, sentence], dim=1)).last_hidden_state
    torch.testing.assert_close(llm(sentence), hidden[:, 1:])
    # The first word's own output goes nowhere, whatever it is.
    handle = llm.model.register_forward_hook(_infinite_first_output)
    torch.testing.assert_close(llm(sentence), hidden[:, 1:])
    handle.remove()


def _infinite_first_output(module, inputs, output):
    output.last_hidden_state[:, 0] = torch.inf


@torch.no_grad()
def test_order_of_the_sentence_matters_to_the_language_model_only():
    model, sentence = tiny().eval(), torch.randn(1, 5, 16)
    order = torch.tensor([4, 2, 0, 1, 3])
    found = [model.aggregator(model.l2g(model.llm(s))) for s in (sentence, sentence[:, order])]
    assert (found[0] - found[1]).abs().max() > 1e-3
    bare = [model.aggregator(model.l2g(s)) for s in (sentence, sentence[:, order])]
    torch.testing.assert_close(*bare)


@torch.no_grad()
def test_by_name_by_config_object_and_ready(saved_llm):
    sentence = torch.randn(2, 4, 16)
    named = FrozenLLM(saved_llm)
    assert named.name == saved_llm
    assert not any("lm_head" in key for key, _ in named.named_parameters())
    ready = FrozenLLM(transformers.AutoModelForCausalLM.from_pretrained(saved_llm))
    assert ready.name is None
    torch.testing.assert_close(ready(sentence), named(sentence))
    built = FrozenLLM(transformers.AutoConfig.from_pretrained(saved_llm))
    assert (built(sentence) - named(sentence)).abs().max() > 1e-3
    half = FrozenLLM(saved_llm, dtype="bfloat16", attn_implementation="eager")
    assert half.model.config._attn_implementation == "eager"
    assert next(half.parameters()).dtype == torch.bfloat16
    found = half(sentence)
    assert found.dtype == torch.float32
    cosine = torch.cosine_similarity(found.flatten(1), named(sentence).flatten(1))
    assert (cosine > 0.99).all()
    assert torch.isclose(
        named.embedding_scale, named.model.embed_tokens.weight.square().mean() ** 0.5
    )


def test_known_configs_build():
    with torch.device("meta"):
        for name in KNOWN_CONFIGS:
            assert FrozenLLM(name).hidden_size == KNOWN_CONFIGS[name]["hidden_size"]


def test_long_sentences_and_short_contexts():
    with pytest.raises(ValueError, match="at most 63 tokens"):
        FrozenLLM(LLMS["gpt2"])(torch.rand(1, 64, 16))
    assert tiny(llm=LLMS["gpt2"], num_tokens=2).finder.max_keep == 31
    assert tiny().finder.max_keep is None
    with torch.no_grad():
        assert tiny(llm=LLMS["gpt2"]).eval()(torch.rand(1, 140, 16, 12)).embeddings.isfinite().all()


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


@torch.no_grad()
def test_warm_head_starts_at_the_encoder_and_the_last_part_is_the_language_models():
    stage1 = gaitzoo.create_model("gaitbase_tiny").eval()
    torch.nn.init.uniform_(stage1.neck.bn.running_mean, -0.1, 0.1)
    model = tiny(encoder=stage1, warm_start_head=True).eval()
    clips = torch.rand(3, 6, 16, 12)
    wanted, found = stage1(clips), model(clips)
    torch.testing.assert_close(found.embeddings[:, :-1], wanted.embeddings)
    torch.testing.assert_close(found.logits[:, :-1], wanted.logits)
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
    assert loaded.model_args == model.model_args
    assert loaded.model_args["llm"] == saved_llm

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
def test_short_contexts_export_for_one_number_of_frames_only():
    model = tiny(llm=LLMS["gpt2"]).eval()
    example = (torch.rand(2, 9, 16, 12), torch.tensor([9, 5]))
    sequences = torch.export.Dim("N", min=1, max=64)
    frames = torch.export.Dim("T", min=6, max=100)
    with pytest.raises(Exception, match="Constraints violated"):
        torch.export.export(
            model, example, dynamic_shapes=({0: sequences, 1: frames}, {0: sequences})
        )
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
        ({"llm": {"hidden_size": 8}}, ValueError, "model_type"),
        ({"llm": 3}, TypeError, "a Hub name, a folder, a configuration or a model"),
        ({"llm_dtype": "int8"}, ValueError, "dtype among float32"),
        ({"llm": {"model_type": "t5", "d_model": 8}}, ValueError, "which has an encoder too"),
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
    with pytest.raises(ValueError, match=r"features \[N, 5, T, 4, 3\]"):
        model(features=torch.rand(1, 6, 4, 4, 3))
    with pytest.raises(ValueError, match="embeddings"):
        model.llm(torch.rand(1, 4, 15))
