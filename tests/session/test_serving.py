"""One model, many tasks, many threads: every result is that of a single thread."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import SwinTransformer, VisionTransformer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import NoTaskError, TaskRunningError
from tests.support.learning import learn, logits, recipe
from tests.support.small import LeftError
from tests.support.small_models import Net, batch

TASKS = [f"task {number}" for number in range(8)]
ROUNDS = 12


def vit() -> nn.Module:
    """Return a transformer whose attention is gated on rows of its packed projection."""
    made: nn.Module = VisionTransformer(8, 4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=3)
    return made


def swin() -> nn.Module:
    """Return a transformer whose attention uses its weights in a functional call."""
    made: nn.Module = SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=3)
    return made


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "norms that carry the gate": (Net, (2, 6, 6)),
    "vit": (vit, (3, 8, 8)),
    "swin": (swin, (3, 8, 8)),
}


def served(model: nn.Module, shape: tuple[int, ...], tasks: list[str] = TASKS) -> fh.Session:
    """Return a session that has learnt tasks, each with another number of classes."""
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, torch.randn(1, *shape))
    for number, task in enumerate(tasks):
        x = torch.randn(6, *shape)
        learn(session, task, [(x, torch.arange(6) % 2)] * 2, recipe("adamw"), num_classes=2 + number % 3)
    session.model.eval()
    return session


@pytest.fixture
def session() -> fh.Session:
    """Return a small network with two tasks."""
    return served(Net(), (2, 6, 6), TASKS[:2])


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Make Python switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_together(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Start all jobs at once, each in its own thread, and return their results; the first error is raised."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait()
        with torch.no_grad():
            return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [done.result() for done in [pool.submit(run, job) for job in jobs]]


def in_another_thread(job: Callable[[], Any]) -> Any:
    """Run a job in another thread."""
    return run_together([job])[0]


# ---------------------------------------------------------------- the same bits
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("name", MODELS)
def test_eight_threads_get_what_one_gets(name: str) -> None:
    make, shape = MODELS[name]
    session, x = served(make(), shape), torch.randn(4, *shape)
    alone = {task: logits(session, task, x) for task in TASKS}
    assert len({value.double().sum().item() for value in alone.values()}) == len(TASKS)

    def evaluate(task: str) -> list[Tensor]:
        found = []
        for _ in range(ROUNDS):
            with session.use(task):
                found.append(session.model(x))
        return found

    found = run_together([lambda task=task: evaluate(task) for task in TASKS])  # type: ignore[misc]
    for task, values in zip(TASKS, found, strict=True):
        assert all(torch.equal(value, alone[task]) for value in values)


@pytest.mark.usefixtures("fast_switching")
def test_all_kinds_of_use_at_once() -> None:
    session, (x, y) = served(Net(), (2, 6, 6), TASKS[:4]), batch()
    one, other = TASKS[0], TASKS[3]
    ids = TASKS[:4] * 2

    def plain() -> list[Tensor]:
        with session.use(one):
            return [session.model(x)]

    def mixed() -> list[Tensor]:
        with session.use(ids):
            return [session.model(x)]

    def nested() -> list[Tensor]:
        with session.use(one):
            first = session.model(x)
            with session.use(other):
                second = session.model(x)
            return [first, second, session.model(x)]

    def broken() -> list[Tensor]:
        with suppress(LeftError), session.use(other):
            session.model(x)
            raise LeftError
        return []

    def measured() -> list[Tensor]:
        with session.use(other), torch.enable_grad():
            return list(session.measure("gradient_x_activation_abs", x, y % 2).values())

    def verified() -> list[Tensor]:
        assert session.verify().leaks == {}
        return []

    jobs = [plain, mixed, nested, broken, measured, verified, nested, mixed]
    with torch.no_grad():
        alone = [job() for job in jobs]
    for _ in range(4):
        for mine, theirs in zip(alone, run_together(jobs), strict=True):
            assert [torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)] == [True] * len(mine)
    assert torch.equal(logits(session, one, x), alone[0][0])


# ---------------------------------------------------------------- a thread without a block
@pytest.mark.parametrize("kind", ["norms that carry the gate", "vit"])
def test_a_thread_without_a_block_gets_no_other_threads_task(kind: str) -> None:
    make, shape = MODELS[kind]
    session, x = served(make(), shape, TASKS[:2]), torch.randn(2, *shape)
    expected = logits(session, "task 0", x)
    hidden = session.model.state_dict().keys()
    with session.use("task 0"), torch.no_grad():
        with pytest.raises(NoTaskError, match="in a thread without a `use` block of its own"):
            in_another_thread(lambda: session.model(x))
        assert torch.equal(session.model(x), expected)
    with pytest.raises(NoTaskError, match="outside any task"):
        in_another_thread(lambda: session.model(x))
    assert session.model.state_dict().keys() == hidden
    assert torch.equal(logits(session, "task 0", x), expected)


@pytest.mark.usefixtures("fast_switching")
def test_refused_threads_do_not_disturb_others() -> None:
    session, x = served(vit(), (3, 8, 8), TASKS[:2]), torch.randn(2, 3, 8, 8)
    expected, done = logits(session, "task 1", x), threading.Event()

    def evaluate() -> list[Tensor]:
        try:
            found = []
            for _ in range(60):
                with session.use("task 1"):
                    found.append(session.model(x))
            return found
        finally:
            done.set()

    def intrude() -> list[Tensor]:
        while not done.is_set():
            with pytest.raises(NoTaskError):
                session.model(x)
        return []

    for found in run_together([evaluate, intrude, intrude]):
        assert all(torch.equal(value, expected) for value in found)


# ---------------------------------------------------------------- a running task
def test_a_running_task_has_exclusive_use_of_the_model(session: fh.Session) -> None:
    x = batch()[0]
    before = logits(session, "task 0", x)
    with session.task("task 2") as task:
        task.anneal(1, 1)
        for what in (lambda: logits(session, "task 0", x), lambda: session.use("task 2").__enter__()):
            with pytest.raises(TaskRunningError, match="Task 'task 2' is running in another thread"):
                in_another_thread(what)
        assert torch.equal(logits(session, "task 0", x), before)
    assert torch.equal(in_another_thread(lambda: logits(session, "task 0", x)), before)


def test_a_task_begins_when_the_blocks_of_other_threads_are_closed(session: fh.Session) -> None:
    x, entered, go = batch()[0], threading.Event(), threading.Event()
    before = logits(session, "task 1", x)
    head = session.model.get_parameter("head.weight").detach().clone()

    def look() -> Tensor:
        with session.use("task 1"), torch.no_grad():
            entered.set()
            go.wait(0.2)  # without the lock, the task would begin now
            out: Tensor = session.model(x)
            return out

    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(look)
        entered.wait()
        with suppress(LeftError), session.task("task 2", num_classes=5):
            go.set()
            assert torch.equal(looked.result(), before)
            raise LeftError
    assert torch.equal(session.model.get_parameter("head.weight"), head)


# ---------------------------------------------------------------- backward, copies, coroutines
class _Deep(torch.autograd.Function):
    """Runs backwards inside backwards until autograd continues in a thread of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, at_the_bottom: Callable[[], None]) -> Tensor:
        ctx.depth, ctx.at_the_bottom = depth, at_the_bottom
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if ctx.depth == 0:
            ctx.at_the_bottom()
        else:
            with torch.enable_grad():
                x = torch.zeros(1, requires_grad=True)
                out: Tensor = _Deep.apply(x, ctx.depth - 1, ctx.at_the_bottom)
                out.sum().backward()
        return grads[0], None, None


