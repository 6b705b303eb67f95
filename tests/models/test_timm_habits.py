"""What users of timm are used to: the same names, and the same kinds of results."""

import copy
import inspect
import types

import pytest
import timm
import timm.optim
import torch
from builders import clips_for, make, padded
from conftest import SILHOUETTES, TINY, relative_error

import gaitzoo
from gaitzoo import PretrainedCfg

# GaitLLM's maps are those of its encoder, which gives them itself.
WITH_MAPS = [
    name for name in SILHOUETTES if gaitzoo.create_model(name, num_classes=0).feature_modules
]
WITHOUT_MAPS = [name for name in SILHOUETTES if name not in WITH_MAPS]
# Their maps of the whole set are computed between those of the frames.
SETS = ("gaitset_tiny", "gln_tiny")
# What embeds the parts, where it has another name.
HEADS = {"gaitadapter_tiny": "part_graph", "rggait_tiny": "mixer"}
LENGTHS = (7, 1, 4, 9, 2)


@pytest.fixture(scope="module")
def resnet():
    return timm.create_model("test_resnet", num_classes=5).eval()


@pytest.mark.parametrize(
    "name",
    [
        "create_model",
        "get_pretrained_cfg",
        "is_model",
        "is_model_pretrained",
        "list_models",
        "list_pretrained",
        "model_entrypoint",
    ],
)
def test_functions_have_the_names_and_arguments_of_timm(name):
    ours = list(inspect.signature(getattr(gaitzoo, name)).parameters)
    theirs = list(inspect.signature(getattr(timm, name)).parameters)
    # What timm knows for the sake of its past, or of other kinds of deployment.
    past = {"name_matches_cfg", "module_filter", "scriptable", "exportable", "no_jit", "kwargs"}
    shared = ["name" if word == "model_name" else word for word in theirs if word not in past]
    assert set(shared) <= set(ours)
    assert ours[0] == shared[0]


def test_lists_take_several_filters_and_leave_names_out():
    assert gaitzoo.list_models(["dygait", "hst*"]) == ["dygait", "hstl"]
    assert "hstl" not in gaitzoo.list_models(exclude_filters=["hst*", "dygait"])
    assert gaitzoo.list_models("", "hstl") == ["hstl"]
    assert set(gaitzoo.list_models(module=["hstl", "dygait"])) == {"dygait", "hstl"}
    assert gaitzoo.list_models("dygait", include_tags=True)[0] == "dygait.casiab"
    assert gaitzoo.list_pretrained(["dygait", "hstl*"]) == ["dygait.walkers", "hstl.walkers"]
    assert gaitzoo.list_pretrained("hstl.c*") == []
    for pattern in ("*", ["gaitbase*", "dygait*"], "gaitbase.*"):
        names = gaitzoo.list_models(pattern, pretrained=True)
        assert names == gaitzoo.list_pretrained(pattern)
        assert all(gaitzoo.is_model_pretrained(name) for name in names)
    with pytest.raises(TypeError, match="got 3"):
        gaitzoo.list_models([3])


def test_numbers_in_names_are_sorted_by_value(monkeypatch):
    from gaitzoo.models import registry

    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))
    for name in ("net10", "net9", "net2b"):
        gaitzoo.register_model(name, torch.nn.Identity)
    assert gaitzoo.list_models("net*") == ["net2b", "net9", "net10"]


def test_a_model_without_a_tag_is_answered_for_its_default():
    assert gaitzoo.get_pretrained_cfg("dygait") == gaitzoo.model_info("dygait.casiab")
    assert gaitzoo.get_pretrained_cfg("moon") is timm.get_pretrained_cfg("moon") is None
    with pytest.raises(ValueError, match="unknown model 'moon'"):
        gaitzoo.get_pretrained_cfg("moon", allow_unregistered=False)
    with pytest.raises(ValueError, match="unknown tag"):
        gaitzoo.get_pretrained_cfg("dygait.moon")
    assert not gaitzoo.is_model_pretrained("moon")
    assert gaitzoo.is_model_pretrained("hstl")
    assert not gaitzoo.is_model_pretrained("hstl.casiab")
    model = gaitzoo.model_entrypoint("gaitbase_tiny")(pretrained=False, num_classes=3)
    assert model.num_classes == 3
    with pytest.raises(ValueError, match="unknown model 'moon'"):
        gaitzoo.model_entrypoint("moon")


