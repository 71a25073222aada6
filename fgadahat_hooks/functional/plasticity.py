"""How a task finds room to learn: its share of the units, the scale of free rows, learning rates by share.

This library's own equations. HAT closes most of a network to each task: a task reads what earlier tasks left and learns
with its own units alone. These equations keep the signal and the speed of learning what they are without gates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def task_share(units: int, tasks: int, finished: int, first: float = 1.5) -> int:
    """Return the number of units of a layer that a task gets; those of all tasks together are `units`.

    The layer is cut into `S = T + a - 1` parts for `T` tasks. The first task, which finds nothing to read, gets `a` of
    them, a later one gets one: with `c(x) = floor(x n / S + 1/2)`, the first `c(a)` and, after `t` finished tasks,
    `c(t + a) - c(t + a - 1)`. At least 1; a task beyond `T` gets one part, too.

    Args:
        units: Number of units `n` of the layer.
        tasks: Number of tasks `T` that are expected.
        finished: Number of finished tasks `t`.
        first: Parts `a` that the first task gets.
    """
    parts = tasks + first - 1

    def cut(end: float) -> int:
        return math.floor(end * units / parts + 0.5)

    if finished == 0:
        return max(1, cut(first))
    begin = finished + first - 1 if finished < tasks else 0
    return max(1, cut(begin + 1) - cut(begin))


def free_row_factor(open_inputs: float) -> float:
    """Return the factor `1 / sqrt(f)` of a free unit's incoming weights, for a share `f` of open inputs.

    A unit sums over its open inputs alone. With this factor the variance of that sum is what it is without gates.
    """
    return 1.0 / math.sqrt(open_inputs) if open_inputs > 0 else 1.0


def calibrated_gain(mean: Tensor, std: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """Return gain `s / std` and bias `-s mean / std`: with them a unit's output has mean 0 and standard deviation `s`.

    The units of earlier tasks were trained for other data: on new data some are nearly constant, and others many times
    larger than a fresh unit. The same idea gives fresh networks their first scale in Salimans and Kingma, "Weight
    Normalization" (2016), section 3. A unit that is constant keeps gain 1 and bias 0.

    Args:
        mean: Mean of each unit's output, `(units,)`.
        std: Its standard deviation, `(units,)`.
        target: Standard deviation `s` that outputs are to have.
    """
    varies = std > CONSTANT_UNIT * mean.abs().clamp(min=torch.finfo(mean.dtype).tiny)
    gain = torch.where(varies, target / torch.where(varies, std, 1.0), 1.0)
    return gain, torch.where(varies, -mean * gain, 0.0)


GRADIENT_GAIN_FACTOR = 0.1
"""Factor on the learning rate of gains and biases of units with SGD, whose step is as large as the gradient: theirs
are sums over all that a unit gives, and a trained unit gives much."""

CONSTANT_UNIT = 1e-4
"""A unit counts as constant if its standard deviation is a smaller part of its mean than this: what it varies by is
mostly rounding, which its gain would blow up."""


def learning_rate_factor(
    lr: float,
    open_inputs: float,
    open_units: float,
    new_units: float,
    weight_std: float,
    max_factor: float = 8.0,
    max_step: float = 0.2,
) -> float:
    """Return by how much the learning rate of a layer is multiplied, for optimizers whose step is about `lr` an entry.

    The factor is `max(min(c, 1/f), min(sqrt(p) / (q f), k std(W) / (sqrt(f) lr)))`. Of the open units `p` only the new
    ones `q` learn, from the open inputs `f`; so their steps must be larger for the layer's output to move as it does
    without gates. The last term ends the growth where a step would be a large part of a weight.

    Args:
        lr: Learning rate of the step, > 0.
        open_inputs: Share `f` of the layer's inputs that are open, 0 to 1.
        open_units: Share `p` of its units that are open.
        new_units: Share `q` of its units that are new in this task; without any, the factor is 1.
        weight_std: Standard deviation of its weights before the first task.
        max_factor: Limit `c` of the first term.
        max_step: Limit `k` of a step, as a part of the weights' standard deviation.
    """
    if new_units <= 0 or open_inputs <= 0:
        return 1.0
    by_inputs = min(max_factor, 1.0 / open_inputs)
    by_units = math.sqrt(open_units) / (new_units * open_inputs)
    by_step = max_step * weight_std / (math.sqrt(open_inputs) * lr)
    return max(by_inputs, min(by_units, by_step))


MAX_GRADIENT_RATE = 1.0
"""Up to where SGD's learning rate is raised, over `1 - momentum`. Small networks with inputs of size 1 become
unstable not far above it."""


def gradient_learning_rate_factor(
    lr: float, open_inputs: float, open_units: float, new_units: float, max_factor: float = 8.0, momentum: float = 0.0
) -> float:
    """Return by how much the learning rate of a layer is multiplied, for SGD, whose step is as large as the gradient.

    The factor is `min(c, p / (q f), max(1, (1 - m) / lr))`. A step lowers the loss by `lr` times the sum of the
    squared gradients of what learns: of a share `q f` of the weights, whose gradients the rescaled weights above make
    `1 / sqrt(p)` as large. The last term ends the growth where a learning rate is near the limit of stability already.

    Args:
        lr: Learning rate of the step, > 0.
        open_inputs: Share `f` of the layer's inputs that are open, 0 to 1.
        open_units: Share `p` of its units that are open.
        new_units: Share `q` of its units that are new in this task; without any, the factor is 1.
        max_factor: Limit `c`.
        momentum: Momentum `m`, 0 to 1.
    """
    if new_units <= 0 or open_inputs <= 0:
        return 1.0
    return min(max_factor, open_units / (new_units * open_inputs), stable_gradient_factor(lr, momentum))


def stable_gradient_factor(lr: float, momentum: float) -> float:
    """Return the largest factor, at least 1, that keeps SGD's learning rate below `MAX_GRADIENT_RATE (1 - m)`."""
    return max(1.0, MAX_GRADIENT_RATE * (1.0 - momentum) / lr)


def head_learning_rate_factor(open_inputs: float, max_factor: float = 8.0) -> float:
    """Return by how much a head's learning rate is multiplied: `min(c, 1 / f)` for a share `f` of open inputs."""
    return min(max_factor, 1.0 / open_inputs) if open_inputs > 0 else 1.0
