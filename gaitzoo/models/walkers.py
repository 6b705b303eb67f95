"""What the weights that come with the library have in common."""

from __future__ import annotations

from gaitzoo.models.cfg import PretrainedCfg

__all__ = ["WALKERS_PROTOCOL", "walkers_cfg"]

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
        notes=(
            "Trained on synthetic bodies only, for trying things out: not a model of the paper's "
            "size, and not measured on data sets of real people."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )
