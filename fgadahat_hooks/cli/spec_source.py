"""The spec argument of a command: a file, or the name of a preset."""

from __future__ import annotations

from fgadahat_hooks.cli.output import stderr
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.spec.files import load_spec
from fgadahat_hooks.spec.presets import ASSUMED_TASKS, OWN_PRESETS, preset

PRESET = "preset:"


def read_spec(source: str) -> AttachSpec:
    """Return the spec that `FILE`, `preset:NAME` or `preset:NAME,TASKS` stands for.

    Raises:
        SpecError: The file has problems.
        UnknownNameError: No preset has that name.
        BadCallError: The number of tasks is not a number.
    """
    if not source.startswith(PRESET):
        return load_spec(source)
    name, comma, tasks = source.removeprefix(PRESET).partition(",")
    if comma and not tasks.isdecimal():
        raise BadCallError(f"Expected a number of tasks, but got {tasks!r}. Write it as preset:{name},20.")
    if not comma and name in OWN_PRESETS:
        text = f"Room for {ASSUMED_TASKS} tasks is assumed; write preset:{name},20 for another number."
        stderr().print(text, style="dim", soft_wrap=True)
    return preset(name, tasks=int(tasks) if comma else ASSUMED_TASKS)
