"""Where the files of this project are, and what its pyproject.toml says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import tomli

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fgadahat_hooks"
ADAPTERS = ROOT / "adapters"


def package_files(pattern: str = "*.py") -> dict[str, Path]:
    """Map each file of the package, by its installed path, to its file in the tree, adapters where they really are."""
    own = (p for p in PACKAGE.rglob(pattern) if ADAPTERS not in p.resolve().parents)
    files = {p.relative_to(ROOT).as_posix(): p for p in own}
    files |= {f"fgadahat_hooks/adapters/{p.relative_to(ADAPTERS).as_posix()}": p for p in ADAPTERS.rglob(pattern)}
    return dict(sorted(files.items()))


@cache
def pyproject() -> dict[str, Any]:
    """Read pyproject.toml."""
    content: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return content
