"""Sphinx configuration."""

import gaitzoo

project = "gaitzoo"
author = "The gaitzoo authors"
copyright = "2026, The gaitzoo authors"
release = gaitzoo.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "gaitzoo"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_use_ivar = True
# Rows of a Shapes section look like rows of Args.
napoleon_custom_sections = [("Shapes", "params_style")]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
