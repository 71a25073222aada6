"""Every error this library raises on purpose; the class name says what went wrong.

FgadahatError
├── SpecError (ValueError)                a spec is not valid; lists all problems
├── UnknownNameError (LookupError)        a registry has no such name
├── DuplicateNameError (ValueError)       a registry already has that name
├── BadCallError (ValueError)             an argument is not what was expected
├── MatchError (ValueError)               names in the spec do not fit the model
│   ├── NoMatchError                      a pattern matches nothing
│   ├── UnsupportedLayerError             a matched module cannot be gated
│   ├── UnreachedLayerError               a matched layer is not used by the forward
│   └── HeadNotFoundError                 the output layer cannot be found
├── TraceError (RuntimeError)             the example forward failed
├── AttachError (RuntimeError)
│   ├── AlreadyAttachedError              the model already has gates
│   ├── DetachedError                     the session has been detached
│   └── ModelChangedError                 parameters or heads joined, left or were replaced after attach
├── TaskError (RuntimeError)
│   ├── TaskRunningError                  a task is open and must end first
│   ├── NoTaskError                       the call needs a task and none is open
│   ├── DuplicateTaskError                a task with that id is already finished
│   ├── UnknownTaskError (LookupError)    no task with that id is finished
│   └── NotAnnealedError                  the gate scale was never set
├── OptimizerError (RuntimeError)
│   ├── UnprotectedOptimizerError         an optimizer steps without `task.protect`
│   └── ForeignOptimizerError             an optimizer lacks parameters of the model
├── RanksDifferError (RuntimeError)       processes that train one model hold different values
├── NonFiniteError (ArithmeticError)      NaN or infinity would be stored
├── CapabilityError (ValueError)          a measure cannot be computed on this model
├── StateMismatchError (ValueError)       a saved state does not fit this model
├── CheckpointError (RuntimeError)        a saved session cannot be written or read
│   ├── DamagedCheckpointError            its files are missing, truncated or changed
│   └── NewerFormatError                  a newer release wrote it
├── ExportError (RuntimeError)            a task cannot be exported as it is
├── WeightsChangedError (RuntimeError)    what finished tasks read was changed, and cannot be put back
├── LeakError (RuntimeError)              `verify` changed the logits of a finished task
├── AuditError (RuntimeError)             a finished task has not the bits that were certified
└── MissingDependencyError (ImportError)  an optional package is not installed

LearningWarning (UserWarning)             a task has too little room, or may not have learnt
ProtectedWeightsRestoredWarning (UserWarning)  what finished tasks read was changed, and was put back
UnkeptStateWarning (UserWarning)          the model keeps state that no task has its own copy of
"""

from __future__ import annotations

from typing import NamedTuple


class FgadahatError(Exception):
    """Base of all errors raised on purpose by this library."""


class LearningWarning(UserWarning):
    """A task has too little room to learn in, or ended without having learnt what it could; names the remedy."""


class ProtectedWeightsRestoredWarning(UserWarning):
    """Something wrote what finished tasks read, outside of a protected step; it was put back. Names likely causes."""


class UnkeptStateWarning(UserWarning):
    """The model keeps state as a plain attribute, and it changes in training: no task has its own copy of it."""


class Problem(NamedTuple):
    """One thing wrong with a spec: where, and what."""

    path: str
    message: str


class SpecError(FgadahatError, ValueError):
    """A spec is not valid.

    Attributes:
        problems: All problems found, each with its path in the spec.
        source: The file the spec came from, if any.
    """

    def __init__(self, problems: list[Problem] | tuple[Problem, ...], source: str | None = None) -> None:
        """Join all problems into one message, one line each."""
        self.problems = tuple(problems)
        self.source = source
        where = f" in {source}" if source else ""
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = [f"  {p.path}: {p.message}" if p.path else f"  {p.message}" for p in self.problems]
        super().__init__("\n".join([f"The spec has {count}{where}:", *lines]))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...], str | None]]:
        """Pickle the constructor arguments, so that the error can be sent between processes."""
        return type(self), (self.problems, self.source)


class UnknownNameError(FgadahatError, LookupError):
    """A registry has no such name."""


class DuplicateNameError(FgadahatError, ValueError):
    """A registry already has that name."""


class BadCallError(FgadahatError, ValueError):
    """An argument is not what was expected."""


class MatchError(FgadahatError, ValueError):
    """Names in the spec do not fit the model."""


class NoMatchError(MatchError):
    """A pattern matches no module."""


class UnsupportedLayerError(MatchError):
    """A matched module cannot be gated."""


class UnreachedLayerError(MatchError):
    """A matched layer is not used by the forward."""


class HeadNotFoundError(MatchError):
    """The layer that gives the model's output cannot be found."""


class TraceError(FgadahatError, RuntimeError):
    """The example forward failed; the model is unchanged."""


class AttachError(FgadahatError, RuntimeError):
    """The model cannot be attached, or no longer is."""


class AlreadyAttachedError(AttachError):
    """The model already has gates."""


class DetachedError(AttachError):
    """The session has been detached."""


class ModelChangedError(AttachError):
    """Parameters, buffers or heads joined the model, left it or were replaced after it was attached."""


class TaskError(FgadahatError, RuntimeError):
    """A task call came at the wrong time or with the wrong id."""


class TaskRunningError(TaskError):
    """A task is open and must end first."""


class NoTaskError(TaskError):
    """The call needs a task and none is open."""


class DuplicateTaskError(TaskError):
    """A task with that id is already finished."""


class UnknownTaskError(TaskError, LookupError):
    """No task with that id is finished."""


class NotAnnealedError(TaskError):
    """The gate scale was never set in this task."""


class OptimizerError(FgadahatError, RuntimeError):
    """An optimizer would change what it must not."""


class UnprotectedOptimizerError(OptimizerError):
    """An optimizer steps without `task.protect`."""


class ForeignOptimizerError(OptimizerError):
    """An optimizer does not hold the parameters it should."""


class RanksDifferError(FgadahatError, RuntimeError):
    """Processes that train one model hold different values."""


class NonFiniteError(FgadahatError, ArithmeticError):
    """NaN or infinity would be stored."""


class CapabilityError(FgadahatError, ValueError):
    """A measure cannot be computed on this model."""


class StateMismatchError(FgadahatError, ValueError):
    """A saved state does not fit this model."""


class CheckpointError(FgadahatError, RuntimeError):
    """A saved session cannot be written or read."""


class DamagedCheckpointError(CheckpointError):
    """Files of a saved session are missing, truncated or changed; another copy is needed."""


class NewerFormatError(CheckpointError):
    """A newer release wrote the saved session."""


class ExportError(FgadahatError, RuntimeError):
    """A task cannot be exported as it is."""


class WeightsChangedError(FgadahatError, RuntimeError):
    """What finished tasks read was changed, and putting it back cannot be right or cannot be done."""


class LeakError(FgadahatError, RuntimeError):
    """The logits of a finished task changed."""


class AuditError(FgadahatError, RuntimeError):
    """A finished task has not the bits that were certified."""


class MissingDependencyError(FgadahatError, ImportError):
    """An optional package is not installed."""
