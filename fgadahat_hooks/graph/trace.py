"""Trace one example forward into a `UnitGraph`.

The forward really runs, in evaluation mode and without gradients, on the inputs given; where that leaves layers unused,
it runs once more in training mode, for auxiliary heads that only training has. Beside every tensor runs a tensor of
labels that says which gated units can make each element non-zero (`tracing/`). Weights are recognised by the parameter
an operation uses, not by the module that was called, so layers whose weights are used functionally (multi-head
attention, Swin) are found too. What cannot be resolved counts as always live, which is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes

from fgadahat_hooks.errors import HeadNotFoundError, NoMatchError, TraceError, UnreachedLayerError
from fgadahat_hooks.graph.tracing.custom import has_own_forward
from fgadahat_hooks.graph.tracing.execution_paths import Pair, PathRecorder, path_modules
from fgadahat_hooks.graph.tracing.extend import extended
from fgadahat_hooks.graph.tracing.forward import ExampleInputs, output_tensors, own_copy, run_example, untouched
from fgadahat_hooks.graph.tracing.geometry import is_plain, storage_key
from fgadahat_hooks.graph.tracing.mode import TaintMode, is_batch_norm
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.regating import norm_channels
from fgadahat_hooks.graph.tracing.resolve import find_heads, resolve
from fgadahat_hooks.graph.tracing.training import in_training, keeping_evaluation, unused
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, layer_type_of
from fgadahat_hooks.progress import Bar, progress

__all__ = ["ExampleInputs", "TraceRequest", "gateable_layers", "trace", "trace_again"]


@dataclass(frozen=True)
class TraceRequest:
    """What to trace for.

    Attributes:
        targets: Names of the matched layers, heads possibly among them.
        heads: Names of the output layers; None to find them.
        after_norm: Whether a gate may act behind a BatchNorm.
    """

    targets: Sequence[str]
    heads: Sequence[str] | None = None
    after_norm: bool = True


def gateable_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerType]]:
    """Return every layer that a gate can act on, by name: of a known type, with memory that is its own alone."""
    owners = _owners(model)
    return {
        name: (module, kind)
        for name, (module, kind) in _known_layers(model).items()
        if all(owners[storage_key(p)] == 1 for p in module._parameters.values() if p is not None)
    }


def _known_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerType]]:
    """Return every layer of a known type, also one whose weight is tied.

    Of those with one weight the first, but a table of words only if nothing else has its weight: with a head's, it is
    the head that counts.
    """
    found, seen = {}, set()
    for name, module in sorted(model.named_modules(), key=lambda named: _is_table(named[1])):
        kind = None if isinstance(module, torch.jit.ScriptModule) else layer_type_of(module)
        if kind is None or not is_plain(module.get_parameter("weight")):
            continue
        key = storage_key(module.get_parameter("weight"))
        if key not in seen:
            found[name] = (module, kind)
        seen.add(key)
    return found


def _is_table(module: nn.Module) -> bool:
    """Return whether a layer reads numbers, not features: no head, and of no interest unless it gets a gate."""
    kind = None if isinstance(module, torch.jit.ScriptModule) else layer_type_of(module)
    return kind is not None and kind.inputs(module) == 0


def _owners(model: nn.Module) -> dict[int, int]:
    """Count by how many names of modules each storage of parameters is used."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and not is_lazy(parameter) and is_plain(parameter):
                owners[storage_key(parameter)] = owners.get(storage_key(parameter), 0) + 1
    return owners


def trace(model: nn.Module, example_inputs: ExampleInputs, request: TraceRequest) -> UnitGraph:
    """Return the unit graph of `model`, which is left as it was.

    Raises:
        TraceError: The forward raised, or a lazy layer has no shape yet.
        NoMatchError: All targets are heads.
        UnreachedLayerError: A target is not used by the forward in a way that a gate could act on.
        HeadNotFoundError: The output layers were to be found and none was.
    """
    _check_shaped(model)
    recorder = _recorder(model, set(request.targets))
    found, auxiliary = _run(model, example_inputs, recorder)
    heads = found if request.heads is None else list(request.heads)
    if request.heads is None and not heads:
        raise HeadNotFoundError(_no_head(recorder))
    gated = [name for name in request.targets if name not in heads]
    _check_some(gated, heads)
    _check_reached(recorder, gated)
    graph = resolve(recorder, gated, heads, after_norm=request.after_norm)
    tail = tuple(name for name in heads if name in auxiliary)
    paths = recorder.paths
    return replace(graph, auxiliary=tail, paths=frozenset(paths.pairs), training_paths=frozenset(paths.training))


def trace_again(model: nn.Module, inputs: ExampleInputs, graph: UnitGraph) -> tuple[UnitGraph, set[Pair]]:
    """Return a graph that holds for a further forward too, in evaluation mode, and the way that this forward took.

    Args:
        model: The model, its gates open.
        inputs: As for `trace`.
        graph: What is known; where gates act stays as it is.

    Raises:
        TraceError: The forward raised.
    """
    recorder = _recorder(model, set(graph.layers))
    _run(model, inputs, recorder, training=False)
    return extended(graph, recorder), recorder.paths.pairs


def _recorder(model: nn.Module, targets: set[str]) -> Recorder:
    known = {n: (m, k) for n, (m, k) in _known_layers(model).items() if n in targets or not _is_table(m)}
    return Recorder(known, targets, norm_channels(model))


