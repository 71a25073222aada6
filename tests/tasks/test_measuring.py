"""`session.measure`: raw importance of one batch, without side effects."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError, NonFiniteError, NoTaskError, UnknownNameError
from fgadahat_hooks.importance import AttributionMeasure
from tests.support.small_models import Net, TwoHeads, batch

ALL = fh.registry.measures.names()
ATTRIBUTIONS = [n for n in ALL if issubclass(fh.registry.measures.get(n), AttributionMeasure)]
FEW: dict[str, dict[str, Any]] = {"conductance_abs": {"n_steps": 4}, "integrated_gradients_abs": {"n_steps": 4}}
"""Parameters that make a measure cheap here."""


def net(dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def data(count: int = 8) -> tuple[Tensor, Tensor]:
    x, y = batch(count)
    return x.double(), y


@pytest.fixture
def session() -> fh.Session:
    return fh.attach(net(), None, data(2)[0])


def everything(model: nn.Module) -> list[Any]:
    """Return all that a measure must leave as it is."""
    tensors = [*model.parameters(), *model.buffers()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [[t.clone() for t in tensors], grads, hooks, modes, torch.get_rng_state(), [t._version for t in tensors]]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("name", ALL)
def test_every_measure_gives_a_number_a_unit_and_has_no_side_effects(name: str, session: fh.Session) -> None:
    x, y = data()
    F.cross_entropy(session.model(x), y).backward()
    before, given = everything(session.model), x.clone()
    found = session.measure(name, x, y, **FEW.get(name, {}))
    assert {n: v.shape for n, v in found.items()} == {"conv1": (8,), "conv2": (8,), "hidden": (16,)}
    assert all(bool((v >= 0).all()) and not v.requires_grad and bool(v.any()) for v in found.values())
    assert same(everything(session.model), before)
    assert torch.equal(x, given)


@pytest.mark.parametrize("name", ALL)
def test_two_calls_give_the_same_bits(name: str, session: fh.Session) -> None:
    x, y = data()
    first, second = (session.measure(name, x, y, **FEW.get(name, {})) for _ in range(2))
    assert all(torch.equal(v, second[n]) for n, v in first.items())


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_a_measure_sees_the_mask_of_the_task_in_use(name: str, session: fh.Session) -> None:
    x, y = data()
    with session.task("a") as task:
        task.anneal(1, 1)
        nn.init.normal_(session._attached.gates["hidden"].embedding)
    off = ~session.masks("a")["hidden"]
    assert 0 < int(off.sum()) < 16
    with session.use("a"):
        found = session.measure(name, x, y, **FEW.get(name, {}))["hidden"]
    if name != "internal_influence_abs":  # the gradient by a unit behind the gate, whatever its value
        assert bool((found[off] == 0).all())
    assert bool((found[~off] > 0).any())
    with pytest.raises(NoTaskError):
        session.measure(name, x, y)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_other_precisions(name: str, dtype: torch.dtype) -> None:
    """Single precision agrees with double to its digits; half gives finite numbers in at least single precision."""
    model = net()
    x, y = data()
    exact = fh.attach(copy.deepcopy(model), None, x[:2]).measure(name, x, y, **FEW.get(name, {}))
    found = fh.attach(model.to(dtype), None, x[:2].to(dtype)).measure(name, x.to(dtype), y, **FEW.get(name, {}))
    for layer, value in found.items():
        assert value.dtype == torch.float32
        assert bool(value.isfinite().all())
        if dtype == torch.float32:
            torch.testing.assert_close(value.double(), exact[layer], rtol=1e-3, atol=1e-3 * float(exact[layer].max()))


class Odd(nn.Module):
    """One unit, a module called twice, grouped and depthwise convolutions, a flattened map, a dead unit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.grouped, self.twice = nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 6, 1)
        self.narrow, self.wide, self.head = nn.Linear(6 * 9, 1), nn.Linear(1, 5), nn.Linear(5, 3)
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.depthwise(self.first(x).relu_()), inplace=True)
        h = self.twice(torch.relu(self.twice(torch.relu(self.grouped(h)))))
        h = self.drop(F.max_pool2d(h, 2).flatten(1))
        logits: Tensor = self.head(self.wide(self.narrow(h)).relu())
        return logits


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("name", ALL)
def test_odd_layers(name: str, count: int) -> None:
    torch.manual_seed(2)
    model = Odd().double()
    with torch.no_grad():
        model.wide.weight[0], model.wide.bias[0] = 0.0, -1.0  # never fires
    x, y = data(count)
    session = fh.attach(model, None, data(2)[0])
    found = session.measure(name, x, y, **FEW.get(name, {}))
    sizes = {"first": 4, "depthwise": 4, "grouped": 6, "twice": 6, "narrow": 1, "wide": 5}
    assert {n: len(v) for n, v in found.items()} == sizes
    assert all(bool(v.isfinite().all()) for v in found.values())
    if name in ATTRIBUTIONS and "fisher" not in name:
        assert float(found["wide"][0]) == 0


