"""One model in memory, three tasks, many threads: each request names its task, and all answers are bit-identical.

Learns three tasks of scikit-learn's digits, then answers requests in three ways: one thread with a task a request,
batches that mix the tasks (one task id per image), and a pool of threads. Then prints whether all gave the same bits,
and answers with exported tasks in parallel too, which need no exclusive use of the model.

Run it with `python examples/serving_threads.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}
IMAGES = 16
"""Images of one request."""


class Request(NamedTuple):
    """A client's request: a task, and images `(16, 1, 8, 8)`."""

    task: str
    images: Tensor


def load(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, 8, 8)` and labels counted within the task."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    return images, torch.searchsorted(torch.tensor(classes), target[keep])


def learn(epochs: int) -> fh.Session:
    """Learn the tasks; return the session, its model ready to answer."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    session = fh.attach(model, fh.preset("hat", tasks=len(TASKS)), example_inputs=torch.zeros(2, 1, 8, 8))
    for name, classes in TASKS.items():
        loader = DataLoader(TensorDataset(*load(classes)), batch_size=64, shuffle=True)
        with session.task(name, num_classes=len(classes)) as task:
            optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3)))
            for _ in range(epochs):
                for images, labels in task.batches(loader):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(images), labels) + task.regularization()).backward()
                    optimizer.step()
    model.eval()
    return session


def requests(count: int) -> list[Request]:
    """Return requests with alternating tasks."""
    names = list(TASKS)
    images = {name: load(TASKS[name])[0] for name in names}
    picked = [names[number % len(names)] for number in range(count)]
    return [Request(name, images[name][torch.randperm(len(images[name]))[:IMAGES]]) for name in picked]


def answer(session: fh.Session, request: Request) -> Tensor:
    """Return a request's logits; the block waits while another thread uses the model."""
    with torch.no_grad(), session.use(request.task):
        logits: Tensor = session.model(request.images)
    return logits


def answer_mixed(session: fh.Session, images: Tensor, tasks: list[str]) -> Tensor:
    """Return the logits of images `(n, 1, 8, 8)` of several tasks; a smaller head is padded with `-inf`."""
    with torch.no_grad(), session.use(tasks):  # one id per image
        logits: Tensor = session.model(images)
    return logits


def mixed_agrees(session: fh.Session, asked: list[Request]) -> bool:
    """Return whether each image of a mixed batch gets the same bits as from its own task on that batch."""
    images = torch.cat([request.images for request in asked])
    tasks = [request.task for request in asked for _ in request.images]
    found = answer_mixed(session, images, tasks)
    same = True
    for name, classes in TASKS.items():
        rows = torch.tensor([task == name for task in tasks])
        alone = answer(session, Request(name, images))
        same = same and torch.equal(found[rows, : len(classes)], alone[rows])
    return same


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    """Return whether all answers are bit-identical."""
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def main(arguments: list[str] | None = None) -> None:
    """Learn, then answer."""
    parser = argparse.ArgumentParser(description="Answer requests for several tasks, from several threads.")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each task")
    parser.add_argument("--requests", type=int, default=300, help="how many requests")
    parser.add_argument("--threads", type=int, default=4, help="threads of the pool")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    session = learn(options.epochs)
    asked = requests(options.requests)
    truth = [answer(session, request) for request in asked]  # one thread, one after another

    start = time.perf_counter()
    with ThreadPoolExecutor(options.threads) as pool:
        threaded = list(pool.map(lambda request: answer(session, request), asked))
    rate = len(asked) / (time.perf_counter() - start)

    plain = {name: session.export(name) for name in TASKS}  # separate modules: no session, no exclusive use, no lock
    with torch.no_grad(), ThreadPoolExecutor(options.threads) as pool:
        exported = list(pool.map(lambda request: plain[request.task](request.images), asked))

    def tell(what: str, same: bool) -> None:
        print(f"{what}: same bits: {'yes' if same else 'no'}")

    print(f"{len(asked)} requests of {IMAGES} images, {len(TASKS)} tasks, {rate:.0f} a second from the pool")
    tell(f"{options.threads} threads, one session", equal(threaded, truth))
    tell("a batch that mixes the tasks", mixed_agrees(session, asked[:12]))
    tell(f"{options.threads} threads, exported tasks", equal(exported, truth))


if __name__ == "__main__":
    main()
