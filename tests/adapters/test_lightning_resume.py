"""An interrupted fit resumes from its checkpoint, as in another process, to bit-identical results."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning import callbacks
from fgadahat_hooks.errors import StateMismatchError, TaskRunningError, UnknownTaskError
from tests.adapters.lightning_world import (
    BATCHES,
    SPECS,
    WARNINGS,
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
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]
TASKS = (("birds", 3), ("cars", 5))
EPOCHS = 2
STEPS = EPOCHS * BATCHES


class BoomError(Exception):
    """Interrupts a run."""


def raising(module: Learner) -> None:
    raise BoomError


def signalling(module: Learner) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Run:
    """Learns two tasks; may be interrupted in one of them, and resumed from the last checkpoint."""

    def __init__(self, folder: Path, spec: str, optimizer: str, seed: int = 0, accumulate: int = 1) -> None:
        self.folder = folder
        self.accumulate = accumulate
        self.module = learner(optimizer, one_cycle, seed=seed)
        self.session = attached(self.module, spec, callbacks=[])
        self.optimizer: Optimizer | None = None

    def fit(self, number: int, going_on: bool = False) -> None:
        task, classes = TASKS[number]
        torch.manual_seed(number)
        saver = ModelCheckpoint(self.folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        run = trainer(
            [*callbacks(self.session, task=task, num_classes=classes), saver],
            max_epochs=EPOCHS,
            enable_checkpointing=True,
            accumulate_grad_batches=self.accumulate,
        )
        newest = max(self.folder.glob("*.ckpt"), key=lambda f: f.stat().st_mtime_ns) if going_on else None
        run.fit(self.module, Loader(number, classes), ckpt_path=newest)
        self.optimizer = run.optimizers[0]

    def stop_at(self, step: int, stop: Callable[[Learner], None]) -> None:
        """Interrupt at the training step of a task after this many steps."""
        seen = 0

        def count(module: Learner, index: int) -> None:
            nonlocal seen
            seen += 1
            if seen == step + 1:
                stop(module)

        self.module.on_step = count

    def everything(self) -> dict[str, Any]:
        assert self.optimizer is not None
        return everything(self.session, self.optimizer)


def one_cycle(optimizer: Optimizer) -> Any:
    """Change learning rate and momentum (or beta) at every step."""
    steps = OneCycleLR(optimizer, max_lr=0.02, total_steps=STEPS)
    return {"scheduler": steps, "interval": "step"}


def interrupted(folder: Path, spec: str, optimizer: str, task: int, step: int, how: Any, accumulate: int = 1) -> Run:
    """Return a run that was interrupted in a task, and resumed by new objects from the checkpoint."""
    folder.mkdir()
    first = Run(folder, spec, optimizer, accumulate=accumulate)
    for number in range(task):
        first.fit(number)
    for file in folder.glob("*.ckpt"):
        file.unlink()
    first.stop_at(step, how)
    with pytest.raises((BoomError, SIGTERMException)):
        first.fit(task)
    assert first.session.tasks == tuple(name for name, _ in TASKS[:task])
    second = Run(folder, spec, optimizer, seed=99, accumulate=accumulate)
    for number in range(task, len(TASKS)):
        second.fit(number, going_on=number == task)
    return second


# ------------------------------------------------------------------ the same bits
draw = random.Random(0)  # noqa: S311
STOPS = [
    (spec, draw.choice(["adamw", "momentum"]), draw.randrange(2), draw.randrange(1, STEPS - 1), how)
    for spec in list(SPECS) * 5
    for how in [draw.choice([raising, signalling])]
]


@pytest.mark.parametrize("spec", SPECS)
def test_an_interrupted_fit_resumes_to_the_same_bits(spec: str, tmp_path: Path) -> None:
    for optimizer in ("adamw", "momentum"):
        stops = [stop[2:] for stop in STOPS if stop[:2] == (spec, optimizer)]
        if not stops:
            continue
        (tmp_path / f"{optimizer}").mkdir()
        whole = Run(tmp_path / optimizer, spec, optimizer)
        for number in range(len(TASKS)):
            whole.fit(number)
        for number, (task, step, how) in enumerate(stops):
            parted = interrupted(tmp_path / f"{optimizer}{number}", spec, optimizer, task, step, how)
            assert differing(whole.everything(), parted.everything()) == [], (optimizer, task, step, how)


def test_there_are_twenty_stops_in_both_tasks_and_of_both_kinds() -> None:
    assert len(STOPS) == 20
    assert {stop[2] for stop in STOPS} == {0, 1}
    assert {stop[4] for stop in STOPS} == {raising, signalling}


@pytest.mark.parametrize("step", [4, 5], ids=["between", "within"])
def test_an_interrupted_fit_with_accumulation_resumes_to_the_same_bits(step: int, tmp_path: Path) -> None:
    """Also within a window of accumulated batches: the last checkpoint is that of the step before."""
    (tmp_path / "whole").mkdir()
    whole = Run(tmp_path / "whole", "gradient", "adamw", accumulate=2)
    for number in range(len(TASKS)):
        whole.fit(number)
    parted = interrupted(tmp_path / "parted", "gradient", "adamw", 1, step, raising, accumulate=2)
    assert differing(whole.everything(), parted.everything()) == []


# ------------------------------------------------------------------ the file
def state_of(file: dict[str, Any]) -> dict[str, Any]:
    """Return the session's state in a checkpoint."""
    found: dict[str, Any] = file["callbacks"]["TaskCallback{'model': 'Net'}"]["session"]
    return found


