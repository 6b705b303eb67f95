"""The loss of Mesh-Gait: identity, and places of points that may be unknown (a reconstruction).

Paper: https://arxiv.org/abs/2510.10406; the abstract says that joints, virtual markers and meshes
are compared with known ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.multi_task_loss import IdentityLoss, check_weights

__all__ = ["MeshGaitLoss"]

_GEOMETRY = ("joints", "markers", "vertices")


class MeshGaitLoss(nn.Module):
    """Identity and geometry together, where some of the geometry may be unknown.

    Identity, plus weighted mean absolute differences of joints, markers and vertices over valid
    frames, plus the mean of ``-log(confidence)`` over them if wanted. A target that is not given
    drops its term; all stages of the model count alike.

    Source: Mesh-Gait (https://arxiv.org/abs/2510.10406). A reconstruction: norms and weights are
    inferred; the term of confidence is Virtual Marker's (https://arxiv.org/abs/2303.11726). Its
    terms of edges and normals need faces of the mesh, and are not contained here.

    Args:
        weights: Weight of ``"joints"``, ``"markers"``, ``"vertices"`` and ``"confidence"``, 0 or
            more; what is left out counts 0.
        margin: Of the triplet loss.
        scale: Factor on the logits of identities.

    Shapes:
        output: As :class:`MeshGait` returns it in training.
        labels: ``[N]`` integer identities.
        targets: ``joints``, ``markers`` and ``vertices``, each like the model's, in its box; any
            of them may be missing.
        valid: ``[N, T]`` bool, False where targets are unknown and past the end of a sequence;
            what stands there, even NaN, never matters. ``None`` = all are valid.
        returns: ``[]``.

    Raises:
        TypeError: If weights are no mapping, or ``valid`` is no bool tensor.
        ValueError: If a weight or name is none, or shapes do not fit.

    Example:
        >>> output = AuxOutput(torch.zeros(2, 4, 8), aux={"joints": torch.zeros(2, 5, 17, 3)})
        >>> targets = {"joints": torch.full((2, 5, 17, 3), 0.1)}
        >>> MeshGaitLoss()(output, torch.tensor([0, 1]), targets)
        tensor(0.3000)
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        margin: float = 0.2,
        scale: float = 16.0,
    ) -> None:
        super().__init__()
        if weights is None:
            weights = {"joints": 1.0, "markers": 1.0, "vertices": 0.1}
        check_weights(weights)
        if set(weights) - {*_GEOMETRY, "confidence"}:
            raise ValueError(
                f"expected weights of {', '.join(_GEOMETRY)} and confidence, got "
                f"{', '.join(weights)}"
            )
        self.weights = dict(weights)
        self.identity = IdentityLoss(margin, scale)

    def forward(
        self,
        output: AuxOutput,
        labels: Tensor,
        targets: Mapping[str, Tensor],
        valid: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss."""
        if set(targets) - set(_GEOMETRY):
            raise ValueError(
                f"expected targets of {', '.join(_GEOMETRY)}, got {', '.join(targets)}"
            )
        for name in targets:
            if name not in output.aux:
                raise ValueError(
                    f"expected an output with {name}, got {', '.join(output.aux) or 'none'}; call "
                    "the model in train mode or with return_geometry=True (vertices: "
                    "set_marker_basis)"
                )
        loss = self.identity(output, labels)
        for key, found in output.aux.items():
            name = key.partition(".")[0]
            weight = self.weights.get(name, 0)
            if not weight or (name in _GEOMETRY and name not in targets):
                continue
            frames = self._valid(valid, found)
            if name == "confidence":
                # A softmax may round to zero.
                costs = -found.clamp(min=1e-12).log()
            else:
                wanted = targets[name].to(found)
                if wanted.shape != found.shape:
                    raise ValueError(
                        f"expected {name} {shape_of(found)}, got {shape_of(targets[name])}"
                    )
                wide = frames[..., None, None]
                costs = (found - torch.where(wide, wanted, 0)).abs().mean(3)
            costs = torch.where(frames[..., None], costs, 0).mean(2).sum()
            loss = loss + weight * costs / frames.sum().clamp(min=1)
        return loss

    @staticmethod
    def _valid(valid: Tensor | None, found: Tensor) -> Tensor:
        if valid is None:
            return torch.ones(found.shape[:2], dtype=torch.bool, device=found.device)
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            got = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
            raise TypeError(f"expected valid frames as a bool tensor [N, T], got {got}")
        if valid.shape != found.shape[:2]:
            raise ValueError(f"expected valid {list(found.shape[:2])}, got {shape_of(valid)}")
        return valid.to(found.device)
