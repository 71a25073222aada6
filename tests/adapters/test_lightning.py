"""Lightning: the Trainer does to the bit what a plain loop does, and the LightningModule knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning import (
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    TaskCallback,
    callbacks,
)
from fgadahat_hooks.errors import (
    BadCallError,
    CapabilityError,
    DuplicateNameError,
    DuplicateTaskError,
    ForeignOptimizerError,
    OptimizerError,
    SpecError,
)
from tests.adapters.lightning_world import (
    BATCHES,
    SPECS,
    WARNINGS,
    Batch,
    Learner,
    Loader,
    attached,
    everything,
    learner,
    logits,
    plain_fit,
    trainer,
)
from tests.checkpoint.test_state import differing

pytestmark = WARNINGS

PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate": 4},
    "clip": {"clip": 0.05},
    "bf16": {"bf16": True},
    "all": {"accumulate": 4, "clip": 0.05, "bf16": True},
}
TASKS = (("birds", 3), ("cars", 5), ("dogs", 3))


def options_of(plan: dict[str, Any]) -> dict[str, Any]:
    precision = {"precision": "bf16-mixed"} if plan.get("bf16") else {}
    return {"accumulate_grad_batches": plan.get("accumulate", 1), "gradient_clip_val": plan.get("clip"), **precision}


# ------------------------------------------------------------------ the same bits as a plain loop
@pytest.mark.parametrize(
    ("spec", "optimizer", "plan"),
    [
        *(("fg_adahat", optimizer, plan) for optimizer in ("momentum", "adamw") for plan in PLANS),
        ("hat", "adamw", "all"),
        ("gradient", "momentum", "clip"),
        ("gradient", "adamw", "all"),
        ("random", "adamw", "plain"),
    ],
)
def test_the_trainer_does_what_a_plain_loop_does(spec: str, optimizer: str, plan: str) -> None:
    ends = []
    for through_trainer in (False, True):
        module = learner(optimizer)
        session = attached(module, spec, callbacks=[] if through_trainer else None)
        for number, (task, classes) in enumerate(TASKS[:2]):
            torch.manual_seed(number)
            loader = Loader(number, classes)
            if through_trainer:
                run = trainer(callbacks(session, task=task, num_classes=classes), **options_of(PLANS[plan]))
                run.fit(module, loader)
                made = run.optimizers[0]
            else:
                made = plain_fit(session, module, task, loader, classes=classes, **PLANS[plan])
        ends.append((everything(session, made), module.losses))
    assert differing(ends[0][1], ends[1][1]) == []
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][0]["session"]["tasks"][1]["id"] == "cars"


def test_the_comparison_can_fail() -> None:
    ends = []
    for clip in (0.05, 0.051):
        module = learner()
        session = attached(module, "fg_adahat")
        plain_fit(session, module, "birds", Loader(0), clip=clip)
        ends.append(everything(session))
    assert differing(ends[0], ends[1]) != []


@pytest.mark.parametrize("whole", [True, False], ids=["module", "part"])
def test_hard_hat_forgets_nothing_through_the_trainer(whole: bool) -> None:
    module, ended = learner(), {}
    session = attached(module, "hat", whole=whole)
    x = Loader(9).batches[0][0]
    for number, (task, classes) in enumerate(TASKS):
        trainer(callbacks(session, task=task, num_classes=classes), gradient_clip_val=1.0).fit(
            module, Loader(number, classes), Loader(number, classes)
        )
        ended[task] = logits(session, task, x)
        assert all(0 < int(mask.sum()) < len(mask) for mask in session.cumulative_mask.values()) or number > 0
    assert session.tasks == ("birds", "cars", "dogs")
    assert [ended[t].shape[1] for t, _ in TASKS] == [3, 5, 3]
    assert all(torch.equal(logits(session, task, x), before) for task, before in ended.items())
    session.verify()


# ------------------------------------------------------------------ any order, any subset
def test_callbacks_work_in_any_order() -> None:
    ends = []
    for order in list(permutations(range(4)))[::5]:
        module = learner()
        session = attached(module, "fg_adahat", callbacks=[])
        for number, (task, _) in enumerate(TASKS[:2]):
            torch.manual_seed(number)
            parts = callbacks(session, task=task)
            trainer([parts[place] for place in order]).fit(module, Loader(number))
        ends.append(everything(session))
    assert all(differing(ends[0], other) == [] for other in ends[1:])


def test_what_is_absent_does_nothing() -> None:
    module = learner()
    session = attached(module, "fg_adahat", callbacks=[])
    trainer([TaskCallback(session, "birds")]).fit(module, Loader(0))
    assert (session.callbacks, session.importance("birds")) == ((), {})
    trainer([TaskCallback(session, "cars"), ImportanceCallback(session)]).fit(module, Loader(1))
    assert session.importance("cars")
    assert session.state_dict()["summed_importance"] == {}
    before = module.net.hidden.weight.detach().clone()
    adjust = GradientAdjustCallback(session, {"mode": "hat"})
    trainer([adjust, TaskCallback(session, "dogs"), SummationCallback(session, {"strategy": "add_average"})]).fit(
        module, Loader(2)
    )
    assert session.importance("dogs") == {}
    used = session.masks("birds")["hidden"] | session.masks("cars")["hidden"]
    kept = (module.net.hidden.weight == before).any(dim=1)
    assert bool(kept[used].all())
    assert [c.key for c in session.callbacks] == ["summation", "gradient_adjust"]


def test_a_session_with_callbacks_of_its_own_keeps_them() -> None:
    module = learner()
    session = attached(module, "fg_adahat")
    assert [type(c) for c in callbacks(session, task="birds")] == [TaskCallback]
    run = trainer([ImportanceCallback(session), *callbacks(session, task="birds")])
    with pytest.raises(DuplicateNameError, match=r"\['importance'\] came more than once"):
        run.fit(module, Loader(0))
    assert session.tasks == ()
    trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.importance("birds")


def test_parts_need_a_task_callback_and_take_the_session_s_spec() -> None:
    module = learner()
    session = attached(module, "gradient", callbacks=[])
    parts = {type(p).__name__: p for p in callbacks(session, task="birds")}
    assert list(parts) == ["TaskCallback", "ImportanceCallback", "SummationCallback", "GradientAdjustCallback"]
    core = [p.core for p in parts.values() if not isinstance(p, TaskCallback)]  # type: ignore[attr-defined]
    assert [c.spec for c in core] == [session.spec.importance, session.spec.summation, session.spec.adjustment]
    with pytest.raises(BadCallError, match="Expected a TaskCallback over the same session beside ImportanceCallback"):
        trainer([parts["ImportanceCallback"]]).fit(module, Loader(0))
    with pytest.raises(SpecError):
        ImportanceCallback(session, {"type": "nonsense"})


# ------------------------------------------------------------------ how a fit may end
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": BATCHES + 2, "max_epochs": -1}, BATCHES + 2),
        ({"limit_train_batches": 3}, 6),
        ({"limit_train_batches": 0.5}, 6),
        ({"max_epochs": 3}, 3 * BATCHES),
        ({"val_check_interval": 2}, 2 * BATCHES),
        ({"overfit_batches": 2}, 4),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling")
def test_a_task_ends_with_the_training(options: dict[str, Any], steps: int) -> None:
    module, scales = learner(), Scales()
    session = attached(module, callbacks=[scales])
    trainer(callbacks(session, task="birds"), **options).fit(module, Loader(0), Loader(0))
    assert session.tasks == ("birds",)
    assert len(module.losses) == scales.steps == steps
    assert scales.seen[0] == pytest.approx(1 / 400)
    assert max(scales.seen) == 400.0


class Scales(fh.Callback):
    """Notes the gate scale of each batch, and counts steps."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.steps = 0

    def on_train_batch_start(self, context: fh.TaskContext) -> None:
        self.seen.append(float(next(iter(context.layers.values())).gate.context.scale))

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Any) -> None:
        self.steps += 1


