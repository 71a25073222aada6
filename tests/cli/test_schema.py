"""`fgadahat-hooks schema`."""

from __future__ import annotations

import json
from pathlib import Path

import fgadahat_hooks as fh
from tests.support.commands import call


def test_it_prints_the_schema() -> None:
    result = call("schema")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out) == fh.json_schema()


def test_it_writes_the_schema(tmp_path: Path) -> None:
    result = call("schema", "-o", tmp_path / "schema.json")
    assert result == (0, "", "")
    assert json.loads((tmp_path / "schema.json").read_text(encoding="utf-8")) == fh.json_schema()
