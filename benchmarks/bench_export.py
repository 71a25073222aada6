"""What a compact export saves: units, parameters, bytes and operations, and how far the logits move.

Each model has one finished task with random masks, half of the units on, and random norms, scales and heads. The
difference is the largest over the logits of 16 other inputs, relative to the largest logit, in single precision. Run it
with `python -m benchmarks.bench_export`; names of models as arguments choose some.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from benchmarks.export_models import SUBJECTS, build

SHARE = 0.5
"""Share of the units that the task uses."""


@dataclass(frozen=True)
class Comparison:
    """One exported model compared with its session.

    Attributes:
        report: Report of the compact export.
        bits: Whether the plain export is bit-identical to `session.use`.
        difference: Largest difference of the compact export's logits, relative to the largest logit.
        agree: Whether both predict the same class for every input.
        seconds: Duration of the compact export.
    """

    report: fh.ExportReport
    bits: bool
    difference: float
    agree: bool
    seconds: float


def finish(session: fh.Session, seed: int = 0, share: float = SHARE) -> None:
    """Finish task 0 with random masks."""
    draw = torch.Generator().manual_seed(seed)
    with session.task(0) as task, torch.no_grad():
        task.anneal(1, 1)
        for embedding in session.embeddings.values():
            embedding.copy_(share - torch.rand(embedding.shape, generator=draw))


def measure(name: str) -> Comparison:
    """Export one model both ways and compare."""
    subject = SUBJECTS[name]
    session = fh.attach(build(name), None, subject.inputs(1, seed=3))
    finish(session)
    x = subject.inputs(16, seed=4)
    with torch.no_grad(), session.use(0):
        used = logits(session.model.eval(), x)
    start = time.perf_counter()
    small, report = session.export(0, compact=True, report=True)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        plain, found = logits(session.export(0), x), logits(small, x)
    difference = float((found - used).abs().max() / used.abs().max())
    return Comparison(
        report, torch.equal(plain, used), difference, torch.equal(found.argmax(1), used.argmax(1)), seconds
    )


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits, also of models with further outputs."""
    out: Any = model(x)
    found: Tensor = getattr(out, "logits", out)
    return found


def row(name: str, found: Comparison) -> str:
    """Return a line of the table."""
    report = found.report
    stay = sum(n for reasons in report.kept.values() for n in reasons.values())
    megabytes = [f"{n / 2**20:.1f}" for n in report.bytes]
    sizes = [
        f"{report.parameters.before / 1e6:.2f} → {report.parameters.after / 1e6:.2f} M",
        f"{megabytes[0]} → {megabytes[1]} MiB",
        f"{report.flops.before / 1e6:.0f} → {report.flops.after / 1e6:.0f} M ({percent(*report.flops)})",
    ]
    cells = [
        name,
        f"{sum(report.removed.values()):,}",
        f"{stay:,}",
        *sizes,
        f"{found.difference:.0e}" if found.difference else "0",
    ]
    return f"| {' | '.join(cells)} |"


def percent(before: int, after: int) -> str:
    """Return the share that is left."""
    return f"{after / before:.0%}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="some of the models; all when left out")
    parser.add_argument("--why", action="store_true", help="also say why units stay")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | units removed | off, kept | parameters | bytes | FLOPs | difference |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models or SUBJECTS:
        found = measure(name)
        print(row(name, found), "" if found.bits and found.agree else "NOT THE SAME", flush=True)
        if arguments.why:
            print(f"{found.seconds:.1f} s\n{found.report}")


if __name__ == "__main__":
    main()
