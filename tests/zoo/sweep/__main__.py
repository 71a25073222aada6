"""The command line of the sweep."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.zoo.sweep.catalogue import catalogue
from tests.zoo.sweep.page import PAGE, write_page
from tests.zoo.sweep.row import FOLDER, Row, load
from tests.zoo.sweep.runner import Runner, examine_one

BUDGET = 1800
"""Seconds for one model."""


def main(arguments: list[str] | None = None) -> int:
    """Examine models, write the page, return the exit status: 1 if anything leaked or failed."""
    options = _parser().parse_args(arguments)
    if options.one is not None:
        examine_one(options.one, options.folder)
    subjects = catalogue(options.only)
    if not subjects:
        print(f"No model fits '{options.only}'.", file=sys.stderr)  # noqa: T201
        return 2
    if not options.page_only:
        Runner(options.folder, options.jobs, options.budget, options.fresh).run(list(subjects.values()))
    everything = catalogue()
    rows = [row for name in everything if (row := load(name, options.folder)) is not None]
    write_page(rows, everything, options.page)
    return _report([row for row in rows if row.name in subjects], len(subjects))


def _report(rows: list[Row], wanted: int) -> int:
    failed = [row for row in rows if not row.passed]
    for row in failed:
        for problem in [*row.leaks, *row.errors]:
            print(f"{row.name}: {problem}", file=sys.stderr)  # noqa: T201
    print(f"{len(rows)} of {wanted} models examined, {len(failed)} failed.")  # noqa: T201
    return 1 if failed or len(rows) < wanted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.sweep", description=__doc__)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names that fit a glob, or contain this")
    parser.add_argument("--fresh", action="store_true", help="examine again what has been examined")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; the largest run alone (default 1)")
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"seconds for one model (default {BUDGET})")
    parser.add_argument("--page-only", action="store_true", help="write the page from what is there")
    parser.add_argument("--page", type=Path, default=PAGE, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where rows are kept (default .zoo/)")
    parser.add_argument("--one", metavar="NAME", help="examine one model in this process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
