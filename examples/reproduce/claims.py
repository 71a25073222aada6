"""The qualitative claims of the papers, each with its figure, its interval and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from examples.reproduce.statistics import Interval, paired
from examples.reproduce.tables import Row, difference

Rows = Mapping[str, Row]

FEWEST_SEEDS = 3
"""With fewer seeds no verdict is given, except on what a single run can refute."""


@dataclass(frozen=True)
class Claim:
    """One claim on one stream.

    Attributes:
        text: What is claimed.
        needs: Methods it is about; without them it is left out.
        judge: Returns the figure as text, and whether it held.
        by_task: Whether it looks at single tasks, which are not kept of the runs of an earlier page.
    """

    text: str
    needs: tuple[str, ...]
    judge: Callable[[Rows], tuple[str, bool]]
    by_task: bool = False


def _points(value: Interval) -> str:
    if math.isinf(value.half):
        return f"{100 * value.mean:+.1f} points, one seed"
    return f"{100 * value.mean:+.1f} points ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def _difference(rows: Rows, one: str, other: str, metric: str = "average_accuracy") -> Interval:
    found = difference(rows[one], rows[other], metric)
    if found is None:
        raise ValueError(f"{one} and {other} have no {metric} in common")
    return found


def zero_forgetting(rows: Rows) -> tuple[str, bool]:
    """Hard HAT never changes an earlier task's logits."""
    hard = [row for row in rows.values() if row.hard]
    count = sum(len(row.seeds) for row in hard)
    return f"{count} runs, every earlier logit equal: {all(row.bit_identical for row in hard)}", all(
        row.bit_identical for row in hard
    )


def runs_out(method: str) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of: capacity below 6 % after 5 tasks, about 0 at the end."""

    def judge(rows: Rows) -> tuple[str, bool]:
        fifth, last = rows[method].look("capacity", 4) or 0.0, rows[method].look("capacity") or 0.0
        return f"{100 * fifth:.1f} % after 5 tasks, {100 * last:.2g} % at the end", fifth < 0.06 and last < 0.01

    return judge


def learns_less(rows: Rows) -> tuple[str, bool]:
    """HAT as published learns late tasks worse than fine-tuning does."""
    gap = _difference(rows, "hat", "finetune", "learning_accuracy")
    return "learning accuracy " + _points(gap), gap.high < 0


def beats(one: str, other: str) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of: one method's average accuracy at the end is above another's."""

    def judge(rows: Rows) -> tuple[str, bool]:
        gap = _difference(rows, one, other)
        return _points(gap), gap.low > 0

    return judge


def ada_not_early(rows: Rows) -> tuple[str, bool]:
    """AdaHAT is no better than HAT over the first 5 tasks."""
    gap = paired(rows["adahat"].after(5), rows["hat"].after(5))
    return "after 5 tasks " + _points(gap), gap.low <= 0


def trades(ada: str, hat: str) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of: AdaHAT gains learning accuracy and loses stability against HAT."""

    def judge(rows: Rows) -> tuple[str, bool]:
        learning = _difference(rows, ada, hat, "learning_accuracy")
        transfer = _difference(rows, ada, hat, "backward_transfer")
        return f"learning {_points(learning)}, BWT {_points(transfer)}", learning.low > 0 and transfer.high < 0

    return judge


def fine_tuning_worst(rows: Rows) -> tuple[str, bool]:
    """Fine-tuning forgets most of all methods."""
    worst = {name: row.interval("backward_transfer") for name, row in rows.items()}
    means = {name: value.mean for name, value in worst.items() if value is not None}
    name = min(means, key=means.__getitem__)
    return (
        f"lowest BWT: `{name}` {100 * means[name]:+.1f}; `finetune` {100 * means['finetune']:+.1f}",
        name == "finetune",
    )


def no_difference(rows: Rows) -> tuple[str, bool]:
    """On a short split stream HAT, AdaHAT and FG-AdaHAT do not differ."""
    gaps = [_difference(rows, name, "hat") for name in ("adahat", "fg_icu")]
    return "; ".join(_points(gap) for gap in gaps), all(gap.low <= 0 <= gap.high for gap in gaps)


def reaches(method: str, aim: float) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of whether a method's mean accuracy reaches an aim, in percent."""

    def judge(rows: Rows) -> tuple[str, bool]:
        found = rows[method].interval("average_accuracy")
        return ("", False) if found is None else (found.text(), 100 * found.mean >= aim)

    return judge


