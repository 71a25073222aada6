"""The object that `attach` and `load` return: everything a user does with an attached model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from torch import Tensor, nn

from fgadahat_hooks.callbacks import Callback, CallbackList
from fgadahat_hooks.callbacks.lists import check_capabilities, validated
from fgadahat_hooks.checkpoint.state import dump_state, load_state
from fgadahat_hooks.errors import BadCallError, NoTaskError, TaskRunningError
from fgadahat_hooks.gates.task_state import NumClasses, TaskId
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.session.certified import CertifiedSession
from fgadahat_hooks.session.parameter_groups import make_parameter_groups
from fgadahat_hooks.tasks.checks import interrupted_task
from fgadahat_hooks.tasks.forgetting import ForgetReport, forget
from fgadahat_hooks.tasks.length import TaskLength
from fgadahat_hooks.tasks.mixed import using_each
from fgadahat_hooks.tasks.serving import serving
from fgadahat_hooks.tasks.task import Task
from fgadahat_hooks.verify import Around, MakeOptimizer, VerifyReport, verify


class _RollBackError(Exception):
    """Raised to leave the block of a task that is to be forgotten."""


class Session(CertifiedSession):
    """Learns task after task on one model; made by `fgadahat_hooks.attach`."""

    # ---------------------------------------------------------------- tasks
    def task(
        self,
        task: TaskId,
        num_classes: NumClasses | None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        resume: bool = False,
    ) -> Task:
        """Return a new task, to be used as `with session.task("birds") as task:`.

        Args:
            task: Any non-empty string or int that no finished task has.
            num_classes: Number of outputs of this task's head; as at attach when left out. Of several heads, all that
                count classes get it; a mapping gives each its own: `{"cls": 5}`, by the head's name or its end.
            epochs: Number of epochs that the task will take. With it, or `steps`, gates that are learnt are annealed
                over the whole task and then fixed (`gates.annealing`); else in each epoch anew.
            steps: Number of optimizer steps that it will take, in place of `epochs`.
            resume: Resume the task that a loaded state is in the middle of: nothing is drawn or reset.

        Raises:
            NoTaskError: `resume` is asked for, and no task of that id was interrupted.
            BadCallError: `epochs` and `steps` are both given, or one is not a whole number above 0.
        """
        self._attached.check_attached()
        length = TaskLength(epochs, steps)
        if not resume:
            return Task(self._sequence, task, num_classes, length=length)
        found = interrupted_task(self._sequence, task, num_classes)
        return Task(self._sequence, task, found.num_classes, found, length)

    def add_callbacks(self, callbacks: Iterable[Callback]) -> None:
        """Add callbacks to those given to `attach`, in place of those that an earlier call added.

        Args:
            callbacks: Instances of `Callback`; an empty list removes those that were added.

        Raises:
            TaskRunningError: A task is running.
            BadCallError: Something else is among them.
            DuplicateNameError: Two callbacks have the same key, or one has that of a callback given to `attach`.
            CapabilityError: The measure cannot be computed on this model.
        """
        sequence, attached = self._sequence, self._attached
        attached.check_attached()
        if sequence.running is not None:
            raise TaskRunningError(f"Task {sequence.running.id!r} is running; add callbacks before a task begins.")
        added = CallbackList([*self._own_callbacks, *validated(callbacks)])
        if attached.traced:
            with attached.gate_context.open_gates():
                check_capabilities(added, attached.model, attached.graph, attached.example_inputs)
        sequence.callbacks = added

    # ---------------------------------------------------------------- state
    def state_dict(self) -> dict[str, Any]:
        """Return all that the session remembers, also in the middle of a task, as plain data.

        Save it beside the model's `state_dict`, which holds the parameters and task embeddings. It holds the finished
        tasks' masks, heads, norms and importances. Call it between two optimizer steps.

        Raises:
            NoTaskError: The model has not been traced yet.
        """
        self._attached.check_attached()
        self._sequence.check_kept("when the state of the session was taken")
        return dump_state(self._sequence)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned, in place of all that this session remembers.

        Load the model's `state_dict` as well, before or after. If the state is in the middle of a task, `interrupted`
        names it and `task(..., resume=True)` resumes it.

        Raises:
            StateMismatchError: It is the state of another model; names all differences. Nothing was changed.
            TaskRunningError: A task is running.
        """
        self._attached.check_attached()
        with self._sequence.exclusive():
            load_state(self._sequence, state)
        self._verified = None  # it was a proof about other tasks

    def roll_back(self) -> None:
        """Undo the interrupted task, as an exception in its block would have. Does nothing if there is none."""
        interrupted = self._sequence.interrupted
        if interrupted is not None:
            with suppress(_RollBackError), Task(self._sequence, interrupted.id, None, interrupted):
                raise _RollBackError

    def use(self, task: TaskId | Sequence[TaskId] | Tensor) -> AbstractContextManager[None]:
        """Evaluate as a finished task: `with session.use("birds"): logits = model(x)`.

        The task's binary masks act in the gates and its own heads, norms and other tensors are in the model for the
        block. Blocks may be nested, and opened while a task is running; the running task's id stands for its current
        hard mask. With a list, tuple or 1-d tensor, one id per sample of the batch.

        One thread uses the model at a time: a block waits until no other thread is in one. A forward belongs to the
        block of its own thread, and is refused while another thread's block is open.

        What finished tasks read is compared with what was kept when they ended, and put back with a
        `ProtectedWeightsRestoredWarning` if something has written it since.

        Raises:
            WeightsChangedError: It cannot be put back, or the block itself changed it.
            UnknownTaskError: No task of that id is finished.
            BadCallError: An empty list.
            TaskRunningError: A task is running in another thread.
        """
        sequence = self._sequence
        self._attached.check_attached()
        if isinstance(task, Tensor):
            task = task.tolist()
        if isinstance(task, list | tuple):
            if not task:
                raise BadCallError("Expected one task id per sample of the batch, but got an empty list.")
            return serving(sequence, list(task), using_each(sequence, task))
        current = sequence.running or sequence.interrupted
        if current is not None and current.id == task:
            return serving(sequence, task, sequence.using_running())
        sequence.state.record(task)
        return serving(sequence, task, sequence.using(task))

    def parameter_groups(
        self, lr: float, gate_lr: float | None = None, weight_decay: float = 0.0, **options: Any
    ) -> list[dict[str, Any]]:
        """Return parameter groups for any torch optimizer.

        Args:
            lr: Learning rate of the model's own parameters.
            gate_lr: Learning rate of the task embeddings; ten times `lr` when left out, because the published
                embeddings learn too slowly to leave room for later tasks.
            weight_decay: For the model's own parameters; the embeddings get none.
            **options: Further options of both groups.

        Returns:
            Two groups: trainable parameters of the model (without those already frozen), and task embeddings.

        Raises:
            BadCallError: A learning rate is not a number above 0.
        """
        self._attached.check_attached()
        return make_parameter_groups(self._attached, self._sequence.state.frozen, lr, gate_lr, weight_decay, options)

    # ---------------------------------------------------------------- verify, forget, detach
    def verify(
        self,
        inputs: ExampleInputs | None = None,
        *,
        optimizer: MakeOptimizer | None = None,
        steps: int = 5,
        around: Around | None = None,
    ) -> VerifyReport:
        """Prove on this model that no later task can change any finished task's logits, bit for bit.

        On a copy, every entry that the library calls free is overwritten with noise, and the logits of every finished
        task are compared with those before. With an optimizer, two scratch tasks are also learnt on another copy, on
        random targets: one optimizer steps both and keeps its state, as one that is kept across tasks. Then all
        protected elements and all logits must have the bits they had. The model, its random numbers and the session
        stay as they are.

        Args:
            inputs: Inputs for the model, as for `attach`; those of the trace when left out. With an optimizer they must
                allow a forward in training mode.
            optimizer: Your optimizer's class, or a function that makes one of parameter groups:
                `lambda groups: torch.optim.AdamW(groups, weight_decay=0.1)`. The groups are those of the copy.
            steps: Steps in each of the two scratch tasks.
            around: Makes each of the steps as your own loop does, with clipping, an average or SAM: a function of one
                step, which has `model`, `optimizer`, `backward()`, `number` and `total`; `step()` makes it plainly.
                What it writes beside the optimizer's steps is put back, as in a task of your own.

        Returns:
            What was compared; print it.

        Raises:
            BadCallError: The optimizer, the steps or the inputs cannot be used, or the logits are not finite on them.
            OptimizerError: The optimizer was refused, as in a task of your own.
            NoTaskError: No task is finished.
            TaskRunningError: A task is running.
            LeakError: The logits of a finished task changed, or a protected element moved; names the parameters.
        """
        sequence = self._sequence
        self._attached.check_attached()
        if sequence.running is not None:
            raise TaskRunningError(f"Task {sequence.running.id!r} is running; verify after it has ended.")
        if not sequence.state.records:
            raise NoTaskError("No task is finished, so there is nothing to verify yet.")
        self._verified = None  # an earlier proof does not count any more if this one raises
        sequence.check_kept("when the session was verified")
        self._verified = verify(sequence, inputs, self.plan.leaks, optimizer, steps, around)
        return self._verified

    def forget(self, task: TaskId, dry_run: bool = True) -> ForgetReport:
        """Report what forgetting a finished task frees, and with `dry_run=False` forget it.

        Its masks, importance, heads and norms are dropped and its id is free; units that only it used can be learnt
        anew. All other tasks keep their bits. The importances of the others are summed anew.

        Args:
            task: Id of a finished task.
            dry_run: Whether to change nothing.

        Returns:
            The units that only this task uses, by layer, and the capacity before and after.

        Raises:
            UnknownTaskError: No task of that id is finished.
            TaskRunningError: A task is running or interrupted, or a `use` block is open.
            BadCallError: No SummationCallback is there to sum the importances of the others.
        """
        self._attached.check_attached()
        report = forget(self._sequence, task, dry_run)
        if report.forgotten:
            self._verified = None  # another task may take the id
        return report

    def detach(self) -> nn.Module:
        """Return the model without any hook, attribute or extra key of this library. A second call does nothing.

        The model keeps the values it has: those of the last task. To keep another task's head and norms, detach
        inside `with session.use(task):`.

        Raises:
            TaskRunningError: A task is running.
        """
        running, attached = self._sequence.running, self._attached
        if running is not None:
            raise TaskRunningError(f"Task {running.id!r} is running; leave its block before detaching.")
        with self._sequence.exclusive():
            attached.hooks.close()
            attached.detached = True
        return attached.model

    def __repr__(self) -> str:
        """Show the model's class and the tasks."""
        return f"Session({type(self.model).__name__}, {len(self._attached.gates)} gates, tasks={list(self.tasks)})"
