"""The weights that come with the library, and what their cards say of them."""

import dataclasses
import hashlib
import re
import socket
import warnings

import pytest
import torch
from hub_world import open_world
from safetensors.torch import load_file

import gaitzoo
from gaitzoo.hub import shipped
from gaitzoo.metrics import part_distances, rank_k, same_view_mask
from gaitzoo.synthetic import SyntheticWalkers

MODELS = ("dygait", "hstl")
SEQUENCES = (("normal", 0), ("normal", 1), ("normal", 2), ("bag", 0), ("coat", 0))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def walkers():
    """Unseen people, some of them with a bag or in a coat, from cameras of several heights."""
    data = SyntheticWalkers(
        12,
        sequences=SEQUENCES,
        views=(36, 90, 144),
        frames=24,
        size=(32, 22),
        elevation=(0.0, 30.0),
        speed=(0.75, 1.25),
        seed=7,
    )
    return [data[index] for index in range(len(data))]


def rank1(embeddings, walkers):
    labels = torch.tensor([walk.label for walk in walkers])
    views = torch.tensor([round(walk.view) for walk in walkers])
    gallery = torch.tensor([walk.condition == "normal" and walk.sequence < 2 for walk in walkers])
    distances = part_distances(embeddings[~gallery], embeddings[gallery])
    exclude = same_view_mask(views[~gallery], views[gallery])
    return rank_k(distances, labels[~gallery], labels[gallery], exclude=exclude)


def test_they_are_what_pretrained_means_and_every_file_belongs_to_a_tag():
    files = set()
    for name in MODELS:
        assert gaitzoo.create_model(name, pretrained=True).weights_of == f"{name}.walkers"
        cfg = gaitzoo.model_info(f"{name}.walkers")
        assert cfg.has_weights
        files |= {cfg.filename, f"{cfg.filename.removesuffix('.safetensors')}.md"}
    assert {path.name for path in shipped.SHIPPED.iterdir()} == files


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_what_the_cfg_and_the_card_say(name):
    cfg = gaitzoo.model_info(f"{name}.walkers")
    path = shipped.SHIPPED / cfg.filename
    content = path.read_bytes()
    assert cfg.size == len(content) < 20e6  # 40 MB for all
    assert cfg.sha256 == hashlib.sha256(content).hexdigest()
    assert {v.dtype for v in load_file(path).values() if v.is_floating_point()} == {torch.float16}
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert not re.search("[A-Z]{4,}_[A-Z]", card)  # nothing left to fill in
    for fact in (cfg.name, cfg.sha256, f"{cfg.size:,} bytes", cfg.license):
        assert fact in card, fact
    for key in ("rank1_walkers", "rank1_walkers_bag", "rank1_walkers_coat"):
        assert f"{cfg.metrics[key]:.1f}" in card, key
    model = gaitzoo.create_model(cfg.name)
    assert f"{sum(p.numel() for p in model.parameters()):,}" in card


