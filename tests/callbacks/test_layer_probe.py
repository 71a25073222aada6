"""The view that a measure gets of a step: weights, gradients, activations and consumers that belong together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.functional import min_max
from fgadahat_hooks.importance import LayerView
from fgadahat_hooks.layers.conv2d import Conv2dType
from fgadahat_hooks.layers.linear import LinearType
from tests.callbacks.spy import Spy, attach, soft_masks
from tests.reference import measures as reference
from tests.support.small import aborted, backward, batches, mlp, sgd


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
        view_tensors = step_and_record(spy, optimizer)
    assert torch.equal(view_tensors["weight"], before)
    assert torch.equal(view_tensors["gradient"], grad if grad is not None else torch.zeros(0))
    torch.testing.assert_close(view_tensors["activation"], gated.relu().mean(0).detach(), rtol=1e-13, atol=0)
    assert view_tensors["readers"] == ["2"]


def step_and_record(spy: type[Spy], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Make the step and return copies of the tensors in the measure's view."""
    view_tensors: dict[str, Any] = {}
    compute = spy.compute

    def copied(self: Spy, view: LayerView) -> Tensor:
        assert view.weight_grad is not None
        assert view.activation is not None
        view_tensors.update(weight=view.weight.detach().clone(), gradient=view.weight_grad.clone())
        view_tensors.update(activation=view.activation.clone(), readers=[c.name for c in view.consumers])
        return compute(self, view)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spy, "compute", copied)
        optimizer.step()
    return view_tensors


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
        view_tensors = step_and_record(spy, optimizer)
        torch.testing.assert_close(view_tensors["activation"], gated.relu().mean(0).detach(), rtol=1e-13, atol=0)
        optimizer.zero_grad()
        backward(session, task, small)
        alone = step_and_record(spy, optimizer)["activation"]
    assert not torch.allclose(alone, view_tensors["activation"])


def test_forwards_that_are_not_trained_on_do_not_count(spy: type[Spy]) -> None:
    """Neither one without gradients nor one in evaluation mode changes what the step is measured on."""
    session, _ = attach(mlp(4, 5, 3), type="spy")
    batch, other = batches(4, 3)
    found = []
    for disturbed in (False, True):
        torch.manual_seed(5)
        with aborted(session, "a") as task:
            optimizer = task.protect(sgd(session.parameter_groups(lr=1e-300)))
            task.anneal(1, 2)
            if disturbed:
                with torch.no_grad():
                    session.model(other[0])
                session.model.eval()(other[0])
                session.model.train()
            backward(session, task, batch)
            found.append(step_and_record(spy, optimizer)["activation"])
    assert torch.equal(*found)


class Branches(nn.Module):
    """Two convolutions added by a skip, one of them grouped, then flattened into two layers that are concatenated."""

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
    """The pairs of unit and input feature are written by hand, not read from the graph."""
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
        expected = {name: reference_measure(model, measure, name, shown[name]) for name in ("stem", "grouped")}
        optimizer.step()
        ours = session.graph.split(importance.state_dict()["total"])
        for name, value in expected.items():
            torch.testing.assert_close(ours[name], min_max(torch.tensor(value, dtype=torch.float64)), rtol=1e-9, atol=0)


def test_a_consumer_of_several_layers_is_summed_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Branches()
    session = fh.attach(
        model, {}, torch.randn(2, 2, 3, 3), [fh.ImportanceCallback({"type": "output_weight_abs_sum"}, 0)]
    )
    summed: list[nn.Module] = []

    def counting(plain: Any) -> Any:
        def sum_by_input(self: Any, module: nn.Module, x: Tensor) -> Tensor:
            summed.append(module)
            found: Tensor = plain(self, module, x)
            return found

        return sum_by_input

    for kind in (LinearType, Conv2dType):
        monkeypatch.setattr(kind, "sum_by_input", counting(kind.sum_by_input))
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        for step in (1, 2):
            backward(session, task, (torch.randn(4, 2, 3, 3), torch.randint(0, 3, (4,))))
            optimizer.step()
            assert len(summed) == step * len({model.grouped, model.left, model.right, model.head})


def reference_measure(model: Branches, measure: str, name: str, activation: Tensor) -> list[float]:
    """Measure one of the convolutions by the reference."""
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
