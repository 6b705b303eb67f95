"""Models saved, pushed to a Hub, loaded from there, and their cards."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hub_world import ARGS, Hostile, open_world

import gaitzoo
from gaitzoo.hub import structure
from gaitzoo.models.dygait import DyGait

pytestmark = pytest.mark.filterwarnings("ignore::gaitzoo.LicenseWarning")


@pytest.fixture
def world(monkeypatch, tmp_path):
    with open_world(monkeypatch, tmp_path) as world:
        yield world


def save(model, folder, **args):
    model.save_pretrained(folder, **args)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestSharing:
    def test_saved_models_load_from_the_hub(self, world):
        saved = save(world.model, world.home / "saved")
        assert sorted(saved) == ["README.md", "config.json", "model.safetensors"]
        commit = world.hub.add("me/mine", saved)
        world.hub.add("me/mine", {"config.json": b"{}"})
        with pytest.raises(ValueError, match="written by gaitzoo"):
            gaitzoo.create_model("hf-hub:me/mine")
        model = gaitzoo.create_model(f"hf-hub:me/mine@{commit}")
        world.check(model)
        assert model.training
        assert not DyGait.from_pretrained("me/mine", revision=commit).training
        world.hub.stop()
        args = {"revision": commit, "num_classes": 0, "local_files_only": True}
        world.check(gaitzoo.GaitModel.from_pretrained("me/mine", **args), 0)

    def test_the_scheme_decides_where_to_look(self, world, monkeypatch):
        monkeypatch.chdir(world.home)
        save(world.model, Path("me") / "mine")
        world.check(gaitzoo.create_model("local-dir:me/mine"))
        with pytest.raises(FileNotFoundError, match="no such repository"):
            gaitzoo.create_model("hf-hub:me/mine")
        with pytest.raises(ValueError, match=r"'hf-hub:me/my\.net'.*'local-dir:me/my\.net'"):
            gaitzoo.create_model("me/my.net")
        with pytest.raises(FileNotFoundError, match="a folder after local-dir:"):
            gaitzoo.create_model("local-dir:nowhere")
        with pytest.raises(ValueError, match="organisation/name@revision"):
            gaitzoo.create_model("hf-hub:me/mine@")
        with pytest.raises(ValueError, match="num_classes at most, got channels"):
            gaitzoo.create_model("local-dir:me/mine", channels=(2, 2, 2))
        with pytest.raises(ValueError, match="a saved Other, got a DyGait"):
            type("Other", (gaitzoo.GaitModel,), {}).from_pretrained("me/mine")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("config.json", b"{", "config.json is damaged"),
            ("config.json", b"\xff\xfe", "config.json is damaged"),
            ("config.json", b"[]", "written by gaitzoo"),
            ("config.json", b"moved", "config.json is damaged"),
            ("model.safetensors", b"moved", "no safetensors file"),
        ],
    )
    def test_damaged_folders_are_refused(self, world, name, content, message):
        save(world.model, world.home / "saved")
        (world.home / "saved" / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            gaitzoo.create_model(f"local-dir:{world.home / 'saved'}")
        (world.home / "saved" / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"expected {name}"):
            gaitzoo.create_model(f"local-dir:{world.home / 'saved'}")

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('"dygait"', '"moon"'),
            ('"part_bins"', '"depth"'),
            ('"after_bn"', '"sideways"'),
            ('"after_bn"', '"before_bn"'),
            ('"channels": [', '"channels": [4611686018427387904, '),
            ('"license": "unknown"', '"license": 3'),
            ('"value_range": [', '"value_range": ["a", '),
            ('"input_size": [', '"input_size": "ab", "notes": ['),
        ],
    )
    def test_unknown_configurations_are_refused(self, world, before, after):
        saved = save(world.model, world.home / "saved")["config.json"].decode()
        assert before in saved
        (world.home / "saved" / "config.json").write_text(saved.replace(before, after))
        with pytest.raises(ValueError, match=r"does not describe a .* can build"):
            gaitzoo.create_model(f"local-dir:{world.home / 'saved'}")

    def test_deeply_nested_configurations_are_refused(self, world):
        save(world.model, world.home / "saved")
        (world.home / "saved" / "config.json").write_text("[" * 100_000)
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            gaitzoo.create_model(f"local-dir:{world.home / 'saved'}")

    @pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
    def test_push_and_load_again(self, world):
        url = world.model.push_to_hub(
            "club/walkers", token="hf_test", model_card={"training_data": "Ten walkers."}
        )
        assert "/club/walkers/commit/" in url
        files = world.hub.repositories["club/walkers"].files("main")
        assert {"README.md", "config.json", "model.safetensors"} <= set(files)
        assert world.hub.count("PUT", "/upload/") == 1
        assert world.hub.count("POST", "/verify") == 1
        card = files["README.md"].decode()
        assert 'create_model("hf-hub:club/walkers")' in card
        assert "Ten walkers." in card
        world.check(gaitzoo.create_model("hf-hub:club/walkers"))

    @pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
    def test_push_to_a_branch_of_ones_own(self, world):
        world.hub.add("somebody/walkers", {"other.txt": b"x"}, branch="next")
        world.model.push_to_hub("walkers", token="hf_test", branch="next")
        card = world.hub.repositories["somebody/walkers"].files("next")["README.md"].decode()
        assert 'create_model("hf-hub:somebody/walkers@next")' in card
        world.check(gaitzoo.create_model("hf-hub:somebody/walkers@next"))

    def test_push_without_permission(self, world):
        with pytest.raises(PermissionError, match="hf auth login"):
            world.model.push_to_hub("club/walkers")
        with pytest.raises(ValueError, match="'organisation/name', got 'a/b/c'"):
            world.model.push_to_hub("a/b/c", token="hf_test")
        assert "club/walkers" not in world.hub.repositories


def test_no_weights_are_loaded_onto_the_meta_device(world):
    """Numbers would be lost there: an error instead of an empty model."""
    saved = save(world.model, world.home / "saved")
    world.hub.add("me/mine", saved)
    path = str(world.home / "saved" / "model.safetensors")
    for args in (
        {"name": "wired.test", "pretrained": True},
        {"name": "wired.test", "checkpoint_path": path},
        {"name": "hf-hub:me/mine"},
        {"name": f"local-dir:{world.home / 'saved'}"},
    ):
        with (
            torch.device("meta"),
            pytest.raises(ValueError, match=r"expected a device with memory .*, got the meta"),
        ):
            gaitzoo.create_model(**args)
    with torch.device("meta"):
        assert gaitzoo.create_model("wired.test").part_fc.weight.is_meta


def test_classes_that_the_registry_does_not_build_are_not_saved(world):
    class Mine(DyGait):
        pass

    with pytest.raises(ValueError, match=r'builds a DyGait; call gaitzoo\.register_model\("mine"'):
        Mine(**ARGS).save_pretrained(world.home / "saved")
    assert not (world.home / "saved" / "config.json").exists()
    gaitzoo.register_model("mine", Mine)
    Mine(**ARGS).save_pretrained(world.home / "saved")
    assert type(gaitzoo.create_model(f"local-dir:{world.home / 'saved'}")) is Mine


def test_models_registered_twice_are_replaced_with_a_warning(world):
    save(world.model, world.home / "saved")
    with pytest.warns(UserWarning, match="'dygait' was registered already"):
        gaitzoo.register_model("dygait", DyGait)
    world.check(gaitzoo.create_model(f"local-dir:{world.home / 'saved'}"))


class TestCard:
    def card(self, model, folder, **sections):
        return save(model, folder, model_card=sections or None)["README.md"].decode()

    def test_what_nobody_said_is_not_invented(self, world):
        text = self.card(
            gaitzoo.create_model("wired.none", num_classes=3, **ARGS), world.home / "a"
        )
        assert "| Architecture | `dygait` |" in text
        assert "not stated by whoever saved this model" in text
        assert "license:" not in text
        assert "None measured." in text
        for title in ("Use", "Training data", "Results", "Intended use", "Limits"):
            assert f"## {title}\n" in text

    def test_published_weights_bring_their_terms(self, world):
        world.register(
            training_data="Gait of 5 people.", metrics={"rank1": 64.6, "protocol": "any"}
        )
        text = self.card(world.load(), world.home / "a")
        assert "if this model started from them: academic use only" in text
        assert "license: other" in text
        assert "Gait of 5 people." in text
        assert "published by their authors" in text
        assert "- rank1: 64.6" in text

    def test_sections_can_be_written(self, world):
        sections = {"license": "MIT", "limits": "Only cats.", "results": "Rank-1 12 %."}
        text = self.card(world.model, world.home / "a", **sections)
        assert "license: mit" in text
        assert "Only cats." in text
        with pytest.raises(ValueError, match=r"among license, .*, got colour"):
            world.model.save_pretrained(world.home / "a", model_card={"colour": "red"})

    def test_the_card_says_how_the_code_stands_to_its_authors(self, world, monkeypatch):
        model = world.model
        assert "of the code | parity: gives the numbers of" in self.card(model, world.home / "a")
        rebuilt = dataclasses.replace(model.pretrained_cfg, fidelity="reconstruction")
        monkeypatch.setattr(model, "pretrained_cfg", rebuilt)
        assert "| reconstruction: built from an abstract" in self.card(model, world.home / "a")

    @pytest.mark.parametrize(
        ("name", "reads", "load"),
        [
            ("gaitset_tiny", "silhouettes", 'load_silhouettes("folder_of_frames")'),
            ("biggait_tiny", "rgb", 'load_sequence("folder_of_frames", "rgb")'),
            (
                "depthgait_tiny",
                "silhouettes and depth",
                'load_sequence("folder", ("silhouettes", "depth"))',
            ),
        ],
    )
    def test_the_card_loads_what_the_model_reads(self, name, reads, load, tmp_path):
        text = self.card(gaitzoo.create_model(name), tmp_path / "a")
        assert f"sequences of\n{reads} in, embeddings" in text
        assert f"sequence = gaitzoo.{load}\n" in text

    def test_a_second_save_replaces_the_card(self, world):
        self.card(world.model, world.home / "a")
        other = DyGait(num_classes=0, **ARGS)
        assert "| Classes | 0 |" in self.card(other, world.home / "a")
        assert gaitzoo.create_model(f"local-dir:{world.home / 'a'}").num_classes == 0
        assert len(list((world.home / "a").iterdir())) == 3


def saved_with(folder, model, **changes):
    """A saved model whose configuration somebody has changed."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"].update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [200_000] * 4}, "of another shape"),
        ({"channels": [2**62] * 4}, "does not describe"),
        ({"part_bins": [2**62]}, "does not describe"),
    ],
)
def test_no_memory_is_taken_for_strange_sizes(changes, message, tmp_path):
    name = saved_with(tmp_path, gaitzoo.create_model("deepgaitv2_p3d_tiny"), **changes)
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model(name)


