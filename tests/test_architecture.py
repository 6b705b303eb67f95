"""Who imports whom, what importing costs, and that every public name is explained."""

import ast
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch
from conftest import LISTED

import gaitzoo

PACKAGE = Path(gaitzoo.__file__).parent
# A folder imports from those before it; inside a folder, files import one way (no circle).
ORDER = [
    "version",
    "layers",
    "data",
    "losses",
    "metrics",
    "synthetic",
    "models",
    "hub",
    "inference",
]
ORDER += ["evaluation", "testing", "__init__", "cli", "__main__"]
# Imports inside functions, where users expect the method there.
LATE = {("models/shared", "hub"), ("models/gaitllm", "hub")}
FILES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def place(file):
    """The folder of a file (or its name, at the top) and its name inside the folder."""
    name = file.with_suffix("").as_posix().removesuffix("/__init__")
    top, _, inner = name.partition("/")
    return top, inner


def imports_of(path):
    """Dotted modules of this package that a file imports, at any depth."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            if module.partition(".")[0] == "gaitzoo":
                names = [f"{module}.{alias.name}" for alias in node.names]
                inner = [name for name in names if name.removeprefix("gaitzoo.") in MODULES]
                yield from inner or [module]
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("gaitzoo"))


MODULES = {f.with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".") for f in FILES}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_folders_import_one_way(path):
    top, inner = place(path)
    lower = ORDER[: ORDER.index(top)]
    late = {to for start, to in LATE if f"{top}/{inner}".startswith(start)}
    for module in imports_of(path):
        target = [*module.split("."), "__init__"][1]
        assert target in {*lower, top, *late}, f"{path} imports {module}"


def test_inside_a_folder_there_is_no_circle():
    graph = {}
    for path in FILES:
        name = ".".join(("gaitzoo", *path.with_suffix("").parts)).removesuffix(".__init__")
        if name != "gaitzoo":
            graph[name] = {m for m in imports_of(path) if m != "gaitzoo"}
    for start, to in LATE:
        for name in graph:
            if name.startswith(f"gaitzoo.{start.replace('/', '.')}"):
                graph[name] = {m for m in graph[name] if not m.startswith(f"gaitzoo.{to}.")}
    TopologicalSorter(graph).prepare()


def test_folders_are_one_level_deep_and_hide_nothing():
    deep = {p.parent.as_posix() for p in FILES if len(p.parts) > 2}
    assert deep <= {"models/gaitllm"}
    assert not [p for p in FILES if p.name.startswith("_") and not p.stem.startswith("__")]


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


@pytest.mark.parametrize("name", LISTED)
def test_model_files_cite_what_their_cfgs_cite(name):
    cfg = gaitzoo.model_info(name)
    with torch.device("meta"):
        module = inspect.getmodule(type(gaitzoo.create_model(name, num_classes=0)))
    header = module.__doc__ or ""
    assert cfg.paper in header
    assert "Differences from upstream" in header or "nothing of it is contained" in header
