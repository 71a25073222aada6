"""The Hugging Face Trainer resumes from its own checkpoints."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from transformers import Trainer, TrainerCallback

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.transformers import SESSION_FILE, TaskCallback, load_checkpoint
from fgadahat_hooks.errors import BadCallError
from tests.adapters.small_vit import Images, arguments, attached

pytest.importorskip("transformers", "5.0", "the arguments used here came with transformers 5")


class Stop(TrainerCallback):
    """Stops training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def test_training_resumes_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    spec = {
        "adjustment": {"mode": "fg_adahat"},
        "importance": {"type": "input_weight_gradient_abs_sum"},
    }
    whole = attached(spec)
    options: dict[str, Any] = {"gradient_accumulation_steps": 2, "num_train_epochs": 2, "lr_scheduler_type": "linear"}

    def train(session: fh.Session, task: fh.Task, folder: Path, resume: str | None = None, stop: int = 99) -> None:
        args = arguments(folder, save_strategy="steps", save_steps=3, **options)
        optimizers = (AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1)), None)
        callbacks: list[TrainerCallback] = [TaskCallback(session, task), Stop(stop)]
        trainer = Trainer(session.model, args, train_dataset=Images(20), optimizers=optimizers, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)

    torch.manual_seed(2)
    with whole.task("a", num_classes=5) as task:
        train(whole, task, tmp_path / "whole")

    broken = attached(spec)
    torch.manual_seed(2)
    with suppress(KeyboardInterrupt), broken.task("a", num_classes=5) as task:
        train(broken, task, tmp_path / "broken", stop=4)
        raise KeyboardInterrupt
    assert broken.tasks == ()
    saved = tmp_path / "broken" / "checkpoint-3"

    fresh = attached(spec)
    load_checkpoint(fresh, saved)
    with fresh.task("a", resume=True) as task:
        train(fresh, task, tmp_path / "broken", str(saved))
    assert all(torch.equal(v, fresh.model.state_dict()[n]) for n, v in whole.model.state_dict().items())
    assert all(torch.equal(v, fresh.importance("a")[n]) for n, v in whole.importance("a").items())
    assert (tmp_path / "whole" / "checkpoint-6" / SESSION_FILE).exists()


def test_a_folder_without_a_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadCallError, match=f"there is no {SESSION_FILE}"):
        load_checkpoint(attached(), tmp_path)
