"""Write down digests of finished tasks."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError, NoTaskError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.tasks.call_arguments import map_tensors, tensors_in, to_plain
from fgadahat_hooks.tasks.certificate import Certificate, TaskCertificate
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.audit import audit, check_idle
from fgadahat_hooks.verify.digests import canary_outputs, common_digests, environment, output_digests, tensor_digests
from fgadahat_hooks.verify.reads import task_reads
from fgadahat_hooks.verify.scratch import Logits, changed_tasks, overflown


def certify(sequence: TaskSequence, inputs: Any, renew: bool, by_choice: tuple[str, ...] = ()) -> Certificate:
    """Make the certificate of all finished tasks; see `Session.certify`.

    Raises:
        AuditError: A task that was certified before has changed.
        BadCallError: There are no inputs, they cannot be kept, or the outputs on them prove nothing.
        NoTaskError: No task is finished.
        TaskRunningError: A task is running.
    """
    check_idle(sequence, "certify")
    if not sequence.state.records:
        raise NoTaskError("No task is finished, so there is nothing to certify yet.")
    with torch.inference_mode(False), sequence.exclusive():
        kept = _chosen_inputs(sequence, inputs)
        if sequence.certificate is not None and not renew:
            audit(sequence, by_choice)
        outputs = _outputs(sequence, kept)
        sequence.retrace_pending()  # else what the canaries were first to use would not be protected
        return Certificate(kept, environment(sequence.attached.model), _tasks(sequence, outputs))


def _tasks(sequence: TaskSequence, outputs: Logits) -> dict[TaskId, TaskCertificate]:
    common, made = dict(common_digests(sequence)), {}
    for task, record in sequence.state.records.items():
        reads = task_reads(sequence.attached, task, record)
        tensors = {**dict(tensor_digests(sequence, record, reads)), **common}
        made[task] = TaskCertificate(output_digests(outputs[task]), tensors, reads)
    return made


# ------------------------------------------------------------------ canary inputs
def _chosen_inputs(sequence: TaskSequence, inputs: Any) -> Any:
    """Return the inputs that are given, or else those of the last certificate or of the trace, as plain data."""
    if inputs is None and sequence.certificate is not None:
        return sequence.certificate.inputs
    inputs = sequence.attached.example_inputs if inputs is None else inputs
    inputs = _with_dicts(inputs)
    if not isinstance(inputs, Tensor | tuple | list | dict) or not tensors_in(inputs):
        raise BadCallError(
            "Expected `inputs` to be a tensor, a tuple of positional arguments or a dict of keyword arguments: they "
            f"are kept to compute the outputs again, but got {type(inputs).__name__}{_without(inputs)}. Pass a small "
            "batch of real data."
        )
    try:
        return to_plain(map_tensors(lambda tensor: tensor.detach().cpu().clone(), inputs))
    except ValueError as error:
        raise BadCallError(
            "Expected canary inputs of tensors, arrays, numbers, text, lists, tuples and dicts with text as keys, but "
            f"got one of type {error}. They are kept with the session."
        ) from error


def _with_dicts(value: Any) -> Any:
    """Return nested inputs with plain dicts in place of other mappings, such as a tokenizer's result."""
    if isinstance(value, Mapping | UserDict):
        return {key: _with_dicts(part) for key, part in value.items()}
    return type(value)(map(_with_dicts, value)) if type(value) in (list, tuple) else value


def _without(inputs: Any) -> str:
    return " without tensors" if isinstance(inputs, tuple | list | dict) else ""


# ------------------------------------------------------------------ outputs that prove something
def _outputs(sequence: TaskSequence, inputs: Any) -> Logits:
    """Return the outputs of all finished tasks, if they are finite and the same on a second call."""
    outputs = {task: canary_outputs(sequence, inputs, task) for task in sequence.state.records}
    _refuse([t for t, tensors in outputs.items() if not any(map(Tensor.numel, tensors))], "are empty")
    _refuse(list(overflown(outputs)), "are NaN, or most of them infinite")
    again = {task: canary_outputs(sequence, inputs, task) for task in outputs}
    changed = changed_tasks(outputs, again)
    if changed:
        raise BadCallError(
            f"Expected a model that gives the same bits for the same inputs, but task {changed[0]!r} gives other "
            "outputs on a second call. In evaluation mode, let it draw no random numbers and count no calls; on a GPU, "
            "see torch.use_deterministic_algorithms."
        )
    return outputs


def _refuse(tasks: list[TaskId], what: str) -> None:
    if tasks:
        raise BadCallError(
            f"Expected inputs on which finished tasks give finite outputs, but the outputs of "
            f"{', '.join(map(repr, tasks))} {what}: their digests would prove nothing. Pass inputs like those that the "
            "tasks were trained on."
        )
