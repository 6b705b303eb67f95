"""Weights from a Hub and from the package: what arrives, what is kept, what is refused."""

import contextlib
import errno
import io
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import environment, sha256
from hub_world import FILE, REPO, Hostile, authors_file, flip, open_world
from parity import golden_doc

import gaitzoo
from gaitzoo.hub import factory, reading
from gaitzoo.models import registry
from gaitzoo.models.dygait import DyGait

DEEPGAIT = registry.find_architecture("deepgaitv2_p3d")

pytestmark = pytest.mark.filterwarnings("ignore::gaitzoo.LicenseWarning")


@pytest.fixture
def world(monkeypatch, tmp_path):
    with open_world(monkeypatch, tmp_path) as world:
        yield world


def forbid_unpickling(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the file was unpickled")

    monkeypatch.setattr(torch, "load", refuse)


def test_weights_arrive_are_converted_and_kept(world):
    world.check(world.load())
    (kept,) = world.kept()
    assert kept.name == f"wired-{world.cfg.sha256}.safetensors"
    assert world.hub.count("GET", FILE) == 1
    assert list((world.home / "hub").rglob(Path(FILE).name))

    # From now on neither the original nor the network is needed.
    shutil.rmtree(world.home / "hub")
    asked = len(world.hub.requests)
    world.check(world.load())
    assert len(world.hub.requests) == asked
    world.hub.stop()
    world.check(world.load())


def test_the_cfg_stays_with_the_model(world):
    model = world.load()
    assert model.training
    assert model.pretrained_cfg.name == "wired.test"
    assert model.pretrained_cfg.sha256 == world.cfg.sha256


def test_cache_dir_holds_everything(world):
    world.check(world.load(cache_dir=world.home / "mine"))
    assert sorted(path.name for path in world.home.iterdir()) == ["mine"]
    world.hub.stop()
    world.check(world.load(cache_dir=str(world.home / "mine")))


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("classes", [0, 3, 5, None])
def test_class_counts(world, monkeypatch, classes, cold):
    if not cold:
        world.load()
    read = []

    class Spy:
        def __init__(self, path, framework):
            self.file = safe_open(path, framework=framework)

        def __enter__(self):
            self.inner = self.file.__enter__()
            return self

        def __exit__(self, *args):
            return self.file.__exit__(*args)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get_tensor(self, key):
            read.append(key)
            return self.inner.get_tensor(key)

    safe_open = reading.safe_open
    monkeypatch.setattr(reading, "safe_open", Spy)
    model = world.load(num_classes=classes)
    world.check(model, 5 if classes is None else classes)
    if not cold:
        # A class matrix can be most of a file: one that is not wanted is not even read.
        assert ("neck.classifier.weight" in read) == (classes in (5, None))


def test_license_is_shown_once_per_tag(world):
    with pytest.warns(gaitzoo.LicenseWarning, match="academic use only") as shown:
        gaitzoo.create_model("wired.test", pretrained=True)
    assert shown[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world.load()
        world.register(license="mit")
        world.load()
        gaitzoo.create_model("wired.test")


def test_license_warning_can_be_made_an_error_or_hidden(world):
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", gaitzoo.LicenseWarning)
            with pytest.raises(gaitzoo.LicenseWarning):
                world.load()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", gaitzoo.LicenseWarning)
        world.load()
    assert not shown


def test_no_weights_no_model(world):
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match=r"published.*weights for wired\.test"):
        gaitzoo.create_model("wired.none", pretrained=True)
    with pytest.raises(TypeError, match=r"'dygait\.grew'"):
        gaitzoo.create_model("wired", pretrained="test")
    with pytest.raises(ValueError, match="expected channels="):
        world.load(channels=(4, 4, 4))
    world.load(channels=[2, 4, 4])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"hub_id": "nobody/nothing"}, FileNotFoundError, "no such repository, or it is private"),
        ({"filename": "other.pt"}, FileNotFoundError, "the repository has no such file"),
        ({"revision": "moon"}, FileNotFoundError, "no revision 'moon'"),
        ({"hub_id": "not a name"}, ValueError, "'organisation/name', got 'not a name'"),
        ({"sha256": None}, ValueError, "expected hub_id, filename and sha256"),
    ],
)
def test_what_is_not_there_is_named(world, changes, kind, message):
    world.register(**changes)
    world.refused(kind, message)


