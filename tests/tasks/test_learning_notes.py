"""What a task says of itself when it has too little room, or has not learnt."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LearningWarning
from fgadahat_hooks.summary import read_summary

LEARNT: dict[str, Any] = {"regularization": {"factor": 0.0}}
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 2))


def attach(spec: Any = None, model: nn.Module | None = None) -> fh.Session:
    torch.manual_seed(0)
    return fh.attach(mlp() if model is None else model, fh.preset("hat", tasks=3) if spec is None else spec, X[:2])


def learn(
    session: fh.Session, name: str, labels: Tensor = Y, lr: float = 1e-2, gate_lr: float | None = None, steps: int = 30
) -> None:
    with session.task(name) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=lr, gate_lr=gate_lr)))
        session.model.train()
        for x, y in task.batches([(X, labels)] * steps):
            optimizer.zero_grad()
            (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
            optimizer.step()


@contextmanager
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ------------------------------------------------------------------ a task that learns
def test_a_task_that_learns_says_nothing() -> None:
    session = attach()
    with nothing_said():
        learn(session, "a")
        learn(session, "b")
    assert session.notes("a") == session.notes("b") == ()


# ------------------------------------------------------------------ room
def test_a_task_without_its_share_says_so_when_it_begins() -> None:
    session = attach()
    for name in "abc":
        learn(session, name)
    task = session.task("d")
    with pytest.warns(LearningWarning) as caught:
        task.__enter__()
    text = str(caught[0].message)
    assert text == (
        "Task 'd': 2 layers ('0', '2') have fewer free units than the task's share (2 with none at all): room was made "
        "for 3 tasks, and this is number 4. Attach with room for more (gates.tasks), or widen the network."
    )
    with nothing_said():  # not again when it ends
        task.__exit__(None, None, None)
    assert session.notes("d") == (text.removeprefix("Task 'd': "),)


def test_a_layer_narrower_than_the_tasks_is_named_with_what_serves() -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 2))

    session = attach(fh.preset("hat", tasks=6), model())
    assert "'0': fewer units (3 at least) than the 6 tasks that are expected" in session.plan.advice[0]
    for name in "abc":
        with session.task(name):
            pass
    with (
        pytest.warns(LearningWarning, match=r"^Task 'd': layer '0' has no free unit left, of 3 at most: .*exclude\)"),
        session.task("d"),
    ):
        pass
    spec = fh.preset("hat", tasks=6).model_dump()
    advised = attach({**spec, "gates": {**spec["gates"], "exclude": ["0"]}}, model())
    assert advised.plan.advice == ()
    with nothing_said():
        for name in "abcde":
            with advised.task(name):
                pass


def test_a_closed_layer_is_named() -> None:
    session = attach(LEARNT)
    task = session.task("a").__enter__()
    with torch.no_grad():
        session.embeddings["2"].fill_(-1.0)
    with pytest.warns(LearningWarning, match=r"layer '2' has no open unit: nothing passes"):
        task.__exit__(None, None, None)


def test_a_task_far_above_its_budget_says_so() -> None:
    session = attach({"regularization": {"factor": 0.0, "budget": 0.1}})
    with pytest.warns(LearningWarning, match=r"it took \d\d% of all units, more than twice its budget of 10%"):
        learn(session, "a", gate_lr=0.3)


# ------------------------------------------------------------------ travel
def test_embeddings_that_cannot_travel_are_told() -> None:
    with pytest.warns(LearningWarning, match=r"its embeddings could move by 0\.3 at most"):
        learn(attach(LEARNT), "a", gate_lr=1e-2, steps=30)
    with nothing_said():
        learn(attach(LEARNT), "a", gate_lr=0.1, steps=30)
        learn(attach(), "a", gate_lr=1e-2, steps=30)  # masks by share need no travel


def test_a_schedule_that_ends_at_zero_has_travelled() -> None:
    session = attach(LEARNT)
    with nothing_said(), session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2, gate_lr=0.2)))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 30))
        for x, y in task.batches([(X, Y)] * 31):
            optimizer.zero_grad()
            (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
            optimizer.step()
            schedule.step()


def test_a_task_shorter_than_told_says_so() -> None:
    session = attach(LEARNT)
    with pytest.warns(LearningWarning, match="it ended after 1 of 5 epochs"), session.task("a", epochs=5) as task:
        task.anneal(1, 1)


# ------------------------------------------------------------------ what was learnt
def test_a_task_at_chance_says_so() -> None:
    session = attach()
    with pytest.warns(LearningWarning, match=r"accuracy is \d\d% on its last 512 training samples.*at chance"):
        learn(session, "a", lr=1e-6)
    assert "at chance" in session.notes("a")[0]


def test_labels_that_the_loss_ignores_do_not_count() -> None:
    labels = Y.clone()
    labels[1::2] = -100
    with pytest.warns(LearningWarning, match="on its last 256 training samples"):
        learn(attach(), "a", labels, lr=1e-6)


def network(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, outputs))


OTHER_LOSSES: dict[str, tuple[int, Tensor, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "autoencoder": (6, Y, lambda out, x, y: F.mse_loss(out, x)),
    "shifted labels": (8, Y + 5, lambda out, x, y: F.cross_entropy(out, y - 5)),
    "indices": (64, torch.arange(64), lambda out, x, y: F.cross_entropy(out[:, :2], Y[y])),
    "two of several outputs": (5, Y + 3, lambda out, x, y: F.cross_entropy(out[:, :2], y - 3)),
}


@pytest.mark.parametrize("kind", OTHER_LOSSES)
def test_labels_that_are_not_those_of_the_loss_are_not_judged(kind: str) -> None:
    outputs, labels, loss = OTHER_LOSSES[kind]
    session = attach(model=network(outputs))
    with nothing_said(), session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
        for x, y in task.batches([(X, labels)] * 10):
            optimizer.zero_grad()
            loss(session.model(x), x, y).backward()
            optimizer.step()


@pytest.mark.parametrize("size", [1, 2])
def test_small_batches_are_judged_together(size: int) -> None:
    session = attach()
    labels = torch.randint(0, 2, (128,), generator=torch.Generator().manual_seed(3))
    task = session.task("a").__enter__()
    optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-6)))
    for x, y in task.batches([(X[:size], y) for y in labels.split(size)]):
        optimizer.zero_grad()
        F.cross_entropy(session.model(x), y).backward()
        optimizer.step()
    with pytest.warns(LearningWarning, match="on its last 64 training samples.*at chance"):
        task.__exit__(None, None, None)


@pytest.mark.parametrize("data", [range(30), [X] * 30, [(X, X)] * 30])
def test_batches_without_class_numbers_are_not_judged(data: Any) -> None:
    session = attach()
    with nothing_said(), session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-6)))
        for _ in task.batches(data):
            optimizer.zero_grad()
            session.model(X).sum().backward()
            optimizer.step()
    assert session.notes("a") == ()


class Worse(nn.Module):
    """Serves something else than it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x if self.training else 20 * x)
        return out


