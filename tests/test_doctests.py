"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fgadahat_hooks

MODULES = sorted(m.name for m in pkgutil.walk_packages(fgadahat_hooks.__path__, "fgadahat_hooks."))
OPTIONAL = {"fgadahat_hooks.adapters.accelerate", "fgadahat_hooks.adapters.lightning"}


@pytest.mark.parametrize("name", [m for m in MODULES if m not in OPTIONAL])
def test_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [t for name in MODULES if name not in OPTIONAL for t in finder.find(importlib.import_module(name))]
    assert sum(bool(t.examples) for t in found) >= 5
