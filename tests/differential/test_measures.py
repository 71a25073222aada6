"""Every closed-form measure, its scaling and its sum over a task against the loops and the recorded numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks import functional as F
from fgadahat_hooks import registry
from fgadahat_hooks.importance import ConsumerView, LayerView
from fgadahat_hooks.layers import Conv2dType, LayerType, LinearType
from tests.reference import measures as reference
from tests.reference import scale as reference_scale
from tests.reference.recorded import LAYERS, SETS, Recorded, recorded

CLOSED = sorted(reference.MEASURES)
ALL_RECORDED = sorted({key.split("__")[1] for key in recorded(SETS[0]).arrays if key.startswith("raw__")})


def test_all_thirteen_are_compared() -> None:
    assert len(CLOSED) == 13
    assert set(CLOSED) <= set(registry.measures.names())
    assert set(CLOSED) <= set(ALL_RECORDED)


def recorded_view(data: Recorded, i: int) -> LayerView:
    """Return layer i as the recorded measures saw it: adjusted gradients, weights after the step."""
    last = i == LAYERS[-1]
    own, following = data.tensor(f"t2_after/W{i}"), data.tensor("t2_after/headW2" if last else f"t2_after/W{i + 1}")
    following_grad = data.tensor("t2/head_gradW" if last else f"t2/gradW{i + 1}_adjusted")
    every = torch.arange(own.shape[0])
    module, reader = (nn.Linear(w.shape[1], w.shape[0], device="meta") for w in (own, following))
    return LayerView(
        name=f"fc{i}",
        module=module,
        kind=LinearType(),
        units=own.shape[0],
        weight=own,
        weight_grad=data.tensor(f"t2/gradW{i}_adjusted"),
        activation=data.tensor(f"t2/activation{i}").abs().mean(0),
        consumers=(ConsumerView("next", reader, LinearType(), following, following_grad, every, every),),
    )


def as_lists(view: LayerView, samples: Tensor) -> reference.Layer:
    """Turn a view into nested lists."""
    readers = [
        reference.Reader(
            c.weight.tolist(),
            None if c.weight_grad is None else c.weight_grad.tolist(),
            getattr(c.module, "groups", 1),
            list(zip(c.unit.tolist(), c.feature.tolist(), strict=True)),
        )
        for c in view.consumers
    ]
    gradient = None if view.weight_grad is None else view.weight_grad.tolist()
    return reference.Layer(view.weight.tolist(), gradient, samples.tolist(), readers)


def same_as_loops(name: str, view: LayerView, samples: Tensor) -> Tensor:
    """Compare one measure with the loops and return it."""
    ours: Tensor = registry.measures.get(name)().compute(view)
    expected = torch.tensor(reference.MEASURES[name](as_lists(view, samples)), dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=0)
    return ours


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("name", CLOSED)
def test_measure_equals_loops_and_record(set_name: str, name: str) -> None:
    """The reciprocals of the record have no 1e-8, hence the looser tolerance for them."""
    data = recorded(set_name)
    rtol = 1e-7 if name.startswith("cbp") else 1e-12
    for i in LAYERS:
        ours = same_as_loops(name, recorded_view(data, i), data.tensor(f"t2/activation{i}"))
        torch.testing.assert_close(ours, data.tensor(f"raw/{name}/{i}"), rtol=rtol, atol=0)


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("name", ALL_RECORDED)
def test_scaling_equals_loops_and_record(set_name: str, name: str) -> None:
    """All 23 recorded measures are scaled, also those that are computed elsewhere."""
    data = recorded(set_name)
    for i in LAYERS:
        raw, mask = data.tensor(f"raw/{name}/{i}"), data.tensor(f"t2/mask{i}")
        ours = F.min_max(raw)
        expected = torch.tensor(reference_scale.min_max(raw.tolist()), dtype=torch.float64)
        torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(ours * mask, data.tensor(f"scaled/{name}/{i}"), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("set_name", SETS)
def test_importance_of_both_tasks_equals_record(set_name: str) -> None:
    """From the importance of each step to the sum over tasks.

    When the record accumulated task 2, its gradients had one factor more than `t2/gradW_adjusted`: the rate
    `adahat_no_sum`, evaluated just before. With it the numbers are equal to the last digits; it matters only for
    `mlp_mid_afi`, whose measure reads gradients.
    """
    data = recorded(set_name)
    base, name = data.settings["base_importance"], data.settings["importance_type_used_in_training"]
    for i in LAYERS:
        accumulated = data.tensor(f"t1_step2/accumulated_importance{i}")
        first = F.finish_importance(accumulated, 3, base, data.tensor(f"t1_end/mask{i}"))
        torch.testing.assert_close(first, data.tensor(f"t1_end/importance{i}"), rtol=1e-14, atol=0)
        gradient = data.tensor(f"t2/gradW{i}_adjusted") * data.tensor(f"rates/adahat:adahat_no_sum/W{i}")
        view = replace(recorded_view(data, i), weight_grad=gradient)
        step = F.min_max(registry.measures.get(name)().compute(view)) * data.tensor(f"t2/mask{i}")
        second = F.finish_importance(step, 1, base, data.tensor(f"t2_end/mask{i}"))
        torch.testing.assert_close(second, data.tensor(f"t2_end/importance{i}"), rtol=1e-12, atol=0)
        latest = F.STRATEGIES["add_latest"](first, [first, second])
        torch.testing.assert_close(latest, data.tensor(f"t2_end/summative_importance{i}"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("set_name", SETS)
def test_masks_of_both_tasks_equal_record(set_name: str) -> None:
    """Binary mask of the embedding, its maximum and its sum over tasks."""
    data = recorded(set_name)
    for i in LAYERS:
        masks = [F.hard_mask(data.tensor(f"{at}/e{i}")).double() for at in ("t1_end", "t2_after")]
        for t, mask in enumerate(masks, start=1):
            assert torch.equal(mask, data.tensor(f"t{t}_end/mask{i}"))
        assert torch.equal(torch.maximum(*masks), data.tensor(f"t2_end/cumulative_mask{i}"))
        assert torch.equal(masks[0] + masks[1], data.tensor(f"t2_end/summative_mask{i}"))


def drawn(module: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a weight and a gradient of the module's shape."""
    shape = module.get_parameter("weight").shape
    weight, gradient = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return weight, gradient


