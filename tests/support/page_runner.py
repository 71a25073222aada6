"""Run the scripts of documentation pages, each in its own process, forked with torch and the library already imported.

Importing them takes seconds; a fork server does it once for all pages. The server runs no operation itself, so that a
page starts from the same state as in a new interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # the first step of any optimizer loads it

import fgadahat_hooks  # noqa: F401  # loaded here so that the fork server has it

THREADS = 1
_BROKEN = 1
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])


class Done(NamedTuple):
    """Exit code of a script, and all output of script and interpreter."""

    returncode: int
    output: str


def run(code: str, name: str, folder: Path) -> Done:
    """Run a script in an empty folder.

    Args:
        code: The script.
        name: The file name that tracebacks show.
        folder: Where to write the script, its empty working folder and its output.
    """
    file, work, output = folder / name, folder / "work", folder / "output.txt"
    file.write_text(code, encoding="utf-8")
    work.mkdir()
    process = _SERVER.Process(target=_child, args=(file, work, output))
    process.start()
    process.join()
    written = output.read_text(encoding="utf-8", errors="replace") if output.exists() else "the process did not start"
    return Done(_BROKEN if process.exitcode is None else process.exitcode, written)


def _child(file: Path, work: Path, output: Path) -> None:
    """Run the script in the child process."""
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(target, stream.fileno())
    os.chdir(work)
    sys.argv = [str(file)]
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    warnings.resetwarnings()
    warnings.simplefilter("error")  # also warnings from a page's own lines
    try:
        runpy.run_path(str(file), run_name="__main__")
    except Exception:  # any error of the page is a result to report
        traceback.print_exc()
        sys.exit(_BROKEN)
