"""Every command, on files made here, with a tiny model; what is refused, and how."""

import json
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import relative_error
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import gaitzoo
from gaitzoo.cli import entry as cli
from gaitzoo.cli import files as cli_files
from gaitzoo.synthetic import render_walk, sample_identity

TINY = ["--model", "dygait_tiny", "--quiet"]
COMMANDS = ("models", "embed", "identify", "export", "demo")


def walk(person, seed=0, frames=5):
    return render_walk(sample_identity(person), frames=frames, seed=seed).silhouettes.numpy()


@pytest.fixture
def people(tmp_path):
    """Folders ``known`` (ann, bob) and ``new`` (ann, zoe) in every file layout."""
    known, new = tmp_path / "known", tmp_path / "new"
    for folder in (known / "ann", known / "bob" / "monday", new / "ann", new / "zoe"):
        folder.mkdir(parents=True)
    np.save(known / "ann" / "one.npy", walk(0))
    frames = [Image.fromarray(frame) for frame in walk(0, seed=1)]
    frames[0].save(known / "ann" / "two.gif", save_all=True, append_images=frames[1:])
    for number, frame in enumerate(walk(1)):
        Image.fromarray(frame).save(known / "bob" / "monday" / f"{number}.png")
    (new / "ann" / "three.pkl").write_bytes(pickle.dumps(walk(0, seed=2, frames=3)))
    np.savez(new / "zoe" / "four.npz", walk(2, frames=1))
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in a folder of its own; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def identify(*more):
    return ["identify", "--gallery", "known", "--probe", "new", *TINY, *more]


def test_version_and_help(run):
    assert run("--version") == (0, f"gaitzoo {gaitzoo.__version__}\n", "")
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"gaitzoo {command}" in out.split("examples:")[1]


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gaitzoo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(command in done.stdout for command in COMMANDS)


def test_a_reader_that_stops_early_does_no_harm():
    command = [sys.executable, "-m", "gaitzoo", "models", "dygait_tiny", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), stderr) == (0, b"")


# models


def test_models_table(run):
    code, out, err = run("models", "dygait*")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("dygait")}
    assert (code, err) == (0, "")
    assert set(rows) >= {"dygait.casiab", "dygait.gait3d"}
    assert "5,505,121" in rows["dygait.casiab"]
    assert "128 x 88" in rows["dygait.gait3d"]
    assert "66.3" in rows["dygait.gait3d"]
    # Nobody has published these weights: there is nothing under a licence.
    assert "academic use only" not in rows["dygait.gait3d"]
    assert "_tiny" not in out
    assert "dygait_tiny.test" in run("models", "dygait_tiny")[1]


RANK1 = {
    "deepgaitv2_p3d.gait3d": "74.4",
    "deepgaitv2_p3d.grew": "79.4 (3d)",
    "deepgaitv2_p3d.oumvlp": "92.0 (3d)",
    "deepgaitv2_p3d.ccpg": "83.3 mean",
    "deepgaitv2_p3d.sustech1k": "82.4",
    "gaitbase.gait3d": "64.6",
    "gaitbase.grew": "60.1",
    "gaitbase.oumvlp": "90.8",
    "gaitbase.casiab": "97.6",
    "gaitbase.casiae": "91.6",
    "gaitbase.gait3d_parsing": "71.2",
}


def test_models_shows_size_rank1_and_licence_of_every_file(run):
    _, out, _ = run("models", "[dg]*.*")
    rows = {line.split()[0]: line for line in out.splitlines() if "." in line.split(" ")[0]}
    names = [n for n in gaitzoo.list_models("[dg]*.*", pretrained=True) if "_tiny" not in n]
    assert set(RANK1) <= set(names)
    for name in RANK1:
        size = gaitzoo.model_info(name).size
        assert f" {size / 1e6:.1f} MB " in rows[name]
        assert f" {RANK1[name]}  none stated; authors: academic use only" in rows[name]


def test_models_json_and_parameter_counts(run):
    code, out, err = run("models", "[dg]*_tiny.*", "--json")
    models = json.loads(out)
    assert (code, err) == (0, "")
    assert [model["name"] for model in models] == gaitzoo.list_models("[dg]*_tiny.*")
    for model in models:
        built = gaitzoo.create_model(model["name"])
        assert model["parameters"] == sum(p.numel() for p in built.parameters())
        assert model["input_size"] == list(gaitzoo.model_info(model["name"]).input_size)
        assert model["has_weights"] or model["unavailable"]