def test_early_stopping_ends_the_task() -> None:
    module = learner()
    session = attached(module)
    stop = EarlyStopping("loss", patience=0, mode="max", min_delta=1e6)
    run = trainer([*callbacks(session, task="birds"), stop], max_epochs=9)
    run.fit(module, Loader(0), Loader(0))
    assert run.current_epoch < 8
    assert session.tasks == ("birds",)


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"limit_train_batches": 0}], ids=str)
def test_a_trial_run_stores_nothing(options: dict[str, Any]) -> None:
    module = learner()
    session = attached(module)
    head = module.net.head.weight.shape
    trainer(callbacks(session, task="birds", num_classes=7), **options).fit(module, Loader(0, 7), Loader(0, 7))
    assert list(session.tasks) == []
    assert module.net.head.weight.shape == head
    trainer(callbacks(session, task="birds", num_classes=7)).fit(module, Loader(0, 7))
    assert session.tasks == ("birds",)


class BoomError(Exception):
    """Raised in the middle of a fit."""


@pytest.mark.parametrize("where", ["on_step", "setup", "on_fit_start", "on_train_end"])
def test_an_exception_rolls_the_task_back(where: str) -> None:
    module = learner()
    session = attached(module)
    trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    x = Loader(0).batches[0][0]
    ended = logits(session, "birds", x)

    def boom(*_: Any, **__: Any) -> None:
        raise BoomError

    bad = pl.Callback()
    setattr(module if where == "on_step" else bad, where, boom)
    with pytest.raises(BoomError):
        trainer([bad, *callbacks(session, task="cars", num_classes=5)]).fit(module, Loader(1, 5))
    assert session.tasks == ("birds",)
    assert module.net.head.out_features == 3
    assert torch.equal(logits(session, "birds", x), ended)
    module.on_step = lambda *_: None
    assert len(session.tasks) == 1
    trainer(callbacks(session, task="cars", num_classes=5)).fit(module, Loader(1, 5))
    assert torch.equal(logits(session, "birds", x), ended)


