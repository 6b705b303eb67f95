"""The command line."""

from gaitzoo.cli.main import main

__all__ = ["main"]
