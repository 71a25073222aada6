"""The command line: `fgadahat-hooks`, or `python -m fgadahat_hooks`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process: status 0 if all is well, 2 for a wrong call or spec, else 1."""
    try:
        from fgadahat_hooks.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich", "typer"):
            raise
        sys.stderr.write(f"fgadahat-hooks needs the package {error.name}: pip install 'fgadahat-hooks[cli]'\n")
        sys.exit(1)
    app(prog_name="fgadahat-hooks")
