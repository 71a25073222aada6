"""Two real processes in one gloo group, which run functions for the tests."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 2
TIMEOUT = 120.0
"""Seconds after which a call fails."""


class RankError(Exception):
    """A function raised on a rank; holds the traceback."""


class Ranks:
    """Processes that are kept for several calls, because starting them takes seconds.

    They start at the first call, and again after a call that failed.
    """

    def __init__(self, folder: Path) -> None:
        """Start nothing yet.

        Args:
            folder: An empty folder for the files by which the processes find each other.
        """
        self._folder = folder
        self._ends: list[Connection] = []
        self._processes: list[Any] = []

    def _start(self) -> None:
        context = mp.get_context("spawn")
        store = self._folder / f"store{time.monotonic_ns()}"
        for rank in range(WORLD):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, str(store), theirs), daemon=True)
            process.start()
            theirs.close()  # so that the pipe closes when the process ends
            self._ends.append(mine)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any, timeout: float = TIMEOUT) -> list[Any]:
        """Run a module-level function on every rank at once; return what each rank returned.

        Raises:
            RankError: The function raised on a rank, or did not return in time.
        """
        if not self._ends:
            self._start()
        for end in self._ends:
            end.send((function, args))
        answers = [_answer(end, timeout) for end in self._ends]
        failed = [f"rank {rank}: {answer}" for rank, (good, answer) in enumerate(answers) if not good]
        if failed:
            self.close()  # the state of the ranks is unknown
            raise RankError("\n".join(failed))
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.join()
        self._ends, self._processes = [], []

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def _answer(end: Connection, timeout: float) -> tuple[bool, Any]:
    try:
        if end.poll(timeout):
            answer: tuple[bool, Any] = end.recv()
            return answer
    except (EOFError, ConnectionResetError):
        return False, "the process died"
    return False, f"no answer after {timeout} s"


def join_group(rank: int, store: str) -> None:
    """Join the process group whose store is a file."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",  # never bound: the group exists before it is read
        "GLOO_SOCKET_IFNAME": "lo",
    }
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)


def _serve(rank: int, store: str, end: Connection) -> None:
    join_group(rank, store)
    while True:
        function, args = end.recv()
        try:
            torch.manual_seed(100 + rank)  # ranks get different seeds unless a function sets them
            answer = (True, function(rank, *args))
        except Exception:
            answer = (False, traceback.format_exc())
        end.send(answer)
