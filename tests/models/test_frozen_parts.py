"""What GaitLLM is built from and may be saved with: encoders by argument, parts kept elsewhere."""

import pytest
import torch
import transformers
from tiny_llms import LLMS, save_llm, tiny

import gaitzoo
from gaitzoo import GaitLLM
from gaitzoo.models.gaitllm.frozen_parts import fingerprint

TEN_LAYERS = {"layers": (1, 1, 1, 1)}
WIDE_LLM = {**LLMS["qwen2"], "hidden_size": 64, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def saved_llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llm"))


# ---------------------------------------------------------------------- encoders by argument


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("gaitllm", {}, TEN_LAYERS),
        ("gaitllm.ccpg", {"encoder": "deepgaitv2_2d"}, TEN_LAYERS),
        ("gaitllm", {"encoder_args": {"layers": (1, 2, 2, 1)}}, {"layers": (1, 2, 2, 1)}),
        ("gaitllm.grew", {"encoder_args": {}}, {"layers": (1, 4, 4, 1)}),
        ("gaitllm", {"encoder": "dygait"}, {}),
    ],
)
def test_ten_layers_are_for_encoders_that_have_layers(name, arguments, wanted):
    with torch.device("meta"):
        model = gaitzoo.create_model(name, llm=WIDE_LLM, num_classes=3, **arguments)
    assert {key: model.encoder.model_args[key] for key in wanted} == wanted


@torch.no_grad()
def test_modules_and_saved_models_are_encoders_of_every_tag(tmp_path):
    small = {"llm": LLMS["qwen2"], "token_dim": 8, "num_heads": 2, "input_size": (16, 12)}
    encoder = gaitzoo.create_model("gaitbase_tiny").eval()
    encoder.save_pretrained(tmp_path)
    for given in (encoder, f"local-dir:{tmp_path}", "gaitbase_tiny", "timm_frames_tiny"):
        model = gaitzoo.create_model("gaitllm", encoder=given, num_classes=3, **small).eval()
        assert model(torch.rand(1, 4, 16, 12)).embeddings.isfinite().all()


def test_lists_and_tuples_are_the_same_structure():
    encoder = gaitzoo.create_model("gaitbase_tiny", part_bins=[4, 2])
    assert tiny(encoder=encoder, encoder_args={"part_bins": (4, 2)}).num_parts == 7
    assert tiny(encoder=encoder, encoder_args={"part_bins": [4, 2]}).num_parts == 7
    with pytest.raises(ValueError, match="encoder built with"):
        tiny(encoder=encoder, encoder_args={"part_bins": [4]})


class OtherPool(torch.nn.Module):
    """Has the bands of the library's pooling and pools otherwise."""

    def __init__(self, part_bins):
        super().__init__()
        self.part_bins = part_bins


def test_heads_behind_another_pooling_are_not_taken_over():
    encoder = gaitzoo.create_model("gaitbase_tiny")
    encoder.part_pool = OtherPool(encoder.part_pool.part_bins)
    with pytest.raises(ValueError, match="warm_start_head=True"):
        tiny(encoder=encoder, warm_start_head=True)
    assert not torch.equal(tiny(encoder=encoder).part_fc.weight[:-1], encoder.part_fc.weight)


# ---------------------------------------------------------------------- checkpoints refused


@pytest.fixture
def stage1(tmp_path):
    gaitzoo.create_model("gaitbase_tiny").save_pretrained(tmp_path / "stage1")
    return f"local-dir:{tmp_path / 'stage1'}"


