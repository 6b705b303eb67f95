"""MAEPD: a masked autoencoder of maps of signals, adapted to gait by prompts; a reconstruction.

Paper: https://arxiv.org/abs/2508.04316 (a foundation model for distributed acoustic sensing, and
visual prompt tuning), known by its abstract and notes. No code, weights or data were found,
nothing of it is contained here, and no number of the authors' is to be expected. From the
abstract: masked reconstruction of images of fibre signals, a frozen transformer, prompts (VPT-Deep,
0.322 % of the parameters tuned), indoor gait identity. [inferred], and arguments: ViT-B/16 with
MAE's defaults and one channel, 224 pixels, 30 prompts (which give that share without the head), the
head on the class token, transforms of the signals; adapters (of the journal version) behind the
MLPs.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.masked_autoencoder import MaskedAutoencoder, ViTEncoder
from gaitzoo.layers.prompts import PromptedViT, add_adapters
from gaitzoo.models.adapt import adapt_input_channels
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.cfg import PretrainedCfg, PretrainedNotAvailable
from gaitzoo.models.conversion import StateDict
from gaitzoo.models.groups import layer_groups
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.vit_mae_keys import convert_vit_mae

__all__ = ["MAEPD", "load_mae_weights", "maepd_mae", "maepd_vpt"]

_PAPER = "https://arxiv.org/abs/2508.04316"
_NO_WEIGHTS = (
    "neither code, weights nor data of MAEPD have been published. Train maepd_mae on your own "
    "maps, or start from general weights by name, "
    'maepd_mae(pretrained="vit_base_patch16_224.mae")'
)


class MAEPD(GaitModel):
    """Who walks, from one map of signals: a frozen transformer with prompts; a reconstruction.

    Source: https://arxiv.org/abs/2508.04316, abstract; what is inferred is said at the top of this
    file. The transformer is random at first: give it the encoder of a trained
    :class:`MaskedAutoencoder` (:func:`maepd_mae`) as ``encoder``, or load its weights into
    ``model.prompted.vit``. Trained with cross-entropy on the logits.

    Args:
        num_classes: People, 0 = no classifier.
        in_channels: Channels of the image.
        image_size: Rows and columns of the image, multiples of those of a patch.
        patch_size: Rows and columns of a patch.
        dim: Width.
        depth: Blocks.
        num_heads: Heads.
        num_prompts: See :class:`PromptedViT`, and so for the next four.
        mode: ``"deep"`` or ``"shallow"``.
        pool: ``"cls"`` or ``"mean"``.
        prompt_dropout: In training.
        freeze: Whether the transformer is frozen.
        adapter_hidden: Width of an :class:`Adapter` behind the MLP of every block; ``None`` = no
            adapters.
        encoder: A ready :class:`ViTEncoder` to use instead of one of these sizes; it is held, not
            copied.

    Shapes:
        images: ``[N, in_channels, *image_size]`` in [0, 1] or uint8 0..255
            (:func:`gaitzoo.unit_range`).
        returns: :class:`GaitOutput` with ``embeddings [N, 1, dim]``, what the head reads, and
            ``logits [N, 1, num_classes]``.

    Raises:
        ValueError: If an argument has none of the values named here, or images have another size.
        TypeError: If ``encoder`` is no :class:`ViTEncoder`.

    Example:
        >>> sizes = {"image_size": (32, 64), "dim": 16, "depth": 2, "num_heads": 2}
        >>> model = MAEPD(num_classes=5, num_prompts=3, **sizes).eval()
        >>> model(torch.rand(2, 1, 32, 64)).logits.shape
        torch.Size([2, 1, 5])
    """

    architecture = "maepd"
    modalities = ("images",)
    classifier_key = "prompted.head"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 60,
        in_channels: int = 1,
        image_size: tuple[int, int] = (224, 224),
        patch_size: tuple[int, int] = (16, 16),
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        num_prompts: int = 30,
        mode: Literal["deep", "shallow"] = "deep",
        pool: Literal["cls", "mean"] = "cls",
        prompt_dropout: float = 0.0,
        freeze: bool = True,
        adapter_hidden: int | None = None,
        encoder: ViTEncoder | None = None,
    ) -> None:
        if encoder is not None and not isinstance(encoder, ViTEncoder):
            raise TypeError(f"expected encoder as a ViTEncoder, got {type(encoder).__name__}")
        self.image_size = image_size if encoder is None else encoder.image_size
        super().__init__()
        if encoder is None:
            encoder = ViTEncoder(image_size, patch_size, in_channels, dim, depth, num_heads)
        if adapter_hidden is not None:
            add_adapters(encoder, adapter_hidden)
        self.prompted = PromptedViT(
            encoder, num_prompts, mode, num_classes, pool, prompt_dropout, freeze
        )
        self.in_channels = encoder.in_channels
        self.num_parts, self.num_features = 1, encoder.embed_dim

    @property
    def input_size(self) -> tuple[int, int]:
        """See :attr:`GaitModel.input_size`."""
        return self.image_size

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """See :meth:`GaitModel.group_matcher`: block by block, prompts with what is in front.

        Args:
            coarse: Says nothing: as in timm's transformers, a block is never split.
        """
        groups = layer_groups(self.prompted.vit, None, True)
        inside = {name: pattern.removeprefix("^") for name, pattern in groups.items()}
        first = next(iter(inside))
        patterns = {name: rf"^prompted\.vit\.{pattern}" for name, pattern in inside.items()}
        patterns[first] = rf"^prompted\.(?:prompts$|vit\.{inside[first]})"
        return patterns

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Computes all tokens.

        Args:
            silhouettes: Images, as for the model's call.
            lengths: Always ``None``: images have no time.

        Returns:
            ``[N, 1 + num_prompts + S, dim]`` and ``None``.
        """
        x, _ = self.prepare(silhouettes, lengths)
        if tuple(x.shape[2:]) != self.image_size:
            raise ValueError(
                f"expected images of {self.image_size[0]} x {self.image_size[1]} pixels, got "
                f"{shape_of(x)}; resize them, or build the model with another image_size"
            )
        return self.run(self.prompted.forward_features, x), None

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools the tokens and classifies.

        Args:
            features: As from :meth:`forward_features`.
            lengths: Always ``None``.
        """
        pooled = self.prompted.forward_head(features, pre_logits=True)
        head = self.prompted.head
        logits = None if head is None else head(pooled)[:, None]
        return GaitOutput(embeddings=pooled[:, None], logits=logits)


def maepd_mae(
    in_chans: int = 1, pretrained: str | None = None, **arguments: Any
) -> MaskedAutoencoder:
    """The masked autoencoder that MAEPD trains on maps of signals: ViT-B/16, one channel.

    Args:
        in_chans: Channels of the maps.
        pretrained: Name of general weights to start from, of colour photographs: one of timm
            (``"vit_base_patch16_224.mae"``, the encoder alone, CC BY-NC 4.0) or one of
            transformers with a slash (``"facebook/vit-mae-base"``, with the decoder). First
            convolutions are summed for one channel, and the decoder then keeps its random last
            layer. ``None`` = random.
        **arguments: Others of :class:`MaskedAutoencoder`.

    Raises:
        PretrainedNotAvailable: For ``pretrained="das"``: the authors' weights.
        ValueError: If weights do not fit the sizes.
        OSError: If weights cannot be loaded.

    Example:
        >>> mae = maepd_mae(image_size=(32, 64), dim=16, depth=1, num_heads=2, decoder_depth=1)
        >>> mae(torch.rand(2, 1, 32, 64)).mask.sum(1).tolist()
        [6, 6]
    """
    if pretrained == "das":
        raise PretrainedNotAvailable(f'no weights for maepd_mae(pretrained="das"): {_NO_WEIGHTS}')
    mae = MaskedAutoencoder(in_channels=in_chans, **arguments)
    if pretrained is not None:
        load_mae_weights(mae, _published(pretrained))
    return mae


def maepd_vpt(
    num_classes: int,
    mode: Literal["deep", "shallow"] = "deep",
    num_prompts: int = 30,
    backbone: nn.Module | None = None,
    **arguments: Any,
) -> PromptedViT:
    """A frozen transformer with prompts and a linear head, as MAEPD is adapted.

    Args:
        num_classes: K.
        mode: ``"deep"`` or ``"shallow"``.
        num_prompts: Of a set.
        backbone: A :class:`MaskedAutoencoder` (its encoder is taken), a :class:`ViTEncoder` or a
            transformer of timm; ``None`` = a random ViT-B/16 of one channel.
        **arguments: Others of :class:`PromptedViT`.

    Example:
        >>> mae = maepd_mae(image_size=(32, 64), dim=16, depth=1, num_heads=2, decoder_depth=1)
        >>> maepd_vpt(4, num_prompts=2, backbone=mae)(torch.rand(2, 1, 32, 64)).shape
        torch.Size([2, 4])
    """
    vit = ViTEncoder() if backbone is None else backbone
    if isinstance(vit, MaskedAutoencoder):
        vit = vit.encoder
    return PromptedViT(vit, num_prompts, mode, num_classes, **arguments)


def load_mae_weights(mae: MaskedAutoencoder, state_dict: StateDict) -> None:
    """Loads weights of timm's or transformers' masked autoencoders.

    Args:
        mae: Changed in place. An encoder of one channel gets the sum over the three colours; the
            decoder stays as it is where the weights have none, and its last layer where they are of
            other channels.
        state_dict: See :func:`gaitzoo.models.vit_mae_keys.convert_vit_mae`.

    Raises:
        ValueError: If a name is unknown or missing, or a shape differs.

    Example:
        >>> import timm
        >>> mae = maepd_mae(image_size=(32, 32), dim=192, depth=12, num_heads=3, decoder_depth=1)
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
        >>> load_mae_weights(mae, vit.state_dict())
    """
    weights, own = convert_vit_mae(state_dict), mae.state_dict()
    first = weights.get("encoder.patch_embed.proj.weight")
    channels = mae.encoder.in_channels
    if first is not None and first.ndim == 4 and first.shape[1] != channels:
        weights = adapt_input_channels(weights, own, first.shape[1], channels)
        for name in ("decoder_pred.weight", "decoder_pred.bias"):
            weights.pop(name, None)
    has_decoder = any(not key.startswith("encoder.") for key in weights)
    wanted = {
        key
        for key in own
        if key.startswith("encoder.")
        or (has_decoder and (key in weights or not key.startswith("decoder_pred.")))
    }
    other = {key for key in wanted & set(weights) if weights[key].shape != own[key].shape}
    if wanted != set(weights) or other:
        key = min(other or wanted ^ set(weights))
        found, sizes = (list(d[key].shape) if key in d else "nothing" for d in (weights, own))
        raise ValueError(
            f"expected weights of this structure, got others: {key} is {found} in the file and "
            f"{sizes} in the model; build the model with the sizes of the weights"
        )
    mae.load_state_dict({**own, **weights})


def _published(name: str) -> StateDict:
    """Weights by name: with a slash transformers', otherwise timm's."""
    if "/" in name:
        from transformers import ViTMAEForPreTraining

        return ViTMAEForPreTraining.from_pretrained(name).state_dict()
    import timm

    return timm.create_model(name, pretrained=True, num_classes=0).state_dict()


def _cfg(**fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        paper=_PAPER,
        license="no weights",
        fidelity="reconstruction",
        embedding="output",
        crop="none",
        **fields,
    )


register_model(
    "maepd",
    MAEPD,
    {
        "das": _cfg(
            num_classes=60,
            input_size=(224, 224),
            unavailable=_NO_WEIGHTS,
            metrics={
                "accuracy": 96.94,
                "protocol": "indoor gait on the authors' fibre, their abstract (96.33 with all "
                "weights tuned); this is a reconstruction",
            },
            notes="The number of people is inferred; give num_classes.",
        )
    },
    tiny=_cfg(
        num_classes=5,
        model_args={
            "image_size": (16, 24),
            "patch_size": (8, 8),
            "dim": 8,
            "depth": 2,
            "num_heads": 2,
            "num_prompts": 3,
            "freeze": False,
        },
        input_size=(16, 24),
    ),
)
