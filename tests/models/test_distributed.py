"""Training in two processes gives the loss and the gradients of one process with all sequences."""

import copy
import json
import re
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from builders import make
from conftest import TINY, relative_error
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gaitzoo.data.batches import batch_of
from gaitzoo.layers.feature_field import TextureSuppression
from gaitzoo.layers.part_graph import PartKnowledgeGraph
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss, gather_across_processes
from gaitzoo.testing.trial import Trial

FRAMES = (4, 2, 3, 1)
LABELS = torch.tensor([0, 1, 0, 1])
# In float64 the order of sums is all that may differ.
TOLERANCE = 1e-9
BATCH_NORM = nn.modules.batchnorm._BatchNorm


def training(name):
    """A model in training mode without what every process has of its own: statistics, chance."""
    model = make(name).double().train()
    for module in model.modules():
        chance = "Drop" in type(module).__name__ or isinstance(module, TextureSuppression)
        if isinstance(module, BATCH_NORM) or chance:
            module.eval()
        if isinstance(module, PartKnowledgeGraph):
            module.scope = "sample"  # or it spans the sequences of its process
    if hasattr(model, "modality_drop_rate"):
        model.modality_drop_rate = 0.0
    return model


def run_step(model, inner, sequences, labels):
    """The loss of all processes, after its backward pass."""
    output = model(*batch_of(inner.modalities, sequences, torch.float64))
    embeddings, everyone = map(gather_across_processes, (output.embeddings, labels))
    loss = PartTripletLoss(margin=0.5)(embeddings, everyone)
    if output.logits is not None:
        loss = loss + PartCrossEntropyLoss(scale=4.0)(output.logits, labels)
    # DDP waits for the gradients of all heads: attributes, classes of snippets (one per sequence).
    others = [x for x in (getattr(output, "aux", None) or {}).values() if x.ndim == 1]
    if getattr(output, "snippet_logits", None) is not None:
        others.append(output.snippet_logits)
    for values in others:
        loss = loss + values.square().mean()
    loss.backward()
    return gather_across_processes(loss.detach()[None]).mean()


def shard(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # What docs/scale.md says of parameters that are a single number: FSDP2 cannot cut them.
    single = {p for p in model.parameters() if p.ndim == 0}
    fully_shard(
        model,
        mesh=init_device_mesh("cpu", (dist.get_world_size(),)),
        **({"ignored_params": single} if single else {}),
    )
    for parameter in single:
        parameter.register_post_accumulate_grad_hook(average)
    return model


def average(parameter):
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


ENGINES = {"DDP": DistributedDataParallel, "FSDP2": shard}


def gradients_of(model):
    found = {}
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            found[key] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    return found


def errors_of(name, rank):
    """Of each engine the largest difference from one process, and the gradients' largest number."""
    model = training(name)
    sequences = Trial(model, FRAMES).sequences()
    share = slice(2 * rank, 2 * rank + 2)
    alone = copy.deepcopy(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: False)
        wanted_loss = run_step(alone, alone, sequences, LABELS)
    wanted = gradients_of(alone)
    largest = max(grad.abs().max().item() for grad in wanted.values())
    found = {"largest": largest}
    for engine, wrap in ENGINES.items():
        inner = copy.deepcopy(model)
        loss = run_step(wrap(inner), inner, sequences[share], LABELS[share])
        got = gradients_of(inner)
        assert got.keys() == wanted.keys(), engine
        found[engine] = abs(loss - wanted_loss).item() / abs(wanted_loss).item()
        for key, grad in wanted.items():
            # Some gradients are zero but for rounding: biases before a softmax.
            scale = max(grad.abs().max().item(), 1e-4 * largest)
            found[engine] = max(found[engine], (got[key] - grad).abs().max().item() / scale)
    return found


def weights_after_a_step(rank):
    """How far FSDP2's weights, gathered after a step of AdamW, are from those of one process."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model = training("dygait_tiny")
    sequences = Trial(model, FRAMES).sequences()
    alone, sharded = copy.deepcopy(model), shard(copy.deepcopy(model))
    share = slice(2 * rank, 2 * rank + 2)
    optimizers = [torch.optim.AdamW(each.parameters(), 0.1) for each in (alone, sharded)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: False)
        run_step(alone, alone, sequences, LABELS)
    run_step(sharded, sharded, sequences[share], LABELS[share])
    for optimizer in optimizers:
        optimizer.step()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(sharded, options=options)
    if rank:
        assert not state  # the first process alone holds them
        return 0.0
    model.load_state_dict(state)
    inputs = batch_of(model.modalities, sequences, torch.float64)
    with torch.no_grad():
        return relative_error(model(*inputs).embeddings, alone(*inputs).embeddings)


def run_process(rank, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    try:
        with warnings.catch_warnings():
            # Of every output that is a view; it speaks of changing embeddings in place.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
            found = {name: errors_of(name, rank) for name in TINY}
            weights = weights_after_a_step(rank)
        Path(folder, f"{rank}.json").write_text(json.dumps({"models": found, "weights": weights}))
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_train_as_one(tmp_path):
    other = mp.get_context("spawn").Process(target=run_process, args=(1, str(tmp_path)))
    other.start()
    try:
        run_process(0, str(tmp_path))
    finally:
        other.join()
    assert other.exitcode == 0
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        assert results["models"].keys() == set(TINY)
        for name, found in results["models"].items():
            assert found["largest"] > 1e-6, f"{name} has nothing to train"
            for engine in ENGINES:
                assert found[engine] < TOLERANCE, f"{name} under {engine}: {found[engine]}"
        assert results["weights"] < TOLERANCE


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_batch_norms_can_be_made_those_of_all_processes(name):
    model = training(name)
    made = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert made.state_dict().keys() == model.state_dict().keys()
    batch = batch_of(model.modalities, Trial(model, FRAMES).sequences(), torch.float64)
    assert relative_error(made(*batch).embeddings, model(*batch).embeddings) < TOLERANCE
    # Outside of a group a synchronised norm is a plain one, also while it is trained.
    for each in (model, made):
        for module in each.modules():
            if isinstance(module, BATCH_NORM):
                module.train()
    assert relative_error(made(*batch).embeddings, model(*batch).embeddings) < TOLERANCE


def test_the_page_names_the_models_that_batch_norm_makes_differ():
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    rows = re.findall(r"^\| (none|in the neck)[^|]*\| (.*) \|$", page, re.MULTILINE)
    named = {place: set(re.findall(r"`(\w+)`", models)) for place, models in rows}
    found = {"none": set(), "in the neck": set()}
    for name in TINY:
        modules = make(name).train().named_modules()  # frozen ones stay in eval mode
        norms = [key for key, m in modules if isinstance(m, BATCH_NORM) and m.training]
        if all(key.startswith("neck.") for key in norms):
            found["in the neck" if norms else "none"].add(name.removesuffix("_tiny"))
    assert named == found