def consumer(kind: LayerType, module: nn.Module, pairs: list[tuple[int, int]], g: torch.Generator) -> ConsumerView:
    """Draw a consumer that reads the given (unit, feature) pairs."""
    unit, feature = torch.tensor(pairs).T
    return ConsumerView(type(module).__name__, module, kind, *drawn(module, g), unit, feature)


def conv_view(groups: int, generator: torch.Generator) -> LayerView:
    """Draw a grouped convolution of 6 units read by three layers at once.

    A grouped convolution reads them in another order, a depthwise one reads some of a wider input, and a linear
    layer reads them flattened from maps of 2 x 2.
    """
    module = nn.Conv2d(4, 6, (2, 3), groups=groups)
    weight, gradient = drawn(module, generator)
    flat = [(unit, 4 * unit + position) for unit in range(6) for position in range(4)]
    consumers = (
        consumer(Conv2dType(), nn.Conv2d(6, 4, 3, groups=2), [(u, 5 - u) for u in range(6)], generator),
        consumer(Conv2dType(), nn.Conv2d(8, 8, 3, groups=8), [(u, u + 2) for u in range(1, 6)], generator),
        consumer(LinearType(), nn.Linear(24, 5), flat, generator),
    )
    return LayerView("conv", module, Conv2dType(), 6, weight, gradient, None, consumers)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", CLOSED)
def test_measure_of_convolutions_equals_loops(name: str, groups: int) -> None:
    generator = torch.Generator().manual_seed(groups)
    view = conv_view(groups, generator)
    samples = torch.randn(3, 6, 2, 2, generator=generator, dtype=torch.float64)
    activation = samples.abs().mean((0, 2, 3))
    same_as_loops(name, replace(view, activation=activation), samples)
