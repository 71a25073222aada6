"""Notice forwards that take an execution path no trace has seen, and trace them before the next optimizer step.

The unit graph is valid for the forwards that were traced. A model that branches on its inputs may take another
execution path, on which other layers feed a layer. So a hook on each module compares which module runs after which with
the known paths, at the cost of one dict lookup. A new pair of modules costs one more trace, of the same batch in
evaluation mode, before an optimizer may change anything. Outputs of finished tasks are computed in that mode, so no
output that was ever computed can change.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import TraceError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.graph.trace import ExampleInputs, trace_again
from fgadahat_hooks.graph.tracing.execution_paths import START, KnownPaths, Next, Pair, path_modules
from fgadahat_hooks.graph.tracing.extend import assume_live
from fgadahat_hooks.graph.tracing.forward import ModelCall
from fgadahat_hooks.graph.tracing.input_maps import equal_input_maps
from fgadahat_hooks.graph.unit_graph import UnitGraph

_MAX_TRAINING_PATHS = 8
"""How many new paths that only training takes are traced; further ones, as of layer dropout, are ignored."""


@dataclass
class NewPath:
    """A forward that took an execution path that no trace has seen.

    Attributes:
        call: Its inputs.
        training: Whether the model was in training mode.
        pairs: The pairs of modules that were new.
        later: The modules that ran from the first new pair on.
    """

    call: ModelCall
    training: bool
    pairs: set[Pair]
    later: set[str]


class GraphListener(Protocol):
    """Whoever must know that the unit graph has changed."""

    def graph_changed(self) -> None:
        """React to the new graph."""
        ...


class BranchWatch:
    """Compares every forward of an attached model with those that were traced.

    Attributes:
        pending: New execution paths that have not been traced yet.
        grown: Whether the graph was extended after the first trace.
    """

    def __init__(self, attached: AttachedModel, listener: GraphListener) -> None:
        """Watch until the model's hooks are closed.

        Args:
            attached: The model; held weakly, since the model's hooks must not keep its session alive.
            listener: What is told when the graph has changed; held weakly, too.
        """
        self._attached = weakref.ref(attached)
        self._listener = weakref.ref(listener)
        self._known = {False: KnownPaths(), True: KnownPaths()}  # by whether the model is in training mode
        self._training_paths_left = _MAX_TRAINING_PATHS
        self._paused = False
        # of the forward that is running:
        self._new: set[Pair] = set()
        self._later: set[str] = set()
        self._visited: list[str] = []
        self._known_here = self._known[False]
        self._next: Next | None = None  # what known paths run next; None while no forward is compared
        self.pending: list[NewPath] = []
        self.grown = False
        self._learn(attached.graph.paths)
        self._learn(attached.graph.training_paths, training=True)
        attached.hooks.forward_pre(attached.model, _BeginForward(self), first=True)
        for name, module in path_modules(attached.model):
            attached.hooks.forward_pre(module, _RunModule(self, name))
        attached.hooks.forward(attached.model, _EndForward(self), always=True, kwargs=True)

    def _learn(self, pairs: Iterable[Pair], training: bool = False) -> None:
        """Add pairs of modules to the known paths; those of training are not known for evaluation."""
        for known in (self._known[True],) if training else self._known.values():
            known.add(pairs)

    # ---------------------------------------------------------------- one forward
    def begin(self, model: nn.Module) -> None:
        """Start comparing a forward of the model; one of a replica of it is ignored."""
        attached = self._attached()
        enough = model.training and not self._training_paths_left
        if self._paused or enough or attached is None or attached.model is not model:
            self._next = None
            return
        self._new, self._later, self._visited = set(), set(), []
        self._known_here = self._known[model.training]
        self._next = self._known_here.start

    def step(self, name: str) -> None:
        """Compare the module that runs now with those that known paths run next."""
        if self._next is None:
            return
        self._visited.append(name)
        following = self._next.get(name)
        self._next = self._leave_known_paths(name) if following is None else following
        if self._new:
            self._later.add(name)

    def _leave_known_paths(self, name: str) -> Next:
        """Record a new pair of modules; return what is known to run after this one."""
        *before, _ = self._visited
        last = (before[-1], before.count(before[-1])) if before else START
        stop = (name, self._visited.count(name))
        self._new.add((last, stop))
        return self._known_here.at(stop)

    def end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """End the forward; keep its inputs if its path was new, unless it raised."""
        compared, self._next = self._next is not None, None
        if not compared or not self._new or output is None:
            return
        inputs = (args, kwargs)
        if any(_is_abstract(leaf) for leaf in pytree.tree_leaves(inputs)):
            return  # a compiler or a transform traces the model, without values
        kept = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), inputs)
        self.pending.append(NewPath(ModelCall(*kept), model.training, self._new, self._later))
        self._learn(self._new, model.training)

    # ---------------------------------------------------------------- traces of new paths
    def retrace_pending(self) -> None:
        """Trace the new paths, and extend the unit graph to them."""
        attached = self._attached()
        paths, self.pending = self.pending, []
        if attached is None or attached.detached:
            return
        for path in paths:
            self.adopt(self._graph_with(attached, path))

    def trace(self, inputs: ExampleInputs) -> None:
        """Extend the unit graph to a further forward, in evaluation mode.

        Raises:
            TraceError: The forward raised.
        """
        attached = self._attached()
        if attached is not None:
            graph, pairs = self._traced(attached, inputs)
            self._learn(pairs)
            self.adopt(graph)

    def _graph_with(self, attached: AttachedModel, path: NewPath) -> UnitGraph:
        """Return a graph that is valid for a new path too.

        A path of training that evaluation does not take with the same inputs needs no protection: no output of a
        finished task is computed on it. A path of evaluation that is not taken again depends on more than the inputs:
        what it fed is assumed to be live.
        """
        try:
            graph, pairs = self._traced(attached, path.call)
        except TraceError:
            graph, pairs = attached.graph, set()
        self._learn(pairs)
        if path.pairs <= pairs:
            return graph
        if path.training:
            self._training_paths_left -= 1
            return graph
        self._learn(path.pairs)
        return assume_live(graph, path.later)

    def _traced(self, attached: AttachedModel, inputs: ExampleInputs) -> tuple[UnitGraph, set[Pair]]:
        self._paused = True
        try:
            with attached.gate_context.open_gates():
                return trace_again(attached.model, inputs, attached.graph)
        finally:
            self._paused = False

    def adopt(self, graph: UnitGraph) -> None:
        """Replace the model's graph, and report the change."""
        attached = self._attached()
        if attached is None or _equal_graphs(graph, attached.graph):
            return
        attached.graph, self.grown = graph, True
        listener = self._listener()
        if listener is not None:
            listener.graph_changed()