def test_gated_repositories_say_how_to_get_in(world):
    world.hub.repositories[REPO].gated = True
    world.refused(PermissionError, "grant access on request")


def test_revisions_are_respected(world):
    first = world.hub.repositories[REPO].branches["main"]
    world.hub.add(REPO, {FILE: b"something else" * 100})
    world.register(revision=first)
    world.check(world.load())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, r"to have the sha256 0000.*got [0-9a-f]{64}.*Delete it"),
        ({"size": 17}, r"to have 17 bytes, got \d+\. It was not read"),
    ],
)
def test_files_other_than_the_cfgs_are_not_read(world, monkeypatch, changes, message):
    forbid_unpickling(monkeypatch)
    world.register(**changes)
    world.refused(ValueError, message)


def damage_the_cache(world):
    world.load()
    shutil.rmtree(world.home / "assets")
    blobs = [path for path in (world.home / "hub").rglob("blobs/*") if path.is_file()]
    (blob,) = [path for path in blobs if path.stat().st_size == len(world.content)]
    blob.write_bytes(flip(world.content))
    return blob


def test_a_damaged_download_is_fetched_once_more(world):
    blob = damage_the_cache(world)
    asked = world.hub.count("GET", FILE)
    world.check(world.load())
    assert world.hub.count("GET", FILE) > asked
    assert blob.read_bytes() == world.content


def test_a_damaged_download_is_named_where_there_is_no_hub(world):
    blob = damage_the_cache(world)
    world.hub.stop()
    world.refused(ValueError, rf"expected {re.escape(str(blob.resolve()))} .* Delete it")
    blob.unlink()
    world.refused(ConnectionError, "not in the cache")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"num_classes": -1}, ValueError, "num_classes >= 0"),
        ({"num_classes": "7"}, ValueError, "num_classes as a whole number, .* got '7'"),
        ({"num_classes": True}, ValueError, "num_classes as a whole number, .* got True"),
        (
            {"shortcut": "authors"},
            ValueError,
            "wired.test were trained with, got shortcut='authors'",
        ),
        ({"channels": (4, 4, 4)}, ValueError, "expected channels="),
    ],
)
def test_arguments_are_checked_before_the_download(world, arguments, kind, message):
    world.refused(kind, message, **arguments)
    assert world.hub.requests == []


@pytest.mark.parametrize("right_hash", [True, False])
def test_hostile_pickles_run_nothing(world, monkeypatch, right_hash):
    marker = world.home / "hostile"
    content = authors_file(world.model, extra=Hostile(marker))
    if right_hash:
        world.publish(content)
        world.refused(ValueError, "refused to read")
    else:
        forbid_unpickling(monkeypatch)
        world.publish(content, sha256="1" * 64)
        world.refused(ValueError, "to have the sha256 1111")
    assert not marker.exists()
    # The pickle does what it is suspected of.
    monkeypatch.undo()
    torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists()


def test_a_file_of_another_model_is_refused(world):
    world.publish(authors_file(DyGait(num_classes=5, channels=(2, 4, 6), part_bins=(4, 2))))
    for _ in range(2):
        with pytest.raises(ValueError, match="of another shape"):
            world.load()


def test_a_cut_connection_is_resumed(world):
    world.hub.cut_after[FILE] = [9000, 1000]
    for _ in range(2):
        # Older clients give up at each cut, and go on from there when asked again.
        with contextlib.suppress(ConnectionError):
            world.load()
    world.check(world.load())
    ranges = [seen for _, path, seen in world.hub.requests if path.startswith("/cdn/") and seen]
    assert ranges[-1] == "bytes=10000-"


