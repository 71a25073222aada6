"""What a task puts into the model when it begins, what it stores at its end, and the way back if it fails."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.distributed.ranks import check_equal, share_first
from fgadahat_hooks.distributed.wrappers import refuse_sharded, sharded
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.functional.mask import initial_embedding
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.task_state import InterruptedTask, TaskId, TaskRecord, TaskState
from fgadahat_hooks.protection import heads

_WRAP = (
    "Nothing was stored. Train through DistributedDataParallel, built inside the task, and let every rank make the "
    "same steps."
)


class TaskEntry:
    """The embeddings and per-task tensors of one task."""

    def __init__(self, attached: AttachedModel, state: TaskState, num_classes: int | None) -> None:
        """Change nothing yet.

        Args:
            attached: The model.
            state: The tasks that are finished.
            num_classes: Number of outputs of the task's head, if it asks for one.
        """
        self._attached = attached
        self._state = state
        self._num_classes = num_classes
        self._before: dict[str, Tensor] = {}
        self._embeddings: dict[str, Tensor] = {}
        self._resized = False

    def remember(self, resume: InterruptedTask | None = None) -> None:
        """Keep what `roll_back` will need; a task that is resumed has it from its beginning."""
        if resume is not None:
            self._before, self._embeddings = resume.tensors, resume.embeddings
            return
        if not self._resized:
            self.remember_tensors()
        self._embeddings = {n: g.embedding.detach().clone() for n, g in self._attached.gates.items()}

    def before(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the per-task tensors, and the embeddings by layer, as they were before the task."""
        return self._before, self._embeddings

    def remember_tensors(self) -> None:
        """Keep the per-task tensors; which ones there are is known after the trace."""
        self._before = self._attached.tensors.copy()

    def forget(self) -> None:
        """Let go of what was kept."""
        self._before, self._embeddings = {}, {}

    def resize_heads(self) -> None:
        """Give the heads the task's number of outputs ahead of `enter`, which draws their values."""
        wanted = self._wanted()
        if self._resized or wanted is None or self._fits(wanted):
            return
        self.remember_tensors()
        self._resized = True
        for name in self._head_names():
            heads.resize(self._attached.tensors, name, wanted)

    def shrink_back(self) -> None:
        """Take `resize_heads` back."""
        if self._resized:
            self._attached.tensors.enter(self._before, copy=True)
        self._resized = False
        self.forget()

    # ---------------------------------------------------------------- begin
    def enter(self) -> list[Tensor]:
        """Set embeddings, norms and heads for a new task; return the parameters that start anew."""
        attached = self._attached
        refuse_sharded(attached.model.named_parameters())
        first = self._state.finished == 0
        fresh: list[Tensor] = [gate.embedding for gate in attached.gates.values()]
        for name, gate in attached.gates.items():
            self._draw(gate, None if first else self._embeddings[name])
        if not first:
            attached.tensors.enter(attached.initial, copy=True)
            fresh += [attached.tensors.tensor(name) for name in attached.initial]
        fresh += self._renew_heads(first)
        for tensor in fresh:
            tensor.grad = None  # left from the task before; an optimizer that steps first would use it
        share_first(fresh)  # each rank has drawn its own
        return fresh

    def _draw(self, gate: Gate, last: Tensor | None) -> None:
        spec, e = self._attached.spec.gates, gate.embedding
        with torch.no_grad():
            drawn = initial_embedding(e.numel(), spec.init, last, dtype=e.dtype, device=e.device)
            e.copy_(drawn.clamp(-spec.embedding_clamp, spec.embedding_clamp))

    def _renew_heads(self, first: bool) -> list[Tensor]:
        """Give the task a new head, unless it is the first and its head fits, or all tasks share one."""
        attached, wanted = self._attached, self._wanted()
        if attached.spec.heads.mode == "shared" and not first and self._num_classes is None:
            return []
        if first and not self._resized and self._fits(wanted):
            return []
        self._resized = False
        return heads.renew(attached.tensors, attached.graph.heads, wanted, attached.tied)

    def _head_names(self) -> list[str]:
        return [p.name for p in self._attached.policies if p.role == "head" and p.kind == "parameter"]

    def _wanted(self) -> int | None:
        return self._num_classes if self._num_classes is not None else self._attached.num_classes

    def _fits(self, wanted: int | None) -> bool:
        tensors, axis = self._attached.tensors, heads.outputs_axis
        return wanted is None or all(
            tensors.tensor(n).shape[axis(tensors.model, n)] == wanted for n in self._head_names()
        )

    # ---------------------------------------------------------------- end
    def record(self, task: TaskId) -> TaskRecord:
        """Return what the task leaves: its binary masks and its own tensors.

        Raises:
            DetachedError: A layer that carries a gate was replaced.
            NonFiniteError: One of them holds NaN or infinity.
            RanksDifferError: The processes that train the model hold different parameters.
        """
        attached = self._attached
        attached.check_attached()  # a layer that was replaced in the task has no gate
        share_first(
            attached.model.buffers()
        )  # running statistics are each rank's own; DDP shares them before a forward
        check_equal(dict(attached.model.named_parameters()), "parameters at the end of a task", _WRAP)
        newest = list(self._state.records.values())[-1:]
        tensors = attached.tensors.copy(newest[0].tensors if newest else None)
        self._refuse_non_finite(task, tensors)
        masks = {name: (gate.embedding.detach() > 0).cpu() for name, gate in attached.gates.items()}
        return TaskRecord(masks, tensors, {}, self._num_classes)

    def _refuse_non_finite(self, task: TaskId, tensors: dict[str, Tensor]) -> None:
        """Look at what training writes; a buffer outside norms may hold infinities of its own (attention masks do)."""
        learnt: dict[str, Tensor] = {f"{n}.embedding": gate.embedding for n, gate in self._attached.gates.items()}
        roles = {p.name: p for p in self._attached.policies}
        learnt |= {n: t for n, t in tensors.items() if roles[n].kind == "parameter" or roles[n].role == "norm"}
        bad = [n for n, t in learnt.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
        if bad:
            raise NonFiniteError(
                f"Task {task!r} cannot be stored: {len(bad)} tensor(s) of it hold NaN or infinity, first '{bad[0]}'. "
                "Nothing was stored; earlier tasks are as they were. Lower the learning rate or clip gradients."
            )

    # ---------------------------------------------------------------- the way back
    def roll_back(self) -> None:
        """Put back the embeddings and per-task tensors that were there before the task."""
        if sharded(self._attached.model.named_parameters()):
            return  # whole tensors do not fit in any more; the error that led here says so
        self._attached.tensors.enter(self._before, copy=True)
        with torch.no_grad():
            for name, value in self._embeddings.items():
                if name in self._attached.gates:
                    self._attached.gates[name].embedding.copy_(value)
