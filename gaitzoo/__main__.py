"""Runs the command line: ``python -m gaitzoo``."""

import sys

from gaitzoo.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
