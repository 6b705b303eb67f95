"""FrozenLLM: every family, its masks and positions, its dtypes, its memory, where it comes from."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from conftest import relative_error
from tiny_llms import LLMS, save_llm, tiny
from transformers.utils import is_flash_attn_2_available

from gaitzoo import FrozenLLM
from gaitzoo.models.gaitllm.llm_loading import KNOWN_CONFIGS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved_llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llm"))


# ---------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("family", LLMS)
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    # Older versions of transformers write no masks in float64 for GPT-2 and "sdpa".
    ("attention", "dtype"),
    [("sdpa", torch.float32), ("eager", torch.float32), ("eager", torch.float64)],
)
@torch.no_grad()
def test_padded_sentences_equal_the_bare_model_on_each(family, bos, attention, dtype):
    llm = FrozenLLM(LLMS[family], bos=bos, attn_implementation=attention).to(dtype)
    sentences = [torch.randn(length, llm.hidden_size, dtype=dtype) for length in (7, 1, 12, 4)]
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    batch = torch.full((4, 12, llm.hidden_size), float("nan"), dtype=dtype)
    for row, sentence in zip(batch, sentences, strict=True):
        row[: len(sentence)] = sentence
    found = llm(batch, lengths)
    word = llm.model.get_input_embeddings()(torch.tensor([llm.bos_token_id or 0]))
    for row, sentence in zip(found, sentences, strict=True):
        alone = torch.cat([word, sentence]) if bos else sentence
        # No mask, no cache, positions from 0: the last of all hidden states is what is wanted.
        bare = llm.model(
            inputs_embeds=alone[None],
            position_ids=torch.arange(len(alone))[None],
            output_hidden_states=True,
        )
        wanted = bare.last_hidden_state[0, int(bos) :]
        # The softmax of "eager" attention is taken in float32 whatever the type.
        tolerance = 1e-6 if dtype is torch.float64 else 1e-5
        assert relative_error(row[: len(sentence)], wanted) < tolerance
        assert (row[len(sentence) :] == 0).all()
        if bare.hidden_states[-1].shape == bare.last_hidden_state.shape:
            assert torch.equal(bare.hidden_states[-1], bare.last_hidden_state)


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


# ---------------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("family", LLMS)
def test_gradients_pass_through_bfloat16_to_float32(family):
    whole = FrozenLLM(LLMS[family])
    torch.manual_seed(0)
    half = FrozenLLM(LLMS[family], dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    gradients = []
    for llm in (whole, half):
        torch.manual_seed(1)
        sentence = torch.randn(3, 6, llm.hidden_size, requires_grad=True)
        found = llm(sentence, torch.tensor([6, 2, 5]))
        assert found.dtype == torch.float32
        (found * torch.randn_like(found)).sum().backward()
        assert all(p.grad is None for p in llm.parameters())
        assert sentence.grad.dtype == torch.float32
        assert (sentence.grad[1, 2:] == 0).all()
        gradients.append(sentence.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


# ---------------------------------------------------------------------- gradient checkpointing


def bytes_kept(llm, sentence):
    """What a forward pass keeps for the backward pass, and the language model's own weights not.

    Layers that are recomputed keep their inputs outside of autograd's saved tensors, so inputs of
    layers always count.
    """
    own = {p.untyped_storage().data_ptr() for p in llm.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    def keep_inputs(module, inputs, keywords):
        for value in (*inputs, *keywords.values()):
            if isinstance(value, torch.Tensor):
                keep(value)

    handles = [
        layer.register_forward_pre_hook(keep_inputs, with_kwargs=True) for layer in llm._layers()
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = llm(sentence)
    for handle in handles:
        handle.remove()
    hidden.sum().backward()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_gradient_checkpointing_keeps_a_fraction_and_grows_slower(family):
    depth = "n_layer" if family == "gpt2" else "num_hidden_layers"

    def measure(layers, enable):
        llm = FrozenLLM({**LLMS[family], depth: layers})
        llm.grad_checkpointing = enable
        return bytes_kept(llm, torch.randn(4, 48, 16, requires_grad=True))

    assert measure(8, True) < 0.3 * measure(8, False)
    # A further layer costs its input, N x (L + 1) x D floats, and nothing else.
    growth = measure(8, True) - measure(4, True)
    assert growth == 4 * (4 * 49 * 16 * 4)


def test_gradient_checkpointing_needs_a_list_of_layers():
    llm = FrozenLLM(LLMS["qwen2"])
    llm.grad_checkpointing = True
    llm.model.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match="a list of 7 layers"):
        llm(torch.randn(1, 3, 16, requires_grad=True))


# ---------------------------------------------------------------------- names and commits


def test_a_hub_name_is_pinned_to_its_commit(saved_llm, tmp_path, monkeypatch):
    folder = tmp_path / "models--gait--reader"
    shutil.copytree(saved_llm, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path), raising=False)
    sentence = torch.randn(1, 4, 16)
    wanted = FrozenLLM(saved_llm)
    assert wanted.revision is None
    for revision in (None, "main", COMMIT):
        llm = FrozenLLM("gait/reader", revision=revision)
        assert (llm.name, llm.revision) == ("gait/reader", COMMIT)
        assert torch.equal(llm(sentence), wanted(sentence))
    model = tiny(llm="gait/reader")
    described = model.config_args()
    assert (described["llm"], described["llm_revision"]) == ("gait/reader", COMMIT)
    # The branch moves on; the model stays at its commit.
    Path(folder / "refs" / "main").write_text("f" * 40)
    assert tiny(**described).llm.revision == COMMIT
    with pytest.raises(OSError, match="cannot load the language model 'gait/reader'"):
        FrozenLLM("gait/reader", revision="f" * 40)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"llm": LLMS["gpt2"], "revision": "main"}, "revision with a name only, got 'main'"),
        ({"llm": LLMS["gpt2"], "dtype": "float8"}, "dtype among float32"),
        ({"llm": {"model_type": "t5", "d_model": 8}}, "which has an encoder too"),
        ({"llm": {"n_embd": 8}}, 'configuration with "model_type"'),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        FrozenLLM(**arguments)


def test_ready_models_take_no_attention():
    ready = FrozenLLM(LLMS["gpt2"]).model
    with pytest.raises(ValueError, match="ready GPT2Model"):
        FrozenLLM(ready, attn_implementation="eager")


def test_bad_sentences_are_refused_with_a_reason():
    llm = FrozenLLM(LLMS["gpt2"])
    with pytest.raises(ValueError, match=r"embeddings \[N, L, 16\], got \[1, 4, 15\]"):
        llm(torch.rand(1, 4, 15))
    with pytest.raises(ValueError, match="lengths"):
        llm(torch.rand(1, 4, 16), torch.tensor([5]))


@pytest.mark.parametrize("first", [40, -1])
def test_first_words_must_be_in_the_vocabulary(first):
    config = {**LLMS["qwen2"], "bos_token_id": first}
    with pytest.raises(ValueError, match="among the 40 words of the language model, got"):
        FrozenLLM(config)
    assert FrozenLLM(config, bos=False).bos_token_id is None


@torch.no_grad()
def test_lengths_may_be_small_integers():
    llm, sentence = FrozenLLM(LLMS["qwen2"]), torch.randn(2, 9, 16)
    wanted = llm(sentence, torch.tensor([9, 4]))
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(llm(sentence, torch.tensor([9, 4], dtype=dtype)), wanted)


def test_a_layers_own_forward_survives_gradient_checkpointing():
    llm = FrozenLLM(LLMS["qwen2"])
    llm.grad_checkpointing = True
    first, second = llm._layers()
    calls = []
    inner = first.forward

    def own(*inputs, **keywords):
        calls.append(1)
        return inner(*inputs, **keywords)

    first.forward = own
    llm(torch.randn(1, 3, 16, requires_grad=True)).sum().backward()
    assert len(calls) == 2
    assert first.forward is own
    assert "forward" not in vars(second)


# ---------------------------------------------------------------------- damaged folders


@pytest.mark.parametrize("family", LLMS)
def test_complete_folders_of_every_family_load(family, tmp_path):
    config = transformers.AutoConfig.for_model(**LLMS[family])
    whole = transformers.AutoModelForCausalLM.from_config(config)
    whole.save_pretrained(tmp_path)
    llm = FrozenLLM(str(tmp_path))
    assert torch.equal(llm.model.get_input_embeddings().weight, whole.get_input_embeddings().weight)


def alter(folder, change):
    file = Path(folder) / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    change(tensors)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


def lose_a_tensor(tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]


def cut_a_tensor(tensors):
    key = "model.layers.1.mlp.up_proj.weight"
    tensors[key] = tensors[key][:-1].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_a_tensor, r"1 of its weights are missing \(.*layers\.1\.mlp\.up_proj\.weight\)"),
        (cut_a_tensor, r"1 of its weights are of another shape \(.*up_proj\.weight\)"),
    ],
)
def test_incomplete_folders_are_refused(change, message, tmp_path):
    folder = save_llm(tmp_path)
    alter(folder, change)
    with pytest.raises(OSError, match=message):
        FrozenLLM(folder)


@pytest.mark.parametrize("size", [0, 5, 2000])
def test_truncated_files_are_refused(size, tmp_path):
    folder = save_llm(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(OSError, match="cannot load the language model"):
        FrozenLLM(folder)


# ---------------------------------------------------------------------- strangers' code


def change_config(folder, **fields):
    file = Path(folder) / "config.json"
    config = json.loads(file.read_text())
    config.update(fields)
    file.write_text(json.dumps(config))


def test_code_of_a_folder_is_never_run(tmp_path, monkeypatch):
    folder = save_llm(tmp_path / "llm")
    marker = tmp_path / "has_run"
    (tmp_path / "llm" / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    code = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    change_config(folder, model_type="somebodys_own", auto_map=code)
    # Whoever is asked agrees.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(OSError, match="cannot load the language model"):
        FrozenLLM(folder)
    with torch.device("meta"), pytest.raises(OSError, match="cannot load the language model"):
        FrozenLLM(folder)
    assert not marker.exists()


def test_attention_that_a_folder_asks_for_is_not_used(tmp_path):
    folder = save_llm(tmp_path)
    change_config(folder, _attn_implementation="somebody/kernel")
    assert FrozenLLM(folder).model.config._attn_implementation == "sdpa"
    eager = FrozenLLM(folder, attn_implementation="eager")
    assert eager.model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoModel": "somebody/code--own.Model"}},
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "somebody/kernel"},
        {"_attn_implementation_internal": "somebody/kernel"},
        {"text_config": {"_attn_implementation": "somebody/kernel"}},
    ],
)
def test_configurations_that_may_name_code_are_refused(fields):
    with pytest.raises(ValueError, match="which may name code on the Hub"):
        FrozenLLM({**LLMS["qwen2"], **fields})


@pytest.mark.parametrize("attention", ["somebody/kernel", "flash_attention_3", {"": "eager"}])
def test_other_kinds_of_attention_are_refused(attention):
    with pytest.raises(ValueError, match="attn_implementation among None, eager, sdpa"):
        FrozenLLM(LLMS["qwen2"], attn_implementation=attention)


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash attention is there")
def test_flash_attention_is_not_fetched():
    with pytest.raises(ImportError, match="pip install flash-attn"):
        FrozenLLM(LLMS["qwen2"], attn_implementation="flash_attention_2")


def test_structures_of_ready_models_can_be_built_again():
    config = transformers.AutoConfig.for_model(**LLMS["qwen2"])
    config.auto_map = {"AutoModel": "own.Model"}
    config._attn_implementation = "eager"
    found = FrozenLLM(config).config_dict
    assert not [key for key in found if "auto_map" in key or "attn" in key]
    assert FrozenLLM(found).hidden_size == 16
