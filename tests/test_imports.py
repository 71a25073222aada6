"""Importing the package must not import what the user did not ask for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.tree import ADAPTERS, ROOT

HEAVY = (
    "accelerate",
    "captum",
    "lightning",
    "matplotlib",
    "pytorch_lightning",
    "torchmetrics",
    "torchvision",
    "transformers",
    "triton",
    "yaml",
)


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; return which of the heavy packages it loaded."""
    script = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_check_can_fail() -> None:
    assert loaded_by("import yaml") == {"yaml"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import fgadahat_hooks") - loaded_by("import torch") == set()


@pytest.mark.parametrize("name", sorted(p.stem for p in ADAPTERS.glob("[!_]*.py")))
def test_an_adapter_loads_only_its_own_framework(name: str) -> None:
    pytest.importorskip(name) if name in HEAVY else None
    trainers = {"accelerate", "lightning", "pytorch_lightning"}
    # Lightning's own package brings its twin, and either framework may look at what else is installed.
    brings = {"lightning": {"pytorch_lightning", "accelerate"}, "transformers": {"accelerate"}}
    own = {name} | brings.get(name, set())
    assert loaded_by(f"import fgadahat_hooks.adapters.{name}") & trainers <= own
