"""The documentation: it builds without a warning, and its reference has every public name."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.tree import ROOT

PUBLIC = (
    "fgadahat_hooks",
    "fgadahat_hooks.adapters.accelerate",
    "fgadahat_hooks.adapters.lightning",
    "fgadahat_hooks.adapters.lightning.cli",
    "fgadahat_hooks.adapters.loop",
    "fgadahat_hooks.adapters.transformers",
    "fgadahat_hooks.callbacks",
    "fgadahat_hooks.errors",
    "fgadahat_hooks.functional",
    "fgadahat_hooks.importance",
    "fgadahat_hooks.layers",
    "fgadahat_hooks.metrics",
    "fgadahat_hooks.metrics.functional",
    "fgadahat_hooks.plots",
    "fgadahat_hooks.registry",
    "fgadahat_hooks.report",
    "fgadahat_hooks.summary",
)
HEADER_LINES = 4
"""Of the inventory that mkdocstrings writes, in the form of Sphinx: four lines of text, then a compressed table."""


def own_names(module: ModuleType) -> set[str]:
    """List a module's public names: `__all__` without modules, or what it defines where it has none."""
    names = getattr(module, "__all__", None)
    if names is None:
        defined = {
            name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        }
        names = {name for name in defined if not name.startswith("_") and inspectable(getattr(module, name))}
    return {name for name in names if not isinstance(getattr(module, name), ModuleType)}


def inspectable(value: object) -> bool:
    """Tell whether a value is a class or a function; type variables and the like are nobody's to call."""
    return isinstance(value, type) or callable(value)


def shown(site: Path) -> set[str]:
    """List the names that the built reference has an anchor for."""
    data = (site / "objects.inv").read_bytes()
    table = zlib.decompress(data.split(b"\n", HEADER_LINES)[HEADER_LINES]).decode("utf-8")
    return {line.split(" ", 1)[0] for line in table.splitlines()}


def missing(names: set[str], module: ModuleType, anchors: set[str]) -> set[str]:
    """Return the names of a module that the reference has neither there nor where they are defined."""
    return {name for name in names if not {f"{module.__name__}.{name}", home(module, name)} & anchors}


def home(module: ModuleType, name: str) -> str:
    """Say where a name is defined: a function that has the name of a submodule can only be documented there."""
    value = getattr(module, name, None)
    return f"{getattr(value, '__module__', module.__name__)}.{getattr(value, '__qualname__', name)}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation strictly."""
    for needed in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name: str, site: Path) -> None:
    module = importlib.import_module(name)
    assert missing(own_names(module), module, shown(site)) == set()


def test_every_page_was_built(site: Path) -> None:
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md") if not p.name.endswith(".in.md")]
    built = {p.parent.relative_to(site).as_posix() for p in site.rglob("index.html")}
    expected = {p.parent.as_posix() if p.stem in ("README", "index") else p.with_suffix("").as_posix() for p in pages}
    assert expected <= built


def test_the_reference_check_can_fail(site: Path) -> None:
    assert missing({"attach", "no_such_name"}, importlib.import_module(PUBLIC[0]), shown(site)) == {"no_such_name"}
