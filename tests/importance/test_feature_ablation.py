"""Feature ablation: parameters, memory, units that cost nothing, and side effects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.importance.attribution import AttributionCall, Site, open_attribution_batch
from fgadahat_hooks.importance.attribution.feature_ablation import FeatureAblationAbs
from fgadahat_hooks.importance.attribution.replay import Alter, Replay
from tests.importance.replay_models import Maps, Small, Twice, data, open_gated_batch, open_raw_batch
from tests.reference.ablation import ablation
from tests.support.attribution import gated
from tests.support.snapshot import differences, snapshot


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the copies that run at once."""
    seen: list[int] = []
    scores = Replay.scores

    def count(self: Replay, alter: Alter, rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return scores(self, alter, rows)

    monkeypatch.setattr(Replay, "scores", count)
    return seen


def measure(model: nn.Module, x: Tensor, y: Tensor, **params: Any) -> dict[str, Tensor]:
    with open_raw_batch(model, x, y) as batch:
        return FeatureAblationAbs(attribute_to="layer", **params).compute(batch)


@pytest.mark.parametrize("make", [Small, Twice, Maps])
def test_second_implementation(make: type[nn.Module]) -> None:
    """A unit of a layer that is called twice is ablated in both calls."""
    x, y = data(3, *((2, 6, 6) if make is Maps else (5,)))
    model = make().eval()
    with open_raw_batch(model, x, y) as batch:
        found, sites = FeatureAblationAbs(attribute_to="layer").compute(batch), batch.sites
    for name, site in sites.items():
        expected = ablation(model, site.module, site.axis, list(range(site.units)), (x, y), raw=True)
        torch.testing.assert_close(found[name], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


# -------------------------------------------------------------------- memory
@pytest.mark.parametrize("copies", [1, 2, 3, 5, 100])
def test_copies_obey_the_budget(rows: list[int], copies: int) -> None:
    """After `two` of six units: two tensors of (3, 6) numbers exist at a time."""
    each = 2 * 3 * 6 * 8
    expected, free = measure(Small(), *data()), max(rows)
    assert free == 7
    rows.clear()
    found = measure(Small(), *data(), memory_mb=copies * each / 2**20)
    assert max(rows) == min(copies, free)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15)


def test_copies_obey_the_number(rows: list[int]) -> None:
    expected = measure(Small(), *data())
    rows.clear()
    found = measure(Small(), *data(), perturbations_per_eval=3)
    assert max(rows) == 3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15)


class _Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the size of the largest tensor that is created."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.untyped_storage().nbytes())
        return result


def test_no_tensor_is_larger_than_the_budget() -> None:
    x, y = data(2, 2, 6, 6)
    budget = 8 * x.numel() * 8
    with _Largest() as largest:
        measure(Maps().eval(), x, y, memory_mb=budget / 2**20)
    assert 0 < largest.size <= budget


# -------------------------------------------------------------------- units that cost nothing
def test_units_at_their_baseline_are_not_run(rows: list[int]) -> None:
    """Units that are masked off are 0 everywhere: setting them to 0 changes nothing."""
    with gated("mlp") as attached:
        gates = {gate.name: gate for gate in attached.session._attached.gates.values()}
        first = next(iter(gates.values()))
        with torch.no_grad():
            first.embedding[2:] = -6.0
        with open_gated_batch(attached, "gate", [first.name]) as batch:
            attached.session._attached.gate_context.masks[first.name][2:] = 0
            rows.clear()
            found = FeatureAblationAbs().compute(batch)
    assert rows == [1, 3]  # the check of the replay; two units and the copy with nothing ablated
    assert bool(found[first.name][:2].all())
    assert not found[first.name][2:].any()


def test_a_dead_layer_is_zero(rows: list[int]) -> None:
    model = Small()
    with torch.no_grad():
        model.one.weight.zero_()
        model.one.bias.zero_()
    found = measure(model, *data())
    assert not found["one"].any()
    assert bool(found["two"].any())


