"""A saved run as tables with small bars."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fgadahat_hooks.cli.output import new_table, printable, stdout
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.summary.summary import RunSummary

_WIDTH = 12
"""Characters of a full bar."""
_HEIGHTS = "▁▂▃▄▅▆▇█"


def print_run(summary: RunSummary) -> None:
    """Print the model and versions, the tasks, and the units of each layer."""
    console = stdout()
    made_by = f"{summary.model}  (fgadahat-hooks {summary.library}, torch {summary.torch})"
    console.print(printable(made_by), style="bold", soft_wrap=True)
    console.print(printable(_spec_line(summary.spec)), soft_wrap=True)
    bars = Bars(console)
    console.print()
    console.print(_task_table(summary, bars))
    console.print()
    if summary.tasks:
        console.print(_layer_table(summary, bars))
        console.print(bars.legend, style="dim")
        console.print()
    for task, notes in summary.notes.items():
        for note in notes:
            console.print(printable(f"Task {task!r}: {note}"), style="yellow", soft_wrap=True)
    if summary.interrupted is not None:
        text = (
            f"Task {summary.interrupted!r} is not finished: session.task({summary.interrupted!r}, resume=True) goes on."
        )
        console.print(text, style="yellow", soft_wrap=True)
    console.print(_verification(summary), soft_wrap=True)


class Bars:
    """Bars of block characters, or of ASCII if the console cannot encode them."""

    def __init__(self, console: Console) -> None:
        """Choose the characters by the console's encoding."""
        self._unicode = console.encoding.startswith("utf")
        self.legend = (
            "each task's share of a layer, one character a task: ▁ under 1/8 ... █ above 7/8, · none"
            if self._unicode
            else "each task's share of a layer, one digit a task: 0 under 1/10 ... 9 above 9/10, . none"
        )

    def bar(self, share: float) -> str:
        """Return a bar whose filled part is the share, 0 to 1."""
        full = round(share * _WIDTH)
        on, off = ("█", "░") if self._unicode else ("#", ".")
        return on * full + off * (_WIDTH - full)

    def heights(self, shares: list[float]) -> str:
        """Return one character for each share, higher for larger shares."""
        return "".join(map(self._height, shares))

    def _height(self, share: float) -> str:
        if share == 0:
            return "·" if self._unicode else "."
        steps = _HEIGHTS if self._unicode else "0123456789"
        return steps[min(int(share * len(steps)), len(steps) - 1)]


def _spec_line(spec: AttachSpec) -> str:
    adjustment = spec.adjustment
    parts: list[str] = [adjustment.mode]
    parts += [f"{key} {getattr(adjustment, key):g}" for key in ("intensity", "alpha") if hasattr(adjustment, key)]
    parts += [f"on the {adjustment.apply_to}", f"targets {', '.join(spec.gates.targets)}"]
    parts += [f"exclude {', '.join(spec.gates.exclude)}"] if spec.gates.exclude else []
    parts += [f"s_max {spec.gates.s_max:g}", f"sparsity {spec.regularization.factor:g}"]
    parts += [f"budget {spec.regularization.budget:g}"] if spec.regularization.budget else []
    if adjustment.mode == "fg_adahat":
        parts += [f"importance {spec.importance.type}", f"summation {spec.summation.strategy}"]
    return "; ".join([*parts, f"heads {spec.heads.mode}", f"norms {spec.norms}", f"rest {spec.rest}"])


def _task_table(summary: RunSummary, bars: Bars) -> Table:
    table = new_table(("task", "capacity left", "units used so far", ""), right=(1, 3))
    for task, used in zip(summary.tasks, summary.use_after(), strict=True):
        capacity = summary.capacity.get(task)
        table.add_row(
            printable(str(task)), "-" if capacity is None else f"{capacity:.1%}", bars.bar(used), f"{used:.0%}"
        )
    if not summary.tasks:
        table.add_row("no task is finished", "-", bars.bar(0.0), "0%", style="dim")
    return table


def _layer_table(summary: RunSummary, bars: Bars) -> Table:
    table = new_table(("layer", "units", "each task", "all tasks", ""), right=(1, 4))
    use = summary.unit_use()
    for layer, units in summary.layers.items():
        together = _share_of_any_task(summary, layer)
        shares = bars.heights([use[layer][task] for task in summary.tasks])
        table.add_row(printable(layer), str(units), Text(shares, style="cyan"), bars.bar(together), f"{together:.0%}")
    return table


def _share_of_any_task(summary: RunSummary, layer: str) -> float:
    masks = [summary.masks[task][layer] for task in summary.tasks]
    used = masks[0].clone()
    for mask in masks[1:]:
        used |= mask
    return float(used.double().mean())


def _verification(summary: RunSummary) -> Text:
    report = summary.verified
    if report is None:
        return Text("Not verified: session.verify() before session.save() proves that nothing is forgotten.", "dim")
    missing: list[TaskId] = [task for task in summary.tasks if task not in report.tasks]
    later = f"\nLearnt after that proof: {', '.join(map(repr, missing))}." if missing else ""
    colour = "red" if report.leaks else "yellow" if report.by_choice or missing else "green"
    return Text(f"Verified. {report}{later}", colour)
