"""Small models and clips for them."""

import torch

import gaitzoo
from gaitzoo.testing.trial import reset_statistics


def make(name, **model_args):
    torch.manual_seed(0)
    model = gaitzoo.create_model(name, **model_args).eval()
    reset_statistics(model)
    return model


def clips_for(model, *frame_counts, dtype=torch.float32):
    height, width = model.pretrained_cfg.input_size
    channels = () if model.in_channels == 1 else (model.in_channels,)
    return [torch.rand(*channels, t, height, width).to(dtype) for t in frame_counts]


def time_axis(clip):
    return clip.ndim - 3


def padded(clips, garbage):
    longest = max(clip.shape[time_axis(clip)] for clip in clips)
    shape = list(clips[0].shape)
    shape[time_axis(clips[0])] = longest
    batch = torch.full((len(clips), *shape), garbage, dtype=clips[0].dtype)
    for i, clip in enumerate(clips):
        batch[i].narrow(time_axis(clip), 0, clip.shape[time_axis(clip)]).copy_(clip)
    return batch, torch.tensor([clip.shape[time_axis(clip)] for clip in clips])
