"""What a task puts into the model when it begins, and how to undo that."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.distributed.ranks import broadcast_from_first
from fgadahat_hooks.distributed.wrappers import refuse_sharded, sharded_names
from fgadahat_hooks.functional.mask import initial_embedding
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.task_state import InterruptedTask, NumClasses
from fgadahat_hooks.protection.head_outputs import have_outputs, requested_outputs, resize_heads
from fgadahat_hooks.protection.head_values import renew
from fgadahat_hooks.tasks.allocation import allot_units
from fgadahat_hooks.tasks.rescaling import rescale, row_norms
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.start_values import StartValues


class TaskEntry:
    """The embeddings and per-task tensors (heads, norms) that one task begins with, and those it replaces."""

    def __init__(self, sequence: TaskSequence, num_classes: NumClasses | None) -> None:
        """Change nothing yet.

        Args:
            sequence: The attached model and its tasks.
            num_classes: Numbers of outputs of the task's heads, if it asks for other than at attach.
        """
        self._sequence = sequence
        self._attached = sequence.attached
        self._num_classes = num_classes
        self._tensors_before: dict[str, Tensor] = {}
        self._embeddings_before: dict[str, Tensor] = {}
        self._start: StartValues | None = None
        self._resized = False  # by `resize_heads`, and no values drawn yet

    # ---------------------------------------------------------------- what was there before
    def remember(self, resume: InterruptedTask | None = None) -> None:
        """Copy what `roll_back` will need; a task that is resumed brings what was there before its beginning."""
        self._start = StartValues(self._attached, self._sequence.state)
        if resume is not None:
            self._tensors_before, self._embeddings_before = resume.tensors, resume.embeddings
            return
        if not self._resized:
            self.remember_tensors()
        self._embeddings_before = {n: g.embedding.detach().clone() for n, g in self._attached.gates.items()}

    def remember_tensors(self) -> None:
        """Copy the per-task tensors; before the trace it is not known which they are."""
        self._start = self._start and StartValues(self._attached, self._sequence.state)
        self._tensors_before = self._attached.tensors.copy()

    def before(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the per-task tensors, and the embeddings by layer, as they were before the task."""
        return self._tensors_before, self._embeddings_before

    def release(self) -> None:
        """Free the copies of what was there before."""
        self._tensors_before, self._embeddings_before, self._start = {}, {}, None

    def roll_back(self) -> None:
        """Restore the embeddings and per-task tensors that were there before, and tensors that are NaN now."""
        if sharded_names(self._attached.model.named_parameters()):
            return  # whole tensors do not fit any more; the task ends by the error that says so
        self._attached.tensors.enter(self._tensors_before, copy=True)
        if self._start is not None:
            self._start.restore_non_finite()
        with torch.no_grad():
            for name, value in self._embeddings_before.items():
                if name in self._attached.gates:
                    self._attached.gates[name].embedding.copy_(value)

    # ---------------------------------------------------------------- what the task begins with
    def enter(self) -> list[Tensor]:
        """Set embeddings, norms and heads for a new task; return the parameters that start anew."""
        attached = self._attached
        refuse_sharded(attached.model.named_parameters())
        first = self._sequence.state.finished == 0
        fresh: list[Tensor] = [gate.embedding for gate in attached.gates.values()]
        if attached.traced:
            self.take_weights()
        self._set_embeddings(first)
        if not first:
            attached.tensors.enter(attached.initial, copy=True)
            fresh += [attached.tensors.tensor(name) for name in attached.initial]
        heads_renewed = self._renew_heads(first)
        fresh += heads_renewed
        if attached.traced:
            self.rescale(first or bool(heads_renewed))
        for tensor in fresh:
            tensor.grad = None  # left from the task before; an optimizer that steps first would use it
        broadcast_from_first(fresh)  # each rank has drawn its own
        return fresh

    def take_weights(self) -> None:
        """Take the norms of rows, and the tensors that later tasks begin with, when the first task ever begins.

        Weights may have been loaded after attach. A task that was rolled back has changed them, so it does not count.
        """
        attached = self._attached
        if not attached.begun:
            attached.begun = True
            attached.initial = {name: attached.tensors.tensor(name).detach().clone() for name in attached.initial}
            attached.row_norms = row_norms(attached) if attached.row_norms else {}
        if self._sequence.state.finished == 0:  # ranks may have drawn other weights; rates and scales go by the norms
            broadcast_from_first(attached.row_norms.values())

    def _set_embeddings(self, first: bool) -> None:
        attached = self._attached
        if attached.spec.gates.choose == "share":
            allot_units(attached, self._sequence.state)
            broadcast_from_first([gate.embedding for gate in attached.gates.values()])  # rows are rescaled by them
            return
        for name, gate in attached.gates.items():
            self._draw_embedding(gate, None if first else self._embeddings_before[name])

    def rescale(self, fresh_head: bool) -> None:
        """Rescale free rows and a fresh head, if the spec asks for it; needs the unit graph."""
        if self._attached.spec.plasticity.rescale:
            rescale(self._attached, self._sequence.state, fresh_head)

    def _draw_embedding(self, gate: Gate, last: Tensor | None) -> None:
        spec, e = self._attached.spec.gates, gate.embedding
        with torch.no_grad():
            drawn = initial_embedding(e.numel(), spec.init, last, dtype=e.dtype, device=e.device)
            e.copy_(drawn.clamp(-spec.embedding_clamp, spec.embedding_clamp))

    def _renew_heads(self, first: bool) -> list[Tensor]:
        """Give the task a new head, unless it is the first and its head fits, or all tasks share one."""
        attached, outputs = self._attached, self._outputs()
        if attached.spec.heads.mode == "shared" and not first and self._num_classes is None:
            return []
        fit = have_outputs(attached.tensors, outputs)
        if first and not self._resized and fit:
            return []
        self._resized = False
        if not fit:
            resize_heads(attached.tensors, outputs)
        return renew(attached.tensors, attached.graph.heads, attached.tied)

    # ---------------------------------------------------------------- heads ahead of the task
    def resize_heads(self) -> None:
        """Give the heads the task's number of outputs ahead of `enter`, which draws their values."""
        outputs = self._outputs()
        if self._resized or have_outputs(self._attached.tensors, outputs):
            return
        self.remember_tensors()
        self._resized = True
        resize_heads(self._attached.tensors, outputs)

    def undo_resize(self) -> None:
        """Undo `resize_heads`."""
        if self._resized:
            self._attached.tensors.enter(self._tensors_before, copy=True)
        self._resized = False
        self.release()

    def _outputs(self) -> dict[str, int]:
        """Return the number of outputs that each head needs, of those that can be resized."""
        return requested_outputs(self._num_classes, self._attached)
