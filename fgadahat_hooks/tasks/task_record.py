"""What a task leaves when it ends: its binary masks and its own tensors."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.distributed.ranks import broadcast_from_first, check_equal
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import NumClasses, TaskId, TaskRecord, TaskState
from fgadahat_hooks.protection.finite_check import not_finite
from fgadahat_hooks.protection.plain_attributes import warn_of_unkept_state

_REMEDY = (
    "Nothing was stored. Train through DistributedDataParallel, built inside the task, and let every rank make the "
    "same steps."
)


def make_record(attached: AttachedModel, state: TaskState, task: TaskId, num_classes: NumClasses | None) -> TaskRecord:
    """Return the record of a task that ends now; its importance is left to the callbacks.

    Args:
        attached: The model, trained on the task.
        state: The tasks that are finished; a tensor equal to the newest one's is shared with it.
        task: Id of the task.
        num_classes: Number of outputs of its head, if it asked for one.

    Raises:
        DetachedError: A layer that carries a gate was replaced.
        NonFiniteError: An embedding, a tensor of the task, or a weight that it trained holds NaN or infinity.
        RanksDifferError: The processes that train the model hold different parameters.
    """
    attached.check_attached()
    # Running statistics are each rank's own: DDP shares them only before a forward.
    broadcast_from_first(attached.model.buffers())
    check_equal(dict(attached.model.named_parameters()), "parameters at the end of a task", _REMEDY)
    newest = list(state.records.values())[-1:]
    tensors = attached.tensors.copy(newest[0].tensors if newest else None)
    _refuse_non_finite(attached, task, tensors)
    warn_of_unkept_state(attached)
    masks = {name: (gate.embedding.detach() > 0).cpu() for name, gate in attached.gates.items()}
    return TaskRecord(masks, tensors, {}, num_classes)


def _refuse_non_finite(attached: AttachedModel, task: TaskId, tensors: dict[str, Tensor]) -> None:
    bad = not_finite(_trained_tensors(attached, tensors))
    if bad:
        raise NonFiniteError(
            f"Task {task!r} cannot be stored: {len(bad)} tensor(s) of it hold NaN or infinity, first '{bad[0]}'. "
            "Nothing was stored; earlier tasks are as they were. Lower the learning rate or clip gradients."
        )


def _trained_tensors(attached: AttachedModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the embeddings, and what training writes of the model's own tensors and of a task's.

    A buffer outside norms may hold infinities of its own, as attention masks do.
    """
    trained: dict[str, Tensor] = {f"{name}.embedding": gate.embedding for name, gate in attached.gates.items()}
    policies = {policy.name: policy for policy in attached.policies}
    for name, tensor in tensors.items():
        if policies[name].kind == "parameter" or policies[name].role == "norm":
            trained[name] = tensor
    own = {name: p for name, p in attached.model.named_parameters() if p.requires_grad and name not in tensors}
    return trained | own
