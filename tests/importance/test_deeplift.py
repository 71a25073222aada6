"""DeepLIFT's multipliers of element-wise functions and max pools; shapes and precisions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs, contributions
from tests.reference import deeplift as slow
from tests.support.plain_attribution import (
    Between,
    Twice,
    assert_sums_to_score_change,
    layer_contributions,
    measure_layers,
    open_plain_batch,
    samples_and_baseline,
    score_change,
)

# ------------------------------------------------------------------ element-wise functions
ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(F, name)
    for name in "relu relu6 leaky_relu rrelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink "
    "softshrink tanhshrink softsign softplus sigmoid tanh logsigmoid".split()
} | {
    "exp": torch.exp,
    "abs": torch.abs,
    "prelu": nn.PReLU().double(),
    "threshold": nn.Threshold(0.1, 0.3),
    "clamp": lambda z: z.clamp(-0.5, 0.4),
    "square": torch.square,
    "power": lambda z: z**3,
    "base": lambda z: 2**z,
    "reciprocal": lambda z: 1 / (z.square() + 1),
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
}


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_rescale(name: str) -> None:
    """A multiplier is the function's change divided by that of its argument, element by element."""
    f, (x, start) = ELEMENTWISE[name], samples_and_baseline()
    model = Between(f)
    z, z0 = model.fc(x).detach(), model.fc(start).detach().expand(4, -1)
    expected = model.head.weight[0].detach() * (f(z) - f(z0)).detach()
    torch.testing.assert_close(layer_contributions(model, x, start), expected, rtol=1e-9, atol=1e-12)


SPELLINGS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "module": nn.ReLU,
    "in place": lambda: nn.ReLU(inplace=True),
    "function": lambda: F.relu,
    "function in place": lambda: lambda z: F.relu(z, inplace=True),
    "function in place, by position": lambda: lambda z: F.relu(z, True),
    "relu_, result unused": lambda: _result_unused,
    "by keyword": lambda: lambda z: torch.relu(input=z),
    "method": lambda: lambda z: z.relu(),
    "aten": lambda: torch.ops.aten.relu,
    "clamped": lambda: lambda z: z.clamp(min=0),
    "threshold": lambda: nn.Threshold(0.0, 0.0),
}


def _result_unused(z: Tensor) -> Tensor:
    F.relu_(z)
    return z


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
@pytest.mark.parametrize("name", ["deeplift_abs", "deepliftshap_abs"])
def test_spellings_of_one_function(spelling: str, name: str) -> None:
    torch.manual_seed(3)
    plain = Between(nn.ReLU())
    model = Between(SPELLINGS[spelling]())
    model.load_state_dict(plain.state_dict())
    x, _ = samples_and_baseline()
    assert torch.equal(measure_layers(name, model, ["fc"], x)["fc"], measure_layers(name, plain, ["fc"], x)["fc"])


def test_modules_used_twice() -> None:
    """Each call has its own values, as if it had its own module."""
    model, (x, start) = Twice(), samples_and_baseline()
    once = model.unrolled()
    with open_plain_batch(model, ["fc"], x) as opened:
        first, second = contributions(DeepliftAbs(), opened, opened.inputs(0.0, start))["fc"]
    assert torch.equal(first, layer_contributions(once, x, start, "0"))
    assert torch.equal(second, layer_contributions(once, x, start, "2"))


def change_views(z: Tensor) -> Tensor:
    """Change a tensor through its views."""
    h = z.clone()
    h[:, :2].tanh_()
    h.view(-1, 2, 3)[:, 1].sub_(0.1).relu_()
    h[:, 2:3] = h[:, 2:3].sigmoid() * 2
    h[:, 5].zero_()
    return h


def test_parts_in_place() -> None:
    model, (x, start) = Between(change_views), samples_and_baseline()
    z, z0 = model.fc(x).detach(), model.fc(start).detach().expand(4, -1)
    expected = model.head.weight[0].detach() * (change_views(z) - change_views(z0))
    torch.testing.assert_close(layer_contributions(model, x, start), expected, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------ max pools
POOLS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "1d": ((2, 6), lambda z: F.max_pool1d(z, 2)),
    "2d, overlapping": ((1, 4, 4), nn.MaxPool2d(3, stride=1, padding=1)),
    "2d, torch": ((1, 4, 4), lambda z: torch.max_pool2d(z, 2)),
    "2d, places": ((1, 4, 4), lambda z: F.max_pool2d(z, 2, return_indices=True)[0]),
    "3d": ((1, 2, 4, 2), nn.MaxPool3d(2)),
    "adaptive": ((2, 4, 4), nn.AdaptiveMaxPool2d((1, 3))),
    "unbatched": ((4, 4), lambda z: torch.stack([F.max_pool2d(m[None], 2)[0] for m in z])),
}


@pytest.mark.parametrize("name", sorted(POOLS))
def test_max_pools_sum_up(name: str) -> None:
    shape, pool = POOLS[name]
    size = torch.Size(shape).numel()
    out = pool(torch.zeros(1, *shape)).numel()
    model, (x, start) = Between(lambda z: pool(z.view(-1, *shape)), size, out), samples_and_baseline()
    assert_sums_to_score_change(model, x, start)


