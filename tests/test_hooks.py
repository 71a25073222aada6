from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.hooks import HookSet


def add(number: float) -> Any:
    return lambda module, args, output: output + number


def times(number: float) -> Any:
    return lambda module, args, output: output * number


def test_hooks_are_added_and_removed() -> None:
    module, x = nn.Identity(), torch.ones(())
    hooks = HookSet()
    hooks.forward(module, add(1))
    hooks.forward(module, times(10), first=True)
    hooks.forward_pre(module, lambda m, args: (args[0] + 1,))
    assert module(x) == 21
    hooks.close()
    hooks.close()
    assert module(x) == 1
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_pre_hooks_can_run_first_and_get_keywords() -> None:
    module = nn.Identity()
    seen: list[object] = []
    hooks = HookSet()
    hooks.forward_pre(module, lambda *_: seen.append("second"))
    hooks.forward_pre(module, lambda m, args, kwargs: seen.append(sorted(kwargs)), first=True, kwargs=True)
    module(input=torch.ones(()))
    assert seen == [["input"], "second"]


def test_a_hook_may_run_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    module, seen = Failing(), []
    hooks = HookSet()
    hooks.forward(module, lambda m, args, output: seen.append(output), always=True)
    hooks.forward(module, lambda m, args, output: seen.append("never"))
    with pytest.raises(ValueError, match="no"):
        module(torch.ones(()))
    assert seen == [None]


def test_children_and_attributes() -> None:
    parent = nn.Linear(2, 2)
    hooks = HookSet()
    hooks.child(parent, "extra", nn.Linear(1, 1))
    hooks.attribute(parent, "_note", nn.Linear(1, 1))
    assert "extra.weight" in parent.state_dict()
    assert not any("_note" in name for name in parent.state_dict())
    hooks.close()
    assert list(parent.state_dict()) == ["weight", "bias"]
    assert "_note" not in vars(parent)


def test_changes_are_undone_newest_first() -> None:
    seen: list[int] = []
    hooks = HookSet()
    for number in range(3):
        hooks.undo(seen.append, number)
    hooks.close()
    assert seen == [2, 1, 0]


def test_temporary_hooks_are_removed_on_an_error() -> None:
    module = nn.Identity()

    def fail() -> None:
        with HookSet.temporary() as hooks:
            hooks.forward(module, add(1))
            assert module(torch.ones(())) == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert module(torch.ones(())) == 1
