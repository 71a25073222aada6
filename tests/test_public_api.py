"""The public names: present, sorted, documented, and no others."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

import fgadahat_hooks as fh

NAMES = (
    "AttachSpec",
    "Callback",
    "GradientAdjustCallback",
    "ImportanceCallback",
    "SummationCallback",
    "attach",
    "load",
    "load_spec",
    "plan",
    "preset",
    "register_measure",
    "registry",
)
"""Names promised at the root of the package."""

ALSO = (
    "AuditReport",
    "Certificate",
    "ExportReport",
    "FgadahatError",
    "ForgetReport",
    "Measure",
    "Plan",
    "Session",
    "Task",
    "TaskContext",
    "VerifyReport",
    "dump_spec",
    "json_schema",
    "report",
)
"""Further names at the root: the types that the calls return, and what users catch."""

MEMBERS = {
    "fgadahat_hooks.session.session:Session": (
        "audit",
        "capacity",
        "certify",
        "cumulative_mask",
        "detach",
        "export",
        "forget",
        "masks",
        "measure",
        "parameter_groups",
        "restore",
        "save",
        "summative_mask",
        "task",
        "tasks",
        "unit_use",
        "use",
        "verify",
    ),
    "fgadahat_hooks.tasks.task:Task": ("batches", "protect", "regularization"),
    "fgadahat_hooks.callbacks.base:Callback": (
        "on_after_optimizer_step",
        "on_before_optimizer_step",
        "on_task_end",
        "on_task_start",
        "on_train_batch_end",
        "on_train_batch_start",
    ),
}
"""Members promised of what the calls return."""


def find(path: str) -> object:
    """Import `module` or `module:name`."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def public_objects() -> list[tuple[str, object]]:
    """List the public functions and classes, and the public methods that the classes define in this package."""
    found: list[tuple[str, object]] = []
    for name in fh.__all__:
        value = getattr(fh, name)
        if not isinstance(value, ModuleType) and callable(value):
            found.append((name, value))
        if inspect.isclass(value):
            found += [
                (f"{name}.{key}", member)
                for key, member in vars(value).items()
                if is_own_method(key, member) and not overrides_a_documented_one(value, key)
            ]
    return found


def is_own_method(name: str, member: object) -> bool:
    """Return whether a class attribute is a public method or property."""
    return not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))


def overrides_a_documented_one(cls: type, name: str) -> bool:
    """Return whether a base class of this package has that method, and so documents it."""
    return any(name in vars(base) and base.__module__.startswith("fgadahat_hooks") for base in cls.__mro__[1:])


def missing_sections(value: object) -> list[str]:
    """Return what the docstring of a function lacks: `Args:` for its parameters, `Returns:` or `Yields:` for its value.

    One parameter needs no section, nor does a value that the first line describes.
    """
    if not inspect.isfunction(value):
        return []
    text = inspect.getdoc(value) or ""
    signature = inspect.signature(value)
    takes = [name for name in signature.parameters if name not in ("self", "cls")]
    gives = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    described = text.startswith(("Return ", "Yield ")) or any(word in text for word in ("Returns:", "Yields:"))
    lacks = ["Args:"] if len(takes) > 1 and "Args:" not in text else []
    return lacks + (["Returns: or Yields:"] if len(takes) > 1 and gives and not described else [])


def test_all_is_sorted() -> None:
    assert list(fh.__all__) == sorted(fh.__all__)


def test_all_is_what_was_promised() -> None:
    assert set(fh.__all__) == set(NAMES) | set(ALSO)


def test_nothing_else_is_exported() -> None:
    exported = {
        name for name, value in vars(fh).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert exported - {"annotations"} <= set(fh.__all__)


@pytest.mark.parametrize("path", sorted(MEMBERS))
def test_members_are_what_was_promised(path: str) -> None:
    assert [name for name in MEMBERS[path] if not hasattr(find(path), name)] == []


@pytest.mark.parametrize(("name", "value"), public_objects(), ids=lambda v: v if isinstance(v, str) else "")
def test_public_names_are_documented(name: str, value: object) -> None:
    text = inspect.getdoc(value) or ""
    first = text.split("\n\n")[0].strip()
    assert first.endswith("."), f"{name}: the docstring needs a first sentence that ends with a full stop"
    assert missing_sections(value) == [], f"{name}: the docstring lacks a section"


def test_the_section_check_can_fail() -> None:
    def undocumented(first: int, second: int) -> int:
        """Add."""
        return first + second

    assert missing_sections(undocumented) == ["Args:", "Returns: or Yields:"]
