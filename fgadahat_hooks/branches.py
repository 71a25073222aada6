"""Forwards that take a way through the model that no trace has seen: noticed as they run, traced before the next step.

What the unit graph says of a layer's inputs is true of the forwards that were traced. Where the model chooses its way
by its inputs, another way may feed a layer from elsewhere. So a hook on each module compares what runs after what with
what is known. That costs a look into a set; a new pair costs one more trace, of that very batch in evaluation mode,
before an optimizer may move anything: what a finished task puts out is computed in that mode, and no output that was
ever computed can change then.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import TraceError
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.trace import ExampleInputs, trace_again
from fgadahat_hooks.tracing.extend import distrusted, same
from fgadahat_hooks.tracing.forward import Call
from fgadahat_hooks.tracing.walk import START, Map, Next, Pair, steps

_PATIENCE = 8
"""After how many new ways of training that evaluation does not take no further ones are looked at (layer dropout)."""


@dataclass
class Way:
    """A forward that took a new way.

    Attributes:
        call: Its inputs.
        training: Whether the model was in training mode.
        pairs: What was new.
        later: The modules that ran from the first new pair on.
    """

    call: Call
    training: bool
    pairs: set[Pair]
    later: set[str]


class BranchWatch:
    """Compares every forward of an attached model with those that were traced.

    Attributes:
        ways: New ways that have not been traced yet.
        grown: Whether the graph is no longer that of the first trace.
    """

    def __init__(self, runtime: Runtime) -> None:
        """Watch until the runtime's hooks are closed."""
        self._runtime = weakref.ref(runtime)
        self._known = {False: Map(), True: Map()}  # by whether the model is in training mode
        self._patience = _PATIENCE
        self._paused = False
        self._new: set[Pair] = set()
        self._later: set[str] = set()
        self._trail: list[str] = []
        self._here = self._known[False]
        self._next: Next | None = None
        self.ways: list[Way] = []
        self.grown = False
        self._learn(runtime.graph.paths)
        self._learn(runtime.graph.training_paths, training=True)
        runtime.hooks.forward_pre(runtime.model, _Enter(self), first=True)
        for name, module in steps(runtime.model):
            runtime.hooks.forward_pre(module, _Step(self, name))
        runtime.hooks.forward(runtime.model, _Leave(self), always=True, kwargs=True)

    def _learn(self, pairs: Iterable[Pair], training: bool = False) -> None:
        """Take pairs of modules for known; those of training alone say nothing of evaluation."""
        for known in (self._known[True],) if training else self._known.values():
            known.add(pairs)

    # ---------------------------------------------------------------- one forward
    def begin(self, model: nn.Module) -> None:
        """Note that a forward of the model begins; one of a replica of it is not looked at."""
        runtime = self._runtime()
        impatient = model.training and not self._patience
        if self._paused or impatient or runtime is None or runtime.model is not model:
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
        """Leave the known ways; return what is known from this stop on."""
        *before, _ = self._trail
        last = (before[-1], before.count(before[-1])) if before else START
        stop = (name, self._trail.count(name))
        self._new.add((last, stop))
        return self._here.at(stop)

    def end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note that the forward has ended; keep its inputs if it went a new way, unless it raised."""
        watched, self._next = self._next is not None, None
        if not watched or not self._new or output is None:
            return
        inputs = (args, kwargs)
        if any(_is_abstract(leaf) for leaf in pytree.tree_leaves(inputs)):
            return  # a compiler or a transform looks at the model, and asks for no numbers
        kept = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), inputs)
        self.ways.append(Way(Call(*kept), model.training, self._new, self._later))
        self._learn(self._new, model.training)

    # ---------------------------------------------------------------- afterwards
    def settle(self) -> None:
        """Trace the new ways, and let the unit graph hold for them too."""
        runtime = self._runtime()
        ways, self.ways = self.ways, []
        if runtime is None or runtime.detached:
            return
        for way in ways:
            self.adopt(self._explored(runtime, way))

    def trace(self, inputs: ExampleInputs) -> None:
        """Let the unit graph hold for a further forward, in evaluation mode.

        Raises:
            TraceError: The forward raised.
        """
        runtime = self._runtime()
        if runtime is not None:
            graph, pairs = self._traced(runtime, inputs)
            self._learn(pairs)
            self.adopt(graph)

    def _explored(self, runtime: Runtime, way: Way) -> UnitGraph:
        """Return a graph that holds for a new way.

        One that evaluation does not take with these inputs is of training alone, where nothing has to keep its bits.
        One that evaluation took and does not take again depends on more than inputs: nothing is promised of it.
        """
        try:
            graph, pairs = self._traced(runtime, way.call)
        except TraceError:
            graph, pairs = runtime.graph, set()
        self._learn(pairs)
        if way.pairs <= pairs:
            return graph
        if way.training:
            self._patience -= 1
            return graph
        self._learn(way.pairs)
        return distrusted(graph, way.later)

    def _traced(self, runtime: Runtime, inputs: ExampleInputs) -> tuple[UnitGraph, set[Pair]]:
        self._paused = True
        try:
            with runtime.gate_context.opened():
                return trace_again(runtime.model, inputs, runtime.graph)
        finally:
            self._paused = False

    def adopt(self, graph: UnitGraph) -> None:
        """Put a graph in place of the one there was, for a running task too."""
        runtime = self._runtime()
        if runtime is None or _alike(graph, runtime.graph):
            return
        runtime.graph, self.grown = graph, True
        if runtime.task is not None:
            context = runtime.task.context()
            context.graph, context.layers, context.readers = graph, runtime.layers(), runtime.readers()
            runtime.callbacks.call("on_graph_change", context)


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
    """Belongs to one model; in a copy of it, there is nothing to watch."""

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
