"""The sizes of the authors' files say which structure, classes and optimizer they hold."""

import pytest
import torch

import gaitzoo
from gaitzoo.models.opengait_files import HUB_FILES

FAMILIES = ("gaitset", "gaitpart", "gaitgl", "gln", "mtsgait", "swingait")
FILES = [tag for tag in HUB_FILES if tag.partition(".")[0] in FAMILIES]
# Beside the weights lie two more numbers per weight (Adam) or one (momentum).
COPIES = dict.fromkeys(FILES, 3) | {"gaitset.casiae": 2}
# A tensor's share of pickle and zip: names, headers, rounding to 64 bytes.
LEAST, MOST = 395, 462


def authors_tensors(name, **changes):
    """Bytes and numbers of trained, fixed and counting tensors in the authors' layout."""
    with torch.device("meta"):
        model = gaitzoo.create_model(name, **changes)
    trained = [p.nbytes for p in model.parameters() if p.requires_grad]
    kept = [p.nbytes for p in model.parameters() if not p.requires_grad]
    kept += [b.nbytes for key, b in model.named_buffers() if "relative_index" not in key]
    if name.startswith("gaitpart"):
        # 16 parts have convolutions of their own there, one grouped convolution each here.
        grouped = model.num_parts - 1
        trained += [0] * (4 * grouped)
    if name.startswith("swingait"):
        # A sixteenth part, and a table of int64 per attention.
        trained += [4 * 512 * 256 + 4 * 256 * model.num_classes + 2 * 4 * 256]
        kept += [2 * 4 * 256]
        kept += [8 * 45 * 45 for key, _ in model.named_buffers() if "relative_index" in key]
    return trained, kept


def bytes_per_tensor(name, copies, **changes):
    trained, kept = authors_tensors(name, **changes)
    rest = gaitzoo.model_info(name).size - copies * sum(trained) - sum(kept)
    return rest / (copies * len(trained) + len(kept))


def test_every_hub_file_of_these_families_has_a_tag():
    assert len(FILES) == 10
    for name in FILES:
        cfg = gaitzoo.model_info(name)
        assert cfg.has_weights
        assert cfg.sha256 == HUB_FILES[name].sha256


@pytest.mark.parametrize("name", FILES)
def test_the_model_explains_the_size(name):
    assert LEAST < bytes_per_tensor(name, COPIES[name]) < MOST


@pytest.mark.parametrize("name", FILES)
def test_no_other_structure_explains_the_size(name):
    for copies in {1, 2, 3} - {COPIES[name]}:
        assert not LEAST < bytes_per_tensor(name, copies) < MOST
    classes = gaitzoo.model_info(name).num_classes
    for other in (classes - 1, classes + 1):
        if classes:
            assert not LEAST < bytes_per_tensor(name, COPIES[name], num_classes=other) < MOST
