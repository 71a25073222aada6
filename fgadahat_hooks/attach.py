"""Install gates on a model: check everything first, then change it, take all back if that fails."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.branches import BranchWatch
from fgadahat_hooks.callback_lists import check_capabilities, checked, default_callbacks, said
from fgadahat_hooks.callbacks import Callback, CallbackList
from fgadahat_hooks.errors import AlreadyAttachedError, BadCallError
from fgadahat_hooks.frozen_norm import freeze_norms
from fgadahat_hooks.gate import GATE, Gate, GateContext
from fgadahat_hooks.gate_sites import JointGate, fold_enter, install_fold, install_norm, install_output
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.guard import OptimizerGuard
from fgadahat_hooks.heads import count_outputs, size_on_load
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.policy import classify
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.session import Session
from fgadahat_hooks.spec import AttachSpec, to_spec
from fgadahat_hooks.targets import Targets, find_targets
from fgadahat_hooks.task_tensors import TaskTensors
from fgadahat_hooks.trace import ExampleInputs, gateable_layers, trace
from fgadahat_hooks.tracing.forward import Call
from fgadahat_hooks.wrappers import refuse_wrapped


def attach(
    model: nn.Module,
    spec: Any = None,
    example_inputs: ExampleInputs | None = None,
    callbacks: Iterable[Callback] | None = None,
) -> Session:
    """Install Hard-Attention-to-the-Task gates on a model, in place, by hooks.

    The model keeps its class, its forward and its `state_dict` keys; each gated layer gets one child module with the
    task embedding. Attach before the optimizer is built and before DDP or `prepare`.

    Args:
        model: Any module. Layers are found by name (`gates.targets` in the spec).
        spec: An `AttachSpec` or a dict; all defaults when left out. `load_spec` reads a file.
        example_inputs: What to trace the model with: a tensor, a tuple of positional arguments, a dict of keyword
            arguments, or a function that takes the model and calls it. When left out, the first batch is traced.
        callbacks: What acts at the events of a task; the list that the spec asks for when left out.

    Returns:
        The session, through which everything else is done.

    Raises:
        SpecError: The spec is not valid; all problems at once.
        MatchError: Names in the spec do not fit the model.
        AlreadyAttachedError: The model carries gates already.
        TraceError: The forward raised on the example inputs.
        CapabilityError: The measure cannot be computed on this model.

    Example:
        >>> import torch, fgadahat_hooks as fh
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> session = fh.attach(model, {"adjustment": {"mode": "hat"}}, torch.randn(1, 4))
        >>> session.graph.heads
        ('2',)
    """
    if not isinstance(model, nn.Module):
        raise BadCallError(f"Expected `model` to be a torch.nn.Module, but got {said(model)}.")
    refuse_wrapped(model)
    spec = to_spec({} if spec is None else spec)
    _check_free(model)
    targets = find_targets(model, spec)
    listed = CallbackList(default_callbacks(spec) if callbacks is None else checked(callbacks))
    graph = None if example_inputs is None else trace(model, example_inputs, targets.request(spec))
    if graph is not None and example_inputs is not None:
        check_capabilities(listed, model, graph, example_inputs)
    hooks = HookSet()
    try:
        return _install(model, spec, targets, listed, graph, example_inputs, hooks)
    except BaseException:
        hooks.close()
        raise


def _check_free(model: nn.Module) -> None:
    gated = [name for name, module in model.named_modules() if isinstance(module, Gate)]
    if gated:
        raise AlreadyAttachedError(
            f"The model carries gates already ({len(gated)}, first '{gated[0]}'). Call `session.detach()` on its "
            "session before attaching again; a copy of an attached model cannot be attached either."
        )


# ------------------------------------------------------------------ installation
def _install(
    model: nn.Module,
    spec: AttachSpec,
    targets: Targets,
    callbacks: CallbackList,
    graph: UnitGraph | None,
    example_inputs: ExampleInputs | None,
    hooks: HookSet,
) -> Session:
    context = GateContext(spec.gates.s_max, spec.gates.clamp_threshold)
    layers = gateable_layers(model)
    gated = targets.names if graph is None else list(graph.layers)
    gates = {}
    for name in gated:
        module, kind = layers[name]
        gates[name] = Gate(name, module.get_parameter("weight"), kind.units(module), kind.unit_axis, context)
        gates[name].train(module.training)
        hooks.child(module, GATE, gates[name])
    runtime = Runtime(model, spec, gates, context, callbacks, hooks)
    if graph is not None:
        finish(runtime, graph, example_inputs)
    else:
        _trace_first_batch(runtime, targets)
    OptimizerGuard(runtime)
    return Session(runtime)


def finish(runtime: Runtime, graph: UnitGraph, example_inputs: Any) -> None:
    """Put gates to work where the trace says they must act, and classify every tensor."""
    model = runtime.model
    rows: dict[str, list[tuple[nn.Module, Gate]]] = {}
    for name, layer in graph.layers.items():
        for site in layer.sites:
            module, gate = model.get_submodule(site), runtime.gates[name]
            if layer.position == "output":
                install_output(runtime.hooks, module)
            elif layer.position == "after_norm":
                install_norm(runtime.hooks, module, gate)
            else:
                rows.setdefault(site, []).append((model.get_submodule(name), gate))
    for site, folds in rows.items():
        install_fold(runtime.hooks, model.get_submodule(site), folds)
    gates = [runtime.gates[name] for name in graph.layers]
    for name, channels in graph.regates.items():
        install_norm(runtime.hooks, model.get_submodule(name), JointGate(gates, channels))
    sites = [*(name for layer in graph.layers.values() for name in layer.sites), *graph.regates]
    runtime.placed = {name: model.get_submodule(name) for name in [*graph.layers, *sites]}
    runtime.graph = graph
    runtime.gates = {name: runtime.gates[name] for name in graph.layers}
    runtime.gate_context.gates = list(runtime.gates.values())
    runtime.example_inputs = example_inputs
    runtime.policies = classify(model, graph, runtime.spec)
    per_task = [p.name for p in runtime.policies if p.protection == "per_task"]
    runtime.tensors = TaskTensors(model, per_task)
    norms = [p.name for p in runtime.policies if p.protection == "per_task" and p.role == "norm"]
    runtime.initial = TaskTensors(model, norms).copy()
    runtime.tied = _tied(model, graph.heads)
    runtime.num_classes = count_outputs(model, graph.heads, graph.auxiliary)
    runtime.traced = True
    runtime.branches = BranchWatch(runtime)
    size_on_load(runtime)
    if runtime.spec.norms == "freeze":
        freeze_norms(runtime)


def _tied(model: nn.Module, heads: tuple[str, ...]) -> set[int]:
    inside = {id(m) for head in heads for m in model.get_submodule(head).modules()}
    outside = {id(p) for m in model.modules() if id(m) not in inside for p in m._parameters.values() if p is not None}
    return outside & {id(p) for head in heads for p in model.get_submodule(head).parameters()}


# ------------------------------------------------------------------ without example inputs
class _FirstBatch:
    """Traces the first batch that reaches the model, then steps aside."""

    def __init__(self, runtime: Runtime, targets: Targets) -> None:
        self._runtime = weakref.ref(runtime)
        self._targets = targets

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        runtime = self._runtime()
        if runtime is None or runtime.traced or runtime.detached:
            return
        example = _few_samples((args, kwargs))
        runtime.traced = True
        mode, runtime.gate_context.mode = runtime.gate_context.mode, type(runtime.gate_context.mode).OPEN
        try:
            inputs = Call(*example)
            graph = trace(model, inputs, self._targets.request(runtime.spec))
            check_capabilities(runtime.callbacks, model, graph, inputs)
        except BaseException:
            runtime.traced = False
            raise
        finally:
            runtime.gate_context.mode = mode
        self._settle(runtime, graph, example)

    def _settle(self, runtime: Runtime, graph: UnitGraph, example: Any) -> None:
        for name in [n for n in runtime.gates if n not in graph.layers]:
            runtime.gates.pop(name)
            runtime.model.get_submodule(name)._modules.pop(GATE, None)
        finish(runtime, graph, Call(*example))
        if any("" in layer.sites and layer.position == "weight" for layer in graph.layers.values()):
            fold_enter(runtime.model, ())  # its own hook comes too late: the model's forward has begun
        if runtime.task is not None:
            runtime.task.start_late()

    def __deepcopy__(self, memo: Any) -> _FirstBatch:
        return self

    def __reduce__(self) -> Any:
        return (_no_trace, ())


def _no_trace() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None


def _trace_first_batch(runtime: Runtime, targets: Targets) -> None:
    runtime.hooks.forward_pre(runtime.model, _FirstBatch(runtime, targets), first=True, kwargs=True)


def _few_samples(tree: Any, keep: int = 2) -> Any:
    """Cut a batch to a few samples where all its tensors agree on how many there are, to trace in less time."""
    leaves = [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in leaves}
    if len(sizes) != 1 or sizes.pop() <= keep:
        return pytree.tree_map_only(Tensor, lambda t: t.detach(), tree)
    return pytree.tree_map_only(Tensor, lambda t: t.detach()[:keep].clone(), tree)
