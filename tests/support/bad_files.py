"""Mistakes in a spec file, and their messages."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.bad_specs import GATES_KEYS


@dataclass(frozen=True)
class FileCase:
    """A file, missing if its content is None, and every problem that loading it should report."""

    name: str
    content: bytes | None
    problems: tuple[str, ...]


FILES: list[FileCase] = [
    FileCase("missing.yaml", None, ("expected a file, found none.",)),
    FileCase("spec.toml", b"version = 1", ("expected a file name that ends in .json, .yaml, .yml, got 'spec.toml'.",)),
    FileCase("spec", b"{}", ("expected a file name that ends in .json, .yaml, .yml, got 'spec'.",)),
    FileCase(
        "empty.yaml",
        b"",
        ("expected a mapping at the top, got None. The file is empty; write {} for a spec of defaults.",),
    ),
    FileCase(
        "empty.json",
        b" \n",
        ("expected a mapping at the top, got None. The file is empty; write {} for a spec of defaults.",),
    ),
    FileCase("list.json", b"[1, 2]", ("expected a mapping at the top, got [1, 2].",)),
    FileCase("text.yaml", b"all", ("expected a mapping at the top, got 'all'.",)),
    FileCase(
        "colon.json", b'{\n  "gates" {}\n}', ("line 2, column 11: expected valid JSON (Expecting ':' delimiter).",)
    ),
    FileCase(
        "colon.yaml",
        b"gates:\n  s_max: 400\n  init: N01: x\n",
        ("line 3, column 12: expected valid YAML (mapping values are not allowed here).",),
    ),
    FileCase(
        "tab.yaml",
        b"gates:\n\ts_max: 400\n",
        (
            "line 2, column 1: expected valid YAML (while scanning for the next token, found character '\\t' that "
            "cannot start any token).",
        ),
    ),
    FileCase(
        "twice.json",
        b'{"norms": "share", "gates": {"s_max": 1, "s_max": 2}, "norms": "freeze"}',
        (
            "expected each key once, got 's_max' again. Remove one of the two.",
            "expected each key once, got 'norms' again. Remove one of the two.",
        ),
    ),
    FileCase(
        "twice.yaml",
        b"norms: share\ngates:\n  s_max: 1\n  s_max: 2\nnorms: freeze\n",
        (
            "line 4: expected each key once, got 's_max' again. Remove one of the two.",
            "line 5: expected each key once, got 'norms' again. Remove one of the two.",
        ),
    ),
    FileCase(
        "two.yaml",
        b"norms: share\n---\nnorms: freeze\n",
        (
            "line 2, column 1: expected valid YAML (expected a single document in the stream, but found another "
            "document).",
        ),
    ),
    FileCase(
        "object.yaml",
        b"gates: !!python/object:os.system {}\n",
        (
            "line 1, column 8: expected valid YAML (could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system').",
        ),
    ),
    FileCase("latin.yaml", b"norms: \xfcber\n", ("expected UTF-8 text, got other bytes at offset 7.",)),
    FileCase("nan.json", b'{"gates": {"s_max": NaN}}', ("gates.s_max: expected a finite number > 0, got nan.",)),
    FileCase("inf.yaml", b"gates:\n  s_max: .inf\n", ("gates.s_max: expected a finite number > 0, got inf.",)),
    FileCase(
        "off.yaml",
        b"norms: off\nadjustment:\n",
        (
            "norms: expected one of 'per_task', 'freeze', 'share', got False.",
            "adjustment: expected a mapping with the key 'mode', got None. Leave the key out to use the default.",
        ),
    ),
    FileCase("deep.json", b"[" * 200000, ("expected JSON of a few levels, got too many.",)),
    FileCase(
        "wrong.yaml",
        b"gates:\n  s_max: 4O0\n  tragets: all\n",
        (
            "gates.s_max: expected a finite number > 0, got '4O0'.",
            f"gates.tragets: expected a key among {GATES_KEYS}, got 'tragets'. Did you mean 'targets'?",
        ),
    ),
]
