"""A new head for a new task, and a head's number of outputs."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.layers import LayerType, layer_type_of


def check_num_classes(
    num_classes: object, heads: tuple[str, ...], model: nn.Module, auxiliary: tuple[str, ...] = ()
) -> None:
    """Refuse a number of classes that cannot be given to the model.

    Raises:
        BadCallError: It is no positive int, or the model has not exactly one layer of a known type as head.
    """
    if num_classes is None:
        return
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise BadCallError(f"Expected `num_classes` to be a whole number of at least 1, but got {num_classes!r}.")
    if count_outputs(model, heads, auxiliary) is None:
        modules = [model.get_submodule(name) for name in heads]
        found = ", ".join(f"'{n}' ({type(m).__name__})" for n, m in zip(heads, modules, strict=True)) or "none"
        raise BadCallError(
            f"Expected a model with one linear or convolutional head, not grouped, for num_classes={num_classes}, but "
            f"its heads are: {found}. Leave num_classes out, or name one layer in heads.names."
        )


def count_outputs(model: nn.Module, heads: Sequence[str], auxiliary: Sequence[str] = ()) -> int | None:
    """Return the number of outputs of a model's only head; None if there is no such layer, or it cannot be changed.

    Auxiliary heads, which only training uses, follow it: they must have as many.
    """
    modules = {name: model.get_submodule(name) for name in heads}
    counts = {name: None if (kind := _kind(m)) is None else kind.units(m) for name, m in modules.items()}
    own = [name for name in heads if name not in auxiliary]
    return counts[own[0]] if len(own) == 1 and len(set(counts.values())) == 1 else None


def _kind(module: nn.Module) -> LayerType | None:
    """Return the type of a layer whose number of outputs can be changed."""
    kind = layer_type_of(module)
    if kind is None or kind.reset_of(module) is None or getattr(module, "groups", 1) > 1:
        return None
    return kind


def outputs_axis(model: nn.Module, name: str) -> int:
    """Return the axis of a head's parameter that counts its outputs."""
    path, _, local = name.rpartition(".")
    kind = _kind(model.get_submodule(path))
    return 0 if kind is None or local != "weight" else kind.weight_axis


def differ_in_outputs(model: nn.Module, name: str, a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes of a head's parameter are the same but for the number of outputs."""
    axis = outputs_axis(model, name)
    return len(a) == len(b) and all(m == n for d, (m, n) in enumerate(zip(a, b, strict=True)) if d != axis)


def renew(tensors: TaskTensors, heads: tuple[str, ...], num_classes: int | None, shared: set[int]) -> list[Tensor]:
    """Draw fresh head parameters, with another number of outputs if asked; return them.

    Args:
        tensors: Access to the model's tensors.
        heads: Names of the head modules; everything inside them is renewed.
        num_classes: New number of outputs; None keeps it.
        shared: Identities of parameters used outside the heads too (tied weights): left alone.
    """
    fresh: list[Tensor] = []
    for head in heads:
        for path, module in tensors.model.get_submodule(head).named_modules(prefix=head):
            reset = _reset_of(module)
            own = {f"{path}.{n}": p for n, p in module._parameters.items() if p is not None}
            if callable(reset) and own and not any(id(p) in shared for p in own.values()):
                for name in own:
                    resize(tensors, name, num_classes)
                reset()
                fresh += [tensors.tensor(name) for name in own]
    return fresh


def resize(tensors: TaskTensors, name: str, num_classes: int | None) -> None:
    """Give a head's parameter another number of outputs, or fresh memory for the same; its values are not set."""
    live = tensors.tensor(name).detach()
    shape = list(live.shape)
    if num_classes is not None:
        shape[outputs_axis(tensors.model, name)] = num_classes
    tensors.set(name, live.new_empty(shape))


def _reset_of(module: nn.Module) -> Any:
    """Return what draws a module's parameters anew, if anything does."""
    kind = layer_type_of(module)
    return getattr(module, "reset_parameters", None) if kind is None else kind.reset_of(module)


class _SizeOnLoad:
    """Gives a head the number of outputs that a `state_dict` has for it: that of the task it was saved in.

    Copies of the model keep their own size.
    """

    def __init__(self, attached: AttachedModel, head: str) -> None:
        self._attached = weakref.ref(attached)
        self._head = head

    def __call__(self, state: dict[str, Any], prefix: str, *_: Any) -> None:
        attached = self._attached()
        if attached is None:
            return
        for local, parameter in attached.model.get_submodule(self._head)._parameters.items():
            if parameter is None:  # a head without bias
                continue
            name = f"{self._head}.{local}" if self._head else local
            loaded, live = state.get(f"{prefix}{local}"), attached.tensors.tensor(name)
            if not isinstance(loaded, Tensor) or loaded.shape == live.shape:
                continue
            if differ_in_outputs(attached.model, name, live.shape, loaded.shape):
                resize(attached.tensors, name, loaded.shape[outputs_axis(attached.model, name)])

    def __deepcopy__(self, memo: Any) -> Any:
        return _keep_size

    def __reduce__(self) -> Any:
        return (_no_size, ())


def _no_size() -> Any:
    return _keep_size


def _keep_size(*_: Any) -> None:
    return None


def size_on_load(attached: AttachedModel) -> None:
    """Let a model's only head follow the `state_dict` that is loaded; heads that `num_classes` cannot resize do not."""
    if attached.num_classes is not None:
        for head in attached.graph.heads:
            attached.hooks.load_pre(attached.model.get_submodule(head), _SizeOnLoad(attached, head))


def tied_parameters(model: nn.Module, heads: tuple[str, ...]) -> set[int]:
    """Return the identities of the heads' parameters that other modules use too."""
    inside = {id(m) for head in heads for m in model.get_submodule(head).modules()}
    outside = {id(p) for m in model.modules() if id(m) not in inside for p in m._parameters.values() if p is not None}
    return outside & {id(p) for head in heads for p in model.get_submodule(head).parameters()}
