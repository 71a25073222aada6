"""Convert the hyper-parameters of a CLArena algorithm to a spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgadahat_hooks.cli.clarena_table import ALGORITHMS, FIXED_VALUES, HEADS, HYDRA, NOT_IN_SPEC, REQUIRED, Argument
from fgadahat_hooks.errors import Problem, SpecError
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.spec.errors import join_path, short_repr

_CLASS_KEYS = ("_target_", "class_path")
_MODES = {"hat": "HAT", "adahat": "AdaHAT"}


@dataclass
class Converted:
    """A converted spec, with notes for the user.

    Attributes:
        algorithm: Name of the CLArena class.
        spec: Blocks of the spec; values that equal the default may be left out.
        notes: Arguments that were left out, belong elsewhere or were not given.
    """

    algorithm: str
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set_value(self, spec_path: str, value: Any) -> None:
        """Set the value at `block.key` of the spec."""
        block, _, key = spec_path.rpartition(".")
        self.spec.setdefault(block, {})[key] = value


class _Block:
    """The part of a file that configures one class.

    Attributes:
        path: Its key path in the file.
        algorithm: Name of the class.
        arguments: Arguments of the class.
    """

    def __init__(self, path: str, algorithm: str, arguments: Mapping[str, Any]) -> None:
        self.path, self.algorithm, self.arguments = path, algorithm, arguments


def convert_clarena(data: Mapping[str, Any], source: str, *, lenient: bool = False) -> Converted:
    """Convert a configuration for Hydra or LightningCLI, or bare arguments, to a spec.

    Args:
        data: Content of the file; the algorithm's block may be nested anywhere in it.
        source: Name of the file, for messages.
        lenient: Leave unknown arguments out instead of raising.

    Raises:
        SpecError: No algorithm is found, or arguments are unknown or not valid; lists all problems.
    """
    block = _find_algorithm(data, source)
    converted = Converted(block.algorithm)
    problems = list(_check_unknown(block, converted, lenient)) + list(_convert_heads(block, data, converted))
    for spec_path, value in FIXED_VALUES[block.algorithm].items():
        converted.set_value(spec_path, value)
    for name, argument in ALGORITHMS[block.algorithm].items():
        problems += _convert_argument(block, name, argument, converted)
    _drop_unused_arguments(block, converted)
    known = {problem.path for problem in problems}
    problems += [problem for problem in _spec_problems(block, converted) if problem.path not in known]
    if problems:
        raise SpecError(problems, source)
    converted.spec = {name: converted.spec[name] for name in AttachSpec.model_fields if name in converted.spec}
    return converted


def _spec_problems(block: _Block, converted: Converted) -> list[Problem]:
    """Validate the spec; return its problems with the paths of the arguments in the file."""
    file_paths = {arg.spec_path: join_path(block.path, name) for name, arg in ALGORITHMS[block.algorithm].items()}
    try:
        to_spec(converted.spec)
    except SpecError as error:
        return [Problem(file_paths.get(problem.path, problem.path), problem.message) for problem in error.problems]
    return []


# ------------------------------------------------------------------ the algorithm's block
def _find_algorithm(data: Mapping[str, Any], source: str) -> _Block:
    try:
        named = list(_class_blocks(data, ""))
    except RecursionError:  # YAML anchors can make a mapping contain itself
        raise SpecError([Problem("", "expected a file of a few levels, got too many.")], source) from None
    found = [block for block in named if block.algorithm in ALGORITHMS]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(repr(block.path) for block in found)
        raise SpecError([Problem("", f"expected one algorithm, got {len(found)}: {listed}. Leave one.")], source)
    guessed = _guess_algorithm(data)
    if guessed:
        return _Block("", guessed, data)
    others = ", ".join(short_repr(block.algorithm) for block in named) or "none"
    text = (
        f"expected an algorithm among {', '.join(ALGORITHMS)}, got {others}. Give its class as `_target_` or "
        "`class_path`, or its arguments at the top, `adjustment_mode` or `importance_type` among them."
    )
    raise SpecError([Problem("", text)], source)


def _class_blocks(data: Any, path: str) -> Iterator[_Block]:
    """Yield all nested mappings that name a class."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _class_blocks(item, f"{path}[{index}]")
    if not isinstance(data, Mapping):
        return
    for key in _CLASS_KEYS:
        if isinstance(data.get(key), str):
            yield from _block_of_class(data, path, key)
    for key, value in data.items():
        yield from _class_blocks(value, join_path(path, str(key)))


