"""The plain training loop: iterate batches and drive the events of a task."""

from fgadahat_hooks.tasks.batches import batches

__all__ = ["batches"]
