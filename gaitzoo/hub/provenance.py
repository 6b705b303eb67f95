"""Which weights a model has, to be written beside the numbers that it computes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from gaitzoo.hub.reading import file_hash
from gaitzoo.layers.modes import unwrapped
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.version import __version__

__all__ = ["provenance", "weights_hash"]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names and numbers of a model's parameters and buffers.

    Equal hashes mean the same embeddings of the same input, whatever file the weights came from.
    Casting or fusing a model changes its hash; moving or wrapping it does not, and neither do the
    counters of batch norms.

    Args:
        model: Any module with numbers.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        ValueError: If the model stands on the meta device.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> weights_hash(nn.DataParallel(layer)) == weights_hash(layer)
        True
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(unwrapped(model).state_dict().items()):
        if tensor.is_meta:
            raise ValueError(
                f"expected a model with numbers, got {key} on the meta device; load "
                "its weights first"
            )
        if key.rpartition(".")[2] != "num_batches_tracked":
            digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def provenance(model: nn.Module, checkpoint: str | Path | None = None) -> dict[str, str]:
    """What a file of results says of the model that made it.

    Args:
        model: A :class:`GaitModel`, also inside a wrapper of torch.
        checkpoint: File that its weights were loaded from, if they were.

    Returns:
        ``"gaitzoo_version"``; ``"model"``, its name with tag; ``"weights"``, the tag that they
        came with, ``"checkpoint NAME"`` of a file, or ``"not of a tag"`` (fresh ones, or those of
        a saved model); ``"weights_sha256"``, :func:`weights_hash`; and where they are known
        ``"trained_on"``, ``"license"`` and ``"file_sha256"`` of the file that was loaded. Training
        that came after loading shows in ``"weights_sha256"`` alone.

    Raises:
        TypeError: If there is no gaitzoo model in ``model``.
        FileNotFoundError: If there is no file ``checkpoint``.

    Example:
        >>> import gaitzoo
        >>> known = provenance(gaitzoo.create_model("dygait.walkers", pretrained=True))
        >>> known["weights"], known["trained_on"]
        ('dygait.walkers', '2000 synthetic people of gaitzoo.synthetic, no real person')
    """
    inner = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(inner, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(inner).__name__}; pass the model that "
            "create_model returned"
        )
    cfg = inner.pretrained_cfg
    known = {"gaitzoo_version": __version__, "model": cfg.name or type(inner).__name__}
    # Of weights from elsewhere the cfg knows nothing: it speaks of those of its tag.
    of_tag = cfg if inner.weights_of == cfg.name and checkpoint is None else PretrainedCfg()
    if checkpoint is not None:
        known["weights"] = f"checkpoint {Path(checkpoint).name}"
    else:
        known["weights"] = inner.weights_of or "not of a tag"
    known["weights_sha256"] = weights_hash(inner)
    if of_tag.training_data != "none":
        known["trained_on"] = of_tag.training_data
    if of_tag.license != "unknown":
        known["license"] = of_tag.license
    file_sha256 = file_hash(checkpoint) if checkpoint is not None else of_tag.sha256
    if file_sha256 is not None:
        known["file_sha256"] = file_sha256.lower()
    return known
