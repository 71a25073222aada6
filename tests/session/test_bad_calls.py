"""Every wrong call of the table raises the error in the table, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.bad_calls import CALLS
from tests.support.call_world import CallCase, World, world
from tests.support.small import snapshot


def everything(w: World) -> dict[str, Any]:
    """Record all that a call could change: tensors, modes, hooks, attributes, tasks."""
    modules = dict(w.model.named_modules())
    recorded: dict[str, Any] = {
        "tensors": snapshot(w.model),
        "identities": {n: id(p) for n, p in w.model.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in w.model.named_parameters()},
        "training": {n: m.training for n, m in modules.items()},
        "attributes": {n: sorted(vars(m)) for n, m in modules.items()},
        "hooks": {n: hooks(m) for n, m in modules.items()},
    }
    if w.session is not None:
        recorded["tasks"] = w.session.tasks
        recorded["masks"] = {t: w.session.masks(t) for t in w.session.tasks}
        recorded["running"] = repr(w.task)
    return recorded


def hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def same(a: Any, b: Any) -> bool:
    """Compare records, tensors bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.name)
def test_call(case: CallCase) -> None:
    with world(case.stage) as w:
        before = everything(w)
        with pytest.raises(case.error) as caught:
            case.call(w)
        after = everything(w)
    assert type(caught.value) is case.error
    assert str(caught.value) == case.message
    assert [name for name in before if not same(before[name], after[name])] == []


def test_the_table_is_long_and_has_no_duplicates() -> None:
    names = [case.name for case in CALLS]
    assert len(names) == len(set(names)) >= 60


def test_every_message_ends_as_a_sentence() -> None:
    for case in CALLS:
        assert case.message.rstrip()[-1] in ".?)", case.name
