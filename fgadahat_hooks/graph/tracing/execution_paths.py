"""Execution paths: which module ran right after which in the forwards of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from fgadahat_hooks.graph.unit_graph import GATE

Stop = tuple[str, int]
"""A module by name, and how often it has run in this forward."""

Pair = tuple[Stop, Stop]
"""Two stops, the second right after the first."""

START: Stop = ("", 0)
"""The stop before the first module."""


class PathRecorder:
    """The pairs of stops that came one right after the other.

    Attributes:
        pairs: Those of forwards in evaluation mode.
        training: Those of forwards in training mode.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.pairs: set[Pair] = set()
        self.training: set[Pair] = set()
        self.begin(training=False)

    def begin(self, training: bool) -> None:
        """Start a forward of the whole model."""
        self._current = self.training if training else self.pairs
        self._runs: Counter[str] = Counter()
        self._last = START

    def step(self, name: str) -> None:
        """Record that a module runs."""
        self._runs[name] += 1
        stop = (name, self._runs[name])
        self._current.add((self._last, stop))
        self._last = stop


class KnownPaths:
    """All known execution paths: for each stop, the modules that may come next.

    The modules after a stop are a dict from names to further such dicts, so following a known path costs one lookup a
    module.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._stops: dict[Stop, Next] = {}

    @property
    def start(self) -> Next:
        """What may come first."""
        return self.at(START)

    def at(self, stop: Stop) -> Next:
        """Return what may come after a stop."""
        return self._stops.setdefault(stop, Next())

    def add(self, pairs: Iterable[Pair]) -> None:
        """Add paths, given as pairs of stops."""
        for before, after in pairs:
            self.at(before)[after[0]] = self.at(after)


class Next(dict[str, "Next"]):
    """What may come after one stop, by the name of the module."""


def path_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by which paths are told apart: those without child modules, or with tensors of their own."""
    for name, module in model.named_modules():
        if not name or isinstance(module, torch.jit.ScriptModule) or name.split(".")[-1] == GATE:
            continue
        children = [child for child in module._modules if child != GATE]
        if not children or module._parameters or module._buffers:
            yield name, module
