"""The utility of continual backprop: its equations, its running means, and what it needs from the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.importance import ConsumerView, LayerView
from fgadahat_hooks.importance.cbp import CbpUtility
from fgadahat_hooks.layers import LinearType
from tests.importance.replay_models import data
from tests.reference.cbp import utilities

SPEC = {
    "adjustment": {"mode": "fg_adahat"},
    "importance": {"type": "cbp_utility", "params": {"decay": 0.8}, "multiply_training_mask": False},
}


def view(own: nn.Linear, following: nn.Linear, h: Tensor, centre: Tensor | None) -> LayerView:
    every = torch.arange(own.out_features)
    reader = ConsumerView("next", following, LinearType(), following.weight, None, every, every)
    away = (h if centre is None else h - centre).abs().mean(0)
    return LayerView("one", own, LinearType(), own.out_features, own.weight, None, away, (reader,), h.mean(0))


def sums(own: nn.Module, following: nn.Module) -> tuple[list[float], list[float]]:
    """Return the sums of absolute outgoing and incoming weights."""
    own_weight, following_weight = own.get_parameter("weight"), following.get_parameter("weight")
    return following_weight.abs().sum(0).tolist(), (own_weight.abs().sum(1) + 1e-8).tolist()


def test_equals_the_reference_also_across_a_restart() -> None:
    own, following = nn.Linear(5, 4, dtype=torch.float64), nn.Linear(4, 3, dtype=torch.float64)
    steps = [torch.randn(6, 4, dtype=torch.float64) + 1 for _ in range(5)]
    expected = utilities([h.tolist() for h in steps], *sums(own, following), decay=0.9)
    measure = CbpUtility(decay=0.9)
    for number, (h, wanted) in enumerate(zip(steps, expected, strict=True)):
        if number == 3:
            state, measure = measure.state_dict(), CbpUtility(decay=0.9)
            measure.load_state_dict(state)
        found = measure.compute(view(own, following, h, measure.centre("one")))
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_utility_of_a_constant_unit_goes_to_0() -> None:
    """A bias of the next layer could replace it."""
    own, following = nn.Linear(5, 4, dtype=torch.float64), nn.Linear(4, 3, dtype=torch.float64)
    measure = CbpUtility(decay=0.5)
    for _ in range(40):
        h = torch.randn(6, 4, dtype=torch.float64)
        h[:, 2] = 7.0
        found = measure.compute(view(own, following, h, measure.centre("one")))
    assert float(found[2]) < 1e-6
    assert float(found[[0, 1, 3]].min()) > 1e-2


def test_on_a_model_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The running mean of the step before is subtracted; the weights are those before the step."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    (x, y), activations, found = data(8), [], []
    compute = CbpUtility.compute

    def compute_and_record(measure: CbpUtility, shown: LayerView) -> Tensor:
        found.append(compute(measure, shown))
        return found[-1]

    monkeypatch.setattr(CbpUtility, "compute", compute_and_record)
    session = fh.attach(model, SPEC, x[:1])
    handle = model[1].register_forward_hook(lambda _, __, h: activations.append(h.detach().tolist()))
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=1e-12, gate_lr=1.0)))
        for inputs, labels in task.batches([(x + shift, y) for shift in range(3)]):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        handle.remove()  # the end of the task runs the last batches again
    wanted = utilities(activations, *sums(model[0], model[2]), decay=0.8)
    assert len(found) == 3
    for value, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_parameters() -> None:
    for decay in (0, 1, -0.5, "x", True):
        with pytest.raises(BadCallError, match="`decay`"):
            CbpUtility(decay=decay)  # type: ignore[arg-type]


def test_a_view_without_signed_activation() -> None:
    own, following = nn.Linear(5, 4), nn.Linear(4, 3)
    shown = view(own, following, torch.randn(6, 4), None)
    bare = LayerView(shown.name, own, shown.kind, 4, own.weight, None, shown.activation, shown.consumers)
    with pytest.raises(BadCallError, match="signed activation"):
        CbpUtility().compute(bare)
