"""The plain loop: batches that drive a task's events."""

from fgadahat_hooks.tasks.batches import batches

__all__ = ["batches"]
