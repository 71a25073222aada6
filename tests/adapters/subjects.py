"""The subjects of the conformance suite: the same job through each framework."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from fgadahat_hooks.adapters.accelerate import accelerate_task
from fgadahat_hooks.adapters.transformers import TaskCallback
from tests.adapters.conformance import BATCH, CLASSES, EPOCHS, CannotRun, Job
from tests.adapters.subject_lightning import lightning


def plain_loop(job: Job) -> None:
    """Train in a plain loop."""
    v, model, device = job.variant, job.model, job.device
    with job.session.task(job.task, num_classes=CLASSES[job.task], epochs=EPOCHS) as task:
        optimizer = task.protect(job.optimizer())
        scaler = torch.amp.GradScaler(device, enabled=v.scaled)
        for _ in range(EPOCHS):
            model.train()
            for number, (x, y) in enumerate(task.batches(job.loader()), start=1):
                with torch.autocast(device, v.dtype) if v.dtype != torch.float32 else nullcontext():
                    loss = model(x, labels=y)["loss"]
                scaler.scale((loss + task.regularization()) / v.accumulate).backward()
                if number % v.accumulate == 0:
                    if v.clip is not None:
                        scaler.unscale_(optimizer)
                        task.gradients_ready(optimizer)
                        torch.nn.utils.clip_grad_norm_(model.parameters(), v.clip)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()


PRECISIONS = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def accelerate(job: Job) -> None:
    """Train in a loop on an `Accelerator`."""
    v, cpu = job.variant, job.device == "cpu"
    AcceleratorState._reset_state(reset_partial_state=True)
    by_hand = v.scaled and cpu  # the constructor refuses it, but torch supports it: set it up by hand
    precision = "no" if by_hand else PRECISIONS[v.dtype]
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, gradient_accumulation_steps=v.accumulate)
    if by_hand:
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        accelerator.scaler = torch.amp.GradScaler("cpu")
    classes = CLASSES[job.task]
    with accelerate_task(job.session, accelerator, job.task, num_classes=classes, epochs=EPOCHS) as task:
        model, optimizer, loader = task.prepare(job.model, job.optimizer(), job.loader())
        for _ in range(EPOCHS):
            model.train()
            for x, y in task.batches(loader):
                with accelerator.accumulate(model):
                    task.backward(model(x, labels=y)["loss"])
                    if v.clip is not None:
                        task.clip_grad_norm_(model.parameters(), v.clip)
                    optimizer.step()
                    optimizer.zero_grad()


class Rows(Dataset[dict[str, Tensor]]):
    """The samples in the Trainer's format."""

    def __init__(self, data: TensorDataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, y = self._data[index]
        return {"x": x.cpu(), "labels": y.cpu()}


def transformers(job: Job) -> None:
    """Train with the Hugging Face Trainer."""
    v, cpu = job.variant, job.device == "cpu"
    if v.scaled and cpu:
        raise CannotRun("TrainingArguments(fp16=True) refuses to run on a CPU")
    if not hasattr(TrainingArguments, "train_sampling_strategy"):
        raise CannotRun("the Trainer's samples come in order since transformers 5")
    AcceleratorState._reset_state(reset_partial_state=True)
    with tempfile.TemporaryDirectory() as folder, job.session.task(job.task, num_classes=CLASSES[job.task]) as task:
        arguments = TrainingArguments(
            folder,
            use_cpu=cpu,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS,
            gradient_accumulation_steps=v.accumulate,
            max_grad_norm=0.0 if v.clip is None else v.clip,
            bf16=v.dtype == torch.bfloat16,
            fp16=v.scaled,
            lr_scheduler_type="constant",
        )
        optimizers = (job.optimizer(), None)
        callbacks: list[TrainerCallback] = [TaskCallback(job.session, task)]
        Trainer(job.model, arguments, train_dataset=Rows(job.data), optimizers=optimizers, callbacks=callbacks).train()


SUBJECTS: dict[str, Callable[[Job], None]] = {
    "accelerate": accelerate,
    "lightning": lightning,
    "transformers": transformers,
}
"""Every adapter except the plain loop; to add one, write a function of a job and list it here."""
