"""Measures, rules of LRP and training on a network of each layer type and on the linear network that computes the same.

A convolution with kernel size 1 over a single position is a linear layer.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from tests.reference.layout import rows

KINDS = ("Conv1d", "Conv3d", "ConvTranspose2d", "Conv1D")  # of each implementation one, of convolutions two
CASES: dict[str, dict[str, Any]] = {
    **{name: {} for name in registry.measures.names()},
    "lrp_abs gamma": {"rule": "gamma"},
    "lrp_abs alpha1_beta0": {"rule": "alpha1_beta0"},
    "gradient_x_activation_abs layer": {"attribute_to": "layer"},
}


class Network(nn.Module):
    """Two layers of a kind and a linear head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second, self.head = layer(kind, 4, 6), layer(kind, 6, 5), nn.Linear(5, 3)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.positions = [1] * int(kind[-2]) if kind.endswith("d") else []

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.first(x.view(len(x), -1, *self.positions)))
        logits: Tensor = self.head(self.relu2(self.second(h)).flatten(1))
        return logits


def layer(kind: str, inputs: int, units: int) -> nn.Module:
    if kind == "Linear":
        return nn.Linear(inputs, units)
    if kind == "Conv1D":
        made: nn.Module = pytest.importorskip("transformers.pytorch_utils").Conv1D(units, inputs)
        nn.init.normal_(made.get_parameter("weight"))
        nn.init.normal_(made.get_parameter("bias"))
        return made
    module: nn.Module = getattr(nn, kind)(inputs, units, 1)
    return module


def twins(kind: str) -> tuple[nn.Module, nn.Module]:
    """Return a network and its linear twin, both in double precision."""
    torch.manual_seed(2)
    network, linear = Network(kind).double(), Network("Linear").double()
    with torch.no_grad():
        for name in ("first", "second", "head"):
            mine, theirs = network.get_submodule(name), linear.get_submodule(name)
            weight = mine.get_parameter("weight")
            theirs.get_parameter("weight").copy_(rows(mine, weight).flatten(1))
            theirs.get_parameter("bias").copy_(mine.get_parameter("bias"))
    return network, linear


def measured(model: nn.Module, case: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return a measure inside a task, with the same gates and random numbers for every model."""
    session = fh.attach(model, {}, x[:1])
    with session.task("birds") as task:
        task.anneal(1, 50)
        with torch.no_grad():
            for embedding in session.embeddings.values():
                embedding.copy_(torch.linspace(-1, 1, embedding.numel()))
        torch.manual_seed(4)
        found = session.measure(case.split()[0], x, y, **CASES[case])
    session.detach()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_measures_equal_those_of_the_linear_twin(kind: str) -> None:
    network, linear = twins(kind)
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    torch.testing.assert_close(network(x), linear(x))
    for case in CASES:
        ours, theirs = measured(network, case, x, y), measured(linear, case, x, y)
        assert all(torch.allclose(ours[name], value, rtol=1e-9, atol=1e-12) for name, value in theirs.items()), case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["adahat", "fg_adahat", "hat"])
def test_training_is_that_of_the_linear_twin(kind: str, mode: str) -> None:
    """Two tasks with momentum and weight decay end with the same weights, so rates, importances and masks agree too."""
    models = twins(kind)
    for model in models:
        session = fh.attach(model, {"adjustment": {"mode": mode}}, torch.ones(1, 4, dtype=torch.float64))
        optimizer = None
        for number, task_id in enumerate(("birds", "cars")):
            torch.manual_seed(number)
            x, y = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
            with session.task(task_id) as task:
                with torch.no_grad():
                    for embedding in session.embeddings.values():
                        embedding.copy_(torch.randn(embedding.shape, dtype=torch.float64))
                    _same_head(model)
                groups = session.parameter_groups(lr=0.1, weight_decay=0.1)
                optimizer = optimizer or torch.optim.SGD(groups, momentum=0.9)
                task.protect(optimizer)
                for a, b in task.batches([(x, y)] * 4):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(a), b) + task.regularization()).backward()
                    optimizer.step()
    network, linear = models
    for name in ("first", "second"):
        mine, theirs = network.get_submodule(name), linear.get_submodule(name)
        weight = rows(mine, mine.get_parameter("weight")).flatten(1)
        torch.testing.assert_close(weight, theirs.get_parameter("weight").data, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.get_parameter("bias"), theirs.get_parameter("bias"), rtol=1e-9, atol=1e-12)


def _same_head(model: nn.Module) -> None:
    """Give a new head the same values in every model."""
    for parameter in model.get_submodule("head").parameters():
        parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
