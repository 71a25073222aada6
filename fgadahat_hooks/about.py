"""What a saved run tells those who look at it without the model: plan, capacity after each task, the last proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.history import AfterTask, history
from fgadahat_hooks.plan import Plan, make_plan
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.verify import VerifyReport


@dataclass(frozen=True)
class About:
    """What there is to tell beside masks and importances.

    Attributes:
        plan: What is gated where, and how every tensor is protected; None if nobody wrote it down.
        after: For each finished task, in their order, what was left when it had ended; may be empty.
        verified: What the last proof found; None if there was none.
    """

    plan: Plan | None = None
    after: tuple[AfterTask, ...] = ()
    verified: VerifyReport | None = None


def about(runtime: Runtime) -> About:
    """Look at a session whose model has been traced."""
    return About(plan_of(runtime), tuple(history(runtime).values()), runtime.verified)


def plan_of(runtime: Runtime) -> Plan:
    """Return the plan that is in force."""
    adjusting = [c.spec for c in runtime.callbacks.items if isinstance(c, GradientAdjustCallback)]
    return make_plan(runtime.model, runtime.graph, runtime.policies, adjusting[0] if adjusting else None)


def to_json(known: About) -> dict[str, Any]:
    """Return it as JSON."""
    found: dict[str, Any] = TypeAdapter(About).dump_python(known, mode="json")
    return found


def from_json(value: Any) -> About:
    """Read what `to_json` returned; None, as earlier releases wrote, tells nothing.

    Raises:
        pydantic.ValidationError: It is something else.
    """
    return About() if value is None else TypeAdapter(About).validate_python(value)
