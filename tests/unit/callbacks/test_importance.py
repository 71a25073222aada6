"""When and on what importance is measured. The measures and the whole run are compared elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, CapabilityError, NonFiniteError, SpecError, UnknownNameError
from fgadahat_hooks.functional import min_max
from fgadahat_hooks.importance import LayerView
from tests.reference import measures as reference
from tests.small import backward, batches, learn, mlp, sgd, snapshot, train

X = torch.randn(2, 4, dtype=torch.float64)


class Spy(fh.Measure):
    """Keeps what it is shown and returns the numbers of the units."""

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "gradient", "activation", "consumers"})
    views: ClassVar[list[LayerView]] = []
    value: ClassVar[float] = 1.0

    def compute(self, view: LayerView) -> Tensor:
        Spy.views.append(view)
        return torch.arange(view.units, dtype=torch.float64) * Spy.value


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Spy]]:
    monkeypatch.setattr(registry.measures, "_items", {**registry.measures._items})
    fh.register_measure("spy")(Spy)
    Spy.views, Spy.value = [], 1.0
    yield Spy
    Spy.views = []


def attach(model: nn.Module, **block: Any) -> tuple[fh.Session, fh.ImportanceCallback]:
    example = torch.randn(2, 4, dtype=torch.float64)
    importance = fh.ImportanceCallback(block)
    return fh.attach(model, {}, example, [importance]), importance


def soft_masks(session: fh.Session) -> Tensor:
    gate = session.model.get_submodule("0.hat_gate")
    mask: Tensor = gate.soft_mask()  # type: ignore[operator]
    return mask.detach()


# ------------------------------------------------------------------ options
def test_every_n_steps_measures_the_first_and_every_nth(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 3), type="spy", every_n_steps=3)
    learn(session, "a", batches(4, 3, count=7))
    assert len(spy.views) == 3
    learn(session, "b", batches(4, 3, count=1))
    assert len(spy.views) == 4


def test_the_mean_is_over_measured_steps(spy: type[Spy]) -> None:
    """The spy says the same at each step, so the mean does not depend on how many were measured."""
    for every in (1, 2, 5):
        session, _ = attach(
            mlp(4, 5, 3), type="spy", every_n_steps=every, multiply_training_mask=False, filter_unmasked=False
        )
        learn(session, "a", batches(4, 3, count=5))
        expected = min_max(torch.arange(5, dtype=torch.float64)) + 0.01
        torch.testing.assert_close(session.importance("a")["0"], expected, rtol=1e-14, atol=0)


def test_multiply_training_mask_takes_the_mask_of_the_batch(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy", filter_unmasked=False)
    expected = torch.zeros(5, dtype=torch.float64)
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1, gate_lr=0.01)))
        for batch in task.batches(batches(4, 3, count=3)):
            optimizer.zero_grad()
            backward(session, task, batch)
            expected += min_max(torch.arange(5, dtype=torch.float64)) * soft_masks(session)
            optimizer.step()
        torch.testing.assert_close(callback.state_dict()["total"], expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(session.importance("a")["0"], expected / 3 + 0.01, rtol=1e-13, atol=0)


@pytest.mark.parametrize("filtered", [True, False])
def test_filter_unmasked_takes_the_base_away_too(spy: type[Spy], filtered: bool) -> None:
    session, _ = attach(mlp(4, 9, 3), type="spy", filter_unmasked=filtered, multiply_training_mask=False)
    learn(session, "a", batches(4, 3))
    mask, importance = session.masks("a")["0"], session.importance("a")["0"]
    assert mask.any()
    assert not mask.all()
    assert (importance[mask] >= 0.01).all()
    assert (importance[~mask] == 0).all() if filtered else (importance[~mask] >= 0.01).all()


def test_base_importance_is_added_once(spy: type[Spy]) -> None:
    importance = fh.ImportanceCallback({"type": "spy", "filter_unmasked": False}, base_importance=5.0)
    session = fh.attach(mlp(4, 5, 3), {}, X, [importance])
    learn(session, "a", batches(4, 3, count=4))
    assert 5 <= session.importance("a")["0"].min() <= session.importance("a")["0"].max() <= 6


# ------------------------------------------------------------------ what a measure sees
def test_weights_gradients_and_activations_belong_to_one_step(spy: type[Spy]) -> None:
    """The weights are those before the step; the gradients are those of the batch, not yet adjusted."""
    session, _ = attach(mlp(4, 5, 3), type="spy")
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        layer = session.model.get_submodule("0")
        x, y = batches(4, 3)[0]
        gated = (x @ layer.get_parameter("weight").T + layer.get_parameter("bias")) * soft_masks(session)
        backward(session, task, (x, y))
        before, grad = layer.get_parameter("weight").detach().clone(), layer.get_parameter("weight").grad
        seen = look(spy, optimizer)
    assert torch.equal(seen["weight"], before)
    assert torch.equal(seen["gradient"], grad if grad is not None else torch.zeros(0))
    torch.testing.assert_close(seen["activation"], gated.relu().mean(0).detach(), rtol=1e-13, atol=0)
    assert seen["readers"] == ["2"]


def look(spy: type[Spy], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Make the step and return copies of what the measure was shown in it."""
    seen: dict[str, Any] = {}
    compute = spy.compute

    def copied(self: Spy, view: LayerView) -> Tensor:
        assert view.weight_grad is not None
        assert view.activation is not None
        seen.update(weight=view.weight.detach().clone(), gradient=view.weight_grad.clone())
        seen.update(activation=view.activation.clone(), readers=[c.name for c in view.consumers])
        return compute(self, view)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spy, "compute", copied)
        optimizer.step()
    return seen