def test_ctrl_c_rolls_the_task_back() -> None:
    module = learner()
    session = attached(module)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    module.on_step = stop
    with pytest.raises(SystemExit):
        trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.tasks == ()


def test_nothing_is_left_after_a_fit() -> None:
    module = learner(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))
    session = attached(module, "gradient", callbacks=[])
    hooks = {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in module.named_modules()}
    run = trainer(callbacks(session, task="birds"))
    run.fit(module, Loader(0))
    optimizer = run.optimizers[0]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert run.lr_scheduler_configs[0].scheduler.optimizer is optimizer
    assert hooks == {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in module.named_modules()}


# ------------------------------------------------------------------ data without a length
class Stream(IterableDataset[Batch]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[Batch]:
        for x, y in Loader(0).batches:
            yield from zip(x, y, strict=True)


def test_data_without_a_length_needs_a_number() -> None:
    module, scales = learner(), Scales()
    session = attached(module, callbacks=[scales])
    loader = DataLoader(Stream(), batch_size=8)
    with pytest.raises(BadCallError, match="Expected `num_batches` for a train dataloader without a length"):
        trainer(callbacks(session, task="birds")).fit(module, loader)
    scales.seen.clear()
    trainer(callbacks(session, task="birds", num_batches=3), max_epochs=1).fit(module, loader)
    assert scales.seen == pytest.approx([1 / 400, 200 + 1 / 800, 400] * 2)
    trainer(callbacks(session, task="cars"), max_epochs=1, limit_train_batches=2).fit(module, loader)
    assert scales.seen[-1] == 400.0


def test_the_first_batch_is_traced_without_example_inputs() -> None:
    module = learner()
    session = fh.attach(module, SPECS["fg_adahat"], callbacks=[])
    trainer(callbacks(session, task="birds")).fit(module, Loader(0), Loader(0))
    assert session.tasks == ("birds",)
    assert list(session.graph.layers) == ["net.conv", "net.hidden"]


# ------------------------------------------------------------------ steps that are none
def test_steps_that_the_scaler_skips_do_not_count() -> None:
    module, scales = learner("momentum"), Scales()
    session = attached(module, "fg_adahat", callbacks=[scales])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def overflow(self: Learner, index: int) -> None:
        self.factor = float("inf") if index in (1, 4) else 1.0

    module.on_step = overflow
    run = trainer(
        [*callbacks(session, task="birds"), ImportanceCallback(session)],
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        max_epochs=1,
        gradient_clip_val=1.0,
    )
    run.fit(module, Loader(0))
    assert scales.steps == BATCHES - 2
    assert session.importance("birds")


def test_a_training_step_may_return_nothing() -> None:
    class Sometimes(Learner):
        def training_step(self, batch: Batch, index: int) -> Tensor | None:  # type: ignore[override]
            return None if index == 2 else super().training_step(batch, index)

    torch.manual_seed(0)
    module = Sometimes()
    session = attached(module, "fg_adahat")
    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.tasks == ("birds",)


# ------------------------------------------------------------------ manual optimization
class ByHand(Learner):
    """Steps two optimizers by itself: one for the body, one for the head."""

    def __init__(self) -> None:
        super().__init__("momentum")
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        head = [*self.net.head.parameters()]
        body = [p for p in self.parameters() if all(p is not h for h in head)]
        return [torch.optim.SGD(body, 0.05, momentum=0.9, weight_decay=0.01), torch.optim.AdamW(head, 0.01)]

    def training_step(self, batch: Batch, index: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():  # type: ignore[union-attr]  # there are two
            self.on_step(self, index)
            optimizer.zero_grad()
            self.manual_backward(cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()


def by_hand_in_a_plain_loop(session: fh.Session, module: ByHand, name: str, loader: Loader) -> None:
    with session.task(name, epochs=2) as task:
        body, head = module.configure_optimizers()
        gates = list(session.embeddings.values())
        own = [p for p in body.param_groups[0]["params"] if all(p is not g for g in gates)]
        body = torch.optim.SGD([{"params": own}, {"params": gates}], 0.05, momentum=0.9, weight_decay=0.01)
        body.param_groups[1].update(lr=0.5, weight_decay=0.0)
        optimizers = [task.protect(o) for o in (body, head)]
        for _ in range(2):
            module.train()
            for x, y in task.batches(loader):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                    (cross_entropy(module(x), y) + (task.regularization() if optimizer is body else 0)).backward()
                    optimizer.step()


def test_manual_optimization_with_two_optimizers_does_what_a_plain_loop_does() -> None:
    ends, x = [], Loader(9).batches[0][0]
    for through_trainer in (False, True):
        torch.manual_seed(0)
        module = ByHand()
        session = attached(module, "hat")
        for number, task in enumerate(("birds", "cars")):
            torch.manual_seed(number)
            if through_trainer:
                trainer(callbacks(session, task=task)).fit(module, Loader(number))
            else:
                by_hand_in_a_plain_loop(session, module, task, Loader(number))
            if task == "birds":
                ended = logits(session, "birds", x)
        assert torch.equal(logits(session, "birds", x), ended)
        ends.append(everything(session))
    assert ends[0]["session"]["tasks"][0]["masks"].keys() == {"conv", "hidden"}
    for name, value in ends[0]["model"].items():
        torch.testing.assert_close(ends[1]["model"][name], value, rtol=1e-4, atol=1e-6)
    assert differing(ends[0]["session"]["tasks"][0]["masks"], ends[1]["session"]["tasks"][0]["masks"]) == []


def test_an_optimizer_of_another_net_is_left_alone() -> None:
    class Adversary(ByHand):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Linear(3, 2)

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(self.net.parameters()), torch.optim.Adam(self.other.parameters())]

        def training_step(self, batch: Batch, index: int) -> None:  # type: ignore[override]
            mine, others = self.optimizers()  # type: ignore[attr-defined]  # there are two
            with others.toggle_model():
                self.manual_backward(self.other(self.net(batch[0]).detach()).square().mean().sqrt())
                others.step()
                others.zero_grad()
            with mine.toggle_model():
                self.manual_backward(self.other(self.net(batch[0])).square().mean().sqrt())
                mine.step()
                mine.zero_grad()

    torch.manual_seed(0)
    module = Adversary()
    session = attached(module)
    run = trainer(callbacks(session, task="birds"))
    run.fit(module, Loader(0))
    assert [len(o.param_groups) for o in run.optimizers] == [2, 1]
    assert session.tasks == ("birds",)


# ------------------------------------------------------------------ optimizers that call their closure again and again
class WithLBFGS(Learner):
    """Looks for the minimum along a line, calling the closure several times a step."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


def test_lbfgs_works_with_hard_hat_and_is_refused_where_gradients_are_needed() -> None:
    torch.manual_seed(0)
    module = WithLBFGS()
    session = attached(module, "hat")
    x = Loader(9).batches[0][0]
    trainer(callbacks(session, task="birds"), max_epochs=1).fit(module, Loader(0))
    ended = logits(session, "birds", x)
    trainer(callbacks(session, task="cars"), max_epochs=1).fit(module, Loader(1))
    assert torch.equal(logits(session, "birds", x), ended)
    torch.manual_seed(0)
    module = WithLBFGS()
    session = attached(module, "fg_adahat")
    with pytest.raises(OptimizerError, match="was called with a closure"):
        trainer(callbacks(session, task="birds"), max_epochs=1).fit(module, Loader(0))


# ------------------------------------------------------------------ modes
@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode at the start of training")
@pytest.mark.parametrize("whole", [True, False], ids=["module", "part"])
def test_a_model_in_evaluation_mode_is_not_trained(whole: bool) -> None:
    module = learner()
    session = attached(module, whole=whole)
    module.eval()
    with pytest.raises(BadCallError, match=r"all of it is in evaluation mode.*call train\(\) on the LightningModule"):
        trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert (list(session.tasks), module.losses) == ([], [])
    module.train()
    trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.tasks == ("birds",)


@pytest.mark.filterwarnings("ignore:Found .* module.* in eval mode at the start of training")
def test_norms_may_stay_in_evaluation_mode() -> None:
    module = learner()
    session = attached(module)
    module.net.norm.eval()
    running = module.net.norm.running_mean.clone()  # type: ignore[union-attr]
    drawn: list[Tensor] = []
    note = pl.Callback()
    note.on_train_start = lambda *_: drawn.extend(e.detach().clone() for e in session.embeddings.values())  # type: ignore[method-assign]
    trainer([note, *callbacks(session, task="birds")]).fit(module, Loader(0), Loader(0))
    assert torch.equal(module.net.norm.running_mean, running)  # type: ignore[arg-type]
    assert not module.net.norm.training
    assert len(drawn) == 2
    assert not any(torch.equal(before, e) for before, e in zip(drawn, session.embeddings.values(), strict=True))


# ------------------------------------------------------------------ what is refused
def test_what_cannot_work_is_refused_before_anything_happens() -> None:
    module, other = learner(), learner()
    session = attached(module)
    with pytest.raises(BadCallError, match="Learner does not hold it"):
        trainer(callbacks(session, task="birds")).fit(other, Loader(0))
    with pytest.raises(BadCallError, match="Expected a task to fit"):
        trainer([TaskCallback(session)]).fit(module, Loader(0))
    run = trainer(callbacks(session, task="birds"))
    run.strategy.__class__ = type("FSDPStrategy", (type(run.strategy),), {})
    with pytest.raises(CapabilityError, match="keeps parameters whole, but got FSDPStrategy"):
        run.fit(module, Loader(0))
    module.configure_optimizers = lambda: torch.optim.SGD(other.parameters(), 0.1)  # type: ignore[method-assign]
    with pytest.raises(ForeignOptimizerError, match="None of the optimizers"):
        trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.tasks == ()


def test_wrong_options_are_reported_together() -> None:
    session = attached(learner())
    with pytest.raises(BadCallError) as caught:
        TaskCallback(session, "birds", eval_tasks=[], gate_lr=0, num_batches=2.5)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Expected `eval_tasks` to be a list of task ids, one for each dataloader, but got []; `gate_lr` to be a number "
        "> 0, but got 0; `num_batches` to be a whole number of at least 1, but got 2.5."
    )
    with pytest.raises(BadCallError, match="attach returned, but got Learner"):
        TaskCallback(learner(), "birds")  # type: ignore[arg-type]


def test_a_finished_task_is_not_trained_again() -> None:
    module = learner()
    session = attached(module)
    trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    with pytest.raises(DuplicateTaskError):
        trainer(callbacks(session, task="birds")).fit(module, Loader(0))
    assert session.tasks == ("birds",)
