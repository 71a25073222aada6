"""The spy, registered as a measure during a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fgadahat_hooks as fh
from fgadahat_hooks import registry
from tests.callbacks.spy import Spy


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Spy]]:
    monkeypatch.setattr(registry.measures, "_items", {**registry.measures._items})
    fh.register_measure("spy")(Spy)
    Spy.views, Spy.value = [], 1.0
    yield Spy
    Spy.views = []
