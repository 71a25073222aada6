"""Parameters, buffers and heads that join the model, leave it, or are replaced after it was attached."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from fgadahat_hooks.errors import ModelChangedError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.graph.policy import classify, own_tensors

_REMEDY = (
    "Undo it, or make such changes before `attach`. While no task is finished: `session.detach()`, then attach the "
    "model again."
)


def check_same_tensors(attached: AttachedModel, state: TaskState) -> None:
    """Check that the model has the tensors that were classified when it was attached.

    A buffer that joins before the first task ends is classified now, as a forward may create one.

    Raises:
        ModelChangedError: Others have joined, some are gone, or a head was replaced: nothing would protect them, or a
            new task would cut or redraw them.
    """
    if not attached.traced:
        return
    _check_names(attached, state)
    reshaped = [] if state.kept is None else state.kept.reshaped()
    if reshaped:
        raise ModelChangedError(
            f"{_named(reshaped)} of another shape than when the last task ended, which finished tasks cannot read. "
            f"{_REMEDY}"
        )
    _check_heads(attached)


def _check_names(attached: AttachedModel, state: TaskState) -> None:
    now = {name: is_parameter for name, _, _, _, is_parameter in own_tensors(attached.model)}
    known = {policy.name for policy in attached.policies}
    if now.keys() - known:
        _classify_new(attached, state, [name for name in now if name not in known], now)
    gone = [name for name in known if name not in now]
    if gone:
        raise ModelChangedError(f"{_named(gone)} gone from the model since it was attached. {_REMEDY}")


def _check_heads(attached: AttachedModel) -> None:
    """Take over a head that was replaced by one of the same shape: each task draws its own values anyway."""
    for name, module in list(attached.head_modules.items()):
        now = attached.model.get_submodule(name)
        if now is not module and _shapes(now) == _shapes(module):
            attached.head_modules[name] = now
        elif now is not module:
            raise ModelChangedError(
                f"Head '{name}' was replaced by one of another shape after attach: it would be cut or drawn anew "
                "without a word, because every task gets a head of its own. Put the old layer back; for another number "
                "of outputs, pass "
                "`session.task(..., num_classes=...)`. To begin with a head of your own, make it before `attach`."
            )


def _classify_new(attached: AttachedModel, state: TaskState, new: list[str], now: dict[str, bool]) -> None:
    refused = [name for name in new if now[name] or (state.records and _is_persistent(attached.model, name))]
    if refused:
        raise ModelChangedError(
            f"{_named(refused)} not in the model when it was attached: how finished tasks use this is not known, and "
            f"nothing would protect it. {_REMEDY}"
        )
    if not state.records:
        policies = [p for p in classify(attached.model, attached.graph, attached.spec) if p.name in new]
        attached.policies += policies
        attached.tensors.names += [policy.name for policy in policies if policy.protection == "per_task"]


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def _is_persistent(model: nn.Module, name: str) -> bool:
    path, _, local = name.rpartition(".")
    return local not in model.get_submodule(path)._non_persistent_buffers_set


def _named(names: list[str]) -> str:
    return f"'{names[0]}' " + ("is" if len(names) == 1 else f"and {len(names) - 1} more are")


def heads_of(attached: AttachedModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each head, for `check_same_tensors`."""
    yield from ((name, attached.model.get_submodule(name)) for name in attached.graph.heads)
