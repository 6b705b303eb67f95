"""GaitLLM from modules that somebody hands over, and with a language model that moved."""

import logging
import shutil

import pytest
import torch
import transformers
from conftest import relative_error
from tiny_llms import LLMS, save_llm, tiny, walks

import gaitzoo
from gaitzoo import FrozenLLM, GaitLLM, MotionClipAssembler, PeakTokenFinder, SpatialTokenizer


class MeanTokens(torch.nn.Module):
    """Two tokens of every frame from the mean of its map."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(5, 24)

    def forward(self, features, lengths=None):
        tokens = self.linear(features.mean((3, 4)).transpose(1, 2))
        return tokens.unflatten(2, (2, 12))


class NoTokens(torch.nn.Module):
    """Gives the map as it is."""

    def forward(self, features, lengths=None):
        return features


class OwnFinder(torch.nn.Module):
    """Every frame scores alike, so that the first are kept."""

    def forward(self, tokens, lengths=None):
        return PeakTokenFinder(keep_ratio=0.5).select(torch.zeros(tokens.shape[:2]), lengths)


READY = {
    "tokenizer": MeanTokens,
    "finder": OwnFinder,
    "assembler": lambda: MotionClipAssembler(8, 2, scope="clip"),
    "llm": lambda: FrozenLLM(LLMS["llama"], bos=False),
}


@torch.no_grad()
@pytest.mark.parametrize("part", READY)
def test_ready_modules_take_the_place_of_what_arguments_describe(part):
    ready = READY[part]()
    model = tiny(**{part: ready}).eval()
    assert getattr(model, part) is ready
    clips, batch, lengths = walks(7, 4)
    found = model(batch, lengths).embeddings
    for i, clip in enumerate(clips):
        assert relative_error(found[i], model(clip[None]).embeddings[0]) < 1e-5


@pytest.mark.parametrize("part", ["tokenizer", "assembler"])
def test_ready_modules_are_trained_with_the_rest(part):
    model = tiny(**{part: READY[part]()}).train()
    model(torch.rand(2, 5, 16, 12)).embeddings.sum().backward()
    for parameter in getattr(model, part).parameters():
        assert parameter.grad is not None
    trained = {id(parameter) for parameter in model.trainable_parameters()}
    assert all(id(parameter) in trained for parameter in getattr(model, part).parameters())


@torch.no_grad()
@pytest.mark.parametrize("part", ["tokenizer", "finder", "assembler"])
def test_models_with_ready_modules_have_a_state_dict_but_no_configuration(part, tmp_path):
    model = tiny(**{part: READY[part]()}).eval()
    kind = type(getattr(model, part)).__name__
    with pytest.raises(ValueError, match=f"got a {kind} as {part}, which a folder cannot rebuild"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = tiny(**{part: READY[part]()}).eval()
    other.load_state_dict(model.state_dict())
    clips = torch.rand(1, 4, 16, 12)
    assert torch.equal(other(clips).embeddings, model(clips).embeddings)


@torch.no_grad()
def test_a_ready_language_model_describes_itself(tmp_path):
    clips = torch.rand(2, 6, 16, 12)
    for llm in (READY["llm"](), FrozenLLM(save_llm(tmp_path / "llm"), bos=False)):
        model = tiny(llm=llm).eval()
        model.save_pretrained(tmp_path / "out")
        loaded = GaitLLM.from_pretrained(tmp_path / "out")
        assert loaded.config_args() == model.config_args()
        assert loaded.config_args()["bos"] is False
        assert torch.equal(loaded(clips).embeddings, model(clips).embeddings)


def test_handed_modules_are_not_kept_twice():
    llm = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**LLMS["qwen2"])
    )
    model = tiny(llm=llm, encoder=gaitzoo.create_model("gaitbase_tiny"))
    kept = [value for value in model.model_args.values() if isinstance(value, torch.nn.Module)]
    assert kept == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tokenizer": "spatial"}, TypeError, "tokenizer as a module or None, got str"),
        ({"finder": torch.rand(2)}, TypeError, "finder as a module or None, got Tensor"),
        ({"tokenizer": NoTokens()}, ValueError, r"got \[1, 5, 2, 4, 3\] for one sequence"),
        ({"tokenizer": SpatialTokenizer(3, 8, num_heads=2)}, ValueError, "expected features"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(arguments, error, message):
    with pytest.raises(error, match=message):
        tiny(**arguments)


@pytest.mark.parametrize("argument", [{"bos": False}, {"llm_dtype": "float32"}])
def test_a_ready_language_model_takes_no_arguments(argument):
    with pytest.raises(ValueError, match="expected a ready FrozenLLM alone, got it with"):
        tiny(llm=READY["llm"](), **argument)


# ---------------------------------------------------------------------- a language model that moved


@torch.no_grad()
def test_a_language_model_that_moved_is_named_by_its_new_place(tmp_path):
    llm = save_llm(tmp_path / "old")
    model = tiny(llm=llm).eval()
    model.save_pretrained(tmp_path / "saved")
    shutil.move(tmp_path / "old", tmp_path / "new")
    with pytest.raises(OSError, match="cannot load the language model"):
        GaitLLM.from_pretrained(tmp_path / "saved")
    loaded = GaitLLM.from_pretrained(tmp_path / "saved", llm=str(tmp_path / "new"))
    clips = torch.rand(1, 5, 16, 12)
    assert torch.equal(loaded(clips).embeddings, model(clips).embeddings)
    assert loaded.config_args()["llm"] == str(tmp_path / "new")

    other = transformers.AutoModel.from_pretrained(tmp_path / "new")
    other.layers[0].mlp.up_proj.weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="the llm that this checkpoint was trained with"):
        GaitLLM.from_pretrained(tmp_path / "saved", llm=str(tmp_path / "other"))


def test_saved_models_take_their_own_arguments_alone(tmp_path):
    gaitzoo.create_model("gaitbase_tiny").save_pretrained(tmp_path)
    model = gaitzoo.GaitBase.from_pretrained(tmp_path, embedding="bnneck")
    assert model.pretrained_cfg.embedding == "after_bn"
    with pytest.raises(TypeError, match="did you mean part_bins"):
        gaitzoo.GaitBase.from_pretrained(tmp_path, part_bin=(4,))
    with pytest.raises(ValueError, match="of another shape"):
        gaitzoo.GaitBase.from_pretrained(tmp_path, channels=(2, 3, 4, 6))


def test_language_models_load_without_a_report(tmp_path, caplog, capsys):
    # A file with more than the body: the layer that predicts words is left over.
    config = transformers.AutoConfig.for_model(**{**LLMS["qwen2"], "tie_word_embeddings": False})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    capsys.readouterr()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        FrozenLLM(str(tmp_path))
    finally:
        logger.removeHandler(caplog.handler)
    assert "lm_head" not in caplog.text + capsys.readouterr().err
    assert not logging.getLogger("transformers.modeling_utils").filters
