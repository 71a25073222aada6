"""The last training forwards of a task, which are run again when it ends."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.target import labels_of, logits_of

MAX_BYTES = 64 * 2**20


@dataclass(eq=False)
class RecordedForward:
    """One training forward.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        autocast: Name of the autocast dtype on the model's device, None without autocast.
        evaluating: Names of the modules that were in evaluation mode.
        labels: The labels of the loader's batch, None if it holds none.
        logits: The class logits that the model gave, None if it gave none.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    autocast: str | None = None
    evaluating: tuple[str, ...] = ()
    labels: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        """Note the tensors' versions, and their bytes."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        self._tensors = [t for t in leaves if isinstance(t, Tensor)]
        self._versions = [version_of(t) for t in self._tensors]
        self.bytes = sum(t.numel() * t.element_size() for t in self._tensors)

    @property
    def is_plain(self) -> bool:
        """Whether the arguments can be saved: dense tensors outside of transforms such as `vmap`."""
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return all(t.layout is torch.strided and not wrapped(t) for t in self._tensors)

    @property
    def unchanged(self) -> bool:
        """Whether nothing was written into the arguments since."""
        return self._versions == [version_of(t) for t in self._tensors]

    def run(self, model: nn.Module, device: str) -> Any:
        """Run the forward again, under its autocast; return the output."""
        dtype = None if self.autocast is None else getattr(torch, self.autocast)
        with nullcontext() if dtype is None else torch.autocast(device, dtype):
            return model(*self.args, **self.kwargs)


class RecentForwards:
    """Keeps the last training forwards of a task, as many as the limits allow, one at least.

    Attributes:
        forwards: The forwards, the latest last.
        compiled: Arguments of the latest forward of a compiled model, until `collect`.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.forwards: deque[RecordedForward] = deque()
        self.compiled: Any = None
        self._attached: AttachedModel | None = None
        self._copy = False
        self._data: Callable[[], Any] = lambda: None
        self._modules: list[tuple[str, nn.Module]] = []

    def watch(self, attached: AttachedModel, hooks: HookSet, most: int, copy: bool, data: Callable[[], Any]) -> None:
        """Keep each training forward of the running task, until the hooks are closed.

        Args:
            attached: The model.
            hooks: Hooks of the task.
            most: Number of forwards to keep.
            copy: Whether to copy the arguments. Without copies, forwards whose arguments were overwritten since do not
                count.
            data: Returns the loader's current batch.
        """
        self.forwards = deque(self.forwards, maxlen=most)
        self._attached, self._copy, self._data = attached, copy, data
        self._modules = list(attached.model.named_modules())
        hooks.forward_pre(attached.model, _KeepInputs(self, attached), kwargs=True)
        hooks.forward(attached.model, _KeepOutput(self, attached), kwargs=True)

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of a forward, and drop the oldest forwards beyond the limits."""
        taken = (lambda t: t.detach().clone()) if self._copy else Tensor.detach  # never with its graph
        args, kwargs = pytree.tree_map_only(Tensor, taken, (args, kwargs))
        evaluating = tuple(name for name, module in self._modules if not module.training)
        self.forwards.append(RecordedForward(args, kwargs, _autocast(self._device), evaluating))
        total = sum(forward.bytes for forward in self.forwards)
        while len(self.forwards) > 1 and total > MAX_BYTES:
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
                last.logits = logits_of(output).detach()

    def collect(self) -> bool:
        """Keep the latest forward of a compiled model: compiled code cannot copy it by itself; return whether one ran."""
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

    # ---------------------------------------------------------------- running them again
    def set_modes(self, forward: RecordedForward) -> None:
        """Set all modules to the modes in which a forward found them."""
        for name, module in self._modules:
            module.training = name not in forward.evaluating

    def run(self, model: nn.Module, forward: RecordedForward) -> Any:
        """Run a forward again; return the output."""
        return forward.run(model, self._device)

    # ---------------------------------------------------------------- in a saved state
    def dump(self) -> list[dict[str, Any]]:
        """Return the arguments as lists and dicts, with what differs from a plain forward."""
        return [_dump(forward) for forward in self.forwards if forward.is_plain]

    def load(self, forwards: list[dict[str, Any]] | None) -> None:
        """Continue with the forwards of an interrupted task."""
        for saved in forwards or ():
            values = {**saved, "args": tuple(saved["args"]), "evaluating": tuple(saved.get("evaluating", ()))}
            self.forwards.append(RecordedForward(**values))


def _dump(forward: RecordedForward) -> dict[str, Any]:
    saved = {"args": list(forward.args), "kwargs": dict(forward.kwargs)}
    optional = {name: getattr(forward, name) for name in ("autocast", "labels", "logits")}
    optional["evaluating"] = list(forward.evaluating) or None
    return {**saved, **{name: value for name, value in optional.items() if value is not None}}


def version_of(tensor: Tensor) -> int:
    """Return how often something was written into a tensor; 0 for tensors of inference mode, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version


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
        if recent is None or not (model.training and torch.is_grad_enabled()):
            return
        if self._context.mode is not GateMode.TASK:
            return
        if torch.compiler.is_compiling():
            recent.compiled = (args, kwargs)
        else:
            recent.keep(args, kwargs)

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_no_hook, ())


class _KeepOutput(_KeepInputs):
    """Forward hook of the model; in a copy of the model it does nothing."""

    def __call__(self, model: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        recent = self._recent()
        if recent is None or torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
            return
        if self._context.mode is GateMode.TASK:
            recent.keep_output(output)


def _no_hook() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
