"""What a saved run tells those who look at it without the model: plan, capacity after each task, the last proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.tasks.history import AfterTask
from fgadahat_hooks.verify import VerifyReport


@dataclass(frozen=True)
class RunMetadata:
    """What there is to tell beside masks and importances.

    Attributes:
        plan: What is gated where, and how every tensor is protected; None if nobody wrote it down.
        after: For each finished task, in their order, what was left when it had ended; may be empty.
        verified: What the last proof found; None if there was none.
    """

    plan: Plan | None = None
    after: tuple[AfterTask, ...] = ()
    verified: VerifyReport | None = None


def to_json(known: RunMetadata) -> dict[str, Any]:
    """Return it as JSON."""
    found: dict[str, Any] = TypeAdapter(RunMetadata).dump_python(known, mode="json")
    return found


def from_json(value: Any) -> RunMetadata:
    """Read what `to_json` returned; None, as earlier releases wrote, tells nothing.

    Raises:
        pydantic.ValidationError: It is something else.
    """
    return RunMetadata() if value is None else TypeAdapter(RunMetadata).validate_python(value)
