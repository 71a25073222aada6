"""What a save holds for those who inspect the run without its model: plan, capacity after each task, the last proof.

In the manifest it is stored under the key `about`, as in the folders of earlier releases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.tasks.history import AfterTask
from fgadahat_hooks.verify import VerifyReport


@dataclass(frozen=True)
class RunMetadata:
    """What can be shown of a run beside its masks and importances.

    Attributes:
        plan: What is gated where, and how every tensor is protected; None if it was not saved.
        after: Capacity and rates after each finished task, in order of the tasks; may be empty.
        verified: What the last proof found; None if there was none.
    """

    plan: Plan | None = None
    after: tuple[AfterTask, ...] = ()
    verified: VerifyReport | None = None


def to_json(metadata: RunMetadata) -> dict[str, Any]:
    """Return the metadata as JSON."""
    found: dict[str, Any] = TypeAdapter(RunMetadata).dump_python(metadata, mode="json")
    return found


def from_json(value: Any) -> RunMetadata:
    """Read what `to_json` returned; empty metadata for None, which earlier releases wrote.

    Raises:
        pydantic.ValidationError: It is something else.
    """
    return RunMetadata() if value is None else TypeAdapter(RunMetadata).validate_python(value)
