"""Continual learning on real data: run a stream's methods, then write its tables and figures.

    python -m examples.reproduce --stream S
    python -m examples.reproduce --stream A --data FOLDER --jobs 2
    python -m examples.reproduce --stream A --tune hat

A run that has been made is read from its file; stop and start again as you like.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from examples.reproduce import report
from examples.reproduce.data import download, find_fashion_mnist
from examples.reproduce.grid import cores, finished, run_all
from examples.reproduce.methods import jobs_of
from examples.reproduce.streams import STREAMS
from examples.reproduce.tune import search


def parser() -> argparse.ArgumentParser:
    """Return the command line's options."""
    out = argparse.ArgumentParser(
        prog="reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--stream", choices=[*STREAMS, "all"], default="S", help="which stream (default: S)")
    out.add_argument("--methods", nargs="+", help="only these methods (default: all of the stream)")
    out.add_argument("--seeds", type=int, help="how many seeds, from 0 (default: 5, and 1 on D)")
    out.add_argument("--tasks", type=int, help="only the first tasks of the stream")
    out.add_argument("--data", type=Path, help="folder with Fashion-MNIST's four .gz files, or torchvision's root")
    out.add_argument("--download", action="store_true", help="let torchvision fetch Fashion-MNIST into --data first")
    out.add_argument("--jobs", type=int, default=cores(), help="processes (default: one a core)")
    out.add_argument("--runs", type=Path, default=Path("build/reproduce"), help="folder of the runs' files")
    out.add_argument("--out", type=Path, help="folder of tables and figures (default: the one of the runs)")
    out.add_argument("--report", action="store_true", help="run nothing: tables and figures of the runs there are")
    out.add_argument("--tune", metavar="METHOD", help="tune this method on validation instead: 8 settings on A, else 4")
    return out


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    options = parser().parse_args(arguments)
    console = Console(width=None if Console().is_terminal else 160)
    if options.download:
        download(options.data or Path("build/data"))
        options.data = options.data or Path("build/data")
    for name in list(STREAMS) if options.stream == "all" else [options.stream]:
        data = None if name == "S" or options.report else find_fashion_mnist(options.data)
        if options.tune:
            console.print(search(name, options.tune, options.runs, data, options.jobs, console))
            continue
        begin = time.perf_counter()
        jobs = jobs_of(name, options.methods, options.seeds, options.tasks)
        if options.report:
            results = finished(jobs, options.runs)
        else:
            results = run_all(jobs, options.runs, data, options.jobs, console, f"stream {name}")
        if not results:
            console.print(f"Stream {name} has no runs yet.")
            continue
        report.write(results, name, options.out or options.runs, keep=options.tasks is None)
        console.print(report.screen(results, name))
        console.print(f"Stream {name} took {time.perf_counter() - begin:.0f} s this time.", style="dim")


if __name__ == "__main__":
    main()
