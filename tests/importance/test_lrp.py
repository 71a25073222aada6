"""Relevance function by function; refusals and cost of LRP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from fgadahat_hooks.callbacks import ImportanceCallback
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance.attribution.lrp import LrpAbs, relevances
from tests.support.plain_attribution import Between, Twice, measure_layers, open_plain_batch
from tests.support.snapshot import differences, snapshot


def between(function: Callable[[Tensor], Tensor], width: int = 6, out: int | None = None) -> Between:
    return Between(function, width, out, bias=False)


def inputs(count: int = 4) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64)


def relevance(model: nn.Module, x: Tensor, layer: str = "fc", epsilon: float = 1e-12) -> Tensor:
    """Return the relevance of one layer, sample by sample."""
    with open_plain_batch(model, [layer], x) as opened:
        return relevances(LrpAbs(epsilon=epsilon, attribute_to="layer"), opened)[layer][0]


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(F, name)
    for name in "relu relu6 leaky_relu rrelu elu selu celu gelu silu mish hardswish hardshrink softshrink tanhshrink "
    "softsign tanh".split()
} | {
    "prelu": nn.PReLU().double(),
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "method": lambda z: z.relu_(),
    "dropout": lambda z: F.relu(F.dropout(z, 0.9, training=False)),
}


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_elementwise_functions_pass_relevance_on(name: str) -> None:
    """The argument of a function that maps 0 to 0 has the relevance of its result."""
    model, x = between(ELEMENTWISE[name]), inputs()
    h = model.function(model.fc(x).detach())
    torch.testing.assert_close(relevance(model, x), (h * model.head.weight[0]).detach(), rtol=1e-9, atol=1e-12)


LINEAR: dict[str, tuple[int, int, Callable[[Tensor], Tensor]]] = {
    "convolution": (16, 8, nn.Conv2d(1, 2, 3, bias=False).double().requires_grad_(False)),
    "transposed": (16, 36, nn.ConvTranspose2d(1, 1, 3, bias=False).double().requires_grad_(False)),
    "grouped": (
        16,
        8,
        nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 4, 3, groups=2, bias=False)).double().requires_grad_(False),
    ),
    "average": (16, 4, nn.AvgPool2d(2)),
    "adaptive average": (16, 1, nn.AdaptiveAvgPool2d(1)),
    "max": (16, 4, nn.MaxPool2d(2)),
    "enlarged": (16, 64, nn.Upsample(scale_factor=2)),
    "matrix": (16, 16, lambda z: z @ torch.arange(16.0).double().view(4, 4)),
    "einsum": (16, 8, lambda z: torch.einsum("bcij,kj->bcik", z, torch.arange(8.0).double().view(2, 4))),
    "skip": (16, 16, lambda z: z + 0.5 * z.flip(-1)),
    "skip in place": (16, 16, lambda z: z.clone().add_(z.flip(-1), alpha=0.5)),
    "difference": (16, 16, lambda z: 2 * z - z.mT),
    "joined": (16, 32, lambda z: torch.cat([z, z.relu()], 1)),
    "mean": (16, 4, lambda z: z.mean(-1)),
    "constants": (16, 16, lambda z: z * torch.linspace(0, 1, 4).double() / 3),
    "norm": (16, 16, nn.BatchNorm2d(1, affine=False).double().eval()),
}


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_linear_functions_conserve_relevance(name: str) -> None:
    width, out, function = LINEAR[name]
    model, x = between(lambda z: function(z if name == "grouped" else z.view(-1, 1, 4, 4)), width, out), inputs()
    if name == "grouped":
        model = between(lambda z: function(z[:, :8]), width, out)
    score = model(x)[:, 0].detach()
    torch.testing.assert_close(relevance(model, x).sum(1), score, rtol=1e-7, atol=1e-9)


def test_biases_absorb_relevance() -> None:
    """A bias gets its share of the relevance, like a unit that is always one."""
    model, x = between(lambda z: z + 1), inputs()
    h = (model.fc(x) + 1).detach()
    upper = h * model.head.weight[0].detach()
    torch.testing.assert_close(relevance(model, x), upper * (h - 1) / h, rtol=1e-9, atol=1e-9)


def test_epsilon_absorbs_relevance_of_small_sums() -> None:
    model, x = between(lambda z: z * 1.0), inputs()
    score = model(x)[:, 0].detach()
    found = relevance(model, x, epsilon=0.5).sum(1)
    torch.testing.assert_close(found, score * score / (score + 0.5 * score.sign()))


def test_a_sum_of_zero_has_none() -> None:
    model, x = between(F.relu), inputs()
    nn.init.zeros_(model.head.weight)
    assert measure_layers("lrp_abs", model, ["fc"], x)["fc"].tolist() == [0] * 6
    nn.init.zeros_(model.fc.weight)
    assert measure_layers("lrp_abs", model, ["fc"], x)["fc"].tolist() == [0] * 6


def test_modules_used_twice() -> None:
    model, x = Twice(), inputs()
    once = model.unrolled()
    with open_plain_batch(model, ["fc"], x) as opened:
        first, second = relevances(LrpAbs(epsilon=1e-12), opened)["fc"]
    assert torch.equal(first, relevance(once, x, "0"))
    assert torch.equal(second, relevance(once, x, "2"))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.05)])
def test_precisions(dtype: torch.dtype, close: float) -> None:
    """In half precision `eps` is less than rounding: a sum of zero must not be divided by it."""
    model, x = between(F.relu), inputs(16)
    exact = measure_layers("lrp_abs", model, ["fc"], x)["fc"]
    found = measure_layers("lrp_abs", model.to(dtype), ["fc"], x.to(dtype))["fc"]
    torch.testing.assert_close(found.double(), exact, rtol=close, atol=close * float(exact.max()))
    nn.init.zeros_(model.fc.weight)
    assert measure_layers("lrp_abs", model, ["fc"], x.to(dtype))["fc"].tolist() == [0] * 6


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "layer_norm": (nn.LayerNorm(6).double(), "`layer_norm` in module 'function'"),
    "group_norm": (lambda z: F.group_norm(z, 2), "`group_norm` in the model's own forward"),
    "softmax": (nn.Softmax(-1), "`softmax` in module 'function'"),
    "sigmoid": (torch.sigmoid, "`sigmoid`"),
    "product": (lambda z: z * z.mean(1, keepdim=True), "`mul`"),
    "quotient": (lambda z: z / (1 + z.abs()), "`abs`.*; the function `div`"),
    "maximum": (lambda z: torch.maximum(z, -z), "`maximum`"),
    "comparison": (lambda z: z * (z > 0), "`gt`"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    function, what = REFUSED[name]
    with (
        open_plain_batch(between(function), ["fc"], inputs()) as opened,
        pytest.raises(CapabilityError, match=what) as caught,
    ):
        LrpAbs(attribute_to="layer").check(opened)
    assert "Use gradient_x_activation_abs, deeplift_abs or conductance_abs." in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "middle", "what"),
    [
        ("lrp_abs", nn.LayerNorm(6), "`layer_norm` in module '1'"),
        ("deeplift_abs", nn.Softmin(1), "`softmin` in module '1'"),
        ("deepliftshap_abs", nn.Softmin(1), "`softmin` in module '1'"),
    ],
)
def test_refused_before_anything_is_attached(kind: str, middle: nn.Module, what: str) -> None:
    model = nn.Sequential(nn.Linear(5, 6), middle, nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    before = snapshot(model)
    with pytest.raises(CapabilityError, match=what):
        fh.attach(model, None, torch.randn(2, 5), callbacks=[ImportanceCallback({"type": kind})])
    assert differences(before, snapshot(model)) == []


def test_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = between(F.relu), inputs()
    runs: list[int] = []
    grads: list[int] = []
    grad = torch.autograd.grad
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: grads.append(1) or grad(*a, **k))  # type: ignore[func-returns-value]
    measure_layers("lrp_abs", model, ["fc"], x)
    handle.remove()
    assert (len(runs), len(grads)) == (1, 1)


@pytest.mark.parametrize("epsilon", [0, -1.0, float("nan"), "small"])
def test_bad_parameters(epsilon: Any) -> None:
    with pytest.raises(BadCallError, match="expected `epsilon` to be a finite number > 0"):
        registry.measures.get("lrp_abs")(epsilon=epsilon)


def test_bad_rules_are_reported_together() -> None:
    with pytest.raises(BadCallError, match=r"`rule` to be one of 'epsilon', 'gamma', .*'zplus'; expected `gamma`"):
        registry.measures.get("lrp_abs")(rule="zplus", gamma=0)
