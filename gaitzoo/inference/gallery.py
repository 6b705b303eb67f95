"""Known people as embeddings in one file, with the model that made them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gaitzoo.data.distances import check_embeddings
from gaitzoo.hub.provenance import provenance, weights_hash
from gaitzoo.hub.reading import write_safetensors
from gaitzoo.inference.identify import Match, check_threshold
from gaitzoo.inference.search import nearest
from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.modes import unwrapped
from gaitzoo.models.base import GaitModel

__all__ = ["Gallery"]

_KIND = "gaitzoo gallery 1"


class Gallery:
    """Embeddings of known people; those of another model are refused.

    Two models, or one model with other weights, give embeddings that cannot be compared, and
    comparing them gives numbers that look like distances. A gallery therefore keeps the SHA-256
    of its model's weights (:func:`gaitzoo.hub.provenance.weights_hash`) and asks for the model
    whenever embeddings come in. Fused and cast copies have another hash: enrol and search with
    one of them, or pass the plain model of both.

    Args:
        model: The model that embeds; also inside a wrapper of torch.

    Attributes:
        model_name: Its name with tag.
        weights_sha256: Hash of its weights.
        distance: How embeddings are compared, as the model's cfg says.

    Raises:
        TypeError: If ``model`` is no model of this library.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("dygait_tiny", num_classes=0)
        >>> clips = [torch.rand(8, 16, 12) for _ in range(3)]
        >>> gallery = gaitzoo.Gallery(model)
        >>> gallery.add(["ann", "bob", "bob"], gaitzoo.embed(model, clips, progress=False), model)
        >>> found = gallery.search(gaitzoo.embed(model, clips[:1], progress=False), model)
        >>> found[0][0].label, len(gallery), gallery.people
        ('ann', 3, ('ann', 'bob'))
    """

    def __init__(self, model: GaitModel) -> None:
        known = provenance(model)
        self.model_name = known["model"]
        self.weights_sha256 = known["weights_sha256"]
        self.distance: str = cast(GaitModel, unwrapped(model)).pretrained_cfg.distance
        self._names: list[str] = []
        self._embeddings: Tensor | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Gallery({self.model_name}: {len(self)} sequences of {len(self.people)} people)"

    @property
    def names(self) -> tuple[str, ...]:
        """The person of every sequence, in the order of ``embeddings``."""
        return tuple(self._names)

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody once, sorted."""
        return tuple(sorted(set(self._names)))

    @property
    def embeddings(self) -> Tensor:
        """``[G, P, C]`` on the CPU.

        Raises:
            ValueError: If the gallery is empty.
        """
        if self._embeddings is None:
            raise ValueError("expected a gallery with somebody in it, got none; add(...) first")
        return self._embeddings

    def add(self, names: Sequence[str], embeddings: Tensor, model: GaitModel | str) -> None:
        """Adds sequences of known people.

        Args:
            names: The person of each sequence, ``[N]``; several sequences of one person help.
            embeddings: ``[N, P, C]``, finite.
            model: The model that made them, or the hash of its weights.

        Raises:
            TypeError: If names are not text, or embeddings no floating-point tensor.
            ValueError: If the model is another one, or counts or shapes disagree.
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"expected names as a list of text, got {names!r}")
        self._check(embeddings, model)
        if len(names) != len(embeddings):
            raise ValueError(f"expected {len(embeddings)} names, got {len(names)}")
        added = embeddings.detach().float().cpu()
        known = [] if self._embeddings is None else [self._embeddings]
        self._embeddings = torch.cat([*known, added])
        self._names += names

    def remove(self, name: str) -> int:
        """Forgets a person.

        Returns:
            How many sequences went.

        Raises:
            KeyError: If nobody has that name.
        """
        kept = [index for index, each in enumerate(self._names) if each != name]
        gone = len(self._names) - len(kept)
        if not gone:
            raise KeyError(f"expected a name in the gallery, got {name!r}; see gallery.people")
        self._names = [self._names[index] for index in kept]
        self._embeddings = self.embeddings[kept] if kept else None
        return gone

    def search(
        self,
        embeddings: Tensor,
        model: GaitModel | str,
        *,
        top: int = 5,
        threshold: float | None = None,
        engine: str = "torch",
    ) -> tuple[tuple[Match, ...], ...]:
        """The nearest sequences of every probe.

        Args:
            embeddings: ``[N, P, C]`` of the probes.
            model: The model that made them, or the hash of its weights.
            top: Sequences per probe, fewer if the gallery is smaller.
            threshold: The largest distance of a match; a probe with none is nobody who is known
                (an empty tuple). ``None`` = no limit.
            engine: See :func:`gaitzoo.inference.search.nearest`.

        Returns:
            For every probe its matches, the nearest first.

        Raises:
            ValueError: If the model is another one, the gallery is empty, shapes disagree or an
                option is out of range.
        """
        self._check(embeddings, model)
        check_threshold(threshold)
        everybody = self.embeddings
        top = min(top, len(everybody))
        distances, places = nearest(
            embeddings.float().cpu(), everybody, top, metric=self.distance, engine=engine
        )
        return tuple(
            tuple(
                Match(place, self._names[place], distance)
                for distance, place in zip(row, at, strict=True)
                if threshold is None or distance <= threshold
            )
            for row, at in zip(distances.tolist(), places.tolist(), strict=True)
        )

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file: embeddings, names, model name and hash.

        Raises:
            ValueError: If the gallery is empty.
            OSError: If the file cannot be written.
        """
        metadata = {
            "kind": _KIND,
            "model": self.model_name,
            "weights_sha256": self.weights_sha256,
            "distance": self.distance,
            "names": json.dumps(self._names),
        }
        write_safetensors(Path(path), {"embeddings": self.embeddings}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Gallery:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no gallery, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"expected a gallery file, got no file at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"expected a gallery, got a damaged file: {path} ({error})") from error
        if metadata.get("kind") != _KIND or set(tensors) != {"embeddings"}:
            raise ValueError(
                f"expected a file of Gallery.save, got another: {path} "
                f"({metadata.get('kind', 'kind not said')})"
            )
        gallery = cls.__new__(cls)
        try:
            gallery.model_name = metadata["model"]
            gallery.weights_sha256 = metadata["weights_sha256"]
            gallery.distance = metadata["distance"]
            gallery._names = list(map(str, json.loads(metadata["names"])))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"expected a gallery, got a damaged file: {path} ({error!r})"
            ) from error
        gallery._embeddings = tensors["embeddings"]
        check_embeddings(gallery.embeddings, gallery.embeddings)
        if len(gallery._names) != len(gallery.embeddings):
            raise ValueError(
                f"expected {len(gallery.embeddings)} names in {path}, got {len(gallery._names)}"
            )
        return gallery

    def _check(self, embeddings: Tensor, model: GaitModel | str) -> None:
        sha256 = model if isinstance(model, str) else weights_hash(model)
        if sha256 != self.weights_sha256:
            raise ValueError(
                f"expected embeddings of {self.model_name} (weights "
                f"{self.weights_sha256[:12]}...), got those of other weights ({sha256[:12]}...): "
                "their distances mean nothing; embed with the gallery's model, or make a new one"
            )
        check_embeddings(embeddings, embeddings)
        if self._embeddings is not None and embeddings.shape[1:] != self._embeddings.shape[1:]:
            raise ValueError(
                f"expected embeddings {shape_of(self._embeddings)} but for their number, got "
                f"{shape_of(embeddings)}"
            )