def test_cfgs_answer_like_dictionaries(resnet):
    cfg = gaitzoo.create_model("dygait_tiny").pretrained_cfg
    for one in (cfg, resnet.pretrained_cfg):
        assert one["num_classes"] == one.get("num_classes")
        assert one.get("moon") is None
        assert one.get("moon", 3) == 3
        assert "input_size" in one
        assert "moon" not in one
        assert dict(one)["input_size"] == one["input_size"]
        with pytest.raises(KeyError):
            one["moon"]


def test_cfgs_can_be_replaced_and_overlaid():
    narrow = {"channels": (2, 2, 2, 2)}
    given = PretrainedCfg(
        num_classes=7, input_size=(32, 22), model_args=narrow | {"network": "deep"}
    )
    for cfg in (given, given.to_dict()):
        model = gaitzoo.create_model("dygait", pretrained_cfg=cfg)
        assert (model.num_classes, model.num_features) == (7, 2)
        assert model.pretrained_cfg["input_size"] == (32, 22)
        assert model.pretrained_cfg.name == "dygait"
    model = gaitzoo.create_model("dygait", pretrained_cfg="grew", **narrow)
    assert model.pretrained_cfg.name == "dygait.grew"
    overlay = {"num_classes": 9, "notes": "ours"}
    model = gaitzoo.create_model("dygait_tiny", pretrained_cfg_overlay=overlay)
    assert (model.num_classes, model.pretrained_cfg.notes) == (9, "ours")
    assert gaitzoo.model_info("dygait_tiny").num_classes == 5
    with pytest.raises(TypeError, match=r"overlay with fields among .*, got interpolation"):
        gaitzoo.create_model("dygait_tiny", pretrained_cfg_overlay={"interpolation": 0.5})
    with pytest.raises(ValueError, match="at most, got pretrained_cfg"):
        gaitzoo.create_model("local-dir:somewhere", pretrained_cfg="grew")


def test_aliases_none_and_misspelt_sources():
    assert gaitzoo.create_model("dygait_tiny", in_chans=3, head=None).in_channels == 3
    assert timm.create_model("test_resnet", in_chans=1, global_pool=None).conv1[0].in_channels == 1
    with pytest.raises(ValueError, match="got both"):
        gaitzoo.create_model("dygait_tiny", in_chans=3, in_channels=2)
    with pytest.raises(ValueError, match="write 'hf-hub:a/b'"):
        gaitzoo.create_model("hf_hub:a/b")
    with pytest.raises(ValueError, match="write 'local-dir:folder'"):
        gaitzoo.create_model("local_dir:folder")


@pytest.mark.parametrize("name", WITH_MAPS)
@torch.no_grad()
def test_maps_inside_a_model(name, resnet):
    model = make(name)
    clips = clips_for(model, *LENGTHS)
    batch, lengths = padded(clips, float("nan"))
    features, maps = model.forward_intermediates(batch, lengths)
    info = model.feature_info
    assert isinstance(maps, list)
    assert isinstance(resnet.forward_intermediates(torch.rand(1, 3, 64, 64))[1], list)
    assert len(maps) == len(info) == len(model.feature_modules)
    assert [x.shape[1] for x in maps] == info.channels()
    rows = model.pretrained_cfg.input_size[0]
    assert [round(rows / x.shape[-2]) for x in maps] == info.reduction()
    # The head goes on from what comes before the maps.
    embeddings = model(batch, lengths).embeddings
    assert relative_error(model.forward_head(*features).embeddings, embeddings) < 1e-6
    # Padded sequences give the maps that they give alone, and zeros past the end.
    for i, clip in enumerate(clips):
        alone = model.forward_intermediates(clip[None], intermediates_only=True)
        for x, one, counts in zip(maps, alone, info.out_lengths(lengths), strict=True):
            assert one.shape[2] == counts[i]
            torch.testing.assert_close(x[i : i + 1, :, : counts[i]], one, rtol=1e-4, atol=1e-5)
            assert (x[i, :, counts[i] :] == 0).all()
    last = model.forward_intermediates(batch, lengths, 1, intermediates_only=True)
    assert torch.equal(last[0], maps[-1])
    some = model.forward_intermediates(batch, lengths, [-1, 0], intermediates_only=True)
    assert torch.equal(some[0], maps[0])
    with pytest.raises(ValueError, match="expected indices of maps"):
        model.forward_intermediates(batch, lengths, [99])
    with pytest.raises(ValueError, match="last maps, got 99"):
        model.forward_intermediates(batch, lengths, 99)


