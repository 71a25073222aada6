"""A session: tasks one after another, what can be read of them, use, detach."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.errors import DetachedError, NoTaskError, UnprotectedOptimizerError
from tests.support.learning import Recipe, gates, learn, logits, recipe
from tests.support.small_models import Backwards, Net, batch


@pytest.fixture
def session() -> fh.Session:
    """Return a session of two finished tasks."""
    made = fh.attach(Net(), None, batch(1)[0])
    for seed, task in enumerate("ab"):
        learn(made, task, [batch(seed=seed)] * 3, recipe("adamw"))
    return made


def head(session: fh.Session) -> Tensor:
    return session.model.get_parameter("head.weight")


# ------------------------------------------------------------------ tasks
def test_starts_open_and_closes_with_the_first_task() -> None:
    model, x = Net().eval(), batch()[0]
    plain = model(x)
    session = fh.attach(model, None, x[:1])
    assert torch.equal(model(x), plain)
    assert (session.tasks, session.capacity(), session.model) == ((), 1.0, model)
    learn(session, "a", [batch()], recipe("sgd"))
    assert session.tasks == ("a",)
    with pytest.raises(NoTaskError, match=r"session\.use\(task\)"):
        model(x)


def test_task_ids_may_be_str_or_int_in_any_order(session: fh.Session) -> None:
    learn(session, 3, [batch()], recipe("sgd"))
    learn(session, 0, [batch()], recipe("sgd"))
    assert session.tasks == ("a", "b", 3, 0)
    assert repr(session) == "Session(Net, 3 gates, tasks=['a', 'b', 3, 0])"


def test_running_is_the_id_of_the_task_in_its_block(session: fh.Session) -> None:
    with session.task(0) as task:
        task.anneal(1, 1)
        assert session.running == 0
    assert session.running is None


def test_an_optimizer_may_not_step_outside_tasks(session: fh.Session) -> None:
    optimizer = SGD(session.model.parameters(), 0.1)
    with session.use("a"):
        F.cross_entropy(session.model(batch()[0]), batch()[1]).backward()
        with pytest.raises(UnprotectedOptimizerError, match="outside any task"):
            optimizer.step()
    session.detach()
    optimizer.step()


def test_a_deleted_session_guards_no_optimizer() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    learn(session, "a", [batch()], recipe("sgd"))
    model = session.model
    del session
    gc.collect()
    SGD(model.parameters(), 0.1).step()


# ------------------------------------------------------------------ use
def test_use_restores_everything(session: fh.Session) -> None:
    live = {name: (value, value.clone()) for name, value in session.model.state_dict(keep_vars=True).items()}
    with session.use("a"):
        assert not torch.equal(head(session), live["head.weight"][1])
        session.model.train()(batch()[0])  # changes running statistics and the buffer
    for name, value in session.model.state_dict(keep_vars=True).items():
        assert value is live[name][0]
        assert torch.equal(value, live[name][1])


def test_training_mode_inside_use_does_not_change_the_task(session: fh.Session) -> None:
    before = logits(session, "a", batch()[0])
    with session.use("a"):
        session.model.train()(batch()[0])
    assert torch.equal(logits(session, "a", batch()[0]), before)


def test_use_is_undone_after_an_exception_and_may_be_nested(session: fh.Session) -> None:
    x = batch()[0]
    a, b = logits(session, "a", x), logits(session, "b", x)
    assert not torch.equal(a, b)
    with session.use("a"):
        with session.use("b"):
            assert torch.equal(session.model(x), b)
            with pytest.raises(ZeroDivisionError), session.use("a"):
                raise ZeroDivisionError
            assert torch.equal(session.model(x), b)
        assert torch.equal(session.model(x), a)


def test_use_inside_a_running_task() -> None:
    """Norms keep their running statistics here: measured anew at the end, they would change the logits."""
    x, session = batch()[0], fh.attach(Net(), {"plasticity": {"norm_statistics": "running"}}, batch(1)[0])
    learn(session, "a", [batch()] * 3, recipe("adamw"))
    a = logits(session, "a", x)
    with session.task("c") as task:
        optimizer = task.protect(recipe("sgd").optimizer(session))
        for inputs, target in task.batches([batch()] * 3):
            session.model.train()
            F.cross_entropy(session.model(inputs), target).backward()
            mine = head(session).clone()
            assert torch.equal(logits(session, "a", x), a)
            assert torch.equal(head(session), mine)
            optimizer.step()
        session.model.eval()
        running = session.model(x)
        session.model.train()
        with session.use("c"):
            masks = [g.hard_mask() for g in gates(session)]
            assert all(set(m.tolist()) <= {0.0, 1.0} for m in masks)
        assert torch.equal(logits(session, "c", x), running)
    assert torch.equal(logits(session, "c", x), running)


def test_gradients_flow_inside_use(session: fh.Session) -> None:
    x = batch()[0].requires_grad_()
    with session.use("a"):
        session.model.eval()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


# ------------------------------------------------------------------ parameter groups
def test_parameter_groups_cover_what_may_be_trained() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    own, embeddings = session.parameter_groups(lr=0.1, weight_decay=0.2, momentum=0.9)
    assert (own["lr"], embeddings["lr"], own["weight_decay"], embeddings["weight_decay"]) == (0.1, 1.0, 0.2, 0.0)
    assert own["momentum"] == embeddings["momentum"] == 0.9
    parts = [*own["params"], *embeddings["params"]]
    assert {id(p) for p in parts} == {id(p) for p in session.model.parameters()}
    assert len(embeddings["params"]) == 3
    assert session.parameter_groups(lr=0.1, gate_lr=0.3)[1]["lr"] == 0.3


def test_parameter_groups_leave_out_what_is_already_frozen(session: fh.Session) -> None:
    own = session.parameter_groups(lr=0.1)[0]["params"]
    missing = {n for n, p in session.model.named_parameters() if not any(p is q for q in own) and "gate" not in n}
    assert missing == {"scale"}


def test_parameters_that_the_user_froze_stay_out_and_frozen() -> None:
    model = Net()
    model.conv1.requires_grad_(False)
    session = fh.attach(model, None, batch(1)[0])
    assert not any(p is model.conv1.weight for p in session.parameter_groups(lr=0.1)[0]["params"])
    before = model.conv1.weight.clone()
    for task in "ab":
        learn(session, task, [batch()] * 2, recipe("adamw"))
    assert torch.equal(model.conv1.weight, before)
    assert not model.conv1.weight.requires_grad


# ------------------------------------------------------------------ masks, capacity, importance
def test_masks_add_up(session: fh.Session) -> None:
    a, b = session.masks("a"), session.masks("b")
    assert list(a) == ["conv1", "conv2", "hidden"]
    for name, mask in a.items():
        assert mask.dtype is torch.bool
        assert torch.equal(session.cumulative_mask[name], mask | b[name])
        assert torch.equal(session.summative_mask[name], mask.long() + b[name].long())
        assert session.unit_use()[name] == {"a": mask.double().mean().item(), "b": b[name].double().mean().item()}
    a["conv1"].fill_(True)  # a copy
    assert not session.masks("a")["conv1"].all()


def test_masks_are_where_embeddings_ended_up_positive() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    with session.task("a") as task:
        task.anneal(1, 1)
        wanted = {gate.name: gate.embedding.detach() > 0 for gate in gates(session)}
    assert all(torch.equal(session.masks("a")[name], mask) for name, mask in wanted.items())


def test_capacity_is_the_share_of_weights_that_may_move() -> None:
    session = fh.attach(Backwards(), None, batch(1)[0])
    learn(session, "a", [batch()] * 3, recipe("adamw"))
    first, second = session.masks("a")["first"], session.masks("a")["second"]
    kept = first.sum() * 72 + first.sum() + first.sum() * second.sum() + second.sum()
    assert session.capacity() == pytest.approx(1 - int(kept) / (7 * 72 + 7 + 11 * 7 + 11))
    with session.task("b"):
        assert session.capacity() == pytest.approx(1 - int(kept) / (7 * 72 + 7 + 11 * 7 + 11))


@pytest.mark.parametrize("mode", ["adahat", "fg_adahat", "hat_const_1", "hat_const_alpha"])
def test_capacity_of_other_modes_falls_with_every_task(mode: str) -> None:
    spec = {"adjustment": {"mode": mode, **({"alpha": 0.5} if mode == "hat_const_alpha" else {})}}
    session = fh.attach(Net(), spec, batch(1)[0])
    seen = [session.capacity()]
    for task in "abc":
        learn(session, task, [batch()] * 2, recipe("adamw"))
        seen.append(session.capacity())
    assert seen[0] == 1
    assert seen == [1.0] * 4 if mode == "hat_const_1" else seen == sorted(seen, reverse=True)
    assert all(0 < value <= 1 for value in seen)


def test_importance_is_there_when_a_callback_measured_it(session: fh.Session) -> None:
    assert session.importance("a") == session.summed_importance == {}
    measured = fh.attach(Net(), fh.preset("fg_adahat", tasks=3), batch(1)[0])
    learn(measured, "a", [batch()] * 2, recipe("adamw"))
    importance = measured.importance("a")
    for name, mask in measured.masks("a").items():
        assert (importance[name] >= 0).all()
        assert not importance[name][~mask].any()
    summed = measured.summed_importance
    assert all(torch.equal(summed[name], value) for name, value in importance.items())
    summed["conv1"].fill_(-1)  # a copy
    assert torch.equal(measured.summed_importance["conv1"], importance["conv1"])


# ------------------------------------------------------------------ choices of the spec
def test_frozen_norms_do_not_change_after_the_first_task() -> None:
    session = fh.attach(Net(), {"norms": "freeze"}, batch(1)[0])
    names = [n for n in session.model.state_dict() if n.startswith("bn") and not n.endswith("tracked")]
    seen = []
    for task in "abc":
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
        seen.append({name: session.model.state_dict()[name].clone() for name in names})
        assert session.model.get_submodule("bn1").training
    initial = Net().state_dict()
    assert all(not torch.equal(seen[0][name], initial[name]) for name in names)
    assert all(torch.equal(value, later[name]) for later in seen[1:] for name, value in seen[0].items())


def test_rest_per_task_is_trained_in_each_task() -> None:
    session = fh.attach(Net(), {"rest": "per_task"}, batch(1)[0])
    scales = []
    for task in "ab":
        learn(session, task, [batch()] * 2, recipe("adamw"))
        scales.append(session.model.get_parameter("scale").detach().clone())
    assert not torch.equal(*scales)
    for task, scale in zip("ab", scales, strict=True):
        with session.use(task):
            assert torch.equal(session.model.get_parameter("scale"), scale)


def test_frozen_rest_and_buffers_outside_norms() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    scales, counts = [], []
    for task in "ab":
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
        scales.append(session.model.get_parameter("scale").detach().clone())
        counts.append(session.model.get_buffer("counts").clone())
    assert torch.equal(*scales)
    assert not torch.equal(*counts)
    with session.use("a"):
        assert torch.equal(session.model.get_buffer("counts"), counts[0])


def test_norms_of_each_task_start_as_at_attach() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    start = {n: v.clone() for n, v in session.model.state_dict().items() if n.startswith("bn")}
    learn(session, "a", [batch()] * 2, recipe("adamw"))
    with session.task("b") as task:
        task.anneal(1, 1)
        assert all(torch.equal(session.model.state_dict()[name], value) for name, value in start.items())


def test_init_last_starts_from_the_previous_task() -> None:
    session = fh.attach(Net(), {"gates": {"init": "last"}}, batch(1)[0])
    learn(session, "a", [batch()] * 2, recipe("adamw"))
    with session.task("b") as task:
        task.anneal(1, 1)
    assert all(torch.equal(mask, session.masks("b")[name]) for name, mask in session.masks("a").items())


def test_a_kept_optimizer_resets_its_state_where_tensors_are_reset() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    how = Recipe(lambda groups: AdamW(groups), 1e-3, keep=True)
    learn(session, "a", [batch()] * 2, how)
    optimizer = how.optimizer(session)
    model = session.model
    with session.task("b", num_classes=5) as task:
        task.protect(optimizer)
        task.anneal(1, 1)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert id(model.get_parameter("head.weight")) in held
        for name in ("head.weight", "bn1.weight", "conv1.hat_gate.embedding"):
            assert model.get_parameter(name) not in optimizer.state
        assert model.get_parameter("conv1.weight") in optimizer.state


# ------------------------------------------------------------------ copies, and what callbacks keep
def test_a_copy_of_a_session_works_by_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    session = fh.attach(model, None, torch.randn(1, 4))
    twin = copy.deepcopy(session)
    learn_one(twin, "birds")
    assert twin.tasks == ("birds",)
    assert session.tasks == ()
    assert twin.model is not model


def learn_one(session: fh.Session, name: str) -> None:
    with session.task(name) as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for batch in task.batches([torch.randn(8, 4)]):
            (session.model(batch).sum() + task.regularization()).backward()
            optimizer.step()


def test_the_capacity_asks_for_a_traced_model_where_rates_are_adjusted() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    session = fh.attach(model, {"adjustment": {"mode": "hat"}})
    with pytest.raises(NoTaskError, match="not been traced yet"):
        session.capacity()
    with pytest.raises(NoTaskError, match="not been traced yet"):
        session.mean_rates()
    session.detach()
    with pytest.raises(DetachedError):
        session.capacity()


def test_without_adjustment_the_capacity_is_one_whatever_became_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    session = fh.attach(model, None, torch.randn(1, 4), callbacks=[])
    learn_one(session, "birds")
    session.detach()
    assert session.capacity() == 1.0


def test_a_state_that_a_callback_keeps_does_not_change_later() -> None:
    class Keep(fh.Callback):
        kept: fh.TaskContext | None = None

        def on_task_end(self, context: fh.TaskContext) -> None:
            self.kept = context

    model, keep = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), Keep()
    session = fh.attach(model, None, torch.randn(1, 4), callbacks=[keep])
    for name in ("birds", "cars"):
        learn_one(session, name)
    assert keep.kept is not None
    state = keep.kept.state
    session.forget("birds", dry_run=False)
    assert list(state.records) == ["birds", "cars"]
    assert session.tasks == ("cars",)
