"""The compact JSON beside a page: what is kept of each run, also of those made for an earlier page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.reproduce.run import Result
from examples.reproduce.tables import Row

BY_TASK = ("after_each_task", "at_the_end")
"""What is kept of the matrix: the mean over the tasks seen, after each task, and each task's accuracy at the end."""


def compact(rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return of each method its recipe and, for each seed, the metrics and what the run proved."""
    return {name: _method(row) for name, row in rows.items()}


def as_text(entries: Mapping[str, Any]) -> str:
    """Return JSON with a line for each field; a list of numbers is one line."""
    text = json.dumps(entries, indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def earlier(stream: str, folder: Path, made: Sequence[Result]) -> list[Result]:
    """Return the runs of the methods that a page has and of which no run was made for this one.

    They have the numbers of the compact JSON. Those of another version of torch, or without averages after each task,
    are marked as earlier ones.
    """
    path = folder / f"{stream}.json"
    if not path.is_file():
        return []
    methods = {result["method"] for result in made}
    entries = {name: entry for name, entry in json.loads(path.read_text()).items() if name not in methods}
    torches = {result["versions"]["torch"] for result in made}
    return [
        _result(stream, name, int(seed), entry, run) | {"earlier": _earlier(entry, torches)}
        for name, entry in entries.items()
        for seed, run in entry["runs"].items()
    ]


def _earlier(entry: Mapping[str, Any], torches: set[str]) -> bool:
    whole = all("after_each_task" in run for run in entry["runs"].values())
    return bool(entry.get("earlier")) or entry["versions"]["torch"] not in torches or not whole


def _method(row: Row) -> dict[str, Any]:
    first = row.results[row.seeds[0]]
    entry = {"recipe": first["settings"]["recipe"], "versions": first["versions"]}
    if row.earlier:
        entry["earlier"] = True
    if (used := row.look("units_used")) is not None:
        entry["units_used"] = float(f"{used:.3g}")
    return {**entry, "runs": {seed: _run(row.results[seed]) for seed in row.seeds}}


def _run(result: Result) -> dict[str, Any]:
    rounded = {name: None if value is None else round(value, 5) for name, value in result["metrics"].items()}
    kept = {
        **rounded,
        "identities": result["identities"],
        "bit_identical": result["bit_identical"],
        "capacity": [float(f"{look['capacity']:.3g}") for look in result["looks"] if look],
        "cpu_seconds": round(result["cpu_seconds"], 1),
    }
    if result["matrix"] is None:
        kept |= {name: result[name] for name in BY_TASK if name in result}
    else:
        kept["after_each_task"] = [_mean(row) for row in result["matrix"]]
        kept["at_the_end"] = [round(value, 5) for value in result["matrix"][-1]]
    return kept


def _mean(row: Sequence[float | None]) -> float | None:
    seen = [value for value in row if value is not None]
    return round(sum(seen) / len(seen), 5) if seen else None


def _result(stream: str, method: str, seed: int, entry: Mapping[str, Any], run: Mapping[str, Any]) -> Result:
    apart = ("identities", "bit_identical", "capacity", "cpu_seconds", *BY_TASK)
    looks = [{"capacity": value} for value in run["capacity"]]
    if looks and "units_used" in entry:
        looks[-1]["units_used"] = entry["units_used"]
    return {
        "method": method,
        "settings": {"stream": stream, "seed": seed, "recipe": entry["recipe"]},
        "versions": entry["versions"],
        "matrix": None,
        "metrics": {name: value for name, value in run.items() if name not in apart},
        "looks": looks,
        **{name: run[name] for name in ("identities", "bit_identical", "cpu_seconds", *BY_TASK) if name in run},
    }
