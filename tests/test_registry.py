"""Registries: register, look up, refuse and suggest names."""

from __future__ import annotations

from typing import Any

import pytest

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, DuplicateNameError, UnknownNameError
from fgadahat_hooks.registry import Registry, nearest, suggest


@pytest.fixture
def colours() -> Registry[int]:
    """Make a small registry."""
    table: Registry[int] = Registry("colour")
    table.register("red")(1)
    table.register("dark_blue")(2)
    return table


def test_registered_entries_are_found(colours: Registry[int]) -> None:
    assert colours.get("red") == 1
    assert colours.names() == ("dark_blue", "red")
    assert list(colours) == ["dark_blue", "red"]
    assert len(colours) == 2
    assert "red" in colours
    assert repr(colours) == "<Registry of colour: dark_blue, red>"


def test_the_decorator_returns_its_argument() -> None:
    table: Registry[type[Any]] = Registry("thing")

    @table.register("mine")
    class Mine:
        pass

    assert table.get("mine") is Mine


@pytest.mark.parametrize("absent", ["green", "Red", "", None, 3, ["red"]])
def test_membership_accepts_anything(colours: Registry[int], absent: object) -> None:
    assert absent not in colours


def test_a_name_can_be_registered_once(colours: Registry[int]) -> None:
    with pytest.raises(DuplicateNameError) as caught:
        colours.register("red")(3)
    assert str(caught.value) == (
        "Expected a new name for a colour, got 'red', which is taken by 1. "
        "Choose another name, or pass force=True to replace that one."
    )
    assert colours.get("red") == 1


def test_one_decorator_used_twice_is_a_duplicate() -> None:
    table: Registry[int] = Registry("colour")
    add = table.register("red")
    add(1)
    with pytest.raises(DuplicateNameError):
        add(2)


def test_force_replaces(colours: Registry[int]) -> None:
    colours.register("red", force=True)(3)
    assert colours.get("red") == 3


@pytest.mark.parametrize("name", ["", " red", "red ", None, 3, int])
def test_a_name_is_a_string(colours: Registry[int], name: Any) -> None:
    with pytest.raises(BadCallError) as caught:
        colours.register(name)
    assert str(caught.value) == (
        f"Expected the name of a colour as text without spaces around it, got {name!r}. "
        'Write e.g. @register("my_colour"), with the brackets.'
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rad", "got 'rad'. Did you mean 'red'? Registered: dark_blue, red."),
        ("Dark-Blue", "got 'Dark-Blue'. Did you mean 'dark_blue'? Registered: dark_blue, red."),
        ("blue", "got 'blue'. Did you mean 'dark_blue'? Registered: dark_blue, red."),
        ("yellow", "got 'yellow'. Registered: dark_blue, red."),
        (3, "got 3. Registered: dark_blue, red."),
        (["red"], "got ['red']. Registered: dark_blue, red."),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_the_list(colours: Registry[int], name: Any, words: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        colours.get(name)
    assert str(caught.value) == f"Expected the name of a colour, {words}"


def test_an_empty_registry_says_so() -> None:
    table: Registry[int] = Registry("colour")
    with pytest.raises(UnknownNameError, match=r"got 'red'\. No colour is registered\.$"):
        table.get("red")
    assert repr(table) == "<Registry of colour: empty>"


@pytest.mark.parametrize(
    ("word", "n", "expected"),
    [
        ("hatt", 1, ["hat"]),
        ("ADAHAT", 2, ["ada_hat", "hat"]),
        ("sum", 3, ["no_sum"]),
        ("su", 3, []),
        ("xyz", 3, []),
        ("", 3, []),
        (None, 3, []),
    ],
)
def test_nearest(word: object, n: int, expected: list[str]) -> None:
    assert nearest(word, ["hat", "ada_hat", "no_sum"], n) == expected


def test_suggest() -> None:
    assert suggest("hatt", ["hat", "mean"]) == " Did you mean 'hat'?"
    assert suggest("zzz", ["hat", "mean"]) == ""
    assert suggest("hat", []) == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("measures", "measure"),
        ("strategies", "strategy"),
        ("schedulers", "scheduler"),
        ("aggregations", "aggregation"),
        ("layer_types", "layer type"),
    ],
)
def test_the_registries(name: str, kind: str) -> None:
    assert getattr(registry, name).kind == kind