def test_units_without_effect_are_exactly_zero() -> None:
    """Kernels for few and many rows round differently; a copy with nothing ablated is rounded like the others."""
    model, (x, y) = Small().float(), data(16)
    with torch.no_grad():
        model.two.weight[:, 3] = 0
    found = measure(model, x.float(), y)["one"]
    assert found[3] == 0
    assert bool(found[:3].any())


# -------------------------------------------------------------------- parameters
def test_a_baseline_by_layer() -> None:
    model, (x, y) = Small(), data()
    level = torch.linspace(-1, 1, 6, dtype=torch.float64)
    found = measure(model, x, y, baselines={"one": level, "two": 0.5})
    with torch.no_grad():
        one = model.one(x)
        plain = model(x).gather(1, y[:, None])
        for unit in range(6):
            z = one.clone()
            z[:, unit] = level[unit]
            without = model.head(torch.tanh(model.two(torch.relu(z)))).gather(1, y[:, None])
            torch.testing.assert_close(found["one"][unit], (plain - without).abs().mean(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found["two"], measure(model, x, y, baselines=0.5)["two"])


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        ({"three": 1.0}, "no layer 'three'"),
        ({"one": torch.zeros(5)}, r"'one' has 6 units, but got shape \(5,\)"),
        (torch.zeros(2, 6), r"got shape \(2, 6\)"),
    ],
)
def test_baselines_that_do_not_fit(baselines: Any, message: str) -> None:
    with pytest.raises(BadCallError, match=message):
        measure(Small(), *data(), baselines=baselines)
    with open_raw_batch(Small(), *data()) as batch, pytest.raises(BadCallError, match=message):
        FeatureAblationAbs(attribute_to="layer", baselines=baselines).check(batch)


def test_all_parameter_problems_are_reported() -> None:
    with pytest.raises(BadCallError) as error:
        FeatureAblationAbs(baselines="x", memory_mb=0, perturbations_per_eval=0)  # type: ignore[arg-type]
    for name in ("baselines", "memory_mb", "perturbations_per_eval"):
        assert f"`{name}`" in str(error.value)


# -------------------------------------------------------------------- precision
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_precision(dtype: torch.dtype, rtol: float) -> None:
    x, y = data(4)
    model = Small()
    expected = measure(model, x, y)
    found = measure(model.to(dtype), x.to(dtype), y)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), value, rtol=rtol, atol=rtol * float(value.max()))


# -------------------------------------------------------------------- side effects
class RaisingModel(Small):
    """Raises after the first `last` calls."""

    calls = 0
    last = 10**6

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        if type(self).calls > self.last:
            raise ArithmeticError("the model stumbles")
        return super().forward(x)


@pytest.mark.parametrize("last", [0, 1, 2, 3, 10**6])
def test_nothing_is_left_behind(last: int) -> None:
    """`last` forwards succeed: the plain one, the recorded one, full ones."""
    model, (x, _) = RaisingModel(), data()
    RaisingModel.calls, RaisingModel.last = 0, last
    before, random, given = snapshot(model), torch.get_rng_state(), x.clone()
    params = {"attribute_to": "layer"}
    site = Site("one", 6, model.one, -1, raw=True)
    try:
        with open_attribution_batch(model, {"one": site}, AttributionCall((x,), {}, lambda out: out[:, 0])) as batch:
            FeatureAblationAbs(**params).compute(batch)  # type: ignore[arg-type]
    except ArithmeticError:
        assert last < 10
    else:
        assert last >= 3
    assert differences(before, snapshot(model)) == []
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, given)


def test_nothing_is_left_behind_on_an_attached_model() -> None:
    with gated("skipnet") as attached:
        before, random = snapshot(attached.model), torch.get_rng_state()
        attached.session.measure("feature_ablation_abs", attached.x, attached.y)
        assert differences(before, snapshot(attached.model)) == []
        assert torch.equal(random, torch.get_rng_state())


def test_training_with_it() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = data(8)
    spec = {
        "adjustment": {"mode": "fg_adahat"},
        "importance": {"type": "feature_ablation_abs", "params": {"memory_mb": 1}},
    }
    session = fh.attach(model, spec, x[:1])
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for inputs, labels in task.batches([(x, y)] * 2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    assert bool((session._sequence.state.records["a"].importance["0"] > 0.01).any())
