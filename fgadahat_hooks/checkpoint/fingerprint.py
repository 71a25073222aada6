"""What tells one model from another: the names, shapes and dtypes of its tensors, and which are tied."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.checkpoint.manifest import ModelEntry, TensorEntry
from fgadahat_hooks.errors import StateMismatchError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.graph.unit_graph import GATE
from fgadahat_hooks.protection.heads import differ_in_outputs

_SHOWN = 10


def fingerprint(attached: AttachedModel) -> ModelEntry:
    """Describe an attached model, without its gates."""
    model = attached.model
    tensors = [
        TensorEntry(name=name, shape=list(value.shape), dtype=_dtype(value)) for name, value in _tensors(model).items()
    ]
    resizable = list(attached.graph.heads) if attached.num_classes is not None else []
    return ModelEntry(class_name=describe(model), tensors=tensors, tied=_tied(model), resizable=resizable)


def describe(model: nn.Module) -> str:
    """Return a model's class with its module."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def refuse_another(model: nn.Module, saved: ModelEntry) -> None:
    """Compare a model, not attached yet, with the one that was saved.

    Raises:
        StateMismatchError: They differ; names all differences.
    """
    wrong = list(_differences(model, saved))
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise StateMismatchError(
            f"Expected the model that was saved ({saved.class_name}), but the one given differs. Nothing was changed. "
            "Build it as it was when it was saved.\n  " + "\n  ".join(wrong[:_SHOWN]) + more
        )


def _differences(model: nn.Module, saved: ModelEntry) -> Iterator[str]:
    mine, theirs = _tensors(model), {tensor.name: tensor for tensor in saved.tensors}
    for name in [*theirs, *(name for name in mine if name not in theirs)]:
        if name not in mine:
            yield f"tensor '{name}' {tuple(theirs[name].shape)} is not in the model"
        elif name not in theirs:
            yield f"tensor '{name}' is not in the save"
        elif is_lazy(mine[name]) or mine[name].is_meta:
            yield f"tensor '{name}' of the model has no values yet"
        else:
            head = name.rpartition(".")[0] in saved.resizable
            resized = head and differ_in_outputs(model, name, mine[name].shape, theirs[name].shape)
            yield from _tensor(mine[name], theirs[name], resized)
    if set(mine) == set(theirs) and _tied(model) != saved.tied:
        yield f"tied in the model: {_tied(model) or 'nothing'}; in the save: {saved.tied or 'nothing'}"


def _tensor(mine: Tensor, saved: TensorEntry, resized: bool) -> Iterator[str]:
    shape = list(mine.shape)
    if shape != saved.shape and not resized:
        yield f"tensor '{saved.name}' has shape {tuple(shape)}, the save has {tuple(saved.shape)}"
    if _dtype(mine) != saved.dtype:
        yield f"tensor '{saved.name}' is {_dtype(mine)}, the save has {saved.dtype}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what the model's own state_dict holds."""
    found = model.state_dict(keep_vars=True)
    return {n: v for n, v in found.items() if isinstance(v, Tensor) and n.split(".")[-2:-1] != [GATE]}


def _tied(model: nn.Module) -> list[list[str]]:
    """Return the names that stand for one parameter, group by group."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)