def test_models_shows_the_size_of_weights(run, with_weights):
    _, out, _ = run("models", "dygait_tiny")
    assert " 1.5 MB " in out
    _, out, _ = run("models", "dygait_tiny", "--json")
    assert "unavailable" not in json.loads(out)[0]


@pytest.fixture
def with_weights(monkeypatch):
    """Makes the tiny model one that has weights: those of seed 7."""
    from dataclasses import replace

    real = gaitzoo.models.registry.find_architecture

    def find_architecture(name):
        architecture = real(name)
        cfgs = {
            tag: replace(cfg, filename="tiny.safetensors", size=1_500_000)
            for tag, cfg in architecture.cfgs.items()
        }
        return replace(architecture, cfgs=cfgs)

    def create_model(name, pretrained=False, **options):
        assert pretrained
        del options["checkpoint_path"]
        warnings.warn("weights of\nothers", gaitzoo.LicenseWarning, stacklevel=1)
        torch.manual_seed(7)
        return gaitzoo.create_model(name, **options)

    monkeypatch.setattr(gaitzoo.models.registry, "find_architecture", find_architecture)
    monkeypatch.setattr(cli_files, "create_model", create_model)


# embed


def test_embed_writes_what_the_library_gives(run, people):
    code, out, err = run("embed", "known", "-o", "out.safetensors", *TINY)
    assert code == 0
    assert out == "out.safetensors: embeddings [3, 6, 4] for 3 sequence(s)\n"
    assert err.count("\n") == 1
    assert "dygait_tiny is untrained" in err
    with safe_open("out.safetensors", "pt") as file:
        metadata = file.metadata()
    names = ["ann/one", "ann/two", "bob/monday"]
    assert json.loads(metadata["names"]) == names
    assert json.loads(metadata["identities"]) == ["ann", "ann", "bob"]
    assert (metadata["model"], metadata["weights"]) == ("dygait_tiny", "untrained")
    torch.manual_seed(0)
    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    clips = [gaitzoo.load_silhouettes(f.path) for f in gaitzoo.find_sequences(people / "known")]
    wanted = gaitzoo.embed(model, clips, progress=False)
    torch.testing.assert_close(load_file("out.safetensors")["embeddings"], wanted)
    assert sorted(os.listdir(people)) == ["known", "new", "out.safetensors"]


