"""Names, tags and what is known of them."""

import copy
import pickle

import pytest
import torch
from conftest import LISTED
from parity import GOLDEN

import gaitzoo
from gaitzoo import PretrainedCfg, register_model
from gaitzoo.models import registry as entries
from gaitzoo.models.conversion import rename_keys


@pytest.fixture
def registry(monkeypatch):
    """A registry that forgets what a test adds."""
    monkeypatch.setattr(entries, "_ARCHITECTURES", dict(entries._ARCHITECTURES))


def test_names_with_and_without_tags():
    assert gaitzoo.list_models("dygait*") == ["dygait"]
    assert gaitzoo.list_models("dygait.*") == [
        "dygait.casiab",
        "dygait.gait3d",
        "dygait.grew",
        "dygait.oumvlp",
        "dygait.walkers",
    ]
    assert gaitzoo.list_tags("dygait")[0] == gaitzoo.model_info("dygait").tag == "casiab"
    assert gaitzoo.list_models("nothing*") == []
    assert gaitzoo.is_model("dygait.grew")
    assert not gaitzoo.is_model("dygait.moon")
    assert not gaitzoo.is_model("dygait.")


def test_pretrained_lists_only_names_with_weights():
    names = gaitzoo.list_models(pretrained=True)
    assert all(gaitzoo.model_info(name).has_weights for name in names)
    everything = set(gaitzoo.list_models("*.*"))
    assert {n for n in everything if gaitzoo.model_info(n).has_weights} == set(names)


def test_unknown_names_are_answered_with_known_ones():
    with pytest.raises(ValueError, match=r"unknown model 'digait'; closest names: dygait"):
        gaitzoo.create_model("digait")
    with pytest.raises(ValueError, match=r"unknown tag 'moon' of 'dygait'; expected one of: "):
        gaitzoo.create_model("dygait.moon")
    with pytest.raises(ValueError, match=r"'hf-hub:org/repo'.*'local-dir:org/repo'"):
        gaitzoo.create_model("org/repo")
    with pytest.raises(ValueError, match="unknown model"):
        gaitzoo.list_tags("moon")
    with pytest.raises(ValueError, match="unknown tag ''"):
        gaitzoo.model_info("dygait.")
    with pytest.raises(ValueError, match="closest names: dygait"):
        gaitzoo.create_model("DYGAIT")


def test_tags_bring_their_structure_and_arguments_replace_it():
    model = gaitzoo.create_model("dygait.grew", channels=(2, 2, 2, 2))
    assert (model.num_parts, model.num_features, model.num_classes) == (31, 2, 20000)
    assert model.pretrained_cfg.name == "dygait.grew"
    assert gaitzoo.create_model("dygait.casiab", num_classes=7, channels=(2, 2, 2)).num_classes == 7
    wanted = r"expected arguments of dygait among .*channels.*, got headd; did you mean head\?"
    with pytest.raises(TypeError, match=wanted):
        gaitzoo.create_model("dygait", headd="bnneck")
    with pytest.raises(TypeError, match=r"of deepgaitv2_3d among .*layers.*, got depth"):
        gaitzoo.create_model("deepgaitv2_3d", depth=3)


def test_missing_weights_are_an_error_with_a_way_out():
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="checkpoint_path"):
        gaitzoo.create_model("dygait.grew", pretrained=True)
    with pytest.raises(ValueError, match=r"expected channels=.* which the weights"):
        gaitzoo.create_model("dygait.grew", pretrained=True, channels=(2, 2, 2, 2))
    with pytest.raises(ValueError, match="got both"):
        gaitzoo.create_model("dygait.grew", pretrained=True, checkpoint_path="file.pt")


