"""Weights that come with the library, and what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.registry import is_model, model_info

__all__ = ["SHIPPED", "card_sections"]

SHIPPED = Path(__file__).parent / "weights"


def card_sections(cfg: PretrainedCfg) -> dict[str, str]:
    """Sections of the card beside a file that comes with the library: lower-case title to text."""
    # What a cfg says may come from anybody's saved model: only the registry names files here.
    known = model_info(cfg.name) if is_model(cfg.name) else PretrainedCfg()
    if (
        known.filename is None
        or known.hub_id is not None
        or known.url is not None
        or known.sha256 != cfg.sha256
    ):
        return {}
    card = (SHIPPED / known.filename).with_suffix(".md")
    if not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {title.lower().replace(" ", "_"): body.strip() for title, body in sections}
