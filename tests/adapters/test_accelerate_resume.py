"""Accelerate's checkpoints hold the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.accelerate import accelerate_task
from tests.adapters.accelerate_world import X, attached, learn, loader


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_checkpoint_of_the_accelerator_holds_the_session(tmp_path: Path) -> None:
    session = attached()
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(session)
    model = learn(session, accelerator, "a", session.model)
    with torch.no_grad(), session.use("a"):
        before = model(X)
    accelerator.save_state(str(tmp_path / "saved"))

    other = attached()
    restarted = Accelerator(cpu=True)
    restarted.register_for_checkpointing(other)
    model, _ = restarted.prepare(other.model, AdamW(other.parameter_groups(lr=1e-2)))
    restarted.load_state(str(tmp_path / "saved"))
    assert other.tasks == ("a",)
    with torch.no_grad(), other.use("a"):
        assert torch.equal(model(X), before)


def test_a_task_resumes_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    """The head has another size than at attach: the optimizer was built before the checkpoint brought it."""

    def continue_task(
        session: fh.Session, accelerator: Accelerator, task: Any, optimizer: Any, done: int, stop: int
    ) -> None:
        model, optimizer, batches = task.prepare(session.model, optimizer, loader())
        rest = accelerator.skip_first_batches(batches, done) if done else batches
        for number, (x, y) in enumerate(task.batches(rest, done=done), start=done + 1):
            optimizer.zero_grad()
            task.backward(F.cross_entropy(model(x), y))
            task.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if number == stop:
                accelerator.save_state(str(tmp_path))
                return

    def adamw(session: fh.Session) -> AdamW:
        return AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1))

    results = []
    for stop in (0, 3):
        torch.manual_seed(0)
        AcceleratorState._reset_state(reset_partial_state=True)
        session, accelerator = attached(), Accelerator(cpu=True)
        accelerator.register_for_checkpointing(session)
        with suppress(KeyboardInterrupt), accelerate_task(session, accelerator, "a", num_classes=5) as task:
            continue_task(session, accelerator, task, adamw(session), 0, stop)
            if stop:
                raise KeyboardInterrupt
        if stop:
            AcceleratorState._reset_state(reset_partial_state=True)
            session, accelerator = attached(), Accelerator(cpu=True)
            accelerator.register_for_checkpointing(session)
            _, optimizer = accelerator.prepare(session.model, adamw(session))
            accelerator.load_state(str(tmp_path))
            assert session.interrupted == "a"
            with accelerate_task(session, accelerator, "a", resume=True) as task:
                continue_task(session, accelerator, task, optimizer, stop, 0)
        results.append(session.model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
