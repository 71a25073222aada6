"""Trace one example forward into a `UnitGraph`.

The forward really runs, once, in evaluation mode and without gradients, on the inputs given; beside every tensor runs
a tensor of labels that says which gated units can make each element non-zero (`tracing/`). Weights are recognised by
the parameter an operation uses, not by the module that was called, so layers whose weights are used functionally
(multi-head attention, Swin) are found too. What cannot be resolved counts as always live, which is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes

from fgadahat_hooks.errors import HeadNotFoundError, TraceError, UnreachedLayerError
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, layer_type_of
from fgadahat_hooks.tracing.custom import has_own_forward
from fgadahat_hooks.tracing.forward import ExampleInputs, output_tensors, own_copy, run_example, untouched
from fgadahat_hooks.tracing.geometry import is_plain, storage_key
from fgadahat_hooks.tracing.mode import TaintMode, is_batch_norm
from fgadahat_hooks.tracing.recorder import Recorder
from fgadahat_hooks.tracing.resolve import find_heads, resolve

__all__ = ["ExampleInputs", "TraceRequest", "gateable_layers", "trace"]


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
    """Return every layer of a known type, also one whose weight is tied; of those with one weight the first."""
    found, seen = {}, set()
    for name, module in model.named_modules():
        kind = None if isinstance(module, torch.jit.ScriptModule) else layer_type_of(module)
        if kind is None or not is_plain(module.get_parameter("weight")):
            continue
        key = storage_key(module.get_parameter("weight"))
        if key not in seen:
            found[name] = (module, kind)
        seen.add(key)
    return found


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
        UnreachedLayerError: A target is not used by the forward in a way that a gate could act on.
        HeadNotFoundError: The output layers were to be found and none was.
    """
    _check_shaped(model)
    recorder = Recorder(_known_layers(model), set(request.targets))
    found = _run(model, example_inputs, recorder)
    heads = found if request.heads is None else list(request.heads)
    if request.heads is None and not heads:
        raise HeadNotFoundError(_no_head(recorder))
    gated = [name for name in request.targets if name not in heads]
    _check_reached(recorder, gated)
    return resolve(recorder, gated, heads, after_norm=request.after_norm)


def _check_shaped(model: nn.Module) -> None:
    lazy = ", ".join(f"'{name}'" for name, p in model.named_parameters() if is_lazy(p))
    if lazy:
        raise TraceError(f"The lazy parameters {lazy} have no shape yet. Run one batch through the model first.")


def _run(model: nn.Module, example_inputs: ExampleInputs, recorder: Recorder) -> list[str]:
    """Run the forward under the mode, with hooks that tell it which module is running; return the heads.

    A tensor of the forward that something still holds after it may come back in the next forward, as what another
    task made of it (a cache, a recurrent state): then the forward runs once more with all such tensors live.
    """
    mode = TaintMode(model, recorder)
    torch.clear_autocast_cache()
    with untouched(model), HookSet.temporary() as hooks:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # they take no hooks
                _follow(hooks, mode, name, module)
        heads = _forward(mode, model, example_inputs)
        if recorder.store.alive():
            recorder.store.forget(recorder.store.alive())
            recorder.begin_again()
            _forward(mode, model, example_inputs)
    torch.clear_autocast_cache()
    return heads


def _forward(mode: TaintMode, model: nn.Module, example_inputs: ExampleInputs) -> list[str]:
    inputs = own_copy(example_inputs)
    with mode:
        output = run_example(model, inputs)
    outputs = [t for t in output_tensors(output) if is_plain(t)]
    for tensor in outputs:
        mode.recorder.read(tensor, None)
    return find_heads(mode.recorder, outputs)


def _follow(hooks: HookSet, mode: TaintMode, name: str, module: nn.Module) -> None:
    """Keep the mode's module stack, and label what the module puts out.

    The hooks run where those of a gate would: after the user's own before the forward, before them after it.
    """
    recorder = mode.recorder
    record = recorder.records.get(name)
    custom = record is not None and has_own_forward(module, record.kind.module_class)

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


def _check_reached(recorder: Recorder, gated: Sequence[str]) -> None:
    missing = [name for name in gated if not recorder.records[name].reached]
    if not missing:
        return
    names, it = ", ".join(f"'{n}'" for n in missing), "it" if len(missing) == 1 else "them"
    odd = [r.odd_output for n in missing if (r := recorder.records[n]).odd_output]
    mixed = [f"the weight of '{n}' is used only after it was transformed" for n in missing if recorder.records[n].whole]
    why = f" ({'; '.join(odd or mixed)})" if odd or mixed else ""
    raise UnreachedLayerError(
        f"The forward never used {names} on the example inputs in evaluation mode in a way that a gate could act on"
        f"{why}. Add {it} to gates.exclude, or pass example_inputs that reach {it}."
    )


def _no_head(recorder: Recorder) -> str:
    last = next((n for n in reversed(recorder.order)), None)
    hint = f" The last layer used was '{last}': if it gives the logits, set heads.names: ['{last}']." if last else ""
    return (
        "No Linear or Conv2d layer gives the model's output as it is, so the head cannot be told."
        f"{hint} For a model without a head, set heads.names: []."
    )
