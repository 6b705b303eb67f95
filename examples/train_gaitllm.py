"""Train GaitLLM's second stage on synthetic walkers: frozen encoder, tiny frozen language model.

The encoder's features are computed once and kept, so that a step costs little. The language model
is small and random, which is enough to see every piece work; nothing here says how well GaitLLM
recognises people.
"""

import argparse

import torch
from matplotlib.figure import Figure
from torch import Tensor

import gaitzoo
from gaitzoo.losses import PartCrossEntropyLoss, PartTripletLoss
from gaitzoo.metrics import part_distances, rank_k
from gaitzoo.synthetic import SyntheticWalkers

TRAIN, UNSEEN, FRAMES = 24, 24, 16
LLM = {
    "model_type": "qwen2",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@torch.no_grad()
def cache(model: gaitzoo.GaitLLM, people: int, first: int) -> tuple[Tensor, Tensor]:
    """The frozen encoder's features of some people's walks, and who walks."""
    walkers = SyntheticWalkers(
        people,
        sequences=[("normal", number) for number in range(4)],
        views=(54, 90),
        frames=FRAMES,
        first_identity=first,
    )
    clips = torch.stack([walkers[i].silhouettes for i in range(len(walkers))])
    features = [model.forward_features(part)[0] for part in clips.split(16)]
    return torch.cat(features), torch.as_tensor(walkers.labels)


@torch.no_grad()
def rank1(model: gaitzoo.GaitLLM, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Rank-1 of all parts, and of the language model's part: first walk against the others."""
    model.eval()
    embeddings = torch.cat([model(features=f).embeddings for f in features.split(32)])
    model.train()
    is_gallery = torch.arange(len(labels)) % 8 < 2  # the first walk, from both views
    scores = []
    for parts in (embeddings, embeddings[:, -1:]):
        distances = part_distances(parts[~is_gallery], parts[is_gallery])
        scores.append(100 * rank_k(distances, labels[~is_gallery], labels[is_gallery]))
    return scores[0], scores[1]


def main() -> None:
    """Read the command line, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", default="gaitllm_training.png", help="picture to write")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = gaitzoo.create_model(
        "gaitllm",
        encoder_args={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
        llm=LLM,
        num_classes=TRAIN,
        token_dim=64,
        depth=1,
        num_heads=4,
    )
    assert isinstance(model, gaitzoo.GaitLLM)
    features, labels = cache(model, TRAIN, first=0)
    unseen, unseen_labels = cache(model, UNSEEN, first=TRAIN)
    before = rank1(model, unseen, unseen_labels)
    before_train = rank1(model, features, labels)
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-3, weight_decay=0.02)
    triplet, cross_entropy = PartTripletLoss(), PartCrossEntropyLoss()
    losses, entropies = [], []
    for step in range(options.steps):
        people = torch.randperm(TRAIN)[:8]
        batch = torch.cat([p * 8 + torch.randperm(8)[:4] for p in people])
        output = model(features=features[batch])
        entropy = cross_entropy(output.logits, labels[batch])
        loss = triplet(output.embeddings, labels[batch]) + entropy
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trainable_parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        entropies.append(entropy.item())
        if step % 20 == 0 or step == options.steps - 1:
            print(f"step {step}: loss {losses[-1]:.3f}", flush=True)
    after = rank1(model, unseen, unseen_labels)
    after_train = rank1(model, features, labels)
    print(f"cross-entropy, first step: {entropies[0]:.2f}, last: {entropies[-1]:.2f}")
    print(f"rank-1 of training clips, llm part: {before_train[1]:.1f} -> {after_train[1]:.1f}")
    print(f"rank-1 of unseen walkers, before: all {before[0]:.1f}, llm part {before[1]:.1f}")
    print(f"rank-1 of unseen walkers, after:  all {after[0]:.1f}, llm part {after[1]:.1f}")

    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    left.plot(losses, color="#1f6f8b")
    left.set(xlabel="step", ylabel="triplet + cross-entropy", title="Loss of stage 2")
    for offset, name, values, colour in (
        (-0.2, "before", before, "#c9c9c9"),
        (0.2, "after", after, "#1f6f8b"),
    ):
        places = [offset, 1 + offset]
        bars = right.bar(places, values, width=0.38, label=name, color=colour)
        right.bar_label(bars, fmt="%.0f", fontsize=9)
    right.set_xticks([0, 1], labels=["all parts", "language\nmodel's part"])
    right.set(ylim=(0, 115), ylabel="rank-1, %", title=f"{UNSEEN} unseen walkers")
    right.legend(loc="upper right", ncols=2, frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
