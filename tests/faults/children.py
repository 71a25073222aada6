"""Processes that are killed, that find the disk full, and that save at the same time. Prints one JSON line.

Torch is imported once; each child is a fork.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fgadahat_hooks as fh
from fgadahat_hooks.checkpoint import folder as folders
from fgadahat_hooks.errors import StateMismatchError
from tests.support.saving import SPEC, Net, bits, example, learn

POINTS = {folders: ("save_file", "sync", "sync_folder"), Path: ("replace", "unlink", "mkdir"), os: ("fsync",)}
"""Calls of a save: before and after each of them a child may die."""


def count_calls(report: Callable[[int], None]) -> None:
    """Report the number of every call of `POINTS`, once before and once after it."""
    calls = [0]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            report(calls[0])
            value = function(*args, **kwargs)
            calls[0] += 1
            report(calls[0])
            return value

        return call

    for owner, names in POINTS.items():
        for name in names:
            setattr(owner, name, counting(getattr(owner, name)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child(folder: Path, at: int | None, done: int) -> None:
    """Train until killed; write one byte for each finished save. `at` is the call to die at."""
    if at is not None:
        count_calls(lambda number: die() if number == at else None)

    def report_save(_: fh.Session) -> None:
        os.write(done, b".")

    learn(folder, report_save)
    os._exit(0)


def fork(folder: Path, at: int | None, delay: float) -> tuple[bool, int]:
    """Run one child; return whether it was killed, and how many saves it had finished."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(folder, at, write)
        finally:
            os._exit(1)
    os.close(write)
    if at is None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as pipe:
        finished = len(pipe.read())
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("a child raised")
    return os.WIFSIGNALED(status), finished


def kills(root: Path, count: int) -> dict[str, Any]:
    """Kill children that train and save, at random points, and check what each leaves for the next."""
    draw = random.Random(0)  # noqa: S311
    expected: list[str] = []
    learn(root / "whole", lambda session: expected.append(bits(session)))
    report: dict[str, Any] = {"kills": 0, "runs": 0, "wrong": [], "leftovers": 0}
    folder, position = root / "0", 0
    while report["kills"] < count:
        at = None if report["kills"] % 3 == 0 else draw.randrange(1, 120)
        killed, finished = fork(folder, at, draw.uniform(0.01, 0.4))
        report["kills"] += killed
        position += finished
        if (folder / "manifest.json").exists():
            found = bits(fh.load(Net(), folder))
            report["leftovers"] += len(list(folder.iterdir())) > 3
            after = [n for n in (position, position + 1) if 0 < n <= len(expected) and expected[n - 1] == found]
            report["wrong"] += [] if after else [f"after {position} saves"]
            position = after[0] if after else position
        elif position:
            report["wrong"].append("nothing there")
        if position == len(expected) and not killed:
            report["runs"] += 1
            folder, position = root / str(report["runs"]), 0
    learn(folder)
    report["same"] = bits(fh.load(Net(), folder)) == expected[-1]
    report["clean"] = len(list(folder.iterdir())) == 3
    return report


def full_disk(folder: Path) -> dict[str, Any]:
    """Save where no file may have more than so many bytes: none of the files fits, or the first one does."""
    session = fh.attach(Net(), SPEC, example())
    session.save(folder)
    before, limits = bits(session), resource.getrlimit(resource.RLIMIT_FSIZE)
    with torch.no_grad():
        next(session.model.parameters()).add_(1)
    report = []
    for limit in (500, 6000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            session.save(folder)
        except fh.FgadahatError as error:
            report.append(type(error).__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return {"errors": report, "kept": bits(fh.load(Net(), folder)) == before, "files": len(list(folder.iterdir()))}


def race(folder: Path, saves: int) -> dict[str, Any]:
    """Load while two processes save into one folder; every load must be all of one save."""

    def saver(number: int) -> None:
        session = fh.attach(Net(), SPEC, example())
        for value in range(100 * number, 100 * number + saves):
            with torch.no_grad():
                for parameter in session.model.parameters():
                    parameter.fill_(value)
            session.save(folder, {"value": value})
            time.sleep(0.2 * (value % 2))  # now at once, now with time for a reader in between

    fh.attach(Net(), SPEC, example()).save(folder, {"value": -1})
    savers = [in_child(saver, number) for number in (1, 2)]
    seen, mixed, codes = set(), 0, []
    while savers:
        for pid in list(savers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                savers.remove(pid)
                codes.append(status)
        session = fh.load(Net(), folder)
        values = {float(parameter.detach().min()) for parameter in session.model.parameters()}
        try:
            value = session.restore(folder, random=False)["value"]
        except StateMismatchError:  # another save came in between, and is not mixed with this one
            continue
        seen.add(value)
        mixed += value >= 0 and values != {float(value)}
    return {"seen": len(seen), "mixed": mixed, "codes": codes, "files": len(list(folder.iterdir()))}


def in_child(work: Callable[[int], None], number: int) -> int:
    """Run some work in a fork; return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work(number)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def main(root: Path) -> None:
    torch.set_num_threads(1)
    report = {"kills": kills(root, 50), "full disk": full_disk(root / "full"), "race": race(root / "race", 15)}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
