"""Optimizers, one number at a time, from their papers' update rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Options:
    """Hyperparameters of an optimizer; a rule ignores those it does not have."""

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    alpha: float = 0.99
    eps: float = 1e-8


State = dict[str, float]
"""The state of an optimizer for one number."""


def sgd(p: float, g: float, state: State, o: Options) -> float:
    """Return the number after a step of SGD, with momentum if there is any."""
    g = g + o.weight_decay * p
    if o.momentum:
        g = state["buffer"] = o.momentum * state["buffer"] + g if "buffer" in state else g
    return p - o.lr * g


def adam(p: float, g: float, state: State, o: Options) -> float:
    """Return the number after a step of Adam; weight decay is part of the gradient."""
    g = g + o.weight_decay * p
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = o.beta1 * state.get("m", 0) + (1 - o.beta1) * g
    v = state["v"] = o.beta2 * state.get("v", 0) + (1 - o.beta2) * g * g
    root = math.sqrt(v / (1 - math.pow(o.beta2, t)))
    return p - o.lr * (m / (1 - math.pow(o.beta1, t))) / (root + o.eps)


def adamw(p: float, g: float, state: State, o: Options) -> float:
    """Return the number after a step of AdamW; weight decay shrinks the number itself."""
    return adam(p * (1 - o.lr * o.weight_decay), g, state, Options(o.lr, 0.0, 0.0, o.beta1, o.beta2, eps=o.eps))


def rmsprop(p: float, g: float, state: State, o: Options) -> float:
    """Return the number after a step of RMSprop without momentum."""
    g = g + o.weight_decay * p
    v = state["v"] = o.alpha * state.get("v", 0) + (1 - o.alpha) * g * g
    return p - o.lr * g / (math.sqrt(v) + o.eps)


RULES: dict[str, Callable[[float, float, State, Options], float]] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
}
