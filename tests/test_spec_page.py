"""The page of the spec says of each field what the field's own description says."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import fgadahat_hooks as fh
from tests.support.tree import ROOT


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_spec", ROOT / "docs" / "generate_spec.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "api" / "spec.md").read_text(encoding="utf-8")
    assert written == generator().page(), "run `python docs/generate_spec.py`"


def test_every_field_has_a_row() -> None:
    page = generator().page()
    schema = fh.json_schema()
    names = {name for block in schema["$defs"].values() for name in block["properties"]}
    blocks = {name for name, field in schema["properties"].items() if "$ref" in field or "oneOf" in field}
    plain = set(schema["properties"]) - blocks
    assert [name for name in sorted(names | plain) if f"| `{name}` |" not in page] == []
    assert [name for name in sorted(blocks) if f"## {name}\n" not in page] == []


def test_required_fields_limits_and_choices_are_reported() -> None:
    page = generator().page()
    assert "| `log_base` | number > 1 | *required* |" in page
    assert '| `norms` | `per_task`, `freeze`, `share` | `"per_task"` |' in page
    assert "| `budget` | number > 0 and ≤ 1 or null | `null` |" in page
