"""`torch.compile` after `attach`: the compiled model trains, forgets no bit, and gives the plain model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.errors import NoTaskError
from tests.adapters.ddp_worlds import images, logits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Discard compiled code."""
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
    seen = []
    for number in range(3):
        with session.task(f"task {number}") as task:
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1)))
            model.train()
            for step, y in task.batches([(step, torch.arange(8) % 3) for step in range(3)]):
                optimizer.zero_grad()
                (F.cross_entropy(model(images(8, 10 * number + step)), y) + task.regularization()).backward()
                optimizer.step()
        model.eval()
        seen.append(logits(session, "task 0", model))
    return {name: value.clone() for name, value in session.model.state_dict().items()}, seen


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_learns_the_same_and_forgets_nothing(backend: str) -> None:
    plain, _ = learn(lambda model: model)
    state, seen = learn(lambda model: torch.compile(model, backend=backend))
    assert all(torch.equal(seen[0], logits) for logits in seen)
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


# ------------------------------------------------------------------ use() under a compiled model
def two_tasks() -> fh.Session:
    """Return a network that has learnt two tasks with heads of different sizes."""
    session = fh.attach(network(), {}, images(2, 0))
    for number in range(2):
        with session.task(f"task {number}", num_classes=3 + number) as task:
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2)))
            task.anneal(1, 1)
            F.cross_entropy(session.model(images(8, number)), torch.arange(8) % 3).backward()
            optimizer.step()
    session.model.eval()
    return session


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_use_switches_tasks_under_a_compiled_model(backend: str) -> None:
    session = two_tasks()
    model: Any = torch.compile(session.model, backend=backend, fullgraph=True)
    plain = {task: logits(session, task) for task in ("task 0", "task 1")}
    for task in ("task 0", "task 1", "task 0", "task 1"):
        torch.testing.assert_close(logits(session, task, model), plain[task], rtol=1e-5, atol=1e-6)
    with session.use("task 0"), torch.no_grad():
        before = model(images(4, 9))
        with session.use("task 1"):
            nested = model(images(4, 9))
        assert torch.equal(model(images(4, 9)), before)
    assert nested.shape != before.shape


def test_switching_tasks_compiles_once_for_each_shape() -> None:
    session = two_tasks()
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    model: Any = torch.compile(session.model, backend=backend, fullgraph=True)
    for _ in range(3):
        for task in ("task 0", "task 1"):
            logits(session, task, model)
    assert len(compiled) == 2


def test_a_compiled_model_gives_no_other_threads_task() -> None:
    session = two_tasks()
    model: Any = torch.compile(session.model, backend="eager")
    expected = logits(session, "task 0", model)
    with ThreadPoolExecutor(1) as pool, session.use("task 0"), pytest.raises(NoTaskError):
        pool.submit(model, images(4, 9)).result()
    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(logits, session, "task 0", model).result(), expected)
    assert torch.equal(logits(session, "task 0", model), expected)
