"""Tuning on validation: as many settings for every method, on a seed that is not reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.reproduce.grid import run_all
from examples.reproduce.methods import recipe
from examples.reproduce.recipe import Job, Recipe

SEED = 100
"""Seeds from here on are for tuning; reported seeds count from 0."""

Grid = Mapping[str, Sequence[Any]]

RATES = (5e-4, 1e-3, 2e-3, 5e-3)
GAIN_RATES = (1e-2, 2e-2, 5e-2, 1e-1)
ON_GRADIENT = (1e-8, 1e-7, 1e-6, 1e-5)
ON_UPDATE = (1e-3, 3e-3, 1e-2, 3e-2)
UNDER_SGD = (1e-3, 1e-2, 3e-2, 1e-1)
SCHEDULES = ("constant", "half")


def grid(base: Recipe) -> Grid:
    """Return the values to try, by field of the recipe or dotted name in the spec; four combinations.

    Methods with an intensity try four of them. HAT, which has none, tries two learning rates and two sparsity factors,
    methods without gates and those with units by share the same four learning rates.
    """
    if base.kind != "gates" or base.by_share or "plasticity" in base.spec:
        return {"lr": GAIN_RATES if base.kind == "frozen" else RATES}
    adjustment, regularization = base.spec["adjustment"], base.spec["regularization"]
    name = "alpha" if "alpha" in adjustment else "intensity"
    if name not in adjustment:
        if base.optimizer == "sgd":
            return {"lr": (0.05, 0.1), "regularization.factor": (0.1, 0.75)}
        factors = (0.75, 1.5) if "budget" in regularization else (2.5, 5.0)
        return {"lr": (5e-3, 8e-3), "regularization.factor": factors}
    if base.optimizer == "sgd":
        return {f"adjustment.{name}": UNDER_SGD}
    return {f"adjustment.{name}": ON_GRADIENT if adjustment.get("apply_to") == "gradient" else ON_UPDATE}


def with_values(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values, named as in `grid`."""
    for dotted, value in values.items():
        block, _, name = dotted.rpartition(".")
        base = base.but(spec={block: {name: value}}) if block else base.but(**{name: value})
    return base


def trials(stream: str, method: str) -> list[Job]:
    """Return the runs of a method's tuning: eight on stream A, each of the four under two schedules; else four.

    `hat_share` has eight more on A, with another limit of the factor of learning rates.
    """
    base = recipe(stream, method)
    values = dict(grid(base))
    if stream == "A":
        values["schedule"] = SCHEDULES if base.kind == "gates" and not base.by_share else ("constant", "linear")
        if method == "hat_share":
            values["plasticity.max_factor"] = (8.0, 3.0)
    combinations = product(*values.values())
    recipes = [with_values(base, dict(zip(values, combination, strict=True))) for combination in combinations]
    return [Job(stream, method, SEED, each, validate=True) for each in recipes]


def search(stream: str, method: str, runs: Path, data: Path | None, workers: int, console: Console) -> str:
    """Run the trials of a method; return validation accuracy and settings as text, best first."""
    jobs = trials(stream, method)
    results = run_all(jobs, runs, data, workers, console, f"tuning {method}")
    scores = [result["metrics"]["average_accuracy"] for result in results]
    ranked = sorted(zip(scores, jobs, strict=True), key=lambda pair: -pair[0])
    return "\n".join(f"{score:.4f} {json.dumps(asdict(job.recipe))}" for score, job in ranked)
