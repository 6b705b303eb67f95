"""A model as somebody else writes one: poses in, no neck, no classifier, the public API alone."""

import torch
from torch import nn

import gaitzoo

# Limbs between the seventeen joints of COCO.
LIMBS = [(0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)]
LIMBS += [(5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (0, 5), (0, 6)]


def neighbours():
    """Which joints a joint hears, as shares that add up to one, ``[17, 17]``."""
    near = torch.eye(17)
    for one, other in LIMBS:
        near[one, other] = near[other, one] = 1.0
    return near / near.sum(1, keepdim=True)


class GraphBlock(nn.Module):
    """Mixes neighbouring joints, then three frames."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.register_buffer("near", neighbours())
        self.joints = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.time = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, x, valid):
        x = self.joints(torch.einsum("nctj,kj->nctk", x, self.near))
        return x + self.time(x * valid)


class PoseGraph(gaitzoo.GaitModel):
    """A small ST-GCN: poses ``[N, T, 17, 3]`` in, one embedding per person out."""

    modalities = ("poses",)
    classifier_key = None

    @gaitzoo.record_args
    def __init__(self, *, channels: tuple[int, ...] = (6, 8), width: int = 5):
        super().__init__()
        widths = (3, *channels)
        self.blocks = nn.ModuleList(map(GraphBlock, widths[:-1], widths[1:]))
        self.last = nn.Linear(widths[-1], width)
        self.num_features, self.num_parts = width, 1

    def forward(self, poses, lengths=None):
        x, lengths = self.prepare(poses, lengths)  # [N, 3, T, 17]
        frames = torch.arange(x.shape[2], device=x.device)
        counts = x.new_full((len(x),), x.shape[2]) if lengths is None else lengths
        valid = (frames < counts[:, None])[:, None, :, None].to(x.dtype)
        for block in self.blocks:
            x = self.run(block, x, valid)
        mean = (x * valid).sum(dim=(2, 3)) / (valid.sum(dim=(2, 3)) * x.shape[3])
        return gaitzoo.GaitOutput(embeddings=self.last(mean)[:, None])


gaitzoo.register_model("pose_graph", PoseGraph)
