"""From values per unit to values per weight: how earlier tasks use a layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.callbacks.prior_use import PriorUse, UnitVectors, prior_use
from tests.support.small import mlp

X = torch.randn(2, 4, dtype=torch.float64)


class ContextKeeper(fh.Callback):
    """Keeps the context of the newest task."""

    context: fh.TaskContext

    def on_task_start(self, context: fh.TaskContext) -> None:
        self.context = context


def context_after(model: nn.Module, example: Tensor, masks: list[dict[str, list[bool]]], **spec: Any) -> fh.TaskContext:
    """Return the context of a task that follows tasks of given masks."""
    keeper = ContextKeeper()
    session = fh.attach(model, spec, example, [keeper])
    for number, given in enumerate([*masks, {}]):
        with session.task(number):
            for name, mask in given.items():
                embedding = model.get_submodule(f"{name}.hat_gate").get_parameter("embedding")
                embedding.data = torch.tensor([1.0 if m else -1.0 for m in mask], dtype=embedding.dtype)
    return keeper.context


def prior_use_of(context: fh.TaskContext, layer: str, importance: Tensor, aggregation: str) -> dict[str, PriorUse]:
    """Return how earlier tasks use a layer's weight and bias, with a given importance."""
    vectors = UnitVectors(context.cumulative, context.summative, importance, aggregation)
    return prior_use(context, context.layers[layer], vectors)


def test_a_weight_takes_the_smaller_of_its_two_units_and_a_bias_its_own() -> None:
    masks = [{"0": [True, True, False], "2": [True, False]}, {"0": [True, False, False], "2": [True, True]}]
    context = context_after(mlp(4, 3, 2, 2), X, masks)
    importance = torch.tensor([5.0, 3.0, 0.0, 4.0, 2.0], dtype=torch.float64)
    first, second = (prior_use_of(context, n, importance, "min") for n in ("0", "2"))
    assert first["weight"].protected.flatten().tolist() == [1, 1, 0]
    assert first["weight"].count.flatten().tolist() == [2, 1, 0]
    assert first["bias"].importance.tolist() == [5, 3, 0]
    assert second["weight"].protected.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert second["weight"].count.tolist() == [[2, 1, 0], [1, 1, 0]]
    assert second["weight"].importance.tolist() == [[4, 3, 0], [2, 2, 0]]
    assert second["bias"].count.tolist() == [2, 1]
    assert second["weight"].task == 3


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("max", [[5, 4, 4], [5, 3, 2]]), ("mean", [[4.5, 3.5, 2], [3.5, 2.5, 1]])]
)
def test_importance_is_aggregated_as_asked_masks_always_by_min(aggregation: str, expected: list[list[float]]) -> None:
    context = context_after(mlp(4, 3, 2, 2), X, [{"0": [True, True, False], "2": [True, False]}])
    importance = torch.tensor([5.0, 3.0, 0.0, 4.0, 2.0], dtype=torch.float64)
    prior = prior_use_of(context, "2", importance, aggregation)
    assert prior["weight"].importance.tolist() == expected
    assert prior["weight"].protected.tolist() == [[1, 1, 0], [0, 0, 0]]


class Skip(nn.Module):
    """One layer reads two others and the model's input beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2, dtype=torch.float64)
        self.b = nn.Linear(2, 2, dtype=torch.float64)
        self.c = nn.Linear(4, 2, dtype=torch.float64)
        self.head = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.relu(self.a(x)) + torch.relu(self.b(x))
        return self.head(torch.relu(self.c(torch.cat([both, x], 1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("aggregation", "live"), [("min", 4.0), ("max", 9.0), ("mean", 6.5)])
def test_a_skip_takes_the_larger_producer_and_a_live_input_the_largest_value(aggregation: str, live: float) -> None:
    masks = [{"a": [True, False], "b": [False, False], "c": [True, False]}]
    context = context_after(Skip(), torch.randn(2, 2, dtype=torch.float64), masks)
    importance = torch.tensor([1.0, 0.0, 3.0, 9.0, 4.0, 0.5], dtype=torch.float64)
    assert list(context.layers) == ["a", "b", "c"]
    prior = prior_use_of(context, "c", importance, aggregation)
    assert prior["weight"].protected.tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]
    assert prior["weight"].importance[0, 2:].tolist() == [live, live]
    known = {"min": [3.0, 4.0], "max": [4.0, 9.0], "mean": [3.5, 6.5]}[aggregation]
    assert prior["weight"].importance[0, :2].tolist() == known


def test_a_layer_that_reads_the_input_alone_counts_its_own_units() -> None:
    context = context_after(mlp(4, 3, 2), X, [{"0": [True, False, True]}])
    prior = prior_use_of(context, "0", torch.ones(3).double(), "mean")
    assert prior["weight"].protected.shape == (3, 1)
    assert prior["weight"].importance.flatten().tolist() == [1, 1, 1]


def test_a_layer_without_bias_has_no_bias_rate() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    context = context_after(model, torch.randn(2, 4), [{"0": [True, False, True]}])
    assert set(prior_use_of(context, "0", torch.ones(3), "min")) == {"weight"}


def test_a_convolution_broadcasts_over_its_kernel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2))
    given = {"0": [True, False, False, True], "2": [True, True, True, False]}
    context = context_after(model, torch.randn(1, 1, 5, 5), [given])
    prior = prior_use_of(context, "2", torch.ones(8), "min")
    expected = [[1, 0], [1, 0], [0, 1], [0, 0]]
    assert prior["weight"].protected.expand(4, 2, 1, 1).flatten(1).tolist() == expected