def within(points: float) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of: units by share stay so many points at most below a network for each task."""

    def judge(rows: Rows) -> tuple[str, bool]:
        gap = _difference(rows, "hat_share", "independent")
        return _points(gap), 100 * gap.mean >= -points

    return judge


def above_chance(chance: float) -> Callable[[Rows], tuple[str, bool]]:
    """Return a judge of: no task of any seed ends within ten points of chance."""

    def judge(rows: Rows) -> tuple[str, bool]:
        lowest = rows["hat_share"].lowest()
        return f"lowest accuracy of a task {100 * lowest:.1f} %", lowest > chance + 0.1

    return judge


def near(points: float) -> Claim:
    """Return the aim that units by share stay near a network for each task."""
    text = f"Aim: `hat_share` within {points:g} point{'' if points == 1 else 's'} of `independent`"
    return Claim(text, ("hat_share", "independent"), within(points))


ABOVE_FROZEN = Claim("Aim: `hat_share` > `frozen`", ("hat_share", "frozen"), beats("hat_share", "frozen"))
AIMS = {
    "S": (ABOVE_FROZEN,),
    "A": (near(1.5), ABOVE_FROZEN),
    "B": (near(2.5), ABOVE_FROZEN),
    "C": (near(1.0), Claim("Aim: no task of `hat_share` at chance", ("hat_share",), above_chance(0.5), by_task=True)),
}
"""What this library set out to reach, by stream."""

LONG = (
    Claim(
        "HAT as published: capacity < 6 % after 5 tasks, 0 at the end", ("hat_published",), runs_out("hat_published")
    ),
    Claim("The same of HAT tuned", ("hat",), runs_out("hat")),
    Claim(
        "AdaHAT > HAT at the end, both as published",
        ("adahat_published", "hat_published"),
        beats("adahat_published", "hat_published"),
    ),
    Claim("AdaHAT > HAT at the end, both tuned", ("adahat", "hat"), beats("adahat", "hat")),
    Claim("HAT learns less than fine-tuning", ("hat", "finetune"), learns_less),
    Claim("AdaHAT is not better than HAT after 5 tasks", ("adahat", "hat"), ada_not_early, by_task=True),
    Claim(
        "AdaHAT trades stability for plasticity, both as published",
        ("adahat_published", "hat_published"),
        trades("adahat_published", "hat_published"),
    ),
    Claim("The same of both tuned", ("adahat", "hat"), trades("adahat", "hat")),
    Claim("FG-AdaHAT (ICU) > AdaHAT", ("fg_icu", "adahat"), beats("fg_icu", "adahat")),
    Claim("Fine-tuning has the lowest BWT", ("finetune",), fine_tuning_worst),
    Claim("`hat_preset` > HAT tuned", ("hat_preset", "hat"), beats("hat_preset", "hat")),
    Claim("`fg_icu_update` > `hat_preset`", ("fg_icu_update", "hat_preset"), beats("fg_icu_update", "hat_preset")),
)
SHORT = (
    Claim("HAT ~ AdaHAT ~ FG-AdaHAT: no saturation", ("hat", "adahat", "fg_icu"), no_difference),
    Claim("Fine-tuning has the lowest BWT", ("finetune",), fine_tuning_worst),
)
SHARES = tuple(
    Claim(f"`{one}` > `{other}`", (one, other), beats(one, other))
    for one, other in (
        ("hat_share", "hat_preset"),
        ("hat_share", "hat_share_no_gains"),
        ("hat_share_no_gains", "hat_share_small_step"),
        ("hat_share_small_step", "hat_learnt_rates"),
        ("hat_learnt_rates", "hat_preset"),
        ("adahat_share", "hat_share"),
        ("fg_icu_share", "hat_share"),
        ("adahat_share_no_gains", "hat_share_no_gains"),
        ("fg_icu_share_no_gains", "hat_share_no_gains"),
    )
)
"""What units by share are worth, gains, and larger steps; to learn the mask; and what soft rates are."""

EVERYWHERE = (Claim("HAT forgets nothing: logits bit-identical", (), zero_forgetting),)


def judged(rows: Rows, stream: str, *, split: bool) -> str:
    """Return the claims of a stream, and its aims, as a Markdown table."""
    claims = [*EVERYWHERE, *AIMS.get(stream, ()), *SHARES, *(SHORT if split else LONG)]
    claims = [claim for claim in claims if all(_has(rows.get(name), claim) for name in claim.needs)]
    lines = ["| claim | found | verdict |", "|---|---|---|"]
    for claim in claims:
        figure, held = claim.judge(rows)
        seeds = min((len(rows[name].seeds) for name in claim.needs), default=FEWEST_SEEDS)
        few = seeds < FEWEST_SEEDS and claim not in EVERYWHERE
        verdict = f"open, seeds: {seeds}" if few else "held" if held else "not held"
        lines.append(f"| {claim.text} | {figure} | {verdict} |")
    return "\n".join(lines) + "\n"


def _has(row: Row | None, claim: Claim) -> bool:
    return row is not None and not (claim.by_task and row.earlier)
