"""What is frozen in a model: never trained, and in checkpoints a name and a hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import plain_values
from gaitzoo.models.base import GaitModel
from gaitzoo.models.gaitllm.frozen_llm import FrozenLLM
from gaitzoo.models.gaitllm.llm_loading import DTYPES
from gaitzoo.models.registry import find_architecture, is_model

__all__ = ["FrozenPartsModel", "fingerprint"]


# The frozen parts, and the submodules whose weights make their hashes.
_PARTS = {"encoder": "encoder", "llm": "llm.model"}


class FrozenPartsModel(GaitModel):
    """Base of a model on top of an encoder and a language model that never change.

    Both stay in eval mode under ``.train()``. In a checkpoint, one that came by name is the hash of
    its weights, which must agree when the checkpoint is loaded; its name stands among
    :meth:`config_args`. One that has no other home is saved with the rest. The subclass builds
    ``self.encoder`` and ``self.llm`` and calls :meth:`_freeze` at the end.

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

    def config_args(self) -> dict[str, Any]:
        """As for every model: names with their commits, structures of what has no other home."""
        arguments = {**self.model_args, "in_channels": self.in_channels, **self.llm.config_args()}
        if not self.elsewhere["encoder"] and isinstance(self.encoder, GaitModel):
            arguments["encoder"] = self.encoder.architecture
            arguments["encoder_args"] = {**self.encoder.config_args(), "num_classes": 0}
            arguments["encoder_pretrained"] = False
        return plain_values(arguments)

    def save_pretrained(
        self, save_directory: str | Path, *, model_card: Mapping[str, str] | None = None
    ) -> Path:
        """As for every model; frozen parts as the class says.

        Args:
            save_directory: Folder; made if needed.
            model_card: Sections of the card to fill in.

        Raises:
            ValueError: If a part is a module that no name describes, or a frozen one has other
                weights than those behind its name.
        """
        self._check_savable()
        return super().save_pretrained(save_directory, model_card=model_card)

    def push_to_hub(self, repo_id: str, **push_args: Any) -> str:
        """As for every model; frozen parts as the class says.

        Args:
            repo_id: ``"organisation/name"``.
            **push_args: As for every model.

        Raises:
            ValueError: As for :meth:`save_pretrained`, or if a frozen part is kept as a folder of
                this machine.
        """
        self._check_savable()
        for part, elsewhere in self.elsewhere.items():
            name = self._name_of(part) if elsewhere else ""
            if name.startswith("local-dir:") or (part == "llm" and name and Path(name).is_dir()):
                raise ValueError(
                    f"expected the {part} by a name on the Hub, got {name!r}, which nobody else "
                    f"has; push it first and build the model with that name, or {_KEPT[part]}"
                )
        return super().push_to_hub(repo_id, **push_args)

    def _check_savable(self) -> None:
        """Raises unless a folder can say how to build this model again."""
        if self.fused:
            # Saving says so itself.
            return
        if not self.elsewhere["encoder"] and not _can_be_built_again(self.encoder):
            raise ValueError(
                "expected the encoder as something that a name describes (a plain model of "
                f"gaitzoo), got a {type(self.encoder).__name__}, which a folder cannot rebuild; "
                "keep model.state_dict() and build the model with the same encoder yourself"
            )
        if self.llm.dtype not in DTYPES:
            raise ValueError(
                f"expected a language model in {', '.join(DTYPES)}, got one in {self.llm.dtype}; "
                "build the model with llm_dtype=..."
            )
        for part, origin in self._origins.items():
            # Afresh: some ways of writing to a tensor leave no trace in its version.
            if fingerprint(self.get_submodule(_PARTS[part])) != origin:
                raise ValueError(
                    f"expected the {part} as it came by the name {self._name_of(part)!r}, got "
                    "one with other weights (loaded or trained since, or rounded to float16), "
                    f"which the name would not bring back; {_KEPT[part]}"
                )

    def _name_of(self, part: str) -> str:
        """The name of a part that is kept elsewhere."""
        return str(self.llm.name if part == "llm" else self.model_args[part])

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
        self._hashes: dict[str, tuple[Any, str]] = {}
        self._origins = {
            part: self._hash_of(part) for part, elsewhere in self.elsewhere.items() if elsewhere
        }
        self.register_state_dict_post_hook(_leave_out_frozen)
        self.register_load_state_dict_pre_hook(_check_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def _hash_of(self, part: str) -> str:
        """The part's fingerprint, computed again whenever its tensors have changed."""
        module = self.get_submodule(_PARTS[part])
        tensors = [*module.parameters(), *module.buffers()]
        if any(tensor.is_inference() for tensor in tensors):
            return fingerprint(module)
        now = [(tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors]
        then, digest = self._hashes.get(part, (None, ""))
        if then != now:
            digest = fingerprint(module)
            self._hashes[part] = (now, digest)
        return digest


# How to save a part that its name does not bring back.
_KEPT = {
    "encoder": "build the model with save_encoder=True to keep the encoder in its files",
    "llm": "build the model with llm=<a ready model> to keep the language model in its files",
}


def _can_be_built_again(encoder: nn.Module) -> bool:
    """Whether an encoder's architecture and arguments give the same class, with plain weights."""
    if not isinstance(encoder, GaitModel) or encoder.fused or not is_model(encoder.architecture):
        return False
    # Somebody's own subclass has the architecture of its parent, and perhaps other layers.
    entry = find_architecture(encoder.architecture).build
    return _package(type(encoder).__module__) == _package(entry.__module__)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _bytes(digest: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)


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
            state_dict[f"{prefix}{part}.sha256"] = _bytes(module._hash_of(part))


def _check_frozen(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Raises unless a checkpoint was trained with these very parts, and holds none of them."""
    module._loading_prefix = prefix
    if not any(key.startswith(prefix) for key in state_dict):
        # Of another part of a larger model.
        return
    for part, elsewhere in module.elsewhere.items():
        saved = state_dict.pop(f"{prefix}{part}.sha256", None)
        if not elsewhere:
            continue
        revision = getattr(getattr(module, part), "revision", None)
        name = f"{module._name_of(part)!r}{f' (revision {revision})' if revision else ''}"
        whole = [key for key in state_dict if _frozen_key(module, key, prefix) == part]
        if saved is None or whole:
            raise ValueError(
                f"expected a checkpoint with the hash of the {part} ({part}.sha256) and without "
                f"its tensors, as this model takes its {part} from {name}, got "
                f"{f'tensors of the {part}' if whole else 'no hash'}; for a checkpoint that "
                f"holds the {part}, {_KEPT[part]}. Nothing was loaded."
            )
        own = module._hash_of(part)
        if not torch.equal(saved.cpu(), _bytes(own).cpu()):
            raise ValueError(
                f"expected the {part} that this checkpoint was trained with, hash "
                f"{bytes(saved.tolist()).hex()[:16]}..., got {name} with hash "
                f"{own[:16]}...; give its name and revision. Nothing was loaded."
            )


def _forgive_frozen(module: Any, keys: Any) -> None:
    missing = keys.missing_keys
    missing[:] = [key for key in missing if not _frozen_key(module, key, module._loading_prefix)]