def test_activations_of_accumulated_batches_are_their_mean(spy: type[Spy]) -> None:
    """Two batches of different size before one step weigh by their samples, like one large batch."""
    session, _ = attach(mlp(4, 5, 3), type="spy")
    small, large = batches(4, 3, count=1, samples=2) + batches(4, 3, count=1, samples=6)
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        layer, mask = session.model.get_submodule("0"), soft_masks(session)
        for batch in (small, large):
            backward(session, task, batch)
        x = torch.cat([small[0], large[0]])
        gated = (x @ layer.get_parameter("weight").T + layer.get_parameter("bias")) * mask
        seen = look(spy, optimizer)
        torch.testing.assert_close(seen["activation"], gated.relu().mean(0).detach(), rtol=1e-13, atol=0)
        optimizer.zero_grad()
        backward(session, task, small)
        alone = look(spy, optimizer)["activation"]
    assert not torch.allclose(alone, seen["activation"])


def test_forwards_that_are_not_trained_on_do_not_count(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 3), type="spy")
    batch, other = batches(4, 3)
    found = []
    for disturbed in (False, True):
        with pytest.raises(KeyError), session.task("a") as task:
            torch.manual_seed(5)
            optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
            task.anneal(1, 2)
            if disturbed:
                with torch.no_grad():
                    session.model(other[0])
                session.model.eval()
                session.model(other[0])
                session.model.train()
            backward(session, task, batch)
            found.append((look(spy, optimizer)["activation"], soft_masks(session)))
            raise KeyError
    assert found[0][0].shape == (5,)
    assert torch.equal(found[0][0] == 0, found[1][0] == 0)