def test_a_connection_that_stays_cut_is_an_error(world):
    world.hub.cut_after[FILE] = [9000] + [0] * 50
    world.refused(ConnectionError, "connection was lost")
    world.hub.cut_after.clear()
    world.check(world.load())


def test_wrong_sizes_of_the_server_are_an_error(world):
    world.hub.lie_about_size = 5
    world.refused(ConnectionError, "connection was lost")


@pytest.mark.parametrize("way", ["refused", "status"])
def test_without_a_hub(world, way):
    if way == "refused":
        world.hub.stop()
    else:
        world.hub.answer = 503
    world.refused(ConnectionError, "not in the cache and the Hub cannot be reached")


def test_the_original_in_the_cache_is_enough(world):
    world.load()
    shutil.rmtree(world.home / "assets")
    world.hub.stop()
    world.check(world.load())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content + b"more",
        lambda content: b"\xff" * 100,
        lambda content: content.replace(b'"conversion":"1"', b'"conversion":"0"'),
        lambda content: content.replace(b"neck.bn.bias", b"neck.bn.bios"),
        flip,
    ],
)
def test_damaged_kept_files_are_made_again(world, damage):
    world.load()
    (kept,) = world.kept()
    good = kept.read_bytes()
    assert damage(good) != good
    kept.write_bytes(damage(good))
    world.hub.stop()
    world.check(world.load())
    assert len(kept.read_bytes()) == len(good)
    shutil.rmtree(world.home / "hub")
    world.check(world.load())


def test_damage_without_the_original_is_an_error(world):
    world.load()
    (kept,) = world.kept()
    kept.write_bytes(kept.read_bytes()[:100])
    shutil.rmtree(world.home / "hub")
    world.hub.stop()
    with pytest.raises(ConnectionError, match="not in the cache"):
        world.load()


def test_a_published_tag_is_downloaded_whole(world, monkeypatch):
    """The authors' names, structure and classes of a real tag; only size and hash are ours."""
    shapes = golden_doc("deepgaitv2_p3d_10")["state_dict"]
    shapes["BNNecks.fc_bin"] = [16, 256, 100]
    content = io.BytesIO()
    weights = {
        key: torch.zeros(shape, dtype=torch.int64) if "num_batches" in key else torch.rand(shape)
        for key, shape in shapes.items()
    }
    torch.save({"model": weights}, content)
    published = DEEPGAIT.cfgs["ccpg"]
    world.hub.add(published.hub_id, {published.filename: content.getvalue()})
    cfg = replace(published, size=len(content.getvalue()), sha256=sha256(content.getvalue()))
    entry = replace(DEEPGAIT, cfgs={"ccpg": cfg})
    monkeypatch.setitem(registry._ARCHITECTURES, "deepgaitv2_p3d", entry)
    with pytest.warns(gaitzoo.LicenseWarning, match="academic use only"):
        model = gaitzoo.create_model("deepgaitv2_p3d.ccpg", pretrained=True)
    assert model.num_classes == 100
    world.hub.stop()
    without_classes = gaitzoo.create_model("deepgaitv2_p3d.ccpg", pretrained=True, num_classes=0)
    assert torch.equal(without_classes.part_fc.weight, model.part_fc.weight)


def test_unwritable_place_for_converted_files(world):
    (world.home / "assets").mkdir()
    (world.home / "assets" / "gaitzoo").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot keep the converted weights.*cache_dir") as shown:
        world.check(gaitzoo.create_model("wired.test", pretrained=True))
    assert {warning.filename for warning in shown} <= {__file__}


