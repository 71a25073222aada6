"""Layers whose weight is transformed before it is used: every entry counts as used once a task is finished."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.forgetting import History
from tests.support.learning import recipe
from tests.support.zoo_models import CLASSES


class StandardisedConv2d(nn.Conv2d):
    """Subtracts the mean of the whole weight, so that each entry reaches every output."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean()
        return F.conv2d(x, weight / weight.std(), self.bias, padding=1)


class Standardised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3, padding=1)
        self.b = StandardisedConv2d(32, 32, 3)
        self.c = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32 * 64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.avg_pool2d(self.c(self.b(self.a(x).relu()).relu()), 4).flatten(1))
        return logits


@pytest.mark.parametrize("optimizer", ["adamw", "sgd_kept"])
def test_earlier_tasks_keep_their_bits(optimizer: str) -> None:
    history, how = History(Standardised()), recipe(optimizer)
    assert history.session.graph.layers["b"].mixed_weight
    history.learn("birds", how)
    before = history.session.model.get_parameter("b.weight").detach().clone()
    history.learn("cars", how)
    history.learn("boats", how)
    assert history.changed() == []
    assert torch.equal(before, history.session.model.get_parameter("b.weight"))
    assert not history.session.verify().leaks