class Branches(nn.Module):
    """Two convolutions added by a skip, one of them grouped, then flattened into two readers that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.left = nn.Linear(4 * 9, 3)
        self.right = nn.Linear(4 * 9, 2)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        h = (h + torch.relu(self.grouped(h))).flatten(1)
        return self.head(torch.cat([self.left(h), self.right(h)], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("measure", [n for n in sorted(reference.MEASURES) if n.startswith("output")])
def test_consumers_through_skip_groups_and_flatten_equal_loops(measure: str) -> None:
    """The pairs of unit and input feature are written down by hand here, not read from the graph."""
    model = Branches().double()
    importance = fh.ImportanceCallback({"type": measure, "multiply_training_mask": False, "filter_unmasked": False}, 0)
    session = fh.attach(model, {}, torch.randn(2, 2, 3, 3, dtype=torch.float64), [importance])
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        shown: dict[str, Tensor] = {}
        for name in ("stem", "grouped"):
            model.get_submodule(name).register_forward_hook(lambda _, __, out, n=name: shown.__setitem__(n, out.relu()))
        x, y = torch.randn(4, 2, 3, 3, dtype=torch.float64), torch.randint(0, 3, (4,))
        backward(session, task, (x, y))
        expected = {name: looped(model, measure, name, shown[name]) for name in ("stem", "grouped")}
        optimizer.step()
        ours = session.graph.split(importance.state_dict()["total"])
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], min_max(torch.tensor(value, dtype=torch.float64)), rtol=1e-9, atol=0)


def looped(model: Branches, measure: str, name: str, activation: Tensor) -> list[float]:
    """Measure one of the convolutions by the loops."""
    flat = [(unit, 9 * unit + position) for unit in range(4) for position in range(9)]
    readers = [reader(model.left, flat), reader(model.right, flat)]
    if name == "stem":
        readers.append(reader(model.grouped, [(k, k) for k in range(4)]))
    module = model.get_submodule(name)
    weight = module.get_parameter("weight")
    grad = weight.grad.tolist() if weight.grad is not None else None
    return reference.MEASURES[measure](reference.Layer(weight.tolist(), grad, activation.tolist(), readers))


def reader(module: nn.Linear | nn.Conv2d, pairs: list[tuple[int, int]]) -> reference.Reader:
    grad = module.weight.grad
    groups = getattr(module, "groups", 1)
    return reference.Reader(module.weight.tolist(), grad.tolist() if grad is not None else None, groups, pairs)


# ------------------------------------------------------------------ several optimizers, and none of the weights
def test_an_optimizer_of_embeddings_alone_is_not_measured(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 6, 3), type="spy")
    with session.task("a") as task:
        own, gates = session.parameter_groups(lr=0.1)
        optimizers = [task.protect(torch.optim.SGD([own])), task.protect(torch.optim.SGD([gates]))]
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        for optimizer in reversed(optimizers):
            optimizer.step()
        assert [view.name for view in spy.views] == ["0", "2"]


# ------------------------------------------------------------------ what is refused
def test_a_measure_that_is_not_finite_changes_nothing(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy")
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        data = batches(4, 3, count=3)
        train(session, task, optimizer, data[:1])
        before, total = snapshot(session.model), callback.state_dict()["total"].clone()
        spy.value = float("nan")
        optimizer.zero_grad()
        backward(session, task, data[1])
        with pytest.raises(NonFiniteError) as caught:
            optimizer.step()
        assert str(caught.value) == (
            "Measure 'spy' gave NaN or infinity for layer '0' in step 2 of task 'a' (1 of 1 layers). Nothing was added "
            "to the importance and no parameter was changed. The loss or its gradients are not finite: lower the "
            "learning rate, or clip gradients."
        )
        assert all(torch.equal(v, before[n]) for n, v in snapshot(session.model).items())
        assert torch.equal(callback.state_dict()["total"], total)
        spy.value = 1.0
        optimizer.zero_grad()
        train(session, task, optimizer, data[2:])
    assert torch.isfinite(session.importance("a")["0"]).all()


def test_a_missing_gradient_is_told() -> None:
    session, _ = attach(mlp(4, 5, 3), type="input_weight_gradient_abs_sum")
    with pytest.raises(BadCallError, match=r"weight\.grad is None"), session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        optimizer.step()


class Functional(nn.Module):
    """Uses the weight of a layer without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 5, dtype=torch.float64)
        self.head = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(nn.functional.linear(x, self.hidden.weight, self.hidden.bias))
        return self.head(h)  # type: ignore[no-any-return]


