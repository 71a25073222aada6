"""A BERT that learns to classify sentences of Python's documentation by module, one topic after another.

The texts are sentences of the docstrings of Python's standard library, which is on every machine that runs this. A task
is a topic ("numbers", "internet", ...): which of the topic's modules is a sentence from? The model is a small
`BertForSequenceClassification` with random weights, trained by the Hugging Face `Trainer`; the library adds one
callback. Prints the accuracy of every task right after learning it and at the end, and whether a bit of any logit
changed.

Run it with `python examples/transformers_text.py` (half a minute). It needs transformers and accelerate.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import tempfile
import zlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.transformers import TaskCallback

TASKS = {
    "numbers": ("decimal", "statistics", "math"),
    "internet": ("socket", "email.message", "imaplib"),
    "at once": ("asyncio", "threading", "subprocess"),
    "testing": ("doctest", "unittest", "inspect"),
}
LENGTH = 32
WORDS = 2048


# ------------------------------------------------------------------ the data
def docstrings(name: str) -> Iterator[str]:
    """Yield the docstrings of what a module defines, methods included."""
    module = importlib.import_module(name)
    top = name.split(".")[0]
    for thing in vars(module).values():
        if not callable(thing) or (getattr(thing, "__module__", None) or "").split(".")[0].lstrip("_") != top:
            continue
        for part in (thing, *(vars(thing).values() if inspect.isclass(thing) else ())):
            if callable(part) and isinstance(part.__doc__, str):
                yield inspect.cleandoc(part.__doc__)


def sentences(name: str, most: int = 250) -> list[str]:
    """Return sentences of a module's docstrings, each once, in a fixed order."""
    parts = (part for text in docstrings(name) for part in re.split(r"(?<=[.:])\s+|\n\s*\n", text))
    found = {" ".join(part.split()) for part in parts if len(part.split()) > 3}
    return sorted(found, key=lambda sentence: zlib.crc32(sentence.encode()))[:most]


def encode(sentence: str) -> list[int]:
    """Return `LENGTH` token ids: 1 is the start, 0 the padding, and a word's id its checksum, without a vocabulary."""
    words = re.findall(r"[a-z]+|[^\sa-z]", sentence.lower())[: LENGTH - 1]
    ids = [1, *(2 + zlib.crc32(word.encode()) % (WORDS - 2) for word in words)]
    return ids + [0] * (LENGTH - len(ids))


class Sentences(Dataset[dict[str, Tensor]]):
    """Sentences of a task's modules, labelled with the module; every fourth one is for testing."""

    def __init__(self, task: str, *, test: bool) -> None:
        """Read the docstrings."""
        pairs = [
            (encode(sentence), label)
            for label, module in enumerate(TASKS[task])
            for number, sentence in enumerate(sentences(module))
            if (number % 4 == 0) == test
        ]
        self.ids = torch.tensor([ids for ids, _ in pairs])
        self.labels = torch.tensor([label for _, label in pairs])

    def __len__(self) -> int:
        """Return the number of sentences."""
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the model's inputs."""
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": self.labels[index]}


# ------------------------------------------------------------------ task after task
def network() -> BertForSequenceClassification:
    """Return a BERT of one block; it needs no code for tasks."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=LENGTH,
        )
    )


def settings(folder: str, epochs: float) -> TrainingArguments:
    """Return ordinary arguments of the Trainer, without logging."""
    return TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        weight_decay=0.05,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )


def learn(session: fh.Session, name: str, folder: str, epochs: float) -> None:
    """Learn one task with a Trainer of its own."""
    with session.task(name, num_classes=len(TASKS[name])) as task:
        trainer = Trainer(
            session.model,
            settings(folder, epochs),
            train_dataset=Sentences(name, test=False),
            callbacks=[TaskCallback(session, task, gate_lr=0.1)],  # the one additional line
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def logits(session: fh.Session, name: str) -> Tensor:
    """Return the logits of a finished task's test sentences."""
    ids = Sentences(name, test=True).ids
    session.model.eval()
    with torch.no_grad(), session.use(name):
        out: Tensor = session.model(input_ids=ids, attention_mask=(ids > 0).long()).logits
    return out


def main(arguments: list[str] | None = None) -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of texts with a BERT and the Hugging Face Trainer.")
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many tasks")
    parser.add_argument("--epochs", type=float, default=6, help="epochs of each")
    options = parser.parse_args(arguments)

    set_seed(0)
    model = network()
    ids = torch.ones(2, LENGTH, dtype=torch.long)
    spec = {  # gates are learnt; the callback tells the task how long it is, and its second half has a hard mask
        "gates": {"targets": ["all", "all-embedding"], "annealing_power": 2.0},  # words are learnt by all tasks too
        "regularization": {"factor": 5.0, "budget": 1 / len(TASKS)},
        "adjustment": {"mode": "hat"},
    }
    session = fh.attach(model, spec, example_inputs={"input_ids": ids, "attention_mask": ids})

    names, learnt = list(TASKS)[: options.tasks], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            learn(session, name, folder, options.epochs)
            learnt[name] = logits(session, name)

    print(f"{'topic':10}{'sentences':>11}{'guessing':>10}{'when learnt':>13}{'at the end':>12}{'same bits':>11}")
    same = True
    for name in names:
        after, labels = logits(session, name), Sentences(name, test=True).labels
        guess = float(labels.bincount().max() / len(labels))
        then, now = (float((out.argmax(1) == labels).float().mean()) for out in (learnt[name], after))
        equal = torch.equal(learnt[name], after)
        count = len(Sentences(name, test=False)) + len(labels)
        print(f"{name:10}{count:>11}{guess:>10.1%}{then:>13.1%}{now:>12.1%}{'yes' if equal else 'no':>11}")
        same = same and equal
    print("earlier tasks bit-identical:", "yes" if same else "no")


if __name__ == "__main__":
    main()
