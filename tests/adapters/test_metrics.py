"""The metrics on two processes, and in a LightningModule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

import fgadahat_hooks as fh
from fgadahat_hooks import metrics as fm
from fgadahat_hooks.adapters.lightning import TaskCallback, callbacks
from tests.adapters.lightning_world import WARNINGS, Batch, Learner, Loader, attached, trainer
from tests.support.ranks import WORLD, Ranks
from tests.support.small import batches, learn, mlp

pytestmark = [
    *WARNINGS,
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Trainer.fit. stopped"),
]
TASKS = ("birds", "cars")


def collection() -> MetricCollection:
    return MetricCollection(
        [
            fm.AccuracyMatrix(TASKS),
            fm.AverageAccuracy(TASKS),
            fm.BackwardTransfer(TASKS),
            fm.ForgettingRatio(TASKS, [0.9, 0.8], 0.1),
        ]
    )


def samples(learnt: str, task: str) -> tuple[Tensor, Tensor]:
    """Draw the evaluation of a task, one sample more than the ranks can share evenly."""
    generator = torch.Generator().manual_seed(10 * TASKS.index(learnt) + TASKS.index(task))
    preds, target = torch.randint(0, 3, (2, 2 * WORLD + 1), generator=generator)
    return preds, target


STAGES = (("birds", "birds"), ("cars", "birds"), ("cars", "cars"))


def accuracy_metrics(rank: int) -> dict[str, Tensor]:
    """Count every second sample; only the first rank sees the second task."""
    metrics = collection()
    for learnt, task in STAGES:
        preds, target = samples(learnt, task)
        if task == "birds":
            metrics.update(preds[rank::WORLD], target[rank::WORLD], learnt=learnt, task=task)
        elif rank == 0:
            metrics.update(preds, target, learnt=learnt, task=task)
    once = metrics.compute()
    again = metrics.compute()
    assert all(torch.equal(once[name], again[name]) or once[name].isnan().any() for name in once)
    found: dict[str, Tensor] = once
    return found


def mask_metrics(rank: int) -> dict[str, Tensor]:
    """Compute mask metrics of a session that both ranks have."""
    metrics = MetricCollection([fm.MaskUse(), fm.FreeUnitFraction(), fm.MaskOverlap(), fm.NetworkCapacity()])
    metrics.update(learnt_session())
    found: dict[str, Tensor] = metrics.compute()
    return found


def learnt_session() -> fh.Session:
    """Learn two tasks, on every rank the same."""
    torch.manual_seed(0)
    session = fh.attach(mlp(6, 8, 5, 3), {"adjustment": {"mode": "adahat"}}, batches(6, 3)[0][0])
    for task in TASKS:
        learn(session, task, batches(6, 3))
    return session


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_two_processes_count_as_one(ranks: Ranks) -> None:
    alone = collection()
    for learnt, task in STAGES:
        alone.update(*samples(learnt, task), learnt=learnt, task=task)
    for found in ranks(accuracy_metrics):
        equal(found, alone.compute())


def test_two_processes_use_the_masks_of_one(ranks: Ranks) -> None:
    alone = mask_metrics(0)
    assert 0 < alone["FreeUnitFraction"] < 1
    assert 0 < alone["NetworkCapacity"] < 1
    for found in ranks(mask_metrics):
        equal(found, alone)


class Measured(Learner):
    """Updates metrics in its tests, and logs numbers rather than metrics, so that Lightning does not reset them."""

    def __init__(self) -> None:
        super().__init__("adamw")
        self.continual = collection()
        self.right: dict[tuple[str, str], list[bool]] = {}
        self.learnt = ""

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        preds, task = self(batch[0]), TASKS[dataloader_idx]
        self.continual.update(preds, batch[1], learnt=self.learnt, task=task)
        self.right.setdefault((self.learnt, task), []).extend((preds.argmax(1) == batch[1]).tolist())

    def on_test_epoch_end(self) -> None:
        values: dict[str, Tensor] = self.continual.compute()
        self.log_dict({name: value for name, value in values.items() if value.ndim == 0})


def test_a_lightning_module_keeps_its_counts_over_all_fits() -> None:
    torch.manual_seed(0)
    module = Measured()
    session = attached(module, "hat", callbacks=[])
    logged: list[Any] = []
    for number, task in enumerate(TASKS):
        torch.manual_seed(number)
        trainer(callbacks(session, task=task)).fit(module, Loader(number))
        module.learnt = task
        seen = [Loader(i) for i in range(number + 1)]
        tester = trainer([TaskCallback(session, eval_tasks=TASKS[: number + 1])])
        logged += tester.test(module, seen[0] if number == 0 else seen, verbose=False)[:1]
    matrix = module.continual["AccuracyMatrix"].compute()
    for (learnt, task), right in module.right.items():
        mean = sum(right) / len(right)
        assert matrix[TASKS.index(learnt), TASKS.index(task)].item() == pytest.approx(mean)
    assert len(module.right) == 3
    assert logged[1]["BackwardTransfer"] == 0  # hard gates forget nothing
    assert logged[1]["AverageAccuracy"] == pytest.approx(matrix[1].mean().item())
