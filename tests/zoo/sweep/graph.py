"""What the graph of a model says, against what random gates show; and what tracing costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.graph.targets import find_targets
from fgadahat_hooks.graph.trace import ExampleInputs, trace
from fgadahat_hooks.graph.tracing.forward import call_model, isolated_evaluation
from tests.differential.truth import LayerTruth, Truth, never_vanishing, observe
from tests.zoo.sweep.row import Row

FEW, HALF = 0.15, 0.5
"""Shares of open gates: with few open, also what many units feed is zero now and then."""


def examine_graph(row: Row, session: fh.Session, inputs: ExampleInputs) -> None:
    """Fill in what the graph of a session that has learnt nothing says, and whether it is true."""
    row.layers, row.units = len(session.graph.layers), session.graph.total_units
    as_it_is, forced = Truth(), Truth()

    def call(model: nn.Module) -> Any:
        return call_model(model, inputs)

    observe(session, call, as_it_is, HALF, seed=0)
    with never_vanishing():
        observe(session, call, forced, HALF, seed=1, force=True)
        observe(session, call, forced, FEW, seed=2, force=True)
    row.unseen = len(session.graph.inputs.keys() - forced.layers.keys())
    for name, layer in forced.layers.items():
        _count(row, layer, layer.wrong | as_it_is.layers[name].wrong)


def _count(row: Row, layer: LayerTruth, wrong: Tensor) -> None:
    row.closable += int((~layer.live).sum())
    unsafe, unresolved = int(wrong.sum()), int((layer.missed & layer.live & ~wrong).sum())
    over = int((layer.missed & ~layer.live & ~wrong).sum())
    row.by_input.unsafe += unsafe
    row.by_input.unresolved += unresolved
    row.by_input.over += over
    row.by_input.exact += layer.live.numel() - unsafe - unresolved - over
    verdict = "unsafe" if unsafe else "unresolved" if unresolved else "over" if over else "exact"
    setattr(row.by_layer, verdict, getattr(row.by_layer, verdict) + 1)


def time_trace(row: Row, model: nn.Module, spec: object, inputs: ExampleInputs) -> None:
    """Measure a plain forward and a trace; a trace of a small model before them loads what tracing needs."""
    trace_once(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), {}, torch.zeros(1, 2))
    with isolated_evaluation(model):
        row.forward_seconds = _fastest(lambda: call_model(model, inputs), 3)
    row.trace_seconds = _fastest(lambda: trace_once(model, spec, inputs), 2)


def trace_once(model: nn.Module, spec: object, inputs: ExampleInputs) -> None:
    """Do what `attach` does before it changes anything."""
    valid = fh.AttachSpec.model_validate(spec)
    trace(model, inputs, find_targets(model, valid).request(valid))


def _fastest(call: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return min(taken)
