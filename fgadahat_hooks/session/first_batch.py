"""Trace the first batch that reaches the model, where `attach` got no example inputs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.callbacks.lists import check_capabilities
from fgadahat_hooks.gates.sites import fold_enter
from fgadahat_hooks.graph.targets import Targets
from fgadahat_hooks.graph.trace import trace
from fgadahat_hooks.graph.tracing.forward import ModelCall
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.session.install import install
from fgadahat_hooks.tasks.sequence import TaskSequence


def trace_first_batch(sequence: TaskSequence, targets: Targets) -> None:
    """Install a hook that traces the model on its first batch."""
    hooks, model = sequence.attached.hooks, sequence.attached.model
    hooks.forward_pre(model, _FirstBatch(sequence, targets), first=True, kwargs=True)


class _FirstBatch:
    """Forward pre-hook of the model that acts once; copies and pickles of the model get one that does nothing."""

    def __init__(self, sequence: TaskSequence, targets: Targets) -> None:
        self._sequence = weakref.ref(sequence)
        self._targets = targets

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sequence = self._sequence()
        if sequence is None or sequence.attached.traced or sequence.attached.detached:
            return
        example = ModelCall(*_few_samples((args, kwargs)))
        graph = self._traced(sequence, example)
        install(sequence, graph, example)
        if any("" in layer.sites and layer.position == "weight" for layer in graph.layers.values()):
            fold_enter(model, ())  # installed too late for this forward, which has begun
        if sequence.running is not None:
            sequence.running.start_after_trace(args, kwargs)

    def _traced(self, sequence: TaskSequence, example: ModelCall) -> UnitGraph:
        attached = sequence.attached
        attached.traced = True  # the trace runs this hook too
        try:
            with attached.gate_context.open_gates():
                graph = trace(attached.model, example, self._targets.request(attached.spec))
                check_capabilities(sequence.callbacks, attached.model, graph, example)
        except BaseException:
            attached.traced = False
            raise
        return graph

    def __deepcopy__(self, memo: Any) -> _FirstBatch:
        return self

    def __reduce__(self) -> Any:
        return (_no_trace, ())


def _no_trace() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None


def _few_samples(tree: Any, keep: int = 2) -> Any:
    """Return the first few samples of a batch, to trace faster; all of it if its tensors differ in their first size."""
    leaves = [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in leaves}
    if len(sizes) != 1 or sizes.pop() <= keep:
        return pytree.tree_map_only(Tensor, lambda t: t.detach(), tree)
    return pytree.tree_map_only(Tensor, lambda t: t.detach()[:keep].clone(), tree)
