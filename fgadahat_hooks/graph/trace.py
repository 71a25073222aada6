"""Trace an example forward of a model into its `UnitGraph`.

The forward really runs, in evaluation mode and without gradients, on the inputs given. If that leaves layers unused, it
runs once more in training mode, for auxiliary heads that only training has. Each tensor is accompanied by a tensor of
labels, which gives for each element the gated units that can make it non-zero (see `tracing/`). A layer is recognised
by the weight that an operation uses, not by the module that was called, so layers whose weights are used functionally
(multi-head attention, Swin) are found too. What cannot be resolved counts as always live, which is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.errors import HeadNotFoundError, NoMatchError, TraceError, UnreachedLayerError
from fgadahat_hooks.graph.gateable import is_embedding, known_layers
from fgadahat_hooks.graph.tracing.build_graph import build_unit_graph
from fgadahat_hooks.graph.tracing.execution_paths import Pair
from fgadahat_hooks.graph.tracing.extend import extend_graph
from fgadahat_hooks.graph.tracing.forward import ExampleInputs
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.regated_norms import norm_channels
from fgadahat_hooks.graph.tracing.run import record_forwards
from fgadahat_hooks.graph.unit_graph import UnitGraph

__all__ = ["ExampleInputs", "TraceRequest", "trace", "trace_again"]


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


def trace(model: nn.Module, example_inputs: ExampleInputs, request: TraceRequest) -> UnitGraph:
    """Return the unit graph of `model`, which is left as it was.

    Raises:
        TraceError: The forward raised, or a lazy layer has no shape yet.
        NoMatchError: All targets are heads.
        UnreachedLayerError: A target is not used by the forward in a way that a gate could act on.
        HeadNotFoundError: `request.heads` is None and no output layer was found.
    """
    _check_no_lazy_parameters(model)
    recorder = _new_recorder(model, set(request.targets))
    found = record_forwards(model, example_inputs, recorder)
    heads = _check_heads_found(found.heads, recorder) if request.heads is None else list(request.heads)
    gated = [name for name in request.targets if name not in heads]
    _check_any_gated(gated, heads)
    _check_reached(recorder, gated)
    graph = build_unit_graph(recorder, gated, heads, after_norm=request.after_norm)
    return replace(
        graph,
        auxiliary=tuple(name for name in heads if name in found.auxiliary),
        paths=frozenset(recorder.paths.pairs),
        training_paths=frozenset(recorder.paths.training),
    )


def trace_again(model: nn.Module, inputs: ExampleInputs, graph: UnitGraph) -> tuple[UnitGraph, set[Pair]]:
    """Trace a further forward; return a graph that holds for it too, and the execution path that it took.

    Args:
        model: The model, its gates open; it runs in evaluation mode.
        inputs: As for `trace`.
        graph: The graph so far; where its gates act does not change.

    Raises:
        TraceError: The forward raised.
    """
    recorder = _new_recorder(model, set(graph.layers))
    record_forwards(model, inputs, recorder, training=False)
    return extend_graph(graph, recorder), recorder.paths.pairs


def _new_recorder(model: nn.Module, targets: set[str]) -> Recorder:
    layers = {n: (m, kind) for n, (m, kind) in known_layers(model).items() if n in targets or not is_embedding(m)}
    return Recorder(layers, targets, norm_channels(model))


# ------------------------------------------------------------------ checks
def _check_no_lazy_parameters(model: nn.Module) -> None:
    lazy = ", ".join(f"'{name}'" for name, p in model.named_parameters() if is_lazy(p))
    if lazy:
        raise TraceError(f"The lazy parameters {lazy} have no shape yet. Run one batch through the model first.")


def _check_heads_found(heads: list[str], recorder: Recorder) -> list[str]:
    if heads:
        return heads
    last = next((n for n in reversed(recorder.order)), None)
    hint = f" The last layer used was '{last}': if it gives the logits, set heads.names: ['{last}']." if last else ""
    raise HeadNotFoundError(
        "No layer of a known type gives the model's output as it is, so the head cannot be told."
        f"{hint} For a model without a head, set heads.names: []."
    )


def _check_any_gated(gated: Sequence[str], heads: Sequence[str]) -> None:
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
    reasons = "; ".join(_reasons(recorder, missing))
    why = f" ({reasons})" if reasons else ""
    raise UnreachedLayerError(
        f"The forward never used {names} on the example inputs, in evaluation or training mode, in a way that a gate "
        f"could act on{why}. Add {it} to gates.exclude, or pass example_inputs that reach {it}."
    )


def _reasons(recorder: Recorder, missing: Sequence[str]) -> list[str]:
    """Return why gates cannot act on layers: outputs of an unexpected shape or, if there are none, mixed weights."""
    records = [recorder.records[name] for name in missing]
    outputs = [record.unsupported_output for record in records if record.unsupported_output]
    mixed = (f"the weight of '{r.name}' is used only after it was transformed" for r in records if r.mixed_weight)
    return outputs or list(mixed)
