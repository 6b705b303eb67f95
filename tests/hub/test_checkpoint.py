"""Files of weights: read whole or refused, and never run."""

import os
import random
import re
import zipfile
from collections import Counter, OrderedDict
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import gaitzoo
from gaitzoo.hub.reading import check_file, read_state_dict, write_safetensors
from gaitzoo.models import registry as entries
from gaitzoo.models.dygait import DyGait
from gaitzoo.models.registry import register_model

# The deep network, narrow, as its authors' file would be; few models, so that errors are quick.
DEEP = {"channels": (2, 2, 3, 4)}
CLASSES = 6


def other_net(**model_args) -> DyGait:
    return DyGait(**{"channels": (1, 2, 3), "part_bins": (2,), **model_args})


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """DyGait alone, with two narrow tags, and another model."""
    dygait = entries._ARCHITECTURES["dygait"]
    narrow = {
        tag: replace(cfg, model_args={**cfg.model_args, **DEEP})
        for tag, cfg in dygait.cfgs.items()
        if tag in ("grew", "gait3d")
    }
    known = {"dygait": replace(dygait, cfgs=narrow)}
    monkeypatch.setattr(entries, "_ARCHITECTURES", known)

    register_model("other_net", other_net)


def net(name="dygait.grew", classes=CLASSES, **args):
    return gaitzoo.create_model(name, num_classes=classes, **args)


def authors_key(key):
    """Our name in the authors' file."""
    plain = {
        "aggregation.conv.weight": "LTA.0.conv3d.weight",
        "part_pool.p": "HPP.p",
        "part_fc.weight": "Head0.fc_bin",
        "neck.classifier.weight": "BNNecks.fc_bin",
    }
    if key in plain:
        return plain[key]
    if key.startswith("neck.bn."):
        return key.replace("neck.bn", "BNNecks.bn1d")
    block = re.fullmatch(
        r"blocks\.(\d)\.stage(\d)\.(parallel|dam\.dynamic|dam\.static)\.weight", key
    )
    if block:
        letter = {"parallel": "g", "dam.dynamic": "d", "dam.static": "s"}[block[3]]
        return f"conv3d{block[1]}.conv{block[2]}{letter}.weight"
    return re.sub(r"blocks\.(\d)\.shortcut", r"conv3d\1.shortcut", key)


def authors_state(model):
    return OrderedDict((authors_key(key), value) for key, value in model.state_dict().items())


def training_state():
    """What stands beside the parameters in the authors' files."""
    return {
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(3)}},
            "param_groups": [{"lr": 0.1}],
        },
        "scheduler": {"milestones": Counter([20, 30]), "gamma": 0.1, "_last_lr": [0.1]},
        "iteration": 60000,
    }


def saved(content, path, **args):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path, **args)
    return path


def same(model, other, skip="nothing"):
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) for key in ours if skip not in key
    )


