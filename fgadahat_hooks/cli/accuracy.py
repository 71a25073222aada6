"""Read an accuracy matrix from a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from fgadahat_hooks.errors import BadCallError


def read_accuracy(file: Path) -> Any:
    """Read rows of accuracies, 0 to 1; JSON null and an empty CSV cell mean that nothing was measured.

    Raises:
        BadCallError: The file is not JSON or CSV of that form.
        OSError: The file cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise BadCallError(f"Expected accuracies in a file that ends in .json or .csv, but got {file.name!r}.")
    text = file.read_text(encoding="utf-8-sig")
    if suffix == ".csv":
        return [_parse_row(row, number, file) for number, row in enumerate(csv.reader(text.splitlines()), 1) if row]
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadCallError(f"Expected valid JSON in {str(file)!r}, but it is not ({error}).") from None


def _parse_row(cells: list[str], number: int, file: Path) -> list[float | None]:
    try:
        return [float(cell) if cell.strip() else None for cell in cells]
    except ValueError as error:
        raise BadCallError(
            f"Expected numbers in {str(file)!r}, but line {number} has another cell ({error}). Leave out headers; a "
            "cell without a number stays empty."
        ) from None
