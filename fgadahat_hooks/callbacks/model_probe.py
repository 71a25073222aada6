"""Keeps the batches of a step, so that an attribution measure can run the model on them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.callbacks.probe import Probe, refuse
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.tracing.forward import untouched
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution import AttributionMeasure, Batch, Site, open_scene
from fgadahat_hooks.importance.attribution.quiet import undisturbed
from fgadahat_hooks.importance.attribution.target import label_scores, labels_of, some_score
from fgadahat_hooks.layers import layer_type_of

Target = Callable[[Any, Any], Tensor]
"""Takes the model's output and the loader's batch, returns one number a sample, `(batch,)`."""
LabelScore = Callable[[Any, Tensor], Tensor]
"""Takes the model's output and the labels, returns one number a sample, `(batch,)`."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One training forward: what the model was called with, and the loader's batch it belongs to."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    data: Any

    def batch(self, target: Target | None, limit: int | None, score: LabelScore = label_scores) -> Batch:
        """Return what is attributed, on the first `limit` samples.

        Without a target of the user's it is the measure's own score of the labels, as a rule their logit.

        Raises:
            BadCallError: There is no target, and the loader's batch holds no labels.
        """
        whole = Batch(self.args, self.kwargs, _no_target)
        size = whole.size
        data = self.data if limit is None or limit >= size else _first(self.data, limit, size)
        if target is not None:
            own = target
            scores: Callable[[Any], Tensor] = lambda output: own(output, data)  # noqa: E731
        else:
            labels = labels_of(data)
            scores = lambda output: score(output, labels)  # noqa: E731
        cut = whole if limit is None or limit >= size else whole.first(limit)
        return Batch(cut.args, cut.kwargs, scores)


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
        """Have nothing yet."""
        super().__init__()
        self.measure = measure
        self.target = target
        self.max_samples = max_samples
        self._seen: list[Seen] = []

    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs) -> None:
        """Let the measure try the example inputs; the model is left as it was.

        Raises:
            CapabilityError: A layer's units are seen nowhere, or the measure would be wrong on this model.
        """
        sites = sites_of(model, graph, list(graph.layers), self.measure)
        score = some_score if self.target is None else _any_number
        with untouched(model):
            seen = example_call(model, example_inputs)
            with open_scene(model, sites, Batch(seen.args, seen.kwargs, score)) as scene:
                self.measure.check(scene)

    def watch(self, context: TaskContext) -> None:
        """Keep the inputs of every forward that is trained on.

        Raises:
            CapabilityError: A layer's units are seen nowhere.
        """
        sites_of(context.model, context.graph, context.layers, self.measure)
        self.watch_gradients(context)

        def see(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and model.training:
                self.refresh()
                self._seen.append(Seen(args, kwargs, context.data))

        context.hooks.forward_pre(context.model, see, kwargs=True)

    def raw(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the measure of each layer, `(units,)`: the mean over the samples of all batches of the step.

        Raises:
            BadCallError: No forward was seen since the last step, or the batch holds no labels.
        """
        sites = sites_of(context.model, context.graph, [layer.info.name for layer in layers], self.measure)
        total: dict[str, Tensor] = {}
        self.samples = 0.0
        for seen in self._seen:
            batch = seen.batch(self.target, self.max_samples, self.measure.score)
            if batch.size:
                with layers[0].gate.context.fixed(), open_scene(context.model, sites, batch) as scene:
                    found = self.measure.compute(scene)
                total = {n: batch.size * v + total[n] if n in total else batch.size * v for n, v in found.items()}
                self.samples += batch.size
        if not self.samples:
            raise BadCallError(
                f"Measure '{self.measure.name}' runs the model again on the step's batch, but no forward of the "
                f"attached {type(context.model).__name__} in training mode was seen since the last step. Call the "
                "attached model itself, in training mode and with gradients."
            )
        return {name: value / self.samples for name, value in total.items()}

    def forget(self) -> None:
        """Let go of the batches."""
        self._seen.clear()


def sites_of(model: nn.Module, graph: UnitGraph, names: Iterable[str], measure: AttributionMeasure) -> dict[str, Site]:
    """Return where the units of layers are seen, by name.

    Raises:
        CapabilityError: Nowhere; names the layers and what to use instead.
    """
    if measure.attribute_to == "layer":
        return _raw_sites(model, graph, list(names), measure)
    hidden = [name for name in names if graph.layers[name].read is None]
    refuse(measure.name, hidden, "the outputs of {} that the model uses functionally, so that no module puts them out")
    infos = [graph.layers[name] for name in names]
    return {u.name: Site(u.name, u.units, model.get_submodule(str(u.read)), u.read_axis) for u in infos}


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


def example_call(model: nn.Module, inputs: ExampleInputs) -> Seen:
    """Return what the model is called with: as given, or seen while a function of the user's calls it."""
    if isinstance(inputs, Tensor):
        return Seen((inputs,), {}, None)
    if isinstance(inputs, Mapping):
        return Seen((), inputs, None)
    if isinstance(inputs, tuple | list):
        return Seen(tuple(inputs), {}, None)
    calls: list[Seen] = []

    def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Seen(args, kwargs, None))

    with undisturbed(model), torch.no_grad(), HookSet.temporary() as hooks:
        hooks.forward_pre(model, see, kwargs=True)
        inputs(model)
    if not calls:
        raise BadCallError(f"Expected a function that calls the {type(model).__name__} it is given, but it did not.")
    return calls[-1]


def _any_number(output: Any) -> Tensor:
    """Stand for a target of the user's, which needs a loader's batch."""
    tensors = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point() and t.dim()]
    return tensors[0].flatten(1).sum(1) if tensors[0].dim() > 1 else tensors[0]


def _no_target(_: Any) -> Tensor:
    raise BadCallError("No target was set.")