@pytest.mark.parametrize("name", WITH_MAPS)
def test_models_that_give_maps_only(name):
    full = make(name).train()
    count = len(full.feature_info)
    net = gaitzoo.create_model(name, features_only=True, out_indices=(0, -1))
    theirs = timm.create_model("test_resnet", features_only=True, out_indices=(0, -1))
    for one, of in ((net, gaitzoo.FeatureInfo), (theirs, timm.models.FeatureInfo)):
        assert isinstance(one.feature_info, of)
        for words in ("channels", "reduction", "module_name"):
            assert isinstance(getattr(one.feature_info, words)(), list)
        assert one.feature_info.channels(0) == one.feature_info[0]["num_chs"]
        assert len(one.feature_info.get_dicts()) == len(one.feature_info.channels())
    assert net.feature_info.out_indices == tuple(sorted({0, count - 1}))
    assert sum(p.numel() for p in net.parameters()) < sum(p.numel() for p in full.parameters())
    batch = torch.stack(clips_for(full, 6, 6))
    maps = net(batch)
    assert isinstance(maps, list)
    assert [x.shape[1] for x in maps] == net.feature_info.channels()
    # The head is gone, and nothing that is left stays without a gradient.
    assert not hasattr(net.model.get_submodule(HEADS.get(name, "part_fc")), "weight")
    sum(x.square().sum() for x in maps).backward()
    if name not in SETS:
        assert all(p.grad is not None for p in net.parameters())
    weights = {key.removeprefix("model."): value for key, value in net.state_dict().items()}
    assert weights.keys() < full.state_dict().keys()
    # The same weights give the same maps.
    net.load_state_dict({f"model.{key}": full.state_dict()[key] for key in weights})
    wanted = full.eval().forward_intermediates(batch, None, [0, -1], intermediates_only=True)
    for found, one in zip(net.eval()(batch), wanted, strict=True):
        assert torch.equal(found, one)


@pytest.mark.parametrize("name", WITHOUT_MAPS)
def test_models_without_maps_say_so(name):
    with pytest.raises(ValueError, match="expected a model that names its maps"):
        gaitzoo.create_model(name, features_only=True)
    with pytest.raises(ValueError, match="expected a model that names its maps"):
        _ = make(name).feature_info


def test_fused_models_have_no_maps_to_show():
    fused = gaitzoo.fuse_for_inference(make("dygait_tiny"))
    with pytest.raises(ValueError, match="expected a plain model to give maps"):
        fused.forward_intermediates(torch.rand(1, 6, 16, 12))


@torch.no_grad()
def test_compiled_and_copied_nets_give_the_same_maps():
    net = gaitzoo.create_model("dygait_tiny", features_only=True).eval()
    clips = torch.rand(2, 6, 16, 12)
    wanted = net(clips)
    for other in (torch.compile(net, backend="eager"), copy.deepcopy(net)):
        for found, one in zip(other(clips), wanted, strict=True):
            assert torch.equal(found, one)


def test_maps_are_asked_for_in_one_way():
    with pytest.raises(ValueError, match="features_only=True with out_indices"):
        gaitzoo.create_model("dygait_tiny", out_indices=(0,))
    model = make("dygait_tiny").train()
    model.set_grad_checkpointing()
    batch = torch.rand(2, 6, 16, 12)
    _, maps = model.forward_intermediates(batch)
    sum(x.sum() for x in maps).backward()
    assert model.blocks[0].stage1.parallel.weight.grad is not None


def test_saved_models_give_maps_too(tmp_path):
    model = make("gaitbase_tiny")
    model.save_pretrained(tmp_path / "saved")
    net = gaitzoo.create_model(f"local-dir:{tmp_path}/saved", features_only=True, out_indices=1)
    clip = torch.rand(1, 3, 16, 12)
    wanted = model.forward_intermediates(clip, None, 1, intermediates_only=True)
    assert torch.equal(net.eval()(clip)[0], wanted[0])


