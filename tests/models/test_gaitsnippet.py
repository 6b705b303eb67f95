"""GaitSnippet: what of the order of frames matters, its training, its loss."""

import copy
import random

import pytest
import torch
from builders import make
from conftest import relative_error

import gaitzoo
from gaitzoo import GaitSnippet, SnippetLoss, SnippetOutput, SnippetSampler
from gaitzoo.inference.chunks import embed_in_chunks
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.metrics import part_distances
from gaitzoo.synthetic import render_walk, sample_identity


def clips(*shape):
    return torch.rand(*shape, 16, 12)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_those_stated():
    with torch.device("meta"):
        plain = gaitzoo.create_model("deepgaitv2_2d.gait3d")
        model = gaitzoo.create_model("gaitsnippet", snippet_head="shared")
        whole = gaitzoo.create_model("gaitsnippet")
    assert count(model) - count(plain) == 593_920 == 589_824 + 4_096
    assert count(whole) == 38_705_856
    assert whole.num_classes == 3000


@torch.no_grad()
def test_order_matters_only_from_snippet_to_snippet():
    model = make("gaitsnippet_tiny")
    x = clips(1, 12)  # three snippets of four
    wanted = model(x).embeddings
    inside = [3, 0, 2, 1, 4, 6, 5, 7, 9, 8, 11, 10]
    for order in (inside, [*range(8, 12), *range(4), *range(4, 8)]):
        assert relative_error(model(x[:, order]).embeddings, wanted) < 1e-5
    moved = model(x[:, [0, 1, 2, 4, 3, *range(5, 12)]]).embeddings
    assert relative_error(moved, wanted) > 1e-3
    # The same frames anywhere, with the number of their snippet.
    order = torch.randperm(12)
    ids = (torch.arange(12) // 4)[order][None]
    assert relative_error(model(x[:, order], snippet_ids=ids).embeddings, wanted) < 1e-5


@torch.no_grad()
def test_a_walk_is_one_maximum_over_all_its_frames():
    model = make("gaitsnippet_tiny").train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._NormBase):
            module.eval()
    x = clips(2, 8)
    output = model(x)
    features, _ = model.forward_features(x)
    parts = model.part_fc(model.part_pool(features.amax(2)))
    assert relative_error(output.embeddings, parts) < 1e-6
    assert output.snippet_embeddings.shape == (8, 4, 4)
    first = model.snippet_fc(model.part_pool(features[0, None, :, 2:4].amax(2)))
    assert relative_error(output.snippet_embeddings[1], first[0]) < 1e-6
    assert output.snippet_index.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    padded = model(x, torch.tensor([8, 3]))
    assert padded.snippet_index.tolist() == [0, 0, 0, 0, 1, 1]
    assert padded.snippet_logits.shape == (6, 4, 5)


@torch.no_grad()
def test_without_smoothing_it_is_deepgaitv2():
    model = make("gaitsnippet_tiny", snippet_head="none")
    for block in (b for layer in list(model.backbone.layers)[1:] for b in layer):
        block.snippet.bn.weight.zero_()
        block.snippet.bn.bias.zero_()
        block.snippet.bn.running_mean.zero_()
    plain = make("deepgaitv2_2d_tiny")
    kept = {k: v for k, v in model.state_dict().items() if ".snippet." not in k}
    matrices = {k for k in kept if k.startswith(("part_fc", "neck"))}
    plain.load_state_dict({k: v for k, v in kept.items() if k not in matrices}, strict=False)
    assert set(kept) == set(plain.state_dict())
    x = clips(2, 9)
    assert torch.equal(model.forward_features(x)[0], plain.forward_features(x)[0])


@torch.no_grad()
def test_pieces_give_the_numbers_of_the_whole():
    model = make("gaitsnippet_tiny", num_classes=0)
    walk = clips(37)
    wanted = model(walk[None]).embeddings
    for most in (3, 9, 16):
        assert relative_error(embed_in_chunks(model, walk, most), wanted) < 1e-5


@torch.no_grad()
def test_eval_mode_has_no_snippet_branch():
    model = make("gaitsnippet_tiny")
    assert type(model(clips(2, 5))) is gaitzoo.GaitOutput
    model = make("gaitsnippet_tiny", snippet_head="none").train()
    assert type(model(clips(2, 5))) is gaitzoo.GaitOutput
    with pytest.raises(ValueError, match="with a snippet branch"):
        model.forward_snippets(torch.rand(2, 5, 4, 4, 3))


