"""What distinguishes two models: the names, shapes and dtypes of their tensors, and which parameters are tied."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.checkpoint.manifest import ModelEntry, TensorEntry
from fgadahat_hooks.checkpoint.problems import listed
from fgadahat_hooks.errors import StateMismatchError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.graph.unit_graph import GATE
from fgadahat_hooks.protection.head_outputs import differ_in_outputs


def fingerprint(attached: AttachedModel) -> ModelEntry:
    """Describe an attached model, without its gates."""
    model = attached.model
    tensors = [
        TensorEntry(name=name, shape=list(value.shape), dtype=_dtype(value)) for name, value in _tensors(model).items()
    ]
    resizable = list(attached.outputs)
    return ModelEntry(class_name=class_name(model), tensors=tensors, tied=_tied(model), resizable=resizable)


def class_name(model: nn.Module) -> str:
    """Return the name of a model's class, with its module."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def refuse_other_model(model: nn.Module, saved: ModelEntry) -> None:
    """Compare a model that is not attached yet with the one that was saved.

    Raises:
        StateMismatchError: They differ; names all differences.
    """
    problems = list(_differences(model, saved))
    if problems:
        raise StateMismatchError(
            f"Expected the model that was saved ({saved.class_name}), but the one given differs. Nothing was changed. "
            "Build it as it was when it was saved." + listed(problems)
        )


def _differences(model: nn.Module, saved: ModelEntry) -> Iterator[str]:
    mine, theirs = _tensors(model), {tensor.name: tensor for tensor in saved.tensors}
    for name in dict.fromkeys([*theirs, *mine]):
        if name not in mine:
            yield f"tensor '{name}' {tuple(theirs[name].shape)} is not in the model"
        elif name not in theirs:
            yield f"tensor '{name}' is not in the save"
        else:
            resizable = name.rpartition(".")[0] in saved.resizable
            yield from _tensor_differences(model, mine[name], theirs[name], resizable)
    if mine.keys() == theirs.keys() and _tied(model) != saved.tied:
        yield f"tied in the model: {_tied(model) or 'nothing'}; in the save: {saved.tied or 'nothing'}"


def _tensor_differences(model: nn.Module, mine: Tensor, saved: TensorEntry, resizable: bool) -> Iterator[str]:
    """Compare a tensor with the saved one; that of a resizable head may have another number of outputs."""
    name = saved.name
    if is_lazy(mine) or mine.is_meta:
        yield f"tensor '{name}' of the model has no values yet"
        return
    shape = list(mine.shape)
    resized = resizable and differ_in_outputs(model, name, mine.shape, saved.shape)
    if shape != saved.shape and not resized:
        yield f"tensor '{name}' has shape {tuple(shape)}, the save has {tuple(saved.shape)}"
    if _dtype(mine) != saved.dtype:
        yield f"tensor '{name}' is {_dtype(mine)}, the save has {saved.dtype}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the model's `state_dict`, without those of gates."""
    found = model.state_dict(keep_vars=True)
    return {n: v for n, v in found.items() if isinstance(v, Tensor) and n.split(".")[-2:-1] != [GATE]}


def _tied(model: nn.Module) -> list[list[str]]:
    """Return the groups of names that are one and the same parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)
