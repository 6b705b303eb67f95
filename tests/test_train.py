import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import gaitzoo

pytest.importorskip("accelerate")
EXAMPLES = Path(__file__).parent.parent / "examples"


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def train() -> ModuleType:
    return load_example("train")


@pytest.fixture
def recipe(train, tmp_path):
    return train.Recipe(
        output=str(tmp_path / "run"),
        model="dygait_tiny",
        identities=4,
        people=2,
        walks=2,
        frames=3,
        height=32,
        steps=6,
        warmup_steps=2,
        workers=0,
        save_every=2,
        evaluate_every=100,
        evaluate_identities=2,
    )


class KilledError(BaseException):
    """Stands for the signal that ends the process."""


def kill_at(train, monkeypatch, step: int) -> None:
    log = train.log

    def log_or_die(output, row):
        log(output, row)
        if row["step"] == step:
            raise KilledError

    monkeypatch.setattr(train, "log", log_or_die)


def read_log(output: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (output / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("rendered", [0, 2])
def test_a_killed_run_goes_on_to_the_same_result(train, recipe, monkeypatch, tmp_path, rendered):
    recipe = dataclasses.replace(recipe, rendered=rendered)
    unbroken = train.train(dataclasses.replace(recipe, output=str(tmp_path / "unbroken")))
    with monkeypatch.context() as patch:
        kill_at(train, patch, step=5)  # the last checkpoint is of step 4
        with pytest.raises(KilledError):
            train.train(recipe)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = train.train(recipe)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    rows = read_log(tmp_path / "run")
    assert [row["step"] for row in rows if "triplet" in row] == [1, 2, 3, 4, 5, 5, 6]
    assert rows[4] == rows[5]  # the lost step was done again, with the same losses


def test_a_kill_while_saving_leaves_the_last_checkpoint(train, recipe, monkeypatch, tmp_path):
    def die(*_):
        raise KilledError

    train.train(recipe, stop_at=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KilledError):
            train.train(recipe)
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 2


def test_another_recipe_does_not_go_on(train, recipe):
    train.train(recipe, stop_at=2)
    with pytest.raises(ValueError, match=r"another learning_rate, seed; choose another --output"):
        train.train(dataclasses.replace(recipe, seed=1, learning_rate=0.1))


def test_rendered_walks_of_another_size_are_refused(train, recipe, tmp_path):
    recipe = dataclasses.replace(recipe, rendered=1)
    (tmp_path / "run").mkdir()
    train.RenderedWalks(recipe)
    train.RenderedWalks(dataclasses.replace(recipe, identities=2))  # the first of them
    for other in ({"identities": 5}, {"height": 64}, {"frames": 9}):
        with pytest.raises(ValueError, match=r"remove the file to render them again"):
            train.RenderedWalks(dataclasses.replace(recipe, **other))


def test_a_run_can_start_from_the_weights_of_another(train, recipe, tmp_path):
    first = train.train(dataclasses.replace(recipe, output=str(tmp_path / "first"), steps=1))
    path = tmp_path / "first" / "model.safetensors"
    second = dataclasses.replace(recipe, start_from=str(path), identities=3, learning_rate=0.0)
    second = dataclasses.replace(second, weight_decay=0.0)
    # A learning rate of zero shows where it began.
    model = train.train(second)
    assert model.num_classes == 3
    half = first.part_fc.weight.half().float()
    assert torch.equal(model.part_fc.weight, half)
    path.unlink()  # no longer needed to go on
    (tmp_path / "run" / "model.safetensors").unlink()
    assert torch.equal(train.train(second).part_fc.weight, half)
    wider = {
        "model_args": '{"part_bins": [2]}',
        "output": str(tmp_path / "wider"),
        "start_from": "",
    }
    train.train(dataclasses.replace(second, steps=1, **wider))
    strange = {"start_from": str(tmp_path / "wider" / "model.safetensors")}
    with pytest.raises((ValueError, RuntimeError), match=r"part_fc|these model_args"):
        train.train(dataclasses.replace(second, output=str(tmp_path / "third"), **strange))


def test_an_extra_head_classifies_and_is_left_out(train, recipe, tmp_path):
    levels = [[[32], [2]], [[20, 12], [2, 4], True, False, True]]
    narrow = json.dumps({"levels": levels, "last": 8, "part_channels": 4})
    recipe = dataclasses.replace(recipe, head="extra", model="hstl", model_args=narrow)
    unbroken = train.train(dataclasses.replace(recipe, output=str(tmp_path / "unbroken")))
    train.train(recipe, stop_at=4)
    resumed = train.train(recipe)
    assert resumed.num_classes == 0
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert set(saved) == set(resumed.state_dict())
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["head"]["classifier.weight"].shape[2] == recipe.identities
    neck_apart = {"network": "deep", "channels": (2, 2, 2, 2), "head": "bnneck"}
    before_bn = dataclasses.replace(
        recipe, model="dygait_tiny", model_args=json.dumps(neck_apart), output=str(tmp_path / "x")
    )
    with pytest.raises(ValueError, match='expected head="own" for a model whose embeddings'):
        train.train(before_bn)


def test_scores_of_a_run(train, recipe, tmp_path, monkeypatch, capsys):
    train.train(recipe)
    capsys.readouterr()
    evaluate = load_example("evaluate_walkers")
    arguments = ["--recipe", str(tmp_path / "run" / "recipe.json"), "--identities", "2"]
    monkeypatch.setattr(sys, "argv", ["evaluate_walkers.py", *arguments, "--frames", "4"])
    evaluate.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [line.split("|")[1].strip() for line in lines]
    names = ["dygait_tiny", "untrained", "before rounding", "energy images"]
    assert [row for row in rows if row in names] == names


def test_scores_are_those_of_a_loop(train, monkeypatch):
    evaluate = load_example("evaluate_walkers")
    options = evaluate.argparse.Namespace(identities=3, frames=4, seed=2, level=False)
    samples = evaluate.render(options, (32, 22), None)
    baseline = evaluate.Competitor(evaluate.EnergyImage(), (32, 22))
    images = [sample.silhouettes.float().mean(0) / 255 for sample in samples]
    expected = []
    for condition in ("normal", "bag", "coat"):
        right = []
        for query, image in zip(samples, images, strict=True):
            if query.condition != condition or (condition == "normal" and query.sequence < 2):
                continue
            others = [
                (float((image - other).norm()), sample.label)
                for sample, other in zip(samples, images, strict=True)
                if sample.condition == "normal"
                and sample.sequence < 2
                and sample.view != query.view
            ]
            right.append(min(others)[1] == query.label)
        expected.append(100 * np.mean(right))
    assert evaluate.score(baseline, samples)[:3] == pytest.approx(expected)


def test_the_seed_decides_the_result(train, recipe, tmp_path):
    recipe = dataclasses.replace(recipe, steps=1)
    first, again, other = (
        train.train(dataclasses.replace(recipe, output=str(tmp_path / name), seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    weights = [model.state_dict()["part_fc.weight"] for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_reduces_the_loss(train, recipe, tmp_path):
    recipe = dataclasses.replace(
        recipe, identities=2, rendered=2, steps=25, learning_rate=1e-2, augment=0.0, save_every=100
    )
    train.train(recipe)
    rows = read_log(tmp_path / "run")
    losses = [row["cross_entropy"] for row in rows if "cross_entropy" in row]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_written_weights_are_the_model(train, recipe, tmp_path):
    model = train.train(recipe)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert not any("classifier" in name for name in saved)
    assert all(value.dtype in (torch.float16, torch.int64) for value in saved.values())
    again = gaitzoo.create_model("dygait_tiny", num_classes=0).eval()
    again.load_state_dict({name: value.float() for name, value in saved.items()})
    walk = torch.rand(1, 9, 32, 22)
    with torch.no_grad():
        expected, got = model(walk).embeddings, again(walk).embeddings
    torch.testing.assert_close(got, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert train.Recipe(**written) == recipe


def test_evaluation_leaves_the_model_training(train, recipe):
    model = gaitzoo.create_model("dygait_tiny")
    scores = train.evaluate(model.train(), recipe)
    assert set(scores) == {"normal", "bag", "coat"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert all(module.training for module in model.modules())


def test_batches_hold_people_with_several_walks(train, recipe):
    recipe = dataclasses.replace(recipe, identities=20, people=5, walks=3)
    batches = list(train.PKSampler(recipe, first_step=0))
    assert len(batches) == len(train.PKSampler(recipe, first_step=0)) == 6
    for batch in batches:
        labels = [label for label, _ in batch]
        assert sorted(labels.count(label) for label in set(labels)) == [3] * 5
        assert len({draw for _, draw in batch}) == 15
    assert list(train.PKSampler(recipe, first_step=4)) == batches[4:]
    assert next(iter(train.PKSampler(recipe, first_step=0, process=1))) != batches[0]
    assert len({label for batch in batches for label, _ in batch}) > 10


def test_frames_are_the_model_s_unless_told_otherwise(train):
    sizes = {"dygait": (64, 44), "dygait.gait3d": (128, 88), "hstl.walkers": (32, 22)}
    for name, size in sizes.items():
        assert train.frame_size(train.Recipe(output="", model=name)) == size
    assert train.frame_size(train.Recipe(output="")) == (32, 22)
    assert train.frame_size(train.Recipe(output="", height=64)) == (64, 44)


def test_a_key_is_one_clip(train, recipe):
    walks = train.RandomWalks(dataclasses.replace(recipe, noisy=1.0))
    clip, label = walks[(3, 17)]
    assert clip.shape == (3, 32, 22)
    assert clip.dtype == torch.uint8
    assert label == 3
    assert torch.equal(walks[(3, 17)][0], clip)
    assert not torch.equal(walks[(3, 18)][0], clip)
    assert not torch.equal(walks[(2, 17)][0], clip)


def test_rendered_clips_are_cut_out_of_the_walks(train, recipe, tmp_path):
    (tmp_path / "run").mkdir()
    walks = train.RenderedWalks(dataclasses.replace(recipe, rendered=2, augment=0.0))
    assert walks.walks.shape == (4, 2, 6, 32, 22)
    clip = walks[(1, 5)][0].numpy()
    places = [
        (number, first)
        for number in range(2)
        for first in range(4)
        if np.array_equal(walks.walks[1, number, first : first + 3], clip)
    ]
    assert len(places) == 1


def test_the_learning_rate_rises_and_falls(train):
    factors = [train.learning_rate_factor(step, 10, 110) for step in range(110)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01


def test_the_command_line_is_the_recipe(train, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "train", seen.append)
    arguments = ["--output", str(tmp_path), "--learning-rate", "0.01", "--steps", "7"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.main()
    assert seen == [train.Recipe(output=str(tmp_path), learning_rate=0.01, steps=7)]
