"""Checkpoints as trainers write them: prefixes, wrappers, what stands beside the weights."""

import argparse
import re
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gaitzoo
from gaitzoo import GaitModel, GaitOutput, PretrainedCfg, record_args, register_model
from gaitzoo.hub.checkpoint import to_our_layout
from gaitzoo.hub.reading import read_state_dict
from gaitzoo.models import registry as entries
from gaitzoo.models.conversion import rename_keys

NAME = "gaitbase_tiny"


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Few models, so that errors, which name the owners of a file, are quick."""
    known = {name: entries._ARCHITECTURES[name] for name in ("gaitbase", NAME, "dygait_tiny")}
    monkeypatch.setattr(entries, "_ARCHITECTURES", known)


@pytest.fixture
def model():
    return gaitzoo.create_model(NAME, num_classes=3)


def saved(content, folder, **args):
    torch.save(content, folder / "weights.pt", **args)
    return folder / "weights.pt"


def check(path, model, **args):
    loaded = gaitzoo.create_model(NAME, checkpoint_path=path, **args)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def refused(path, match, kind=ValueError):
    with pytest.raises(kind, match=match) as caught:
        gaitzoo.create_model(NAME, checkpoint_path=path)
    text = str(caught.value)
    assert text.isprintable()
    return text


def prefixed(state_dict, prefix):
    return {prefix + key: value for key, value in state_dict.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "a.b.c."],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_common_prefixes(model, tmp_path, prefix, suffix):
    state = prefixed(model.state_dict(), prefix)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        gaitzoo.hub.reading.write_safetensors(path, state)
    check(path, model)
    check(path, model, num_classes=3)
    other = gaitzoo.create_model(NAME, num_classes=0, checkpoint_path=path)
    assert torch.equal(other.part_fc.weight, model.part_fc.weight)


def test_wrappers_inside_the_names(model, tmp_path):
    """A compiled or sharded backbone inside a model that is not."""
    state = {
        re.sub(r"^backbone\.", "backbone._orig_mod._fsdp_wrapped_module.", key): value
        for key, value in model.state_dict().items()
    }
    check(saved(state, tmp_path), model)


class Nested(GaitModel):
    """All of it in one module, as in another that a trainer might have made."""

    @record_args
    def __init__(self, *, num_classes: int = 0) -> None:
        super().__init__()
        self.model = nn.Linear(2, 3)


@pytest.mark.parametrize("prefix", ["", "model.", "model.model.", "module."])
def test_prefixes_that_are_names_of_the_model_stay(tmp_path, prefix):
    register_model("nested", Nested)
    model = gaitzoo.create_model("nested")
    path = saved(prefixed(model.state_dict(), prefix), tmp_path)
    again = gaitzoo.create_model("nested", checkpoint_path=path)
    assert torch.equal(again.model.weight, model.model.weight)


def test_a_prefix_of_most_names_leaves_the_others_over(model, tmp_path):
    state = prefixed(model.state_dict(), "model.") | {"loss.centers": torch.ones(3)}
    refused(saved(state, tmp_path), r"got 1 left over \(loss\.centers\); it fits no model")
    both = prefixed(model.state_dict(), "student.") | prefixed(model.state_dict(), "teacher.")
    refused(saved(both, tmp_path), "keys like student")
    long = prefixed(model.state_dict(), "a." * 50)
    refused(saved(long, tmp_path), "keys like a.a.a")


def test_prefixes_of_the_authors_layout(tmp_path):
    model = gaitzoo.create_model("dygait_tiny", num_classes=3)
    layout = {key: f"their.{key}" for key in model.state_dict()}
    back = {theirs: ours for ours, theirs in layout.items()}

    def convert(state_dict):
        return rename_keys(state_dict, back.get, "DyGait")

    entries._ARCHITECTURES["dygait_tiny"] = replace(
        entries._ARCHITECTURES["dygait_tiny"], convert=convert
    )
    theirs = {layout[key]: value for key, value in model.state_dict().items()}
    for prefix in ("", "module.", "model.module.", "their."):
        found = to_our_layout(prefixed(theirs, prefix), "dygait_tiny", "file")
        assert found.keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model_state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"my_gait_net": state, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"state_dict_ema": state, "state_dict": None},
        lambda state: {"ema": prefixed(state, "module."), "model": {}},
        lambda state: {"n_averaged": torch.tensor(7), **prefixed(state, "module.")},
        lambda state: {
            "state_dict": {
                **state,
                "total_ops": torch.zeros(1),
                "backbone.total_params": torch.zeros(1),
            }
        },
        lambda state: {k: v for k, v in state.items() if "num_batches_tracked" not in k},
    ],
)
def test_other_dictionaries(model, tmp_path, wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(saved(wrap(OrderedDict(model.state_dict())), tmp_path), model)


def test_which_of_several_sets_was_taken_is_said(model, tmp_path):
    other = gaitzoo.create_model(NAME, num_classes=3)
    path = saved({"state_dict": other.state_dict(), "state_dict_ema": model.state_dict()}, tmp_path)
    with pytest.warns(UserWarning, match="'state_dict_ema' was taken, not 'state_dict'"):
        check(path, model)
    path = saved({"student": other.state_dict(), "teacher": model.state_dict()}, tmp_path)
    refused(path, "expected one set of parameters in .*, got 'student', 'teacher'; save one")


def test_counters_of_batch_norms_stay_where_a_file_has_none(model, tmp_path):
    state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    other = gaitzoo.create_model(NAME, num_classes=3)
    counters = [b for name, b in other.named_buffers() if "num_batches_tracked" in name]
    for counter in counters:
        counter.fill_(5)
    gaitzoo.load_checkpoint(other, saved(state, tmp_path))
    assert counters
    assert all(counter == 5 for counter in counters)


NUMBERS = {
    "best": np.float64(0.5),
    "half": np.float16(2),
    "epoch": np.int64(3),
    "flag": np.bool_(True),
    "word": np.str_("x"),
    "history": np.arange(4.0),
    "random": ("MT19937", np.arange(624, dtype=np.uint32), 1),
    "kind": np.dtype(">f4"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpy_numbers_beside_the_weights(model, tmp_path, zipped, core, monkeypatch):
    path = saved({"model": model.state_dict(), **NUMBERS}, tmp_path)
    if not zipped:
        path = saved(
            {"model": model.state_dict(), **NUMBERS},
            tmp_path,
            _use_new_zipfile_serialization=False,
        )
        content = path.read_bytes()
        for old in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
            content = content.replace(old, f"{core}.multiarray".encode())
        path.write_bytes(content)
    # torch keeps a set, whose order as a list changes with what else has been added and removed.
    allowed = torch.serialization.get_safe_globals()
    check(path, model)
    after = torch.serialization.get_safe_globals()
    assert len(after) == len(allowed)
    assert set(after) == set(allowed)


def test_numpy_arrays_are_no_parameters(tmp_path):
    path = saved({"model": {"a": np.ones(3)}}, tmp_path)
    refused(path, "expected .* to hold parameters .* got a dictionary with 'a'")


class Odd:
    pass


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (Path("somewhere"), "pathlib"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (Odd(), f"{__name__}.Odd"),
    ],
)
def test_other_objects_are_refused_by_name(model, tmp_path, thing, name, zipped):
    content = {"model": model.state_dict(), "score": np.float64(1), "thing": thing}
    path = saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
    text = refused(path, rf"refused to read .* got the object {re.escape(name)}.*could run code")
    assert "with the arguments" not in text


def test_names_from_a_file_hold_no_control_codes(tmp_path):
    refused(saved({"\x1b[31mred\n": torch.ones(1)}, tmp_path), r"keys like \?\[31mred\?")
    content = {"\x1b[31m.a": torch.zeros(1).to_sparse()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(saved(content, tmp_path), "plain dense")


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
    ids=["parallel", "compiled", "both"],
)
def test_wrapped_models_are_loaded_and_saved(model, tmp_path, wrap):
    target = gaitzoo.create_model(NAME, num_classes=3)
    gaitzoo.load_checkpoint(wrap(target), saved(model.state_dict(), tmp_path))
    assert torch.equal(target.part_fc.weight, model.part_fc.weight)
    check(saved({"model": wrap(model).state_dict()}, tmp_path), model)


def test_modules_that_are_no_models_are_refused(model, tmp_path):
    path = saved(model.state_dict(), tmp_path)
    for other in (nn.Linear(1, 1), nn.DataParallel(nn.Linear(1, 1)), "model"):
        with pytest.raises(TypeError, match=r"expected a gaitzoo model to load .*, got "):
            gaitzoo.load_checkpoint(other, path)


class TestAdvice:
    """What a message advises is what would help."""

    def test_arguments_only_where_they_differ(self, tmp_path):
        deep = gaitzoo.create_model(NAME, layers=(1, 1, 1, 2), num_classes=3)
        text = refused(saved(deep.state_dict(), tmp_path), "left over")
        assert f"build {type(deep).__name__} with the arguments that it was trained with" in text
        assert "channels" in text
        assert NAME in text
        check(saved(deep.state_dict(), tmp_path), deep, layers=(1, 1, 1, 2))

    @pytest.mark.parametrize("way", ["missing", "left over", "unknown"])
    def test_no_arguments_elsewhere(self, model, tmp_path, way):
        state = dict(model.state_dict())
        if way == "missing":
            del state["part_fc.weight"]
        elif way == "left over":
            state["part_fc.bias"] = torch.ones(1)
        else:
            state = {"encoder.weight": torch.ones(1)}
        match = "keys like encoder" if way == "unknown" else f"1 {way}"
        text = refused(saved(state, tmp_path), match)
        assert "it fits no model known here" in text
        assert "with the arguments" not in text

    def test_class_counts(self, model, tmp_path):
        path = saved(model.state_dict(), tmp_path)
        other = gaitzoo.create_model(NAME, num_classes=4)
        with pytest.raises(ValueError, match="3 classes: build the model with num_classes=3"):
            gaitzoo.load_checkpoint(other, path)
        without = gaitzoo.create_model(NAME, num_classes=0)
        with pytest.raises(ValueError, match="3 classes"):
            gaitzoo.load_checkpoint(without, path)
        with pytest.raises(ValueError, match="no classes: build the model with num_classes=0"):
            gaitzoo.load_checkpoint(model, saved(without.state_dict(), tmp_path))


class Heady(GaitModel):
    """A head that is not named ``neck``."""

    classifier_key = "head.fc"

    @record_args
    def __init__(self, *, width: int = 4, num_classes: int = 0) -> None:
        super().__init__()
        self.num_features, self.num_parts, self.in_channels = width, 1, 1
        self.body = nn.Linear(1, width)
        self.head = nn.Module()
        self.head.fc = nn.Linear(width, num_classes) if num_classes else None

    def forward(self, silhouettes, lengths=None):
        silhouettes, lengths = self.prepare(silhouettes, lengths)
        embeddings = self.body(silhouettes.mean((2, 3, 4))).unsqueeze(1)
        logits = self.head.fc(embeddings) if self.num_classes else None
        return GaitOutput(embeddings=embeddings, logits=logits)


class Unsaid(Heady):
    """The same, without a word about where its classifier is."""

    classifier_key = "neck.classifier"


class Classless(GaitModel):
    """No classes at all, and no argument for them."""

    @record_args
    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.num_features, self.num_parts, self.in_channels = width, 1, 1
        self.body = nn.Linear(1, width)


class TestHeadsOfOtherNames:
    @pytest.mark.parametrize("classes", [None, 0, 3, 7])
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_class_counts(self, tmp_path, classes, suffix):
        register_model("heady", Heady, {"a": PretrainedCfg(num_classes=9)})
        model = gaitzoo.create_model("heady", num_classes=3)
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pt":
            torch.save(model.state_dict(), path)
        else:
            gaitzoo.hub.reading.write_safetensors(path, model.state_dict())
        loaded = gaitzoo.create_model("heady", num_classes=classes, checkpoint_path=path)
        assert loaded.num_classes == (3 if classes is None else classes)
        assert torch.equal(loaded.body.weight, model.body.weight)
        model.save_pretrained(tmp_path / "saved")
        again = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}", num_classes=classes)
        assert again.num_classes == loaded.num_classes
        assert torch.equal(again.body.weight, model.body.weight)
        if classes in (None, 3):
            assert torch.equal(again.head.fc.weight, model.head.fc.weight)
            assert again(torch.rand(1, 2, 4, 3)).logits.shape == (1, 1, 3)

    def test_resetting_says_what_is_missing(self):
        with pytest.raises(ValueError, match=r"module around head\.fc of Heady that has reset_cl"):
            Heady(num_classes=3).reset_classifier(4)

    def test_a_head_that_is_not_declared(self, tmp_path):
        register_model("unsaid", Unsaid)
        model = gaitzoo.create_model("unsaid", num_classes=3)
        path = saved(model.state_dict(), tmp_path)
        with pytest.raises(ValueError, match=r'say so in .*: classifier_key = "head\.fc"'):
            gaitzoo.create_model("unsaid", checkpoint_path=path)
        assert gaitzoo.create_model("unsaid", checkpoint_path=path, num_classes=3).head.fc
        model.save_pretrained(tmp_path / "saved")
        again = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}")
        assert torch.equal(again.head.fc.weight, model.head.fc.weight)

    def test_models_without_classes(self, tmp_path):
        register_model("classless", Classless)
        model = gaitzoo.create_model("classless", width=5)
        model.save_pretrained(tmp_path / "saved")
        for classes in (None, 0):
            again = gaitzoo.create_model(f"local-dir:{tmp_path / 'saved'}", num_classes=classes)
            assert torch.equal(again.body.weight, model.body.weight)
        path = saved(model.state_dict(), tmp_path)
        again = gaitzoo.create_model("classless", width=5, checkpoint_path=path)
        assert torch.equal(again.body.weight, model.body.weight)
        assert read_state_dict(path).keys() == model.state_dict().keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_of_a_training_that_diverged_are_refused(model, tmp_path, value):
    broken = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    broken["part_fc.weight"].view(-1)[7] = value
    refused(saved(broken, tmp_path), r"NaN or infinite numbers in 1 of them \(part_fc\.weight\)")
