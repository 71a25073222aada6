"""One batch on one model, to be run as often as a measure needs."""

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
from fgadahat_hooks.importance.attribution.capture import Capture, Edit, Site
from fgadahat_hooks.importance.attribution.quiet import cuda_devices, undisturbed
from fgadahat_hooks.importance.attribution.target import check_scores

Values = dict[str, list[Tensor]]
"""For each layer one tensor a call of it, shape of the layer's output."""
Baseline = float | Tensor
"""Where a path begins: one number for every input, or a tensor like the inputs or like one sample of them."""
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a forward was called with, and what is attributed.

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

    def first(self, count: int) -> Batch:
        """Return the same call on the first samples alone; the target must be cut by who made it."""
        size = self.size
        cut = lambda t: t[:count] if t.dim() and len(t) == size else t  # noqa: E731
        args, kwargs = pytree.tree_map_only(Tensor, cut, (self.args, dict(self.kwargs)))
        return Batch(args, kwargs, self.target)


@dataclass(frozen=True, eq=False)
class Run:
    """One forward.

    Attributes:
        scores: The target, one number a sample, `(batch,)`.
        values: What each layer put out, one tensor a call.
    """

    scores: Tensor
    values: Values

    def gradients(self) -> Values:
        """Return the gradient of the summed scores by every value, all layers in one backward.

        Nothing is added to any parameter's `.grad`. What the scores do not depend on has gradient zero.
        """
        flat = [v for parts in self.values.values() for v in parts]
        if not flat or not self.scores.requires_grad:
            return {name: [torch.zeros_like(v) for v in parts] for name, parts in self.values.items()}
        found = torch.autograd.grad(self.scores.sum(), flat, allow_unused=True)
        rest = iter([torch.zeros_like(v) if g is None else g for v, g in zip(flat, found, strict=True)])
        return {name: [next(rest) for _ in parts] for name, parts in self.values.items()}


class Scene:
    """A model, the places where its layers are seen, and one batch."""

    def __init__(self, model: nn.Module, sites: Mapping[str, Site], batch: Batch, capture: Capture) -> None:
        """Use `open_scene`."""
        self.model = model
        self.sites = sites
        self.batch = batch
        self._capture = capture

    # ---------------------------------------------------------------- running
    def run(self, share: float | Tensor = 1.0, baseline: Baseline = 0.0, *, grad: bool = True) -> Run:
        """Run the model at `baseline + share (inputs - baseline)`.

        Args:
            share: Position on the straight path from the baseline (0) to the inputs (1), for all samples or `(batch,)`.
            baseline: Where the path begins.
            grad: Whether `Run.gradients` will be asked.

        Raises:
            CapabilityError: `share` is not 1 and no input is in floating point.
        """
        return self.run_on(self.inputs(share, baseline), grad=grad)

    def run_on(self, inputs: Inputs, *, grad: bool = True, edit: Edit | None = None) -> Run:
        """Run the model on given inputs; what draws random numbers draws the same ones in each run.

        Args:
            inputs: Positional and keyword arguments; the model may write into them.
            grad: Whether gradients will be asked.
            edit: What is to flow on from each layer in place of its own value; then no values are kept.
        """
        args, kwargs = inputs
        with torch.set_grad_enabled(grad), torch.random.fork_rng(cuda_devices(self.model)):
            self._capture.edit = edit
            try:
                output = self.model(*args, **kwargs)
            finally:
                values = self._capture.take()
            scores = check_scores(self.batch.target(output), self.batch.size)
        return Run(scores, values)

    def inputs(self, share: float | Tensor = 1.0, baseline: Baseline = 0.0) -> Inputs:
        """Return copies of the batch's arguments, moved to a position on the path, see `run`."""
        tree = (self.batch.args, dict(self.batch.kwargs))
        if isinstance(share, float | int) and share == 1:
            return pytree.tree_map_only(Tensor, _copy, tree)  # type: ignore[no-any-return]
        self.check_path()
        return pytree.tree_map_only(Tensor, lambda t: self._between(t, share, baseline), tree)  # type: ignore[no-any-return]

    def _between(self, x: Tensor, share: float | Tensor, baseline: Baseline) -> Tensor:
        if not self._moves(x):
            return _copy(x)
        x = x.detach()
        start = _like(baseline, x)
        if isinstance(share, Tensor):
            share = share.to(x).view(-1, *[1] * (x.dim() - 1))
        return start + share * (x - start)

    def _moves(self, x: Tensor) -> bool:
        return x.is_floating_point() and x.dim() > 0 and len(x) == self.batch.size

    def check_path(self) -> None:
        """Refuse a path between inputs where there is none.

        Raises:
            CapabilityError: No input is a batch in floating point.
        """
        leaves = pytree.tree_leaves((self.batch.args, dict(self.batch.kwargs)))
        if not any(isinstance(t, Tensor) and self._moves(t) for t in leaves):
            raise CapabilityError(
                "A measure along a path of inputs needs inputs in floating point, but this model takes integers (token "
                "ids, for one). Choose a measure without a path: gradient_x_activation_abs, gradcam_abs or "
                "feature_ablation_abs."
            )

    # ---------------------------------------------------------------- reducing
    def mean_abs(self, values: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Return for each layer the mean of `|value|` over samples, positions and calls, `(units,)`.

        A layer that the forward did not reach gets 0.
        """
        return {name: _mean_abs(site, values.get(name, ())) for name, site in self.sites.items()}


@contextmanager
def open_scene(model: nn.Module, sites: Mapping[str, Site], batch: Batch) -> Iterator[Scene]:
    """Give a scene for the block; afterwards hooks, modes and random states are as before.

    Raises:
        BadCallError: The batch has no samples.
    """
    if batch.size == 0:
        raise BadCallError("Expected a batch of at least one sample, but got none.")
    with undisturbed(model), HookSet.temporary() as hooks:
        yield Scene(model, sites, batch, Capture(sites, hooks))


def _copy(x: Tensor) -> Tensor:
    """Copy an input: the model may write into what it is given."""
    return x.detach().clone()


def _like(baseline: Baseline, x: Tensor) -> Tensor:
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
    precise = [p.float() if p.dtype in (torch.float16, torch.bfloat16) else p for p in parts]
    total = torch.stack([p.abs().sum(1) for p in precise]).sum(0)
    return total / sum(p.shape[1] for p in precise)
