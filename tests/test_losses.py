"""Losses against published numbers, loop-written references and a single process."""

import json
import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from golden import fill
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gaitzoo.losses import (
    HardnessExclusionTripletLoss,
    PartCrossEntropyLoss,
    PartTripletLoss,
    SupConDistanceLoss,
    gather_across_processes,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "losses.json").read_text())["cases"]}
TENSORS = load_file(GOLDEN / "losses.safetensors")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}

TRIPLET_INPUTS = {
    "triplet_4x2": (16, 5, 1.0),
    "triplet_2x4": (64, 16, 1.5),
    "triplet_easy": (16, 4, 0.02),
}
CROSS_ENTROPY_INPUTS = {"ce_s16_smooth": (0.6, (8, 12, 16)), "ce_s1_plain": (3.0, (8, 12, 5))}


def triplet_input(case_id: str) -> tuple[Tensor, Tensor]:
    channels, parts, noise = TRIPLET_INPUTS[case_id]
    labels = CASES[case_id]["labels"]
    features = fill.labelled_features(labels, channels, parts, case_id, noise=noise)
    return features.transpose(1, 2).contiguous(), torch.tensor(labels)


def naive_triplet(embeddings: Tensor, labels: Tensor, margin: float) -> dict[str, list[float]]:
    """Costs of one batch by loops over parts, anchors, positives and negatives."""
    num, num_parts, _ = embeddings.shape
    found: dict[str, list[float]] = {"all": [], "hard": [], "count": [], "worst": []}
    for part in range(num_parts):
        x = embeddings[:, part].double()

        def distance(i: int, j: int, x: Tensor = x) -> float:
            return math.sqrt(float(((x[i] - x[j]) ** 2).sum()))

        costs, hardest = [], []
        for a in range(num):
            positives = [distance(a, i) for i in range(num) if labels[i] == labels[a]]
            negatives = [distance(a, i) for i in range(num) if labels[i] != labels[a]]
            costs += [max(p - n + margin, 0.0) for p in positives for n in negatives]
            hardest.append(max(max(positives) - min(negatives) + margin, 0.0))
        nonzero = [cost for cost in costs if cost > 0]
        found["all"].append(sum(nonzero) / len(nonzero) if nonzero else 0.0)
        found["hard"].append(sum(hardest) / num)
        found["count"].append(len(nonzero))
        found["worst"].append(max(costs))
    return found


@pytest.mark.parametrize("case_id", TRIPLET_INPUTS)
def test_triplet_equals_published_numbers_per_part(case_id: str) -> None:
    embeddings, labels = triplet_input(case_id)
    loss = PartTripletLoss(margin=CASES[case_id]["margin"])
    per_part = [loss(embeddings[:, [part]], labels) for part in range(embeddings.shape[1])]
    torch.testing.assert_close(torch.stack(per_part), TENSORS[f"{case_id}/loss"], **TOLERANCE)
    assert loss(embeddings, labels).item() == pytest.approx(
        CASES[case_id]["loss_mean"], rel=1e-5, abs=1e-6
    )
    naive = naive_triplet(embeddings, labels, 0.2)
    assert naive["count"] == TENSORS[f"{case_id}/loss_num"].tolist()
    # The published "hard" number of a part is its costliest triple, not a batch-hard mean.
    assert naive["worst"] == pytest.approx(
        TENSORS[f"{case_id}/hard_loss"].tolist(), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("case_id", TRIPLET_INPUTS)
def test_triplet_gradients_equal_published_ones(case_id: str) -> None:
    embeddings, labels = triplet_input(case_id)
    embeddings.requires_grad_()
    PartTripletLoss()(embeddings, labels).backward()
    assert embeddings.grad is not None
    torch.testing.assert_close(
        embeddings.grad.transpose(1, 2), TENSORS[f"{case_id}/grad"], **TOLERANCE
    )


@pytest.mark.parametrize("mining", ["all", "hard"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [5, 7, 7, 7, 2, 5, 5], [3, 1, 2]])
@pytest.mark.parametrize("margin", [0.2, 0.0])
def test_triplet_equals_loops(mining: str, labels: list[int], margin: float) -> None:
    generator = torch.Generator().manual_seed(len(labels))
    embeddings = torch.randn(len(labels), 3, 5, dtype=torch.float64, generator=generator)
    expected = torch.tensor(naive_triplet(embeddings, torch.tensor(labels), margin)[mining])
    loss = PartTripletLoss(margin, mining)(embeddings, torch.tensor(labels))
    assert loss.item() == pytest.approx(expected.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_triplet_gradients_equal_finite_differences(mining: str) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(5, 2, 3, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 0, 2, 1])
    loss = PartTripletLoss(0.5, mining)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), embeddings.requires_grad_())


