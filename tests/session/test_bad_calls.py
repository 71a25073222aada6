"""Every wrong call of the table is told in its words, and nothing is changed by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.bad_calls import CALLS
from tests.support.call_world import CallCase, World, world
from tests.support.small import snapshot


def everything(w: World) -> dict[str, Any]:
    """Note all that a call could change: tensors, modes, hooks, attributes, tasks."""
    modules = dict(w.model.named_modules())
    noted: dict[str, Any] = {
        "tensors": snapshot(w.model),
        "identities": {n: id(p) for n, p in w.model.named_parameters()},
        "requires_grad": {n: p.requires_grad for n, p in w.model.named_parameters()},
        "training": {n: m.training for n, m in modules.items()},
        "attributes": {n: sorted(vars(m)) for n, m in modules.items()},
        "hooks": {n: hooks(m) for n, m in modules.items()},
    }
    if w.session is not None:
        noted["tasks"] = w.session.tasks
        noted["masks"] = {t: w.session.masks(t) for t in w.session.tasks}
        noted["running"] = repr(w.task)
    return noted


def hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def same(a: Any, b: Any) -> bool:
    """Compare notes, tensors bit for bit."""
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


def test_the_table_is_long_and_without_twins() -> None:
    names = [case.name for case in CALLS]
    assert len(names) == len(set(names)) >= 60


def test_every_message_is_whole_sentences() -> None:
    for case in CALLS:
        assert case.message.rstrip()[-1] in ".?)", case.name
