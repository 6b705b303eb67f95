"""What every model promises, checked on a model of one's own."""

from gaitzoo.testing.memory import fill_freed_memory

__all__ = ["fill_freed_memory"]