def _is_abstract(leaf: Any) -> bool:
    """Return whether a value is a tensor without values of its own: fake, on the meta device, or of a transform."""
    wrapped = isinstance(leaf, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(leaf)
    return isinstance(leaf, FakeTensor) or wrapped or (isinstance(leaf, Tensor) and leaf.is_meta)


def _equal_graphs(a: UnitGraph, b: UnitGraph) -> bool:
    same_layers = a.layers == b.layers and a.inputs.keys() == b.inputs.keys()
    return same_layers and all(equal_input_maps(inputs, b.inputs[name]) for name, inputs in a.inputs.items())


# ------------------------------------------------------------------ hooks
class _Hook:
    """A hook that belongs to one model; in a copy of the model it does nothing."""

    def __init__(self, watch: BranchWatch) -> None:
        self._watch = watch

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_unpickled, ())


class _BeginForward(_Hook):
    """Forward pre-hook of the model."""

    def __call__(self, model: nn.Module, _: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.begin(model)


class _RunModule(_Hook):
    """Forward pre-hook of a module."""

    def __init__(self, watch: BranchWatch, name: str) -> None:
        super().__init__(watch)
        self._name = name

    def __call__(self, _: nn.Module, __: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.step(self._name)


class _EndForward(_Hook):
    """Forward hook of the model, called also after an exception."""

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watch.end(model, args, kwargs, output)


def _unpickled() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
