"""Rules of the doors: where what finished tasks read is compared with what was kept, and put back."""

from __future__ import annotations

from tests.zoo.mutations.mutation import Mutation

_DOORS = "tests/protection/test_doors.py"
_LATE = "tests/protection/test_late_comers.py"
_STEPS = "tests/callbacks/test_gradient_adjust.py"

DOORS = (
    Mutation(
        "what was written between tasks is put back when a task begins",
        _DOORS,
        "tasks/lifecycle.py",
        'self._sequence.check_kept(f"when task {self.id!r} began")',
        "pass",
    ),
    Mutation(
        "what was written after the last step is put back when the task ends",
        _DOORS,
        "tasks/lifecycle.py",
        'self._sequence.check_kept(f"when task {self.id!r} ended")',
        "pass",
    ),
    Mutation(
        "what was written is put back when a task is used",
        _DOORS,
        "tasks/serving.py",
        'sequence.check_kept(f"when task {task!r} was used")',
        "pass",
    ),
    Mutation(
        "what was written is put back before a save",
        _DOORS,
        "session/folder.py",
        'self._sequence.check_kept("when the session was saved")',
        "pass",
    ),
    Mutation(
        "what was written is put back before the state is taken",
        _DOORS,
        "session/session.py",
        'self._sequence.check_kept("when the state of the session was taken")',
        "pass",
    ),
    Mutation(
        "what was written is put back before a proof",
        _DOORS,
        "session/session.py",
        'sequence.check_kept("when the session was verified")',
        "pass",
    ),
    Mutation(
        "what was written is put back before an export",
        _DOORS,
        "session/views.py",
        'sequence.check_kept(f"when task {task!r} was exported")',
        "pass",
    ),
    Mutation(
        "what was written between steps is put back before the next batch and step",
        _DOORS,
        "protection/between_steps.py",
        "check_kept(self._attached, self._state, self._callbacks, when, running=True, by_value=False)",
        "pass",
    ),
    Mutation(
        "between tasks values are compared, since not all writes are counted",
        _DOORS,
        "tasks/sequence.py",
        "check_kept(self.attached, self.state, self.callbacks, when, running=running, by_value=True)",
        "check_kept(self.attached, self.state, self.callbacks, when, running=running, by_value=False)",
    ),
    Mutation(
        "other weights that were loaded are an error, and are not put back without a question",
        _DOORS,
        "protection/load_watch.py",
        "tasks.state.kept.loaded = True",
        "pass",
    ),
    Mutation(
        "merged adapters are an error",
        _DOORS,
        "protection/doors.py",
        "merged = [name for name in changed if _in_merged_adapter(model, name)]",
        "merged: list[str] = []",
    ),
    Mutation(
        "tensors and heads that join, leave or are replaced are an error at the next door",
        _LATE,
        "tasks/sequence.py",
        "check_same_tensors(self.attached, self.state)",
        "pass",
    ),
    Mutation(
        "a task that made NaN is refused",
        _STEPS,
        "protection/between_steps.py",
        "self._finite.raise_if_found(self._attached.model)",
        "pass",
    ),
)
