"""Accelerate: the adapter's additions to an ordinary loop on an `Accelerator`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, IterableDataset

from fgadahat_hooks.adapters.accelerate import accelerate_task
from fgadahat_hooks.errors import BadCallError, ForeignOptimizerError, NoTaskError
from tests.adapters.accelerate_world import Steps, X, Y, attached, learn, loader


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_skipped_steps_do_not_count() -> None:
    steps = Steps()
    session = attached(steps)
    learn(session, Accelerator(cpu=True, gradient_accumulation_steps=4), "a", session.model)
    assert len(steps.scales) == 6
    assert (steps.ready, steps.after) == (2, 2)  # after four batches, and at the end of the epoch
    assert steps.scales[0] == pytest.approx(1 / 400)
    assert steps.scales[-1] == 400


def test_callbacks_see_gradients_before_clipping() -> None:
    steps = Steps()
    session = attached(steps)
    learn(session, Accelerator(cpu=True, gradient_accumulation_steps=4), "a", session.model, clip=1e-3)
    assert (steps.ready, steps.after) == (2, 2)
    assert min(steps.norms) > 0.1


def test_clipping_gives_the_norm_as_the_accelerator_does() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    with accelerate_task(session, accelerator, "a") as task:
        model, optimizer = task.prepare(session.model, SGD(session.parameter_groups(lr=0.1)))
        norms = []
        for x, y in task.batches([(X[:4], Y[:4])] * 2):
            with accelerator.accumulate(model):
                task.backward(F.cross_entropy(model(x), y))
                grads = torch.cat([p.grad.flatten() for p in model.parameters()])
                norms.append((task.clip_grad_norm_(model.parameters(), 0.01), grads.norm()))
                task.clip_grad_value_(model.parameters(), 0.005)
                optimizer.step()
        clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert norms[0][0] is None
    torch.testing.assert_close(norms[1][0], norms[1][1])
    assert clipped.norm() < 0.0101
    assert clipped.abs().max() <= 0.005


def test_one_step_adds_one_sparsity_term() -> None:
    """Whatever the number of accumulated batches, and under loss scaling."""
    grads = []
    for accumulate in (1, 4):
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.manual_seed(0)
        session = attached()
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        with accelerate_task(session, accelerator, "a") as task:
            model, _ = task.prepare(session.model, SGD(session.parameter_groups(lr=0.1)))
            for _ in range(accumulate):
                task.task.anneal(2, 3)
                with accelerator.accumulate(model):
                    task.backward(F.cross_entropy(model(X), Y))
            grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_the_model_is_prepared_anew_for_each_task() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model, depths = session.model, set()
    for name in "abc":
        model = learn(session, accelerator, name, model)
        assert accelerator._models == [model]
        assert len(accelerator._optimizers) == 1
        wrapped, depth = model.forward, 0
        while hasattr(wrapped, "__wrapped__"):
            wrapped, depth = wrapped.__wrapped__, depth + 1
        depths.add(depth)
    assert len(depths) == 1


def test_a_session_on_a_part_of_the_model_that_is_prepared() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    whole: nn.Module = nn.Sequential(nn.Identity(), session.model)
    for name in "ab":
        whole = learn(session, accelerator, name, whole)
        assert accelerator.unwrap_model(whole)[1] is session.model
    assert session.tasks == ("a", "b")


def test_an_optimizer_kept_across_tasks_is_protected_in_each() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True)
    optimizer: Any = SGD(session.parameter_groups(lr=0.1), momentum=0.9)
    ended = []
    for name in ("a", "b", "c"):
        with accelerate_task(session, accelerator, name) as task:
            model, optimizer, batches = task.prepare(session.model, optimizer, loader())
            for x, y in task.batches(batches):
                optimizer.zero_grad()
                task.backward(F.cross_entropy(model(x), y))
                optimizer.step()
        with torch.no_grad(), session.use("a"):
            ended.append(model(X))
    assert torch.equal(ended[0], ended[1])
    assert torch.equal(ended[0], ended[2])


def test_evaluation_of_finished_tasks_with_gathered_metrics() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True)
    model = learn(session, accelerator, "a", session.model)
    model.eval()
    batches = accelerator.prepare(loader(batch=5))
    with torch.no_grad(), session.use("a"):
        rows = torch.cat([accelerator.gather_for_metrics(model(x)) for x, _ in batches])
    assert rows.shape == (24, 3)


def test_an_interrupted_epoch_resumes_where_it_was() -> None:
    whole, parts = Steps(), Steps()
    for steps, cut in ((whole, None), (parts, 2)):
        AcceleratorState._reset_state(reset_partial_state=True)
        session = attached(steps)
        accelerator = Accelerator(cpu=True)
        with accelerate_task(session, accelerator, "a") as task:
            _, batches = task.prepare(SGD(session.parameter_groups(lr=0.1)), loader())
            if cut is None:
                list(task.batches(batches))
                continue
            seen = task.batches(batches)
            for _ in range(cut):
                next(seen)
            list(task.batches(accelerator.skip_first_batches(batches, cut), done=cut))
    assert parts.scales == whole.scales


class Stream(IterableDataset[Tensor]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.zeros(6, 1))


def test_a_loader_without_length_needs_a_number() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True)
    with accelerate_task(session, accelerator, "a") as task:
        batches = task.prepare(DataLoader(Stream(), batch_size=2))
        with pytest.raises(BadCallError, match=r"a loader without a length \(DataLoader\w+\)"):
            next(task.batches(batches))
        assert len(list(task.batches(batches, num_batches=3))) == 3


# ------------------------------------------------------------------ what is refused
def test_sharding_accelerators_are_refused() -> None:
    session = attached()
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = DistributedType.FSDP
    with pytest.raises(BadCallError, match="distributed_type FSDP"), accelerate_task(session, accelerator, "a"):
        pass
    assert session.tasks == ()


def test_a_prepared_optimizer_is_no_optimizer_for_the_plain_protect() -> None:
    session = attached()
    with session.task("a") as task:
        prepared = Accelerator(cpu=True).prepare(SGD(session.parameter_groups(lr=0.1)))
        with pytest.raises(BadCallError, match="AcceleratedOptimizer, a wrapper that runs no step hooks"):
            task.protect(prepared)


def test_clipping_before_an_optimizer_is_there_is_reported() -> None:
    session = attached()
    with accelerate_task(session, Accelerator(cpu=True), "a") as task, pytest.raises(NoTaskError, match="No optimizer"):
        task.clip_grad_norm_(session.model.parameters(), 1.0)


def test_a_foreign_optimizer_is_reported() -> None:
    session = attached()
    with (
        accelerate_task(session, Accelerator(cpu=True), "a") as task,
        pytest.raises(ForeignOptimizerError, match="holds no parameter"),
    ):
        task.prepare(SGD([nn.Parameter(torch.zeros(1))], lr=0.1))


def test_a_failed_loop_leaves_no_task() -> None:
    session = attached()
    with pytest.raises(ZeroDivisionError), accelerate_task(session, Accelerator(cpu=True), "a"):
        raise ZeroDivisionError
    assert session.tasks == ()
