"""All mistakes in a spec are reported at once, with the messages in the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, MatchError, Problem, SpecError
from fgadahat_hooks.spec.attach_spec import to_spec
from fgadahat_hooks.spec.files import load_spec
from fgadahat_hooks.spec.matching import match
from tests.support.bad_callback_specs import CALLBACK_SPECS, MEASURES
from tests.support.bad_files import FILES, FileCase
from tests.support.bad_matches import MATCHES, MatchCase, gateable, net
from tests.support.bad_specs import SPECS, SpecCase


class NoParameters:
    """A stand-in for a measure; the messages of real ones are tested with them."""

    def __init__(self, **params: Any) -> None:
        if params:
            raise BadCallError(f"Expected no parameters, got {sorted(params)}.")


@pytest.fixture(autouse=True)
def measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the list of measures in the messages the same when measures are added."""
    monkeypatch.setattr(registry.measures, "_items", dict.fromkeys(MEASURES.split(", "), NoParameters))


def expected_text(problems: tuple[str, ...], where: str = "") -> str:
    """Return the text of a `SpecError` with these problems."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n  ".join([f"The spec has {count}{where}:", *problems])


def line(problem: Problem) -> str:
    """Return a problem as its line in the text."""
    return f"{problem.path}: {problem.message}" if problem.path else problem.message


def test_the_tables_are_long_and_without_duplicates() -> None:
    specs = [case.name for case in [*SPECS, *CALLBACK_SPECS]]
    tables = [specs, [case.name for case in FILES], [case.name for case in MATCHES]]
    assert all(len(set(names)) == len(names) for names in tables)
    assert sum(map(len, tables)) >= 100


@pytest.mark.parametrize("case", [*SPECS, *CALLBACK_SPECS], ids=lambda case: case.name)
def test_spec(case: SpecCase) -> None:
    with pytest.raises(SpecError) as caught:
        to_spec(case.given)
    assert str(caught.value) == expected_text(case.problems)
    assert tuple(line(problem) for problem in caught.value.problems) == case.problems
    assert caught.value.source is None


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_file(case: FileCase, tmp_path: Path) -> None:
    file = tmp_path / case.name
    if case.content is not None:
        file.write_bytes(case.content)
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    assert str(caught.value) == expected_text(case.problems, f" in {file}")
    assert caught.value.source == str(file)


@pytest.mark.parametrize("case", MATCHES, ids=lambda case: case.name)
def test_match(case: MatchCase) -> None:
    with pytest.raises(MatchError) as caught:
        match(net(), case.targets, case.exclude, gateable)
    assert type(caught.value) is case.error
    assert str(caught.value) == case.message
