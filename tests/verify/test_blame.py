"""Who is to blame: each leaking tensor, no other, and all of a group that leaks only together."""

from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.verify.blame import Change, blame
from fgadahat_hooks.verify.report import Tasks


def suspects(count: int) -> list[Change]:
    return [Change(f"t{n}", torch.zeros(1), torch.zeros(1), torch.ones(1)) for n in range(count)]


@pytest.mark.parametrize("guilty", [(), (0,), (3,), (1, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_names_the_guilty_and_restores_all(guilty: tuple[int, ...]) -> None:
    changes = suspects(7)

    def look() -> Tasks:
        return tuple(f"task {n}" for n in guilty if bool(changes[n].tensor.any()))

    assert blame(changes, look) == {f"t{n}": (f"task {n}",) for n in guilty}
    assert not any(bool(c.tensor.any()) for c in changes)


def test_a_conspiracy_is_named_as_a_whole() -> None:
    changes = suspects(4)

    def look() -> Tasks:
        return ("a",) if all(bool(c.tensor.any()) for c in changes[1:3]) else ()

    assert blame(changes, look) == dict.fromkeys(["t0", "t1", "t2", "t3"], ("a",))


def test_nobody_is_suspected() -> None:
    assert blame([], lambda: ("a",)) == {}
