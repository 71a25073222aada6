"""`torch.compile` after `attach`: the compiled model trains, keeps its bits and gives those of the plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh
from tests.adapters.ddp_worlds import images, logits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Forget what was compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def network() -> nn.Sequential:
    """Return a network with gates on its output, behind a norm, and none."""
    body = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 16), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(16, 3))


def learn(compiled: Callable[[nn.Module], Any]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Learn three tasks; return the model and the logits of the first task after each."""
    torch.manual_seed(0)
    session = fh.attach(network(), {}, images(2, 0))
    model = compiled(session.model)
    looks = []
    for number in range(3):
        with session.task(f"task {number}") as task:
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1)))
            model.train()
            for step, y in task.batches([(step, torch.arange(8) % 3) for step in range(3)]):
                optimizer.zero_grad()
                (F.cross_entropy(model(images(8, 10 * number + step)), y) + task.regularization()).backward()
                optimizer.step()
        model.eval()
        looks.append(logits(session, "task 0", model))
    return {name: value.clone() for name, value in session.model.state_dict().items()}, looks


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_learns_the_same_and_forgets_nothing(backend: str) -> None:
    plain, _ = learn(lambda model: model)
    state, looks = learn(lambda model: torch.compile(model, backend=backend))
    assert all(torch.equal(looks[0], look) for look in looks)
    torch.testing.assert_close(state, plain, rtol=1e-4, atol=1e-5)


def test_annealing_costs_no_recompilation() -> None:
    session = fh.attach(network(), {}, images(2, 0))
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    model = torch.compile(session.model, backend=backend)
    with session.task("a") as task:
        counts = []
        for x in task.batches([images(4, k) for k in range(5)]):
            model(x).sum().backward()
            counts.append(len(compiled))
    assert counts[1:] == [counts[1]] * 4
