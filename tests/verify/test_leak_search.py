"""The leak search finds each leaking tensor, no other, and all of a group that leaks only together."""

from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.verify.leak_search import Change, find_leaks
from fgadahat_hooks.verify.report import Tasks


def changes_of(count: int) -> list[Change]:
    return [Change(f"t{n}", torch.zeros(1), torch.zeros(1), torch.ones(1)) for n in range(count)]


@pytest.mark.parametrize("leaking", [(), (0,), (3,), (1, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_finds_the_leaking_tensors_and_restores_all(leaking: tuple[int, ...]) -> None:
    changes = changes_of(7)

    def changed_tasks() -> Tasks:
        return tuple(f"task {n}" for n in leaking if bool(changes[n].tensor.any()))

    assert find_leaks(changes, changed_tasks) == {f"t{n}": (f"task {n}",) for n in leaking}
    assert not any(bool(c.tensor.any()) for c in changes)


def test_a_group_that_leaks_only_together_is_found_as_a_whole() -> None:
    changes = changes_of(4)

    def changed_tasks() -> Tasks:
        return ("a",) if all(bool(c.tensor.any()) for c in changes[1:3]) else ()

    assert find_leaks(changes, changed_tasks) == dict.fromkeys(["t0", "t1", "t2", "t3"], ("a",))


def test_no_changes() -> None:
    assert find_leaks([], lambda: ("a",)) == {}
