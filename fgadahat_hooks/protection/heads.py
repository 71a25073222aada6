"""The heads' parameters: how many outputs they have, and how a new task gets fresh ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.layers import LayerType, layer_type_of


# ------------------------------------------------------------------ the number of outputs
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

    Auxiliary heads, which only training uses, are resized with it: they must have as many.
    """
    modules = {name: model.get_submodule(name) for name in heads}
    counts = {name: None if (kind := _resizable_type(m)) is None else kind.units(m) for name, m in modules.items()}
    own = [name for name in heads if name not in auxiliary]
    return counts[own[0]] if len(own) == 1 and len(set(counts.values())) == 1 else None


def outputs_axis(model: nn.Module, name: str) -> int:
    """Return the axis of a head's parameter that counts its outputs."""
    path, _, local = name.rpartition(".")
    kind = _resizable_type(model.get_submodule(path))
    return 0 if kind is None or local != "weight" else kind.weight_axis


def differ_in_outputs(model: nn.Module, name: str, a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes of a head's parameter are the same but for the number of outputs."""
    axis = outputs_axis(model, name)
    return len(a) == len(b) and all(m == n for d, (m, n) in enumerate(zip(a, b, strict=True)) if d != axis)


def _resizable_type(module: nn.Module) -> LayerType | None:
    """Return the type of a layer whose number of outputs can be changed."""
    kind = layer_type_of(module)
    if kind is None or kind.reset_function(module) is None or getattr(module, "groups", 1) > 1:
        return None
    return kind


# ------------------------------------------------------------------ new parameters
def renew(tensors: TaskTensors, heads: tuple[str, ...], num_classes: int | None, shared: set[int]) -> list[Tensor]:
    """Draw fresh head parameters, with another number of outputs if asked; return them.

    Args:
        tensors: Access to the model's tensors.
        heads: Names of the head modules; everything inside them is renewed.
        num_classes: New number of outputs; None keeps it.
        shared: Identities of parameters used outside the heads too (tied weights): left alone.
    """
    fresh: list[Tensor] = []
    for path, module in _modules_inside(tensors.model, heads):
        draw = _initialiser_of(module)
        own = {f"{path}.{n}": p for n, p in module._parameters.items() if p is not None}
        if callable(draw) and own and shared.isdisjoint(map(id, own.values())):
            for name in own:
                resize(tensors, name, num_classes)
            draw()
            fresh += [tensors.tensor(name) for name in own]
    return fresh


def _modules_inside(model: nn.Module, heads: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    for head in heads:
        yield from model.get_submodule(head).named_modules(prefix=head)


def _initialiser_of(module: nn.Module) -> Any:
    """Return the function that draws a module's parameters anew, if there is one."""
    kind = layer_type_of(module)
    return getattr(module, "reset_parameters", None) if kind is None else kind.reset_function(module)


def resize(tensors: TaskTensors, name: str, num_classes: int | None) -> None:
    """Give a head's parameter another number of outputs, or fresh memory for the same; its values are not set."""
    live = tensors.tensor(name).detach()
    shape = list(live.shape)
    if num_classes is not None:
        shape[outputs_axis(tensors.model, name)] = num_classes
    tensors.set(name, live.new_empty(shape))


def tied_parameters(model: nn.Module, heads: tuple[str, ...]) -> set[int]:
    """Return the identities of the heads' parameters that other modules use too."""
    inside = {id(m) for head in heads for m in model.get_submodule(head).modules()}
    outside = {id(p) for m in model.modules() if id(m) not in inside for p in m._parameters.values() if p is not None}
    return outside & {id(p) for head in heads for p in model.get_submodule(head).parameters()}
