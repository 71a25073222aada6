"""Proof of zero forgetting on the model at hand: overwrite everything that is free, compare every finished task."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.base import CallbackList, TaskContext
from fgadahat_hooks.callbacks.rates import Joined, shared_values
from fgadahat_hooks.errors import BadCallError, LeakError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.task_tensors import TaskTensors
from fgadahat_hooks.tracing.forward import output_tensors, run_example, untouched


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        tasks: The tasks whose logits were compared.
        free: Number of elements that were overwritten.
        kept: Number of gated elements that were not.
        leaks: For each leaking tensor the tasks whose logits it changed; empty when nothing leaks.
        by_choice: What else lets finished tasks change, chosen in the spec (soft rates, for one): `Plan.leaks`. The
            proof is about free entries; it says nothing of entries that a soft mode moves a little.
    """

    tasks: tuple[TaskId, ...]
    free: int
    kept: int
    leaks: dict[str, tuple[TaskId, ...]]
    by_choice: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in words."""
        tasks = ", ".join(map(repr, self.tasks))
        if self.leaks:
            lines = [f"  {name}: changes {', '.join(map(repr, t))}" for name, t in self.leaks.items()]
            return "\n".join([f"{len(self.leaks)} tensor(s) leak into finished tasks:", *lines])
        proof = f"Tasks {tasks}: logits bit-identical after {self.free:,} free elements were overwritten with noise."
        choices = ["But later tasks can still change them, because", *(f"  - {choice}" for choice in self.by_choice)]
        return "\n".join([proof, *choices]) if self.by_choice else proof


def verify(runtime: Runtime, inputs: Any = None, by_choice: tuple[str, ...] = ()) -> VerifyReport:
    """Run the static proof on a copy; see `Session.verify`.

    Args:
        runtime: The attached model, with finished tasks.
        inputs: Inputs for the model; those of the trace when left out.
        by_choice: What the plan says can change finished tasks, for the report.

    Raises:
        LeakError: Some finished task's logits changed.
    """
    inputs = runtime.example_inputs if inputs is None else inputs
    if inputs is None:
        raise BadCallError("Expected `inputs`: the model was attached without example inputs.")
    with runtime.alone():
        scratch = _scratch(runtime)
    with untouched(scratch.model):
        _shake(scratch)
        before = _logits(scratch, inputs)
        entries = list(_free_entries(scratch))
        saved = [(name, tensor, tensor.clone(), free) for name, tensor, free in entries]
        for _, tensor, _, free in saved:
            _overwrite(tensor, free)
        changed = _changed(before, _logits(scratch, inputs))
        for _, tensor, value, _ in saved:
            tensor.copy_(value)
        leaks = _blame(scratch, inputs, before, saved) if changed else {}
    free_count = sum(int(free.sum()) for _, _, free in entries)
    total = sum(tensor.numel() for _, tensor, _ in entries)
    report = VerifyReport(tuple(runtime.state.records), free_count, total - free_count, leaks, by_choice)
    if changed:
        raise LeakError(f"{report}\nPolicies: {_policies(runtime, leaks)}")
    return report


# ------------------------------------------------------------------ the copy
def _scratch(runtime: Runtime) -> Runtime:
    """Return a runtime over a deep copy of the model, its gates and its records; the user's stays untouched."""
    memo: dict[int, Any] = {}
    model = copy.deepcopy(runtime.model, memo)
    gates = {name: memo[id(gate)] for name, gate in runtime.gates.items()}
    context = next(iter(gates.values())).context if gates else copy.deepcopy(runtime.gate_context)
    records = {t: TaskRecord(r.masks, dict(r.tensors), r.importance) for t, r in runtime.state.records.items()}
    scratch = Runtime(model, runtime.spec, gates, context, CallbackList([]), HookSet())
    scratch.state = TaskState(records, runtime.state.summed_importance)
    scratch.graph, scratch.policies, scratch.traced = runtime.graph, runtime.policies, True
    scratch.tensors = TaskTensors(model, runtime.tensors.names)
    return scratch


def _shake(scratch: Runtime) -> None:
    """Randomise stored norm state and heads, so that no equality is vacuous: a zero head hides every leak."""
    roles = {p.name: p for p in scratch.policies}
    for record in scratch.state.records.values():
        for name, value in record.tensors.items():
            if value.is_floating_point() and roles[name].role in ("norm", "head"):
                noise = torch.rand_like(value) + 0.5
                positive = "var" in name or roles[name].role == "norm"
                record.tensors[name] = noise if positive else noise - 1.0


def _logits(scratch: Runtime, inputs: Any) -> dict[TaskId, list[Tensor]]:
    out = {}
    for task in scratch.state.records:
        with scratch.using(task):
            out[task] = [t.clone() for t in output_tensors(run_example(scratch.model, inputs))]
    return out


def _changed(before: dict[TaskId, list[Tensor]], after: dict[TaskId, list[Tensor]]) -> tuple[TaskId, ...]:
    return tuple(
        task
        for task, logits in before.items()
        if not all(torch.equal(a, b) for a, b in zip(logits, after[task], strict=True))
    )


# ------------------------------------------------------------------ what is free
def _free_entries(scratch: Runtime) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give name, data and a bool mask of the free entries of everything a later task may write."""
    context: TaskContext = scratch.context(None)
    joined = Joined(context.cumulative, context.summative, torch.zeros_like(context.cumulative))
    for name, layer in context.layers.items():
        for part, shared in shared_values(context, layer, joined).items():
            gated = layer.module.get_parameter(part)
            yield f"{name}.{part}", gated.data, (shared.protected == 0).expand(gated.shape)
        embedding = layer.gate.embedding
        yield f"{name}.embedding", embedding.data, torch.ones_like(embedding, dtype=torch.bool)
    for policy in scratch.policies:
        if policy.protection == "per_task" or (policy.protection == "shared" and policy.role != "gated"):
            tensor = TaskTensors(scratch.model, []).tensor(policy.name)
            if tensor.is_floating_point():
                yield policy.name, tensor.data, torch.ones_like(tensor, dtype=torch.bool)


def _overwrite(tensor: Tensor, free: Tensor) -> None:
    noise = torch.randn_like(tensor).abs() + 0.5
    tensor.copy_(torch.where(free, noise, tensor))


def _blame(
    scratch: Runtime,
    inputs: Any,
    before: dict[TaskId, list[Tensor]],
    saved: list[tuple[str, Tensor, Tensor, Tensor]],
) -> dict[str, tuple[TaskId, ...]]:
    """Find the tensors that leak, each by itself; a group that leaks nothing together is not looked into."""
    for _, tensor, value, free in saved:
        tensor.copy_(value)
        _overwrite(tensor, free)
    found = _changed(before, _logits(scratch, inputs))
    for _, tensor, value, _ in saved:
        tensor.copy_(value)
    if not found or len(saved) == 1:
        return {saved[0][0]: found} if found else {}
    half = len(saved) // 2
    parts = (_blame(scratch, inputs, before, part) for part in (saved[:half], saved[half:]))
    return {name: tasks for part in parts for name, tasks in part.items()}


def _policies(runtime: Runtime, leaks: dict[str, tuple[TaskId, ...]]) -> str:
    by_name = {p.name: p for p in runtime.policies if p.protection == "shared"}
    found = [f"{name}: {by_name[name].protection} ({by_name[name].reason})" for name in leaks if name in by_name]
    return "; ".join(found) or "none of them is shared by choice; please report this model"
