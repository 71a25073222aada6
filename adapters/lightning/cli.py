"""LightningCLI: the spec is a typed block of the config, and each `fit` learns one task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import register_type
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning.event_callbacks import callbacks
from fgadahat_hooks.adapters.lightning.task_callback import TaskCallback
from fgadahat_hooks.errors import BadCallError


class SpecBlock:
    """Annotation for an `AttachSpec` parameter of anything that a `LightningCLI` builds.

    jsonargparse would parse and check each field of an `AttachSpec` separately. With this type the library reads the
    whole block, or the file that it names, and reports all problems at once.
    """


class TaskCLI(LightningCLI):
    """A `LightningCLI` with a block `hat`: `spec`, `task`, `num_classes` and `after`.

    The model is attached with its `example_input_array`, and the callbacks of the spec come before those of the config.
    `hat.after` names a checkpoint that was written after an earlier task had ended (`trainer.save_checkpoint`); its
    tasks are protected.

    Attributes:
        session: The session on `model`.
    """

    session: fh.Session

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the block `hat` next to trainer, model and data."""
        super().add_core_arguments_to_parser(parser)
        parser.add_argument("--hat.spec", type=SpecBlock, default=fh.AttachSpec(), help="What to gate, and how.")
        parser.add_argument("--hat.task", type=str | int | None, default=None, help="Id of the task.")
        parser.add_argument("--hat.num_classes", type=int | None, default=None, help="Outputs of the task's head.")
        parser.add_argument("--hat.after", type=Path | None, default=None, help="Checkpoint of the tasks before.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Attach to the model, and insert the callbacks before the Trainer's.

        Args:
            **kwargs: Arguments of `LightningCLI.instantiate_trainer`.

        Returns:
            The Trainer.

        Raises:
            FgadahatError: What `fgadahat_hooks.attach` raises.
            BadCallError: The model has no `example_input_array`, or `hat.after` is not a checkpoint of tasks.
        """
        trainer = super().instantiate_trainer(**kwargs)
        inputs = self.model.example_input_array
        if inputs is None:
            raise BadCallError(
                f"Expected {type(self.model).__name__} to have `example_input_array`, a batch that its forward takes, "
                "but got None. Set it in its __init__."
            )
        self.session = fh.attach(self.model, self._get(self.config_init, "hat.spec"), inputs, callbacks=[])
        after, task, classes = (self._get(self.config_init, f"hat.{name}") for name in ("after", "task", "num_classes"))
        if after is not None:
            take_over(self.session, self.model, after)
        trainer.callbacks[:0] = callbacks(self.session, task, classes)  # type: ignore[attr-defined]
        return trainer


def take_over(session: fh.Session, module: LightningModule, file: str | Path) -> None:
    """Load finished tasks from a Lightning checkpoint that was written after they had ended.

    Args:
        session: A session on the module or a part of it, attached as when the checkpoint was written.
        module: The LightningModule.
        file: The checkpoint.

    Raises:
        BadCallError: The checkpoint has no finished task, or was written during a task.
        StateMismatchError: The checkpoint is of another model.
    """
    saved = torch.load(file, map_location="cpu", weights_only=True)
    states = [state for key, state in saved.get("callbacks", {}).items() if key.startswith(TaskCallback.__name__)]
    state = states[0].get("session") if states else None
    if state is None or state["running"] is not None or not state["tasks"]:
        raise BadCallError(
            f"Expected '{file}' to be written by trainer.save_checkpoint after a task had ended, but there is "
            f"{'no finished task' if state is None or state['running'] is None else 'one in the middle'} in it."
        )
    session.load_state_dict(state)
    _load_weights(session, module, saved["state_dict"])


def _load_weights(session: fh.Session, module: LightningModule, weights: Mapping[str, torch.Tensor]) -> None:
    """Load all but what tasks have for themselves: heads and norms come with the session, in the size of each task."""
    prefix = next((f"{name}." if name else "" for name, m in module.named_modules() if m is session.model), "")
    own = {prefix + tensor.name for tensor in session.plan.tensors if tensor.protection == "per_task"}
    found = module.load_state_dict({n: w for n, w in weights.items() if n not in own}, strict=False)
    if found.unexpected_keys or set(found.missing_keys) - own:
        module.load_state_dict(weights)  # raises with all that is wrong


def _parse_spec(value: Any) -> fh.AttachSpec:
    """Return the spec of a config block, or of the file that the block names."""
    return value if isinstance(value, fh.AttachSpec) else fh.load_spec(value)


register_type(
    SpecBlock,
    serializer=lambda spec: spec.model_dump(mode="json"),
    deserializer=_parse_spec,
    type_check=lambda value, _: isinstance(value, fh.AttachSpec),
    fail_already_registered=False,
)
