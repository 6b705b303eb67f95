"""Seeds, threads and tolerances shared by all tests."""

import os

# Nothing may leave this machine: tests that need a Hub start their own on 127.0.0.1.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from gaitzoo.models.registry import all_architectures, find_architecture, list_models
from gaitzoo.testing.memory import fill_freed_memory

# The models of this library: some files of tests register models of their own.
LISTED = list_models()
# The small variant of every architecture, which list_models() leaves out.
TINY = [entry.name for entry in all_architectures() if entry.is_tiny]
# Those of them that read silhouettes alone: a clip is one tensor of frames.
SILHOUETTES = [
    name for name in TINY if find_architecture(name).model_class.modalities == ("silhouettes",)
]
# Of one class with these and of no other kinds of modules, which tests/inference/test_deploy.py
# checks: tracers would go the same way again.
SAME_WAY = {
    "deepgaitv2_2d_tiny": "deepgaitv2_p3d_tiny",
    "trackletgait_small_tiny": "trackletgait_tiny",
}
TRACED = [name for name in SILHOUETTES if name not in SAME_WAY]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def pytest_configure(config):
    if os.environ.get("PYTEST_XDIST_WORKER"):
        # Workers share the cores; more threads than cores make convolutions many times slower.
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def nan_memory():
    """Memory that is read before anything is written there gives NaN."""
    fill_freed_memory()


@torch.no_grad()
def relative_error(found, wanted):
    """Largest difference, as a fraction of the largest wanted value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
