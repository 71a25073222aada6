"""The page: a run summary rendered with the template."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from fgadahat_hooks.report.charts import capacity_chart, importance_rows, learning_chart
from fgadahat_hooks.report.formatting import break_at_dots, counted, number, percent, points
from fgadahat_hooks.report.maps import accuracy_map, overlap_map, rate_map, reuse_map, use_map
from fgadahat_hooks.report.palette import LEVELS, css
from fgadahat_hooks.report.plan_tables import plan_tables
from fgadahat_hooks.report.tiles import tiles
from fgadahat_hooks.summary.accuracy_summary import accuracy_summary
from fgadahat_hooks.summary.summary import RunSummary

if TYPE_CHECKING:
    from jinja2 import Environment


def page(run: RunSummary) -> str:
    """Return the report of a run as HTML."""
    summary = accuracy_summary(run.accuracy)
    names = [str(task) for task in run.tasks]
    template = _environment().get_template("page.html")
    return template.render(
        run=run,
        names=names,
        short=run.model.rpartition(".")[2],
        facts=_facts(run),
        tiles=tiles(run, summary),
        summary=summary,
        accuracy=accuracy_map(run, names),
        learning=learning_chart(summary, names),
        capacity=capacity_chart(run),
        after_each=_after_each_task(run, names),
        use=use_map(run, names),
        overlap=overlap_map(run, names),
        reuse=reuse_map(run, names),
        notes=[(name, note) for name, task in zip(names, run.tasks, strict=True) for note in run.notes.get(task, ())],
        importance=importance_rows(run),
        rates=rate_map(run, names),
        plan=None if run.plan is None else plan_tables(run.plan),
        spec=json.dumps(run.spec.model_dump(mode="json"), indent=2),
    )


def _after_each_task(run: RunSummary, names: list[str]) -> list[tuple[str, str, str]]:
    rows = zip(names, run.tasks, run.use_after(), strict=True)
    return [(name, percent(run.capacity.get(task)), percent(used)) for name, task, used in rows]


def _facts(run: RunSummary) -> list[tuple[str, str]]:
    """Return the main values of the spec, and the versions that made the run."""
    spec = run.spec
    facts = [
        ("adjustment", f"{spec.adjustment.mode}, applied to the {spec.adjustment.apply_to}"),
        ("gated layers", f"{counted(len(run.layers), 'layer')}, {counted(sum(run.layers.values()), 'unit')}"),
        ("sparsity", f"factor {spec.regularization.factor:g}, budget {spec.regularization.budget:g}"),
        ("heads, norms, rest", f"{spec.heads.mode}, {spec.norms}, {spec.rest}"),
        ("versions", f"fgadahat_hooks {run.library}, torch {run.torch}"),
    ]
    if run.summed_importance:
        facts.insert(1, ("importance", f"{spec.importance.type}, summation {spec.summation.strategy}"))
    if run.interrupted is not None:
        facts.append(("not finished", f"task {run.interrupted}; nothing of it is shown here"))
    return facts


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("fgadahat_hooks.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "number": number,
        "counted": counted,
        "break_at_dots": break_at_dots,
    }
    environment.globals |= {"colours": css(), "levels": range(0, LEVELS, 3)}
    return environment
