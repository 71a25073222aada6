"""One batch on one model, on which a measure runs the model as often as it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.gradients import summed_gradients
from fgadahat_hooks.importance.attribution.layer_outputs import EditOutput, LayerOutputs, Site
from fgadahat_hooks.importance.attribution.no_side_effects import cuda_devices, no_side_effects
from fgadahat_hooks.importance.attribution.shapes import at_least_float32
from fgadahat_hooks.importance.attribution.target import check_scores

Values = dict[str, list[Tensor]]
"""For each layer one tensor for each of its calls, shape of the layer's output."""
Baseline = float | Tensor
"""Where a path begins: one number for every input, or a tensor like the inputs or like one sample of them."""
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


@dataclass(frozen=True, eq=False)
class AttributionCall:
    """The arguments of one call of the model, and what is attributed.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        target: Takes the model's output, returns one number a sample, `(batch,)`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Callable[[Any], Tensor]

    @cached_property
    def size(self) -> int:
        """Number of samples: the length of the first tensor that has an axis."""
        leaves = pytree.tree_leaves((self.args, dict(self.kwargs)))
        return next((len(t) for t in leaves if isinstance(t, Tensor) and t.dim() > 0), 0)

    def first(self, count: int) -> AttributionCall:
        """Return the same call on the first samples only; `target` stays, so the caller must replace it."""
        size = self.size
        cut = lambda t: t[:count] if t.dim() and len(t) == size else t  # noqa: E731
        args, kwargs = pytree.tree_map_only(Tensor, cut, (self.args, dict(self.kwargs)))
        return AttributionCall(args, kwargs, self.target)


@dataclass(frozen=True, eq=False)
class ForwardResult:
    """What one forward gave.

    Attributes:
        scores: The target, one number a sample, `(batch,)`.
        values: The outputs of each layer, one tensor for each of its calls.
    """

    scores: Tensor
    values: Values

    def gradients(self) -> Values:
        """Return the gradient of the summed scores by every value, all layers in one backward.

        Nothing is added to any parameter's `.grad`. What the scores do not depend on has gradient zero.
        """
        flat = [v for parts in self.values.values() for v in parts]
        found = iter(summed_gradients(self.scores, flat))
        return {name: [next(found) for _ in parts] for name, parts in self.values.items()}


def add_values(total: Values, values: Values) -> None:
    """Add values to `total`, layer by layer and call by call."""
    for name, parts in values.items():
        total[name] = [t + p for t, p in zip(total[name], parts, strict=True)] if name in total else parts


class AttributionBatch:
    """A model, the sites where its layers are seen, and one batch.

    Attributes:
        model: The model, in evaluation mode.
        sites: Where each layer's units are seen, by layer name.
        call: What the model is called with, and what is attributed.
    """

    def __init__(
        self, model: nn.Module, sites: Mapping[str, Site], call: AttributionCall, outputs: LayerOutputs
    ) -> None:
        """Use `open_attribution_batch`."""
        self.model = model
        self.sites = sites
        self.call = call
        self._outputs = outputs

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.call.size

    # ---------------------------------------------------------------- running
    def run(self, share: float | Tensor = 1.0, baseline: Baseline = 0.0, *, grad: bool = True) -> ForwardResult:
        """Run the model at `baseline + share (inputs - baseline)`.

        Args:
            share: Position on the straight path from the baseline (0) to the inputs (1), for all samples or `(batch,)`.
            baseline: Where the path begins.
            grad: Whether `ForwardResult.gradients` will be called.

        Raises:
            CapabilityError: `share` is not 1 and no input is in floating point.
        """
        return self.run_on(self.inputs(share, baseline), grad=grad)

    def run_on(self, inputs: Inputs, *, grad: bool = True, edit: EditOutput | None = None) -> ForwardResult:
        """Run the model on given inputs, with the same random numbers in every run.

        Args:
            inputs: Positional and keyword arguments; the model may write into them.
            grad: Whether gradients will be needed.
            edit: Replaces each layer's output; then no values are kept.
        """
        args, kwargs = inputs
        with torch.set_grad_enabled(grad), torch.random.fork_rng(cuda_devices(self.model)):
            self._outputs.edit = edit
            try:
                output = self.model(*args, **kwargs)
            finally:
                values = self._outputs.pop()
            scores = check_scores(self.call.target(output), self.size)
        return ForwardResult(scores, values)

    def inputs(self, share: float | Tensor = 1.0, baseline: Baseline = 0.0) -> Inputs:
        """Return copies of the batch's arguments, moved to a position on the path, see `run`."""
        tree = (self.call.args, dict(self.call.kwargs))
        if isinstance(share, float | int) and share == 1:
            return pytree.tree_map_only(Tensor, _copy, tree)  # type: ignore[no-any-return]
        self.check_path()
        return pytree.tree_map_only(Tensor, lambda t: self._interpolated(t, share, baseline), tree)  # type: ignore[no-any-return]

    def _interpolated(self, x: Tensor, share: float | Tensor, baseline: Baseline) -> Tensor:
        if not self._is_on_path(x):
            return _copy(x)
        x = x.detach()
        start = _baseline_like(baseline, x)
        if isinstance(share, Tensor):
            share = share.to(x).view(-1, *[1] * (x.dim() - 1))
        return start + share * (x - start)

    def _is_on_path(self, x: Tensor) -> bool:
        """Return whether an argument is a batch in floating point; all others stay the same along a path."""
        return x.is_floating_point() and x.dim() > 0 and len(x) == self.size

    def check_path(self) -> None:
        """Refuse inputs between which there is no path.

        Raises:
            CapabilityError: No input is a batch in floating point.
        """
        leaves = pytree.tree_leaves((self.call.args, dict(self.call.kwargs)))
        if not any(isinstance(t, Tensor) and self._is_on_path(t) for t in leaves):
            raise CapabilityError(
                "A measure along a path of inputs needs inputs in floating point, but this model takes integers (token "
                "ids, for one). Choose a measure without a path: gradient_x_activation_abs, gradcam_abs or "
                "feature_ablation_abs."
            )

    # ---------------------------------------------------------------- reducing
    def mean_abs(self, values: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Return for each layer the mean of `|value|` over samples, positions and calls, `(units,)`.

        A layer that the forward did not call gets 0.
        """
        return {name: _mean_abs(site, values.get(name, ())) for name, site in self.sites.items()}


@contextmanager
def open_attribution_batch(
    model: nn.Module, sites: Mapping[str, Site], call: AttributionCall
) -> Iterator[AttributionBatch]:
    """Yield an `AttributionBatch` for the block; afterwards hooks, modes and random states are as before.

    Raises:
        BadCallError: The batch has no samples.
    """
    if call.size == 0:
        raise BadCallError("Expected a batch of at least one sample, but got none.")
    with no_side_effects(model), HookSet.temporary() as hooks:
        yield AttributionBatch(model, sites, call, LayerOutputs(sites, hooks))


def _copy(x: Tensor) -> Tensor:
    """Return a copy of an input, since the model may write into it."""
    return x.detach().clone()


def _baseline_like(baseline: Baseline, x: Tensor) -> Tensor:
    if not isinstance(baseline, Tensor):
        return torch.full_like(x, baseline)
    start = baseline.detach().to(x)
    if start.shape not in (x.shape, x.shape[1:], (1, *x.shape[1:]), ()):
        raise BadCallError(
            f"Expected `baselines` to be a number or a tensor of shape {tuple(x.shape)} or {tuple(x.shape[1:])}, but "
            f"got shape {tuple(baseline.shape)}."
        )
    return start.expand_as(x)


def _mean_abs(site: Site, values: Sequence[Tensor]) -> Tensor:
    if not values:
        return next(site.module.parameters()).new_zeros(site.units)
    parts = [v.detach().movedim(site.axis, 0).reshape(site.units, -1) for v in values]
    parts = [at_least_float32(p) for p in parts]
    total = torch.stack([p.abs().sum(1) for p in parts]).sum(0)
    return total / sum(p.shape[1] for p in parts)
