"""The proof with a loop of the user's own, with schedule-free optimizers, and with logits that are not finite."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, LeakError
from fgadahat_hooks.verify import ScratchStep
from fgadahat_hooks.verify.leak_search import Change, find_leaks
from fgadahat_hooks.verify.scratch import changed_tasks
from tests.support.small_models import batch
from tests.verify.sessions import learnt

X = batch(4)[0]
AVERAGE: dict[str, Tensor] = {}


def average(step: ScratchStep) -> None:
    """Copy an average over both tasks into the model at the end of each."""
    step()
    with torch.no_grad():
        for name, p in step.model.named_parameters():
            if name in AVERAGE and AVERAGE[name].shape == p.shape:
                AVERAGE[name].lerp_(p, 0.5)
            else:
                AVERAGE[name] = p.detach().clone()
            if step.number == step.total:
                p.copy_(AVERAGE[name])


def clip(step: ScratchStep) -> None:
    step()
    with torch.no_grad():
        for p in step.model.parameters():
            p.clamp_(-0.01, 0.01)


def sharpness_aware(step: ScratchStep) -> None:
    step.backward()
    added = [(p, 0.05 * p.grad) for p in step.model.parameters() if p.grad is not None]
    with torch.no_grad():
        for p, gradient in added:
            p.add_(gradient)
    step.backward()
    with torch.no_grad():
        for p, gradient in added:
            p.sub_(gradient)
    step.optimizer.step()


@pytest.mark.parametrize("around", [average, clip, sharpness_aware], ids=lambda f: f.__name__)
def test_what_a_loop_writes_beside_the_steps_is_put_back(session: fh.Session, around: Any) -> None:
    report = session.verify(X, optimizer=AdamW, steps=3, around=around)
    assert report.leaks == {}
    assert report.training is not None
    assert report.training.overstepped == {}
    assert report.training.moved > 0


def test_around_sees_every_step_of_the_copy(session: fh.Session) -> None:
    seen: list[tuple[int, int]] = []

    def count(step: ScratchStep) -> None:
        assert step.model is not session.model
        seen.append((step.number, step.total))
        step()

    session.verify(X, optimizer=SGD, steps=2, around=count)
    assert seen == [(1, 2), (2, 2)] * 2


@pytest.mark.parametrize("wrong", [{"around": print}, {"optimizer": SGD, "around": 3}])
def test_around_needs_an_optimizer_and_a_function(session: fh.Session, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadCallError, match="`around` to be a function of one step, beside an `optimizer`"):
        session.verify(X, **wrong)


def test_an_optimizer_with_modes_is_told_of_them() -> None:
    """It moves protected weights in `eval()`: without a loop of the user's, the proof names them."""

    class Moves(AdamW):
        said: list[str] = []  # noqa: RUF012

        def train(self) -> None:
            self.said.append("train")

        @torch.no_grad()
        def eval(self) -> None:
            self.said.append("eval")
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(0.9)

    session = learnt(tasks="a")
    with pytest.raises(LeakError, match="when Moves learns another task"):
        session.verify(X, optimizer=Moves, steps=1)
    assert Moves.said == ["train", "eval"] * 2


# ------------------------------------------------------------------ logits that are not finite
class Overflows(nn.Module):
    """Its logits are as large as its inputs to the power of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(72, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.flatten(1)).relu())
        return logits.pow(10) if self.training else logits.pow(3) * x.flatten(1)[:, :1].pow(10)


def test_a_proof_over_logits_that_are_not_finite_is_refused() -> None:
    session = learnt(model=Overflows(), tasks="a")
    session.verify(X)
    for bad in (X * float("nan"), X * 1e30):
        with pytest.raises(
            BadCallError, match="those of 'a' are NaN, or most of them infinite: a leak could not be seen"
        ):
            session.verify(bad)


class Deep(nn.Module):
    """So deep that noise of size 1 overflows, and so does every activation behind a closed gate."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(72, 72), nn.ReLU()) for _ in range(40)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x.flatten(1)))
        return logits


def test_noise_that_overflows_is_no_leak() -> None:
    session = fh.attach(Deep(), {}, X)
    with session.task("a"):
        pass
    assert session.verify().leaks == {}


def test_nan_equals_nan_and_nothing_else() -> None:
    nan = [torch.tensor([1.0, float("nan")])]
    assert changed_tasks({"a": nan, "b": nan}, {"a": [nan[0].clone()], "b": [torch.tensor([1.0, 2.0])]}) == ("b",)


def test_a_search_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    changes = [Change(f"t{n}", torch.zeros(1), torch.zeros(1), torch.ones(1)) for n in range(64)]
    tried: list[int] = []

    def changed() -> tuple[str, ...]:
        tried.append(1)
        return ("a",)

    assert find_leaks(changes, changed, seconds=5) == dict.fromkeys([c.name for c in changes], ("a",))
    assert len(tried) < 20
