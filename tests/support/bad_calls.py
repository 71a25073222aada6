"""Wrong calls of the public API, and the message of each."""

from __future__ import annotations

from tests.support.bad_attach_calls import ATTACH
from tests.support.bad_step_calls import STEPS
from tests.support.bad_task_calls import TASKS
from tests.support.call_world import CallCase

CALLS: list[CallCase] = [*ATTACH, *TASKS, *STEPS]
