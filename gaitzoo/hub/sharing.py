"""Saving, loading and sharing models through the Hugging Face Hub's own mixin and card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from typing_extensions import Self

from gaitzoo.data.atomic import whole_files
from gaitzoo.hub.arguments import refuse_unknown
from gaitzoo.hub.card import (
    CARD,
    CARD_SECTIONS,
    SPDX,
    fidelity_line,
    reading_lines,
    sections_of,
)
from gaitzoo.hub.checkpoint import check_fits, load_into
from gaitzoo.hub.download import download
from gaitzoo.hub.reading import (
    num_classes_in,
    printable,
    read_state_dict,
    write_safetensors,
)
from gaitzoo.hub.structure import (
    construct,
    has_place_for_classes,
    refuse_meta,
    structure_alone,
    wants_structure_alone,
)
from gaitzoo.layers.checks import plain_values
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.recorded import ReadyModule
from gaitzoo.models.registry import Architecture, find_architecture, is_model

__all__ = ["HubAdapter", "load_saved"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class HubAdapter(
    ModelHubMixin, library_name="gaitzoo", tags=["gait-recognition"], model_card_template=CARD
):
    """A model behind huggingface_hub's mixin.

    A class of its own, because importing huggingface_hub takes longer than importing this
    library: models meet it only when they are saved, loaded or shared.

    Args:
        model: The model.
        card_sections: Sections of the model card to fill in.

    Raises:
        ValueError: If a section is unknown, the model is fused, or nothing that a folder can hold
            builds it again.
    """

    def __init__(self, model: GaitModel, card_sections: Mapping[str, str] | None = None) -> None:
        if model.fused:
            raise ValueError(
                "expected a plain model to save, got one from fuse_for_inference, whose weights "
                "fit no other model; save the model that it was made from, and fuse after loading"
            )
        _refuse_other_class(model)
        _refuse_ready_modules(model)
        unknown = set(card_sections or ()) - set(CARD_SECTIONS)
        if unknown:
            raise ValueError(
                f"expected sections of the model card among {', '.join(CARD_SECTIONS)}, got "
                f"{', '.join(sorted(unknown))}"
            )
        self.model = model
        self.card_sections = dict(card_sections or {})
        self.source = "local-dir:PATH_OF_THIS_FOLDER"

    def save(self, save_directory: str | Path) -> Path:
        """Writes config, weights and card; returns the folder."""
        self.save_pretrained(save_directory)
        return Path(save_directory)

    def push_to_hub(self, repo_id: str, **push_args: Any) -> str:
        """Uploads config, weights and card in one commit, as the mixin does.

        Args:
            repo_id: ``"organisation/name"``, or ``"name"`` for the user's own.
            **push_args: As for the mixin.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: If ``repo_id`` is no repository name.
            PermissionError: If the Hub does not let this user write there.
            ConnectionError: If the Hub answers with another error.
        """
        try:
            if "/" not in repo_id:
                # The card names the repository in full, which only the Hub can say.
                repo_id = (
                    HfApi(token=push_args.get("token"))
                    .create_repo(repo_id, private=push_args.get("private"), exist_ok=True)
                    .repo_id
                )
            branch = push_args.get("branch")
            self.source = f"hf-hub:{repo_id}" + (f"@{branch}" if branch else "")
            commit = super().push_to_hub(repo_id, **push_args)
            # As text it is the folder's URL in some versions of the client.
            return str(getattr(commit, "commit_url", commit))
        except HFValidationError as error:
            raise ValueError(
                f"expected a Hub repository 'organisation/name', got {repo_id!r}"
            ) from error
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise PermissionError(
                    f"the Hub does not let you write to {repo_id!r}; log in with 'hf auth login' "
                    f"or pass token=... of somebody who may ({error})"
                ) from error
            raise ConnectionError(f"cannot push to {repo_id!r}: {error}") from error

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        name_or_path: str | Path,
        *,
        num_classes: int | None = None,
        model_args: Mapping[str, Any] | None = None,
        **fetch_args: Any,
    ) -> Self:
        """Loads a model from a folder, or else from the Hub.

        Not the mixin's way, which reads the configuration itself and reports other errors.

        Args:
            name_or_path: A folder on disk or a Hub repository.
            num_classes: As for :func:`load_saved`.
            model_args: As for :func:`load_saved`.
            **fetch_args: As for :func:`load_saved`.
        """
        folder = Path(name_or_path)
        location = folder if folder.is_dir() else str(name_or_path)
        return cls(load_saved(location, num_classes, model_args, **fetch_args))

    def _save_pretrained(self, save_directory: Path) -> None:
        config = json.dumps(model_config(self.model), indent=2, sort_keys=True) + "\n"
        with whole_files(save_directory / CONFIG) as unfinished:
            unfinished.write_text(config, encoding="utf-8")
        write_safetensors(save_directory / WEIGHTS, self.model.state_dict())
        # The mixin keeps a card that is there, even if it speaks of another model.
        self.generate_model_card().save(save_directory / "README.md")

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card: what the model is, what it was trained on, and what it is not for."""
        cfg = self.model.pretrained_cfg
        config = model_config(self.model)
        sections = CARD_SECTIONS | sections_of(cfg, self.model.weights_of) | self.card_sections
        card_data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        card_data.pipeline_tag = "image-feature-extraction"
        if sections["license"] != CARD_SECTIONS["license"]:
            known = sections["license"].lower() in SPDX
            card_data.license = sections["license"].lower() if known else "other"
        return ModelCard.from_template(
            card_data=card_data,
            template_str=CARD,
            name=cfg.name or config["architecture"],
            architecture=config["architecture"],
            tag=f"`{cfg.tag}`" if cfg.tag else "none",
            model_args=json.dumps(config["model_args"]),
            num_classes=self.model.num_classes,
            parameters=f"{sum(p.numel() for p in self.model.parameters()):,}",
            input_size=f"{cfg.input_size[0]} x {cfg.input_size[1]} pixels (height x width)",
            value_range=list(cfg.value_range),
            embedding=cfg.embedding.replace("_bn", " the batch-norm neck"),
            num_parts=self.model.num_parts,
            num_features=self.model.num_features,
            distance=cfg.distance,
            paper=cfg.paper or "none",
            fidelity=fidelity_line(cfg),
            source=self.source,
            version=config["gaitzoo_version"],
            **reading_lines(self.model.modalities),
            **sections,
        )