HIDDEN = (
    "Measure 'activation_abs' needs the activations of 1 layer(s) that the model uses functionally, so that no module "
    "puts them out: hidden. Choose a measure of weights or gradients, e.g. importance.type: 'input_weight_abs_sum', or "
    "add these layers to gates.exclude."
)


def test_layers_that_no_module_puts_out_have_no_activation() -> None:
    model = Functional()
    before = snapshot(model)
    with pytest.raises(CapabilityError) as caught:
        fh.attach(model, {}, X, [fh.ImportanceCallback({"type": "activation_abs"})])
    assert str(caught.value) == HIDDEN
    after = snapshot(model)
    assert after.keys() == before.keys()
    session = fh.attach(model, {}, X, [fh.ImportanceCallback({"type": "input_weight_abs_sum"})])
    learn(session, "a", batches(4, 3))
    assert set(session.importance("a")) == {"hidden"}


def test_the_same_is_told_when_the_first_batch_is_traced() -> None:
    session = fh.attach(Functional(), {}, callbacks=[fh.ImportanceCallback({"type": "activation_abs"})])
    with pytest.raises(CapabilityError) as caught, session.task("a"):
        session.model(X)
    assert str(caught.value) == HIDDEN
    assert session.tasks == ()


def test_attention_shows_its_projections_activation() -> None:
    """A vision transformer's `out_proj` is used functionally, but its attention module puts out what it gives."""
    vit = pytest.importorskip("torchvision.models").VisionTransformer
    model = vit(image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    session = fh.attach(model, {}, torch.randn(1, 3, 8, 8), [fh.ImportanceCallback({"type": "activation_abs"})])
    projection = next(name for name in session.graph.layers if name.endswith("out_proj"))
    shown: list[Tensor] = []
    attention = model.get_submodule(projection.removesuffix(".out_proj"))
    attention.register_forward_hook(lambda _, __, output: shown.append(output[0].detach().abs().mean((0, 1))))
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        backward(session, task, (torch.randn(2, 3, 8, 8), torch.tensor([0, 2])))
        optimizer.step()
        masks = session.graph.split(torch.cat([g.soft_mask() for g in gates(model)]).detach())
        total = session.graph.split(session_total(session))
    torch.testing.assert_close(total[projection], min_max(shown[-1]) * masks[projection], rtol=1e-5, atol=1e-8)


def test_a_closure_is_refused_since_gradients_must_exist_before_the_step() -> None:
    assert not fh.ImportanceCallback().allows_closure


def test_wrong_blocks_are_told() -> None:
    with pytest.raises(SpecError, match="importance|type"):
        fh.ImportanceCallback({"type": "activation"})
    with pytest.raises(UnknownNameError, match="activation_abs"):
        registry.measures.get("activation_ab")


# ------------------------------------------------------------------ state
def test_state_of_a_running_task_is_taken_back(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy", every_n_steps=2)
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        train(session, task, optimizer, batches(4, 3, count=3))
        state = callback.state_dict()
        other = fh.ImportanceCallback({"type": "spy", "every_n_steps": 2})
        other.load_state_dict(state)
        again = other.state_dict()
        assert again.keys() == state.keys()
        assert torch.equal(again["total"], state["total"])


def test_a_task_starts_from_nothing_also_after_an_abort(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy", multiply_training_mask=False, filter_unmasked=False)
    with pytest.raises(ZeroDivisionError), session.task("a") as task:
        train(session, task, task.protect(sgd(session.parameter_groups(lr=0.1))), batches(4, 3))
        raise ZeroDivisionError
    learn(session, "a", batches(4, 3))
    expected = min_max(torch.arange(5, dtype=torch.float64)) + 0.01
    torch.testing.assert_close(session.importance("a")["0"], expected, rtol=1e-14, atol=0)
    assert callback.state_dict()["total"] is None


def test_a_task_without_steps_has_no_importance(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 3), type="spy")
    with session.task("a"):
        pass
    assert session.importance("a") == {}