def other_weights(module):
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_parts_that_are_not_those_of_their_name_are_not_saved(part, stage1, saved_llm, tmp_path):
    model = tiny(encoder=stage1, llm=saved_llm)
    state = model.state_dict()
    module = model.encoder if part == "encoder" else model.llm.model
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.load_state_dict(other_weights(module))
    with pytest.raises(ValueError, match=f"expected the {part} as it came by the name"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Nor is it taken for what it was.
    assert not torch.equal(model.state_dict()[f"{part}.sha256"], state[f"{part}.sha256"])
    with pytest.raises(ValueError, match=f"the {part} that this checkpoint was trained with"):
        model.load_state_dict(state)
    module.load_state_dict(before)
    model.load_state_dict(state)
    # A way of writing that leaves no trace in the tensor's version.
    next(iter(module.parameters())).data.add_(1)
    with pytest.raises(ValueError, match=f"expected the {part} as it came by the name"):
        model.save_pretrained(tmp_path / "out")
    kept = tiny(encoder=model.encoder, llm=model.llm.model)
    kept.save_pretrained(tmp_path / "out")
    loaded = GaitLLM.from_pretrained(tmp_path / "out")
    for name in ("encoder", "llm"):
        assert fingerprint(getattr(loaded, name)) == fingerprint(getattr(kept, name))


@pytest.mark.parametrize("part", ["encoder", "llm"])
def test_checkpoints_without_a_hash_or_with_the_part_are_refused(part, stage1, saved_llm):
    model = tiny(encoder=stage1, llm=saved_llm)
    state = model.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    without = {key: value for key, value in state.items() if key != f"{part}.sha256"}
    module = model.encoder if part == "encoder" else model.llm.model
    prefix = "encoder" if part == "encoder" else "llm.model"
    tensors = {f"{prefix}.{key}": value for key, value in other_weights(module).items()}
    before_part = {key: value.clone() for key, value in module.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(ValueError, match=f"{part}.sha256.* got no hash"):
            model.load_state_dict(without, strict=strict)
        for wrong in ({**state, **tensors}, {**without, **tensors}):
            with pytest.raises(ValueError, match=f"got tensors of the {part}"):
                model.load_state_dict(wrong, strict=strict)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(v, before_part[k]) for k, v in module.state_dict().items())


def test_parts_of_a_larger_model_load_apart(stage1, saved_llm):
    holder = torch.nn.ModuleDict(
        {"walks": tiny(encoder=stage1, llm=saved_llm), "faces": torch.nn.Linear(2, 2)}
    )
    faces = {k: v + 1 for k, v in holder.state_dict().items() if k.startswith("faces.")}
    holder.load_state_dict(faces, strict=False)
    assert torch.equal(holder["faces"].weight, faces["faces.weight"])


class OwnGaitBase(type(gaitzoo.create_model("gaitbase_tiny"))):
    """Somebody's own layers under the name of the library's."""


def test_models_that_no_name_builds_are_not_saved(tmp_path):
    plain = gaitzoo.create_model("gaitbase_tiny").eval()
    own = OwnGaitBase(**plain.model_args)
    for encoder in (own, gaitzoo.fuse_for_inference(plain)):
        with pytest.raises(ValueError, match="a folder cannot rebuild"):
            tiny(encoder=encoder).save_pretrained(tmp_path)
    double = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(**LLMS["qwen2"])
    ).double()
    with pytest.raises(ValueError, match="got one in float64; build the model with llm_dtype"):
        tiny(llm=double).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a plain model to save"):
        gaitzoo.fuse_for_inference(tiny()).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_folders_of_this_machine_are_not_pushed(stage1, saved_llm):
    for arguments in ({"encoder": stage1}, {"llm": saved_llm}):
        part = next(iter(arguments))
        with pytest.raises(ValueError, match=f"expected the {part} by a name on the Hub"):
            tiny(**arguments).push_to_hub("organisation/name")


# ---------------------------------------------------------------------- kept features


@torch.no_grad()
def test_lengths_of_kept_features_may_be_any_integers():
    model = tiny().eval()
    features, wanted_lengths = torch.rand(2, 5, 9, 4, 3), torch.tensor([9, 4])
    wanted = model(features=features, lengths=wanted_lengths).embeddings
    for dtype in (torch.uint8, torch.int16, torch.int32):
        lengths = wanted_lengths.to(dtype)
        assert torch.equal(model(features=features, lengths=lengths).embeddings, wanted)
        assert model.find_peaks(features=features, lengths=lengths).lengths.tolist() == [5, 2]
