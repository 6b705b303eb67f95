"""What every model promises, checked on a model of one's own."""

from gaitzoo.testing.check import Report, Result, check_model
from gaitzoo.testing.memory import fill_freed_memory

__all__ = ["Report", "Result", "check_model", "fill_freed_memory"]
