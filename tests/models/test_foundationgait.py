"""FoundationGait: numbers of the published network and of its pretraining, keys, counts, rules."""

import json
import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from builders import make
from conftest import relative_error
from golden import fill
from parity import GOLDEN, filled_weights, golden_doc, golden_errors, write_like_the_authors
from safetensors.torch import load_file
from torch import nn

import gaitzoo
from gaitzoo import (
    FoundationGait,
    FoundationGaitPretrainer,
    PartInfoNCE,
    cosine_momentum,
    layerwise_lr_groups,
)
from gaitzoo.losses import PartCrossEntropyLoss
from gaitzoo.metrics import part_distances
from gaitzoo.models.foundationgait import convert_checkpoint
from gaitzoo.models.pretraining import convert_pretraining

TAGS = {
    "foundationgait_zeroshot_0.03B": "foundationgait.base",
    "foundationgait_zeroshot_0.13B": "foundationgait.large",
    "foundationgait_gait3d_0.03B": "foundationgait.gait3d",
}
PRETRAIN = "foundationgait_pretrain_0.03B"
SMALL = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8), "part_bins": (4, 1)}


def empty(doc):
    return {key: torch.empty(shape, device="meta") for key, shape in doc["state_dict"].items()}


def shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items()}


@pytest.mark.parametrize("golden", TAGS)
def test_authors_keys_and_counts_are_exactly_ours(golden):
    doc = golden_doc(golden)
    with torch.device("meta"):
        model = gaitzoo.create_model(TAGS[golden], num_classes=doc["facts"]["class_num"])
    assert shapes(convert_checkpoint(empty(doc))) == shapes(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == doc["parameters"]
    trunk = 132_298_432 if golden.endswith("0.13B") else 33_134_272
    assert sum(p.numel() for p in model.backbone.parameters()) == trunk
    assert model.num_parts == 31


def test_map_of_the_published_network():
    with torch.device("meta"):
        model = gaitzoo.create_model("foundationgait.base")
        features, _ = model.forward_features(torch.empty(2, 4, 64, 44))
    assert features.shape == (2, 512, 4, 16, 11)


def test_fine_tuned_outputs_equal_the_authors(tmp_path):
    cases = ["eval/s2/seq0", "eval/s1/seq3"]
    name = "foundationgait_gait3d_0.03B"
    assert golden_errors(name, TAGS[name], tmp_path, cases) < 1e-5


LARGE = pytest.mark.skipif("GAITZOO_LARGE" not in os.environ, reason="fills 0.7 GB of weights")


@pytest.mark.parametrize(
    ("size", "cases"),
    [
        ("0.03B", ["eval/s5/seq2", "eval/s1/seq3"]),
        pytest.param("0.13B", ["eval/s9/seq0", "eval/s1/seq3"], marks=LARGE),
    ],
)
@torch.no_grad()
def test_zero_shot_outputs_equal_the_authors(size, cases, tmp_path):
    name = f"foundationgait_zeroshot_{size}"
    doc, wanted = golden_doc(name), load_file(GOLDEN / f"{name}.safetensors")
    write_like_the_authors(filled_weights(doc), tmp_path / "authors.pt")
    model = gaitzoo.create_model(TAGS[name], checkpoint_path=tmp_path / "authors.pt").eval()
    (tmp_path / "authors.pt").unlink()
    for case in (case for case in doc["cases"] if case["id"] in cases):
        i = case["sequence"]
        (clips,) = fill.model_input(doc["input"], i + 1, case["s"], case["input_key"])
        clip = clips[i : i + 1]
        assert fill.checksum(clip) == case["input_checksum"][0]
        features, _ = model.forward_features(clip)
        vectors = model.part_vectors(features)
        found = {
            "embeddings": model.forward_head(features).embeddings,
            "pooled": vectors.pooled[..., ::8],
            "projector": vectors.projected[..., ::8],
            "predictor": vectors.predicted[..., ::8],
        }
        for kind, value in found.items():
            reference = wanted[f"{case['id']}/{kind}"].transpose(1, 2)
            assert relative_error(value, reference) < 1e-5, kind
        norms = found["embeddings"].norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_pretraining_equals_the_authors():
    doc, wanted = golden_doc(PRETRAIN), load_file(GOLDEN / f"{PRETRAIN}.safetensors")
    with torch.device("meta"):
        pretrainer = FoundationGaitPretrainer(gaitzoo.create_model("foundationgait.base"))
    assert sum(p.numel() for p in pretrainer.parameters()) == doc["parameters"]
    pretrainer.load_state_dict(convert_pretraining(filled_weights(doc)), assign=True)
    pretrainer.teacher.requires_grad_(False)
    for case in doc["cases"]:
        evaluated = case["mode"] == "eval"
        pretrainer.train(not evaluated)
        views = [
            fill.silhouettes(case["n"], case["s"], 64, 44, f"{PRETRAIN}/{view}") for view in "qk"
        ]
        assert [fill.checksum(view) for view in views] == case["input_checksum"]
        cosines, labels = pretrainer(*views)
        assert labels.tolist() == case["labels"]
        reference = wanted[f"{case['id']}/logits"].permute(0, 2, 1)
        assert relative_error(cosines, reference) < (1e-5 if evaluated else 2e-4)
        loss = PartCrossEntropyLoss()(cosines, labels)
        assert math.isclose(loss.item(), case["loss_float64"], rel_tol=1e-5 if evaluated else 1e-4)
        if evaluated:
            weight = pretrainer.student.backbone.stem[0].weight
            (gradient,) = torch.autograd.grad(loss, weight)
            reference = wanted[f"{case['id']}/grad.student_backbone.layer0.forward_block.0.weight"]
            # With AVX2 alone this float32 is 2.5e-3 from float64; single numbers are more.
            assert (gradient - reference).norm() < 5e-3 * reference.norm()
            continue
        # Upstream computes crops again for their gradients, the last first, and counts them twice.
        chunks = zip(views[1].chunk(4), pretrainer.crops, strict=True)
        with torch.no_grad():
            for chunk, crop in reversed(list(chunks)):
                pretrainer.student.forward_features(chunk, crops=(crop,))
        for who, norm in (
            ("student_backbone.layer0.forward_block.1", pretrainer.student.backbone.stem[1]),
            ("student_backbone.projector.1.bn1d", pretrainer.student.projector.bn1),
            ("teacher_backbone.layer0.forward_block.1", pretrainer.teacher.backbone.stem[1]),
        ):
            reference = wanted[f"{case['id']}/after.{who}.running_mean"]
            assert relative_error(norm.running_mean, reference) < 1e-4, who


def test_momentum_of_the_teacher():
    ema = json.loads((GOLDEN / f"{PRETRAIN}.json").read_text())["ema"]
    for step, momentum in zip(ema["iteration"], ema["m"], strict=True):
        assert math.isclose(cosine_momentum(step, ema["total"]), momentum, rel_tol=1e-12)
    assert cosine_momentum(0, 1) == 1
    for numbers in ((-1, 5), (0, 0), (0, 5, 1.5)):
        with pytest.raises(ValueError, match="expected st"):
            cosine_momentum(*numbers)


def pretrainer_of(crops=(2, 1), **model_args):
    model = make("foundationgait_tiny", embedding="predictor", num_classes=0, **model_args)
    return FoundationGaitPretrainer(model, crops)


def test_the_teacher_follows():
    pretrainer = pretrainer_of()
    for parameter in pretrainer.student.parameters():
        nn.init.normal_(parameter)
    before = {k: p.clone() for k, p in pretrainer.teacher.named_parameters()}
    pretrainer.update_teacher(9, 10)
    assert all(torch.equal(p, before[k]) for k, p in pretrainer.teacher.named_parameters())
    pretrainer.update_teacher(1, 3, start=0.5)  # halfway: 0.75
    for (key, teacher), student in zip(
        pretrainer.teacher.named_parameters(), pretrainer.student.parameters(), strict=True
    ):
        torch.testing.assert_close(teacher, 0.75 * before[key] + 0.25 * student)
    pretrainer.update_teacher(0, 10, start=0)
    pairs = zip(pretrainer.teacher.parameters(), pretrainer.student.parameters(), strict=True)
    assert all(torch.equal(teacher, student) for teacher, student in pairs)


def test_pretraining_lowers_the_loss_and_leaves_the_teacher_without_gradients():
    pretrainer = pretrainer_of(channels=(8, 8, 16, 16)).train()
    views = torch.rand(16, 1, 16, 12).expand(16, 4, 16, 12).contiguous()
    optimizer = torch.optim.SGD(pretrainer.student.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in range(20):
        loss = PartCrossEntropyLoss()(*pretrainer(views, views))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pretrainer.update_teacher(step + 1, 20)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in pretrainer.teacher.parameters())
    statistics = pretrainer.teacher.backbone.stem[1]
    assert statistics.num_batches_tracked == 20
    assert not torch.equal(
        statistics.running_mean, pretrainer.student.backbone.stem[1].running_mean
    )


def test_checkpointed_crops_give_the_same_gradients_and_count_once():
    views = torch.rand(2, 8, 3, 16, 12)
    found = []
    for enable in (False, True):
        torch.manual_seed(3)
        pretrainer = pretrainer_of().train()
        pretrainer.student.set_grad_checkpointing(enable)
        PartCrossEntropyLoss()(*pretrainer(*views)).backward()
        student = pretrainer.student
        found.append(
            (student.backbone.stem[0].weight.grad, student.backbone.stem[1].running_mean.clone())
        )
    torch.testing.assert_close(found[0], found[1])


@torch.no_grad()
def test_two_fake_processes_equal_one_batch():
    pretrainer = pretrainer_of((1,)).eval()
    views = torch.rand(2, 6, 3, 16, 12)
    whole, labels = pretrainer(*views)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    features, _ = pretrainer.teacher.forward_features(views[0])
    targets = pretrainer.teacher.part_vectors(features).projected
    for rows in (slice(0, 4), slice(4, 6)):
        pretrainer.gather = lambda z, start=rows.start: (targets, start)
        cosines, labels = pretrainer(*views[:, rows])
        torch.testing.assert_close(cosines, whole[rows], rtol=1e-5, atol=1e-6)
        assert labels.tolist() == list(range(6))[rows]


def run_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        pretrainer = pretrainer_of((1,)).eval()
        views = torch.rand(2, 5, 3, 16, 12, generator=torch.Generator().manual_seed(1))
        share = slice(0, 2) if rank == 0 else slice(2, 5)
        torch.save(pretrainer(*views[:, share]), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_equal_one_batch(tmp_path):
    other = mp.get_context("spawn").Process(target=run_process, args=(1, str(tmp_path)))
    other.start()
    run_process(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.manual_seed(0)
    views = torch.rand(2, 5, 3, 16, 12, generator=torch.Generator().manual_seed(1))
    wanted, labels = pretrainer_of((1,)).eval()(*views)
    torch.testing.assert_close(torch.cat([x for x, _ in found]), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.cat([numbers for _, numbers in found]), labels)


def test_loss_of_views():
    views = torch.eye(8)[:, None].expand(8, 3, 8)
    # Nothing is left but the smoothing: cosine 1 for one and 0 for seven others.
    log_sum = math.log(math.exp(16) + 7)
    floor = 0.9 * (log_sum - 16) + 0.1 * (log_sum - 16 / 8)
    loss = PartInfoNCE()(3 * views, 5 * views)
    assert math.isclose(loss.item(), floor, rel_tol=1e-5)
    assert PartInfoNCE()(views, views, torch.arange(8).roll(1)) > loss + 10
    predictions, targets = views.clone().requires_grad_(), views.clone().requires_grad_()
    PartInfoNCE()(predictions, targets.roll(1, 0)).backward()
    assert predictions.grad.abs().max() > 0
    assert targets.grad is None
    with pytest.raises(ValueError, match="predictions"):
        PartInfoNCE()(views, views[:, :2])


@torch.no_grad()
def test_cosines_are_never_half_precise():
    pretrainer = pretrainer_of().eval()
    views = torch.rand(2, 4, 3, 16, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cosines, _ = pretrainer(*views)
    assert cosines.dtype == torch.float32
    predictions, targets = torch.rand(2, 4, 6, 8)
    wanted = PartInfoNCE()(predictions, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PartInfoNCE()(predictions, targets), wanted)


def test_zero_shot_embeddings():
    model = make("foundationgait_tiny", embedding="predictor", num_classes=0)
    clips = torch.rand(3, 5, 16, 12)
    embeddings = model(clips).embeddings
    norms = embeddings.norm(dim=2)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    distances = part_distances(embeddings, model(clips).embeddings)
    assert distances.diagonal().abs().max() < 1e-3 < distances[0, 1]


@pytest.mark.parametrize("embedding", ["pooled", "projector", "predictor", "fc"])
def test_what_an_embedding_comes_through_is_trained(embedding):
    model = make("foundationgait_tiny", embedding=embedding, num_classes=3).train()
    output = model(torch.rand(4, 3, 16, 12))
    assert output.logits.shape == (4, 6, 3)
    assert output.logits.abs().max() <= 1 + 1e-6
    (output.embeddings.square().sum(2).sqrt() * torch.rand(4, 6)).sum().backward()
    used = {"projector": embedding != "pooled", "predictor": embedding == "predictor"}
    for name, wanted in used.items():
        assert all(p.requires_grad == wanted for p in getattr(model, name).parameters())
    features, _ = model.forward_features(torch.rand(2, 3, 16, 12))
    vectors = model.part_vectors(features)
    assert vectors.pooled.shape == vectors.projected.shape == vectors.predicted.shape == (2, 6, 6)


def test_a_students_file_gives_the_teacher():
    doc = golden_doc(PRETRAIN)
    with torch.device("meta"):
        model = gaitzoo.create_model("foundationgait.base")
    assert shapes(convert_checkpoint(empty(doc))) == shapes(model.state_dict())
    with pytest.raises(ValueError, match="not of the authors' FoundationGait"):
        convert_checkpoint({"somebody.layer0.weight": torch.ones(1)})


@torch.no_grad()
def test_fine_tuning_starts_from_pretrained_weights():
    pretrained = FoundationGait(**SMALL).eval()
    model = FoundationGait(**SMALL, embedding="fc", num_classes=7).start_from(pretrained).eval()
    clips = torch.rand(2, 3, 16, 12)
    features, _ = model.forward_features(clips)
    wanted = pretrained.part_vectors(pretrained.forward_features(clips)[0])
    assert torch.equal(model.part_vectors(features).predicted, wanted.predicted)
    with pytest.raises(ValueError, match="same sizes"):
        FoundationGait(**{**SMALL, "part_bins": (4, 2)}).start_from(pretrained)
    with pytest.raises(TypeError, match="FoundationGait to start from"):
        model.start_from(make("gaitbase_tiny"))


def test_rates_of_layers():
    model = FoundationGait(**SMALL, embedding="fc", num_classes=7)
    groups = layerwise_lr_groups(model, FoundationGait.finetune_rates)
    numbers = [id(p) for group in groups for p in group["params"]]
    assert sorted(numbers) == sorted(id(p) for p in model.parameters())
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for key, parameter in model.named_parameters():
        frozen = key.startswith(("backbone.stem.", "backbone.layers.0.", "backbone.layers.1."))
        assert (rate[id(parameter)] == 0) == frozen
        assert parameter.requires_grad != (frozen or key.startswith("predictor."))
    assert rate[id(model.backbone.layers[2][0].conv1.weight)] == 1e-3
    assert rate[id(model.projector.fc1.weight)] == 1e-2
    assert rate[id(model.neck.classifier.weight)] == rate[id(model.part_fc.weight)] == 1e-1


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"backbone": 0.1}, "none for projector"),
        ({"trunk": 0.1, "": 0.1}, "got trunk"),
        ({"": -1.0}, "0 or more"),
        ({"": "0.1"}, "0 or more"),
        (0.1, "mapping"),
    ],
)
def test_rates_that_do_not_fit_are_refused(rates, message):
    with pytest.raises((TypeError, ValueError), match=message):
        layerwise_lr_groups(FoundationGait(**SMALL), rates)


def test_fine_tuning_lowers_the_loss():
    model = FoundationGait(**SMALL, embedding="fc", num_classes=16).train()
    groups = layerwise_lr_groups(model, FoundationGait.finetune_rates)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    clips, labels = torch.rand(16, 4, 16, 12), torch.arange(16)
    frozen = model.backbone.layers[1][0].conv1.weight.clone()
    losses = []
    for _ in range(20):
        # Bands stay as an augmentation.
        features, lengths = model.forward_features(clips, crops=(2, 1))
        loss = PartCrossEntropyLoss()(model.forward_head(features, lengths).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(model.backbone.layers[1][0].conv1.weight, frozen)


def test_pretrainers_refuse_what_they_cannot_train():
    with pytest.raises(ValueError, match="embedding='predictor'"):
        FoundationGaitPretrainer(make("foundationgait_tiny"))
    with pytest.raises(TypeError, match="FoundationGait to train"):
        FoundationGaitPretrainer(make("gaitbase_tiny"))
    with pytest.raises(ValueError, match="two views of the same walks"):
        pretrainer_of()(torch.rand(4, 3, 16, 12), torch.rand(8, 3, 16, 12))
    with pytest.raises(ValueError, match="embedding among"):
        FoundationGait(embedding="bnneck")
