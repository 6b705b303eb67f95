"""What the weights that come with the library have in common."""

from __future__ import annotations

import warnings

from gaitzoo.models.cfg import PretrainedCfg

__all__ = ["WALKERS_PROTOCOL", "walkers_cfg", "warn_of_walkers"]

WALKERS_PROTOCOL = (
    "100 unseen synthetic people, six views (0 to 180 degrees, cameras 0 to 30 degrees high), "
    "gallery of two normal walks, identical views excluded; examples/evaluate_walkers.py"
)


def walkers_cfg(**fields: object) -> PretrainedCfg:
    """The cfg of weights trained on synthetic walkers.

    Args:
        **fields: What differs per model: file, hash, structure, scores.
    """
    return PretrainedCfg(
        input_size=(32, 22),
        license="apache-2.0",
        origin="gaitzoo, examples/train.py",
        training_data="2000 synthetic people of gaitzoo.synthetic, no real person",
        reproduced=True,
        fidelity="parity",
        notes=(
            "Trained on synthetic bodies only, for trying things out: not a model of the paper's "
            "size, and not measured on data sets of real people."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


def warn_of_walkers(weights_of: str | None, stacklevel: int) -> None:
    """Tells those who give shipped weights classes of their own what they start from.

    Args:
        weights_of: Name of the tag that a model has its weights from.
        stacklevel: As for ``warnings.warn``, of the caller.

    Warns:
        UserWarning: If the tag is ``walkers``.
    """
    architecture, _, tag = (weights_of or "").partition(".")
    if tag == "walkers":
        warnings.warn(
            f"{weights_of} is a small network, trained on synthetic people, for trying things "
            f"out; it is narrower than the published one. To train on real people, start from "
            f"create_model({architecture!r}, num_classes=...)",
            stacklevel=stacklevel + 1,
        )
