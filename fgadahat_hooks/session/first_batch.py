"""Without example inputs: the first batch that reaches the model is traced."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.callbacks.lists import check_capabilities
from fgadahat_hooks.gates.sites import fold_enter
from fgadahat_hooks.graph.targets import Targets
from fgadahat_hooks.graph.trace import trace
from fgadahat_hooks.graph.tracing.forward import Call
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.session.install import install
from fgadahat_hooks.tasks.sequence import TaskSequence


def trace_first_batch(sequence: TaskSequence, targets: Targets) -> None:
    """Trace the model on its first batch, whenever that comes."""
    hooks, model = sequence.attached.hooks, sequence.attached.model
    hooks.forward_pre(model, _FirstBatch(sequence, targets), first=True, kwargs=True)


class _FirstBatch:
    """Forward pre-hook of the model that acts once."""

    def __init__(self, sequence: TaskSequence, targets: Targets) -> None:
        self._sequence = weakref.ref(sequence)
        self._targets = targets

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sequence = self._sequence()
        if sequence is None or sequence.attached.traced or sequence.attached.detached:
            return
        example = Call(*_few_samples((args, kwargs)))
        graph = self._traced(sequence, example)
        install(sequence, graph, example)
        if any("" in layer.sites and layer.position == "weight" for layer in graph.layers.values()):
            fold_enter(model, ())  # its own hook comes too late: the model's forward has begun
        if sequence.running is not None:
            sequence.running.start_late()

    def _traced(self, sequence: TaskSequence, example: Call) -> UnitGraph:
        attached = sequence.attached
        attached.traced = True  # the trace runs this hook too
        try:
            with attached.gate_context.opened():
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
    """Cut a batch to a few samples where all its tensors agree on how many there are, to trace in less time."""
    leaves = [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in leaves}
    if len(sizes) != 1 or sizes.pop() <= keep:
        return pytree.tree_map_only(Tensor, lambda t: t.detach(), tree)
    return pytree.tree_map_only(Tensor, lambda t: t.detach()[:keep].clone(), tree)
