"""Raw importance of one batch by any measure, outside of training: `session.measure`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.layer_probe import LayerProbe
from fgadahat_hooks.callbacks.model_probe import example_call, sites_of
from fgadahat_hooks.errors import BadCallError, NonFiniteError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.importance import AttributionMeasure, Measure
from fgadahat_hooks.importance.attribution import AttributionCall, open_attribution_batch
from fgadahat_hooks.importance.attribution.no_side_effects import no_side_effects
from fgadahat_hooks.importance.attribution.target import check_scores, label_scores, logits_of
from fgadahat_hooks.layers import weight_of
from fgadahat_hooks.tasks.sequence import TaskSequence

Target = Tensor | Callable[[Any], Tensor] | None


def measure(
    sequence: TaskSequence, name: str, inputs: ExampleInputs, target: Target, params: dict[str, Any]
) -> dict[str, Tensor]:
    """Return a measure of every gated layer on one batch; see `Session.measure`."""
    chosen = _make_measure(name, params)
    attached = sequence.attached
    context = attached.context(None, sequence.state)
    with sequence.exclusive(), attached.gate_context.constant_masks():
        call = example_call(attached.model, inputs)
        batch = AttributionCall(call.args, call.kwargs, _score_function(chosen, target))
        if not batch.size:
            raise BadCallError("Expected a batch of at least one sample, but got none.")
        if isinstance(chosen, AttributionMeasure):
            sites = sites_of(attached.model, attached.graph, list(context.layers), chosen)
            with open_attribution_batch(attached.model, sites, batch) as attribution_batch:
                found = chosen.compute(attribution_batch)
        else:
            found = _from_one_pass(attached, chosen, context, batch, target)
    _refuse_non_finite(name, found)
    return found


def _make_measure(name: str, params: dict[str, Any]) -> Any:
    try:
        return registry.measures.get(name)(**params)
    except TypeError as error:
        raise BadCallError(f"Measure '{name}' does not take these parameters: {error}.") from None


def _score_function(chosen: Any, target: Target) -> Callable[[Any], Tensor]:
    """Return the function from the model's output to one number a sample, which the measure explains."""
    if isinstance(target, Tensor):
        score = chosen.score if isinstance(chosen, AttributionMeasure) else label_scores
        return lambda output: score(output, target)
    if callable(target):
        return target
    return _refuse_missing_target


def _refuse_missing_target(_: Any) -> Tensor:
    raise BadCallError(
        "Expected `target`: the true labels, (batch,), or a function of the model's output that returns one number a "
        "sample, but got None."
    )


def _from_one_pass(
    attached: AttachedModel, chosen: Measure, context: TaskContext, batch: AttributionCall, target: Target
) -> dict[str, Tensor]:
    """Compute a measure from one forward, and one backward if it reads gradients."""
    probe = LayerProbe(chosen, every_forward=True)
    with closing(context.hooks), no_side_effects(attached.model):
        probe.install_hooks(context)
        output = attached.model(*batch.args, **batch.kwargs)
        if "gradient" in chosen.needs:
            probe.gradients = _gradients(context, _loss(output, batch, target))
        with torch.no_grad():
            return probe.raw_importance(context, list(context.layers.values()))


def _loss(output: Any, batch: AttributionCall, target: Target) -> Tensor:
    if isinstance(target, Tensor):
        label_scores(output, target)  # raises if the labels do not fit
        logits = logits_of(output)
        return F.cross_entropy(logits, target.to(logits.device))
    return check_scores(batch.target(output), batch.size).mean()


def _gradients(context: TaskContext, loss: Tensor) -> dict[int, Tensor]:
    """Return the gradients of all weights that are gated or read gated units, by identity; `.grad` stays as it is."""
    weights = [layer.weight for layer in context.layers.values()]
    weights += [weight_of(module) for module, _ in context.readers.values()]
    wanted = list({id(w): w for w in weights if w.requires_grad}.values())
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return {id(w): g for w, g in zip(wanted, found, strict=True) if g is not None}


def _refuse_non_finite(name: str, found: dict[str, Tensor]) -> None:
    bad = [layer for layer, value in found.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NonFiniteError(
            f"Measure '{name}' gave NaN or infinity for layer '{bad[0]}' on this batch ({len(bad)} of {len(found)} "
            "layers). Look for NaN or infinity in the inputs and in the model's parameters."
        )