def _check_shaped(model: nn.Module) -> None:
    lazy = ", ".join(f"'{name}'" for name, p in model.named_parameters() if is_lazy(p))
    if lazy:
        raise TraceError(f"The lazy parameters {lazy} have no shape yet. Run one batch through the model first.")


def _run(
    model: nn.Module, example_inputs: ExampleInputs, recorder: Recorder, training: bool = True
) -> tuple[list[str], list[str]]:
    """Run the forward under the mode, with hooks that tell it which module is running; return heads and auxiliary ones.

    A tensor of the forward that something still holds after it may come back in the next forward, as what another
    task made of it (a cache, a recurrent state): then the forward runs once more with all such tensors live.
    """
    mode = TaintMode(model, recorder)
    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    label = f"tracing {type(model).__name__}"
    torch.clear_autocast_cache()
    with untouched(model), HookSet.temporary() as hooks, progress(label, len(leaves)) as bar:
        _count(hooks, bar, leaves)
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # they take no hooks
                _follow(hooks, mode, name, module)
        for name, module in path_modules(model):
            hooks.forward_pre(module, partial(_step, recorder.paths, name))
        heads = _forward(mode, model, example_inputs)
        left = unused(recorder) if training else []
        if left:
            bar.restart(f"{label} in training mode")
        more = _forward_in_training(mode, model, example_inputs) if left else []
        if recorder.store.alive():
            recorder.store.forget(recorder.store.alive())
            recorder.begin_again()
            bar.restart(f"{label} once more")
            _forward(mode, model, example_inputs)
            _ = _forward_in_training(mode, model, example_inputs) if left else []
    torch.clear_autocast_cache()
    auxiliary = [name for name in left if recorder.records[name].reached]
    return [*heads, *(name for name in more if name in auxiliary)], auxiliary


def _forward(mode: TaintMode, model: nn.Module, example_inputs: ExampleInputs) -> list[str]:
    inputs = own_copy(example_inputs)
    mode.recorder.paths.begin(model.training)
    with mode:
        output = run_example(model, inputs)
    outputs = [t for t in output_tensors(output) if is_plain(t)]
    for tensor in outputs:
        mode.recorder.read(tensor, None)
    return find_heads(mode.recorder, outputs)


def _forward_in_training(mode: TaintMode, model: nn.Module, example_inputs: ExampleInputs) -> list[str]:
    """Return the heads of a forward in training mode; none if it cannot run on inputs for evaluation."""
    mode.stack.clear()
    with in_training(model), keeping_evaluation(mode.recorder), suppress(TraceError):
        return _forward(mode, model, example_inputs)
    return []


def _count(hooks: HookSet, bar: Bar, leaves: Sequence[nn.Module]) -> None:
    """Let a bar that is seen count the modules that have run."""

    def ran(*_: Any) -> None:
        bar.advance()

    for module in leaves if bar.visible else ():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks.forward(module, ran)


def _step(paths: PathRecorder, name: str, *_: Any) -> None:
    """Forward pre-hook."""
    paths.step(name)


def _follow(hooks: HookSet, mode: TaintMode, name: str, module: nn.Module) -> None:
    """Keep the mode's module stack, and label what the module puts out.

    The hooks run where those of a gate would: after the user's own before the forward, before them after it.
    """
    recorder = mode.recorder
    record = recorder.records.get(name)
    custom = record is not None and has_own_forward(module, record.kind.own_class(module))

    def enter(_: nn.Module, __: tuple[Any, ...]) -> None:
        mode.stack.append(name)
        if custom and record is not None:
            mode.custom.enter(record)

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not mode.stack or mode.stack[-1] != name:
            return None
        mode.stack.pop()
        with _disable_current_modes():
            if record is not None:
                output = mode.custom.leave(record, output) if custom else output
                recorder.produced(record, output)
            elif is_batch_norm(module):
                recorder.norm_returned(name, output)
            else:
                for tensor in output_tensors(output)[:1]:
                    recorder.find_read_sites(name, tensor)
        return output if custom else None

    hooks.forward_pre(module, enter)
    hooks.forward(module, leave, always=True, first=True)


def _check_some(gated: Sequence[str], heads: Sequence[str]) -> None:
    if not gated:
        raise NoMatchError(
            f"Expected a layer to gate, but all that gates.targets matches is a head: {', '.join(map(repr, heads))}. "
            "Gates stand before the head: name layers there in gates.targets, or the output layer in heads.names."
        )


def _check_reached(recorder: Recorder, gated: Sequence[str]) -> None:
    missing = [name for name in gated if not recorder.records[name].reached]
    if not missing:
        return
    names, it = ", ".join(f"'{n}'" for n in missing), "it" if len(missing) == 1 else "them"
    odd = [r.odd_output for n in missing if (r := recorder.records[n]).odd_output]
    mixed = [f"the weight of '{n}' is used only after it was transformed" for n in missing if recorder.records[n].whole]
    why = f" ({'; '.join(odd or mixed)})" if odd or mixed else ""
    raise UnreachedLayerError(
        f"The forward never used {names} on the example inputs, in evaluation or training mode, in a way that a gate "
        f"could act on{why}. Add {it} to gates.exclude, or pass example_inputs that reach {it}."
    )


def _no_head(recorder: Recorder) -> str:
    last = next((n for n in reversed(recorder.order)), None)
    hint = f" The last layer used was '{last}': if it gives the logits, set heads.names: ['{last}']." if last else ""
    return (
        "No layer of a known type gives the model's output as it is, so the head cannot be told."
        f"{hint} For a model without a head, set heads.names: []."
    )
