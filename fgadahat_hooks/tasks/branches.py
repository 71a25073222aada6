"""Forwards that take an execution path that no trace has seen: noticed as they run, traced before the next step.

What the unit graph says of a layer's inputs is true of the forwards that were traced. A model that branches on its
inputs may take another execution path, on which a layer is fed from elsewhere. So a hook on each module compares which
module runs after which with what is known. That costs one look into a dict. A new pair costs one more trace, of that
very batch in evaluation mode, before an optimizer may move anything: a finished task's outputs are computed in that
mode, so no output that was ever computed can change.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import TraceError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.graph.trace import ExampleInputs, trace_again
from fgadahat_hooks.graph.tracing.execution_paths import START, KnownPaths, Next, Pair, path_modules
from fgadahat_hooks.graph.tracing.extend import distrusted, same
from fgadahat_hooks.graph.tracing.forward import Call
from fgadahat_hooks.graph.unit_graph import UnitGraph

_PATIENCE = 8
"""How many new paths of training that evaluation does not take are looked at; further ones are not (layer dropout)."""


@dataclass
class NewPath:
    """A forward that took an execution path that no trace has seen.

    Attributes:
        call: Its inputs.
        training: Whether the model was in training mode.
        pairs: The pairs of modules that were new.
        later: The modules that ran from the first new pair on.
    """

    call: Call
    training: bool
    pairs: set[Pair]
    later: set[str]


class BranchWatch:
    """Compares every forward of an attached model with those that were traced.

    Attributes:
        pending: New execution paths that have not been traced yet.
        grown: Whether the graph is no longer that of the first trace.
    """

    def __init__(self, attached: AttachedModel, changed: Callable[[], Callable[[], None] | None]) -> None:
        """Watch until the model's hooks are closed.

        Args:
            attached: The model; held weakly.
            changed: Gives what to call when the graph has changed, None if nobody is there any more; a weak reference.
        """
        self._attached = weakref.ref(attached)
        self._changed = changed
        self._known = {False: KnownPaths(), True: KnownPaths()}  # by whether the model is in training mode
        self._patience = _PATIENCE
        self._paused = False
        self._new: set[Pair] = set()
        self._later: set[str] = set()
        self._trail: list[str] = []
        self._here = self._known[False]
        self._next: Next | None = None
        self.pending: list[NewPath] = []
        self.grown = False
        self._learn(attached.graph.paths)
        self._learn(attached.graph.training_paths, training=True)
        attached.hooks.forward_pre(attached.model, _Enter(self), first=True)
        for name, module in path_modules(attached.model):
            attached.hooks.forward_pre(module, _Step(self, name))
        attached.hooks.forward(attached.model, _Leave(self), always=True, kwargs=True)

    def _learn(self, pairs: Iterable[Pair], training: bool = False) -> None:
        """Take pairs of modules for known; those of training alone say nothing of evaluation."""
        for known in (self._known[True],) if training else self._known.values():
            known.add(pairs)

    # ---------------------------------------------------------------- one forward
    def begin(self, model: nn.Module) -> None:
        """Note that a forward of the model begins; one of a replica of it is not looked at."""
        attached = self._attached()
        impatient = model.training and not self._patience
        if self._paused or impatient or attached is None or attached.model is not model:
            self._next = None
            return
        self._new, self._later, self._trail = set(), set(), []
        self._here = self._known[model.training]
        self._next = self._here.start

    def step(self, name: str) -> None:
        """Note that a module runs."""
        if self._next is None:
            return
        self._trail.append(name)
        following = self._next.get(name)
        self._next = self._stray(name) if following is None else following
        if self._new:
            self._later.add(name)

    def _stray(self, name: str) -> Next:
        """Leave the known paths; return what is known from this stop on."""
        *before, _ = self._trail
        last = (before[-1], before.count(before[-1])) if before else START
        stop = (name, self._trail.count(name))
        self._new.add((last, stop))
        return self._here.at(stop)

    def end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note that the forward has ended; keep its inputs if its path was new, unless it raised."""
        watched, self._next = self._next is not None, None
        if not watched or not self._new or output is None:
            return
        inputs = (args, kwargs)
        if any(_is_abstract(leaf) for leaf in pytree.tree_leaves(inputs)):
            return  # a compiler or a transform looks at the model, and asks for no numbers
        kept = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), inputs)
        self.pending.append(NewPath(Call(*kept), model.training, self._new, self._later))
        self._learn(self._new, model.training)

    # ---------------------------------------------------------------- afterwards
    def retrace_pending(self) -> None:
        """Trace the new paths, and let the unit graph hold for them too."""
        attached = self._attached()
        paths, self.pending = self.pending, []
        if attached is None or attached.detached:
            return
        for path in paths:
            self.adopt(self._explored(attached, path))

    def trace(self, inputs: ExampleInputs) -> None:
        """Let the unit graph hold for a further forward, in evaluation mode.

        Raises:
            TraceError: The forward raised.
        """
        attached = self._attached()
        if attached is not None:
            graph, pairs = self._traced(attached, inputs)
            self._learn(pairs)
            self.adopt(graph)

    def _explored(self, attached: AttachedModel, path: NewPath) -> UnitGraph:
        """Return a graph that holds for a new path.

        One that evaluation does not take with these inputs is of training alone, where nothing has to keep its bits.
        One that evaluation took and does not take again depends on more than inputs: nothing is promised of it.
        """
        try:
            graph, pairs = self._traced(attached, path.call)
        except TraceError:
            graph, pairs = attached.graph, set()
        self._learn(pairs)
        if path.pairs <= pairs:
            return graph
        if path.training:
            self._patience -= 1
            return graph
        self._learn(path.pairs)
        return distrusted(graph, path.later)

    def _traced(self, attached: AttachedModel, inputs: ExampleInputs) -> tuple[UnitGraph, set[Pair]]:
        self._paused = True
        try:
            with attached.gate_context.opened():
                return trace_again(attached.model, inputs, attached.graph)
        finally:
            self._paused = False

    def adopt(self, graph: UnitGraph) -> None:
        """Put a graph in place of the one there was, and say so."""
        attached = self._attached()
        if attached is None or _alike(graph, attached.graph):
            return
        attached.graph, self.grown = graph, True
        tell = self._changed()
        if tell is not None:
            tell()


def _is_abstract(leaf: Any) -> bool:
    wrapped = isinstance(leaf, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(leaf)
    return isinstance(leaf, FakeTensor) or wrapped or (isinstance(leaf, Tensor) and leaf.is_meta)


def _alike(a: UnitGraph, b: UnitGraph) -> bool:
    maps: tuple[Mapping[str, Any], Mapping[str, Any]] = (a.inputs, b.inputs)
    return (
        a.layers == b.layers
        and maps[0].keys() == maps[1].keys()
        and all(same(maps[0][n], maps[1][n]) for n in a.inputs)
    )


# ------------------------------------------------------------------ hooks
class _Hook:
    """Belongs to one model; a copy of the model is not watched."""

    def __init__(self, watch: BranchWatch) -> None:
        self._watch = watch

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_no_watch, ())


class _Enter(_Hook):
    """Forward pre-hook of the model."""

    def __call__(self, model: nn.Module, _: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.begin(model)


class _Step(_Hook):
    """Forward pre-hook of a module."""

    def __init__(self, watch: BranchWatch, name: str) -> None:
        super().__init__(watch)
        self._name = name

    def __call__(self, _: nn.Module, __: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.step(self._name)


class _Leave(_Hook):
    """Forward hook of the model, called also after an exception."""

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.end(model, args, kwargs, output)


def _no_watch() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
