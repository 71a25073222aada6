"""What further traces added to the unit graph, as plain data and back: a resumed session needs it too.

In a saved state the key is `ways`, as in the folders of earlier releases; the word here is execution path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.extend import merge_into_graph
from fgadahat_hooks.graph.unit_graph import InputMap
from fgadahat_hooks.tasks.sequence import TaskSequence

_KEY = "ways"


def dump_paths(sequence: TaskSequence) -> dict[str, Any]:
    """Return the unit graph's input maps and `whole` layers; empty if no trace after the first has changed them."""
    sequence.retrace_pending()
    if sequence.branches is None or not sequence.branches.grown:
        return {}
    graph = sequence.attached.graph
    maps = {name: {**vars(inputs)} for name, inputs in graph.inputs.items()}
    return {_KEY: {"inputs": maps, "whole": [n for n, layer in graph.layers.items() if layer.mixed_weight]}}


def path_problems(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare a saved graph with the model; one that does not fit would protect the wrong entries."""
    saved = state.get(_KEY)
    if saved is None:
        return
    graph = sequence.attached.graph
    yield from (f"layer '{n}' of the unit graph has no gate" for n in saved["whole"] if n not in graph.layers)
    features = {name: kind.inputs(module) for name, (module, kind) in sequence.attached.readers().items()}
    for name, inputs in saved["inputs"].items():
        if not _fits(inputs, features.get(name), graph.total_units):
            yield f"the inputs of layer '{name}' in the unit graph do not fit"


def _fits(inputs: Mapping[str, Any], features: int | None, units: int) -> bool:
    """Return whether an input map is well-formed; `features` is None for a layer that this session has not traced."""
    count, live, pairs = inputs["features"], inputs["live"], [inputs["feature"], inputs["unit"]]
    pairs += [] if inputs["group"] is None else [inputs["group"]]
    if live.dtype is not torch.bool or not all(_is_index(t, pairs[0]) for t in pairs):
        return False
    within = all(bool(((t >= 0) & (t < end)).all()) for t, end in zip(pairs, (count, units), strict=False))
    return live.shape == (count,) and features in (None, count) and within


def _is_index(t: Tensor, like: Tensor) -> bool:
    return t.dtype is torch.long and t.dim() == 1 and t.shape == like.shape


def load_paths(sequence: TaskSequence, state: Mapping[str, Any]) -> None:
    """Extend the session's unit graph so that it holds for the saved session's forwards too."""
    saved = state.get(_KEY)
    if saved is not None and sequence.branches is not None:
        maps = {name: InputMap(**inputs) for name, inputs in saved["inputs"].items()}
        sequence.branches.adopt(merge_into_graph(sequence.attached.graph, maps, saved["whole"]))
