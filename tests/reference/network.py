"""A gated network of fully connected layers: its forward and its backward, number by number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.reference.mask import compensated_slope, sigmoid

Matrix = list[list[float]]
Parameters = dict[str, Matrix]
"""Weights `W0`, biases `b0` and embeddings `e0` of each gated layer, `W` and `b` of the head; vectors are one row."""


@dataclass
class Pass:
    """The values of one forward: per layer `[sample][unit]` before the gate and after the ReLU, and the masks."""

    inputs: Matrix
    before: list[Matrix]
    after: list[Matrix]
    masks: Matrix
    logits: Matrix


@dataclass
class Gates:
    """The scale of a batch, and its bounds."""

    scale: float
    s_max: float
    threshold: float


def linear(x: Matrix, weight: Matrix, bias: Matrix) -> Matrix:
    """Return `x W^T + b`."""
    return [
        [sum(w * v for w, v in zip(row, sample, strict=True)) + b for row, b in zip(weight, bias[0], strict=True)]
        for sample in x
    ]


def forward(p: Parameters, depth: int, x: Matrix, scale: float) -> Pass:
    """Run the network: each layer's output times its mask, then the ReLU."""
    found = Pass(x, [], [], [], [])
    h = x
    for i in range(depth):
        mask = [sigmoid(scale * e) for e in p[f"e{i}"][0]]
        z = linear(h, p[f"W{i}"], p[f"b{i}"])
        h = [[max(m * v, 0.0) for m, v in zip(mask, sample, strict=True)] for sample in z]
        found.masks.append(mask)
        found.before.append(z)
        found.after.append(h)
    found.logits = linear(h, p["W"], p["b"])
    return found


def cross_entropy(logits: Matrix, labels: list[int]) -> tuple[float, Matrix]:
    """Return the mean cross entropy and its gradient."""
    loss, gradient = 0.0, []
    for row, label in zip(logits, labels, strict=True):
        total = sum(math.exp(v) for v in row)
        loss += (math.log(total) - row[label]) / len(labels)
        gradient.append([(math.exp(v) / total - (k == label)) / len(labels) for k, v in enumerate(row)])
    return loss, gradient


def weight_gradient(upper: Matrix, lower: Matrix) -> tuple[Matrix, Matrix]:
    """Return the gradients of a weight and a bias from those of the output and the values of the input."""
    units, inputs, samples = len(upper[0]), len(lower[0]), range(len(upper))
    weight = [[sum(upper[s][i] * lower[s][j] for s in samples) for j in range(inputs)] for i in range(units)]
    return weight, [[sum(upper[s][i] for s in samples) for i in range(units)]]


def input_gradient(upper: Matrix, weight: Matrix) -> Matrix:
    """Return the gradient of a layer's input."""
    columns = range(len(weight[0]))
    return [[sum(row[i] * weight[i][j] for i in range(len(weight))) for j in columns] for row in upper]


def backward(
    p: Parameters, depth: int, run: Pass, logits_gradient: Matrix, regularizer_gradient: Matrix, gates: Gates
) -> Parameters:
    """Return the gradients of all parameters, those of the embeddings compensated.

    Args:
        p: The parameters.
        depth: Number of gated layers.
        run: The forward.
        logits_gradient: Gradient of the loss with respect to the logits.
        regularizer_gradient: Gradient of the regularizer with respect to each mask, times its factor.
        gates: The scale and its bounds.
    """
    grads: Parameters = {}
    grads["W"], grads["b"] = weight_gradient(logits_gradient, run.after[-1])
    up = input_gradient(logits_gradient, p["W"])
    for i in reversed(range(depth)):
        z, h, mask = run.before[i], run.after[i], run.masks[i]
        samples, units = range(len(z)), range(len(mask))
        gated = [[up[s][k] if h[s][k] > 0 else 0.0 for k in units] for s in samples]
        mask_gradient = [sum(gated[s][k] * z[s][k] for s in samples) + regularizer_gradient[i][k] for k in units]
        slopes = [compensated_slope(e, gates.scale, gates.s_max, gates.threshold) for e in p[f"e{i}"][0]]
        grads[f"e{i}"] = [[q * slope for q, slope in zip(mask_gradient, slopes, strict=True)]]
        output_gradient = [[gated[s][k] * mask[k] for k in units] for s in samples]
        grads[f"W{i}"], grads[f"b{i}"] = weight_gradient(output_gradient, run.after[i - 1] if i else run.inputs)
        up = input_gradient(output_gradient, p[f"W{i}"])
    return grads
