"""The last training forwards of a task, which are run again when it ends."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.target import labels_of, logits_of
from fgadahat_hooks.tasks.call_arguments import map_tensors
from fgadahat_hooks.tasks.recorded_forward import RecordedForward

MAX_BYTES = 64 * 2**20
MOST_FORWARDS = 64
FEWEST_SAMPLES = 64
"""Small batches are kept until they hold as many samples with a label."""


class RecentForwards:
    """Keeps the last training forwards of a task, as many as the limits allow, one at least.

    Attributes:
        forwards: The forwards, the latest last.
        compiled: Arguments of the latest forward of a compiled model, until `collect`.
        missing: Why the forwards of an interrupted task are not there; empty if they are, or if there were none.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.forwards: deque[RecordedForward] = deque(maxlen=MOST_FORWARDS)
        self._most = MOST_FORWARDS
        self.compiled: Any = None
        self.missing = ""
        self._attached: AttachedModel | None = None
        self._copy = False
        self._data: Callable[[], Any] = lambda: None
        self._modules: list[tuple[str, nn.Module]] = []

    def watch(self, attached: AttachedModel, hooks: HookSet, most: int, copy: bool, data: Callable[[], Any]) -> None:
        """Keep each training forward of the running task, until the hooks are closed.

        Args:
            attached: The model.
            hooks: Hooks of the task.
            most: Number of forwards to keep; more of them while they hold few samples with labels.
            copy: Whether to copy the arguments. Without copies, forwards whose arguments were overwritten since do not
                count.
            data: Returns the loader's current batch.
        """
        self._most = most
        self._attached, self._copy, self._data = attached, copy, data
        self._modules = list(attached.model.named_modules())
        hooks.forward_pre(attached.model, _KeepInputs(self, attached), kwargs=True)
        hooks.forward(attached.model, _KeepOutput(self, attached), kwargs=True)

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of a forward, and drop the oldest forwards beyond the limits."""
        taken = (lambda t: t.detach().clone()) if self._copy else Tensor.detach  # never with its graph
        args, kwargs = map_tensors(taken, (args, kwargs))
        evaluating = tuple(name for name, module in self._modules if not module.training)
        self.forwards.append(RecordedForward(args, kwargs, _autocast(self._device), evaluating))
        total = sum(forward.bytes for forward in self.forwards)
        while len(self.forwards) > 1 and (total > MAX_BYTES or len(self.forwards) > _needed(self.forwards, self._most)):
            total -= self.forwards.popleft().bytes

    @property
    def _device(self) -> str:
        embeddings = [] if self._attached is None else [g.embedding for g in self._attached.gates.values()]
        return embeddings[0].device.type if embeddings else "cpu"

    def keep_output(self, output: Any) -> None:
        """Keep the labels of the forward whose arguments were kept last, and the class logits in its output."""
        if not self.forwards:
            return
        last = self.forwards[-1]
        last.labels = _class_numbers(self._data())  # not before the forward: a trainer's own hook may tell the batch
        if last.labels is not None:
            with suppress(FgadahatError):
                last.keep_output(logits_of(output))

    def collect(self) -> bool:
        """Keep the latest forward of a compiled model, whose code cannot copy it by itself; return whether one ran."""
        if self.compiled is None:
            return False
        (args, kwargs), self.compiled = self.compiled, None
        self.keep(args, kwargs)
        self.forwards[-1].labels = _class_numbers(self._data())
        return True

    def clear(self) -> None:
        """Drop all."""
        self.forwards.clear()
        self.compiled = None

    def last(self, most: int) -> list[RecordedForward]:
        """Return the last `most` forwards whose arguments are unchanged, or more if they hold few samples."""
        unchanged = [forward for forward in self.forwards if forward.unchanged]
        return unchanged[len(unchanged) - _needed(unchanged, most) :]

    @property
    def reason_for_none(self) -> str:
        """Why there are no forwards, where there are none."""
        return self.missing or (
            "no training forward of the attached model was seen; call the model itself, not its parts, and outside of "
            "torch.func's transforms"
        )

    # ---------------------------------------------------------------- running them again
    def set_modes(self, forward: RecordedForward) -> None:
        """Set all modules to the modes in which a forward found them."""
        for name, module in self._modules:
            module.training = name not in forward.evaluating

    def run(self, model: nn.Module, forward: RecordedForward) -> Any:
        """Run a forward again; return the output."""
        return forward.run(model, self._device)

    # ---------------------------------------------------------------- in a saved state
    def dump(self) -> tuple[list[dict[str, Any]], str]:
        """Return the forwards as plain data, and why there are none of those that were kept; empty if there are."""
        out, missing = [], self.missing
        for forward in self.forwards:
            try:
                out.append(forward.dump())
            except ValueError as error:
                missing = f"the saved state could not hold its last batches, because of a {error} among their inputs"
        return out, "" if out else missing

    def load(self, forwards: list[dict[str, Any]] | None, missing: str) -> None:
        """Continue with the forwards of an interrupted task."""
        self.missing = missing
        for saved in forwards or ():
            try:
                self.forwards.append(RecordedForward.load(saved))
            except ValueError as error:
                self.missing = f"its last batches before the restart need {error}, which is not imported here"


def _needed(forwards: Sequence[RecordedForward], most: int) -> int:
    """Return how many of the last forwards are needed: `most`, or more if those hold few samples with a label."""
    samples = 0
    for count, forward in enumerate(reversed(forwards), start=1):
        samples += forward.samples
        if count >= most and (samples == 0 or samples >= FEWEST_SAMPLES):
            return count
    return len(forwards)


def _autocast(device: str) -> str | None:
    if not torch.is_autocast_enabled(device):
        return None
    return str(torch.get_autocast_dtype(device)).removeprefix("torch.")


def _class_numbers(data: Any) -> Tensor | None:
    """Return the class numbers in a loader's batch, `(batch,)`; None if there are none."""
    try:
        labels = labels_of(data)
    except FgadahatError:
        return None
    return labels.detach() if labels.dim() == 1 and not labels.is_floating_point() else None


class _KeepInputs:
    """Forward pre-hook of the model; in a copy of the model it does nothing."""

    def __init__(self, recent: RecentForwards, attached: AttachedModel) -> None:
        self._recent = weakref.ref(recent)
        self._context = attached.gate_context

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recent = self._recent()
        if recent is None or not self._is_training(model):
            return
        if torch.compiler.is_compiling():
            recent.compiled = (args, kwargs)
        elif not _is_transformed():
            recent.keep(args, kwargs)

    def _is_training(self, model: nn.Module) -> bool:
        return model.training and torch.is_grad_enabled() and self._context.mode is GateMode.TASK

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_no_hook, ())


class _KeepOutput(_KeepInputs):
    """Forward hook of the model; in a copy of the model it does nothing."""

    def __call__(self, model: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        recent = self._recent()
        if recent is None or torch.compiler.is_compiling() or not self._is_training(model):
            return
        if not _is_transformed():
            recent.keep_output(output)


def _is_transformed() -> bool:
    """Return whether a transform such as `vmap` runs: its tensors mean nothing after it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _no_hook() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
