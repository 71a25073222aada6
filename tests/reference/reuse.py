"""The share of a layer's signal that comes from earlier tasks' units, by loops."""

from __future__ import annotations

from collections.abc import Sequence


def reuse(
    weight: Sequence[Sequence[float]],
    inputs: Sequence[Sequence[float]],
    rows: Sequence[bool],
    opened: Sequence[bool],
    used: Sequence[bool],
) -> float:
    """Return the share for a linear layer.

    Args:
        weight: The weight, by row and input.
        inputs: The layer's inputs, by sample.
        rows: Which rows the task trains.
        opened: Which inputs come from a unit that is open in the task.
        used: Which inputs come from a unit that an earlier task uses.
    """
    old = whole = 0.0
    for i in range(len(opened)):
        if not opened[i]:
            continue
        mean = sum(abs(x[i]) for x in inputs) / len(inputs)
        signal = mean * sum(abs(weight[r][i]) for r in range(len(weight)) if rows[r])
        whole += signal
        old += signal if used[i] else 0.0
    return old / whole
