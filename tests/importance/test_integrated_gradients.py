"""Integrated gradients: several calls, memory, parameters, and side effects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance.attribution import AttributionCall, Site, open_attribution_batch
from fgadahat_hooks.importance.attribution.integrated_gradients import IntegratedGradientsAbs
from fgadahat_hooks.importance.attribution.replay import Alter, Replay
from tests.importance.replay_models import Maps, Small, Twice, data, open_raw_batch
from tests.reference.integrated import integrated
from tests.support.attribution import gated, mean_abs
from tests.support.snapshot import differences, snapshot


def measure(model: nn.Module, x: Tensor, y: Tensor, **params: Any) -> dict[str, Tensor]:
    with open_raw_batch(model, x, y) as batch:
        return IntegratedGradientsAbs(attribute_to="layer", **params).compute(batch)


@pytest.mark.parametrize("make", [Small, Twice, Maps])
def test_second_implementation(make: type[nn.Module]) -> None:
    """All calls of a layer move along the path together."""
    x, y = data(3, *((2, 6, 6) if make is Maps else (5,)))
    model = make().eval()
    with open_raw_batch(model, x, y) as batch:
        found, sites = IntegratedGradientsAbs(attribute_to="layer", n_steps=6).compute(batch), batch.sites
    for name, site in sites.items():
        calls = [integrated(model, site.module, a, int(b), 6, raw=True) for a, b in zip(x, y, strict=True)]
        expected = mean_abs(torch.stack([torch.stack(parts) for parts in calls]), site.axis)
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("memory_mb", [1e-6, 1e-3, 2e-3, 1.0])
def test_points_obey_the_budget(memory_mb: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `one`: six tensors of at most (3, 6) numbers, all kept for the backward."""
    seen: list[int] = []
    scores = Replay.scores

    def count(self: Replay, alter: Alter, rows: list[Tensor]) -> Tensor:
        if isinstance(rows, list) and rows[0].requires_grad:
            assert len(rows[0]) <= max(1, memory_mb * 2**20 / (2 * 3 * 6 * 8))
            seen.append(len(rows[0]))
        return scores(self, alter, rows)

    expected = measure(Small(), *data(), n_steps=7)
    monkeypatch.setattr(Replay, "scores", count)
    found = measure(Small(), *data(), n_steps=7, memory_mb=memory_mb)
    assert sum(seen) == 2 * 7
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", ["riemann_trapezoid", "riemann_middle"])
def test_all_quadrature_rules_converge_to_the_same(method: str) -> None:
    model, (x, y) = Small(torch.tanh), data()
    expected = measure(model, x, y)
    found = measure(model, x, y, n_steps=400, method=method)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=5e-3, atol=1e-8)  # captum's rules are of first order


def test_baselines_of_the_inputs() -> None:
    model, (x, y) = Small(), data()
    found = measure(model, x, y, baselines=x.flip(0))
    assert all(bool(v.any()) for v in found.values())
    assert not any(bool(v.any()) for v in measure(model, x, y, baselines=x).values())


def test_all_parameter_problems_are_reported() -> None:
    with pytest.raises(BadCallError) as error:
        IntegratedGradientsAbs(n_steps=0, baselines="x", method="simpson", memory_mb=0)  # type: ignore[arg-type]
    for name in ("n_steps", "baselines", "method", "memory_mb"):
        assert f"`{name}`" in str(error.value)


class Tokens(nn.Module):
    """Takes integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(x))
        return logits


def test_inputs_without_a_path() -> None:
    model, x = Tokens(), torch.tensor([1, 2])
    site = Site("table", 4, model.table, -1)
    call = AttributionCall((x,), {}, lambda out: out[:, 0])
    with (
        open_attribution_batch(model, {"table": site}, call) as batch,
        pytest.raises(CapabilityError, match="floating point"),
    ):
        IntegratedGradientsAbs().check(batch)


class Repeats(Small):
    """Calls its second layer once or twice, depending on its input."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        for _ in range(1 if float(x.detach().abs().sum()) == 0 else 2):
            h = torch.tanh(self.two(h))
        logits: Tensor = self.head(h)
        return logits


def test_calls_that_depend_on_the_inputs() -> None:
    with pytest.raises(CapabilityError, match="layer 'two'"):
        measure(Repeats(), *data())


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
    model, (x, y) = RaisingModel(), data()
    RaisingModel.calls, RaisingModel.last = 0, last
    before, random, given = snapshot(model), torch.get_rng_state(), x.clone()
    try:
        measure(model, x, y)
    except ArithmeticError:
        assert last < 10
    assert differences(before, snapshot(model)) == []
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, given)


def test_nothing_is_left_behind_on_an_attached_model() -> None:
    with gated("skipnet") as attached:
        before, random = snapshot(attached.model), torch.get_rng_state()
        attached.session.measure("integrated_gradients_abs", attached.x, attached.y, n_steps=3)
        assert differences(before, snapshot(attached.model)) == []
        assert torch.equal(random, torch.get_rng_state())
