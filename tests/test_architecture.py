"""The rules of the architecture: who imports whom, how long things are, who touches hooks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.tree import ROOT, package_files

FILES = package_files()
MAX_FILE = 300
MAX_BODY = 45
MAX_BRANCHES = 10
MAX_TOP = 7
# Hooks on modules and tensors belong to the one owner of handles; hooks on optimizer steps to what watches optimizers.
MODULE_HOOK = re.compile(r"\bregister_(?!(?:optimizer_)?step_)(?:\w+_)?hook\(")
STEP_HOOK = re.compile(r"\bregister_(?:optimizer_)?step_(?:pre|post)_hook\(")
MODULE_HOOK_FILES = {"fgadahat_hooks/hooks.py"}
STEP_HOOK_FILES = {
    "fgadahat_hooks/adapters/lightning/gate_groups.py",  # changes options of groups, and sees no gradient
    "fgadahat_hooks/protection/guard.py",
    "fgadahat_hooks/hooks.py",
    "fgadahat_hooks/protection/steps.py",
}

PUBLIC_FOR_ADAPTERS = {"fgadahat_hooks", "fgadahat_hooks.errors", "fgadahat_hooks.progress"}
RE_EXPORTED = {"fgadahat_hooks/adapters/loop.py": {"fgadahat_hooks.tasks.batches"}}  # the same function, for a loop

SUITES = {"differential", "faults", "property", "zero_forgetting", "zoo"}
"""Folders of tests that go through the whole package."""

# Which files, by the name they are installed under, may import a package of others.
ONLY_IN = {
    "accelerate": r"fgadahat_hooks/adapters/accelerate\.py",
    "captum": r"fgadahat_hooks/importance/attribution(_\w+\.py|\.py|/.*)",
    "jsonargparse": r"fgadahat_hooks/adapters/lightning/cli\.py",
    "lightning": r"fgadahat_hooks/adapters/lightning/\w+\.py",
    "pytorch_lightning": r"$^",
    "torchmetrics": r"fgadahat_hooks/metrics(\.py|/.*)",
    "torchvision": r"$^",
    "transformers": r"fgadahat_hooks/adapters/transformers\.py",
    "yaml": r"fgadahat_hooks/spec/files\.py",
}


def imported_modules(source: str) -> set[str]:
    """List the modules a source imports anywhere in it, `from a import b` as both `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(file: str) -> str:
    """Turn an installed path into the name that the module is imported by."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def own_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Map each module to those of the same sources that it imports: at run time, for types, or inside a function."""
    names = {module_name(file) for file in sources}
    found = {}
    for file, source in sources.items():
        own = module_name(file)
        package = own if file.endswith("__init__.py") else own.rpartition(".")[0]
        found[own] = {target(module, names) for module in imported_names(source, package)} & names - {own}
    return found


def imported_names(source: str, package: str) -> set[str]:
    """List what a source in a package imports, `from a import b` as `a.b` alone, relative imports resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def target(imported: str, names: set[str]) -> str:
    """Return the module that an import reads: `a.b` is the module b of a, or a name that the module a defines."""
    return imported if imported in names else imported.rpartition(".")[0]


def in_circles(imports: Mapping[str, set[str]]) -> set[str]:
    """Return the modules from which a chain of imports leads back to themselves."""
    return {module for module in imports if module in reached(imports, module)}


def reached(imports: Mapping[str, set[str]], start: str) -> set[str]:
    """Return all modules that a chain of imports leads to."""
    found: set[str] = set()
    todo = list(imports[start])
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += imports.get(module, ())
    return found


def sources() -> dict[str, str]:
    """Read every file of the package, by its installed path."""
    return {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}


def body_lengths(source: str) -> dict[str, int]:
    """Map each function to the lines of its body, docstring not counted."""
    lengths = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lengths[f"{node.name}:{node.lineno}"] = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
    return lengths


def branch_counts(source: str) -> dict[str, int]:
    """Map each function to its branches: statements, conditional expressions, `and`, `or` and comprehensions."""
    return {
        f"{node.name}:{node.lineno}": sum(branches(part) for part in ast.walk(node))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def branches(node: ast.AST) -> int:
    """Count the branches that one node adds."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    single = (
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.With,
        ast.Assert,
        ast.match_case,
    )
    return int(isinstance(node, single))


def importers_of(package: str) -> set[str]:
    """List the installed files that import a package, at whatever depth."""
    return {
        name
        for name, path in FILES.items()
        if any(module.split(".")[0] == package for module in imported_modules(path.read_text(encoding="utf-8")))
    }


def is_of_the_same_adapter(module: str, name: str) -> bool:
    """Tell whether a module is in the folder of an adapter that a file is in, too; a file of its own has none."""
    folder = re.match(r"fgadahat_hooks/adapters/(\w+)/", name)
    return folder is not None and module.startswith(f"fgadahat_hooks.adapters.{folder[1]}.")


def run_import_linter(config: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the tree with a config file."""
    call = "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))"
    script = f"import sys; from importlinter.cli import lint_imports; {call}"
    command = [sys.executable, "-c", script, str(config)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_import_rules_hold() -> None:
    done = run_import_linter(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_import_rules_can_fail(tmp_path: Path) -> None:
    config = tmp_path / "forbidden.toml"
    config.write_text(
        "[tool.importlinter]\nroot_package = 'fgadahat_hooks'\ninclude_external_packages = true\n"
        "[[tool.importlinter.contracts]]\nname = 'no torch'\ntype = 'forbidden'\n"
        "source_modules = ['fgadahat_hooks.functional']\nforbidden_modules = ['torch']\n",
        encoding="utf-8",
    )
    done = run_import_linter(config)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no torch BROKEN" in done.stdout


def test_no_module_is_in_a_circle_of_imports() -> None:
    assert in_circles(own_imports(sources())) == set()


@pytest.mark.parametrize(
    "line",
    [
        "from fgadahat_hooks.session.session import Session",
        "if TYPE_CHECKING:\n    from fgadahat_hooks.session.session import Session",
        "def late() -> None:\n    import fgadahat_hooks.session.session",
        "from ..session import session",
    ],
    ids=["at run time", "for a type", "inside a function", "relative"],
)
def test_a_circle_that_is_put_in_is_found(line: str) -> None:
    low = "fgadahat_hooks/gates/attached_model.py"
    changed = sources()
    changed[low] += f"\n{line}\n"
    assert {module_name(low), "fgadahat_hooks.session.session"} <= in_circles(own_imports(changed))


def test_the_top_of_the_package_is_a_table_of_contents() -> None:
    assert len([name for name in FILES if name.count("/") == 1]) <= MAX_TOP


def test_every_folder_says_what_lives_there() -> None:
    for name, path in FILES.items():
        if name.endswith("__init__.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_others_packages_are_imported_only_where_they_may_be(package: str) -> None:
    assert {name for name in importers_of(package) if not re.fullmatch(ONLY_IN[package], name)} == set()


def test_nothing_imports_the_metrics() -> None:
    metrics = {"fgadahat_hooks.metrics"}
    users = {n for n, p in FILES.items() if metrics & imported_modules(p.read_text(encoding="utf-8"))}
    assert users == set()


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("fgadahat_hooks/adapters/")])
def test_adapters_use_public_names(name: str) -> None:
    ours = re.findall(
        r"^\s*(?:from|import) (fgadahat_hooks[\w.]*)", FILES[name].read_text(encoding="utf-8"), re.MULTILINE
    )
    private = set(ours) - PUBLIC_FOR_ADAPTERS - RE_EXPORTED.get(name, set())
    assert [module for module in private if not is_of_the_same_adapter(module, name)] == []


@pytest.mark.parametrize("name", FILES)
def test_hooks_are_registered_only_where_they_are_owned(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert name in MODULE_HOOK_FILES or MODULE_HOOK.findall(text) == []
    assert name in STEP_HOOK_FILES or STEP_HOOK.findall(text) == []


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MAX_FILE


@pytest.mark.parametrize("name", FILES)
def test_bodies_are_short(name: str) -> None:
    lengths = body_lengths(FILES[name].read_text(encoding="utf-8"))
    assert {function: lines for function, lines in lengths.items() if lines > MAX_BODY} == {}


@pytest.mark.parametrize("name", FILES)
def test_functions_branch_little(name: str) -> None:
    counts = branch_counts(FILES[name].read_text(encoding="utf-8"))
    assert {function: count for function, count in counts.items() if count > MAX_BRANCHES} == {}


def test_tests_mirror_the_folders() -> None:
    folders = {Path(name).parts[1] for name in FILES if name.count("/") > 1}
    found = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    assert folders - found == set()
    assert found - folders == SUITES


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"common.py", "helpers.py", "misc.py", "util.py", "utils.py"}
    assert {name for name in FILES if Path(name).name in drawers} == set()


def test_the_checks_can_fail() -> None:
    body = "\n".join(["    x = 1"] * 50)
    assert branch_counts("def f(a, b):\n    if a and b:\n        return [x for x in a if x]\n") == {"f:1": 4}
    assert body_lengths(f'def f():\n    """Doc."""\n{body}\n') == {"f:1": 50}
    assert imported_modules("def f():\n    from captum.attr import Saliency\n") == {
        "captum.attr",
        "captum.attr.Saliency",
    }
    assert is_of_the_same_adapter("fgadahat_hooks.adapters.x.part", "fgadahat_hooks/adapters/x/whole.py")
    assert not is_of_the_same_adapter("fgadahat_hooks.adapters.y.part", "fgadahat_hooks/adapters/x/whole.py")
    assert not is_of_the_same_adapter("fgadahat_hooks.adapters.x.part", "fgadahat_hooks/adapters/y.py")
    assert not is_of_the_same_adapter("fgadahat_hooks.steps", "fgadahat_hooks/adapters/x/whole.py")
    assert MODULE_HOOK.search("handle = layer.register_forward_pre_hook(f)")
    assert MODULE_HOOK.search("tensor.register_hook(f)")
    assert not MODULE_HOOK.search("optimizer.register_step_post_hook(f)")
    assert STEP_HOOK.search("optimizer.register_step_post_hook(f)")
    assert STEP_HOOK.search("register_optimizer_step_pre_hook(f)")
