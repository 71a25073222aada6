"""Run the cells that are missing, and print the tables or write the page."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.robust.cells import cells
from benchmarks.robust.kinds import KINDS, available
from benchmarks.robust.page import page
from benchmarks.robust.rows import collect
from benchmarks.robust.store import ALONE, Run, compute_missing
from benchmarks.robust.tables import tables


def main() -> None:
    """Run the cells that are missing, and print the tables or write the page."""
    asked = arguments()
    kinds = [kind for kind in KINDS if any(word in kind for word in asked.only)]
    here = [kind for kind in kinds if available(kind)]
    if here != kinds:
        print("Fashion-MNIST is not on this machine (Debian: apt-get install dataset-fashion-mnist). Left out:")
        print("; ".join(kind for kind in kinds if kind not in here))
    wanted = [cell for cell in cells(asked.seed) if cell.kind in here]
    if not asked.table:
        runs = [Run(cell, how) for cell in wanted for how in (ALONE, *cell.specs())]
        compute_missing(runs, asked.jobs, asked.validation)
    found = collect(wanted, asked.validation)
    if asked.write is None:
        print(tables(found))
    else:
        asked.write.write_text(page(found), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robust", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[""], help="words of the kinds to run: bert, fashion, ...")
    parser.add_argument("--seed", type=int, default=410, help="first seed of models and batches")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--validation", action="store_true", help="judge by a fifth of the training samples")
    parser.add_argument("--table", action="store_true", help="compute nothing; show what is there")
    parser.add_argument("--write", type=Path, help="write the page to this file instead of printing tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
