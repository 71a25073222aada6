"""How errors about a saved session list what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

SHOWN = 10
"""How many problems an error names."""


def listed(problems: Sequence[str]) -> str:
    """Return problems as lines of an error message: the first ones, and how many more there are."""
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "\n  " + "\n  ".join(problems[:SHOWN]) + more


def validation_problems(error: ValidationError | RecursionError) -> list[str]:
    """Return what pydantic found wrong, each with its place."""
    found = error.errors(include_url=False, include_input=False) if isinstance(error, ValidationError) else []
    return [f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in found] or ["it is nested too deeply"]
