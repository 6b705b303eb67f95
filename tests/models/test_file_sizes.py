"""The sizes of the authors' files say which structure, classes and optimizer they hold."""

import pytest
from file_sizes import explains

import gaitzoo
from gaitzoo.models.opengait_files import HUB_FILES

FAMILIES = ("gaitset", "gaitpart", "gaitgl", "gln", "mtsgait", "swingait")
FILES = [tag for tag in HUB_FILES if tag.partition(".")[0] in FAMILIES]
# Beside the weights lie two more numbers per weight (Adam) or one (momentum).
COPIES = dict.fromkeys(FILES, 3) | {"gaitset.casiae": 2}


def test_every_hub_file_of_these_families_has_a_tag():
    assert len(FILES) == 10
    for name in FILES:
        cfg = gaitzoo.model_info(name)
        assert cfg.has_weights
        assert cfg.sha256 == HUB_FILES[name].sha256


@pytest.mark.parametrize("name", FILES)
def test_the_model_explains_the_size(name):
    assert explains(name, COPIES[name])


@pytest.mark.parametrize("name", FILES)
def test_no_other_structure_explains_the_size(name):
    for copies in {1, 2, 3} - {COPIES[name]}:
        assert not explains(name, copies)
    classes = gaitzoo.model_info(name).num_classes
    for other in (classes - 1, classes + 1):
        if classes:
            assert not explains(name, COPIES[name], num_classes=other)
