"""Records the model's calls of a step, so that an attribution measure can run the model on them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.callbacks.probe import Probe, refuse_layers
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.tracing.forward import isolated_evaluation
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution import AttributionCall, AttributionMeasure, Site, open_attribution_batch
from fgadahat_hooks.importance.attribution.no_side_effects import no_side_effects
from fgadahat_hooks.importance.attribution.target import label_scores, labels_of, placeholder_score
from fgadahat_hooks.layers import layer_type_of

Target = Callable[[Any, Any], Tensor]
"""Takes the model's output and the loader's batch, returns one number a sample, `(batch,)`."""
LabelScore = Callable[[Any, Tensor], Tensor]
"""Takes the model's output and the labels, returns one number a sample, `(batch,)`."""


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One forward: what the model was called with, and the loader's batch it belongs to."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    data: Any

    def attribution_call(
        self, target: Target | None, max_samples: int | None, score: LabelScore = label_scores
    ) -> AttributionCall:
        """Return the call with what is attributed, on the first `max_samples` samples.

        Without a target it is the measure's own score of the labels, usually their logit.

        Raises:
            BadCallError: There is no target, and the loader's batch holds no labels.
        """
        whole = AttributionCall(self.args, self.kwargs, _no_target)
        size = whole.size
        if max_samples is None or max_samples >= size:
            return AttributionCall(self.args, self.kwargs, _scores(self.data, target, score))
        scores = _scores(_first(self.data, max_samples, size), target, score)
        cut = whole.first(max_samples)
        return AttributionCall(cut.args, cut.kwargs, scores)


def _scores(data: Any, target: Target | None, score: LabelScore) -> Callable[[Any], Tensor]:
    """Return the function of the model's output that is attributed, for one batch of the loader."""
    if target is not None:
        return lambda output: target(output, data)
    labels = labels_of(data)
    return lambda output: score(output, labels)


class ModelProbe(Probe):
    """Collects the calls of the model between two steps, one for each accumulated batch.

    Args:
        measure: The measure.
        target: What is attributed; the logit of the true label when left out.
        max_samples: At most so many samples of each batch are attributed.
    """

    def __init__(
        self, measure: AttributionMeasure, target: Target | None = None, max_samples: int | None = None
    ) -> None:
        """Start with no call recorded."""
        super().__init__()
        self.measure = measure
        self.target = target
        self.max_samples = max_samples
        self._calls: list[RecordedCall] = []

    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs) -> None:
        """Let the measure try the example inputs; the model is left as it was.

        Raises:
            CapabilityError: No module's output shows a layer's units, or the measure would be wrong on this model.
        """
        sites = sites_of(model, graph, list(graph.layers), self.measure)
        score = placeholder_score if self.target is None else _any_number
        with isolated_evaluation(model):
            call = example_call(model, example_inputs)
            with open_attribution_batch(model, sites, AttributionCall(call.args, call.kwargs, score)) as batch:
                self.measure.check(batch)

    def install_hooks(self, context: TaskContext) -> None:
        """Record the inputs of every forward that is trained on.

        Raises:
            CapabilityError: No module's output shows a layer's units.
        """
        sites_of(context.model, context.graph, context.layers, self.measure)
        self.track_gradients(context)

        def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and model.training:
                self.discard_if_stale()
                self._calls.append(RecordedCall(args, kwargs, context.data))

        context.hooks.forward_pre(context.model, record, kwargs=True)

    def raw_importance(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the measure of each layer, `(units,)`: the mean over the samples of all batches of the step.

        Raises:
            BadCallError: No forward was recorded since the last step, or the batch holds no labels.
        """
        sites = sites_of(context.model, context.graph, [layer.info.name for layer in layers], self.measure)
        total: dict[str, Tensor] = {}
        self.samples = 0.0
        for recorded in self._calls:
            call = recorded.attribution_call(self.target, self.max_samples, self.measure.score)
            if call.size:
                with (
                    layers[0].gate.context.constant_masks(),
                    open_attribution_batch(context.model, sites, call) as batch,
                ):
                    found = self.measure.compute(batch)
                total = {n: call.size * v + total[n] if n in total else call.size * v for n, v in found.items()}
                self.samples += call.size
        if not self.samples:
            raise BadCallError(
                f"Measure '{self.measure.name}' runs the model again on the step's batch, but no forward of the "
                f"attached {type(context.model).__name__} in training mode was seen since the last step. Call the "
                "attached model itself, in training mode and with gradients."
            )
        return {name: value / self.samples for name, value in total.items()}

    def discard(self) -> None:
        """Discard the recorded calls."""
        self._calls.clear()


def sites_of(model: nn.Module, graph: UnitGraph, names: Iterable[str], measure: AttributionMeasure) -> dict[str, Site]:
    """Return the module output that shows each layer's units, by layer name.

    Raises:
        CapabilityError: Some layers have none; names the layers and what to use instead.
    """
    if measure.attribute_to == "layer":
        return _raw_sites(model, graph, list(names), measure)
    hidden = [name for name in names if graph.layers[name].output_module is None]
    need = "the outputs of {} that the model uses functionally, so that no module puts them out"
    refuse_layers(measure.name, hidden, need)
    infos = [graph.layers[name] for name in names]
    return {u.name: Site(u.name, u.units, model.get_submodule(str(u.output_module)), u.output_axis) for u in infos}


def _raw_sites(model: nn.Module, graph: UnitGraph, names: list[str], measure: AttributionMeasure) -> dict[str, Site]:
    functional = [name for name in names if graph.layers[name].position == "weight"]
    if functional:
        raise CapabilityError(
            f"Measure '{measure.name}' with attribute_to: 'layer' needs layers that run as modules, but the model uses "
            f"the weight of '{functional[0]}' itself ({len(functional)} such layers). Use attribute_to: 'gate'."
        )
    out = {}
    for name in names:
        module = model.get_submodule(name)
        kind = layer_type_of(module)
        if kind is not None:
            out[name] = Site(name, graph.layers[name].units, module, kind.unit_axis, raw=True)
    return out


def _first(data: Any, count: int, size: int) -> Any:
    """Cut the tensors of a loader's batch that have one row a sample."""
    cut = lambda t: t[:count] if t.dim() and len(t) == size else t  # noqa: E731
    return pytree.tree_map_only(Tensor, cut, data)


def example_call(model: nn.Module, inputs: ExampleInputs) -> RecordedCall:
    """Return the call of the model: with the inputs as given, or as recorded while a given function calls it."""
    if isinstance(inputs, Tensor):
        return RecordedCall((inputs,), {}, None)
    if isinstance(inputs, Mapping):
        return RecordedCall((), inputs, None)
    if isinstance(inputs, tuple | list):
        return RecordedCall(tuple(inputs), {}, None)
    calls: list[RecordedCall] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(RecordedCall(args, kwargs, None))

    with no_side_effects(model), torch.no_grad(), HookSet.temporary() as hooks:
        hooks.forward_pre(model, record, kwargs=True)
        inputs(model)
    if not calls:
        raise BadCallError(f"Expected a function that calls the {type(model).__name__} it is given, but it did not.")
    return calls[-1]


def _any_number(output: Any) -> Tensor:
    """Return one number a sample, in place of a user's target, which needs a loader's batch."""
    tensors = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point() and t.dim()]
    return tensors[0].flatten(1).sum(1) if tensors[0].dim() > 1 else tensors[0]


def _no_target(_: Any) -> Tensor:
    raise BadCallError("No target was set.")
