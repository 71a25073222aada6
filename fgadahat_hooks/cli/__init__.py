"""The command line: `fgadahat-hooks`, or `python -m fgadahat_hooks`.

One command a file, with its helpers beside it; to add one, write its function and list it in `app.py`. A command parses
arguments and prints; what it computes lives in the library. Heavy imports belong inside the command's function.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: status 0 on success, 2 for a wrong call or spec, 1 for any other failure."""
    try:
        from fgadahat_hooks.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich", "typer"):
            raise
        sys.stderr.write(f"fgadahat-hooks needs the package {error.name}: pip install 'fgadahat-hooks[cli]'\n")
        sys.exit(1)
    app(prog_name="fgadahat-hooks")
