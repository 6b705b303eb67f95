"""Who imports whom, what importing costs, and that every public name is explained."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gaitzoo

PACKAGE = Path(gaitzoo.__file__).parent
# A file imports from files of lower rows only.
ROWS = [
    {"_checks", "_modes", "outputs", "_body", "_raster", "_pickles", "_winograd"},
    {"sequence", "_flesh", "_ranking"},
    {"_filming", "_rows"},
    {"layers", "losses", "metrics", "preprocess", "synthetic", "augment"},
    {"peaks", "sentences"},
    {"files", "pictures", "_registry", "frozen_llm", "tokens"},
    {"_base", "_shipped"},
    {"resblocks", "regions", "_opengait_files", "_stage1", "_frozen_parts"},
    {"_hierarchy"},
    {"dygait", "hstl", "deepgaitv2", "timm_frames", "gaitllm"},
    {"_fused_layers", "_memory", "_chunks"},
    {"_fused_dygait", "_fused_frames", "_fused_hstl", "_fused_residual"},
    {"fuse"},
    {"export"},
    {"_checkpoint"},
    {"_download"},
    {"_hub"},
    {"_factory"},
    {"_embed"},
    {"_identify"},
    {"_demo", "_cli_files"},
    {"__init__"},
    {"_commands"},
    {"cli"},
    {"__main__"},
]
# Imported inside functions, because they load slow libraries or stand higher.
LATE = {"_base": {"_hub"}, "_stage1": {"_factory"}}


def imports_of(path):
    """Names of this package's files that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            inner = (node.module or "").removeprefix("gaitzoo").removeprefix(".")
            if node.level or (node.module or "").startswith("gaitzoo"):
                yield from ([inner] if inner else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            full = (alias.name for alias in node.names)
            yield from (name.removeprefix("gaitzoo.") for name in full if "gaitzoo." in name)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_imports_go_one_way(path):
    rows = [i for i, row in enumerate(ROWS) if path.stem in row]
    assert len(rows) == 1, f"{path.name} has no row"
    lower = set().union(*ROWS[: rows[0]])
    files = {p.stem for p in PACKAGE.glob("*.py")}
    allowed = lower | LATE.get(path.stem, set())
    wrong = [name for name in imports_of(path) if name in files and name not in allowed]
    assert not wrong, f"{path.name} imports {wrong}"


def test_the_package_is_flat():
    assert not [p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE]


def test_import_loads_nothing_heavy():
    code = (
        "import sys, torch; before = set(sys.modules); import gaitzoo;"
        "loaded = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "heavy = loaded & {'timm', 'transformers', 'matplotlib', 'torchvision', 'huggingface_hub'};"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def public_things():
    for name in gaitzoo.__all__:
        thing = getattr(gaitzoo, name)
        if inspect.ismodule(thing):
            yield from ((f"{name}.{inner}", getattr(thing, inner)) for inner in thing.__all__)
        else:
            yield name, thing


@pytest.mark.parametrize(("name", "thing"), list(public_things()))
def test_every_public_name_is_explained(name, thing):
    if not callable(thing):
        return
    text = inspect.getdoc(thing)
    assert text, f"{name} has no docstring"
    if inspect.isclass(thing) and issubclass(thing, torch.nn.Module):
        assert "Shapes:" in text, f"{name} says no shapes"
    if inspect.isclass(thing):
        for inner, method in vars(thing).items():
            if inspect.isfunction(method) and not inner.startswith("_"):
                assert inspect.getdoc(method), f"{name}.{inner} has no docstring"


def test_all_is_sorted_and_complete():
    assert list(gaitzoo.__all__) == sorted(gaitzoo.__all__)
    for name in gaitzoo.__all__:
        assert hasattr(gaitzoo, name)


@pytest.mark.parametrize("name", [n for n in gaitzoo.list_models() if not n.endswith("_tiny")])
def test_model_files_cite_what_their_cfgs_cite(name):
    cfg = gaitzoo.model_info(name)
    with torch.device("meta"):
        module = inspect.getmodule(type(gaitzoo.create_model(name, num_classes=0)))
    header = module.__doc__ or ""
    assert cfg.paper in header
    assert "Differences from upstream" in header or "nothing of it is contained" in header
