"""The hierarchy of errors: as its docstring draws it, and fit to cross process borders."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle

import pytest

from fgadahat_hooks import errors
from fgadahat_hooks.errors import FgadahatError, Problem, SpecError

CLASSES = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, FgadahatError)]
PROBLEMS = (Problem("gates.s_max", "expected a finite number > 0, got 0."), Problem("", "expected a mapping."))


def made(cls: type[FgadahatError]) -> FgadahatError:
    return cls(PROBLEMS, "spec.yaml") if issubclass(cls, SpecError) else cls("what, and what to do")


def drawn(cls: type[FgadahatError], before: str = "") -> list[str]:
    """Draw the subclasses of a class as a tree, in the order of their definition."""
    lines, children = [], [c for c in CLASSES if c.__bases__[0] is cls]
    for child in children:
        last = child is children[-1]
        others = [b.__name__ for b in child.__bases__[1:] if b.__name__ in vars(builtins)]
        lines.append(f"{before}{'└' if last else '├'}── {child.__name__}" + (f" ({others[0]})" if others else ""))
        lines += drawn(child, before + ("    " if last else "│   "))
    return lines


def test_the_docstring_draws_the_hierarchy() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1].splitlines()
    assert tree[0] == "FgadahatError"
    assert stripped(tree[1:]) == drawn(FgadahatError)


def stripped(tree: list[str]) -> list[str]:
    """Cut the remarks off the lines of the tree."""
    cut = []
    for line in tree:
        start = line.index("── ") + 3
        cut.append(line[:start] + line[start:].split("  ")[0])
    return cut


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_remark_of_its_own(cls: type[FgadahatError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ not in [c.__doc__ for c in CLASSES if c is not cls]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_pickles(cls: type[FgadahatError]) -> None:
    error = made(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # our own bytes
        assert type(again) is cls
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert str(copy.copy(error)) == str(error)


def test_a_pickled_spec_error_keeps_its_problems() -> None:
    again = pickle.loads(pickle.dumps(SpecError(PROBLEMS, "spec.yaml")))  # noqa: S301  # our own bytes
    assert again.problems == PROBLEMS
    assert again.source == "spec.yaml"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_caught_by_the_base_alone(cls: type[FgadahatError]) -> None:
    with pytest.raises(FgadahatError):
        raise made(cls)
