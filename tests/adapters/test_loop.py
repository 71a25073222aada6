"""The plain loop: `task.batches` and `adapters.loop.batches`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.loop import batches
from fgadahat_hooks.errors import BadCallError, MissingDependencyError
from tests.support.small import mlp

X = torch.randn(2, 4, dtype=torch.float64)
S_MAX = 400.0


class Scales(fh.Callback):
    """Records the batch events, and the scale at each."""

    def __init__(self) -> None:
        self.log: list[tuple[str, float]] = []

    def on_train_batch_start(self, context: fh.TaskContext) -> None:
        self.log.append(("start", scale(context)))

    def on_train_batch_end(self, context: fh.TaskContext) -> None:
        self.log.append(("end", scale(context)))


def scale(context: fh.TaskContext) -> float:
    return float(next(iter(context.layers.values())).gate.context.scale)


class Stream(IterableDataset[Tensor]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.zeros(1)] * 6)


def attached() -> tuple[fh.Session, Scales]:
    scales = Scales()
    return fh.attach(mlp(4, 5, 3), {"gates": {"s_max": S_MAX}}, X, [scales]), scales


@pytest.mark.parametrize("through_task", [True, False])
def test_batches_come_unchanged_between_their_events(through_task: bool) -> None:
    session, scales = attached()
    loader = [object(), object(), object()]
    with session.task("a") as task:
        seen: list[object] = []
        for batch in task.batches(loader) if through_task else batches(task, loader):
            assert len(scales.log) == 2 * len(seen) + 1
            seen.append(batch)
    assert all(a is b for a, b in zip(seen, loader, strict=True))
    assert [event for event, _ in scales.log] == ["start", "end"] * 3
    low, middle, high = (s for event, s in scales.log if event == "start")
    assert (low, high) == (1 / S_MAX, S_MAX)
    assert middle == pytest.approx((low + high) / 2)


def test_every_epoch_anneals_anew() -> None:
    session, scales = attached()
    loader = DataLoader(TensorDataset(torch.zeros(10, 4)), batch_size=4)
    with session.task("a") as task:
        for _ in range(2):
            assert len(list(task.batches(loader))) == 3
    starts = [s for event, s in scales.log if event == "start"]
    assert len(starts) == 6
    assert starts[:3] == starts[3:]


def test_a_single_batch_has_the_largest_scale() -> None:
    session, scales = attached()
    with session.task("a") as task:
        list(task.batches([1]))
    assert scales.log == [("start", S_MAX), ("end", S_MAX)]


def test_a_loader_without_length_needs_a_number() -> None:
    session, scales = attached()
    loader = DataLoader(Stream(), batch_size=2)
    with session.task("a") as task:
        with pytest.raises(BadCallError, match=r"a loader without a length \(DataLoader\)"):
            task.batches(loader)
        with pytest.raises(BadCallError, match=r"a loader without a length \(list_iterator\)"):
            task.batches(iter([1, 2]))
        assert scales.log == []
        assert len(list(task.batches(loader, num_batches=3))) == 3
        assert list(task.batches(iter([1, 2]), num_batches=2)) == [1, 2]
    assert [s for event, s in scales.log if event == "start"][-1] == S_MAX


def test_fewer_batches_than_announced_are_no_error() -> None:
    session, _ = attached()
    with session.task("a") as task:
        assert list(task.batches([1, 2], num_batches=5)) == [1, 2]


def test_one_batch_more_than_announced_is_reported_before_it_is_used() -> None:
    session, scales = attached()
    with session.task("a") as task:
        epoch = task.batches([1, 2, 3], num_batches=2)
        assert (next(epoch), next(epoch)) == (1, 2)
        with pytest.raises(BadCallError, match="at most 2 batches"):
            next(epoch)
    assert len(scales.log) == 4


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "3"])
def test_a_wrong_number_is_reported(number: Any) -> None:
    session, _ = attached()
    with session.task("a") as task, pytest.raises(BadCallError) as caught:
        task.batches([1, 2], num_batches=number)
    assert str(caught.value) == f"Expected `num_batches` to be a whole number of at least 1, but got {number!r}."


def test_an_epoch_left_early_ends_no_batch() -> None:
    session, scales = attached()
    with session.task("a") as task:
        for _ in task.batches([1, 2, 3]):
            break
        assert scales.log == [("start", 1 / S_MAX)]
        list(task.batches([1, 2]))
    assert [event for event, _ in scales.log] == ["start", "start", "end", "start", "end"]


def test_an_error_of_the_loader_reaches_the_caller() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    session, _ = attached()
    with session.task("a") as task, pytest.raises(OSError, match="disk"):
        list(task.batches(failing(), num_batches=2))


def test_batches_need_their_task() -> None:
    session, _ = attached()
    with session.task("a") as task:
        epoch = task.batches([1, 2])
        assert next(epoch) == 1
    with pytest.raises(fh.FgadahatError, match="Task 'a' is not running"):
        next(epoch)


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    session, _ = attached()
    with session.task("a") as task:
        assert list(task.batches([1, 2], progress=True)) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_progress_without_rich_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    session, _ = attached()
    with session.task("a") as task, pytest.raises(MissingDependencyError) as caught:
        task.batches([1, 2], progress=True)
    assert str(caught.value) == "progress=True needs the package rich: pip install rich"
