"""Attribution measures run the model again during a Lightning step, without side effects."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fgadahat_hooks.adapters.lightning import (
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    TaskCallback,
    callbacks,
)
from fgadahat_hooks.errors import BadCallError, CapabilityError
from tests.adapters.lightning_world import (
    WARNINGS,
    Batch,
    Learner,
    Loader,
    attached,
    everything,
    learner,
    plain_fit,
    trainer,
)
from tests.checkpoint.test_state import differing

pytestmark = WARNINGS
MEASURES = ("gradcam_abs", "conductance_abs")
TASKS = ("birds", "cars")


class Dropping(Learner):
    """Draws random numbers in every training forward."""

    def __init__(self) -> None:
        super().__init__("adamw")
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.drop(x))  # type: ignore[no-any-return]


def learn(measure: str | None, whole: bool) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """Learn two tasks by hard HAT; return all values, the last task's importance, and the random state."""
    torch.manual_seed(0)
    module = Dropping()
    session = attached(module, "hat", whole=whole, callbacks=[])
    for number, task in enumerate(TASKS):
        torch.manual_seed(number)
        parts: list[pl.Callback] = [GradientAdjustCallback(session), TaskCallback(session, task)]
        if measure is not None:
            parts.insert(0, ImportanceCallback(session, {"type": measure}))
        run = trainer(parts, gradient_clip_val=0.5, accumulate_grad_batches=2)
        run.fit(module, Loader(number))
    found = everything(session, run.optimizers[0])
    for task in found["session"]["tasks"]:
        importance = task.pop("importance")
    found["session"].pop("callbacks")
    found["grads"] = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert all(m.training for m in module.modules())
    return found, importance, torch.get_rng_state()


@pytest.mark.parametrize("whole", [True, False], ids=["module", "part"])
def test_measuring_changes_nothing_of_the_training(whole: bool) -> None:
    expected, _, random = learn(None, whole)
    for measure in MEASURES:
        found, importance, state = learn(measure, whole)
        assert differing(expected, found) == []
        assert torch.equal(state, random)
        assert len(importance) == 2
        assert all(int((value > 0).sum()) > 0 for value in importance.values())


@pytest.mark.parametrize("measure", MEASURES)
def test_an_attribution_is_that_of_a_plain_loop(measure: str) -> None:
    spec = {"adjustment": {"mode": "fg_adahat"}, "importance": {"type": measure}, "regularization": {"factor": 0.02}}
    ends = []
    for through_trainer in (False, True):
        module = learner()
        session = attached(module, spec, callbacks=[] if through_trainer else None)
        for number, task in enumerate(TASKS):
            torch.manual_seed(number)
            if through_trainer:
                parts = callbacks(session, task=task)
                trainer(parts, gradient_clip_val=0.05, accumulate_grad_batches=4).fit(module, Loader(number))
            else:
                plain_fit(session, module, task, Loader(number), classes=3, clip=0.05, accumulate=4)
        ends.append({**everything(session), "measured": session.importance("cars")})
    for end in ends:
        for record in end["session"]["tasks"]:
            record.pop("num_classes")
    assert differing(ends[0], ends[1]) == []
    assert ends[1]["measured"]


def test_a_target_of_the_user_s_is_attributed() -> None:
    """Minus the label's logit has the same size of attribution as the logit; the others' sum has another."""

    def flipped(output: Tensor, batch: Batch) -> Tensor:
        return -output.gather(1, batch[1][:, None])[:, 0]

    def others(output: Tensor, batch: Batch) -> Tensor:
        return output.sum(1) + flipped(output, batch)

    found = []
    for target in (None, flipped, others):
        module = learner()
        session = attached(module, "fg_adahat", callbacks=[])
        torch.manual_seed(0)
        measured = ImportanceCallback(session, {"type": "gradient_x_activation_abs"}, target=target)
        trainer([measured, SummationCallback(session), TaskCallback(session, "birds")]).fit(module, Loader(0))
        found.append(session.importance("birds"))
    assert differing(found[0], found[1]) == []
    assert differing(found[0], found[2]) != []
    with pytest.raises(BadCallError, match="Expected `target` to be a function of output and batch, but got 3"):
        ImportanceCallback(session, target=3)  # type: ignore[arg-type]


def test_a_forward_of_the_attached_module_is_needed() -> None:
    class Around(Learner):
        def training_step(self, batch: Batch, index: int) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

    torch.manual_seed(0)
    module = Around()
    session = attached(module, "fg_adahat", whole=True, callbacks=[])
    parts = [ImportanceCallback(session, {"type": "gradcam_abs"}), TaskCallback(session, "birds")]
    with pytest.raises(BadCallError, match="no forward of the attached Around in training mode"):
        trainer(parts).fit(module, Loader(0))
    assert session.tasks == ()


def test_the_module_that_ddp_calls_is_not_attributed() -> None:
    """Under DDP, Lightning calls the LightningModule with the inputs of `training_step`, not those of `forward`."""
    module = learner()
    session = attached(module, "fg_adahat", whole=True, callbacks=[])
    task = TaskCallback(session, "birds")
    run = trainer([ImportanceCallback(session, {"type": "gradcam_abs"}), task])
    run.strategy.__class__ = type("DDPStrategy", (type(run.strategy),), {})
    with pytest.raises(CapabilityError, match=r"'gradcam_abs' runs the attached model again.*attach\(module\.net"):
        run.fit(module, Loader(0))
    fine = ImportanceCallback(session, {"type": "activation_abs"})
    for parts in ([task], [fine, task]):
        run = trainer([*parts], fast_dev_run=True)
        run.strategy.__class__ = type("DDPStrategy", (type(run.strategy),), {})
        run.fit(module, Loader(0))
