"""A task that knows its length: annealing over all of it, and a settled phase at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from tests.reference.schedule import scales
from tests.support.small import batches, mlp

EPOCHS, BATCHES = 3, 4
SPEC: dict[str, Any] = {"gates": {"s_max": 50.0}}


def session_of(spec: dict[str, Any] | None = None) -> fh.Session:
    torch.manual_seed(0)
    return fh.attach(mlp(4, 12, 8, 3), SPEC if spec is None else spec, torch.randn(2, 4, dtype=torch.float64))


def adamw(session: fh.Session) -> torch.optim.Optimizer:
    return torch.optim.AdamW(session.parameter_groups(lr=1e-2, gate_lr=0.3, weight_decay=0.1))


def data() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    return batches(4, 3, BATCHES)


def step(session: fh.Session, task: fh.Task, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
    optimizer.step()


def masks_of(session: fh.Session) -> dict[str, Tensor]:
    return {name: gate.soft_mask().detach().clone() for name, gate in session._attached.gates.items()}


@pytest.mark.parametrize("settle", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_scales_rise_over_the_whole_task(settle: float, power: float) -> None:
    session = session_of({"gates": {"s_max": 50.0, "settle": settle, "annealing_power": power}})
    expected = scales(EPOCHS, BATCHES, 50.0, power, settle)
    with session.task("a", epochs=EPOCHS) as task:
        found = []
        for _ in range(EPOCHS):
            for number in range(1, BATCHES + 1):
                scale = task.anneal(number, BATCHES)
                found.append((scale, not session._attached.gate_context.learns_masks))
    assert [settled for _, settled in found] == [settled for _, settled in expected]
    assert [scale for scale, _ in found] == pytest.approx([scale for scale, _ in expected], rel=1e-12)
    assert found[-1][0] == 50.0


@pytest.mark.parametrize("length", [{"epochs": EPOCHS}, {"steps": EPOCHS * BATCHES}])
def test_settled_masks_are_hard_and_do_not_move(length: dict[str, int]) -> None:
    """Momentum of the first phase would move the embeddings on."""
    session = session_of()
    seen: list[dict[str, Tensor]] = []
    with session.task("a", **length) as task:  # type: ignore[arg-type]
        optimizer = task.protect(adamw(session))
        for _ in range(EPOCHS):
            for x, y in task.batches(data()):
                step(session, task, optimizer, x, y)
                seen.append(masks_of(session))
        settled = seen[EPOCHS * BATCHES // 2 :]
        assert all(set(mask.tolist()) <= {0.0, 1.0} for masks in settled for mask in masks.values())
        assert all(torch.equal(masks[name], settled[0][name]) for masks in settled for name in masks)
        assert not all(torch.equal(seen[0][n], settled[0][n]) for n in seen[0])
    assert all(torch.equal(mask.double(), settled[0][name]) for name, mask in session.masks("a").items())
    assert session._attached.gate_context.learns_masks  # for the next task


def test_without_a_length_or_by_choice_each_epoch_anneals_anew() -> None:
    for spec, length in ((SPEC, {}), ({"gates": {"s_max": 50.0, "annealing": "epoch"}}, {"epochs": EPOCHS})):
        session = session_of(spec)
        with session.task("a", **length) as task:  # type: ignore[arg-type]
            found = [task.anneal(number, BATCHES) for _ in range(2) for number in range(1, BATCHES + 1)]
        assert found[:BATCHES] == found[BATCHES:]
        assert found[BATCHES - 1] == 50.0


def test_more_epochs_than_told_stay_settled() -> None:
    session = session_of()
    with session.task("a", epochs=1) as task:
        found = [task.anneal(number, BATCHES) for _ in range(3) for number in range(1, BATCHES + 1)]
        assert found[BATCHES // 2 :] == [50.0] * (len(found) - BATCHES // 2)


def test_the_first_length_that_is_told_counts() -> None:
    session = session_of()
    with session.task("a", epochs=2) as task:
        task.tell_length(epochs=7)
        assert task._schedule.length.epochs == 2
    with session.task("b") as task:
        task.tell_length(steps=7)
        assert task._schedule.length.steps == 7


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
@pytest.mark.parametrize("name", ["epochs", "steps"])
def test_an_invalid_length_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadCallError, match=f"Expected `{name}` to be a whole number of at least 1"):
        session_of().task("a", **{name: value})


def test_two_lengths_are_refused() -> None:
    with pytest.raises(BadCallError, match="Expected `epochs` or `steps`, but got both: 3 and 12"):
        session_of().task("a", epochs=3, steps=12)


@pytest.mark.parametrize("stop", [2, 4, 7, 9])
def test_a_task_that_is_resumed_keeps_its_place(stop: int, tmp_path: Path) -> None:
    whole = session_of()
    with whole.task("a", epochs=EPOCHS) as task:
        optimizer = task.protect(adamw(whole))
        for _ in range(EPOCHS):
            for x, y in task.batches(data()):
                step(whole, task, optimizer, x, y)
    broken, done = session_of(), 0
    task = broken.task("a", epochs=EPOCHS).__enter__()
    optimizer = task.protect(adamw(broken))
    for epoch in range(EPOCHS):
        for number, (x, y) in enumerate(data(), start=1):
            if done == stop:
                continue
            task.begin_batch(number, BATCHES, (x, y))
            step(broken, task, optimizer, x, y)
            task.end_batch()
            done, last = done + 1, (epoch, number)
    broken.save(tmp_path / "run", extra={"optimizer": optimizer})
    resumed = fh.load(mlp(4, 12, 8, 3), tmp_path / "run")
    with resumed.task("a", resume=True) as again:
        fresh = again.protect(adamw(resumed))
        resumed.restore(tmp_path / "run", {"optimizer": fresh})
        for epoch in range(last[0], EPOCHS):
            for x, y in again.batches(data(), start=last[1] if epoch == last[0] else 0):
                step(resumed, again, fresh, x, y)
    assert all(torch.equal(resumed.masks("a")[n], mask) for n, mask in whole.masks("a").items())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
