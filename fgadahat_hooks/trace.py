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

from torch import Tensor, nn

from fgadahat_hooks.errors import HeadNotFoundError, UnreachedLayerError
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, layer_type_of
from fgadahat_hooks.tracing.forward import ExampleInputs, run_example, untouched
from fgadahat_hooks.tracing.mode import TaintMode, is_batch_norm
from fgadahat_hooks.tracing.recorder import LayerRecord, Recorder
from fgadahat_hooks.tracing.resolve import find_heads, resolve

__all__ = ["ExampleInputs", "TraceRequest", "gateable_layers", "trace"]


@dataclass(frozen=True)
class TraceRequest:
    """What to trace for.

    Attributes:
        targets: Names of the matched layers, heads possibly among them.
        named: Those of the targets that the user named exactly: they must be reached.
        heads: Names of the output layers; None to find them.
        after_norm: Whether a gate may act behind a BatchNorm.
    """

    targets: Sequence[str]
    heads: Sequence[str] | None = None
    after_norm: bool = True


def gateable_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerType]]:
    """Return every layer that a gate can act on, by name: of a known type, with a weight that is its own alone."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = {}
    for name, module in model.named_modules():
        kind = layer_type_of(module)
        weight = module._parameters.get("weight")
        if kind is not None and weight is not None and owners[id(weight)] == 1:
            found[name] = (module, kind)
    return found


def trace(model: nn.Module, example_inputs: ExampleInputs, request: TraceRequest) -> UnitGraph:
    """Return the unit graph of `model`, which is left as it was.

    Raises:
        TraceError: The forward raised.
        UnreachedLayerError: A target is not used by the forward.
        HeadNotFoundError: The output layers were to be found and none was.
    """
    layers = gateable_layers(model)
    recorder = Recorder(layers, set(request.targets))
    output = _run(model, example_inputs, recorder)
    heads = find_heads(recorder, output) if request.heads is None else list(request.heads)
    if request.heads is None and not heads:
        raise HeadNotFoundError(_no_head(recorder))
    gated = [name for name in request.targets if name not in heads]
    _check_reached(recorder, gated)
    return resolve(recorder, gated, heads, after_norm=request.after_norm)


def _run(model: nn.Module, example_inputs: ExampleInputs, recorder: Recorder) -> Any:
    """Run the forward under the mode, with hooks that tell it which module is running."""
    mode = TaintMode(recorder)
    with untouched(model), HookSet.temporary() as hooks:
        for name, module in model.named_modules():
            _follow(hooks, mode, name, module)
        with mode:
            output = run_example(model, example_inputs)
        for tensor in _tensors(output):
            recorder.returned(tensor)
        return output


def _tensors(output: Any) -> list[Tensor]:
    from fgadahat_hooks.tracing.forward import output_tensors

    return output_tensors(output)


def _follow(hooks: HookSet, mode: TaintMode, name: str, module: nn.Module) -> None:
    """Keep the mode's module stack, and label what the module puts out."""
    recorder = mode.recorder
    normed: list[LayerRecord | None] = []

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        mode.stack.append(name)
        if is_batch_norm(module):
            normed.append(recorder.normed(name, args[0] if args else None))
            if normed[-1] is not None:
                mode.norms.append(name)
            else:
                recorder.norm_feeds.setdefault(name, set()).add("")

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        mode.stack.pop()
        if is_batch_norm(module):
            record = normed.pop()
            if record is not None:
                mode.norms.pop()
                if isinstance(output, Tensor):
                    recorder.norm_produced(record, output)
        elif name in recorder.records and isinstance(output, Tensor):
            recorder.produced(recorder.records[name], output)
        else:
            for tensor in _tensors(output)[:1]:
                recorder.find_read_sites(name, tensor)

    hooks.forward_pre(module, enter, first=True)
    hooks.forward(module, leave, always=True)


def _check_reached(recorder: Recorder, gated: Sequence[str]) -> None:
    missing = [name for name in gated if not recorder.records[name].reached]
    if missing:
        names = ", ".join(f"'{n}'" for n in missing)
        raise UnreachedLayerError(
            f"The forward never used {names} on the example inputs in evaluation mode. A gate there would never act. "
            f"Add {'it' if len(missing) == 1 else 'them'} to gates.exclude, or pass example_inputs that reach "
            f"{'it' if len(missing) == 1 else 'them'}."
        )


def _no_head(recorder: Recorder) -> str:
    last = next((n for n in reversed(recorder.order)), None)
    hint = f" The last layer used was '{last}': if it gives the logits, set heads.names: ['{last}']." if last else ""
    return (
        "No Linear or Conv2d layer gives the model's output as it is, so the head cannot be told."
        f"{hint} For a model without a head, set heads.names: []."
    )
