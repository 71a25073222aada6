"""2,000 spec files that were valid before something happened to them: a `SpecError`, or a spec that is valid."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

import fgadahat_hooks as fh
from fgadahat_hooks.errors import SpecError

COUNT = 2000
SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"gates": {"targets": ["all-conv", "re:layer[34].*"], "exclude": ["head"], "s_max": 100}, "norms": "freeze"},
    {"adjustment": {"mode": "adahat", "intensity": 1e-6}, "rest": "per_task", "regularization": {"factor": 2.5}},
    {
        "adjustment": {"mode": "fg_adahat", "scheduler": "linear_sparsity_reg", "aggregation": "mean"},
        "importance": {"type": "conductance_abs", "params": {"n_steps": 4}, "every_n_steps": 3, "max_samples": 8},
        "summation": {"strategy": "add_all"},
        "heads": {"names": ["fc"], "mode": "shared"},
    },
)
WORDS = (
    "~", "null", "true", "1e999", ".nan", "-.inf", "0x1F", "1_000", "1:30", "2026-01-01", "&a [*a]", "*nope", "<<: 3",
    "!!python/object/apply:os.system ['exit 1']", "!!python/name:os.system", "!!set {a}", "!!binary gA==", "? [a]",
    "- - - -", "{", "]", "'", '"', "\t", "\x00", "\ufeff", "\ud7ff", "é", "%YAML 9.9", "---", "...", "|", ">",
    "{{}}", "9" * 400, "[" * 1500, "{a: " * 1500, '{"a":' * 1500, "=", "@", "`", "10" * 2500, '{"$ref": "#"}',
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1.5, -0.0, float("nan"), float("inf"), "", "hat", "x" * 5000, [], [None], {}, {"": 1},
    [[[[]]]], {"a": {"b": []}}, "re:(", "re:(a+)+$", "**", "\x00", "layer.*",
)  # fmt: skip


# ------------------------------------------------------------------ what happens to a file
def characters(text: str, draw: random.Random) -> str:
    """Change, drop or put in a few characters."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(text) + 1)
        new = draw.choice(("", chr(draw.randrange(1, 128)), chr(draw.randrange(128, 0xD800)), text[place : place + 9]))
        text = text[:place] + new + text[place + draw.randrange(2) :]
    return text


def lines(text: str, draw: random.Random) -> str:
    """Drop, repeat, indent or exchange lines."""
    parts = text.splitlines() or [""]
    for _ in range(draw.choice((1, 2, 4))):
        place, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        kind = draw.randrange(4)
        if kind == 0 and len(parts) > 1:
            parts.pop(place)
        elif kind == 1:
            parts.insert(other, parts[place])
        elif kind == 2:
            parts[place] = draw.choice(("  ", "\t", "-", "")) + parts[place].strip()
        else:
            parts[place], parts[other] = parts[other], parts[place]
    return "\n".join(parts)


def words(text: str, draw: random.Random) -> str:
    """Put something in that means much to a parser."""
    place = draw.choice([n for n, c in enumerate(text) if c in " \n:"] or [0]) + 1
    return text[:place] + draw.choice(WORDS) + text[place + draw.choice((0, 0, 4)) :]


def cut(text: str, draw: random.Random) -> str:
    """Keep a piece only."""
    start = draw.choice((0, 0, draw.randrange(len(text))))
    return text[start : draw.randrange(start, len(text) + 1)]


def values(text: str, draw: random.Random) -> str:
    """Change values and keys, and leave the file well formed."""
    try:
        data = json.loads(text) if text.startswith("{\n") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # something else happened to it before
        return text
    for _ in range(draw.choice((1, 1, 3))):
        holder: Any = data
        keys: list[Any] = []
        while isinstance(holder, dict) and holder and (not keys or draw.random() < 0.7):
            parent, key = holder, draw.choice(sorted(holder, key=str))
            keys.append(key)
            holder = holder[key]
        if keys and draw.random() < 0.3:
            parent[draw.choice((str(key).upper(), str(key)[:-1], f"{key}s", "more", 7))] = parent.pop(key)
        elif keys:
            parent[key] = draw.choice(VALUES)
    dump: Callable[..., str] = json.dumps if text.lstrip().startswith("{") else yaml.safe_dump
    try:
        return dump(data)
    except (TypeError, ValueError, RecursionError):  # JSON cannot hold it
        return str(data)


RULES = (characters, lines, words, cut, values, values)


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("a spec file ran something")


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_bad_spec_files_raise_spec_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    good = []
    for number, spec in enumerate(SPECS):
        fh.dump_spec(fh.AttachSpec.model_validate(spec), tmp_path / f"{number}{suffix}")
        good.append((tmp_path / f"{number}{suffix}").read_text(encoding="utf-8"))
    file, valid = tmp_path / f"spec{suffix}", 0
    unnamed: list[int] = []
    for seed in range(COUNT // 2):
        draw = random.Random(seed)  # noqa: S311
        text = RULES[seed % len(RULES)](draw.choice(good), draw)
        if draw.random() < 0.2:
            text = draw.choice(RULES)(text or " ", draw) if text.strip() else text
        raw = text.encode("utf-8", "surrogatepass")
        file.write_bytes(raw if draw.random() < 0.95 else raw + draw.choice((b"\xff", b"\x80abc", b"\xfe\xff")))
        try:
            spec_read = fh.load_spec(file)
        except SpecError as error:
            unnamed += [] if error.problems and error.source == str(file) else [seed]
        else:
            valid += 1
            assert isinstance(spec_read, fh.AttachSpec), seed
    assert unnamed == []
    assert COUNT // 100 < valid < COUNT // 4  # neither all refused nor all harmless
