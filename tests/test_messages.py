"""The messages of errors that list problems, and the tree of error classes."""

from __future__ import annotations

import builtins
import inspect
import re

import pytest

from fgadahat_hooks import errors
from fgadahat_hooks.errors import FgadahatError, Problem, SpecError

CLASSES = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, FgadahatError)
}


def documented_tree() -> dict[str, tuple[str, str | None]]:
    """Read `class -> (parent, builtin)` from the tree in the docstring of `errors`."""
    tree: dict[str, tuple[str, str | None]] = {}
    parents = ["FgadahatError"]
    for bars, name, builtin in re.findall(r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))?", errors.__doc__ or "", re.MULTILINE):
        depth = len(bars) // 4
        parents[depth + 1 :] = [name]
        tree[name] = (parents[depth], builtin or None)
    return tree


def test_the_tree_lists_every_class() -> None:
    assert set(documented_tree()) | {"FgadahatError"} == set(CLASSES)


@pytest.mark.parametrize("name", sorted(documented_tree()))
def test_the_tree_names_parents_and_builtins(name: str) -> None:
    parent, builtin = documented_tree()[name]
    assert CLASSES[parent] in CLASSES[name].__bases__
    assert builtin is None or getattr(builtins, builtin) in CLASSES[name].__bases__


def test_a_spec_error_lists_every_problem_with_its_path_and_file() -> None:
    problems = [
        Problem("gates.s_max", "expected a number above 0, got -1."),
        Problem("", "expected a mapping, got a list."),
    ]
    assert str(SpecError(problems, "spec.yaml")) == (
        "The spec has 2 problems in spec.yaml:\n"
        "  gates.s_max: expected a number above 0, got -1.\n"
        "  expected a mapping, got a list."
    )


def test_a_spec_error_with_one_problem_uses_the_singular() -> None:
    assert str(SpecError([Problem("version", "expected 1, got 2.")])).startswith("The spec has 1 problem:\n")