def test_max_pool_window() -> None:
    model, (x, start) = Between(lambda z: F.max_pool1d(z[:, None], 6), 6, 1), samples_and_baseline(8)
    weight, found = model.head.weight[0, 0].item(), layer_contributions(model, x, start)
    z0 = model.fc(start).tolist()
    for z, row in zip(model.fc(x).tolist(), found.tolist(), strict=True):
        assert row == pytest.approx([weight * share for share in slow.max_pool(z, z0)])


# ------------------------------------------------------------------ shapes, sizes and precisions
SHAPES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "convolution, flattened": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
        (2, 4, 4),
        ["0"],
    ),
    "line": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 3)),
        (2, 6),
        ["0"],
    ),
    "tokens": (lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)), (3, 5), ["0"]),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.9), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)),
        (5,),
        ["0", "3"],
    ),
    "one unit": (lambda: nn.Sequential(nn.Linear(5, 1), nn.ReLU(), nn.Linear(1, 3)), (5,), ["0"]),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes(name: str, count: int) -> None:
    make, shape, layers = SHAPES[name]
    model = make().double()
    x = torch.randn(count, *shape, dtype=torch.float64)
    for measure in ("deeplift_abs", "deepliftshap_abs"):
        found = measure_layers(measure, model, layers, x)
        for layer in layers:
            assert found[layer].shape == (len(model.get_submodule(layer).get_parameter("weight")),)
            assert bool(found[layer].isfinite().all())
    with torch.no_grad():
        plain = model.eval()
        expected = score_change(plain, x)
    torch.testing.assert_close(
        layer_contributions(model, x, 0.0, layers[0]).flatten(1).sum(1), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_precisions(dtype: torch.dtype, close: float) -> None:
    model, (x, _) = Between(F.gelu), samples_and_baseline(16)
    exact = measure_layers("deeplift_abs", model, ["fc"], x)["fc"]
    found = measure_layers("deeplift_abs", model.to(dtype), ["fc"], x.to(dtype))["fc"]
    torch.testing.assert_close(found.double(), exact, rtol=close, atol=close * float(exact.max()))


def test_dead_units_have_importance_zero() -> None:
    model, (x, _) = Between(F.relu), samples_and_baseline()
    with torch.no_grad():
        model.fc.weight[2], model.fc.bias[2] = 0, -1
        model.fc.bias[3] = -100
    assert measure_layers("deeplift_abs", model, ["fc"], x)["fc"][2:4].tolist() == [0, 0]


def test_input_at_the_baseline_has_importance_zero() -> None:
    model, (_, start) = Between(F.gelu), samples_and_baseline()
    found = measure_layers("deeplift_abs", model, ["fc"], start.expand(3, -1), baselines=start)
    assert found["fc"].tolist() == [0] * 6


def test_small_differences_use_the_gradient() -> None:
    """Far below `eps` a quotient of differences is mostly rounding."""
    model, (x, _) = Between(torch.sigmoid), samples_and_baseline()
    start = x[0] + 1e-9
    exact = layer_contributions(model, x[:1], start, eps=1e-3)
    z, z0 = model.fc(x[:1]).detach(), model.fc(start).detach()
    expected = model.head.weight[0].detach() * z.sigmoid() * (1 - z.sigmoid()) * (z - z0)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=0)


def test_small_differences_before_a_pool_go_to_the_maximum() -> None:
    model, (x, _) = Between(lambda z: F.max_pool1d(z[:, None], 6), 6, 1), samples_and_baseline()
    start = x[0] + 1e-9
    z, z0 = model.fc(x[:1]).detach(), model.fc(start).detach()
    is_maximum = F.one_hot(z.argmax(1), 6)
    expected = is_maximum * model.head.weight[0].detach() * (z - z0)
    torch.testing.assert_close(layer_contributions(model, x[:1], start, eps=1e-3), expected, rtol=1e-12, atol=0)


def test_differences_of_rounding_use_the_gradient() -> None:
    """A change of one unit in the last place gives a quotient of pure rounding, however far above `eps` it is."""
    model, x = Between(torch.tanh).float(), torch.zeros(1, 5)
    nn.init.eye_(model.fc.weight)
    nn.init.ones_(model.fc.bias)
    start = torch.full((5,), 1.2e-7)
    z, z0 = model.fc(x).detach(), model.fc(start).detach()
    assert bool((z[:, :5] != z0[:5]).all())
    expected = model.head.weight[0].detach() * (1 - z.tanh() ** 2) * (z - z0)
    torch.testing.assert_close(layer_contributions(model, x, start), expected, rtol=1e-5, atol=0)


def test_infinite_gradients_are_not_used() -> None:
    """The gradient of the square root is infinite at 0, but the multiplier from 0 to 1 is finite."""
    model, (x, _) = Between(lambda z: z.relu().sqrt()), samples_and_baseline()
    nn.init.ones_(model.fc.bias)
    found = layer_contributions(model, 5 * x)
    assert bool((model.fc(5 * x) < 0).any())
    torch.testing.assert_close(found.sum(1), score_change(model, 5 * x), rtol=1e-9, atol=1e-12)