@pytest.mark.parametrize("chosen", ["task 0", ["task 0", "task 1"] * 4], ids=["one", "mixed"])
@pytest.mark.parametrize("running", [False, True])
def test_the_forward_may_run_again_in_a_thread_of_autograd(session: fh.Session, chosen: Any, running: bool) -> None:
    x, seen = batch()[0], []
    expected = logits(session, chosen, x)

    def run() -> None:
        with torch.no_grad():
            seen.append((threading.get_ident(), session.model(x)))

    with suppress(LeftError), session.task("task 2") if running else nullcontext():
        with session.use(chosen):
            out: Tensor = _Deep.apply(torch.zeros(1, requires_grad=True), 70, run)
            out.sum().backward()
        raise LeftError
    assert seen[0][0] != threading.get_ident()
    assert torch.equal(seen[0][1], expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_work_in_a_block(session: fh.Session, reentrant: bool) -> None:
    def gradient(run: Callable[[Tensor], Tensor]) -> Tensor:
        x = batch()[0].requires_grad_()
        run(x).sum().backward()
        assert x.grad is not None
        return x.grad

    with session.use("task 1"):
        plain = gradient(session.model)
        again = gradient(lambda x: checkpoint(session.model, x, use_reentrant=reentrant))
    assert torch.equal(plain, again)
    assert plain.any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_copy_made_in_a_block_stays_that_task(session: fh.Session, copied: Callable[[nn.Module], nn.Module]) -> None:
    x = batch()[0]
    expected = logits(session, "task 0", x)
    with session.use("task 0"):
        made = copied(session.model)
        with torch.no_grad():
            assert torch.equal(in_another_thread(lambda: made(x)), expected)
    with torch.no_grad(), session.use("task 1"):
        assert torch.equal(made(x), expected)


def test_a_coroutine_may_not_wait_inside_a_block(session: fh.Session) -> None:
    x = batch()[0]
    alone = [logits(session, task, x) for task in session.tasks]

    async def evaluate(task: str, wait: bool) -> Tensor:
        with torch.no_grad(), session.use(task):
            if wait:
                await asyncio.sleep(0)
            out: Tensor = session.model(x)
            return out

    async def both(wait: bool) -> list[Any]:
        jobs = (evaluate("task 0", wait), evaluate("task 1", wait))
        return list(await asyncio.gather(*jobs, return_exceptions=True))

    assert all(torch.equal(a, b) for a, b in zip(alone, asyncio.run(both(False)), strict=True))
    first, second = asyncio.run(both(True))
    assert torch.equal(first, alone[0])
    assert isinstance(second, TaskRunningError)
    assert "Do not await inside the block" in str(second)
    assert torch.equal(logits(session, "task 1", x), alone[1])