@pytest.mark.usefixtures("registry")
def test_own_models_can_be_registered():
    class MyGait(torch.nn.Linear):
        def __init__(self, num_classes=0, width=2):
            super().__init__(width, num_classes)

    cfgs = {"mine": PretrainedCfg(num_classes=3), "other": PretrainedCfg(num_classes=4)}
    register_model("my_gait", MyGait, cfgs, tiny=PretrainedCfg(num_classes=2))
    assert gaitzoo.list_tags("my_gait") == ["mine", "other"]
    assert gaitzoo.create_model("my_gait.other").out_features == 4
    assert gaitzoo.create_model("my_gait_tiny", width=5).in_features == 5
    assert gaitzoo.model_info("my_gait").name == "my_gait.mine"
    assert "my_gait" in gaitzoo.list_models(module="test_registry")
    assert "my_gait_tiny" not in gaitzoo.list_models()
    with pytest.raises(ValueError, match="lower-case"):
        register_model("MyGait", MyGait)
    with pytest.raises(TypeError, match="class or function"):
        register_model("my_gait", "MyGait")


@pytest.mark.usefixtures("registry")
def test_a_name_that_is_taken_is_replaced_with_a_warning():
    def build(num_classes=0):
        return torch.nn.Linear(2, 1 + num_classes)

    with pytest.warns(UserWarning, match="'dygait' was registered already; it is replaced"):
        register_model("dygait", build, {"again": PretrainedCfg(num_classes=6)})
    assert gaitzoo.list_tags("dygait") == ["again"]
    assert gaitzoo.create_model("dygait").out_features == 7


def test_cfgs_cannot_be_changed_but_copied():
    cfg = gaitzoo.model_info("dygait.grew")
    with pytest.raises(TypeError):
        cfg.model_args["network"] = "shallow"
    with pytest.raises(AttributeError):
        cfg.tag = "other"
    assert pickle.loads(pickle.dumps(cfg)) == copy.deepcopy(cfg) == cfg
    with pytest.raises(ValueError, match='"before_bn", "after_bn" or "output"'):
        PretrainedCfg(embedding="middle")
    with pytest.raises(ValueError, match="among parity, paper, reconstruction, or empty, got 'x'"):
        PretrainedCfg(fidelity="x")


@pytest.mark.parametrize("name", LISTED)
def test_every_tag_says_what_people_must_know(name):
    for tag in gaitzoo.list_tags(name):
        cfg = gaitzoo.model_info(f"{name}.{tag}")
        assert cfg.license != "unknown" or not (cfg.metrics or cfg.has_weights)
        # A link, or the citation where there is no link.
        assert len(cfg.paper) > 20 or not cfg.metrics
        assert len(cfg.input_size) == 2
        # Walkers are shipped without their classifier, some authors train without one.
        has_none = cfg.tag == "walkers" or name in ("foundationgait", "gaitpart", "gaitset", "gln")
        has_none = has_none or entries.find_architecture(name).model_class.classifier_key is None
        assert cfg.num_classes > 0 or has_none
        if cfg.metrics:
            assert "protocol" in cfg.metrics
        if cfg.has_weights and cfg.url is None:
            assert cfg.size > 0
            assert len(cfg.sha256) == 64
        if not cfg.has_weights:
            assert cfg.unavailable


@pytest.mark.parametrize("name", LISTED)
def test_parity_is_claimed_only_with_outputs_of_the_authors_code(name):
    claims = {gaitzoo.model_info(f"{name}.{tag}").fidelity for tag in gaitzoo.list_tags(name)}
    # Backbones of timm are no gait system of others.
    tiny = f"{name}_tiny"
    claims |= {gaitzoo.model_info(tiny).fidelity} if gaitzoo.is_model(tiny) else set()
    assert len(claims) == 1
    assert claims != {""} or name.startswith("timm_")
    known = {path.name.split("_")[0] for path in GOLDEN.glob("*.safetensors")}
    assert "parity" not in claims or name.split("_")[0] in known


def test_two_keys_for_one_parameter_are_refused():
    state_dict = {"a": torch.zeros(1), "b": torch.ones(1)}
    with pytest.raises(ValueError, match="got several for weight"):
        rename_keys(state_dict, lambda _: "weight", "a model")


def test_frame_size_in_the_arguments_is_in_the_cfg():
    model = gaitzoo.create_model("timm_frames_tiny", input_size=(32, 24), num_classes=0)
    assert model.pretrained_cfg.input_size == (32, 24)
    frames = torch.rand(2, 32, 24)
    assert gaitzoo.embed(model, [frames], progress=False).shape[0] == 1
