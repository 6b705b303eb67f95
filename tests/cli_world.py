"""Walks, and words of the command line."""

from gaitzoo.synthetic import render_walk, sample_identity

TINY = ["--model", "dygait_tiny", "--quiet"]


def walk(person, seed=0, frames=5):
    return render_walk(sample_identity(person), frames=frames, seed=seed).silhouettes.numpy()


def identify(*more):
    return ["identify", "--gallery", "known", "--probe", "new", *TINY, *more]