def refused(path, match, model=None, kind=ValueError):
    """The file is refused with this message, and the model is as it was."""
    model = model or net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(kind, match=match):
        gaitzoo.load_checkpoint(model, path)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(kind, match=match):
        net(classes=CLASSES, checkpoint_path=path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("layout", ["authors", "ours"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_layouts_in_both_formats(tmp_path, suffix, layout, prefix):
    model = net()
    state = authors_state(model) if layout == "authors" else model.state_dict()
    state = {prefix + key: value for key, value in state.items()}
    path = saved(state, tmp_path / f"weights{suffix}")
    assert same(net(checkpoint_path=path), model)
    other = net()
    gaitzoo.load_checkpoint(other, str(path))
    assert same(other, model)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, **training_state()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: OrderedDict(model=OrderedDict(state)),
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_of_parameters(tmp_path, wrap, zipped):
    model = net()
    path = tmp_path / "weights.pt"
    saved(wrap(authors_state(model)), path, _use_new_zipfile_serialization=zipped)
    assert same(net(checkpoint_path=path), model)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("classes", [None, CLASSES, 0, 3])
def test_class_counts(tmp_path, suffix, classes):
    model = net()
    path = saved(model.state_dict(), tmp_path / f"weights{suffix}")
    loaded = net(classes=classes, checkpoint_path=path)
    assert loaded.num_classes == (CLASSES if classes is None else classes)
    if classes in (None, CLASSES):
        assert same(loaded, model)
    else:
        for key, value in loaded.state_dict().items():
            assert torch.equal(model.state_dict()[key], value) or "classifier" in key


def test_files_without_classes(tmp_path):
    model = net(classes=0)
    path = saved(authors_state(model), tmp_path / "weights.pt")
    assert same(net(classes=None, checkpoint_path=path), model)
    fresh = net(classes=4, checkpoint_path=path)
    assert fresh.num_classes == 4
    with pytest.raises(ValueError, match=r"1 missing \(neck\.classifier\.weight\)"):
        gaitzoo.load_checkpoint(net(), path)


def test_load_checkpoint_wants_the_models_own_class_count(tmp_path):
    path = saved(net(classes=3).state_dict(), tmp_path / "weights.pt")
    model = net()
    with pytest.raises(ValueError, match=r"neck\.classifier\.weight \[31, 4, 3\] instead of"):
        gaitzoo.load_checkpoint(model, path)


@pytest.mark.parametrize("layout", ["authors", "ours"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_missing_extra_and_misshapen_parameters(tmp_path, layout, suffix):
    state = authors_state(net()) if layout == "authors" else net().state_dict()
    state = {key: value.clone() for key, value in state.items()}
    path = tmp_path / f"weights{suffix}"
    key = authors_key("part_pool.p") if layout == "authors" else "part_pool.p"

    saved({name: value for name, value in state.items() if name != key}, path)
    refused(path, r"1 missing \(part_pool\.p\).*Nothing was loaded")
    saved({**state, key: torch.ones(2)}, path)
    refused(path, r"1 of another shape \(part_pool\.p \[2\] instead of \[1\]\)")
    saved({**state, key: torch.ones(1, dtype=torch.int64)}, path)
    refused(path, r"another kind of number \(part_pool\.p torch\.int64 instead of torch\.float32\)")
    saved({**state, "surprise": torch.ones(1)}, path)
    expected = "looks like the authors' dygait, but 1 key" if layout == "authors" else "1 left over"
    refused(path, f"{expected}.*surprise")


def test_owners_of_a_file_are_named(tmp_path):
    path = saved(authors_state(net("dygait.gait3d")), tmp_path / "weights.pt")
    refused(path, r"it fits dygait\.gait3d\.")
    path = saved(net("other_net").state_dict(), tmp_path / "weights.safetensors")
    refused(path, r"it fits other_net\.")
    path = saved({"encoder.weight": torch.ones(2)}, tmp_path / "weights.pt")
    refused(path, r"keys like encoder\.weight; it fits no model known here")


def test_converters_may_refuse_with_a_plain_error(tmp_path, monkeypatch):
    def convert(_):
        raise ValueError("not mine")

    known = dict(entries._ARCHITECTURES)
    known["dygait"] = replace(known["dygait"], convert=convert)
    monkeypatch.setattr(entries, "_ARCHITECTURES", known)
    model = net()
    assert same(net(checkpoint_path=saved(model.state_dict(), tmp_path / "a.pt")), model)
    refused(saved({"moon": torch.ones(1)}, tmp_path / "b.pt"), "keys like moon")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_numbers_are_cast_to_the_models(tmp_path, dtype, suffix):
    model = net()
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    loaded = net(checkpoint_path=saved(state, tmp_path / f"weights{suffix}"))
    for key, value in loaded.state_dict().items():
        assert value.dtype == model.state_dict()[key].dtype
        assert torch.equal(value, state[key].to(value.dtype))
    double = net().double()
    gaitzoo.load_checkpoint(double, tmp_path / f"weights{suffix}")
    assert double.part_fc.weight.dtype == torch.float64


def test_loaded_parameters_do_not_depend_on_the_file(tmp_path):
    model = net()
    for suffix in (".pt", ".safetensors"):
        path = saved(model.state_dict(), tmp_path / f"weights{suffix}")
        loaded = net(checkpoint_path=path)
        path.write_bytes(bytes(path.stat().st_size))
        path.unlink()
        assert same(loaded, model)
        assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "got list"),
        ({}, "got a dictionary with nothing"),
        ({"model": {}}, "got a dictionary with nothing"),
        ({"model": {"a": 1}}, "got a dictionary with 'a'"),
        ({"iteration": 3}, "got a dictionary with 'iteration'"),
        ({3: torch.ones(1)}, "got a dictionary with 3"),
        (torch.ones(3), "got Tensor"),
        ({"a": torch.ones(3).to_sparse()}, "plain dense tensors"),
        ({"a": torch.ones(3, device="meta")}, "plain dense tensors"),
        ({"a": torch.ones(1).expand(10**9)}, "plain dense tensors"),
    ],
)
def test_files_that_hold_something_else(tmp_path, content, message):
    refused(saved(content, tmp_path / "weights.pt"), message)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 64, b"text\n" * 40, b"PK\x03\x04" + b"x" * 60, b"\x80\x02."]
)
def test_files_of_other_kinds(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refused(path, "damaged|no torch file")


def test_paths_that_are_no_files(tmp_path):
    refused(tmp_path / "nothing.pt", "expected a file of weights", kind=FileNotFoundError)
    refused(tmp_path, "expected a file of weights", kind=FileNotFoundError)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_damage_is_an_error_or_harmless(tmp_path, kind):
    """Cut anywhere, or with bytes changed: a clear refusal or tensors, never another error."""
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    state = {"a": torch.ones(3, 4), "b": torch.zeros(2)}
    extra = {} if kind == "safetensors" else {"_use_new_zipfile_serialization": kind == "zip"}
    saved(state if kind == "safetensors" else {"model": state}, path, **extra)
    good = path.read_bytes()
    generator = random.Random(0)
    refusals = 0
    for trial in range(400):
        bad = bytearray(good)
        if trial % 3 == 0:
            del bad[generator.randrange(len(bad)) :]
        else:
            for _ in range(generator.choice((1, 2, 5, 20))):
                bad[generator.randrange(len(bad))] = generator.randrange(256)
        path.write_bytes(bad)
        try:
            found = read_state_dict(path)
        except ValueError:
            refusals += 1
        else:
            assert all(isinstance(value, torch.Tensor) for value in found.values())
    assert refusals > 150


class Hostile:
    """Runs code when it is unpickled by a reader that admits anything."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.ckpt", "weights"])
def test_hostile_pickles_run_nothing(tmp_path, zipped, name):
    marker = tmp_path / "hostile"
    content = {"model": authors_state(net()), "extra": Hostile(marker)}
    path = saved(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    refused(path, "refused to read .*could run code")
    assert not marker.exists()


def test_a_pickle_named_safetensors_is_not_unpickled(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    torch.save(net().state_dict(), path)
    monkeypatch.setattr(torch, "load", None)
    refused(path, "no safetensors file")


def test_zips_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "weights.pt", "damaged or no torch file")


class TestWriting:
    def test_nothing_is_left_of_a_write_that_fails(self, tmp_path, monkeypatch):
        path = tmp_path / "weights.safetensors"
        write_safetensors(path, {"a": torch.ones(2)}, {"origin": "here"})
        before = path.read_bytes()

        def fail(*_, **__):
            raise OSError("no room")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no room"):
            write_safetensors(path, {"a": torch.zeros(2)})
        assert [found.name for found in tmp_path.iterdir()] == ["weights.safetensors"]
        assert path.read_bytes() == before

    def test_what_safetensors_reports_is_an_os_error(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            write_safetensors(tmp_path / "nowhere" / "weights.safetensors", {"a": torch.ones(2)})

    @pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
    def test_others_may_read_what_is_written(self, tmp_path):
        before = os.umask(0o022)
        try:
            write_safetensors(tmp_path / "weights.safetensors", {"a": torch.ones(2).expand(3, 2)})
        finally:
            os.umask(before)
        assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o644


def test_check_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    cfg = gaitzoo.PretrainedCfg(
        sha256="BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", size=3
    )
    check_file(path, cfg)
    check_file(path, replace(cfg, size=None))
    with pytest.raises(ValueError, match="to have 4 bytes, got 3"):
        check_file(path, replace(cfg, size=4))
    with pytest.raises(ValueError, match=r"to have the sha256 0+, got ba7816"):
        check_file(path, replace(cfg, sha256="0" * 64))
    with pytest.raises(ValueError, match="expected a sha256"):
        check_file(path, replace(cfg, sha256=None))