def test_a_checkpoint_is_plain_data(tmp_path: Path) -> None:
    run = Run(tmp_path, "fg_adahat", "adamw")
    run.stop_at(4, raising)
    with pytest.raises(BoomError):
        run.fit(0)
    file = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    running = state_of(file)["running"]
    assert (running["id"], running["num_classes"], running["steps"]) == ("birds", 3, 3)


class Trained(Loader):
    """Counts the batches that were trained on.

    Lightning writes down what the loader says of itself, and a loader counts the batch it has just given. Its own
    progress counts batches that were completed. An exception within a batch comes between the two: with a loader that
    counts what it gave, the fit would go on after the batch that raised, without ever having trained on it.
    """

    def __init__(self, module: Learner) -> None:
        super().__init__(0)
        self.module = module

    def state_dict(self) -> dict[str, int]:
        return {"place": len(self.module.losses)}


@pytest.mark.parametrize("where", ["on_train_batch_start", "training_step", "on_train_batch_end"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_checkpoint_of_an_exception_holds_the_running_task(where: str, first: bool, tmp_path: Path) -> None:
    """The task is rolled back before the file is written; the one that raises comes before or after it in the list."""
    whole = Run(tmp_path / "whole", "fg_adahat", "adamw")
    whole.fit(0)
    run = Run(tmp_path / "left", "fg_adahat", "adamw")
    bad = Raising(where)
    if where == "training_step":
        run.stop_at(4, raising)
    saver = ModelCheckpoint(run.folder, "left", save_on_exception=True)
    ours = callbacks(run.session, task="birds", num_classes=3)
    torch.manual_seed(0)
    with pytest.raises(BoomError):
        trainer([bad, *ours, saver] if first else [*ours, bad, saver], enable_checkpointing=True).fit(
            run.module, Trained(run.module)
        )
    assert (run.session.tasks, run.session.interrupted) == ((), None)
    file = torch.load(run.folder / "left.ckpt", weights_only=True)
    assert state_of(file)["running"]["steps"] == len(run.module.losses)
    other = Run(run.folder, "fg_adahat", "adamw", seed=99)
    other.fit(0, going_on=True)
    assert differing(whole.everything(), other.everything()) == []


class Raising(pl.Callback):
    """Raises at an event of the fifth batch."""

    def __init__(self, where: str) -> None:
        setattr(self, where, self.boom)

    def boom(self, *event: Any) -> None:
        if event[-1] == 4:
            raise BoomError


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, "hat", "adamw").fit(0)
    module = learner("adamw", one_cycle)
    session = fh.attach(module.net, {**SPECS["hat"], "gates": {"targets": "all-linear"}}, torch.zeros(2, 1, 4, 4))
    run = trainer(callbacks(session, task="birds"))
    with pytest.raises((StateMismatchError, RuntimeError), match=r"'conv'|conv\.hat_gate"):
        run.fit(module, Loader(0), ckpt_path=tmp_path / "step=3.ckpt")
    assert session.tasks == ()


def test_a_checkpoint_in_the_middle_of_another_task_is_reported(tmp_path: Path) -> None:
    Run(tmp_path, "hat", "adamw").fit(0)
    module = learner("adamw", one_cycle)
    session = attached(module, "hat")
    with pytest.raises(TaskRunningError, match="in the middle of task 'birds'"):
        trainer(callbacks(session, task="cars")).fit(module, Loader(1), ckpt_path=tmp_path / "step=3.ckpt")


# ------------------------------------------------------------------ earlier checkpoints
def test_the_best_checkpoint_is_tested_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint written during its task can be tested, and its task then ended without more training.

    A task that ends measures its norms' statistics anew, which would change the result; so they are not measured here.
    """
    monkeypatch.setitem(SPECS, "running", {**SPECS["hat"], "plasticity": {"norm_statistics": "running"}})
    run = Run(tmp_path, "running", "adamw")
    run.fit(0)
    module = learner("adamw", one_cycle, seed=5)
    session = attached(module, "running", callbacks=[])
    tester = trainer(callbacks(session, task="birds"))
    found = tester.test(module, Loader(0), ckpt_path=tmp_path / "step=6.ckpt", verbose=False)
    assert (session.tasks, session.interrupted) == ((), "birds")
    with session.task("birds", resume=True):
        pass
    again = tester.test(module, Loader(0), verbose=False)
    assert found == again
    x = Loader(9).batches[0][0]
    ended = logits(session, "birds", x)
    trainer(callbacks(session, task="cars")).fit(module, Loader(1))
    assert torch.equal(logits(session, "birds", x), ended)


def test_a_fit_that_was_complete_ends_its_task(tmp_path: Path) -> None:
    whole = Run(tmp_path, "fg_adahat", "adamw")
    whole.fit(0)
    module = learner("adamw", one_cycle, seed=5)
    session = attached(module, "fg_adahat", callbacks=[])
    run = trainer(callbacks(session, task="birds"), max_epochs=EPOCHS)
    run.fit(module, Loader(0), ckpt_path=tmp_path / f"step={STEPS}.ckpt")
    assert session.tasks == ("birds",)
    assert differing(everything(session), everything(whole.session)) == []


def test_a_checkpoint_is_resumed_in_the_same_process(tmp_path: Path) -> None:
    run = Run(tmp_path, "hat", "adamw")
    run.stop_at(5, raising)
    with pytest.raises(BoomError):
        run.fit(0)
    run.module.on_step = lambda *_: None
    run.fit(0, going_on=True)
    whole = Run(tmp_path, "hat", "adamw")
    whole.fit(0)
    assert differing(whole.everything(), run.everything()) == []


def test_the_last_checkpoint_is_found_by_its_name(tmp_path: Path) -> None:
    """`ckpt_path="last"`; the dataloader of another process need not have state at the end of an epoch."""
    whole = Run(tmp_path / "whole", "fg_adahat", "adamw")
    whole.fit(0)
    for seed in (0, 99):
        module = learner("adamw", one_cycle, seed=seed)
        session = attached(module, "fg_adahat", callbacks=[])
        saver = ModelCheckpoint(tmp_path / "parted", save_last=True)
        parts: list[pl.Callback] = [*callbacks(session, task="birds", num_classes=3), saver]
        run = trainer(parts, max_epochs=EPOCHS, enable_checkpointing=True)
        loader: DataLoader[Any] = DataLoader(Loader(0).batches, batch_size=None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        if seed == 0:
            module.on_step = stop_after_an_epoch
            with pytest.raises(BoomError):
                run.fit(module, loader)
        else:
            run.fit(module, loader, ckpt_path="last")
    assert differing(whole.everything(), everything(session, run.optimizers[0])) == []


def stop_after_an_epoch(module: Learner, index: int) -> None:
    if len(module.losses) == BATCHES:
        raise BoomError


def test_a_task_that_is_not_finished_is_not_evaluated() -> None:
    module = learner()
    session = attached(module)
    with pytest.raises(UnknownTaskError):
        trainer(callbacks(session, task="birds")).test(module, Loader(0), verbose=False)
