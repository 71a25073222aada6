"""Selects the layers of a model by patterns, and suggests a remedy for a pattern that selects none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.errors import MatchError, NoMatchError, UnsupportedLayerError
from fgadahat_hooks.layers import layer_type_of, refusal_of
from fgadahat_hooks.layers.without_gate import without_gate
from fgadahat_hooks.registry import nearest
from fgadahat_hooks.spec.patterns import REGEX_PREFIX, RULE, compile_pattern, is_glob

_SHOWN = 5
"""How many names a message lists at most; of the others it gives the number."""

Supports = Callable[[nn.Module], bool]


def shorthands() -> dict[str, Supports]:
    """Return for each shorthand which gateable layers it selects, as the layer types declare."""
    kinds = [registry.layer_types.get(name) for name in registry.layer_types]
    named = dict.fromkeys(kind.shorthand for kind in kinds if kind.shorthand)
    return {"all": _is_in_all, **{shorthand: partial(_has_shorthand, shorthand) for shorthand in named}}


def _is_in_all(module: nn.Module) -> bool:
    kind = layer_type_of(module)
    return kind is None or kind.in_all


def _has_shorthand(shorthand: str, module: nn.Module) -> bool:
    kind = layer_type_of(module)
    return kind is not None and kind.shorthand == shorthand


def match(
    model: nn.Module,
    targets: Sequence[str],
    exclude: Sequence[str],
    supported: Supports,
    kinds: Mapping[str, Supports] | None = None,
) -> list[str]:
    """Return the names of the layers that `targets` select and `exclude` does not, in the order of `named_modules`.

    Args:
        model: The model whose modules are named.
        targets: Patterns of layers to select.
        exclude: Patterns of layers to leave out.
        supported: Returns whether a module can be gated.
        kinds: For each shorthand which gateable layers it selects, instead of `shorthands()`.

    Raises:
        NoMatchError: A pattern matches nothing, or no layer is left.
        UnsupportedLayerError: A pattern matches only modules that cannot be gated.
        MatchError: A pattern is not valid, or there are several problems, all of them in the message.
    """
    names = _LayerNames.of(model, supported, shorthands() if kinds is None else kinds)
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
        # State the rule once, at the end.
        rule = f"\n{RULE}" if RULE in lines else ""
        raise MatchError(f"{len(problems)} patterns do not fit the model:\n{lines.replace(f' {RULE}', '')}{rule}")


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


@dataclass(frozen=True)
class _LayerNames:
    """The names of a model's modules and gateable layers, and which layers the shorthands select."""

    modules: dict[str, nn.Module]
    """Every module except the model itself, under each of its names."""
    layers: dict[str, nn.Module]
    """Gateable layers under their first names."""
    first: dict[nn.Module, str]
    """The first name of every module."""
    kinds: dict[str, Supports]

    @classmethod
    def of(cls, model: nn.Module, supported: Supports, kinds: Mapping[str, Supports]) -> _LayerNames:
        modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        first = {module: name for name, module in model.named_modules() if name}
        layers = {name: module for module, name in first.items() if supported(module)}
        return cls(modules, layers, first, dict(kinds))

    def pick_all(self, field: str, patterns: Sequence[str], problems: list[MatchError]) -> set[str]:
        """Return the layers that the patterns select together; append a problem for each that selects none."""
        picked: set[str] = set()
        for pattern in patterns:
            try:
                picked |= set(self.pick(pattern))
            except MatchError as error:
                problems.append(type(error)(f"gates.{field}: {error}"))
        return picked

    def pick(self, pattern: str) -> list[str]:
        """Return the layers that one pattern selects, at least one."""
        if pattern in self.kinds:
            return self._pick_kind(pattern)
        if pattern.startswith(REGEX_PREFIX) or is_glob(pattern):
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
        found = f"only {self._with_class(list(self.layers))}" if self.layers else "no layer that can be gated"
        why = without_gate(self.modules, self.layers)
        raise NoMatchError(f"expected layers for the shorthand {shorthand!r}, but the model has {found}.{why}")

    def _pick_many(self, pattern: str) -> list[str]:
        matched = self._matched(pattern)
        picked = self._gateable(matched)
        if picked:
            return picked
        if not matched:
            raise NoMatchError(
                f"expected modules that fit {pattern!r}, found none.{self._suggest_wider(pattern)} {RULE}"
            )
        raise UnsupportedLayerError(
            f"expected layers that can be gated, but {pattern!r} picks only {self._with_class(matched)}."
            f"{self._suggest_inside(pattern)}"
        )

    def _pick_exact(self, name: str) -> str:
        if name not in self.modules:
            raise NoMatchError(f"expected the name of a module, got {name!r}.{self._suggest_name(name)} {RULE}")
        module = self.modules[name]
        if self.first[module] in self.layers:
            return self.first[module]
        what = f"expected a layer that can be gated, but {name!r} is a {type(module).__name__}"
        if any(module.children()):
            raise UnsupportedLayerError(f"{what}, which holds other modules.{self._suggest_inside(name)}")
        why = refusal_of(module)
        raise UnsupportedLayerError(f"{what}{why and f' {why}'}.{self._list_gateable(name)}")

    def _with_class(self, names: Sequence[str]) -> str:
        shown = ", ".join(f"{name!r} ({type(self.modules[name]).__name__})" for name in names[:_SHOWN])
        return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

    def _suggest_inside(self, pattern: str) -> str:
        """Suggest a glob that selects the layers inside the modules that `pattern` matches."""
        if pattern.startswith(REGEX_PREFIX):
            return f" Layers that can be gated: {_quoted(list(self.layers))}." if self.layers else ""
        inside = self._gateable(self._matched(f"{pattern}.**"))
        if inside:
            return f" Write '{pattern}.**' for the {_layers(len(inside))} inside."
        return self._list_gateable(pattern)

    def _list_gateable(self, name: str) -> str:
        """List the gateable layers with names similar to `name`, or else all."""
        if not self.layers:
            return " The model has no layer that can be gated."
        close = nearest(name, self.layers, n=_SHOWN) or list(self.layers)
        return f" Layers that can be gated: {_quoted(close)}."

    def _suggest_name(self, name: str) -> str:
        """Suggest names for an unknown one: those that end in it, it without a wrapper's prefix, or similar ones."""
        deeper = self._gateable(self._matched(f"**.{name}"))
        if deeper:
            return f" {_layers(len(deeper))} end in it: {_quoted(deeper)}; write '**.{name}' for all of them."
        _, _, unwrapped = name.partition(".")
        if unwrapped in self.modules:
            return f" Did you mean {unwrapped!r}?"
        close = nearest(name, [*self.kinds, *self.layers], n=3) or nearest(name, self.modules, n=3)
        return f" Did you mean {' or '.join(map(repr, close))}?" if close else self._list_gateable(name)

    def _suggest_wider(self, pattern: str) -> str:
        """Suggest a wider pattern that selects layers, or else names similar to the pattern."""
        for wider in _wider_patterns(pattern):
            count = self._count_gateable(wider)
            if count:
                return f" Did you mean {wider!r} ({_layers(count)})?"
        close = nearest(pattern.removeprefix(REGEX_PREFIX), self.layers, n=_SHOWN)
        return f" Similar names: {_quoted(close)}." if close else self._list_gateable(pattern)

    def _count_gateable(self, pattern: str) -> int:
        try:
            return len(self._gateable(self._matched(pattern)))
        except MatchError:
            # A regular expression that is valid alone may be invalid inside another.
            return 0


def _wider_patterns(pattern: str) -> list[str]:
    """Return patterns that match more names: across dots, or a part of a name."""
    if pattern.startswith(REGEX_PREFIX):
        return [f"{REGEX_PREFIX}.*(?:{pattern[len(REGEX_PREFIX) :]}).*"]
    single_stars = re.compile(r"(?<!\*)\*(?!\*)")
    return [single_stars.sub("**", pattern), f"**.{pattern}", pattern.replace(".", ".**.")]
