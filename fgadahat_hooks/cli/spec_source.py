"""The spec argument of a command: a file, or the name of a preset."""

from __future__ import annotations

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.spec.files import load_spec
from fgadahat_hooks.spec.presets import preset

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
    return preset(name, tasks=int(tasks)) if comma else preset(name)
