"""A Lightning Trainer evaluates the right task, and logs the scalars of the running task."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning import TaskCallback, callbacks
from fgadahat_hooks.errors import BadCallError, CapabilityError, DuplicateTaskError, UnknownTaskError
from tests.adapters.lightning_world import (
    BATCHES,
    WARNINGS,
    Batch,
    Learner,
    Loader,
    attached,
    everything,
    learner,
    logits,
    trainer,
)
from tests.checkpoint.test_state import differing

pytestmark = [
    *WARNINGS,
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Trainer.fit. stopped"),
]
TASKS = {"birds": 3, "cars": 5}


def learnt(spec: str = "hat") -> tuple[Learner, fh.Session]:
    """Return a module that has learnt two tasks with heads of different sizes."""
    module = learner()
    session = attached(module, spec, callbacks=[])
    for number, (task, classes) in enumerate(TASKS.items()):
        torch.manual_seed(number)
        trainer(callbacks(session, task=task, num_classes=classes)).fit(module, Loader(number, classes))
    return module, session


class AsTask(Learner):
    """Records the logits of every validation batch."""

    def __init__(self) -> None:
        super().__init__("adamw")
        self.seen: list[Tensor] = []

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        self.seen.append(self(batch[0]))


# ------------------------------------------------------------------ the task of each dataloader
def test_each_dataloader_is_evaluated_as_its_task() -> None:
    module, session = learnt()
    before = everything(session)
    loaders = [Loader(0, 3), Loader(1, 5), Loader(2, 3)]
    tasks = ["birds", "cars", "birds"]
    found = trainer([TaskCallback(session, eval_tasks=tasks)]).predict(module, loaders)
    for task, loader, batches in zip(tasks, loaders, found or [], strict=True):
        assert all(
            torch.equal(logits(session, task, x), out) for (x, _), out in zip(loader.batches, batches, strict=True)
        )
    assert [figures.shape[1] for (figures, *_) in found or []] == [3, 5, 3]
    assert differing(before, everything(session)) == []


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_one_task_for_all_dataloaders_between_two_tasks(verb: str) -> None:
    module, session = learnt()
    run = trainer([TaskCallback(session, "birds")])
    both = getattr(run, verb)(module, [Loader(0), Loader(0)], verbose=False)
    assert both[0]["loss/dataloader_idx_0"] == both[1]["loss/dataloader_idx_1"]
    again = getattr(trainer([TaskCallback(session, eval_tasks=["birds"])]), verb)(module, Loader(0), verbose=False)
    assert again[0]["loss"] == both[0]["loss/dataloader_idx_0"]
    assert all(part.training for part in module.modules())
    trainer(callbacks(session, task="dogs")).fit(module, Loader(2, 3))
    assert session.tasks == ("birds", "cars", "dogs")


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"num_sanity_val_steps": 3}], ids=str)
def test_validation_in_a_fit_may_be_of_earlier_tasks(options: dict[str, Any]) -> None:
    """Hard HAT: an earlier task's logits are the same bits at every validation in the middle of the next one."""
    torch.manual_seed(0)
    module = AsTask()
    session = attached(module, "hat", callbacks=[])
    trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    x = Loader(0, count=1).batches[0][0]
    ended = logits(session, "birds", x)
    parts = callbacks(session, task="cars", num_classes=5, eval_tasks=["birds", "cars"])
    trainer(parts, **options).fit(module, Loader(1, 5), [Loader(0, count=1), Loader(1, 5, count=1)])
    seen = module.seen[::2]
    assert len(seen) > 2
    assert all(torch.equal(out, ended) for out in seen)
    assert {out.shape[1] for out in module.seen[1::2]} == {5}
    assert session.tasks == ("birds", "cars")


def test_validation_in_a_fit_changes_nothing_of_it() -> None:
    ends = []
    for options, loader in (({}, None), ({}, Loader(0)), ({"limit_val_batches": 0}, Loader(0))):
        module = learner()
        session = attached(module, "fg_adahat", callbacks=[])
        torch.manual_seed(0)
        trainer(callbacks(session, task="birds"), **options).fit(module, Loader(0), loader)
        ends.append(everything(session))
    assert differing(ends[0], ends[1]) == []
    assert differing(ends[0], ends[2]) == []


def test_what_cannot_be_evaluated_is_reported() -> None:
    module, session = learnt()
    with pytest.raises(BadCallError, match="Expected one task for each of the 2 dataloaders in `eval_tasks`"):
        trainer([TaskCallback(session, eval_tasks=["birds"])]).test(module, [Loader(0), Loader(1)], verbose=False)
    with pytest.raises(UnknownTaskError, match="dogs"):
        trainer([TaskCallback(session, eval_tasks=["birds", "dogs"])]).test(module, [Loader(0)] * 2, verbose=False)
    with pytest.raises(BadCallError, match="Expected to know which task to evaluate"):
        trainer([TaskCallback(session)]).validate(module, Loader(0), verbose=False)
    assert torch.equal(
        logits(session, "birds", torch.ones(2, 1, 4, 4)), logits(session, "birds", torch.ones(2, 1, 4, 4))
    )


