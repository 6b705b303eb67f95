"""What is frozen in a model: never trained, and in checkpoints a name and a hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo._base import GaitModel
from gaitzoo.frozen_llm import FrozenLLM

__all__ = ["FrozenPartsModel", "fingerprint"]


# The frozen parts, and the submodules whose weights make their hashes.
_PARTS = {"encoder": "encoder", "llm": "llm.model"}


class FrozenPartsModel(GaitModel):
    """Base of a model on top of an encoder and a language model that never change.

    Both stay in eval mode under ``.train()``. In a checkpoint, one that came by name is the hash of
    its weights, which must agree when the checkpoint is loaded; its name stands among
    ``model_args``. One that has no other home is saved with the rest. The subclass builds
    ``self.encoder`` and ``self.llm`` and calls :meth:`_freeze` and :meth:`_record_origins`.

    Attributes:
        elsewhere: Which of ``"encoder"`` and ``"llm"`` are kept out of checkpoints.
    """

    encoder: nn.Module
    llm: FrozenLLM
    elsewhere: dict[str, bool]

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What an optimizer should get: everything that is not frozen."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def train(self, mode: bool = True) -> Self:
        """Puts what is trained into training mode; frozen parts stay in eval."""
        super().train(mode)
        for part in _PARTS:
            getattr(self, part).eval()
        return self

    def save_pretrained(
        self, save_directory: str | Path, *, model_card: Mapping[str, str] | None = None
    ) -> Path:
        """As for every model; frozen parts as the class says.

        Args:
            save_directory: Folder; made if needed.
            model_card: Sections of the card to fill in.

        Raises:
            ValueError: If a frozen part is a module that no name describes.
        """
        self._check_describable()
        return super().save_pretrained(save_directory, model_card=model_card)

    def push_to_hub(self, repo_id: str, **push_args: Any) -> str:
        """As for every model; frozen parts as the class says.

        Args:
            repo_id: ``"organisation/name"``.
            **push_args: As for every model.

        Raises:
            ValueError: If a frozen part is a module that no name describes.
        """
        self._check_describable()
        return super().push_to_hub(repo_id, **push_args)

    def _check_describable(self) -> None:
        for part in _PARTS:
            if isinstance(self.model_args[part], nn.Module):
                raise ValueError(
                    f"expected the {part} as something that a name describes (a model of gaitzoo), "
                    f"got a {type(getattr(self, part)).__name__}, which a folder cannot rebuild; "
                    f"keep model.state_dict() and build the model with the same {part} yourself"
                )

    def _freeze(self, encoder: str | nn.Module, pretrained: bool, save_encoder: bool) -> None:
        if isinstance(self.encoder, GaitModel):
            # Its classes have been copied; of another use they are not.
            self.encoder.reset_classifier(0)
        self.encoder.requires_grad_(False)
        self.encoder.eval()
        fetched = isinstance(encoder, str) and (pretrained or ":" in encoder)
        self.elsewhere = {
            "encoder": fetched and not save_encoder,
            "llm": self.llm.name is not None,
        }
        self._hashes: dict[str, str] = {}
        self.register_state_dict_post_hook(_leave_out_frozen)
        self.register_load_state_dict_pre_hook(_check_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def _record_origins(self) -> None:
        """Writes into ``model_args`` what builds the same structure again."""
        arguments = self.model_args
        arguments["in_channels"] = self.in_channels
        if not self.elsewhere["encoder"] and isinstance(self.encoder, GaitModel):
            arguments["encoder"] = self.encoder.architecture
            arguments["encoder_args"] = {**self.encoder.model_args, "num_classes": 0}
            arguments["encoder_pretrained"] = False
        if self.elsewhere["llm"]:
            arguments["llm_revision"] = self.llm.revision
        else:
            arguments["llm"] = _tuples(self.llm.config_dict)
            arguments["llm_revision"] = None
        dtype = self.llm.model.get_input_embeddings().weight.dtype
        arguments["llm_dtype"] = str(dtype).removeprefix("torch.")
        for key in ("encoder_args", "lora", "input_size", "patch_size", "part_bins"):
            arguments[key] = _tuples(arguments[key])

    def _hash_of(self, part: str) -> Tensor:
        if part not in self._hashes:
            self._hashes[part] = fingerprint(self.get_submodule(_PARTS[part]))
        return torch.tensor(list(bytes.fromhex(self._hashes[part])), dtype=torch.uint8)


def fingerprint(module: nn.Module) -> str:
    """Hash of a module's weights, as 64 hexadecimal digits.

    Values are rounded to bfloat16, so that a model has the same hash in float64, float32 and
    bfloat16; low-rank adapters do not count.

    Args:
        module: Any module; on the meta device, which has no values, all digits are zero.

    Example:
        >>> fingerprint(torch.nn.Linear(2, 2)) == fingerprint(torch.nn.Linear(2, 2))
        False
    """
    digest = hashlib.sha256()
    tensors = {
        key.replace(".base_layer.", "."): tensor
        for key, tensor in module.state_dict().items()
        if "lora_" not in key
    }
    for key in sorted(tensors):
        tensor = tensors[key].detach()
        if tensor.device.type == "meta":
            return "0" * 64
        digest.update(f"{key} {list(tensor.shape)}".encode())
        if tensor.is_floating_point():
            tensor = tensor.to(torch.bfloat16).view(torch.int16)
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _frozen_key(model: FrozenPartsModel, key: str, prefix: str) -> str | None:
    """Which part that is kept elsewhere a key belongs to."""
    for part, elsewhere in model.elsewhere.items():
        if elsewhere and key.startswith(f"{prefix}{part}.") and "lora_" not in key:
            return part
    return None


def _leave_out_frozen(module: Any, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state_dict if _frozen_key(module, key, prefix)]:
        del state_dict[key]
    for part, elsewhere in module.elsewhere.items():
        if elsewhere:
            state_dict[f"{prefix}{part}.sha256"] = module._hash_of(part)


def _check_frozen(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for part, elsewhere in module.elsewhere.items():
        saved = state_dict.pop(f"{prefix}{part}.sha256", None)
        if saved is None or not elsewhere:
            continue
        own = module._hash_of(part)
        if not torch.equal(saved.cpu(), own):
            revision = getattr(getattr(module, part), "revision", None)
            name = f"{module.model_args[part]!r}{f' (revision {revision})' if revision else ''}"
            raise ValueError(
                f"expected the {part} that this checkpoint was trained with, hash "
                f"{bytes(saved.tolist()).hex()[:16]}..., got {name} with hash "
                f"{bytes(own.tolist()).hex()[:16]}...; give its name and revision. Nothing was "
                "loaded."
            )
    module._loading_prefix = prefix


def _forgive_frozen(module: Any, keys: Any) -> None:
    missing = keys.missing_keys
    missing[:] = [key for key in missing if not _frozen_key(module, key, module._loading_prefix)]


def _tuples(value: Any) -> Any:
    """As a saved configuration comes back: tuples instead of lists."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
