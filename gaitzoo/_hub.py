"""Saving, loading and sharing models through the Hugging Face Hub's own mixin and card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from huggingface_hub import HfApi, ModelCard, ModelCardData, ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from typing_extensions import Self

from gaitzoo._base import GaitModel
from gaitzoo._checkpoint import load_into, num_classes_in, read_state_dict
from gaitzoo._download import download
from gaitzoo._registry import PretrainedCfg, find_architecture

__all__ = ["HubAdapter", "load_saved"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"

CARD_SECTIONS = {
    "license": "not stated",
    "training_data": "not stated",
    "intended_use": (
        "Research on gait recognition: comparing walking people by their silhouettes. Identifying "
        "people without their knowledge is illegal in many places and not an intended use."
    ),
    "limits": (
        "Not evaluated beyond the results above. Expect it to fail on views, clothing, bags, "
        "frame rates and segmentation unlike its training data."
    ),
    "results": "none measured",
}

_CARD = """---
{{ card_data }}
---

# {{ name }}

A gait recognition model of the [gaitzoo](https://pypi.org/project/gaitzoo) library.

| | |
|---|---|
| Architecture | `{{ architecture }}` |
| Tag | `{{ tag }}` |
| Model arguments | `{{ model_args }}` |
| Classes | {{ num_classes }} |
| Parameters | {{ parameters }} |
| Input | {{ input_size }}, values in {{ value_range }} |
| Embedding | {{ embedding }}, {{ num_parts }} parts of {{ num_features }} channels, {{ distance }} |
| Paper | {{ paper }} |
| Licence of the weights | {{ license }} |
| gaitzoo version | {{ version }} |

## Use

```python
import gaitzoo

model = gaitzoo.create_model("hf-hub:ORGANISATION/NAME").eval()
embeddings = gaitzoo.embed(model, [gaitzoo.load_silhouettes("folder_of_frames")])
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


class HubAdapter(
    ModelHubMixin, library_name="gaitzoo", tags=["gait-recognition"], model_card_template=_CARD
):
    """A model behind huggingface_hub's mixin.

    A class of its own, because importing huggingface_hub takes longer than importing this
    library: models meet it only when they are saved, loaded or shared.

    Args:
        model: The model.
        card_sections: Sections of the model card to fill in.

    Raises:
        ValueError: If a section is unknown.
    """

    def __init__(self, model: GaitModel, card_sections: Mapping[str, str] | None = None) -> None:
        unknown = set(card_sections or ()) - set(CARD_SECTIONS)
        if unknown:
            raise ValueError(
                f"expected sections of the model card among {', '.join(CARD_SECTIONS)}, got "
                f"{', '.join(sorted(unknown))}"
            )
        self.model = model
        self.card_sections = dict(card_sections or {})

    def save(self, save_directory: str | Path) -> Path:
        """Writes config, weights and card; returns the folder."""
        self.save_pretrained(save_directory)
        return Path(save_directory)

    def _save_pretrained(self, save_directory: Path) -> None:
        (save_directory / CONFIG).write_text(
            json.dumps(model_config(self.model), indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        tensors = {key: t.detach().contiguous() for key, t in self.model.state_dict().items()}
        # Written beside and moved, so that an interrupted save never leaves half a file.
        unfinished = save_directory / f"{WEIGHTS}.unfinished"
        safetensors.torch.save_file(tensors, unfinished, metadata={"format": "pt"})
        os.replace(unfinished, save_directory / WEIGHTS)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, num_classes: int | None = None, **fetch_args: Any
    ) -> HubAdapter:
        fetch_args = {key: fetch_args[key] for key in _FETCH_ARGS if key in fetch_args}
        config = _read_config(_fetch(model_id, CONFIG, **fetch_args))
        weights = _fetch(model_id, WEIGHTS, **fetch_args)
        state_dict = read_state_dict(weights)
        model = _build(config, num_classes, num_classes_in(state_dict), model_id)
        load_into(
            model,
            state_dict,
            weights,
            new_classifier=model.num_classes != num_classes_in(state_dict),
        )
        return cls(model.eval())

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card: what the model is, what it was trained on, and what it is not for."""
        cfg = self.model.pretrained_cfg
        config = model_config(self.model)
        sections = CARD_SECTIONS | _sections_of(cfg) | self.card_sections
        card_data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        card_data.pipeline_tag = "image-feature-extraction"
        card_data.license = sections["license"] if sections["license"] in _SPDX else "other"
        return ModelCard.from_template(
            card_data=card_data,
            template_str=_CARD,
            name=cfg.name,
            architecture=config["architecture"],
            tag=cfg.tag or "none",
            model_args=json.dumps(config["model_args"]),
            num_classes=self.model.num_classes,
            parameters=f"{sum(p.numel() for p in self.model.parameters()):,}",
            input_size=f"{cfg.input_size[0]} x {cfg.input_size[1]} pixels",
            value_range=list(cfg.value_range),
            embedding=cfg.embedding.replace("_bn", " the batch-norm neck"),
            num_parts=self.model.num_parts,
            num_features=self.model.num_features,
            distance=cfg.distance,
            paper=cfg.paper or "none",
            version=config["gaitzoo_version"],
            **sections,
        )


_FETCH_ARGS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
_SPDX = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0")


def _sections_of(cfg: PretrainedCfg) -> dict[str, str]:
    known = {"license": cfg.license, "training_data": cfg.training_data}
    known = {key: text for key, text in known.items() if text not in ("unknown", "none")}
    if cfg.has_weights and cfg.metrics:
        rows = "\n".join(f"- {name}: {value}" for name, value in cfg.metrics.items())
        who = "measured with this library" if cfg.reproduced else "published by the authors"
        known["results"] = f"As {who}:\n\n{rows}"
    return known


def model_config(model: GaitModel) -> dict[str, Any]:
    """What ``config.json`` says of a model."""
    from gaitzoo import __version__

    return {
        "library": "gaitzoo",
        "gaitzoo_version": __version__,
        "architecture": model.architecture,
        "model_args": {**model.model_args, "num_classes": model.num_classes},
        "pretrained_cfg": model.pretrained_cfg.to_dict(),
    }


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    wanted = {"architecture": str, "model_args": dict, "pretrained_cfg": dict}
    if not isinstance(config, dict) or not all(
        isinstance(config.get(key), kind) for key, kind in wanted.items()
    ):
        raise ValueError(
            f"expected {path} to be written by gaitzoo (with {', '.join(wanted)}), got something "
            "else; files of other libraries load with checkpoint_path=..."
        )
    return config


def _build(
    config: dict[str, Any], num_classes: int | None, classes_in_file: int, where: str
) -> GaitModel:
    architecture = find_architecture(config["architecture"])
    classes = classes_in_file if num_classes is None else num_classes
    known_fields = PretrainedCfg.__dataclass_fields__
    cfg_fields = {
        k: _tuples(v) for k, v in config["pretrained_cfg"].items() if k in known_fields
    }
    try:
        model_args = {k: _tuples(v) for k, v in config["model_args"].items()}
        model = architecture.build(**{**model_args, "num_classes": classes})
        model.pretrained_cfg = replace(PretrainedCfg(**cfg_fields))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{CONFIG} of {where} does not describe a {config['architecture']} that this version "
            f"of gaitzoo can build: {error}"
        ) from error
    return model


def _tuples(value: Any) -> Any:
    """JSON has lists only; the models' arguments are tuples."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _fetch(model_id: str, filename: str, **fetch_args: Any) -> Path:
    """A file of a saved model, from a folder or the Hub; clear errors instead of HTTP ones."""
    if os.path.isdir(model_id):
        path = Path(model_id, filename)
        if not path.is_file():
            raise FileNotFoundError(
                f"expected {filename} in {model_id}, got a folder without it; folders written by "
                "save_pretrained have it, other files load with checkpoint_path=..."
            )
        return path
    return download(model_id, filename, **fetch_args)


def download(repo_id: str, filename: str, **fetch_args: Any) -> Path:
    """Downloads a file from the Hub, or finds it in the cache.

    Args:
        repo_id: ``"organisation/name"``.
        filename: Path inside the repository.
        **fetch_args: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``, as for ``hf_hub_download``.

    Raises:
        FileNotFoundError: If there is no such repository, revision or file.
        ConnectionError: If the Hub cannot be reached and the file is not in the cache.
        ValueError: If ``repo_id`` is no repository name.
    """
    where = f"{filename!r} of the Hub repository {repo_id!r}"
    try:
        return Path(hf_hub_download(repo_id, filename, **fetch_args))
    except HFValidationError as error:
        raise ValueError(
            f"expected a folder that exists or a Hub repository 'organisation/name', got "
            f"{repo_id!r}"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"cannot get {where}: there is no such repository, or it is private (log in with "
            "'hf auth login')"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"cannot get {where}: it has no revision {fetch_args.get('revision')!r}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"cannot get {where}: it is not in the cache and the Hub cannot be reached (is the "
            "network up? is HF_HUB_OFFLINE set?)"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"cannot get {where}: the repository has no such file") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"cannot get {where}: the Hub answered with {error}") from error
