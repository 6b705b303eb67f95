"""Who walks, seen from where, in which clothes, carrying what: as one vector for a generator.

Source: GaitCrafter (https://arxiv.org/abs/2508.13300). A reconstruction: the conditions are those
of the abstract, all sizes and codes are inferred.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.video_conditions import check_chance, draw_flags

__all__ = ["GaitConditioner"]

FACTORS = ("identity", "view", "clothing", "object")
"""Names of the conditions, in the order of their vectors."""


class GaitConditioner(nn.Module):
    """The sum of four vectors: identity, view, clothing, carried object.

    A condition that is missing, for all or for some sequences, is a learned vector that says
    nothing. In training conditions are left out at random: each by itself, and all at once.

    Source: https://arxiv.org/abs/2508.13300; sizes, the code of the view and the chances are
    inferred.

    Args:
        num_ids: People in a table of identity vectors, learned with the generator; ``None`` = no
            table.
        id_dim: Numbers of a recogniser's embedding, P x C, which stands for the identity and works
            for people never seen; ``None`` = none. Not both.
        view: ``"degrees"`` = any angle, through sines and cosines of it and of its double;
            ``"class"`` = numbers of views.
        num_views: Views of ``view="class"``; CASIA-B has 11.
        clothing: Classes of clothing, 1 to this number; 0 = unknown.
        objects: Classes of carried objects, 1 to this number; 0 = unknown.
        dim: Numbers of the result.
        drop: Chance in training of each condition to be left out, and of all of them.
        identity_dim: Numbers of an identity vector, of the table or made of an embedding.

    Attributes:
        identities: ``[num_ids, identity_dim]``, the table; new people can be mixed of its rows
            (:func:`gaitzoo.sample_new_identities`). ``None`` = there is no table.

    Shapes:
        identity: ``[N]`` int64, -1 = unknown, or with a table ``[N, identity_dim]`` floats; with
            ``id_dim`` ``[N, id_dim]`` or ``[N, P, C]`` floats.
        view: ``[N]`` degrees, NaN = unknown; or ``[N]`` int64, -1 = unknown.
        clothing: ``[N]`` int64.
        object: ``[N]`` int64.
        drop_mask: ``[N, 4]`` bool, True = left out, in the order above; ``None`` = at random in
            training, else none.
        returns: ``[N, dim]``; ``[1, dim]`` where nothing is given.

    Raises:
        ValueError: If an argument is out of range, or a condition does not fit.

    Example:
        >>> conditioner = GaitConditioner(num_ids=5, dim=16).eval()
        >>> known = conditioner(identity=torch.tensor([0, 4]), view=torch.tensor([90.0, 18.0]))
        >>> nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))(known).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_ids: int | None = None,
        id_dim: int | None = None,
        view: str = "degrees",
        num_views: int = 11,
        clothing: int = 3,
        objects: int = 2,
        dim: int = 512,
        drop: float = 0.1,
        *,
        identity_dim: int = 256,
    ) -> None:
        super().__init__()
        if num_ids is not None and id_dim is not None:
            raise ValueError("expected num_ids or id_dim, got both; a table or embeddings")
        if view not in ("degrees", "class"):
            raise ValueError(f'expected view "degrees" or "class", got {view!r}')
        check_size(
            num_views=num_views,
            clothing=clothing,
            objects=objects,
            dim=dim,
            identity_dim=identity_dim,
        )
        self.num_ids, self.id_dim, self.identity_dim = num_ids, id_dim, identity_dim
        self.dim, self.drop = dim, check_chance("drop", drop)
        self.table = self.from_embedding = self.from_identity = None
        if num_ids is not None:
            check_size(num_ids=num_ids)
            self.table = nn.Embedding(num_ids, identity_dim)
        elif id_dim is not None:
            check_size(id_dim=id_dim)
            self.from_embedding = nn.Sequential(
                nn.LayerNorm(id_dim), nn.Linear(id_dim, identity_dim)
            )
        if self.table is not None or self.from_embedding is not None:
            self.from_identity = nn.Linear(identity_dim, dim)
        self.view = view
        self.from_view = (
            nn.Sequential(nn.Linear(4, dim), nn.SiLU(), nn.Linear(dim, dim))
            if view == "degrees"
            else nn.Embedding(num_views, dim)
        )
        self.from_clothing = nn.Embedding(clothing, dim)
        self.from_object = nn.Embedding(objects, dim)
        self.null = nn.Parameter(0.02 * torch.randn(len(FACTORS), dim))

    @property
    def identities(self) -> Tensor | None:
        """See the class."""
        return None if self.table is None else self.table.weight

    def forward(
        self,
        identity: Tensor | None = None,
        view: Tensor | None = None,
        clothing: Tensor | None = None,
        object: Tensor | None = None,
        drop_mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the sum."""
        return self.factors(identity, view, clothing, object, drop_mask).sum(1)

    def factors(
        self,
        identity: Tensor | None = None,
        view: Tensor | None = None,
        clothing: Tensor | None = None,
        object: Tensor | None = None,
        drop_mask: Tensor | None = None,
    ) -> Tensor:
        """The four vectors before they are added, ``[N, 4, dim]``: tokens for attention.

        Args:
            identity: See the class.
            view: See the class.
            clothing: See the class.
            object: See the class.
            drop_mask: See the class.
        """
        given = {"identity": identity, "view": view, "clothing": clothing, "object": object}
        counts = {len(value) for value in given.values() if value is not None}
        if len(counts) > 1:
            raise ValueError(
                "expected conditions of one number of sequences, got "
                f"{', '.join(f'{len(v)} of {k}' for k, v in given.items() if v is not None)}"
            )
        count = counts.pop() if counts else 1 if drop_mask is None else len(drop_mask)
        encode = (
            self._identity,
            self._view,
            lambda x: self._classes("clothing", x, self.from_clothing, first=1),
            lambda x: self._classes("object", x, self.from_object, first=1),
        )
        vectors, unknown = [], []
        for null, code, value in zip(self.null, encode, given.values(), strict=True):
            if value is None:
                vector, missing = null.expand(count, -1), torch.zeros(count, dtype=torch.bool)
            else:
                vector, missing = code(value.to(null.device))
            vectors.append(vector)
            unknown.append(missing.to(null.device))
        if drop_mask is None:
            drop_mask = self._draw(count)
        if drop_mask.shape != (count, len(FACTORS)) or drop_mask.dtype != torch.bool:
            raise ValueError(
                f"expected drop_mask [{count}, {len(FACTORS)}] bool, got {shape_of(drop_mask)} "
                f"{drop_mask.dtype}"
            )
        left_out = drop_mask.to(self.null.device) | torch.stack(unknown, 1)
        return torch.where(left_out[..., None], self.null, torch.stack(vectors, 1))

    def _draw(self, count: int) -> Tensor:
        chance = self.drop if self.training else 0.0
        each = draw_flags(count * len(FACTORS), chance, self.null.device).view(count, -1)
        return each | draw_flags(count, chance, self.null.device)[:, None]

    def _identity(self, identity: Tensor) -> tuple[Tensor, Tensor]:
        if self.from_identity is None:
            raise ValueError("expected no identity, got one; build with num_ids or id_dim")
        if self.table is not None and identity.ndim == 1:
            rows, unknown = self._classes("identity", identity, self.table, first=0)
            return self.from_identity(rows), unknown
        size = self.identity_dim if self.id_dim is None else self.id_dim
        if not identity.is_floating_point() or identity[0].numel() != size or identity.ndim < 2:
            also = "" if self.table is None else "[N] int64 or "
            raise ValueError(
                f"expected identity {also}[N, {size}] floats, got {shape_of(identity)} "
                f"{identity.dtype}"
            )
        vectors = identity.flatten(1).to(self.null.dtype)
        if self.from_embedding is not None:
            vectors = self.from_embedding(vectors)
        return self.from_identity(vectors), torch.zeros(len(identity), dtype=torch.bool)

    def _view(self, view: Tensor) -> tuple[Tensor, Tensor]:
        if self.view == "class":
            assert isinstance(self.from_view, nn.Embedding)
            return self._classes("view", view, self.from_view, first=0)
        if view.ndim != 1 or bool(view.isinf().any()):
            raise ValueError(f"expected view [N] in finite degrees, got {shape_of(view)}: {view}")
        unknown = view.isnan()
        # Brought to one turn in whole numbers' digits first: 0 and 360 are the same to the bit.
        angle = torch.remainder(view.double().nan_to_num(0), 360).deg2rad()
        code = torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], 1)
        return self.from_view(code.to(self.null.dtype)), unknown

    def _classes(
        self, name: str, classes: Tensor, table: nn.Embedding, first: int
    ) -> tuple[Tensor, Tensor]:
        """Rows of a table; the number below ``first`` is unknown."""
        if classes.ndim != 1 or classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(
                f"expected {name} [N] as whole numbers, got {shape_of(classes)} {classes.dtype}"
            )
        last = first + table.num_embeddings - 1
        low, high = (int(number) for number in classes.aminmax())
        if low < first - 1 or high > last:
            raise ValueError(
                f"expected {name} in {first}..{last} or {first - 1} for unknown, got {low} to "
                f"{high}"
            )
        unknown = classes < first
        return table((classes - first).clamp(min=0)), unknown
