"""Install gates on a model: check everything first, then change the model; undo all changes if one fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from fgadahat_hooks.callbacks import Callback
from fgadahat_hooks.callbacks.lists import callback_list, check_capabilities, describe
from fgadahat_hooks.distributed.wrappers import refuse_wrapped
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.install import add_gates, refuse_gated
from fgadahat_hooks.graph.targets import find_targets
from fgadahat_hooks.graph.trace import ExampleInputs, trace
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.protection.guard import OptimizerGuard
from fgadahat_hooks.protection.load_watch import watch_loading
from fgadahat_hooks.session.first_batch import trace_first_batch
from fgadahat_hooks.session.install import install
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import to_spec
from fgadahat_hooks.tasks.sequence import TaskSequence


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
        callbacks: What acts at the events of a task; those that the spec asks for when left out.

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
        raise BadCallError(f"Expected `model` to be a torch.nn.Module, but got {describe(model)}.")
    refuse_wrapped(model)
    spec = to_spec({} if spec is None else spec)
    refuse_gated(model)
    targets = find_targets(model, spec)
    listed = callback_list(spec, callbacks)
    graph = None if example_inputs is None else trace(model, example_inputs, targets.request(spec))
    if graph is not None and example_inputs is not None:
        check_capabilities(listed, model, graph, example_inputs)
    hooks = HookSet()
    try:
        gated = targets.names if graph is None else list(graph.layers)
        sequence = TaskSequence(add_gates(model, spec, gated, hooks), listed)
        if graph is not None:
            install(sequence, graph, example_inputs)
        else:
            trace_first_batch(sequence, targets)
        OptimizerGuard(sequence)
        watch_loading(sequence)
        return Session(sequence)
    except BaseException:
        hooks.close()
        raise
