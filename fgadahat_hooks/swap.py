"""What a task puts into the model when it begins, what it stores at its end, and the way back if it fails."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks import heads
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.functional.mask import initial_embedding
from fgadahat_hooks.gate import Gate
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId, TaskRecord


class TaskSwap:
    """The embeddings and per-task tensors of one task."""

    def __init__(self, runtime: Runtime, num_classes: int | None) -> None:
        """Change nothing yet."""
        self._runtime = runtime
        self._num_classes = num_classes
        self._before: dict[str, Tensor] = {}
        self._embeddings: dict[str, Tensor] = {}

    def remember(self) -> None:
        """Keep what `roll_back` will need."""
        self.remember_tensors()
        self._embeddings = {n: g.embedding.detach().clone() for n, g in self._runtime.gates.items()}

    def remember_tensors(self) -> None:
        """Keep the per-task tensors; which ones there are is known after the trace."""
        self._before = self._runtime.tensors.copy()

    def forget(self) -> None:
        """Let go of what was kept."""
        self._before, self._embeddings = {}, {}

    # ---------------------------------------------------------------- begin
    def begin(self) -> list[Tensor]:
        """Set embeddings, norms and heads for a new task; return the parameters that start anew."""
        runtime = self._runtime
        first = runtime.state.finished == 0
        fresh: list[Tensor] = [gate.embedding for gate in runtime.gates.values()]
        for name, gate in runtime.gates.items():
            self._draw(gate, None if first else self._embeddings[name])
        if not first:
            runtime.tensors.put(runtime.initial, copy=True)
            fresh += [runtime.tensors.tensor(name) for name in runtime.initial]
        fresh += self._renew_heads(first)
        for tensor in fresh:
            tensor.grad = None  # left from the task before; an optimizer that steps first would use it
        return fresh

    def _draw(self, gate: Gate, last: Tensor | None) -> None:
        spec, e = self._runtime.spec.gates, gate.embedding
        with torch.no_grad():
            drawn = initial_embedding(e.numel(), spec.init, last, dtype=e.dtype, device=e.device)
            e.copy_(drawn.clamp(-spec.embedding_clamp, spec.embedding_clamp))

    def _renew_heads(self, first: bool) -> list[Tensor]:
        """Give the task a new head, unless it is the first and its head fits, or all tasks share one."""
        runtime = self._runtime
        if runtime.spec.heads.mode == "shared" and not first and self._num_classes is None:
            return []
        wanted = self._num_classes if self._num_classes is not None else runtime.num_classes
        names = [p.name for p in runtime.policies if p.role == "head" and p.kind == "parameter"]
        fits = wanted is None or all(runtime.tensors.tensor(name).shape[0] == wanted for name in names)
        if first and fits:
            return []
        return heads.renew(runtime.tensors, runtime.graph.heads, wanted, runtime.tied)

    # ---------------------------------------------------------------- end
    def record(self, task: TaskId) -> TaskRecord:
        """Return what the task leaves: its binary masks and its own tensors.

        Raises:
            NonFiniteError: One of them holds NaN or infinity.
        """
        runtime = self._runtime
        newest = list(runtime.state.records.values())[-1:]
        tensors = runtime.tensors.copy(newest[0].tensors if newest else None)
        self._refuse_non_finite(task, tensors)
        masks = {name: (gate.embedding.detach() > 0).cpu() for name, gate in runtime.gates.items()}
        return TaskRecord(masks, tensors, {}, self._num_classes)

    def _refuse_non_finite(self, task: TaskId, tensors: dict[str, Tensor]) -> None:
        """Look at what training writes; a buffer outside norms may hold infinities of its own (attention masks do)."""
        learnt: dict[str, Tensor] = {f"{n}.embedding": gate.embedding for n, gate in self._runtime.gates.items()}
        roles = {p.name: p for p in self._runtime.policies}
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
        self._runtime.tensors.put(self._before, copy=True)
        with torch.no_grad():
            for name, value in self._embeddings.items():
                if name in self._runtime.gates:
                    self._runtime.gates[name].embedding.copy_(value)