@pytest.mark.parametrize("mining", ["all", "hard"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_triplet_of_equal_embeddings_is_the_margin_with_finite_gradients(
    mining: str, scale: float
) -> None:
    row = scale * torch.randn(1, 4, 256, generator=torch.Generator().manual_seed(2))
    embeddings = row.repeat(6, 1, 1).requires_grad_()
    loss = PartTripletLoss(0.2, mining)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(0.2, rel=1e-6, abs=1e-6 * scale)
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() < 1e-4


def test_triplet_distances_of_close_embeddings_keep_their_digits() -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = 10 + 1e-3 * torch.randn(6, 2, 64, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    expected = naive_triplet(embeddings, labels, 0.0)["all"]
    loss = PartTripletLoss(margin=0.0)(embeddings, labels)
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize("case_id", CROSS_ENTROPY_INPUTS)
def test_cross_entropy_equals_published_numbers(case_id: str) -> None:
    case = CASES[case_id]
    factor, shape = CROSS_ENTROPY_INPUTS[case_id]
    logits = (factor * fill.uniform(shape, case_id)).transpose(1, 2).requires_grad_()
    loss = PartCrossEntropyLoss(case["scale"], case["eps"] if case["label_smooth"] else 0.0)
    value = loss(logits, torch.tensor(case["labels"]))
    value.backward()
    assert value.item() == pytest.approx(case["loss_value"], rel=1e-5)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.transpose(1, 2), TENSORS[f"{case_id}/grad"], **TOLERANCE)


def test_sum_of_losses_equals_published_number() -> None:
    case = CASES["sum_1_1"]
    labels = torch.tensor(case["labels"])
    features = fill.labelled_features(case["labels"], 32, 16, "sum_1_1", noise=1.0)
    logits = 0.6 * fill.uniform((8, 12, 16), "sum_1_1/logits")
    total = PartTripletLoss()(features.transpose(1, 2), labels)
    total = total + PartCrossEntropyLoss()(logits.transpose(1, 2), labels)
    assert total.item() == pytest.approx(case["loss_value"], rel=1e-5)


@pytest.mark.parametrize(("scale", "smoothing"), [(1.0, 0.0), (16.0, 0.1), (4.0, 0.5)])
def test_cross_entropy_equals_loops(scale: float, smoothing: float) -> None:
    logits = torch.randn(4, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor([0, 5, 2, 2])
    costs = []
    for i in range(4):
        for part in range(3):
            scores = [math.exp(scale * float(value)) for value in logits[i, part]]
            minus_log = [-math.log(score / sum(scores)) for score in scores]
            costs.append((1 - smoothing) * minus_log[labels[i]] + smoothing * sum(minus_log) / 6)
    loss = PartCrossEntropyLoss(scale, smoothing)(logits, labels)
    assert loss.item() == pytest.approx(sum(costs) / len(costs), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    embeddings = torch.randn(6, 4, 32, generator=torch.Generator().manual_seed(5)).to(dtype)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    for loss in (PartTripletLoss(), PartTripletLoss(mining="hard"), PartCrossEntropyLoss(64.0)):
        expected = loss(embeddings.float(), labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(embeddings, labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [PartTripletLoss(mining="hard"), PartCrossEntropyLoss()])
def test_losses_compile_into_one_graph(loss: nn.Module) -> None:
    x = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(6))
    labels = torch.tensor([0, 0, 1, 1])
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, labels), loss(x, labels))


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "message"),
    [
        (
            torch.zeros(4, 8),
            torch.zeros(4).long(),
            ValueError,
            r"\[N, P, C\].*\[4, 8\].*x\[:, None",
        ),
        (torch.zeros(0, 2, 8), torch.zeros(0).long(), ValueError, r"none of them 0"),
        (torch.zeros(4, 2, 8).int(), torch.zeros(4).long(), TypeError, "floating-point.*int32"),
        (torch.zeros(4, 2, 8), torch.zeros(4), TypeError, "labels as an int64.*float32"),
        (torch.zeros(4, 2, 8), torch.ones(4).bool(), TypeError, "labels as an int64.*bool"),
        (torch.zeros(4, 2, 8), [0, 0, 1, 1], TypeError, "labels as an int64.*list"),
        (torch.zeros(4, 2, 8), torch.zeros(3).long(), ValueError, r"shape \[4\], got \[3\]"),
        (torch.zeros(4, 2, 8), torch.zeros(4, 1).long(), ValueError, r"shape \[4\], got \[4, 1\]"),
        (torch.full((4, 2, 8), torch.nan), torch.arange(4), ValueError, "NaN or infinite.*lower"),
        (torch.full((4, 2, 8), torch.inf), torch.arange(4), ValueError, "NaN or infinite.*lower"),
    ],
)
@pytest.mark.parametrize("loss", [PartTripletLoss(), PartCrossEntropyLoss()])
def test_bad_batches_are_refused(
    loss: nn.Module, embeddings: Tensor, labels: Tensor, error: type[Exception], message: str
) -> None:
    if isinstance(loss, PartCrossEntropyLoss):
        message = message.replace("P, C", "P, K")
    with pytest.raises(error, match=message):
        loss(embeddings, labels)


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_one_identity_is_refused(mining: str) -> None:
    with pytest.raises(ValueError, match=r"two identities in a batch, got 4 sequence.*sample"):
        PartTripletLoss(mining=mining)(torch.zeros(4, 2, 8), torch.tensor([3, 3, 3, 3]))


