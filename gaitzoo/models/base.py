"""What all models have in common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, is_grad_enabled, nn, uint8
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from gaitzoo.layers.checks import check_lengths, check_silhouettes, check_values
from gaitzoo.layers.pooling import PartBNNeck, SharedBNNeck
from gaitzoo.layers.sequence import mask_fill
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.outputs import GaitOutput

__all__ = ["GaitModel", "init_weights"]


class GaitModel(nn.Module):
    """Base of the models: frames in, embeddings out.

    A subclass builds its layers, among them ``self.neck`` (the head that holds the classifier),
    and defines :meth:`forward_features` and :meth:`forward_head`. Its constructor takes keyword
    arguments that JSON can hold; they are recorded as ``model_args`` and saved beside the weights.

    Shapes:
        silhouettes: ``[N, T, H, W]``, floats in [0, 1] or uint8 in 0..255; models with
            ``in_channels`` other than one take ``[N, C, T, H, W]``.
        lengths: ``[N]`` int64, valid frames of each sequence; ``None`` means all T. What stands
            past the end of a sequence never matters.
        returns: :class:`GaitOutput`.

    Attributes:
        architecture: Registered name of the model family.
        model_args: Arguments that the model was built with.
        pretrained_cfg: What is known of its variant or weights.
        min_frames: Frames that the layers need; shorter sequences are played again until they
            have as many.
        weights_of: Name of the tag whose weights it was given; ``None`` = fresh or from elsewhere.
        fused: Whether :func:`gaitzoo.fuse_for_inference` made it, so that it can only be run.
        num_features: C of the embeddings.
        num_parts: P of the embeddings.
    """

    architecture: ClassVar[str] = ""
    min_frames: int = 1
    fused: bool = False
    weights_of: str | None = None

    model_args: dict[str, Any]
    pretrained_cfg: PretrainedCfg
    neck: PartBNNeck | SharedBNNeck
    in_channels: int
    num_features: int
    num_parts: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Records the constructor's arguments (also those left at their defaults)."""
        model = super().__new__(cls)
        arguments = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs)
        arguments.apply_defaults()
        # Not through nn.Module.__setattr__, which needs a finished nn.Module.
        object.__setattr__(model, "model_args", dict(list(arguments.arguments.items())[1:]))
        return model

    def __init__(self, embedding: str) -> None:
        super().__init__()
        self.grad_checkpointing = False
        # Built directly, a model is no known variant; create_model puts the tag's cfg here.
        self.pretrained_cfg = PretrainedCfg(architecture=self.architecture, embedding=embedding)
        if self.input_size is not None:
            self.pretrained_cfg = replace(self.pretrained_cfg, input_size=self.input_size)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the frames that the structure is made for; ``None`` = several fit."""
        return self.model_args.get("input_size")

    @property
    def num_classes(self) -> int:
        """K, classes of the classifier; 0 = no classifier, ``logits`` are ``None``."""
        classifier = self.neck.classifier
        return 0 if classifier is None else classifier.weight.shape[2]

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the classifier by a fresh one for ``num_classes`` identities (0 = none).

        Raises:
            ValueError: If a fused model is to get a classifier that would have to be trained, or
                ``num_classes`` is no whole number of 0 or more.
        """
        if num_classes and self.fused:
            raise ValueError(
                "expected a plain model to give a fresh classifier, got one from "
                "fuse_for_inference, which cannot be trained; change the model that it was made "
                "from and fuse that"
            )
        self.neck.reset_classifier(num_classes)

    def train(self, mode: bool = True) -> Self:
        """Puts the model into training mode, or into eval mode with ``False``.

        Raises:
            ValueError: If a fused model is to be trained.
        """
        if mode and self.fused:
            raise ValueError(
                "expected a plain model to train, got one from fuse_for_inference, which has no "
                "batch norms and overwrites its maps; train the model that it was made from"
            )
        return super().train(mode)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: blocks are computed again in the backward pass."""
        self.grad_checkpointing = enable

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the feature map before temporal pooling.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, C, T', H', W']`` and its valid frames ``[N]`` (``None`` = all T').
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward_features")

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools a feature map over time and body parts and embeds every part.

        Args:
            features: ``[N, C, T', H', W']`` from :meth:`forward_features`.
            lengths: ``[N]``, the valid T' that :meth:`forward_features` gave.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward_head")

    def forward(self, silhouettes: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds a batch of sequences; see the class for shapes and ranges."""
        features, lengths = self.forward_features(silhouettes, lengths)
        return self.forward_head(features, lengths)

    def _prepare(self, silhouettes: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Checks a batch and gives it as masked floats ``[N, C, T, H, W]`` in the value range."""
        check_silhouettes(silhouettes, self.in_channels)
        x = silhouettes.unsqueeze(1) if silhouettes.ndim == 4 else silhouettes
        if lengths is not None:
            lengths = check_lengths(lengths, x.shape[0], x.shape[2]).to(x.device)
        x = mask_fill(x, lengths)
        weight = next(self.parameters())
        if x.dtype == uint8:
            return x.to(weight.dtype) / 255, lengths
        check_values(x, *self.pretrained_cfg.value_range)
        # Autocast brings the input to its own type, where it is on.
        return x.to(weight.dtype), lengths

    def _run(self, block: nn.Module, *inputs: Any) -> Tensor:
        """Calls a block, recomputing it in the backward pass if that was asked for."""
        if self.grad_checkpointing and self.training and is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

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
        from gaitzoo.hub.sharing import HubAdapter

        return HubAdapter(self, model_card).save(save_directory)

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
        from gaitzoo.hub.sharing import HubAdapter

        return HubAdapter(self, model_card).push_to_hub(
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

        Returns:
            The model in eval mode.

        Raises:
            FileNotFoundError: If the folder lacks a file.
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
        ).model
        if not isinstance(model, cls):
            raise ValueError(
                f"expected a saved {cls.__name__}, got a {type(model).__name__} in {name_or_path}; "
                f"use {type(model).__name__}.from_pretrained"
            )
        return model


def init_weights(module: nn.Module) -> None:
    """Initialises a model as the field does.

    Convolutions and linear layers get Xavier-uniform weights and zero biases, batch norms weights
    around one (standard deviation 0.02). Matrices of parts initialise themselves.

    Args:
        module: Changed in place, with everything in it.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