def _refuse_other_class(model: GaitModel) -> None:
    """Raises unless the registry builds models of this class: a folder could not bring it back."""
    name = model.architecture
    entry = find_architecture(name) if is_model(name) else None
    kind = type(model)
    if entry is None or (entry.model_class is not object and entry.model_class is not kind):
        built = "no model" if entry is None else f"a {entry.model_class.__name__}"
        raise ValueError(
            f"expected a model that its registered name builds again, got a {kind.__name__} whose "
            f"architecture {name!r} builds {built}; call gaitzoo.register_model"
            f'("{kind.__name__.lower()}", {kind.__name__}) first, here and where it is loaded'
        )


def _refuse_ready_modules(model: GaitModel) -> None:
    arguments = model.config_args()
    ready = {k: v.kind for k, v in arguments.items() if isinstance(v, ReadyModule)}
    if ready:
        shown = ", ".join(f"a {kind} as {name}" for name, kind in ready.items())
        raise ValueError(
            f"expected a model built from arguments that a configuration can hold, got {shown}, "
            "which a folder cannot rebuild; keep model.state_dict() and build the model with the "
            "same modules yourself"
        )
    swapped = [name for name, m in model.named_modules() if getattr(m, "replaced", False)]
    if swapped:
        raise ValueError(
            f"expected the convolutions that the model was built with, got {len(swapped)} from "
            f"replace_convs ({swapped[0]}), which a folder cannot rebuild; keep "
            "model.state_dict() and call replace_convs on a fresh model"
        )


def model_config(model: GaitModel) -> dict[str, Any]:
    """What ``config.json`` says of a model."""
    from gaitzoo.version import __version__

    model_args = model.config_args()
    if has_place_for_classes(model):
        # It may have got another classifier after it was built.
        model_args["num_classes"] = model.num_classes
    return {
        "library": "gaitzoo",
        "gaitzoo_version": __version__,
        "architecture": model.architecture,
        "model_args": model_args,
        "pretrained_cfg": model.pretrained_cfg.to_dict(),
    }