@pytest.mark.parametrize(
    ("layers", "message"),
    [(10_000, "at most 5,000 tensors"), (2**62, "at most 5,000 tensors|does not describe")],
)
def test_strange_depths_end_soon(layers, message, tmp_path, monkeypatch):
    # A tenth of the limit is reached in a tenth of the time.
    assert structure._MOST_TENSORS == 50_000
    monkeypatch.setattr(structure, "_MOST_TENSORS", 5_000)
    model = gaitzoo.create_model("deepgaitv2_p3d_tiny")
    name = saved_with(tmp_path, model, layers=[1, 1, 1, layers])
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels as a positive"),
        ({"channels": -1}, "channels as a positive"),
        ({"backbone": "resnet18.moon"}, "unknown tag 'moon'"),
        ({"backbone": "resnet18"}, "hold exactly the parameters"),
    ],
)
def test_strange_timm_networks_are_refused(changes, message, tmp_path):
    name = saved_with(tmp_path, gaitzoo.create_model("timm_frames_tiny"), **changes)
    with pytest.raises(ValueError, match=message):
        gaitzoo.create_model(name)


def test_hostile_configurations_run_nothing(tmp_path):
    marker = tmp_path / "hostile"
    torch.save({"state_dict": Hostile(marker)}, tmp_path / "evil.pth")
    hostile = {
        "pretrained_backbone": True,
        "backbone_args": {"checkpoint_path": str(tmp_path / "evil.pth")},
    }
    name = saved_with(tmp_path / "saved", gaitzoo.create_model("timm_frames_tiny"), **hostile)
    with pytest.raises(ValueError, match="backbone_args without 'checkpoint_path'"):
        gaitzoo.create_model(name)
    assert not marker.exists()