def test_embed_names_sequences_of_several_paths_by_path(run, people):
    paths = ["known/ann/one.npy", "known/bob/monday/", "new"]
    assert run("embed", *paths, "-o", "out.safetensors", *TINY)[0] == 0
    with safe_open("out.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
    assert names == ["known/ann/one", "known/bob/monday", "new/ann/three", "new/zoe/four"]


@pytest.mark.parametrize(
    ("path", "name"), [("known/ann/one.npy", "one"), ("known/bob/monday", "monday")]
)
def test_embed_takes_one_sequence_and_replaces_old_results(run, people, path, name):
    (people / "out.safetensors").write_text("old")
    assert run("embed", path, "-o", "out.safetensors", *TINY)[0] == 0
    with safe_open("out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == [name]


def test_untrained_results_repeat_and_leave_the_random_state(run, people):
    state = torch.get_rng_state()
    run("embed", "known", "-o", "one.safetensors", *TINY)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    run("embed", "known", "-o", "two.safetensors", *TINY, "--batch-frames", "3")
    one, two = (load_file(f"{name}.safetensors")["embeddings"] for name in ("one", "two"))
    torch.testing.assert_close(one, two)


def test_a_checkpoint_is_used(run, people):
    torch.manual_seed(3)
    model = gaitzoo.create_model("dygait_tiny", num_classes=4)
    model.save_pretrained("saved")
    for number, options in enumerate((
        ["--model", "dygait_tiny", "--checkpoint", "saved/model.safetensors"],
        ["--model", "local-dir:saved"],
    )):  # fmt: skip
        output = f"{number}.safetensors"
        code, _, err = run("embed", "new", "-o", output, "--quiet", *options)
        assert (code, err) == (0, "")
        clips = [gaitzoo.load_silhouettes(f.path) for f in gaitzoo.find_sequences("new")]
        wanted = gaitzoo.embed(model, clips, progress=False)
        torch.testing.assert_close(load_file(output)["embeddings"], wanted)


def test_published_weights_are_the_default(run, people, with_weights):
    code, _, err = run("embed", "new", "-o", "out.safetensors", *TINY)
    assert (code, err) == (0, "gaitzoo: note: weights of others\n")
    with safe_open("out.safetensors", "pt") as file:
        assert file.metadata()["weights"] == "pretrained"


def test_batches_follow_free_memory_unless_told(run, people, monkeypatch):
    asked = []

    def embed(model, clips, **options):
        asked.append(options["batch_frames"])
        return gaitzoo.embed(model, clips, **options)

    for module in ("_commands", "_identify"):
        monkeypatch.setattr(f"gaitzoo.{module}.embed", embed)
    for more, wanted in (([], None), (["--batch-frames", "3"], 3)):
        asked.clear()
        assert run("embed", "known", "-o", "out.safetensors", *TINY, *more)[0] == 0
        assert run(*identify(*more))[0] == 0
        assert run("demo", "--identities", "2", *TINY, *more)[0] == 0
        assert asked == [wanted] * 5
    assert "(default: by free memory)" in " ".join(run("embed", "--help")[1].split())


def test_progress_bars_are_shown_unless_quiet(run, people):
    *loud, _ = TINY
    assert "3/3" in run("embed", "known", "-o", "out.safetensors", *loud)[2]
    assert "3/3" not in run("embed", "known", "-o", "out.safetensors", *TINY)[2]


# identify


def test_identify_prints_matches(run, people):
    code, out, err = run(*identify())
    lines = out.splitlines()
    assert code == 0
    assert err.count("\n") == 1
    assert [line.split()[0] for line in lines if "/" in line.split(" ")[0]] == [
        "ann/three",
        "zoe/four",
    ]
    assert sum("yes" in line for line in lines) == 2
    assert sum(line.endswith(" no") for line in lines) == 1
    assert "probes whose identity is in the gallery: 1 of 2" in lines[-1]


def test_identify_json(run, people):
    code, out, _ = run(*identify("--json", "--top", "2", "--picture", "matches.PNG"))
    found = json.loads(out)
    assert code == 0
    assert (found["model"], found["weights"]) == ("dygait_tiny", "untrained")
    assert (found["known_probes"], [p["known"] for p in found["probes"]]) == (1, [True, False])
    for probe in found["probes"]:
        distances = [match["distance"] for match in probe["matches"]]
        assert len(distances) == 2
        assert distances == sorted(distances)
    assert found["probes"][0]["path"] == os.path.join("new", "ann", "three.pkl")
    assert found["rank1"] == float(found["probes"][0]["matches"][0]["identity"] == "ann")
    with Image.open("matches.PNG") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_identify_never_matches_a_sequence_with_itself(run, people):
    arguments = ["identify", "--gallery", "known", "--probe", "known", *TINY, "--json"]
    found = json.loads(run(*arguments)[1])
    for probe in found["probes"]:
        assert probe["path"] not in [match["path"] for match in probe["matches"]]
        assert len(probe["matches"]) == 2
    assert found["known_probes"] == 2


def test_identify_without_known_probes_gives_no_rank1(run, people):
    code, out, _ = run("identify", "--gallery", "known", "--probe", "new/zoe/four.npz", *TINY)
    assert code == 0
    assert "Rank-1" not in out
    assert "same person" not in out


def test_identify_draws_right_and_wrong(run, people):
    _, out, _ = run(*identify("--picture", "matches.png"))
    assert "picture: matches.png\n" in out
    with Image.open("matches.png") as picture:
        pixels = np.asarray(picture)
        assert picture.width > 600
    right, wrong, unknown = (
        int((pixels == np.array(colour)).all(axis=2).sum())
        for colour in ((0, 146, 88), (222, 66, 44), (189, 193, 198))
    )
    # ann has two of the three known sequences; zoe has none.
    assert right == 2 * wrong > 1000
    assert unknown > wrong


def test_the_picture_of_many_probes_is_cut(run, tmp_path):
    for number in range(26):
        (tmp_path / "new").mkdir(exist_ok=True)
        np.save(tmp_path / "new" / f"{number}.npy", np.full((1, 16, 12), 9 * number + 2, np.uint8))
    (tmp_path / "known").mkdir()
    np.save(tmp_path / "known" / "ann.npy", walk(0))
    code, out, _ = run(*identify("--picture", "matches.png"))
    assert code == 0
    assert out.endswith("picture: matches.png (24 of 26 probes)\n")


# export


def test_export_writes_the_model(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(3)
    saved = gaitzoo.create_model("dygait_tiny", num_classes=4).eval()
    saved.save_pretrained("saved")
    for number, options in enumerate((
        ["dygait_tiny", "--checkpoint", "saved/model.safetensors"],
        ["local-dir:saved"],
    )):  # fmt: skip
        code, out, err = run("export", *options, "-o", f"{number}.onnx")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        size = (tmp_path / f"{number}.onnx").stat().st_size / 1e6
        assert lines[0].startswith(f"{number}.onnx: {size:.2f} MB, {options[0]} (")
        tables = [line.split(None, 3) for line in lines if line.startswith(("input", "output"))]
        assert tables == [
            ["input", "silhouettes", "float", "[N, T, 16, 12]"],
            ["input", "lengths", "int64", "[N]"],
            ["output", "embeddings", "float", "[N, 6, 4]"],
        ]
        assert "largest difference to the model in onnxruntime: " in lines[-1]
        session = onnxruntime.InferenceSession(f"{number}.onnx")
        for frame_counts in ((6,), (13, 1, 7, 4), (30, 9)):
            clips = [torch.rand(t, 16, 12) for t in frame_counts]
            batch, lengths = gaitzoo.pad_sequences(clips)
            with torch.no_grad():
                wanted = saved(batch, lengths).embeddings
            given = {"silhouettes": batch.numpy(), "lengths": lengths.numpy()}
            (found,) = session.run(None, given)
            assert relative_error(torch.from_numpy(found), wanted) < 1e-4
    assert sorted(os.listdir(tmp_path)) == ["0.onnx", "1.onnx", "saved"]


@pytest.fixture
def quick_export(monkeypatch):
    """Leaves out what takes long; the file says which model it is of."""

    def export_onnx(model, path):
        path.write_text(model.pretrained_cfg.name)

    monkeypatch.setattr("gaitzoo.cli.commands.export_onnx", export_onnx)
    monkeypatch.setattr("gaitzoo.cli.commands._describe_graph", lambda path: [])
    monkeypatch.setattr("gaitzoo.cli.commands._difference_in_onnxruntime", lambda *_: 2e-7)


def test_export_replaces_files_only_by_force(run, tmp_path, quick_export):
    old = tmp_path / "model.onnx"
    old.write_text("old")
    arguments = ["export", "gaitbase_tiny", "-o", "model.onnx"]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "model.onnx exists; choose another file, or replace it with --force" in err
    assert old.read_text() == "old"
    assert run(*arguments, "--force")[0] == 0
    assert old.read_text() == "gaitbase_tiny.test"
    (tmp_path / "other.onnx.data").write_text("weights of another file")
    assert run("export", "gaitbase_tiny", "-o", "other.onnx")[0] == 2
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "other.onnx.data"]


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_export_keeps_no_file_that_is_wrong(run, tmp_path, monkeypatch, quick_export, difference):
    monkeypatch.setattr("gaitzoo.cli.commands._difference_in_onnxruntime", lambda *_: difference)
    (tmp_path / "model.onnx").write_text("old")
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx", "--force")
    assert (code, out) == (2, "")
    assert "nothing was written: in onnxruntime" in err
    assert (tmp_path / "model.onnx").read_text() == "old"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_export_says_what_it_could_not_try(run, monkeypatch, quick_export):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert code == 0
    assert out.endswith("not compared with the model: onnxruntime is not installed\n")


@pytest.mark.parametrize("content", ["", "no graph"])
def test_export_keeps_no_file_that_cannot_be_run(run, tmp_path, monkeypatch, content):
    pytest.importorskip("onnxruntime")
    export = "gaitzoo.cli.commands.export_onnx"
    monkeypatch.setattr(export, lambda model, path: path.write_text(content))
    monkeypatch.setattr("gaitzoo.cli.commands._describe_graph", lambda path: [])
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert (code, out) == (2, "")
    assert "nothing was written: onnxruntime cannot run gaitbase_tiny.test (" in err
    assert len([line for line in err.splitlines() if "error: " in line]) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_export_names_missing_packages(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = run("export", "gaitbase_tiny", "-o", "model.onnx")
    assert (code, out) == (2, "")
    assert f"needs the package '{package}'" in err
    assert "pip install 'gaitzoo[onnx]'" in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


# demo


def test_demo(run, tmp_path):
    code, out, err = run("demo", "--identities", "2", "--out", "results/new", *TINY)
    assert code == 0
    assert err.count("\n") == 1
    scores = [line.split() for line in out.splitlines() if line.split()[:1] > [""]]
    scores = {words[0]: words[1:] for words in scores}
    for condition in ("normal", "bag", "coat"):
        assert len(scores[condition]) == 3
        assert scores[condition][2] == "50.0%"
        assert set(scores[condition][:2]) <= {"0.0%", "50.0%", "100.0%"}
    path = os.path.join("results", "new", "gaitzoo-demo.png")
    assert out.endswith(f"picture: {path}\n")
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.height > 6 * 100
    again = run("demo", "--identities", "2", "--out", "results/new", *TINY)
    other = run("demo", "--identities", "2", "--seed", "5", "--out", "results/other", *TINY)
    assert again[1] == out
    assert other[0] == 0
    pictures = [Image.open(tmp_path / "results" / f / "gaitzoo-demo.png") for f in ("new", "other")]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    for picture in pictures:
        picture.close()


def test_demo_compares_other_views_only():
    from gaitzoo.cli.demo import try_on_walkers

    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    trial = try_on_walkers(model, 2, progress=False)
    assert len(trial.gallery) == 4
    assert [(p.label, p.condition) for p in trial.probes] == [
        (label, condition) for label in (0, 1) for condition in ("normal", "bag", "coat")
    ]
    assert {clip.condition for clip in trial.gallery} == {"normal"}
    for probe, matches in zip(trial.probes, trial.identification.matches, strict=True):
        assert len(matches) == 2
        assert all(trial.gallery[match.index].view != probe.view for match in matches)
        walks = [clip.silhouettes for clip in trial.gallery if clip.label == probe.label]
        assert not any(torch.equal(probe.silhouettes, known) for known in walks)


def test_gait_energy_images_are_compared_as_written():
    from gaitzoo.cli.demo import try_on_walkers

    model = gaitzoo.create_model("dygait_tiny", num_classes=0)
    trial = try_on_walkers(model, 3, seed=1, progress=False)
    transform = gaitzoo.create_transform(model)
    for condition, (_, by_image) in trial.scores.items():
        hits = []
        for probe in trial.probes:
            if probe.condition != condition:
                continue
            rivals = [clip for clip in trial.gallery if clip.view != probe.view]
            image = transform(probe.silhouettes).mean(0)
            distances = [
                float((transform(clip.silhouettes).mean(0) - image).norm()) for clip in rivals
            ]
            hits.append(rivals[int(np.argmin(distances))].label == probe.label)
        assert by_image == pytest.approx(sum(hits) / len(hits))


# refusals: exit code 2 and one line


def broken_png(folder):
    (folder / "known" / "ann" / "one.npy").unlink()
    frame = folder / "known" / "bob" / "monday" / "0.png"
    frame.write_bytes(frame.read_bytes()[:-30])


def hostile_pickle(folder):
    (folder / "known" / "evil.pkl").write_bytes(pickle.dumps({"a": print}))


def blank_masks(folder):
    np.save(folder / "known" / "blank.npy", np.zeros((3, 90, 90), np.uint8))


def empty_known(folder):
    for path in sorted((folder / "known").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def only_text(folder):
    empty_known(folder)
    (folder / "known" / "notes.txt").write_text("nothing here")


def foreign_checkpoint(folder):
    torch.save({"model": {"conv.weight": torch.ones(2)}}, folder / "w.pt")


def saved_model(folder):
    gaitzoo.create_model("dygait_tiny").save_pretrained(folder / "saved")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["embed", "nowhere", "-o", "x"], "nowhere, which does not exist"),
        (broken_png, ["embed", "known", "-o", "x", *TINY], "0.png"),
        (hostile_pickle, ["embed", "known", "-o", "x", *TINY], "evil.pkl"),
        (blank_masks, ["embed", "known", "-o", "x", *TINY], "blank.npy: Expected at least one"),
        (empty_known, ["embed", "known", "-o", "x", *TINY], "found none"),
        (only_text, ["embed", "known", "-o", "x", *TINY], "Expected frames"),
        (None, ["embed", "known", "-o", "x", "--model", "dygate"], "unknown model 'dygate'"),
        (None, ["embed", "known", "-o", "x", "--model", "dygait.x"], "unknown tag 'x'"),
        (None, ["embed", "known", "-o", "x", "--model", "local-dir:no"], "a folder after local"),
        (None, ["embed", "known", "-o", "x", *TINY, "--checkpoint", "no.pt"], "no.pt"),
        (foreign_checkpoint, ["embed", "known", "-o", "x", *TINY, "--checkpoint", "w.pt"], "w.pt"),
        (None, ["embed", "known", "-o", "x", *TINY, "--device", "warp"], "got 'warp'"),
        (None, ["embed", "known", "-o", "x", *TINY, "--device", "meta"], "got 'meta'"),
        (None, ["embed", "known", "-o", "x", *TINY, "--batch-frames", "0"], "--batch-frames"),
        (None, ["embed", "known", "-o", "no/x", *TINY], "existing folder"),
        (None, ["embed", "known", "-o", "known", *TINY], "got the folder known"),
        (None, ["embed", "known", "-o", "known/ann/one.npy", *TINY], "among, what is read"),
        (
            saved_model,
            [
                *("embed", "known", "-o", "saved/model.safetensors"),
                *("--checkpoint", "saved/model.safetensors", *TINY),
            ],
            "among, what is read",
        ),
        (None, identify("--picture", "x.jpg"), "ends in .png, got x.jpg"),
        (None, identify("--picture", "known/bob/monday/9.png"), "among, what is read"),
        (None, identify("--top", "0"), "whole number of 1 or more, got '0'"),
        (None, ["identify", "--gallery", "known", *TINY], "--probe"),
        (
            None,
            ["identify", "--gallery", "new/zoe", "--probe", "new/zoe/four.npz", *TINY],
            "only the probe itself",
        ),
        (None, ["export", "dygate", "-o", "x.onnx"], "unknown model 'dygate'"),
        (None, ["export", "dygait_tiny", "-o", "x.pt"], "ends in .onnx, got x.pt"),
        (None, ["export", "dygait_tiny", "-o", "no/x.onnx"], "existing folder"),
        (None, ["export", "dygait_tiny"], "-o/--output"),
        (None, ["models", "nothing*"], "no model is named like 'nothing*'"),
        (None, ["demo", "--identities", "1", *TINY], "2 identities or more, got 1"),
        (None, ["demo", "--identities", "2", "--seed", "-1", *TINY], "-1"),
        (None, ["demo", "--out", "known/ann/one.npy", *TINY], "one.npy"),
        (None, ["demos"], "invalid choice: 'demos'"),
        (None, [], "COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(run, people, prepare, arguments, message):
    if prepare:
        prepare(people)
    before = sorted(people.rglob("*"))
    code, out, err = run(*arguments)
    errors = [line for line in err.splitlines() if "error: " in line]
    notes = [line for line in err.splitlines() if line.startswith("gaitzoo: note: ")]
    assert (code, out) == (2, "")
    assert len(errors) == 1
    assert message in errors[0]
    assert len(errors) + len(notes) == len(err.splitlines())
    assert sorted(people.rglob("*")) == before


def test_a_failed_write_leaves_the_old_file(people, monkeypatch):
    monkeypatch.chdir(people)
    (people / "out.txt").write_text("old")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cli_files.write(people / "out.txt", fail)
    assert (people / "out.txt").read_text() == "old"
    assert sorted(os.listdir(people)) == ["known", "new", "out.txt"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (torch.OutOfMemoryError("CUDA out of\nmemory"), 2, "error: CUDA out of memory\n"),
        (MemoryError(), 2, "error: MemoryError\n"),
        (gaitzoo.PretrainedNotAvailable("no weights"), 2, "error: no weights\n"),
    ],
)
def test_interruptions_and_shortages_end_quietly(run, people, monkeypatch, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("gaitzoo.cli.commands.embed", fail)
    got, out, err = run("embed", "known", "-o", "out.safetensors", *TINY)
    assert (got, out) == (code, "")
    assert err.splitlines(keepends=True)[1:] == ([f"gaitzoo embed: {message}"] if message else [])


def test_a_defect_is_not_taken_for_bad_input(run, people, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("gaitzoo.cli.commands.embed", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("embed", "known", "-o", "out.safetensors", *TINY)
