"""Run all mutations, or those whose rule or file holds a word; exit with the number that nobody noticed."""

from __future__ import annotations

import argparse
import sys
import time

from tests.zoo.mutations import doors, tracing, weights
from tests.zoo.mutations.run import load_libraries, result_of

MUTATIONS = (
    *tracing.OPERATIONS,
    *tracing.MOVES,
    *tracing.NORMS,
    *weights.USES,
    *weights.RATES,
    *weights.POLICIES,
    *doors.DOORS,
)


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each mutation; return how many were missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.mutations", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="a part of the rule's text or of the file's path")
    word = parser.parse_args(arguments).only
    wanted = [m for m in MUTATIONS if word in m.rule or word in m.file]
    load_libraries()
    missed = 0
    for mutation in wanted:
        begun = time.perf_counter()
        found = result_of(mutation)
        missed += not found.model
        seen = f"caught by {found.model}: {found.complaint}" if found.model else f"MISSED {found.broken}".rstrip()
        print(f"{mutation.rule} [{mutation.file}]\n  {seen} ({time.perf_counter() - begun:.0f} s)", flush=True)  # noqa: T201
    print(f"{len(wanted) - missed} of {len(wanted)} caught")  # noqa: T201
    return missed


if __name__ == "__main__":
    sys.exit(main())
