"""How many outputs each head has, how many a task asks for, and tensors of that many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import NumClasses
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.layers import LayerType, layer_type_of


# ------------------------------------------------------------------ what the model has
def count_outputs(model: nn.Module, heads: Sequence[str]) -> dict[str, int]:
    """Return the number of outputs of each head that can be given another."""
    kinds = {name: resizable_type(model.get_submodule(name)) for name in heads}
    return {name: kind.units(model.get_submodule(name)) for name, kind in kinds.items() if kind is not None}


def resizable_type(module: nn.Module) -> LayerType | None:
    """Return the type of a layer whose number of outputs can be changed."""
    kind = layer_type_of(module)
    if kind is None or kind.reset_function(module) is None or getattr(module, "groups", 1) > 1:
        return None
    return kind


def outputs_axis(model: nn.Module, name: str) -> int | None:
    """Return the axis of a head's parameter that counts its outputs; None if it has none."""
    path, _, local = name.rpartition(".")
    kind = resizable_type(model.get_submodule(path))
    if kind is None or local not in ("weight", "bias"):
        return None
    return kind.weight_axis if local == "weight" else 0


def differ_in_outputs(model: nn.Module, name: str, a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes of a head's parameter are the same but for the number of outputs."""
    axis = outputs_axis(model, name)
    if axis is None or len(a) != len(b):
        return False
    return all(m == n for d, (m, n) in enumerate(zip(a, b, strict=True)) if d != axis)


# ------------------------------------------------------------------ what a task asks for
def requested_outputs(num_classes: NumClasses | None, attached: AttachedModel) -> dict[str, int]:
    """Return how many outputs each head that can be resized must have for a task.

    Args:
        num_classes: What the task asks for: a number for all heads that count classes, a number for each head by its
            name or the end of it, or None for the numbers at attach.
        attached: The attached model.

    Raises:
        BadCallError: It is no positive int and no mapping to them, names no head, or does not tell which heads count
            classes.
    """
    counts, graph = attached.outputs, attached.graph
    if num_classes is None:
        return dict(counts)
    if isinstance(num_classes, Mapping):
        return {**counts, **dict(_by_name(num_classes, counts))}
    _check_number(num_classes, "num_classes")
    if not counts or len(counts) < len(graph.heads) + len(graph.head_parameters):
        raise BadCallError(
            f"Expected a model whose heads are linear or convolutional layers, not grouped, for "
            f"num_classes={num_classes}, but its heads are: {_heads_in_words(attached)}. Leave num_classes out, "
            "or name the layers that count classes: num_classes={'name': outputs}."
        )
    return {**counts, **_all_that_count(num_classes, attached)}


def _check_number(value: object, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadCallError(f"Expected `{what}` to be a whole number of at least 1, but got {value!r}.")


def _by_name(num_classes: Mapping[str, int], counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Resolve names, or the ends of names, to heads."""
    for key, number in num_classes.items():
        _check_number(number, f"num_classes[{key!r}]")
        found = [name for name in counts if name == key or name.endswith(f".{key}")]
        if len(found) != 1:
            known = ", ".join(f"'{name}'" for name in counts) or "none"
            raise BadCallError(
                f"num_classes: expected '{key}' to be the name of one head that can be resized, or the end of it, but "
                f"{len(found)} heads match. The heads that can be resized are: {known}."
            )
        yield found[0], number


def _all_that_count(number: int, attached: AttachedModel) -> dict[str, int]:
    """Return the outputs of the heads that count classes, if they have `number` classes.

    Those are the heads whose parent says how many classes there are, possibly several outputs a class (anchors); else
    all heads, if they have equally many outputs.
    """
    counts = attached.outputs
    counting = {n: number * count.outputs_per_class for n, count in attached.tensors.class_counts.items()}
    if counting and len(counts) > 1:
        return counting
    if len(set(counts.values())) == 1:
        return dict.fromkeys(counts, number)
    heads = ", ".join(f"'{name}': {count}" for name, count in counts.items())
    raise BadCallError(
        f"Expected heads of equally many outputs for num_classes={number}, but they have {{{heads}}}, and which of "
        "them count classes cannot be told. Give the number of outputs of those that do: "
        f"num_classes={{'{next(iter(counts))}': {number}}}; the others keep theirs."
    )


def _heads_in_words(attached: AttachedModel) -> str:
    graph, model = attached.graph, attached.model
    modules = [f"'{name}' ({type(model.get_submodule(name)).__name__})" for name in graph.heads]
    return ", ".join([*modules, *(f"parameter '{name}'" for name in graph.head_parameters)]) or "none"


# ------------------------------------------------------------------ tensors of that many
def have_outputs(tensors: TaskTensors, outputs: Mapping[str, int]) -> bool:
    """Return whether the heads in the model have these numbers of outputs."""
    now = count_outputs(tensors.model, list(outputs))
    return now == dict(outputs)


def resize_heads(tensors: TaskTensors, outputs: Mapping[str, int] = MappingProxyType({})) -> None:
    """Give heads other numbers of outputs; their rows are those of before, over again, until values are drawn."""
    for head, count in outputs.items():
        module = tensors.model.get_submodule(head)
        for local in [n for n in ("weight", "bias") if module._parameters.get(n) is not None]:
            resize(tensors, f"{head}.{local}" if head else local, count)


def resize(tensors: TaskTensors, name: str, count: int) -> None:
    """Give a head's parameter another number of outputs; in fresh memory, also if it has as many already."""
    live, axis = tensors.tensor(name).detach(), outputs_axis(tensors.model, name)
    if axis is None or live.shape[axis] == count:
        tensors.set(name, live.clone())
        return
    rows = torch.arange(count, device=live.device) % live.shape[axis]
    tensors.set(name, live.index_select(axis, rows))