@pytest.mark.parametrize(("label", "found"), [(5, "0 to 5"), (-1, "-1 to 0")])
def test_labels_outside_the_classes_are_refused(label: int, found: str) -> None:
    with pytest.raises(ValueError, match=rf"0\.\.4 for 5 classes, got {found}; number"):
        PartCrossEntropyLoss()(torch.zeros(2, 3, 5), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PartTripletLoss(margin=-0.1), "margin of 0 or more, got -0.1"),
        (lambda: PartTripletLoss(mining="semi"), '"all" or "hard", got \'semi\''),
        (lambda: PartCrossEntropyLoss(scale=0), "scale above 0, got 0"),
        (lambda: PartCrossEntropyLoss(label_smoothing=1.0), r"in \[0, 1\), got 1.0"),
        (lambda: gather_across_processes(torch.tensor(1.0)), r"\[N, ...\].*value\[None\]"),
    ],
)
def test_bad_options_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_options_are_printed() -> None:
    assert repr(PartTripletLoss()) == "PartTripletLoss(margin=0.2, mining='all')"
    assert repr(PartCrossEntropyLoss()) == "PartCrossEntropyLoss(scale=16.0, label_smoothing=0.1)"


def test_gather_without_processes_gives_the_tensor_itself() -> None:
    x = torch.rand(3, 2)
    assert gather_across_processes(x) is x
    with pytest.raises(TypeError, match="got list"):
        gather_across_processes([1, 2])


# Two processes: each holds a share of the batch, all must end with the gradients of the whole.


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8, dtype=torch.float64)
        self.classifier = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.linear(x).unflatten(1, (2, 4)).tanh()
        return embeddings, self.classifier(embeddings)


def training_batch() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(7)
    return (
        Embedder(),
        torch.randn(8, 6, dtype=torch.float64),
        torch.tensor([0, 0, 0, 1, 2, 1, 2, 2]),
    )


# Cross-entropy is a mean per process, so only equal shares give the mean of the whole.
SHARES = [(4, True), (3, False)]


def training_loss(embeddings: Tensor, logits: Tensor, labels: Tensor, with_classes: bool) -> Tensor:
    loss = PartTripletLoss()(gather_across_processes(embeddings), gather_across_processes(labels))
    # Times 0, so that DistributedDataParallel sees a gradient for every parameter.
    return loss + (PartCrossEntropyLoss()(logits, labels) if with_classes else 0 * logits.sum())


