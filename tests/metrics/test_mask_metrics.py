"""The metrics of a session: units used by tasks, and network capacity."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

import fgadahat_hooks as fh
from fgadahat_hooks import metrics as fm
from fgadahat_hooks.errors import BadCallError
from tests.reference import metrics as slow
from tests.support.small import aborted, batches, learn, mlp

MASK_METRICS = (fm.FreeUnitFraction, fm.MaskUse, fm.CumulativeMaskUse, fm.MaskOverlap)
SLOW = {
    fm.FreeUnitFraction: slow.free_unit_fraction,
    fm.MaskUse: slow.mask_use,
    fm.CumulativeMaskUse: slow.cumulative_mask_use,
    fm.MaskOverlap: slow.mask_overlap,
}
every_mask_metric = pytest.mark.parametrize("make", MASK_METRICS)


def session(tasks: int, mode: str = "adahat") -> fh.Session:
    """Attach to a small model and learn a few tasks."""
    attached = fh.attach(mlp(6, 8, 5, 3), {"adjustment": {"mode": mode}}, batches(6, 3)[0][0])
    for task in range(tasks):
        learn(attached, f"task {task}", batches(6, 3))
    return attached


def rows(attached: fh.Session) -> list[list[float]]:
    return [[float(m) for mask in attached.masks(t).values() for m in mask] for t in attached.tasks]


def value(metric: Any, *args: Any) -> Tensor:
    metric.set_dtype(torch.float64)
    metric.update(*args)
    found = metric.compute()
    assert isinstance(found, Tensor)
    return found


def close(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@every_mask_metric
def test_of_a_session(make: type[fm.MaskMetric]) -> None:
    attached = session(3)
    close(value(make(), attached), SLOW[make](rows(attached)))


@every_mask_metric
def test_of_masks(make: type[fm.MaskMetric]) -> None:
    attached = session(2)
    masks = {task: attached.masks(task) for task in attached.tasks}
    backwards = {task: dict(reversed(layers.items())) for task, layers in masks.items()}
    expected = value(make(), attached)
    close(value(make(), masks), expected)
    close(value(make(), {**masks, attached.tasks[1]: backwards[attached.tasks[1]]}), expected)


def test_before_the_first_task() -> None:
    attached = session(0)
    assert value(fm.FreeUnitFraction(), attached).item() == 1.0
    assert value(fm.NetworkCapacity(), attached).item() == 1.0
    assert value(fm.MaskUse(), attached).shape == value(fm.CumulativeMaskUse(), attached).shape == (0,)
    assert value(fm.MaskOverlap(), attached).shape == (0, 0)


def test_it_agrees_with_what_the_session_says() -> None:
    attached = session(2)
    used = torch.cat(list(attached.cumulative_mask.values()))
    assert value(fm.FreeUnitFraction(), attached).item() == pytest.approx(1 - used.double().mean().item(), abs=1e-6)
    units = {name: len(mask) for name, mask in attached.cumulative_mask.items()}
    use = attached.unit_use()
    whole = [sum(use[n][t] * units[n] for n in units) / sum(units.values()) for t in attached.tasks]
    close(value(fm.MaskUse(), attached), whole)


def test_a_running_task_is_not_among_them() -> None:
    attached = session(1)
    before = value(fm.MaskUse(), attached)
    with aborted(attached, "next"):
        assert torch.equal(value(fm.MaskUse(), attached), before)


def test_capacity_is_the_sessions() -> None:
    attached = session(2)
    assert 0 < attached.capacity() < 1
    metric = fm.NetworkCapacity()
    assert metric.set_dtype(torch.float64)(attached).item() == attached.capacity()
    with aborted(attached, "next"):
        metric.update(attached)
        assert metric.compute().item() == attached.capacity()


@pytest.mark.parametrize("make", [*MASK_METRICS, fm.NetworkCapacity])
def test_the_last_update_counts(make: Any) -> None:
    attached = session(1)
    metric = make()
    first = metric(attached)
    learn(attached, "second", batches(6, 3))
    second = metric(attached)
    assert not torch.equal(first, second)
    assert torch.equal(metric.compute(), second)
    for other in (pickle.loads(pickle.dumps(metric)), metric.clone(), copy.deepcopy(metric)):  # noqa: S301 - our own
        assert torch.equal(other.compute(), second)
    metric.reset()
    metric.update(attached)
    assert torch.equal(metric.compute(), second)
    assert metric.to(dtype=torch.half).compute().dtype == torch.half


def test_a_collection_of_all() -> None:
    attached = session(2)
    together = MetricCollection([make() for make in (*MASK_METRICS, fm.NetworkCapacity)])
    for _ in range(2):
        together.update(attached)
        found = together.compute()
        for make in MASK_METRICS:
            close(found[make.__name__], SLOW[make](rows(attached)))
        assert found["NetworkCapacity"].item() == pytest.approx(attached.capacity(), abs=1e-6)
        learn(attached, "third", batches(6, 3)) if len(attached.tasks) == 2 else None
    assert sorted(map(len, together.compute_groups.values())) == [1, 4]


def test_updating_changes_nothing_of_the_session() -> None:
    attached = session(1)
    before = attached.state_dict(), torch.get_rng_state()
    metric = fm.FreeUnitFraction()
    metric.update(attached)
    metric.masks.fill_(1)
    after = attached.state_dict(), torch.get_rng_state()
    assert torch.equal(before[1], after[1])
    assert repr(before[0]) == repr(after[0])


ONE = torch.tensor([1, 0])
BAD = [
    (
        fm.NetworkCapacity,
        {"t": {"fc": ONE}},
        "Expected a session, but got dict.",
    ),
    (
        fm.MaskUse,
        [ONE],
        "Expected a session, or masks, (units,) each, by task and layer, but got list. "
        "Pass `{task: session.masks(task) for task in session.tasks}`.",
    ),
    (
        fm.MaskUse,
        {"fc": ONE},
        "Expected a session, or masks, (units,) each, by task and layer, but got dict. "
        "Pass `{task: session.masks(task) for task in session.tasks}`.",
    ),
    (
        fm.MaskUse,
        {"one": {"fc": ONE}, "two": {"fc": ONE, "fc2": ONE}},
        "Expected the masks of all tasks to be of the same layers and units, but got "
        "{'one': {'fc': 2}, 'two': {'fc': 2, 'fc2': 2}}.",
    ),
]


@pytest.mark.parametrize(("make", "source", "message"), BAD)
def test_a_wrong_call_is_reported(make: Any, source: Any, message: str) -> None:
    with pytest.raises(BadCallError) as caught:
        make().update(source)
    assert str(caught.value) == message
