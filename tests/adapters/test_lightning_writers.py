"""Lightning's callbacks that write weights, or change what is trained: averages and finetuning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning import callbacks
from fgadahat_hooks.errors import ProtectedWeightsRestoredWarning
from tests.adapters.lightning_world import WARNINGS, Learner, Loader, attached, learner, logits, trainer

pytestmark = [*WARNINGS, pytest.mark.filterwarnings("ignore::fgadahat_hooks.errors.LearningWarning")]

TASKS = (("a", 3), ("b", 5))
WRITERS: dict[str, Callable[[], pl.Callback]] = {
    "EMA": lambda: EMAWeightAveraging(decay=0.5),
    "SWA": lambda: StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
    "finetuning": lambda: BackboneFinetuning(
        unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=1.0, train_bn=False
    ),
}


class WithBackbone(Learner):
    """What `BackboneFinetuning` freezes at first."""

    @property
    def backbone(self) -> nn.Module:
        return nn.ModuleList([self.net.conv, self.net.norm])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def fit(session: fh.Session, module: Learner, task: str, writer: pl.Callback, first: bool) -> None:
    own = callbacks(session, task=task, num_classes=dict(TASKS)[task])
    fitted = trainer([writer, *own] if first else [*own, writer], max_epochs=3)
    fitted.fit(module, Loader(ord(task), dict(TASKS)[task]))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_the_first_task_keeps_its_bits_and_nothing_has_to_be_put_back(name: str, first: bool) -> None:
    torch.manual_seed(0)
    module = WithBackbone()
    session = attached(module, fh.preset("hat", tasks=2))
    x = Loader(0).batches[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ProtectedWeightsRestoredWarning)
        fit(session, module, "a", WRITERS[name](), first)
        before = logits(session, "a", x)
        start = module.net.conv.weight.detach().clone()
        fit(session, module, "b", WRITERS[name](), first)
        assert torch.equal(before, logits(session, "a", x))
    assert not torch.equal(start, module.net.conv.weight)  # the second task has learnt there, too


@pytest.mark.parametrize("first", [True, False])
def test_a_task_is_finished_with_its_averaged_weights(first: bool) -> None:
    module = learner()
    session = attached(module, fh.preset("hat", tasks=2))
    for task, _ in TASKS:
        writer = EMAWeightAveraging(decay=0.9)
        fit(session, module, task, writer, first)
        average: Any = writer._average_model
        with session.use(task):
            assert torch.equal(module.net.head.weight, average.module.net.head.weight)
