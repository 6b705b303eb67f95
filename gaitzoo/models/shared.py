"""Models in folders and on the Hugging Face Hub: saved, pushed, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import Self

__all__ = ["SharedModel"]


class SharedModel(nn.Module):
    """A model that is saved and shared together with what builds it again.

    ``gaitzoo.hub`` stands above the models and does the work; it is imported when it is asked for.
    """

    def save_pretrained(
        self, save_directory: str | Path, *, model_card: Mapping[str, str] | None = None
    ) -> Path:
        """Writes ``config.json``, ``model.safetensors`` and a model card into a folder.

        Args:
            save_directory: Folder; made if needed. Files of an earlier save are replaced.
            model_card: Sections of the card to fill in: ``"training_data"``, ``"intended_use"``,
                ``"limits"``, ``"license"``, ``"results"``.

        Returns:
            The folder.

        Raises:
            ValueError: If ``model_card`` names an unknown section, or the model is fused.
        """
        return self._adapter(model_card).save(save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        model_card: Mapping[str, str] | None = None,
        commit_message: str = "Upload a gaitzoo model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Uploads the model to the Hugging Face Hub in one commit; returns the commit's URL.

        Args:
            repo_id: ``"organisation/name"``.
            model_card: As for :meth:`save_pretrained`.
            commit_message: Message of the commit.
            private: Whether a new repository is private; ``None`` = the organisation's rule.
            token: Hub token; ``None`` = the one logged in.
            branch: Branch to push to; ``None`` = main.
            create_pr: Open a pull request instead of writing to the branch.

        Raises:
            ValueError: As for :meth:`save_pretrained`, or if ``repo_id`` is no repository name.
            PermissionError: If the Hub does not let this user write there.
            ConnectionError: If the Hub answers with another error.
        """
        return self._adapter(model_card).push_to_hub(
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        num_classes: int | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **model_args: Any,
    ) -> Self:
        """Loads a model that :meth:`save_pretrained` or :meth:`push_to_hub` wrote.

        Args:
            name_or_path: A folder on disk or a Hub repository ``org/name``.
            revision: Branch, tag or commit of the repository.
            num_classes: Another class count drops the saved classifier (0 = no classifier).
            cache_dir: Where downloads are kept; ``None`` = the Hub's own cache.
            token: Hub token; ``None`` = the one logged in.
            local_files_only: Use what is in the cache and never the network.
            force_download: Download again what is in the cache.
            **model_args: Arguments of the model to take instead of the saved ones, for example
                where something that it is built from lies now.

        Returns:
            The model in eval mode.

        Raises:
            FileNotFoundError: If the folder lacks a file.
            TypeError: If the model has no such argument.
            ValueError: If the files are of another model, damaged, or do not fit exactly.
        """
        from gaitzoo.hub.sharing import HubAdapter

        model = HubAdapter.from_pretrained(
            name_or_path,
            revision=revision,
            num_classes=num_classes,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            model_args=model_args,
        ).model
        if not isinstance(model, cls):
            raise ValueError(
                f"expected a saved {cls.__name__}, got a {type(model).__name__} in {name_or_path}; "
                f"use {type(model).__name__}.from_pretrained"
            )
        return model

    def _adapter(self: Any, model_card: Mapping[str, str] | None) -> Any:
        from gaitzoo.hub.sharing import HubAdapter

        return HubAdapter(self, model_card)
