"""A vision transformer and the masked autoencoder that trains it without labels.

Sources: https://arxiv.org/abs/2010.11929 (ViT) and https://arxiv.org/abs/2111.06377 (MAE). Images
of any number of channels and any shape, patches of any shape: maps of signals are long in time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes, shape_of
from gaitzoo.layers.token_attention import TokenBlock, sinusoidal_positions

__all__ = ["MAEOutput", "MaskedAutoencoder", "ViTEncoder", "grid_positions"]

_EPS = 1e-6  # of the norms, as MAE was trained with


class MAEOutput(NamedTuple):
    """What :class:`MaskedAutoencoder` gives.

    Args:
        loss: One number.
        pred: ``[B, S, patch rows * patch columns * C]``, every patch as the decoder guesses it.
        mask: ``[B, S]`` bool, patches that were hidden.
    """

    loss: Tensor
    pred: Tensor
    mask: Tensor


class PatchEmbed(nn.Module):
    """Patches of an image as tokens.

    Args:
        in_channels: C.
        dim: D.
        patch_size: Rows and columns of a patch.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Returns ``[B, S, D]``, row after row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class ViTEncoder(nn.Module):
    """A vision transformer with a class token and fixed positions, without a head.

    Source: https://arxiv.org/abs/2010.11929, Sec. 3.1, with MAE's positions: sines and cosines of
    column and row.

    Args:
        image_size: Rows and columns of the image, multiples of those of a patch.
        patch_size: Rows and columns of a patch.
        in_channels: C.
        dim: D, a multiple of 4 and of ``num_heads``.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Width of the MLPs, times ``dim``.

    Shapes:
        images: ``[B, C, *image_size]``, floats of any range.
        returns: ``[B, 1 + S, D]``, the class token and the patches row after row, after the norm.

    Raises:
        ValueError: If sizes are no positive whole numbers or do not fit.

    Example:
        >>> encoder = ViTEncoder((64, 256), (16, 16), dim=16, depth=1, num_heads=2)
        >>> head = torch.nn.Linear(16, 3)
        >>> head(encoder(torch.rand(2, 1, 64, 256))[:, 0]).shape
        torch.Size([2, 3])
    """

    num_prefix_tokens = 1
    pos_embed: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch_size: tuple[int, int] = (16, 16),
        in_channels: int = 1,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels, dim=dim, depth=depth, num_heads=num_heads)
        self.image_size = _pair("image_size", image_size)
        patch = _pair("patch_size", patch_size)
        if any(size % step for size, step in zip(self.image_size, patch, strict=True)):
            raise ValueError(
                f"expected image_size as multiples of patches of {patch[0]} x {patch[1]}, got "
                f"{self.image_size[0]} x {self.image_size[1]}"
            )
        self.grid_size = (self.image_size[0] // patch[0], self.image_size[1] // patch[1])
        self.in_channels, self.embed_dim = in_channels, dim
        self.patch_embed = PatchEmbed(in_channels, dim, patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_buffer("pos_embed", grid_positions(self.grid_size, dim))
        self.blocks = transformer_blocks(dim, depth, num_heads, mlp_ratio)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        nn.init.normal_(self.cls_token, std=0.02)
        init_transformer(self)
        # As a linear layer of all numbers of a patch.
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(dim, -1))

    @property
    def num_patches(self) -> int:
        """S."""
        return self.grid_size[0] * self.grid_size[1]

    def embed_tokens(self, images: Tensor) -> Tensor:
        """What the first block reads: the class token and the patches, with their positions.

        Args:
            images: As for the module's call.
        """
        patches = self.embed_patches(images)
        first = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first.expand(patches.shape[0], -1, -1), patches], dim=1)

    def embed_patches(self, images: Tensor) -> Tensor:
        """The patches alone, ``[B, S, D]``.

        Args:
            images: As for the module's call.

        Raises:
            ValueError: If they have another shape.
        """
        wanted = (self.in_channels, *self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            raise ValueError(
                f"expected images [B, {', '.join(map(str, wanted))}], got {shape_of(images)}"
            )
        return self.patch_embed(images) + self.pos_embed[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the tokens."""
        x = self.embed_tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class MaskedAutoencoder(nn.Module):
    """Hides most patches of an image and learns to paint them from the others.

    Source: https://arxiv.org/abs/2111.06377, Sec. 3; sizes are those of its ViT-B. With equal
    weights and noise it gives what transformers' ``ViTMAEForPreTraining`` gives (which, where
    ``mask_ratio`` is no whole number of patches, always hides the larger number; here it is the
    nearer one).

    Args:
        image_size: Rows and columns of the image, multiples of those of a patch.
        patch_size: Rows and columns of a patch.
        in_channels: C.
        dim: Width of the encoder, a multiple of 4 and of ``num_heads``.
        depth: Blocks of the encoder.
        num_heads: Heads of the encoder.
        decoder_dim: Width of the decoder, a multiple of 4 and of ``decoder_num_heads``.
        decoder_depth: Blocks of the decoder.
        decoder_num_heads: Heads of the decoder.
        mask_ratio: Share of the patches that are hidden.
        norm_pix: Whether every patch is standardised before it is compared.

    Shapes:
        images: ``[B, C, *image_size]``, floats of any range.
        noise: ``[B, S]``: the patches with the smallest numbers stay. ``None`` = random.
        returns: :class:`MAEOutput`; the loss is the mean squared error of hidden patches.

    Raises:
        ValueError: If sizes are no positive whole numbers or do not fit, all patches would be
            hidden or none, or shapes do not fit.

    Example:
        >>> small = {"dim": 16, "depth": 1, "num_heads": 2}
        >>> decoder = {"decoder_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
        >>> mae = MaskedAutoencoder((64, 256), (16, 16), **small, **decoder)
        >>> output = mae(torch.rand(2, 1, 64, 256))
        >>> output.pred.shape, output.mask.sum(1).tolist()
        (torch.Size([2, 64, 256]), [48, 48])

        Its trained encoder inside of another network:

        >>> head = nn.Sequential(mae.encoder, nn.Flatten(), nn.Linear(65 * 16, 3))
        >>> head(torch.rand(2, 1, 64, 256)).shape
        torch.Size([2, 3])
    """

    decoder_pos_embed: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        patch_size: tuple[int, int] = (16, 16),
        in_channels: int = 1,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        norm_pix: bool = False,
    ) -> None:
        super().__init__()
        check_size(decoder_dim=decoder_dim, decoder_depth=decoder_depth)
        self.encoder = ViTEncoder(image_size, patch_size, in_channels, dim, depth, num_heads)
        patches = self.encoder.num_patches
        self.num_hidden, self.norm_pix = round(mask_ratio * patches), norm_pix
        if not 0 < self.num_hidden < patches:
            raise ValueError(
                f"expected a mask_ratio that hides some of {patches} patches and leaves some, got "
                f"{mask_ratio!r}"
            )
        rows, columns = self.encoder.patch_embed.patch_size
        if norm_pix and rows * columns * in_channels == 1:
            raise ValueError("expected patches of two numbers or more for norm_pix, got one")
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_dim))
        positions = grid_positions(self.encoder.grid_size, decoder_dim)
        self.register_buffer("decoder_pos_embed", positions)
        self.decoder_blocks = transformer_blocks(decoder_dim, decoder_depth, decoder_num_heads)
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=_EPS)
        self.decoder_pred = nn.Linear(decoder_dim, rows * columns * in_channels)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            init_transformer(module)

    def patchify(self, images: Tensor) -> Tensor:
        """An image as rows of numbers, one per patch.

        Args:
            images: As for the module's call.

        Returns:
            ``[B, S, patch rows * patch columns * C]``.
        """
        rows, columns = self.encoder.patch_embed.patch_size
        return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=rows, q=columns)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """What :meth:`patchify` took apart.

        Args:
            patches: ``[B, S, patch rows * patch columns * C]``.
        """
        rows, columns = self.encoder.patch_embed.patch_size
        return rearrange(
            patches,
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.encoder.grid_size[0],
            p=rows,
            q=columns,
        )

    def encode(self, images: Tensor) -> Tensor:
        """Tokens of whole images, nothing hidden.

        Args:
            images: As for the module's call.

        Returns:
            ``[B, 1 + S, dim]``, see :class:`ViTEncoder`.
        """
        return self.encoder(images)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> MAEOutput:
        """Returns loss, guesses and what was hidden."""
        patches = self.encoder.embed_patches(images)
        count = patches.shape[1]
        if noise is None:
            noise = torch.rand(patches.shape[:2], device=patches.device)
        elif noise.shape != patches.shape[:2]:
            raise ValueError(
                f"expected noise {list(patches.shape[:2])}, a number per patch, got "
                f"{shape_of(noise)}"
            )
        order = noise.argsort(dim=1)
        kept = order[:, : count - self.num_hidden]
        x = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        first = self.encoder.cls_token + self.encoder.pos_embed[:, :1]
        x = torch.cat([first.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.encoder.blocks:
            x = block(x)
        pred = self._decoded(self.encoder.norm(x), order)
        mask = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, False)
        target = self.patchify(images)
        if self.norm_pix:
            mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            target = (target - mean) / (variance + _EPS).sqrt()
        return MAEOutput((pred - target)[mask].square().mean(), pred, mask)

    def _decoded(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Guesses of all patches in their places."""
        x = self.decoder_embed(tokens)
        hidden = self.mask_token.to(x.dtype).expand(x.shape[0], self.num_hidden, -1)
        shuffled = torch.cat([x[:, 1:], hidden], dim=1)
        places = order.argsort(dim=1)[..., None].expand(-1, -1, x.shape[2])
        x = torch.cat([x[:, :1], shuffled.gather(1, places)], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


def grid_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Sines and cosines of the column, then of the row, and zeros for the class token in front.

    Source: MAE, https://arxiv.org/abs/2111.06377 (the order of its published weights).

    Args:
        grid: Rows and columns of patches.
        dim: A multiple of 4.

    Returns:
        ``[1, 1 + S, dim]``, row after row.

    Raises:
        ValueError: If ``dim`` is no multiple of 4.

    Example:
        >>> grid_positions((2, 3), 8).shape
        torch.Size([1, 7, 8])
    """
    if dim % 4:
        raise ValueError(f"expected a width that 4 divides, got {dim}")
    rows, columns = (sinusoidal_positions(n, dim // 2, torch.empty(0)) for n in grid)
    places = torch.cat([columns.repeat(grid[0], 1), rows.repeat_interleave(grid[1], dim=0)], dim=1)
    return torch.cat([places.new_zeros(1, dim), places])[None]


def transformer_blocks(dim: int, depth: int, num_heads: int, mlp_ratio: int = 4) -> nn.ModuleList:
    """Blocks with MAE's norms and no dropout.

    Args:
        dim: D.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Width of the MLPs, times ``dim``.
    """
    blocks = nn.ModuleList(TokenBlock(dim, num_heads, mlp_ratio, 0.0) for _ in range(depth))
    for module in blocks.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = _EPS
    return blocks


def init_transformer(module: nn.Module) -> None:
    """Linear layers as MAE begins: Xavier-uniform weights, no biases.

    Args:
        module: Changed in place, with everything in it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def _pair(name: str, sizes: tuple[int, int]) -> tuple[int, int]:
    given = check_sizes(name, sizes)
    if len(given) != 2:
        raise ValueError(f"expected {name} as rows and columns, got {sizes!r}")
    return given[0], given[1]
