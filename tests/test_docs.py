"""Examples in docstrings, README, docs and the examples folder run."""

import doctest
import importlib
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import gaitzoo
from gaitzoo.models import registry

ROOT = Path(__file__).parent.parent
MODULES = [
    info.name
    for info in pkgutil.walk_packages(gaitzoo.__path__, "gaitzoo.")
    if not info.name.endswith("__main__")
]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))
    module = importlib.import_module(name)
    known = {"gaitzoo": gaitzoo, "torch": torch, **vars(module)}
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=known):
        report: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert failed == 0, "".join(report)


def code_blocks(page):
    """Python blocks of a page; those that begin with "# needs" something are only compiled."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_ARCHITECTURES", dict(registry._ARCHITECTURES))
    namespace = {}
    for block in code_blocks(page):
        program = compile(block, str(page), "exec")
        if not block.startswith("# needs "):
            exec(program, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_explain_and_offer_help(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    # Examples may import their neighbours.
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_the_reference_lists_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text()
    whole = set(re.findall(r"automodule:: (\S+)\n   :members:\n", text))
    for name in gaitzoo.__all__:
        module = getattr(getattr(gaitzoo, name), "__module__", f"gaitzoo.{name}")
        listed = module in whole or re.search(rf"(gaitzoo\.|[ ,]){name}\b", text)
        assert listed, f"docs/api.md lacks {name}"
