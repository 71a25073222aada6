"""Adapters to training worlds; each is one file that translates events and holds no mathematics."""
