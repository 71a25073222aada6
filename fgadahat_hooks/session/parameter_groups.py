"""Parameter groups for the optimizer of a task: the model's own parameters, and the task embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.attached_model import AttachedModel

_GATE_LR_FACTOR = 10


def make_parameter_groups(
    attached: AttachedModel,
    frozen: Iterable[str],
    lr: float,
    gate_lr: float | None,
    weight_decay: float,
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return two groups: trainable parameters of the model, and task embeddings.

    Args:
        attached: The attached model.
        frozen: Names of parameters to leave out.
        lr: Learning rate of the model's own parameters.
        gate_lr: Learning rate of the task embeddings; ten times `lr` if None.
        weight_decay: For the model's own parameters; the embeddings get none.
        options: Further options of both groups.

    Raises:
        BadCallError: A learning rate is not a number above 0.
    """
    gate_lr = _GATE_LR_FACTOR * lr if gate_lr is None else gate_lr
    for name, value in (("lr", lr), ("gate_lr", gate_lr)):
        _check_learning_rate(name, value)
    embeddings = [gate.embedding for gate in attached.gates.values()]
    excluded = {id(e) for e in embeddings} | {id(attached.tensors.tensor(name)) for name in frozen}
    own = [p for p in attached.model.parameters() if p.requires_grad and id(p) not in excluded]
    return [
        {"params": own, "lr": lr, "weight_decay": weight_decay, **options},
        {"params": embeddings, "lr": gate_lr, "weight_decay": 0.0, **options},
    ]


def _check_learning_rate(name: str, value: Any) -> None:
    if not isinstance(value, int | float | Tensor) or isinstance(value, bool) or not value > 0:
        raise BadCallError(f"Expected `{name}` to be a number > 0, but got {value!r}.")
