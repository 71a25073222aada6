"""Remove what a task does not use: prune, compare outputs, and keep whatever changes them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import ExportError, TraceError
from fgadahat_hooks.export.channel_table import ChannelTable
from fgadahat_hooks.export.check import difference, outputs
from fgadahat_hooks.export.propagate import propagate
from fgadahat_hooks.export.prune import pruned_copy
from fgadahat_hooks.export.report import ExportReport, kept_units, removed_units, saved
from fgadahat_hooks.export.selection import Candidate, keep_nonzero_inputs, keep_one_per_axis, removal_candidates
from fgadahat_hooks.graph.tracing.forward import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph

_DOUBLE_TOLERANCE = 1e-9
_SINGLE_TOLERANCE = 1e-5
"""Largest difference of outputs, relative to the largest value, in double and in single precision."""


def compacted(
    model: nn.Module, graph: UnitGraph, masks: Mapping[str, Tensor], inputs: ExampleInputs
) -> tuple[nn.Module, ExportReport]:
    """Remove dead units from an exported module.

    One forward finds which rows, columns and channels can only be removed together (`propagate`); the unit graph shows
    which of them are zero wherever they are read (`keep_nonzero_inputs`). All candidates are then removed and the
    outputs compared. If they differ, the candidates are bisected until those that have to be kept are found.

    Args:
        model: The exported module; it is not changed.
        graph: The unit graph.
        masks: Binary mask of each gated layer, `(units,)` bool.
        inputs: Inputs to compare on; noise of the same shapes is compared on too.

    Returns:
        A smaller module, and what was removed.
    """
    table = propagate(model, inputs)
    keep_nonzero_inputs(table, graph, masks)
    keep_one_per_axis(table)
    comparison = _Comparison(model, table, inputs)
    chosen, failed = comparison.removable(removal_candidates(table))
    pruned = pruned_copy(model, table, chosen)
    distance = comparison.difference(chosen)
    if distance > comparison.tolerance:
        raise ExportError(f"Expected the compact model to compute the same, but outputs differ by {distance:.1e}.")
    removed = {group for candidate in chosen for group in candidate}
    report = ExportReport(
        *saved(model, pruned, inputs),
        removed_units(model, pruned),
        kept_units(table, graph, masks, removed, failed),
        distance,
        comparison.in_double,
    )
    return pruned, report


class _Comparison:
    """Compares a model with pruned copies of it, in double precision if the model can be run in it."""

    def __init__(self, model: nn.Module, table: ChannelTable, inputs: ExampleInputs) -> None:
        self._table = table
        try:
            self._prepare(copy.deepcopy(model).to(torch.float64), _as_double(inputs))
            self.in_double, self.tolerance = True, _DOUBLE_TOLERANCE
        except TraceError:
            self._prepare(model, inputs)
            self.in_double, self.tolerance = False, _SINGLE_TOLERANCE

    def _prepare(self, model: nn.Module, inputs: ExampleInputs) -> None:
        self._model = model
        self._cases = [(inputs, outputs(model, inputs))]
        noise = _noise_like(inputs)
        if noise is not None:
            with suppress(TraceError):  # the model may not accept it
                self._cases.append((noise, outputs(model, noise)))

    def removable(self, candidates: list[Candidate]) -> tuple[list[Candidate], dict[Candidate, str]]:
        """Return the candidates that can all be removed, and why each of the others cannot."""
        chosen: list[Candidate] = []
        failed: dict[Candidate, str] = {}
        pending = [candidates] if candidates else []
        while pending:
            part = pending.pop()
            reason = self._failure([*chosen, *part])
            if reason is None:
                chosen += part
            elif len(part) == 1:
                failed[part[0]] = reason
            else:
                half = len(part) // 2
                pending += [part[half:], part[:half]]
        return chosen, failed

    def _failure(self, chosen: Sequence[Candidate]) -> str | None:
        """Return why these cannot all be removed; None if they can."""
        try:
            distance = self.difference(chosen)
        except Exception as error:  # whatever the user's forward raises when a size is not what it expects
            return f"without it the forward raises {type(error.__cause__ or error).__name__}"
        return None if distance <= self.tolerance else "without it the outputs change"

    def difference(self, chosen: Sequence[Candidate]) -> float:
        """Return the largest difference of the outputs if all these are removed."""
        pruned = pruned_copy(self._model, self._table, chosen)
        return max(difference(before, outputs(pruned, case)) for case, before in self._cases)


def _as_double(inputs: ExampleInputs) -> ExampleInputs:
    return _map_tensors(inputs, lambda t: t.double() if t.is_floating_point() else t)


def _noise_like(inputs: ExampleInputs) -> ExampleInputs | None:
    """Return inputs with noise for values, since zeros, for one, would hide differences; None if none are floats."""
    generator = torch.Generator().manual_seed(0)
    floats: list[Tensor] = []

    def randomised(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        floats.append(t)
        return torch.randn(t.shape, generator=generator, dtype=t.dtype, device="cpu").to(t.device)

    noise = _map_tensors(inputs, randomised)
    return noise if floats else None


def _map_tensors(inputs: ExampleInputs, function: Callable[[Tensor], Tensor]) -> ExampleInputs:
    if callable(inputs) and not isinstance(inputs, Tensor | Mapping):  # calls the model itself
        return inputs
    mapped: ExampleInputs = pytree.tree_map_only(Tensor, function, inputs)
    return mapped
