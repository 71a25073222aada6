"""Wrong calls on the public surface, and the words in which each is told."""

from __future__ import annotations

from tests.support.bad_attach_calls import ATTACH
from tests.support.bad_step_calls import STEPS
from tests.support.bad_task_calls import TASKS
from tests.support.call_world import CallCase

CALLS: list[CallCase] = [*ATTACH, *TASKS, *STEPS]
