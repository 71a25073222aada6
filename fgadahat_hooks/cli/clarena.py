"""From the hyper-parameters of a CLArena algorithm to a spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgadahat_hooks.cli.clarena_table import ALGORITHMS, ELSEWHERE, FIXED, HEADS, HYDRA, REQUIRED, Argument
from fgadahat_hooks.errors import Problem, SpecError
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.spec.errors import join, show

_CLASS_KEYS = ("_target_", "class_path")
_MODES = {"hat": "HAT", "adahat": "AdaHAT"}


@dataclass
class Converted:
    """A spec, and what to know about it.

    Attributes:
        algorithm: Class it was written for.
        spec: The spec's blocks, without what has the same default.
        notes: What was left out, taken from elsewhere or not given.
    """

    algorithm: str
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, home: str, value: Any) -> None:
        """Set a value of the spec."""
        block, _, key = home.rpartition(".")
        self.spec.setdefault(block, {})[key] = value


class _Block:
    """The algorithm's part of a file.

    Attributes:
        path: Where it is in the file.
        algorithm: Name of the class.
        arguments: Its arguments.
    """

    def __init__(self, path: str, algorithm: str, arguments: Mapping[str, Any]) -> None:
        self.path, self.algorithm, self.arguments = path, algorithm, arguments


def convert_clarena(data: Mapping[str, Any], source: str, *, lenient: bool = False) -> Converted:
    """Make a spec of a configuration for Hydra, LightningCLI, or of the bare arguments.

    Args:
        data: The file's content; the algorithm may be anywhere in it.
        source: Name of the file, for messages.
        lenient: Leave out arguments that are not the algorithm's, in place of refusing them.

    Raises:
        SpecError: No algorithm is found, or arguments are unknown or have no valid value; all are listed.
    """
    block = _find(data, source)
    converted = Converted(block.algorithm)
    problems = list(_unknown(block, converted, lenient)) + list(_heads(block, data, converted))
    for home, value in FIXED[block.algorithm].items():
        converted.put(home, value)
    homes: dict[str, str] = {}
    for name, argument in ALGORITHMS[block.algorithm].items():
        problems += _take(block, name, argument, converted)
        homes[argument.home] = join(block.path, name)
    _drop_unused(block, converted)
    try:
        to_spec(converted.spec)
    except SpecError as error:
        known = {problem.path for problem in problems}
        found = [Problem(homes.get(p.path, p.path), p.message) for p in error.problems]
        problems += [problem for problem in found if problem.path not in known]
    if problems:
        raise SpecError(problems, source)
    converted.spec = {name: converted.spec[name] for name in AttachSpec.model_fields if name in converted.spec}
    return converted


# ------------------------------------------------------------------ finding the algorithm
def _find(data: Mapping[str, Any], source: str) -> _Block:
    try:
        named = list(_blocks(data, ""))
    except RecursionError:  # YAML can hold itself
        raise SpecError([Problem("", "expected a file of a few levels, got too many.")], source) from None
    found = [block for block in named if block.algorithm in ALGORITHMS]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(repr(block.path) for block in found)
        raise SpecError([Problem("", f"expected one algorithm, got {len(found)}: {listed}. Leave one.")], source)
    guessed = _guess(data)
    if guessed:
        return _Block("", guessed, data)
    others = ", ".join(show(block.algorithm) for block in named) or "none"
    text = (
        f"expected an algorithm among {', '.join(ALGORITHMS)}, got {others}. Give its class as `_target_` or "
        "`class_path`, or its arguments at the top, `adjustment_mode` or `importance_type` among them."
    )
    raise SpecError([Problem("", text)], source)


def _blocks(data: Any, path: str) -> Iterator[_Block]:
    """Go through all mappings that name a class."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _blocks(item, f"{path}[{index}]")
    if not isinstance(data, Mapping):
        return
    for key in _CLASS_KEYS:
        if isinstance(data.get(key), str):
            arguments = data.get("init_args") or {} if key == "class_path" else data
            inner = join(path, "init_args") if key == "class_path" else path
            if isinstance(arguments, Mapping):
                yield _Block(inner, data[key].rpartition(".")[2], arguments)
    for key, value in data.items():
        yield from _blocks(value, join(path, str(key)))


def _guess(data: Mapping[str, Any]) -> str:
    """Tell the class from bare arguments."""
    if "importance_type" in data or "importance_scheduler_type" in data:
        return "FGAdaHAT"
    mode = data.get("adjustment_mode")
    return _MODES.get(mode.split("_")[0], "") if isinstance(mode, str) else ""


# ------------------------------------------------------------------ its arguments
def _take(block: _Block, name: str, argument: Argument, converted: Converted) -> list[Problem]:
    value = block.arguments.get(name, argument.default)
    if value is REQUIRED:
        converted.notes.append(f"{name} is not given and has no default in CLArena; the default here holds.")
        return []
    if isinstance(value, str) and "${" in value:
        text = f"expected a value, got {show(value)}. Let Hydra write the values: --cfg job --resolve."
        return [Problem(join(block.path, name), text)]
    if argument.choices and value not in argument.choices:
        text = f"expected one of {', '.join(map(repr, argument.choices))}, got {show(value)}."
        return [Problem(join(block.path, name), text + suggest(str(value), argument.choices))]
    if value is not None or (name in block.arguments and argument.default is not None):
        converted.put(argument.home, value)
    return []


def _drop_unused(block: _Block, converted: Converted) -> None:
    """Take out what belongs to another choice than the one made; the reference ignores it in silence."""
    for name, argument in ALGORITHMS[block.algorithm].items():
        if not argument.only:
            continue
        (choice, wanted), (part, _, key) = argument.only, argument.home.rpartition(".")
        owner, _, tag = choice.rpartition(".")
        chosen = converted.spec.get(owner, {}).get(tag)
        if key in converted.spec.get(part, {}) and chosen != wanted:
            del converted.spec[part][key]
            converted.notes.append(f"{name} is left out: {chosen} makes no use of it.")


def _unknown(block: _Block, converted: Converted, lenient: bool) -> Iterator[Problem]:
    known = ALGORITHMS[block.algorithm]
    for name in block.arguments:
        if name in known or name in _CLASS_KEYS or name in HYDRA or name == "heads":
            continue
        if name in ELSEWHERE:
            converted.notes.append(f"{name} has no place in a spec: {ELSEWHERE[name]}.")
        elif lenient:
            converted.notes.append(f"{name} is left out: no argument of {block.algorithm}.")
        else:
            text = f"expected an argument of {block.algorithm}, got {name!r}.{suggest(str(name), known)}"
            yield Problem(join(block.path, str(name)), f"{text} --lenient leaves it out.")


def _heads(block: _Block, data: Mapping[str, Any], converted: Converted) -> Iterator[Problem]:
    """Read the mode of heads from the class of `heads`, in the block or beside it."""
    for given in (block.arguments.get("heads"), data.get("heads")):
        kind = given.get("_target_", given.get("class_path")) if isinstance(given, Mapping) else None
        if isinstance(kind, str):
            name = kind.rpartition(".")[2]
            if name in HEADS:
                converted.put("heads.mode", HEADS[name])
            else:
                text = f"expected heads among {', '.join(HEADS)}, got {show(name)}."
                yield Problem("heads", f"{text} Here each task has a head of its own, or all share one.")
            return
    converted.notes.append("heads.mode is per_task, as HeadsTIL of CLArena; write shared for HeadDIL.")
