"""Certify finished tasks, and find out later whether one bit of them has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import AuditError, BadCallError, NoTaskError, TaskRunningError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.tasks.certificate import Certificate, TaskCertificate
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.digests import canary_outputs, environment, task_digests
from fgadahat_hooks.verify.scratch import overflown

_SHOWN = 5


@dataclass(frozen=True)
class AuditReport:
    """What an audit compared; `print` it.

    Attributes:
        tasks: The certified tasks; all have the bits that they had.
        tensors: Number of digests of what these tasks read that were compared.
        outputs: Number of digests of outputs that were compared; 0 where the environment differs and so do outputs.
        uncertified: Finished tasks without a certificate: they ended after it was made.
        environment: What differs of the environment, as "torch 2.9 was 2.8".
    """

    tasks: tuple[TaskId, ...]
    tensors: int
    outputs: int
    uncertified: tuple[TaskId, ...] = ()
    environment: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words."""
        names = ", ".join(map(repr, self.tasks))
        lines = [f"Audit passed: tasks {names} have the bits that were certified ({self.tensors} tensors"]
        lines[0] += f", {self.outputs} outputs on the canary inputs)." if self.outputs else ")."
        if self.environment:
            lines.append(f"The environment differs: {'; '.join(self.environment)}.")
        if not self.outputs:
            lines.append("Outputs differ by rounding there and prove nothing: audit where the certificate was made.")
        if self.uncertified:
            lines.append(f"Not certified yet: {', '.join(map(repr, self.uncertified))}. Call `session.certify()`.")
        return "\n".join(lines)


# ------------------------------------------------------------------ certify
def certify(sequence: TaskSequence, inputs: Any, renew: bool) -> Certificate:
    """Make the certificate of all finished tasks; see `Session.certify`.

    Raises:
        AuditError: A task that was certified before has changed.
        BadCallError: There are no inputs, or the outputs on them are not finite.
        NoTaskError: No task is finished.
        TaskRunningError: A task is running.
    """
    _check_idle(sequence, "certify")
    if not sequence.state.records:
        raise NoTaskError("No task is finished, so there is nothing to certify yet.")
    before = sequence.certificate
    inputs = _chosen_inputs(sequence, inputs)
    with sequence.exclusive():
        if before is not None and not renew:
            audit(sequence)
        outputs = canary_outputs(sequence, inputs)
        _refuse_overflown(outputs)
        tasks = task_digests(sequence, outputs)
    return Certificate(inputs, environment(sequence.attached.model), tasks)


def _chosen_inputs(sequence: TaskSequence, inputs: Any) -> Any:
    """Return the inputs that are given, or else those of the last certificate or of the trace, on the CPU."""
    before = sequence.certificate
    if inputs is None:
        inputs = sequence.attached.example_inputs if before is None else before.inputs
    if inputs is None or not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs)):
        raise BadCallError(
            "Expected `inputs` to be a tensor, a tuple of positional arguments or a dict of keyword arguments: they "
            f"are kept to compute the outputs again, but got {type(inputs).__name__}. Pass a small batch of real data."
        )
    return pytree.tree_map_only(Tensor, lambda t: t.detach().cpu().clone(), inputs)


def _refuse_overflown(outputs: Mapping[TaskId, list[Tensor]]) -> None:
    bad = overflown(dict(outputs))
    if bad:
        raise BadCallError(
            f"Expected inputs on which finished tasks give finite outputs, but those of {', '.join(map(repr, bad))} "
            "are NaN, or most of them infinite: their digests would prove nothing. Pass inputs like those that the "
            "tasks were trained on."
        )


def _check_idle(sequence: TaskSequence, what: str) -> None:
    running = sequence.running or sequence.interrupted
    if running is not None:
        raise TaskRunningError(f"Task {running.id!r} has not ended; {what} after it has.")


# ------------------------------------------------------------------ audit
def audit(sequence: TaskSequence) -> AuditReport:
    """Compute the digests of certified tasks again and compare; see `Session.audit`.

    Nothing is put back before: what is in the model now is what is compared.

    Raises:
        AuditError: Something has changed; names tasks and tensors.
        NoTaskError: There is no certificate.
        TaskRunningError: A task is running.
    """
    _check_idle(sequence, "audit")
    certificate = sequence.certificate
    if certificate is None:
        raise NoTaskError("There is no certificate to audit against. Call `session.certify(inputs)` after a task.")
    with torch.inference_mode(False), sequence.exclusive():
        now = task_digests(sequence, canary_outputs(sequence, certificate.inputs))
    differs = tuple(_environment_differences(certificate, sequence))
    problems, outputs_differ = list(_problems(certificate, now)), list(_output_problems(certificate, now))
    if problems or (outputs_differ and not differs):
        raise AuditError(_message([*problems, *outputs_differ], differs))
    return _report(certificate, now, differs, compared=not outputs_differ)


def _report(
    certificate: Certificate, now: Mapping[TaskId, TaskCertificate], differs: tuple[str, ...], *, compared: bool
) -> AuditReport:
    certified = certificate.tasks.values()
    return AuditReport(
        tuple(certificate.tasks),
        sum(len(found.tensors) for found in certified),
        sum(len(found.outputs) for found in certified) if compared else 0,
        tuple(task for task in now if task not in certificate.tasks),
        differs,
    )


def _environment_differences(certificate: Certificate, sequence: TaskSequence) -> Iterator[str]:
    now = environment(sequence.attached.model)
    for name, value in certificate.environment.items():
        if now.get(name) != value:
            yield f"{name} {now.get(name, 'unknown')}, was {value}"


def _problems(certificate: Certificate, now: Mapping[TaskId, TaskCertificate]) -> Iterator[str]:
    """Describe what certified tasks read and that has changed."""
    for task, certified in certificate.tasks.items():
        if task not in now:
            yield f"task {task!r} is not in the session any more"
            continue
        found = now[task].tensors
        names = [*certified.tensors, *(name for name in found if name not in certified.tensors)]
        changed = [name for name in names if found.get(name) != certified.tensors.get(name)]
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            yield f"task {task!r}: {', '.join(changed[:_SHOWN])}{more}"


def _output_problems(certificate: Certificate, now: Mapping[TaskId, TaskCertificate]) -> Iterator[str]:
    for task, certified in certificate.tasks.items():
        if task in now and now[task].outputs != certified.outputs:
            yield f"task {task!r}: its outputs on the canary inputs"


def _message(problems: list[str], differs: tuple[str, ...]) -> str:
    lines = [
        "Expected finished tasks with the bits that were certified, but something has changed:",
        *(f"  - {problem}" for problem in problems),
    ]
    if differs:
        lines.append(f"The environment differs, too: {'; '.join(differs)}.")
    lines.append("Load the last save that passes, and find what wrote to these tensors in between.")
    return "\n".join(lines)
