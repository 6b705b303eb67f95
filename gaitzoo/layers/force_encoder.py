"""Joint torques as tokens, one per frame: the encoder behind the fusion layers of forces.

Idea: https://arxiv.org/abs/2512.20451, known by its abstract. The encoder is inferred.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaitzoo.layers.body_segments import BodySegments, find_body_segments
from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.graph import GraphConv, hop_adjacency
from gaitzoo.layers.sequence import lengths_for, lengths_to_mask

__all__ = ["ForceEncoder", "check_force_mask", "pool_forces"]

_CLIP = 3.0  # units


class ForceEncoder(nn.Module):
    """Torques of a skeleton as one vector per frame.

    Torques are divided by ``unit``, cut off at three units, and their logarithm is taken with the
    sign kept (``sign(x) log(1 + |x|)``). A matrix per joint, a graph convolution over the skeleton,
    the mean over joints and two convolutions over three frames follow. Frames that are not valid
    are zeros to every convolution, and zeros in the result.

    Source: a reconstruction of the idea of https://arxiv.org/abs/2512.20451; all of the encoder is
    inferred.

    Args:
        skeleton: ``"smpl24"``, ``"coco17"``, or :class:`BodySegments`.
        out_dim: F, channels of a token.
        hidden: Channels of a joint.
        unit: What torques are divided by. Normalised ones are a few hundredths in walking, and
            about 0.09 at the ankle.

    Shapes:
        forces: ``[N, T, J, 3]``, any finite numbers.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        valid: ``[N, T]`` bool, frames whose forces are known; ``None`` = all.
        returns: ``[N, F, T]``, and ``[N, T]`` bool, the frames that count.

    Raises:
        ValueError: If an argument is no positive number, or shapes do not fit.
        TypeError: If ``valid`` holds no booleans.

    Example:
        >>> encoder = ForceEncoder("smpl24", out_dim=16)
        >>> tokens, seen = encoder(torch.rand(2, 9, 24, 3), lengths=torch.tensor([9, 4]))
        >>> tokens.shape, seen.sum(1).tolist()
        (torch.Size([2, 16, 9]), [9, 4])

        Inside of any network of sequences:

        >>> gru = torch.nn.GRU(16, 8, batch_first=True)
        >>> gru(tokens.transpose(1, 2))[0].shape
        torch.Size([2, 9, 8])
    """

    keeps_float32 = True
    adjacency: Tensor

    def __init__(
        self,
        skeleton: str | BodySegments = "smpl24",
        out_dim: int = 128,
        hidden: int = 64,
        unit: float = 0.05,
    ) -> None:
        super().__init__()
        check_size(out_dim=out_dim, hidden=hidden)
        if not unit > 0:
            raise ValueError(f"expected unit as a positive number, got {unit!r}")
        body = find_body_segments(skeleton)
        self.num_joints, self.out_dim, self.unit = body.num_joints, out_dim, unit
        graph = hop_adjacency(body.num_joints, body.edges)
        self.register_buffer("adjacency", graph, persistent=False)
        self.weight = nn.Parameter(torch.empty(body.num_joints, 3, hidden))
        self.bias = nn.Parameter(torch.zeros(body.num_joints, hidden))
        nn.init.xavier_uniform_(self.weight)
        self.graph = GraphConv(hidden, hidden)
        self.conv1 = nn.Conv1d(hidden, out_dim, 3, padding=1)
        self.conv2 = nn.Conv1d(out_dim, out_dim, 3, padding=1)

    def forward(
        self, forces: Tensor, lengths: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the tokens and the frames that count."""
        if forces.ndim != 4 or forces.shape[2:] != (self.num_joints, 3):
            raise ValueError(
                f"expected forces [N, T, {self.num_joints}, 3], got {shape_of(forces)}"
            )
        seen = check_force_mask(valid, forces.shape[:2], forces.device)
        lengths = lengths_for(lengths, forces, axis=1)
        if lengths is not None:
            seen = seen & lengths_to_mask(lengths, forces.shape[1])
        unseen = ~seen[:, None]
        x = forces.masked_fill(~seen[..., None, None], 0) / self.unit
        x = x.clamp(-_CLIP, _CLIP)
        x = x.sign() * x.abs().log1p()
        x = torch.einsum("ntjd,jdc->nctj", x, self.weight) + self.bias.T[:, None]
        x = self.graph(x.relu(), self.adjacency).relu().mean(-1)
        x = self.conv1(x.masked_fill(unseen, 0)).relu()
        x = self.conv2(x.masked_fill(unseen, 0))
        return x.masked_fill(unseen, 0), seen


def pool_forces(tokens: Tensor, seen: Tensor) -> Tensor:
    """The mean over frames plus the maximum: one vector per sequence.

    Args:
        tokens: ``[N, F, T]``.
        seen: ``[N, T]`` bool, frames that count.

    Returns:
        ``[N, F]``; zeros where no frame counts.

    Example:
        >>> pool_forces(torch.tensor([[[1.0, 3.0, 9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[5.]])
    """
    unseen = ~seen[:, None]
    mean = tokens.masked_fill(unseen, 0).sum(-1) / seen.sum(-1, keepdim=True).clamp(min=1)
    highest = tokens.masked_fill(unseen, torch.finfo(tokens.dtype).min).amax(-1)
    return (mean + highest).masked_fill(~seen.any(-1, keepdim=True), 0)


def check_force_mask(
    valid: Tensor | None, shape: tuple[int, ...] | torch.Size, device: torch.device
) -> Tensor:
    """A mask of a known shape on a device; all true where none is given.

    Args:
        valid: Of booleans, or ``None``.
        shape: Its shape.
        device: Where it is needed.

    Raises:
        TypeError: If it holds no booleans.
        ValueError: If it has another shape.

    Example:
        >>> check_force_mask(None, (1, 2), torch.device("cpu"))
        tensor([[True, True]])
    """
    if valid is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        kind = getattr(valid, "dtype", type(valid).__name__)
        raise TypeError(f"expected a mask of valid forces as booleans, got {kind}")
    if tuple(valid.shape) != tuple(shape):
        raise ValueError(f"expected a mask of valid forces {list(shape)}, got {shape_of(valid)}")
    return valid.to(device)