def test_inputs_may_come_in_any_form(session: fh.Session) -> None:
    x, y = data()
    expected = session.measure("gradcam_abs", x, y)
    for inputs in ((x,), [x], {"x": x}, lambda model: model(x), lambda model: model(x=x)):
        found = session.measure("gradcam_abs", inputs, y)
        assert all(torch.equal(v, found[n]) for n, v in expected.items())
    with pytest.raises(BadCallError, match="a function that calls the Net it is given"):
        session.measure("gradcam_abs", lambda model: None, y)


def test_a_batch_of_none_is_refused(session: fh.Session) -> None:
    x, y = data(2)
    for name in ("gradcam_abs", "activation_abs"):
        with pytest.raises(BadCallError, match="at least one sample, but got none"):
            session.measure(name, x[:0], y[:0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "Expected `target`: the true labels"),
        (torch.tensor([0, 1]), r"labels of shape \(8,\) with class numbers, but got torch.int64 of shape \(2,\)"),
        (torch.full((8,), 3), "labels from 0 to 2, but got 3 to 3"),
        (torch.rand(8), "labels of shape .* but got torch.float32"),
        (lambda output: output, r"one number a sample, shape \(8,\), but got torch.float64 of shape \(8, 3\)"),
        (lambda output: 1.0, "one number a sample.*but got float"),
    ],
    ids=["none", "too few", "too large", "not whole", "logits", "a number"],
)
def test_targets_that_do_not_fit_are_refused(target: Any, message: str, session: fh.Session) -> None:
    for name in ("gradcam_abs", "input_weight_gradient_abs_sum"):
        with pytest.raises(BadCallError, match=message):
            session.measure(name, data()[0], target)


def test_mixed_labels_attribute_to_their_mean(session: fh.Session) -> None:
    x, y = data()
    shares = torch.rand(8, 3, dtype=torch.float64)
    own = session.measure("gradcam_abs", x, lambda output: (output * shares).sum(1))
    found = session.measure("gradcam_abs", x, shares)
    assert all(torch.equal(v, own[n]) for n, v in found.items())
    hot = session.measure("gradcam_abs", x, F.one_hot(y, 3).double())
    label = session.measure("gradcam_abs", x, y)
    for name, value in hot.items():
        torch.testing.assert_close(value, label[name], rtol=1e-12, atol=0)


def test_wrong_names_and_parameters_are_refused(session: fh.Session) -> None:
    x, y = data()
    with pytest.raises(UnknownNameError, match="gradcam_abs"):
        session.measure("gradcam", x, y)
    with pytest.raises(BadCallError, match=r"does not take these parameters.*n_step"):
        session.measure("conductance_abs", x, y, n_step=3)
    with pytest.raises(BadCallError, match="takes no parameters"):
        session.measure("activation_abs", x, y, n_steps=3)
    with pytest.raises(CapabilityError, match="class logits"):
        fh.attach(TwoHeads(), None, x.float()).measure("gradcam_abs", x.float(), y)


def test_values_that_are_not_finite_are_refused(session: fh.Session) -> None:
    x, y = data()
    with pytest.raises(NonFiniteError, match="'activation_abs' gave NaN or infinity for layer 'conv1' on this batch"):
        session.measure("activation_abs", x * float("nan"), y)


@pytest.mark.parametrize(
    ("name", "forwards", "backwards"),
    [
        ("gradient_x_activation_abs", 1, 1),
        ("gradcam_abs", 1, 1),
        ("lrp_abs", 1, 1),
        ("deeplift_abs", 2, 1),
        ("deepliftshap_abs", 8, 4),
        ("internal_influence_abs", 5, 5),
        ("gradientshap_abs", 7, 5),
        ("conductance_abs", 51, 50),
    ],
)
def test_passes_do_not_depend_on_the_number_of_layers(
    name: str, forwards: int, backwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth in (1, 4):
        layers = [m for _ in range(depth) for m in (nn.Linear(6, 6), nn.ReLU())]
        session = fh.attach(nn.Sequential(*layers, nn.Linear(6, 3)).double(), None, torch.randn(2, 6).double())
        with counted(session, monkeypatch) as counts:
            session.measure(name, torch.randn(4, 6).double(), torch.arange(4) % 3)
        assert counts == {"forward": forwards, "backward": backwards}


class counted:  # noqa: N801  # reads as a word in a with statement
    """Counts how often a measure runs the model, and how often it runs autograd."""

    def __init__(self, session: fh.Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self._model = session.model
        self._counts = {"forward": 0, "backward": 0}
        self._patch = monkeypatch

    def __enter__(self) -> dict[str, int]:
        grad = torch.autograd.grad

        def count(*_: object) -> None:
            self._counts["forward"] += 1

        def counting_grad(*args: Any, **kwargs: Any) -> Any:
            self._counts["backward"] += 1
            return grad(*args, **kwargs)

        self._handle = self._model.register_forward_pre_hook(count)
        self._patch.setattr(torch.autograd, "grad", counting_grad)
        return self._counts

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self._patch.undo()


@pytest.fixture(autouse=True)
def _stream() -> Iterator[None]:
    with torch.random.fork_rng():
        yield
