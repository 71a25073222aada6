"""The pattern language: what an exact name, a glob and a regular expression match."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgadahat_hooks.errors import MatchError
from fgadahat_hooks.spec import patterns
from fgadahat_hooks.spec.patterns import RULE, compile_pattern, is_glob


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a.*", "a.b.c", False),
        ("a?b", "a.b", False),
        ("a[!x]b", "a.b", False),
        ("a[.]b", "a.b", False),
        ("a.**", "a", False),
        ("a.**.b", "a.b", True),
        ("a.**.b", "a.x.y.b", True),
        ("a.**.b", "axb", False),
        ("**.b", "b", True),
        ("**.b", "xb", False),
        ("a*", "a", True),
        ("a[&&]", "a&", True),
        ("a[\\d]", "ad", True),
        ("a[\\d]", "a1", False),
        ("a[^b]", "a^", True),
        ("a+b", "aab", False),
        ("re:a", "ab", False),
        ("re:a|b", "b", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, fits: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize("pattern", ["a[", "a[]", "a[!]", "re:(", "re:a{99999999999999999999}", "", "re:", " a", "a "])
def test_invalid_patterns(pattern: str) -> None:
    with pytest.raises(MatchError, match=re.escape(RULE)):
        compile_pattern(pattern)


@given(st.text(alphabet="ab.*?[]!-\\^&~|(){}$ ", max_size=12))
def test_a_glob_of_any_characters_is_valid_or_refused(text: str) -> None:
    if "--" in text or text.startswith("re:"):
        return
    try:
        compile_pattern(text)
    except MatchError:
        return
    assert is_glob(text) or compile_pattern(text).fullmatch(text)


def test_the_rule_in_errors_is_the_rule_of_the_docstring() -> None:
    assert " ".join(RULE.split()) in " ".join((patterns.__doc__ or "").split())
