"""Fisher information from per-sample gradients: when one backward gives them, and when not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance.attribution import fisher as fisher_module
from fgadahat_hooks.importance.attribution import fisher_gradients
from fgadahat_hooks.importance.attribution.fisher import InputWeightFisherSum
from fgadahat_hooks.importance.attribution.fisher_gradients import LayerCalls
from fgadahat_hooks.importance.attribution.target import label_log_likelihoods, label_scores
from tests.importance.replay_models import Maps, Small, Twice, data, open_raw_batch
from tests.reference.fisher import fisher
from tests.support.attribution import gated
from tests.support.snapshot import differences, snapshot


class Windows(Small):
    """Folds tokens into the first axis of the first layer; the second has the samples on its second axis."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None] * torch.arange(1, 4, dtype=x.dtype)[:, None]  # as many tokens as samples
        h = torch.relu(self.one(tokens.flatten(0, 1))).unflatten(0, (-1, 3))
        h = torch.tanh(self.two(h.transpose(0, 1))).mean(0)
        logits: Tensor = self.head(h)
        return logits


class Tied(Small):
    """Uses a layer's weight directly besides calling the layer; the other layer is never called."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.one.weight, self.one.bias)
        h = torch.relu(self.two(h)) @ self.two.weight
        logits: Tensor = self.head(h)
        return logits


class Mixing(Small):
    """Makes each sample depend on the others."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        logits: Tensor = self.head(torch.tanh(self.two(h - h.mean(0))))
        return logits


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the layers that take one backward a sample."""
    names: list[str] = []
    real = fisher_gradients.squared_gradients_one_by_one

    def collect(layers: list[LayerCalls], scores: Tensor) -> dict[str, Tensor]:
        names.extend(layer.name for layer in layers)
        return real(layers, scores)

    monkeypatch.setattr(fisher_module, "squared_gradients_one_by_one", collect)
    return names


def measure(model: nn.Module, x: Tensor, y: Tensor, **params: Any) -> dict[str, Tensor]:
    with open_raw_batch(model, x, y, label_log_likelihoods) as batch:
        return InputWeightFisherSum(**params).compute(batch)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("make", "expected"),
    [(Small, []), (Twice, []), (Maps, []), (Windows, ["one", "two"]), (Tied, ["one", "two"])],
)
def test_second_implementation(
    make: Callable[[], nn.Module], expected: list[str], count: int, one_by_one: list[str]
) -> None:
    x, y = data(count, *((2, 6, 6) if make is Maps else (5,)))
    model = make().eval()
    found = measure(model, x, y)
    assert count == 1 or one_by_one == expected
    for name, value in found.items():
        weight = model.get_submodule(name).get_parameter("weight")
        reference = torch.tensor(fisher(model, weight, x, y), dtype=torch.float64)
        torch.testing.assert_close(value, reference, rtol=1e-10, atol=1e-15)


def test_samples_that_depend_on_each_other(one_by_one: list[str]) -> None:
    """Each sample's likelihood depends on all rows of the first layer, and on its own row of the second."""
    model, (x, y) = Mixing(), data()
    found = measure(model, x, y)
    assert one_by_one == ["one"]
    scores = label_log_likelihoods(model(x), y)
    rows = [torch.autograd.grad(s, model.one.weight, retain_graph=True)[0].square().sum(1) for s in scores]
    torch.testing.assert_close(found["one"], torch.stack(rows).mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("samples", [0, 1, 2, 100])
def test_samples_obey_the_budget(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = fisher_gradients._per_sample_gradients

    def count(module: nn.Module, weight: Tensor, parts: Any) -> Tensor:
        if weight.numel() == 36:
            sizes.append(len(parts[0]))
        return real(module, weight, parts)

    monkeypatch.setattr(fisher_gradients, "_per_sample_gradients", count)
    expected = measure(Small(), *data(5))
    sizes.clear()
    found = measure(Small(), *data(5), memory_mb=(samples + 0.5) * 36 * 8 / 2**20)
    assert max(sizes) == min(5, max(1, samples))
    assert sum(sizes) == 5
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0)


def test_it_is_not_the_square_of_the_mean() -> None:
    """With one sample both are the same; with more the mean of squares is larger."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    for count in (1, 4):
        x, y = data(count)
        session = fh.attach(model, None, x[:1])
        ours = session.measure("input_weight_fisher_sum", x, y)["0"]
        mean = session.measure("input_weight_gradient_square_sum", x, y)["0"]
        if count == 1:
            torch.testing.assert_close(ours, mean, rtol=1e-12, atol=0)
        else:
            assert bool((ours >= mean).all())
            assert float(ours.sum()) > 1.1 * float(mean.sum())
        session.detach()


def test_it_is_trained_with_the_log_likelihood() -> None:
    """The measure has its own score, the log-probability of the label, also in the callback."""
    output, y = torch.randn(3, 4), torch.tensor([0, 2, 3])
    assert torch.equal(InputWeightFisherSum.score(output, y), label_log_likelihoods(output, y))
    torch.testing.assert_close(-label_log_likelihoods(output, y).mean(), F.cross_entropy(output, y))
    shares = torch.softmax(torch.randn(3, 4), 1)
    torch.testing.assert_close(-label_log_likelihoods(output, shares).mean(), F.cross_entropy(output, shares))
    assert not torch.equal(label_scores(output, y), label_log_likelihoods(output, y))


def test_training_with_it() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = data(8)
    spec = {"adjustment": {"mode": "fg_adahat"}, "importance": {"type": "input_weight_fisher_sum"}}
    session = fh.attach(model, spec, x[:1])
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for inputs, labels in task.batches([(x, y)] * 2):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    assert bool((session._sequence.state.records["a"].importance["0"] > 0.01).any())


def test_frozen_weights() -> None:
    """A called layer needs only its inputs and outputs; a weight that the model uses directly needs a gradient."""
    expected = measure(Small(), *data())
    model = Small()
    model.requires_grad_(False)
    found = measure(model, *data())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0)
    tied = Tied()
    tied.one.weight.requires_grad_(False)
    with pytest.raises(CapabilityError, match="layer 'one'"):
        measure(tied, *data())


def test_parameters() -> None:
    with pytest.raises(BadCallError, match="`memory_mb`"):
        InputWeightFisherSum(memory_mb=0)
    with pytest.raises(TypeError):
        InputWeightFisherSum(attribute_to="layer")  # type: ignore[call-arg]


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_precision(dtype: torch.dtype, rtol: float) -> None:
    x, y = data(4)
    model = Small()
    expected = measure(model, x, y)
    found = measure(model.to(dtype), x.to(dtype), y)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), value, rtol=rtol, atol=rtol * float(value.max()))


class RaisingModel(Small):
    """Raises."""

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise ArithmeticError("the model stumbles")


@pytest.mark.parametrize("make", [Small, RaisingModel, Tied])
def test_nothing_is_left_behind(make: Callable[[], nn.Module]) -> None:
    model, (x, y) = make(), data()
    before, random, given = snapshot(model), torch.get_rng_state(), x.clone()
    try:
        measure(model, x, y)
    except ArithmeticError:
        assert make is RaisingModel
    assert differences(before, snapshot(model)) == []
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, given)


def test_nothing_is_left_behind_on_an_attached_model() -> None:
    with gated("vit") as attached:
        before, random = snapshot(attached.model), torch.get_rng_state()
        attached.session.measure("input_weight_fisher_sum", attached.x, attached.y)
        assert differences(before, snapshot(attached.model)) == []
        assert torch.equal(random, torch.get_rng_state())