def run_process(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(minutes=2)
    )
    try:
        results = []
        for first_share, with_classes in SHARES:
            model, x, labels = training_batch()
            parallel = DistributedDataParallel(model)  # its hooks live as long as it does
            share = slice(0, first_share) if rank == 0 else slice(first_share, 8)
            embeddings, logits = parallel(x[share])
            training_loss(embeddings, logits, labels[share], with_classes).backward()
            gradients = {name: value.grad for name, value in model.named_parameters()}
            results.append((gather_across_processes(labels[share]), gradients))
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    other = mp.get_context("spawn").Process(target=run_process, args=(1, str(tmp_path)))
    other.start()
    run_process(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for case, (_, with_classes) in enumerate(SHARES):
        model, x, labels = training_batch()
        training_loss(*model(x), labels, with_classes).backward()
        assert model.linear.weight.grad.abs().max() > 1e-3
        for everyone, gradients in (results[case] for results in found):
            assert torch.equal(everyone, labels)
            for name, value in model.named_parameters():
                torch.testing.assert_close(gradients[name], value.grad, rtol=1e-10, atol=1e-12)


HARDNESS = [
    case
    for case in json.loads((GOLDEN / "losses_wave2.json").read_text())["cases"]
    if case["loss"] == "triplet_hardness_exclusion"
]
HARDNESS_TENSORS = load_file(GOLDEN / "losses_wave2.safetensors")
HARDNESS_INPUTS = {
    "hardex_4x2": (16, 5, 1.6),
    "hardex_2x4": (32, 16, 1.5),
    "hardex_mixed_3x3": (16, 6, 1.2),
    "hardex_margin0": (16, 4, 1.0),
    "hardex_margin1": (16, 4, 1.0),
    "hardex_easy": (16, 4, 0.02),
}


@pytest.mark.parametrize("case", HARDNESS, ids=lambda case: case["id"])
def test_hardness_exclusion_equals_the_published(case):
    channels, parts, noise = HARDNESS_INPUTS[case["id"]]
    labels = case["labels"]
    features = fill.labelled_features(labels, channels, parts, case["id"], noise=noise)
    embeddings = features.transpose(1, 2).clone().requires_grad_()
    loss = HardnessExclusionTripletLoss(case["margin"])(embeddings, torch.tensor(labels))
    torch.testing.assert_close(loss.item(), case["loss_mean"], **TOLERANCE)
    loss.backward()
    wanted = HARDNESS_TENSORS[f"{case['id']}/grad"].transpose(1, 2)
    torch.testing.assert_close(embeddings.grad, wanted, **TOLERANCE)


def test_hardness_exclusion_leaves_out_the_farthest():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    embeddings = torch.randn(6, 4, 8)
    nothing = HardnessExclusionTripletLoss(ratio=1.1)(embeddings, labels)
    assert nothing == PartTripletLoss()(embeddings, labels)
    # An outlier of its identity weighs nothing as a positive.
    line = torch.tensor([0.0, 0.01, 50.0, 0.02, 0.03, 0.04]).reshape(6, 1, 1)
    assert HardnessExclusionTripletLoss()(line, labels) < 1 < PartTripletLoss()(line, labels)
    with pytest.raises(ValueError, match="ratio of 0 or more"):
        HardnessExclusionTripletLoss(ratio=-1)


def contrast_of_anchors(embeddings, labels):
    """The contrastive loss of one part, one anchor and one pair after the other."""
    unit = [x / x.norm() for x in embeddings]
    losses = []
    for i, anchor in enumerate(unit):
        scores = {j: -(anchor - x).norm() / 0.01 for j, x in enumerate(unit) if j != i}
        log_total = torch.stack(list(scores.values())).logsumexp(0)
        positives = [j for j in scores if labels[j] == labels[i]]
        each = [-(scores[j] - log_total) for j in positives]
        losses.append(sum(each) / len(each) if each else torch.tensor(0.0))
    counted = [loss for loss in losses if loss > 0]
    return sum(counted) / len(counted) if counted else torch.tensor(0.0)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]])
def test_contrastive_loss_against_loops(labels):
    embeddings = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    loss = SupConDistanceLoss()(embeddings, torch.tensor(labels))
    wanted = sum(contrast_of_anchors(embeddings[:, p], labels) for p in range(3)) / 3
    torch.testing.assert_close(loss, wanted.to(loss), rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert gradient.isfinite().all()
    if wanted > 0:
        torch.testing.assert_close(gradient, torch.autograd.grad(wanted, embeddings)[0])


def test_contrastive_loss_refuses_temperatures_of_none():
    with pytest.raises(ValueError, match="temperature above 0"):
        SupConDistanceLoss(0)
