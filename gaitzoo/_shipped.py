"""Weights that come with the library: what they have in common, and what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

from gaitzoo._registry import PretrainedCfg, is_model, model_info

__all__ = ["SHIPPED", "WALKERS_PROTOCOL", "card_sections", "walkers_cfg"]

SHIPPED = Path(__file__).parent / "weights"

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


def card_sections(cfg: PretrainedCfg) -> dict[str, str]:
    """Sections of the card beside a file that comes with the library: lower-case title to text."""
    # What a cfg says may come from anybody's saved model: only the registry names files here.
    known = model_info(cfg.name) if is_model(cfg.name) else PretrainedCfg()
    if known.filename is None or known.hub_id is not None or known.sha256 != cfg.sha256:
        return {}
    card = (SHIPPED / known.filename).with_suffix(".md")
    if not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {title.lower().replace(" ", "_"): body.strip() for title, body in sections}
