"""What each rank runs in the DDP tests with trainers that wrap the model themselves."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.accelerate import accelerate_task
from fgadahat_hooks.adapters.transformers import TaskCallback
from tests.adapters.ddp_worlds import images, kept, logits, normed
from tests.adapters.small_vit import PROBE, Images, vit


def accelerate_tasks(rank: int) -> tuple[dict[str, Tensor], list[str], str, Tensor]:
    """Learn three tasks on an `Accelerator`, heads of three sizes; also name the tasks that changed."""
    session = fh.attach(normed(), {}, images(2, 0))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, ended, kind = session.model, {}, ""
    for number, classes in enumerate((3, 5, 4)):
        name = f"task {number}"
        data = TensorDataset(images(22, number), torch.arange(22) % classes)
        with accelerate_task(session, accelerator, name, num_classes=classes) as task:
            optimizer = AdamW(session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1))
            model, optimizer, loader = task.prepare(model, optimizer, DataLoader(data, batch_size=4))
            model.train()
            for x, y in task.batches(loader):
                with accelerator.accumulate(model):
                    task.backward(F.cross_entropy(model(x), y))
                    task.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
        kind = type(model).__name__
        ended[name] = logits(session, name)
    loader = accelerator.prepare(DataLoader(TensorDataset(images(7, 99)), batch_size=2))
    model.eval()
    with torch.no_grad(), session.use("task 1"):
        gathered = torch.cat([accelerator.gather_for_metrics(model(x)) for (x,) in loader])
    return kept(session), [n for n, b in ended.items() if not torch.equal(b, logits(session, n))], kind, gathered


def trainer_task(rank: int, averaged: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Learn a task with the Hugging Face Trainer, and the same samples in a loop; return the weights of both."""
    results = []
    for by_hand in (False, True):
        torch.manual_seed(0)
        session = fh.attach(vit(), {}, {"pixel_values": PROBE[:2]})
        data = Images(16)
        torch.manual_seed(1)
        with session.task("a", epochs=1) as task:
            optimizer = SGD(session.parameter_groups(lr=0.05, gate_lr=0.5))
            if by_hand:
                task.protect(optimizer)
                model = DistributedDataParallel(session.model)
                for number in (1, 2):
                    optimizer.zero_grad()
                    task.anneal(number, 2)
                    rows = torch.arange(8 * number - 8, 8 * number).view(2, 4)[rank]  # as Accelerate deals batches out
                    loss = F.cross_entropy(model(data.pixels[rows]).logits, data.labels[rows])
                    (loss + task.regularization()).backward()
                    optimizer.step()
            else:
                _train(session, task, optimizer, data, averaged)
        results.append({n: p.detach().clone() for n, p in session.model.named_parameters()})
    return results[0], results[1]


def _train(session: fh.Session, task: fh.Task, optimizer: SGD, data: Images, averaged: bool) -> None:
    options: dict[str, Any] = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            use_cpu=True,
            per_device_train_batch_size=4,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            average_tokens_across_devices=averaged,
            **options,
        )
        callbacks: list[TrainerCallback] = [TaskCallback(session, task)]
        Trainer(session.model, args, train_dataset=data, optimizers=(optimizer, None), callbacks=callbacks).train()
