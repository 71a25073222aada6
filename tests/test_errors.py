"""The hierarchy of errors equals the tree in its docstring, and all errors can be pickled."""

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


def make(cls: type[FgadahatError]) -> FgadahatError:
    return cls(PROBLEMS, "spec.yaml") if issubclass(cls, SpecError) else cls("what, and what to do")


def tree_of(cls: type[FgadahatError], before: str = "") -> list[str]:
    """Draw the subclasses of a class as a tree, in the order of their definition."""
    lines, children = [], [c for c in CLASSES if c.__bases__[0] is cls]
    for child in children:
        last = child is children[-1]
        others = [b.__name__ for b in child.__bases__[1:] if b.__name__ in vars(builtins)]
        lines.append(f"{before}{'└' if last else '├'}── {child.__name__}" + (f" ({others[0]})" if others else ""))
        lines += tree_of(child, before + ("    " if last else "│   "))
    return lines


def test_the_docstring_draws_the_hierarchy() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1].splitlines()
    assert tree[0] == "FgadahatError"
    assert without_remarks(tree[1:]) == tree_of(FgadahatError)


def without_remarks(tree: list[str]) -> list[str]:
    """Remove the remarks from the lines of the tree."""
    lines = []
    for line in tree:
        start = line.index("── ") + 3
        lines.append(line[:start] + line[start:].split("  ")[0])
    return lines


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_its_own_docstring(cls: type[FgadahatError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ not in [c.__doc__ for c in CLASSES if c is not cls]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_pickles(cls: type[FgadahatError]) -> None:
    error = make(cls)
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
def test_every_error_is_caught_by_the_base_class(cls: type[FgadahatError]) -> None:
    with pytest.raises(FgadahatError):
        raise make(cls)