def test_a_task_served_worse_than_it_was_trained_says_so() -> None:
    session, labels = attach(model=Worse()), Y.clone()
    labels[::8] = 1 - labels[::8]
    with pytest.warns(
        LearningWarning, match=r"the loss is .* under the hard mask that is served, and was .* in training"
    ):
        learn(session, "a", labels, steps=20)


class OnlyTraining(nn.Module):
    """Cannot be run in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not torch.is_grad_enabled() and len(x) > 2:
            raise RuntimeError("no evaluation")
        out: Tensor = self.body(x)
        return out


def test_a_task_that_cannot_be_checked_is_kept() -> None:
    session = attach(model=OnlyTraining())
    with pytest.warns(LearningWarning, match="could not be checked: .* raised RuntimeError: no evaluation"):
        learn(session, "a")
    assert session.tasks == ("a",)


class Similarities(nn.Module):
    """Gives as many outputs as the batch has samples."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        out: Tensor = h @ h.t()
        return out


def test_outputs_of_another_width_in_the_last_batch_lose_no_task() -> None:
    session = attach({"heads": {"names": []}}, Similarities())
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
        for x, y in task.batches([(X, Y), (X[:7], Y[:7])]):
            optimizer.zero_grad()
            F.cross_entropy(session.model(x), torch.arange(len(y))).backward()
            optimizer.step()
    assert session.tasks == ("a",)


def test_rare_classes_that_are_learnt_are_no_chance() -> None:
    with nothing_said():
        learn(attach(), "a", (X[:, 0] > 1.0).long(), lr=3e-2, steps=150)


def test_a_proof_does_not_warn_of_its_own_tasks() -> None:
    session = attach()
    learn(session, "a")
    session.model.eval()
    with nothing_said():
        session.verify(optimizer=torch.optim.AdamW)


# ------------------------------------------------------------------ where it is kept
def test_notes_are_saved_and_shown_beside_a_proof(tmp_path: Any) -> None:
    session = attach()
    with pytest.warns(LearningWarning):
        learn(session, "a", lr=1e-6)
    session.model.eval()
    text = str(session.verify())
    assert "Note on task 'a': accuracy is" in text
    session.save(tmp_path / "run")
    loaded = fh.load(mlp(), tmp_path / "run")
    assert loaded.notes("a") == session.notes("a") != ()
    assert read_summary(tmp_path / "run").notes == {"a": session.notes("a")}
    assert "is at chance" in fh.report(session, tmp_path / "report.html").read_text()
    learn(session, "b")
    session.model.eval()
    assert "task 'b'" not in str(session.verify())
