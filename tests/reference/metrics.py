"""The metrics of continual learning, entry by entry, tasks counted from 1 as in the papers."""

from __future__ import annotations

import math

Rows = list[list[float]]


class Accuracies:
    """`a(i, j)` of a matrix that may miss entries; `T` is the last task after which there is any."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.T = max((i for i, row in enumerate(rows, 1) if not all(map(math.isnan, row))), default=0)

    def __call__(self, i: int, j: int) -> float:
        return self.rows[i - 1][j - 1]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def average_accuracy(rows: Rows) -> float:
    a = Accuracies(rows)
    return mean([a(a.T, j) for j in range(1, a.T + 1)])


def average_incremental_accuracy(rows: Rows) -> float:
    a = Accuracies(rows)
    return mean([mean([a(k, j) for j in range(1, k + 1)]) for k in range(1, a.T + 1)])


def learning_accuracy(rows: Rows) -> float:
    a = Accuracies(rows)
    return mean([a(j, j) for j in range(1, a.T + 1)])


def backward_transfer(rows: Rows) -> float:
    a = Accuracies(rows)
    return mean([a(a.T, j) - a(j, j) for j in range(1, a.T)])


def forward_transfer_gem(rows: Rows, untrained: list[float]) -> float:
    a = Accuracies(rows)
    return mean([a(j - 1, j) - untrained[j - 1] for j in range(2, a.T + 1)])


def forward_transfer(rows: Rows, independent: list[float]) -> float:
    a = Accuracies(rows)
    return mean([a(j, j) - independent[j - 1] for j in range(2, a.T + 1)])


def forgetting(rows: Rows) -> float:
    a = Accuracies(rows)
    falls = []
    for j in range(1, a.T):
        best = -math.inf
        for i in range(1, a.T):
            if math.isnan(a(i, j)):
                if i >= j:  # the task was learnt by then, and its best may be what is missing
                    return math.nan
            else:
                best = max(best, a(i, j))
        falls.append(best - a(a.T, j))
    return mean(falls)


def intransigence(rows: Rows, joint: list[float]) -> list[float]:
    a = Accuracies(rows)
    return [joint[k - 1] - a(k, k) for k in range(1, a.T + 1)]


def forgetting_ratio(rows: Rows, joint: Rows, random: list[float]) -> float:
    a = Accuracies(rows)
    return ratio(rows, joint[a.T - 1], random)


def ratio(rows: Rows, upper: list[float], random: list[float]) -> float:
    a = Accuracies(rows)
    parts = []
    for j in range(1, a.T + 1):
        room = upper[j - 1] - random[j - 1]
        parts.append(math.nan if room == 0 else (a(a.T, j) - random[j - 1]) / room - 1)
    return mean(parts)


def mask_use(masks: Rows) -> list[float]:
    return [mean(mask) for mask in masks]


def cumulative_mask_use(masks: Rows) -> list[float]:
    return [mean([max(masks[tau][i] for tau in range(t + 1)) for i in range(len(masks[0]))]) for t in range(len(masks))]


def mask_overlap(masks: Rows) -> Rows:
    return [
        [sum(a * b for a, b in zip(one, other, strict=True)) / sum(one) if sum(one) else math.nan for other in masks]
        for one in masks
    ]


def free_unit_fraction(masks: Rows) -> float:
    return mean([float(not any(column)) for column in zip(*masks, strict=True)])
