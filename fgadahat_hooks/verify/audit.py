"""Find out whether one bit of a certified task has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from fgadahat_hooks.errors import AuditError, BadCallError, NoTaskError, TaskRunningError, TraceError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.tasks.certificate import Certificate
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.digests import canary_outputs, common_digests, environment, output_digests, tensor_digests

_SHOWN = 5


@dataclass(frozen=True)
class AuditReport:
    """What an audit compared; `print` it.

    Attributes:
        tasks: The certified tasks; all have the bits that they had.
        tensors: Number of digests of what these tasks read that were compared.
        outputs: Number of digests of outputs that were compared; 0 where the environment differs and so do outputs.
        uncertified: Finished tasks without a certificate: they ended after it was made.
        environment: What differs of the environment, as "torch 2.9, was 2.8".
    """

    tasks: tuple[TaskId, ...]
    tensors: int
    outputs: int
    uncertified: tuple[TaskId, ...] = ()
    environment: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words."""
        names = ", ".join(map(repr, self.tasks))
        subject = f"tasks {names} have" if len(self.tasks) > 1 else f"task {names} has"
        digests = f"{self.tensors} of tensors" + (f", {self.outputs} of outputs" if self.outputs else "")
        lines = [f"Audit passed: {subject} the bits that were certified (digests: {digests})."]
        if self.environment:
            lines.append(f"The environment differs: {'; '.join(self.environment)}.")
        if not self.outputs:
            lines.append("Outputs differ by rounding there and prove nothing: audit where the certificate was made.")
        if self.uncertified:
            lines.append(f"Not certified yet: {', '.join(map(repr, self.uncertified))}. Call `session.certify()`.")
        return "\n".join(lines)


def audit(sequence: TaskSequence, by_choice: tuple[str, ...] = ()) -> AuditReport:
    """Compute the digests of certified tasks again and compare; see `Session.audit`.

    Nothing is put back before: what is in the model now is what is compared.

    Args:
        sequence: The attached model and its tasks.
        by_choice: Settings of the spec by which finished tasks can change, for the message.

    Raises:
        AuditError: Something has changed; names tasks and tensors.
        NoTaskError: There is no certificate.
        TaskRunningError: A task is running.
    """
    check_idle(sequence, "audit")
    certificate = sequence.certificate
    if certificate is None:
        raise NoTaskError("There is no certificate to audit against. Call `session.certify(inputs)` after a task.")
    with torch.inference_mode(False), sequence.exclusive():
        differs = tuple(_environment_differences(certificate, sequence))
        problems = list(_tensor_problems(certificate, sequence))
        outputs = list(_output_problems(certificate, sequence))
    if problems or any(not found.rounding for found in outputs) or (outputs and not differs):
        raise AuditError(_message([*problems, *map(str, outputs)], differs, by_choice))
    return _report(certificate, sequence, differs, compared=not outputs)


def check_idle(sequence: TaskSequence, what: str) -> None:
    """Check that no task has begun and not ended.

    Raises:
        TaskRunningError: One has.
    """
    running = sequence.running or sequence.interrupted
    if running is not None:
        raise TaskRunningError(f"Task {running.id!r} has not ended; {what} after it has.")


# ------------------------------------------------------------------ what differs
def _environment_differences(certificate: Certificate, sequence: TaskSequence) -> Iterator[str]:
    now = environment(sequence.attached.model)
    for name, value in certificate.environment.items():
        if now.get(name) != value:
            yield f"{name} {now.get(name, 'unknown')}, was {value}"


def _tensor_problems(certificate: Certificate, sequence: TaskSequence) -> Iterator[str]:
    """Describe what certified tasks read and that has changed."""
    common, records = dict(common_digests(sequence)), sequence.state.records
    for task, certified in certificate.tasks.items():
        if task not in records:
            yield f"task {task!r} is not in the session any more"
            continue
        found = {**dict(tensor_digests(sequence, records[task], certified.reads)), **common}
        changed = _changed(certified.tensors, found)
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            yield f"task {task!r}: {', '.join(changed[:_SHOWN])}{more}"


def _changed(certified: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    names = [*certified, *(name for name in found if name not in certified)]
    return [name for name in names if found.get(name) != certified.get(name)]


@dataclass(frozen=True)
class _OutputProblem:
    """What is wrong with a task's outputs; `rounding` if another environment may be all there is to it."""

    task: TaskId
    text: str
    rounding: bool = False

    def __str__(self) -> str:
        return f"task {self.task!r}: its outputs {self.text}"


def _output_problems(certificate: Certificate, sequence: TaskSequence) -> Iterator[_OutputProblem]:
    for task in (known for known in certificate.tasks if known in sequence.state.records):
        problem = _output_problem(certificate, sequence, task)
        if problem is not None:
            yield problem


def _output_problem(certificate: Certificate, sequence: TaskSequence, task: TaskId) -> _OutputProblem | None:
    try:
        outputs = canary_outputs(sequence, certificate.inputs, task)
    except TraceError as error:
        cause = error.__cause__ or error
        return _OutputProblem(task, f"cannot be computed on the canary inputs ({type(cause).__name__}: {cause})")
    except ValueError as error:
        raise BadCallError(
            f"Expected the class {error} of the canary inputs to be imported, but it is not there. Import its module "
            "before an audit."
        ) from error
    found, certified = output_digests(outputs), certificate.tasks[task].outputs
    if found.keys() != certified.keys():
        return _OutputProblem(task, f"on the canary inputs are others: {'; '.join(found)}, were {'; '.join(certified)}")
    return None if found == certified else _OutputProblem(task, "on the canary inputs", rounding=True)


# ------------------------------------------------------------------ in words
def _report(
    certificate: Certificate, sequence: TaskSequence, differs: tuple[str, ...], *, compared: bool
) -> AuditReport:
    certified = certificate.tasks.values()
    return AuditReport(
        tuple(certificate.tasks),
        sum(len(found.tensors) for found in certified),
        sum(len(found.outputs) for found in certified) if compared else 0,
        tuple(task for task in sequence.state.records if task not in certificate.tasks),
        differs,
    )


def _message(problems: list[str], differs: tuple[str, ...], by_choice: tuple[str, ...]) -> str:
    lines = [
        "Expected finished tasks with the bits that were certified, but something has changed:",
        *(f"  - {problem}" for problem in problems),
    ]
    if differs:
        lines.append(f"The environment differs, too: {'; '.join(differs)}.")
    if by_choice:
        lines += ["By the spec, finished tasks can change, because", *(f"  - {choice}" for choice in by_choice)]
    lines.append("Load the last save that passes, and find what wrote to these tensors in between.")
    return "\n".join(lines)
