"""`fgadahat-hooks schema`."""

from __future__ import annotations

import json
from pathlib import Path

import fgadahat_hooks as fh
from tests.support.commands import call


def test_it_prints_the_schema() -> None:
    said = call("schema")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out) == fh.json_schema()


def test_it_writes_the_schema(tmp_path: Path) -> None:
    said = call("schema", "-o", tmp_path / "schema.json")
    assert said == (0, "", "")
    assert json.loads((tmp_path / "schema.json").read_text(encoding="utf-8")) == fh.json_schema()