def _block_of_class(data: Mapping[str, Any], path: str, key: str) -> Iterator[_Block]:
    """Yield the block of the class that `key` names; nothing if its arguments are not a mapping."""
    arguments, arguments_path = data, path
    if key == "class_path":
        arguments, arguments_path = data.get("init_args") or {}, join_path(path, "init_args")
    if isinstance(arguments, Mapping):
        yield _Block(arguments_path, data[key].rpartition(".")[2], arguments)


def _guess_algorithm(data: Mapping[str, Any]) -> str:
    """Return the class that bare arguments belong to, empty if unknown."""
    if "importance_type" in data or "importance_scheduler_type" in data:
        return "FGAdaHAT"
    mode = data.get("adjustment_mode")
    return _MODES.get(mode.split("_")[0], "") if isinstance(mode, str) else ""


# ------------------------------------------------------------------ the algorithm's arguments
def _convert_argument(block: _Block, name: str, argument: Argument, converted: Converted) -> list[Problem]:
    value = block.arguments.get(name, argument.default)
    if value is REQUIRED:
        converted.notes.append(f"{name} is not given and has no default in CLArena; the default here holds.")
        return []
    if isinstance(value, str) and "${" in value:
        text = f"expected a value, got {short_repr(value)}. Let Hydra write the values: --cfg job --resolve."
        return [Problem(join_path(block.path, name), text)]
    if argument.choices and value not in argument.choices:
        text = f"expected one of {', '.join(map(repr, argument.choices))}, got {short_repr(value)}."
        return [Problem(join_path(block.path, name), text + suggest(str(value), argument.choices))]
    if value is not None or (name in block.arguments and argument.default is not None):
        converted.set_value(argument.spec_path, value)
    return []


def _drop_unused_arguments(block: _Block, converted: Converted) -> None:
    """Remove values that the chosen mode or strategy does not use; CLArena ignores them silently."""
    for name, argument in ALGORITHMS[block.algorithm].items():
        if not argument.requires:
            continue
        (choice, wanted), (part, _, key) = argument.requires, argument.spec_path.rpartition(".")
        owner, _, tag = choice.rpartition(".")
        chosen = converted.spec.get(owner, {}).get(tag)
        if key in converted.spec.get(part, {}) and chosen != wanted:
            del converted.spec[part][key]
            converted.notes.append(f"{name} is left out: {chosen} makes no use of it.")


def _check_unknown(block: _Block, converted: Converted, lenient: bool) -> Iterator[Problem]:
    known = ALGORITHMS[block.algorithm]
    for name in block.arguments:
        if name in known or name in _CLASS_KEYS or name in HYDRA or name == "heads":
            continue
        if name in NOT_IN_SPEC:
            converted.notes.append(f"{name} has no place in a spec: {NOT_IN_SPEC[name]}.")
        elif lenient:
            converted.notes.append(f"{name} is left out: no argument of {block.algorithm}.")
        else:
            text = f"expected an argument of {block.algorithm}, got {name!r}.{suggest(str(name), known)}"
            yield Problem(join_path(block.path, str(name)), f"{text} --lenient leaves it out.")


def _convert_heads(block: _Block, data: Mapping[str, Any], converted: Converted) -> Iterator[Problem]:
    """Read `heads.mode` from the class of `heads`, inside the algorithm's block or next to it."""
    for given in (block.arguments.get("heads"), data.get("heads")):
        kind = given.get("_target_", given.get("class_path")) if isinstance(given, Mapping) else None
        if isinstance(kind, str):
            name = kind.rpartition(".")[2]
            if name in HEADS:
                converted.set_value("heads.mode", HEADS[name])
            else:
                text = f"expected heads among {', '.join(HEADS)}, got {short_repr(name)}."
                yield Problem("heads", f"{text} Here each task has a head of its own, or all share one.")
            return
    converted.notes.append("heads.mode is per_task, as HeadsTIL of CLArena; write shared for HeadDIL.")
