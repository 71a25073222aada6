"""Remove what a task does not use: cut, compare, and give up what does not compare equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import ExportError, TraceError
from fgadahat_hooks.export.check import difference, outputs
from fgadahat_hooks.export.choose import Cut, cuts, fix_last, fix_live
from fgadahat_hooks.export.follow import follow
from fgadahat_hooks.export.report import ExportReport, kept_units, removed_units, saved
from fgadahat_hooks.export.shrink import double, shrunk
from fgadahat_hooks.export.slots import SlotTable
from fgadahat_hooks.graph.tracing.forward import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph

_DOUBLE = 1e-9
_SINGLE = 1e-5
"""How far outputs may be apart, relative to the largest, in double and in single precision."""


def compacted(
    model: nn.Module, graph: UnitGraph, masks: Mapping[str, Tensor], inputs: ExampleInputs
) -> tuple[nn.Module, ExportReport]:
    """Remove dead units from an exported module.

    One forward tells which rows, columns and channels can only go together (`follow`); the unit graph tells which of
    them are zero wherever they are read (`fix_live`). Then all that can go is cut out and the outputs are compared. If
    they differ, halves are tried, until what has to stay is found.

    Args:
        model: The exported module; it is left as it is.
        graph: The unit graph.
        masks: Binary mask of each gated layer, `(units,)` bool.
        inputs: Inputs to compare on; noise of the same shapes is compared on too.

    Returns:
        A smaller module, and what was done.
    """
    table = follow(model, inputs)
    fix_live(table, graph, masks)
    fix_last(table)
    judge = _Judge(model, table, inputs)
    going, failed = judge.choose(cuts(table))
    made = shrunk(model, table, going)
    far = judge.difference(going)
    if far > judge.tolerance:
        raise ExportError(f"Expected the compact model to compute the same, but outputs differ by {far:.1e}.")
    gone = {root for cut in going for root in cut}
    report = ExportReport(
        *saved(model, made, inputs),
        removed_units(model, made),
        kept_units(table, graph, masks, gone, failed),
        far,
        judge.in_double,
    )
    return made, report


class _Judge:
    """Compares a model with smaller ones, in double precision if the model can be run in it."""

    def __init__(self, model: nn.Module, table: SlotTable, inputs: ExampleInputs) -> None:
        self._table = table
        try:
            self._prepare(double(model), _as_double(inputs))
            self.in_double, self.tolerance = True, _DOUBLE
        except TraceError:
            self._prepare(model, inputs)
            self.in_double, self.tolerance = False, _SINGLE

    def _prepare(self, model: nn.Module, inputs: ExampleInputs) -> None:
        self._model = model
        self._cases = [(inputs, outputs(model, inputs))]
        noise = _noise(inputs)
        if noise is not None:
            with suppress(TraceError):  # the model may not take it
                self._cases.append((noise, outputs(model, noise)))

    def choose(self, candidates: list[Cut]) -> tuple[list[Cut], dict[Cut, str]]:
        """Return what can go, together, and why each of the others cannot."""
        going: list[Cut] = []
        failed: dict[Cut, str] = {}
        waiting = [candidates] if candidates else []
        while waiting:
            part = waiting.pop()
            reason = self._reason([*going, *part])
            if reason is None:
                going += part
            elif len(part) == 1:
                failed[part[0]] = reason
            else:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
        return going, failed

    def _reason(self, going: list[Cut]) -> str | None:
        try:
            far = self.difference(going)
        except Exception as error:  # whatever the user's forward raises when a size is not what it expects
            return f"without it the forward raises {type(error.__cause__ or error).__name__}"
        return None if far <= self.tolerance else "without it the outputs change"

    def difference(self, going: list[Cut]) -> float:
        """Return how far the outputs move if all these go."""
        smaller = shrunk(self._model, self._table, going)
        return max(difference(before, outputs(smaller, case)) for case, before in self._cases)


def _as_double(inputs: ExampleInputs) -> ExampleInputs:
    return _mapped(inputs, lambda t: t.double() if t.is_floating_point() else t)


def _noise(inputs: ExampleInputs) -> ExampleInputs | None:
    """Return noise in the place of inputs, since zeros, for one, would not tell much; None if nothing would change."""
    draw = torch.Generator().manual_seed(0)
    floats: list[Tensor] = []

    def drawn(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        floats.append(t)
        return torch.randn(t.shape, generator=draw, dtype=t.dtype, device="cpu").to(t.device)

    noise = _mapped(inputs, drawn)
    return noise if floats else None


def _mapped(inputs: ExampleInputs, function: Callable[[Tensor], Tensor]) -> ExampleInputs:
    if callable(inputs) and not isinstance(inputs, Tensor | Mapping):  # calls the model itself
        return inputs
    mapped: ExampleInputs = pytree.tree_map_only(Tensor, function, inputs)
    return mapped
