"""The rule by which names in a spec select layers of a model.

A pattern is an exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one dotted part,
** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, all-linear, all-conv,
all-embedding).

A pattern that selects no gateable layer is an error. Globs, regular expressions and shorthands skip modules that cannot
be gated; an exact name of such a module is an error. A shorthand takes precedence over a module of the same name, which
`re:all` selects. A module with two names can be selected by either, and is listed once, under the first.
"""

from __future__ import annotations

import re

from fgadahat_hooks.errors import MatchError

RULE = (
    "A pattern is an exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one dotted "
    "part, ** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, "
    "all-linear, all-conv, all-embedding)."
)
"""The rule in one sentence, for descriptions and errors."""

REGEX_PREFIX = "re:"

# Longest first: `**.` matches any number of whole parts, also zero, so that `**.fc` selects a top-level `fc` too.
_GLOB_TOKEN = re.compile(
    r"(?P<parts>(?:^|(?<=\.))\*\*\.)|(?P<any>\*\*)|(?P<star>\*)|(?P<one>\?)|(?P<set>\[!?[^\[\]]+\])"
)
_GLOB_REGEX = {"parts": r"(?:.*\.)?", "any": r".*", "star": r"[^.]*", "one": r"[^.]"}


def is_glob(pattern: str) -> bool:
    """Return whether the pattern is a glob, i.e. contains one of `* ? [` and does not start with `re:`."""
    return not pattern.startswith(REGEX_PREFIX) and any(sign in pattern for sign in "*?[")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn an exact name, glob or `re:` pattern into a regular expression for `fullmatch`.

    Raises:
        MatchError: The pattern is empty, has spaces around it, or is not a valid glob or regular expression.
    """
    if not pattern or pattern != pattern.strip() or pattern == REGEX_PREFIX:
        raise MatchError(f"expected a non-empty pattern without spaces around it, got {pattern!r}. {RULE}")
    try:
        return re.compile(_as_regex(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        kind = "regular expression after 're:'" if pattern.startswith(REGEX_PREFIX) else "glob"
        # Without the position, which refers to the regular expression made from a glob, not to the glob.
        reason = getattr(error, "msg", error)
        raise MatchError(f"expected a valid {kind}, got {pattern!r} ({reason}). {RULE}") from None


def _as_regex(pattern: str) -> str:
    if pattern.startswith(REGEX_PREFIX):
        return pattern[len(REGEX_PREFIX) :]
    if not is_glob(pattern):
        return re.escape(pattern)
    pieces, end = [], 0
    for token in _GLOB_TOKEN.finditer(pattern):
        pieces += [_literal(pattern[end : token.start()]), _token_regex(token)]
        end = token.end()
    return "".join([*pieces, _literal(pattern[end:])])


def _literal(text: str) -> str:
    if "[" in text:
        raise re.error("'[' needs letters and a ']'")
    return re.escape(text)


def _token_regex(token: re.Match[str]) -> str:
    if token.lastgroup != "set":
        return _GLOB_REGEX[str(token.lastgroup)]
    inside = re.sub(r"([\\^&~|])", r"\\\1", token.group()[1:-1])
    # The look-ahead keeps a negated set from crossing into the next dotted part.
    return rf"(?!\.)[^{inside[1:]}]" if inside.startswith("!") else rf"(?!\.)[{inside}]"
