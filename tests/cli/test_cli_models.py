"""``gaitzoo models``."""

import json

import gaitzoo

pytest_plugins = ["cli_fixtures"]


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
    code, out, err = run("models", "gaitbase.c*", "--json")
    models = json.loads(out)
    assert (code, err) == (0, "")
    assert [model["name"] for model in models] == gaitzoo.list_models("gaitbase.c*")
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


def test_models_says_which_are_reconstructions(run):
    out = run("models", "g*.gait3d")[1]
    rows = {line.split()[0]: line for line in out.splitlines() if "." in line.split(" ")[0]}
    assert " reconstruction " in rows["gaitllm.gait3d"]
    assert "74.1 (reconstruction)" in rows["gaitllm.gait3d"]
    assert " parity " in rows["gaitset.gait3d"]
    assert "(reconstruction)" not in rows["gaitset.gait3d"]
    assert "\nreconstruction: built from an abstract and notes" in out