@pytest.mark.parametrize("name", MODELS)
def test_they_load_without_a_network_or_a_warning(name, no_network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = gaitzoo.create_model(name, pretrained=True)
    assert model.num_classes == 0
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with pytest.warns(UserWarning, match="narrower than the published one"):
        with_classes = gaitzoo.create_model(name, pretrained=True, num_classes=5)
    clips = torch.rand(2, 9, 32, 22)
    assert with_classes(clips).logits.shape == (2, model.num_parts, 5)
    weights = dict(model.named_parameters())
    kept = {k: v for k, v in with_classes.named_parameters() if "classifier" not in k}
    assert all(torch.equal(weights[key], value) for key, value in kept.items())


@pytest.mark.parametrize("name", MODELS)
def test_they_find_people_that_untrained_weights_and_energy_images_do_not(name, walkers):
    clips = [walk.silhouettes for walk in walkers]
    torch.manual_seed(0)
    trained, untrained = (
        rank1(
            gaitzoo.embed(
                gaitzoo.create_model(f"{name}.walkers", pretrained=p), clips, progress=False
            ),
            walkers,
        )
        for p in (True, False)
    )
    energy = torch.stack([clip.float().mean(0).reshape(1, -1) for clip in clips])
    assert trained > 0.9
    assert trained > rank1(energy, walkers) + 0.15
    assert trained > untrained + 0.15


@pytest.mark.parametrize("name", MODELS)
def test_frames_of_the_usual_size_are_brought_to_theirs(name):
    people = [gaitzoo.synthetic.sample_identity(10_000 + number) for number in range(6)]
    gallery, probes = (
        [
            gaitzoo.synthetic.render_walk(person, view=view, seed=seed).silhouettes
            for person in people
        ]
        for seed, view in ((0, 90.0), (1, 72.0))
    )
    assert gallery[0].shape[1:] == (64, 44)
    model = gaitzoo.create_model(name, pretrained=True)
    found = gaitzoo.identify(model, gallery, probes, range(6), range(6), progress=False)
    assert found.rank1 == 1.0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
def test_they_can_be_published(name, monkeypatch, tmp_path):
    with open_world(monkeypatch, tmp_path) as world:
        model = gaitzoo.create_model(name, pretrained=True).eval()
        model.push_to_hub(f"club/{name}-walkers", token="hf_test")
        again = gaitzoo.create_model(f"hf-hub:club/{name}-walkers").eval()
        clips = torch.rand(2, 9, 32, 22)
        assert torch.equal(again(clips).embeddings, model(clips).embeddings)
        files = world.hub.repositories[f"club/{name}-walkers"].files("main")
    card = files["README.md"].decode()
    assert "license: apache-2.0" in card
    sections = shipped.card_sections(model.pretrained_cfg)
    assert {"training_data", "results", "limits"} <= set(sections)
    for title in ("training_data", "results", "limits"):
        assert sections[title] in card, title


def card_of(model, folder):
    return (model.save_pretrained(folder) / "README.md").read_text(encoding="utf-8")


def test_models_of_one_s_own_do_not_take_over_the_card(tmp_path):
    card = card_of(
        gaitzoo.create_model("dygait.walkers", channels=(2, 2, 2, 2)), tmp_path / "narrow"
    )
    assert "apache" not in card
    assert "2000 people" not in card
    card = card_of(gaitzoo.create_model("dygait.walkers"), tmp_path / "fresh")
    assert "license: other" in card
    assert "if this model started from them" in card


def test_a_saved_cfg_cannot_name_other_files_for_the_card(tmp_path):
    (tmp_path / "private.md").write_text("## Results\n\nsecret\n")
    cfg = gaitzoo.model_info("dygait.walkers")
    for fields in ({"filename": str(tmp_path / "private.safetensors")}, {"tag": "unknown"}):
        model = gaitzoo.create_model("dygait.walkers")
        model.pretrained_cfg = dataclasses.replace(cfg, **fields)
        assert "secret" not in card_of(model, tmp_path / "saved")
    assert shipped.card_sections(dataclasses.replace(cfg, sha256="0" * 64)) == {}


@pytest.mark.parametrize("name", MODELS)
def test_who_trains_does_not_get_a_toy_by_accident(name):
    fresh = gaitzoo.create_model(name, num_classes=5)
    assert fresh.pretrained_cfg.name == f"{name}.casiab"
    small = gaitzoo.create_model(name, pretrained=True)
    assert small.pretrained_cfg.name == f"{name}.walkers"
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, fresh)]
    assert sizes[0] < sizes[1] / 2
    with pytest.warns(UserWarning, match=rf"create_model\('{name}', num_classes=\.\.\.\)"):
        small.reset_classifier(5)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_other_channels_by_the_rule_of_timm(name):
    grey = gaitzoo.create_model(name, pretrained=True).eval()
    clips = torch.rand(1, 9, 32, 22)
    wanted = grey(clips).embeddings
    colour = gaitzoo.create_model(name, pretrained=True, in_chans=3).eval()
    found = colour(clips[:, None].expand(-1, 3, -1, -1, -1)).embeddings
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert colour.weights_of == f"{name}.walkers"
    assert "from 1 to 3 channels" in colour.pretrained_cfg.notes
    assert not colour.pretrained_cfg.metrics
    # One channel is the one that the weights have: nothing is changed.
    same = gaitzoo.create_model(name, pretrained=True, in_channels=1).eval()
    assert torch.equal(same(clips).embeddings, wanted)
