"""What further traces taught of the unit graph, as plain data and back: a session that goes on must know it too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.extend import united
from fgadahat_hooks.graph.unit_graph import InputMap
from fgadahat_hooks.tasks.sequence import TaskSequence


def dump_paths(sequence: TaskSequence) -> dict[str, Any]:
    """Return the unit graph's inputs and whole layers if they are not those of the first trace alone."""
    sequence.retrace_pending()
    if sequence.branches is None or not sequence.branches.grown:
        return {}
    maps = {name: {**vars(inputs)} for name, inputs in sequence.attached.graph.inputs.items()}
    return {
        "ways": {"inputs": maps, "whole": [n for n, layer in sequence.attached.graph.layers.items() if layer.whole]}
    }


def path_problems(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare a saved graph with the model; one that does not fit would protect the wrong entries."""
    ways = state.get("ways")
    if ways is None:
        return
    yield from (
        f"layer '{n}' of the unit graph has no gate" for n in ways["whole"] if n not in sequence.attached.graph.layers
    )
    features = {name: kind.inputs(module) for name, (module, kind) in sequence.attached.readers().items()}
    for name, inputs in ways["inputs"].items():
        if not _fits(inputs, features.get(name), sequence.attached.graph.total_units):
            yield f"the inputs of layer '{name}' in the unit graph do not fit"


def _fits(inputs: Mapping[str, Any], features: int | None, units: int) -> bool:
    """Return whether a map has the right form; `features` is None for a layer that the session has not seen run."""
    count, live, pairs = inputs["features"], inputs["live"], [inputs["feature"], inputs["unit"]]
    pairs += [] if inputs["group"] is None else [inputs["group"]]
    if live.dtype is not torch.bool or not all(_is_index(t, pairs[0]) for t in pairs):
        return False
    within = all(bool(((t >= 0) & (t < end)).all()) for t, end in zip(pairs, (count, units), strict=False))
    return live.shape == (count,) and features in (None, count) and within


def _is_index(t: Tensor, like: Tensor) -> bool:
    return t.dtype is torch.long and t.dim() == 1 and t.shape == like.shape


def load_paths(sequence: TaskSequence, state: Mapping[str, Any]) -> None:
    """Let the session's unit graph hold for the saved one's forwards too."""
    ways = state.get("ways")
    if ways is not None and sequence.branches is not None:
        maps = {name: InputMap(**inputs) for name, inputs in ways["inputs"].items()}
        sequence.branches.adopt(united(sequence.attached.graph, maps, ways["whole"]))
