"""Kill a training process during a task, resume in another one, and end with bit-identical results.

A child process learns three tasks of scikit-learn's digits, saves after every fifth step, and is killed in the middle
of the second task, between two saves: no handler runs, no file is closed. A fresh model loads the folder and learns the
rest. A third one learns everything without interruption. Prints whether the logits of all tasks are bit-identical in
both.

Run it with `python examples/resume.py` (a few seconds). It needs scikit-learn. With `--folder run` it only trains: stop
it at any time and start it again, and it resumes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}
EPOCHS = 3
SAVE_EVERY = 5


def load(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, 8, 8)` and labels counted within the task."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    return images, torch.searchsorted(torch.tensor(classes), target[keep])


def network() -> nn.Module:
    """Return any model, here with dropout; it needs no code for tasks."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
    )  # fmt: skip


def session_in(folder: Path) -> fh.Session:
    """Return the folder's session, with the state of the random generators, or a new session."""
    if (folder / "manifest.json").exists():
        session = fh.load(network(), folder)
        if session.interrupted is None:  # saved between two tasks; otherwise `learn` restores
            session.restore(folder)
        return session
    torch.manual_seed(0)
    return fh.attach(network(), fh.preset("hat", tasks=len(TASKS)), example_inputs=torch.zeros(2, 1, 8, 8))


def learn(session: fh.Session, name: str, folder: Path, after_step: Callable[[str, int], None]) -> None:
    """Learn one task, or the rest of it."""
    going_on = session.interrupted == name
    loader = DataLoader(TensorDataset(*load(TASKS[name])), batch_size=32, shuffle=True)
    with session.task(name, num_classes=len(TASKS[name]), resume=going_on) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3)))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * len(loader))
        extra = {"optimizer": optimizer, "scheduler": scheduler}
        if going_on:
            session.restore(folder, extra)
        for epoch in range(task.steps // len(loader), EPOCHS):
            session.model.train()
            for images, labels in task.batches(loader, start=task.steps - epoch * len(loader)):
                optimizer.zero_grad()
                (F.cross_entropy(session.model(images), labels) + task.regularization()).backward()
                optimizer.step()
                scheduler.step()
                if task.steps % SAVE_EVERY == 0:
                    session.save(folder, extra)
                after_step(name, task.steps)
    session.save(folder)


def train(folder: Path, after_step: Callable[[str, int], None] = lambda name, step: None) -> fh.Session:
    """Learn everything that is not in the folder yet."""
    session = session_in(folder)
    finished = ", ".join(map(str, session.tasks)) or "nothing"
    print(f"process {os.getpid()}: finished: {finished}; in the middle of: {session.interrupted}", flush=True)
    for name in TASKS:
        if name not in session.tasks:
            learn(session, name, folder, after_step)
    session.model.eval()
    return session


def logits(session: fh.Session) -> list[Tensor]:
    """Return the logits of all images, task by task."""
    found = []
    for name, classes in TASKS.items():
        with torch.no_grad(), session.use(name):
            found.append(session.model(load(classes)[0]))
    return found


def die(name: str, step: int) -> None:
    """Kill this process during the second task, as a system without memory would."""
    if (name, step) == ("middle digits", 28):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def main(arguments: list[str] | None = None) -> None:
    """Train in a folder, or show that a killed training loses nothing."""
    parser = argparse.ArgumentParser(description="Kill a training process and go on to the same bits.")
    parser.add_argument("--folder", type=Path, help="train in this folder, and nothing else")
    parser.add_argument("--die", action="store_true", help="kill this process in the middle of the second task")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the same in all processes: the split of sums between threads affects their last bits

    if options.folder is not None:
        train(options.folder, *([die] if options.die else []))
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--folder", f"{scratch}/killed", "--die"]
        child = subprocess.run(command, check=False)  # noqa: S603 - this very file
        print(f"the child was killed: exit status {child.returncode}")
        resumed = train(Path(scratch, "killed"))
        unbroken = train(Path(scratch, "unbroken"))
    same = all(torch.equal(a, b) for a, b in zip(logits(resumed), logits(unbroken), strict=True))
    print("killed and resumed, bit-identical to a run without a break:", "yes" if same else "no")


if __name__ == "__main__":
    main()