def test_bad_snippets_and_options_are_refused():
    model = make("gaitsnippet_tiny")
    x, ids = clips(2, 5), torch.zeros(2, 5, dtype=torch.int64)
    holed = ids.clone()
    holed[0, 3] = -1
    with pytest.raises(ValueError, match="for every valid frame"):
        model(x, snippet_ids=holed)
    model(x, torch.tensor([3, 5]), snippet_ids=holed)
    with pytest.raises(ValueError, match=r"shape \[2, 5\]"):
        model(x, snippet_ids=ids[:, 1:])
    for options in ({"snippet_head": "other"}, {"segment": 0}, {"snippet_stages": (5,)}):
        with pytest.raises(ValueError, match=f"expected {next(iter(options))}"):
            GaitSnippet(num_classes=0, layers=(1, 1), channels=(2, 2), **options)


def test_no_weights_are_promised():
    with pytest.raises(gaitzoo.PretrainedNotAvailable, match="neither code nor weights"):
        gaitzoo.create_model("gaitsnippet", pretrained=True)
    tags = [gaitzoo.model_info(f"gaitsnippet.{tag}") for tag in gaitzoo.list_tags("gaitsnippet")]
    assert {cfg.fidelity for cfg in tags} == {"reconstruction"}


def test_both_classifiers_come_and_go_together(tmp_path):
    model = make("gaitsnippet_tiny").train()
    assert model(clips(2, 4)).snippet_logits.shape == (4, 4, 5)
    model.eval().save_pretrained(tmp_path)
    other = GaitSnippet.from_pretrained(tmp_path, num_classes=7).train()
    assert other(clips(2, 4)).snippet_logits.shape == (4, 4, 7)
    other.reset_classifier(0)
    output = other(clips(2, 4))
    assert output.logits is None
    assert output.snippet_logits is None
    assert output.to(torch.float64).snippet_embeddings.dtype == torch.float64
    assert output.to(torch.float64).snippet_index.dtype == torch.int64


def test_loss_is_the_sum_that_is_written():
    embeddings, logits = torch.rand(4, 2, 3), torch.rand(4, 2, 5)
    vectors, scores = torch.rand(6, 2, 3), torch.rand(6, 2, 5)
    index, labels = torch.tensor([0, 0, 1, 2, 3, 3]), torch.tensor([3, 1, 3, 0])
    output = SnippetOutput(
        embeddings,
        logits=logits,
        snippet_embeddings=vectors,
        snippet_logits=scores,
        snippet_index=index,
    )
    triplet, entropy = PartTripletLoss(0.2), PartCrossEntropyLoss(16, 0.1)
    of_walks = triplet(embeddings, labels) + entropy(logits, labels)
    repeated = torch.tensor([3, 3, 1, 3, 0, 0])
    of_snippets = triplet(vectors, repeated) + entropy(scores, repeated)
    torch.testing.assert_close(SnippetLoss()(output, labels), of_walks + 0.75 * of_snippets)
    plain = gaitzoo.GaitOutput(embeddings, logits=logits)
    torch.testing.assert_close(SnippetLoss(alpha=0)(plain, labels), of_walks)
    with pytest.raises(ValueError, match="in training mode, got GaitOutput"):
        SnippetLoss()(plain, labels)
    with pytest.raises(ValueError, match="with logits"):
        SnippetLoss()(gaitzoo.GaitOutput(embeddings), labels)
    with pytest.raises(ValueError, match="alpha of 0 or more"):
        SnippetLoss(-1)


def test_it_learns_a_few_walkers_by_heart():
    walks = torch.stack(
        [
            render_walk(
                sample_identity(person), frames=16, view=view, size=(24, 16), seed=view
            ).silhouettes
            for person in range(4)
            for view in (60, 80, 100, 120)
        ]
    )
    labels = torch.arange(4).repeat_interleave(4)
    model = GaitSnippet(
        num_classes=4, layers=(1, 1, 1, 1), channels=(4, 8, 16, 16), embed_dim=16,
        part_bins=(2,), segment=8, frames_per_snippet=4,
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    sampler, draws, loss_of = SnippetSampler(8, 2, 4), random.Random(0), SnippetLoss()
    losses = []
    for _ in range(36):
        seen = torch.stack([walk[sampler(16, draws)] for walk in walks])
        loss = loss_of(model(seen), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
    with torch.no_grad():
        embeddings = copy.deepcopy(model).eval()(walks).embeddings
    distances = part_distances(embeddings, embeddings).fill_diagonal_(float("inf"))
    assert (labels[distances.argmin(1)] == labels).float().mean() >= 0.9
