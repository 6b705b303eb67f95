"""Frozen vision transformers adapted by few new numbers: prompts among their tokens, adapters.

Sources: visual prompt tuning (https://arxiv.org/abs/2203.12119); bottleneck adapters
(https://arxiv.org/abs/1902.00751). Written from the papers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.checks import check_num_classes, check_size

__all__ = ["Adapter", "PromptedViT", "add_adapters"]


class PromptedViT(nn.Module):
    """A vision transformer that is told its task by learned tokens; its own weights stay frozen.

    Prompts stand behind the class token and before the patches. ``"shallow"``: one set enters
    before the first block and flows through. ``"deep"``: every block has a set of its own, and what
    became of the set before is thrown away.

    Source: https://arxiv.org/abs/2203.12119, Sec. 3.2.

    Args:
        vit: :class:`ViTEncoder`, or a vision transformer of timm (``patch_embed``, ``blocks``,
            ``norm``); its head is not used. It is held, not copied.
        num_prompts: Prompts of a set; 0 = none: a linear probe.
        mode: ``"deep"`` or ``"shallow"``.
        num_classes: K of the linear head, 0 = none.
        pool: What the head reads: ``"cls"``, the class token, or ``"mean"``, the mean of the
            patches.
        prompt_dropout: Share of the prompts' numbers that are left out in training.
        freeze: Freeze the transformer, except for adapters in it (:func:`add_adapters`); it then
            stays in eval mode. ``False`` = train all of it, whatever was frozen before.

    Attributes:
        prompts: ``[L, num_prompts, D]``, L sets.
        embed_dim: D.

    Shapes:
        images: ``[B, C, H, W]``, as the transformer reads them.
        returns: class scores ``[B, K]``; without classes what the head would read, ``[B, D]``.

    Raises:
        TypeError: If it is no such transformer.
        ValueError: If an argument has none of the values named here, or the transformer has no
            class token to pool.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=0)
        >>> model = PromptedViT(vit, num_prompts=5, num_classes=10)
        >>> model(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in model.tunable_parameters())  # 12 * 5 * 192 + 193 * 10
        13450
    """

    def __init__(
        self,
        vit: nn.Module,
        num_prompts: int = 30,
        mode: Literal["deep", "shallow"] = "deep",
        num_classes: int = 0,
        pool: Literal["cls", "mean"] = "cls",
        prompt_dropout: float = 0.0,
        freeze: bool = True,
    ) -> None:
        super().__init__()
        _check_vit(vit)
        if type(num_prompts) is not int or num_prompts < 0:
            raise ValueError(
                f"expected num_prompts as a whole number of 0 or more, got {num_prompts!r}"
            )
        if mode not in ("deep", "shallow"):
            raise ValueError(f'expected mode "deep" or "shallow", got {mode!r}')
        if pool not in ("cls", "mean"):
            raise ValueError(f'expected pool "cls" or "mean", got {pool!r}')
        found: Any = vit
        self.num_prefix: int = found.num_prefix_tokens
        if pool == "cls" and getattr(found, "cls_token", None) is None:
            raise ValueError('expected a transformer with a class token for pool "cls", use "mean"')
        self.embed_dim: int = found.embed_dim
        self.pool, self.is_frozen = pool, freeze
        sets = len(found.blocks) if mode == "deep" else 1
        patch = found.patch_embed.patch_size
        area = patch * patch if isinstance(patch, int) else math.prod(patch)
        bound = math.sqrt(6 / (3 * area + self.embed_dim))
        self.prompts = nn.Parameter(torch.empty(sets, num_prompts, self.embed_dim))
        nn.init.uniform_(self.prompts, -bound, bound)
        if not num_prompts:
            self.prompts.requires_grad_(False)
        self.dropout = nn.Dropout(prompt_dropout)
        self.vit = vit
        self.head: nn.Linear | None = None
        self.reset_classifier(num_classes)
        adapted = {id(p) for m in vit.modules() if isinstance(m, Adapter) for p in m.parameters()}
        for parameter in vit.parameters():
            parameter.requires_grad_(not freeze or id(parameter) in adapted)
        self.train(self.training)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head for ``num_classes`` classes (0 = none).

        Raises:
            ValueError: If ``num_classes`` is no whole number of 0 or more.
        """
        check_num_classes(num_classes)
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else None
        if self.head is not None:
            self.head.to(self.prompts)
            nn.init.normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> Self:
        """Puts what is tuned into training mode; a frozen transformer stays in eval mode."""
        super().train(mode)
        if self.is_frozen:
            self.vit.eval()
        return self

    def tunable_parameters(self) -> list[nn.Parameter]:
        """What is trained, for an optimizer."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def tunable_fraction(self, head: bool = False) -> float:
        """Trained numbers as a share of the transformer's own.

        Args:
            head: Count the head among them.

        Example:
            >>> from gaitzoo import ViTEncoder
            >>> vit = ViTEncoder((32, 32), (16, 16), dim=16, depth=2, num_heads=2)
            >>> round(PromptedViT(vit, num_prompts=3).tunable_fraction(), 4)
            0.009
        """
        tuned = sum(parameter.numel() for parameter in self.tunable_parameters())
        if self.head is not None and not head:
            tuned -= sum(p.numel() for p in self.head.parameters() if p.requires_grad)
        added = {
            id(p) for m in self.vit.modules() if isinstance(m, Adapter) for p in m.parameters()
        }
        return tuned / sum(p.numel() for p in self.vit.parameters() if id(p) not in added)

    def forward_features(self, images: Tensor) -> Tensor:
        """All tokens after the norm.

        Args:
            images: As for the module's call.

        Returns:
            ``[B, prefix + num_prompts + S, D]``: class token (and registers), prompts, patches.
        """
        vit: Any = self.vit
        if hasattr(vit, "embed_tokens"):
            x = vit.embed_tokens(images)
        else:
            x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        prompts = self.prompts
        for i, block in enumerate(vit.blocks):
            if i < prompts.shape[0] and prompts.shape[1]:
                own = self.dropout(prompts[i]).to(x.dtype).expand(x.shape[0], -1, -1)
                behind = self.num_prefix + (prompts.shape[1] if i else 0)
                x = torch.cat([x[:, : self.num_prefix], own, x[:, behind:]], dim=1)
            x = block(x)
        return vit.norm(x)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Class scores of tokens.

        Args:
            tokens: As from :meth:`forward_features`.
            pre_logits: Give what the head reads, ``[B, D]``.
        """
        if self.pool == "cls":
            x = tokens[:, 0]
        else:
            x = tokens[:, self.num_prefix + self.prompts.shape[1] :].mean(1)
        norm = getattr(self.vit, "fc_norm", None)
        x = x if norm is None else norm(x)
        return x if pre_logits or self.head is None else self.head(x)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the class scores."""
        return self.forward_head(self.forward_features(images))


class Adapter(nn.Module):
    """A narrow detour that adds what it has learned; nothing before it is trained.

    ``x + up(gelu(down(x)))`` with ``up`` of zeros.

    Source: https://arxiv.org/abs/1902.00751, Sec. 2.1.

    Args:
        dim: D.
        hidden: Width in the middle.

    Shapes:
        x: ``[..., D]``.
        returns: ``[..., D]``.

    Raises:
        ValueError: If a size is no positive whole number.

    Example:
        >>> layer = torch.nn.Linear(4, 16)
        >>> network = torch.nn.Sequential(layer, Adapter(16, hidden=2), torch.nn.ReLU())
        >>> x = torch.rand(3, 4)
        >>> torch.equal(network(x), layer(x).relu())
        True
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        check_size(dim=dim, hidden=hidden)
        self.down, self.up = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` and what was learned."""
        return x + self.up(nn.functional.gelu(self.down(x)))


def add_adapters(vit: nn.Module, hidden: int) -> list[nn.Parameter]:
    """Freezes a vision transformer and puts an :class:`Adapter` behind the MLP of every block.

    Outputs stay as they were until the adapters are trained.

    Args:
        vit: :class:`ViTEncoder`, a vision transformer of timm, or a :class:`PromptedViT` around
            one; changed in place. Prompts and head of the latter stay trained.
        hidden: Width of the adapters.

    Returns:
        The parameters of the adapters, for an optimizer.

    Raises:
        TypeError: If it is no such transformer.
        ValueError: If ``hidden`` is no positive whole number, or it has adapters already.

    Example:
        >>> from gaitzoo import ViTEncoder
        >>> vit = ViTEncoder((32, 32), (16, 16), dim=16, depth=2, num_heads=2)
        >>> len(add_adapters(vit, hidden=4))  # two matrices and biases per block
        8
    """
    check_size(hidden=hidden)
    if isinstance(vit, PromptedViT):
        vit = vit.vit
    _check_vit(vit)
    if any(isinstance(module, Adapter) for module in vit.modules()):
        raise ValueError("expected a transformer without adapters, got one with")
    vit.requires_grad_(False)
    found: Any = vit
    adapters = []
    for block in found.blocks:
        adapter = Adapter(found.embed_dim, hidden).to(next(block.parameters()))
        block.mlp = nn.Sequential(block.mlp, adapter)
        adapters += adapter.parameters()
    return adapters


def _check_vit(vit: Any) -> None:
    parts = ("patch_embed", "blocks", "norm", "embed_dim", "num_prefix_tokens")
    missing = [name for name in parts if not hasattr(vit, name)]
    known = hasattr(vit, "embed_tokens") or hasattr(vit, "_pos_embed")
    if missing or not known or getattr(vit, "rope", None) is not None:
        lacks = f", which lacks {', '.join(missing)}" if missing else ""
        raise TypeError(
            "expected ViTEncoder or a VisionTransformer of timm without rotary positions, got "
            f"{type(vit).__name__}{lacks}"
        )
