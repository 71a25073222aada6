"""When importance is measured, and when it is refused; numbers are compared in `tests/differential`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, CapabilityError, NonFiniteError, SpecError, UnknownNameError
from fgadahat_hooks.functional import min_max
from tests.callbacks.spy import Spy, attach, soft_masks
from tests.support.small import aborted, backward, batches, learn, mlp, sgd, snapshot, train

X = torch.randn(2, 4, dtype=torch.float64)


# ------------------------------------------------------------------ options
def test_every_n_steps_measures_the_first_and_every_nth(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 3), type="spy", every_n_steps=3)
    learn(session, "a", batches(4, 3, count=7))
    assert len(spy.views) == 3
    learn(session, "b", batches(4, 3, count=1))
    assert len(spy.views) == 4


def test_the_mean_is_over_measured_steps(spy: type[Spy]) -> None:
    """The spy returns the same at each step, so the mean does not depend on how many were measured."""
    for every in (1, 2, 5):
        session, _ = attach(
            mlp(4, 5, 3), type="spy", every_n_steps=every, multiply_training_mask=False, filter_unmasked=False
        )
        learn(session, "a", batches(4, 3, count=5))
        expected = min_max(torch.arange(5, dtype=torch.float64)) + 0.01
        torch.testing.assert_close(session.importance("a")["0"], expected, rtol=1e-14, atol=0)


def test_multiply_training_mask_uses_the_mask_of_the_batch(spy: type[Spy]) -> None:
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
def test_filter_unmasked_removes_the_base_too(spy: type[Spy], filtered: bool) -> None:
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


def test_a_missing_gradient_is_reported() -> None:
    session, _ = attach(mlp(4, 5, 3), type="input_weight_gradient_abs_sum")
    with aborted(session, "a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        with pytest.raises(BadCallError, match=r"weight\.grad is None"):
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
    "Measure 'activation_abs' needs the activations of 1 layer that the model uses functionally, so that no module "
    "puts them out: 'hidden'. Choose a measure of the layer's own weights or gradients, e.g. importance.type: "
    "'input_weight_abs_sum', or add these layers to gates.exclude."
)


def test_layers_whose_output_no_module_returns_have_no_activation() -> None:
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


def test_the_same_is_reported_when_the_first_batch_is_traced() -> None:
    session = fh.attach(Functional(), {}, callbacks=[fh.ImportanceCallback({"type": "activation_abs"})])
    with pytest.raises(CapabilityError) as caught, session.task("a"):
        session.model(X)
    assert str(caught.value) == HIDDEN
    assert session.tasks == ()


def test_attention_shows_its_projections_activation() -> None:
    """A vision transformer's `out_proj` is used functionally, but its attention module returns its output."""
    vit = pytest.importorskip("torchvision.models").VisionTransformer
    model = vit(image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    importance = fh.ImportanceCallback({"type": "activation_abs", "multiply_training_mask": False})
    session = fh.attach(model, {}, torch.randn(1, 3, 8, 8), [importance])
    projection = next(name for name in session.graph.layers if name.endswith("out_proj"))
    shown: list[Tensor] = []
    attention = model.get_submodule(projection.removesuffix(".out_proj"))
    attention.register_forward_hook(lambda _, __, output: shown.append(output[0].detach().abs().mean((0, 1))))
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        backward(session, task, (torch.randn(2, 3, 8, 8), torch.tensor([0, 2])))
        optimizer.step()
        ours = session.graph.split(importance.state_dict()["total"])[projection]
        torch.testing.assert_close(ours, min_max(shown[-1]), rtol=1e-5, atol=1e-7)


def test_a_closure_is_refused_since_gradients_must_exist_before_the_step() -> None:
    assert not fh.ImportanceCallback().allows_closure


def test_wrong_blocks_are_refused() -> None:
    with pytest.raises(SpecError, match="Did you mean 'activation_abs'"):
        fh.ImportanceCallback({"type": "activation"})
    with pytest.raises(UnknownNameError, match="activation_abs"):
        registry.measures.get("activation_ab")


# ------------------------------------------------------------------ state
def test_state_of_a_running_task_is_restored(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy", every_n_steps=2)
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        train(session, task, optimizer, batches(4, 3, count=3))
        state = callback.state_dict()
        other = fh.ImportanceCallback({"type": "spy", "every_n_steps": 2})
        other.load_state_dict(state)
        restored = other.state_dict()
        assert restored.keys() == state.keys()
        assert torch.equal(restored["total"], state["total"])


def test_a_task_starts_with_empty_sums_also_after_an_abort(spy: type[Spy]) -> None:
    session, callback = attach(mlp(4, 5, 3), type="spy", multiply_training_mask=False, filter_unmasked=False)
    with aborted(session, "a") as task:
        train(session, task, task.protect(sgd(session.parameter_groups(lr=0.1))), batches(4, 3))
    learn(session, "a", batches(4, 3))
    expected = min_max(torch.arange(5, dtype=torch.float64)) + 0.01
    torch.testing.assert_close(session.importance("a")["0"], expected, rtol=1e-14, atol=0)
    assert callback.state_dict()["total"] is None


def test_a_task_without_steps_has_no_importance(spy: type[Spy]) -> None:
    session, _ = attach(mlp(4, 5, 3), type="spy")
    with session.task("a"):
        pass
    assert session.importance("a") == {}
