"""A new head for a new task."""

from __future__ import annotations

from torch import Tensor, nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.task_tensors import TaskTensors


def check_num_classes(num_classes: object, heads: tuple[str, ...], model: nn.Module) -> None:
    """Refuse a number of classes that cannot be given to the model.

    Raises:
        BadCallError: It is no positive int, or the model has not exactly one Linear or Conv2d as head.
    """
    if num_classes is None:
        return
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise BadCallError(f"Expected `num_classes` to be a whole number of at least 1, but got {num_classes!r}.")
    modules = [model.get_submodule(name) for name in heads]
    if len(modules) != 1 or not isinstance(modules[0], nn.Linear | nn.Conv2d):
        found = ", ".join(f"'{n}' ({type(m).__name__})" for n, m in zip(heads, modules, strict=True)) or "none"
        raise BadCallError(
            f"Expected a model with one Linear or Conv2d head for num_classes={num_classes}, but its heads are: "
            f"{found}. Leave num_classes out, or name one layer in heads.names."
        )


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
            reset = getattr(module, "reset_parameters", None)
            own = {f"{path}.{n}": p for n, p in module._parameters.items() if p is not None}
            if callable(reset) and own and not any(id(p) in shared for p in own.values()):
                _resize(tensors, own, num_classes)
                reset()
                fresh += [tensors.tensor(name) for name in own]
    return fresh


def _resize(tensors: TaskTensors, own: dict[str, nn.Parameter], num_classes: int | None) -> None:
    for name, parameter in own.items():
        rows = parameter.shape[0] if num_classes is None else num_classes
        tensors.set(name, parameter.new_empty((rows, *parameter.shape[1:])))
