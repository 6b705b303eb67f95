"""The command line."""

from gaitzoo.cli.entry import main

__all__ = ["main"]
