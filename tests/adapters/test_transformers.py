"""The Hugging Face Trainer: a real one, with its own optimizer, on a small vision transformer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import IterableDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.transformers import TaskCallback
from fgadahat_hooks.errors import BadCallError, NoTaskError
from tests.adapters.small_vit import PROBE, Images, arguments, attached, embeddings, logits, vit

pytest.importorskip("transformers", "5.0", "the arguments used here came with transformers 5")


def test_three_tasks_with_the_trainers_own_optimizer_are_not_forgotten(tmp_path: Path) -> None:
    session = attached()
    ended = {}
    for number, classes in enumerate((3, 5, 2)):
        with session.task(f"task {number}", num_classes=classes) as task:
            data = Images(12, classes, seed=number)
            Trainer(
                session.model, arguments(tmp_path), train_dataset=data, callbacks=[TaskCallback(session, task)]
            ).train()
        ended[f"task {number}"] = logits(session, f"task {number}")
        used = torch.cat(list(session.masks(f"task {number}").values()))
        assert 0 < int(used.sum()) < used.numel()
    assert [out.shape[1] for out in ended.values()] == [3, 5, 2]
    assert [name for name, before in ended.items() if not torch.equal(before, logits(session, name))] == []


def test_a_model_with_its_own_number_of_labels_gets_each_tasks(tmp_path: Path) -> None:
    """Text models copy `config.num_labels` in their constructor, and shape their logits by the copy."""
    config = BertConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    model = BertForSequenceClassification(config)
    ids = torch.arange(1, 13).view(2, 6)
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, {"input_ids": ids})
    for number, classes in enumerate((5, 3)):
        data = [{"input_ids": ids[k % 2], "labels": torch.tensor(k % classes)} for k in range(8)]
        with session.task(number, num_classes=classes) as task:
            callbacks = [TaskCallback(session, task)]
            Trainer(model, arguments(tmp_path), train_dataset=data, callbacks=callbacks).train()  # type: ignore[arg-type]
            assert (model.num_labels, config.num_labels) == (classes, classes)
        assert (model.num_labels, config.num_labels) == (2, 2)


def test_embeddings_get_a_group_of_their_own(tmp_path: Path) -> None:
    session = attached()
    with session.task("a") as task:
        trainer = Trainer(
            session.model,
            arguments(tmp_path, lr_scheduler_type="linear", warmup_steps=1),
            train_dataset=Images(16),
            callbacks=[TaskCallback(session, task, gate_lr=0.3)],
        )
        trainer.train()
    assert trainer.optimizer is not None
    assert trainer.lr_scheduler is not None
    decayed, plain, gates = trainer.optimizer.param_groups
    ids = {id(e) for e in embeddings(session)}
    assert {id(p) for p in gates["params"]} == ids
    assert not ids & {id(p) for p in (*decayed["params"], *plain["params"])}
    assert (decayed["weight_decay"], gates["weight_decay"]) == (0.1, 0.0)
    assert (gates["initial_lr"], decayed["initial_lr"]) == (pytest.approx(0.3), pytest.approx(0.01))
    assert gates["lr"] == pytest.approx(30 * decayed["lr"])
    assert len(trainer.lr_scheduler.get_last_lr()) == 3


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_trains_on_the_mean_loss_and_one_sparsity_term(tmp_path: Path, accumulate: int) -> None:
    """The model divides its loss by the samples of the step; the last step of the epoch has fewer batches."""
    data = Images(28)
    results = []
    for by_hand in (True, False):
        session = attached()
        torch.manual_seed(1)
        with session.task("a", epochs=1) as task:
            optimizer = SGD(session.parameter_groups(lr=0.05, gate_lr=0.5))
            if by_hand:
                _loop(session, task, optimizer, data, accumulate)
            else:
                options = {
                    "gradient_accumulation_steps": accumulate,
                    "lr_scheduler_type": "constant",
                    "max_grad_norm": 0.5,
                }
                callbacks: list[TrainerCallback] = [TaskCallback(session, task)]
                args = arguments(tmp_path, **options)
                Trainer(
                    session.model, args, train_dataset=data, optimizers=(optimizer, None), callbacks=callbacks
                ).train()
        results.append({n: p.detach().clone() for n, p in session.model.named_parameters()})
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


def _loop(session: fh.Session, task: fh.Task, optimizer: SGD, data: Images, accumulate: int) -> None:
    """Train in a slow, obvious loop."""
    task.protect(optimizer)
    batches = list(zip(data.pixels.split(4), data.labels.split(4), strict=True))
    groups = [batches[k : k + accumulate] for k in range(0, len(batches), accumulate)]
    number = 0
    session.model.train()
    for group in groups:
        optimizer.zero_grad()
        samples = sum(len(y) for _, y in group)
        for x, y in group:
            number += 1
            task.anneal(number, len(batches))
            data_loss = F.cross_entropy(session.model(x).logits, y, reduction="sum") / samples
            (data_loss + task.regularization() / len(group)).backward()
        torch.nn.utils.clip_grad_norm_(session.model.parameters(), 0.5)
        optimizer.step()


def test_callbacks_see_gradients_before_clipping_and_the_arguments_stay_as_they_are(tmp_path: Path) -> None:
    norms: list[float] = []

    class Watch(fh.Callback):
        def on_gradients_ready(self, context: fh.TaskContext, optimizer: torch.optim.Optimizer) -> None:
            norms.append(max(float(p.grad.norm()) for g in optimizer.param_groups for p in g["params"]))

    logged: list[dict[str, float]] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logged.append({"max": args.max_grad_norm, **kwargs["logs"]})

    session = attached(callbacks=[fh.GradientAdjustCallback(), Watch()])
    args = arguments(tmp_path, max_grad_norm=1e-3, logging_strategy="steps", logging_steps=1)
    with session.task("a") as task:
        callbacks: list[TrainerCallback] = [TaskCallback(session, task), Log()]
        Trainer(session.model, args, train_dataset=Images(8), callbacks=callbacks).train()
    assert len(norms) == 2
    assert min(norms) > 0.01
    assert [entry["max"] for entry in logged] == [1e-3] * 3
    assert min(entry["grad_norm"] for entry in logged[:2]) > 0.01


def test_evaluation_runs_under_the_hard_mask_of_the_running_task(tmp_path: Path) -> None:
    session = attached()
    losses = []

    class Look(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad(), session.use("a"):
                data = Images(8)
                expected = session.model(data.pixels, labels=data.labels).loss
            losses.append((kwargs["metrics"]["eval_loss"], float(expected)))

    with session.task("a") as task:
        callbacks: list[TrainerCallback] = [TaskCallback(session, task), Look()]
        args = arguments(tmp_path, eval_strategy="steps", eval_steps=1)
        Trainer(session.model, args, train_dataset=Images(8), eval_dataset=Images(8), callbacks=callbacks).train()
        assert float(task._attached.gate_context.scale) == 400
    assert len(losses) == 2
    for logged, expected in losses:
        assert logged == pytest.approx(expected, rel=1e-5)


def test_a_loss_function_of_the_users_adds_the_term_itself(tmp_path: Path) -> None:
    session = attached()
    with session.task("a") as task:
        callback = TaskCallback(session, task)

        def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
            data = F.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch
            return data + callback.regularization()

        before = [e.detach().clone() for e in embeddings(session)]
        options: dict[str, Any] = {"train_dataset": Images(8), "callbacks": [callback], "compute_loss_func": loss}
        Trainer(session.model, arguments(tmp_path), **options).train()
        assert not any(torch.equal(a, b) for a, b in zip(before, embeddings(session), strict=True))


@pytest.mark.parametrize("how", ["label smoothing", "loss function", "own compute_loss"])
def test_a_loss_without_the_term_is_reported(tmp_path: Path, how: str) -> None:
    class Own(Trainer):
        def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Tensor:
            return F.cross_entropy(model(**inputs).logits, inputs["labels"])

    session = attached()
    args = arguments(tmp_path, label_smoothing_factor=0.1 if how == "label smoothing" else 0.0)
    options: dict[str, Any] = {}
    if how == "loss function":
        options["compute_loss_func"] = lambda out, labels, num_items_in_batch: F.cross_entropy(out["logits"], labels)
    kind = Own if how == "own compute_loss" else Trainer

    def train() -> None:
        with session.task("a") as task:
            callbacks: list[TrainerCallback] = [TaskCallback(session, task)]
            kind(session.model, args, train_dataset=Images(8), callbacks=callbacks, **options).train()

    with pytest.raises(NoTaskError, match="did not reach the loss"):
        train()
    assert session.tasks == ()
    assert args.max_grad_norm == 1.0


class Stream(IterableDataset[dict[str, Tensor]]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        data = Images(16)
        return iter([data[k] for k in range(16)])


def test_a_stream_is_annealed_over_the_steps_asked_for(tmp_path: Path) -> None:
    """The stream is exhausted twice; annealing does not restart there."""
    scales: list[float] = []

    class Watch(fh.Callback):
        def on_train_batch_start(self, context: fh.TaskContext) -> None:
            scales.append(float(next(iter(context.layers.values())).gate.context.scale))

    session = attached(callbacks=[fh.GradientAdjustCallback(), Watch()])
    args = arguments(tmp_path, max_steps=6, gradient_accumulation_steps=2)
    with session.task("a") as task:
        Trainer(session.model, args, train_dataset=Stream(), callbacks=[TaskCallback(session, task)]).train()
    assert len(scales) == 12
    assert scales == sorted(scales)
    assert scales[-1] == 400


class Pair(nn.Module):
    """Returns a tuple, loss first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        out = self.body(pixel_values)
        return (out,) if labels is None else (F.cross_entropy(out, labels), out)


def test_a_model_that_returns_a_tuple(tmp_path: Path) -> None:
    session = fh.attach(Pair(), {}, {"pixel_values": PROBE})
    with session.task("a") as task:
        Trainer(
            session.model, arguments(tmp_path), train_dataset=Images(8), callbacks=[TaskCallback(session, task)]
        ).train()
    assert session.tasks == ("a",)


# ------------------------------------------------------------------ what is refused
def test_what_cannot_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = attached()
    with session.task("a") as task:
        callback = TaskCallback(session, task)
        callbacks: list[TrainerCallback] = [callback]
        with pytest.raises(BadCallError, match="has another one"):
            Trainer(vit(), arguments(tmp_path), train_dataset=Images(8), callbacks=callbacks).train()
        args = arguments(tmp_path, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch")
        trainer = Trainer(session.model, args, train_dataset=Images(8), eval_dataset=Images(8), callbacks=callbacks)
        with pytest.raises(BadCallError, match="scales all groups alike"):
            trainer.train()
        monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
        with pytest.raises(BadCallError, match="one device per process"):
            callback._check_arguments(args, session.model)
