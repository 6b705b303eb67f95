"""The model card: its template, and what it says when nobody filled it in."""

from __future__ import annotations

from collections.abc import Sequence

from gaitzoo.hub.shipped import card_sections
from gaitzoo.models.cfg import FIDELITIES, PretrainedCfg
from gaitzoo.models.registry import is_model, model_info

__all__ = ["CARD", "CARD_SECTIONS", "SPDX", "fidelity_line", "reading_lines", "sections_of"]

# Licences by the names that the Hub knows.
SPDX = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "mit")

CARD_SECTIONS = {
    "license": "not stated by whoever saved this model",
    "training_data": "Not stated by whoever saved this model.",
    "intended_use": (
        "Research on gait recognition: comparing people by how they walk. Identifying "
        "people without their knowledge is illegal in many places and not an intended use."
    ),
    "limits": (
        "Not evaluated beyond the results above. Expect it to fail on views, clothing, bags, "
        "frame rates and segmentation unlike its training data. Distances are no probabilities: "
        "a threshold must be chosen on data like yours."
    ),
    "results": "None measured.",
}

CARD = """---
{{ card_data }}
---

# {{ name }}

A gait recognition model of the [gaitzoo](https://pypi.org/project/gaitzoo) library: sequences of
{{ inputs }} in, embeddings to compare walking people by out.

| | |
|---|---|
| Architecture | `{{ architecture }}` |
| Tag | {{ tag }} |
| Model arguments | `{{ model_args }}` |
| Classes | {{ num_classes }} |
| Parameters | {{ parameters }} |
| Input | {{ input_size }}, values in {{ value_range }} |
| Embedding | {{ embedding }}; {{ num_parts }} parts of {{ num_features }} channels |
| Distance | {{ distance }}, mean over parts |
| Paper | {{ paper }} |
| Fidelity of the code | {{ fidelity }} |
| Licence of the weights | {{ license }} |
| gaitzoo version | {{ version }} |

## Use

```python
import gaitzoo

model = gaitzoo.create_model("{{ source }}").eval()
sequence = {{ load }}
embeddings = gaitzoo.embed(model, [sequence])
```

## Training data

{{ training_data }}

## Results

{{ results }}

## Intended use

{{ intended_use }}

## Limits

{{ limits }}
"""


def fidelity_line(cfg: PretrainedCfg) -> str:
    """How the code stands to its authors', in one line.

    Args:
        cfg: Of the model.
    """
    # A model built by its class has no tag: the code is that of its architecture all the same.
    known = model_info(cfg.name) if is_model(cfg.name) else cfg
    word = cfg.fidelity or known.fidelity
    return f"{word}: {FIDELITIES[word]}" if word else "no system of others"


def reading_lines(modalities: Sequence[str]) -> dict[str, str]:
    """What a model reads, in words, and how a sequence of it is loaded.

    Args:
        modalities: Of the model.
    """
    if tuple(modalities) == ("silhouettes",):
        load = 'gaitzoo.load_silhouettes("folder_of_frames")'
    elif len(modalities) == 1:
        load = f'gaitzoo.load_sequence("folder_of_frames", "{modalities[0]}")'
    else:
        named = ", ".join(f'"{name}"' for name in modalities)
        load = f'gaitzoo.load_sequence("folder", ({named}))'
    return {"inputs": " and ".join(modalities).replace("_", " "), "load": load}


def sections_of(cfg: PretrainedCfg, weights_of: str | None) -> dict[str, str]:
    """Sections that the card has by itself: of weights that exist; of others nothing is known.

    Args:
        cfg: Of the model.
        weights_of: Name of the tag that the model's weights are, ``None`` = others.
    """
    if not cfg.has_weights:
        return {}
    known = {}
    if cfg.license != "unknown":
        known["license"] = (
            f"that of the published weights of `{cfg.name}`, if this model started from them: "
            f"{cfg.license}"
        )
        if cfg.license.lower() in SPDX and weights_of == cfg.name:
            known["license"] = cfg.license
    if cfg.training_data != "none":
        known["training_data"] = f"The published weights of `{cfg.name}`: {cfg.training_data}"
    if cfg.metrics:
        rows = "\n".join(f"- {name}: {value}" for name, value in cfg.metrics.items())
        who = "measured with this library" if cfg.reproduced else "published by their authors"
        if cfg.fidelity == "reconstruction":
            who += " for their own code, of which this is a reconstruction"
        known["results"] = (
            f"Of the weights of `{cfg.name}`, {who}; not measured again on this copy:\n\n{rows}"
        )
    own_card = card_sections(cfg)
    for title in ("training_data", "results", "limits"):
        if title in own_card:
            known[title] = (
                f"Of the weights of `{cfg.name}` that come with gaitzoo, if this model started "
                f"from them:\n\n{own_card[title]}"
            )
    if "recipe" in own_card:
        known["training_data"] += f"\n\n{own_card['recipe']}"
    return known
