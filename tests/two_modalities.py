"""A tiny model of two modalities, as a user might write one, and others of unusual inputs."""

import torch
from torch import nn

import gaitzoo
from gaitzoo import GaitModel, GaitOutput, PretrainedCfg, register_model
from gaitzoo.layers.sequence import mask_fill, masked_max
from gaitzoo.models.base import record_args


class TwoBranches(GaitModel):
    """Silhouettes and skeleton maps through a branch each, joined before the maximum over time."""

    modalities = ("silhouettes", "skeleton_maps")
    classifier_key = "classifier.linear"

    @record_args
    def __init__(self, *, num_classes: int = 3, channels: int = 4) -> None:
        super().__init__()
        self.silhouette_branch = nn.Conv3d(1, channels, 3, padding=1)
        self.skeleton_branch = nn.Conv3d(2, channels, 3, padding=1)
        self.classifier = Classifier(2 * channels, num_classes)
        self.num_features, self.num_parts = 2 * channels, 2

    def forward_features(self, inputs, lengths=None):
        inputs, lengths = self.prepare(inputs, lengths)
        maps = [
            self.silhouette_branch(inputs["silhouettes"]),
            self.skeleton_branch(inputs["skeleton_maps"]),
        ]
        return mask_fill(torch.cat(maps, dim=1).relu(), lengths), lengths

    def forward_head(self, features, lengths=None):
        peak = masked_max(features, lengths)
        halves = peak.unflatten(2, (2, -1)).mean(dim=(3, 4)).transpose(1, 2)
        return GaitOutput(embeddings=halves, logits=self.classifier(halves))

    def temporal_reach(self):
        return 1, 1


class Classifier(nn.Module):
    """Class scores of every part, or none."""

    def __init__(self, width, num_classes):
        super().__init__()
        self.width = width
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes):
        self.linear = nn.Linear(self.width, num_classes) if num_classes else None

    def forward(self, parts):
        return None if self.linear is None else self.linear(parts)


class Poses(GaitModel):
    """Joints through a matrix; no maps, no classifier."""

    modalities = ("poses",)
    classifier_key = None

    @record_args
    def __init__(self, *, num_joints: int = 17) -> None:
        super().__init__()
        self.num_joints = num_joints
        self.linear = nn.Linear(3 * num_joints, 6)
        self.num_features, self.num_parts = 6, 1

    def forward(self, poses, lengths=None):
        x, lengths = self.prepare(poses, lengths)  # [N, 3, T, J]
        x = self.linear((x / 100).permute(0, 2, 1, 3).flatten(2)).transpose(1, 2)
        return GaitOutput(embeddings=masked_max(x, lengths)[:, None])


class Images(GaitModel):
    """Radar maps without time; no classifier."""

    modalities = ("images",)
    classifier_key = None

    @record_args
    def __init__(self, *, in_channels: int = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv = nn.Conv2d(in_channels, 5, 3, padding=1)
        self.num_features, self.num_parts = 5, 1

    def forward(self, images, lengths=None):
        x, _ = self.prepare(images, lengths)
        return GaitOutput(embeddings=self.conv(x).amax(dim=(2, 3))[:, None])


_MODELS = {"two_branches": TwoBranches, "poses_alone": Poses, "images_alone": Images}
for _name, _model in _MODELS.items():
    if not gaitzoo.is_model(_name):
        register_model(_name, _model, {"test": PretrainedCfg(input_size=(16, 12))})