def test_read_only_caches_can_be_read(world):
    world.load()
    folders = [path for path in world.home.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        world.check(world.load())
        # The administrator may write anywhere; the next test shows the refusal to everybody.
        if not os.access(world.home / "hub", os.W_OK):
            with pytest.raises(PermissionError, match=r"cannot write .* to the cache"):
                world.load(cache_dir=world.home / "hub" / "new")
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_unwritable_cache_is_an_error(world, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "makedirs", deny)
    with pytest.raises(PermissionError, match=r"cannot write .* to the cache .*cache_dir="):
        world.load()


def test_full_disk_while_converting(world, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        world.check(world.load())
    assert world.kept() == []


PROGRAM = """
import sys
import torch
import gaitzoo
from gaitzoo import PretrainedCfg, register_model
from gaitzoo.models.dygait import DyGait

register_model(
    "wired",
    DyGait,
    {{"test": PretrainedCfg(**{cfg!r})}},
    convert=lambda state: {{key.removeprefix("their."): value for key, value in state.items()}},
)

{before}
try:
    model = gaitzoo.create_model("wired.test", pretrained=True)
except (OSError, ValueError) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
print(sum(value.double().sum().item() for value in model.state_dict().values()))
"""


COLD = """
try:
    gaitzoo.create_model("wired.test", pretrained=True, cache_dir="empty")
except ConnectionError as error:
    assert "not in the cache" in str(error)
else:
    sys.exit("loaded from an empty cache")
"""


def start(world, before="", **more):
    """A process of its own that loads the weights, with nothing but its environment set."""
    root = str(Path(gaitzoo.__file__).parent.parent)
    known = {**os.environ, "PYTHONPATH": root, **environment(world.hub.url, world.home)}
    program = PROGRAM.format(cfg=world.cfg.to_dict(), before=before)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**known, **more},
        cwd=world.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_environment_two_processes_and_offline(world):
    wanted = sum(value.double().sum().item() for value in world.model.state_dict().values())
    both = [start(world), start(world)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert float(output) == pytest.approx(wanted, abs=1e-9)
        assert "academic use only" in errors
    assert [path.name for path in world.kept()] == [f"wired-{world.cfg.sha256}.safetensors"]
    assert not list(world.home.rglob("*.incomplete"))

    asked = len(world.hub.requests)
    process = start(world, before=COLD, HF_HUB_OFFLINE="1")
    output, errors = process.communicate(timeout=120)
    assert float(output) == pytest.approx(wanted, abs=1e-9), errors
    assert len(world.hub.requests) == asked


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are not known there")
def test_full_disk_while_downloading(world):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    assert len(world.content) > 20000
    process = start(world, before=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"OSError: .*cannot write .* to the cache", errors), errors
    assert world.kept() == []
    # The half that was written is not taken for the file.
    world.check(world.load())


class TestShipped:
    @pytest.fixture
    def shipped(self, world, monkeypatch):
        monkeypatch.setattr(factory, "SHIPPED", world.home / "shipped")
        (world.home / "shipped").mkdir()
        half = {
            key: value.half() if value.is_floating_point() else value
            for key, value in world.model.state_dict().items()
        }
        path = world.home / "shipped" / "small.safetensors"
        reading.write_safetensors(path, half)
        world.register(
            hub_id=None,
            filename=path.name,
            size=None,
            sha256=sha256(path.read_bytes()),
            license="Apache-2.0",
        )
        world.hub.stop()
        return path

    def test_they_load_without_a_network(self, world, shipped):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = world.load()
        assert world.hub.requests == []
        for key, value in world.model.state_dict().items():
            found = model.state_dict()[key]
            assert found.dtype == value.dtype
            assert torch.allclose(found, value, rtol=1e-3, atol=1e-6)
        assert world.load(num_classes=0).num_classes == 0
        assert world.load(num_classes=9).num_classes == 9

    def test_they_are_checked(self, world, shipped):
        shipped.write_bytes(flip(shipped.read_bytes()))
        world.refused(ValueError, "to have the sha256")
        shipped.unlink()
        world.refused(FileNotFoundError, "install gaitzoo again")
        world.register(sha256=None)
        shipped.write_bytes(b"anything")
        world.refused(ValueError, "expected a sha256")
