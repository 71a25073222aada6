"""The one rule by which names in a spec pick layers of a model.

A pattern is an exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one dotted part,
** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, all-linear, all-conv,
all-embedding).

A pattern that picks no gateable layer is an error. Globs, regular expressions and shorthands skip modules that cannot
be gated; an exact name of such a module is an error. A shorthand wins over a module of the same name (`re:all` picks
that one). A module with two names can be called by either and is listed once, under the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.errors import MatchError, NoMatchError, UnsupportedLayerError
from fgadahat_hooks.layers import layer_type_of, refusal_of
from fgadahat_hooks.registry import nearest

RULE = (
    "A pattern is an exact dotted name ('layer1.0.conv1'), a glob ('layer3.*.conv?'; * and ? stay within one dotted "
    "part, ** crosses parts), 're:' and a regular expression that fits the whole name, or a shorthand (all, "
    "all-linear, all-conv, all-embedding)."
)
"""The rule in one sentence, for descriptions and errors."""

Supports = Callable[[nn.Module], bool]


def shorthands() -> dict[str, Supports]:
    """Return what each shorthand picks among the gateable layers; the layer types say it."""
    kinds = [registry.layer_types.get(name) for name in registry.layer_types]
    named = dict.fromkeys(kind.shorthand for kind in kinds if kind.shorthand)
    return {"all": _is_in_all, **{shorthand: partial(_goes_by, shorthand) for shorthand in named}}


def _is_in_all(module: nn.Module) -> bool:
    kind = layer_type_of(module)
    return kind is None or kind.in_all


def _goes_by(shorthand: str, module: nn.Module) -> bool:
    kind = layer_type_of(module)
    return kind is not None and kind.shorthand == shorthand


_REGEX = "re:"
_SHOWN = 5
"""How many names a message lists before it says how many more there are."""

# Longest first: `**.` stands for any number of whole parts, none included, so `**.fc` picks a top-level `fc` too.
_GLOB_TOKEN = re.compile(
    r"(?P<parts>(?:^|(?<=\.))\*\*\.)|(?P<any>\*\*)|(?P<star>\*)|(?P<one>\?)|(?P<set>\[!?[^\[\]]+\])"
)
_GLOB_REGEX = {"parts": r"(?:.*\.)?", "any": r".*", "star": r"[^.]*", "one": r"[^.]"}


def is_glob(pattern: str) -> bool:
    """Tell whether the pattern is a glob, i.e. holds one of `* ? [` and does not start with `re:`."""
    return not pattern.startswith(_REGEX) and any(sign in pattern for sign in "*?[")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn an exact name, glob or `re:` pattern into a regular expression for `fullmatch`.

    Raises:
        MatchError: The pattern is empty, has spaces around it, or is not a valid glob or regular expression.
    """
    if not pattern or pattern != pattern.strip() or pattern == _REGEX:
        raise MatchError(f"expected a non-empty pattern without spaces around it, got {pattern!r}. {RULE}")
    try:
        return re.compile(_as_regex(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        kind = "regular expression after 're:'" if pattern.startswith(_REGEX) else "glob"
        # Without the position: a glob's is not where its regular expression fails.
        reason = getattr(error, "msg", error)
        raise MatchError(f"expected a valid {kind}, got {pattern!r} ({reason}). {RULE}") from None


def _as_regex(pattern: str) -> str:
    if pattern.startswith(_REGEX):
        return pattern[len(_REGEX) :]
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


def match(
    model: nn.Module,
    targets: Sequence[str],
    exclude: Sequence[str],
    supported: Supports,
    kinds: Mapping[str, Supports] | None = None,
) -> list[str]:
    """Return the names of the layers that `targets` pick and `exclude` does not, in `named_modules` order.

    Args:
        model: The model whose modules are named.
        targets: Patterns of layers to pick.
        exclude: Patterns of layers to leave out.
        supported: Whether a module can be gated.
        kinds: What each shorthand picks among the gateable layers, instead of `shorthands()`.

    Raises:
        NoMatchError: A pattern matches nothing, or nothing is left.
        UnsupportedLayerError: A pattern matches only modules that cannot be gated.
        MatchError: A pattern cannot be read, or there are several problems, all of them in the message.
    """
    names = _Names.of(model, supported, shorthands() if kinds is None else kinds)
    problems: list[MatchError] = []
    picked = names.pick_all("targets", targets, problems)
    dropped = names.pick_all("exclude", exclude, problems)
    if not problems and not picked - dropped:
        problems.append(_nothing_left(targets, exclude))
    _raise_all(problems)
    return [name for name in names.layers if name in picked - dropped]


def _nothing_left(targets: Sequence[str], exclude: Sequence[str]) -> MatchError:
    if not targets:
        return NoMatchError("gates.targets: expected at least one pattern, got none. Write 'all' for all layers.")
    return NoMatchError(
        f"gates.exclude: expected to leave some of the layers that gates.targets pick, got {_quoted(exclude)}, which "
        "leaves none. Remove an exclude pattern or make it narrower."
    )


def _raise_all(problems: list[MatchError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        # Once is enough for the rule.
        rule = f"\n{RULE}" if RULE in lines else ""
        raise MatchError(f"{len(problems)} patterns do not fit the model:\n{lines.replace(f' {RULE}', '')}{rule}")


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


@dataclass(frozen=True)
class _Names:
    """The names of one model: all modules, the gateable layers, and what the shorthands mean."""

    modules: dict[str, nn.Module]
    """Every module by every name it has, but the model itself."""
    layers: dict[str, nn.Module]
    """Gateable layers by their first name."""
    first: dict[nn.Module, str]
    """The first name of every module."""
    kinds: dict[str, Supports]

    @classmethod
    def of(cls, model: nn.Module, supported: Supports, kinds: Mapping[str, Supports]) -> _Names:
        modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        first = {module: name for name, module in model.named_modules() if name}
        layers = {name: module for module, name in first.items() if supported(module)}
        return cls(modules, layers, first, dict(kinds))

    def pick_all(self, field: str, patterns: Sequence[str], problems: list[MatchError]) -> set[str]:
        """Return the layers all patterns pick; append a problem for each pattern that picks none."""
        picked: set[str] = set()
        for pattern in patterns:
            try:
                picked |= set(self.pick(pattern))
            except MatchError as error:
                problems.append(type(error)(f"gates.{field}: {error}"))
        return picked

    def pick(self, pattern: str) -> list[str]:
        """Return the layers one pattern picks, at least one."""
        if pattern in self.kinds:
            return self._pick_kind(pattern)
        if pattern.startswith(_REGEX) or is_glob(pattern):
            return self._pick_many(pattern)
        compile_pattern(pattern)
        return [self._pick_exact(pattern)]

    def _matched(self, pattern: str) -> list[str]:
        fits = compile_pattern(pattern).fullmatch
        return [name for name in self.modules if fits(name)]

    def _gateable(self, names: Sequence[str]) -> list[str]:
        first = dict.fromkeys(self.first[self.modules[name]] for name in names)
        return [name for name in first if name in self.layers]

    def _pick_kind(self, shorthand: str) -> list[str]:
        picked = [name for name, module in self.layers.items() if self.kinds[shorthand](module)]
        if picked:
            return picked
        there = f"only {self._with_class(list(self.layers))}" if self.layers else "no layer that can be gated"
        raise NoMatchError(f"expected layers for the shorthand {shorthand!r}, but the model has {there}.")

    def _pick_many(self, pattern: str) -> list[str]:
        matched = self._matched(pattern)
        picked = self._gateable(matched)
        if picked:
            return picked
        if not matched:
            raise NoMatchError(f"expected modules that fit {pattern!r}, found none.{self._wider(pattern)} {RULE}")
        raise UnsupportedLayerError(
            f"expected layers that can be gated, but {pattern!r} picks only {self._with_class(matched)}."
            f"{self._inside(pattern)}"
        )

    def _pick_exact(self, name: str) -> str:
        if name not in self.modules:
            raise NoMatchError(f"expected the name of a module, got {name!r}.{self._near(name)} {RULE}")
        module = self.modules[name]
        if self.first[module] in self.layers:
            return self.first[module]
        what = f"expected a layer that can be gated, but {name!r} is a {type(module).__name__}"
        if any(module.children()):
            raise UnsupportedLayerError(f"{what}, which holds other modules.{self._inside(name)}")
        why = refusal_of(module)
        raise UnsupportedLayerError(f"{what}{why and f' {why}'}.{self._instead(name)}")

    def _with_class(self, names: Sequence[str]) -> str:
        shown = ", ".join(f"{name!r} ({type(self.modules[name]).__name__})" for name in names[:_SHOWN])
        return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

    def _inside(self, pattern: str) -> str:
        """Say which glob picks the layers inside the modules that `pattern` matches."""
        if pattern.startswith(_REGEX):
            return f" Layers that can be gated: {_quoted(list(self.layers))}." if self.layers else ""
        inside = self._gateable(self._matched(f"{pattern}.**"))
        if inside:
            return f" Write '{pattern}.**' for the {_layers(len(inside))} inside."
        return self._instead(pattern)

    def _instead(self, name: str) -> str:
        if not self.layers:
            return " The model has no layer that can be gated."
        close = nearest(name, self.layers, n=_SHOWN) or list(self.layers)
        return f" Layers that can be gated: {_quoted(close)}."

    def _near(self, name: str) -> str:
        """Say what an absent exact name may have meant: the same ending, the same name unwrapped, a similar name."""
        deeper = self._gateable(self._matched(f"**.{name}"))
        if deeper:
            return f" {_layers(len(deeper))} end in it: {_quoted(deeper)}; write '**.{name}' for all of them."
        _, _, unwrapped = name.partition(".")
        if unwrapped in self.modules:
            return f" Did you mean {unwrapped!r}?"
        close = nearest(name, [*self.kinds, *self.layers], n=3) or nearest(name, self.modules, n=3)
        return f" Did you mean {' or '.join(map(repr, close))}?" if close else self._instead(name)

    def _wider(self, pattern: str) -> str:
        """Say which wider pattern would have picked layers, else which names look like the pattern."""
        for wider in _wider_patterns(pattern):
            count = self._count(wider)
            if count:
                return f" Did you mean {wider!r} ({_layers(count)})?"
        close = nearest(pattern.removeprefix(_REGEX), self.layers, n=_SHOWN)
        return f" Similar names: {_quoted(close)}." if close else self._instead(pattern)

    def _count(self, pattern: str) -> int:
        try:
            return len(self._gateable(self._matched(pattern)))
        except MatchError:
            # A regular expression may be valid alone and not inside another.
            return 0


def _wider_patterns(pattern: str) -> list[str]:
    """Return patterns that fit more names: across dots, or for a part of a name."""
    if pattern.startswith(_REGEX):
        return [f"{_REGEX}.*(?:{pattern[len(_REGEX) :]}).*"]
    single_stars = re.compile(r"(?<!\*)\*(?!\*)")
    return [single_stars.sub("**", pattern), f"**.{pattern}", pattern.replace(".", ".**.")]