@pytest.mark.parametrize("name", SILHOUETTES)
@pytest.mark.parametrize("num_classes", [0, 5])
@torch.no_grad()
def test_what_the_classifier_gets(name, num_classes, resnet):
    model = gaitzoo.create_model(name, num_classes=num_classes).eval()
    features = model.forward_features(torch.stack(clips_for(model, 5, 5)))
    vectors = model.forward_head(*features, pre_logits=True)
    output = model.forward_head(*features)
    assert (vectors.ndim, len(vectors)) == (3, 2)
    assert vectors.shape[2] == model.num_features == output.embeddings.shape[2]
    images = resnet.forward_features(torch.rand(1, 3, 64, 64))
    their_vectors = resnet.forward_head(images, pre_logits=True)
    assert torch.equal(resnet.get_classifier()(their_vectors), resnet.forward_head(images))
    if num_classes:
        assert torch.equal(model.get_classifier()(vectors), output.logits)
    else:
        assert model.get_classifier() is None
        # A classifier that comes later gets them.
        model.reset_classifier(3)
        scores = model.get_classifier()(vectors)
        assert torch.equal(scores, model.eval().forward_head(*features).logits)


@pytest.mark.parametrize("name", SILHOUETTES)
@pytest.mark.parametrize("coarse", [False, True])
def test_groups_of_parameters(name, coarse, resnet):
    model = make(name)
    matcher = model.group_matcher(coarse=coarse)
    assert isinstance(matcher, dict)
    assert isinstance(resnet.group_matcher(coarse=coarse), dict)
    layers = timm.models.group_parameters(model, matcher)
    names = [name for group in layers.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(layers) == len(matcher) + 1
    # The classifier learns fastest, as in timm, and with the norm before it.
    head = model.classifier_key.rpartition(".")[0]
    assert all(name.startswith(f"{head}.") for name in layers[len(layers) - 1])
    first = next(iter(model.named_parameters()))[0]
    assert first in layers[0]


@pytest.mark.parametrize("name", TINY)
def test_optimizers_of_timm_lower_the_rate_from_layer_to_layer(name):
    model = make(name).train()
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=0.1, layer_decay=0.75)
    scales = sorted({group["lr_scale"] for group in optimizer.param_groups})
    assert len(scales) > 2
    assert scales[-1] == 1.0
    assert scales[-2] == 0.75
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    free = model.no_weight_decay()
    assert isinstance(free, set)
    assert free <= {name for name, _ in model.named_parameters()}
    parameters = dict(model.named_parameters())
    assert {name for name, p in parameters.items() if p.ndim < 2} <= free
    kept = {
        id(p)
        for group in optimizer.param_groups
        if not group["weight_decay"]
        for p in group["params"]
    }
    assert {id(parameters[name]) for name in free if parameters[name].requires_grad} <= kept


@pytest.mark.parametrize("name", TINY)
def test_data_configs(name, resnet):
    model = make(name)
    config = gaitzoo.data.resolve_data_config(model)
    assert config == gaitzoo.data.resolve_data_config({}, model=model)
    assert config == gaitzoo.data.resolve_model_data_config(model)
    theirs = timm.data.resolve_data_config({}, model=resnet)
    assert isinstance(theirs, dict)
    assert {"input_size"} <= config.keys() & theirs.keys()
    assert config["modalities"] == model.modalities
    assert config["input_size"] == model.pretrained_cfg.input_size
    assert gaitzoo.create_transform(config) == gaitzoo.create_transform(model)
    options = types.SimpleNamespace(input_size=(32, 22), in_chans=3, batch_size=8, crop=None)
    other = gaitzoo.data.resolve_data_config(options, model=model)
    assert (other["input_size"], other["in_channels"]) == ((32, 22), 3)
    # Models of several modalities say no channels.
    assert other.keys() == config.keys() | {"in_channels"}
    with pytest.raises(TypeError, match="got neither"):
        gaitzoo.data.resolve_data_config({})


def test_models_with_dropout_call_it_as_timm_does():
    assert gaitzoo.create_model("gln_tiny", drop_rate=0.3).compact.dropout.p == 0.3
    rates = [0.2, None]
    blocks = [gaitzoo.create_model("swingait_tiny", drop_path_rate=r).stage2[-1] for r in rates]
    assert blocks[0].drop_path.drop_prob == pytest.approx(0.2)
    assert blocks[1].drop_path.drop_prob == pytest.approx(0.1)
    with pytest.raises(
        TypeError, match=r"expected arguments of dygait_tiny among .*, got drop_rate"
    ):
        gaitzoo.create_model("dygait_tiny", drop_rate=0.3)