def load_saved(
    location: str | Path,
    num_classes: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    **fetch_args: Any,
) -> GaitModel:
    """Loads a model that ``save_pretrained`` or ``push_to_hub`` wrote.

    Args:
        location: A folder (as ``Path``) or a Hub repository (as ``str``).
        num_classes: Another class count drops the saved classifier (0 = no classifier).
        model_args: Arguments of the model that replace the saved ones.
        **fetch_args: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``, for repositories.

    Returns:
        The model in eval mode.

    Raises:
        FileNotFoundError: If there is no such repository, or it lacks a file.
        ConnectionError: If the files are not in the cache and the Hub cannot be reached.
        TypeError: If ``model_args`` has an argument that the model has not.
        ValueError: If the files are of another model, damaged, or do not fit exactly.
    """
    config = _read_config(_fetch(location, CONFIG, **fetch_args))
    changes = dict(model_args or {})
    refuse_unknown(_entry(config, location), changes)
    if wants_structure_alone():
        return _build(config, num_classes, location, changes).eval()
    refuse_meta(f"the weights in {location}")
    weights = _fetch(location, WEIGHTS, **fetch_args)
    key = _entry(config, location).classifier_key
    state_dict = read_state_dict(weights, num_classes, key)
    classes_in_file = num_classes_in(state_dict, key)
    new_classifier = num_classes is not None and num_classes != classes_in_file
    if num_classes is None and classes_in_file:
        num_classes = classes_in_file
    # First without numbers: a strange configuration could ask for more memory than there is.
    with structure_alone():
        check_fits(
            _build(config, num_classes, location, changes), state_dict, weights, new_classifier
        )
    model = _build(config, num_classes, location, changes)
    load_into(model, state_dict, weights, new_classifier)
    return model.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = plain_values(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
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


# What strange arguments end in, apart from the models' own checks.
_BAD_ARGUMENTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _entry(config: dict[str, Any], where: str | Path) -> Architecture:
    try:
        return find_architecture(config["architecture"])
    except ValueError as error:
        raise ValueError(
            f"{CONFIG} of {where} does not describe a model that this version of gaitzoo can "
            f"build: {printable(str(error))}; a model of your own needs its register_model call "
            "first"
        ) from error


def _build(
    config: dict[str, Any], num_classes: int | None, where: str | Path, changes: dict[str, Any]
) -> GaitModel:
    known_fields = PretrainedCfg.__dataclass_fields__
    cfg_fields = {k: v for k, v in config["pretrained_cfg"].items() if k in known_fields}
    entry = _entry(config, where)
    try:
        cfg = PretrainedCfg(**cfg_fields)
        model_args = _without_other_weights(config["model_args"]) | changes
        if num_classes is not None:
            model_args["num_classes"] = num_classes
        model = construct(entry, model_args)
        # What the structure says itself cannot be said otherwise.
        own = model.pretrained_cfg
        if changes:
            cfg = replace(cfg, embedding=own.embedding)
        if cfg.embedding != own.embedding:
            raise ValueError(
                f'expected embedding "{own.embedding}", as the arguments of the model say, got '
                f'"{cfg.embedding}"'
            )
        model.pretrained_cfg = replace(cfg, input_size=model.input_size or cfg.input_size)
        if "modalities" in vars(model):  # its arguments say what it reads
            model.pretrained_cfg = replace(model.pretrained_cfg, modalities=model.modalities)
        elif cfg.modalities:
            model.modalities = cfg.modalities
    except _BAD_ARGUMENTS as error:
        raise ValueError(
            f"{CONFIG} of {where} does not describe a {entry.name} that this version of gaitzoo "
            f"can build: {printable(str(error))}"
        ) from error
    return model


def _without_other_weights(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a saved model, which has its weights: it may not ask for others."""
    return {
        key: _without_other_weights(value)
        if key.endswith("_args") and isinstance(value, Mapping)
        else value
        for key, value in model_args.items()
        if not key.startswith("pretrained")
    }


def _fetch(location: str | Path, filename: str, **fetch_args: Any) -> Path:
    """A file of a saved model, from a folder or the Hub."""
    if isinstance(location, str):
        return download(location, filename, **fetch_args)
    path = location / filename
    if not path.is_file():
        raise FileNotFoundError(
            f"expected {filename} in {location}, got a folder without it; folders written by "
            "save_pretrained have it, other files load with checkpoint_path=..."
        )
    return path
