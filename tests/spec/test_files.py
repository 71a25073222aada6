"""Specs in files: what is written can be read; the error cases are in `bad_files`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fgadahat_hooks import registry
from fgadahat_hooks.errors import SpecError
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.spec.files import dump_spec, json_schema, load_spec

SUFFIXES = (".json", ".yaml", ".yml", ".YAML")
SPEC: dict[str, Any] = {
    "gates": {"targets": ["layer3.*.conv?", "re:fc\\d"], "exclude": "bün", "s_max": 200, "init": "U-11"},
    "heads": {"names": ["head"], "mode": "shared"},
    "norms": "freeze",
    "regularization": {"factor": 5.0},
    "importance": {"type": "anything", "params": {"n_steps": 5, "baselines": [0.0, {"x": 1e-9}]}, "every_n_steps": 2},
    "summation": {"strategy": "exponential_decrease", "exponential_rate": 1.5},
    "adjustment": {"mode": "fg_adahat", "intensity": 1e-6},
}


class Anything:
    """A stand-in for a measure."""

    def __init__(self, **params: Any) -> None:
        self.params = params


@pytest.fixture(autouse=True)
def measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the measure that these tests name."""
    monkeypatch.setitem(registry.measures._items, "anything", Anything)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("given", [{}, SPEC], ids=["defaults", "full"])
def test_a_written_spec_is_read_back(given: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"spec{suffix}"
    dump_spec(to_spec(given), file)
    assert load_spec(file) == to_spec(given)
    assert load_spec(str(file)) == to_spec(given)
    assert load_spec(given) == to_spec(given)


def test_all_defaults_are_written(tmp_path: Path) -> None:
    dump_spec(AttachSpec(), tmp_path / "spec.json")
    written = json.loads((tmp_path / "spec.json").read_text(encoding="utf-8"))
    assert written == json.loads(AttachSpec().model_dump_json())


def test_the_order_is_that_of_the_fields(tmp_path: Path) -> None:
    for name in ("spec.json", "spec.yaml"):
        dump_spec(AttachSpec(), tmp_path / name)
        data = yaml.safe_load((tmp_path / name).read_text(encoding="utf-8"))
        assert list(data) == list(AttachSpec.model_fields)


@pytest.mark.parametrize("text", ["1e-6", "1.0e-6", "1E-06", "+1e-6", ".000001", "0.000001", "10e-7"])
def test_yaml_numbers_are_numbers(text: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(f"adjustment: {{mode: adahat, intensity: {text}}}\n", encoding="utf-8")
    assert load_spec(file) == to_spec({"adjustment": {"mode": "adahat", "intensity": 1e-6}})


@pytest.mark.parametrize("text", ["e6", "1e", "1e-6x", "'1e-6'"])
def test_yaml_strings_are_strings(text: str, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(f"gates: {{targets: [{text}]}}\n", encoding="utf-8")
    assert load_spec(file).gates.targets == (text.strip("'"),)


def test_the_safe_loader_of_yaml_is_not_changed(tmp_path: Path) -> None:
    test_yaml_numbers_are_numbers("1e-6", tmp_path)
    assert yaml.safe_load("1e-6") == "1e-6"


def test_yaml_merges(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("gates: &g {s_max: 1, init: last}\nnorms: share\n", encoding="utf-8")
    assert load_spec(file).gates.init == "last"
    file.write_text("heads: &h {mode: shared}\nregularization: {<<: *h, mode: cross}\n", encoding="utf-8")
    assert load_spec(file).regularization.mode == "cross"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    for name, content in (("spec.json", '{"norms": "share"}'), ("spec.yaml", "norms: share\n")):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert load_spec(tmp_path / name).norms == "share"


def test_a_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    dump_spec(AttachSpec(), tmp_path / "spec.yml")
    with pytest.raises(SpecError, match=r"expected a file, found none\. Did you mean 'spec\.yml'\?$"):
        load_spec(tmp_path / "spec.yaml")
    with pytest.raises(SpecError, match=r"expected a file, found none\.$"):
        load_spec(tmp_path / "nowhere" / "spec.yaml")


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "spec.json").mkdir()
    with pytest.raises(SpecError, match=r"cannot be read: "):
        load_spec(tmp_path / "spec.json")
    with pytest.raises(SpecError, match=r"cannot be written: "):
        dump_spec(AttachSpec(), tmp_path / "spec.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version: 2024-13-45\n", "expected valid YAML (month must be in 1..12"),
        ("a: \x00\n", "expected valid YAML ("),
        ("[" * 5000, "expected YAML of a few levels, got too many."),
        ("? [a]\n: 1\n", "expected text as a key, got"),
    ],
    ids=["date", "zero", "deep", "list as a key"],
)
def test_errors_inside_the_yaml_library(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "spec.yaml")
    assert caught.value.source == str(tmp_path / "spec.yaml")
    assert words in str(caught.value) or "found unhashable key" in str(caught.value)


def test_values_that_no_file_can_hold_are_refused_before_writing(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    dump_spec(AttachSpec(), file)
    spec = to_spec({"importance": {"type": "anything", "params": {"target": len}}})
    with pytest.raises(SpecError) as caught:
        dump_spec(spec, file)
    assert str(caught.value) == (
        f"The spec has 1 problem in {file}:\n  importance.params: expected text, numbers, lists and mappings, got "
        "{'target': <built-in function len>}. Set such parameters in Python after loading."
    )
    assert load_spec(file) == AttachSpec()


def test_the_suffix_is_checked_before_writing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected a file name that ends in \.json, \.yaml, \.yml, got 'spec\.txt'\."):
        dump_spec(AttachSpec(), tmp_path / "spec.txt")
    assert list(tmp_path.iterdir()) == []


def test_the_schema_describes_every_field() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(AttachSpec.model_fields)
    for block in [schema, *schema["$defs"].values()]:
        assert block["additionalProperties"] is False
        assert block["description"]
        assert all("description" in field or "$ref" in field for field in block["properties"].values())
    json.dumps(schema)


def test_the_schema_lists_the_registered_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "anything" in json_schema()["$defs"]["ImportanceSpec"]["properties"]["type"]["enum"]
    monkeypatch.setattr(registry.measures, "_items", {})
    assert "enum" not in json_schema()["$defs"]["ImportanceSpec"]["properties"]["type"]


def test_the_schema_accepts_one_pattern_or_a_list() -> None:
    targets = json_schema()["$defs"]["GatesSpec"]["properties"]["targets"]
    assert targets["anyOf"] == [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]


def test_yaml_is_imported_only_when_a_yaml_file_is_read() -> None:
    code = (
        "import sys, torch\n"
        "before = 'yaml' in sys.modules\n"  # torch itself may have imported it
        "import fgadahat_hooks.spec.files\n"
        "print(before or 'yaml' not in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
