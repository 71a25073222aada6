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

from fgadahat_hooks.errors import HeadNotFoundError, NoMatchError, TraceError
from fgadahat_hooks.graph.gateable import is_embedding, known_layers
from fgadahat_hooks.graph.tracing.build_graph import build_unit_graph
from fgadahat_hooks.graph.tracing.execution_paths import Pair
from fgadahat_hooks.graph.tracing.extend import extend_graph
from fgadahat_hooks.graph.tracing.forward import ExampleInputs
from fgadahat_hooks.graph.tracing.output_layers import OutputLayers
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.regated_norms import norm_channels
from fgadahat_hooks.graph.tracing.run import record_forwards
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.graph.unreached import Unreached, sort_unreached
from fgadahat_hooks.layers.without_gate import without_gate

__all__ = ["ExampleInputs", "TraceRequest", "trace", "trace_again"]

_SHOWN = 4
"""How many outputs a message describes."""


@dataclass(frozen=True)
class TraceRequest:
    """What to trace for.

    Attributes:
        targets: Names of the matched layers, heads possibly among them.
        heads: Names of the output layers; None to find them.
        after_norm: Whether a gate may act behind a BatchNorm.
        explicit: Those of the targets that the spec names in full; the others may turn out to be unused.
    """

    targets: Sequence[str]
    heads: Sequence[str] | None = None
    after_norm: bool = True
    explicit: frozenset[str] = frozenset()


def trace(model: nn.Module, example_inputs: ExampleInputs, request: TraceRequest) -> UnitGraph:
    """Return the unit graph of `model`, which is left as it was.

    Raises:
        TraceError: The forward raised, or a lazy layer has no shape yet.
        NoMatchError: All targets are heads.
        UnreachedLayerError: A target that the spec names is not used by the forward in a way that a gate could act on.
        HeadNotFoundError: `request.heads` is None and no output layer was found.
    """
    _check_no_lazy_parameters(model)
    recorder = _new_recorder(model, set(request.targets))
    found = record_forwards(model, example_inputs, recorder)
    found = _heads(found, request)
    gated = [n for n in request.targets if n not in found.heads and f"{n}.weight" not in found.parameters]
    _check_any_gated(model, gated, found.heads, Unreached())
    unreached = sort_unreached(recorder, model, gated, found.heads, request.explicit)
    heads = [*found.heads, *unreached.heads]
    gated = [name for name in gated if name not in {*unreached.passed_over, *unreached.heads}]
    _check_any_gated(model, gated, heads, unreached)
    graph = build_unit_graph(recorder, gated, heads, after_norm=request.after_norm)
    return replace(
        graph,
        head_parameters=found.parameters,
        passed_over=unreached.passed_over,
        unseen=unreached.unseen,
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


def _heads(found: OutputLayers, request: TraceRequest) -> OutputLayers:
    """Return what gives the outputs: what the spec names, or else what was found."""
    if request.heads is not None:
        return replace(found, heads=tuple(request.heads), parameters=())
    _check_heads_found(found)
    return found


# ------------------------------------------------------------------ checks
def _check_no_lazy_parameters(model: nn.Module) -> None:
    lazy = ", ".join(f"'{name}'" for name, p in model.named_parameters() if is_lazy(p))
    if lazy:
        raise TraceError(f"The lazy parameters {lazy} have no shape yet. Run one batch through the model first.")


def _check_heads_found(found: OutputLayers) -> None:
    if found.heads or found.parameters:
        return
    names = ", ".join(f"'{name}'" for name in found.candidates)
    hint = f" If {names} gives the outputs, set heads.names: [{names}]." if names else ""
    ways = "; ".join(found.unclear[:_SHOWN]) + ("; ..." if len(found.unclear) > _SHOWN else "")
    raise HeadNotFoundError(
        "Expected an output that comes from layers which no other layer reads, without a norm or a product in between, "
        f"but found none, so the head cannot be told: {ways or 'the model returns no tensor'}.{hint} Name the layers "
        "that give the outputs in heads.names; for a model without a head, set heads.names: []."
    )


def _check_any_gated(model: nn.Module, gated: Sequence[str], heads: Sequence[str], unreached: Unreached) -> None:
    if gated:
        return
    passed = "; ".join(f"'{name}': {reason}" for name, reason in list(unreached.passed_over.items())[:_SHOWN])
    raise NoMatchError(
        f"Expected a layer to gate, but all that gates.targets matches is a head ({', '.join(map(repr, heads))})"
        + (f", or cannot be gated ({passed})" if passed else "")
        + ". Gates stand before the head: name layers there in gates.targets, or the output layer in heads.names."
        + without_gate(dict(model.named_modules()), {*heads, *unreached.passed_over, *known_layers(model)})
    )