# ------------------------------------------------------------------ Trainers that are used again
def test_a_trainer_goes_through_task_after_task() -> None:
    """The Trainer and its callbacks are kept; each fit gets its own task."""
    module = learner()
    session = attached(module, "hat", callbacks=[])
    run = trainer(callbacks(session, task="birds"), max_epochs=2)
    run.fit(module, Loader(0))
    ended = logits(session, "birds", torch.ones(2, 1, 4, 4))
    with pytest.raises(DuplicateTaskError):
        run.fit(module, Loader(0))
    run.callbacks = callbacks(session, task="cars", num_classes=5)  # type: ignore[attr-defined]
    run.fit_loop.max_epochs = 4
    run.fit(module, Loader(1, 5))
    assert list(session.tasks) == ["birds", "cars"]
    assert torch.equal(logits(session, "birds", torch.ones(2, 1, 4, 4)), ended)
    assert len(module.losses) == 4 * BATCHES


@pytest.mark.parametrize("search", ["lr_find", "scale_batch_size"])
def test_the_tuner_is_refused(search: str) -> None:
    """It removes all callbacks, and would train without a task."""
    module, session = learnt()
    module.lr = module.batch_size = 1  # type: ignore[assignment]
    before = everything(session)
    module.train_dataloader = lambda: Loader(2)  # type: ignore[method-assign]
    run = trainer(callbacks(session, task="dogs", num_classes=4))
    with pytest.raises(CapabilityError, match="without any, so that no task would be running"):
        getattr(Tuner(run), search)(module)
    assert differing(before, everything(session)) == []
    trainer(callbacks(session, task="dogs", num_classes=4)).fit(module, Loader(2, 4))
    assert session.tasks == ("birds", "cars", "dogs")


# ------------------------------------------------------------------ loggers
def rows(folder: str) -> list[dict[str, str]]:
    """Return the rows of a CSVLogger that hold scalars of the task."""
    with (Path(folder) / "metrics.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("hat/scale")]


def test_figures_are_logged(tmp_path: Path) -> None:
    module = learner()
    session = attached(module, "fg_adahat", callbacks=[])
    logger = CSVLogger(tmp_path)
    for number, task in enumerate(("birds", "cars")):
        trainer(callbacks(session, task=task), logger=logger, log_every_n_steps=3, max_epochs=1).fit(
            module, Loader(number)
        )
        if task == "birds":
            (first, last) = rows(logger.log_dir)
    assert (first["step"], last["step"]) == ("2", "5")
    assert float(last["hat/scale"]) == 400.0
    assert float(last["hat/capacity"]) == 1.0
    (_, last) = rows(logger.log_dir)[-2:]
    used = sum(int(mask.sum()) for mask in session.masks("cars").values())
    assert float(last["hat/mask_use"]) == pytest.approx(used / 12)
    assert 0 < float(last["hat/capacity"]) < 1
    assert 0 < float(last["hat/rate/hidden.weight"]) < 1
    assert float(last["hat/regularization"]) > 0


def test_logging_can_be_switched_off(tmp_path: Path) -> None:
    module = learner()
    session = attached(module, callbacks=[])
    logger = CSVLogger(tmp_path)
    trainer(callbacks(session, task="birds", log=False), logger=logger, log_every_n_steps=1).fit(module, Loader(0))
    assert not (Path(logger.log_dir) / "metrics.csv").exists() or rows(logger.log_dir) == []


def test_figures_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    module = learner()
    session = attached(module, callbacks=[])
    logger = TensorBoardLogger(tmp_path)
    trainer(callbacks(session, task="birds"), logger=logger, log_every_n_steps=3).fit(module, Loader(0))
    assert list(Path(logger.log_dir).glob("events.*"))


# ------------------------------------------------------------------ two sessions in one Trainer
class Pair(Learner):
    """Two nets trained in turn, each by its own optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.judge = torch.nn.Sequential(torch.nn.Linear(16, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(part.parameters(), 0.01, weight_decay=0.1) for part in (self.net, self.judge)]

    def training_step(self, batch: Batch, index: int) -> None:  # type: ignore[override]
        outputs = (self.net(batch[0]), self.judge(batch[0].flatten(1)))
        for optimizer, output in zip(self.optimizers(), outputs, strict=True):
            optimizer.zero_grad()
            self.manual_backward(torch.nn.functional.cross_entropy(output, batch[1]))
            optimizer.step()


def test_two_sessions_in_one_trainer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Pair()
    one = attached(module, "hat", callbacks=[])
    two = fh.attach(module.judge, {"adjustment": {"mode": "hat"}}, torch.zeros(2, 16), callbacks=[])
    x = torch.randn(4, 1, 4, 4)
    ended: list[Tensor] = []
    for number, task in enumerate(TASKS):
        run = trainer([*callbacks(one, task=task), *callbacks(two, task=task)])
        run.fit(module, Loader(number))
        ended = ended or [logits(one, "birds", x), logits(two, "birds", x.flatten(1))]
    assert torch.equal(logits(one, "birds", x), ended[0])
    assert torch.equal(logits(two, "birds", x.flatten(1)), ended[1])
    run.save_checkpoint(tmp_path / "both.ckpt")
    states = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    kept = {key: part["session"] for key, part in states.items() if key.startswith("TaskCallback")}
    assert len(kept) == 2
    assert {tuple(layer["name"] for layer in state["layers"]) for state in kept.values()} == {
        ("conv", "hidden"),
        ("0",),
    }


def test_two_callbacks_over_one_session_are_refused() -> None:
    session = attached(learner(), callbacks=[])
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `TaskCallback`"):
        pl.Trainer(logger=False, callbacks=[TaskCallback(session, "birds"), TaskCallback(session, "cars")])
