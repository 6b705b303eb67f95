"""``gaitzoo embed`` writes what the library gives."""

import json
import os

import numpy as np
import pytest
import torch
from cli_world import TINY, identify, walk
from safetensors import safe_open
from safetensors.torch import load_file

import gaitzoo

pytest_plugins = ["cli_fixtures"]


def test_embed_writes_what_the_library_gives(run, people):
    code, out, err = run("embed", "known", "-o", "out.safetensors", *TINY)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "out.safetensors: embeddings [3, 6, 4] for 3 sequence(s)"
    assert lines[1].startswith("weights: untrained (sha256 ")
    assert err.count("\n") == 1
    assert "dygait_tiny is untrained" in err
    with safe_open("out.safetensors", "pt") as file:
        metadata = file.metadata()
    names = ["ann/one", "ann/two", "bob/monday"]
    assert json.loads(metadata["names"]) == names
    assert json.loads(metadata["identities"]) == ["ann", "ann", "bob"]
    assert (metadata["model"], metadata["weights"]) == ("dygait_tiny", "untrained")
    assert len(metadata["weights_sha256"]) == 64
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
    assert run("embed", path, "-o", "out.safetensors", *TINY)[0] == 2
    assert (people / "out.safetensors").read_text() == "old"
    assert run("embed", path, "-o", "out.safetensors", *TINY, "--force")[0] == 0
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

    for module in ("cli.embed", "inference.identify"):
        monkeypatch.setattr(f"gaitzoo.{module}.embed", embed)
    for more, wanted in (([], None), (["--batch-frames", "3"], 3)):
        asked.clear()
        assert run("embed", "known", "-o", "out.safetensors", "--force", *TINY, *more)[0] == 0
        assert run(*identify(*more))[0] == 0
        assert run("demo", "--identities", "2", *TINY, *more)[0] == 0
        assert asked == [wanted] * 5
    assert "(default: by free memory)" in " ".join(run("embed", "--help")[1].split())


def test_doubts_about_a_sequence_name_its_file(run, people):
    np.save(people / "known" / "short.npy", walk(0)[:2])
    code, _, err = run("embed", "known", "-o", "out.safetensors", *TINY)
    (doubt,) = [line for line in err.splitlines() if "untrained" not in line]
    assert code == 0
    assert doubt.startswith(f"gaitzoo: note: {os.path.join('known', 'short.npy')}: ")


def test_fast_gives_nearly_the_same(run, people):
    assert run("embed", "known", "-o", "plain.safetensors", *TINY)[0] == 0
    assert run("embed", "known", "-o", "fast.safetensors", *TINY, "--fast")[0] == 0
    plain, fast = (load_file(f"{n}.safetensors")["embeddings"] for n in ("plain", "fast"))
    assert torch.cosine_similarity(plain.flatten(1), fast.flatten(1)).min() > 0.999
    assert not torch.equal(plain, fast)
    hashes = []
    for name in ("plain", "fast"):
        with safe_open(f"{name}.safetensors", "pt") as file:
            hashes.append(file.metadata()["weights_sha256"])
    assert hashes[0] == hashes[1]


def test_progress_bars_are_shown_unless_quiet(run, people):
    *loud, _ = TINY
    assert "3/3" in run("embed", "known", "-o", "out.safetensors", *loud)[2]
    assert "3/3" not in run("embed", "known", "-o", "two.safetensors", *TINY)[2]
